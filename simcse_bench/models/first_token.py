"""The last layer for the first token alone, which is all that [CLS] pooling reads of it: the same vectors, less work.

A layer's keys and values are needed of every token, its query, output and feed-forward part only where the result is
read: of BERT-base's last layer this leaves a sixth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from simcse_bench.models.agreement import Probe, Run

_only: ContextVar[bool] = ContextVar("first_token_only", default=False)


def prepare_first_token(model: Any, run: Run, expected: Probe) -> bool:
    """Make ``first_token_only`` work for a model; False where its last layer is not BERT's, or would be another.

    Args:
        model: in evaluation mode.
        run: how it gives token vectors.
        expected: what transformers gives.
    """
    layer = _last_layer(model)
    if layer is None:
        return False
    plain = layer.forward
    layer.forward = partial(_forward, layer, plain)

    def both(ids: Tensor, mask: Tensor | None) -> Tensor:
        states = run(ids, mask).clone()
        with first_token_only():
            states[:, :1] = run(ids, mask)  # another number of tokens would not fit
        return states

    with torch.no_grad():
        same = expected.agrees(both)
    if not same:
        layer.forward = plain
    return same


@contextmanager
def first_token_only(only: bool = True) -> Iterator[None]:
    """Inside it, the last hidden states of prepared models are (B, 1, h); ``only=False``: no change."""
    before = _only.set(only)
    try:
        yield
    finally:
        _only.reset(before)


def _last_layer(model: Any) -> Any:
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    layer: Any = layers[-1]
    parts = (getattr(getattr(layer, "attention", None), "self", None), getattr(layer, "feed_forward_chunk", None))
    if not all(parts) or not all(hasattr(parts[0], n) for n in ("query", "key", "value", "attention_head_size")):
        return None
    return layer


def _forward(layer: Any, plain: Any, hidden: Tensor, mask: Tensor | None = None, *rest: Any, **options: Any) -> Tensor:
    """``BertLayer.forward`` (transformers), for the first of the tokens (B, n, h) where only that is wanted."""
    if not _only.get():
        return plain(hidden, mask, *rest, **options)  # type: ignore[no-any-return]
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own = layer.attention.self
    first = hidden[:, :1].contiguous()
    query, key, value = (
        part(states).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)
        for part, states in ((own.query, first), (own.key, hidden), (own.value, hidden))
    )
    attention = ALL_ATTENTION_FUNCTIONS.get_interface(own.config._attn_implementation, ALL_ATTENTION_FUNCTIONS["sdpa"])
    mixed, _ = attention(
        own, query, key, value, mask if mask is None or mask.dim() < 4 else mask[:, :, :1],
        dropout=own.dropout.p if own.training else 0.0, scaling=own.attention_head_size**-0.5,
    )  # fmt: skip
    return layer.feed_forward_chunk(layer.attention.output(mixed.flatten(2), first))  # type: ignore[no-any-return]
