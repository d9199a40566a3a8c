"""Sentences changed by rule, for robustness: changes that keep the meaning, and changes of it.

The two kinds are CheckList's (Ribeiro et al. 2020): a change that keeps the meaning is an invariance test (INV), one of
the meaning has an expected direction (DIR). Punctuation, swapped letters and "not" are after its code
(marcotcr/checklist, checklist/perturb.py, which needs a parser); that the order of the same words makes the meaning is
PAWS' point (Zhang, Baldridge and He 2019), shuffling all of them as in SenTest (Chavan et al. 2023).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simcse_bench.errors import UserError

RATE = 0.1  # of words with a typing error
SEED = 42
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a US keyboard
_SHIFTS = (0.0, 0.25, 0.75)  # of its rows to the right, in keys
_NEAR = 1.3  # keys from middle to middle: those that touch
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LETTERS = re.compile(r"[^\W\d_]{3,}")
# signs that make no word: at a word's edge; a full stop or a comma before a digit is a number's
_PUNCTUATION = re.compile(
    r"""[!?;:…"'“”‘’«»()\[\]—–](?!\w)|(?<!\w)[!?;:…"'“”‘’«»()\[\]—–]|[.,](?!\w)|(?<!\w)[.,](?!\d)"""
)
_STATEMENTS = ("It is said that {}", "It is a fact that {}", "As it happens, {}", "In other words, {}")
_QUESTIONS = ("Please tell me: {}", "Here is my question: {}")
_FUNCTION_WORDS = frozenset(
    "a an the this that these those there it he she we they you his her its our their your my some many most all both "  # noqa: SIM905
    "one two three four several another each every no in on at by for from with after before when while as if".split()
)
_AUXILIARY = re.compile(r"\b(am|is|are|was|were|can|could|will|would|shall|should|might|must)\b")
_NEGATED = re.compile(r"\b(not|no|never|none|nobody|nothing|neither|nor|without|cannot)\b|n ?['’] ?t\b", re.IGNORECASE)


@dataclass(frozen=True)
class Perturbation:
    """A change of a sentence. ``change(sentence, rng, rate)`` gives it back as it was where the rule does not apply."""

    name: str
    does: str
    keeps: bool  # the meaning
    change: Callable[[str, random.Random, float], str]
    english: bool = False  # needs English words

    def apply(self, sentence: str, seed: int = SEED, rate: float = RATE) -> str:
        """The changed sentence: seed, rule and sentence decide it, so that equal sentences stay equal.

        Args:
            sentence: a text.
            seed: of the random choices.
            rate: share of the words that get a typing error.
        """
        rng = random.Random(f"{seed}\t{self.name}\t{sentence}")  # noqa: S311 (no secret)
        return self.change(sentence, rng, rate)


def require_setting(seed: int, rate: float) -> None:
    """UserError for a rate that is no share, or a negative seed."""
    problems = [] if 0 < rate <= 1 else [f"--typo-rate {rate:g}: expected a share of the words, above 0 and at most 1."]
    problems += [] if seed >= 0 else [f"--seed {seed}: expected a whole number from 0."]
    if problems:
        raise UserError(*problems)


def _title(sentence: str, rng: random.Random, rate: float) -> str:
    return re.sub(r"\S+", lambda word: word[0][:1].upper() + word[0][1:], sentence)


def _strip_punctuation(sentence: str, rng: random.Random, rate: float) -> str:
    return " ".join(_PUNCTUATION.sub(" ", sentence).split()) or sentence


def _add_punctuation(sentence: str, rng: random.Random, rate: float) -> str:
    last = sentence[-1:]
    return f"{sentence}{last * 2}" if last in (".", "!", "?") else f"{sentence}."


def _mistype(sentence: str, rng: random.Random, rate: float) -> str:
    """One error in each of ``rate`` of the words of at least three letters."""
    return _LETTERS.sub(lambda word: _mistyped(word[0], rng) if rng.random() < rate else word[0], sentence)


def _mistyped(word: str, rng: random.Random) -> str:
    """Two letters swapped, a letter left out, or the key beside it; left out where the others change nothing."""
    i = rng.randrange(len(word) - 1)
    error = rng.choice(("swapped", "left out", "beside"))
    if error == "swapped" and word[i] != word[i + 1]:
        return f"{word[:i]}{word[i + 1]}{word[i]}{word[i + 2 :]}"
    keys = _KEYS.get(word[i].lower(), "")
    if error == "beside" and keys:
        key = rng.choice(keys)
        return f"{word[:i]}{key.upper() if word[i].isupper() else key}{word[i + 1 :]}"
    return word[:i] + word[i + 1 :]


def _beside() -> Mapping[str, str]:
    """Key -> the keys that touch it."""
    places = {
        key: (column + shift, row)
        for row, (keys, shift) in enumerate(zip(_ROWS, _SHIFTS, strict=True))
        for column, key in enumerate(keys)
    }
    touching: dict[str, str] = dict.fromkeys(places, "")
    for (one, (x, y)), (other, (u, v)) in itertools.permutations(places.items(), 2):
        if (x - u) ** 2 + (y - v) ** 2 < _NEAR**2:
            touching[one] += other
    return touching


_KEYS = _beside()


def _frame(sentence: str, rng: random.Random, rate: float) -> str:
    if sentence.endswith("?"):
        return rng.choice(_QUESTIONS).format(sentence)
    return rng.choice(_STATEMENTS).format(_inside(sentence))


def _inside(sentence: str) -> str:
    """A statement behind others: a first word that is no name in lower case."""
    first, space, rest = sentence.partition(" ")
    return f"{first.lower()}{space}{rest}" if first.lower() in _FUNCTION_WORDS else sentence


def _negate(sentence: str, rng: random.Random, rate: float) -> str:
    """As CheckList, no question and nothing that is negated already: "not" there would not turn the meaning."""
    if sentence.endswith("?") or _NEGATED.search(sentence):
        return sentence
    negated, count = _AUXILIARY.subn(r"\1 not", sentence, count=1)
    return negated if count else f"It is not true that {_inside(sentence)}"


def _shuffle(sentence: str, rng: random.Random, rate: float) -> str:
    """The words in another order, the punctuation where it was; one word, or one again and again, stays."""
    words = _WORD.findall(sentence)
    order = [*words]
    rng.shuffle(order)
    if order == words:
        order = [*words[1:], *words[:1]]
    left = iter(order)
    return _WORD.sub(lambda _: next(left), sentence)


PERTURBATIONS = {
    p.name: p
    for p in (
        Perturbation("lower case", "all letters small", True, lambda s, rng, rate: s.lower()),
        Perturbation("upper case", "all letters capital", True, lambda s, rng, rate: s.upper()),
        Perturbation("title case", "the first letter of every word capital", True, _title),
        Perturbation("less punctuation", "signs at the edges of words removed", True, _strip_punctuation),
        Perturbation("more punctuation", "the last sign three times, or a full stop", True, _add_punctuation),
        Perturbation("typos", "letters swapped, left out, or the key beside them", True, _mistype),
        Perturbation("frame", "in a frame such as 'It is said that ...'", True, _frame, english=True),
        Perturbation("negation", "'not', or 'It is not true that ...'", False, _negate, english=True),
        Perturbation("word order", "the same words shuffled", False, _shuffle),
    )
}
