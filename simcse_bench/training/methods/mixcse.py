"""MixCSE (Zhang et al. 2022): negatives mixed of the positive and another sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import Settings, SimCSE, setting


@dataclass(frozen=True)
class MixCSESettings(Settings):
    """Official run_unsup_example.sh: λ = 0.2."""

    mixture: float = setting(0.2, "λ: the positive's share of a mixed negative", high=1.0)


class MixCSE(SimCSE):
    """Row i's mixture λ z2_i + (1 - λ) z2_(i+1) is a negative of all anchors, and likewise one of anchors.

    No gradient flows through the mixtures. The official code (mixcse/models_mix.py, 198 to 275) has one row of logits:
    z1 with z2, z1 with the mixtures of z2, the mixtures of z1 with z2. A mixture that holds most of a row's own
    positive is none of its negatives.

    # differs from the official code: such a logit is -inf, there 0; of the paper's one mixture a row, the code has all
    """

    Settings: ClassVar = MixCSESettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        one, two = parts[0], parts[1]
        temperature = self.config.temperature
        left = similarity(one, self._mixed(two), "cosine", temperature)
        right = similarity(self._mixed(one), two, "cosine", temperature)
        own = torch.eye(len(one), dtype=torch.bool, device=one.device).roll(-1, 1)  # (i, i - 1)
        logits = [similarity(one, two, "cosine", temperature), left.masked_fill(own, -torch.inf),
                  right.masked_fill(own.T, -torch.inf)]  # fmt: skip
        return find_own(torch.cat(logits, 1))

    def _mixed(self, vectors: Tensor) -> Tensor:
        """(n, d) -> (n, d), without a graph; the partner is the next row, and the order of rows is random."""
        share: float = self.settings.mixture
        return (share * vectors + (1 - share) * vectors.roll(-1, 0)).detach()
