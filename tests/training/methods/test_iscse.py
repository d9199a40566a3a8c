import math

import pytest
import torch
from steps import (
    a_run,
    agree,
    bare,
    batch,
    cosine,
    cross_entropy,
    largest_difference,
    loss_of,
    nearly,
    plain_loss,
    refused,
    resumed_is_the_same,
    same,
    sentence_model,
    softmax,
    step,
    vectors,
)

from simcse_bench.training.methods.iscse import pushed, smoothed


def iscse(bert, cached_gradients=False, batch_size=8, **settings):
    given = {"buffer": 16, "neighbours": 3} | settings
    return sentence_model(bert, method="iscse", cached_gradients=cached_gradients, batch_size=batch_size,
                          method_settings=given)  # fmt: skip


def filled(old, **settings):
    """A method whose buffer holds these vectors."""
    method = bare("iscse", width=old.shape[1], batch_size=5, buffer=len(old), **settings)
    method.buffer.copy_(torch.nn.functional.normalize(old))
    method.filled.fill_(len(old))
    return method


# --- the loss


def by_formula(old, neighbours, temperature, weight):
    """The official models.py, 85 to 142 and 252 to 271, a number at a time."""

    def loss(one, two):
        n = len(two)
        units = [vector / vector.norm() for vector in two]
        buffer = [vector / vector.norm() for vector in old[n:]] + [unit.detach() for unit in units]
        means = []
        for i, unit in enumerate(units):
            others = [j for j in range(len(buffer)) if j != len(buffer) - n + i]
            others.sort(key=lambda j: -float(buffer[j] @ unit.detach()))
            group = [unit, *(buffer[j] for j in others[:neighbours])]
            weights = [torch.exp(unit @ each / temperature) for each in group]
            means.append(sum(w * each for w, each in zip(weights, group, strict=True)) / sum(weights))
        second = sum(cross_entropy([cosine(anchor, mean) / 0.5 for mean in means], i) for i, anchor in enumerate(one))
        return plain_loss(one, two) + weight * second / n

    return loss


@pytest.mark.parametrize("neighbours,temperature,weight", [(3, 2.0, 0.1), (1, 0.2, 3.0), (11, 2.0, 1.0)])
def test_loss_and_gradients_equal_the_formula(neighbours, temperature, weight):
    old = vectors(12, 1, seed=9)[0]
    method = filled(old, neighbours=neighbours, attention_temperature=temperature, smoothing_weight=weight)
    agree(lambda *given: loss_of(method, *given), by_formula(old, neighbours, temperature, weight), vectors(5, 2))


def test_two_orthogonal_pairs_by_hand():
    """A buffer of one batch: each positive's neighbour is the other one, whose weight is the softmax of 1 and 0."""
    method = bare("iscse", width=2, batch_size=2, temperature=1.0, buffer=2, neighbours=1, smoothing_weight=0.5,
                  attention_temperature=1.0)  # fmt: skip
    found = loss_of(method, torch.eye(2), 5 * torch.eye(2))
    near, far = softmax(1, 0)
    length = math.hypot(near, far)
    second = -math.log(softmax(near / length, far / length)[0])
    assert found.item() == nearly(-math.log(softmax(1, 0)[0]) + 0.5 * second)


def test_a_weight_of_nothing_is_simcse():
    method = filled(vectors(12, 1, seed=9)[0], neighbours=3, smoothing_weight=0.0)
    agree(lambda *given: loss_of(method, *given), plain_loss, vectors(5, 2))


def test_a_copy_of_the_own_vector_is_a_neighbour_and_the_own_one_is_not():
    new = torch.eye(4)[:3]
    buffer = pushed(torch.stack([torch.eye(4)[0], -torch.eye(4)[1], torch.eye(4)[3], torch.eye(4)[3]]), new)
    assert torch.equal(buffer, torch.cat([torch.eye(4)[3:], new]))
    found = smoothed(new, pushed(torch.cat([torch.eye(4)[:1]] * 6), new), 1, 1.0)
    torch.testing.assert_close(found[0], torch.eye(4)[0])  # an equal vector of an earlier batch
    near, far = softmax(1, 0)
    assert found[1].tolist()[1] == nearly(near)
    assert sum(found[1].tolist()) == nearly(near + far)


@pytest.mark.parametrize("setting,values", [("neighbours", (3, 8)), ("attention_temperature", (2.0, 0.1)),
                                            ("smoothing_weight", (0.1, 1.0)), ("smoothing_start", (1.0, 0.1)),
                                            ("buffer", (16, 24))])  # fmt: skip
def test_every_setting_matters(bert, setting, values):
    found = []
    for value in values:
        model = iscse(bert, **{setting: value})
        for seed in range(2):
            result = step(model, batch(8, 1, seed=seed))
        found.append(result)
    assert largest_difference(*found) > 1e-4


# --- the buffer


def test_the_smoothing_starts_when_the_buffer_is_full(bert):
    """24 vectors are three batches of 8, the third of which counts before its own loss."""
    model, plain = iscse(bert, buffer=24, smoothing_weight=1.0), sentence_model(bert)
    for number in range(4):
        rows = batch(8, 1, seed=number)
        found, expected = step(model, rows), step(plain, rows)
        assert int(model.method.filled) == min(24, 8 * (number + 1))
        if number < 2:
            same(found, expected, 1e-6)
        else:
            assert found[0] > expected[0] + 0.1


def test_the_buffer_holds_the_newest_positives_of_length_one(bert, monkeypatch):
    model, seen = iscse(bert, buffer=20), []
    loss = model.method.loss
    monkeypatch.setattr(
        model.method, "loss", lambda parts, random: (seen.append(parts[1].detach()), loss(parts, random))[1]
    )
    for number in range(4):
        step(model, batch(8, 1, seed=number))
    expected = torch.nn.functional.normalize(torch.cat(seen)[-20:])
    assert torch.equal(model.method.buffer, expected)
    assert not model.method.buffer.requires_grad


def test_cached_gradients_equal_plain_ones_with_a_buffer(bert):
    plain, cached = (iscse(bert, cached_gradients=c) for c in (False, True))
    for seed in range(3):
        rows = batch(8, 1, seed=seed)
        same(step(cached, rows), step(plain, rows), 1e-5)
    torch.testing.assert_close(cached.method.buffer, plain.method.buffer)


def test_a_prefix_has_neighbours_of_its_own(bert):
    """The loss of a prefix is that of a buffer of prefixes."""
    model = sentence_model(bert, method="iscse", batch_size=8, temperature=0.5, matryoshka=(5,), mlp="always",
                           method_settings={"buffer": 16, "neighbours": 3})  # fmt: skip
    step(model, batch(8, 1))
    old = torch.cat([torch.randn(8, 32), model.method.buffer[8:]])
    model.method.buffer.copy_(torch.nn.functional.normalize(old))
    model.method.filled.fill_(16)
    parts = [part[:, :5] for part in vectors(8, 2, width=32)]
    agree(
        lambda *given: loss_of(model.method, *given),
        by_formula(model.method.buffer[:, :5].double(), 3, 2.0, 0.1),
        parts,
    )


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text):
    settings = {"buffer": 16, "neighbours": 3, "smoothing_start": 0.1}
    changed = resumed_is_the_same(tmp_path, bert, text, method="iscse", method_settings=settings)
    assert {"method.buffer", "method.filled"} <= changed


# --- the schedule


@pytest.mark.parametrize("done", [0.0, 0.1, 0.25, 0.4999, 0.5, 0.7, 1.0])
def test_the_weight_rises_as_in_the_official_code(done):
    """models.py, 349 to 355: from 0.005 to 0.05 along a cosine, over the first half of the updates."""
    method = bare("iscse", smoothing_weight=0.05, smoothing_start=0.1)
    method.done = done
    official = min(math.cos(math.pi * done) * (0.005 - 0.05), 0) + 0.05
    assert method.weight() == pytest.approx(official)


def test_the_weight_is_constant_by_default():
    method = bare("iscse")
    for method.done in (0.0, 0.3, 1.0):
        assert method.weight() == 0.1


def test_a_run_tells_how_much_of_it_is_done(tmp_path, bert, text):
    run, seen = a_run(tmp_path / "x", bert, text, method="iscse", method_settings={"buffer": 17}), []
    weight = run.model.method.weight
    run.model.method.weight = lambda: (seen.append(run.model.method.done), weight())[1]
    for _ in range(4):
        run.update()
    assert seen == [0.5, 0.75]


# --- what it cannot work with


def test_a_buffer_below_a_batch_or_its_neighbours_is_refused(cli):
    said = refused(cli, "method=iscse", "buffer=63")
    assert "buffer 63: expected at least 64: a batch, and a positive with its neighbours." in said
    assert "buffer 64: expected at least 65" in refused(cli, "method=iscse", "buffer=64", "neighbours=64")
    assert "neighbours 0: expected at least 1." in refused(cli, "method=iscse", "neighbours=0")
    assert "--set buffer=many: expected a whole number." in refused(cli, "method=iscse", "buffer=many")
