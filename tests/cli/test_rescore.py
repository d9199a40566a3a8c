"""`simcse-bench rescore`, end to end: the report that `eval` gives, digit for digit, and no other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from simcse_bench import evaluate, load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.evaluation.rescore import rescore
from simcse_bench.files import sha256, write_json
from simcse_bench.reports.report import Report
from simcse_bench.search.vectors import open_vectors

HOW = {"seconds", "created", "model", "stats", "environment"}  # of a report; all else are its numbers and rules
TASKS = ("--task", "own,mini-minimal-pairs")


@pytest.fixture
def of_bert(bert):
    return ("--model", bert, "--pooling", "mean", "--max-length", "40", "--device", "cpu", "--name", "tiny")


@pytest.fixture
def saved(cli, of_bert, tasks_dir):
    """A report of two STS tasks, one of them a user's own."""
    done = cli("eval", *of_bert, *TASKS, "--tasks-dir", tasks_dir, "-q")
    assert done.code == 0, done.err
    (path,) = Path("results/tasks").glob("*.json")
    return path


@pytest.fixture
def text(cli, tasks_dir):
    done = cli("data", "sentences", *TASKS, "--tasks-dir", tasks_dir, "--out", "s.txt")
    assert done.code == 0, done.err
    return "s.txt"


@pytest.fixture
def vectors(cli, of_bert, text):
    options = [o for o in of_bert if o not in ("--name", "tiny")]
    assert cli("encode", text, *options, "--raw", "--out", "v.npy").code == 0
    return Path("v.npy")


def numbers(path):
    return {k: v for k, v in json.loads(Path(path).read_text("utf-8")).items() if k not in HOW}


def only(folder):
    (path,) = Path(folder).rglob("*.json")
    return path


def test_pairs_give_the_same_report(cli, saved, tasks_dir):
    """Neither the model nor the data is there any more, nor the task's file."""
    shutil.rmtree(tasks_dir)
    done = cli("rescore", saved, "--out", "again")
    assert done.code == 0, done.err
    again = only("again")
    assert again.name == saved.name
    assert numbers(again) == numbers(saved)
    beside = saved.with_name(saved.stem + ".pairs.jsonl")
    assert again.with_name(beside.name).read_bytes() == beside.read_bytes()
    model, source = Report.load(again).model, Report.load(saved)
    assert model.pop("scored_from") == {
        "what": "pairs",
        "file": beside.name,
        "sha256": sha256(beside),
        "key": source.key,
    }
    assert model == source.model
    assert Report.load(again).stats == source.stats
    assert f"scored from: pairs, {beside.name}" in again.with_suffix(".md").read_text("utf-8")
    assert "already there" in cli("rescore", beside).err  # in the same folder it is the same report
    assert "already there" in cli("rescore", again).err  # whose pairs can be scored again


def test_the_rules_can_be_others(cli, saved, of_bert, tasks_dir):
    """Other resamples: what `eval` gives with them; metric and aggregation are shown from what the report holds."""
    options = ("--resamples", "300", "--bootstrap-seed", "7")
    assert cli("rescore", saved, *options).code == 0
    own = "results/tasks/tiny--own--mini-minimal-pairs--resamples300--bootstrap7--mean-none.json"
    assert numbers(own)["tasks"] != numbers(saved)["tasks"]
    evaluated = cli("eval", *of_bert, *TASKS, "--tasks-dir", tasks_dir, "--out", "other", *options, "-q")
    assert evaluated.code == 0, evaluated.err
    assert numbers(only("other")) == numbers(own)
    values = {n: t["scores"]["pearson"]["wmean"]["value"] for n, t in Report.load(saved).tasks.items()}
    shown = cli("rescore", saved, "--metric", "pearson", "--aggregate", "wmean", "--format", "md", "-q").out
    assert all(f"{value:.2f}" in shown for value in values.values())
    assert rescore(saved, resamples=300, bootstrap_seed=7).key == Report.load(Path(own)).key


def test_vectors_give_the_same_report(cli, saved, vectors, tasks_dir):
    done = cli("rescore", vectors, *TASKS, "--tasks-dir", tasks_dir, "--out", "again", "--name", "tiny")
    assert done.code == 0, done.err
    again = only("again")
    assert numbers(again) == numbers(saved)
    record = json.loads(Path("v.npy.json").read_text("utf-8"))
    assert Report.load(again).model["scored_from"] == {
        "what": "vectors", "file": "v.npy", "sha256": record["file"], "key": record["key"], "normalized": False
    }  # fmt: skip
    report = evaluate(open_vectors("v.npy"), [load_task("own", tasks_dir)], where=DataSource(tasks_dir=tasks_dir))
    assert report.tasks["own"] == Report.load(saved).tasks["own"]


def test_a_parquet_holds_its_sentences(cli, saved, text, of_bert, tasks_dir):
    options = [o for o in of_bert if o not in ("--name", "tiny")]
    assert cli("encode", text, *options, "--raw", "--out", "v.parquet").code == 0
    Path(text).unlink()
    done = cli("rescore", "v.parquet", *TASKS, "--tasks-dir", tasks_dir, "--out", "again", "--name", "tiny")
    assert done.code == 0, done.err
    assert numbers(only("again")) == numbers(saved)
    assert "holds its own sentences" in cli("rescore", "v.parquet", "--sentences", "x").err


def test_sentences_that_stand_there_twice(cli, saved, vectors, text, of_bert, tasks_dir):
    lines = Path(text).read_text("utf-8").splitlines(keepends=True)
    Path("twice.txt").write_text("".join([*lines, "\n", *lines[::-1], "more\n"]), "utf-8")
    options = [o for o in of_bert if o not in ("--name", "tiny")]
    assert cli("encode", "twice.txt", *options, "--raw", "--out", "w.npy").code == 0
    done = cli("rescore", "w.npy", *TASKS, "--tasks-dir", tasks_dir, "--out", "again", "--name", "tiny")
    assert done.code == 0, done.err
    assert numbers(only("again"))["tasks"].keys() == numbers(saved)["tasks"].keys()
    for name, task in Report.load(only("again")).tasks.items():
        value = Report.load(saved).tasks[name]["scores"]["spearman"]["all"]["value"]
        assert task["scores"]["spearman"]["all"]["value"] == pytest.approx(value, abs=0.01)


@pytest.fixture
def probe_vectors(cli, of_bert):
    """Vectors of a transfer task's sentences, as the model gives them and scaled to length 1."""
    assert cli("data", "sentences", "--task", "mini-probe", "--out", "p.jsonl").code == 0
    options = [o for o in of_bert if o not in ("--name", "tiny")]
    for name, more in (("raw.npy", ("--raw",)), ("unit.npy", ())):
        assert cli("encode", "p.jsonl", *options, *more, "--out", name).code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("probe_vectors")
def test_transfer_tasks_from_vectors(cli, of_bert):
    rules = ("--task", "mini-probe", "--probe", "sklearn")
    assert cli("eval", *of_bert, *rules, "-q").code == 0
    done = cli("rescore", "raw.npy", *rules, "--out", "again", "--name", "tiny")
    assert done.code == 0, done.err
    assert numbers(only("again"))["tasks"] == numbers(only("results"))["tasks"]
    refused(cli("rescore", only("results")), "mini-probe is no STS task", "rescore vectors.npy")


@pytest.mark.usefixtures("probe_vectors")
def test_a_probe_takes_the_vectors_as_the_model_gives_them(cli):
    refused(cli("rescore", "unit.npy", "--task", "mini-probe", "--probe", "sklearn"), "Encode with --raw")


def refused(done, *said):
    assert done.code == 2, done.out
    assert all(line.startswith("error: ") for line in done.err.splitlines())
    assert all(text in done.err for text in said), done.err


def edit(path, number, **fields):
    rows = path.read_text("utf-8").splitlines(keepends=True)
    rows[number] = json.dumps(json.loads(rows[number]) | fields) + "\n"
    path.write_text("".join(rows), "utf-8")


def test_pairs_that_are_not_the_reports_are_refused(cli, saved):
    beside = saved.with_name(saved.stem + ".pairs.jsonl")
    whole = beside.read_bytes()
    for fields, said in (
        ({"left": "another sentence"}, "the pairs of own are not those that the report was made on"),
        ({"gold": 4.9}, "the pairs of own are not those"),
        ({"subset": "other"}, "the pairs of own are not those"),
        ({"task": "mini-minimal-pairs"}, "29 pairs of task 'own', the report has 30"),
        ({"id": "own/test/1"}, "30 pairs of task 'own', 1 of them twice"),
        ({"cosine": None}, ":2: not a report's pairs"),
    ):
        edit(beside, 1, **fields)
        refused(cli("rescore", saved), said, beside.name)
        beside.write_bytes(whole)
    rows = whole.splitlines(keepends=True)
    beside.write_bytes(b"".join(rows[:-1]))
    refused(cli("rescore", beside), "pairs of task 'mini-minimal-pairs', the report has")
    beside.write_bytes(b"".join([rows[0], rows[2], rows[1], *rows[3:]]))  # another order
    refused(cli("rescore", beside), "order differ")
    beside.unlink()
    refused(cli("rescore", saved), "no such file; evaluate tiny again with --force")
    refused(cli("rescore", "none.json"), "none.json")
    assert not list(Path("results").rglob("*resamples*"))


def test_options_that_pairs_decide_are_refused(cli, saved):
    refused(cli("rescore", saved, "--suite", "sts", "--probe", "fast"), "--suite, --probe: not with", saved.name)
    refused(cli("rescore", saved, "--resamples", "5"), "--resamples 5: expected 100 to 10,000")
    refused(cli("rescore", saved, "--bootstrap-seed", "-1"), "--bootstrap-seed -1: expected 0 or more")
    refused(cli("rescore", saved, "--metric", "kendall", "--aggregate", "sum"), "unknown metric 'kendall'", "'sum'")
    refused(cli("rescore", "x.txt"), "x.txt: no vectors; expected a file that `simcse-bench encode` wrote")


def test_vectors_that_do_not_fit_are_refused(cli, vectors, tasks_dir):
    own = ("--task", "own", "--tasks-dir", tasks_dir)
    other = Path("other.txt")
    other.write_text("".join(Path("s.txt").read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    refused(cli("rescore", vectors, *own, "--sentences", other), "other.txt: not the text that v.npy was made of")
    refused(cli("rescore", vectors, "--task", "mini-sts"), "v.npy: no vector for", "`simcse-bench data sentences`")
    refused(cli("rescore", vectors, "--suite", "mini", "--task", "own"), "--suite and --task exclude each other")
    refused(cli("rescore", "none.npy", *own), "none.npy: no such file")
    shutil.copy(vectors, "alone.npy")
    refused(cli("rescore", "alone.npy", *own), "alone.npy.json: no such file; `simcse-bench encode` writes this record")
    Path("s.txt").rename("moved.txt")
    refused(cli("rescore", vectors, *own), "give the text that it was made of: --sentences FILE")
    assert cli("rescore", vectors, *own, "--sentences", "moved.txt").code == 0
    record, array = json.loads(Path("v.npy.json").read_text("utf-8")), np.load(vectors)
    np.save(vectors, array[:-1])
    refused(cli("rescore", vectors, *own, "--sentences", "moved.txt"), "not the file of its record v.npy.json")
    write_json(Path("v.npy.json"), record | {"file": sha256(vectors)})  # a record that says so
    refused(
        cli("rescore", vectors, *own, "--sentences", "moved.txt", "--force"), f"vectors of shape {array[:-1].shape} for"
    )
    vectors.write_bytes(b"no array")
    write_json(Path("v.npy.json"), record | {"file": sha256(vectors)})
    refused(cli("rescore", vectors, *own, "--sentences", "moved.txt", "--force"), "v.npy: damaged or cut off")
    Path("v.npy.json").write_text("{}", "utf-8")
    refused(cli("rescore", vectors, *own), "v.npy.json: not the record of a file of vectors")


def test_a_report_that_is_there_is_not_that_of_other_vectors(cli, saved, vectors, of_bert, tasks_dir):
    own = (*TASKS, "--tasks-dir", tasks_dir, "--out", "again", "--name", "tiny")
    assert cli("rescore", vectors, *own).code == 0
    assert "already there" in cli("rescore", vectors, *own).err
    Path("foreign.txt").write_text("something else\n", encoding="utf-8")
    options = [o for o in of_bert if o not in ("--name", "tiny")]
    assert cli("encode", "foreign.txt", *options, "--raw", "--out", "w.npy").code == 0
    refused(cli("rescore", "w.npy", *own), "w.npy: no vector for")


def test_a_file_of_the_users_own_is_not_replaced_by_sentences(cli, text):
    command = ("data", "sentences", "--task", "mini-sts", "--out", text)
    before = Path(text).read_bytes()
    refused(cli(*command), "s.txt: exists, and holds something else. Give --force")
    assert Path(text).read_bytes() == before
    assert cli(*command, "--force").code == 0
    assert Path(text).read_bytes() != before
    assert cli(*command).code == 0  # the same again


def test_the_sentences_of_an_evaluation(cli, tasks_dir, tmp_path):
    assert cli("data", "sentences", "--task", "own", "--tasks-dir", tasks_dir, "--out", "s.jsonl").code == 0
    fields = [line.split("\t") for line in (tasks_dir / "own.tsv").read_text("utf-8").splitlines()]
    expected = dict.fromkeys(sentence for row in fields for sentence in row[1:])
    assert [json.loads(line)["sentence"] for line in Path("s.jsonl").read_text("utf-8").splitlines()] == list(expected)
    refused(
        cli("data", "sentences", "--task", "own", "--tasks-dir", tasks_dir, "--out", "s.csv"), "expected .txt or .jsonl"
    )
    refused(cli("data", "sentences", "--suite", "mini", "--task", "own", "--out", "s.txt"), "exclude each other")
