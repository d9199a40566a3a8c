"""The record of a search: what must hold in it, and the rows it marks on leaderboards."""

import dataclasses
import json

import pytest

from simcse_bench.errors import UserError
from simcse_bench.models.catalog import HOLDS, MODELS
from simcse_bench.reports.overlap import MARK, Overlap, contaminated, overlap_table, read_overlap, save_overlap
from simcse_bench.reports.report import Report
from simcse_bench.reports.scores import leaderboard
from simcse_bench.reports.standings import Saved, board


def made(name, value, task="stsb", **model):
    by = {
        m: {h: {"value": value, "interval": [value - 1, value + 1]} for h in ("all", "mean", "wmean")}
        for m in ("spearman", "pearson")
    }
    data = {"split": "test", "text": "senteval", "fingerprint": "f"}
    return Report(
        key=name, suite="sts", limit=None, skipped={}, average=by, stats={}, created="2026-01-01",
        tasks={task: {"title": task.upper(), "kind": "sts", "n": 5, "scores": by, "data": data, "subsets": {}}},
        model={"name": name, "pooling": "cls", "head": "none", "dtype": "float32", **model},
        protocol={"name": "simcse", "text": "senteval", "split": "test"}, seconds={"embedding": 1, "scoring": 1},
        environment={"processor": "p", "cores": 2, "versions": {}},
    )  # fmt: skip


def record(kind="exact", train="t.txt", fingerprint="ffff", origin="file", data="f"):
    found = {
        "sentence": "A b.",
        "kind": kind,
        "changed": 0,
        "times": 2,
        "row": 3,
        "text": "a b",
        "where": {"stsb": [0, 4]},
    }
    task = {"title": "STS-B", "split": "test", "n": 5, "sentences": 9, "fingerprints": [data], "whole": 1}
    text = {"name": train, "origin": origin, "fingerprint": fingerprint, "rows": 7, "texts": 8}
    return Overlap("k", text, "sts", "simcse", ["exact", "near"], 4, {"stsb": task}, 9, [found], "0.1", 1.0, "2026")


def test_the_table_by_hand(tmp_path):
    table = overlap_table(record())
    assert table.header == ["task", "sentences", "exact", "near", "rows", "with one", "%", "with all"]
    assert table.rows == [["STS-B", "9", "1", "0", "5", "2", "40.0", "1"]]
    path = tmp_path / "overlap" / "t.json"
    save_overlap(path, record())
    assert read_overlap(path) == record()
    assert path.with_suffix(".csv").read_text() == (
        "task,split,rows,kind,changed,sentence,times,train_row,train_text\nstsb,test,0 4,exact,0,A b.,2,3,a b\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "unknown kind"),
        ({"where": {"stsb": [5]}}, "no such row"),
        ({"where": {"sts12": [0]}}, "no such row"),
        ({"times": "2"}, "times"),
    ],
)
def test_a_damaged_record_is_told(tmp_path, change, message):
    content = dataclasses.asdict(record())
    content["found"][0] |= change
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        read_overlap(tmp_path / "x.json")
    assert len(error.value.problems) == 1


def test_a_kind_that_is_none_of_ours(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(dataclasses.asdict(record()) | {"kinds": ["exakt"]}))
    with pytest.raises(UserError, match=r"x.json: unknown kind 'exakt', expected exact, .*: not a record of"):
        read_overlap(tmp_path / "x.json")


RUN = made("runs/mine", 70.0, trained_on=[{"name": "t.txt", "fingerprint": "ffff"}])


@pytest.mark.parametrize(
    ("report", "overlap", "known"),
    [
        (RUN, record(), "trained on t.txt: sentences of 2 of 5 rows stand in it"),
        (RUN, record("near"), None),  # may be another sentence
        (RUN, record(fingerprint="0000"), None),  # another text of that name
        (RUN, record(data="other"), None),  # other data of the task
        (made("other", 70.0), record(), None),
        (made("princeton-nlp/unsup-simcse-bert-base-uncased", 70.0), record(train="wiki1m"), None),  # a file so called
        (made("princeton-nlp/unsup-simcse-bert-base-uncased", 70.0), record(train="wiki1m", origin="Hub dataset x"),
         "trained on wiki1m: sentences of 2 of 5 rows stand in it"),
        (made("mteb:m", 70.0, trained_on=[{"name": "STSBenchmark"}]), None, "trained on data of this task (STSBenchmark)"),
    ],
)  # fmt: skip
def test_a_row_is_marked_only_where_it_is_known(report, overlap, known):
    overlaps = [overlap] if overlap else []
    assert contaminated(report, overlaps) == ({"stsb": known} if known else {})
    table = leaderboard([report], overlaps=overlaps)
    assert table.rows[0][0] == report.model["name"] + f" {MARK}" * bool(known)
    notes = [note for note in table.notes if note.startswith(MARK)]
    assert notes == (
        [f"{MARK} {report.model['name']} has seen sentences of these tasks in training. STSB: {known}."]
        if known
        else []
    )
    assert board([Saved("sts/x.json", report, seen=contaminated(report, overlaps))])["rows"][0]["seen"] == notes


def test_sts_benchmark_holds_sentences_of_the_years_before():
    report = made("cambridgeltl/mirror-roberta-base-sentence", 70.0, task="sts12")
    assert "drawn from STS12 to STS16" in contaminated(report)["sts12"]
    assert MODELS["dangvantuan/vietnamese-embedding"].trained_on[-1] in HOLDS
    assert contaminated(
        made("mteb:m", 70.0, task="evalrank-stsb", trained_on=[{"name": "STSBenchmark"}])
    )  # built from it
    assert contaminated(made("dangvantuan/vietnamese-embedding", 70.0, task="sts13-vi"))
    assert not contaminated(made("dangvantuan/vietnamese-embedding", 70.0, task="sickr-vi"))
