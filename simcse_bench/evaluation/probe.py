"""SentEval's probes on sentence embeddings: logistic regression or its MLP, with its folds and grid.

The algorithm of SimCSE's SentEval (senteval/tools/validation.py); all classifiers of a task are trained together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse_bench.errors import UserError
from simcse_bench.evaluation.classifiers import Choice, Fit, Ints, Probe, train_all

EXACT = Probe("exact", "adam", folds=10)  # SimCSE evaluation.py, mode test
FAST = Probe("fast", "rmsprop", folds=5, batch_size=128, tenacity=3, epoch_size=2)  # modes dev and fasttest
# SentEval with usepytorch=False, k as in mode test; C grid of its inner k-fold and split classifiers
SKLEARN = Probe("sklearn", "sklearn", folds=10, l2=tuple(2.0**t for t in range(-2, 4)))
# SentEval README: "for probing tasks, we used an MLP with a Sigmoid nonlinearity and tuned the nhid and dropout on the
# dev set"; its examples do not say with which nhid to start: the smallest
MLP = replace(EXACT, name="mlp", hidden=(50,))
MLP_TUNED = replace(EXACT, name="mlp-tuned", hidden=(50, 100, 200), dropout=(0.0, 0.1, 0.2))
PROBES = {p.name: p for p in (EXACT, FAST, SKLEARN, MLP, MLP_TUNED)}
SKLEARN_KFOLD_C = tuple(2.0**t for t in range(-1, 6))  # SentEval KFoldClassifier's own grid
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a probe found, in percent, rounded as SentEval rounds."""

    test: float
    dev: float
    folds: tuple[float, ...]  # test accuracy of each outer fold; one entry for a fixed test set
    chosen: tuple[Choice, ...]  # for each of them
    correct: NDArray[np.bool_]  # (n,) whether each test example was predicted right
    predicted: Ints  # (n,)

    @property
    def l2(self) -> tuple[float, ...]:
        """The value chosen for each of the folds."""
        return tuple(choice.l2 for choice in self.chosen)


def nested_kfold(x: NDArray[np.float32], y: Ints, probe: Probe, device: str = "cpu") -> Outcome:
    """MR, CR, SUBJ, MPQA: outer k-fold for the test score, inner k-fold for L2 (SentEval InnerKFoldClassifier)."""
    outer = stratified_folds(y, probe.folds, 1111)  # SentEval fixes this seed, whatever its own
    fits, bounds = [], [0]
    for train, _ in outer:
        inner = [(train[a], train[b]) for a, b in stratified_folds(y[train], probe.folds, 1111)]
        fits += [Fit(a, b, *choice) for choice in probe.choices for a, b in inner]
        bounds.append(len(fits))
    accuracy, _ = train_all(x, y, fits, probe, device)
    grid = probe.choices
    chosen = [choose(accuracy[a:b].reshape(len(grid), -1), grid) for a, b in itertools.pairwise(bounds)]
    best, dev = zip(*chosen, strict=True)
    refits = [refit(train, choice, probe) for (train, _), choice in zip(outer, best, strict=True)]
    _, predict = train_all(x, y, refits, probe, device)
    predicted = np.empty_like(y)
    for c, (_, test) in enumerate(outer):
        predicted[test] = predict(c, test)
    correct = predicted == y
    folds = tuple(percent(correct[test].mean()) for _, test in outer)
    test_score, dev_score = (round(float(np.mean(scores)), 2) for scores in (folds, dev))
    return Outcome(test_score, dev_score, folds, best, correct, predicted)


def kfold(x: NDArray[np.float32], y: Ints, n_train: int, probe: Probe, device: str = "cpu") -> Outcome:
    """TREC, MRPC: k-fold on the training rows for L2, refit, fixed test rows (SentEval KFoldClassifier)."""
    train, test = np.arange(n_train), np.arange(n_train, len(y))
    grid = [Choice(c) for c in SKLEARN_KFOLD_C] if probe.optimizer == "sklearn" else probe.choices
    folds = stratified_folds(y[train], probe.folds, probe.seed)
    fits = [Fit(a, b, *choice) for choice in grid for a, b in folds]
    accuracy, _ = train_all(x, y, fits, probe, device)
    best, dev = choose(accuracy.reshape(len(grid), -1), grid)
    _, predict = train_all(x, y, [refit(train, best, probe)], probe, device)
    return _fixed_test(y[test], predict(0, test), dev, best)


def split(x: NDArray[np.float32], y: Ints, n_train: int, n_dev: int, probe: Probe, device: str = "cpu") -> Outcome:
    """SST2, SST5, SICK-E, probing: L2 on the official dev rows, which also stop the training early; fixed test rows.

    Source: SentEval SplitClassifier. An MLP's size and dropout are chosen on the dev rows as well.
    """
    train, dev_rows = np.arange(n_train), np.arange(n_train, n_train + n_dev)
    grid = probe.choices
    accuracy, predict = train_all(x, y, [Fit(train, dev_rows, *choice) for choice in grid], probe, device)
    best, dev = choose(accuracy[:, None], grid)
    # SentEval trains the chosen classifier once more from the same seed: it is the same classifier
    test = np.arange(n_train + n_dev, len(y))
    return _fixed_test(y[test], predict(grid.index(best), test), dev, best)


def linear(probe: Probe) -> Probe:
    """WordContent's: logistic regression under any probe (SentEval probing.py: nhid = 0 for this task)."""
    return replace(probe, hidden=(0,), dropout=(0.0,))


def unregularised(probe: Probe) -> Probe:
    """SNLI's: no L2 and at most 16 passes, a check after each (SentEval snli.py: noreg, max_epoch 15, epoch_size 1)."""
    if probe.optimizer == "sklearn":
        return replace(probe, l2=(1e9,))
    return replace(probe, l2=(1e-9,), max_epoch=15, epoch_size=1)


def _fixed_test(gold: Ints, predicted: Ints, dev: float, chosen: Choice) -> Outcome:
    correct = predicted == gold
    score = percent(correct.mean())
    return Outcome(score, dev, (score,), (chosen,), correct, predicted)


def stratified_folds(y: Ints, k: int, seed: int) -> list[tuple[Ints, Ints]]:
    """scikit-learn's StratifiedKFold, shuffled; UserError where a class has fewer members than folds."""
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(y)
    short = [(label, int(n)) for label, n in enumerate(counts) if 0 < n < k]
    if short or len(counts) < 2 or (counts > 0).sum() < 2:
        label, n = short[0] if short else (int(y[0]) if len(y) else 0, len(y))
        raise UserError(
            f"class {label} has {n} examples, too few for {k} folds with every class in each; use more data."
        )
    folds = StratifiedKFold(n_splits=k, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(y)), y))


def refit(train: Ints, choice: Choice, probe: Probe) -> Fit:
    """The last 5 % rule: the first 5 % of a seeded permutation stop early, the rest is learnt from.

    Source: PyTorchClassifier.prepare_split with validation_split=0.05.
    """
    if probe.optimizer == "sklearn":
        return Fit(train, train[:0], *choice)
    order = np.random.RandomState(probe.seed).permutation(len(train))
    held = int(0.05 * len(train))
    if held == 0:
        raise UserError(f"{len(train)} training examples: 5 % of them, for early stopping, are none; use more data.")
    return Fit(train[order[held:]], train[order[:held]], *choice, drawn=len(train))


def choose(accuracy: NDArray[np.float64], grid: Sequence[T]) -> tuple[T, float]:
    """What has the best mean accuracy (first of equals), and that mean in percent; accuracy is (grid, folds)."""
    means = [percent(row.mean()) for row in accuracy]
    best = int(np.argmax(means))
    return grid[best], means[best]


def percent(share: float) -> float:
    """SentEval's rounding: percent with two decimals."""
    return round(100 * float(share), 2)
