"""Paraphrase pairs by the cosine: average precision, and F1 and accuracy at thresholds chosen on other pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.evaluation.metrics import Floats, percent_ranks
from simcse_bench.evaluation.statistics import PERMUTATIONS, RESAMPLES, Difference, difference_of, resample_counts

_BLOCK = 4_000_000  # numbers per block


@dataclass(frozen=True)
class Threshold:
    """The cosine from which on a pair is called a paraphrase, and the score that it gives there, in percent."""

    value: float
    score: float


def average_precision(similarity: Floats, gold: Floats, counts: NDArray[np.int32] | None = None) -> Floats:
    """Average precision in percent, (resamples,); pairs of one similarity are taken together, as scikit-learn does.

    Args:
        similarity, gold: (n,), gold 1 for a paraphrase, else 0.
        counts: how often each pair is drawn (resamples, n); default: every pair once, (1,).

    NaN where a resample has no paraphrase.
    """
    order = np.argsort(-similarity, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(similarity[order]) != 0, True])  # last of every group of ties
    weights = np.ones((1, len(gold))) if counts is None else counts[:, order].astype(np.float64)
    right = np.cumsum(weights * gold[order], axis=1)[:, ends]
    called = np.cumsum(weights, axis=1)[:, ends]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(called > 0, right / called, 0.0)
        recall = np.diff(right, axis=1, prepend=0) / right[:, -1:]
    scores: Floats = 100 * (precision * recall).sum(axis=1)
    return scores


def best_threshold(similarity: Floats, gold: Floats, metric: str) -> Threshold:
    """The threshold with the best f1 or accuracy: halfway between two similarities, the highest of equals.

    # differs from mteb: all pairs, or none, may be called paraphrases too; that is seldom best
    """
    order = np.argsort(-similarity, kind="stable")
    ordered, right = similarity[order], np.cumsum(gold[order])
    ends = np.flatnonzero(np.r_[np.diff(ordered) != 0, True])
    called = np.r_[0, ends + 1]  # none, or all down to the end of a group of ties
    right = np.r_[0, right[ends]]
    scores = _rates(right, called, gold.sum(), len(gold))[metric]
    best = int(np.argmax(scores))
    after = int(called[best])
    if after == 0:
        value = np.nextafter(ordered[0], np.inf)
    else:
        value = ordered[-1] if after == len(ordered) else (ordered[after - 1] + ordered[after]) / 2
    return Threshold(float(value), float(scores[best]))


def rates(
    similarity: Floats, gold: Floats, threshold: float, counts: NDArray[np.int32] | None = None
) -> dict[str, Floats]:
    """F1 and accuracy in percent, each (resamples,), of calling every pair from ``threshold`` on a paraphrase."""
    weights = np.ones((1, len(gold))) if counts is None else counts.astype(np.float64)
    called = similarity >= threshold
    right = weights @ (called * gold)
    return _rates(right, weights @ called.astype(np.float64), weights @ gold, weights.sum(axis=1))


def paraphrase_replicates(
    similarity: Floats, gold: Floats, thresholds: Mapping[str, Threshold], resamples: int, seed: Sequence[int]
) -> dict[str, Floats]:
    """Replicates (resamples,) of average precision, F1 and accuracy; the thresholds stay as they were chosen."""
    blocks = []
    for counts in _count_blocks(len(gold), resamples, seed):
        block = {"ap": average_precision(similarity, gold, counts)}
        blocks.append(block | {m: rates(similarity, gold, t.value, counts)[m] for m, t in thresholds.items()})
    return {metric: np.concatenate([block[metric] for block in blocks]) for metric in blocks[0]}


def average_precision_difference(
    first: Floats, second: Floats, gold: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Difference, Floats]:
    """Average precision of the second system minus that of the first, and its replicates (resamples,).

    Paired bootstrap over pairs; ``p`` from swapping the systems' ranks pair by pair.
    """
    value = float((average_precision(second, gold) - average_precision(first, gold))[0])
    moved = np.concatenate(
        [
            average_precision(second, gold, counts) - average_precision(first, gold, counts)
            for counts in _count_blocks(len(gold), resamples, [seed])
        ]
    )
    a, b = percent_ranks(first), percent_ranks(second)
    rng = np.random.default_rng((0, 2))
    reached = 0
    for _ in range(PERMUTATIONS):
        swap = rng.integers(0, 2, size=len(gold)).astype(bool)
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        apart = average_precision(other, gold)[0] - average_precision(one, gold)[0]
        reached += bool(abs(apart) >= abs(value) - 1e-9)
    return difference_of(value, moved, (reached + 1) / (PERMUTATIONS + 1)), moved


def _count_blocks(n: int, resamples: int, seed: Sequence[int]) -> Iterator[NDArray[np.int32]]:
    """How often each of n pairs is drawn, (resamples, n) in blocks: there may be 40,000 pairs."""
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        yield resample_counts([n], min(step, resamples - start), [*seed, start])


def _rates(right: Any, called: Any, positive: Any, n: Any) -> dict[str, Floats]:
    """F1 and accuracy in percent from true positives, pairs called paraphrases, paraphrases, and all pairs."""
    f1 = 200 * right / np.maximum(called + positive, 1)
    wrong = (called - right) + (positive - right)
    return {"f1": f1, "accuracy": 100 * (1 - wrong / n)}
