"""A file's sentences -> a file of vectors, in constant memory; the same call goes on after a kill."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.corpus import Corpus, number_sentences, open_sentences
from simcse_bench.errors import Stopped, UserError
from simcse_bench.files import fingerprint, lock_folder, read_json, require_writable, write_json
from simcse_bench.models.identity import DIRECTION, deciding
from simcse_bench.progress import Say, silent
from simcse_bench.search.simcse import SimCSE

if TYPE_CHECKING:
    from simcse_bench.progress import Progress

VECTORS_SCHEMA = 1
BLOCK = 4096  # sentences embedded and written at a time
VECTOR_FORMATS = {
    ".npy": "float32 array (sentences, values)",
    ".parquet": "row (its number in the file), sentence, vector",
}


@dataclass(frozen=True)
class Encoded:
    """What stands beside the vectors, as JSON."""

    key: str  # of all that decides the vectors
    sentences: int  # and rows of the array
    blank: int  # rows without text, left out
    dimension: int
    truncated: int  # longer than the length limit; twins in a block count once
    normalized: bool
    corpus: Mapping[str, Any]
    model: Mapping[str, Any]
    schema: int = VECTORS_SCHEMA


@dataclass
class _State:
    """How far the unfinished file is."""

    key: str
    done: int = 0  # sentences
    dimension: int = 0
    truncated: int = 0


def record_path(target: Path) -> Path:
    """The JSON beside the vectors."""
    return target.with_name(target.name + ".json")


def require_target(target: Path) -> None:
    """UserError unless vectors can be written there."""
    if target.suffix.lower() not in VECTOR_FORMATS:
        known = "\n".join(f"  {suffix:<9} {text}" for suffix, text in VECTOR_FORMATS.items())
        raise UserError(f"--out {target}: unknown suffix {target.suffix!r}. Known:\n{known}")
    if target.is_dir():
        raise UserError(f"--out {target}: is a folder, expected a file.")
    require_writable(target)


def encode_file(
    model: SimCSE,
    source: str,
    target: Path,
    column: str | None = None,
    normalize: bool = True,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = silent,
) -> Encoded:
    """Embed every sentence of a file that is not blank, in its order.

    The unfinished vectors lie in ``<target>.part``; the same call goes on there, block by block. ``target`` appears
    when all is done, with ``<target>.json`` beside it. Interrupted or not, the vectors are the same.

    Args:
        model: also decides the length that sentences are cut to.
        source, column: see ``corpus.open_sentences``.
        target: .npy or .parquet, see ``VECTOR_FORMATS``.
        normalize: to length 1.
        force: replace what is there, and forget another call's unfinished part.
        progress: told (sentences done, sentences in all).
        say: told where the work goes on.

    Raises:
        UserError: bad text, with line numbers, before anything is embedded; other vectors at ``target``.
        Stopped: Ctrl-C; what is done stays.
    """
    require_target(target)
    corpus = open_sentences(source, column)
    rows, sentences = _count(corpus)
    if not sentences:
        raise UserError(f"{source}: {rows} lines, all blank; expected one sentence a line.")
    about = {"name": corpus.name, "origin": corpus.origin, "fingerprint": corpus.fingerprint}
    what = [
        VECTORS_SCHEMA,
        about["fingerprint"],
        deciding(model.provenance, DIRECTION),
        model.provenance.get("dtype"),
        normalize,
    ]
    key = fingerprint([*what, target.suffix.lower()])
    if target.exists() and not force:
        return _finished(target, key)
    part = target.with_name(target.name + ".part")
    with lock_folder(part, "writing"):
        state = _resumed(part, key, force)
        if state.done:
            say(f"going on after {state.done:,} of {sentences:,} sentences")
        try:
            _embed(model, corpus, sentences, part, state, normalize, progress)
            record = Encoded(key, sentences, rows - sentences, state.dimension, state.truncated, normalize, about,
                             dict(model.provenance))  # fmt: skip
            if open_sentences(source, column).fingerprint != corpus.fingerprint:
                raise UserError(f"{source} has changed while it was read; encode it again with --force.")
            _publish(part, target, corpus, record)
        except KeyboardInterrupt:
            raise Stopped(f"stopped after {state.done:,} sentences; the same command goes on from there", 130) from None
        except OSError as error:
            raise UserError(
                f"cannot write {part}: {error.strerror or error}. The same command goes on once that is mended."
            ) from error
        shutil.rmtree(part)
    return record


def _count(corpus: Corpus) -> tuple[int, int]:
    """Rows, and those that are not blank; a malformed one is an error here, before the work."""
    rows = blank = 0
    for (text,) in corpus.rows():
        rows += 1
        blank += not text.strip()
    return rows, rows - blank


def _finished(target: Path, key: str) -> Encoded:
    """The record of what is there already, if it is what was asked for."""
    record = read_json(record_path(target)) if record_path(target).is_file() else None
    if not isinstance(record, dict) or record.get("key") != key or set(record) != set(Encoded.__annotations__):
        raise UserError(
            f"{target}: exists, and is not of this text, model and settings. Give --force to replace it, "
            "or another --out."
        )
    return Encoded(**record)


def _resumed(part: Path, key: str, force: bool) -> _State:
    """Where the unfinished part stands; a fresh start where there is none."""
    path, data = part / "state.json", part / "vectors.npy"
    if not path.is_file() or not data.is_file():
        return _State(key)
    content = read_json(path)
    if not isinstance(content, dict) or set(content) != set(asdict(_State(key))) or content["key"] != key:
        if not force:
            raise UserError(
                f"{part}: the unfinished part of another text, model or settings. Give --force to start anew, "
                "or another --out."
            )
        path.unlink()
        return _State(key)
    state = _State(**content)
    if data.stat().st_size < 4 * state.done * state.dimension:
        raise UserError(f"{data}: shorter than {path.name} says; delete {part} to start anew.")
    return state


def _embed(
    model: SimCSE, corpus: Corpus, total: int, part: Path, state: _State, normalize: bool, progress: Progress | None
) -> None:
    """Append block after block to the part's array, each noted when it is on the disk."""
    rest = itertools.islice(number_sentences(corpus), state.done, None)
    data = part / "vectors.npy"
    with data.open("r+b" if state.done else "wb") as stream:
        if state.done:
            stream.truncate(_header(stream, total, state.dimension) + 4 * state.done * state.dimension)
            stream.seek(0, os.SEEK_END)
        while block := [text for _, text in itertools.islice(rest, BLOCK)]:
            vectors: Any = model.encode(block, return_numpy=True, normalize_to_unit=normalize)
            if not state.dimension:
                state.dimension = vectors.shape[1]
                _header(stream, total, state.dimension)
            stream.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            stream.flush()
            os.fsync(stream.fileno())
            state.done += len(block)
            state.truncated += model.stats.get("truncated", 0)
            write_json(part / "state.json", asdict(state), None)
            if progress:
                progress(state.done, total)
    if state.done != total:
        raise UserError(f"{corpus.name}: {state.done} sentences, {total} when it was counted; the file has changed.")


def _header(stream: Any, rows: int, dimension: int) -> int:
    """Write the header of the whole array at the start of the file; its length."""
    stream.seek(0)
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    np.lib.format.write_array_header_1_0(stream, shape)
    length: int = stream.tell()
    return length


def _publish(part: Path, target: Path, corpus: Corpus, record: Encoded) -> None:
    whole = part / "vectors.npy"
    if target.suffix.lower() == ".parquet":
        whole = part / "vectors.parquet"
        _write_parquet(whole, np.load(part / "vectors.npy", mmap_mode="r", allow_pickle=False), corpus, record)
    write_json(record_path(target), asdict(record))
    whole.replace(target)


def _write_parquet(path: Path, vectors: Any, corpus: Corpus, record: Encoded) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    kind = pa.list_(pa.float32(), record.dimension)
    names = [("row", pa.int64()), ("sentence", pa.string()), ("vector", kind)]
    schema = pa.schema(names, metadata={"simcse_bench": json.dumps(asdict(record))})
    with suppress(FileNotFoundError):  # of a call that was killed
        path.unlink()
    with pq.ParquetWriter(path, schema) as writer:
        for start, rows in _blocks(number_sentences(corpus)):
            numbers, texts = zip(*rows, strict=True)
            flat = pa.array(np.ascontiguousarray(vectors[start : start + len(rows)]).reshape(-1))
            columns = [pa.array(numbers, pa.int64()), pa.array(texts, pa.string()),
                       pa.FixedSizeListArray.from_arrays(flat, record.dimension)]  # fmt: skip
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _blocks(rows: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    start = 0
    while block := list(itertools.islice(rows, BLOCK)):
        yield start, block
        start += len(block)
