import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModel

from simcse_bench.models import cpu_kernels
from simcse_bench.models.cpu_kernels import FastDropout, TrainedLinear, dropout, training_attention

onednn = pytest.mark.skipif(not cpu_kernels.supported(torch.float32), reason="this torch has no oneDNN linear layer")
HALF = [d for d in (torch.bfloat16, torch.float16) if cpu_kernels.supported(d)]


@pytest.mark.parametrize("given, kept", [({}, "32"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
def test_onednn_keeps_few_programs_unless_the_user_says_how_many(given, kept):
    code = "import os, simcse_bench.models.cpu_kernels; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    rest = {k: v for k, v in os.environ.items() if k != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    done = subprocess.run([sys.executable, "-c", code], env=rest | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kept


@onednn
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_equals_linear(bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(24, 40, bias=bias), torch.randn(5, 7, 24)
    with torch.inference_mode():
        torch.testing.assert_close(cpu_kernels.PackedLinear(linear)(x), linear(x), atol=1e-5, rtol=1e-5)
        fused = cpu_kernels.PackedLinear(linear, gelu="none")(x)
        torch.testing.assert_close(fused, nn.functional.gelu(linear(x)), atol=1e-5, rtol=1e-5)
        fused = cpu_kernels.PackedLinear(linear, gelu="tanh")(x)
        torch.testing.assert_close(fused, nn.functional.gelu(linear(x), approximate="tanh"), atol=1e-5, rtol=1e-5)


@onednn
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("n", [2, 14, 64, 65])
def test_short_attention_equals_torchs_own(dtype, n):
    torch.manual_seed(n)
    module = nn.Module()
    module.is_causal = False
    q, k, v = (torch.randn(3, 4, n, 16).to(dtype) for _ in range(3))
    with torch.inference_mode():
        found, _ = cpu_kernels.short_attention(module, q, k, v, None, scaling=0.2)
    expected = nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=0.2)
    step = torch.finfo(dtype).eps  # the weights and the result are rounded to the type
    torch.testing.assert_close(found.double(), expected.transpose(1, 2), atol=8 * step, rtol=4 * step)


@onednn
@pytest.mark.parametrize("hidden", ["gelu", "gelu_new", "relu"])
def test_a_packed_model_equals_the_plain_one(tmp_path, hidden):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, hidden_act=hidden,
                         intermediate_size=64, initializer_range=0.4)).save_pretrained(tmp_path)  # fmt: skip
    plain = AutoModel.from_pretrained(tmp_path).eval()
    packed = AutoModel.from_pretrained(tmp_path, attn_implementation=cpu_kernels.register_short_attention()).eval()
    cpu_kernels.pack_linears(packed)
    assert not any(isinstance(m, nn.Linear) for m in packed.modules())
    ids = torch.randint(5, 50, (6, 9))
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0
    with torch.inference_mode():
        for m in (None, mask):
            torch.testing.assert_close(packed(ids, m)[0], plain(ids, m)[0], atol=1e-4, rtol=1e-4)


@onednn
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_causal_models_stay_causal(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 8).to(dtype) for _ in range(3))
    module = nn.Module()
    module.is_causal = True
    with torch.inference_mode():
        found, _ = cpu_kernels.short_attention(module, q, k, v, None)
    torch.testing.assert_close(found[:, 0], v[:, :, 0])  # the first token sees only itself


@onednn
@pytest.mark.parametrize("dtype", HALF)
def test_short_attention_has_torchs_own_gradient(dtype):
    torch.manual_seed(0)
    module = nn.Module()
    module.is_causal = False
    sides = [torch.randn(2, 3, 5, 8).to(dtype).requires_grad_() for _ in range(3)]
    found, _ = cpu_kernels.short_attention(module, *sides, None)
    expected = nn.functional.scaled_dot_product_attention(*sides).transpose(1, 2)
    for a, b in zip(torch.autograd.grad(found.sum(), sides), torch.autograd.grad(expected.sum(), sides), strict=True):
        torch.testing.assert_close(a, b)


def twins(width=24, out=40, bias=True):
    """The same layer twice: torch's and ours."""
    torch.manual_seed(0)
    plain = nn.Linear(width, out, bias=bias)
    fast = nn.Linear(width, out, bias=bias)
    fast.load_state_dict(plain.state_dict())
    fast.__class__ = TrainedLinear
    return plain, fast


def result(layer, x, weights):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y.float() * weights).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


@onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (5, 7, 24), (2, 3, 4, 24), (1, 24)])
def test_trained_linear_equals_linear(bias, shape):
    plain, fast = twins(bias=bias)
    x, weights = torch.randn(shape), torch.randn(*shape[:-1], 40)
    found, expected = result(fast, x, weights), result(plain, x, weights)
    assert len(found) == 3 + bias
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@onednn
def test_trained_linear_takes_inputs_and_gradients_that_are_not_contiguous():
    plain, fast = twins()
    x = torch.randn(24, 5, 9).permute(2, 1, 0)[::2]  # (5, 5, 24), no stride of 1 at the end
    results = []
    for layer in (fast, plain):
        leaf = x.clone().requires_grad_()
        view = leaf.transpose(0, 1)
        layer(view).transpose(0, 2)[3:].square().sum().backward()  # the gradient arrives transposed
        results.append([leaf.grad, layer.weight.grad, layer.bias.grad])
        with torch.no_grad():
            results[-1].append(layer(x))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@onednn
def test_trained_linear_takes_the_expanded_gradient_of_a_sum():
    plain, fast = twins()
    x = torch.randn(6, 24)
    for layer in (plain, fast):
        layer(x).sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad)
    torch.testing.assert_close(fast.bias.grad, plain.bias.grad)


@onednn
def test_trained_linear_needs_no_gradient_of_its_input():
    plain, fast = twins()
    x = torch.randn(6, 24)
    for layer in (plain, fast):
        layer(x).square().sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, atol=1e-5, rtol=1e-5)
    assert fast(torch.zeros(0, 24)).shape == (0, 40)


def test_trained_linear_follows_autocast():
    plain, fast = twins()
    x, weights = torch.randn(5, 7, 24), torch.randn(5, 7, 40)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = result(fast, x, weights), result(plain, x, weights)
    assert found[0].dtype is torch.bfloat16
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_dropout_drops_the_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    n = 400_001  # no multiple of 4
    y = dropout(torch.ones(n), p)
    kept = y != 0
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n) + 1e-5
    scale = y[kept].unique()
    assert len(scale) == 1
    assert float(scale) == pytest.approx(1 / (1 - p), rel=1e-3)
    assert float(y.mean()) == pytest.approx(1, abs=5 * math.sqrt(p / (1 - p) / n))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5) != 0).double().view(-1, 4)  # four numbers share one random number
    correlations = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(len(kept))
    again = (dropout(torch.ones(400_000), 0.5) != 0).double().view(-1, 4)
    assert abs(torch.corrcoef(torch.stack([kept.flatten(), again.flatten()]))[0, 1]) < 5 / math.sqrt(400_000)


def test_dropout_repeats_with_the_global_generator():
    x = torch.randn(50, 7)
    torch.manual_seed(3)
    first = dropout(x, 0.5)
    assert not torch.equal(first, dropout(x, 0.5))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5))


def test_dropout_of_zero_is_the_identity():
    x = torch.randn(3, 5)
    assert dropout(x, 0.0) is x


def test_dropout_of_everything_leaves_nothing():
    for p in (1.0, 0.999999):
        x = torch.ones(5, requires_grad=True)
        found = dropout(x, p)
        assert torch.equal(found, torch.zeros(5))
        found.sum().backward()
        assert torch.equal(x.grad, torch.zeros(5))


def test_dropouts_gradient_is_its_own_mask():
    torch.manual_seed(0)
    x = torch.rand(40, 50) + 1
    x.requires_grad_()
    y = dropout(x, 0.3)
    weights = torch.randn(40, 50)
    (y * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights * y.detach() / x.detach())
    assert 0.2 < float((x.grad == 0).float().mean()) < 0.4


def test_fast_dropout_acts_in_training_only():
    layer, x = FastDropout(0.5), torch.ones(1000)
    assert 300 < int((layer(x) == 0).sum()) < 700
    assert layer.eval()(x) is x


def attention_by_formula(q, k, v, mask, scale):
    out = torch.zeros(q.shape[0], q.shape[2], q.shape[1], q.shape[3], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(k.shape[2]) if mask is None or mask[b % len(mask), 0, i, j]]
                weights = [math.exp(scale * float(q[b, h, i] @ k[b, h, j])) for j in seen]
                for j, w in zip(seen, weights, strict=True):
                    out[b, i, h] += w / sum(weights) * v[b, h, j]
    return out


def padding_mask():
    mask = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    mask[1, :, :, 4:] = False
    mask[2, :, :, 1:] = False
    return mask


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_training_attention_equals_the_formula(monkeypatch, p, masked, scaling):
    monkeypatch.setattr(cpu_kernels, "_dropout", lambda x, p: x)  # its weights alone are compared
    torch.manual_seed(1)
    module = nn.Module()
    module.is_causal = False
    q, k, v = (torch.randn(3, 2, 6, 4) for _ in range(3))
    mask = padding_mask() if masked else None
    found, weights = training_attention(module, q, k, v, mask, scaling=scaling, dropout=p)
    assert weights is None
    expected = attention_by_formula(*(x.double() for x in (q, k, v)), mask, 0.5 if scaling is None else scaling)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_training_attention_has_gradients(monkeypatch, p, dtype, masked):
    monkeypatch.setattr(cpu_kernels, "_dropout", lambda x, p: x)
    torch.manual_seed(1)
    module = nn.Module()
    module.is_causal = False
    exact = [torch.randn(3, 2, 6, 4).to(dtype).double().requires_grad_() for _ in range(3)]
    found = [x.detach().to(dtype).requires_grad_() for x in exact]
    mask = padding_mask() if masked else None
    weights = torch.randn(3, 6, 2, 4, dtype=torch.float64)
    (training_attention(module, *found, mask, dropout=p)[0].double() * weights).sum().backward()
    logits = exact[0] @ exact[1].transpose(2, 3) / 2
    logits = logits if mask is None else logits.masked_fill(~mask, -math.inf)
    ((torch.softmax(logits, -1) @ exact[2]).transpose(1, 2) * weights).sum().backward()
    step = torch.finfo(dtype).eps
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=16 * step, rtol=8 * step)


def test_training_attention_drops_attention_weights_with_its_probability(monkeypatch):
    seen = []

    def record(weights, p):
        seen.append((weights, p))
        return torch.zeros_like(weights)

    monkeypatch.setattr(cpu_kernels, "_dropout", record)
    q = torch.randn(3, 2, 6, 4)
    found, _ = training_attention(nn.Module(), q, q, q, padding_mask(), dropout=0.4)
    assert not found.any()
    ((weights, p),) = seen
    assert p == 0.4
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 6))
    assert not weights[1, ..., 4:].any()


def test_replace_layers_keeps_weights_and_names():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.25), nn.ModuleList([nn.Linear(3, 2)]))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cpu_kernels.replace_layers(model)
    assert {k: v.tolist() for k, v in model.state_dict().items()} == {k: v.tolist() for k, v in before.items()}
    assert type(model[1]) is FastDropout
    assert model[1].p == 0.25
    wanted = TrainedLinear if cpu_kernels.supported(torch.float32) else nn.Linear
    assert type(model[0]) is type(model[2][0]) is wanted
