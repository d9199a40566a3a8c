"""Loss and gradients of one batch: plainly, or with cached gradients (large batches in fixed memory)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_bench.models.agreement import sent
from simcse_bench.models.prompts import Ids
from simcse_bench.training.losses import IGNORED, mask_tokens
from simcse_bench.training.methods.simcse import BatchRows, Gather, Pass
from simcse_bench.training.model import SentenceModel
from simcse_bench.training.processes import Processes, gather


def backward(
    model: SentenceModel,
    rows: BatchRows,
    processes: Processes,
    seed: int,
    scale: float = 1.0,
    common: int = 0,
    texts: Sequence[str] = (),
    scores: NDArray[np.float32] | None = None,
) -> Tensor:
    """Add the gradients of ``scale`` times the loss of a batch to the parameters; gives the loss, a scalar.

    With ``cached_gradients`` the embeddings are computed without a graph first, the loss is differentiated down to
    them, and each chunk is embedded again under the random state it had the first time (GradCache, Gao et al. 2021):
    the same gradients, dropout included, in the memory of one chunk.

    Args:
        model: in training mode.
        rows: this process's rows.
        processes: embeddings are gathered across them.
        seed: of what this process draws: the tokens masked for the language-model term, a method's positives; dropout
            draws from torch's global generators.
        scale: of the gradients: 1 / accumulation, and the loss scale of float16.
        common: seed of what all processes draw alike: a method's noise.
        texts: of the rows, where the method needs them.
        scores: of the rows, where they are scored pairs.
    """
    config, method = model.config, model.method

    def everywhere(part: Tensor) -> Tensor:
        return gather(part, config.gather, processes)

    if scores is not None:
        method.scores = everywhere(sent(torch.from_numpy(scores), model.device)[:, None])[:, 0]
    method.begin(model, rows, texts, everywhere)
    passes = method.passes(rows, np.random.default_rng(seed))
    batch = _Batch(model, rows, everywhere, common, seed)
    if config.cached_gradients:
        loss = _cached(batch, passes, scale)
    else:
        with _autocast(model):
            parts = []
            start = _random_state(model.device)
            for each in passes:
                if config.same_mask == "replay":
                    _set_random_state(start, model.device)
                graphs = model.graphs if len(passes) == 1 and each.dropout and each.rate is None else None
                with _dropout(model, each):
                    parts.append(model.embed(each.sentences, each.encoder, graphs))
        loss = batch.loss(torch.cat(parts))
        if not config.mlm_weight:
            torch.autograd.backward(scale * loss)
    if config.mlm_weight:
        anchors = [row[0] for row in rows]
        others = [row[k] for k in range(1, len(rows[0])) for row in rows]
        sentences = [*anchors, *(anchors if config.views(len(rows[0])) == 2 else others)]
        loss = _with_mlm(model, sentences, loss, seed, scale)
    batch.end()
    return loss.detach()


@dataclass
class _Batch:
    """A batch on its way from vectors to the loss."""

    model: SentenceModel
    rows: BatchRows
    everywhere: Gather
    common: int
    seed: int
    parts: Sequence[Tensor] = ()

    def loss(self, vectors: Tensor) -> Tensor:
        """The loss over all processes' rows, from this one's vectors: n anchors, then n positives, then the others."""
        model, method = self.model, self.model.method
        own = torch.split(vectors, len(self.rows))
        self.parts = [self.everywhere(part) for part in own]
        loss = method.loss(self.parts, self._random())
        for width in model.config.matryoshka:  # Kusupati et al. 2022, Eq. 1, c = 1
            loss = loss + method.loss([part[:, :width] for part in self.parts], self._random())
        with _autocast(model):
            term = method.term(model, self.rows, own, self.seed)
        return loss if term is None else loss + term

    def end(self) -> None:
        """What the method does after the gradients."""
        self.model.method.end([part.detach() for part in self.parts], self._random())

    def _random(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.common)


@contextmanager
def _dropout(model: SentenceModel, each: Pass) -> Iterator[None]:
    """The model in training mode, or for a while without dropout, or with the pass's own probability of it."""
    places = [] if each.rate is None else model.dropout_places(each.encoder)
    before = [getattr(layer, name) for layer, name in places]
    for layer, name in places:
        setattr(layer, name, each.rate)
    if not each.dropout:
        model.eval()
    try:
        yield
    finally:
        if not each.dropout:
            model.train()
        for (layer, name), rate in zip(places, before, strict=True):
            setattr(layer, name, rate)


def _cached(batch: _Batch, passes: Sequence[Pass], scale: float) -> Tensor:
    model, device = batch.model, batch.model.device
    chunks: list[tuple[Pass, list[int], tuple[Tensor, ...]]] = []  # sentences, their rows, random state
    parts: list[Tensor] = []
    offset, start = 0, _random_state(device)
    # autocast keeps the weights it has cast: those of a pass without graph must not serve one with a graph
    with torch.no_grad(), _autocast(model):
        for each in passes:
            if model.config.same_mask == "replay":
                _set_random_state(start, device)
            for chunk in model.chunks(each.sentences):
                part = each._replace(sentences=[each.sentences[i] for i in chunk])
                chunks.append((part, [offset + i for i in chunk], _random_state(device)))
                with _dropout(model, part):
                    parts.append(model.embed_chunk(part.sentences, part.encoder))
            offset += len(each.sentences)
    order = torch.tensor([i for _, rows, _ in chunks for i in rows])
    vectors = torch.cat(parts)[sent(order.argsort(), device)].requires_grad_()
    loss = batch.loss(vectors)
    torch.autograd.backward(scale * loss)
    for part, rows, state in chunks:
        _set_random_state(state, device)
        with _autocast(model), _dropout(model, part):
            again = model.embed_chunk(part.sentences, part.encoder)
        torch.autograd.backward(again, vectors.grad[rows])  # type: ignore[index]
    return loss.detach()


def _with_mlm(model: SentenceModel, sentences: Sequence[Ids], loss: Tensor, seed: int, scale: float) -> Tensor:
    """Add λ times the masked-language-modelling loss over all sentences (SimCSE models.py, cl_forward)."""
    config = model.config
    masked, labels = masked_copies(model, sentences, seed)
    total = max(1, sum(label != IGNORED for row in labels for label in row))
    if not config.cached_gradients:
        with _autocast(model):
            mlm = torch.stack(list(model.mlm_losses(masked, labels))).sum() / total
        loss = loss + config.mlm_weight * mlm
        torch.autograd.backward(scale * loss)
        return loss
    chunks = model.chunks(masked)
    for chunk in chunks:
        with _autocast(model):
            (part,) = model.mlm_losses([masked[i] for i in chunk], [labels[i] for i in chunk])
        part = config.mlm_weight * part / total
        torch.autograd.backward(scale * part)
        loss = loss + part.detach()
    return loss


def masked_copies(
    model: SentenceModel, sentences: Sequence[Ids], seed: int, probability: float | None = None
) -> tuple[list[Ids], list[Ids]]:
    """The sentences with tokens masked, and the labels; special tokens are never masked.

    ``probability``: the share of the others that is; None: ``mlm_probability``.
    """
    tokenizer = model.tokenizer
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    flat = torch.tensor([t for s in sentences for t in s])
    masked, labels = mask_tokens(
        flat,
        ~torch.isin(flat, special),
        model.config.mlm_probability if probability is None else probability,
        tokenizer.mask_token_id,
        len(tokenizer),
        torch.Generator().manual_seed(seed),
    )
    sizes = [len(s) for s in sentences]
    return [x.tolist() for x in torch.split(masked, sizes)], [x.tolist() for x in torch.split(labels, sizes)]


def _autocast(model: SentenceModel) -> torch.autocast:
    dtype = model.config.dtype
    return torch.autocast(model.device.type, getattr(torch, dtype), enabled=dtype != "float32")


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    """What dropout draws from: the processor's generator, and that of the model's device where it has its own."""
    own = _generators(device)
    return torch.get_rng_state(), *([own.get_rng_state(*_place(device))] if own else [])


def _set_random_state(state: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    own = _generators(device)
    if own:
        own.set_rng_state(state[1], *_place(device))


def _generators(device: torch.device) -> Any:
    """The module of a device's random states: ``torch.cuda``, ``torch.mps``; None for the processor."""
    return None if device.type == "cpu" else getattr(torch, device.type)


def _place(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one
