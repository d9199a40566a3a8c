"""The bootstrap of correlations and differences of systems: known answers, scipy, coverage, p under the null, Holm."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simcse_bench.evaluation import statistics
from simcse_bench.evaluation.statistics import (
    bootstrap,
    difference,
    holm,
    percentile_interval,
    permutation_p,
    resample_counts,
    weighted_pearson,
    weighted_ranks,
)


def test_counts_are_resamples_within_each_stratum():
    counts = resample_counts([5, 40], resamples=300, seed=0)
    assert counts.shape == (300, 45)
    assert (counts[:, :5].sum(axis=1) == 5).all()
    assert (counts[:, 5:].sum(axis=1) == 40).all()
    assert (resample_counts([5, 40], 300, 0) == counts).all()
    assert (resample_counts([5, 40], 300, 1) != counts).any()


@pytest.mark.parametrize("block", [1, 95, 4_000_000])
def test_blocks_draw_the_same_rows(monkeypatch, block):
    """Written out: whole strata at once, as older reports drew them."""
    rng = np.random.default_rng(5)
    drawn = [rng.integers(0, n, size=(30, n)) for n in (7, 40)]
    whole = np.concatenate([[np.bincount(row, minlength=rows.shape[1]) for row in rows] for rows in drawn], axis=1)
    monkeypatch.setattr(statistics, "_BLOCK", block)
    assert (resample_counts([7, 40], 30, 5) == whole).all()


def test_replicates_equal_scipy_on_the_rows_drawn():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, 60) / 1.0  # many ties
    similarity = np.round(gold + rng.normal(size=60), 1)
    sizes = {"a": 20, "b": 40}
    by_aggregate, by_subset = bootstrap(similarity, gold, sizes, resamples=25, seed=7)
    counts = resample_counts([20, 40], 25, 7)
    for r in range(25):
        rows = np.repeat(np.arange(60), counts[r])
        a, b = rows[rows < 20], rows[rows >= 20]
        for metric, function in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
            on = {k: 100 * function(similarity[i], gold[i]).statistic for k, i in (("a", a), ("b", b), ("all", rows))}
            assert by_aggregate[metric]["all"][r] == pytest.approx(on["all"], abs=1e-9)
            assert by_aggregate[metric]["mean"][r] == pytest.approx((on["a"] + on["b"]) / 2, abs=1e-9)
            assert by_aggregate[metric]["wmean"][r] == pytest.approx((on["a"] + 2 * on["b"]) / 3, abs=1e-9)
            assert by_subset[metric]["b"][r] == pytest.approx(on["b"], abs=1e-9)


def test_ranks_of_a_resample():
    x, counts = np.array([3.0, 1.0, 3.0, 2.0]), np.array([[1, 2, 1, 0]], dtype=np.int32)
    # the sample is 3, 1, 1, 3: ranks 1.5 for the ones, 3.5 for the threes
    assert weighted_ranks(x, counts)[0, [0, 1, 2]].tolist() == [3.5, 1.5, 3.5]


def test_interval_is_the_central_95_percent():
    low, high = percentile_interval(np.arange(1001.0))
    assert (low, high) == pytest.approx((25.0, 975.0))


def test_constant_resamples_are_nan_and_too_many_give_no_interval():
    counts = np.array([[2, 0], [0, 2], [1, 1]], dtype=np.int32)
    replicates = weighted_pearson(np.array([0.0, 1.0]), np.array([0.0, 1.0]), counts)
    assert np.isnan(replicates[:2]).all()
    assert replicates[2] == pytest.approx(100.0)
    assert percentile_interval(replicates) is None
    assert percentile_interval(np.r_[np.arange(100.0), np.nan]) is not None


def test_interval_covers_the_truth_as_often_as_it_says():
    """Spearman of a bivariate normal is 6/pi asin(rho/2); 400 samples of 120 pairs, binomial error 1.1 points."""
    rng, rho = np.random.default_rng(3), 0.8
    truth = 100 * 6 / np.pi * np.arcsin(rho / 2)
    hits = 0
    for trial in range(400):
        x = rng.normal(size=120)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=120)
        by_aggregate, _ = bootstrap(x, y, {"a": 120}, resamples=300, seed=trial)
        low, high = percentile_interval(by_aggregate["spearman"]["all"])
        hits += low <= truth <= high
    assert 0.91 <= hits / 400 <= 0.98


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


def test_the_interval_covers_the_true_difference_as_often_as_it_says(monkeypatch):
    """Systems of known correlation: the true difference comes from a very large sample."""
    monkeypatch.setattr(statistics, "permutation_p", lambda *_, **__: float("nan"))  # the interval does without
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


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 10, 60])
def test_holm_equals_statsmodels(n, ties):
    p = np.random.default_rng(n).random(n) ** 3
    p = np.round(p, 1) if ties else p
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)


# --- scipy's bootstrap as the oracle: another implementation, other resamples


def scipys_interval(statistic, *columns):
    found = stats.bootstrap(columns, statistic, paired=True, vectorized=False, method="percentile", n_resamples=2000,
                            confidence_level=0.95, rng=np.random.default_rng(0))  # fmt: skip
    return found.confidence_interval, found.standard_error


@pytest.mark.parametrize("metric, function", [("spearman", stats.spearmanr), ("pearson", stats.pearsonr)])
def test_the_interval_of_a_score_is_scipys(metric, function):
    rng = np.random.default_rng(11)
    gold = rng.integers(0, 26, 80) / 5
    similarity = gold + 2 * rng.standard_normal(80) ** 3
    wanted, error = scipys_interval(lambda x, y: 100 * function(x, y)[0], similarity, gold)
    by_aggregate, _ = bootstrap(similarity, gold, {"all": 80}, resamples=4000, seed=1)
    # an end is a quantile of 2000 drawn numbers there: it strays by about a twentieth of a standard error
    assert percentile_interval(by_aggregate[metric]["all"]) == pytest.approx(wanted, abs=0.25 * error)
    other = percentile_interval(by_aggregate["pearson" if metric == "spearman" else "spearman"]["all"])
    assert other != pytest.approx(wanted, abs=0.25 * error)  # the tolerance tells the metrics apart


def test_the_interval_of_a_difference_is_scipys():
    a, b, gold = drawn(np.random.default_rng(12), 80, 2.0, 1.2)
    wanted, error = scipys_interval(
        lambda x, y, z: 100 * (stats.spearmanr(y, z)[0] - stats.spearmanr(x, z)[0]), a[0], b[0], gold
    )
    found = difference(a, b, gold, resamples=4000)
    assert found.interval == pytest.approx(wanted, abs=0.25 * error)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert found.detectable == pytest.approx(z * error, rel=0.08)
