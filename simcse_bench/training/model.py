"""SentenceModel: the encoder, pooling and MLP of a training run; embeds token ids with gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from simcse_bench.errors import UserError
from simcse_bench.models import cpu_kernels
from simcse_bench.models.catalog import LAST_LAYER
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.encoders import TransformerEncoder, plan_batches, pool
from simcse_bench.models.loading import Backbone, length_limit, load_backbone
from simcse_bench.models.weights import mlp_head, tensor_names
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import IGNORED

Ids = Sequence[int]  # one sentence's tokens, special ones included
_HIDDEN = ("hidden_dropout_prob", "dropout", "mlp_dropout")  # names in transformers' configs
_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout")
# a chunk's shortest sentence has at least this share of its longest one's tokens: above it a processor loses more to
# small products than it gains by less padding, and a GPU much earlier (benchmarks/train_speed.py)
_SLACK = {"cpu": 0.4}
_SLACK_OTHERS = 0.6


class SentenceModel(nn.Module):
    """Encoder (or two), pooling and MLP.

    ``encoders[0]`` embeds the anchors, and all other sentences too unless there are two.
    """

    def __init__(self, backbone: Backbone, config: TrainConfig, device: torch.device):
        super().__init__()
        self.config, self.tokenizer, self.device = config, backbone.tokenizer, device
        model = backbone.model
        self.encoders = nn.ModuleList([model, *[copy.deepcopy(model) for _ in range(config.encoders - 1)]])
        self.mlp: nn.Sequential | None = None
        if config.mlp != "none":
            width = model.config.hidden_size
            # drawn anew even where the checkpoint has a pooler, as SimCSE does (models.py, cl_init); see `load_model`
            dense = nn.Linear(width, width)
            nn.init.normal_(dense.weight, std=getattr(model.config, "initializer_range", 0.02))
            nn.init.zeros_(dense.bias)
            self.mlp = nn.Sequential(dense, nn.Tanh())
        self.lm_head: nn.Module | None = None
        if backbone.lm is not None:
            self.lm_head = getattr(backbone.lm, "cls", None) or getattr(backbone.lm, "lm_head", None)
            if self.lm_head is None or self.tokenizer.mask_token_id is None:
                raise UserError(
                    f"mlm_weight: {type(backbone.lm).__name__} has no head for it that we know (BERT, RoBERTa)."
                )
            if not config.mlm_tied:
                # SimCSE's head is a copy of the pretraining one, whose decoder learns apart from the word embeddings
                # (models.py, BertForCL and RobertaForCL; train.py, load_state_dict)
                decoder = backbone.lm.get_output_embeddings()
                decoder.weight = nn.Parameter(decoder.weight.detach().clone())
        self.limit = length_limit(model, self.tokenizer)
        self.slack = _SLACK.get(device.type, _SLACK_OTHERS)
        self.to(device)
        if device.type == "cpu":
            cpu_kernels.replace_layers(self)
        self.train()

    def chunks(self, sentences: Sequence[Ids]) -> list[list[int]]:
        """Indices of the sentences chunk by chunk, longest first: each chunk is padded to its own length."""
        return list(plan_batches([len(s) for s in sentences], self.config.chunk_tokens, self.slack))

    def embed(self, sentences: Sequence[Ids], encoder: int = 0) -> Tensor:
        """Vectors (n, d) after the MLP, in the order given, with gradients; one graph over all chunks."""
        words = Words(self.encoders[encoder], sentences, self.tokenizer.pad_token_id)
        chunks = self.chunks(sentences)
        vectors = torch.cat([self.embed_chunk([sentences[i] for i in c], encoder, words) for c in chunks])
        order = torch.tensor([i for c in chunks for i in c], device=self.device)
        return vectors[order.argsort()]

    def embed_chunk(self, sentences: Sequence[Ids], encoder: int = 0, words: Words | None = None) -> Tensor:
        """Vectors (n, d) of sentences that are padded to the longest of them."""
        layers, mask = self._hidden_states(sentences, encoder, words)
        vectors = pool(layers, mask, self.config.pooling)
        return vectors if self.mlp is None else self.mlp(vectors)

    def mlm_losses(self, sentences: Sequence[Ids], labels: Sequence[Ids]) -> Iterator[Tensor]:
        """Chunk by chunk, the summed cross-entropy of the tokens whose label is not ``losses.IGNORED``."""
        if self.lm_head is None:
            raise ValueError("the model was loaded without a language-model head (mlm_weight 0)")
        for chunk in self.chunks(sentences):
            layers, _ = self._hidden_states([sentences[i] for i in chunk], 0, None)
            wanted, _ = padded([labels[i] for i in chunk], IGNORED)
            wanted = wanted.to(self.device)
            chosen = wanted != IGNORED  # the head, as wide as the vocabulary, sees only what it must predict
            logits = self.lm_head(layers[-1][chosen])  # (m, V)
            yield F.cross_entropy(logits.float(), wanted[chosen], reduction="sum")

    def encoder(self) -> TransformerEncoder:
        """The anchors' encoder with its test-time head, in evaluation mode: call ``train()`` after use."""
        at_test = "mlp" if self.config.mlp == "always" else "none"
        heads: dict[str, nn.Module | None] = {"none": None, "mlp": self.mlp}
        return TransformerEncoder(self.encoders[0], self.tokenizer, heads, (self.config.pooling, at_test), self.limit)

    def dropout(self) -> dict[str, float | None]:
        """The dropout probabilities in use: of hidden states and of attention."""
        config = self.encoders[0].config
        return {"hidden": _first(config, _HIDDEN), "attention": _first(config, _ATTENTION)}

    def _hidden_states(
        self, sentences: Sequence[Ids], encoder: int, words: Words | None
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        model: Any = self.encoders[encoder]
        words = words or Words(model, sentences, self.tokenizer.pad_token_id)
        ids, mask = padded(sentences, self.tokenizer.pad_token_id)
        mask = None if mask is None else mask.to(self.device)
        all_layers = self.config.pooling not in LAST_LAYER
        output = model(inputs_embeds=words.embed(ids), attention_mask=mask, output_hidden_states=all_layers)
        return (output.hidden_states if all_layers else (output.last_hidden_state,)), mask


class Words:
    """Embeddings of a batch's distinct tokens, looked up once: one gradient the vocabulary's size, not one a chunk."""

    def __init__(self, model: Any, sentences: Sequence[Ids], pad: int):
        self.distinct = np.unique(np.fromiter((t for s in sentences for t in (*s, pad)), dtype=np.int64))
        table = model.get_input_embeddings()
        self.vectors = table(torch.from_numpy(self.distinct).to(table.weight.device))  # (distinct, h)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, h)."""
        rows = torch.from_numpy(np.searchsorted(self.distinct, ids.numpy()))
        return F.embedding(rows.to(self.vectors.device), self.vectors)


def load_model(
    checkpoint: Checkpoint, config: TrainConfig, device: torch.device
) -> tuple[SentenceModel, tuple[str, ...]]:
    """The model to train, and what is random at its start: "mlp", and weights of a language-model head.

    The MLP is drawn from torch's global generator, seeded here: the same one with and without a language-model head.
    A training checkpoint of the official code holds a trained one, which training goes on with.
    """
    attention = cpu_kernels.register_training_attention() if device.type == "cpu" else None
    wanted = {"hidden": config.hidden_dropout, "attention": config.attention_dropout}
    overrides = _dropout_overrides(checkpoint, wanted) if any(p is not None for p in wanted.values()) else {}
    backbone = load_backbone(checkpoint, torch.float32, attention, overrides, masked_lm=config.mlm_weight > 0)
    torch.manual_seed(config.seed)
    model = SentenceModel(backbone, config, device)
    if config.max_length > model.limit:
        raise UserError(f"max_length {config.max_length}: {checkpoint.name} takes at most {model.limit} tokens.")
    drawn = model.mlp is not None and not _take_trained_mlp(model.mlp, checkpoint)
    return model, (*(["mlp"] if drawn else []), *backbone.random)


def _take_trained_mlp(mlp: nn.Module, checkpoint: Checkpoint) -> bool:
    """Put the checkpoint's trained MLP into this one; False where it has none: a pooler is BERT's own, and not it."""
    # transformers loads what is there by its name, and the rest stays as cl_init has drawn it (SimCSE models.py)
    if "mlp.dense.weight" not in tensor_names(checkpoint.folder):
        return False
    trained = mlp_head(checkpoint.name, checkpoint.folder)
    if trained[0].weight.shape != mlp[0].weight.shape:  # type: ignore[index]
        shape = "x".join(map(str, trained[0].weight.shape))
        raise UserError(f"{checkpoint.name}: its mlp.dense is {shape}; expected one as wide as the encoder.")
    mlp.load_state_dict(trained.state_dict())
    return True


def padded(sentences: Sequence[Ids], fill: int) -> tuple[Tensor, Tensor | None]:
    """Ids (B, L) filled up to the longest, and the mask (B, L), None where nothing was filled up."""
    longest = max(map(len, sentences))
    ids = torch.tensor([[*s, *[fill] * (longest - len(s))] for s in sentences])
    if all(len(s) == longest for s in sentences):
        return ids, None
    return ids, torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sentences])


def _dropout_overrides(checkpoint: Checkpoint, wanted: dict[str, float | None]) -> dict[str, float]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    overrides: dict[str, float] = {}
    for kind, names in (("hidden", _HIDDEN), ("attention", _ATTENTION)):
        p = wanted[kind]
        if p is None:
            continue
        known = [n for n in names if hasattr(config, n)]
        if not known:
            raise UserError(
                f"{kind}_dropout: {config.model_type} has no such setting; expected one of {', '.join(names)}."
            )
        overrides[known[0]] = p
    return overrides


def _first(config: Any, names: Sequence[str]) -> float | None:
    return next((float(getattr(config, n)) for n in names if hasattr(config, n)), None)
