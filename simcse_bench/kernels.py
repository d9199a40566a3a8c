"""CPU inference at the speed of the matrix products: oneDNN linear layers and attention for short sentences.

Measured on 2 cores of an AMD EPYC (Zen 5) with all-MiniLM-L6-v2: torch's default float32 linear layer calls MKL and
reaches 180 GFLOP/s, oneDNN with weights packed once 430; in bfloat16 the fused attention kernel, made for long
sequences, takes a third of the whole time at 14 tokens a sentence. ``benchmarks/eval_speed.py`` measures the effect.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ATTENTION = "simcse_bench_short"
MAX_SHORT = 64  # tokens; above it torch's fused attention is as fast
_GELUS = {"GELUActivation": "none", "GELUTanh": "tanh", "NewGELUActivation": "tanh"}


class PackedLinear(nn.Module):
    """``nn.Linear`` for inference with oneDNN-packed weights, optionally with GELU fused in."""

    def __init__(self, linear: nn.Linear, gelu: str | None = None):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation, self.algorithm = ("none", "") if gelu is None else ("gelu", gelu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            x, self.weight, self.bias, self.activation, [], self.algorithm
        )


def supported(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the oneDNN linear layer for the type."""
    if not (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    if dtype is torch.float32:
        return True
    check = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    return check is not None and bool(getattr(torch.ops.mkldnn, check)())


def pack_linears(model: nn.Module) -> None:
    """Replace every ``nn.Linear`` below ``model`` by a PackedLinear, with the GELU that follows it fused in.

    For inference only: the packed weights have no gradient and are not saved.
    """
    for module in list(model.modules()):
        gelu = _GELUS.get(type(getattr(module, "intermediate_act_fn", None)).__name__)  # BERT, RoBERTa, ...
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                fuse = gelu if name == "dense" else None
                setattr(module, name, PackedLinear(child, fuse))
                if fuse is not None:
                    module.intermediate_act_fn = nn.Identity()


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
    batch, heads, n, d = query.shape
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal  # transformers' own rule
    plain = attention_mask is None and dropout == 0.0 and key.shape == query.shape and not causal
    if not plain or n > MAX_SHORT or query.dtype is torch.float32 or torch.is_grad_enabled():  # it works in place
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    q, k, v = (x.reshape(batch * heads, n, d) for x in (query, key, value))
    logits = torch.bmm(q, k.transpose(1, 2)).float()  # (BH, n, n)
    logits -= logits.amax(-1, keepdim=True)
    weights = logits.mul_(d**-0.5 if scaling is None else scaling).exp_()
    # normalised after the second product: n x d divisions instead of n x n
    mixed = torch.bmm(weights.to(v.dtype), v).div_(weights.sum(-1, keepdim=True))
    return mixed.view(batch, heads, n, d).transpose(1, 2).contiguous(), None


def register_attention() -> str:
    """Make ``short_attention`` known to transformers; returns the name for ``attn_implementation``."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, short_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION
