"""Scores of a task as pure functions: cosine, Spearman and Pearson, aggregation over subsets. All in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.judged import Paraphrases
from simcse_bench.data.pairs import Pairs
from simcse_bench.data.reading import Data
from simcse_bench.errors import UserError
from simcse_bench.reports.pair_records import Pair, TaskValues

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
    sides = (average_ranks(x), average_ranks(y)) if metric == "spearman" else (x, y)
    return 100.0 * float(np.corrcoef(*sides)[0, 1])


def average_ranks(values: Floats | Sequence[float]) -> Floats:
    """Ranks (n,) from 1 on; ties share the mean of theirs.

    scipy.stats' own, which importing would take as long as embedding a thousand sentences.
    """
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return ranks


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
    return 100 * average_ranks(values) / len(values)


def row_records(task: str, rows: Data, values: Floats) -> Sequence[Pair | TaskValues]:
    """What the file beside a report keeps of a task: its pairs with their cosines (n,), or a value per row (n,)."""
    pairs = rows.pairs if isinstance(rows, Paraphrases) else rows
    if isinstance(pairs, Pairs):
        return pair_records(task, pairs, values)
    return [TaskValues(task=task, values=values.tolist())]


def pair_records(task: str, pairs: Pairs, similarities: Floats) -> list[Pair]:
    """Every pair of a task with its cosine (n,) and its two ranks, as the file beside a report keeps it."""
    ranks = [percent_ranks(side).round(4).tolist() for side in (pairs.gold, similarities)]
    fields = (
        pairs.subset,
        pairs.ids(task),
        pairs.left,
        pairs.right,
        pairs.gold.tolist(),
        similarities.tolist(),
        *ranks,
    )
    return [
        Pair(task=task, subset=subset, id=name, left=left, right=right, gold=gold, cosine=cosine, gold_rank=by_gold,
             cosine_rank=by_cosine)
        for subset, name, left, right, gold, cosine, by_gold, by_cosine in zip(*fields, strict=True)
    ]  # fmt: skip
