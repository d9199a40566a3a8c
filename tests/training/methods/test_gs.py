import math

import pytest
import torch
from steps import (
    agree,
    bare,
    batch,
    cosine,
    cross_entropy,
    loss_of,
    nearly,
    plain_loss,
    refused,
    same,
    sentence_model,
    softmax,
    step,
    vectors,
)


def by_formula(times, weight):
    """GS-InfoNCE's Eq. 3: the same noise for all anchors, λ times its exponentials."""

    def loss(one, *others):
        noise = torch.randn(round(times * len(one)), 4, generator=torch.Generator().manual_seed(3)).double()
        total = 0
        for i, anchor in enumerate(one):
            row = [cosine(anchor, other) / 0.5 for part in others for other in part]
            row += [cosine(anchor, vector) / 0.5 + math.log(weight) for vector in noise]
            total = total + cross_entropy(row, i)
        return total / len(one)

    return loss


@pytest.mark.parametrize("times,weight", [(3.0, 1.0), (0.5, 2.5), (1.0, 0.1)])
@pytest.mark.parametrize("parts", [2, 3])
def test_loss_and_gradients_equal_the_formula(times, weight, parts):
    method = bare("gs", noise=times, noise_weight=weight)
    agree(lambda *given: loss_of(method, *given), by_formula(times, weight), vectors(5, parts))


def test_two_orthogonal_pairs_by_hand(monkeypatch):
    """Noise at 45 degrees to both anchors, of whatever length."""
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.full(shape, 7.0))
    found = loss_of(bare("gs", temperature=1.0, noise=0.5, noise_weight=2.0), torch.eye(2), torch.eye(2))
    side = math.sqrt(0.5)
    assert found.item() == nearly(-math.log(softmax(1, 0, side, side)[0]))


@pytest.mark.parametrize("settings", [{"noise": 0.0}, {"noise_weight": 0.0}, {"noise": 0.01}])
def test_no_noise_is_simcse(settings):
    agree(lambda *given: loss_of(bare("gs", **settings), *given), plain_loss, vectors(6, 2))


def test_the_noise_is_drawn_from_the_generator_given():
    method, parts = bare("gs"), vectors(5, 2)
    state = torch.get_rng_state()
    one, again, other = (loss_of(method, *parts, seed=s).item() for s in (1, 1, 2))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_cached_gradients_equal_plain_ones(bert):
    rows = batch(9, 1)
    plain, cached = (sentence_model(bert, method="gs", cached_gradients=c) for c in (False, True))
    same(step(cached, rows), step(plain, rows), 1e-5)


def test_more_noise_is_a_higher_loss(bert):
    rows = batch(6, 1)
    losses = [
        step(sentence_model(bert, method="gs", method_settings={"noise": noise}), rows)[0].item()
        for noise in (0.0, 1.0, 3.0)
    ]
    assert losses[0] == nearly(step(sentence_model(bert), rows)[0].item())
    assert losses[0] + 0.01 < losses[1] < losses[2]


def test_impossible_settings_are_refused(cli):
    assert "noise -1.0: expected from 0 to 1000." in refused(cli, "method=gs", "noise=-1")
    assert "noise_weight -0.5: expected at least 0." in refused(cli, "method=gs", "noise_weight=-0.5")
