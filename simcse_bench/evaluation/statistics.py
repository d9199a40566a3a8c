"""Bootstrap of correlations, all resamples at once by weights instead of copies; two systems compared; Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.task import AGGREGATES, METRICS
from simcse_bench.evaluation.metrics import Floats, average_ranks, correlation

LEVEL = 0.95
RESAMPLES = 1000
PERMUTATIONS = 5000
_BLOCK = 4_000_000  # numbers per block: resamples and permutations are worked off in blocks of about 32 MB an array
# (z of 97.5 %) + (z of 80 %): a difference of so many standard errors is found with 80 % probability
_POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


def percentile_interval(replicates: Floats) -> tuple[float, float] | None:
    """The central 95 % of the replicates (percentile bootstrap; Efron 1979).

    None where more than a tenth of the resamples have no correlation (a constant side): too few pairs to say.
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 0.9 * len(replicates):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resample_counts(sizes: Sequence[int], resamples: int, seed: int | Sequence[int]) -> NDArray[np.int32]:
    """How often each row is drawn, (resamples, sum of sizes): drawn with replacement within each stratum.

    The strata are a task's subsets: their sizes were fixed when the task was made, so they are fixed here.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, sum(sizes)), dtype=np.int32)
    column = 0
    for n in sizes:
        step = max(1, _BLOCK // n)
        for start in range(0, resamples, step):  # in blocks: the rows drawn take six times the memory of their counts
            drawn = min(step, resamples - start)
            rows = rng.integers(0, n, size=(drawn, n)) + np.arange(drawn)[:, None] * n
            counted = np.bincount(rows.ravel(), minlength=drawn * n).reshape(drawn, n)
            counts[start : start + drawn, column : column + n] = counted
        column += n
    return counts


def weighted_ranks(x: Floats, counts: NDArray[np.int32]) -> Floats:
    """Average rank of every value in each resample, (resamples, n), where value i is present ``counts[r, i]`` times."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # start of every group of ties
    group = np.empty(len(x), dtype=np.intp)
    group[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(x)]))
    in_group = np.add.reduceat(counts[:, order], first, axis=1).astype(np.float64)  # (resamples, groups)
    ranks = np.cumsum(in_group, axis=1) - (in_group - 1) / 2
    return ranks[:, group]


def weighted_pearson(x: Floats, y: Floats, counts: NDArray[np.int32]) -> Floats:
    """Pearson correlation of each resample, (resamples,), in percent; NaN where one side is constant.

    ``x`` and ``y`` are (n,), or (resamples, n) where they differ by resample.
    """
    w = counts.astype(np.float64)
    total = w.sum(axis=1)
    wx, wy = w * x, w * y
    mean_x, mean_y = wx.sum(axis=1) / total, wy.sum(axis=1) / total
    covariance = (wx * y).sum(axis=1) / total - mean_x * mean_y
    variance_x = (wx * x).sum(axis=1) / total - mean_x**2
    variance_y = (wy * y).sum(axis=1) / total - mean_y**2
    tiny = 1e-12  # relative: below it the side is constant but for rounding
    constant = (variance_x <= tiny * (1 + mean_x**2)) | (variance_y <= tiny * (1 + mean_y**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant, np.nan, 100.0 * covariance / np.sqrt(variance_x * variance_y))


def bootstrap(
    similarity: Floats, gold: Floats, sizes: Mapping[str, int], resamples: int, seed: int | Sequence[int]
) -> tuple[dict[str, dict[str, Floats]], dict[str, dict[str, Floats]]]:
    """Replicates (resamples,) of a task's scores under every metric.

    Args:
        similarity, gold: (n,), the rows of one subset standing together, in the order of ``sizes``.
        sizes: number of rows of each subset.
        resamples, seed: of the bootstrap.

    Returns:
        ``by_aggregate[metric]["all" | "mean" | "wmean"]`` and ``by_subset[metric][subset]``.
    """
    names = list(sizes)
    counts = resample_counts([sizes[n] for n in names], resamples, seed)
    bounds = np.cumsum([0, *sizes.values()])
    by_aggregate: dict[str, dict[str, Floats]] = {m: {} for m in METRICS}
    by_subset: dict[str, dict[str, Floats]] = {m: {} for m in METRICS}
    for metric in METRICS:
        for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True):
            rows = slice(start, stop)
            by_subset[metric][name] = replicates(similarity[rows][None], gold[rows], counts[:, rows], metric)[0]
        table = np.stack(list(by_subset[metric].values()))  # (subsets, resamples)
        union = table[0] if len(names) == 1 else replicates(similarity[None], gold, counts, metric)[0]
        weighted = np.average(table, axis=0, weights=list(sizes.values()))
        by_aggregate[metric] = dict(zip(AGGREGATES, (union, table.mean(axis=0), weighted), strict=True))
    return by_aggregate, by_subset


def replicates(similarities: Floats, gold: Floats, counts: NDArray[np.int32], metric: str = "spearman") -> Floats:
    """Correlation of every row (seeds, n) with gold (n,) in every resample: (seeds, resamples)."""
    step = max(1, _BLOCK // counts.shape[1])
    blocks = []
    for start in range(0, len(counts), step):
        block = counts[start : start + step]
        rows, wanted = list(similarities), gold
        if metric == "spearman":
            rows, wanted = [weighted_ranks(row, block) for row in rows], weighted_ranks(gold, block)
        blocks.append(np.stack([weighted_pearson(row, wanted, block) for row in rows]))
    return np.concatenate(blocks, axis=1)


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
    value = np.mean(_scores(second, gold)) - np.mean(_scores(first, gold))
    moved = _moved(first, second, gold, sizes or {"all": len(gold)}, resamples, (seed,))
    return difference_of(float(value), moved, permutation_p(first, second, gold, seed=seed))


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
    value = np.mean([_scores(second[n][None], gold[n])[0] - _scores(first[n][None], gold[n])[0] for n in first])
    return difference_of(float(value), np.mean(rows, axis=0), float("nan"))


def difference_of(value: float, moved: Floats, p: float) -> Difference:
    """A difference with the interval of its replicates ``moved`` (resamples,)."""
    return Difference(value, percentile_interval(moved), p, _POWER * float(np.nanstd(moved, ddof=1)))


def _moved(
    first: Floats, second: Floats, gold: Floats, sizes: Mapping[str, int], resamples: int, seed: tuple[int, ...]
) -> Floats:
    """The difference in every resample of pairs and seeds (resamples,)."""
    from scipy.special import stdtrit

    counts = resample_counts(list(sizes.values()), resamples, seed)
    rng = np.random.default_rng((*seed, 1))
    sides = []
    for side in (first, second):
        by_seed = replicates(side, gold, counts)  # (seeds, resamples)
        n = len(side)
        if n > 1:  # drawing from n seeds shows (n - 1) / n of their variance, and a normal's tails instead of Student's
            centre = by_seed.mean(axis=0)
            wider = (n / (n - 1)) ** 0.5 * stdtrit(n - 1, 0.975) / NormalDist().inv_cdf(0.975)
            by_seed = centre + (by_seed - centre) * wider
        drawn = rng.integers(0, len(side), size=by_seed.shape)
        sides.append(np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0))
    moved: Floats = sides[1] - sides[0]
    return moved


def _scores(similarities: Floats, gold: Floats) -> list[float]:
    """Spearman of every row of similarities (seeds, n) with gold (n,), in percent."""
    return [correlation("spearman", row, gold) for row in similarities]


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
    reached, step = 0, max(1, _BLOCK // len(wanted))
    for done in range(0, permutations, step):
        rows = min(permutations - done, step)
        swapped = rng.integers(0, 2, size=(rows, len(wanted))).astype(np.float64)
        moved = sum(
            _swapped(y, x, wanted, swapped) - _swapped(x, y, wanted, swapped) for x, y in zip(a, b, strict=True)
        )
        reached += int(np.sum(np.abs(moved) >= observed - 1e-9))
    return (reached + 1) / (permutations + 1)


def _swapped(x: Floats, other: Floats, wanted: Floats, swapped: Floats) -> Floats:
    """Correlation (permutations,) of x with gold after taking the other system's value where ``swapped`` is 1."""
    n = len(x)
    mean = (x.sum() + swapped @ (other - x)) / n
    square = ((x**2).sum() + swapped @ (other**2 - x**2)) / n
    product = (x @ wanted + swapped @ ((other - x) * wanted)) / n  # gold's mean is 0, its variance 1
    correlations: Floats = product / np.sqrt(np.maximum(square - mean**2, 1e-12))
    return correlations


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
    ranks = average_ranks(x)
    centred: Floats = ranks - ranks.mean()
    spread = centred.std()
    return centred / spread if spread else centred
