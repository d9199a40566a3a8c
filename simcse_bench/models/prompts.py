"""What is put around a sentence before the tokenizer: prompts, and the templates of PromptBERT and PromptEOL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simcse_bench.errors import UserError, unknown

Ids = Sequence[int]  # one sentence's tokens, special ones included
SLOT = "{sentence}"
_AT_ONCE = 8192  # sentences: what the tokenizer tells of each besides its ids takes kilobytes
_OPTIONS: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


@dataclass(frozen=True)
class Prompt:
    """The text around every sentence."""

    template: str = SLOT
    counted: bool = True  # False: tokens before the sentence are left out of pooling (sentence-transformers' Pooling)
    debiased: bool = False  # the vector of the template alone is subtracted (PromptBERT, section 4.2)

    @property
    def prefix(self) -> str:
        """What comes before the sentence."""
        return self.template.partition(SLOT)[0]

    @property
    def suffix(self) -> str:
        """What comes after it."""
        return self.template.partition(SLOT)[2]

    def wrap(self, sentence: str) -> str:
        """The text that the tokenizer gets."""
        return self.template.replace(SLOT, sentence, 1)

    def provenance(self) -> dict[str, Any]:
        """What a report says of it; nothing of no prompt."""
        said = {"prompt_left_out": not self.counted, "template_bias_removed": self.debiased}
        return {} if self.template == SLOT else {"template": self.template} | {k: v for k, v in said.items() if v}


NO_PROMPT = Prompt()


@dataclass(frozen=True)
class PromptOptions:
    """What a user says of the prompt; nothing: the model's own default."""

    prompt: str | None = None
    prompt_name: str | None = None
    template: str | None = None
    debiased: bool = False


NO_WISH = PromptOptions()


def with_full_stop(sentence: str) -> str:
    """``PREPROCESSES["promptbert"]``: its evaluation.py ends every sentence, a list of tokens joined, like this."""
    return sentence if not sentence or sentence[-1] in ".?\"'" else f"{sentence}."


def in_plain_quotes(sentence: str) -> str:
    """``PREPROCESSES["prompteol"]``: so that the template's quotation mark is the only one of its kind."""
    ended = with_full_stop(sentence).replace('"', "'")
    return f"{ended[:-1]}." if ended.endswith("?") else ended


def choose_prompt(
    name: str, asked: PromptOptions, known: Mapping[str, str], default: str | None, own: Prompt
) -> Prompt:
    """The prompt that a model gets.

    Args:
        name: of the model, for messages.
        asked: by the user.
        known: the model's own prompts by name.
        default: the name of the one it uses unless told otherwise.
        own: what its folder says besides, a template or whether prompts count.

    Raises:
        UserError: several ways at once, an unknown name, a template without its slot.
    """
    given = {"--prompt": asked.prompt, "--prompt-name": asked.prompt_name, "--template": asked.template}
    said = [option for option, value in given.items() if value is not None]
    if len(said) > 1:
        raise UserError(f"{' and '.join(said)} exclude each other; give one of them.")
    if asked.template is not None and asked.template.count(SLOT) != 1:
        raise UserError(f"--template {asked.template!r}: expected {SLOT} in it, once, where the sentence goes.")
    if asked.prompt is not None and SLOT in asked.prompt:
        raise UserError(f"--prompt {asked.prompt!r}: a prompt goes before the sentence; for {SLOT} use --template.")
    if asked.prompt_name is not None and asked.prompt_name not in known:
        raise UserError(f"{name}: {unknown('prompt', asked.prompt_name, known)}")
    template = own.template
    if default:
        template = known.get(default, "") + SLOT
    if asked.prompt is not None:
        template = asked.prompt + SLOT
    elif asked.prompt_name is not None:
        template = known[asked.prompt_name] + SLOT
    elif asked.template is not None:
        template = asked.template
    return replace(own, template=template, debiased=own.debiased or asked.debiased)


def tokenize(tokenizer: Any, sentences: Sequence[str], prompt: Prompt, max_length: int) -> tuple[list[list[int]], int]:
    """Token ids of every sentence with its prompt, at most ``max_length`` each, and how many had to be cut.

    What comes after the sentence stays whole: the sentence is cut, not the template.

    Raises:
        UserError: no token at all, or no room for any of the sentence.
    """
    texts = [prompt.wrap(s) for s in sentences] if prompt.template != SLOT else list(sentences)
    blocks = (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE))
    ids: list[list[int]] = [x for block in blocks for x in tokenizer(block, **_OPTIONS)["input_ids"]]
    long = [i for i, x in enumerate(ids) if len(x) > max_length]
    if long:
        cut = [_shortened(tokenizer, sentences[i], prompt, max_length) for i in long] if prompt.suffix else None
        chosen = cut or [texts[i] for i in long]
        shorter = tokenizer(chosen, truncation=True, max_length=max_length, **_OPTIONS)["input_ids"]
        for i, x in zip(long, shorter, strict=True):
            ids[i] = x
    if any(not x for x in ids):
        raise UserError("the tokenizer gives no token at all for an empty sentence; this model cannot encode it.")
    return ids, len(long)


def _shortened(tokenizer: Any, sentence: str, prompt: Prompt, max_length: int) -> str:
    """The template around as much of the sentence's beginning as fits."""
    low, high = 0, len(sentence)  # characters that fit, and that may not
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(tokenizer(prompt.wrap(sentence[:middle]), **_OPTIONS)["input_ids"]) <= max_length
        low, high = (middle, high) if fits else (low, middle - 1)
    if not low:
        raise UserError(f"--template {prompt.template!r}: no room for a sentence within {max_length} tokens.")
    return prompt.wrap(sentence[:low])


def prefix_length(tokenizer: Any, prompt: Prompt) -> int:
    """Tokens before the sentence, a special one at the start included (sentence-transformers' _get_prompt_length)."""
    if not prompt.prefix:
        return 0
    ids = tokenizer(prompt.prefix, **_OPTIONS)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def template_ids(tokenizer: Any, prompt: Prompt) -> tuple[list[int], int]:
    """Tokens of the template without a sentence, and how many of them come before its place."""
    # RoBERTa's tokens have the space before them: the one at the end is the sentence's
    whole: list[int] = tokenizer(prompt.prefix.rstrip(), **_OPTIONS)["input_ids"]
    end = whole[-1:] if whole and whole[-1] in tokenizer.all_special_ids else []
    before = whole[: len(whole) - len(end)]
    after: list[int] = tokenizer(prompt.suffix, add_special_tokens=False, **_OPTIONS)["input_ids"]
    return [*before, *after, *end], len(before)


def mask_places(tokenizer: Any, ids: Sequence[Ids]) -> list[int]:
    """Where the mask token of every sentence is, its last one.

    Raises:
        UserError: the tokenizer has none, or a sentence has none of it.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise UserError("pooling mask: this model's tokenizer has no mask token; use last_token with a template.")
    places = [max((i for i, token in enumerate(x) if token == mask), default=-1) for x in ids]
    if -1 in places:
        raise UserError(
            f"pooling mask: no {tokenizer.mask_token} in the text; put it into a --template such as "
            f"'This sentence : \"{SLOT}\" means {tokenizer.mask_token} .'"
        )
    return places
