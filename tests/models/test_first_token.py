import copy

import pytest
import torch
from architectures import build
from tiny import sentences

from simcse_bench.models import loading
from simcse_bench.models.agreement import padded, probe, run_of
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.first_token import first_token_only, prepare_first_token
from simcse_bench.models.loading import load_backbone, load_encoder


def loaded(folder):
    backbone = load_backbone(resolve(str(folder), pooling="cls", head="none"), torch.float32)
    model = backbone.model.eval()
    expected = probe("x", run_of(model), backbone.tokenizer, 32, torch.float32)
    return model, expected


IDS = [[2, 8, 9, 10, 3], [2, 11, 3], [2, 12, 13, 3]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_first_tokens_states_are_those_of_the_whole_layer(bert, attention):
    model, expected = loaded(bert)
    model.set_attn_implementation(attention)
    assert prepare_first_token(model, run_of(model), expected)
    ids, mask = padded(IDS, 0)
    whole = model(input_ids=ids, attention_mask=mask).last_hidden_state
    with first_token_only():
        first = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert first.shape == (3, 1, whole.shape[-1])
    torch.testing.assert_close(first[:, 0], whole[:, 0], atol=2e-6, rtol=0)
    again = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(again, whole)


def test_gradients_are_those_of_the_whole_layer(bert):
    model, expected = loaded(bert)
    assert prepare_first_token(model, run_of(model), expected)
    ids, mask = padded(IDS, 0)
    grads = []
    for only in (False, True):
        model.zero_grad()
        with first_token_only(only):
            model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_copy_of_a_prepared_model_has_its_own_weights(bert):
    model, expected = loaded(bert)
    assert prepare_first_token(model, run_of(model), expected)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.encoder.layer[-1].parameters():
            parameter.mul_(1.5)
    ids, _ = padded(IDS[:1], 0)
    with first_token_only():
        first = other(input_ids=ids).last_hidden_state[:, 0]
    torch.testing.assert_close(first, other(input_ids=ids).last_hidden_state[:, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["roberta", "electra", "distilbert", "deberta-v2", "albert"])
def test_other_architectures_are_computed_alike_or_left_as_they_are(kind, tmp_path, monkeypatch):
    build(kind, tmp_path)
    texts = sentences(12)
    monkeypatch.setattr(loading, "fused_bert", lambda model, expected: None)
    encoder = load_encoder(resolve(str(tmp_path), pooling="cls", head="none"), batch_tokens=64)
    found = encoder.encode(texts)
    assert encoder.first_token == (kind in ("roberta", "electra"))
    encoder.first_token = False
    torch.testing.assert_close(torch.tensor(found), torch.tensor(encoder.encode(texts)), atol=1e-5, rtol=0)
