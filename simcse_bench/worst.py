"""The pairs that a model gets most wrong: where the rank of its cosine is far from the rank of the gold score."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from simcse_bench.data import Pairs
from simcse_bench.metrics import Floats

COUNT = 20  # of each task, kept beside a report


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
    ranks = {
        "gold_rank": 100 * rankdata(pairs.gold) / len(pairs),
        "cosine_rank": 100 * rankdata(similarities) / len(pairs),
    }
    order = np.argsort(-np.abs(ranks["cosine_rank"] - ranks["gold_rank"]), kind="stable")[:count]
    return [
        {
            "gold": round(float(pairs.gold[i]), 4),
            "cosine": round(float(similarities[i]), 4),
            **{name: round(float(found[i]), 1) for name, found in ranks.items()},
            "left": pairs.left[i],
            "right": pairs.right[i],
        }
        for i in order.tolist()
    ]
