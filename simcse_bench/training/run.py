"""One training run from names to a model folder: what is there already decides what happens; trackers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.errors import UserError, unknown
from simcse_bench.files import require_writable
from simcse_bench.models.weights import RUN_RECORD
from simcse_bench.progress import Say, Show, silent, unseen
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.processes import Processes
from simcse_bench.training.recipes import recipe, with_settings

_PLAIN = (int, float, str, bool)  # values that trackers take as they are


@dataclass(frozen=True)
class RunOptions:
    """Where a run lives and what may happen there."""

    out: Path
    resume: bool = False
    force: bool = False
    save_every: int = 500
    device: str = "auto"
    where: DataSource = ANYWHERE  # the dev data is
    trackers: tuple[str, ...] = ()
    lone_score: bool = True  # score the last weights even where no other score was taken


def settle_config(name: str | None, settings: Sequence[str], options: RunOptions) -> TrainConfig | None:
    """The config of a command: a recipe with changes; with ``--resume`` alone that of the run in the folder.

    None where that run is finished: there is nothing to do.
    """
    started = RunFolder(options.out).config() if options.resume else None
    if options.resume and started is None and name is None and not settings:
        record = RunFolder(options.out).record()
        if record and record["status"] == "finished":
            return None
        raise UserError(f"--resume: no unfinished run in {options.out}; name a --recipe or settings to start one.")
    if started is not None and name is None:
        config = with_settings(started, settings)
    else:
        config = recipe(name, settings, options.where, options.device)
    changed = [] if started is None else _changes(dataclasses.asdict(started), dataclasses.asdict(config))
    if changed:
        raise UserError(
            f"--resume: the run in {options.out} has other settings ({'; '.join(changed)}). "
            "Resume it without them, or start anew with --force or another --out."
        )
    return config


def train(
    config: TrainConfig | None, options: RunOptions | str | Path, show: Show = unseen, say: Say = silent
) -> dict[str, Any]:
    """Train, or give the record of the same run where it is finished (``existing``); see ``train.train_job``.

    Args:
        config: from ``recipe`` or ``settle_config``; None: the run in the folder is finished.
        options: where and how; of a folder alone, the defaults.
        show: gets every entry of the log.
        say: gets notes for people.

    Raises:
        UserError: another run in the folder, an unfinished one (without resume or force), one that is under way or has
            lost its model; a folder that is no run's, or is the model's own.
    """
    from simcse_bench.training.job import prepare_job
    from simcse_bench.training.processes import join_processes
    from simcse_bench.training.train import train_job

    if not isinstance(options, RunOptions):
        options = RunOptions(Path(options))
    if options.save_every < 1:
        raise UserError(f"--save-every {options.save_every}: expected at least 1 update.")
    require_place(config, options.out)
    require_writable(options.out / RUN_RECORD)
    processes = join_processes(options.device)
    folder = RunFolder(options.out)
    with folder.locked() if processes.main else nullcontext():
        record = None if options.force else folder.record()
        if config is None:
            folder.require_whole(record or {})
            return (record or {}) | {"existing": True}
        if record and record["status"] != "finished" and not options.resume and folder.checkpoints():
            step = max(folder.checkpoints())
            raise UserError(f"{options.out} holds a run stopped at step {step}. --resume goes on, --force starts anew.")
        job = prepare_job(config, processes, options.where, say)
        if record and record["status"] == "finished":
            if record["key"] != job.key():
                changes = _changes(record["config"], job.describe()["config"])
                what = "; ".join(changes) or "the files of its model or data"
                raise UserError(f"{options.out} holds another finished run ({what}). Use --force or another --out.")
            folder.require_whole(record)
            if processes.main:
                folder.clear_checkpoints()  # a kill may have left them
            return record | {"existing": True}
        for note in job.notes():
            say(note)
        with show_on_trackers(options.trackers, options.out, dataclasses.asdict(config), processes, show) as shown:
            return train_job(job, options.out, options.resume, options.save_every, shown, options.lone_score, say)


def require_place(config: TrainConfig | None, out: Path) -> None:
    """UserError where a run would overwrite what it starts from, or what no run has written."""
    starts: list[tuple[str, Any]] = []
    if config is not None:
        starts = [("model", config.model), ("augmentation_file", config.augmentation_file)]
        starts += [(name, value) for name, value in config.method_settings.items() if isinstance(value, str)]
    for name, start in starts:
        # through links, too; os.path, for a Path raises for names that no file can have
        if start and os.path.exists(start) and out.exists() and out.samefile(start):  # noqa: PTH110
            raise UserError(f"--out {out}: is the folder of {name} {start}, which is read. Choose another --out.")
    RunFolder(out).require_own()


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Fields in which two configs differ, as text; a saved one has lists where the other has tuples."""
    a, b = ({k: list(v) if isinstance(v, tuple) else v for k, v in x.items()} for x in (before, now))
    return [f"{k} {a.get(k)!r} there, {b[k]!r} here" for k in b if a.get(k) != b[k]]


@contextlib.contextmanager
def show_on_trackers(
    names: Sequence[str], folder: Path, config: Mapping[str, Any], processes: Processes, show: Show
) -> Iterator[Show]:
    """``show``, extended so that every entry of the log reaches the trackers.

    Raises:
        UserError: a tracker that accelerate does not know, or whose package is not installed.
    """
    if not names or not processes.main:
        yield show
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    for name in names:
        if name not in known:
            raise unknown("tracker", name, known)
    installed = [str(name.value) for name in get_available_trackers()]
    missing = [name for name in names if name not in installed]
    if missing:
        there = ", ".join(installed) or "none"
        raise UserError(f"--tracker {', '.join(missing)}: the package is not installed. Installed: {there}.")
    from accelerate import PartialState

    PartialState(cpu=processes.device.type == "cpu")  # the trackers ask it which process they are in
    trackers = []
    for name in names:
        kind = LOGGER_TYPE_TO_CLASS[name]
        tracker = kind(folder.name, folder / "trackers") if kind.requires_logging_directory else kind(folder.name)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration({k: v if isinstance(v, _PLAIN) else str(v) for k, v in config.items()})
        trackers.append(tracker)

    def both(entry: Mapping[str, Any]) -> None:
        show(entry)
        values = {k: v for k, v in entry.items() if isinstance(v, float) and not isinstance(v, bool)}
        for tracker in trackers:
            tracker.log(values, step=int(entry["step"]))

    try:
        yield both
    finally:
        for tracker in trackers:
            tracker.finish()
