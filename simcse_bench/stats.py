"""Bootstrap of correlations: all resamples at once, by weights instead of copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simcse_bench.metrics import AGGREGATES, METRICS, Floats

LEVEL = 0.95
_BLOCK = 4_000_000  # numbers per block: resamples are worked off in blocks of about 32 MB an array


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
    blocks = []
    for n in sizes:
        drawn = rng.integers(0, n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
        blocks.append(np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n))
    return np.concatenate(blocks, axis=1).astype(np.int32)


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
            by_subset[metric][name] = _replicates(metric, similarity[rows], gold[rows], counts[:, rows])
        table = np.stack(list(by_subset[metric].values()))  # (subsets, resamples)
        union = table[0] if len(names) == 1 else _replicates(metric, similarity, gold, counts)
        weighted = np.average(table, axis=0, weights=list(sizes.values()))
        by_aggregate[metric] = dict(zip(AGGREGATES, (union, table.mean(axis=0), weighted), strict=True))
    return by_aggregate, by_subset


def _replicates(metric: str, x: Floats, y: Floats, counts: NDArray[np.int32]) -> Floats:
    step = max(1, _BLOCK // counts.shape[1])
    out = []
    for start in range(0, len(counts), step):
        block = counts[start : start + step]
        sides = (weighted_ranks(x, block), weighted_ranks(y, block)) if metric == "spearman" else (x, y)
        out.append(weighted_pearson(*sides, block))
    return np.concatenate(out)
