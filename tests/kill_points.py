"""A function killed at every point where it changes the disk: before and after each rename, removal, sync and new file."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

_CHANGES = [(os, n) for n in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync")] + [(io, "open")]


def kill_points(work: Callable[[], Any], before: Callable[[], Any]) -> Iterator[str]:
    """Prepare with ``before``, run ``work`` in a child that is killed at its next point; its name. Ends when none is left.

    ``work`` runs in a fork: it must not compute with torch.
    """
    at = 0
    while True:
        before()
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            try:
                _arm(at, writer)
                work()
            except BaseException:
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            said = stream.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
            assert at, "nothing changes the disk"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield f"{at}: {said}"
        at += 1


def _arm(at: int, writer: int) -> None:
    """Let the ``at``-th point kill this process; every change has two, before and after it."""
    passed = 0

    def point(what: str) -> None:
        nonlocal passed
        if passed == at:
            os.write(writer, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def armed(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            mode = str(named.get("mode") or (args[1] if len(args) > 1 else "r"))
            if name == "open" and not set("wax+") & set(mode):
                return real(*args, **named)
            point(f"before {name} {args}")
            result = real(*args, **named)
            point(f"after {name} {args}")
            return result

        return call

    for module, name in _CHANGES:
        setattr(module, name, armed(name, getattr(module, name)))
