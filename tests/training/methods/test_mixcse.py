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
    refused,
    same,
    sentence_model,
    softmax,
    step,
    vectors,
)


def by_formula(share):
    """[A | B | C] of official mixcse/models_mix.py, 198 to 275, a logit at a time."""

    def mixed(vectors, i):
        return (share * vectors[i] + (1 - share) * vectors[(i + 1) % len(vectors)]).detach()

    def loss(one, two):
        n, total = len(one), 0
        for i in range(n):
            row = [cosine(one[i], two[j]) / 0.5 for j in range(n)]
            row += [cosine(one[i], mixed(two, j)) / 0.5 for j in range(n) if j != (i - 1) % n]
            row += [cosine(mixed(one, i), two[j]) / 0.5 for j in range(n) if j != (i + 1) % n]
            total = total + cross_entropy(row, i)
        return total / n

    return loss


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_loss_and_gradients_equal_the_formula(share, n):
    method = bare("mixcse", mixture=share)
    agree(lambda *given: loss_of(method, *given), by_formula(share), vectors(n, 2))


def test_two_orthogonal_pairs_by_hand():
    """Row 0: its own at 1, the other at 0; its mixture 0.6 and 0.8 at 0.6, and the anchors' mixture with it at 0.6."""
    found = loss_of(bare("mixcse", temperature=1.0, mixture=3 / 7), torch.eye(2), torch.eye(2))
    assert found.item() == nearly(-math.log(softmax(1, 0, 0.6, 0.6)[0]))


def test_no_gradient_flows_through_the_mixtures():
    two = vectors(4, 1)[0].requires_grad_()
    mixtures = bare("mixcse")._mixed(two)
    assert not mixtures.requires_grad
    assert torch.equal(mixtures[3], 0.2 * two[3] + 0.8 * two[0])


def test_the_mixture_matters():
    parts = vectors(5, 2)
    losses = {loss_of(bare("mixcse", mixture=m), *parts).item() for m in (0.0, 0.2, 0.4)}
    assert max(losses) - min(losses) > 1e-3


def test_cached_gradients_equal_plain_ones(bert):
    rows = batch(9, 1)
    plain, cached = (sentence_model(bert, method="mixcse", cached_gradients=c) for c in (False, True))
    same(step(cached, rows), step(plain, rows), 1e-5)


def test_its_loss_is_simcses_with_more_negatives(bert):
    rows = batch(6, 1)
    plain, mixed = step(sentence_model(bert), rows)[0], step(sentence_model(bert, method="mixcse"), rows)[0]
    assert mixed.item() > plain.item() + 0.1


def test_an_impossible_mixture_is_refused(cli):
    assert "mixture 1.5: expected from 0 to 1." in refused(cli, "method=mixcse", "mixture=1.5")
