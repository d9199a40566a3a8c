"""A batch's passes through the encoder as CUDA graphs: a launch for each in place of a thousand.

A GPU is done with 64 short sentences before the processor has told it, layer by layer, what to do. A graph holds the
calls of a whole pass, forwards and backwards, for one number of sentences of one length; lengths are rounded up, so
that a handful serves a run.
"""

from __future__ import annotations

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
_APART = 0.02  # of bfloat16's or float16's vectors, as a share of their length; float32's are closer by far

Graph = Callable[[Tensor, Tensor], Tensor]


class Graphs:
    """The graphs of a model that is trained on a GPU."""

    def __init__(self, model: SentenceModel):
        self._model, self._made = model, dict[tuple[int, ...], Graph | None]()
        self._pool: Any = None

    @staticmethod
    def suit(model: SentenceModel) -> bool:
        """Whether its passes are the same calls for all batches of a shape."""
        config = model.config
        return (
            model.device.type == "cuda"
            and model.by_words
            and model.padding
            and "mask" not in pooling_parts(config.pooling)
            and type(model.method).pooled is SimCSE.pooled
            and not (config.gradient_checkpointing or config.cached_gradients)
            # a graph writes its gradients where it wrote those of the batch before
            and config.accumulation == 1
        )

    def embed(self, sentences: Sequence[Ids], encoder: int, words: Words) -> Tensor | None:
        """What ``SentenceModel.embed`` gives of a batch; None where no graph serves it."""
        longest = -(-max(map(len, sentences)) // _MULTIPLE) * _MULTIPLE
        if longest > _LONGEST or longest * len(sentences) > self._model.config.chunk_tokens:
            return None
        shape = (encoder, len(sentences), longest)
        if shape not in self._made and len(self._made) >= _MOST:
            return None
        ids, mask = padded(sentences, self._model.fill, longest)
        mask = torch.ones_like(ids) if mask is None else mask
        given = words.embed(ids), sent(mask, self._model.device)
        if shape not in self._made:
            self._made[shape] = self._capture(encoder, *given)
        graph = self._made[shape]
        return None if graph is None else graph(*given)

    def _capture(self, encoder: int, vectors: Tensor, mask: Tensor) -> Graph | None:
        """The graph of a shape; None where the model's calls cannot be recorded, or give something else then."""
        model, device = self._model, self._model.device
        each, dtype = _Pass(model, encoder), getattr(torch, model.config.dtype)
        states = torch.get_rng_state(), torch.cuda.get_rng_state(device)
        names, weights = zip(*each.named_parameters(), strict=True)
        # the same memory under new names: what autograd has on its way for the weights themselves is not recorded
        copies = [x.detach().requires_grad_(x.requires_grad) for x in (vectors.clone(), *weights)]

        def run(given: Tensor, mask: Tensor, *weights: Tensor) -> Tensor:
            named = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(each, named, (given, mask))  # type: ignore[no-any-return]

        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with torch.no_grad():
                expected = each.plain(vectors, mask)
            # what autocast has kept of the weights would be no part of the graph
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32, cache_enabled=False):
                samples = copies[0], mask.clone(), *copies[1:]
                with _without_warning():
                    recorded: Any = torch.cuda.make_graphed_callables(
                        run, samples, allow_unused_input=True, pool=self._pool
                    )
            torch.cuda.set_rng_state(states[1], device)
            with torch.no_grad():
                found = recorded(vectors, mask, *weights)
            apart = ((found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)).max()
        except RuntimeError:  # a call that waits for the GPU, or no memory
            # a recording that broke off leaves its mark on the generator
            fresh = torch.Generator(device).graphsafe_get_state()
            torch.cuda.default_generators[device.index or 0].graphsafe_set_state(fresh)
            return None
        finally:
            torch.set_rng_state(states[0])
            torch.cuda.set_rng_state(states[1], device)
        return (lambda vectors, mask: recorded(vectors, mask, *weights)) if float(apart) <= _APART else None


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

    def __init__(self, model: SentenceModel, encoder: int):
        super().__init__()
        self.encoder, self.mlp = model.encoders[encoder], model.mlp
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
