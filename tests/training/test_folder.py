"""A training run that is killed, stopped or out of disk leaves a folder that is whole: real processes, a tiny BERT."""

import json
import shutil
import signal
from collections import Counter

import pytest
from processes import (
    STEPS,
    checkpoints,
    finished,
    kept,
    killed_at_each_write,
    record,
    set_options,
    start_command,
    steps,
    wait_for,
)
from tiny import sentences

from simcse_bench.errors import UserError
from simcse_bench.training.folder import RunFolder


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The run that nothing stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(start(out), out)
    return out


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
    step = max(checkpoints(out))
    assert f"stopped at step {step} of {STEPS}; the same command with --resume goes on." in said
    assert "Traceback" not in said
    assert step == max(steps(out))
    assert not (out / "model.safetensors").exists()
    finished(start(out, "--resume"), out)
    assert sorted(set(steps(out))) == steps(out)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint(start, tmp_path):
    out = tmp_path / "run"
    process = start(out, warm=False)
    wait_for(process, out, 0)
    process.terminate()
    said = finished(process, out, 143)
    assert max(checkpoints(out)) == max(steps(out))
    assert "--resume" in said


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_whole(start, tmp_path):
    """A checkpoint fits at first; from then on no file may grow beyond 40 kB."""
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, out, 10)
    process.send_signal(signal.SIGINT)
    finished(process, out, 130)
    step = max(checkpoints(out))
    last = out / "checkpoints" / f"step-{step:08d}"
    before = {p: p.read_bytes() for p in last.iterdir()}
    said = finished(start(out, "--resume", limit=40_000), out, 2)
    assert f"error: cannot write {out}: " in said
    assert "large" in said
    assert f"the checkpoint of step {step} is whole" in said
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in last.iterdir()} == before
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"config.json", last.name}


@pytest.mark.slow
def test_a_full_disk_at_the_end_exports_nothing(start, tmp_path):
    out = tmp_path / "run"
    said = finished(start(out, limit=40_000, max_steps=4), out, 2)
    assert f"cannot write {out}: " in said
    assert "Traceback" not in said
    assert not (out / "model.safetensors").exists()
    assert not list(out.glob(".*"))
    assert record(out)["status"] == "running"


# --- killed at every write


def run_to_the_end(arguments, log, env):
    process = start_command(arguments, log, env)
    with kept([process]):
        assert process.wait(90) == 0, log.read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path):
    """Folders that a command line of `train` writes to, its log, its environment."""
    return tmp_path / "run", tmp_path / "cache", tmp_path / "log", {"SIMCSE_BENCH_CACHE": str(tmp_path / "cache")}


def trained(bert, text, out, *args, **settings):
    chosen = {"model": bert, "train": text, "batch_size": 8, "max_steps": 3, "eval_every": 2, "eval_task": "mini-sts"}
    return ["train", "--out", out, "--device", "cpu", "--save-every", "1", "-q", *set_options(chosen | settings), *args]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentences(20)) + "\n", encoding="utf-8")
    return path


def assert_whole(out, whole):
    assert record(out)["status"] == "finished"
    assert record(out)["files"] == record(whole)["files"]
    names = {p.relative_to(whole) for p in whole.rglob("*")}
    assert {p.relative_to(out) for p in out.rglob("*")} == names
    for name in record(whole)["files"]:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    lines = [
        [
            {k: v for k, v in json.loads(x).items() if "per_second" not in k}
            for x in (p / "log.jsonl").read_text().splitlines()
        ]
        for p in (out, whole)
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("every", [3])  # 1, every point, takes seven minutes
def test_a_run_killed_at_any_write_is_gone_on_with_to_the_same_model(bert, text, place, tmp_path, every):
    out, cache, log, env = place
    whole = tmp_path / "whole"
    run_to_the_end(trained(bert, text, whole), log, env)
    shutil.rmtree(cache)
    command = trained(bert, text, out)
    states = Counter()
    for _ in killed_at_each_write(command, [out, cache], log, env, every):
        state = record(out)["status"] if (out / "train.json").exists() else "nothing"
        states[state] += 1
        if state == "finished":
            RunFolder(out).require_whole(record(out))
        run_to_the_end([*command, "--resume"], log, env)
        assert_whole(out, whole)
        shutil.rmtree(out)
        shutil.rmtree(cache)
    assert_whole(out, whole)
    assert sum(states.values()) >= 80 // every
    if every == 1:
        assert min(states[s] for s in ("nothing", "running", "finished")) > 2
        print(dict(states))


@pytest.mark.slow
def test_a_run_forced_over_another_and_killed_at_any_write_is_one_of_the_two(bert, text, place, tmp_path):
    out, _, log, env = place
    old, new = tmp_path / "old", tmp_path / "new"
    short = {"max_steps": 2, "eval_every": 0}
    run_to_the_end(trained(bert, text, old, seed=7, **short), log, env)
    run_to_the_end(trained(bert, text, new, **short), log, env)
    shutil.copytree(old, out)
    states = Counter()
    command = trained(bert, text, out, "--force", **short)
    for _ in killed_at_each_write(command, [out], log, env):
        state = "running"
        if record(out)["status"] == "finished":
            try:
                RunFolder(out).require_whole(record(out))
                state = "old" if record(out)["files"] == record(old)["files"] else "new"
            except UserError:
                state = "old, without its model"
        states[state] += 1
        run_to_the_end(command, log, env)
        assert_whole(out, new)
        shutil.rmtree(out)
        shutil.copytree(old, out)
    assert_whole(out, new)
    assert min(states[s] for s in ("old", "running", "new")) > 1
    print(dict(states))
