import math

import numpy as np
import pytest
import torch
from steps import (
    agree,
    batch,
    cosine,
    cross_entropy,
    largest_difference,
    loss_of,
    nearly,
    refused,
    resumed_is_the_same,
    same,
    sentence_model,
    softmax,
    step,
    vectors,
)

from simcse_bench.errors import UserError
from simcse_bench.training.methods.esimcse import repeated
from simcse_bench.training.optimizer import make_optimizer


def esimcse(bert, batch_size=8, cached_gradients=False, dropout=None, **settings):
    rates = {} if dropout is None else {"hidden_dropout": dropout, "attention_dropout": dropout}
    return sentence_model(bert, method="esimcse", batch_size=batch_size, cached_gradients=cached_gradients,
                          method_settings=settings, **rates)  # fmt: skip


def fill(method, queue):
    """Put vectors at the end of the queue."""
    method.queue[len(method.queue) - len(queue) :] = queue
    method.filled.fill_(len(queue))


# --- the loss


def by_formula(queue):
    """ESimCSE's Eq. 6, a logit at a time."""

    def loss(one, two):
        rows = [[cosine(a, other) / 0.5 for part in (two, queue) for other in part] for a in one]
        return sum(cross_entropy(row, i) for i, row in enumerate(rows)) / len(rows)

    return loss


@pytest.mark.parametrize("queued", [0, 3, 20])
def test_loss_and_gradients_equal_the_formula(bert, queued):
    method = sentence_model(bert, method="esimcse", temperature=0.5).method
    queue = vectors(queued, 1, 32, seed=5)[0]
    fill(method, queue)
    agree(lambda *given: loss_of(method, *given), by_formula(queue), vectors(5, 2, 32))


def test_two_pairs_and_a_queued_one_by_hand(bert):
    """Of ten places in the queue one is filled: its vector is at 45 degrees to both anchors."""
    method = sentence_model(bert, method="esimcse", batch_size=4, temperature=1.0).method
    fill(method, torch.eye(32)[:1] + torch.eye(32)[1:2])
    pairs = torch.eye(2, 32)
    found = loss_of(method, pairs, 3 * pairs)
    assert found.item() == nearly(-math.log(softmax(1, 0, math.sqrt(0.5))[0]))


def test_without_repetition_the_first_step_is_simcses(bert):
    rows = batch(8, 1)
    same(step(esimcse(bert, repetition=0.0), rows), step(sentence_model(bert), rows), 1e-6)


def test_repetition_and_queue_matter(bert):
    rows, other = batch(8, 1), batch(8, 1, seed=1)
    model = esimcse(bert, repetition=0.0)
    first, second = step(model, rows), step(model, rows)
    assert second[0] > first[0] + 0.1  # the same sentences are in the queue now
    assert abs(step(esimcse(bert, repetition=0.5), rows)[0] - first[0]) > 1e-3
    emptied = esimcse(bert, repetition=0.0)
    assert largest_difference(step(model, other), step(emptied, other)) > 1e-3


def test_cached_gradients_equal_plain_ones_with_a_queue(bert):
    plain, cached = (esimcse(bert, cached_gradients=c) for c in (False, True))
    for seed in range(3):
        rows = batch(8, 1, seed=seed)
        same(step(cached, rows), step(plain, rows), 1e-5)
    torch.testing.assert_close(cached.method.queue, plain.method.queue)


# --- repetition


def test_repeated_tokens_are_known_for_a_seed():
    ids = [101, *range(1, 11), 102]
    assert repeated(ids, 0.5, np.random.default_rng(6)) == [101, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 9, 10, 102]
    assert repeated(ids, 0.5, np.random.default_rng(1)) == [101, 1, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 102]
    assert repeated(ids, 0.08, np.random.default_rng(1)) == ids
    assert repeated(ids, 0.0, np.random.default_rng(1)) == ids


@pytest.mark.parametrize("length,rate", [(2, 1.0), (3, 1.0), (5, 0.32), (12, 0.5), (40, 0.32), (40, 1.0)])
def test_the_official_counts_are_drawn(length, rate):
    """train.py, 516 to 518: from 0 to below min(10, int(rate n)); never the first token or the last."""
    random, ids = np.random.default_rng(0), list(range(100, 100 + length))
    counts = set()
    for _ in range(400):
        found = repeated(ids, rate, random)
        counts.add(len(found) - length)
        assert sorted(set(found)) == ids == list(dict.fromkeys(found))  # in order, and all of them
        assert max(map(found.count, found)) <= 2
        assert found.count(ids[0]) == found.count(ids[-1]) == 1
    most = min(10, int(rate * length)) - 1
    assert counts == set(range(max(0, min(most, length - 2)) + 1))


def test_only_positives_have_repeated_tokens(bert):
    model, rows = esimcse(bert, repetition=1.0), batch(8, 1)
    (both,) = model.method.passes(rows, np.random.default_rng(0))
    anchors, positives = both.sentences[:8], both.sentences[8:]
    assert anchors == [row[0] for row in rows]
    assert sum(map(len, positives)) > sum(map(len, anchors))
    again = model.method.passes(rows, np.random.default_rng(0))[0].sentences
    assert again == both.sentences != model.method.passes(rows, np.random.default_rng(1))[0].sentences


# --- queue and momentum encoder


def test_the_queue_grows_by_batches_and_is_cut_to_its_size(bert):
    model = esimcse(bert, dropout=0.0)  # 8 rows, so 20 vectors
    method, seen, lengths = model.method, [], []
    with torch.no_grad():
        for p in model.encoders[0].parameters():
            p.mul_(1.1)
    assert method.queue.shape == (20, 32)
    for seed in range(4):
        lengths.append(int(method.filled))
        rows = batch(8, 1, seed=seed)
        step(model, rows)
        seen.append(model.still([row[0] for row in rows], 1))
    assert not torch.allclose(seen[-1], model.still([row[0] for row in rows], 0), atol=1e-2)
    assert lengths == [0, 8, 16, 20]
    assert int(method.filled) == 20
    torch.testing.assert_close(method.queue, torch.cat(seen)[-20:], atol=1e-6, rtol=0)  # the newest last


def test_a_batch_smaller_than_the_others_joins_the_queue(bert):
    model = esimcse(bert)
    for n in (8, 3):
        step(model, batch(n, 1, seed=n))
    assert int(model.method.filled) == 11
    assert model.method.queue[:9].abs().max() == 0
    assert (model.method.queue[9:].norm(dim=1) > 0).all()


def test_a_batchs_own_vectors_are_never_in_its_columns(bert, monkeypatch):
    model, seen = esimcse(bert), []
    similarity = "simcse_bench.training.methods.esimcse.similarity"

    def recorded(one, others, *rest):
        seen.append(others.detach())
        return one @ others.T

    monkeypatch.setattr(similarity, recorded)
    own = []
    for seed in range(4):
        step(model, batch(8, 1, seed=seed))
        own.append(model.method.fresh)
    for number, columns in enumerate(seen):
        queued = columns[8:]
        assert len(queued) == min(20, 8 * number)
        before = torch.cat([queued.new_zeros(0, 32), *own[:number]])[-20:]
        assert torch.equal(queued, before)


def test_queued_vectors_have_no_dropout_and_no_gradient(bert):
    model, rows = esimcse(bert, dropout=0.5), batch(8, 1)
    _, grads = step(model, rows)
    first = model.method.queue.clone()
    assert not first.requires_grad
    assert not [name for name in grads if name.startswith("encoders.1.")]
    again = esimcse(bert, dropout=0.5)
    step(again, rows, seed=8)  # other masks
    torch.testing.assert_close(again.method.queue, first)
    assert model.training
    assert model.encoders[1].training


@pytest.mark.parametrize("momentum", [0.0, 0.995, 1.0])
def test_the_slow_encoder_follows_by_the_formula(bert, momentum):
    model = esimcse(bert, momentum=momentum)
    fast, slow = model.encoders
    with torch.no_grad():
        for number, p in enumerate(fast.parameters()):
            p.add_(0.1 * (number + 1))
    expected = [momentum * m + (1 - momentum) * e for m, e in zip(slow.parameters(), fast.parameters(), strict=True)]
    kept = [p.clone() for p in fast.parameters()]
    model.method.updated(model)
    for found, wanted in zip(slow.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(fast.parameters(), kept, strict=True))


def test_the_slow_encoder_is_not_trained(bert):
    model = esimcse(bert)
    chosen = {id(p) for group in make_optimizer(model, model.config).param_groups for p in group["params"]}
    assert not chosen & {id(p) for p in model.encoders[1].parameters()}
    assert chosen == {id(p) for part in (model.encoders[0], model.mlp) for p in part.parameters()}


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text):
    changed = resumed_is_the_same(tmp_path, bert, text, method="esimcse")
    assert {"method.queue", "method.filled"} <= changed
    assert any(name.startswith("encoders.1.") for name in changed)


def test_only_the_trained_encoder_is_written(train, bert):
    from transformers import AutoModel

    assert train(method="esimcse").code == 0
    trained, start = (AutoModel.from_pretrained(folder).state_dict() for folder in ("runs/x", bert))
    assert trained.keys() == start.keys()


# --- what it cannot work with


def test_a_queue_below_a_batch_is_refused(cli):
    assert "queue 0.5: expected from 1 to 10000." in refused(cli, "method=esimcse", "queue=0.5")


def test_a_rate_or_momentum_above_one_is_refused(cli):
    assert "repetition 1.1: expected from 0 to 1." in refused(cli, "method=esimcse", "repetition=1.1")
    assert "momentum 2.0: expected from 0 to 1." in refused(cli, "method=esimcse", "momentum=2")


def test_sentences_that_repetition_makes_too_long_are_refused(bert):
    with pytest.raises(UserError, match="max_length 40: method esimcse adds up to 9 tokens, and the model takes 48"):
        sentence_model(bert, method="esimcse", max_length=40)
    sentence_model(bert, method="esimcse", max_length=39)
