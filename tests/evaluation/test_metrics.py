"""Cosines, correlations and aggregation by hand and by scipy; the pairs a model gets most wrong."""

import numpy as np
import pytest
from scipy import stats

from simcse_bench.data.pairs import Pairs
from simcse_bench.errors import UserError
from simcse_bench.evaluation.metrics import aggregate, correlation, pair_records, paired_cosine
from simcse_bench.reports.pair_records import worst_pairs


def test_cosine_known_answers():
    left = np.array([[1, 0], [2, 0], [1, 1], [0, 0], [3, 4]], dtype=np.float32)
    right = np.array([[0, 5], [7, 0], [-1, -1], [1, 0], [4, 3]], dtype=np.float32)
    assert paired_cosine(left, right).tolist() == pytest.approx([0, 1, -1, 0, 0.96], abs=1e-15)


def test_identical_sentences_are_tied_at_exactly_one():
    x = np.random.default_rng(0).normal(size=(500, 48)).astype(np.float32)
    assert set(paired_cosine(x, x.copy())) == {1.0}


def test_correlations_known_answers():
    x, y = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])
    assert correlation("spearman", x, y) == pytest.approx(80.0)  # 1 - 6*2/(4*15)
    assert correlation("spearman", x, np.exp(x)) == pytest.approx(100.0)
    assert correlation("pearson", x, np.exp(x)) < 95
    assert correlation("pearson", x, -3 * x + 1) == pytest.approx(-100.0)
    # ties take their average rank: ranks 1.5 1.5 3.5 3.5 against 1 2 3 4
    assert correlation("spearman", np.array([0.0, 0, 1, 1]), x) == pytest.approx(100 * 4 / np.sqrt(4 * 5))


def test_no_correlation_is_an_error_never_a_number():
    with pytest.raises(UserError, match="all 3 similarities are the same"):
        correlation("spearman", np.ones(3), np.arange(3.0))
    with pytest.raises(UserError, match="all 3 gold scores are the same"):
        correlation("pearson", np.arange(3.0), np.zeros(3))
    with pytest.raises(UserError, match="at least 2 pairs"):
        correlation("spearman", np.ones(1), np.ones(1))


def test_aggregations_by_hand():
    parts, sizes = {"a": 80.0, "b": 50.0}, {"a": 100, "b": 300}
    assert aggregate("all", 66.0, parts, sizes) == 66.0
    assert aggregate("mean", 66.0, parts, sizes) == 65.0
    assert aggregate("wmean", 66.0, parts, sizes) == 57.5


def test_against_scipy_with_many_ties():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 400) / 3, rng.integers(0, 25, 400) / 5
    assert correlation("spearman", x, y) == pytest.approx(100 * stats.spearmanr(x, y).statistic, abs=1e-12)


def pairs(gold):
    names = tuple(f"s{i}" for i in range(len(gold)))
    return Pairs(names, tuple(n.upper() for n in names), np.array(gold, dtype=float), ("all",) * len(gold))


def test_the_record_of_a_pair():
    """Numbers count each subset's pairs; equal scores share a rank; the cosine keeps all its digits."""
    data = Pairs(("a", "b", "c"), ("d", "e", "f"), np.array([2.5, 1, 2.5]), ("x", "x", "y"))
    records = pair_records("t", data, np.array([0.1, 1 / 3, -1]))
    assert records[1] == {"task": "t", "subset": "x", "id": "t/x/1", "left": "b", "right": "e", "gold": 1.0, "cosine": 1 / 3,
                          "gold_rank": 33.3333, "cosine_rank": 100.0}  # fmt: skip
    assert [row["id"] for row in records] == ["t/x/0", "t/x/1", "t/y/0"]
    assert [row["gold_rank"] for row in records] == [83.3333, 33.3333, 83.3333]


def test_the_pair_out_of_order_comes_first():
    found = worst_pairs(pair_records("t", pairs([0, 1, 2, 3, 5]), np.array([0.1, 0.9, 0.2, 0.3, 0.4])), count=2)
    assert found[0] == {
        "gold": 1.0, "cosine": 0.9, "gold_rank": 40.0, "cosine_rank": 100.0, "left": "s1", "right": "S1"
    }  # fmt: skip
    assert len(found) == 2


def test_without_the_worst_pairs_the_correlation_rises():
    rng = np.random.default_rng(0)
    gold = rng.random(200)
    cosines = gold + 0.5 * rng.standard_normal(200)
    gone = {row["left"] for row in worst_pairs(pair_records("t", pairs(gold), cosines))}
    kept = [i for i in range(200) if f"s{i}" not in gone]
    assert len(gone) == 20
    assert stats.spearmanr(gold[kept], cosines[kept])[0] > stats.spearmanr(gold, cosines)[0] + 0.05
