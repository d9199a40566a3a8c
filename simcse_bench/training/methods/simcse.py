"""Plain SimCSE's step, and the places where a successor changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_bench.errors import UserError
from simcse_bench.models.prompts import Ids, Prompt
from simcse_bench.training.config import TrainConfig, prompt_of
from simcse_bench.training.losses import contrastive_loss

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel

# of one batch: a row of 1 sentence (its own positive), 2 (+ positive) or more (+ hard negatives)
BatchRows = Sequence[Sequence[Ids]]
Gather = Callable[[Tensor], Tensor]  # this process's rows (n_r, d) -> all processes' (n, d)


class Pass(NamedTuple):
    """Sentences that go through an encoder together; a multiple of the batch's rows."""

    sentences: Sequence[Ids]
    encoder: int = 0
    dropout: bool = True
    rate: float | None = None  # probability of all its dropout, in place of the run's


def setting(default: Any, help: str, low: float = 0.0, high: float = float("inf")) -> Any:
    """A field of a method's ``Settings``: its default (the paper's), what it is, and the values it may have."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """A method's settings; each field is made by ``setting``."""

    def __post_init__(self) -> None:
        problems = []
        for name, each in self.__dataclass_fields__.items():
            value, low, high = getattr(self, name), each.metadata["low"], each.metadata["high"]
            kind = type(each.default)
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (
                kind is bool
            ):
                problems.append(f"{name} {value!r:.60}: expected {_KINDS[kind]}.")
            elif kind in (int, float) and not low <= value <= high:
                limit = f"from {low:g} to {high:g}" if high < float("inf") else f"at least {low:g}"
                problems.append(f"{name} {value!r:.60}: expected {limit}.")
        if problems:
            raise UserError(*problems)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class SimCSE(nn.Module):
    """Gao, Yao and Chen 2021. A successor overrides what it changes.

    What happens with a batch, in this order: ``begin``, the vectors of ``passes`` (each chunk's through ``pooled`` and
    the MLP), ``loss`` of them, ``term``, the gradients, ``end``; after the update of the weights, ``updated``. With
    cached gradients ``loss`` is given vectors without a graph behind them.

    Parameters of its own are trained. All parameters and buffers are saved in checkpoints, so that a resumed run is the
    undisturbed one; whatever is drawn at random is drawn from the generators given, which each batch seeds anew.
    """

    Settings: ClassVar[type[Any]] = Settings
    lone_sentences: ClassVar[bool] = False  # only rows of one sentence, which is its own positive
    cached_gradients: ClassVar[bool] = True  # whether they are right for it
    several_processes: ClassVar[bool] = True
    cosine_only: ClassVar[bool] = False  # not with similarity dot
    texts: ClassVar[bool] = False  # ``begin`` needs the rows' texts
    done: float = 0.0  # share of the run's updates that come before this one
    scored: ClassVar[bool] = False  # rows are two sentences with a score, not a sentence with its positive
    scores: Tensor  # with ``scored``, (n,): those of all processes' rows, there before ``begin``

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__()
        self.config = config
        self.settings: Any = self.Settings(**config.method_settings)

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """What of the settings this method cannot work with."""
        name, problems = config.method, []
        if cls.lone_sentences and (config.makes_positives or config.same_mask != "no" or config.encoders == 2):
            problems.append(f"method {name}: with objective self, augmentation none, same_mask no and encoders 1 only.")
        if cls.cosine_only and config.similarity != "cosine":
            problems.append(f"method {name}: is a change of the cosine; not with similarity {config.similarity}.")
        if config.cached_gradients and not cls.cached_gradients:
            problems.append(f"method {name}: not with cached_gradients; it takes more of a batch than its vectors.")
        if name != "simcse" and config.hard_negative_weight != 1:
            problems.append(f"method {name}: does not weigh hard negatives; set hard_negative_weight 1.")
        if name != "simcse" and config.symmetric:
            problems.append(f"method {name}: has no symmetric form.")
        if name != "simcse" and config.false_negative_threshold is not None:
            problems.append(f"method {name}: takes all of a batch for negatives; not with false_negative_threshold.")
        return problems

    @classmethod
    def models(cls, config: TrainConfig) -> Mapping[str, Any]:
        """Provenance of other models that it reads, by the settings that name them: they decide the weights, too."""
        return {}

    @classmethod
    def score_problems(cls, config: TrainConfig, scores: NDArray[np.float32]) -> list[str]:
        """With ``scored``, what of all rows' scores (rows,) this method cannot work with."""
        return []

    def begin(self, model: SentenceModel, rows: BatchRows, texts: Sequence[str], gather: Gather) -> None:
        """What needs no gradient, before the batch: a teacher's view of it, say."""

    def passes(self, rows: BatchRows, random: np.random.Generator) -> list[Pass]:
        """What is embedded: the anchors, then the positives, then the hard negatives, each as many as there are rows.

        ``random`` differs between processes.
        """
        config = self.config
        anchors = [row[0] for row in rows]
        others = [row[k] for k in range(1, len(rows[0])) for row in rows]
        if config.views(len(rows[0])) == 2:
            others = anchors
        if config.encoders == 2 or config.same_mask == "replay":
            return [Pass(anchors), Pass(others, config.encoders - 1)]
        return [Pass([*anchors, *others])]

    def pooled(self, model: SentenceModel, vectors: Tensor, sentences: Sequence[Ids], encoder: int) -> Tensor:
        """What goes into the MLP, of sentences' pooled vectors (n, h) from an encoder."""
        return vectors

    def loss(self, parts: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """The loss of all processes' vectors, a scalar.

        Args:
            parts: (n, d) each, as ``passes`` has them: anchors, positives, hard negatives.
            random: the same in all processes.
        """
        config = self.config
        return contrastive_loss(
            parts[0],
            parts[1] if len(parts) > 1 else parts[0],  # same_mask copy: z2 = z1
            parts[2:],
            kind=config.similarity,
            temperature=config.temperature,
            hard_negative_weight=config.hard_negative_weight,
            symmetric=config.symmetric,
            false_negative_threshold=config.false_negative_threshold,
        )

    def term(self, model: SentenceModel, rows: BatchRows, own: Sequence[Tensor], seed: int) -> Tensor | None:
        """A term of its own with gradients; ``own``: this process's parts. None: no such term."""
        return None

    def end(self, parts: Sequence[Tensor], random: torch.Generator) -> None:
        """After the gradients of a batch, in training; ``parts`` as in ``loss``, detached."""

    def updated(self, model: SentenceModel) -> None:
        """After an update of the weights."""

    def prompt(self) -> Prompt:
        """What is put around every sentence at test."""
        return prompt_of(self.config)
