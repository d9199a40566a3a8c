"""Ranks, MRR and hits against a plain loop and by hand; means over queries: interval and test; end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn.metrics import average_precision_score
from tiny import sentences

from simcse_bench import read_pairs
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import EvalProtocol
from simcse_bench.evaluation.evaluate import evaluate
from simcse_bench.evaluation.ranking import (
    mean_difference_of_values,
    mean_replicates,
    ranking_values,
    ranks_of_positives,
)
from simcse_bench.evaluation.statistics import percentile_interval

POOL = ("q", "near", "same", "far", "nought")
VECTORS = np.array([[1, 0], [1, 0.1], [1, 0.1], [0, 1], [0, 0]], dtype=np.float32)


def ranking(queries, positives, candidates=(), pool=POOL):
    return Ranking(tuple(queries), tuple(positives), tuple(candidates), pool, tuple(range(len(queries))))


def test_ranks_by_hand():
    """A tie is no nearer candidate, the query is none, the nearest of several positives counts, itself included."""
    data = ranking(["q", "q", "q", "q", "far"], [("near",), ("far",), ("nought", "far"), ("q",), ("q",)])
    assert ranks_of_positives(data, VECTORS).tolist() == [1, 3, 3, 1, 3]


def test_a_query_without_direction_is_last():
    assert ranks_of_positives(ranking(["nought"], [("near",)]), VECTORS).tolist() == [len(POOL)]


def test_candidates_of_its_own():
    data = ranking(["q", "q"], [("far",), ("far",)], [("near", "nought"), ("nought",)])
    assert ranks_of_positives(data, VECTORS).tolist() == [2, 1]


def official(pool, pairs, vectors):
    """EvalRank's protocol, written again as a loop: the query is in the pool, its rank is the positive's place."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    place = {s: i for i, s in enumerate(pool)}
    ranks = []
    for query, positive in pairs:
        scores = centred @ centred[place[query]]
        ranks.append(max(1, int((scores > scores[place[positive]] + 1e-12).sum())))
    return ranks


def test_as_evalrank():
    rng = np.random.default_rng(1)
    pool = tuple(f"s{i}" for i in range(60))
    vectors = rng.normal(1, 1, (60, 8))
    pairs = [(f"s{a}", f"s{b}") for a, b in rng.integers(0, 60, (80, 2))]
    data = ranking([a for a, _ in pairs], [(b,) for _, b in pairs], pool=pool)
    found = ranks_of_positives(data, vectors.astype(np.float32), center=True)
    assert found.tolist() == official(pool, pairs, vectors.astype(np.float32).astype(np.float64))
    assert found.tolist() != ranks_of_positives(data, vectors.astype(np.float32)).tolist()


def test_mrr_and_hits_by_hand():
    values = ranking_values(np.array([1.0, 2.0, 3.0, 4.0]))
    assert values["mrr"].mean() == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert (values["hits@1"].mean(), values["hits@3"].mean()) == (25, 75)


def test_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(2).exponential(10, 300)
    low, high = percentile_interval(mean_replicates(values[None], range(300), 4000, 0)[0])
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (low, high) == (pytest.approx(theirs.low, abs=0.15), pytest.approx(theirs.high, abs=0.15))


def test_rows_of_one_unit_are_drawn_together():
    """Every value twice: as one unit the interval is that of half as many rows, as two it is too narrow."""
    values = np.random.default_rng(3).normal(0, 1, 200)
    once = mean_replicates(values[None], range(200), 2000, 0)[0].std()
    twice, units = np.repeat(values, 2)[None], np.repeat(np.arange(200), 2)
    assert mean_replicates(twice, units, 2000, 0)[0].std() == pytest.approx(once)
    assert mean_replicates(twice, range(400), 2000, 0)[0].std() == pytest.approx(once / 2**0.5, rel=0.1)


def test_difference_of_means():
    rng = np.random.default_rng(4)
    first = rng.normal(50, 10, 200)
    second = first + rng.normal(1, 5, 200)
    found, moved = mean_difference_of_values(first, second, range(200))
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert len(moved) == 1000
    theirs = stats.permutation_test(
        (first, second), lambda x, y: np.mean(y - x), permutation_type="samples", n_resamples=4000, rng=0,
        vectorized=False,
    )  # fmt: skip
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert found.interval[0] < found.value < found.interval[1]
    same, _ = mean_difference_of_values(first, first, range(200))
    assert (same.value, same.p, same.interval) == (0, 1, (0, 0))


@pytest.fixture
def tasks(tmp_path):
    """A task of each kind over one pool of sentences."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    pool = list(dict.fromkeys(sentences(90)))[:60]
    rows = [{"query": pool[i], "positives": [pool[i + 20], pool[i + 21]]} for i in range(20)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    pairs = "".join(f"{i % 2}\t{pool[i]}\t{pool[i + 20]}\n" for i in range(40))
    (folder / "pairs.tsv").write_text(pairs, encoding="utf-8")
    triplets = "".join(f"{pool[i]}\t{pool[i + 20]}\t{pool[i + 40]}\n" for i in range(20))
    (folder / "triplets.tsv").write_text(triplets, encoding="utf-8")
    splits = {"test": {"test": None}}
    columns = {"anchor": 0, "positive": 1, "negative": 2}
    for name, content in {
        "rank": {"kind": "ranking", "source": {"format": "jsonl", "path": "queries.jsonl"}},
        "para": {"kind": "paraphrase", "source": {"format": "tsv", "path": "pairs.tsv"}},
        "trip": {"kind": "triplet", "source": {"format": "tsv", "path": "triplets.tsv", "columns": columns}},
        "trip2": {"kind": "triplet", "source": {"format": "tsv", "path": "triplets.tsv", "columns": columns}},
    }.items():
        own = {"dev": {"dev": None}, **splits} if name == "para" else splits
        text = yaml.safe_dump({"title": name.title(), "splits": own} | content)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "suites.yaml").write_text("kinds: [rank, para, trip]\ntwo: [trip, trip2]\n", encoding="utf-8")
    return folder


def measured(cli, folder, suite, *more):
    for pooling in ("avg", "cls"):
        done = cli("eval", "--model", "mini", "--pooling", pooling, "--head", "none", "--suite", suite, "--tasks-dir", folder,
                   "--device", "cpu", "--name", pooling, *more)  # fmt: skip
        assert done.code == 0, done.err
    paths = {path.name.partition("--")[0]: path for path in Path("results", suite).glob("*.json")}
    return done, paths


def test_every_kind_end_to_end(cli, tasks):
    done, paths = measured(cli, tasks, "kinds")
    assert "accuracy ×100, average precision ×100, MRR ×100, protocol simcse, test" in done.out
    report = json.loads(paths["avg"].read_text())
    scores = {name: task["scores"] for name, task in report["tasks"].items()}
    assert [*scores["rank"]] == ["mrr", "hits@1", "hits@3"]
    assert [*scores["para"]] == ["ap", "f1", "accuracy"]
    assert [*scores["trip"]] == ["accuracy"]
    for by_metric in scores.values():
        for entry in by_metric.values():
            low, high = entry["all"]["interval"]
            assert low <= entry["all"]["value"] <= high
    assert report["average"] is None  # of three kinds
    page = " ".join(paths["avg"].with_suffix(".md").read_text().split())
    for shown in ("| Rank | hits@3 | 20 |", "| Para | f1 | 40 |", "| Para | · dev, f1 | 40 |", "best threshold"):
        assert shown in page
    lines = [json.loads(line) for line in paths["avg"].with_name(f"{paths['avg'].stem}.pairs.jsonl").open()]
    valued = {line["task"]: np.array(line["values"]) for line in lines[1:] if "values" in line}
    para = [line for line in lines[1:] if "cosine" in line]
    assert [line["id"] for line in para] == [f"para/test/{i}" for i in range(40)]
    ap = average_precision_score([line["gold"] for line in para], [line["cosine"] for line in para])
    assert scores["para"]["ap"]["all"]["value"] == pytest.approx(100 * ap, abs=1e-6)
    assert read_pairs(paths["avg"])["task"].unique().tolist() == ["para"]
    ranks = valued["rank"]
    assert scores["rank"]["mrr"]["all"]["value"] == pytest.approx(100 * (1 / ranks).mean())
    assert scores["trip"]["accuracy"]["all"]["value"] == 100 * np.mean(valued["trip"] > 0)
    again = cli("eval", "--model", "mini", "--pooling", "avg", "--head", "none", "--suite", "kinds", "--tasks-dir", tasks,
                "--device", "cpu", "--name", "avg")  # fmt: skip
    assert "already there" in again.err
    board = cli("report", "results")
    assert board.code == 0, board.err


def test_compare_every_kind(cli, tasks):
    _, paths = measured(cli, tasks, "kinds", "-q")
    done = cli("compare", paths["avg"], paths["cls"], "--tasks-dir", tasks)
    assert done.code == 0, done.err
    assert "Of each task the first metric of its kind" in done.out
    assert "the 20 pairs seen most differently" in done.out  # of the paraphrases
    a, b = (json.loads(paths[name].read_text())["tasks"] for name in ("avg", "cls"))
    for task, metric in (("rank", "mrr"), ("para", "ap"), ("trip", "accuracy")):
        one, other = (t[task]["scores"][metric]["all"]["value"] for t in (a, b))
        assert f"{other - one:+.2f}" in done.out
    assert "Avg." not in done.out
    (tasks / "triplets.tsv").write_text("a\tb\tc\n", encoding="utf-8")
    changed = cli("compare", paths["avg"], paths["cls"], "--tasks-dir", tasks)
    assert changed.code == 2
    assert "trip: the data here is not that of the reports" in changed.err


def test_an_average_of_one_kind(cli, tasks):
    from simcse_bench.evaluation.compare import compare

    _, paths = measured(cli, tasks, "two", "-q")
    found = compare(paths["avg"], paths["cls"], where=DataSource(tasks_dir=tasks)).set_index("task")
    assert [*found.index] == ["trip", "trip2", "avg"]
    assert found.loc["avg", "difference"] == pytest.approx(found.loc[["trip", "trip2"], "difference"].mean())
    assert found.loc["avg", "low"] <= found.loc["avg", "difference"] <= found.loc["avg", "high"]
    report = json.loads(paths["avg"].read_text())
    assert report["average"]["accuracy"]["all"]["interval"] is not None
    assert found["metric"].unique().tolist() == ["accuracy"]


def test_a_damaged_file_of_ranks(cli, tasks):
    from simcse_bench.errors import UserError
    from simcse_bench.reports.pair_records import load_pairs
    from simcse_bench.reports.report import Report

    _, paths = measured(cli, tasks, "kinds", "-q")
    beside = paths["avg"].with_name(f"{paths['avg'].stem}.pairs.jsonl")
    whole = beside.read_text()
    head, ranks, *others = whole.splitlines(keepends=True)
    for lines, said in (
        ([ranks.replace('"values"', '"ranks"'), *others], "values: it is missing"),
        ([ranks.replace("[", "[1.0, "), *others], "21 values of task 'rank', the report has 20"),
        (others, "no values of task 'rank', the report has 20"),
        ([ranks, ranks, *others], "20 and 20 values of task 'rank'"),
        ([ranks, *others[1:]], "39 pairs of task 'para', the report has 40"),
    ):
        beside.write_text(head + "".join(lines))
        with pytest.raises(UserError, match=said):
            load_pairs(paths["avg"], Report.load(paths["avg"]))


def test_scored_again_from_vectors_only(cli, tasks):
    """A report's pairs do not hold what these kinds need, and that is said; of vectors the numbers are the same."""
    _, paths = measured(cli, tasks, "kinds", "-q")
    refused = cli("rescore", paths["avg"])
    assert (refused.code, "rank, para, trip are no STS tasks" in refused.err) == (2, True)
    assert "Traceback" not in refused.err
    rules = ("--suite", "kinds", "--tasks-dir", tasks)
    assert cli("data", "sentences", *rules, "--out", "s.txt").code == 0
    made = cli("encode", "s.txt", "--model", "mini", "--pooling", "avg", "--head", "none", "--device", "cpu", "--raw",
               "--out", "v.npy")  # fmt: skip
    assert made.code == 0, made.err
    done = cli("rescore", "v.npy", *rules, "--out", "again", "--name", "avg")
    assert done.code == 0, done.err
    (again,) = Path("again").rglob("avg*.json")
    for name, task in json.loads(paths["avg"].read_text())["tasks"].items():
        for metric, by in json.loads(again.read_text())["tasks"][name]["scores"].items():
            assert by["all"]["value"] == pytest.approx(task["scores"][metric]["all"]["value"], abs=1e-4)


def test_in_python_and_centred(tasks):
    class Shifted:
        def encode(self, texts):
            rows = [np.random.default_rng(len(t) * 1000 + ord(t[0])).normal(0, 1, 8) for t in texts]
            return np.stack(rows).astype(np.float32) + 5

    path = tasks / "rank.yaml"
    plain = evaluate(Shifted(), [load_task("rank", tasks)], EvalProtocol("simcse", text="senteval"), suite="s")
    path.write_text(path.read_text() + "center: true\n")
    centred = evaluate(Shifted(), [load_task("rank", tasks)], EvalProtocol("simcse", text="senteval"), suite="s")
    assert plain.key != centred.key
    assert centred.protocol["centred"] == ["rank"]
    assert centred.tasks["rank"]["ranking"]["center"] is True
    assert plain.tasks["rank"]["scores"] != centred.tasks["rank"]["scores"]


def test_what_training_measures_is_another_kind(tasks):
    from simcse_bench.errors import UserError
    from simcse_bench.training.selection import read_dev

    with pytest.raises(UserError, match="para is a paraphrase task; what is measured during training"):
        read_dev("para", False, DataSource(tasks_dir=tasks))


@pytest.mark.data
def test_evalrank_of_the_real_sts_benchmark(real_data):
    """The best 2,157 of 8,628 pairs, each direction once."""
    from simcse_bench.data.ranking import read_ranking

    data = read_ranking(load_task("evalrank-stsb"), "test", "senteval", real_data)
    assert 1900 < len(set(data.unit)) <= 2157
    assert len(data.pool) > 15_000
    assert all(len(p) == 1 for p in data.positives)
