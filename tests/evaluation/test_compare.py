"""`compare`: two evaluated models, task by task and pair by pair."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from simcse_bench.data.pairs import Pairs
from simcse_bench.data.senteval import DataSource
from simcse_bench.evaluation import compare
from simcse_bench.reports.report import Report

pytestmark = pytest.mark.usefixtures("few_resamples")


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
    found = compare.differences(side, side, compare.read_data([side, side], DataSource(senteval)))
    assert list(found["task"]) == [*side.report.tasks, "avg"]
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)
    assert list(found["p"][:-1]) == list(found["holm"][:-1]) == [1.0] * len(side.report.tasks)
    for row in compare.comparison_table("one", "two", found).rows[:-1]:
        assert row[3:6] == ["+0.00", "+0.00 to +0.00", "1.0000"]


def test_the_pairs_seen_most_differently_by_hand():
    pairs = Pairs(("a", "b", "c", "d"), ("A", "B", "C", "D"), np.array([1.0, 2.0, 3.0, 4.0]), ("x",) * 4)
    report = Report("k", "sts", {"name": "m"}, {}, {"t": {"title": "T"}}, None, {}, None, {}, {}, {}, "")
    first = compare.Side(report, {"t": [0.1, 0.2, 0.3, 0.4]}, "m")
    second = compare.Side(report, {"t": [0.9, 0.2, 0.3, 0.4]}, "n")
    table = compare.most_different_pairs(first, second, {"t": pairs}, 1)
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


@pytest.mark.parametrize("change", ["order", "sentence"])
def test_cosines_beside_other_sentences_are_told(cli, reports, senteval, change):
    beside = Path("results/sts/one.pairs.jsonl")
    head, first, second, *rest = beside.read_text().splitlines()
    if change == "order":
        first, second = second, first
    else:
        first = json.dumps(json.loads(first) | {"left": "another sentence"})
    beside.write_text("\n".join([head, first, second, *rest]))
    done = cli("compare", "one", "two", "--data-dir", senteval)
    assert done.code == 2
    assert "one.json: the sentences beside it of sts12 are others than the data's, or in another order" in done.err


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
    for end in (".json", ".pairs.jsonl"):
        shutil.copy(f"results/sts/one{end}", f"results/sts/copy{end}")
    done = cli("compare", "results/sts/one.json", "results/sts/copy.json", "--data-dir", senteval)
    assert done.code == 2
    assert "not that of the reports" in done.err


def test_two_folders_of_one_name_are_not_one_model(cli, bert, senteval, tmp_path):
    from tiny import tiny_bert

    def evaluate(*args):
        done = cli("eval", "--pooling", "mean", "--head", "none", "--data-dir", senteval, "--device", "cpu", "--task",
                   "stsb", "-q", *args)  # fmt: skip
        assert done.code == 0, done.err

    one, other = (tmp_path / place / "m" for place in "AB")
    for seed, folder in enumerate((one, other)):
        tiny_bert(folder, seed=seed)
    evaluate("--model", one)
    (made,) = Path("results/tasks").glob("*.json")
    named = Path("results/sts/m.json")
    named.parent.mkdir()
    for end in (".json", ".pairs.jsonl"):
        made.with_name(made.stem + end).rename(named.with_name(named.stem + end))
    done = cli("compare", one, one, "--data-dir", senteval)
    assert (done.code, "are one report, results/sts/m.json" in done.err) == (2, True), done.err
    done = cli("compare", one, other, "--data-dir", senteval)
    assert done.code == 2
    assert f"results/sts/m.json is of another model than {other} (model.safetensors differ)" in done.err
    assert "--name" in done.err
    evaluate("--model", other, "--out", "elsewhere")
    (second,) = Path("elsewhere/tasks").glob("*.json")
    second.with_name(second.stem + ".pairs.jsonl").rename(second.with_name("m.pairs.jsonl"))
    done = cli("compare", one, second.rename(second.with_name("m.json")), "--data-dir", senteval)
    assert done.code == 0, done.err
    assert "elsewhere/tasks/m.json minus results/sts/m.json" in done.out


def test_pairs_of_another_number_are_told(cli, reports, senteval):
    """Today's pairs, a line each; and those of version 1, a line a task."""
    path = Path("results/sts/one.pairs.jsonl")
    head, first, *rest = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([head, *rest]), encoding="utf-8")
    done = cli("compare", "one", "two", "--data-dir", senteval)
    assert (done.code, "Evaluate again with --force" in done.err) == (2, True)
    cosines = {}
    for row in map(json.loads, (first, *rest)):
        cosines.setdefault(row["task"], []).append(round(row["cosine"], 7))
    for code in (0, 2):
        lines = [json.loads(head) | {"schema": 1}, *({"task": n, "similarities": x} for n, x in cosines.items())]
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        done = cli("compare", "one", "two", "--data-dir", senteval)
        assert (done.code, "Evaluate again with --force" in done.err) == (code, code == 2)
        cosines["stsb"].pop()


@pytest.mark.parametrize(
    "args, said",
    [
        (["one"], "name at least two"),
        (["one", "nobody"], "simcse-bench eval nobody"),
        (["one", "two", "--worst", "-1"], "--worst -1"),
    ],
)
def test_a_wrong_command_is_told(cli, reports, args, said):
    done = cli("compare", *args)
    assert done.code == 2
    assert said in done.err


def test_the_suite_that_all_have_is_found(cli, bert, tasks_dir):
    for pooling in ("cls", "mean"):
        done = cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--task", "own", "--tasks-dir", tasks_dir,
                   "--name", pooling, "--device", "cpu", "-q")  # fmt: skip
        assert done.code == 0, done.err
    by_name = cli(
        "compare", "cls", "mean", "--tasks-dir", tasks_dir
    )  # their only reports, tasks and settings in the name
    assert by_name.code == 0, by_name.err
    twice = Path(shutil.copy("results/tasks/cls--own--cls-none.json", "results/tasks/cls--own--x.json"))
    several = cli("compare", "cls", "mean", "--tasks-dir", tasks_dir)
    assert several.code == 2
    assert f"cls has several reports: results/tasks/cls--own--cls-none.json, {twice}; give the file" in several.err
    twice.unlink()
    for path in [*Path("results/tasks").glob("*.json")]:
        pairs = path.with_name(f"{path.stem}.pairs.jsonl")
        path.rename(path.with_name(path.name.split("--")[0] + ".json"))
        pairs.rename(pairs.with_name(f"{path.name.split('--')[0]}.pairs.jsonl"))
    for other in ("ablations", "analysis", "models", "overlap", "speed"):  # folders that hold no reports
        Path("results", other).mkdir()
        for name in ("cls", "mean"):
            Path("results", other, f"{name}.json").write_text("{}")
    done = cli("compare", "cls", "mean", "--tasks-dir", tasks_dir)
    assert done.code == 0, done.err
    files = [f"results/tasks/{name}.pairs.jsonl" for name in ("cls", "mean")]
    assert cli("compare", *files, "--tasks-dir", tasks_dir).out.splitlines()[1:] == done.out.splitlines()[1:]
    assert "results/tasks/nobody.json: no such report" in cli("compare", "cls", "nobody").err
    assert "results/sts/nobody.json: no such report" in cli("compare", "nobody", "none").err
