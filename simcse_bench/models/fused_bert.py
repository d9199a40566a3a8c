"""BERT's layers in few calls: what a processor runs in place of transformers' code, several batches side by side.

The residual is added by the product before it, nothing is recorded or looked up between the products, and no state is
kept: several threads may run it at once. A thread per core with batches of its own has no barrier to wait at, so that
another process on a core delays this core's batches alone (``benchmarks/engines.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simcse_bench.models.agreement import Probe
from simcse_bench.models.cpu_kernels import PackedLinear, plain_attention

# transformers' classes whose attention is this one at every length; others may differ from it in long sentences alone
_ATTENTIONS = tuple(f"{name}SelfAttention" for name in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"))


@dataclass(frozen=True)
class _Layer:
    """One layer's parts, those of the model that it was made of."""

    query: PackedLinear
    key: PackedLinear
    value: PackedLinear
    head_size: int
    mixed: PackedLinear
    mixed_norm: nn.LayerNorm
    inner: PackedLinear
    activation: Callable[[Tensor], Tensor]
    outer: PackedLinear
    outer_norm: nn.LayerNorm

    def __call__(self, hidden: Tensor, own: Tensor) -> Tensor:
        """(B, n, h) -> (B, m, h) for the tokens ``own`` (B, m, h) among them. Source: Devlin et al. 2019, section 3."""
        every = self.key.prepared(hidden)
        asking = every if own is hidden else self.query.prepared(own)
        query, key, value = (
            part(states).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for part, states in ((self.query, asking), (self.key, every), (self.value, every))
        )
        mixed = plain_attention(query, key, value, self.head_size**-0.5).flatten(2)
        attended = self.mixed_norm(self.mixed.plus(mixed, own))
        return self.outer_norm(self.outer.plus(self.activation(self.inner(attended)), attended))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FusedBert:
    """A BERT whose layers are packed (``cpu_kernels.pack_linears``), for sentences of one length, without gradient."""

    embeddings: nn.Module
    layers: tuple[_Layer, ...]

    def __call__(self, ids: Tensor, first: bool = False, all_layers: bool = False) -> list[Tensor]:
        """Hidden states (B, n, h) of ids (B, n) without padding: of the last layer, or of embeddings and all layers.

        ``first``: the last layer's are (B, 1, h), of the first token alone.
        """
        states = [self.embeddings(ids)]
        for layer in self.layers:
            hidden = states[-1] if all_layers else states.pop()  # freed as soon as the layer is done
            own = hidden[:, :1].contiguous() if first and layer is self.layers[-1] else hidden
            states.append(layer(hidden, own))
        return states


def fused_bert(model: Any, expected: Probe) -> FusedBert | None:
    """The same model in few calls; None where its layers are not BERT's, or would give other vectors.

    Args:
        model: in evaluation mode, on the processor, its linear layers packed.
        expected: what transformers gives.
    """
    try:
        fused = FusedBert(model.embeddings, tuple(_layer(layer) for layer in model.encoder.layer))
    except (AttributeError, TypeError):
        return None

    @torch.inference_mode()
    def apart(ids: Tensor, mask: Tensor | None) -> Tensor:
        """Each sentence alone: there is no padding."""
        lengths = [ids.shape[1]] * len(ids) if mask is None else mask.sum(1).tolist()
        states = [fused(row[None, :n])[-1][0] for row, n in zip(ids, lengths, strict=True)]
        return nn.utils.rnn.pad_sequence(states, batch_first=True)

    return fused if expected.agrees(apart) else None


def _layer(layer: Any) -> _Layer:
    own, after = layer.attention.self, layer.attention.output
    known = type(own).__name__ in _ATTENTIONS and type(own).__module__.startswith("transformers.models.")
    if not known or own.is_decoder:
        raise TypeError("another attention")
    parts = (own.query, own.key, own.value, after.dense, layer.intermediate.dense, layer.output.dense)
    if not all(isinstance(part, PackedLinear) for part in parts):
        raise TypeError("other linear layers")
    return _Layer(
        *parts[:3], own.attention_head_size, parts[3], after.LayerNorm,
        parts[4], layer.intermediate.intermediate_act_fn, parts[5], layer.output.LayerNorm,
    )  # fmt: skip
