"""AnglE: its three losses, their weights, and what it asks of the scores; test_cosent.py has what both share."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from simcse_bench.errors import UserError
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.methods.angle import AnglE, closeness, in_batch_loss
from simcse_bench.training.recipes import with_settings

SCORES = [5.0, 1.0, 4.0, 0.0, 4.5]


class Wide:
    width = 6


def angle(**settings):
    names = ("temperature", "matryoshka", "mlp")
    config = {n: settings.pop(n) for n in names if n in settings}
    method = AnglE(TrainConfig(method="angle", method_settings=settings, **config), Wide())
    method.scores = torch.tensor(SCORES)
    return method


def vectors(seed=0):
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(0.5, 2, 5, dtype=torch.float64)[:, None]
    return [(lengths * torch.randn(5, 6, generator=drawn, dtype=torch.float64)).requires_grad_() for _ in range(2)]


def quotient(u, v):
    """|the sum of the real and imaginary parts of u / v|, each as long as u over v: halves are the two parts."""
    total = 0
    size = lambda x: sum(t * t for t in x).sqrt()  # noqa: E731
    for k in range(3):
        a, b, c, d = u[k], u[k + 3], v[k], v[k + 3]
        # (a + bi) / (c + di), but over the square of the whole vector's length
        total = total + (a * c + b * d) / size(v) ** 2 + (b * c - a * d) / size(v) ** 2
    return (total / (size(u) / size(v))).abs()


def ordered(values, temperature):
    total = 1.0
    for p in range(5):
        for q in range(5):
            if SCORES[p] < SCORES[q]:
                total = total + torch.exp((values[p] - values[q]) / temperature)
    return torch.log(total)


def cosine(u, v):
    return u @ v / (u @ u).sqrt() / (v @ v).sqrt()


def in_batch(left, right, temperature, positive_score):
    both, total = [*left, *right], 0.0
    for i, vector in enumerate(both):
        if SCORES[i % 5] >= positive_score:
            partner = (i + 5) % 10
            below = sum(torch.exp(cosine(vector, both[j]) / temperature) for j in range(10) if j != i)
            total = total + torch.log(below) - cosine(vector, both[partner]) / temperature
    return total / 10


def test_the_closeness_of_vectors_by_hand():
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    two = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]])
    # 1 / 1 = 1; 1 / i = -i; 1 / -1 = -1; z / z = 1
    assert closeness(one, two).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-6)
    eighth = torch.tensor([[math.cos(math.pi / 4), math.sin(math.pi / 4)]])
    # 1 / e^(iπ/4) = e^(-iπ/4): its parts cancel; the other way round they add up
    assert closeness(one[:1], eighth).item() == pytest.approx(0, abs=1e-6)
    assert closeness(eighth, one[:1]).item() == pytest.approx(math.sqrt(2), abs=1e-6)


def test_the_angle_loss_of_the_official_code():
    """angle_emb/loss.py, 64 to 93, as it stands there."""
    left, right = (x.detach() for x in vectors())
    (a, b), (c, d) = torch.chunk(left, 2, dim=1), torch.chunk(right, 2, dim=1)
    z = torch.sum(c**2 + d**2, dim=1, keepdim=True)
    re, im = (a * c + b * d) / z, (b * c - a * d) / z
    dz = torch.sum(a**2 + b**2, dim=1, keepdim=True) ** 0.5
    dw = torch.sum(c**2 + d**2, dim=1, keepdim=True) ** 0.5
    re /= dz / dw
    im /= dz / dw
    expected = torch.abs(torch.sum(torch.concat((re, im), dim=1), dim=1))
    torch.testing.assert_close(closeness(left, right), expected.float())


def test_in_batch_negatives_of_the_official_code():
    """angle_emb/loss.py, 96 to 144, for labels 1 and 0; there a pair's two vectors stand one after the other."""
    left, right = (x.detach().float() for x in vectors())
    labels = torch.tensor([1, 0, 1, 0, 1])
    y_pred = torch.stack([left, right], 1).reshape(10, 6)
    y_true = labels.repeat_interleave(2)[:, None].int()
    idxs = torch.arange(0, 10).int()
    idxs_1, idxs_2 = idxs[None, :].clone(), (idxs + 1 - idxs % 2 * 2)[:, None].clone()
    idxs_1 = idxs_1 * y_true.T + (y_true.T == 0).int() * -2
    idxs_2 = idxs_2 * y_true + (y_true == 0).int() * -1
    target = (idxs_1 == idxs_2).float()
    y_pred = F.normalize(y_pred, dim=1, p=2)
    similarities = (y_pred @ y_pred.T - torch.eye(10) * 1e12) * 20
    expected = -(F.log_softmax(similarities, dim=1) * target).sum(dim=1).mean()
    assert in_batch_loss(left, right, labels == 1, 0.05).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cosine_weight": 0.0, "in_batch_weight": 2.0, "angle_weight": 0.5},
        {"cosine_weight": 3.0, "in_batch_weight": 0.0, "angle_weight": 0.0},
        {"angle_temperature": 0.05, "positive_score": 4.5, "temperature": 0.2},
    ],
)
def test_loss_and_gradients_equal_the_formula(settings):
    ours, theirs = vectors(), vectors()
    found = angle(**settings).loss(ours, torch.Generator())
    all_of = {"cosine_weight": 1.0, "in_batch_weight": 1.0, "angle_weight": 1.0, "angle_temperature": 1.0,
              "positive_score": 4.0, "temperature": 0.05} | settings  # fmt: skip
    pairs = list(zip(*theirs, strict=True))
    expected = (
        all_of["cosine_weight"] * ordered([cosine(u, v) for u, v in pairs], all_of["temperature"])
        + all_of["in_batch_weight"] * in_batch(*theirs, all_of["temperature"], all_of["positive_score"])
        + all_of["angle_weight"] * ordered([quotient(u, v) for u, v in pairs], all_of["angle_temperature"])
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    expected.backward()
    for one, other in zip(ours, theirs, strict=True):
        assert other.grad.abs().max() > 1e-3
        torch.testing.assert_close(one.grad, other.grad, atol=2e-6, rtol=1e-5)


def test_a_batch_without_a_positive_pair_has_no_in_batch_loss():
    ours = vectors()
    assert in_batch_loss(*ours, torch.zeros(5, dtype=torch.bool), 0.05).item() == 0
    method = angle(positive_score=6.0)
    assert (
        method.loss(ours, torch.Generator()).item() == angle(in_batch_weight=0.0).loss(ours, torch.Generator()).item()
    )


def test_the_threshold_is_met_by_scores_that_equal_it():
    method = angle(positive_score=4.2)
    method.scores = torch.from_numpy(np.array([4.2, 0, 1, 2, 3], dtype=np.float32))
    assert (method.scores >= method.settings.positive_score).tolist() == [True, False, False, False, False]
    assert AnglE.score_problems(method.config, method.scores.numpy()) == []


def test_scores_that_never_reach_the_threshold_are_refused():
    labels = np.array([0, 1, 1, 0], dtype=np.float32)
    config = TrainConfig(method="angle")
    assert AnglE.score_problems(config, labels) == [
        "positive_score 4: no row has such a score (the highest: 1); set it for these scores, or in_batch_weight=0."
    ]
    for setting in ("positive_score=1", "in_batch_weight=0"):
        changed = with_settings(TrainConfig(), ["method=angle", setting])
        assert AnglE.score_problems(changed, labels) == []
        assert "all rows have the score 1" in AnglE.score_problems(changed, labels[1:3])[0]


def test_vectors_need_two_halves():
    with pytest.raises(UserError, match="vectors of 3 values have no two halves"):
        angle(matryoshka=(2, 3), mlp="none")


def test_scores_too_low_are_refused_from_the_command_line(train, tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b,label\n" + "a man runs,a dog runs,1\nthe cat,a ball,0\n" * 8)
    done = train(train=tmp_path / "pairs.csv", method="angle")
    assert done.code == 2
    assert "positive_score 4: no row has such a score (the highest: 1)" in done.err
    assert len(done.err.strip().splitlines()) == 1
    done = train(train=tmp_path / "pairs.csv", method="angle", positive_score=1, max_steps=2)
    assert done.code == 0, done.err
    assert Path("runs/x/model.safetensors").exists()
