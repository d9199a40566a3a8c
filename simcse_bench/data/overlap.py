"""Which sentences stand in a text: letter by letter, normalised, inside a longer text, or but for a few words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

KINDS = {  # the closest first
    "exact": "the same characters",
    "normalised": "the same letters and digits: case, punctuation, spaces and tokenisation are not looked at",
    "inside": "all its words in their order within a longer text; from eight words on",
    "near": "the same words, in any order, but for one in ten (at least one) left out, put in or replaced",
}
LEAST_NEAR = 4  # different words of a sentence: fewer say too little about where they come from
LEAST_INSIDE = 8  # words; GPT-3's 8- to 13-grams (Brown et al. 2020, appendix C)
METHOD = 1  # of what is found; another one makes another result

# what a tokeniser does to a contraction (do n't, woman 's; Moses with spaces on both sides: woman ' s) and to brackets;
# and the stops within an abbreviation (u.s.)
_TOKENISED = re.compile(
    r"-[lr][crs]b-|\s+(?=n['’]t\b)|\s*['’]\s*(?=(?:s|t|re|ve|ll|d|m)\b)|(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)"
)
# written without spaces: every sign is a word
_ALONE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


class _Signs(dict[int, str]):
    """For ``str.translate``: letters, digits and the marks on them stay, all else separates words."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        kept = sign if unicodedata.category(sign)[0] in "LNM" else "" if sign in "'’" else " "
        self[code] = f" {kept} " if _ALONE.match(sign) else kept
        return self[code]


_SIGNS = _Signs()


def normal_words(text: str) -> list[str]:
    """The words of a text in lower case, as they are before any tokeniser: don't, do n't and DON'T are ``dont``."""
    return _TOKENISED.sub("", unicodedata.normalize("NFKC", text).casefold()).translate(_SIGNS).split()


def may_differ(words: int) -> int:
    """So many of a sentence's different words may be missing in a text that is near it, and as many come to it."""
    return max(1, words // 10)


@dataclass(frozen=True)
class Match:
    """A sentence in a text: its number, how it stands there, and how many words differ."""

    sentence: int
    kind: str
    changed: int = 0


class SentenceIndex:
    """Sentences, to be found in any number of texts; texts that are the same when normalised are one sentence.

    Nothing is missed: what is near shares at least one of the ``may_differ + 1`` rarest words of the sentence (prefix
    filtering: Bayardo et al. 2007, Xiao et al. 2008), so only sentences filed under a word of the text are compared.
    """

    def __init__(self, texts: Iterable[str], least: int = LEAST_NEAR):
        """``least`` different words, and more, make a sentence that is looked for as near; 0 for none."""
        self.numbers: dict[str, int] = {}  # text -> its sentence
        self._whole: dict[str, int] = {}  # letters and digits only -> sentence
        # the words of a sentence, one way for each way in which a tokeniser has split them -> sentence
        forms: dict[tuple[str, ...], int] = {}
        for text in texts:
            words = tuple(normal_words(text))
            number = self._whole.setdefault("".join(words), len(self._whole))
            self.numbers.setdefault(text.strip(), number)
            forms.setdefault(words, number)
        self._forms = [(words, frozenset(words), number) for words, number in forms.items()]
        self._near: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._inside: defaultdict[str, list[int]] = defaultdict(list)
        counts = Counter(word for _, different, _ in self._forms for word in different)
        for form, (words, different, _) in enumerate(self._forms):
            rarest = sorted(different, key=lambda word: (counts[word], word))
            if least and len(different) >= least:
                for word in rarest[: may_differ(len(different)) + 1]:
                    self._near[word][len(different)].append(form)
            if len(words) >= LEAST_INSIDE:
                self._inside[rarest[0]].append(form)

    def __len__(self) -> int:
        return len(self._whole)

    def find(self, text: str) -> Iterator[Match]:
        """The sentences in a text, each once, as it stands there at its closest."""
        words = normal_words(text)
        different = frozenset(words)
        found: dict[int, Match] = {}
        for match in self._find_near(different):
            if match.sentence not in found or match.changed < found[match.sentence].changed:
                found[match.sentence] = match
        found |= {match.sentence: match for match in self._find_inside(words, different)}
        whole = self._whole.get("".join(words)) if words else None
        if whole is not None:
            found[whole] = Match(whole, "exact" if text.strip() in self.numbers else "normalised")
        yield from found.values()

    def _find_inside(self, words: Sequence[str], different: frozenset[str]) -> Iterator[Match]:
        joined = f" {' '.join(words)} "
        for word in different & self._inside.keys():
            for form in self._inside[word]:
                own, _, number = self._forms[form]
                if f" {' '.join(own)} " in joined:
                    yield Match(number, "inside")

    def _find_near(self, different: frozenset[str]) -> Iterator[Match]:
        """Sentences near these words; changed: the words that are missing or come to it, whichever are more."""
        size = len(different)
        candidates = {
            form
            for word in different & self._near.keys()
            for length, forms in self._near[word].items()
            if abs(length - size) <= may_differ(length)
            for form in forms
        }
        for form in candidates:
            _, own, number = self._forms[form]
            changed = max(len(own), size) - len(own & different)
            if changed <= may_differ(len(own)):
                yield Match(number, "near", changed)
