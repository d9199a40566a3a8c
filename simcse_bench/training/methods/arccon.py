"""ArcCSE's pairwise half (Zhang et al. 2022): an angle is added between a sentence and its positive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import Settings, SimCSE, setting

_FLOOR = 1e-6  # of 1 - cos², whose root has no finite derivative at 0: two views of a sentence may be alike


@dataclass(frozen=True)
class ArcConSettings(Settings):
    """The paper's margin is 10 degrees."""

    margin: float = setting(10.0, "degrees added to the angle between a sentence and its positive", high=90.0)


class ArcCon(SimCSE):
    """cos(θ + m) in place of the positive's cosine, in numerator and denominator; the negatives stay.

    # differs from the paper: without its second loss, of triplets of masked sentences; its 78.11 is of both
    """

    Settings: ClassVar = ArcConSettings
    cosine_only: ClassVar = True

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        logits = torch.cat([similarity(parts[0], other, "cosine", 1.0) for other in parts[1:]], 1)  # (n, kn), cosines
        cosine = logits.diagonal()
        margin = math.radians(self.settings.margin)
        sine = (1 - cosine**2).clamp_min(_FLOOR).sqrt()
        moved = cosine * math.cos(margin) - sine * math.sin(margin)
        return find_own(logits.diagonal_scatter(moved) / self.config.temperature)
