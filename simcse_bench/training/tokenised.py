"""Tokenised rows: every sentence tokenised once, kept on disk and memory-mapped."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from simcse_bench.data.text_formats import TextRow
from simcse_bench.errors import UserError
from simcse_bench.files import ENV_CACHE, fingerprint
from simcse_bench.models.prompts import NO_PROMPT, Prompt, tokenize

TOKENS_SCHEMA: Literal[2] = 2  # 2: lines of a text file end at a lone carriage return, too
BATCH_ROWS = 1000  # rows tokenised at a time
_TOKEN, _OFFSET, _SCORE = np.dtype("<i4"), np.dtype("<i8"), np.dtype("<f4")


class CachedTokens(TypedDict):
    """meta.json beside the tokens of a text, in the cache."""

    schema: Literal[2]
    columns: int
    counts: Mapping[str, int]
    fingerprint: str  # of the other files


@dataclass(frozen=True)
class Tokenised:
    """Token ids, special tokens included, of all sentences behind each other, row by row.

    ``counts``: "rows" kept, "empty" rows dropped for an empty sentence, "truncated" sentences, "tokens".
    """

    columns: int
    tokens: NDArray[np.int32]  # (tokens,), memory-mapped
    offsets: NDArray[np.int64]  # (rows * columns + 1,): sentence s has tokens[offsets[s]:offsets[s + 1]]
    counts: Mapping[str, int]
    fingerprint: str  # 16 hex digits over tokens and offsets, and scores where there are any
    scores: NDArray[np.float32] | None = None  # (rows,), memory-mapped

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.columns

    def row(self, i: int) -> tuple[list[int], ...]:
        """Token ids of every sentence of row ``i``."""
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        ends = self.offsets[i * self.columns : (i + 1) * self.columns + 1].tolist()
        return tuple(self.tokens[a:b].tolist() for a, b in itertools.pairwise(ends))

    def lengths(self) -> NDArray[np.int64]:
        """(rows, columns): tokens of every sentence."""
        return np.diff(self.offsets).reshape(-1, self.columns)


def tokenise(
    rows: Iterable[TextRow],
    columns: int,
    tokenizer: Any,
    max_length: int,
    key: str,
    cache: Path,
    progress: Callable[[int], None] | None = None,
    prompt: Prompt = NO_PROMPT,
    scored: bool = False,
) -> Tokenised:
    """Tokenise rows into ``<cache>/tokens/<key>``, or take what is there: then neither rows nor tokenizer are touched.

    Rows with an empty field are dropped and counted. A folder that is damaged is made again.

    Args:
        rows: of ``columns`` texts each, and with ``scored`` a number behind them; read once, in constant memory.
        columns: sentences of a row.
        tokenizer: of transformers.
        max_length: most tokens of a sentence, special tokens included; longer ones are truncated and counted.
        key: hex digits that tell apart all that decides the tokens.
        cache: the cache folder, see ``files.cache_dir``.
        progress: told the number of rows read so far.
        prompt: around every sentence.
        scored: the rows have scores, which are kept beside the tokens.

    Raises:
        UserError: whatever reading the rows raises, no row left, a cache folder that cannot be written.
    """
    folder = cache / "tokens" / key
    there = _load(folder, columns, scored)
    if there is not None:
        return there
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise UserError(f"max_length {max_length}: {special} of them are special tokens; expected more than that.")
    with _writing(cache):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
    try:
        _write(rows, columns, tokenizer, max_length, temporary, cache, progress, prompt, scored)
        with _writing(cache):
            return _moved(temporary, folder, columns, scored)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _moved(temporary: Path, folder: Path, columns: int, scored: bool) -> Tokenised:
    """Move the folder into place. Another process that was faster made the same: then its folder stays."""
    for attempt in (1, 2):
        try:
            temporary.rename(folder)
            break
        except OSError:
            if _load(folder, columns, scored) is not None:
                break
            if attempt == 2:
                raise
            shutil.rmtree(folder, ignore_errors=True)  # damaged
    whole = _load(folder, columns, scored)
    if whole is None:
        raise OSError(f"{folder} was changed while it was written")
    return whole


def _write(
    rows: Iterable[TextRow],
    columns: int,
    tokenizer: Any,
    max_length: int,
    folder: Path,
    cache: Path,
    progress: Callable[[int], None] | None,
    prompt: Prompt,
    scored: bool,
) -> None:
    counts = {"rows": 0, "empty": 0, "truncated": 0, "tokens": 0}
    read = 0
    remaining = iter(rows)
    with ExitStack() as stack:
        files = [stack.enter_context(_Hashed(folder / f"{name}.bin", cache)) for name in _files(scored)]
        tokens, offsets, *scores = files
        offsets.write(np.zeros(1, _OFFSET))
        while batch := list(itertools.islice(remaining, BATCH_ROWS)):
            # differs from SimCSE: train.py makes a sentence of a missing field, " "; a row with one is dropped
            full = [row for row in batch if all(text.strip() for text in row)]
            if any(len(row) != columns + scored for row in full):
                raise ValueError(f"expected rows of {columns} sentences{' and a score' * scored}")
            lists, truncated = _encode([t for row in full for t in row[:columns]], tokenizer, max_length, prompt)
            lengths = np.array([len(ids) for ids in lists], dtype=_OFFSET)
            tokens.write(np.fromiter(itertools.chain.from_iterable(lists), dtype=_TOKEN))
            offsets.write((counts["tokens"] + np.cumsum(lengths)).astype(_OFFSET))
            for file in scores:
                file.write(np.array([float(row[-1]) for row in full], dtype=_SCORE))
            counts["rows"] += len(full)
            counts["empty"] += len(batch) - len(full)
            counts["truncated"] += truncated
            counts["tokens"] += int(lengths.sum())
            read += len(batch)
            if progress:
                progress(read)
    if not counts["rows"]:
        raise UserError(
            f"no row left to train on: {counts['empty']} of {read} rows have an empty sentence{' or score' * scored}. "
            "Check the data and the columns chosen."
        )
    fingerprint = _fingerprint(*(file.sha for file in files))
    meta: CachedTokens = {"schema": TOKENS_SCHEMA, "columns": columns, "counts": counts, "fingerprint": fingerprint}
    with _writing(cache):
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _encode(texts: list[str], tokenizer: Any, max_length: int, prompt: Prompt) -> tuple[list[list[int]], int]:
    """Token ids of the texts, and how many of these are truncated."""
    if not texts:
        return [], 0
    if prompt != NO_PROMPT:
        return tokenize(tokenizer, texts, prompt, max_length)
    settings = {"return_attention_mask": False, "return_token_type_ids": False}
    encoded = tokenizer(texts, truncation=True, max_length=max_length, **settings)
    ids: list[list[int]] = encoded["input_ids"]
    if encoded.encodings:
        return ids, sum(bool(e.overflowing) for e in encoded.encodings)
    # a tokenizer in Python does not tell: see whether those of full length were longer
    longest = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) == max_length]
    whole = tokenizer(longest, **settings)["input_ids"] if longest else []
    return ids, sum(len(tokens) > max_length for tokens in whole)


class _Hashed:
    """A file of arrays, and the SHA-256 of its bytes."""

    def __init__(self, path: Path, cache: Path):
        self._cache = cache
        self.sha = hashlib.sha256()
        with _writing(cache):
            self._stream = path.open("wb")

    def __enter__(self) -> _Hashed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, array: NDArray[Any]) -> None:
        with _writing(self._cache):
            self._stream.write(array.data)
            self._stream.flush()  # a full disk is found here, not when the file is closed
        self.sha.update(array.data)


def _files(scored: bool) -> list[str]:
    return ["tokens", "offsets", *["scores"] * scored]


def _fingerprint(*hashes: Any) -> str:
    return fingerprint(b"".join(each.digest() for each in hashes))


def _load(folder: Path, columns: int, scored: bool) -> Tokenised | None:
    """What is in the folder; None where it is missing, cut off or changed."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if (meta["schema"], meta["columns"]) != (TOKENS_SCHEMA, columns):
            return None
        counts = {name: int(meta["counts"][name]) for name in ("rows", "empty", "truncated", "tokens")}
        tokens = _mapped(folder / "tokens.bin", _TOKEN, counts["tokens"])
        offsets = _mapped(folder / "offsets.bin", _OFFSET, counts["rows"] * columns + 1)
        scores = _mapped(folder / "scores.bin", _SCORE, counts["rows"]) if scored else None
        if meta["fingerprint"] != _fingerprint(*(_sha(folder / f"{name}.bin") for name in _files(scored))):
            return None
        return Tokenised(columns, tokens, offsets, counts, meta["fingerprint"], scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mapped(path: Path, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    if path.stat().st_size != size * dtype.itemsize:
        raise ValueError(f"{path}: cut off")
    return np.memmap(path, dtype=dtype, mode="r", shape=(size,))


def _sha(path: Path) -> Any:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256")


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the tokenised data to the cache folder {cache}: {error.strerror or error}. "
            f"Set {ENV_CACHE} to a folder with enough room."
        ) from error
