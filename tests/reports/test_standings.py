"""The site's leaderboards: seeds folded, ranks, published rows, each with a known answer."""

import dataclasses
import math

import pytest

from simcse_bench.reports.report import Report
from simcse_bench.reports.standings import Saved, board, boards, language, over_seeds


def entry(value, half=1.0):
    return {"value": value, "interval": [value - half, value + half]}


def made(name, value, task="stsb", suite="sts", **model):
    by = {m: {h: entry(value) for h in ("all", "mean", "wmean")} for m in ("spearman", "pearson")}
    data = {"split": "test", "text": "senteval", "fingerprint": "f"}
    return Report(
        key=f"{name} {model}", suite=suite, limit=None, skipped={}, average=by, stats={}, created="2026-01-01",
        tasks={task: {"title": task.upper(), "kind": "sts", "n": 5, "scores": by, "data": data, "subsets": {}}},
        model={"name": name, "pooling": "cls", "head": "none", "dtype": "float32", **model},
        protocol={"name": "simcse", "text": "senteval", "split": "test"}, seconds={"embedding": 1, "scoring": 1},
        environment={"processor": "p", "cores": 2, "versions": {}},
    )  # fmt: skip


def saved(*reports):
    return [Saved(f"sts/{i}.json", report) for i, report in enumerate(reports)]


def test_the_mean_over_seeds_has_an_interval_over_pairs_and_seeds():
    folded = over_seeds([entry(70.0, 1.0), entry(72.0, 3.0)])
    assert (folded["value"], folded["sd"]) == (71.0, pytest.approx(math.sqrt(2), abs=1e-6))
    half = math.hypot(2.0, 12.7062)  # Student's t of one degree of freedom, times sqrt(2) / sqrt(2)
    assert folded["interval"] == [pytest.approx(71 - half, abs=1e-3), pytest.approx(71 + half, abs=1e-3)]
    assert over_seeds([entry(70.0)]) == entry(70.0)  # of one seed nothing is made up
    assert over_seeds([entry(70.0), {"value": 72.0, "interval": None}])["interval"] is None


@pytest.mark.parametrize("names", [("m-seed1", "m-seed2"), ("m, seed 7", "m, seed 11"), ("m_SEED=1", "m_SEED=2")])
def test_seeds_are_one_row(names):
    (row,) = board(saved(made(names[0], 70.0), made(names[1], 72.0)))["rows"]
    assert row["model"] == "m"
    assert row["average"]["spearman"]["all"]["value"] == 71.0
    assert row["scores"]["stsb"]["pearson"]["wmean"]["sd"] == pytest.approx(1.414214)
    assert [s["average"]["spearman"]["all"]["value"] for s in row["seeds"]] == [70.0, 72.0]
    assert [m["name"] for m in row["made"]] == list(names)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (made("m-seed1", 70.0), made("m-seed2", 72.0, pooling="mean")),
        (made("m-seed1", 70.0), made("n-seed2", 72.0)),
        (made("m", 70.0), made("m", 72.0, files={"w": "2"})),  # no seed is said
        (made("seedling1", 70.0), made("seedling2", 72.0)),
    ],
)
def test_what_differs_in_more_than_the_seed_stays_apart(first, second):
    rows = board(saved(first, second))["rows"]
    assert len(rows) == 2
    assert {row["model"] for row in rows} == {first.model["name"], second.model["name"]}
    assert all(row["seeds"] == [] for row in rows)


def test_seeds_of_two_folders_stay_apart():
    reports = made("m-seed1", 70.0), made("m-seed2", 72.0)
    rows = board([Saved(f"{folder}/r.json", r) for folder, r in zip("ab", reports, strict=True)])["rows"]
    assert [row["seeds"] for row in rows] == [[], []]


def test_ranks_and_what_noise_leaves_equal():
    rows = board(saved(made("a", 80.0), made("b", 79.0), made("c", 70.0)))["rows"]
    ranks = {row["model"]: row["rank"]["spearman"]["all"] for row in rows}
    assert ranks == {"a": {"rank": 1, "tied": [2]}, "b": {"rank": 2, "tied": [1]}, "c": {"rank": 3, "tied": []}}
    without = dataclasses.replace(made("d", 90.0), average=None)
    ranks = {r["model"]: r["rank"] for r in board(saved(made("a", 80.0), without))["rows"]}
    assert ranks["d"] == {}  # no average, no rank


def test_the_published_row_stands_beside_ours():
    rows = board(saved(made("princeton-nlp/unsup-simcse-bert-base-uncased", 76.0), made("mine", 70.0)))["rows"]
    theirs = {row["model"]: row["published"] for row in rows}
    paper = theirs["princeton-nlp/unsup-simcse-bert-base-uncased"]
    assert paper["spearman"]["all"]["average"] == 76.25
    assert paper["spearman"]["all"]["scores"]["stsb"] == 76.85
    assert "pearson" not in paper  # the paper has none
    assert theirs["mine"] == {}


def test_the_papers_glove_row_stands_by_the_best_word_vectors():
    rows = board(saved(made("word-vectors:a", 50.0), made("word-vectors:b", 60.0)))["rows"]
    assert [row["published"] for row in rows if row["model"] == "word-vectors:a"] == [{}]
    (best,) = (row["published"] for row in rows if row["model"] == "word-vectors:b")
    assert best["spearman"]["all"]["average"] == 61.32


def test_comparable_reports_of_all_folders_share_a_board_and_embedded_data_come_last():
    mini = made("m", 40.0, task="mini-sts", suite="mini", embedded=True)
    drawn = boards([Saved("a/1.json", mini), Saved("b/2.json", made("x", 1.0)), Saved("c/3.json", made("y", 2.0)),
                    Saved("d/2.json", made("x", 1.0))])  # fmt: skip
    assert [(b["title"], b["embedded"]) for b in drawn] == [("STS", False), ("MINI-STS", True)]
    assert sorted(row["model"] for row in drawn[0]["rows"]) == ["x", "y"]  # the same evaluation twice is one row
    assert drawn[1]["rows"][0]["embedded"] is True


def test_languages():
    assert language(["sts12", "sickr"]) == "en"
    assert language(["stsb-vi"]) == "vi"
    assert language(["jsts"]) == "ja"
    assert language(["jsts", "stsb"]) == "several"
    assert language(["a-task-of-ones-own"]) == "other"


def test_a_part_of_a_reproduction_names_its_command():
    one = dataclasses.replace(saved(made("[CLS]", 40.0))[0], part_of="simcse-bench reproduce simcse-2021")
    (row,) = board([one])["rows"]
    assert row["made"][0]["command"] == "simcse-bench reproduce simcse-2021"
    assert dict(row["made"][0]["facts"])["report"] == "sts/0.json"


def test_the_same_evaluation_under_another_name_is_not_hidden():
    one = made("x", 1.0)
    other = dataclasses.replace(one, model={**one.model, "name": "y"})
    assert other.key == one.key
    drawn = boards([Saved("a/1.json", one), Saved("b/2.json", other)])
    assert [row["model"] for row in drawn[0]["rows"]] == ["x", "y"]
