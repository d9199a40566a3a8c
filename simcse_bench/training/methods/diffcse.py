"""DiffCSE (Chuang et al. 2022): with a sentence's vector it is to be told which of its tokens have been replaced."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from simcse_bench.errors import UserError, first_line
from simcse_bench.models import checkpoints
from simcse_bench.models.agreement import forward_options, padded, sent
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.loading import length_limit, load_backbone
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import masked_copies
from simcse_bench.training.methods.simcse import BatchRows, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class DiffCSESettings(Settings):
    """Official run_diffcse.sh for BERT-base, whose generator is distilbert-base-uncased."""

    generator: str = setting("", "masked language model that replaces tokens: a folder or a Hub id; none: the start")
    masking: float = setting(0.3, "share of the tokens that are masked for it", high=1.0)
    replaced_weight: float = setting(0.005, "λ, of the loss of finding the replaced tokens")


class DiffCSE(SimCSE):
    """SimCSE's loss of the projected vectors + λ times the discriminator's, both views each with its own mask.

    The generator, which stays as it is, writes its likeliest token at every place of a masked sentence but the first.
    The discriminator, a copy of the starting encoder that is trained with it, gets what was written, and in place of
    the first token's embedding the projected vector, through which the encoder learns
    (official diffcse/models.py, 35 to 272; modeling_bert.py, 960). The projector takes the MLP's place, in training.

    # differs from the paper: likeliest tokens, as in the official code; there drawn ones
    # differs from the official code: padding has no loss, though its places count in the mean, to which λ belongs; the
    # generator has no dropout, there it is left in training mode; by default it is the start itself
    """

    Settings: ClassVar = DiffCSESettings
    lone_sentences: ClassVar = True
    cached_gradients: ClassVar = False  # the discriminator's graph is of the whole batch
    several_processes: ClassVar = False  # the projector's statistics are those of the whole batch
    projected: Sequence[Tensor] = ()  # of the batch at hand, with their graph

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        encoder: Any = copy.deepcopy(model.encoders[0])
        width = int(encoder.config.hidden_size)
        self.projector = nn.Sequential(
            nn.Linear(model.width, 2 * width, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.discriminator = Discriminator(encoder)
        self.generator = (load_generator(config, model),)  # in a tuple it is no module of ours: not trained, not saved

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        name, problems = config.method, super().problems(config)
        if config.mlp != "none":
            problems.append(f"method {name}: its projector takes the MLP's place, in training only; set mlp none.")
        if config.matryoshka:
            problems.append(f"method {name}: its projector takes whole vectors; not with matryoshka.")
        return problems

    @classmethod
    def models(cls, config: TrainConfig) -> Mapping[str, Any]:
        """See ``SimCSE.models``."""
        return {"generator": _checkpoint(config).provenance()} if config.method_settings.get("generator") else {}

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        self.projected = self.projector(torch.cat(list(parts))).split(len(parts[0]))
        return super().loss(self.projected, random)

    def term(self, model: SentenceModel, rows: BatchRows, own: Sequence[Tensor], seed: int) -> Tensor:
        """The discriminator's loss: cross-entropy of every token, over the places of all padded sentences."""
        vectors, self.projected = torch.cat(list(self.projected)), ()
        sentences = [row[0] for row in rows] * 2
        masked, _ = masked_copies(model, sentences, seed, self.settings.masking)
        total = vectors.new_zeros(())
        for chunk in model.chunks(sentences):
            ids, mask = padded([sentences[i] for i in chunk], model.fill)
            given, _ = padded([masked[i] for i in chunk], model.fill)
            ids, given = sent(ids, model.device), sent(given, model.device)
            real = torch.ones_like(ids) if mask is None else sent(mask, model.device)
            written = self.written(ids, given, real)
            logits = self.discriminator(written, real, vectors[chunk])  # (B, L, 2)
            losses = F.cross_entropy(logits.float().transpose(1, 2), (written != ids).long(), reduction="none")
            total = total + (losses * real).sum()
        places = len(sentences) * max(map(len, sentences))
        weighted: Tensor = self.settings.replaced_weight * total / places
        return weighted

    @torch.no_grad()
    def written(self, ids: Tensor, given: Tensor, real: Tensor) -> Tensor:
        """(B, L): the generator's tokens for masked copies; the first and the padding are those of ``ids``."""
        (generator,) = self.generator
        logits = generator(input_ids=given, attention_mask=real, **forward_options(generator)).logits
        rows = len(self.discriminator.encoder.get_input_embeddings().weight)  # the generator may have some to spare
        likeliest = logits[..., :rows].argmax(-1)
        kept = real == 0
        kept[:, 0] = True
        return torch.where(kept, ids, likeliest)


class Discriminator(nn.Module):
    """Tells of every token whether it was replaced, given a vector of the sentence as it was."""

    def __init__(self, encoder: Any):
        super().__init__()
        settings = encoder.config
        width = int(settings.hidden_size)
        first = getattr(encoder, "embeddings", None)
        if not isinstance(first, nn.Module) or getattr(settings, "embedding_size", width) != width:
            raise UserError(
                f"method diffcse: {type(encoder).__name__} has no embedding layer like BERT's, whose first output a "
                "sentence's vector could replace."
            )
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, ids: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
        """Logits (B, L, 2), the second for replaced, of tokens (B, L) and vectors (B, h)."""

        def with_vectors(layer: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
            return torch.cat([vectors[:, None].to(embedded.dtype), embedded[:, 1:]], 1)

        handle = self.encoder.embeddings.register_forward_hook(with_vectors)
        try:
            states = self.encoder(input_ids=ids, attention_mask=mask, **forward_options(self.encoder)).last_hidden_state
        finally:
            handle.remove()
        logits: Tensor = self.head(states)
        return logits


def load_generator(config: TrainConfig, model: SentenceModel) -> Any:
    """The masked language model, in evaluation mode, on the model's device.

    Raises:
        UserError: it is none, its head would be random, or its vocabulary is another than the encoder's.
    """
    checkpoint = _checkpoint(config)
    advice = "set generator to a masked language model of the encoder's vocabulary (distilbert-base-uncased for BERT)."
    try:
        backbone = load_backbone(checkpoint, torch.float32, masked_lm=True)
    except UserError as error:
        said = first_line(error).rstrip(".")
        raise UserError(f"method {config.method}: no masked language model: {said}; {advice}") from error
    if backbone.random:
        raise UserError(f"method {config.method}: {checkpoint.name} holds no language model's head; {advice}")
    if backbone.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise UserError(f"generator {checkpoint.name}: its vocabulary is not that of {config.model}; {advice}")
    if model.tokenizer.mask_token_id is None:
        raise UserError(
            f"method {config.method}: {config.model} has no mask token, in place of which tokens are written."
        )
    limit = length_limit(backbone.model, backbone.tokenizer)
    if config.max_length > limit:
        raise UserError(f"max_length {config.max_length}: generator {checkpoint.name} takes at most {limit} tokens.")
    return backbone.lm.eval().requires_grad_(False).to(model.device)


def _checkpoint(config: TrainConfig) -> Checkpoint:
    """Of the generator."""
    named = config.method_settings.get("generator")
    if not named:
        return checkpoints.resolve(config.model, config.revision, "cls", "none")
    try:
        return checkpoints.resolve(named, pooling="cls", head="none")
    except UserError as error:
        raise type(error)(f"generator {named}: {first_line(error)}") from error
