"""Sweeps in processes of their own: on Ray, with several processes an arm, killed again and again; a tiny BERT."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import finished, kept, set_options, start_command
from tiny import sentences, without_time

from simcse_bench.cluster import RayCluster, connected
from simcse_bench.errors import UserError
from simcse_bench.training import together

PATIENCE = 120  # seconds
KILLS = 6

FOLDER = Path("results/ablations/dropout-mini")


@pytest.fixture
def start(bert, senteval, tmp_path):
    """Start a sweep of two arms of the dropout ablation; output goes to <out>.err."""
    text, running = tmp_path / "text.txt", []
    text.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")

    def run(out, *args, **settings):
        chosen = {"eval_every": 0, "batch_size": 8, "learning_rate": 1e-3, "max_steps": 300} | settings
        command = ["run-ablation", "dropout", "--model", bert, "--train", text, "--arm", "0.0", "--arm", "0.1",
                   "--data-dir", senteval, "--device", "cpu", "--save-every", "20", "--progress", "plain", "--out", out,
                   *set_options(chosen), *args]  # fmt: skip
        cache = {"SIMCSE_BENCH_CACHE": str(tmp_path / "cache")}
        process = start_command(command, Path(f"{out}.err"), cache, warm="--executor" not in args)
        running.append(process)
        return process

    with kept(running):
        yield run


def results(out):
    return json.loads((Path(out) / FOLDER.relative_to("results") / "summary.json").read_text(encoding="utf-8"))


def trials(out):
    folder = Path(out) / FOLDER.relative_to("results")
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*--seed*.json")}


def table(out):
    return (Path(out) / FOLDER.relative_to("results") / "table.csv").read_text(encoding="utf-8")


def at_step(process, out, name, step):
    """Wait until a trial's log has come so far."""
    log = Path(out) / FOLDER.relative_to("results") / "runs" / name / "log.jsonl"
    end = time.monotonic() + PATIENCE
    while not (log.exists() and any(f'"step": {step},' in line for line in log.read_text().splitlines())):
        assert process.poll() is None, Path(f"{out}.err").read_text(encoding="utf-8")
        assert time.monotonic() < end, Path(f"{out}.err").read_text(encoding="utf-8")
        time.sleep(0.01)


def workers(tmp_path):
    """Process numbers of this test's Ray workers that have a trial at work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes().startswith(b"ray::_work")
            if named and str(tmp_path).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.slow
def test_a_ray_of_two_workers_one_of_which_is_killed(start, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    finished(start("one"), "one")
    process = start("ray", "--executor", "ray", "--cpus-per-arm", "0.5")
    at_step(process, "ray", "0.0--seed42", 100)
    at_step(process, "ray", "0.1--seed42", 50)
    assert len(workers(tmp_path)) == 2
    os.kill(workers(tmp_path)[0], signal.SIGKILL)
    said = finished(process, "ray")
    assert said.count(": running") == 3  # one of the two was started twice
    assert ": failed" not in said
    assert table("ray") == table("one")
    assert without_time(results("ray")) == without_time(results("one"))


@pytest.mark.slow
def test_ray_is_left_with_checkpoints_after_ctrl_c(start, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    process = start("ray", "--executor", "ray", "--cpus-per-arm", "0.5", max_steps=3000)
    at_step(process, "ray", "0.1--seed42", 50)
    process.send_signal(signal.SIGINT)
    said = finished(process, "ray", 130)
    assert "the same command (without --force) goes on" in said
    assert "Traceback" not in said
    runs = Path("ray") / FOLDER.relative_to("results") / "runs"
    assert list(runs.glob("0.1--seed42/checkpoints/step-*"))
    assert not workers(tmp_path)


@pytest.mark.slow
def test_wrong_ray_commands_are_told(start, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    said = finished(start("a", "--executor", "ray", "--cpus-per-arm", "5000"), "a", 2)
    assert "no machine of the cluster has them" in said
    assert "--cpus-per-arm" in said
    said = finished(start("b", "--executor", "ray", "--ray-address", "127.0.0.1:1"), "b", 2)
    assert "--ray-address 127.0.0.1:1: no Ray cluster answers there" in said
    assert "Traceback" not in said
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'simcse-bench\[ray\]'"), connected(RayCluster("arm"), 1, 0):
        pass


@pytest.mark.slow
def test_two_processes_train_an_arm_are_stopped_and_go_on(start):
    mild = {"learning_rate": 1e-5, "max_steps": 60}
    process = start("two", "--processes", "2", **mild)
    at_step(process, "two", "0.0--seed42", 20)
    process.send_signal(signal.SIGINT)
    finished(process, "two", 130)
    runs = Path("two") / FOLDER.relative_to("results") / "runs"
    assert list(runs.glob("0.0--seed42/checkpoints/step-*"))
    finished(start("two", "--processes", "2", **mild), "two")
    finished(start("one", **mild), "one")
    assert not runs.exists()
    both, one = trials("two"), trials("one")
    assert {t["run"]["environment"]["processes"] for t in both.values()} == {2}
    # without dropout nothing is random: two processes are one with the same batch
    similarities = [torch.tensor(found["0.0--seed42"]["dev"]["similarities"]) for found in (both, one)]
    torch.testing.assert_close(*similarities, atol=0.02, rtol=0)


@pytest.mark.slow
def test_what_went_wrong_in_several_processes_is_told(start):
    said = finished(start("two", "--processes", "2", learning_rate=1e30, max_steps=10), "two", 1)
    assert "training has diverged" in said
    assert "Traceback" not in said
    assert {t["status"] for t in trials("two").values()} == {"failed"}


def test_the_problems_of_processes_are_told_once(tmp_path):
    with (tmp_path / "said").open("w+") as said:
        said.write("a warning\nerror: the disk is full.\nerror: the disk is full.\nTraceback ...\n")
        assert together._problems(said, 1) == ["the disk is full."]
    with (tmp_path / "said").open("w+") as said:
        said.write("Traceback (most recent call last):\nValueError: five\n")
        assert together._problems(said, 1) == ["its processes ended with code 1: ValueError: five"]


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_like_an_undisturbed_one(start):
    began = time.monotonic()
    finished(start("whole", "--seeds", "2", max_steps=80), "whole")
    whole = time.monotonic() - began
    rng, kills = random.Random(7), 0
    while kills < KILLS:
        process = start("killed", "--seeds", "2", max_steps=80)
        time.sleep(rng.uniform(0.3, 1.0) * whole)
        kills += process.poll() is None
        process.kill()
        process.wait()
        if (Path("killed") / FOLDER.relative_to("results") / "summary.json").exists() and kills < KILLS:
            for path in Path("killed").rglob("*--seed*.json"):  # it was done: begin anew
                path.unlink()
    finished(start("killed", "--seeds", "2", max_steps=80), "killed")
    assert table("killed") == table("whole")
    assert without_time(results("killed")) == without_time(results("whole"))
