"""CoSENT (Su 2022; Huang et al. 2024): of two pairs the one with the higher score shall have the higher cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.training.config import TrainConfig
from simcse_bench.training.methods.simcse import SimCSE


class CoSENT(SimCSE):
    """A loss of the pairs' cosines in the order of their scores; the scores' own scale does not matter.

    A batch's pairs are compared with each other, and nothing is a negative. ``temperature`` 0.05 is the official 20.
    """

    scored: ClassVar = True
    cosine_only: ClassVar = True

    @classmethod
    def score_problems(cls, config: TrainConfig, scores: NDArray[np.float32]) -> list[str]:
        """See ``SimCSE.score_problems``."""
        if scores.min() < scores.max():
            return []
        return [f"method {config.method}: all rows have the score {scores[0]:g}; expected pairs of different scores."]

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        return order_loss(cosines(parts[0], parts[1]), self.scores, self.config.temperature)


def order_loss(values: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ exp((v_p - v_q) / temperature)) over all p, q with s_p < s_q; a scalar.

    A sum, not a mean, as in the official code (cosent.py, 79 to 90). Equal scores give no term; where all are, it is 0.

    Args:
        values, scores: (n,).
    """
    differences = (values[:, None] - values) / temperature
    ordered = differences.masked_fill(scores[:, None] >= scores, -torch.inf)
    return torch.cat([values.new_zeros(1), ordered.flatten()]).logsumexp(0)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,), in float32."""
    return (F.normalize(left.float(), dim=-1) * F.normalize(right.float(), dim=-1)).sum(-1)
