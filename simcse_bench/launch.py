"""One training run from names to a model folder: what is in the folder already decides what happens."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.config import TrainConfig, recipe, with_settings
from simcse_bench.errors import UserError
from simcse_bench.report import require_writable
from simcse_bench.run_folder import RECORD, RunFolder

if TYPE_CHECKING:
    from simcse_bench.job import Job
    from simcse_bench.train import Show

MEASURED_STEPS = 3  # of a dry run
Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a run lives and what may happen there."""

    out: Path
    resume: bool = False
    force: bool = False
    save_every: int = 500
    device: str = "auto"
    data_dir: Path | None = None
    data_revision: str = "main"
    tasks_dir: Path | None = None
    trackers: tuple[str, ...] = ()
    lone_score: bool = True  # score the last weights even where no other score was taken


def settle(name: str | None, settings: Sequence[str], place: Place) -> TrainConfig | None:
    """The config of a command: a recipe with changes; with ``--resume`` alone that of the run in the folder.

    None where that run is finished: there is nothing to do.
    """
    started = RunFolder(place.out).config() if place.resume else None
    if place.resume and started is None and name is None and not settings:
        record = RunFolder(place.out).record()
        if record and record["status"] == "finished":
            return None
        raise UserError(f"--resume: no unfinished run in {place.out}; name a --recipe or settings to start one.")
    if started is not None and name is None:
        config = with_settings(started, settings)
    else:
        config = with_settings(recipe(name) if name else TrainConfig(), settings)
    from simcse_bench.selection import settled

    config = settled(config, place.data_dir, place.data_revision)
    changed = [] if started is None else _changes(started, config)
    if changed:
        raise UserError(
            f"--resume: the run in {place.out} has other settings ({'; '.join(changed)}). "
            "Resume it without them, or start anew with --force or another --out."
        )
    return config


def launch(config: TrainConfig | None, place: Place, show: Show, say: Say) -> dict[str, Any]:
    """Train, or give the record of the same run where it is finished; see ``train.train``.

    ``config``: from ``settle``.

    Raises:
        UserError: another run in the folder, an unfinished one (without resume or force), or one that is under way.
    """
    from simcse_bench.job import prepare
    from simcse_bench.processes import join
    from simcse_bench.tracking import tracked
    from simcse_bench.train import train

    if place.save_every < 1:
        raise UserError(f"--save-every {place.save_every}: expected at least 1 update.")
    require_writable(place.out / RECORD)
    processes = join(place.device)
    folder = RunFolder(place.out)
    with folder.locked() if processes.main else nullcontext():
        record = None if place.force else folder.record()
        if config is None:
            return (record or {}) | {"existing": True}
        if record and record["status"] != "finished" and not place.resume and folder.checkpoints():
            step = max(folder.checkpoints())
            raise UserError(f"{place.out} holds a run stopped at step {step}. --resume goes on, --force starts anew.")
        job = prepare(config, processes, place.data_dir, place.tasks_dir, place.data_revision, say)
        if record and record["status"] == "finished":
            if record["key"] != job.key():
                changes = _record_changes(record["config"], job.describe()["config"])
                what = "; ".join(changes) or "the files of its model or data"
                raise UserError(f"{place.out} holds another finished run ({what}). Use --force or another --out.")
            return record | {"existing": True}
        for note in job.notes():
            say(note)
        with tracked(place.trackers, place.out, dataclasses.asdict(config), processes, show) as shown:
            return train(job, place.out, place.resume, place.save_every, shown, place.lone_score)


def estimate(config: TrainConfig, place: Place, say: Say) -> tuple[list[tuple[str, str]], float]:
    """What a run would do and cost, by a few of its own updates in memory, and its seconds.

    Nothing is written but the token cache.
    """
    from simcse_bench.job import prepare
    from simcse_bench.processes import join
    from simcse_bench.train import Run

    job = prepare(config, join(place.device), place.data_dir, place.tasks_dir, place.data_revision, say)
    run = Run(job, RunFolder(place.out), lambda entry: None)
    seconds = []
    for _ in range(min(MEASURED_STEPS, job.steps)):
        start = time.perf_counter()
        run.update()
        run.check()
        seconds.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in run.model.parameters())
    lengths = job.data.lengths()
    views = 2 if job.data.columns == 1 and config.same_mask != "copy" else 1
    rows = job.epoch(job.steps) * len(job.data)
    tokens = float(lengths.sum(1).mean()) * views * rows
    # the first update also fetches memory and compiles kernels
    each = statistics.median(seconds[1:] or seconds)
    length = duration(job.steps * each)
    shown = f"{length} on {job.processes.device}, {each:.2f} s an update"
    found = [
        ("start", f"{job.checkpoint.name}, {parameters / 1e6:.1f} million weights trained"),
        ("data", f"{job.corpus.name}: {len(job.data):,} rows of {job.corpus.columns} column(s), {_counted(job)}"),
        ("steps", f"{job.steps:,} updates, {job.epoch(job.steps):.2f} epochs, batch {config.batch_size}"),
        ("tokens", f"{tokens / 1e6:,.1f} million, {float(lengths.mean()):.1f} a sentence"),
        ("dev scores", _evaluations(job)),
        ("memory", _peak(job, len(seconds))),
        ("disk", f"{parameters * 12 / 1e9:.2f} GB a checkpoint, two are kept; {parameters * 4 / 1e9:.2f} GB the model"),
        ("time", f"{shown}; dev scores not counted"),
    ]
    return found + [("note", note) for note in job.notes()], job.steps * each


def _counted(job: Job) -> str:
    return f"{job.data.counts['truncated']:,} sentences truncated, {job.data.counts['empty']:,} empty rows left out"


def _evaluations(job: Job) -> str:
    if job.dev is None or not job.config.eval_every:
        return "none: the last weights are kept"
    return f"{-(-job.steps // job.config.eval_every)} on {job.config.eval_task}"


def _peak(job: Job, updates: int) -> str:
    if job.processes.device.type == "cuda":
        import torch

        size = torch.cuda.max_memory_allocated(job.processes.device)
    else:
        try:
            import resource
        except ImportError:  # Windows
            return "not known on this system"
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    return f"{size / 1e9:.1f} GB at the peak of {updates} updates"


def duration(seconds: float) -> str:
    """In words."""
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"about {max(1, minutes)} min"


def _changes(before: TrainConfig, now: TrainConfig) -> list[str]:
    return _record_changes(dataclasses.asdict(before), dataclasses.asdict(now))


def _record_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Fields in which two configs differ, as text; a saved one has lists where the other has tuples."""
    a, b = ({k: list(v) if isinstance(v, tuple) else v for k, v in x.items()} for x in (before, now))
    return [f"{k} {a.get(k)!r} there, {b[k]!r} here" for k in b if a.get(k) != b[k]]
