"""`eval`, `report` and `run-ablation` killed at their writes: what is there is old or new, and the same command ends it."""

import json
import shutil

import pytest
from processes import kept, killed_at_each_write, set_options, start_command
from tiny import sentences, without_time

from simcse_bench.reports.pair_records import load_pairs
from simcse_bench.reports.report import Report

pytestmark = pytest.mark.slow


def run_to_the_end(arguments, log, env):
    process = start_command(arguments, log, env)
    with kept([process]):
        assert process.wait(120) == 0, log.read_text(encoding="utf-8")


def contents(folder):
    """Every file but hidden ones (half-written, which a kill leaves), JSON without times."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name, raw = path.relative_to(folder).as_posix(), path.read_bytes()
        files[name] = without_time(json.loads(raw)) if path.suffix == ".json" else raw
    return files


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results", tmp_path / "log", {"SIMCSE_BENCH_CACHE": str(tmp_path / "cache")}


def evaluated(bert, senteval, out, *more):
    return ["eval", "--model", bert, "--pooling", "cls", "--head", "none", "--task", "stsb", "--data-dir", senteval,
            "--device", "cpu", "--out", out, "--name", "m", "-q", *more]  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
def test_an_evaluation_killed_at_any_write(bert, senteval, place, tmp_path, force):
    out, log, env = place
    whole, old = tmp_path / "whole", tmp_path / "old"
    more = ["--force"] * force
    run_to_the_end(evaluated(bert, senteval, whole), log, env)
    if force:
        run_to_the_end(evaluated(bert, senteval, old, "--pooling", "mean"), log, env)
        for path in list((old / "tasks").iterdir()):  # another evaluation under the same name
            path.rename(path.with_name(path.name.replace("mean", "cls")))
        shutil.copytree(old, out)
    points = 0
    for _ in killed_at_each_write(evaluated(bert, senteval, out, *more), [out], log, env):
        points += 1
        for path in out.rglob("*.json"):
            if not path.name.startswith("."):
                report = Report.load(path)
                if not force:
                    assert load_pairs(path, report)  # where a report is, its pairs are
        run_to_the_end(evaluated(bert, senteval, out, *more), log, env)
        assert {k: v for k, v in contents(out).items() if k.endswith((".json", ".jsonl"))} == {
            k: v for k, v in contents(whole).items() if k.endswith((".json", ".jsonl"))
        }
        shutil.rmtree(out)
        if force:
            shutil.copytree(old, out)
    assert points >= 5


def test_a_sweep_and_its_report_killed_at_writes(bert, senteval, place, tmp_path):
    out, log, env = place
    (tmp_path / "text.txt").write_text("\n".join(sentences(24)) + "\n", encoding="utf-8")
    settings = {"eval_every": 0, "batch_size": 8, "max_steps": 2, "eval_task": "mini-sts"}

    def sweep(where):
        return ["run-ablation", "dropout", "--model", bert, "--train", tmp_path / "text.txt", "--arm", "0.0", "--arm", "0.1",
                "--data-dir", senteval, "--device", "cpu", "--progress", "none", "--out", where,
                *set_options(settings)]  # fmt: skip

    whole = tmp_path / "whole"
    run_to_the_end(sweep(whole), log, env)
    points = 0
    for _ in killed_at_each_write(sweep(out), [out], log, env, every=17):
        points += 1
        for path in out.rglob("[!.]*--seed*.json"):
            assert json.loads(path.read_text(encoding="utf-8"))["status"] == "finished"
        run_to_the_end(sweep(out), log, env)
        found, expected = contents(out), contents(whole)
        assert found.keys() == expected.keys()
        assert {k: v for k, v in found.items() if k.endswith((".json", ".csv", ".tex"))} == {
            k: v for k, v in expected.items() if k.endswith((".json", ".csv", ".tex"))
        }
        shutil.rmtree(out)
    assert points >= 3
    shutil.rmtree(out)
    shutil.copytree(whole, out)
    for path in out.rglob("table.*"):
        path.write_text("stale")
    for _ in killed_at_each_write(["report", out], [out], log, env, every=3):
        assert {p.suffix for p in out.rglob("*.json")} == {".json"}
        assert contents(out).keys() >= {k for k in contents(whole) if k.endswith(".json")}
        run_to_the_end(["report", out], log, env)
        run_to_the_end(["report", out, "--check"], log, env)
        for path in out.rglob("table.*"):
            path.write_text("stale")
