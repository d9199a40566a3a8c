"""Ranks of the positives among the candidates, and scores that are means over queries: MRR, hits, triplets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.ranking import Ranking
from simcse_bench.evaluation.metrics import Floats, unit
from simcse_bench.evaluation.statistics import PERMUTATIONS, RESAMPLES, Difference, difference_of

HITS = (1, 3)
_MARGIN = 1e-9  # of a cosine in float64: sentences of the same vector are equally near
_BLOCK = 4_000_000  # numbers per block


def ranks_of_positives(data: Ranking, vectors: NDArray[np.float32], center: bool = False) -> Floats:
    """Rank of the nearest positive of every query (n,), from 1; by cosine.

    One more than the number of candidates that are strictly nearer to the query, itself left out; a query without a
    direction (the zero vector) is given the last rank.

    Source: EvalRank, src/s_evaluation.py, eval_for_ranking: there the query stands in the pool, before its positive.
    # differs from EvalRank: there the positive's cosine is of another float32 product than the pool's, and where
    # rounding makes the pool's larger the positive stands behind itself (all-MiniLM-L6-v2: MRR 74.26, not 83.71);
    # here cosines are in float64 with a margin, and sentences of one vector are tied.

    Args:
        data: n queries.
        vectors: of ``data.pool`` (m, d).
        center: subtract the mean of the pool first (EvalRank: centralization=True).
    """
    exact = vectors.astype(np.float64)
    directions = unit(exact - exact.mean(axis=0) if center else exact)
    place = {sentence: i for i, sentence in enumerate(data.pool)}
    query = np.array([place[q] for q in data.queries])
    positives = [[place[p] for p in group] for group in data.positives]
    ranks = np.empty(len(data))
    step = max(1, _BLOCK // len(data.pool))
    for start in range(0, len(data), step):
        rows = range(start, min(start + step, len(data)))
        cosines = directions[query[rows.start : rows.stop]] @ directions.T  # (b, m)
        for row, among in zip(rows, cosines, strict=True):
            nearest = among[positives[row]].max()
            among[query[row]] = -np.inf
            if data.candidates:
                among = among[[place[c] for c in data.candidates[row]]]
            nearer = int((among > nearest + _MARGIN).sum())
            ranks[row] = 1 + nearer if directions[query[row]].any() else len(among)
    return ranks


def ranking_values(ranks: Floats) -> dict[str, Floats]:
    """Of every query, in percent: its part in the mean reciprocal rank and in the hits at 1 and 3."""
    return {"mrr": 100 / ranks} | {f"hits@{k}": np.where(ranks <= k, 100.0, 0.0) for k in HITS}


def mean_replicates(values: Floats, units: Sequence[int], resamples: int, seed: int | Sequence[int]) -> Floats:
    """Means of k quantities (k, n) in each resample (k, resamples), where rows of one unit are drawn together."""
    sums, sizes = _by_unit(values, units)
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // sums.size)
    blocks = []
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(sizes), size=(min(step, resamples - start), len(sizes)))
        blocks.append(sums[:, drawn].sum(axis=2) / sizes[drawn].sum(axis=1))
    return np.concatenate(blocks, axis=1)


def mean_difference_of_values(
    first: Floats, second: Floats, units: Sequence[int], resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> tuple[Difference, Floats]:
    """Mean of the second system's values (n,) minus that of the first's, and its replicates (resamples,).

    Paired bootstrap over units; ``p`` from turning the sign of the differences unit by unit (Fisher's randomisation).
    """
    apart = second - first
    moved = mean_replicates(apart[None], units, resamples, seed)[0]
    sums = _by_unit(apart[None], units)[0][0]
    observed = abs(sums.sum())
    rng = np.random.default_rng((0, 2))
    reached, step = 0, max(1, _BLOCK // len(sums))
    for start in range(0, PERMUTATIONS, step):
        signs = rng.choice([-1.0, 1.0], size=(min(step, PERMUTATIONS - start), len(sums)))
        reached += int((np.abs(signs @ sums) >= observed - 1e-9).sum())
    p = (reached + 1) / (PERMUTATIONS + 1)
    return difference_of(float(apart.mean()), moved, p), moved


def _by_unit(values: Floats, units: Sequence[int]) -> tuple[Floats, Floats]:
    """Sums of the values (k, n) in every unit (k, u), and the units' sizes (u,)."""
    _, index = np.unique(np.asarray(units), return_inverse=True)
    return np.stack([np.bincount(index, row) for row in values]), np.bincount(index).astype(np.float64)
