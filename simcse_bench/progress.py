"""Progress of evaluation and training: a bar in a terminal, plain lines in a log; the types of the callbacks."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Progress = Callable[[int, int], None]  # done, in all: tokens, or another unit
Show = Callable[[Mapping[str, Any]], None]  # gets every entry of a run's log, and "total"
Say = Callable[[str], None]  # gets a line for people


def unseen(entry: Mapping[str, Any]) -> None:
    """A ``Show`` that shows nothing."""


def silent(line: str) -> None:
    """A ``Say`` that says nothing."""


@contextlib.contextmanager
def show_progress(how: str, unit: str = "tokens") -> Iterator[Progress | None]:
    """A callback ``(done, in all)``, of tokens or another unit, that shows a bar, prints plain lines, or None.

    ``how``: bar, plain, none, or auto (a bar if stderr is a terminal, else plain lines). All of it goes to stderr.
    """
    if how == "auto":
        how = "bar" if sys.stderr.isatty() else "plain"
    if how == "none":
        yield None
    elif how == "plain":
        yield _plain_lines(unit)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Bar(*columns, TextColumn("{task.fields[rate]}"), console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task("embedding", total=None, rate="")
            start = time.perf_counter()

            def update(done: int, total: int) -> None:
                rate = f"{done / (time.perf_counter() - start):,.0f} {unit}/s"
                bar.update(shown, completed=done, total=total, rate=rate)

            yield update


def _plain_lines(unit: str) -> Progress:
    start, printed = 0.0, 0

    def update(done: int, total: int) -> None:
        nonlocal printed, start
        start = start or time.perf_counter()
        tenth = 10 * done // total
        if tenth > printed:
            printed = tenth
            seconds = time.perf_counter() - start
            print(
                f"embedding {10 * tenth} %, {done:,} of {total:,} {unit}, {seconds:.0f} s", file=sys.stderr, flush=True
            )

    return update


@contextlib.contextmanager
def show_training(how: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A callback for the entries of a training log: a bar with loss, dev score, tokens/s and ETA, or plain lines.

    ``how`` as for ``progress_shown``.
    """
    if how == "auto":
        how = "bar" if sys.stderr.isatty() else "plain"
    if how == "none":
        yield lambda entry: None
    elif how == "plain":
        yield _training_lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, TextColumn("{task.fields[state]}"), console=Console(stderr=True)) as bar:
            shown = bar.add_task("training", total=None, state="")
            state: dict[str, str] = {}

            def update(entry: Mapping[str, Any]) -> None:
                if "loss" in entry:
                    state["loss"] = f"loss {entry['loss']:.4f}"
                    state["rate"] = f"{entry['tokens_per_second']:,.0f} tokens/s"
                if "dev" in entry:
                    state["dev"] = f"dev {entry['dev']:.2f}"
                    bar.console.print(_dev_line(entry))
                bar.update(shown, completed=entry["step"], total=entry["total"], state="  ".join(state.values()))

            yield update


def _dev_line(entry: Mapping[str, Any]) -> str:
    best = ", the best so far" if entry.get("best") else ""
    shape = "".join(f", {k} {entry[k]:.3f}" for k in ("alignment", "uniformity") if k in entry)
    dev = f" dev {entry['dev']:.2f}{best}" if "dev" in entry else ""
    return f"step {entry['step']}:{dev}{shape if dev else shape.removeprefix(',')}"


def _training_lines() -> Callable[[Mapping[str, Any]], None]:
    """A line for every dev score, and about fifty others in a run."""
    printed = 0
    start, first = time.perf_counter(), -1

    def update(entry: Mapping[str, Any]) -> None:
        nonlocal printed, first
        step, total = entry["step"], entry["total"]
        first = step if first < 0 else first
        line = ""
        if "loss" not in entry:
            line = _dev_line(entry)
        elif step == total or step - printed >= total / 50:
            printed = step
            left = (time.perf_counter() - start) * (total - step) / max(1, step - first) if step > first else 0
            ahead = f", {left / 60:.0f} min left" if left >= 60 else ""
            line = (
                f"step {step} of {total}: loss {entry['loss']:.4f}, {entry['tokens_per_second']:,.0f} tokens/s{ahead}"
            )
        if line:
            print(line, file=sys.stderr, flush=True)

    return update
