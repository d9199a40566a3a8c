"""Two processes that train one model: real processes, a tiny BERT."""

import json
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from processes import checkpoints, finished, record, steps, wait_for
from safetensors.torch import load_file

from simcse_bench.errors import UserError
from simcse_bench.training.processes import join_processes


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


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes were started on this machine, and 1 of its GPUs can be seen"):
        join_processes()


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


METHODS = {
    "gs": {},
    "esimcse": {"repetition": 0.0},  # which words are repeated is drawn by each process
    "simcse++": {"dcl_weight": 1.0},
    "iscse": {"buffer": 32, "smoothing_weight": 1.0},
    "dclr": {"threshold": 0.5},
    "scd": {"dropout": "none", "first_dropout": 0.0, "second_dropout": 0.0, "mlp": "none", "projector_width": 16,
            "decorrelation_weight": 1.0, "off_diagonal": 1.0},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_reach_the_weights_of_one_by_another_method(start, together, tmp_path, method):
    one, two, plain = (tmp_path / name for name in ("one", "two", "plain"))
    common = SMALL | {"temperature": 0.5}  # without dropout positives are found anyway, and little changes at 0.05
    settings = common | {"method": method} | METHODS[method]
    finished(start(one, **settings), one)
    ended(together(two, **settings), two)
    assert_close(one, two)
    finished(start(plain, **common), plain)
    with pytest.raises(AssertionError):
        assert_close(one, plain)


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
