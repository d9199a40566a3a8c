"""What is measured during training: the dev score that selects the weights, alignment and uniformity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench import bundled
from simcse_bench.data.pairs import Pairs, data_root
from simcse_bench.data.senteval import configured
from simcse_bench.data.task import SIMCSE, EvalProtocol, Task, load_task
from simcse_bench.errors import UserError
from simcse_bench.evaluation import geometry
from simcse_bench.evaluation.evaluate import Data, distinct_sentences, embed, read_all
from simcse_bench.evaluation.geometry import ALIGNED
from simcse_bench.evaluation.metrics import Floats, correlation, paired_cosine
from simcse_bench.evaluation.scoring import score_transfer
from simcse_bench.training.config import TrainConfig

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Array, Encoder

Vectors = Mapping[str, Any]  # sentence -> its embedding (d,)


@dataclass(frozen=True)
class Dev:
    """One split (as a rule dev) of a task, read and checked."""

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
        vectors = dict(zip(sentences, embed(encoder, sentences), strict=True))
        found = {"dev": round(self.score(vectors), 4)} if score else {}
        return found | (self.shape(vectors) if shape and isinstance(self.data, Pairs) else {})

    def score(self, vectors: Vectors) -> float:
        """Spearman ×100 (accuracy in percent of a transfer task) of embedded sentences."""
        if isinstance(self.data, Pairs):
            return correlation("spearman", self.similarities(vectors), self.data.gold)
        first, second = _stacked(vectors, self.data.texts), _stacked(vectors, self.data.seconds)
        scored, _ = score_transfer(self.task, self.data, first, second, self.protocol, "cpu")
        return float(scored["scores"]["accuracy"]["all"]["value"])

    def similarities(self, vectors: Vectors) -> Floats:
        """Cosine of every pair (n,)."""
        return paired_cosine(*self._sides(vectors))

    def shape(self, vectors: Vectors) -> dict[str, float]:
        """Alignment of the pairs with a gold score above ``ALIGNED`` and uniformity of all distinct sentences.

        Empty where there are no such pairs, on another scale for example.
        """
        left, right = self._sides(vectors)
        near = self.data.gold > ALIGNED  # type: ignore[union-attr]
        if not near.any():
            return {}
        return {
            "alignment": round(geometry.alignment(left[near], right[near]), 5),
            "uniformity": round(geometry.uniformity(_stacked(vectors, distinct_sentences([self.data]))), 5),
        }

    def _sides(self, vectors: Vectors) -> tuple[Array, Array]:
        assert isinstance(self.data, Pairs), "a transfer task has no pairs"  # noqa: S101 (for the type checker)
        return _stacked(vectors, self.data.left), _stacked(vectors, self.data.right)


def _stacked(vectors: Vectors, sentences: Sequence[str]) -> Array:
    return np.stack([vectors[s] for s in sentences]) if len(sentences) else np.zeros((0, 0), np.float32)


def settled(config: TrainConfig, data_dir: Path | None, data_revision: str) -> TrainConfig:
    """The config with ``eval_task`` auto replaced by what it stands for on this machine: the real data, or ours."""
    if config.eval_task != "auto":
        return config
    return replace(config, eval_task="stsb" if configured(data_dir, data_revision) else bundled.TASK)


def read_dev(name: str, shape: bool, data_dir: Path | None, tasks_dir: Path | None, data_revision: str = "main") -> Dev:
    """The dev split of a task for selection.

    Raises:
        UserError: no such task or split, unreadable data; geometry asked of a task without pairs.
    """
    advice = "Set eval_every 0 (and track_geometry 0) to train without dev scores."
    try:
        dev = read_split(name, "dev", data_dir, tasks_dir, data_revision)
    except UserError as error:
        raise UserError(*error.problems, advice) from error
    if shape and not (isinstance(dev.data, Pairs) and np.any(dev.data.gold > ALIGNED)):
        raise UserError(f"track_geometry: {name} has no pairs with a gold score above {ALIGNED:g}; use an STS task.")
    return dev


def read_split(
    name: str, split: str, data_dir: Path | None, tasks_dir: Path | None, data_revision: str = "main"
) -> Dev:
    """A split of a task; a transfer task's is scored by the fast probe, as in SimCSE trainers.py."""
    task = load_task(name, tasks_dir)
    protocol = replace(SIMCSE, split=split, task_splits={}, probe="fast", resamples=100)
    root = data_root([task], data_dir, data_revision)
    return Dev(task, read_all([task], protocol, root.path if root else None)[0][name], protocol)
