"""Training that is killed, stopped, out of disk, or spread over two processes: real processes, a tiny BERT."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import sentences

STEPS = 120
PATIENCE = 90  # seconds


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(sentences(200)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def start(bert, text, senteval, tmp_path_factory):
    """Start `train` as a process of its own, of one thread; output goes to the file FOLDER.err."""
    cache, running = tmp_path_factory.mktemp("cache"), []

    def run(out, *args, env=None, limit=None, **settings):
        chosen = {"model": bert, "train": text, "batch_size": 24, "max_steps": STEPS, "eval_every": 0} | settings
        given = [part for k, v in chosen.items() for part in ("--set", f"{k}={v}")]
        command = [sys.executable, "-m", "simcse_bench", "train", "--out", out, "--device", "cpu", "--save-every", "5",
                   "--data-dir", senteval, "-q", "--progress", "plain", *given, *args]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "SIMCSE_BENCH_CACHE": str(cache)} | (env or {})
        ceiling = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with Path(f"{out}.err").open("w") as stream:
            process = subprocess.Popen(
                list(map(str, command)), stdout=stream, stderr=stream, env=environment, preexec_fn=ceiling
            )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The run that nothing stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(start(out), out)
    return out


def finished(process, out, code=0):
    """What it said, once it has ended with the code."""
    found = process.wait(PATIENCE)
    said = Path(f"{out}.err").read_text(encoding="utf-8")
    assert found == code, said
    return said


def steps(out):
    try:
        lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line)["step"])
        except ValueError:  # half a line
            continue
    return found


def wait_for(process, out, step):
    """Until an update later than this one is in the log; the run must still be going on."""
    end = time.monotonic() + PATIENCE
    while max(steps(out), default=0) <= step:
        assert process.poll() is None, Path(f"{out}.err").read_text(encoding="utf-8")
        assert time.monotonic() < end
        time.sleep(0.005)


def record(out):
    return json.loads((out / "train.json").read_text(encoding="utf-8"))


def checkpoints(out):
    return sorted(int(p.name.removeprefix("step-")) for p in out.glob("checkpoints/step-*"))


def assert_like(out, whole):
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert steps(out) == steps(whole) == list(range(5, STEPS + 1, 5))
    losses = [[json.loads(x)["loss"] for x in (p / "log.jsonl").read_text().splitlines()] for p in (out, whole)]
    assert losses[0] == losses[1]
    assert record(out)["files"] == record(whole)["files"]
    assert record(out)["status"] == "finished"
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_identical_weights(start, whole, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, out, 10)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert record(out)["status"] == "running"
    assert not (out / "model.safetensors").exists()
    assert 5 <= max(checkpoints(out)) < STEPS
    finished(start(out, "--resume"), out)
    assert_like(out, whole)


@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint_and_resume_gives_identical_weights(start, whole, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, out, 10)
    process.send_signal(signal.SIGINT)
    said = finished(process, out, 130)
    (step,) = checkpoints(out)
    assert f"stopped at step {step} of {STEPS}; the same command with --resume goes on." in said
    assert "Traceback" not in said
    assert step == max(steps(out))
    assert not (out / "model.safetensors").exists()
    finished(start(out, "--resume"), out)
    assert sorted(set(steps(out))) == steps(out)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_sigterm_writes_a_checkpoint(start, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, out, 0)
    process.terminate()
    said = finished(process, out, 143)
    assert checkpoints(out) == [max(steps(out))]
    assert "--resume" in said


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_whole(start, tmp_path):
    """A checkpoint fits at first; from then on no file may grow beyond 40 kB."""
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, out, 10)
    process.send_signal(signal.SIGINT)
    finished(process, out, 130)
    (step,) = checkpoints(out)
    before = {p: p.read_bytes() for p in (out / "checkpoints").rglob("*") if p.is_file()}
    said = finished(start(out, "--resume", limit=40_000), out, 2)
    assert f"error: cannot write {out}: " in said
    assert "large" in said
    assert f"the checkpoint of step {step} is whole" in said
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in (out / "checkpoints").rglob("*") if p.is_file()} == before
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"config.json", f"step-{step:08d}"}


def test_a_full_disk_at_the_end_exports_nothing(start, tmp_path):
    out = tmp_path / "run"
    said = finished(start(out, limit=40_000, max_steps=4), out, 2)
    assert f"cannot write {out}: " in said
    assert "Traceback" not in said
    assert not (out / "model.safetensors").exists()
    assert not list(out.glob(".*"))
    assert record(out)["status"] == "running"


# --- two processes


@pytest.fixture
def together(start):
    """The same command in two processes that know of each other, as torchrun starts them."""

    def run(out, *args, **settings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = []
        for rank in (1, 0):  # the file of rank 0 is the last one opened
            log = out if rank == 0 else out.with_name(out.name + "-1")
            env = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append((start(out, *args, env=env, **settings), log))
        return [process for process, _ in reversed(processes)]

    return run


SMALL = {"max_steps": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 1e-3}


def ended(processes, out, code=0):
    end = time.monotonic() + 40
    while any(p.poll() is None for p in processes):
        assert time.monotonic() < end, "the processes wait for each other"
        assert not any(p.poll() not in (None, code) for p in processes), Path(f"{out}.err").read_text(encoding="utf-8")
        time.sleep(0.05)
    assert [p.returncode for p in processes] == [code, code], Path(f"{out}.err").read_text(encoding="utf-8")


def assert_close(one, two):
    ours, theirs = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert set(ours) == set(theirs)
    for name, weight in ours.items():
        if not name.endswith("key.bias"):  # its true gradient is 0: AdamW follows the rounding
            torch.testing.assert_close(theirs[name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(start, together, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finished(start(one, **SMALL, eval_every=2), one)
    ended(together(two, **SMALL, eval_every=2), two)
    assert record(two)["environment"]["processes"] == 2
    assert record(one)["environment"]["processes"] == 1
    assert record(two)["kept"] == pytest.approx(record(one)["kept"], abs=0.01)
    assert_close(one, two)
    assert [json.loads(x).get("loss") for x in (two / "log.jsonl").read_text().splitlines()] == [
        loss and pytest.approx(loss, abs=1e-3)
        for loss in (json.loads(x).get("loss") for x in (one / "log.jsonl").read_text().splitlines())
    ]


@pytest.mark.slow
def test_two_processes_are_stopped_and_resume(start, together, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    longer = SMALL | {"max_steps": 40, "learning_rate": 1e-5, "eval_every": 20}
    finished(start(one, **longer), one)
    processes = together(two, **longer)
    wait_for(processes[0], two, 20)
    for process in processes:
        process.send_signal(signal.SIGINT)
    ended(processes, two, 130)
    assert max(checkpoints(two)) == max(steps(two))
    ended(together(two, "--resume", **longer), two)
    assert_close(one, two)
