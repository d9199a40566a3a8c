"""8-bit products: what they compute, what they lose, where they are refused."""

import json

import numpy as np
import pytest
import torch

from simcse_bench.errors import UserError
from simcse_bench.models import cpu_kernels, loading
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.cpu_kernels import Int8Linear
from simcse_bench.models.loading import load_encoder

pytestmark = pytest.mark.skipif(
    not cpu_kernels.multiplies_in_int8(), reason="this processor has no 8-bit products (VNNI)"
)


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
@pytest.mark.parametrize("x", [0.0, 3.5, -2.0])
def test_constant_inputs(x):
    torch.manual_seed(0)
    plain = torch.nn.Linear(16, 4)
    torch.testing.assert_close(
        Int8Linear(plain)(torch.full((2, 16), x)), plain(torch.full((2, 16), x)), atol=0.05, rtol=0.02
    )


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
    monkeypatch.setattr(cpu_kernels, "multiplies_in_int8", lambda: False)
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
