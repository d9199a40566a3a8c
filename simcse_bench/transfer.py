"""Score of a transfer task: the probe on its embeddings, with an interval over the test examples."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench import probe as probes
from simcse_bench.labelled import Labelled
from simcse_bench.metrics import Floats
from simcse_bench.stats import percentile_interval
from simcse_bench.task import EvalProtocol, Task


def score_transfer(
    task: Task,
    data: Labelled,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    protocol: EvalProtocol,
    device: str = "cpu",
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """Accuracy of a transfer task under the protocol's probe, and the bootstrap replicates of it.

    Args:
        first: embeddings (n, d) of the sentences; ``second`` (n, d) of the second ones of pairs, else (0, d).
        protocol: its ``split`` says whether the test or the dev accuracy is the score; both are kept.

    The interval is a bootstrap over the test examples, which for single predictions is a binomial draw. The accuracies
    of the folds are kept, but give no interval: there are ten of them, and their training sets overlap.
    The dev accuracy has none: it is the best of the L2 values, on folds that also stopped the training early.
    """
    settings = probes.PROBES[protocol.probe]
    # SentEval mrpc.py: |u - v| and u * v side by side
    features = np.concatenate([np.abs(first - second), first * second], axis=1) if len(second) else first
    sizes = list(data.sizes.values())
    if task.probe == "nested_kfold":
        found = probes.nested_kfold(features, data.labels, settings, device)
    elif task.probe == "kfold":
        found = probes.kfold(features, data.labels, sizes[0], settings, device)
    else:
        found = probes.split(features, data.labels, sizes[0], sizes[1], settings, device)
    n = len(found.correct)
    rng = np.random.default_rng([protocol.bootstrap_seed, zlib.crc32(task.name.encode())])
    replicates = 100.0 * rng.binomial(n, found.correct.mean(), size=protocol.resamples) / n
    # the score is the mean of the folds' rounded accuracies: put the interval around it
    replicates += found.test - 100.0 * found.correct.mean()
    test = {"value": found.test, "interval": _rounded(percentile_interval(replicates))}
    dev: Mapping[str, Any] = {"value": found.dev, "interval": None}
    score, kept = (test, {"all": replicates}) if protocol.split == "test" else (dev, {})
    details = {"test": found.test, "dev": found.dev, "test_examples": n, "folds": found.folds, "l2": found.l2}
    if task.name == "mrpc":
        details["test_f1"] = _f1(data.labels[-n:], found.predicted)
    scored = {"scores": {"accuracy": {"all": score}}, "subsets": {}, "probe": asdict(settings) | details}
    return scored, {"accuracy": kept}


def _f1(gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    return probes.percent(f1_score(gold, predicted))


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(x, 6) for x in interval]
