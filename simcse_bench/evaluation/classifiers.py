"""Many logistic regressions at once, each trained as SentEval's PyTorchClassifier trains one.

Source: SimCSE's SentEval, senteval/tools/classifier.py. SentEval resets its seed for every classifier, so those whose
training sets have the same length start from the same weights and meet the same mini-batch positions: one gather and
one batched product serve all of them. Equal to its loop but for the order of float32 sums.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
CACHE = 2 << 20  # bytes of a chunk's mini-batch
_SEED_LOCK = threading.Lock()


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

    @property
    def learning_rate(self) -> float:
        """torch's default of the optimiser."""
        return {"adam": 1e-3, "rmsprop": 1e-2}[self.optimizer]


@dataclass(frozen=True)
class Fit:
    """One classifier to train: rows of X to learn from, rows to stop early on, and its L2 value."""

    train: Ints
    dev: Ints
    l2: float
    drawn: int = 0  # length of a permutation that was already drawn from the seed (by the last 5 % rule)


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
    weights: list[tuple[torch.Tensor, torch.Tensor]] = [(features[:0], features[:0])] * len(fits)
    classes = int(y.max()) + 1
    jobs = _jobs(fits, features, probe)

    def work(members: list[list[int]]) -> None:
        trained = _Chunk(features, targets, classes, [[fits[i] for i in fold] for fold in members], probe).train()
        for fold, results in zip(members, trained, strict=True):
            for i, (share, w, b) in zip(fold, results, strict=True):
                accuracy[i], weights[i] = share, (w, b)

    if features.device.type == "cpu":
        # a chunk's steps are too small to share: each core works on a chunk of its own
        cores = torch.get_num_threads()
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, jobs))
        torch.set_num_threads(cores)
    else:
        for job in jobs:
            work(job)

    def predict(c: int, rows: Ints) -> Ints:
        w, b = weights[c]
        labels: Ints = (features[torch.from_numpy(rows).to(device)] @ w + b).argmax(1).cpu().numpy()
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

    The folds of a chunk have training sets of one length. On a processor a chunk's mini-batch fits into the cache.
    """
    folds: dict[tuple[int, int, int], list[int]] = {}
    for i, fit in enumerate(fits):
        folds.setdefault((len(fit.train), fit.drawn, id(fit.train)), []).append(i)
    alike: dict[tuple[int, int, int], list[list[int]]] = {}
    for (length, drawn, _), members in folds.items():
        alike.setdefault((length, drawn, len(members)), []).append(members)
    size = max(1, CACHE // (4 * probe.batch_size * x.shape[1])) if x.device.type == "cpu" else len(fits)
    return [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]


class _Chunk:
    """Folds whose training sets have one length, each with R values of L2, trained in step.

    A step is one gather and two batched products: the parameters are (folds, d + 1, R * K) for K classes, the last row
    being the bias.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor, classes: int, fits: Sequence[Sequence[Fit]], probe: Probe):
        self.x, self.y, self.probe, self.classes = x, y, probe, classes
        first = [fold[0] for fold in fits]
        self.train_rows = torch.from_numpy(np.stack([f.train for f in first])).to(x.device)  # (folds, n)
        self.dev_rows = [torch.from_numpy(f.dev).to(x.device) for f in first]
        self.random = np.random.RandomState(probe.seed)
        if first[0].drawn:
            self.random.permutation(first[0].drawn)
        self.values = len(fits[0])
        l2 = torch.tensor([[f.l2 for f in fold] for fold in fits], device=x.device)  # (folds, R)
        self.l2 = l2.repeat_interleave(classes, dim=1)[:, None]  # (folds, 1, R * K)
        weight, bias = _initial(x.shape[1], classes, probe.seed)
        start = torch.cat([weight.T, bias[None]]).to(x.device)  # (d + 1, K)
        self.p = start.repeat(len(first), 1, self.values)  # (folds, d + 1, R * K)
        self.m, self.v, self.gradient = (torch.zeros_like(self.p) for _ in range(3))
        self.steps = 0

    @torch.inference_mode()
    def train(self) -> list[list[tuple[float, torch.Tensor, torch.Tensor]]]:
        """By fold and L2 value: (dev accuracy, w (d, K), b (K,)) of the best check."""
        folds, k = len(self.dev_rows), self.classes
        best = np.full((folds, self.values), -1.0)
        misses, active = np.zeros((folds, self.values), dtype=int), np.ones((folds, self.values), dtype=bool)
        kept = self.p.clone()
        alive = np.arange(folds)  # folds with a classifier that still learns; self.p holds only these
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
                part = slice(r * k, (r + 1) * k)
                kept[alive[j], :, part] = self.p[j, :, part]
            going = active[alive].any(axis=1)
            if not going.all():
                rows = torch.from_numpy(np.flatnonzero(going)).to(self.p.device)
                self.train_rows, self.l2 = self.train_rows[rows], self.l2[rows]
                self.p, self.m, self.v, self.gradient = (t[rows] for t in (self.p, self.m, self.v, self.gradient))
                alive = alive[going]
        by_value = kept.view(folds, -1, self.values, k)
        return [
            [(float(best[f, r]), by_value[f, :-1, r].clone(), by_value[f, -1, r].clone()) for r in range(self.values)]
            for f in range(folds)
        ]

    def _one_pass(self) -> None:
        n, size = self.train_rows.shape[1], self.probe.batch_size
        rows = self.train_rows[:, torch.from_numpy(self.random.permutation(n)).to(self.x.device)]  # (folds, n)
        labels = self.y[rows]
        for start in range(0, n, size):
            batch = rows[:, start : start + size]  # (folds, B)
            x = self.x.index_select(0, batch.reshape(-1)).view(*batch.shape, -1)  # (folds, B, d)
            self._gradient(x, labels[:, start : start + size])
            self._step()

    def _gradient(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """Gradient of the mean cross entropy: x^T (softmax - one-hot) / B."""
        w, b = self.p[:, :-1], self.p[:, -1:]
        share = 1.0 / x.shape[1]
        if self.classes == 2:
            # the two classes' gradients are opposite: one product for both
            towards = torch.baddbmm(b[:, :, 1::2] - b[:, :, ::2], x, w[:, :, 1::2] - w[:, :, ::2])  # (folds, B, R)
            error = towards.sigmoid_().sub_(labels[:, :, None]).mul_(share)
            slope = torch.bmm(x.transpose(1, 2), error)  # (folds, d, R)
            self.gradient[:, :-1, 1::2] = slope
            torch.neg(slope, out=slope)
            self.gradient[:, :-1, ::2] = slope
            self.gradient[:, -1, 1::2] = error.sum(1)
            self.gradient[:, -1, ::2] = -self.gradient[:, -1, 1::2]
            return
        logits = torch.baddbmm(b, x, w)  # (folds, B, R * K)
        error = logits.view(*labels.shape, -1, self.classes).softmax(-1)
        error -= torch.nn.functional.one_hot(labels, self.classes)[:, :, None]
        error = error.view_as(logits).mul_(share)
        self.gradient[:, :-1] = torch.bmm(x.transpose(1, 2), error)
        self.gradient[:, -1] = error.sum(1)

    def _step(self) -> None:
        """One step of torch.optim's Adam or RMSprop with its defaults, weight decay added to the gradient."""
        self.steps += 1
        rate, p, g, v = self.probe.learning_rate, self.p, self.gradient, self.v
        g.addcmul_(p, self.l2)
        if self.probe.optimizer == "adam":
            self.m.lerp_(g, 1 - 0.9)
            v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
            scale = v.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
            p.addcdiv_(self.m, scale, value=-rate / (1 - 0.9**self.steps))
        else:
            v.mul_(0.99).addcmul_(g, g, value=1 - 0.99)
            p.addcdiv_(g, v.sqrt().add_(1e-8), value=-rate)

    def _dev_accuracy(self, alive: NDArray[np.intp]) -> NDArray[np.float64]:
        """(folds still alive, R)."""
        shares = []
        for p, f in zip(self.p, alive, strict=True):
            rows = self.dev_rows[f]
            logits = torch.addmm(p[-1:], self.x[rows], p[:-1]).view(len(rows), -1, self.classes)
            shares.append((logits.argmax(-1) == self.y[rows][:, None]).sum(0).cpu().numpy() / len(rows))
        return np.array(shares)


def _initial(dimension: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's initial weights of ``nn.Linear`` right after ``torch.manual_seed(seed)``; no other state is touched."""
    with _SEED_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = torch.nn.Linear(dimension, classes)
    return linear.weight.detach(), linear.bias.detach()
