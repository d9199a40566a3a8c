"""The paper's losses as pure functions: contrastive (Eq. 1, 4, 5, 8), and masked language modelling (Appendix D)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from simcse_bench.errors import unknown
from simcse_bench.training.config import SIMILARITIES

IGNORED = -100  # label of a token that is not predicted


def similarity(left: Tensor, right: Tensor, kind: str = "cosine", temperature: float = 0.05) -> Tensor:
    """Logits (m, n) of every row of ``left`` (m, d) with every row of ``right`` (n, d), in float32.

    ``cosine``: cosine / temperature (Eq. 1). ``dot``: the plain dot product without a temperature (Table D.1).
    """
    left, right = left.float(), right.float()
    if kind == "cosine":
        return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / temperature
    if kind == "dot":
        return left @ right.T
    raise unknown("similarity", kind, SIMILARITIES)


def find_own(logits: Tensor) -> Tensor:
    """Mean cross-entropy of finding each row's own candidate: of logits (n, m), m at least n, the i-th in row i."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def contrastive_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | Sequence[Tensor] = (),
    *,
    kind: str = "cosine",
    temperature: float = 0.05,
    hard_negative_weight: float = 1.0,
    symmetric: bool = False,
    false_negative_threshold: float | None = None,
) -> Tensor:
    """Mean cross-entropy of finding each anchor's own positive among the batch; a scalar.

    Anchor i against all positives (Eq. 4), and where there are hard negatives against all of those too (Eq. 5).
    Only anchors are queries, as in SimCSE models.py.

    Args:
        anchors, positives: (n, d).
        negatives: (n, d) each, one or several; row i made for anchor i.
        kind, temperature: see ``similarity``.
        hard_negative_weight: α of Eq. 8, on the exponential of anchor i with each of its own hard negatives; its
            logarithm is added to that logit. SimCSE's ``--hard_negative_weight`` is ln α: its 0 is our 1.
        symmetric: average with the loss whose queries are the positives and whose candidates are the anchors
            (hard negatives stay with the anchors). # differs from the paper: an option, off by default
        false_negative_threshold: see ``false_negatives``, which are left out of the denominator; hard negatives all
            stay: what contradicts a sentence contradicts its like. # differs from the paper: an option, off by default
    """
    logits = similarity(anchors, positives, kind, temperature)  # (n, n)
    if false_negative_threshold is not None:
        logits = logits.masked_fill(false_negatives(anchors, false_negative_threshold), -torch.inf)
    several = (negatives,) if isinstance(negatives, Tensor) else negatives
    forth = logits
    if several:
        own = math.log(hard_negative_weight) * torch.eye(len(anchors), device=logits.device)
        hard = [similarity(anchors, each, kind, temperature) + own for each in several]
        forth = torch.cat([logits, *hard], 1)  # (n, n + kn)
    loss = find_own(forth)
    return (loss + find_own(logits.T)) / 2 if symmetric else loss


@torch.no_grad()
def false_negatives(anchors: Tensor, threshold: float) -> Tensor:
    """(n, n): pairs of rows whose anchors' cosine is above the threshold; never a row with itself.

    What one of them is paired with is no negative of the other. After DCLR (Zhou et al. 2022), which gives a negative
    the weight 0 where a second, fixed model's cosine of it is above a threshold (official simcse/models.py, 681 to
    705). # differs from the paper: the model that is trained decides, by the anchors alone
    """
    return (similarity(anchors, anchors, "cosine", 1.0) > threshold).fill_diagonal_(False)


def mask_tokens(
    ids: Tensor,
    maskable: Tensor,
    probability: float,
    mask_token: int,
    vocabulary: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked copies of token ids (B, L) and their labels (B, L), ``IGNORED`` where nothing is predicted.

    Of the tokens where ``maskable`` (B, L) is true, each is chosen with ``probability``; 80 % of the chosen become the
    mask token, 10 % a random token, 10 % stay (BERT; SimCSE train.py, mask_tokens).
    """
    draw = torch.rand(ids.shape, generator=generator)
    chosen = (draw < probability) & maskable
    labels = torch.where(chosen, ids, IGNORED)
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocabulary, ids.shape, generator=generator)
    masked = torch.where(chosen & (fate < 0.8), mask_token, ids)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), words, masked), labels
