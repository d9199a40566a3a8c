"""What is measured during training: the dev score that selects the weights, alignment and uniformity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench import geometry
from simcse_bench.archive import find_root
from simcse_bench.data import Pairs, needs_root
from simcse_bench.errors import UserError
from simcse_bench.evaluate import Data, distinct_sentences, embed, read_all
from simcse_bench.metrics import correlation, paired_cosine
from simcse_bench.task import SIMCSE, EvalProtocol, Task, load_task

if TYPE_CHECKING:
    from simcse_bench.encoders import Encoder

ALIGNED = 4.0  # gold above it makes a positive pair (SimCSE, footnote 3; STS-B's scale of 0 to 5)


@dataclass(frozen=True)
class Dev:
    """The dev split of a task, read and checked."""

    task: Task
    data: Data
    protocol: EvalProtocol

    def describe(self) -> dict[str, Any]:
        """For the record."""
        metric = "spearman" if isinstance(self.data, Pairs) else "accuracy"
        return {"task": self.task.name, "split": self.protocol.split, "metric": metric, "n": len(self.data),
                "fingerprint": self.data.fingerprint()}  # fmt: skip

    def measure(self, encoder: Encoder, score: bool = True, shape: bool = False) -> dict[str, float]:
        """``dev`` (percent), and with ``shape`` ``alignment`` and ``uniformity``, from one forward pass."""
        sentences = distinct_sentences([self.data])
        vectors = embed(encoder, sentences)
        row = {s: i for i, s in enumerate(sentences)}
        found: dict[str, float] = {}
        if isinstance(self.data, Pairs):
            left, right = (vectors[[row[s] for s in side]] for side in (self.data.left, self.data.right))
            if score:
                found["dev"] = round(correlation("spearman", paired_cosine(left, right), self.data.gold), 4)
            if shape:
                near = self.data.gold > ALIGNED
                found["alignment"] = round(geometry.alignment(left[near], right[near]), 5)
                found["uniformity"] = round(geometry.uniformity(vectors), 5)
        elif score:
            from simcse_bench.transfer import score_transfer

            first, second = (vectors[[row[s] for s in side]] for side in (self.data.texts, self.data.seconds))
            scored, _ = score_transfer(self.task, self.data, first, second, self.protocol, "cpu")
            found["dev"] = round(scored["scores"]["accuracy"]["all"]["value"], 4)
        return found


def read_dev(name: str, shape: bool, data_dir: Path | None, tasks_dir: Path | None, data_revision: str = "main") -> Dev:
    """The dev split of a task for selection; for a transfer task the fast probe's, as in SimCSE trainers.py.

    Raises:
        UserError: no such task or split, unreadable data; geometry asked of a task without pairs.
    """
    task = load_task(name, tasks_dir)
    protocol = replace(SIMCSE, split="dev", task_splits={}, probe="fast", resamples=100)
    advice = "Set eval_every 0 (and track_geometry 0) to train without dev scores."
    try:
        root = find_root(data_dir, data_revision).path if needs_root(task) else None
        data: Mapping[str, Data] = read_all([task], protocol, root)[0]
    except UserError as error:
        raise UserError(*error.problems, advice) from error
    found = data[name]
    if shape and not (isinstance(found, Pairs) and np.any(found.gold > ALIGNED)):
        raise UserError(f"track_geometry: {name} has no pairs with a gold score above {ALIGNED:g}; use an STS task.")
    return Dev(task, found, protocol)
