"""Progress of a sweep: a live table of its arms in a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from simcse_bench.experiments.run import ShowTrial
    from simcse_bench.experiments.sweep import Trial
    from simcse_bench.progress import Show

_SIGNS = {"waiting": "·", "running": "▶", "there": "✓", "done": "✓", "failed": "✗"}
_ENDED = ("there", "done", "failed")


@dataclass
class _Entry:
    """What is known of one trial."""

    state: str = "waiting"
    step: int = 0
    total: int = 0
    loss: float | None = None
    dev: float | None = None

    @property
    def share(self) -> float:
        """Of its work that is done."""
        return 1.0 if self.state in _ENDED else self.step / self.total if self.total else 0.0


@dataclass
class Board:
    """The trials of a sweep, told of what happens by ``show_trial``; drawn by rich as a table of the arms."""

    trials: Mapping[str, Mapping[int, _Entry]]  # arm -> seed
    started: float = field(default_factory=lambda: time.perf_counter())

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Board:
        """All trials waiting."""
        arms = dict.fromkeys(t.arm for t in trials)
        return cls({arm: {t.seed: _Entry() for t in trials if t.arm == arm} for arm in arms})

    def show_trial(self, trial: Trial, state: str, dev: float | None = None) -> Show:
        """A trial's new state; a ``run.ShowTrial``."""
        entry = self.trials[trial.arm][trial.seed]
        entry.state, entry.dev = state, dev

        def show(logged: Mapping[str, Any]) -> None:
            entry.step, entry.total = logged["step"], logged["total"]
            entry.loss = logged.get("loss", entry.loss)

        return show

    @property
    def entries(self) -> list[_Entry]:
        """Of all trials."""
        return [entry for seeds in self.trials.values() for entry in seeds.values()]

    @property
    def ended(self) -> int:
        """Trials that are done, were there, or failed."""
        return sum(e.state in _ENDED for e in self.entries)

    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None before there is one."""
        own = [e for e in self.entries if e.state != "there"]
        done = sum(e.share for e in own)
        passed = time.perf_counter() - self.started
        return passed * (len(own) - done) / done if done > 0.05 else None

    def rows(self) -> list[list[str]]:
        """A row per arm: name, a sign for each seed, dev scores so far, what is running."""
        rows = []
        for arm, seeds in self.trials.items():
            scores = [e.dev for e in seeds.values() if e.dev is not None]
            dev = f"{statistics.mean(scores):.2f}" if scores else ""
            dev += f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            now = "; ".join(
                f"seed {seed}: {e.step} of {e.total or '?'}" + (f", loss {e.loss:.3f}" if e.loss is not None else "")
                for seed, e in seeds.items()
                if e.state == "running"
            )
            rows.append([arm, " ".join(_SIGNS[e.state] for e in seeds.values()), dev, now])
        return rows

    def __rich__(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for name in ("arm", "seeds", "dev", "now"):
            table.add_column(name, no_wrap=name == "arm")
        for row in self.rows():
            table.add_row(*map(Text, row))
        whole = Table.grid(padding=(0, 1))
        whole.add_row(
            ProgressBar(total=len(self.entries), completed=sum(e.share for e in self.entries), width=40),
            Text(f"{self.ended} of {len(self.entries)} trials, {self._passed()}{self._ahead()}"),
        )
        return Group(table, whole)

    def line(self, trial: Trial) -> str:
        """What has become of a trial."""
        entry = self.trials[trial.arm][trial.seed]
        dev = "" if entry.dev is None else f", dev {entry.dev:.2f}"
        place = self.ended + (entry.state == "running")
        what = f"{trial.arm}, seed {trial.seed}: {entry.state}{dev}"
        return f"{place} of {len(self.entries)}, {what} ({self._passed()}{self._ahead()})"

    def _passed(self) -> str:
        return _time(time.perf_counter() - self.started)

    def _ahead(self) -> str:
        left = self.left()
        return f", about {_time(left)} left" if left and self.ended < len(self.entries) else ""


@contextlib.contextmanager
def show_sweep(how: str, trials: Sequence[Trial]) -> Iterator[ShowTrial]:
    """What is told of a sweep's trials and shows them on stderr.

    ``how``: bar (a live table), plain (a line per event), none, or auto (by whether stderr is a terminal).
    """
    board = Board.of(trials)
    if how == "auto":
        how = "bar" if sys.stderr.isatty() else "plain"
    if how == "bar":
        from rich.console import Console
        from rich.live import Live

        with Live(board, console=Console(stderr=True), refresh_per_second=2):
            yield board.show_trial
        return

    def told(trial: Trial, state: str, dev: float | None = None) -> Show:
        show = board.show_trial(trial, state, dev)
        if how == "plain":
            print(board.line(trial), file=sys.stderr, flush=True)
        return show

    yield told


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
