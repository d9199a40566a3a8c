"""The command line in a process of its own, to be killed, stopped, or started twice: what tests of processes share.

Most of these processes are forked from one that has torch and transformers loaded already: a start takes a moment
instead of seconds. ``warm=False`` starts an interpreter, as a user does.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STEPS = 120
PATIENCE = 180  # seconds, on a busy machine

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["scipy.stats", "transformers.models.bert.modeling_bert", "transformers.masking_utils", "torch._dynamo",
     "simcse_bench.cli.train", "simcse_bench.cli.evaluate", "simcse_bench.training.train", "simcse_bench.training.run", "simcse_bench.training.job", "pydantic", "rich.progress"]
)  # fmt: skip


Kill = tuple[int, Sequence[str]]  # SIGKILL before the so many-th write below these folders, from 1


class Forked:
    """A process with the methods of ``subprocess.Popen`` that the tests use."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, limit: int | None, kill: Kill | None
    ) -> None:
        self._process = _FORKS.Process(
            target=_command, args=(arguments, dict(environment), str(log), limit, str(Path.cwd()), kill)
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("simcse-bench", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _command(
    arguments: Sequence[str],
    environment: dict[str, str],
    log: str,
    limit: int | None,
    folder: str,
    kill: Kill | None,
) -> None:
    """What a forked process does: the command line with its output in a file."""
    import torch

    from simcse_bench.__main__ import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))  # noqa: SIM115, PTH123
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["simcse-bench", *arguments]
    if kill is not None:
        _kill_at_write(*kill)
    main()


_CHANGES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}


def _kill_at_write(number: int, folders: Sequence[str]) -> None:
    """SIGKILL for this process when it is about to change something below the folders for the so many-th time.

    Python tells of every file opened for writing, renamed or removed before it is done, whichever module does it. What
    libraries write in C or Rust lies between two of these.
    """
    count = 0

    def changed(event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            return (
                isinstance(args[0], str)
                and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
                and below(args[0], -1)
            )
        if event not in _CHANGES:
            return False
        paths = _CHANGES[event]
        return any(below(os.fspath(path), args[-1] if event != "os.truncate" else -1) for path in args[:paths])

    def below(path: Any, parent: Any) -> bool:
        if isinstance(parent, int) and parent >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{parent}"), path)  # noqa: PTH115, PTH118
        return os.path.abspath(path).startswith(tuple(folders))  # noqa: PTH100

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if changed(event, args):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def start_command(
    arguments: Sequence[object],
    log: Path,
    env: Mapping[str, str],
    limit: int | None = None,
    warm: bool = True,
    kill: Kill | None = None,
) -> Any:
    """Start a command line, of one thread; its output is added to the file ``log``; no file may grow over ``limit``."""
    given = list(map(str, arguments))
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env)
    if warm:
        return Forked(given, environment, log, limit, kill)
    ceiling = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    command = [sys.executable, "-m", "simcse_bench", *given]
    with log.open("a") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, preexec_fn=ceiling)


def killed_at_each_write(
    arguments: Sequence[object], folders: Sequence[Path], log: Path, env: Mapping[str, str], every: int = 1
) -> Iterator[int]:
    """Start the command line again and again, killed before its first change below the folders, its second, and so on.

    Gives the number of the change after each kill; the caller looks at what is there, and puts back what there was
    before the command. Ends when the command gets through. ``every``: only so many-th changes.
    """
    watched = [str(folder.resolve()) for folder in folders]
    for number in itertools.count(every, every):
        process = start_command(arguments, log, env, kill=(number, watched))
        with kept([process]):
            ended = process.wait(PATIENCE)
        if ended != -signal.SIGKILL:
            assert ended == 0, log.read_text(encoding="utf-8")
            return
        yield number


@contextmanager
def kept(running: list[Any]) -> Iterator[None]:
    """End those that still run."""
    try:
        yield
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def trainings(bert: Path, text: Path, senteval: Path, cache: Path) -> Iterator[Any]:
    """Start `train` as a process of its own; output goes to the file FOLDER.err."""
    running: list[Any] = []

    def run(out, *args, env=None, limit=None, warm=True, **settings):
        chosen = {"model": bert, "train": text, "batch_size": 24, "max_steps": STEPS, "eval_every": 0} | settings
        command = ["train", "--out", out, "--device", "cpu", "--save-every", "5", "--data-dir", senteval, "-q",
                   "--progress", "plain", *set_options(chosen), *args]  # fmt: skip
        log = Path(f"{out}.err")
        log.write_text("")
        process = start_command(command, log, {"SIMCSE_BENCH_CACHE": str(cache)} | (env or {}), limit, warm)
        running.append(process)
        return process

    with kept(running):
        yield run


def finished(process, out, code=0):
    """What it said, once it has ended with the code."""
    ended = process.wait(PATIENCE)
    said = Path(f"{out}.err").read_text(encoding="utf-8")
    assert ended == code, said
    return said


def set_options(settings):
    """`--set field=value` for each."""
    return [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]


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


def stop_at(monkeypatch, step):
    """Make a run in this process fail as if killed behind this update."""
    from simcse_bench.training import train as training

    update = training.Run.update

    def stopped(self):
        if self.state.step == step:
            raise KeyboardInterrupt
        update(self)

    monkeypatch.setattr(training.Run, "update", stopped)
