"""Many classifiers at once, each trained as SentEval's PyTorchClassifier trains one.

Source: SimCSE's SentEval, senteval/tools/classifier.py. SentEval resets its seed for every classifier, so those whose
training sets have the same length start from the same weights and meet the same mini-batch positions: one gather and
one batched product serve all of them. Equal to its loop but for the order of float32 sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_bench.evaluation.networks import HiddenLayer, Logistic, Network
from simcse_bench.models.cpu_kernels import a_core_each, torch_threads

Ints = NDArray[np.int64]
CACHE = 2 << 20  # bytes of a chunk's mini-batch


class Choice(NamedTuple):
    """What is chosen on dev rows."""

    l2: float
    hidden: int = 0  # units of the hidden layer; 0: logistic regression
    dropout: float = 0.0


@dataclass(frozen=True)
class Probe:
    """Settings of a classifier. Source: SimCSE evaluation.py (params), SentEval classifier.py (defaults)."""

    name: str
    optimizer: str  # adam or rmsprop with torch's defaults; sklearn: LogisticRegression
    folds: int
    batch_size: int = 64
    tenacity: int = 5  # stops at the (tenacity + 1)-th check without improvement, counted over the whole training
    epoch_size: int = 4  # passes between two checks
    max_epoch: int = 200
    seed: int = 1111
    l2: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)  # weight decay, on weights and bias
    hidden: tuple[int, ...] = (0,)  # units of the hidden layer (nhid); 0: logistic regression
    dropout: tuple[float, ...] = (0.0,)  # of what enters the hidden layer's sigmoid

    @property
    def choices(self) -> list[Choice]:
        """All that is tried, the L2 values of one architecture together."""
        return [Choice(l2, hidden, dropout) for hidden, dropout, l2 in product(self.hidden, self.dropout, self.l2)]

    def shown(self) -> dict[str, Any]:
        """For a report; what only an MLP has, only where there is one."""
        return {k: v for k, v in asdict(self).items() if k not in ("hidden", "dropout") or any(self.hidden)}

    @property
    def learning_rate(self) -> float:
        """torch's default of the optimiser."""
        return {"adam": 1e-3, "rmsprop": 1e-2}[self.optimizer]


@dataclass(frozen=True)
class Fit:
    """One classifier to train: rows of X to learn from, rows to stop early on, and its ``Choice``."""

    train: Ints
    dev: Ints
    l2: float
    hidden: int = 0
    dropout: float = 0.0
    drawn: int = 0  # length of a permutation that was already drawn from the seed (by the last 5 % rule)


Weights = list[tuple[torch.Tensor, torch.Tensor]]  # w (in, out) and b (out,) of each layer
Predict = Callable[[int, Ints], Ints]  # classifier, rows -> labels


def train_all(
    x: NDArray[np.float32], y: Ints, fits: Sequence[Fit], probe: Probe, device: str = "cpu"
) -> tuple[NDArray[np.float64], Predict]:
    """Train every classifier; dev accuracy of each (n_fits,) as a share, and a function that predicts.

    Args:
        x: features (n, d), used as they are: SentEval does not scale them.
        y: labels (n,), 0 to K-1.
    """
    if probe.optimizer == "sklearn":
        return _train_sklearn(x, y, fits, probe)
    features, targets = torch.from_numpy(np.ascontiguousarray(x)).to(device), torch.from_numpy(y).to(device)
    accuracy = np.empty(len(fits))
    weights: list[Weights] = [[]] * len(fits)
    classes = int(y.max()) + 1
    jobs = _jobs(fits, features, probe)

    def work(members: list[list[int]]) -> None:
        trained = _Chunk(features, targets, classes, [[fits[i] for i in fold] for fold in members], probe).train()
        for fold, results in zip(members, trained, strict=True):
            for i, result in zip(fold, results, strict=True):
                accuracy[i], weights[i] = result

    if features.device.type == "cpu":
        # a chunk's steps are too small to share: each core works on a chunk of its own
        with a_core_each(torch_threads.usual()) as pool:
            list(pool.map(work, jobs))
    else:
        for job in jobs:
            work(job)

    def predict(c: int, rows: Ints) -> Ints:
        *hidden, (w, b) = weights[c]
        inputs = features[torch.from_numpy(rows).to(device)]
        for first, bias in hidden:
            inputs = (inputs @ first + bias).sigmoid_()
        labels: Ints = (inputs @ w + b).argmax(1).cpu().numpy()
        return labels

    return accuracy, predict


def _train_sklearn(
    x: NDArray[np.float32], y: Ints, fits: Sequence[Fit], probe: Probe
) -> tuple[NDArray[np.float64], Predict]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # SentEval's call, scikit-learn's default of 100 iterations: not all converge, there as here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [LogisticRegression(C=f.l2, random_state=probe.seed).fit(x[f.train], y[f.train]) for f in fits]
    scores = [m.score(x[f.dev], y[f.dev]) if len(f.dev) else np.nan for m, f in zip(models, fits, strict=True)]
    return np.array(scores), lambda c, rows: models[c].predict(x[rows])


def _jobs(fits: Sequence[Fit], x: torch.Tensor, probe: Probe) -> list[list[list[int]]]:
    """Chunks of folds; a fold is the positions in ``fits`` that share their rows and differ in L2 only.

    The folds of a chunk have training sets of one length, and one architecture. On a processor a chunk's mini-batch
    fits into the cache.
    """
    folds: dict[tuple[object, ...], list[int]] = {}
    for i, fit in enumerate(fits):
        folds.setdefault((len(fit.train), fit.drawn, fit.hidden, fit.dropout, id(fit.train)), []).append(i)
    alike: dict[tuple[object, ...], list[list[int]]] = {}
    for (*shape, _), members in folds.items():
        alike.setdefault((*shape, len(members)), []).append(members)
    size = max(1, CACHE // (4 * probe.batch_size * x.shape[1])) if x.device.type == "cpu" else len(fits)
    return [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]


class _Chunk:
    """Folds whose training sets have one length, each with R values of L2, trained in step."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, classes: int, fits: Sequence[Sequence[Fit]], probe: Probe):
        self.x, self.y, self.probe = x, y, probe
        first = [fold[0] for fold in fits]
        self.train_rows = torch.from_numpy(np.stack([f.train for f in first])).to(x.device)  # (folds, n)
        self.dev_rows = [torch.from_numpy(f.dev).to(x.device) for f in first]
        self.random = np.random.RandomState(probe.seed)
        if first[0].drawn:
            self.random.permutation(first[0].drawn)
        self.values = len(fits[0])
        l2 = torch.tensor([[f.l2 for f in fold] for fold in fits], device=x.device)  # (folds, R)
        hidden, dropout = first[0].hidden, first[0].dropout
        self.network: Network
        if hidden:
            self.network = HiddenLayer(x.shape[1], hidden, classes, l2, probe.seed, dropout)
        else:
            self.network = Logistic(x.shape[1], classes, l2, probe.seed)
        self.steps = 0

    @torch.inference_mode()
    def train(self) -> list[list[tuple[float, Weights]]]:
        """By fold and L2 value: dev accuracy and weights of the best check."""
        folds, layers = len(self.dev_rows), self.network.layers
        best = np.full((folds, self.values), -1.0)
        misses, active = np.zeros((folds, self.values), dtype=int), np.ones((folds, self.values), dtype=bool)
        alive = np.arange(folds)  # folds with a classifier that still learns; the layers hold only these
        epoch = 0
        while len(alive) and epoch <= self.probe.max_epoch:
            for _ in range(self.probe.epoch_size):
                self._one_pass()
            epoch += self.probe.epoch_size
            accuracy = self._dev_accuracy(alive)
            improved = active[alive] & (accuracy > best[alive])
            missed = active[alive] & ~improved
            # SentEval: the counter is never reset, and is compared before it is raised
            active[alive] &= ~(missed & (misses[alive] >= self.probe.tenacity))
            misses[alive] += missed
            best[alive] = np.where(improved, accuracy, best[alive])
            for j, r in zip(*np.nonzero(improved), strict=True):
                for layer in layers:
                    layer.keep(j, r, alive[j])
            going = active[alive].any(axis=1)
            if not going.all():
                rows = torch.from_numpy(np.flatnonzero(going)).to(self.x.device)
                self.train_rows = self.train_rows[rows]
                for layer in layers:
                    layer.select(rows)
                alive = alive[going]
        return [
            [(float(best[f, r]), [layer.kept_weights(f, r) for layer in layers]) for r in range(self.values)]
            for f in range(folds)
        ]

    def _one_pass(self) -> None:
        n, size = self.train_rows.shape[1], self.probe.batch_size
        rows = self.train_rows[:, torch.from_numpy(self.random.permutation(n)).to(self.x.device)]  # (folds, n)
        labels = self.y[rows]
        for start in range(0, n, size):
            batch = rows[:, start : start + size]  # (folds, B)
            x = self.x.index_select(0, batch.reshape(-1)).view(*batch.shape, -1)  # (folds, B, d)
            self.network.differentiate(x, labels[:, start : start + size])
            self.steps += 1
            for layer in self.network.layers:
                layer.step(self.steps, self.probe.optimizer, self.probe.learning_rate)

    def _dev_accuracy(self, alive: NDArray[np.intp]) -> NDArray[np.float64]:
        """(folds still alive, R)."""
        shares = []
        for j, f in enumerate(alive):
            rows = self.dev_rows[f]
            logits = self.network.logits(self.x[rows], j)
            shares.append((logits.argmax(-1) == self.y[rows][:, None]).sum(0).cpu().numpy() / len(rows))
        return np.array(shares)
