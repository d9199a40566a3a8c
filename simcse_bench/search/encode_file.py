"""A file's sentences -> a file of vectors, in constant memory; the same call goes on after a kill."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.corpus import Corpus, number_sentences, open_sentences
from simcse_bench.errors import Stopped, UserError
from simcse_bench.files import fingerprint, lock_folder, require_writable, sha256, write_json
from simcse_bench.models.identity import DIRECTION, deciding
from simcse_bench.progress import Say, silent
from simcse_bench.schema import read_record
from simcse_bench.search.simcse import SimCSE

if TYPE_CHECKING:
    from simcse_bench.progress import Progress

BLOCK = 4096  # sentences embedded and written at a time
# in the unfinished part
_STATE, _ARRAY, _TABLE, _RECORD = _PARTS = "state.json", "vectors.npy", "vectors.parquet", "record.json"
_DAMAGED = "damaged, or not the state of an unfinished file of vectors. Give --force to start anew, or another --out."
_NOT_A_RECORD = "not the record of a file of vectors. Give --force to replace it, or another --out."
Embedded = tuple[NDArray[np.float32], int]  # the vectors of a block, and how many of its sentences were cut off
Embedder = Callable[[SimCSE, Iterator[list[str]], bool], Iterator[Embedded]]  # (model, blocks, normalize), in order
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
    file: str  # SHA-256 of the vectors' file: the record is written before the file takes its name
    schema: Literal[2] = 2


@dataclass
class _State:
    """How far the unfinished file is; written before anything else, so that it marks the folder as ours."""

    key: str
    done: int = 0  # sentences
    dimension: int = 0
    truncated: int = 0
    digest: str = ""  # of the numbers above and the vectors so far

    def sealed(self, vectors: Any) -> str:
        """The digest; ``vectors`` is the SHA-256 of the vectors so far."""
        return fingerprint([vectors.hexdigest(), self.done, self.dimension, self.truncated])


def record_path(target: Path) -> Path:
    """The JSON beside the vectors."""
    return target.with_name(target.name + ".json")


def part_path(target: Path) -> Path:
    """The folder of the unfinished vectors."""
    return target.with_name(target.name + ".part")


def require_target(target: Path, force: bool = True) -> None:
    """UserError unless vectors can be written there; what lies in the way and is not ours needs ``force``.

    A ``.part`` folder with anything of another's is refused, forced or not.
    """
    if target.suffix.lower() not in VECTOR_FORMATS:
        known = "\n".join(f"  {suffix:<9} {text}" for suffix, text in VECTOR_FORMATS.items())
        raise UserError(f"--out {target}: unknown suffix {target.suffix!r}. Known:\n{known}")
    if target.exists() and not target.is_file():
        raise UserError(f"--out {target}: is a folder or a pipe, expected a file.")
    part = part_path(target)
    if part.exists() and not _is_part(part):
        raise UserError(f"{part}: is no unfinished part of a file of vectors. Move it away, or choose another --out.")
    record = record_path(target)
    if record.exists() and not record.is_file():
        raise UserError(f"{record}: is a folder or a pipe, where a record would stand. Choose another --out.")
    if record.exists() and not target.exists() and not force:
        read_record(record, Encoded, _NOT_A_RECORD)
    require_writable(target)


def _is_part(part: Path) -> bool:
    """Whether a folder is an unfinished part: nothing of another's is in it, and its state is, if anything."""
    names = {p.name for p in part.iterdir() if not _is_scratch(p)} if part.is_dir() else {""}
    whole = part.is_dir() and all(p.is_file() and not p.is_symlink() for p in part.iterdir())
    return whole and names <= {*_PARTS} and (not names or _STATE in names)


def _is_scratch(path: Path) -> bool:
    """Whether it is a lock, or what was being written when the command was killed."""
    return path.name == ".lock" or path.name.startswith((f".{_STATE}-", f".{_RECORD}-"))


def embed_here(model: SimCSE, blocks: Iterator[list[str]], normalize: bool) -> Iterator[Embedded]:
    """Block after block, in this process."""
    return (embed_block(model, block, normalize) for block in blocks)


def embed_block(model: SimCSE, block: Sequence[str], normalize: bool) -> Embedded:
    """The vectors of some sentences."""
    vectors: Any = model.encode(block, return_numpy=True, normalize_to_unit=normalize)
    return vectors, model.stats.get("truncated", 0)


def encode_file(
    model: SimCSE,
    source: str,
    target: Path,
    column: str | None = None,
    normalize: bool = True,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = silent,
    embed: Embedder = embed_here,
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
        embed: what embeds the blocks of sentences, ``ray.embed_on_ray`` for one; who begins may be another than who
            goes on.

    Raises:
        UserError: bad text, with line numbers, before anything is embedded; other vectors at ``target``.
        Stopped: Ctrl-C; what is done stays.
    """
    require_target(target, force)
    corpus = open_sentences(source, column)
    rows, sentences = _count(corpus)
    if not sentences:
        raise UserError(f"{source}: {rows} lines, all blank; expected one sentence a line.")
    about = {"name": corpus.name, "origin": corpus.origin, "fingerprint": corpus.fingerprint}
    what = [
        Encoded.schema,
        about["fingerprint"],
        deciding(model.provenance, DIRECTION),
        model.provenance.get("dtype"),
        normalize,
    ]
    key = fingerprint([*what, target.suffix.lower()])
    part = part_path(target)
    if target.exists() and not force:
        record = _finished(target, (key, sentences, rows - sentences, normalize))
        if record is not None:
            if part.is_dir() and (_is_part_of(part, key) or all(map(_is_scratch, part.iterdir()))):
                # the command was killed while it removed it
                with lock_folder(part, "writing"):
                    _discard(part)
            return record
    with lock_folder(part, "writing"):
        state, hashed = _resumed(part, key, sentences, force)
        if state.done:
            say(f"going on after {state.done:,} of {sentences:,} sentences")
        try:
            _append(lambda blocks: embed(model, blocks, normalize), corpus, sentences, part, state, hashed, progress)
            if open_sentences(source, column).fingerprint != corpus.fingerprint:
                raise UserError(f"{source} has changed while it was read; encode it again with --force.")
            record = Encoded(key, sentences, rows - sentences, state.dimension, state.truncated, normalize, about,
                             dict(model.provenance), file="")  # fmt: skip
            record = _publish(part, target, corpus, record)
        except UserError:
            if not state.done:  # nothing to go on from, and nothing that another command must be kept from
                _discard(part)
            raise
        except KeyboardInterrupt:
            raise Stopped(f"stopped after {state.done:,} sentences; the same command goes on from there", 130) from None
        except OSError as error:
            raise UserError(
                f"cannot write {part}: {error.strerror or error}. The same command goes on once that is mended."
            ) from error
        _discard(part)
    return record


def _count(corpus: Corpus) -> tuple[int, int]:
    """Rows, and those that are not blank; a malformed one is an error here, before the work."""
    rows = blank = 0
    for (text,) in corpus.rows():
        rows += 1
        blank += not text.strip()
    return rows, rows - blank


def _finished(target: Path, asked: tuple[str, int, int, bool]) -> Encoded | None:
    """The record of what is there already, if it is what was asked for: key, sentences, blank, normalized.

    None: the record is, but the vectors are still those of before: a forced call was killed between the two, and its
    finished part is there.
    """
    path = record_path(target)
    record = read_record(path, Encoded, _NOT_A_RECORD) if path.is_file() else None
    if record is None or (record.key, record.sentences, record.blank, record.normalized) != asked:
        raise UserError(
            f"{target}: exists, and is not of this text, model and settings. Give --force to replace it, "
            "or another --out."
        )
    if sha256(target) == record.file:
        return record
    if _is_part_of(part_path(target), record.key):
        return None
    raise UserError(f"{target}: is not the file of its record {path}: damaged or replaced. Give --force to replace it.")


def _is_part_of(part: Path, key: str) -> bool:
    path = part / _STATE
    return path.is_file() and read_record(path, _State, _DAMAGED).key == key


def _discard(part: Path) -> None:
    """Remove the part's files, and its folder if nothing else is in it; the state, which marks it as ours, last."""
    ours = [path for path in part.iterdir() if path.name in _PARTS or _is_scratch(path)]
    for path in sorted(ours, key=lambda path: (path.name == ".lock", path.name == _STATE)):
        path.unlink()
    with suppress(OSError):
        part.rmdir()


def _resumed(part: Path, key: str, total: int, force: bool) -> tuple[_State, Any]:
    """Where the unfinished part stands, and the SHA-256 of its vectors; a fresh start where there is none."""
    path, data, fresh = part / _STATE, part / _ARRAY, (_State(key), hashlib.sha256())
    if not path.exists():
        return fresh
    try:
        state = read_record(path, _State, _DAMAGED)
        if state.key != key and state.done:
            raise UserError(
                f"{part}: the unfinished part of another text, model or settings. Give --force to start anew, "
                "or another --out."
            )
        going_on = state.key == key and state.done and data.exists()
        return (state, _hash_vectors(path, state, data, total)) if going_on else fresh
    except UserError:
        if not force:
            raise
        return fresh


def _hash_vectors(path: Path, state: _State, data: Path, total: int) -> Any:
    """SHA-256 of the vectors that are done; UserError unless they are those that the state was written for."""
    if not (0 < state.done <= total and 0 < state.dimension < 2**31):
        raise UserError(f"{path}: {_DAMAGED}")
    hashed, left = hashlib.sha256(), 4 * state.done * state.dimension
    with data.open("rb") as stream:
        expected = io.BytesIO()
        _header(expected, total, state.dimension)
        whole = stream.read(expected.tell()) == expected.getvalue()
        while whole and left and (block := stream.read(min(left, 1 << 20))):
            hashed.update(block)
            left -= len(block)
    if not whole or left or state.digest != state.sealed(hashed):
        raise UserError(f"{data}: damaged, or not what {path.name} was written for. Give --force to start anew.")
    return hashed


def _append(
    embed: Callable[[Iterator[list[str]]], Iterator[Embedded]],
    corpus: Corpus,
    total: int,
    part: Path,
    state: _State,
    hashed: Any,
    progress: Progress | None,
) -> None:
    """Append block after block to the part's array, each noted when it is on the disk."""
    rest = (text for _, text in itertools.islice(number_sentences(corpus), state.done, None))
    blocks = iter(lambda: list(itertools.islice(rest, BLOCK)), [])
    data = part / _ARRAY
    if not state.done:
        write_json(part / _STATE, asdict(state), None)
    if progress:
        progress(state.done, total)
    with data.open("r+b" if state.done else "wb") as stream:
        if state.done:
            stream.truncate(_header(stream, total, state.dimension) + 4 * state.done * state.dimension)
            stream.seek(0, os.SEEK_END)
        for vectors, truncated in embed(blocks):
            if not state.dimension:
                state.dimension = vectors.shape[1]
                _header(stream, total, state.dimension)
            rows = np.ascontiguousarray(vectors, dtype="<f4").data
            stream.write(rows)
            hashed.update(rows)
            stream.flush()
            os.fsync(stream.fileno())
            state.done += len(vectors)
            state.truncated += truncated
            state.digest = state.sealed(hashed)
            write_json(part / _STATE, asdict(state), None)
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


def _publish(part: Path, target: Path, corpus: Corpus, record: Encoded) -> Encoded:
    """Give the vectors their name, behind a record that says by a digest which file it means."""
    whole = part / _ARRAY
    if target.suffix.lower() == ".parquet":
        whole = part / _TABLE
        _write_parquet(whole, np.load(part / _ARRAY, mmap_mode="r", allow_pickle=False), corpus, record)
    record = replace(record, file=sha256(whole))
    write_json(part / _RECORD, asdict(record))
    (part / _RECORD).replace(record_path(target))
    whole.replace(target)
    return record


def _write_parquet(path: Path, vectors: Any, corpus: Corpus, record: Encoded) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    kind = pa.list_(pa.float32(), record.dimension)
    names = [("row", pa.int64()), ("sentence", pa.string()), ("vector", kind)]
    about = {name: value for name, value in asdict(record).items() if name != "file"}
    schema = pa.schema(names, metadata={"simcse_bench": json.dumps(about)})
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
