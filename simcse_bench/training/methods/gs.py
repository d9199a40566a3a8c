"""GS-InfoNCE (Wu et al. 2021): vectors of Gaussian noise are negatives too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from simcse_bench.models.agreement import sent
from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import Settings, SimCSE, setting


@dataclass(frozen=True)
class GaussianSettings(Settings):
    """Official gsInfoNCE/run.sh: 192 vectors beside batches of 64. Its standard deviation has no effect on cosines."""

    noise: float = setting(3.0, "vectors of noise for each row of the batch", high=1000.0)
    noise_weight: float = setting(1.0, "λ, of their exponentials in the denominator")


class GaussianSmoothing(SimCSE):
    """Fresh noise for every batch, the same for all its anchors.

    # differs from the paper: its runs on BERT-base have dropout 0.2 as well; here that is dropout's own setting
    """

    Settings: ClassVar = GaussianSettings
    cosine_only: ClassVar = True

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        anchors = parts[0]
        logits = torch.cat([similarity(anchors, other, "cosine", self.config.temperature) for other in parts[1:]], 1)
        count = round(self.settings.noise * len(anchors))
        if count and self.settings.noise_weight:
            noise = sent(torch.randn(count, anchors.shape[1], generator=random), anchors.device)
            extra = similarity(anchors, noise, "cosine", self.config.temperature)
            logits = torch.cat([logits, extra + math.log(self.settings.noise_weight)], 1)
        return find_own(logits)
