"""The batched probe against a plain loop: one torch classifier at a time, as SentEval's classifier.py trains it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from torch import nn

from simcse_bench.data.task import PROBE_NAMES
from simcse_bench.errors import UserError
from simcse_bench.evaluation import classifiers
from simcse_bench.evaluation import probe as probes
from simcse_bench.evaluation.classifiers import Choice, Fit, train_all
from simcse_bench.evaluation.probe import EXACT, FAST, SKLEARN

SMALL = dataclasses.replace(EXACT, folds=3, batch_size=16, epoch_size=2, tenacity=2)
SMALL_FAST = dataclasses.replace(FAST, folds=3, batch_size=16)


def problem(n=150, d=12, classes=2, seed=0):
    """Overlapping classes, so that early stopping and L2 matter."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = rng.normal(size=(classes, d))
    return (centres[y] + 2.0 * rng.normal(size=(n, d))).astype(np.float32), y.astype(np.int64)


class OneAtATime:
    """A torch module, its optimiser, SentEval's seeds, permutations and early stopping."""

    def __init__(self, d, classes, l2, probe, hidden=0, dropout=0.0):
        self.random = np.random.RandomState(probe.seed)
        torch.manual_seed(probe.seed)
        self.model, self.probe = nn.Linear(d, classes), probe
        if hidden:
            torch.manual_seed(probe.seed)
            layers = nn.Linear(d, hidden), nn.Dropout(dropout), nn.Sigmoid(), nn.Linear(hidden, classes)
            self.model = nn.Sequential(*layers)
        optimizer = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[probe.optimizer]
        self.optimizer = optimizer(self.model.parameters(), weight_decay=l2)

    def fit(self, x, y, dev=None):
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        if dev is None:
            order = self.random.permutation(len(x))
            held = int(0.05 * len(x))
            dev_x, dev_y, x, y = x[order[:held]], y[order[:held]], x[order[held:]], y[order[held:]]
        else:
            dev_x, dev_y = map(torch.from_numpy, dev)
        best, misses, epoch, stop = -1.0, 0, 0, False
        while not stop and epoch <= self.probe.max_epoch:
            self.model.train()
            for _ in range(self.probe.epoch_size):
                order = torch.from_numpy(self.random.permutation(len(x)))
                for i in range(0, len(x), self.probe.batch_size):
                    rows = order[i : i + self.probe.batch_size]
                    loss = nn.functional.cross_entropy(self.model(x[rows]), y[rows])
                    self.optimizer.zero_grad()
                    loss.backward()
                    self.optimizer.step()
            epoch += self.probe.epoch_size
            accuracy = self.score(dev_x, dev_y)
            if accuracy > best:
                best, kept = accuracy, copy.deepcopy(self.model)
            else:
                stop = misses >= self.probe.tenacity
                misses += 1
        self.model = kept
        return best

    def score(self, x, y):
        self.model.eval()
        with torch.no_grad():
            return float((self.model(torch.as_tensor(x)).argmax(1) == torch.as_tensor(y)).float().mean())


def plain_nested(x, y, probe):
    """InnerKFoldClassifier.run, line by line."""
    folds, classes = StratifiedKFold(probe.folds, shuffle=True, random_state=1111), int(y.max()) + 1
    dev, test, every = [], [], []
    for train, held in folds.split(x, y):
        scores = []
        for l2 in probe.l2:
            inner = []
            for a, b in folds.split(x[train], y[train]):
                classifier = OneAtATime(x.shape[1], classes, l2, probe)
                inner.append(classifier.fit(x[train][a], y[train][a], (x[train][b], y[train][b])))
            every += inner
            scores.append(round(100 * np.mean(inner), 2))
        dev.append(np.max(scores))
        classifier = OneAtATime(x.shape[1], classes, probe.l2[int(np.argmax(scores))], probe)
        classifier.fit(x[train], y[train])
        test.append(round(100 * classifier.score(x[held], y[held]), 2))
    return round(np.mean(dev), 2), test, every


# The batched products sum in another order than the plain loop: after hundreds of Adam steps an example on the
# decision boundary may fall on the other side. So: at most one example per classifier, and hardly any classifier.
def assert_same_accuracies(found, expected, examples):
    difference = np.abs(np.asarray(found) - np.asarray(expected)) * examples
    assert difference.max() <= 1.01
    assert (difference > 0.01).mean() <= 0.05


@pytest.mark.parametrize("settings", [SMALL, SMALL_FAST], ids=["adam", "rmsprop"])
@pytest.mark.parametrize("classes", [2, 4])
def test_nested_kfold_equals_the_plain_loop(settings, classes):
    x, y = problem(classes=classes)
    dev, test, every = plain_nested(x, y, settings)
    fits = [Fit(train[a], train[b], l2) for train, _ in probes.stratified_folds(y, 3, 1111) for l2 in settings.l2
            for a, b in probes.stratified_folds(y[train], 3, 1111)]  # fmt: skip
    accuracy, _ = train_all(x, y, fits, settings)
    assert_same_accuracies(accuracy, every, 100 / 3)
    found = probes.nested_kfold(x, y, settings)
    assert found.dev == pytest.approx(dev, abs=100 / 33)
    assert np.abs(np.array(found.folds) - test).max() <= 2.01  # one example of 50
    assert found.test == pytest.approx(np.mean(test), abs=1.0)
    assert found.correct.mean() * 100 == pytest.approx(found.test, abs=0.1)


def test_kfold_and_split_equal_the_plain_loop():
    x, y = problem(240, classes=3, seed=2)
    best, grid = None, []
    for l2 in SMALL.l2:
        scores = []
        for a, b in StratifiedKFold(3, shuffle=True, random_state=1111).split(x[:180], y[:180]):
            scores.append(OneAtATime(12, 3, l2, SMALL).fit(x[:180][a], y[:180][a], (x[:180][b], y[:180][b])))
        grid.append(round(100 * np.mean(scores), 2))
    best = SMALL.l2[int(np.argmax(grid))]
    classifier = OneAtATime(12, 3, best, SMALL)
    classifier.fit(x[:180], y[:180])
    found = probes.kfold(x, y, 180, SMALL)
    assert found.dev == pytest.approx(max(grid), abs=0.6)
    assert found.l2 == (best,)
    assert found.test == pytest.approx(100 * classifier.score(x[180:], y[180:]), abs=1.7)

    scores = []
    for l2 in SMALL.l2:
        classifier = OneAtATime(12, 3, l2, SMALL)
        classifier.fit(x[:150], y[:150], (x[150:180], y[150:180]))
        scores.append((round(100 * classifier.score(x[150:180], y[150:180]), 2), classifier.score(x[180:], y[180:])))
    dev, test = max(scores, key=lambda s: s[0])
    found = probes.split(x, y, 150, 30, SMALL)
    assert found.dev == pytest.approx(dev, abs=0.01)
    assert found.test == pytest.approx(100 * test, abs=1.7)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("classes", "optimizer"), [(2, "adam"), (5, "adam"), (3, "rmsprop")])
def test_an_mlp_equals_the_plain_loop(dropout, classes, optimizer):
    """Its masks too: those that torch draws after SentEval's seed and the initial weights."""
    x, y = problem(200, classes=classes, seed=7)
    settings = dataclasses.replace(SMALL, optimizer=optimizer, hidden=(8,), dropout=(dropout,), l2=(1e-4, 1e-2, 0.1))
    train, dev = np.arange(120), np.arange(120, 160)
    accuracy, predict = train_all(x, y, [Fit(train, dev, *choice) for choice in settings.choices], settings)
    for c, l2 in enumerate(settings.l2):
        plain = OneAtATime(12, classes, l2, settings, 8, dropout)
        assert accuracy[c] == pytest.approx(plain.fit(x[train], y[train], (x[dev], y[dev])), abs=1.01 / 40)
        rows = np.arange(160, 200)
        with torch.no_grad():
            expected = plain.model(torch.from_numpy(x[rows])).argmax(1).numpy()
        assert (predict(c, rows) != expected).sum() <= 1


def test_an_mlps_size_and_dropout_are_chosen_on_dev_rows():
    x, y = problem(240, classes=3, seed=2)
    settings = dataclasses.replace(SMALL, hidden=(3, 9), dropout=(0.0, 0.2), l2=(1e-4, 1e-2))
    found = probes.split(x, y, 150, 40, settings)
    scores = {}
    for choice in settings.choices:
        plain = OneAtATime(12, 3, choice.l2, settings, choice.hidden, choice.dropout)
        scores[choice] = 100 * plain.fit(x[:150], y[:150], (x[150:190], y[150:190]))
    assert len(scores) == 8
    assert found.dev == pytest.approx(max(scores.values()), abs=2.51)  # one example of 40
    assert scores[found.chosen[0]] >= max(scores.values()) - 2.51
    assert len(probes.kfold(x, y, 180, settings).chosen) == 1
    assert len(probes.nested_kfold(x[:90], y[:90], dataclasses.replace(settings, max_epoch=4)).chosen) == 3


def test_finished_classifiers_keep_their_best_while_others_go_on():
    """A classifier must not depend on which others are trained beside it."""
    x, y = problem(200, seed=3)
    folds = probes.stratified_folds(y, 4, 1111)
    fits = [Fit(a, b, l2) for a, b in folds for l2 in (1e-5, 1e-2, 1.0)]
    together, _ = train_all(x, y, fits, SMALL)
    alone = [train_all(x, y, [f], SMALL)[0][0] for f in fits]
    assert_same_accuracies(together, alone, 50)


def test_the_counter_is_never_reset_and_compared_before_it_is_raised(monkeypatch):
    """Accuracies 5 5 6 6 7 7 ...: tenacity 2 stops at the third check without improvement, the sixth in all."""
    x, y = problem(60)
    checks = iter([0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.9, 0.9])
    monkeypatch.setattr(classifiers._Chunk, "_dev_accuracy", lambda self, alive: np.array([[next(checks)]]))
    accuracy, _ = train_all(x, y, [Fit(np.arange(40), np.arange(40, 60), 0.0)], SMALL)
    assert accuracy[0] == 0.7
    assert next(checks) == 0.9  # the seventh check was not made


def test_the_last_five_percent_rule():
    fit = probes.refit(np.arange(100, 200), Choice(1e-3), SMALL)
    order = np.random.RandomState(1111).permutation(100)
    assert fit.dev.tolist() == (100 + order[:5]).tolist()
    assert fit.train.tolist() == (100 + order[5:]).tolist()
    with pytest.raises(UserError, match="5 % of them, for early stopping, are none"):
        probes.refit(np.arange(19), Choice(1e-3), SMALL)


def test_sklearn_probe_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y = problem(200, seed=5)
    settings = dataclasses.replace(SKLEARN, folds=3)
    found = probes.kfold(x, y, 150, settings)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=1111).split(x[:150], y[:150]))
    means = {c: np.mean([LogisticRegression(C=c, random_state=1111).fit(x[a], y[a]).score(x[b], y[b])
                         for a, b in folds]) for c in probes.SKLEARN_KFOLD_C}  # fmt: skip
    best = max(means, key=means.get)
    assert found.l2 == (best,)
    expected = LogisticRegression(C=best, random_state=1111).fit(x[:150], y[:150]).score(x[150:], y[150:])
    assert found.test == round(100 * expected, 2)


def test_a_class_smaller_than_the_folds():
    x, y = problem(40)
    y[:] = 0
    y[:2] = 1
    with pytest.raises(UserError, match="class 1 has 2 examples, too few for 3 folds"):
        probes.nested_kfold(x, y, SMALL)


def test_the_settings_are_those_of_evaluation_py():
    assert (EXACT.optimizer, EXACT.folds, EXACT.batch_size, EXACT.tenacity, EXACT.epoch_size) == ("adam", 10, 64, 5, 4)
    assert (FAST.optimizer, FAST.folds, FAST.batch_size, FAST.tenacity, FAST.epoch_size) == ("rmsprop", 5, 128, 3, 2)
    assert (probes.MLP.hidden, probes.MLP.dropout, probes.MLP.l2) == ((50,), (0.0,), EXACT.l2)
    assert (probes.MLP_TUNED.hidden, probes.MLP_TUNED.dropout) == ((50, 100, 200), (0.0, 0.1, 0.2))
    assert set(probes.PROBES) == set(PROBE_NAMES)
    assert probes.linear(probes.MLP_TUNED) == dataclasses.replace(EXACT, name="mlp-tuned")
    snli = probes.unregularised(EXACT)
    assert (snli.l2, snli.max_epoch, snli.epoch_size, snli.batch_size) == ((1e-9,), 15, 1, 64)
    assert probes.unregularised(SKLEARN).l2 == (1e9,)
    assert (EXACT.learning_rate, FAST.learning_rate, EXACT.seed) == (1e-3, 1e-2, 1111)
