"""Scores of a task as pure functions: cosine, Spearman and Pearson, aggregation over subsets. All in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.pairs import Pairs
from simcse_bench.errors import UserError

COUNT = 20  # worst pairs of each task, kept beside a report
Floats = NDArray[np.float64]
Real = TypeVar("Real", NDArray[np.float32], NDArray[np.float64])


def unit(vectors: Real) -> Real:
    """Rows (n, d) scaled to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)  # type: ignore[return-value]


def paired_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> Floats:
    """Cosine of row i of ``left`` (n, d) with row i of ``right`` (n, d); 0 where one of them is the zero vector.

    Computed as 1 - |u - v|^2 / 2 of the unit vectors in float64, so that pairs of identical sentences are tied at
    exactly 1. # differs from SentEval: there they differ by float32 rounding (sts.py, utils.cosine), which orders
    them at random.
    """
    u, v = (unit(np.asarray(x, dtype=np.float64)) for x in (left, right))
    zero = ~u.any(axis=1) | ~v.any(axis=1)
    cosine: Floats = 1.0 - ((u - v) ** 2).sum(axis=1) / 2.0
    cosine[zero] = 0.0  # SentEval: nan_to_num of 0/0
    return cosine


def correlation(metric: str, x: Floats, y: Floats) -> float:
    """Spearman (average ranks for ties) or Pearson correlation of two samples (n,), in percent.

    Raises:
        UserError: fewer than two values, or one side is constant: the correlation does not exist.
    """
    if len(x) < 2:
        raise UserError(f"a correlation needs at least 2 pairs, found {len(x)}.")
    for name, side in (("similarities", x), ("gold scores", y)):
        if np.all(side == side[0]):
            raise UserError(f"all {len(side)} {name} are the same ({side[0]:g}): no correlation exists.")
    from scipy import stats

    function = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[metric]
    return 100.0 * float(function(x, y).statistic)


def aggregate(how: str, union: float, by_subset: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """One value for a task with subsets. Source: SimCSE's SentEval senteval/sts.py, STSEval.run.

    Args:
        how: "all" (the correlation over the union), "mean" over subsets, or "wmean" weighted by their sizes.
        union: correlation over the union of the subsets.
        by_subset: correlation of each subset.
        sizes: number of pairs of each subset.
    """
    if how == "all":
        return union
    weights = None if how == "mean" else [sizes[n] for n in by_subset]
    return float(np.average(list(by_subset.values()), weights=weights))


def percent_ranks(values: Floats | Sequence[float]) -> Floats:
    """Average ranks (n,), in percent of their number."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values)
    return 100 * ranks / len(values)


def worst_pairs(pairs: Pairs, similarities: Floats, count: int = COUNT) -> list[dict[str, Any]]:
    """The pairs whose two ranks differ most, worst first.

    Spearman's correlation is 1 minus a multiple of the sum of these squared differences: these pairs cost it most.

    Args:
        pairs: of a task, n of them.
        similarities: cosines (n,).
        count: how many are given.

    Returns:
        ``gold``, ``cosine``, their ranks among the task's pairs in percent, ``left`` and ``right``.
    """
    ranks = {"gold_rank": percent_ranks(pairs.gold), "cosine_rank": percent_ranks(similarities)}
    order = np.argsort(-np.abs(ranks["cosine_rank"] - ranks["gold_rank"]), kind="stable")[:count]
    return [
        {
            "gold": round(float(pairs.gold[i]), 4),
            "cosine": round(float(similarities[i]), 4),
            **{name: round(float(values[i]), 1) for name, values in ranks.items()},
            "left": pairs.left[i],
            "right": pairs.right[i],
        }
        for i in order.tolist()
    ]
