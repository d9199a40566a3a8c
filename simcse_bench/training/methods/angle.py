"""AnglE (Li and Li 2023): CoSENT's loss of cosines and of angles in complex space, and in-batch negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.errors import UserError
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import similarity
from simcse_bench.training.methods.cosent import CoSENT, cosines, order_loss
from simcse_bench.training.methods.simcse import Settings, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class AnglESettings(Settings):
    """Weights and temperature of the official code's STS-B example (examples/NLI/train_nli.py, 25 to 30).

    Its library's own defaults have come to be 0, 1 and 0.02, and a temperature of 0.05 (angle_emb/angle.py, 582 to
    588). ``positive_score`` is ours, for scores from 0 to 5.
    """

    cosine_weight: float = setting(1.0, "w1, of the loss of cosines (CoSENT's)")
    in_batch_weight: float = setting(1.0, "w2, of the in-batch negatives")
    angle_weight: float = setting(1.0, "w3, of the loss of angles")
    angle_temperature: float = setting(1.0, "of the angles", low=1e-3)
    positive_score: float = setting(4.0, "from this score on a pair has in-batch negatives", low=-1e30, high=1e30)


class AnglE(CoSENT):
    """w1 times CoSENT's loss of cosines, w2 times in-batch negatives, w3 times CoSENT's loss of angles."""

    Settings: ClassVar = AnglESettings

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        odd = [n for n in (model.width, *config.matryoshka) if n % 2]
        if odd:
            raise UserError(f"method angle: vectors of {odd[0]} values have no two halves; expected an even number.")

    @classmethod
    def score_problems(cls, config: TrainConfig, scores: NDArray[np.float32]) -> list[str]:
        """See ``SimCSE.score_problems``."""
        wanted = cls.Settings(**config.method_settings)
        if wanted.in_batch_weight and scores.max() < wanted.positive_score:
            return [
                f"positive_score {wanted.positive_score:g}: no row has such a score (the highest: {scores.max():g}); "
                "set it for these scores, or in_batch_weight=0."
            ]
        return super().score_problems(config, scores)

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        one, two = parts
        own, temperature = self.settings, self.config.temperature
        cosine = order_loss(cosines(one, two), self.scores, temperature)
        in_batch = in_batch_loss(one, two, self.scores >= own.positive_score, temperature)
        angle = order_loss(closeness(one, two), self.scores, own.angle_temperature)
        loss: Tensor = own.cosine_weight * cosine + own.in_batch_weight * in_batch + own.angle_weight * angle
        return loss


def closeness(left: Tensor, right: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,): how near two vectors are as complex ones; 1 for equal vectors, not symmetric.

    The halves of a vector are its real and its imaginary part. It is the size of the sum of all real and imaginary
    parts of left / right, without their lengths: what the official code calls the angle's difference
    (angle_emb/loss.py, 64 to 89) and takes for a similarity; written out, |cos + (b·c - a·d)| of the unit vectors.
    """
    (a, b), (c, d) = (F.normalize(x.float(), dim=-1).chunk(2, -1) for x in (left, right))
    return (a * c + b * d + b * c - a * d).sum(-1).abs()


def in_batch_loss(left: Tensor, right: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Each sentence of a positive pair finds its partner among all others of the batch; a scalar.

    The mean is over all 2n sentences, of which those of other pairs have no term, as in the official code
    (angle_emb/loss.py, 96 to 144).

    # differs from the official code: pairs are positive from a score on, there those of the label 1

    Args:
        left, right: (n, d).
        positive: (n,), true for positive pairs.
        temperature: of the cosines.
    """
    both, n = torch.cat([left, right]), len(left)
    logits = similarity(both, both, "cosine", temperature)
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=logits.device), -torch.inf)
    partners = torch.arange(2 * n, device=logits.device).roll(n)
    return (F.cross_entropy(logits, partners, reduction="none") * positive.repeat(2)).mean()
