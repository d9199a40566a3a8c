import pytest
import torch
from torch import nn
from transformers import AutoModel

from simcse_bench.models import cpu_kernels

pytestmark = pytest.mark.skipif(
    not cpu_kernels.supported(torch.float32), reason="this torch has no oneDNN linear layer"
)
HALF = [d for d in (torch.bfloat16, torch.float16) if cpu_kernels.supported(d)]


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


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_causal_models_stay_causal(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 8).to(dtype) for _ in range(3))
    module = nn.Module()
    module.is_causal = True
    with torch.inference_mode():
        found, _ = cpu_kernels.short_attention(module, q, k, v, None)
    torch.testing.assert_close(found[:, 0], v[:, :, 0])  # the first token sees only itself


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
