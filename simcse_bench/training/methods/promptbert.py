"""PromptBERT (Jiang et al. 2022): the two views are two templates around a sentence, less the templates' vectors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from simcse_bench.errors import UserError
from simcse_bench.models.agreement import sent
from simcse_bench.models.encoders import first_position, template_positions
from simcse_bench.models.prompts import SLOT, Ids, Prompt, mask_places, template_ids, tokenize
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.methods.simcse import BatchRows, Pass, Settings, SimCSE, setting

if TYPE_CHECKING:
    from simcse_bench.training.model import SentenceModel

FIRST = 'This sentence of "{sentence}" means [MASK] .'  # official run.sh, unsup-bert
SECOND = 'This sentence : "{sentence}" means [MASK] .'


@dataclass(frozen=True)
class PromptBERTSettings(Settings):
    """Official run.sh: its final test subtracts nothing (evaluation.py), though its dev scores do (models.py, 128)."""

    second_template: str = setting(SECOND, "text around a sentence as its own positive; template is the first view's")
    debiased_at_test: bool = setting(False, "subtract the template's own vector at test, too, and in dev scores")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.second_template.count(SLOT) != 1:
            raise UserError(f"second_template {self.second_template!r:.60}: expected {SLOT} in it, once.")


class PromptBERT(SimCSE):
    """Anchors in the first template, positives in the second: the vectors at the mask, less those of the templates.

    The vector of a template alone, its end at the positions that it has around a sentence, is subtracted before the MLP
    (official prompt_bert/models.py, 78 to 172), with its gradient and its dropout.

    # differs from the official code: sentences of one length share the template's dropout in a chunk, there in a
    # batch; max_length counts the template, there only the sentence's 32 tokens; dev scores are of the vectors of the
    # final test; no full stop is added to a sentence that lacks one (evaluation.py, 201); the second template alone
    # leaves room at its own slot, there at the first one's (models.py, 98): the same for its two templates
    """

    Settings: ClassVar = PromptBERTSettings
    lone_sentences: ClassVar = True

    def __init__(self, config: TrainConfig, model: SentenceModel):
        super().__init__(config, model)
        if model.tokenizer.mask_token_id is None:
            raise UserError(f"method {config.method}: {config.model} has no mask token, where the vectors are read.")
        if "position_ids" not in inspect.signature(model.encoders[0].forward).parameters:
            name = type(model.encoders[0]).__name__
            raise UserError(f"method {config.method}: {name} takes no positions, which a template's own vector needs.")
        given = {"template": config.template, "second_template": self.settings.second_template}
        first, second = (_template(model.tokenizer, name, text) for name, text in given.items())
        longest = config.max_length + len(second.ids) - len(first.ids)
        if longest > model.limit:
            raise UserError(
                f"max_length {config.max_length}: with second_template up to {longest} tokens, and the model takes "
                f"{model.limit}."
            )
        self.second = len(model.encoders)  # the same encoder's number where it reads the second template
        model.encoders.append(model.encoders[0])
        self.templates = {0: first, self.second: second}

    @classmethod
    def problems(cls, config: TrainConfig) -> list[str]:
        """See ``SimCSE.problems``."""
        problems = super().problems(config)
        if config.pooling != "mask" or not config.template:
            problems.append(
                f"method {config.method}: reads its vectors at the mask of a template; set pooling mask, and template "
                f"{FIRST!r}, say."
            )
        return problems

    def passes(self, rows: BatchRows, random: np.random.Generator) -> list[Pass]:
        """The tokens of a row's sentence, which is in the first template, in the second one as well."""
        first, second = self.templates[0], self.templates[self.second]
        anchors = [row[0] for row in rows]
        return [Pass(anchors), Pass([second.around(first.inside(ids)) for ids in anchors], self.second)]

    def pooled(self, model: SentenceModel, vectors: Tensor, sentences: Sequence[Ids], encoder: int) -> Tensor:
        """Less the template's own vector."""
        lengths = sorted({len(ids) for ids in sentences})
        own = torch.tensor([lengths.index(len(ids)) for ids in sentences])
        return vectors - self._template_vectors(model, encoder, lengths)[sent(own, vectors.device)]

    def _template_vectors(self, model: SentenceModel, encoder: int, lengths: Sequence[int]) -> Tensor:
        """(k, h): at the mask of the template alone, as around sentences of k lengths, the template included."""
        template, encode = self.templates[encoder], model.encoders[encoder]
        places = template_positions(len(template.ids), template.before, lengths, first_position(encode))
        ids = torch.tensor([template.ids]).repeat(len(lengths), 1)
        given = {"input_ids": sent(ids, model.device), "position_ids": sent(places, model.device)}
        states: Tensor = encode(**given, **model.options).last_hidden_state
        return states[:, template.mask].float()

    def prompt(self) -> Prompt:
        """See ``SimCSE.prompt``."""
        return replace(super().prompt(), debiased=self.settings.debiased_at_test)


class Template(NamedTuple):
    """A template's tokens: the special ones and the mask among them, the sentence's not."""

    ids: list[int]
    before: int  # so many come before the sentence
    mask: int  # the mask's place

    def inside(self, ids: Ids) -> Ids:
        """The sentence's tokens, of those of sentence and template."""
        return ids[self.before : len(ids) - len(self.ids) + self.before]

    def around(self, sentence: Ids) -> list[int]:
        """The sentence's tokens with the template's."""
        return [*self.ids[: self.before], *sentence, *self.ids[self.before :]]


def _template(tokenizer: Any, name: str, text: str) -> Template:
    """A template's tokens; UserError where they cannot be told from the sentence's, or have no mask."""
    prompt = Prompt(text)
    ids, before = template_ids(tokenizer, prompt)
    if text.count(tokenizer.mask_token) != 1:
        raise UserError(f"{name} {text!r:.60}: expected {tokenizer.mask_token} in it, once, where the vector is read.")
    template = Template(ids, before, mask_places(tokenizer, [ids])[0])
    ((whole,), _) = tokenize(tokenizer, ["two dogs"], prompt, 10**6)
    if template.around(template.inside(whole)) != whole:
        raise UserError(
            f"{name} {text!r:.60}: its tokens with this tokenizer are others beside a sentence; try it with spaces "
            f"around {SLOT}."
        )
    return template
