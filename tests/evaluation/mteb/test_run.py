"""`eval --suite mteb:...`, end to end, on local data."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import hub_server
import numpy as np
import pytest
from mteb_tasks import Local, mteb, sts_rows
from tiny import sentences, tiny_bert

from simcse_bench.data.pairs import Pairs, read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.task import MTEB
from simcse_bench.errors import UserError
from simcse_bench.evaluation.mteb.selection import select_mteb
from simcse_bench.reports.mteb import MtebReport
from simcse_bench.reports.report import report_path


def pairs_of(n, seed):
    rng, pool = random.Random(seed), sentences(60, seed=seed)
    left, right = zip(*((rng.choice(pool), rng.choice(pool)) for _ in range(n)), strict=True)
    return Pairs(left, right, np.array([rng.randrange(26) / 5 for _ in range(n)]), ("",) * n)


def rows_of(pairs):
    return zip(pairs.left, pairs.right, pairs.gold.tolist(), strict=True)


@pytest.fixture
def local(monkeypatch, senteval):
    found = Local(monkeypatch)
    stsb = read_task_pairs(load_task("stsb"), "test", MTEB.text, senteval)
    found.give("STSBenchmark", {"test": sts_rows(stsb)})
    found.give("BIOSSES", {"test": sts_rows(pairs_of(40, 1))})
    found.give("STS22.v2", **{s: {"test": sts_rows(pairs_of(30, i))} for i, s in enumerate(("en", "de", "es"), 2)})
    return found


@pytest.fixture
def run(cli, bert):
    def run(suite, *more, pooling="cls"):
        return cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--device", "cpu",
                   "--suite", suite, *more)  # fmt: skip

    return run


def saved():
    return {p.name: MtebReport.load(p) for p in Path("results/mteb").glob("*.json")}


def test_the_same_score_as_our_own_mteb_protocol(run, cli, bert, local, senteval):
    done = run("mteb:STSBenchmark")
    assert done.code == 0, done.err
    (name,) = saved()
    assert name == "tiny-bert--STSBenchmark--cls-none.json"
    report = saved()[name]
    ours = cli("eval", "--model", bert, "--pooling", "cls", "--head", "none", "--task", "stsb", "--protocol", "mteb",
               "--data-dir", senteval, "--format", "json")  # fmt: skip
    assert ours.code == 0, ours.err
    scores = json.loads(ours.out)["tasks"]["stsb"]["scores"]
    assert report.tasks["STSBenchmark"]["score"] == pytest.approx(scores["spearman"]["all"]["value"], abs=1e-4)
    (part,) = report.tasks["STSBenchmark"]["parts"]
    assert 100 * part["metrics"]["cosine_pearson"] == pytest.approx(scores["pearson"]["all"]["value"], abs=1e-4)
    assert report.tasks["STSBenchmark"]["data"]["path"] == "mteb/stsbenchmark-sts"
    shown = f"{report.tasks['STSBenchmark']['score']:.2f}"
    assert shown in done.out
    assert "mteb's protocol: to be compared with mteb's numbers only" in done.out
    assert "superseded in mteb by STSBenchmark.v2" in done.out
    assert f"STSBenchmark: {shown} (cosine_spearman ×100)" in done.err
    page = Path("results/mteb/tiny-bert--STSBenchmark--cls-none.md").read_text("utf-8")
    assert report.mteb["revision"] in page
    assert shown in page


def test_finished_tasks_are_not_run_again(run, local):
    assert run("mteb:BIOSSES").code == 0
    first = saved()["tiny-bert--BIOSSES--cls-none.json"]
    again = run("mteb:BIOSSES")
    assert "already there, printed again" in again.err
    done = run("mteb:BIOSSES,STSBenchmark")  # BIOSSES from the cache
    assert done.code == 0, done.err
    assert local.loads == {"BIOSSES": 1, "STSBenchmark": 1}
    (both,) = (r for r in saved().values() if len(r.tasks) == 2)
    assert both.tasks["BIOSSES"] == first.tasks["BIOSSES"]
    mean = (both.tasks["BIOSSES"]["score"] + both.tasks["STSBenchmark"]["score"]) / 2
    assert both.averages == {"Mean(Task)": pytest.approx(mean, abs=1e-5)}
    assert run("mteb:BIOSSES", pooling="mean").code == 0  # another model to mteb
    assert local.loads["BIOSSES"] == 2
    assert saved()["tiny-bert--BIOSSES--mean-none.json"].tasks["BIOSSES"]["score"] != first.tasks["BIOSSES"]["score"]
    assert run("mteb:BIOSSES", "--force").code == 0
    assert local.loads["BIOSSES"] == 3


def test_a_damaged_cache_is_computed_again(run, local, tmp_path):
    assert run("mteb:BIOSSES").code == 0
    before = saved()["tiny-bert--BIOSSES--cls-none.json"]
    (kept,) = (tmp_path / "cache").rglob("BIOSSES.json")
    kept.write_text(kept.read_text()[:300])
    Path("results/mteb/tiny-bert--BIOSSES--cls-none.json").unlink()
    assert run("mteb:BIOSSES").code == 0
    assert local.loads == {"BIOSSES": 2}
    assert saved()["tiny-bert--BIOSSES--cls-none.json"].tasks == before.tasks


def test_subsets_are_chosen_and_kept_apart(run, local):
    assert run("mteb:STS22.v2[en]").code == 0
    assert run("mteb:STS22.v2[en, de]").code == 0
    assert local.loads["STS22.v2[de]"] == 1
    (english,) = (r for r in saved().values() if r.selection == "STS22.v2[en]")
    (two,) = (r for r in saved().values() if r.selection == "STS22.v2[en, de]")
    scores = {p["subset"]: p["score"] for p in two.tasks["STS22.v2"]["parts"]}
    assert set(scores) == {"en", "de"}
    assert scores["en"] == english.tasks["STS22.v2"]["score"]
    assert two.tasks["STS22.v2"]["score"] == pytest.approx(sum(scores.values()) / 2, abs=1e-4)
    done = run("mteb:STS22.v2[en]", "--force")
    assert done.code == 0, done.err
    assert [p["subset"] for p in saved()["tiny-bert--STS22.v2.en--cls-none.json"].tasks["STS22.v2"]["parts"]] == ["en"]


def test_a_benchmark_has_mtebs_own_averages(run, local, monkeypatch):
    tasks = mteb.get_tasks(tasks=["STSBenchmark", "BIOSSES", "STS22.v2"])
    tasks[2].hf_subsets = ["en"]
    small = mteb.Benchmark(name="Small(eng, v1)", tasks=tasks, aliases=["Small"])
    everything = mteb.get_benchmarks()
    monkeypatch.setattr(mteb, "get_benchmarks", lambda: [*everything, small])
    done = run("mteb:Small(eng, v1)", "--format", "md")
    assert done.code == 0, done.err
    (report,) = saved().values()
    assert report.benchmark == "Small(eng, v1)"
    mean = sum(t["score"] for t in report.tasks.values()) / 3
    assert report.averages["Mean(Task)"] == pytest.approx(mean, abs=1e-4)
    assert report.averages["STS"] == pytest.approx(mean, abs=1e-4)
    assert set(report.tasks) == {"STSBenchmark", "BIOSSES", "STS22.v2"}
    assert "**tiny-bert: Small(eng, v1), mteb" in done.out
    assert "superseded" not in done.out


def test_mtebs_own_json_is_read_by_mteb(run, local):
    done = run("mteb:BIOSSES", "--mteb-json", "elsewhere")
    assert done.code == 0, done.err
    report = saved()["tiny-bert--BIOSSES--cls-none.json"]
    found = mteb.ResultCache("elsewhere").load_results(tasks=["BIOSSES"])
    (model,) = found.model_results
    assert (model.model_name, model.model_revision) == (report.mteb["name"], report.mteb["revision"])
    assert 100 * model.task_results[0].get_score() == pytest.approx(report.tasks["BIOSSES"]["score"], abs=1e-6)
    assert "NaN" not in next(Path("elsewhere").rglob("BIOSSES.json")).read_text()
    assert run("mteb:BIOSSES", "--mteb-json", "later").code == 0  # of a report that is there, from the cache
    assert local.loads == {"BIOSSES": 1}
    assert list(Path("later").rglob("model_meta.json"))


def test_formats(run, local):
    def printed(format):
        done = run("mteb:BIOSSES,STSBenchmark", "--format", format, "-q")
        assert (done.code, done.err) == (0, "")
        return done.out

    report = json.loads(printed("json"))
    scores = {name: report["tasks"][name]["score"] for name in ("BIOSSES", "STSBenchmark")}
    assert {t["metric"] for t in report["tasks"].values()} == {"cosine_spearman"}
    assert len({f"{v:.2f}" for v in scores.values()}) == 2
    rows = list(csv.DictReader(printed("csv").splitlines()))  # in mteb's own scale
    parts = {
        n: [(p["split"], p["subset"], m, v) for p in t["parts"] for m, v in p["metrics"].items()]
        for n, t in report["tasks"].items()
    }
    for name, score in scores.items():
        own = [r for r in rows if r["task"] == name]
        assert [(r["split"], r["subset"], r["metric"]) for r in own] == [part[:3] for part in parts[name]]
        assert [float(r["value"]) for r in own] == pytest.approx([part[3] for part in parts[name]], abs=1e-9)
        (main,) = [r for r in own if r["main"] == "1"]
        assert (main["metric"], main["model"]) == ("cosine_spearman", "tiny-bert")
        assert 100 * float(main["value"]) == pytest.approx(score, abs=1e-4)
    latex = printed("latex").splitlines()
    assert latex[0].startswith("% tiny-bert")
    for name, value in scores.items():
        (line,) = [line for line in latex if line.startswith(f"{name} &")]
        assert line.startswith(rf"{name} & STS & cosine\_spearman & ")
        assert line.endswith(rf" & {value:.2f} \\")


def test_reports_live_beside_the_papers(run, cli, bert, local, senteval):
    assert run("mteb:BIOSSES").code == 0
    assert run("mteb:BIOSSES", pooling="mean").code == 0
    assert run("mteb:BIOSSES,STS22.v2[en]").code == 0
    assert run("mteb:BIOSSES", "--out", "results/other").code == 0
    assert cli("eval", "--model", bert, "--pooling", "cls", "--head", "none", "--data-dir", senteval, "-q").code == 0
    done = cli("report", "results")
    assert done.code == 0, done.err
    assert cli("report", "results", "--check").code == 0
    boards = Path("results/mteb/leaderboard.md").read_text("utf-8").split("**")[1::2]
    assert len(boards) == 2  # other tasks never share a table
    assert all("mteb 2." in title and "own protocol" in title for title in boards)
    assert "BIOSSES" not in Path("results/sts/leaderboard.md").read_text("utf-8")
    assert Path("results/other/mteb/leaderboard.md").is_file()
    assert "BIOSSES" in Path("results/index.html").read_text("utf-8")
    Path("results/mteb/tiny-bert--BIOSSES--mean-none.json").unlink()
    stale = cli("report", "results", "--check")
    assert stale.code == 2
    assert "results/mteb/leaderboard.md is stale" in stale.err
    assert "results/index.html is stale" in stale.err
    Path("results/mteb/tiny-bert--BIOSSES--cls-none.json").write_text("[]")
    damaged = cli("report", "results")
    assert damaged.code == 2
    assert "not a report of mteb's tasks" in damaged.err
    with pytest.raises(UserError, match="taken by the tables"):
        report_path(Path("results"), "mteb", "x")


def test_another_evaluation_is_not_overwritten(run, local, bert, tmp_path):
    assert run("mteb:BIOSSES").code == 0
    shutil.rmtree(tmp_path / "tiny-bert", ignore_errors=True)
    other = tiny_bert(tmp_path / "tiny-bert", seed=3)
    done = run("mteb:BIOSSES", "--model", other)
    assert done.code == 2
    assert "holds another evaluation" in done.err
    assert run("mteb:BIOSSES", "--model", other, "--force").code == 0


def test_equal_embeddings_give_no_score_and_nothing_is_kept(run, local, monkeypatch, tmp_path):
    from simcse_bench.models.encoders import TransformerEncoder

    monkeypatch.setattr(TransformerEncoder, "encode", lambda self, s: np.ones((len(s), 4), dtype=np.float32))
    done = run("mteb:BIOSSES")
    assert done.code == 2
    assert "mteb task 'BIOSSES': mteb gives nan as main score" in done.err
    assert not list((tmp_path / "cache").rglob("BIOSSES*"))
    assert not Path("results").exists()
    monkeypatch.setattr(TransformerEncoder, "encode", lambda self, s: np.full((len(s), 4), np.nan, dtype=np.float32))
    assert "mteb task 'BIOSSES': the encoder returned NaN" in run("mteb:BIOSSES").err


def test_one_error_for_data_that_cannot_be_had(run, local):
    done = run("mteb:STS12")
    assert done.code == 2
    assert done.err.count("error:") == 1
    assert "no data for mteb's STS12 (mteb/sts12-sts): it is not in the Hub cache" in done.err
    assert "HF_HUB_OFFLINE is set" in done.err
    done = run("mteb:STS12,BIOSSES,STS13")  # the others run, and are kept
    assert done.code == 2
    assert done.err.count("error:") == 1
    assert "STS12 (mteb/sts12-sts), STS13 (mteb/sts13-sts): it is not in the Hub cache" in done.err
    assert "The other 1 are in the cache" in done.err
    assert local.loads == {"BIOSSES": 1}
    assert not Path("results").exists()


@pytest.mark.slow
def test_data_comes_from_the_hub_once(bert, tmp_path, monkeypatch):
    """In a process of its own: datasets reads the endpoint when it is imported."""
    task = mteb.get_task("BIOSSES")
    rows = [dict(zip(("sentence1", "sentence2", "score"), row, strict=True)) for row in rows_of(pairs_of(40, 1))]
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(hub_server, "COMMIT", task.metadata.revision)
    hub = hub_server.Hub()
    hub.repositories = {f"datasets/{task.metadata.dataset['path']}": folder}

    def run(endpoint, **more):
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG", "SYSTEMROOT")}
        settings = keep | {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint}
        command = [sys.executable, "-m", "simcse_bench", "eval", "--model", bert, "--pooling", "cls", "--head", "none",
                   "--suite", "mteb:BIOSSES", "--format", "json", "--device", "cpu"]  # fmt: skip
        return subprocess.run(
            command, env=settings | more, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )

    with hub_server.serving(hub) as endpoint:
        cold = run(endpoint)
    assert cold.returncode == 0, cold.stderr
    assert "Warning" not in cold.stderr
    assert json.loads(cold.stdout)["tasks"]["BIOSSES"]["data"]["revision"] == task.metadata.revision
    shutil.rmtree(tmp_path / "results")
    shutil.rmtree(tmp_path / "home")  # the results kept there; the data is in HF_HOME
    warm = run("http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert warm.returncode == 0, warm.stderr
    assert json.loads(warm.stdout)["tasks"] == json.loads(cold.stdout)["tasks"]


@pytest.mark.parametrize(
    "suite, more, message",
    [
        ("mteb:", (), "names no task"),
        ("mteb:BIOSES", (), "unknown mteb task or benchmark 'BIOSES'; did you mean 'BIOSSES'?"),
        ("mteb:mteb(eng, v2)", (), "did you mean 'MTEB(eng, v2)'?"),
        ("mteb:BIOSSES,nonsense-xyz", (), "unknown mteb task or benchmark 'nonsense-xyz'."),
        ("mteb:STS22.v2[eng]", (), "did you mean 'en'?"),
        ("mteb:STS22.v2,STS22.v2[en]", (), "chosen twice"),
        ("mteb:CIFAR10", (), "'CIFAR10' (ImageClassification) needs image; our encoders take text only"),
        ("mteb:BIOSSES", ("--aggregate", "wmean", "--limit", 5), "--limit, --aggregate: not with --suite mteb:"),
        ("mteb:BIOSSES", ("--protocol", "simcse"), "--protocol: not with"),
        ("mteb:BIOSSES", ("--mteb-json", "results/x"), "lies in the folder of our own reports"),
        ("sts", ("--mteb-json", "x"), "for --suite mteb:... only"),
        ("mteb:BIOSSES", ("--format", "xml"), "unknown format"),
    ],
)
def test_bad_input(run, suite, more, message):
    done = run(suite, *more)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not Path("results").exists()


def test_commas_inside_brackets_belong_to_the_name():
    chosen = select_mteb("mteb:MTEB(eng, v2)")
    assert chosen.benchmark.name == "MTEB(eng, v2)"
    assert len(chosen.tasks) == 41
    assert {t.metadata.name: t.hf_subsets for t in chosen.tasks}["STS22.v2"] == ["en"]
    both = select_mteb("mteb:STS22.v2[en,de], BIOSSES")
    assert [(t.metadata.name, t.hf_subsets) for t in both.tasks] == [
        ("STS22.v2", ["en", "de"]),
        ("BIOSSES", ["default"]),
    ]
    assert both.benchmark is None
