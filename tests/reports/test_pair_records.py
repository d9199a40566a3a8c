"""The pairs beside a report: what is written is what is read; what is not whole is told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simcse_bench import evaluate, read_pairs
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.task import SIMCSE
from simcse_bench.errors import UserError
from simcse_bench.evaluation.metrics import correlation
from simcse_bench.reports.pair_records import load_pairs, load_records, load_worst
from simcse_bench.reports.report import Report

OLD = Path(__file__).parents[1] / "version1" / "mini" / "CLS--cls-none.json"
COLUMNS = [
    "model",
    "suite",
    "task",
    "subset",
    "id",
    "left",
    "right",
    "gold",
    "cosine",
    "gold_rank",
    "cosine_rank",
    "key",
    "path",
]


class Letters:
    """How often each letter stands in a sentence."""

    def encode(self, texts):
        return np.array([[text.lower().count(chr(i)) for i in range(97, 123)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    tasks = [load_task(name) for name in ("mini-sts", "mini-minimal-pairs")]
    evaluate(Letters(), tasks, replace(SIMCSE, resamples=100), limit=6, name="letters", save=folder / "letters.json")
    return folder


@pytest.fixture
def beside(evaluated):
    shutil.copytree(evaluated, "results/tasks")
    return Path("results/tasks/letters.pairs.jsonl")


def lines(path):
    return path.read_text("utf-8").splitlines(keepends=True)


def test_every_pair_with_its_sentences_gold_and_cosine(beside):
    report_path = beside.with_name(beside.name.replace(".pairs.jsonl", ".json"))
    report, frame = Report.load(report_path), read_pairs(beside)
    assert list(frame.columns) == COLUMNS
    assert frame.equals(read_pairs(report_path))
    assert frame.equals(read_pairs("results"))
    for name, task in report.tasks.items():
        rows, data = frame[frame.task == name], read_task_pairs(load_task(name), "test", "senteval", None).head(6)
        assert (tuple(rows.left), tuple(rows.right), tuple(rows.subset)) == (data.left, data.right, data.subset)
        assert rows.gold.tolist() == data.gold.tolist()
        score = correlation("spearman", rows.cosine.to_numpy(), rows.gold.to_numpy())
        assert round(score, 6) == task["scores"]["spearman"]["all"]["value"]
        assert np.allclose(rows.cosine_rank, rows.cosine.rank(pct=True) * 100, atol=1e-4)  # pandas' own ranks
    assert frame.id.is_unique
    assert frame.id[0] == f"mini-sts/{frame.subset[0]}/0"
    plain = pd.DataFrame(map(json.loads, lines(beside)[1:]))  # without us
    assert plain.equals(frame[list(plain.columns)])


def test_the_page_shows_the_pairs_furthest_out_of_order(beside):
    path = beside.with_name(beside.name.replace(".pairs.jsonl", ".json"))
    report = Report.load(path)
    worst = load_worst(path, report)["mini-sts"]
    frame = read_pairs(beside).query("task == 'mini-sts'")
    distance = (frame.gold_rank - frame.cosine_rank).abs()
    assert worst[0]["left"] == frame.left[distance.idxmax()]
    assert len(worst) == 20
    assert len(load_pairs(path, report)["mini-sts"]) == len(frame)


def test_files_of_version_1_give_their_cosines_and_no_sentences():
    report = Report.load(OLD)
    assert len(load_pairs(OLD, report)["mini-sts"]) == report.tasks["mini-sts"]["n"]
    assert len(load_worst(OLD, report)["mini-sts"]) == 20
    with pytest.raises(UserError, match=r"CLS--cls-none.pairs.jsonl: written before .* again with --force"):
        read_pairs(OLD)
    with pytest.raises(UserError, match="written before"):
        read_pairs(OLD.parent)


def broken(beside, change):
    rows = lines(beside)
    beside.write_text("".join(change(rows)), "utf-8")
    with pytest.raises(UserError) as raised:
        read_pairs(beside)
    (problem,) = raised.value.problems
    assert str(beside) in problem
    return problem


def edit(row, **fields):
    return json.dumps(json.loads(row) | fields) + "\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "29 pairs of task 'mini-minimal-pairs', the report has 30"),
        (lambda rows: [*rows, rows[-1]], "31 pairs of task 'mini-minimal-pairs', 1 of them twice, the report has 30"),
        (lambda rows: [*rows[:2], rows[1], *rows[3:]], "30 pairs of task 'mini-sts', 1 of them twice"),
        (lambda rows: [*rows, edit(rows[-1], task="other")], "1 pairs of task 'other', the report has none"),
        (lambda rows: [edit(rows[0], key="0"), *rows[1:]], "belongs to another evaluation"),
        (lambda rows: [edit(rows[0], schema=3), *rows[1:]], ":1: not a report's pairs"),
        (lambda rows: [*rows[:4], edit(rows[4], cosine="0.1"), *rows[5:]], ":5: not a report's pairs"),
        (lambda rows: [*rows[:4], edit(rows[4], cosine=5.2), *rows[5:]], ":5: cosine 5.2, expected -1 to 1"),
        (lambda rows: [*rows[:4], edit(rows[4], cosine=-1e308), *rows[5:]], ":5: cosine -1e+308, expected -1 to 1"),
        (lambda rows: [*rows[:4], rows[4][:40] + "\n", *rows[5:]], ":5: not readable JSON"),
        (lambda rows: rows[:1], "0 pairs of task 'mini-sts'"),
        (lambda rows: [], "it is empty"),
    ],
)
def test_what_is_not_whole_is_told(beside, change, said):
    assert said in broken(beside, change)


def test_below_a_folder_the_damaged_are_left_out(beside, tmp_path):
    shutil.copytree("results/tasks", "results/more")
    shutil.rmtree("results/tasks")
    shutil.copytree("results/more", "results/tasks")
    next(Path("results/more").glob("*.jsonl")).write_text("", "utf-8")
    with pytest.warns(UserWarning, match="left out: results/more/.*it is empty"):
        frame = read_pairs("results")
    assert set(frame.path.str.split("/").str[1]) == {"tasks"}
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no report with pairs"):
        read_pairs("none")
    with pytest.raises(UserError, match="No such file"):
        read_pairs("nowhere.json")


def test_a_report_without_pairs(beside):
    beside.unlink()
    path = beside.with_name(beside.name.replace(".pairs.jsonl", ".json"))
    with pytest.raises(UserError, match=r"no such file; evaluate .* again with --force to write it"):
        load_records(path, Report.load(path))
    assert load_worst(path, Report.load(path)) == {}
