import numpy as np
import pytest
from scipy import stats as scipy_stats

from simcse_bench.evaluation.statistics import (
    bootstrap,
    percentile_interval,
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
        for metric, function in (("spearman", scipy_stats.spearmanr), ("pearson", scipy_stats.pearsonr)):
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
