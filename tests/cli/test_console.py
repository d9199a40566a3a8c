"""What the command line does before a command: threads that share their cores."""

import os
import subprocess
import sys
import time

import pytest

from simcse_bench.cli import console


@pytest.mark.skipif(sys.platform != "linux", reason="only there the cores in use are known")
@pytest.mark.parametrize(
    ("running", "ours", "there", "given", "policy"),
    [
        ([0, 1, 0, 0, 0], 2, 2, {}, None),  # a moment of one
        ([1, 1, 2, 1, 1], 2, 2, {}, "passive"),
        ([30] * 5, 2, 64, {}, None),  # a part of a large machine
        ([63] * 5, 2, 64, {}, "passive"),
        ([5] * 5, 2, 2, {"OMP_WAIT_POLICY": "active"}, "active"),  # what the user has set stays
        ([5] * 5, 2, 2, {"OMP_NUM_THREADS": "1"}, None),
    ],
)
def test_threads_sleep_only_where_others_hold_their_cores(monkeypatch, running, ours, there, given, policy):
    environ = dict(given)
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ours)))
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    monkeypatch.setattr(console, "_others_running", iter(running).__next__)
    console.yield_shared_cores()
    assert environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_other_processes_threads_are_counted():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        assert max(console._others_running() for _ in range(20)) >= 1
    finally:
        busy.kill()
        busy.wait()
