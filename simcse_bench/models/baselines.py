"""Baselines: the average of word vectors, given or random, and BERT-whitening on top of any encoder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.rows import read_lines
from simcse_bench.errors import UserError
from simcse_bench.files import sha256, shown_name

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Array, Encoder

PREFIX, RANDOM = "word-vectors:", "random-words"
DIMENSION = 300  # of random vectors, as GloVe's


class WordVectors:
    """Mean of the word vectors of a sentence (SentEval examples/bow.py), from GloVe text or .npy + word list.

    A sentence without any known word is the zero vector, as in SentEval: its cosines are 0; ``stats`` counts them.
    """

    def __init__(self, file: Path):
        """``file``: "word v1 v2 ..." lines (GloVe, fastText), or an (n, d) .npy with ``words.txt`` beside it."""
        if not file.is_file():
            raise UserError(f"{PREFIX}{file}: no such file; expected GloVe text, or a .npy with words.txt beside it.")
        self.file = file
        self.words = _word_list(file) if file.suffix == ".npy" else None
        self.stats: dict[str, int] = {}
        self.provenance: dict[str, Any] = {
            "name": f"{PREFIX}{shown_name(str(file))}",
            "pooling": "mean of word vectors",
            "head": "none",
            "files": {f.name: sha256(f) for f in (file, self.words) if f},
        }

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d); only the vectors that the sentences need are read."""
        spellings = {w: _spellings(w) for s in sentences for w in s.split()}
        vectors = self._read({form for forms in spellings.values() for form in forms})
        if not vectors:
            raise UserError(f"{PREFIX}{self.file}: it holds none of the words of the sentences.")
        hits = {word: _look_up(forms, vectors) for word, forms in spellings.items()}
        out = np.zeros((len(sentences), len(next(iter(vectors.values())))), dtype=np.float32)
        for row, sentence in zip(out, sentences, strict=True):
            known = [vector for word in sentence.split() for vector in hits[word]]
            if known:
                row[:] = np.mean(known, axis=0)
        zero, unknown_words = int((~out.any(axis=1)).sum()), sum(not vectors for vectors in hits.values())
        self.stats = {"sentences": len(sentences), "zero_vectors": zero, "unknown_words": unknown_words}
        return out

    def _read(self, wanted: set[str]) -> dict[str, NDArray[np.float32]]:
        if self.words is not None:
            try:
                table = np.load(self.file, mmap_mode="r", allow_pickle=False)
                words = self.words.read_text(encoding="utf-8").split("\n")
            except ValueError as error:  # UnicodeDecodeError is one
                raise UserError(f"{self.file} or {self.words}: not readable ({error}).") from error
            words = words[:-1] if words and not words[-1] else words
            if not isinstance(table, np.ndarray):
                raise UserError(f"{self.file}: several arrays (.npz), expected one (.npy).")
            if table.ndim != 2 or len(words) != len(table):
                raise UserError(f"{self.file} has shape {table.shape}, {self.words} has {len(words)} words.")
            return {w: np.asarray(table[i], dtype=np.float32) for i, w in enumerate(words) if w in wanted}
        vectors: dict[str, NDArray[np.float32]] = {}
        dimension = None
        with self.file.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2:  # word2vec and fastText begin with "count dimension"
                    continue
                dimension = dimension or len(fields) - 1
                word = " ".join(fields[:-dimension])  # a few GloVe words hold spaces
                if word in wanted:
                    try:
                        vectors[word] = np.array(fields[-dimension:], dtype=np.float32)
                    except ValueError:
                        raise UserError(f"{self.file}:{number}: expected a word and {dimension} numbers.") from None
        return vectors


class RandomWords(WordVectors):
    """Mean of random word vectors: what the words in common alone are worth (Wieting and Kiela 2019).

    A word's vector is drawn from a normal distribution seeded with the word, in lower case: the same on every machine.
    """

    def __init__(self, dimension: int = DIMENSION):
        """``dimension``: of the vectors."""
        self.dimension = dimension
        self.file = Path(RANDOM)
        self.stats = {}
        self.provenance = {
            "name": f"{RANDOM}-{dimension}",
            "pooling": "mean of word vectors",
            "head": "none",
            "files": {"none": f"normal, SHA-256 of the word, {dimension} dimensions"},
        }

    def _read(self, wanted: set[str]) -> dict[str, NDArray[np.float32]]:
        """A vector for every form that is one lower-case word or sign; other forms are looked up in parts."""
        return {w: self._vector(w) for w in wanted if re.fullmatch(r"\w+|[^\w\s]", w) and w == w.lower()}

    def _vector(self, word: str) -> NDArray[np.float32]:
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)


def is_baseline(model: str) -> bool:
    """Whether a name means a baseline instead of a checkpoint."""
    return model.startswith(PREFIX) or model.partition(":")[0] == RANDOM


def named_baseline(model: str) -> WordVectors:
    """The baseline that ``word-vectors:FILE``, ``random-words`` or ``random-words:DIMENSION`` names."""
    if model.startswith(PREFIX):
        return WordVectors(Path(model.removeprefix(PREFIX)))
    _, colon, dimension = model.partition(":")
    if colon and not (dimension.isdecimal() and int(dimension) > 1):
        raise UserError(f"{model}: expected {RANDOM}, or {RANDOM}:N with at least 2 dimensions.")
    return RandomWords(int(dimension) if colon else DIMENSION)


class Whitened:
    """BERT-whitening (Su et al. 2021) on top of any encoder: (x - mean) W with identity covariance on given text."""

    def __init__(self, encoder: Encoder, text: Path):
        """``text``: one sentence a line; mean and covariance are fitted on its embeddings."""
        try:
            sentences = [line.strip() for line in read_lines(text, "utf-8") if line.strip()]
        except UserError as error:
            raise UserError(*(f"--whiten {problem}" for problem in error.problems)) from error
        self.encoder = encoder
        self.mean, self.kernel = fit_whitening(encoder.encode(sentences), str(text))
        self.provenance: dict[str, Any] = dict(getattr(encoder, "provenance", {}))
        self.provenance |= whitening_provenance(text) | {"whiten_sentences": len(sentences)}
        self.stats: Mapping[str, int] = {}

    def encode(self, sentences: Sequence[str]) -> Array:
        """Whitened embeddings (n, d')."""
        vectors = self.encoder.encode(sentences)
        self.stats = getattr(self.encoder, "stats", {})
        return ((vectors - self.mean) @ self.kernel).astype(np.float32)


def whitening_provenance(text: Path) -> dict[str, Any]:
    """What the report says of the text that the whitening is fitted on."""
    if not text.is_file():
        raise UserError(f"--whiten {text}: no such file; expected text with one sentence a line.")
    return {"whiten": {shown_name(str(text)): sha256(text)}}


def fit_whitening(vectors: Array, source: str = "the text") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (d,) and kernel W = U S^(-1/2) (d, d') of the covariance U S U^T; directions without variance are dropped.

    Source: Su et al. 2021, equation 6 (covariance by SVD), all dimensions kept.
    """
    if len(vectors) < 2:
        raise UserError(f"--whiten {source}: {len(vectors)} sentences; a covariance needs at least 2.")
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    u, s, _ = np.linalg.svd(centred.T @ centred / len(vectors))
    keep = s > s[0] * 1e-10
    if not s[0] > 0:
        raise UserError(f"--whiten {source}: all its embeddings are the same.")
    return mean, u[:, keep] / np.sqrt(s[keep])


def _word_list(file: Path) -> Path:
    own = file.with_suffix(".txt")
    for path in (own, file.with_name("words.txt")):
        if path.is_file():
            return path
    raise UserError(f"{file}: no word list beside it; expected {own.name} or words.txt, one word a line.")


def _spellings(word: str) -> tuple[str, ...]:
    """The word, its lower case, then its parts at punctuation (raw text is not tokenised)."""
    return (word, word.lower(), *re.findall(r"\w+|[^\w\s]", word.lower()))


def _look_up(spellings: tuple[str, ...], vectors: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    # differs from SentEval: bow.py takes the exact word only; a word it does not know is tried
    # in lower case and then in parts, so that one vector file serves cased and raw text
    whole = [vectors[form] for form in spellings[:2] if form in vectors]
    return whole[:1] or [vectors[part] for part in spellings[2:] if part in vectors]
