"""ESimCSE (Wu et al. 2022): repeated words in the positive, and a queue of negatives from a momentum encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from simcse_bench.errors import UserError
from simcse_bench.models.prompts import Ids
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import BatchRows, Gather, Pass, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class ESimCSESettings(Settings):
    """Official ESimCSE/run.sh."""

    repetition: float = setting(0.32, "largest share of a sentence's tokens that is written twice", high=1.0)
    queue: float = setting(2.5, "vectors kept as negatives, for each row of a batch", low=1.0, high=10000.0)
    momentum: float = setting(0.995, "of the encoder that fills the queue", high=1.0)


class ESimCSE(SimCSE):
    """A row's positive has tokens written twice; earlier batches' sentences are negatives too.

    They are the momentum encoder's vectors, without dropout and without a gradient, through the trained encoder's MLP;
    a batch joins the queue after its own loss. While it is not full the queue is shorter.

    # differs from the official code: the momentum encoder starts as the encoder, there from random weights
    # (esimcse/models.py copies before the checkpoint is loaded); words are drawn for every batch, there once
    """

    Settings: ClassVar = ESimCSESettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True
    queue: Tensor  # (size, d), the newest last
    filled: Tensor  # so many of them
    fresh: Tensor  # all processes' (n, d) of the batch at hand

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        if config.max_length + _MOST > model.limit:
            raise UserError(
                f"max_length {config.max_length}: method esimcse adds up to {_MOST} tokens, and the model takes "
                f"{model.limit}."
            )
        slow = copy.deepcopy(model.encoders[0]).requires_grad_(False)
        self.slow = len(model.encoders)  # its number
        model.encoders.append(slow)
        self.size = round(self.settings.queue * config.batch_size)
        self.register_buffer("queue", torch.zeros(self.size, model.width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        words = "would write a template's words twice, too; not with template"
        return super().problems(config) + [f"method {config.method}: {words}."] * bool(config.template)

    def begin(self, model: SentenceModel, rows: BatchRows, texts: Sequence[str], gather: Gather) -> None:
        """The momentum encoder's vectors of the sentences."""
        self.fresh = gather(model.still([row[0] for row in rows], self.slow))

    def passes(self, rows: BatchRows, random: np.random.Generator) -> list[Pass]:
        """Sentences, and the same with tokens written twice."""
        anchors = [row[0] for row in rows]
        return [Pass([*anchors, *(repeated(a, self.settings.repetition, random) for a in anchors)])]

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        one, two = parts
        kept = self.queue[self.size - int(self.filled) :, : one.shape[1]]
        logits = similarity(one, torch.cat([two.float(), kept]), "cosine", self.config.temperature)
        return find_own(logits)

    def end(self, parts: Sequence[Tensor], random: torch.Generator) -> None:
        """The batch joins the queue."""
        self.queue.copy_(torch.cat([self.queue, self.fresh.float()])[-self.size :])
        self.filled.copy_((self.filled + len(self.fresh)).clamp_max(self.size))

    @torch.no_grad()
    def updated(self, model: SentenceModel) -> None:
        """The momentum encoder follows the trained one."""
        slow, fast = ([p.data for p in model.encoders[n].parameters()] for n in (self.slow, 0))
        torch._foreach_lerp_(slow, fast, 1 - self.settings.momentum)


def repeated(ids: Ids, rate: float, random: np.random.Generator) -> list[int]:
    """Tokens with some written twice, never the first or the last (official train.py, 498 to 530, dup_type bpe)."""
    # differs from the paper: at most max(2, rate n) there
    most = min(_MOST + 1, int(rate * len(ids)))
    count = int(random.integers(most)) if most else 0
    twice = set((1 + random.choice(len(ids) - 2, min(count, len(ids) - 2), replace=False)).tolist()) if count else set()
    return [token for place, token in enumerate(ids) for _ in range(1 + (place in twice))]


_MOST = 9  # tokens that are written twice
