"""What is measured during training: the dev score that selects the weights, alignment and uniformity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.labelled import Labelled
from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import SIMCSE, EvalProtocol, Task
from simcse_bench.errors import UserError
from simcse_bench.evaluation import geometry
from simcse_bench.evaluation.evaluate import Embedded, distinct_sentences, embed_once, read_all
from simcse_bench.evaluation.geometry import ALIGNED
from simcse_bench.evaluation.metrics import correlation
from simcse_bench.evaluation.scoring import score_transfer

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Encoder


@dataclass(frozen=True)
class Dev:
    """One split (as a rule dev) of a task, read and checked."""

    task: Task
    data: Pairs | Labelled
    protocol: EvalProtocol

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {"task": self.task.name, "split": self.protocol.split, "metric": self.task.metric, "n": len(self.data),
                "fingerprint": self.data.fingerprint()}  # fmt: skip

    def measure(self, encoder: Encoder, score: bool = True, shape: bool = False) -> dict[str, float]:
        """``dev`` (percent), and with ``shape`` ``alignment`` and ``uniformity``, from one forward pass."""
        whole = embed_once(encoder, [self.data])
        measured = {"dev": round(self.score(whole), 4)} if score else {}
        return measured | (self.shape(whole) if shape and isinstance(self.data, Pairs) else {})

    def score(self, whole: Embedded) -> float:
        """Spearman ×100 (of a transfer task its score in percent) of embedded sentences."""
        if isinstance(self.data, Pairs):
            return correlation("spearman", whole.cosines(self.data), self.data.gold)
        scored, _ = score_transfer(self.task, self.data, *whole.sides(self.data), self.protocol, "cpu")
        return float(scored["scores"][self.task.metric]["all"]["value"])

    def shape(self, whole: Embedded) -> dict[str, float]:
        """Alignment of the pairs with a gold score above ``ALIGNED`` and uniformity of all distinct sentences.

        Empty where there are no such pairs, on another scale for example.
        """
        assert isinstance(self.data, Pairs), "a transfer task has no pairs"  # noqa: S101 (for the type checker)
        left, right = whole.sides(self.data)
        near = self.data.gold > ALIGNED
        if not near.any():
            return {}
        return {
            "alignment": round(geometry.alignment(left[near], right[near]), 5),
            "uniformity": round(geometry.uniformity(whole.of(distinct_sentences([self.data]))), 5),
        }


def read_dev(name: str, shape: bool, where: DataSource = ANYWHERE) -> Dev:
    """The dev split of a task for selection.

    Raises:
        UserError: no such task or split, unreadable data; geometry asked of a task without pairs.
    """
    advice = "Set eval_every 0 (and track_geometry 0) to train without dev scores."
    try:
        dev = read_split(name, "dev", where)
    except UserError as error:
        raise UserError(*error.problems, advice) from error
    if shape and not (isinstance(dev.data, Pairs) and np.any(dev.data.gold > ALIGNED)):
        raise UserError(f"track_geometry: {name} has no pairs with a gold score above {ALIGNED:g}; use an STS task.")
    return dev


def read_split(name: str, split: str, where: DataSource = ANYWHERE) -> Dev:
    """A split of a task; a transfer task's is scored by the fast probe, as in SimCSE trainers.py."""
    task = load_task(name, where.tasks_dir)
    protocol = replace(SIMCSE, split=split, task_splits={}, probe="fast", resamples=100)
    data = read_all([task], protocol, data_folder([task], where))[0][task.name]
    if not isinstance(data, Pairs | Labelled):
        raise UserError(f"{name} is a {task.kind} task; what is measured during training is an STS or a transfer task.")
    return Dev(task, data, protocol)
