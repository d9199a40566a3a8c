"""SimCSE++ (Xu et al. 2023): negatives without dropout, and a contrastive loss between dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import BatchRows, Pass, Settings, SimCSE, setting


@dataclass(frozen=True)
class SimCSEPlusPlusSettings(Settings):
    """Official run_re_vicreg.sh: vicreg_t5_w0.1_pos1."""

    off_dropout: bool = setting(True, "negatives are vectors of a third pass, without dropout; false: SimCSE's")
    positive_ratio: float = setting(
        1.0, "ρ, a factor of the positive's logit; official 0.9 without the dimensions' loss"
    )
    dcl_temperature: float = setting(5.0, "of the correlations of two dimensions", low=1e-6)
    dcl_weight: float = setting(0.1, "of the loss between dimensions; 0: without it")


class SimCSEPlusPlus(SimCSE):
    """Positives differ by dropout, negatives do not; and each dimension finds itself in the other view.

    Gradients flow through all three passes. This is models_re_vicreg.py, 221 to 263, of the official commit 899e49b:
    the later ones have the second loss commented out.
    """

    Settings: ClassVar = SimCSEPlusPlusSettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True

    def passes(self, rows: BatchRows, random: np.random.Generator) -> list[Pass]:
        """Two views, then the sentences without dropout."""
        still = [Pass([row[0] for row in rows], dropout=False)] if self.settings.off_dropout else []
        return super().passes(rows, random) + still

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        one, two, *still = parts
        positives = similarity(one, two, "cosine", self.config.temperature)
        negatives = similarity(still[0], still[0], "cosine", self.config.temperature) if still else positives
        own = torch.eye(len(one), dtype=torch.bool, device=one.device)
        logits = torch.where(own, self.settings.positive_ratio * positives, negatives)
        loss = find_own(logits)
        if self.settings.dcl_weight:
            loss = loss + self.settings.dcl_weight * dimension_loss(one, two, self.settings.dcl_temperature)
        return loss


def dimension_loss(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each of d dimensions among the other view's, by their correlation over the batch.

    Args:
        one, two: (n, d).
        temperature: of the correlations.
    """
    one, two = (F.batch_norm(each.float(), None, None, training=True) for each in (one, two))
    correlations = one.T @ two / len(one)  # (d, d)
    return find_own(correlations / temperature)
