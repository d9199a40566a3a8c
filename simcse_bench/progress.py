"""Progress of evaluation and training: a bar in a terminal, plain lines in a log; the types of the callbacks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]  # done, in all: tokens, or another unit
Show = Callable[[Mapping[str, Any]], None]  # gets every entry of a run's log, and "total"
Say = Callable[[str], None]  # gets a line for people


def unseen(entry: Mapping[str, Any]) -> None:
    """A ``Show`` that shows nothing."""


def silent(line: str) -> None:
    """A ``Say`` that says nothing."""


@contextmanager
def show_progress(how: str, unit: str = "tokens") -> Iterator[Progress | None]:
    """A callback ``(done, in all)``, of tokens or another unit, that shows a bar, prints plain lines, or None.

    ``how``: bar, plain, none, or auto (a bar if stderr is a terminal, else plain lines). All of it goes to stderr.
    """
    how = _choose(how)
    if how == "none":
        yield None
    elif how == "plain":
        yield _plain_lines(unit)
    else:
        with _open_bar("loading the model") as (bar, task):
            clock = _Clock()

            def update(done: int, total: int) -> None:
                if not clock.started:
                    bar.start_task(task)
                rate = clock.rate(done)
                state = "" if rate is None else f"{rate:,.0f} {unit}/s"
                bar.update(task, description="embedding", completed=done, total=total, state=state)

            yield update


class _Clock:
    """Runs from the first report of progress: what was loaded before, and what was done already, is no work of it."""

    def __init__(self) -> None:
        self.started = 0.0
        self.before = 0

    def seconds(self) -> float:
        """Since the first report."""
        return time.perf_counter() - self.started

    def rate(self, done: int) -> float | None:
        """Units a second since the first report; None at that."""
        if not self.started:
            self.started, self.before = time.perf_counter(), done
            return None
        return (done - self.before) / max(self.seconds(), 1e-9)


def _plain_lines(unit: str) -> Progress:
    clock, printed = _Clock(), 0

    def update(done: int, total: int) -> None:
        nonlocal printed
        clock.rate(done)
        tenth = 10 * done // total
        if tenth > printed:
            printed = tenth
            seconds = f"{clock.seconds():.0f} s"
            print(f"embedding {10 * tenth} %, {done:,} of {total:,} {unit}, {seconds}", file=sys.stderr, flush=True)

    return update


@contextmanager
def show_training(how: str) -> Iterator[Show]:
    """A callback for the entries of a training log: a bar with loss, dev score, tokens/s and ETA, or plain lines.

    ``how`` as for ``show_progress``.
    """
    how = _choose(how)
    if how == "none":
        yield unseen
    elif how == "plain":
        yield _training_lines()
    else:
        with _open_bar("training", steps=True) as (bar, task):
            state: dict[str, str] = {}

            def update(entry: Mapping[str, Any]) -> None:
                if "loss" in entry:
                    state["loss"] = f"loss {entry['loss']:.4f}"
                    state["rate"] = f"{entry['tokens_per_second']:,.0f} tokens/s"
                if "dev" in entry:
                    state["dev"] = f"dev {entry['dev']:.2f}"
                    bar.console.print(_dev_line(entry))
                bar.update(task, completed=entry["step"], total=entry["total"], state="  ".join(state.values()))

            yield update


def _choose(how: str) -> str:
    auto = "bar" if sys.stderr.isatty() else "plain"
    return auto if how == "auto" else how


@contextmanager
def _open_bar(label: str, steps: bool = False) -> Iterator[tuple[Any, Any]]:
    """rich's bar and its task, in per cent and gone at the end; or counting ``steps`` and left standing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    done = MofNCompleteColumn() if steps else TaskProgressColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    state = TextColumn("{task.fields[state]}", markup=False)
    with Bar(*columns, state, console=Console(stderr=True), transient=not steps) as bar:
        yield bar, bar.add_task(label, start=steps, total=None, state="")


def _dev_line(entry: Mapping[str, Any]) -> str:
    best = ", the best so far" if entry.get("best") else ""
    shape = "".join(f", {k} {entry[k]:.3f}" for k in ("alignment", "uniformity") if k in entry)
    dev = f" dev {entry['dev']:.2f}{best}" if "dev" in entry else ""
    return f"step {entry['step']}:{dev}{shape if dev else shape.removeprefix(',')}"


def _training_lines() -> Show:
    """A line for every dev score, and about fifty others in a run."""
    start, first, printed = time.perf_counter(), -1, 0

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
            rate = f"{entry['tokens_per_second']:,.0f} tokens/s"
            line = f"step {step} of {total}: loss {entry['loss']:.4f}, {rate}{ahead}"
        if line:
            print(line, file=sys.stderr, flush=True)

    return update
