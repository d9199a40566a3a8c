"""One model on several GPUs: a call's sentences are dealt out to its copies, which embed side by side."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from simcse_bench.errors import UserError
from simcse_bench.models.encoders import Array
from simcse_bench.models.loading import torch_device
from simcse_bench.progress import Progress


def named_devices(device: str) -> list[str]:
    """The devices of ``--device cuda:0,cuda:1``, or the one.

    Raises:
        UserError: one that is not here; several that are not different GPUs, each by its number.
    """
    names = [name.strip() for name in device.split(",")]
    if len(names) == 1:
        return [str(torch_device(device))]
    if len(set(names)) < len(names) or not all(name.startswith("cuda:") for name in names):
        raise UserError(f"--device {device}: expected different GPUs by their numbers, such as cuda:0,cuda:1.")
    return [str(torch_device(name)) for name in names]


class Copies:
    """The same encoder on several devices, used as one.

    A setting (``max_length``, ``batch_tokens``) is that of all copies; ``device`` is the first one's.
    """

    def __init__(
        self, load: Callable[[str, Progress | None], Any], devices: Sequence[str], progress: Progress | None = None
    ):
        self._told = _Sum(progress, len(devices)) if progress else None
        self._encoders = [load(device, self._told.part(i) if self._told else None) for i, device in enumerate(devices)]
        first = self._encoders[0]
        self.device, self.notes = getattr(first, "device", devices[0]), getattr(first, "notes", ())
        self.provenance: Mapping[str, Any] = {**first.provenance, "device": ",".join(devices)}
        self.stats: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        """Of the first copy: what all share."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._encoders[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """A setting of the copies is set for each."""
        if name in ("max_length", "batch_tokens"):
            for encoder in self._encoders:
                setattr(encoder, name, value)
        else:
            super().__setattr__(name, value)

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d): the sentences dealt out by length, so that each copy has as much to do."""
        order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
        parts = [order[start :: len(self._encoders)] for start in range(len(self._encoders))]
        parts = [part for part in parts if part] or [[]]
        if self._told:
            self._told.begin(len(parts))
        used = self._encoders[: len(parts)]
        with ThreadPoolExecutor(len(parts)) as pool:
            embed = [pool.submit(e.encode, [sentences[i] for i in p]) for e, p in zip(used, parts, strict=True)]
            vectors = [future.result() for future in embed]
        whole = np.empty((len(sentences), vectors[0].shape[1]), dtype=np.float32)
        for part, own in zip(parts, vectors, strict=True):
            whole[part] = own
        stats: Counter[str] = Counter()
        for encoder in used:
            stats.update(getattr(encoder, "stats", {}))
        self.stats = dict(stats)
        return whole


class _Sum:
    """What the copies have done, as one."""

    def __init__(self, progress: Progress, count: int):
        self._progress, self._lock = progress, threading.Lock()
        self._state: list[tuple[int, int] | None] = [None] * count

    def begin(self, count: int) -> None:
        """So many of them have something to do."""
        self._state = [None] * count

    def part(self, i: int) -> Progress:
        """What copy ``i`` tells."""

        def tell(done: int, total: int) -> None:
            with self._lock:
                self._state[i] = done, total
                known = [one for one in self._state if one is not None]
                if len(known) == len(self._state):
                    self._progress(sum(d for d, _ in known), sum(t for _, t in known))

        return tell
