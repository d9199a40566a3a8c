"""Sentences with their vectors, searched; and such an index on disk, from which its vectors are mapped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, lock_folder, require_writable
from simcse_bench.models.identity import DIRECTION, deciding
from simcse_bench.schema import read_record
from simcse_bench.search.faiss import (
    RECALL_K,
    RECALL_QUERIES,
    Approximate,
    read_faiss,
    require_approximate,
    write_faiss,
)
from simcse_bench.search.nearest import Array, Store

Hits = list[tuple[str, float]]  # sentence, cosine; best first


@dataclass
class Index:
    """Sentences and their unit vectors, in the order given."""

    sentences: list[str]
    store: Store

    def __getitem__(self, name: str) -> Any:
        """The official class's dict: "sentences", and "index" (the vectors (n, d), or faiss's index)."""
        return {"sentences": self.sentences, "index": self.store.searched}[name]

    def add(self, sentences: Sequence[str], vectors: Array) -> None:
        """Put sentences behind the others."""
        self.store.add(vectors)
        self.sentences.extend(sentences)

    def search(self, queries: Array, threshold: float, top_k: int) -> list[Hits]:
        """For every query vector (unit length), the ``top_k`` nearest with a cosine of at least ``threshold``.

        Equal scores stand in the order of the sentences.
        """
        if top_k < 0:
            raise UserError(f"top_k {top_k}: expected at least 0.")
        if np.isnan(threshold):
            raise UserError("threshold nan: expected a cosine, -1 to 1.")
        if not self.sentences or not top_k:
            return [[] for _ in queries]
        return [
            [(self.sentences[i], float(cosine)) for i, cosine in zip(hits.positions, hits.cosines, strict=True)]
            for hits in self.store.nearest(queries, top_k, threshold)
        ]


INDEX_SCHEMA = 1
INDEX_RECORD, VECTORS, SENTENCES, FAISS = "index.json", "vectors.npy", "sentences.jsonl", "approximate.faiss"
_NEW = {name: f".{name}-new" for name in (VECTORS, SENTENCES, FAISS, INDEX_RECORD)}  # while they are written
_LOCK = ".lock"


class IndexedModel(TypedDict):
    """What the record says of the model; further facts of its provenance are kept."""

    name: str
    pooling: str | None
    head: str | None
    max_length: int | None
    preprocess: str | None
    files: Mapping[str, str]
    dtype: NotRequired[str]
    located: str  # name, or the way to its folder from the index
    revision: NotRequired[str | None]
    template: NotRequired[str]
    truncate_dim: NotRequired[int]


class ApproximateRecord(TypedDict):
    """What the record says of an approximate index."""

    kind: Literal["hnsw", "ivf"]
    effort: int  # cells that are looked through, or candidates in the graph
    recall: float  # of the k nearest of so many of its own vectors, see ``faiss.measure_recall``
    k: int
    queries: int


class IndexRecord(TypedDict):
    """index.json. It is written last: its digests say which files are the index's."""

    schema: Literal[1]
    sentences: int
    dimension: int
    fingerprint: str  # of the model, see ``model_fingerprint``
    model: IndexedModel
    files: Mapping[str, str]  # name -> SHA-256
    approximate: NotRequired[ApproximateRecord]


def model_fingerprint(model: Mapping[str, Any]) -> str:
    """16 hex digits: two models with the same one give vectors that can be compared."""
    return fingerprint(deciding(model, DIRECTION))


def describe_model(model: Mapping[str, Any]) -> str:
    """A model in a sentence: name, pooling, head, length, fingerprint."""
    length = f", at most {model['max_length']} tokens" if model.get("max_length") else ""
    pooling, head = model.get("pooling") or "its own", model.get("head") or "its own"  # of the user's own: not said
    return f"{model['name']} (pooling {pooling}, head {head}{length}; {model_fingerprint(model)})"


def require_place(folder: Path, force: bool = True) -> None:
    """UserError unless an index can be written at ``folder``; another index there needs ``force``.

    A folder with anything in it must hold an index of ours, known by its record; of that folder only the index's own
    files are ever replaced.
    """
    require_writable(folder)
    if (folder / INDEX_RECORD).exists():
        read_index_record(folder)
        if not force:
            raise UserError(
                f"{folder}: an index is there already. Use force (--force) to replace it, or another folder."
            )
    elif not _is_free(folder):
        raise UserError(f"{folder}: exists and is no index; nothing is overwritten. Choose another folder.")


def _is_free(folder: Path) -> bool:
    """Whether nothing is there, or nothing but what a killed ``save_index`` may have left."""
    if not folder.exists():
        return not folder.is_symlink()
    return folder.is_dir() and {p.name for p in folder.iterdir()} <= {_LOCK, *_NEW.values()}


def save_index(index: Index, folder: Path, model: Mapping[str, Any], located: str) -> None:
    """Write an index folder; one that is there is replaced. Killed at any moment, the old or the new one is there.

    The vectors and sentences are written under other names first; then the record, which says by their digests that
    they count; then they take their names, or ``load_index`` finds them under the first ones.

    Args:
        index: what to save.
        folder: gets index.json, vectors.npy, sentences.jsonl and, of an approximate index, approximate.faiss; nothing
            else in it is touched.
        model: provenance of the model, see ``identity``.
        located: the model's name or path, for ``search`` without ``--model``.
    """
    require_place(folder)
    vectors, store = index.store.vectors, index.store
    try:
        with lock_folder(folder, "writing an index"):
            _settle(folder)
            try:
                with _synced(folder / _NEW[VECTORS]) as stream:
                    np.save(stream, vectors, allow_pickle=False)
                with _synced(folder / _NEW[SENTENCES]) as stream:
                    stream.writelines(json.dumps(sentence).encode() + b"\n" for sentence in index.sentences)
                names = [VECTORS, SENTENCES]
                if isinstance(store, Approximate):
                    names.append(FAISS)
                    write_faiss(store.index, folder / _NEW[FAISS])
                    with (folder / _NEW[FAISS]).open("rb") as written:
                        os.fsync(written.fileno())
                record = {
                    "schema": INDEX_SCHEMA, "sentences": len(index.sentences), "dimension": vectors.shape[1],
                    "fingerprint": model_fingerprint(model),
                    "model": dict(model) | deciding(model, DIRECTION) | {"located": located},
                    "files": {name: _digest(folder / _NEW[name]) for name in names},
                    **({"approximate": _about(store)} if isinstance(store, Approximate) else {}),
                }  # fmt: skip
                with _synced(folder / _NEW[INDEX_RECORD]) as stream:
                    stream.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
                (folder / _NEW[INDEX_RECORD]).replace(folder / INDEX_RECORD)
            except OSError:
                for name in _NEW.values():
                    (folder / name).unlink(missing_ok=True)
                raise
            for name in names:
                (folder / _NEW[name]).replace(folder / name)
            if FAISS not in names:  # of the index that was there
                (folder / FAISS).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}. Choose another folder.") from error


def _about(store: Approximate) -> ApproximateRecord:
    queries = min(RECALL_QUERIES, len(store.vectors))
    kind: Any = store.kind
    return {
        "kind": kind, "effort": store.effort, "recall": round(store.recall, 4), "k": RECALL_K, "queries": queries,
    }  # fmt: skip


def describe_approximate(store: Approximate) -> str:
    """An approximate index in a line: what it looks at, and what it finds of the nearest."""
    about = _about(store)
    looked = f"{store.effort:,} of {store.most:,} cells" if store.kind == "ivf" else f"{store.effort:,} candidates"
    return (
        f"{store.kind}, {looked} a query: recall@{about['k']} {100 * about['recall']:.1f} % "
        f"({about['queries']:,} of its own sentences, against the exact search)"
    )


def _settle(folder: Path) -> None:
    """Give the files of an index whose writer was killed behind the record their names, before others take theirs."""
    if (folder / INDEX_RECORD).exists():
        for name, digest in read_index_record(folder)["files"].items():
            if (folder / _NEW[name]).is_file() and _digest(folder / _NEW[name]) == digest:
                (folder / _NEW[name]).replace(folder / name)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def read_index_record(folder: Path) -> IndexRecord:
    """index.json of an index folder; UserError where there is none or it is damaged."""
    path = folder / INDEX_RECORD
    if not path.is_file():
        raise UserError(
            f"{folder}: no index ({INDEX_RECORD}) there; make one with `simcse-bench index FILE --out {folder}`."
        )
    what = f"not the record of an index of this version (schema {INDEX_SCHEMA}). Make the index again, in a new folder."
    record = read_record(path, IndexRecord, what)
    names = {VECTORS, SENTENCES, FAISS} if "approximate" in record else {VECTORS, SENTENCES}
    if record["sentences"] < 0 or set(record["files"]) != names:
        raise UserError(f"{path}: {what}")
    if record["fingerprint"] != model_fingerprint(record["model"]) or "\0" in record["model"]["located"]:
        raise UserError(f"{path}: damaged, its model is not that of its fingerprint. Make the index again.")
    return record


def load_index(folder: Path, model: Mapping[str, Any]) -> tuple[list[str], Array]:
    """Sentences and vectors (mapped from the disk) of an index made by this model.

    Raises:
        UserError: it was made by another model, or is damaged.
    """
    record = read_index_record(folder)
    if record["fingerprint"] != model_fingerprint(model):
        raise UserError(
            f"{folder} was made with {describe_model(record['model'])}; this model is {describe_model(model)}. "
            "Search it with its own model, or make it again with this one."
        )
    try:
        files = {name: _file_of(folder, name, record["files"][name]) for name in (VECTORS, SENTENCES)}
        vectors: Array = np.load(files[VECTORS], mmap_mode="r", allow_pickle=False)
        with files[SENTENCES].open(encoding="utf-8") as lines:
            sentences = [json.loads(line) for line in lines]
        shape = (record["sentences"], record["dimension"])
        if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.shape != shape:
            raise ValueError(f"{VECTORS} is no float32 array of shape {shape}")
        if len(sentences) != len(vectors) or not all(isinstance(text, str) for text in sentences):
            raise ValueError(f"{SENTENCES} does not hold {len(vectors)} sentences")
    except (OSError, ValueError, EOFError, RecursionError) as error:
        raise UserError(f"{folder}: damaged index ({error}). Make it again.") from error
    return sentences, vectors


def load_approximate(folder: Path, vectors: Array) -> Approximate | None:
    """What was saved beside the vectors to search them faster; None where nothing was.

    Raises:
        UserError: no faiss, or it is damaged.
    """
    record = read_index_record(folder)
    about = record.get("approximate")
    if about is None:
        return None
    try:
        require_approximate(about["kind"])
    except UserError as error:
        raise UserError(f"{folder}: {error} Or search it exactly: --exact, in Python use_faiss=False.") from None
    try:
        made = Approximate(vectors, read_faiss(_file_of(folder, FAISS, record["files"][FAISS])), about["kind"])
        if (made.index.ntotal, made.index.d) != vectors.shape or about["effort"] < 1:
            raise ValueError(f"{FAISS} is of other vectors")
        made.effort, made.recall = min(about["effort"], made.most), about["recall"]
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:  # of another kind, or effort
        raise UserError(f"{folder}: damaged index ({error}). Make it again.") from error
    return made


def _file_of(folder: Path, name: str, digest: str) -> Path:
    """The index's file, where ``save_index`` was killed behind the record under its first name."""
    for path in (folder / name, folder / _NEW[name]):
        if path.is_file() and _digest(path) == digest:
            return path
    raise ValueError(f"{name} is not the file that was written")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def note_model(model: str, folder: Path) -> str:
    """How ``search`` finds the model of an index: its name; of a folder, the way there from the index."""
    if model == bundled.MODEL or not os.path.isdir(model):  # noqa: PTH112 (Path raises for long names)
        return model
    return os.path.relpath(Path(model).resolve(), folder.resolve())


def locate_model(name: str, folder: Path) -> str:
    """The model that ``note_model`` has noted."""
    return str((folder.resolve() / name).resolve()) if name.startswith("..") else name
