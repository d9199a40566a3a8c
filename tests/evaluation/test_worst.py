"""The pairs a model gets most wrong."""

import numpy as np
from scipy import stats

from simcse_bench.data.pairs import Pairs
from simcse_bench.evaluation.metrics import worst_pairs


def pairs(gold):
    names = tuple(f"s{i}" for i in range(len(gold)))
    return Pairs(names, tuple(n.upper() for n in names), np.array(gold, dtype=float), ("all",) * len(gold))


def test_the_pair_out_of_order_comes_first():
    found = worst_pairs(pairs([0, 1, 2, 3, 5]), np.array([0.1, 0.9, 0.2, 0.3, 0.4]), count=2)
    assert found[0] == {
        "gold": 1.0, "cosine": 0.9, "gold_rank": 40.0, "cosine_rank": 100.0, "left": "s1", "right": "S1"
    }  # fmt: skip
    assert len(found) == 2


def test_without_the_worst_pairs_the_correlation_rises():
    rng = np.random.default_rng(0)
    gold = rng.random(200)
    cosines = gold + 0.5 * rng.standard_normal(200)
    gone = {row["left"] for row in worst_pairs(pairs(gold), cosines)}
    kept = [i for i in range(200) if f"s{i}" not in gone]
    assert len(gone) == 20
    assert stats.spearmanr(gold[kept], cosines[kept])[0] > stats.spearmanr(gold, cosines)[0] + 0.05
