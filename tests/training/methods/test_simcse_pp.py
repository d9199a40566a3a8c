import math

import pytest
import torch
from steps import (
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

from simcse_bench.training.methods.simcse_pp import dimension_loss

OFF = {"off_dropout": False, "dcl_weight": 0.0}


def pp(bert, cached_gradients=False, dropout=0.3, **settings):
    return sentence_model(bert, method="simcse++", cached_gradients=cached_gradients, hidden_dropout=dropout,
                          attention_dropout=dropout, method_settings=settings)  # fmt: skip


# --- the loss


def off_dropout(one, two, still, ratio=1.0):
    """The official models_re.py, 223 to 254, a logit at a time."""
    total = 0
    for i in range(len(one)):
        row = [cosine(still[i], still[j]) / 0.5 for j in range(len(one))]
        row[i] = ratio * cosine(one[i], two[i]) / 0.5
        total = total + cross_entropy(row, i)
    return total / len(one)


def dimensions(one, two, temperature):
    """The official models_vicreg.py, 221 to 231: correlations of columns over the batch, a number at a time."""

    def columns(part):
        found = []
        for column in part.T:
            mean = sum(column) / len(column)
            variance = sum((x - mean) ** 2 for x in column) / len(column)
            found.append([(x - mean) / torch.sqrt(variance + 1e-5) for x in column])
        return found

    left, right = columns(one), columns(two)
    rows = [[sum(a * b for a, b in zip(u, v, strict=True)) / len(u) / temperature for v in right] for u in left]
    return sum(cross_entropy(row, c) for c, row in enumerate(rows)) / len(rows)


@pytest.mark.parametrize("ratio,temperature,weight", [(1.0, 5.0, 0.1), (0.9, 10.0, 0.0), (1.0, 0.5, 2.0)])
def test_loss_and_gradients_equal_the_formula(ratio, temperature, weight):
    method = bare("simcse++", positive_ratio=ratio, dcl_temperature=temperature, dcl_weight=weight)
    agree(
        lambda *given: loss_of(method, *given),
        lambda one, two, still: off_dropout(one, two, still, ratio) + weight * dimensions(one, two, temperature),
        vectors(6, 3),
    )


def test_without_the_third_pass_negatives_are_simcses():
    method = bare("simcse++", off_dropout=False, dcl_weight=0.5, dcl_temperature=1.0)
    agree(
        lambda *given: loss_of(method, *given),
        lambda one, two: plain_loss(one, two) + 0.5 * dimensions(one, two, 1.0),
        vectors(6, 2),
    )


def test_without_both_it_is_simcse():
    agree(lambda *given: loss_of(bare("simcse++", **OFF), *given), plain_loss, vectors(6, 2))


def test_negatives_without_dropout_by_hand():
    """Positives at 0.6; the sentences themselves at 0.8 of each other."""
    one = torch.eye(2)
    two = torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    still = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    found = loss_of(bare("simcse++", temperature=1.0, dcl_weight=0.0), one, two, still)
    assert found.item() == nearly(-math.log(softmax(0.6, 0.8)[0]))
    found = loss_of(bare("simcse++", temperature=1.0, dcl_weight=0.0, positive_ratio=0.5), one, two, still)
    assert found.item() == nearly(-math.log(softmax(0.3, 0.8)[0]))


def test_two_dimensions_by_hand():
    """The first rises with itself, the second falls: their correlations are 1 and -1."""
    one = torch.tensor([[10.0, 0.0], [30.0, -80.0], [50.0, -160.0]])
    two = 7 * one + 100
    found = dimension_loss(one, two, 0.5)
    assert found.item() == nearly(-math.log(softmax(2, -2)[0]))


def test_dimensions_are_normalised_as_batchnorm_does():
    one, two = (part.float() for part in vectors(5, 2))
    norm = torch.nn.BatchNorm1d(4, affine=False)
    expected = torch.nn.functional.cross_entropy(norm(one).T @ norm(two) / 5 / 5.0, torch.arange(4))
    torch.testing.assert_close(dimension_loss(one, two, 5.0), expected)
    moved = dimension_loss(3 * one + 1, two, 5.0)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("setting,values", [("positive_ratio", (1.0, 0.9)), ("dcl_temperature", (5.0, 1.0)),
                                            ("dcl_weight", (0.1, 0.5)), ("off_dropout", (True, False))])  # fmt: skip
def test_every_setting_matters(bert, setting, values):
    rows = batch(6, 1)
    one, two = (step(pp(bert, **{setting: value}), rows) for value in values)
    assert abs(one[0] - two[0]) > 1e-4
    assert largest_difference(one, two) > 1e-4


# --- the third pass


def recorded(monkeypatch, model, rows):
    """What the loss is given."""
    seen, loss = [], model.method.loss

    def record(parts, random):
        seen.extend(parts)
        return loss(parts, random)

    monkeypatch.setattr(model.method, "loss", record)
    step(model, rows)
    return seen


def test_its_views_are_simcses_and_a_third_has_no_dropout(bert, monkeypatch):
    rows = batch(6, 1)
    model = pp(bert)
    one, two, still = recorded(monkeypatch, model, rows)
    plain = sentence_model(bert, hidden_dropout=0.3, attention_dropout=0.3)
    first, second = recorded(monkeypatch, plain, rows)
    assert torch.equal(one, first)
    assert torch.equal(two, second)
    torch.testing.assert_close(still, model.still([row[0] for row in rows]))
    assert not torch.allclose(still, one, atol=1e-2)
    assert still.requires_grad
    assert all(module.training for module in model.modules())


def test_a_gradient_flows_through_the_third_pass(bert):
    rows = batch(6, 1)
    model = pp(bert)
    loss = model.method.loss
    whole = step(model, rows)
    model.method.loss = lambda parts, random: loss([*parts[:2], parts[2].detach()], random)
    cut = step(model, rows)
    assert cut[0] == whole[0]
    assert largest_difference(cut, whole) > 1e-3


def test_without_the_third_pass_there_are_two(bert, monkeypatch):
    assert len(recorded(monkeypatch, pp(bert, off_dropout=False), batch(6, 1))) == 2
    rows = batch(6, 1)
    plain = sentence_model(bert, hidden_dropout=0.3, attention_dropout=0.3)
    same(step(pp(bert, **OFF), rows), step(plain, rows), 1e-6)


def test_cached_gradients_equal_plain_ones_with_dropout_on(bert):
    rows = batch(9, 1)
    same(step(pp(bert, cached_gradients=True), rows), step(pp(bert), rows), 1e-5)


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text):
    resumed_is_the_same(tmp_path, bert, text, method="simcse++")


def test_the_loss_of_a_prefix_is_added(bert):
    rows = batch(6, 1)
    whole, half, plain = (
        step(
            sentence_model(
                bert, method="simcse++", method_settings=OFF | {"dcl_weight": w}, matryoshka=m, mlp="always"
            ),
            rows,
        )[0]
        for w, m in ((0.1, ()), (0.1, (16,)), (0.0, (16,)))
    )
    assert half > plain > whole


def test_impossible_settings_are_refused(cli):
    assert "dcl_temperature 0.0: expected at least 1e-06." in refused(cli, "method=simcse++", "dcl_temperature=0")
    assert "dcl_weight -1.0: expected at least 0." in refused(cli, "method=simcse++", "dcl_weight=-1")
    assert "expected true or false" in refused(cli, "method=simcse++", "off_dropout=maybe")
