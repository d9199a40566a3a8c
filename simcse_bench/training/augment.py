"""Positives made from text: the augmentations and objectives the paper compares dropout with (its Tables 1 and 2)."""

from __future__ import annotations

import functools
import importlib
import itertools
import random
import string
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simcse_bench.data.rows import read_lines, shorten
from simcse_bench.data.text_formats import TextRow
from simcse_bench.errors import UserError, unknown
from simcse_bench.training.config import AUGMENTATIONS, OBJECTIVES

FILL_BATCH = 4096  # texts handed to the masked language model at a time; it sorts them by length
_RATED = ("crop", "word_deletion", "mlm")
_REACH = {"next_sentence": 1, "next_3_sentences": 3}
Fill = Callable[[Sequence[str]], list[str]]
_Synonyms = Callable[[str], Sequence[str]]


def make_pairs(
    rows: Iterable[TextRow],
    objective: str,
    augmentation: str,
    rate: float,
    seed: int,
    synonyms: Path | None = None,
    fill: Fill | None = None,
    reached: Container[int] | None = None,
) -> Iterator[TextRow]:
    """(sentence, positive) for rows of one sentence.

    Every row draws from a generator of its own, seeded with ``seed`` and the row's number, so that the result depends
    on nothing else. Positives are drawn once per run: a second epoch sees the same ones. Words are what stands between
    white space; a sentence of one word is its own positive. With an objective of following lines, an empty line ends a
    document and is no row itself, and the last line of a document has no positive and is left out.

    Args:
        rows: of one column. Rows with a positive of their own are passed on, if nothing is to be made of them.
        objective: a key of ``config.OBJECTIVES``.
        augmentation: a key of ``config.AUGMENTATIONS``.
        rate: share of the words or tokens that crop, word_deletion and mlm take away; the others ignore it.
        seed: of the run.
        synonyms: lines of a word, a tab, and its synonyms, separated by tabs or else by spaces. None takes WordNet.
        fill: the filler of "mlm", see ``mlm_filler``.
        reached: numbers of the rows that "mlm" fills, the others being their own positives; None: all.

    Raises:
        UserError: at once for unknown names, a rate outside [0, 1) and missing synonyms; while iterating for rows of
            more than one column.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if augmentation not in AUGMENTATIONS:
        raise unknown("augmentation", augmentation, AUGMENTATIONS)
    if objective == "self" and augmentation == "none":
        return (row if len(row) > 1 else row * 2 for row in rows)
    if objective != "self" and augmentation != "none":
        raise UserError(
            f"objective {objective!r} and augmentation {augmentation!r} each make the positive: "
            "choose objective 'self' or augmentation 'none'."
        )
    if augmentation in _RATED and not 0 <= rate < 1:
        raise UserError(f"rate {rate:g} of augmentation {augmentation!r}: expected at least 0 and less than 1.")
    numbered = enumerate(_single(rows, objective if augmentation == "none" else augmentation))
    if objective != "self":
        return _following(numbered, _REACH[objective], seed)
    if augmentation == "mlm":
        if fill is None:
            raise UserError("augmentation 'mlm' needs a masked language model to fill in the words.")
        return _filled(numbered, fill, reached)
    change: Callable[[list[str], random.Random], list[str]]
    if augmentation == "synonym":
        lookup = _wordnet() if synonyms is None else _read_synonyms(synonyms)
        change = functools.partial(_replace_one, synonyms=lookup)
    elif augmentation == "crop":
        change = functools.partial(_crop, rate=rate)
    elif augmentation == "word_deletion":
        change = functools.partial(_delete, rate=rate)
    else:
        change = _delete_one
    return ((text, _changed(text, change, _rng(seed, number))) for number, text in numbered)


def _rng(seed: int, number: int | str) -> random.Random:
    return random.Random(f"{seed}/{number}")  # noqa: S311 (no secret)


def _single(rows: Iterable[TextRow], what: str) -> Iterator[str]:
    for row in rows:
        if len(row) != 1:
            raise UserError(
                f"{what!r} makes the positive of single sentences, but the training data has {len(row)} columns. "
                "Choose one with --set columns=a, or take objective 'self' with augmentation 'none'."
            )
        yield row[0]


def _changed(text: str, change: Callable[[list[str], random.Random], list[str]], rng: random.Random) -> str:
    words = text.split()
    return " ".join(change(words, rng)) if len(words) > 1 else text


def _kept(words: Sequence[str], rate: float) -> int:
    return max(1, round((1 - rate) * len(words)))


def _crop(words: list[str], rng: random.Random, rate: float) -> list[str]:
    kept = _kept(words, rate)
    start = rng.randrange(len(words) - kept + 1)
    return words[start : start + kept]


def _delete(words: list[str], rng: random.Random, rate: float) -> list[str]:
    return [words[i] for i in sorted(rng.sample(range(len(words)), _kept(words, rate)))]


def _delete_one(words: list[str], rng: random.Random) -> list[str]:
    gone = rng.randrange(len(words))
    return words[:gone] + words[gone + 1 :]


def _replace_one(words: list[str], rng: random.Random, synonyms: _Synonyms) -> list[str]:
    """One of the words that have synonyms replaced; punctuation around it stays, and so does simple capitalisation."""
    cores = [word.strip(string.punctuation) for word in words]
    replaceable = {i: options for i, core in enumerate(cores) if core and (options := synonyms(core.lower()))}
    if not replaceable:
        return words
    chosen = rng.choice(list(replaceable))
    core, synonym = cores[chosen], rng.choice(replaceable[chosen])
    if core.isupper() and len(core) > 1:
        synonym = synonym.upper()
    elif core[0].isupper():
        synonym = synonym[0].upper() + synonym[1:]
    return [*words[:chosen], words[chosen].replace(core, synonym, 1), *words[chosen + 1 :]]


def _following(numbered: Iterable[tuple[int, str]], reach: int, seed: int) -> Iterator[TextRow]:
    """Every line with one of the ``reach`` lines behind it; near the end of a document, of those that are left."""
    window: deque[tuple[int, str]] = deque()
    for number, text in itertools.chain(numbered, [(0, "")]):  # the end of the file ends a document, too
        ends = not text.strip()
        if not ends:
            window.append((number, text))
        while len(window) > (1 if ends else reach):
            first, sentence = window.popleft()
            yield sentence, _rng(seed, first).choice(window)[1]
        if ends:
            window.clear()


def _filled(numbered: Iterable[tuple[int, str]], fill: Fill, reached: Container[int] | None) -> Iterator[TextRow]:
    def changes(number: int, text: str) -> bool:
        return (reached is None or number in reached) and len(text.split()) > 1

    rows = iter(numbered)
    while batch := list(itertools.islice(rows, FILL_BATCH)):
        chosen = [text for number, text in batch if changes(number, text)]
        filled = fill(chosen) if chosen else ()
        # of a text of control characters nothing may be left
        made = (new if new.strip() else text for text, new in zip(chosen, filled, strict=True))
        yield from ((text, next(made) if changes(number, text) else text) for number, text in batch)


def _read_synonyms(path: Path) -> _Synonyms:
    table: dict[str, list[str]] = {}
    problems = []
    for number, line in enumerate(read_lines(path, "utf-8"), 1):
        word, *rest = (field.strip() for field in line.split("\t"))
        options = [option for option in (rest if len(rest) > 1 else " ".join(rest).split()) if option]
        if word and options:
            table.setdefault(word.lower(), []).extend(options)
        elif line.strip():
            problems.append(f"{path}:{number}: expected a word, a tab, and synonyms with tabs or spaces between them.")
    if problems:
        raise UserError(*shorten(problems))
    if not table:
        raise UserError(f"{path}: no synonyms in it; expected lines of a word, a tab, and synonyms.")
    return lambda word: table.get(word, ())


def _wordnet() -> _Synonyms:
    """WordNet's synonyms, in its order: the other lemmas of all synsets of a word."""
    try:
        wordnet = importlib.import_module("nltk.corpus").wordnet
        wordnet.synsets("word")  # the data are loaded here
    except (ImportError, LookupError, OSError, ValueError) as error:  # the last two: lacking or damaged files
        lacking = "the package nltk" if isinstance(error, ImportError) else "nltk's WordNet data"
        raise UserError(
            f"augmentation 'synonym' needs WordNet, and {lacking} cannot be read: "
            '`pip install "simcse-bench[synonyms]"` and '
            "`python -m nltk.downloader wordnet`, or give a file of synonyms (lines of a word, a tab, and synonyms)."
        ) from error

    @functools.lru_cache(maxsize=100_000)
    def lookup(word: str) -> Sequence[str]:
        names = (name.replace("_", " ") for synset in wordnet.synsets(word) for name in synset.lemma_names())
        return [name for name in dict.fromkeys(names) if name.lower() != word]

    return lookup


def mlm_filler(model_folder: Path, rate: float, seed: int, device: str = "cpu", batch_size: int = 64) -> Fill:
    """A function that masks ``rate`` of a text's tokens (at least one) and fills in the likeliest ordinary tokens.

    The masks of a text are drawn from ``seed`` and the text itself. What is longer than the model takes is cut off.
    """
    import torch

    model, tokenizer, limit = _load_mlm(model_folder, device)
    special = torch.tensor(sorted(set(tokenizer.all_special_ids)), device=device)
    dropped = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # an unknown word stays one

    def masked(text: str, ids: list[int]) -> list[int]:
        ordinary = [i for i, token in enumerate(ids) if token not in dropped]
        count = max(1, round(rate * len(ordinary))) if ordinary else 0
        chosen = set(_rng(seed, text).sample(ordinary, count))
        return [tokenizer.mask_token_id if i in chosen else token for i, token in enumerate(ids)]

    @torch.inference_mode()
    def fill_batch(rows: Sequence[list[int]]) -> list[list[int]]:
        padded = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt").to(device)
        # the vocabulary is scored at the masks alone: it is most of a small model's work
        at_masks = padded["input_ids"] == tokenizer.mask_token_id
        scored = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][at_masks],))
        try:
            logits = model(**padded).logits
        finally:
            scored.remove()
        best = iter(logits.index_fill(-1, special, -torch.inf).argmax(dim=-1).tolist())
        return [[next(best) if token == tokenizer.mask_token_id else token for token in row] for row in rows]

    def fill(texts: Sequence[str]) -> list[str]:
        ids = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"] if texts else []
        rows = [masked(text, row) for text, row in zip(texts, ids, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, row in zip(places, fill_batch([rows[i] for i in places]), strict=True):
                rows[place] = row
        return [str(tokenizer.decode([token for token in row if token not in dropped])) for row in rows]

    return fill


def _load_mlm(folder: Path, device: str) -> tuple[Any, Any, int]:
    """Model, tokenizer, and the most tokens the model takes."""
    import torch

    from simcse_bench.models import checkpoints
    from simcse_bench.models.loading import length_limit, load_backbone

    checkpoint = checkpoints.resolve(str(folder), pooling="cls", head="none")
    backbone = load_backbone(checkpoint, torch.float32, masked_lm=True)
    if backbone.random or backbone.tokenizer.mask_token is None:
        lacking = f"weights ({', '.join(backbone.random[:3])}, ...)" if backbone.random else "mask token"
        raise UserError(
            f"{folder}: its masked-language head has no {lacking}; augmentation 'mlm' needs a checkpoint that was "
            "pretrained to fill in words, with its head (bert-base-uncased)."
        )
    return backbone.lm.eval().to(device), backbone.tokenizer, length_limit(backbone.model, backbone.tokenizer)
