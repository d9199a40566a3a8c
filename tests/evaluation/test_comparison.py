"""Differences of systems: known answers, coverage of the interval, p under the null, Holm by hand."""

import numpy as np
import pytest
from scipy import stats

from simcse_bench.evaluation import statistics
from simcse_bench.evaluation.statistics import difference, holm, permutation_p


def drawn(rng, n, noise_a, noise_b, seeds=1):
    gold = rng.integers(0, 26, n) / 5
    a = np.stack([gold + noise_a * rng.standard_normal(n) for _ in range(seeds)])
    b = np.stack([gold + noise_b * rng.standard_normal(n) for _ in range(seeds)])
    return a, b, gold


def test_the_value_is_the_difference_of_scipys_correlations():
    a, b, gold = drawn(np.random.default_rng(0), 200, 2.0, 1.0, seeds=3)
    expected = np.mean([stats.spearmanr(x, gold)[0] for x in b]) - np.mean([stats.spearmanr(x, gold)[0] for x in a])
    found = difference(a, b, gold)
    assert found.value == pytest.approx(100 * expected)
    assert found.interval[0] < found.value < found.interval[1]
    assert difference(b, a, gold).value == pytest.approx(-found.value)


def test_replicates_equal_a_plain_loop():
    rng = np.random.default_rng(1)
    a, _, gold = drawn(rng, 60, 1.0, 1.0, seeds=2)
    counts = statistics.resample_counts([60], 20, 3)
    found = statistics.replicates(a, gold, counts)
    for s in range(2):
        for r in range(20):
            rows = np.repeat(np.arange(60), counts[r])
            assert found[s, r] == pytest.approx(100 * stats.spearmanr(a[s][rows], gold[rows])[0])


def test_equal_systems_differ_by_nothing():
    a, _, gold = drawn(np.random.default_rng(2), 100, 1.0, 1.0)
    found = difference(a, a, gold)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.interval == (0.0, 0.0)


def test_a_monotone_change_of_the_similarities_changes_nothing():
    a, b, gold = drawn(np.random.default_rng(3), 100, 1.0, 2.0)
    found, other = difference(a, b, gold), difference(np.exp(a), 3 * b + 7, gold)
    assert found.value == pytest.approx(other.value)
    assert found.p == other.p


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    """Systems of known correlation: the true difference comes from a very large sample."""
    rng = np.random.default_rng(4)
    large_a, large_b, large_gold = drawn(rng, 400_000, 1.5, 1.0)
    truth = 100 * (stats.spearmanr(large_b[0], large_gold)[0] - stats.spearmanr(large_a[0], large_gold)[0])
    hits = 0
    for i in range(300):
        a, b, gold = drawn(rng, 150, 1.5, 1.0)
        low, high = difference(a, b, gold, resamples=300, seed=i).interval
        hits += low <= truth <= high
    assert 0.91 <= hits / 300 <= 0.985


def test_the_interval_of_several_seeds_knows_their_spread():
    """Each seed shifts the quality: with pairs fixed, intervals over 2 x 5 seeds must be wider than over one."""
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 26, 400) / 5
    runs = np.stack([gold + noise * rng.standard_normal(400) for noise in (0.8, 1.0, 1.4, 2.0, 3.0)])
    many = difference(runs, runs, gold).interval
    assert many[1] - many[0] > 5
    assert many[0] < 0 < many[1]


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(6)
    found = [permutation_p(*drawn(rng, 80, 1.2, 1.2), permutations=400, seed=i) for i in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert np.mean(np.array(found) < 0.05) < 0.085


def test_p_is_small_where_one_system_is_better_and_never_zero():
    a, b, gold = drawn(np.random.default_rng(7), 500, 3.0, 1.0)
    assert permutation_p(a, b, gold, permutations=999) == pytest.approx(1 / 1000)


def test_the_detectable_difference_shrinks_with_the_root_of_n():
    rng = np.random.default_rng(8)
    small, large = (difference(*drawn(rng, n, 1.5, 1.5)).detectable for n in (100, 1600))
    assert small / large == pytest.approx(4, rel=0.35)


@pytest.mark.parametrize(
    "p, corrected",
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    assert holm(p) == pytest.approx(corrected)
