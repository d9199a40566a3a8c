"""Saved results as frames: every number of the JSON, where it stands there."""

import json
from pathlib import Path

import pandas as pd
import pytest

from simcse_bench import read_results
from simcse_bench.errors import UserError
from simcse_bench.reports.report import Report


@pytest.fixture
def report(cli, bert, senteval):
    done = cli("eval", "--model", bert, "--pooling", "mean", "--task", "stsb", "--task", "sts12", "--limit", "20",
               "--data-dir", senteval, "--device", "cpu", "--name", "tiny", "-q")  # fmt: skip
    assert done.code == 0, done.err
    (path,) = Path("results/tasks").glob("*.json")
    return path


def test_every_score_of_a_report(report):
    frame, saved = read_results("results"), Report.load(report)
    assert list(frame.columns) == ["model", "settings", "suite", "protocol", "split", "task", "subset", "n", "metric",
                                   "aggregate", "value", "low", "high", "limit", "key", "path"]  # fmt: skip
    assert set(frame["path"]) == {report.as_posix()}
    assert set(frame["key"]) == {saved.key}
    assert set(frame["settings"]) == {"pooling mean, head none, dtype float32"}
    assert set(frame["limit"]) == {20}
    by_name = frame.set_index(["task", "subset", "metric", "aggregate"]).sort_index()
    for name, task in saved.tasks.items():
        for metric, entries in task["scores"].items():
            for how, entry in entries.items():
                row = by_name.loc[(name, "", metric, how)]
                assert [row.value, row.low, row.high, row.n] == [entry["value"], *entry["interval"], task["n"]]
        for part, entry in task["subsets"].items():
            assert by_name.loc[(name, part, "pearson", "")].value == entry["pearson"]["value"]
    assert len(frame) == 2 * (3 + 3) + 2 * sum(len(t["subsets"]) for t in saved.tasks.values()) + 6  # and the average
    assert pd.api.types.is_float_dtype(frame["low"])


def test_a_score_without_an_interval_has_none(report):
    content = json.loads(report.read_text("utf-8"))
    content["tasks"]["stsb"]["scores"]["spearman"]["all"]["interval"] = None
    report.write_text(json.dumps(content), encoding="utf-8")
    frame = read_results("results")
    (row,) = frame.query("task == 'stsb' and metric == 'spearman' and aggregate == 'all' and subset == ''").itertuples()
    assert pd.isna(row.low)
    assert pd.isna(row.high)


def test_ablations_and_geometry():
    results = Path(__file__).parents[2] / "results" / "embedded"
    if not results.is_dir():
        pytest.skip("no results/ here: this is no checkout")
    frame = read_results(results / "ablations", "ablations")
    summary = json.loads((results / "ablations" / "dropout-mini" / "summary.json").read_text("utf-8"))
    arm = next(a for a in summary["arms"] if a["arm"] == "0.1")
    own = frame.query("ablation == 'dropout' and arm == '0.1'")
    assert list(own["seed"]) == arm["seeds"]
    assert list(own["dev"]) == arm["dev"]["values"]
    assert set(own["published"]) == {arm["published"]}
    geometry = read_results(results, "geometry")
    assert set(geometry["path"]) == {p.as_posix() for p in results.rglob("analysis/*.json")}
    for row in geometry.itertuples():
        content = json.loads(Path(row.path).read_text("utf-8"))
        assert (row.model, row.alignment, row.uniformity) == (
            content["model"]["name"], content["alignment"], content["uniformity"],
        )  # fmt: skip


def test_what_cannot_be_read_is_told(report):
    with pytest.raises(UserError, match="unknown kind of results 'score'; did you mean 'scores'"):
        read_results("results", "score")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_results("nowhere")
    (report.parent / "b.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"left out: results/tasks/b\.json: not readable JSON"):
        assert set(read_results("results")["path"]) == {report.as_posix()}
    report.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not readable JSON"):
        read_results("results")
