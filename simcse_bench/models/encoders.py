"""Encoders: anything with ``encode(sentences) -> (n, d) float32``; here the transformer one, and pooling."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simcse_bench.errors import UserError, unknown
from simcse_bench.models.agreement import fill_id, forward_options, padded
from simcse_bench.models.catalog import LAST_LAYER, POOLINGS
from simcse_bench.progress import Progress

Array = NDArray[np.float32]
View = tuple[str, str]  # pooling, head
_SECOND_LAYERS = {"first_last": 1, "embedding_last": 0, "top2": -2}  # averaged with the last one


class Encoder(Protocol):
    """What ``evaluate`` needs. May also have ``provenance`` and ``stats`` (mappings), which go into the report."""

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d), float32, one row per sentence in the order given."""
        ...


def pool(hidden_states: Sequence[torch.Tensor], mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Sentence vectors (B, h) in float32 from all layers' hidden states.

    Args:
        hidden_states: embedding layer first, then every layer, each (B, L, h); poolings of ``LAST_LAYER`` need the
            last only.
        mask: (B, L), 1 for tokens; None where nothing is padded. [CLS] and [SEP] count in means.
        pooling: a key of ``catalog.POOLINGS``. Source: SimCSE evaluation.py (poolers).
    """
    last = hidden_states[-1]
    if pooling == "cls":
        return last[:, 0].float()
    if pooling == "mean":
        tokens = last.float()
    elif pooling in _SECOND_LAYERS:
        tokens = (hidden_states[_SECOND_LAYERS[pooling]].float() + last.float()) / 2
    else:
        raise unknown("pooling", pooling, POOLINGS)
    if mask is None:
        return tokens.mean(1)
    weights = mask.unsqueeze(-1).float()  # (B, L, 1)
    return (tokens * weights).sum(1) / weights.sum(1)


def plan_batches(lengths: Sequence[int], batch_tokens: int, slack: float = 0.0) -> Iterator[list[int]]:
    """Indices batch by batch, longest first, at most ``batch_tokens`` tokens each with their padding.

    Args:
        lengths: tokens per sentence.
        batch_tokens: budget; a single longer sentence still makes a batch of its own.
        slack: how much shorter than its longest a sentence of a batch may be, as a share; 0 means no padding at all.
    """
    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = (len(batch) + 1) * longest > batch_tokens
        if batch and (full or lengths[i] < longest * (1 - slack)):
            yield batch
            batch = []
        if not batch:
            longest = lengths[i]
        batch.append(i)
    if batch:
        yield batch


@dataclass(eq=False)
class TransformerEncoder:
    """A transformers model, its tokenizer, a pooling and a head.

    ``stats`` describes the last call: sentences, tokens, truncated (longer than ``max_length``), batches, and how
    often the token budget was halved because memory ran out.
    """

    model: nn.Module
    tokenizer: Any
    heads: Mapping[str, nn.Module | None]
    view: View
    max_length: int
    preprocess: Callable[[str], str] | None = None
    normalize: bool = False
    truncate_dim: int | None = None  # only so many values of every vector, after all else
    padding: bool = True  # False: the architecture looks at padding, so only sentences of one length share a batch
    batch_tokens: int = 0  # of a batch, padding included; 0: as suits the device
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    notes: Sequence[str] = ()  # what a user should know of how it is run
    stats: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.model.eval()
        self.device = next((t.device for t in self.model.parameters()), torch.device("cpu"))
        # a processor gains nothing from larger batches, so nothing is padded; a GPU wants fewer, larger ones
        default, self.slack = (2048, 0.0) if self.device.type == "cpu" else (32768, 0.2)
        self.batch_tokens = self.batch_tokens or default
        self.slack = self.slack if self.padding else 0.0
        self.options = forward_options(self.model)

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d) of the encoder's own pooling and head."""
        return self.encode_views(sentences, [self.view])[0]

    def encode_views(self, sentences: Sequence[str], views: Sequence[View]) -> list[Array]:
        """Embeddings (n, d) for several (pooling, head) pairs from one forward pass."""
        for pooling, head in views:
            if pooling not in POOLINGS:
                raise unknown("pooling", pooling, POOLINGS)
            if head not in self.heads:
                raise UserError(f"this checkpoint has no head {head!r}; it has: {', '.join(self.heads)}.")
        ids = self._tokenize(sentences)
        lengths = np.array([len(x) for x in ids], dtype=np.int64)
        out: list[Array | None] = [None] * len(views)
        todo = np.arange(len(ids))
        budget, done = self.batch_tokens, 0
        self.stats |= {"sentences": len(ids), "tokens": int(lengths.sum()), "batches": 0, "halvings": 0}
        while len(todo):
            finished = np.zeros(len(ids), dtype=bool)
            try:
                for batch in plan_batches(lengths[todo].tolist(), budget, self.slack):
                    rows = todo[batch]
                    for k, vectors in enumerate(self._forward([ids[i] for i in rows], views)):
                        if out[k] is None:
                            out[k] = np.empty((len(ids), vectors.shape[1]), dtype=np.float32)
                        out[k][rows] = vectors  # type: ignore[index]
                    finished[rows] = True
                    self.stats["batches"] += 1
                    done += int(lengths[rows].sum())
                    if self.progress:
                        self.progress(done, self.stats["tokens"])
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if budget <= int(lengths[todo].max()):
                    raise UserError(
                        f"out of memory on {self.device} with one sentence of {lengths[todo].max()} tokens; "
                        "use --max-length, another --device or a smaller --dtype."
                    ) from error
                budget //= 2
                self.stats["halvings"] += 1
                todo = todo[~finished[todo]]
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return [np.zeros((0, 0), dtype=np.float32) if o is None else o for o in out]

    def _tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        if self.preprocess is not None:
            sentences = [self.preprocess(s) for s in sentences]
        options: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        ids: list[list[int]] = self.tokenizer(list(sentences), **options)["input_ids"] if len(sentences) else []
        long = [i for i, x in enumerate(ids) if len(x) > self.max_length]
        self.stats = {"truncated": len(long)}
        if long:
            texts = [sentences[i] for i in long]
            cut = self.tokenizer(texts, truncation=True, max_length=self.max_length, **options)["input_ids"]
            for i, x in zip(long, cut, strict=True):
                ids[i] = x
        if any(not x for x in ids):
            raise UserError("the tokenizer gives no token at all for an empty sentence; this model cannot encode it.")
        return ids

    @torch.inference_mode()
    def _forward(self, ids: Sequence[Sequence[int]], views: Sequence[View]) -> list[Array]:
        input_ids, mask = padded(ids, fill_id(self.tokenizer))
        input_ids, mask = input_ids.to(self.device), None if mask is None else mask.to(self.device)
        all_layers = any(pooling not in LAST_LAYER for pooling, _ in views)
        output = self.model(input_ids=input_ids, attention_mask=mask, output_hidden_states=all_layers, **self.options)
        layers = output.hidden_states if all_layers else (output.last_hidden_state,)
        pooled = {pooling: pool(layers, mask, pooling) for pooling, _ in views}
        results = []
        for pooling, name in views:
            head = self.heads[name]
            vectors = pooled[pooling] if head is None else head(pooled[pooling])
            if self.normalize:
                vectors = nn.functional.normalize(vectors, dim=-1)
            results.append(vectors[:, : self.truncate_dim].float().cpu().numpy())
        return results


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a processor."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
