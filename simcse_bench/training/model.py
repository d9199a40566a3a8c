"""SentenceModel: the encoder, pooling and MLP of a training run; embeds token ids with gradients."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from simcse_bench.errors import UserError, first_line
from simcse_bench.models import cpu_kernels
from simcse_bench.models.agreement import fill_id, forward_options, padded, probe, run_of, sent
from simcse_bench.models.catalog import needs_all_layers, pooling_parts
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.encoders import TransformerEncoder, plan_batches, pool
from simcse_bench.models.first_token import first_token_only, prepare_first_token
from simcse_bench.models.loading import Backbone, follows_attention, length_limit, load_backbone, load_config
from simcse_bench.models.prompts import Ids, mask_places
from simcse_bench.models.weights import mlp_head, tensor_names
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.graphs import Graphs
from simcse_bench.training.losses import IGNORED
from simcse_bench.training.methods.known import method_class
from simcse_bench.training.methods.simcse import SimCSE

_HIDDEN = ("hidden_dropout_prob", "dropout", "mlp_dropout")  # names in transformers' configs
_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout")
# how much shorter than its longest a sentence of a chunk may be, as a share: with less a processor loses more to small
# products than it gains by less padding (benchmarks/train_speed.py); a GPU wants all in one: 61 ms an update of
# BERT-base's form on an H100, 88 ms in chunks of 0.6
_SLACK = {"cpu": 0.4}
_SLACK_OTHERS = 1.0


class SentenceModel(nn.Module):
    """Encoder (or two), pooling and MLP.

    ``encoders[0]`` embeds the anchors, and all other sentences too unless there are two.
    """

    def __init__(
        self, backbone: Backbone, config: TrainConfig, device: torch.device, fast: bool = True, by_words: bool = True
    ):
        super().__init__()
        self.config, self.tokenizer, self.device = config, backbone.tokenizer, device
        self.by_words, self.fill, self.padding = by_words, fill_id(backbone.tokenizer), True
        model = backbone.model
        self.encoders = nn.ModuleList([model, *[copy.deepcopy(model) for _ in range(config.encoders - 1)]])
        self.width = width = model.config.hidden_size * len(pooling_parts(config.pooling))  # of the vectors
        self.mlp: nn.Sequential | None = None
        if config.mlp != "none":
            # drawn anew even where the checkpoint has a pooler, as SimCSE does (models.py, cl_init); see `load_model`
            dense = nn.Linear(width, width)
            nn.init.normal_(dense.weight, std=getattr(model.config, "initializer_range", 0.02))
            nn.init.zeros_(dense.bias)
            self.mlp = nn.Sequential(dense, nn.Tanh())
        self.method = SimCSE(dataclasses.replace(config, method_settings={}), self)  # until `load_model` makes its own
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
        each: Any
        for each in self.encoders:
            if config.lora_rank:
                add_lora(each, config)
            if config.gradient_checkpointing:
                newer = getattr(each, "activation_checkpointing_enable", None)  # its name in later transformers 5
                (newer or each.gradient_checkpointing_enable)({"use_reentrant": False})
        self.first_token = False  # the encoders are prepared for ``first_token_only``
        self.graphs: Graphs | None = None  # on a GPU, where they suit
        self.limit = length_limit(model, self.tokenizer)
        self.options = forward_options(model)
        self.to(device)
        if fast and device.type == "cpu":
            if follows_attention(model):
                for each in self.encoders:
                    each.set_attn_implementation(cpu_kernels.register_training_attention())
            cpu_kernels.replace_layers(self)
        self.train()

    def chunks(self, sentences: Sequence[Ids]) -> list[list[int]]:
        """Indices of the sentences chunk by chunk, longest first: each chunk is padded to its own length."""
        slack = _SLACK.get(self.device.type, _SLACK_OTHERS) if self.padding else 0.0
        return list(plan_batches([len(s) for s in sentences], self.config.chunk_tokens, slack))

    def embed(self, sentences: Sequence[Ids], encoder: int = 0, graphs: Graphs | None = None) -> Tensor:
        """Vectors (n, d) after the MLP, in the order given, with gradients.

        ``graphs``: where no other pass gets its gradients together with this one's.
        """
        words = Words(self.encoders[encoder], sentences, self.fill) if self.by_words else None
        if graphs and words and (vectors := graphs.embed(sentences, words)) is not None:
            return vectors
        chunks = self.chunks(sentences)
        vectors = torch.cat([self.embed_chunk([sentences[i] for i in c], encoder, words) for c in chunks])
        order = torch.tensor([i for c in chunks for i in c]).argsort()
        return vectors[sent(order, self.device)]

    def embed_chunk(self, sentences: Sequence[Ids], encoder: int = 0, words: Words | None = None) -> Tensor:
        """Vectors (n, d) of sentences that are padded to the longest of them."""
        with first_token_only(self.first_token):
            layers, mask = self._hidden_states(sentences, encoder, words)
        at = None
        if "mask" in pooling_parts(self.config.pooling):
            at = sent(torch.tensor(mask_places(self.tokenizer, sentences)), self.device)
        vectors = pool(layers, mask, self.config.pooling, at=at)
        vectors = self.method.pooled(self, vectors, sentences, encoder)
        return vectors if self.mlp is None else self.mlp(vectors)

    @torch.no_grad()
    def still(self, sentences: Sequence[Ids], encoder: int = 0) -> Tensor:
        """Vectors (n, d) without dropout and without gradients."""
        self.eval()
        try:
            return self.embed(sentences, encoder)
        finally:
            self.train()

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
        view = self.config.pooling, at_test
        return TransformerEncoder(
            self.encoders[0],
            self.tokenizer,
            heads,
            view,
            self.limit,
            prompt=self.method.prompt(),
            first_token=self.first_token,
            padding=self.padding,
        )

    def token_states(self, ids: Tensor, mask: Tensor | None, encoder: int = 0) -> Tensor:
        """Last hidden states (B, L, h) of an encoder as it is trained; see ``agreement``."""
        there = None if mask is None else mask.to(self.device)
        return self._run(ids, there, encoder, None).last_hidden_state  # type: ignore[no-any-return]

    def dropout(self) -> dict[str, float | None]:
        """The dropout probabilities in use: of hidden states and of attention."""
        config = self.encoders[0].config
        return {"hidden": _first(config, _HIDDEN), "attention": _first(config, _ATTENTION)}

    def dropout_places(self, encoder: int = 0) -> list[tuple[nn.Module, str]]:
        """The layers of an encoder that drop out, each with its attribute that holds the probability; LoRA's are not.

        Raises:
            UserError: there is none.
        """
        model, places = self.encoders[encoder], list[tuple[nn.Module, str]]()
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Dropout):
                names = ["p"] * ("lora_dropout" not in path)
            else:  # attention, most often, that draws in a function
                names = [n for n in ("dropout", "attention_dropout") if isinstance(getattr(layer, n, None), float)]
            places += [(layer, name) for name in names]
        if not places:
            raise UserError(f"{type(model).__name__}: none of its layers drops out, so no rate can be set.")
        return places

    def _hidden_states(
        self, sentences: Sequence[Ids], encoder: int, words: Words | None
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        ids, mask = padded(sentences, self.fill)
        mask = None if mask is None else sent(mask, self.device)
        output = self._run(ids, mask, encoder, words)
        all_layers = needs_all_layers(self.config.pooling)
        return (output.hidden_states if all_layers else (output.last_hidden_state,)), mask

    def _run(self, ids: Tensor, mask: Tensor | None, encoder: int, words: Words | None) -> Any:
        model: Any = self.encoders[encoder]
        if self.by_words:
            words = words or Words(model, ids.tolist(), self.fill)
            given = {"inputs_embeds": words.embed(ids)}
        else:
            given = {"input_ids": sent(ids, self.device)}
        all_layers = needs_all_layers(self.config.pooling)
        return model(**given, attention_mask=mask, output_hidden_states=all_layers, **self.options)


class Words:
    """Embeddings of a batch's distinct tokens, looked up once: one gradient the vocabulary's size, not one a chunk."""

    def __init__(self, model: Any, sentences: Sequence[Ids], pad: int):
        self.distinct = np.unique(np.fromiter((t for s in sentences for t in (*s, pad)), dtype=np.int64))
        table = model.get_input_embeddings()
        self.vectors = table(sent(torch.from_numpy(self.distinct), table.weight.device))  # (distinct, h)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, h)."""
        rows = torch.from_numpy(np.searchsorted(self.distinct, ids.numpy()))
        return F.embedding(sent(rows, self.vectors.device), self.vectors)


def load_model(
    checkpoint: Checkpoint, config: TrainConfig, device: torch.device
) -> tuple[SentenceModel, tuple[str, ...]]:
    """The model to train, and what is random at its start: "mlp", and weights of a language-model head.

    The MLP is drawn from torch's global generator, seeded here: the same one with and without a language-model head.
    A training checkpoint of the official code holds a trained one, which training goes on with.
    """
    wanted = {"hidden": config.hidden_dropout, "attention": config.attention_dropout}
    overrides = _dropout_overrides(checkpoint, wanted) if any(p is not None for p in wanted.values()) else {}

    def start() -> Backbone:
        return load_backbone(checkpoint, torch.float32, None, overrides, masked_lm=config.mlm_weight > 0)

    backbone = start()
    plain, tokenizer = backbone.model.eval().to(device), backbone.tokenizer
    limit = length_limit(plain, tokenizer)
    if config.max_length > limit:
        raise UserError(f"max_length {config.max_length}: {checkpoint.name} takes at most {limit} tokens.")
    expected = probe(checkpoint.name, run_of(plain), tokenizer, config.max_length, torch.float32)
    # our layers and words looked up once; MPNet, for one, numbers positions otherwise when it is given words
    for number, (fast, by_words) in enumerate(itertools.product((True, False), repeat=2)):
        torch.manual_seed(config.seed)
        model = SentenceModel(start() if number else backbone, config, device, fast, by_words)
        model.padding = not expected.padding_moves
        if expected.agrees(model.eval().token_states):
            # checkpointed layers are computed once more in the backward pass, when nothing says for which tokens
            if config.pooling == "cls" and not config.gradient_checkpointing:
                ready = [
                    prepare_first_token(each, partial(model.token_states, encoder=n), expected)
                    for n, each in enumerate(model.encoders)
                ]
                model.first_token = all(ready)
            model.method = method_class(config.method)(config, model).to(device)
            if fast and device.type == "cpu":
                cpu_kernels.replace_layers(model.method)
            width = expected.alone[0].shape[-1] * len(pooling_parts(config.pooling))
            if any(n >= width for n in config.matryoshka):
                raise UserError(
                    f"matryoshka {max(config.matryoshka)}: {checkpoint.name}'s vectors have {width} values."
                )
            model.graphs = Graphs(model) if Graphs.suit(model) else None
            drawn = model.mlp is not None and not _take_trained_mlp(model.mlp, checkpoint)
            return model.train(), (*["mlp"] * drawn, *["lora"] * bool(config.lora_rank), *backbone.random)
    raise UserError(f"{checkpoint.name}: with gradients its vectors are not those of transformers; not trainable here.")


def add_lora(model: Any, config: TrainConfig) -> None:
    """Freeze a model, and put low-rank changes, of no effect at first, beside its linear layers (Hu et al. 2021).

    Raises:
        UserError: peft is not installed, or finds none of the layers.
    """
    try:
        import peft  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise UserError('lora_rank: pip install "simcse-bench[peft]" (the package peft), or set lora_rank 0.') from None
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha,  # type: ignore[arg-type, unused-ignore]
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets) or "all-linear",
    )  # fmt: skip
    try:
        peft.inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise UserError(f"lora_targets {','.join(config.lora_targets)}: {first_line(error)}") from error


def merged_state(model: Any) -> dict[str, Tensor]:
    """A model's weights by transformers' names, low-rank changes added."""
    changes = {f"{n}.weight": m.get_delta_weight("default") for n, m in model.named_modules() if hasattr(m, "lora_A")}
    state = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if ".lora_" not in k}
    return {k: v + changes[k] if k in changes else v for k, v in state.items()}


def _take_trained_mlp(mlp: nn.Module, checkpoint: Checkpoint) -> bool:
    """Put the checkpoint's trained MLP into this one; False where it has none: a pooler is BERT's own, and not it."""
    # transformers loads what is there by its name, and the rest stays as cl_init has drawn it (SimCSE models.py)
    if "mlp.dense.weight" not in tensor_names(checkpoint.folder):
        return False
    trained = mlp_head(checkpoint.name, checkpoint.folder)
    if trained[0].weight.shape != mlp[0].weight.shape:  # type: ignore[index]
        shape = "x".join(map(str, trained[0].weight.shape))
        raise UserError(f"{checkpoint.name}: its mlp.dense is {shape}; expected one as wide as the pooled vectors.")
    mlp.load_state_dict(trained.state_dict())
    return True


def _dropout_overrides(checkpoint: Checkpoint, wanted: dict[str, float | None]) -> dict[str, float]:
    config = load_config(checkpoint)
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
