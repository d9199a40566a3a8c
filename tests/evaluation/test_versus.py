"""`simcse-bench compare`: two evaluated models, task by task and pair by pair."""

import json
from pathlib import Path

import numpy as np
import pytest

from simcse_bench.data.pairs import Pairs
from simcse_bench.evaluation import compare
from simcse_bench.reports.report import Report


@pytest.fixture
def evaluated(cli, bert, senteval):
    """Two reports of one checkpoint: cls and mean pooling."""
    for name, pooling in (("one", "cls"), ("two", "mean")):
        done = cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--data-dir", senteval, "--device",
                   "cpu", "--limit", "40", "--name", name, "-q")  # fmt: skip
        assert done.code == 0, done.err
    paths = {name: next(Path("results/sts").glob(f"{name}--*.json")) for name in ("one", "two")}
    return {name: path.rename(path.with_name(f"{name}.json")) and path for name, path in paths.items()}


def moved(path):
    return path.with_name(path.name.split("--")[0] + ".json")


@pytest.fixture
def reports(evaluated):
    for path in evaluated.values():
        pairs = path.with_name(path.stem + ".pairs.jsonl")
        pairs.rename(pairs.with_name(f"{pairs.name.split('--')[0]}.pairs.jsonl"))
    return {name: moved(path) for name, path in evaluated.items()}


def test_every_task_with_its_difference(cli, reports, senteval):
    done = cli("compare", "one", reports["two"], "--data-dir", senteval, "--worst", "3")
    assert done.code == 0, done.err
    a, b = (Report.load(path) for path in reports.values())
    for name in a.tasks:
        one, two = (r.tasks[name]["scores"]["spearman"]["all"]["value"] for r in (a, b))
        assert f"{two - one:+.2f}" in done.out
    average = [r.average["spearman"]["all"]["value"] for r in (a, b)]
    assert f"{average[0]:.2f}" in done.out
    assert "the 3 pairs seen most differently" in done.out


def test_a_model_beside_itself(cli, reports, senteval):
    side = compare.read_side(str(reports["one"]), Path("results"))
    table = compare.compare(side, side, compare.read_data([side, side], senteval, None, "main"))
    for row in table.rows[:-1]:
        assert row[3:6] == ["+0.00", "+0.00 to +0.00", "1.0000"]


def test_the_pairs_seen_most_differently_by_hand():
    pairs = Pairs(("a", "b", "c", "d"), ("A", "B", "C", "D"), np.array([1.0, 2.0, 3.0, 4.0]), ("x",) * 4)
    report = Report("k", "sts", {"name": "m"}, {}, {"t": {"title": "T"}}, None, {}, None, {}, {}, {}, "")
    first = compare.Side(report, {"t": [0.1, 0.2, 0.3, 0.4]}, "m")
    second = compare.Side(report, {"t": [0.9, 0.2, 0.3, 0.4]}, "n")
    table = compare.worst_pairs(first, second, {"t": pairs}, 1)
    assert table.rows == [["T", "25", "25", "100", "a", "A"]]


def test_a_report_without_its_pairs_is_told(cli, reports, senteval):
    Path("results/sts/one.pairs.jsonl").unlink()
    done = cli("compare", "one", "two", "--data-dir", senteval)
    assert done.code == 2
    assert "evaluate one again with --force" in done.err


@pytest.mark.parametrize("content", ["{", "[]", '{"key": "other"}\n', '{"schema": 1}\n', ""])
def test_damaged_or_foreign_pairs_are_told(cli, reports, senteval, content):
    Path("results/sts/one.pairs.jsonl").write_text(content)
    done = cli("compare", "one", "two", "--data-dir", senteval)
    assert done.code == 2
    assert "one.pairs.jsonl" in done.err
    assert "Traceback" not in done.err


def test_reports_on_other_data_do_not_mix(cli, reports, bert, senteval):
    done = cli("eval", "--model", bert, "--pooling", "cls", "--head", "none", "--data-dir", senteval, "--device", "cpu",
               "--limit", "30", "--name", "three", "-q")  # fmt: skip
    assert done.code == 0, done.err
    third = next(Path("results/sts").glob("three--*.json"))
    done = cli("compare", "one", third, "--data-dir", senteval)
    assert done.code == 2
    assert "made on different data" in done.err
    lines = Path("results/sts/one.json").read_text()
    content = json.loads(lines)
    for task in content["tasks"].values():
        task["data"]["fingerprint"] = "0" * 16
    Path("results/sts/one.json").write_text(json.dumps(content))
    done = cli("compare", "results/sts/one.json", "results/sts/one.json", "--data-dir", senteval)
    assert done.code == 2
    assert "not that of the reports" in done.err


@pytest.mark.parametrize(
    "args, said",
    [
        (["one"], "name at least two"),
        (["one", "nobody"], "simcse-bench eval --model nobody"),
        (["one", "two", "--worst", "-1"], "--worst -1"),
    ],
)
def test_a_wrong_command_is_told(cli, reports, args, said):
    done = cli("compare", *args)
    assert done.code == 2
    assert said in done.err
