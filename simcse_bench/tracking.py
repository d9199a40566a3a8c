"""Experiment trackers (TensorBoard, W&B, trackio, ...) through accelerate; none of them is a dependency."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError, unknown
from simcse_bench.processes import Processes

_PLAIN = (int, float, str, bool)
Show = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def tracked(
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
