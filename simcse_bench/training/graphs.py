"""A batch's passes through the encoder as CUDA graphs: a launch for each in place of a thousand.

A GPU is done with 64 short sentences before the processor has told it, layer by layer, what to do. A graph holds the
calls of a whole pass, forwards and backwards, for one number of sentences of one length; lengths are rounded up, so
that a handful serves a run.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from simcse_bench.models.agreement import padded, sent
from simcse_bench.models.catalog import needs_all_layers, pooling_parts
from simcse_bench.models.encoders import pool
from simcse_bench.models.first_token import first_token_only
from simcse_bench.models.prompts import Ids
from simcse_bench.training.methods.simcse import SimCSE

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel, Words

_MULTIPLE = 8  # tokens: lengths are rounded up to it
_LONGEST = 64  # tokens: of longer ones the GPU has enough to do
_MOST = 4  # graphs, since each keeps gradients of its own: lengths up to 32 with one number of sentences
# what is still rounding between a graph's vectors and transformers' own, as a share of their length
_APART = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 0.02}

Graph = Callable[[Tensor, Tensor], Tensor]


class Graphs:
    """The graphs of a model that is trained on a GPU; none any more after one that failed."""

    def __init__(self, model: SentenceModel):
        self._model, self._made, self._failed = model, dict[tuple[int, ...], Graph](), False
        self._pool: Any = None

    @staticmethod
    def suit(model: SentenceModel) -> bool:
        """Whether an update is one pass through one encoder, the same calls for all batches of a shape."""
        config, device = model.config, model.device
        return (
            device.type == "cuda"
            and device.index in (None, torch.cuda.current_device())  # where torch records
            and model.by_words
            and model.padding
            and "mask" not in pooling_parts(config.pooling)
            and type(model.method).pooled is SimCSE.pooled
            and not (config.gradient_checkpointing or config.cached_gradients)
            # a graph keeps vectors and gradients where it kept those of the pass before
            and config.accumulation == config.encoders == 1
        )

    def embed(self, sentences: Sequence[Ids], words: Words) -> Tensor | None:
        """What ``SentenceModel.embed`` gives of a batch; None where no graph serves it."""
        model = self._model
        longest = -(-max(map(len, sentences)) // _MULTIPLE) * _MULTIPLE
        shape = len(sentences), longest
        if (
            self._failed
            or longest > min(_LONGEST, model.limit)
            or longest * len(sentences) > model.config.chunk_tokens
            or (shape not in self._made and len(self._made) >= _MOST)
        ):
            return None
        ids, mask = padded(sentences, model.fill, longest)
        mask = torch.ones_like(ids) if mask is None else mask
        given = words.embed(ids), sent(mask, model.device)
        if shape not in self._made:
            graph = self._capture(*given)
            if graph is None:
                self._failed = True
                self._made.clear()  # a recording that broke off may have left them another random state
                gc.collect()
                return None
            self._made[shape] = graph
        return self._made[shape](*given)

    def _capture(self, vectors: Tensor, mask: Tensor) -> Graph | None:
        """The graph of a shape; None where the model's calls cannot be recorded, or give something else then."""
        model, device = self._model, self._model.device
        each, dtype = _Pass(model), getattr(torch, model.config.dtype)
        states = torch.get_rng_state(), torch.cuda.get_rng_state(device)
        names, weights = zip(*each.named_parameters(), strict=True)
        # the same memory under new names: what autograd has on its way for the weights themselves is not recorded
        copies = [x.detach().requires_grad_(x.requires_grad) for x in (vectors.clone(), *weights)]
        samples = copies[0], mask.clone(), *copies[1:]

        def run(given: Tensor, mask: Tensor, *weights: Tensor) -> Tensor:
            named = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(each, named, (given, mask))  # type: ignore[no-any-return]

        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # it is held against transformers with other sentences than it was recorded with, every second cut in half
        others = vectors.detach().roll(1, 0), mask.roll(1, 0)
        others[1][::2, mask.shape[1] // 2 :] = 0
        try:
            # what autocast keeps of the weights would be no part of the graph, or without gradients
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32, cache_enabled=False):
                with torch.no_grad():
                    expected = each.plain(*others)
                _require_no_wait(run, samples)
                with torch.cuda.stream(torch.cuda.current_stream(device)), _without_warning():
                    recorded: Any = torch.cuda.make_graphed_callables(
                        run, samples, allow_unused_input=True, pool=self._pool
                    )
                torch.cuda.set_rng_state(states[1], device)
                with torch.no_grad():
                    found = recorded(*others, *weights)
            apart = float(((found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)).max())
        except Exception:  # of many kinds: calls that wait or that take no such mask, no memory
            # a recording that broke off leaves its mark on the generator
            fresh = torch.Generator(device).graphsafe_get_state()
            torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(fresh)
            return None
        finally:
            torch.set_rng_state(states[0])
            torch.cuda.set_rng_state(states[1], device)
        return (lambda vectors, mask: recorded(vectors, mask, *weights)) if apart <= _APART[dtype] else None


def _require_no_wait(run: Callable[..., Tensor], samples: Sequence[Tensor]) -> None:
    """RuntimeError for calls, forwards or backwards, that wait for the GPU: they would break a recording off."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        found = run(*samples)
        wanted = [x for x in samples if x.requires_grad]
        torch.autograd.grad(found, wanted, torch.ones_like(found), allow_unused=True)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _without_warning() -> Iterator[None]:
    """torch's recording meets, on another stream, what its own trial runs have left, and warns of that."""
    switch = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)  # from torch 2.10 on
    if switch is not None:
        switch(False)
    try:
        yield
    finally:
        if switch is not None:
            switch(True)


class _Pass(nn.Module):
    """What is recorded: words' embeddings (B, L, h) and mask (B, L) -> vectors (B, d)."""

    def __init__(self, model: SentenceModel):
        super().__init__()
        self.encoder, self.mlp = model.encoders[0], model.mlp
        self.pooling, self.first_token, self.options = model.config.pooling, model.first_token, model.options

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """With a mask (B, 1, L, L), which transformers takes as it is: it would look into one of (B, L), and wait."""
        return self._run(vectors, mask, mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1))

    def plain(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """The same as transformers does it."""
        return self._run(vectors, mask, mask)

    def _run(self, vectors: Tensor, mask: Tensor, given: Tensor) -> Tensor:
        all_layers = needs_all_layers(self.pooling)
        with first_token_only(self.first_token):
            output = self.encoder(
                inputs_embeds=vectors, attention_mask=given, output_hidden_states=all_layers, **self.options
            )
        layers = output.hidden_states if all_layers else (output.last_hidden_state,)
        pooled = pool(layers, mask, self.pooling)
        return pooled if self.mlp is None else self.mlp(pooled)
