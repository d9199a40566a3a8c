"""CPUs at the speed of the matrix products: oneDNN linear layers, attention for short sentences, cheap dropout.

Measured on 2 cores of an AMD EPYC (Zen 5) with all-MiniLM-L6-v2. Inference: torch's float32 linear layer calls MKL and
reaches 180 GFLOP/s, oneDNN with weights packed once 430; in bfloat16 the fused attention kernel, made for long
sequences, takes a third of the whole time at 14 tokens a sentence (``benchmarks/eval_speed.py``). Training: oneDNN does
390 GFLOP/s forward, 400 and 280 in the two products of the backward pass; torch draws a dropout mask at 3.5 ns a
number, a quarter of a 64-bit random number costs 1 (``benchmarks/train_speed.py``).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from simcse_bench.files import processor
from simcse_bench.threads import ProductThreads

MAX_SHORT = 64  # tokens; above it torch's fused attention is as fast
_GELUS = {"GELUActivation": "none", "GELUTanh": "tanh", "NewGELUActivation": "tanh"}
# oneDNN keeps a program for each of the last 1,024 shapes; batches without padding have ever new ones, and 25,000
# sentences took half a gigabyte. It reads this at its first product; what the user has set stays.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


torch_threads = ProductThreads(torch.get_num_threads, torch.set_num_threads)


@contextlib.contextmanager
def a_core_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, in each of which torch's products take one core."""
    with torch_threads.restored():
        pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:  # after an error or Ctrl-C too, without what has not begun
            pool.shutdown(cancel_futures=True)


def supported(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the oneDNN linear layer for the type."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    if dtype is torch.float32:
        return True
    check = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    return check is not None and bool(getattr(torch.ops.mkldnn, check)())


def multiplies_in_bfloat16(device: str = "auto") -> bool:
    """Whether a ``--device`` has bfloat16 products of its own; auto: the GPU's where there is one."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return processor_multiplies_in_bfloat16()


def processor_multiplies_in_bfloat16() -> bool:
    """Without bfloat16 products torch emulates them: training takes 3 times as long as in float32 (Intel Ice Lake)."""
    if not supported(torch.bfloat16):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True  # on x86 alone oneDNN's own answer counts the emulation
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check)


def _multiply(
    x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None, activation: str = "none", algorithm: str = ""
) -> torch.Tensor:
    """oneDNN's linear layer."""
    return torch.ops.mkldnn._linear_pointwise(x, w, b, activation, [], algorithm)  # type: ignore[no-any-return]


class PackedLinear(nn.Module):
    """``nn.Linear`` for inference with oneDNN-packed weights, optionally with GELU fused in."""

    def __init__(self, linear: nn.Linear, gelu: str | None = None):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation, self.algorithm = ("none", "") if gelu is None else ("gelu", gelu)

    def prepared(self, x: torch.Tensor) -> Any:
        """The input as the product takes it, for layers of one kind that share it."""
        return x

    def forward(self, x: Any) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return _multiply(x, self.weight, self.bias, self.activation, self.algorithm)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The layer's output for x (..., in) added to the residual (..., out), for a layer without activation."""
        add = torch.ops.mkldnn._linear_pointwise.binary
        return add(x, residual, self.weight, self.bias, "add")  # type: ignore[no-any-return]


def pack_linears(model: nn.Module, kind: Callable[[nn.Linear, str | None], PackedLinear] = PackedLinear) -> None:
    """Replace every ``nn.Linear`` below ``model`` by a packed one, with the GELU that follows it fused in.

    For inference only: the packed weights have no gradient and are not saved.
    """
    for module in list(model.modules()):
        gelu = _GELUS.get(type(getattr(module, "intermediate_act_fn", None)).__name__)  # BERT, RoBERTa, ...
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, kind(child, gelu if name == "dense" else None))
                if gelu and name == "dense":
                    module.intermediate_act_fn = nn.Identity()


def _causal(module: nn.Module, options: Mapping[str, Any]) -> bool:
    """Whether a token sees the earlier ones only where there is no mask: transformers' own rule."""
    given = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)


def short_attention(
    module: nn.Module,
    query: torch.Tensor,  # (B, H, n, d)
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention as two batched products with the softmax between them in float32; (B, n, H, d).

    As in transformers' own eager attention, the logits are rounded to the model's type before the softmax.
    Takes the unpadded case in a half-precision type; everything else goes to torch's fused attention.
    """
    n, d = query.shape[2:]
    plain = attention_mask is None and dropout == 0.0 and key.shape == query.shape and not _causal(module, kwargs)
    if not plain or n > MAX_SHORT or query.dtype is torch.float32 or torch.is_grad_enabled():  # it works in place
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    return plain_attention(query, key, value, d**-0.5 if scaling is None else scaling), None


def plain_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Every query (B, H, m, d) over all keys and values (B, H, n, d), without gradient; (B, m, H, d).

    Half-precision types and short sentences by two batched products, else torch's fused attention.
    """
    batch, heads, n, d = key.shape
    if query.dtype is torch.float32 or n > MAX_SHORT:
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return mixed.transpose(1, 2).contiguous()
    q, k, v = (x.reshape(batch * heads, -1, d) for x in (query, key, value))
    logits = torch.bmm(q, k.transpose(1, 2)).float()  # (BH, m, n)
    logits -= logits.amax(-1, keepdim=True)
    weights = logits.mul_(scaling).exp_()
    # normalised after the second product: m x d divisions instead of m x n
    mixed = torch.bmm(weights.to(v.dtype), v).div_(weights.sum(-1, keepdim=True))
    return mixed.view(batch, heads, -1, d).transpose(1, 2).contiguous()


class _LinearFunction(torch.autograd.Function):
    """``x @ w.T + b`` and its gradients by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        ctx.has_bias = b is not None
        return _multiply(x, w, b)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, w = ctx.saved_tensors
        flat, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])  # (n, out), (n, in)
        return (
            _multiply(grad, w.t()) if ctx.needs_input_grad[0] else None,
            _multiply(flat.t(), inputs.t()) if ctx.needs_input_grad[1] else None,
            flat.sum(0) if ctx.has_bias else None,
        )


@functools.cache
def torch_trains_faster() -> bool:
    """Whether torch's own float32 products, MKL's, beat oneDNN's in training: on Intel's processors.

    Ice Lake, 2 cores, 2,500 tokens x 384 x 768: forward 213 to 206 GFLOP/s, backward 217 to 196 and 208 to 127.
    """
    return torch.backends.mkl.is_available() and "Intel" in processor()  # type: ignore[no-untyped-call]


class TrainedLinear(nn.Linear):
    """``nn.Linear`` whose float32 products, gradients included, are oneDNN's where they are faster than torch's own.

    Under autocast torch's are as fast.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        own = torch_trains_faster() or torch.is_autocast_enabled("cpu")
        if own or x.dtype is not torch.float32 or x.numel() == 0:
            return super().forward(x)
        return _LinearFunction.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """``x`` with a share ``p`` of its numbers set to 0 and the others divided by 1 - p.

    Four numbers share one 64-bit random number, so p is rounded to a multiple of 1/65536.
    """
    dropped = round(p * 65536)
    if not dropped:
        return x
    if dropped == 65536:
        return x * 0
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    kept = words.view(torch.int16)[:n].view(x.shape) >= dropped - 32768
    return x * kept.to(x.dtype).mul_(65536 / (65536 - dropped))


class FastDropout(nn.Dropout):
    """``nn.Dropout`` on the processor through ``dropout``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return dropout(x, self.p) if self.training else x


def training_attention(
    module: nn.Module,
    query: torch.Tensor,  # (B, H, n, d)
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # (B or 1, 1, n, n), True where attended to
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention with the cheap dropout; (B, n, H, d). Without a gradient it is ``short_attention``.

    Raises:
        NotImplementedError: attention with more to it (sinks, biases, caps), which would be left out.
    """
    more = [k for k, v in kwargs.items() if k == "softcap" or (isinstance(v, torch.Tensor) and v.is_floating_point())]
    if any(kwargs[name] is not None for name in more):
        raise NotImplementedError(", ".join(more))
    if not (dropout or torch.is_grad_enabled()):
        return short_attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    shared = query.shape[1] // key.shape[1]  # grouped-query attention: heads that share a key and value
    if shared > 1:
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    logits = torch.matmul(query, key.transpose(2, 3)) * scaling
    n = query.shape[2]
    if attention_mask is None and n > 1 and _causal(module, kwargs):
        attention_mask = torch.ones(n, n, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None:
        logits = logits.masked_fill(~attention_mask, torch.finfo(logits.dtype).min)
    weights = torch.softmax(logits, -1, dtype=torch.float32).to(value.dtype)
    mixed = torch.matmul(_dropout(weights, dropout), value)
    return mixed.transpose(1, 2).contiguous(), None


_dropout = dropout  # the argument above has transformers' name


def replace_layers(model: nn.Module) -> None:
    """Swap every linear layer and dropout below ``model`` for the fast ones; weights and names stay."""
    linear = supported(torch.float32)
    for module in model.modules():
        if linear and type(module) is nn.Linear:
            module.__class__ = TrainedLinear
        elif type(module) is nn.Dropout:
            module.__class__ = FastDropout


def keep_freed_memory() -> None:
    """Let glibc keep what torch frees for the next step instead of fetching zeroed pages anew (a tenth of the time).

    For the whole process; does nothing where the C library is another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_M_TOP_PAD, 2**28)


def register_short_attention() -> str:
    """Make ``short_attention`` known to transformers; returns the name for ``attn_implementation``."""
    return _register("simcse_bench_short", short_attention)


def register_training_attention() -> str:
    """Make ``training_attention`` known to transformers; returns the name for ``attn_implementation``."""
    return _register("simcse_bench_training", training_attention)


def _register(name: str, attention: Callable[..., Any]) -> str:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name
