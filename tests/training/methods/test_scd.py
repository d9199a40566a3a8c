import math

import pytest
import torch
from steps import (
    agree,
    bare,
    batch,
    cosine,
    largest_difference,
    loss_of,
    nearly,
    refused,
    resumed_is_the_same,
    same,
    sentence_model,
    step,
    vectors,
)
from torch import nn
from transformers import AutoModel

from simcse_bench.errors import UserError
from simcse_bench.models import cpu_kernels
from simcse_bench.training.gradients import _dropout
from simcse_bench.training.methods.scd import decorrelation
from simcse_bench.training.methods.simcse import Pass

STILL = {"first_dropout": 0.0, "second_dropout": 0.0}


def scd(bert, dtype="float32", chunk_tokens=32, cached_gradients=False, **own):
    own = {"projector_width": 8, "decorrelation_weight": 0.1} | own
    return sentence_model(bert, method="scd", mlp="none", dtype=dtype, chunk_tokens=chunk_tokens,
                          cached_gradients=cached_gradients, method_settings=own)  # fmt: skip


def exact(width=5, **own):
    """The method alone, in float64, with a projector that changes vectors."""
    torch.manual_seed(0)
    method = bare("scd", mlp="none", projector_width=width, **own).double()
    for p in method.parameters():
        nn.init.normal_(p)
    return method


def normal(x):
    """BatchNorm without weights, (n, d)."""
    return (x - x.mean(0)) / (((x - x.mean(0)) ** 2).mean(0) + 1e-5).sqrt()


def projected(x, own):
    """By the projector's parameters."""
    x = (normal(x @ own["0.weight"].T + own["0.bias"]) * own["1.weight"] + own["1.bias"]).clamp_min(0)
    x = (normal(x @ own["3.weight"].T) * own["4.weight"] + own["4.bias"]).clamp_min(0)
    return normal(x @ own["6.weight"].T)


def by_formula(one, two, own, temperature=0.5, alpha=1.0, beta=1.0, lam=1.0):
    """The official scd/models.py, 257 to 274, a feature at a time."""
    n = len(one)
    loss = alpha * sum(cosine(a, b) / temperature for a, b in zip(one, two, strict=True)) / n
    left, right = projected(one, own).T, projected(two, own).T
    for i, u in enumerate(left):
        for j, v in enumerate(right):
            correlation = sum(a * b for a, b in zip(u, v, strict=True)) / n
            loss = loss + beta * ((1 - correlation) ** 2 if i == j else lam * correlation**2)
    return loss


# --- the loss


@pytest.mark.parametrize("alpha,beta,lam", [(1.0, 0.005225, 0.012), (0.0, 1.0, 0.5), (2.0, 0.3, 0.0)])
def test_loss_and_gradients_equal_the_formula(alpha, beta, lam):
    method = exact(contrast_weight=alpha, decorrelation_weight=beta, off_diagonal=lam)
    own = dict(method.projector.named_parameters())
    agree(
        lambda *given: loss_of(method, *given),
        lambda one, two: by_formula(one, two, own, 0.5, alpha, beta, lam),
        vectors(6, 2),
    )


def test_the_projectors_gradients_equal_the_formulas():
    method, (one, two) = exact(), vectors(6, 2)
    own = {name: p.detach().clone().requires_grad_() for name, p in method.projector.named_parameters()}
    loss_of(method, one, two).backward()
    by_formula(one, two, own, 0.5, 1.0, 0.005225, 0.012).backward()
    for name, p in method.projector.named_parameters():
        torch.testing.assert_close(p.grad, own[name].grad, atol=1e-9, rtol=1e-6)
        assert own[name].grad.any() or name in ("0.bias",), name  # BatchNorm takes the mean away


def test_two_sentences_by_hand():
    """The first feature rises from one to the other, the second falls: their correlation is -1; the cosine is 1."""
    method = exact(2, contrast_weight=3.0, decorrelation_weight=0.1, off_diagonal=0.5)
    method.projector = nn.BatchNorm1d(2).double()
    one = torch.tensor([[3000.0, 4000.0], [4000.0, 3000.0]]).double()
    assert loss_of(method, one, 2 * one).item() == nearly(3 / 0.5 + 0.1 * 0.5 * 2)
    # the second view's sentences the other way round: a feature's correlation with itself is -1, with the other 1
    assert loss_of(method, one, one.flip(0)).item() == nearly(3 * 0.96 / 0.5 + 0.1 * (2 * 4 + 0.5 * 2))


def test_three_features_by_hand():
    one = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    assert decorrelation(one, one, 0.7).item() == nearly(0)
    assert decorrelation(one, one[:, [1, 0, 2]], 0.7).item() == nearly(2 + 0.7 * 2)
    assert decorrelation(one, 0.5 * one, 0.7).item() == nearly(3 * 0.25)


def test_views_repel():
    """Without the decorrelation a step down the gradient lowers the two views' cosine."""
    method = exact(decorrelation_weight=0.0)
    one, two = (part.requires_grad_() for part in vectors(3, 2))
    loss_of(method, one, two).backward()
    moved = one - 0.1 * one.grad
    assert (torch.cosine_similarity(moved, two) < torch.cosine_similarity(one, two)).all()


@pytest.mark.parametrize("setting,values", [("first_dropout", (0.05, 0.3)), ("second_dropout", (0.155, 0.3)),
                                            ("contrast_weight", (1.0, 2.0)), ("decorrelation_weight", (0.1, 1.0)),
                                            ("off_diagonal", (0.012, 0.5)), ("projector_width", (8, 9))])  # fmt: skip
def test_every_setting_matters(bert, setting, values):
    rows = batch(6, 1)
    one, two = (step(scd(bert, **{setting: value}), rows) for value in values)
    assert abs(one[0] - two[0]) > 1e-4


# --- the step


def test_loss_and_gradients_equal_the_formula_on_transformers_own_model(bert):
    model, rows = scd(bert, **STILL), batch(6, 1)
    plain = AutoModel.from_pretrained(bert, add_pooling_layer=False, attn_implementation="eager").double().eval()
    own = {n: p.detach().double().requires_grad_() for n, p in model.method.projector.named_parameters()}
    h = torch.stack([plain(input_ids=torch.tensor(row)).last_hidden_state[0, 0] for row in rows])
    loss = by_formula(h, h, own, 0.2, 1.0, 0.1, 0.012)
    loss.backward()
    grads = {f"encoders.0.{k}": p.grad for k, p in plain.named_parameters() if p.grad is not None}
    grads |= {f"method.projector.{k}": p.grad for k, p in own.items()}
    same(step(model, rows), (loss, {k: g.float() for k, g in grads.items()}), 3e-4)  # rounding through three norms


def test_cached_gradients_equal_plain_ones_with_dropout_on(bert):
    rows = batch(9, 1)
    own = {"first_dropout": 0.2, "second_dropout": 0.4}
    same(step(scd(bert, cached_gradients=True, **own), rows), step(scd(bert, **own), rows), 1e-5)


def test_the_chunk_size_changes_nothing(bert):
    rows = batch(8, 1)
    small, large = (scd(bert, chunk_tokens=n, **STILL) for n in (33, 8192))
    same(step(large, rows), step(small, rows), 2e-5)


def rates(monkeypatch):
    """What all dropout is asked for from now on, by one view after the other."""
    seen, drop = [], cpu_kernels.dropout

    def record(x, p):
        seen.append(p)
        return drop(x, p)

    monkeypatch.setattr(cpu_kernels, "dropout", record)
    monkeypatch.setattr(cpu_kernels, "_dropout", record)
    return seen


@pytest.mark.parametrize("cached", [False, True])
def test_each_view_has_its_rate_and_the_models_own_comes_back(bert, monkeypatch, cached):
    model, rows = scd(bert, chunk_tokens=8192, cached_gradients=cached), [[[2, 8, 9, 3]], [[2, 8, 9, 10, 3]]]
    places = model.dropout_places()
    assert len(places) == 1 + 3 * 3
    seen = rates(monkeypatch)
    step(model, rows)
    once = [0.05] * len(places) + [0.155] * len(places)
    assert seen == once * (2 if cached else 1)
    assert [getattr(layer, name) for layer, name in places] == [0.1] * len(places)
    assert all(module.training for module in model.modules())
    seen.clear()
    model.embed([[2, 8, 9, 3]])
    assert seen == [0.1] * len(places)


def test_a_rate_is_the_models_own_when_it_is_the_same(bert):
    sentences = [row[0] for row in batch(6, 1)]
    given = sentence_model(bert, hidden_dropout=0.3, attention_dropout=0.3)
    other = sentence_model(bert, hidden_dropout=0.0, attention_dropout=0.1)
    torch.manual_seed(0)
    expected = given.embed(sentences)
    torch.manual_seed(0)
    with _dropout(other, Pass(sentences, rate=0.3)):
        found = other.embed(sentences)
    assert torch.equal(found, expected)


def test_rates_come_back_after_an_error(bert):
    model = sentence_model(bert, hidden_dropout=0.2, attention_dropout=0.3)
    before = [getattr(layer, name) for layer, name in model.dropout_places()]
    with pytest.raises(RuntimeError, match="within"), _dropout(model, Pass([], rate=0.5)):
        raise RuntimeError("within")
    assert [getattr(layer, name) for layer, name in model.dropout_places()] == before
    assert set(before) == {0.2, 0.3}


def test_attention_that_keeps_its_rate_as_a_number_is_found_and_an_encoder_without_dropout_told(bert):
    model = sentence_model(bert)
    attention, low_rank = nn.Linear(2, 2), nn.ModuleDict({"lora_dropout": nn.Dropout(0.1)})
    attention.attention_dropout = 0.1
    model.encoders[0] = nn.ModuleList([attention, low_rank])
    assert model.dropout_places() == [(attention, "attention_dropout")]
    model.encoders[0] = nn.Linear(2, 2)
    with pytest.raises(UserError, match="Linear: none of its layers drops out, so no rate can be set"):
        model.dropout_places()


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text):
    changed = resumed_is_the_same(
        tmp_path, bert, text, method="scd", mlp="none", method_settings={"projector_width": 8}
    )
    assert {"method.projector.0.weight", "method.projector.6.weight", "method.projector.4.running_mean",
            "method.projector.7.running_var", "method.projector.1.num_batches_tracked"} <= changed  # fmt: skip


def test_the_encoder_alone_is_written(train, bert):
    assert train(method="scd", mlp="none", projector_width=8, max_steps=2).code == 0
    written, start = (AutoModel.from_pretrained(folder, add_pooling_layer=False) for folder in ("runs/x", bert))
    assert written.state_dict().keys() == start.state_dict().keys()


def test_it_trains_in_bfloat16(bert):
    rows = batch(8, 1)
    full, half = (step(scd(bert, dtype, **STILL), rows) for dtype in ("float32", "bfloat16"))
    assert half[0].item() == pytest.approx(full[0].item(), abs=0.1)
    assert all(g.isfinite().all() for g in half[1].values())


def test_dropout_differs_between_the_views(bert):
    rows = batch(6, 1)
    still = step(scd(bert, decorrelation_weight=0.0, **STILL), rows)
    assert still[0].item() == nearly(1 / 0.2)  # equal views
    assert not math.isclose(step(scd(bert, decorrelation_weight=0.0), rows)[0].item(), 1 / 0.2, abs_tol=1e-2)
    assert largest_difference(still, step(scd(bert, **STILL), rows)) > 1e-3


# --- what it cannot work with


def test_what_does_not_go_with_it_is_refused(cli):
    said = refused(cli, "method=scd")
    assert "method scd: its loss is of the vectors that are used at test; set mlp none." in said
    none = ("method=scd", "mlp=none")
    for setting in ("dropout=0.2", "hidden_dropout=0.1", "attention_dropout=0"):
        said = refused(cli, *none, setting)
        assert "method scd: each view has a dropout of its own; set first_dropout and second_dropout" in said
    assert "not with matryoshka" in refused(cli, *none, "matryoshka=64")
    assert "not with gradient_checkpointing" in refused(cli, *none, "gradient_checkpointing=true")
    assert "first_dropout 1.0: expected from 0 to 0.999." in refused(cli, *none, "first_dropout=1")
    assert "projector_width 0: expected from 1 to 65536." in refused(cli, *none, "projector_width=0")
    assert "off_diagonal -1.0: expected at least 0." in refused(cli, *none, "off_diagonal=-1")
