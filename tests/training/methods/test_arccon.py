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


def by_formula(margin):
    """ArcCSE's Eq. 4 with the arc cosine itself."""

    def loss(one, *others):
        total = 0
        for i, anchor in enumerate(one):
            row = [cosine(anchor, other) / 0.5 for part in others for other in part]
            row[i] = torch.cos(torch.acos(cosine(anchor, others[0][i])) + math.radians(margin)) / 0.5
            total = total + cross_entropy(row, i)
        return total / len(one)

    return loss


@pytest.mark.parametrize("margin", [0.0, 10.0, 45.0])
@pytest.mark.parametrize("parts", [2, 3])
def test_loss_and_gradients_equal_the_formula(margin, parts):
    method = bare("arccon", margin=margin)
    agree(lambda *given: loss_of(method, *given), by_formula(margin), vectors(5, parts))


def test_two_pairs_by_hand():
    """Each positive is 30 degrees from its anchor; a margin of 15 makes it 45."""
    turn = math.radians(30)
    one = torch.eye(2)
    two = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    found = loss_of(bare("arccon", temperature=1.0, margin=15.0), one, two)
    moved = math.cos(math.radians(45))
    first, second = softmax(moved, -math.sin(turn))[0], softmax(math.sin(turn), moved)[1]
    assert found.item() == nearly(-(math.log(first) + math.log(second)) / 2)


def test_no_margin_is_simcse():
    parts = vectors(6, 2)
    agree(lambda *given: loss_of(bare("arccon", margin=0.0), *given), plain_loss, parts)


def test_a_wider_margin_is_a_higher_loss():
    parts = vectors(6, 1)
    near = parts[0] + 0.2 * vectors(6, 1, seed=1)[0]
    losses = [loss_of(bare("arccon", margin=m), parts[0], near).item() for m in (0.0, 5.0, 10.0, 40.0)]
    assert losses == sorted(losses)
    assert losses[2] - losses[0] > 0.01


def test_equal_views_have_a_finite_gradient():
    one = vectors(4, 1)[0].requires_grad_()
    loss_of(bare("arccon"), one, one).backward()
    assert one.grad.isfinite().all()
    assert one.grad.abs().max() > 1e-3


def test_cached_gradients_equal_plain_ones(bert):
    rows = batch(9, 1)
    plain, cached = (sentence_model(bert, method="arccon", cached_gradients=c) for c in (False, True))
    same(step(cached, rows), step(plain, rows), 1e-5)


def test_the_margin_reaches_the_weights(bert):
    rows = batch(6, 1)
    losses = [
        step(sentence_model(bert, method="arccon", method_settings={"margin": m}), rows)[0].item() for m in (0.0, 10.0)
    ]
    plain = step(sentence_model(bert), rows)[0].item()
    assert losses[0] == nearly(plain)
    assert losses[1] > plain + 0.01


def test_an_impossible_margin_is_refused(cli):
    assert "margin 91.0: expected from 0 to 90." in refused(cli, "method=arccon", "margin=91")
