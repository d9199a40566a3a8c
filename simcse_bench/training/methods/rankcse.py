"""RankCSE (Liu et al. 2023): both views rank the batch's sentences alike, and as one or two teachers rank them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from simcse_bench.errors import UserError, first_line, unknown
from simcse_bench.models.encoders import Encoder
from simcse_bench.models.open import Model, open_model
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.losses import similarity
from simcse_bench.training.methods.simcse import BatchRows, Gather, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel


@dataclass(frozen=True)
class RankCSESettings(Settings):
    """Of perceptiveshawty/RankCSE, run_rankcse.sh: its authors are others than the paper's, whose code is not public.

    Its teachers are voidism/diffcse-bert-base-uncased-sts and princeton-nlp/unsup-simcse-bert-large-uncased.
    """

    teacher: str = setting("", "model whose ranking is learned: whatever `eval` takes")
    teacher2: str = setting("", "a second one, whose cosines are averaged with the first one's; none: the first alone")
    teacher_pooling: str = setting("", "its pooling, without a head; none: the one that its files or the catalog say")
    teacher2_pooling: str = setting("", "the second one's")
    teacher_weight: float = setting(0.33, "α: the first teacher's share where there are two", high=1.0)
    distillation: str = setting("listmle", "how the ranking is learned: listnet or listmle")
    distillation_weight: float = setting(1.0, "γ, of it; 0: without a teacher")
    consistency_weight: float = setting(1.0, "β, of the divergence between the two views' rankings")
    consistency_temperature: float = setting(0.05, "τ1, of both views in it", low=0.001)
    ranking_temperature: float = setting(0.05, "τ2, of the trained model in the distillation", low=0.001)
    teacher_temperature: float = setting(
        0.025, "τ3, of the teacher in listnet; its README: the paper has τ2 / 2", low=0.001
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distillation not in _DISTILLATIONS:
            raise unknown("distillation", self.distillation, _DISTILLATIONS)


class RankCSE(SimCSE):
    """SimCSE's loss + β L_consistency + γ L_rank, all of the cosines between the two views, means over the sentences.

    # differs from the community's code: a true Jensen-Shannon divergence, there a bonus for entropy (rankcse/models.py,
    # 48 to 61); β counts, there it is not used; listnet has a τ3, there τ2 (trainers.py, 508 to 528), and a τ2 of its
    # own, there SimCSE's temperature; listmle's sums of exponentials are exact, there 1e-7 of a row's largest is added
    # (models.py, 106); teachers read whole texts, there the tokens that the trained model gets
    """

    Settings: ClassVar = RankCSESettings
    lone_sentences: ClassVar = True
    cosine_only: ClassVar = True
    texts: ClassVar = True
    taught: Tensor  # (n, n), the teachers' cosines of all processes' sentences of the batch at hand

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        self.teachers = [_loaded(config, name, str(model.device)) for name in _teachers(config)]

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        problems, settings = super().problems(config), cls.Settings(**config.method_settings)
        if not settings.teacher and (settings.distillation_weight or settings.teacher2):
            problems.append(
                f"method {config.method}: learns from a teacher; set teacher to a model that `eval` takes, or "
                "distillation_weight 0 for its ranking consistency alone."
            )
        return problems

    @classmethod
    def models(cls, config: TrainConfig) -> Mapping[str, Any]:
        """See ``SimCSE.models``."""
        return {name: _opened(config, name).provenance for name in _teachers(config)}

    def begin(self, model: SentenceModel, rows: BatchRows, texts: Sequence[str], gather: Gather) -> None:
        """The teachers' cosines."""
        if self.teachers:
            vectors = [gather(torch.from_numpy(each.encode(texts)).to(model.device)) for each in self.teachers]
            cosines = [similarity(each, each, "cosine", 1.0) for each in vectors]
            self.taught = cosines[0] if len(cosines) == 1 else cosines[1].lerp(cosines[0], self.settings.teacher_weight)

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See ``SimCSE.loss``."""
        settings: RankCSESettings = self.settings
        loss = super().loss(parts, random)
        cosines = similarity(parts[0], parts[1], "cosine", 1.0)
        loss = loss + settings.consistency_weight * consistency(cosines / settings.consistency_temperature)
        if self.teachers:
            taught = self.taught / settings.teacher_temperature
            learned = _DISTILLATIONS[settings.distillation](cosines / settings.ranking_temperature, taught)
            loss = loss + settings.distillation_weight * learned
        return loss


def consistency(logits: Tensor) -> Tensor:
    """Mean over i of JS(softmax(row i) || softmax(column i)) of logits (n, n): view 1 against 2, and 2 against 1."""
    one, two = F.log_softmax(logits, 1), F.log_softmax(logits.T, 1)
    middle = torch.logaddexp(one, two) - math.log(2)
    return (one.exp() * (one - middle) + two.exp() * (two - middle)).sum(1).mean() / 2


def listnet(logits: Tensor, taught: Tensor) -> Tensor:
    """Mean over i of -Σ_j softmax(taught_i)_j log softmax(logits_i)_j, without j = i; both (n, n).

    # differs from the paper: the own positive is left out, as in the community's code (rankcse/models.py, 73 to 77);
    # of a softmax at τ3 it would take nearly all
    """
    n = len(logits)
    others = ~torch.eye(n, dtype=torch.bool, device=logits.device)
    logits, taught = (x[others].view(n, n - 1) for x in (logits, taught))
    return -(taught.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def listmle(logits: Tensor, taught: Tensor) -> Tensor:
    """Mean over i of -log P(the order of taught_i | logits_i) by Plackett and Luce, a sum over places; both (n, n)."""
    ordered = logits.gather(1, taught.argsort(dim=1, descending=True, stable=True))
    rest = ordered.flip(1).logcumsumexp(1).flip(1)  # of a place and all after it
    return (rest - ordered).sum(1).mean()


_DISTILLATIONS = {"listnet": listnet, "listmle": listmle}


def _teachers(config: TrainConfig) -> list[str]:
    """The settings that name a teacher."""
    return [name for name in ("teacher", "teacher2") if config.method_settings.get(name)]


def _opened(config: TrainConfig, name: str, device: str = "auto") -> Model:
    """What is known of a teacher before it is loaded.

    Raises:
        UserError: it is not there, or does not say its pooling.
    """
    named, pooling = config.method_settings[name], config.method_settings.get(f"{name}_pooling") or None
    try:
        return open_model(named, pooling=pooling, head="none" if pooling else None, device=device)
    except UserError as error:
        raise _refused(name, named, error) from error


def _loaded(config: TrainConfig, name: str, device: str) -> Encoder:
    opened = _opened(config, name, device)
    try:
        return opened.load()
    except UserError as error:
        raise _refused(name, config.method_settings[name], error) from error


def _refused(name: str, named: str, error: UserError) -> UserError:
    said = first_line(error)
    advice = f" Set {name}_pooling." if "does not say its pooling" in said else ""
    return type(error)(f"{name} {named}: {said}{advice}")
