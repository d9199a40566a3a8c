"""Average precision and thresholds against scikit-learn and mteb; the bootstrap against a plain one; compare."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from simcse_bench.evaluation.paraphrase import (
    average_precision,
    average_precision_difference,
    best_threshold,
    paraphrase_replicates,
    rates,
)
from simcse_bench.evaluation.statistics import resample_counts


def scored(n=200, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, n).astype(np.float64)
    similarity = gold * 0.5 + rng.normal(0, 0.5, n)
    return (np.round(similarity, 1) if ties else similarity), gold


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    similarity, gold = scored(ties=ties)
    theirs = 100 * average_precision_score(gold, similarity)
    assert average_precision(similarity, gold)[0] == pytest.approx(theirs, abs=1e-9)


def test_average_precision_by_hand():
    """Right, wrong, right: precision 1 at recall 1/2, 2/3 at recall 1."""
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))[0] == pytest.approx(100 * 5 / 6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_the_best_threshold_of_all(metric, ties):
    similarity, gold = scored(60, 1, ties)
    theirs = {"f1": f1_score, "accuracy": accuracy_score}[metric]
    every = [*np.unique(similarity), similarity.max() + 1]
    best = max(100 * theirs(gold, similarity >= t) for t in every)
    found = best_threshold(similarity, gold, metric)
    assert found.score == pytest.approx(best)
    assert 100 * theirs(gold, similarity >= found.value) == pytest.approx(best)
    assert rates(similarity, gold, found.value)[metric][0] == pytest.approx(best)


def test_none_is_called_a_paraphrase_where_that_is_best():
    found = best_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.0, 0.0, 0.0, 1.0]), "accuracy")
    assert found.score == 75
    assert found.value > 0.9


def test_the_bootstrap_is_a_plain_one():
    similarity, gold = scored(80, 2, ties=True)
    thresholds = {m: best_threshold(*scored(80, 3), m) for m in ("f1", "accuracy")}
    found = paraphrase_replicates(similarity, gold, thresholds, 25, [7, 1])
    for r, counts in enumerate(resample_counts([80], 25, [7, 1, 0])):
        rows = np.repeat(np.arange(80), counts)
        s, g = similarity[rows], gold[rows]
        assert found["ap"][r] == pytest.approx(100 * average_precision_score(g, s))
        assert found["f1"][r] == pytest.approx(100 * f1_score(g, s >= thresholds["f1"].value))
        assert found["accuracy"][r] == pytest.approx(100 * accuracy_score(g, s >= thresholds["accuracy"].value))


def test_difference():
    similarity, gold = scored(120, 4)
    worse = similarity + np.random.default_rng(5).normal(0, 1, 120)
    found, moved = average_precision_difference(worse, similarity, gold)
    expected = 100 * (average_precision_score(gold, similarity) - average_precision_score(gold, worse))
    assert found.value == pytest.approx(expected)
    assert found.interval[0] > 0
    assert found.p < 0.01
    assert moved.mean() == pytest.approx(found.value, abs=2)
    same, _ = average_precision_difference(similarity, similarity, gold)
    assert (same.value, same.p, same.interval) == (0, 1, (0, 0))
    swapped, _ = average_precision_difference(similarity, worse, gold)
    assert swapped.value == -found.value
