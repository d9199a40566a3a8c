"""IS-CSE (He et al. 2023): a second loss, whose positives are smoothed by their neighbours in a buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class ISCSESettings(Settings):
    """Official run_unsup_bert_base.sh. Its larger models: weight 0.05, of which 0.1 at the start."""

    buffer: int = setting(1024, "last positives kept; the smoothing starts when it is full", low=2, high=1_000_000)
    neighbours: int = setting(16, "of a positive in the buffer, which smooth it", low=1)
    attention_temperature: float = setting(2.0, "β, of a positive's cosines with its neighbours", low=1e-6)
    smoothing_weight: float = setting(0.1, "α, of the second loss")
    smoothing_start: float = setting(1.0, "share of α at the start; all of it from half of the run on", high=1.0)


class ISCSE(SimCSE):
    """The second loss finds each anchor's smoothed positive among the batch's (official models.py, 252 to 271).

    A positive's gradient flows through its own part in the mean, and through the weights; the buffer has none. Batches
    join the buffer before their own loss, so that a positive's neighbours may be of its own batch.
    """

    Settings: ClassVar = ISCSESettings
    cosine_only: ClassVar = True
    lone_sentences: ClassVar = True
    buffer: Tensor  # (size, d), of length 1, the newest last
    filled: Tensor  # so many of them

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        self.register_buffer("buffer", torch.zeros(self.settings.buffer, model.width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        settings = cls.Settings(**config.method_settings)
        least = max(config.batch_size, settings.neighbours + 1)
        small = f"buffer {settings.buffer}: expected at least {least}: a batch, and a positive with its neighbours."
        return super().problems(config) + [small] * (settings.buffer < least)

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        one, two = parts
        loss = find_own(similarity(one, two, "cosine", self.config.temperature))
        if int(self.filled) + len(two) < len(self.buffer):
            return loss
        buffer = pushed(F.normalize(self.buffer[:, : two.shape[1]]), two.detach())
        smooth = smoothed(two.float(), buffer, self.settings.neighbours, self.settings.attention_temperature)
        logits = similarity(one, smooth, "cosine", self.config.temperature)
        return loss + self.weight() * find_own(logits)

    def weight(self) -> float:
        """α of this update: it rises along a cosine until half of the run (official models.py, 349 to 355)."""
        settings = self.settings
        below = max(0.0, math.cos(math.pi * self.done)) * (1 - settings.smoothing_start)
        return float(settings.smoothing_weight * (1 - below))

    def end(self, parts: Sequence[Tensor], random: torch.Generator) -> None:
        """The positives join the buffer."""
        self.buffer.copy_(pushed(self.buffer, parts[1]))
        self.filled.copy_((self.filled + len(parts[1])).clamp_max(len(self.buffer)))


def pushed(buffer: Tensor, new: Tensor) -> Tensor:
    """The buffer (m, d) with new vectors (n, d) at its end in place of its oldest, all of length 1."""
    return torch.cat([buffer, F.normalize(new.float())])[-len(buffer) :]


def smoothed(vectors: Tensor, buffer: Tensor, neighbours: int, temperature: float) -> Tensor:
    """Each of the vectors (n, d) as the mean of itself and its neighbours in the buffer, weighted by attention.

    Args:
        vectors: (n, d).
        buffer: (m, d), of length 1; its last n are the vectors' own, none of which is its own neighbour.
        neighbours: how many.
        temperature: of the weights' logits, the cosines.
    """
    own = F.normalize(vectors)
    cosines = own.detach() @ buffer.T  # (n, m)
    rows = torch.arange(len(own), device=own.device)
    cosines[rows, rows + len(buffer) - len(own)] = -torch.inf  # official: the nearest one is left out, which is it
    group = torch.cat([own[:, None], buffer[cosines.topk(neighbours).indices]], 1)  # (n, 1 + neighbours, d)
    weights = (group @ own[:, :, None] / temperature).softmax(1)  # (n, 1 + neighbours, 1)
    return (weights * group).sum(1)
