"""Is the difference of two systems more than noise: paired bootstrap, permutation test, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from simcse_bench.metrics import Floats, correlation
from simcse_bench.stats import percentile_interval, resample_counts, weighted_pearson, weighted_ranks

RESAMPLES = 1000
PERMUTATIONS = 5000
_BLOCK = 4_000_000  # numbers drawn at once
# (z of 97.5 %) + (z of 80 %): a difference of so many standard errors is found with 80 % probability
_POWER = float(scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8))


@dataclass(frozen=True)
class Difference:
    """Mean score of the second system minus that of the first, in points (correlation ×100)."""

    value: float
    interval: tuple[float, float] | None  # paired bootstrap over pairs and seeds, 95 %
    p: float  # two-sided, permutation over pairs
    detectable: float | None  # the smallest true difference found with 80 % probability at this n


def difference(
    first: Floats,
    second: Floats,
    gold: Floats,
    sizes: Mapping[str, int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Spearman of the second system minus that of the first, on the same pairs.

    Args:
        first, second: similarities (seeds, n), a row per training seed; (1, n) for a single model. The numbers of
            seeds may differ. With several, the bootstrap draws seeds too, each system's on its own.
        gold: (n,).
        sizes: rows of each subset, standing together; pairs are drawn within them. Default: one subset.
    """
    value = float(np.mean(scores(second, gold)) - np.mean(scores(first, gold)))
    moved = _moved(first, second, gold, sizes or {"all": len(gold)}, resamples, (seed,))
    p = permutation_p(first, second, gold, seed=seed)
    return Difference(value, percentile_interval(moved), p, _POWER * float(np.nanstd(moved, ddof=1)))


def mean_difference(
    first: Mapping[str, Floats],
    second: Mapping[str, Floats],
    gold: Mapping[str, Floats],
    sizes: Mapping[str, Mapping[str, int]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference of two models' averages over tasks (task -> similarities (n,)); tasks are drawn independently.

    ``p`` is NaN: the permutation test is one task's.
    """
    rows = [
        _moved(first[n][None], second[n][None], gold[n], sizes[n], resamples, (seed, i)) for i, n in enumerate(first)
    ]
    value = np.mean([scores(second[n][None], gold[n])[0] - scores(first[n][None], gold[n])[0] for n in first])
    moved = np.mean(rows, axis=0)
    spread = float(np.nanstd(moved, ddof=1))
    return Difference(float(value), percentile_interval(moved), float("nan"), _POWER * spread)


def _moved(
    first: Floats, second: Floats, gold: Floats, sizes: Mapping[str, int], resamples: int, seed: tuple[int, ...]
) -> Floats:
    """The difference in every resample of pairs and seeds (resamples,)."""
    counts = resample_counts(list(sizes.values()), resamples, seed)
    rng = np.random.default_rng((*seed, 1))
    sides = []
    for side in (first, second):
        by_seed = replicates(side, gold, counts)  # (seeds, resamples)
        n = len(side)
        if n > 1:  # drawing from n seeds shows (n - 1) / n of their variance, and a normal's tails instead of Student's
            centre = by_seed.mean(axis=0)
            wider = (n / (n - 1)) ** 0.5 * scipy_stats.t.ppf(0.975, n - 1) / scipy_stats.norm.ppf(0.975)
            by_seed = centre + (by_seed - centre) * wider
        drawn = rng.integers(0, len(side), size=by_seed.shape)
        sides.append(np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0))
    moved: Floats = sides[1] - sides[0]
    return moved


def scores(similarities: Floats, gold: Floats) -> list[float]:
    """Spearman of every row of similarities (seeds, n) with gold (n,), in percent."""
    return [correlation("spearman", row, gold) for row in similarities]


def replicates(similarities: Floats, gold: Floats, counts: NDArray[np.int32]) -> Floats:
    """Spearman of every row (seeds, n) in every resample: (seeds, resamples)."""
    ranks = weighted_ranks(gold, counts)
    return np.stack([weighted_pearson(weighted_ranks(row, counts), ranks, counts) for row in similarities])


def permutation_p(
    first: Floats, second: Floats, gold: Floats, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p of no difference, from swapping the systems' standardised ranks pair by pair.

    Both (seeds, n); seed i meets seed i, the shorter side starts again, all seeds are swapped together: the test
    knows the pairs, not the spread over seeds.
    """
    wanted = _standard_ranks(gold)
    count = max(len(first), len(second))
    a, b = ([_standard_ranks(side[i % len(side)]) for i in range(count)] for side in (first, second))
    observed = abs(sum(float((y - x) @ wanted) for x, y in zip(a, b, strict=True))) / len(wanted)
    rng = np.random.default_rng((seed, 2))
    reached, done = 0, 0
    while done < permutations:
        rows = min(permutations - done, max(1, _BLOCK // len(wanted)))
        swapped = rng.integers(0, 2, size=(rows, len(wanted))).astype(np.float64)
        moved = sum(
            _swapped(y, x, wanted, swapped) - _swapped(x, y, wanted, swapped) for x, y in zip(a, b, strict=True)
        )
        reached += int(np.sum(np.abs(moved) >= observed - 1e-9))
        done += rows
    return (reached + 1) / (permutations + 1)


def _swapped(x: Floats, other: Floats, wanted: Floats, swapped: Floats) -> Floats:
    """Correlation (permutations,) of x with gold after taking the other system's value where ``swapped`` is 1."""
    n = len(x)
    mean = (x.sum() + swapped @ (other - x)) / n
    square = ((x**2).sum() + swapped @ (other**2 - x**2)) / n
    product = (x @ wanted + swapped @ ((other - x) * wanted)) / n  # gold's mean is 0, its variance 1
    found: Floats = product / np.sqrt(np.maximum(square - mean**2, 1e-12))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _standard_ranks(x: Floats) -> Floats:
    ranks = scipy_stats.rankdata(x)
    centred: Floats = ranks - ranks.mean()
    spread = centred.std()
    return centred / spread if spread else centred
