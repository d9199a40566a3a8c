"""The scores of one task, each with its interval: correlations, a probe's accuracy, precision, ranks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.judged import Paraphrases
from simcse_bench.data.labelled import Labelled
from simcse_bench.data.pairs import Pairs
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.task import AGGREGATES, METRICS, EvalProtocol, Task
from simcse_bench.evaluation.metrics import Floats, aggregate, correlation
from simcse_bench.evaluation.paraphrase import average_precision, best_threshold, paraphrase_replicates, rates
from simcse_bench.evaluation.ranking import mean_replicates, ranking_values
from simcse_bench.evaluation.statistics import bootstrap, percentile_interval


def score_sts(
    similarity: Floats, pairs: Pairs, protocol: EvalProtocol, name: str
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """All scores of one task with their intervals, and the bootstrap replicates by metric and aggregate."""
    seed = _seed(protocol, name)
    subset = np.array(pairs.subset)
    sizes = pairs.sizes()
    boot, boot_subset = bootstrap(similarity, pairs.gold, sizes, protocol.resamples, seed)
    scores: dict[str, dict[str, Any]] = {}
    subsets: dict[str, dict[str, Any]] = {name: {"n": n} for name, n in sizes.items()}
    for metric in METRICS:
        by_subset = {n: correlation(metric, similarity[subset == n], pairs.gold[subset == n]) for n in sizes}
        union = correlation(metric, similarity, pairs.gold)
        scores[metric] = {
            how: score_entry(aggregate(how, union, by_subset, sizes), boot[metric][how]) for how in AGGREGATES
        }
        for name, value in by_subset.items():
            subsets[name][metric] = score_entry(value, boot_subset[metric][name])
    return {"scores": scores, "subsets": subsets}, boot


def score_entry(value: float, replicates: Floats | None) -> dict[str, Any]:
    """A score for a report, with the interval of its replicates."""
    interval = None if replicates is None else percentile_interval(replicates)
    return {"value": round(value, 6), "interval": _rounded(interval)}


def score_transfer(
    task: Task,
    data: Labelled,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    protocol: EvalProtocol,
    device: str = "cpu",
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """The score of a transfer task under the protocol's probe, and the bootstrap replicates of it.

    Args:
        first: embeddings (n, d) of the sentences; ``second`` (n, d) of the second ones of pairs, else (0, d).
        protocol: its ``split`` says whether the test or the dev accuracy is the score; both are kept.

    The interval is a bootstrap over the test examples, which for single predictions is a binomial draw. The accuracies
    of the folds are kept, but give no interval: there are ten of them, and their training sets overlap.
    The dev accuracy has none: it is the best of the L2 values, on folds that also stopped the training early.
    """
    from simcse_bench.evaluation import probe as probes  # it loads torch

    settings = probes.PROBES[protocol.probe]
    sizes = list(data.sizes.values())
    features = _features(task, first, second)
    if task.probe == "relatedness":
        return _score_relatedness(task, data.labels, features, sizes, protocol, device)
    if task.probe == "nested_kfold":
        outcome = probes.nested_kfold(features, data.labels, settings, device)
    elif task.probe == "kfold":
        outcome = probes.kfold(features, data.labels, sizes[0], settings, device)
    else:
        alter = {"linear_split": probes.linear, "snli": probes.unregularised}.get(task.probe)
        settings = alter(settings) if alter else settings
        outcome = probes.split(features, data.labels, sizes[0], sizes[1], settings, device)
    n = len(outcome.correct)
    rng = np.random.default_rng(_seed(protocol, task.name))
    replicates = 100.0 * rng.binomial(n, outcome.correct.mean(), size=protocol.resamples) / n
    # the score is the mean of the folds' rounded accuracies: put the interval around it
    replicates += outcome.test - 100.0 * outcome.correct.mean()
    test = {"value": outcome.test, "interval": _rounded(percentile_interval(replicates))}
    dev: Mapping[str, Any] = {"value": outcome.dev, "interval": None}
    score, kept = (test, {"all": replicates}) if protocol.split == "test" else (dev, {})
    details: dict[str, Any] = {
        "test": outcome.test, "dev": outcome.dev, "test_examples": n, "folds": outcome.folds, "l2": outcome.l2,
    }  # fmt: skip
    if any(settings.hidden):
        details |= {"hidden": [c.hidden for c in outcome.chosen], "dropout": [c.dropout for c in outcome.chosen]}
    if data.seconds and len(task.labels) == 2:  # of pairs, as SentEval mrpc.py
        from sklearn.metrics import f1_score

        details["test_f1"] = round(100 * float(f1_score(data.labels[-n:], outcome.predicted)), 2)
    scored = {"scores": {"accuracy": {"all": score}}, "subsets": {}, "probe": settings.shown() | details}
    return scored, {"accuracy": kept}


def _features(task: Task, first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a probe sees: the embeddings (n, d); of pairs |u - v| and u * v (n, 2d), SNLI (n, 4d)."""
    if not len(second):
        return first
    if task.probe == "snli":  # SentEval snli.py
        return np.concatenate([first, second, first * second, np.abs(first - second)], axis=1)
    return np.concatenate([np.abs(first - second), first * second], axis=1)  # SentEval mrpc.py, sick.py


def _score_relatedness(
    task: Task,
    gold: Floats,
    features: NDArray[np.float32],
    sizes: Sequence[int],
    protocol: EvalProtocol,
    device: str,
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """Pearson's correlation of predicted and gold scores (SentEval sick.py), the same under every probe."""
    from simcse_bench.evaluation.relatedness import RELATEDNESS, regress

    predicted, dev_pearson = regress(features, gold, sizes[0], sizes[1], device)
    gold = gold[-len(predicted) :]
    boot, _ = bootstrap(predicted, gold, {"test": len(gold)}, protocol.resamples, _seed(protocol, task.name))
    replicates = boot["pearson"]["all"]
    test = score_entry(correlation("pearson", predicted, gold), replicates)
    dev: dict[str, Any] = {"value": round(dev_pearson, 6), "interval": None}
    details = {
        "test": test["value"], "dev": dev["value"], "test_examples": len(gold), "folds": [test["value"]], "l2": [0.0],
        "test_spearman": round(correlation("spearman", predicted, gold), 6),
        "test_mse": round(float(np.mean((predicted - gold) ** 2)), 6),
    }  # fmt: skip
    score, kept = (test, {"all": replicates}) if protocol.split == "test" else (dev, {})
    scored = {"scores": {"pearson": {"all": score}}, "subsets": {}, "probe": RELATEDNESS.shown() | details}
    return scored, {"pearson": kept}


def score_paraphrase(
    similarity: Floats, dev: Floats, data: Paraphrases, protocol: EvalProtocol, name: str
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """Average precision, and F1 and accuracy at the thresholds that are best on the dev pairs.

    Args:
        similarity: cosines of the scored pairs (n,); ``dev``: of the dev pairs (m,).

    The best F1 and accuracy that these pairs themselves allow are kept too: mteb's max_f1 and max_accuracy.
    The intervals are of the pairs: the thresholds are not chosen anew in each resample.
    """
    gold = data.pairs.gold
    thresholds = {metric: best_threshold(dev, data.dev.gold, metric) for metric in ("f1", "accuracy")}
    values = {"ap": average_precision(similarity, gold)}
    values |= {metric: rates(similarity, gold, t.value)[metric] for metric, t in thresholds.items()}
    boot = paraphrase_replicates(similarity, gold, thresholds, protocol.resamples, _seed(protocol, name))
    kept = {
        "dev_pairs": len(data.dev),
        "thresholds": {metric: round(t.value, 7) for metric, t in thresholds.items()},
        "dev": {metric: round(t.score, 6) for metric, t in thresholds.items()},
        "best": {metric: round(best_threshold(similarity, gold, metric).score, 6) for metric in thresholds},
    }
    return _single({m: float(v[0]) for m, v in values.items()}, boot) | {"paraphrase": kept}, _by_aggregate(boot)


def score_triplets(
    margins: Floats, protocol: EvalProtocol, name: str
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """Share of the triplets whose anchor is nearer to the positive than to the negative; a tie is none.

    Args:
        margins: cosine with the positive minus cosine with the negative (n,).
    """
    right = np.where(margins > 0, 100.0, 0.0)
    boot = {"accuracy": mean_replicates(right[None], range(len(right)), protocol.resamples, _seed(protocol, name))[0]}
    kept = {"ties": int((margins == 0).sum()), "mean_margin": round(float(margins.mean()), 6)}
    return _single({"accuracy": float(right.mean())}, boot) | {"triplet": kept}, _by_aggregate(boot)


def score_ranking(
    ranks: Floats, data: Ranking, task: Task, protocol: EvalProtocol
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """Mean reciprocal rank and hits of the nearest positive; the interval is a bootstrap over units of queries.

    Args:
        ranks: of every query (n,), see ``ranks_of_positives``.
    """
    values = ranking_values(ranks)
    replicates = mean_replicates(
        np.stack(list(values.values())), data.unit, protocol.resamples, _seed(protocol, task.name)
    )
    boot = dict(zip(values, replicates, strict=True))
    kept = {
        "candidates": len(data.pool) if not data.candidates else None,
        "units": len(set(data.unit)),
        "center": task.center,
        "mean_rank": round(float(ranks.mean()), 6),
        "median_rank": float(np.median(ranks)),
    }
    return _single({m: float(v.mean()) for m, v in values.items()}, boot) | {"ranking": kept}, _by_aggregate(boot)


def _seed(protocol: EvalProtocol, name: str) -> list[int]:
    """A stream of draws per task: tasks are independent of each other, and two models meet the same draws."""
    return [protocol.bootstrap_seed, zlib.crc32(name.encode())]


def _single(values: Mapping[str, float], replicates: Mapping[str, Floats]) -> dict[str, Any]:
    """The scores of a task without subsets."""
    return {"scores": {m: {"all": score_entry(v, replicates[m])} for m, v in values.items()}, "subsets": {}}


def _by_aggregate(replicates: Mapping[str, Floats]) -> dict[str, dict[str, Floats]]:
    return {metric: {"all": values} for metric, values in replicates.items()}


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(x, 6) for x in interval]
