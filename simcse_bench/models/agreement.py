"""Is a model, as it runs here, the one that transformers runs? Probed on a few sentences when it is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simcse_bench.errors import UserError, first_line
from simcse_bench.models.prompts import Ids

Run = Callable[[Tensor, Tensor | None], Tensor]  # ids (B, L), mask (B, L) or None -> last hidden states (B, L, h)
_SENTENCES = (
    "two",
    "a man plays .",
    "the dog runs through the red house and sees three small cats , not a big woman .",
)
# largest relative difference of a token's vector that is rounding
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}


@dataclass(frozen=True)
class Probe:
    """Token vectors that a model gives for sentences of different lengths, by transformers' own code.

    ``alone[i]`` is (n_i, h); ``apart`` is how far they move when the sentences are padded to one batch.
    """

    ids: Sequence[Ids]
    fill: int
    alone: Sequence[Tensor]
    apart: float
    tolerance: float

    @property
    def padding_moves(self) -> bool:
        """Whether this architecture looks at padding, whoever runs it."""
        return not self.apart <= self.tolerance

    def distance(self, run: Run) -> float:
        """How far another way of running the model moves the vectors, alone or padded; infinite where it fails."""
        try:
            distances = [_apart(_alone(run, self.ids), self.alone)]
            if not self.padding_moves:
                distances.append(_apart(_together(run, self.ids, self.fill), self.alone))
        except Exception as error:  # of many kinds: other layers than it expects
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                raise
            return float("inf")
        return max(distances)

    def agrees(self, run: Run) -> bool:
        """Whether another way of running the model gives these vectors."""
        return self.distance(run) <= self.tolerance


def probe(name: str, run: Run, tokenizer: Any, max_length: int, dtype: torch.dtype) -> Probe:
    """What ``run``, transformers' own code, gives for the sentences.

    Args:
        name: of the model, for messages.
        run: see ``run_of``.
        tokenizer: its pad token, or 0 where it has none, fills up.
        max_length: tokens that a sentence is cut to.
        dtype: of the model; decides what still counts as rounding.

    Raises:
        UserError: the model does not embed plain text.
    """
    encoded = [tokenizer(s, return_attention_mask=False, verbose=False)["input_ids"] for s in _SENTENCES]
    ids = list({len(x): x for x in (x[:max_length] for x in encoded) if x}.values())  # of one length: one is enough
    fill = fill_id(tokenizer)

    shown = str(dtype).removeprefix("torch.")
    try:
        alone = _alone(run, ids)
        apart = _apart(_together(run, ids, fill), alone) if len(ids) > 1 else 0.0
    except Exception as error:
        raise UserError(
            f"{name}: transformers' model of this architecture does not embed plain text in {shown} "
            f"({first_line(error)})." + (" Use --dtype float32." if dtype is not torch.float32 else "")
        ) from error
    if not all(bool(x.isfinite().all()) for x in alone):
        raise UserError(f"{name}: values that are not finite in {shown}: damaged weights, or too large for it.")
    return Probe(ids, fill, alone, apart, TOLERANCES[dtype])


def run_of(model: Any) -> Run:
    """How a model gives token vectors, of tensors on any device."""
    options = forward_options(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    @torch.inference_mode()
    def run(ids: Tensor, mask: Tensor | None) -> Tensor:
        there = None if mask is None else mask.to(device)
        states: Tensor = model(input_ids=ids.to(device), attention_mask=there, **options).last_hidden_state
        return states

    return run


def forward_options(model: Any) -> dict[str, Any]:
    """What every call of a model is given: a decoder keeps no cache of keys and values."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def fill_id(tokenizer: Any) -> int:
    """The token that fills up; where there is none any will do, the mask hides it."""
    return tokenizer.pad_token_id or 0


def padded(sentences: Sequence[Ids], fill: int, length: int = 0) -> tuple[Tensor, Tensor | None]:
    """Ids (B, L) filled up to the longest or ``length``, and the mask (B, L), None where nothing was filled up."""
    longest = max(length, *map(len, sentences))
    ids = torch.tensor([[*s, *[fill] * (longest - len(s))] for s in sentences])
    if all(len(s) == longest for s in sentences):
        return ids, None
    return ids, torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sentences])


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor's on a model's device; a GPU is not waited for."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _alone(run: Run, ids: Sequence[Ids]) -> list[Tensor]:
    return [run(*padded([x], 0))[0].detach().float().cpu() for x in ids]


def _together(run: Run, ids: Sequence[Ids], fill: int) -> list[Tensor]:
    states = run(*padded(ids, fill)).detach().float().cpu()
    return [row[: len(x)] for row, x in zip(states, ids, strict=True)]


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest distance of a token's two vectors, as a share of their length; infinite where one is not finite."""
    a, b = torch.cat(list(found)), torch.cat(list(expected))
    largest = ((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-12)).max()
    return float(largest) if bool(largest.isfinite()) else float("inf")
