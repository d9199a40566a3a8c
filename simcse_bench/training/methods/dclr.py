"""DCLR (Zhou et al. 2022): noise that is made harder as negatives, and no negatives that mean the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.models.agreement import sent
from simcse_bench.models.encoders import Encoder, TransformerEncoder
from simcse_bench.models.open import open_model
from simcse_bench.training.config import TrainConfig, prompt_of
from simcse_bench.training.losses import find_own, similarity
from simcse_bench.training.methods.simcse import BatchRows, Gather, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel

_START = "start"


@dataclass(frozen=True)
class DCLRSettings(Settings):
    """Official run.sh for BERT-base, which has batches of 128 and 3 epochs, and a trained SimCSE as the complement.

    Of an encoder that was never trained for sentences nearly all cosines may be above φ. The noise is of length √d or
    so, and each step of its ascent of ``ascent_rate``: as released it hardly moves.
    """

    complement: str = setting(
        _START,
        "model that knows sentences of one meaning, as `eval` takes it; start: the one that training starts from",
    )
    threshold: float = setting(
        0.9, "φ: no negative whose cosine by it is as high; above 1: all are, without it", low=-1.0
    )
    noise: float = setting(1.0, "vectors of noise for each row of the batch", high=1000.0)
    ascent_steps: int = setting(4, "of the noise up the gradient of the loss", high=1000)
    ascent_rate: float = setting(0.001, "length of each of them")


class DCLR(SimCSE):
    """Gaussian noise, moved to where the loss is higher, is a negative of all anchors; other sentences may be none.

    # differs from the paper: the positive stays in the denominator, as in SimCSE; the noise goes up the official
    # code's gradient, that of SimCSE's loss with the noise, and not up one of the noise's logits alone
    # differs from the official code (simcse/models.py, 594 to 728): the cross-entropy of rows, there a binary one of
    # all their probabilities; a logit of weight 0 is -inf, there 0; a cosine of φ itself has weight 0, there 1;
    # the complement has no dropout and sees no padding; noise without a gradient stays, there it becomes 0
    """

    Settings: ClassVar = DCLRSettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True
    texts: ClassVar = True
    alike: Tensor  # (n, n), the complement's cosines of all processes' sentences of the batch at hand

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        self.complement: Encoder | None = None
        if self.settings.threshold <= 1:
            named = self.settings.complement
            device = str(model.device)
            self.complement = frozen(model) if named == _START else open_model(named, device=device).load()

    @classmethod
    def models(cls, config: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
        """See ``SimCSE.models``."""
        settings = cls.Settings(**config.method_settings)
        read = settings.threshold <= 1 and settings.complement != _START
        return {"complement": open_model(settings.complement).provenance} if read else {}

    def begin(self, model: SentenceModel, rows: BatchRows, texts: Sequence[str], gather: Gather) -> None:
        """The complement's view of the sentences."""
        if self.complement is not None:
            vectors = gather(sent(torch.from_numpy(self.complement.encode(texts)), model.device))
            self.alike = similarity(vectors, vectors, "cosine", 1.0)

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        settings, temperature = self.settings, self.config.temperature
        one, two = parts
        logits = similarity(one, two, "cosine", temperature)
        noise = sent(torch.randn(round(settings.noise * len(one)), one.shape[1], generator=random), one.device)
        if len(noise):
            noise = risen(noise, one, logits, temperature, settings.ascent_steps, settings.ascent_rate)
        if self.complement is not None:
            own = torch.eye(len(one), dtype=torch.bool, device=one.device)
            logits = logits.masked_fill((self.alike >= settings.threshold) & ~own, -torch.inf)
        logits = torch.cat([logits, similarity(one, noise, "cosine", temperature)], 1)
        return find_own(logits)


def frozen(model: SentenceModel) -> TransformerEncoder:
    """The encoder as it is now, a copy, with its pooling alone."""
    return TransformerEncoder(
        copy.deepcopy(model.encoders[0]),
        model.tokenizer,
        {"none": None},
        (model.config.pooling, "none"),
        model.config.max_length,
        prompt=prompt_of(model.config),
        first_token=model.first_token,
        padding=model.padding,
    )


def risen(noise: Tensor, anchors: Tensor, logits: Tensor, temperature: float, steps: int, rate: float) -> Tensor:
    """Noise (m, d) after steps of a fixed length up the gradient of the loss; no gradient flows through it.

    Args:
        noise: where it starts.
        anchors: (n, d).
        logits: (n, n), of the anchors with the positives.
        temperature: of the cosines.
        steps, rate: of the ascent.
    """
    anchors, logits = anchors.detach(), logits.detach()
    for _ in range(steps):
        noise = noise.requires_grad_()
        loss = find_own(torch.cat([logits, similarity(anchors, noise, "cosine", temperature)], 1))
        (gradient,) = torch.autograd.grad(loss, noise)
        noise = (noise + rate * F.normalize(gradient)).detach()
    return noise
