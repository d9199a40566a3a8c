"""Progress of an evaluation: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simcse_bench.encoders import Progress


@contextlib.contextmanager
def progress_shown(how: str) -> Iterator[Progress | None]:
    """A callback ``(tokens done, tokens in all)`` that shows a bar, prints plain lines, or None.

    ``how``: bar, plain, none, or auto (a bar if stderr is a terminal, else plain lines). All of it goes to stderr.
    """
    if how == "auto":
        how = "bar" if sys.stderr.isatty() else "plain"
    if how == "none":
        yield None
    elif how == "plain":
        yield _plain_lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Bar(*columns, TextColumn("{task.fields[rate]}"), console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task("embedding", total=None, rate="")
            start = time.perf_counter()

            def update(done: int, total: int) -> None:
                rate = f"{done / (time.perf_counter() - start):,.0f} tokens/s"
                bar.update(shown, completed=done, total=total, rate=rate)

            yield update


def _plain_lines() -> Progress:
    start, printed = 0.0, 0

    def update(done: int, total: int) -> None:
        nonlocal printed, start
        start = start or time.perf_counter()
        tenth = 10 * done // total
        if tenth > printed:
            printed = tenth
            seconds = time.perf_counter() - start
            print(
                f"embedding {10 * tenth} %, {done:,} of {total:,} tokens, {seconds:.0f} s", file=sys.stderr, flush=True
            )

    return update
