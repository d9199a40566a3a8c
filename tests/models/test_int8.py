"""8-bit products: what they compute, what they lose, where they are refused."""

import json

import numpy as np
import pytest
import torch

from simcse_bench.errors import UserError
from simcse_bench.models import int8, loading
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.int8 import Int8Linear, smoothing
from simcse_bench.models.loading import load_encoder

pytestmark = pytest.mark.skipif(not int8.multiplies_in_int8(), reason="this processor has no 8-bit products (VNNI)")


def linear(weight, bias):
    made = torch.nn.Linear(len(weight[0]), len(weight))
    made.weight.data, made.bias.data = torch.tensor(weight), torch.tensor(bias)
    return made


@torch.inference_mode()
def test_numbers_that_eight_bits_hold_are_multiplied_exactly():
    layer = Int8Linear(linear([[127.0, -1.0], [0.5, 63.5]], [1.0, 0.0]))  # scales 1 and 0.5
    x = torch.tensor([[0.0, 254.0], [100.0, 3.0]])  # scale 1
    assert layer(x).tolist() == [[-253.0, 254 * 63.5], [12698.0, 50 + 3 * 63.5]]
    assert layer.plus(x, torch.ones(2, 2)).tolist() == [[-252.0, 254 * 63.5 + 1], [12699.0, 51 + 3 * 63.5]]
    assert layer(layer.prepared(x)).tolist() == layer(x).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
def test_a_layer_equals_the_rounded_numbers_multiplied_plainly(gelu):
    torch.manual_seed(0)
    plain, x = torch.nn.Linear(48, 32), torch.randn(3, 7, 48) * 2 - 0.5
    weight, bias = plain.weight.double().numpy(), plain.bias.double().numpy()
    scales = np.abs(weight).max(1, keepdims=True) / 127
    low, high = float(x.min()), float(x.max())
    scale = (high - low) / 254
    zero = round(-low / scale)
    values = np.floor(x.double().numpy() / scale + zero + 0.5)
    expected = (values - zero) * scale @ (np.round(weight / scales) * scales).T + bias
    found = Int8Linear(plain, gelu)(x)
    if gelu:
        expected = torch.nn.functional.gelu(torch.tensor(expected), approximate=gelu).numpy()
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)  # float32 rounds some number to its neighbour
    exact = plain(x) if gelu is None else torch.nn.functional.gelu(plain(x), approximate=gelu)
    assert float((found - exact).norm() / exact.norm()) < 0.03


@torch.inference_mode()
@pytest.mark.parametrize("in_one_pass", [True, False])
def test_every_number_is_rounded_to_the_nearest(in_one_pass, monkeypatch):
    if in_one_pass and not int8._rounds_in_one_pass():
        pytest.skip("this torch has no rounding in one pass")
    monkeypatch.setattr(int8, "_rounds_in_one_pass", lambda: in_one_pass)
    x = torch.randn(3, 5, 700, generator=torch.Generator().manual_seed(0))[:, ::2]  # not contiguous
    values, scale, zero = Int8Linear(linear([[1.0, 1.0]], [0.0])).prepared(x)
    assert (values.dtype, values.shape) == (torch.uint8, x.shape)
    assert scale == pytest.approx(float(x.max() - x.min()) / 254)
    assert float(((values.double() - zero) * scale - x.double()).abs().max()) <= scale * 0.501


@torch.inference_mode()
@pytest.mark.parametrize("x", [0.0, 3.5, -2.0])
def test_constant_inputs(x):
    torch.manual_seed(0)
    plain = torch.nn.Linear(16, 4)
    torch.testing.assert_close(
        Int8Linear(plain)(torch.full((2, 16), x)), plain(torch.full((2, 16), x)), atol=0.05, rtol=0.02
    )


class Attention(torch.nn.Module):
    """Two layers that share an input, one that has its own, one that narrows."""

    def __init__(self):
        super().__init__()
        self.query, self.key = torch.nn.Linear(4, 4), torch.nn.Linear(4, 6)
        self.out, self.narrow = torch.nn.Linear(4, 4), torch.nn.Linear(6, 2)

    def forward(self, x):
        query = self.query(x)
        return self.out(query), self.narrow(self.key(x))


@torch.inference_mode()
def test_the_factors_are_those_of_the_formula_and_shared_by_layers_of_one_input():
    torch.manual_seed(0)
    model = Attention()
    batches = [torch.randn(2, 3, 4) * torch.tensor([1.0, 1.0, 40.0, 1.0]) for _ in range(2)]
    factors = smoothing(model, lambda: [model(x) for x in batches])
    assert set(factors) == {model.query, model.key, model.out}
    for layers, inputs in (
        ((model.query, model.key), batches),
        ((model.out,), [model.query(x) for x in batches]),
    ):
        for channel in range(4):
            largest = max(abs(float(row[channel])) for x in inputs for rows in x for row in rows)
            weight = max(abs(float(row[channel])) for layer in layers for row in layer.weight)
            for layer in layers:
                assert float(factors[layer][channel]) == pytest.approx(largest**0.75 / weight**0.25, rel=1e-5)
    assert not any(m._forward_pre_hooks for m in model.modules())


@torch.inference_mode()
def test_a_large_channel_costs_the_others_less():
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 64)
    x = torch.randn(50, 64)
    x[:, 7] *= 60
    factor = smoothing(plain, lambda: plain(x))[plain]
    exact = plain(x)
    plainly, smoothed = (
        float((layer(x) - exact).norm()) for layer in (Int8Linear(plain), Int8Linear(plain, None, factor))
    )
    assert smoothed < 0.5 * plainly
    assert Int8Linear(plain, None, torch.ones(64))(x).tolist() == Int8Linear(plain)(x).tolist()


def test_a_model_keeps_its_directions(bert):
    texts = ["a man plays .", "the dog runs through the red house .", "two", "three small cats"] * 5
    exact, rounded = (
        load_encoder(resolve(str(bert), pooling="mean", head="none"), d, "cpu") for d in ("float32", "int8")
    )
    assert rounded.fused is not None
    assert (rounded.provenance["dtype"], rounded.provenance["kernels"]) == ("int8", "int8")
    a, b = (torch.tensor(encoder.encode(texts)) for encoder in (exact, rounded))
    cosines = torch.cosine_similarity(a, b)
    assert 0.97 < float(cosines.min()) < 1 - 1e-6
    assert (rounded.encode(texts) == b.numpy()).all()


def test_refused(bert, monkeypatch):
    checkpoint = resolve(str(bert), pooling="cls", head="none")
    monkeypatch.setattr(loading, "_INT8_MOVES", 1e-6)
    with pytest.raises(UserError, match="moves its vectors by"):
        load_encoder(checkpoint, "int8", "cpu")
    monkeypatch.setattr(int8, "multiplies_in_int8", lambda: False)
    with pytest.raises(UserError, match="needs a processor with 8-bit products"):
        load_encoder(checkpoint, "int8", "cpu")


def test_the_loss_stands_in_the_report_and_the_type_on_the_board(cli, tmp_path):
    command = ("eval", "mini", "--task", "mini-sts,mini-minimal-pairs", "--limit", "40", "--device", "cpu")
    alone = cli(*command, "--dtype", "int8")
    assert alone.code == 0, alone.err
    assert "what int8 loses is told where the same evaluation in float32 is there" in alone.err
    assert cli(*command).code == 0
    both = cli(*command, "--dtype", "int8", "--force")
    assert "int8 - float32" in both.out
    exact, rounded = (
        json.loads(next((tmp_path / "results/tasks").glob(pattern)).read_text("utf-8"))
        for pattern in ("*first40.json", "*int8.json")
    )
    for name, task in rounded["tasks"].items():
        assert task["float32"] == exact["tasks"][name]["scores"]
    assert exact["key"] != rounded["key"]
    assert cli("report", "results").code == 0
    assert "int8, first 40" in (tmp_path / "results/tasks/leaderboard.md").read_text("utf-8")
    refused = cli("train", "--recipe", "mini-unsup", "--set", "dtype=int8", "--out", "x")
    assert (refused.code, "unknown dtype 'int8'" in refused.err) == (2, True), refused.err
