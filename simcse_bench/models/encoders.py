"""Encoders: anything with ``encode(sentences) -> (n, d) float32``; here the transformer one, and pooling."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simcse_bench.errors import UserError
from simcse_bench.models.agreement import fill_id, forward_options, padded, sent
from simcse_bench.models.catalog import needs_all_layers, pooling_parts
from simcse_bench.models.cpu_kernels import a_core_each, torch_threads
from simcse_bench.models.first_token import first_token_only
from simcse_bench.models.fused_bert import FusedBert
from simcse_bench.models.prompts import NO_PROMPT, Prompt, mask_places, prefix_length, template_ids, tokenize
from simcse_bench.progress import Progress

Array = NDArray[np.float32]
IndexArray = NDArray[np.int64]
Vectors = Sequence[Array | torch.Tensor]  # (n, d) each
View = tuple[str, str]  # pooling, head
# how oneDNN, cuBLAS and CUDA's own calls say that there is no memory left
_NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
_SMALLEST = 256  # tokens of a batch that is still as fast
_SECOND_LAYERS = {"first_last": 1, "embedding_last": 0, "top2": -2}  # averaged with the last one


class Encoder(Protocol):
    """What ``evaluate`` needs. May also have ``provenance`` and ``stats`` (mappings), which go into the report."""

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d), float32, one row per sentence in the order given."""
        ...


def pool(
    hidden_states: Sequence[torch.Tensor],
    mask: torch.Tensor | None,
    pooling: str,
    skip: int = 0,
    at: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sentence vectors (B, h), or (B, k h) for k poolings joined by "+", in float32 from all layers' hidden states.

    Args:
        hidden_states: embedding layer first, then every layer, each (B, L, h); poolings of ``LAST_LAYER`` need the
            last only.
        mask: (B, L), 1 for tokens, which come before what is padded; None where nothing is. [CLS] and [SEP] count.
        pooling: keys of ``catalog.POOLINGS``. Source: SimCSE evaluation.py (poolers), sentence-transformers' Pooling.
        skip: tokens at the start, of a prompt, that do not count.
        at: (B,), the place of the mask token, for "mask".
    """
    return torch.cat([_pool(hidden_states, mask, part, skip, at) for part in pooling_parts(pooling)], -1)


def _pool(
    hidden_states: Sequence[torch.Tensor], mask: torch.Tensor | None, pooling: str, skip: int, at: torch.Tensor | None
) -> torch.Tensor:
    last = hidden_states[-1]
    rows = torch.arange(len(last), device=last.device)
    if pooling == "cls":
        return last[:, skip].float()
    if pooling == "last_token":
        return (last[:, -1] if mask is None else last[rows, mask.sum(1) - 1]).float()
    if pooling == "mask":
        if at is None:
            raise ValueError("pooling mask needs the places of the mask tokens")
        return last[rows, at].float()
    if skip:
        mask = torch.ones(last.shape[:2], device=last.device) if mask is None else mask.clone()
        mask[:, :skip] = 0
    if pooling in _SECOND_LAYERS:
        tokens = (hidden_states[_SECOND_LAYERS[pooling]].float() + last.float()) / 2
    else:
        tokens = last.float()
    if pooling == "max":
        return (tokens if mask is None else tokens.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf)).amax(1)
    if mask is None and pooling != "weighted_mean":
        return tokens.sum(1) / tokens.shape[1] ** 0.5 if pooling == "mean_sqrt_len" else tokens.mean(1)
    weights = torch.ones_like(tokens[..., :1]) if mask is None else mask.unsqueeze(-1).float()  # (B, L, 1)
    if pooling == "weighted_mean":
        weights = weights * torch.arange(1, tokens.shape[1] + 1, device=last.device).view(1, -1, 1)
    total = weights.sum(1)
    return (tokens * weights).sum(1) / (total.sqrt() if pooling == "mean_sqrt_len" else total)


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
    preprocess: Callable[[str], str] | None = None  # before the prompt
    prompt: Prompt = NO_PROMPT
    normalize: bool = False
    truncate_dim: int | None = None  # only so many values of every vector, after all else
    first_token: bool = False  # the model is prepared for ``first_token_only``
    fused: FusedBert | None = None  # the same model for batches without padding
    padding: bool = True  # False: the architecture looks at padding, so only sentences of one length share a batch
    batch_tokens: int = 0  # of a batch, padding included; 0: as suits the device
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    notes: Sequence[str] = ()  # what a user should know of how it is run
    stats: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.model.eval()
        self.device = next((t.device for t in self.model.parameters()), torch.device("cpu"))
        default, self.slack = batch_defaults(self.device)
        self.batch_tokens = self.batch_tokens or default
        self.slack = self.slack if self.padding else 0.0
        self.options = forward_options(self.model)
        self.skip = 0 if self.prompt.counted else prefix_length(self.tokenizer, self.prompt)
        self._biases: dict[int, torch.Tensor] = {}  # length of a sentence with its template -> the template's vector

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d) of the encoder's own pooling and head."""
        return self.encode_views(sentences, [self.view])[0]

    def encode_views(self, sentences: Sequence[str], views: Sequence[View]) -> list[Array]:
        """Embeddings (n, d) for several (pooling, head) pairs from one forward pass."""
        for pooling, head in views:
            pooling_parts(pooling)
            if head not in self.heads:
                raise UserError(f"this checkpoint has no head {head!r}; it has: {', '.join(self.heads)}.")
        ids = self._tokenize(sentences)
        return embed_in_batches(
            [len(x) for x in ids],
            lambda rows: self._forward([ids[i] for i in rows], views),
            self.batch_tokens,
            self.slack,
            self.stats,
            str(self.device),
            self.progress,
            # a thread per core where the model keeps no state between or during its calls
            1 if self.fused is None or self.prompt.debiased else torch_threads.usual(),
        ) or [np.zeros((0, 0), dtype=np.float32) for _ in views]

    def _tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        if self.preprocess is not None:
            sentences = [self.preprocess(s) for s in sentences]
        ids, cut = tokenize(self.tokenizer, sentences, self.prompt, self.max_length)
        self.stats = {"truncated": cut}
        return ids

    @torch.inference_mode()
    def _forward(self, ids: Sequence[Sequence[int]], views: Sequence[View]) -> list[torch.Tensor]:
        """(n, d) of every view, on the model's device, where they may still be under way."""
        host = padded(ids, fill_id(self.tokenizer))
        input_ids, mask = sent(host[0], self.device), None if host[1] is None else sent(host[1], self.device)
        all_layers = any(needs_all_layers(pooling) for pooling, _ in views)
        first = not self.skip and all(pooling == "cls" for pooling, _ in views)
        if self.fused is not None and mask is None:
            layers: Sequence[torch.Tensor] = self.fused(input_ids, first, all_layers)
        else:
            with first_token_only(first and self.first_token):
                output = self.model(
                    input_ids=input_ids, attention_mask=mask, output_hidden_states=all_layers, **self.options
                )
            layers = output.hidden_states if all_layers else (output.last_hidden_state,)
        at = None
        if any("mask" in pooling_parts(pooling) for pooling, _ in views):
            at = sent(torch.tensor(mask_places(self.tokenizer, ids)), self.device)
        pooled = {pooling: pool(layers, mask, pooling, self.skip, at) for pooling, _ in views}
        if self.prompt.debiased:
            pooled = {p: v - self._template_vectors(ids) if p == "mask" else v for p, v in pooled.items()}
        results = []
        for pooling, name in views:
            head = self.heads[name]
            vectors = pooled[pooling] if head is None else head(pooled[pooling])
            if self.normalize:
                vectors = nn.functional.normalize(vectors, dim=-1)
            results.append(vectors[:, : self.truncate_dim].float())
        return results

    def _template_vectors(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """(B, h): for every sentence the mask's vector of the template alone, its end at the places it has there."""
        template, before = template_ids(self.tokenizer, self.prompt)
        (at,) = mask_places(self.tokenizer, [template])
        for length in {len(x) for x in ids} - set(self._biases):
            places = template_positions(len(template), before, [length], first_position(self.model))
            given = {"input_ids": torch.tensor([template]), "position_ids": places}
            states = self.model(**{k: v.to(self.device) for k, v in given.items()}, **self.options).last_hidden_state
            self._biases[length] = states[0, at].float()
        return torch.stack([self._biases[len(x)] for x in ids])


def batch_defaults(device: torch.device) -> tuple[int, float]:
    """Tokens of a batch, and its slack (see ``plan_batches``)."""
    # a processor gains nothing from larger batches, so nothing is padded; a GPU wants fewer, larger ones
    return (2048, 0.0) if device.type == "cpu" else (32768, 0.2)


def template_positions(size: int, before: int, lengths: Sequence[int], first: int) -> torch.Tensor:
    """(n, size): the positions of a template's tokens around sentences that are left out.

    Args:
        size: tokens of the template.
        before: how many of them come before the sentence.
        lengths: of the sentences with the template.
        first: position of the first token.
    """
    places = first + torch.arange(size).repeat(len(lengths), 1)
    places[:, before:] += torch.tensor(lengths)[:, None] - size
    return places


def first_position(model: Any) -> int:
    """Number of the first token's position: RoBERTa's come after the padding index."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def embed_in_batches(
    lengths: Sequence[int],
    embed: Callable[[Sequence[int]], Vectors],
    batch_tokens: int,
    slack: float,
    stats: dict[str, int],
    device: str,
    progress: Progress | None = None,
    threads: int = 1,
) -> list[Array]:
    """Arrays (n, d) of all rows from ``embed``, which gives those of some; longest rows first; empty for no rows.

    Args:
        lengths: tokens of every row.
        embed: row numbers -> for each kind of vector an array or tensor, a line per row.
        batch_tokens, slack: see ``plan_batches``; the budget is halved where memory runs out.
        stats: gets sentences, tokens, batches and halvings.
        device: for the message.
        progress: told (tokens done, tokens in all), first with nothing done.
        threads: that embed batches side by side, each on one core; ``embed`` must bear it.

    Raises:
        UserError: one row alone does not fit into memory.
    """
    sizes = np.array(lengths, dtype=np.int64)
    out: list[Array] = []
    todo = np.arange(len(sizes))
    budget, done = batch_tokens, 0
    if threads > 1:  # a few batches for each
        budget = min(budget, max(_SMALLEST, int(sizes.sum()) // (4 * threads)))
    stats |= {"sentences": len(sizes), "tokens": int(sizes.sum()), "batches": 0, "halvings": 0}
    if progress and len(todo):
        progress(0, stats["tokens"])  # its clock starts here
    while len(todo):
        finished = np.zeros(len(sizes), dtype=bool)
        try:
            batches = (todo[batch] for batch in plan_batches(sizes[todo].tolist(), budget, slack))
            embedded = _side_by_side(lambda rows: embed(rows.tolist()), batches, threads)
            # a GPU's vectors are fetched when the next batch is under way
            for rows, vectors in _one_behind(embedded) if device.startswith("cuda") else embedded:
                out = out or [np.empty((len(sizes), v.shape[1]), dtype=np.float32) for v in vectors]
                for whole, part in zip(out, vectors, strict=True):
                    whole[rows] = part.cpu().numpy() if isinstance(part, torch.Tensor) else part
                finished[rows] = True
                stats["batches"] += 1
                done += int(sizes[rows].sum())
                if progress:
                    progress(done, stats["tokens"])
            break
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if budget <= int(sizes[todo].max()):
                raise UserError(
                    f"out of memory on {device} with one sentence of {sizes[todo].max()} tokens; "
                    "use --max-length, another --device or a smaller --dtype."
                ) from error
            budget //= 2
            stats["halvings"] += 1
            todo = todo[~finished[todo]]
        free_memory()
    return out


def _side_by_side(
    embed: Callable[[IndexArray], Vectors], batches: Iterator[IndexArray], threads: int
) -> Iterator[tuple[IndexArray, Vectors]]:
    """Batches and their vectors, in order, computed by so many threads of one core each."""
    if threads == 1:
        yield from ((rows, embed(rows)) for rows in batches)
        return
    planned = list(batches)
    with a_core_each(threads) as pool:
        yield from zip(planned, pool.map(embed, planned), strict=True)


def _one_behind(embedded: Iterator[tuple[IndexArray, Vectors]]) -> Iterator[tuple[IndexArray, Vectors]]:
    """The same in the same order, each when its successor has been asked for."""
    waiting = next(embedded, None)
    for following in embedded:
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def free_memory() -> None:
    """Give back that of objects which refer to each other, and what torch keeps of a GPU's for later."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # after a recording of a graph that broke off torch refuses it
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _NO_MEMORY)
