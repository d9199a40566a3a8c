"""SentEval's relatedness probe: its labels by hand, its training against a plain loop."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from simcse_bench.errors import UserError
from simcse_bench.evaluation.relatedness import RELATEDNESS, regress, soft_labels


def test_labels_by_hand():
    expected = {
        1.0: [1, 0, 0, 0, 0], 3.6: [0, 0, 0.4, 0.6, 0], 5.0: [0, 0, 0, 0, 1], 4.75: [0, 0, 0, 0.25, 0.75],
        0.0: [0, 0, 0, 0, 0], 0.4: [0.4, 0, 0, 0, 0],
    }  # fmt: skip
    found = soft_labels(np.array(list(expected)))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(list(expected.values())), abs=1e-6)
    assert found[:4] @ np.arange(1, 6) == pytest.approx([1.0, 3.6, 5.0, 4.75])


def problem(n=260, d=10, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    score = x @ rng.normal(size=d) + rng.normal(size=n)
    return x, np.round(np.clip(3 + score, 1, 5), 1)


def plain(x, y, n_train, n_dev, probe):
    """RelatednessPytorch.run, line by line."""
    random, r = np.random.RandomState(probe.seed), np.arange(1, 6)
    torch.manual_seed(probe.seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 5), nn.Softmax(dim=-1))
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.0)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(soft_labels(y))
    best, count, epoch, stop = -1, 0, 0, False
    while not stop and epoch <= probe.max_epoch:
        for _ in range(probe.epoch_size):
            permutation = random.permutation(n_train)
            for i in range(0, n_train, 64):
                rows = permutation[i : i + 64]
                loss = nn.functional.mse_loss(model(inputs[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        epoch += probe.epoch_size
        with torch.no_grad():
            predicted = model(inputs).numpy() @ r
        pearson = pearsonr(predicted[n_train : n_train + n_dev], y[n_train : n_train + n_dev])[0]
        if pearson > best:
            best, kept = pearson, copy.deepcopy(predicted[n_train + n_dev :])
        else:
            stop = count >= 3
            count += 1
    return kept, 100 * best


def test_training_equals_the_plain_loop():
    x, y = problem()
    probe = dataclasses.replace(RELATEDNESS, epoch_size=10, max_epoch=80)
    predicted, dev = regress(x, y, 160, 50, probe=probe)
    expected, best = plain(x, y, 160, 50, probe)
    assert predicted == pytest.approx(expected, abs=1e-4)
    assert dev == pytest.approx(best, abs=1e-3)
    assert pearsonr(predicted, y[210:])[0] > 0.7


def test_the_settings_are_sentevals():
    assert (RELATEDNESS.batch_size, RELATEDNESS.epoch_size, RELATEDNESS.tenacity) == (64, 50, 3)
    assert (RELATEDNESS.max_epoch, RELATEDNESS.seed, RELATEDNESS.learning_rate) == (1000, 1111, 1e-3)


def test_dev_scores_that_are_all_the_same():
    x, y = problem()
    y[160:210] = 2.0
    with pytest.raises(UserError, match="50 dev pairs without two different gold scores"):
        regress(x, y, 160, 50)
