"""Suites on a Ray of this machine: the scores of one process, also when a worker is killed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from processes import PATIENCE, finished, kept, start_command

SUITES = "one: [mini-sts]\ntwo: [mini-minimal-pairs]\nthree: [mini-probe]\n"


def workers(tmp_path):
    """Process numbers of this test's Ray workers that evaluate."""
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
def test_a_killed_worker_changes_no_score(bert, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "suites.yaml").write_text(SUITES)
    command = ["eval", bert, "--pooling", "mean", "--suite", "one,two,three", "--tasks-dir", "tasks", "--device", "cpu"]
    cache, running = {"SIMCSE_BENCH_CACHE": str(tmp_path / "cache")}, []
    with kept(running):
        for out, more in (("here", []), ("ray", ["--executor", "ray"])):
            running.append(start_command([*command, "--out", out, *more], Path(f"{out}.err"), cache, warm=False))
            end = time.monotonic() + PATIENCE
            while more and not workers(tmp_path):
                assert running[-1].poll() is None, Path("ray.err").read_text()
                assert time.monotonic() < end
                time.sleep(0.005)
            if more:
                os.kill(workers(tmp_path)[0], signal.SIGKILL)
            finished(running[-1], out)
        running.append(
            start_command([*command, "--out", "ray", "--executor", "ray"], Path("again.err"), cache, warm=False)
        )
        assert finished(running[-1], "again").count("already there, printed again") == 3
    reports = [p.relative_to("here") for p in sorted(Path("here").rglob("*.json")) if "pairs" not in p.name]
    assert len(reports) == 3
    for path in reports:
        here, there = (json.loads((Path(out) / path).read_text("utf-8")) for out in ("here", "ray"))
        for field in ("key", "tasks", "average", "model", "protocol", "stats"):
            assert here[field] == there[field], (path, field)
    for path in Path("here").rglob("*.pairs.jsonl"):
        assert path.read_bytes() == (Path("ray") / path.relative_to("here")).read_bytes()
