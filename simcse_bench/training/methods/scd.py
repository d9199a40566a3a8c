"""SCD (Klein and Nabi 2022): two rates of dropout make two views that repel each other; their features decorrelate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from simcse_bench.training.config import TrainConfig
from simcse_bench.training.methods.simcse import BatchRows, Pass, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class SCDSettings(Settings):
    """Official README, "Training BERT with settings as in paper", which has batches of 192; projector: train.py, 175.

    train.py's own defaults (140 to 167) are others: dropout 0.1 and 0.15, λ 0.011, β 1.
    """

    first_dropout: float = setting(0.05, "probability of all dropout in the first view", high=0.999)
    second_dropout: float = setting(0.155, "and in the second", high=0.999)
    contrast_weight: float = setting(1.0, "α, of the mean cosine of the two views / temperature, which is minimised")
    decorrelation_weight: float = setting(0.005225, "β, of the decorrelation")
    off_diagonal: float = setting(0.012, "λ, in it: of the squared correlations of different features")
    projector_width: int = setting(4096, "features that are decorrelated; and of two hidden layers", low=1, high=65536)


class SCD(SimCSE):
    """α mean cos(h1, h2) / τ + β (Σ_i (1 - C_ii)² + λ Σ_i≠j C_ij²), C the correlations of projected h1 with h2's.

    h1 and h2 are the two views' sentence vectors, without an MLP; no other sentence is a negative. Each view goes
    through the projector by itself, whose normalisations take the batch's own statistics (official scd/models.py, 119
    to 132 and 221 to 274). A view's rate is that of hidden states and of attention (train.py, 437 to 452).

    # differs from the official code: with several processes C is of all rows; there of each process's own, divided by
    # the number of all (scd/models.py, 260 to 264)
    """

    Settings: ClassVar = SCDSettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        width = self.settings.projector_width
        self.projector = nn.Sequential(
            nn.Linear(model.width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        for layer in self.projector:
            if isinstance(layer, nn.Linear):  # as BERT's own layers are drawn: cl_init ends with init_weights
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        name, problems = config.method, super().problems(config)
        if config.mlp != "none":
            problems.append(f"method {name}: its loss is of the vectors that are used at test; set mlp none.")
        if config.hidden_dropout is not None or config.attention_dropout is not None:
            problems.append(
                f"method {name}: each view has a dropout of its own; set first_dropout and second_dropout, and leave "
                "hidden_dropout and attention_dropout none."
            )
        if config.matryoshka:
            problems.append(f"method {name}: its projector takes whole vectors; not with matryoshka.")
        if config.gradient_checkpointing:
            problems.append(
                f"method {name}: not with gradient_checkpointing, which would compute a view again when its dropout "
                "is over."
            )
        return problems

    def passes(self, rows: BatchRows, random: np.random.Generator) -> list[Pass]:
        """The sentences under each of the two rates."""
        sentences, settings = [row[0] for row in rows], self.settings
        return [Pass(sentences, rate=rate) for rate in (settings.first_dropout, settings.second_dropout)]

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        settings: SCDSettings = self.settings
        dtype = next(self.projector.parameters()).dtype
        one, two = (part.to(dtype) for part in parts)
        contrast = F.cosine_similarity(one, two).mean() / self.config.temperature
        decorrelated = decorrelation(self.projector(one), self.projector(two), settings.off_diagonal)
        return settings.contrast_weight * contrast + settings.decorrelation_weight * decorrelated


def decorrelation(one: Tensor, two: Tensor, weight: float) -> Tensor:
    """Barlow Twins' loss: Σ_i (1 - C_ii)² + weight Σ_i≠j C_ij², C = oneᵀ two / n.

    Args:
        one, two: (n, d), each feature of mean 0 and variance 1 over the rows.
        weight: λ.
    """
    correlations = one.T @ two / len(one)  # (d, d)
    own = correlations.diagonal()
    others = correlations.square().sum() - own.square().sum()
    return (1 - own).square().sum() + weight * others
