"""SentEval's relatedness probe: a softmax over the scores 1 to 5; its expectation is the predicted score of a pair.

Source: SentEval senteval/sick.py (encode_labels) and senteval/tools/relatedness.py (RelatednessPytorch).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_bench.errors import UserError
from simcse_bench.evaluation.classifiers import Probe
from simcse_bench.evaluation.metrics import Floats, correlation
from simcse_bench.evaluation.networks import initial_weights

CLASSES = 5
RELATEDNESS = Probe("relatedness", "adam", folds=1, tenacity=3, epoch_size=50, max_epoch=1000, l2=(0.0,))


def soft_labels(gold: Floats) -> NDArray[np.float32]:
    """(n, 5) from scores (n,): 3.6 is 0.4 of class 3 and 0.6 of class 4. Source: Tai, Socher and Manning 2015.

    A score below 1 (STS-B) has only its share of class 1, as in SentEval: 0 is a row of zeros.
    """
    below = np.floor(gold)[:, None]
    share = gold[:, None] - below
    classes = np.arange(1, CLASSES + 1)
    labels: NDArray[np.float32] = ((classes == below) * (1 - share) + (classes == below + 1) * share).astype(np.float32)
    return labels


def regress(
    x: NDArray[np.float32], gold: Floats, n_train: int, n_dev: int, device: str = "cpu", probe: Probe = RELATEDNESS
) -> tuple[Floats, float]:
    """Predicted scores of the test rows (n_test,), and Pearson's correlation on the dev rows in percent.

    Args:
        x: features (n, d), the training rows first, then dev, then test.
        gold: scores (n,) from 0 to 5.

    Raises:
        UserError: the dev scores are all the same: no correlation tells when to stop.
    """
    features = torch.from_numpy(np.ascontiguousarray(x)).to(device)
    train, dev, test = features[:n_train], features[n_train : n_train + n_dev], features[n_train + n_dev :]
    dev_gold = gold[n_train : n_train + n_dev]
    if len(dev_gold) < 2 or np.all(dev_gold == dev_gold[0]):
        raise UserError(f"{len(dev_gold)} dev pairs without two different gold scores: no correlation exists.")
    targets = torch.from_numpy(soft_labels(gold[:n_train])).to(device)
    (initial,), _ = initial_weights([x.shape[1], CLASSES], probe.seed)
    weights = initial.to(device).requires_grad_()  # (d + 1, 5)
    optimizer = torch.optim.Adam([weights], lr=probe.learning_rate)
    random = np.random.RandomState(probe.seed)
    best, best_weights, misses, epoch = -1.0, weights.detach().clone(), 0, 0
    while epoch <= probe.max_epoch:
        for _ in range(probe.epoch_size):
            order = torch.from_numpy(random.permutation(n_train)).to(device)
            for start in range(0, n_train, probe.batch_size):
                rows = order[start : start + probe.batch_size]
                loss = torch.nn.functional.mse_loss(_probabilities(train[rows], weights), targets[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        epoch += probe.epoch_size
        pearson = _pearson(_predict(dev, weights), dev_gold)
        if pearson > best:
            best, best_weights = pearson, weights.detach().clone()
        elif misses >= probe.tenacity:  # SentEval: never reset, and compared before it is raised
            break
        else:
            misses += 1
    return _predict(test, best_weights), 100 * best


def _probabilities(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.addmm(weights[-1], x, weights[:-1]).softmax(-1)


def _predict(x: torch.Tensor, weights: torch.Tensor) -> Floats:
    """Expected score (n,)."""
    with torch.no_grad():
        probabilities: Floats = _probabilities(x, weights).cpu().double().numpy()
    return probabilities @ np.arange(1.0, CLASSES + 1)


def _pearson(predicted: Floats, gold: Floats) -> float:
    """A share; 0 where all are predicted the same, which may be before anything is learnt."""
    return 0.0 if np.all(predicted == predicted[0]) else correlation("pearson", predicted, gold) / 100
