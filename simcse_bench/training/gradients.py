"""Loss and gradients of one batch: plainly, or with cached gradients (large batches in fixed memory)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simcse_bench.models.prompts import Ids
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import IGNORED, contrastive_loss, mask_tokens
from simcse_bench.training.model import SentenceModel
from simcse_bench.training.processes import Processes, gather

BatchRows = Sequence[
    Sequence[Ids]
]  # of one batch: 1 sentence (its own positive), 2 (+ positive) or 3 (+ hard negative)


def backward(model: SentenceModel, rows: BatchRows, processes: Processes, seed: int, scale: float = 1.0) -> Tensor:
    """Add the gradients of ``scale`` times the loss of a batch to the parameters; gives the loss, a scalar.

    With ``cached_gradients`` the embeddings are computed without a graph first, the loss is differentiated down to
    them, and each chunk is embedded again under the random state it had the first time (GradCache, Gao et al. 2021):
    the same gradients, dropout included, in the memory of one chunk.

    Args:
        model: in training mode.
        rows: this process's rows.
        processes: embeddings are gathered across them.
        seed: of the tokens masked for the language-model term; dropout draws from torch's global generators.
        scale: of the gradients: 1 / accumulation, and the loss scale of float16.
    """
    config = model.config
    anchors = [row[0] for row in rows]
    others = [row[k] for k in range(1, len(rows[0])) for row in rows]
    if config.views(len(rows[0])) == 2:
        others = anchors
    alone = config.encoders == 2 or config.same_mask == "replay"
    passes = [(anchors, 0), (others, config.encoders - 1)] if alone else [([*anchors, *others], 0)]
    if config.cached_gradients:
        loss = _cached(model, passes, len(anchors), processes, scale)
    else:
        with _autocast(model):
            parts = []
            start = _random_state(model.device)
            for sentences, encoder in passes:
                if config.same_mask == "replay":
                    _set_random_state(start, model.device)
                parts.append(model.embed(sentences, encoder))
        loss = _contrast(config, torch.cat(parts), len(anchors), processes)
        if not config.mlm_weight:
            torch.autograd.backward(scale * loss)
    if config.mlm_weight:
        loss = _with_mlm(model, [*anchors, *others], loss, seed, scale)
    return loss.detach()


def _contrast(config: TrainConfig, vectors: Tensor, n: int, processes: Processes) -> Tensor:
    """The loss over all processes' rows, from this one's vectors: n anchors, then n positives, then n negatives."""
    parts = [gather(part, config.gather, processes) for part in torch.split(vectors, n)]
    return contrastive_loss(
        parts[0],
        parts[1] if len(parts) > 1 else parts[0],  # same_mask copy: z2 = z1
        parts[2] if len(parts) > 2 else None,
        kind=config.similarity,
        temperature=config.temperature,
        hard_negative_weight=config.hard_negative_weight,
        symmetric=config.symmetric,
    )


def _cached(
    model: SentenceModel, passes: Sequence[tuple[Sequence[Ids], int]], n: int, processes: Processes, scale: float
) -> Tensor:
    device = model.device
    chunks: list[tuple[list[Ids], int, list[int], tuple[Tensor, ...]]] = []  # sentences, encoder, rows, random state
    parts: list[Tensor] = []
    offset, start = 0, _random_state(device)
    # autocast keeps the weights it has cast: those of a pass without graph must not serve one with a graph
    with torch.no_grad(), _autocast(model):
        for sentences, encoder in passes:
            if model.config.same_mask == "replay":
                _set_random_state(start, device)
            for chunk in model.chunks(sentences):
                chosen = [sentences[i] for i in chunk]
                chunks.append((chosen, encoder, [offset + i for i in chunk], _random_state(device)))
                parts.append(model.embed_chunk(chosen, encoder))
            offset += len(sentences)
    order = torch.tensor([i for _, _, rows, _ in chunks for i in rows], device=device)
    vectors = torch.cat(parts)[order.argsort()].requires_grad_()
    loss = _contrast(model.config, vectors, n, processes)
    torch.autograd.backward(scale * loss)
    for chosen, encoder, rows, state in chunks:
        _set_random_state(state, device)
        with _autocast(model):
            again = model.embed_chunk(chosen, encoder)
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


def masked_copies(model: SentenceModel, sentences: Sequence[Ids], seed: int) -> tuple[list[Ids], list[Ids]]:
    """The sentences with tokens masked, and the labels; special tokens are never masked."""
    tokenizer = model.tokenizer
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    flat = torch.tensor([t for s in sentences for t in s])
    masked, labels = mask_tokens(
        flat,
        ~torch.isin(flat, special),
        model.config.mlm_probability,
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
    """What dropout draws from: the processor's generator, and the GPU's where there is one."""
    return (
        (torch.get_rng_state(), torch.cuda.get_rng_state(device)) if device.type == "cuda" else (torch.get_rng_state(),)
    )


def _set_random_state(state: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
