import math

import pytest
import torch

from simcse_bench.errors import UserError
from simcse_bench.training.losses import IGNORED, contrastive_loss, false_negatives, mask_tokens, similarity


def logit(u, v, kind, temperature):
    """One logit of Eq. 1 in plain numbers of torch."""
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    if kind == "dot":
        return dot
    return dot / (sum(a * a for a in u).sqrt() * sum(b * b for b in v).sqrt()) / temperature


def by_formula(anchors, positives, negatives, kind, temperature, alpha, symmetric, threshold=None):
    """Eq. 4, 5 and 8, one exponential after the other."""
    n, losses, back = len(anchors), [], []

    def alike(i, j):
        return threshold is not None and i != j and logit(anchors[i], anchors[j], "cosine", 1.0) > threshold

    for i in range(n):
        bottom = 0.0
        for j in range(n):
            if not alike(i, j):
                bottom = bottom + torch.exp(logit(anchors[i], positives[j], kind, temperature))
            for each in negatives:
                weight = alpha if i == j else 1.0
                bottom = bottom + weight * torch.exp(logit(anchors[i], each[j], kind, temperature))
        losses.append(torch.log(bottom) - logit(anchors[i], positives[i], kind, temperature))
        others = sum(torch.exp(logit(anchors[j], positives[i], kind, temperature)) for j in range(n) if not alike(i, j))
        back.append(torch.log(others) - logit(anchors[i], positives[i], kind, temperature))
    forth = sum(losses) / n
    return (forth + sum(back) / n) / 2 if symmetric else forth


def views(n, columns, seed=0):
    """Leaves with gradients, float64, of unequal norms."""
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(0.5, 1.5, n, dtype=torch.float64)[:, None]
    return [
        (lengths * torch.randn(n, 4, generator=drawn, dtype=torch.float64)).requires_grad_() for _ in range(columns)
    ]


def test_two_orthogonal_pairs_by_hand():
    eye = torch.eye(2)
    # every row: its own at 1 / 0.5 = 2, the other at 0
    expected = math.log(math.exp(2) + 1) - 2
    assert contrastive_loss(eye, eye, temperature=0.5).item() == pytest.approx(expected, abs=1e-6)


def test_hard_negatives_and_their_weight_by_hand():
    a, p = torch.eye(2), torch.eye(2)
    n = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # anchor 0: positives 1, 0; negatives 3 * e^1 (its own), e^1. anchor 1: positives 0, 1; negatives e^0, 3 * e^0
    first = math.log(math.e + 1 + 3 * math.e + math.e) - 1
    second = math.log(1 + math.e + 1 + 3) - 1
    found = contrastive_loss(a, p, n, temperature=1.0, hard_negative_weight=3.0)
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_dot_product_has_no_temperature_and_keeps_the_lengths():
    left, right = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 1.0], [0.0, 5.0]])
    assert similarity(left, right, "dot", 0.05).tolist() == [[6.0, 0.0]]
    cosine = similarity(left, right, "cosine", 0.05)
    torch.testing.assert_close(cosine, torch.tensor([[3 / math.sqrt(10) / 0.05, 0.0]]))
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        similarity(left, right, "cosin")


def test_several_hard_negatives_a_row_by_hand():
    a, p = torch.eye(2), torch.eye(2)
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    # anchor 0: positives 1, 0; negatives 3 * e^1, e^1 and 3 * e^0, e^1. anchor 1: 0, 1; e^0, 3 * e^0 and e^1, 3 * e^0
    one = math.log(math.e + 1 + 3 * math.e + math.e + 3 + math.e) - 1
    two = math.log(1 + math.e + 1 + 3 + math.e + 3) - 1
    found = contrastive_loss(a, p, [first, second], temperature=1.0, hard_negative_weight=3.0)
    assert found.item() == pytest.approx((one + two) / 2, abs=1e-6)
    assert contrastive_loss(a, p, [first]).item() == contrastive_loss(a, p, first).item()
    assert contrastive_loss(a, p, []).item() == contrastive_loss(a, p).item()


def test_false_negatives_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # cosines 0.8 (0, 1), 0.6 (1, 2), 0 (0, 2)
    alike = [[False, True, False], [True, False, False], [False, False, False]]
    assert false_negatives(a, 0.7).tolist() == alike
    assert false_negatives(3 * a, 0.7).tolist() == alike
    # row 0: its own at 1, row 2 at 0; row 1: its own at 1, row 2 at 0.6; row 2: its own, then 0 and 0.6
    rows = math.log(1 + math.exp(-1)), math.log(1 + math.exp(-0.4)), math.log(1 + math.exp(-1) + math.exp(-0.4))
    found = contrastive_loss(a, a, temperature=1.0, false_negative_threshold=0.7)
    assert found.item() == pytest.approx(sum(rows) / 3, abs=1e-6)


def test_false_negatives_are_decided_without_a_gradient_and_a_threshold_of_one_leaves_out_none():
    a, p, n = views(6, 3)
    left_out = false_negatives(a, 0.3)
    assert not left_out.requires_grad
    assert 0 < int(left_out.sum()) < 30
    for more in ((), (n,)):
        plain = contrastive_loss(a, p, *more, symmetric=True)
        assert contrastive_loss(a, p, *more, symmetric=True, false_negative_threshold=1.0).item() == plain.item()
        assert contrastive_loss(a, p, *more, symmetric=True, false_negative_threshold=0.3).item() < plain.item()


def test_where_all_others_are_alike_nothing_is_left_to_learn():
    same = torch.ones(3, 4).requires_grad_()
    loss = contrastive_loss(same, same + torch.eye(3, 4), false_negative_threshold=0.9)
    loss.backward()
    assert loss.item() == 0
    assert not same.grad.any()


@pytest.mark.parametrize("kind", ["cosine", "dot"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("columns,alpha", [(2, 1.0), (3, 1.0), (3, 2.5), (3, 0.1), (4, 1.0), (4, 2.5), (6, 0.3)])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_loss_and_gradients_equal_the_formula(kind, symmetric, columns, alpha, threshold):
    ours, theirs = views(5, columns), views(5, columns)
    assert threshold is None or 0 < int(false_negatives(ours[0], threshold).sum()) < 20
    found = contrastive_loss(
        *ours[:2], ours[2:], kind=kind, temperature=0.2, hard_negative_weight=alpha, symmetric=symmetric,
        false_negative_threshold=threshold,
    )  # fmt: skip
    expected = by_formula(*theirs[:2], theirs[2:], kind, 0.2, alpha, symmetric, threshold)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    for one, other in zip(ours, theirs, strict=True):
        assert other.grad.abs().max() > 1e-3
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


def test_one_row_alone_has_only_its_hard_negative():
    a, p, n = views(1, 3)
    assert contrastive_loss(a, p).item() == pytest.approx(0, abs=1e-6)
    expected = by_formula(a, p, [n], "cosine", 0.5, 2.0, False).item()
    assert contrastive_loss(a, p, n, temperature=0.5, hard_negative_weight=2.0).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_simcses_flag_is_the_logarithm_of_the_weight():
    a, p, n = views(6, 3)
    flag = 1.7  # added to the logits of the own hard negatives (SimCSE models.py)
    logits = torch.cat([similarity(a, p), similarity(a, n) + flag * torch.eye(6)], 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(6))
    torch.testing.assert_close(contrastive_loss(a, p, n, hard_negative_weight=math.exp(flag)), expected)


@pytest.mark.parametrize("kind,columns", [("cosine", 3), ("cosine", 2), ("dot", 2)])
def test_only_the_anchors_are_queries(kind, columns):
    a, p, *rest = views(6, columns, seed=3)
    there = contrastive_loss(a, p, *rest, kind=kind, temperature=0.3)
    back = contrastive_loss(p, a, *rest, kind=kind, temperature=0.3)
    assert abs(there.item() - back.item()) > 0.01
    if columns == 2:  # in both directions nothing tells the two apart
        both = [contrastive_loss(*x, kind=kind, temperature=0.3, symmetric=True).item() for x in ((a, p), (p, a))]
        assert both[0] == pytest.approx(both[1], rel=1e-5)
        assert both[0] == pytest.approx((there.item() + back.item()) / 2, rel=1e-5)


@pytest.fixture(scope="module")
def masked():
    ids = torch.randint(1000, 2000, (2000, 250), generator=torch.Generator().manual_seed(1))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, [0, -1]] = False
    found, labels = mask_tokens(ids, maskable, 0.15, 103, 50_000, torch.Generator().manual_seed(2))
    return ids, maskable, found, labels


def test_tokens_that_may_not_be_masked_never_are(masked):
    ids, maskable, found, labels = masked
    assert (found == ids)[~maskable].all()
    assert (labels[~maskable] == IGNORED).all()


def test_labels_are_the_original_tokens_and_the_others_stay(masked):
    ids, _, found, labels = masked
    chosen = labels != IGNORED
    assert (labels[chosen] == ids[chosen]).all()
    assert (found[~chosen] == ids[~chosen]).all()


def within(share, expected, n):
    """Five standard deviations of a share of n draws."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)


def test_a_share_is_chosen_and_of_it_80_10_10(masked):
    ids, maskable, found, labels = masked
    chosen = labels != IGNORED
    n, m = int(maskable.sum()), int(chosen.sum())
    assert within(m / n, 0.15, n)
    mask = chosen & (found == 103)
    stays = chosen & (found == ids)
    random = chosen & ~mask & ~stays
    assert within(int(mask.sum()) / m, 0.8, m)
    assert within(int(stays.sum()) / m, 0.1, m)
    assert within(int(random.sum()) / m, 0.1, m)
    words = found[random]
    assert 0 <= words.min() < 200  # from the whole vocabulary, evenly
    assert 49_800 < words.max() < 50_000
    assert abs(words.double().mean() - 25_000) < 5 * 50_000 / math.sqrt(12 * len(words))


def test_masking_repeats_with_its_generator():
    ids = torch.arange(200)
    draws = [
        mask_tokens(ids, ids > 0, 0.3, 7, 200, torch.Generator().manual_seed(seed))[0].tolist() for seed in (5, 5, 6)
    ]
    assert draws[0] == draws[1] != draws[2]
    everything = mask_tokens(ids, ids >= 0, 1.0, 7, 200)[1]
    assert (everything == ids).all()
