"""A training run that is killed, stopped or out of disk leaves a folder that is whole: real processes, a tiny BERT."""

import json
import signal

import pytest
from processes import STEPS, checkpoints, finished, record, steps, wait_for


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
