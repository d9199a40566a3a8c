"""The SimCSE family's table: published rows and ours side by side, and which reports may stand there."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest

from simcse_bench.data.registry import load_suites
from simcse_bench.papers import published
from simcse_bench.reports.family import family_table
from simcse_bench.reports.report import Report

STS, TRANSFER = (load_suites()[suite] for suite in ("sts", "transfer"))


def scores(value, metrics):
    entry = {"value": value, "interval": [value - 1, value + 1]}
    return {m: dict.fromkeys(("all", "mean", "wmean"), entry) for m in metrics}


def made(tasks, metrics, key="k", **model):
    """A report with 78.5 everywhere."""
    data = {"split": "test", "text": "senteval", "fingerprint": "f"}
    task = {"title": "T", "n": 5, "scores": scores(78.5, metrics), "data": data, "subsets": {}}
    return Report(
        key=key, suite="sts", limit=None, skipped={}, average=scores(78.5, metrics), tasks=dict.fromkeys(tasks, task), stats={},
        model={"name": "mine", "pooling": "cls", "head": "none", "dtype": "float32"} | model,
        protocol={"name": "simcse", "text": "senteval", "split": "test"}, seconds={"embedding": 1, "scoring": 1},
        environment={"processor": "p", "cores": 2, "versions": {}}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


@pytest.fixture
def report():
    return made(STS, ("spearman", "pearson"))


def ours(table):
    return [row for row in table.rows if row[-1].startswith("ours")]


def test_ours_stands_where_its_average_belongs(report):
    table = family_table([report], "sts")
    assert table.header[:2] + table.header[-2:] == ["model", "backbone", "Avg.", "source"]
    assert ours(table) == [["mine", "–", *["78.50"] * 8, "ours, cls, float32"]]
    averages = [float(row[-2]) for row in table.rows]
    assert averages == sorted(averages, reverse=True)
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows["DiffCSE", "BERT-base"][2:] == [
        "72.28", "84.43", "76.47", "83.90", "80.54", "80.59", "71.23", "78.49", "DiffCSE thesis, Table 2.1",
    ]  # fmt: skip
    assert rows["IS-CSE", "BERT-base"][2:] == [*["–"] * 7, "78.30", "IS-CSE README"]
    assert list(rows).index(("mine", "–")) < list(rows).index(("DiffCSE", "BERT-base"))
    assert len(table.rows) == len(published.family_rows("sts")) + 1


def test_a_known_models_backbone_is_the_papers(report):
    known = dataclasses.replace(report, model=report.model | {"name": "princeton-nlp/unsup-simcse-roberta-base"})
    (row,) = ours(family_table([known], "sts"))
    assert row[:2] == ["princeton-nlp/unsup-simcse-roberta-base", "RoBERTa-base"]
    (row,) = ours(family_table([dataclasses.replace(known, model=known.model | {"template": "a {sentence}"})], "sts"))
    assert row[1] == "–"


def test_only_reports_under_the_papers_rules_and_each_once(report):
    other = [
        dataclasses.replace(report, key="a", protocol=report.protocol | {"name": "mteb"}),
        dataclasses.replace(report, key="b", protocol=report.protocol | {"split": "dev"}),
        dataclasses.replace(report, key="c", limit=5),
        dataclasses.replace(report, key="d", average=None),
        dataclasses.replace(report, key="e", tasks={"stsb": report.tasks["stsb"]}),
        made(TRANSFER, ("accuracy",), "f"),
    ]
    assert ours(family_table(other, "sts")) == []
    assert len(ours(family_table([report, report, dataclasses.replace(report, key="l")], "sts"))) == 2
    fast = dataclasses.replace(other[-1], key="g", protocol=report.protocol | {"probe": "fast"})
    assert len(ours(family_table([*other, fast], "transfer"))) == 1


@pytest.mark.parametrize("form", ["table", "md", "csv", "latex"])
def test_printed_in_every_form(report, cli, form):
    report.save(Path("results/sts/mine.json"))
    done = cli("leaderboard", "--published", "--format", form)
    assert done.code == 0, done.err
    assert {"mine", "ours, cls, float32", "PromptBERT", "RankCSE ListMLE"} <= {
        word for word in ("mine", "ours, cls, float32", "PromptBERT", "RankCSE ListMLE") if word in done.out
    }
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert [r["Avg."] for r in rows if r["model"] == "mine"] == ["78.50"]
        assert len({r["protocol"] for r in rows}) == 1


def test_without_reports_and_for_transfer(cli):
    done = cli("leaderboard", "--published", "--suite", "Transfer")
    assert done.code == 0, done.err
    assert "87.04" in done.out
    assert "ours, " not in done.out


def test_a_damaged_report_is_left_out_and_told(cli):
    Path("results/sts").mkdir(parents=True)
    Path("results/sts/a.json").write_text("{")
    done = cli("leaderboard", "--published")
    assert (done.code, "left out: results/sts/a.json" in done.err) == (0, True)


@pytest.mark.parametrize(("arguments", "told"), [
    (["--suite", "mteb"], "unknown suite with --published 'mteb'"),
    (["--metric", "pearson"], "--published: the papers state Spearman"),
    (["--aggregate", "mean"], "--published: the papers state Spearman"),
])  # fmt: skip
def test_what_the_papers_do_not_state_is_refused_in_a_line(cli, arguments, told):
    done = cli("leaderboard", "--published", *arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert told in done.err
