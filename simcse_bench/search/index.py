"""Sentences with their vectors: the nearest by cosine, exactly, with numpy or faiss; and such an index on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, lock_folder, require_writable
from simcse_bench.models.identity import DIRECTION, deciding
from simcse_bench.schema import read_record

Array = NDArray[np.float32]
Positions = NDArray[np.int64]
Hits = list[tuple[str, float]]  # sentence, cosine; best first
# float32 products of unit vectors are wrong by less than half of this; whoever is so near the last place is a candidate
MARGIN = 1e-5
_CELLS = 1 << 24  # scores held at once
_log = logging.getLogger(__name__)


class Store(Protocol):
    """Unit vectors, and which of them may be among the nearest."""

    kind: str  # for people

    @property
    def searched(self) -> Any:
        """What is searched: the vectors (n, d), or faiss's index."""
        ...

    def add(self, vectors: Array) -> None:
        """Put vectors (n, d) behind the others."""

    def rows(self, ids: Positions) -> Array:
        """Vectors (m, d) of these positions."""
        ...

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Positions]:
        """For every query, the positions of its top_k nearest, of all that tie with the last, and maybe of others."""
        ...


class Exact:
    """Every vector compared, with numpy."""

    kind = "numpy, exact"

    def __init__(self, vectors: Array):
        self.vectors = vectors  # (n, d)

    @property
    def searched(self) -> Array:
        """See ``Store``."""
        return self.vectors

    def add(self, vectors: Array) -> None:
        """See ``Store``."""
        self.vectors = np.concatenate([self.vectors, vectors])

    def rows(self, ids: Positions) -> Array:
        """See ``Store``."""
        return self.vectors[ids]

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Positions]:
        """See ``Store``."""
        n = len(self.vectors)
        step = max(1, _CELLS // max(1, n))
        for start in range(0, len(queries), step):
            for scores in queries[start : start + step] @ self.vectors.T:  # (n,)
                last = np.partition(scores, n - top_k)[n - top_k] if top_k < n else -np.inf
                yield np.flatnonzero(scores >= max(last, threshold) - MARGIN)


class Faiss:
    """The same through faiss; with ``cells``, only the ``probed`` nearest of them are searched (not exact)."""

    def __init__(self, vectors: Array, cells: int = 0, probed: int = 1):
        import faiss

        self.kind = f"faiss, {probed} of {cells} cells" if cells else "faiss, exact"
        self.index: Any = faiss.IndexFlatIP(vectors.shape[1])
        if cells:
            self._quantizer = self.index  # faiss does not keep it alive
            self.index = faiss.IndexIVFFlat(self._quantizer, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
            self.index.train(vectors)
            self.index.nprobe = probed
            self.index.make_direct_map()  # finds a vector again by its position
        self.index.add(vectors)

    @property
    def searched(self) -> Any:
        """See ``Store``."""
        return self.index

    def add(self, vectors: Array) -> None:
        """See ``Store``."""
        self.index.add(vectors)

    def rows(self, ids: Positions) -> Array:
        """See ``Store``."""
        vectors: Array = self.index.reconstruct_batch(ids)
        return vectors

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Positions]:
        """See ``Store``."""
        for query in queries:
            scores, ids = (row[0] for row in self.index.search(query[None], min(top_k + 1, self.index.ntotal)))
            if len(ids) > top_k and ids[top_k] >= 0 and scores[top_k] >= scores[top_k - 1] - MARGIN:
                # others tie with the last place, and faiss keeps any of them: take all
                edge = max(float(scores[top_k - 1]), threshold) - MARGIN
                ids = self.index.range_search(query[None], edge)[2]
            yield np.sort(ids[ids >= 0])


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

        Equal scores stand in the order of the sentences. The scores are summed in float64 from the stored vectors,
        so that they do not depend on what found them.
        """
        if top_k < 0:
            raise UserError(f"top_k {top_k}: expected at least 0.")
        if np.isnan(threshold):
            raise UserError("threshold nan: expected a cosine, -1 to 1.")
        if not self.sentences or not top_k:
            return [[] for _ in queries]
        hits = []
        for query, ids in zip(queries, self.store.candidates(queries, top_k, threshold), strict=True):
            scores = self._scores(query, ids)
            order = np.argsort(-scores, kind="stable")[:top_k]
            hits.append([(self.sentences[ids[i]], float(scores[i])) for i in order if scores[i] >= threshold])
        return hits

    def _scores(self, query: Array, ids: Positions) -> NDArray[np.float64]:
        parts = [ids[i : i + 65536] for i in range(0, len(ids), 65536)]
        wide = query.astype(np.float64)
        # a plain sum over each row: equal rows have equal scores, wherever they stand
        return np.concatenate([np.zeros(0), *((self.store.rows(p).astype(np.float64) * wide).sum(1) for p in parts)])


def make_store(vectors: Array, use_faiss: bool | None, fast: bool, cells: int = 100, probed: int = 10) -> Store:
    """numpy or faiss; without faiss, who asks for it is warned and has numpy, as in tool.py: the answers are the same.

    Args:
        vectors: unit vectors (n, d).
        use_faiss: None takes it where it is installed.
        fast: search ``probed`` of ``cells`` cells only; faiss alone can, numpy compares all.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if use_faiss is False or not has_faiss():
        if use_faiss is False and fast:
            _log.warning("faiss_fast: use_faiss is False; numpy compares every sentence.")
        elif use_faiss or fast:
            _log.warning(
                'faiss is not installed: pip install "simcse-bench[search]"; until then numpy compares every sentence.'
            )
        return Exact(vectors)
    n = len(vectors)
    return Faiss(vectors, min(cells, n) if fast else 0, min(probed, cells, n))  # no cells for no vectors


def has_faiss() -> bool:
    """Whether faiss is installed, and whole."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "IndexFlatIP")  # a folder of that name can be imported too; source: simcse/tool.py


INDEX_SCHEMA = 1
INDEX_RECORD, VECTORS, SENTENCES = "index.json", "vectors.npy", "sentences.jsonl"
_NEW = {name: f".{name}-new" for name in (VECTORS, SENTENCES, INDEX_RECORD)}  # while they are written
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


class IndexRecord(TypedDict):
    """index.json. It is written last: its digests say which files are the index's."""

    schema: Literal[1]
    sentences: int
    dimension: int
    fingerprint: str  # of the model, see ``model_fingerprint``
    model: IndexedModel
    files: Mapping[str, str]  # name -> SHA-256


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

    A folder with anything in it must hold an index of ours, known by its record; of that folder only the index's three
    files are ever replaced.
    """
    require_writable(folder)
    if (folder / INDEX_RECORD).exists():
        read_index_record(folder)
        if not force:
            raise UserError(f"{folder}: an index is there already. Give --force to replace it, or another --out.")
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
        folder: gets index.json, vectors.npy and sentences.jsonl; nothing else in it is touched.
        model: provenance of the model, see ``identity``.
        located: the model's name or path, for ``search`` without ``--model``.
    """
    require_place(folder)
    n = len(index.sentences)
    vectors = index.store.rows(np.arange(n, dtype=np.int64))
    try:
        with lock_folder(folder, "writing an index"):
            _settle(folder)
            try:
                with _synced(folder / _NEW[VECTORS]) as stream:
                    np.save(stream, vectors, allow_pickle=False)
                with _synced(folder / _NEW[SENTENCES]) as stream:
                    stream.writelines(json.dumps(sentence).encode() + b"\n" for sentence in index.sentences)
                record = {
                    "schema": INDEX_SCHEMA, "sentences": n, "dimension": vectors.shape[1],
                    "fingerprint": model_fingerprint(model),
                    "model": dict(model) | deciding(model, DIRECTION) | {"located": located},
                    "files": {name: _digest(folder / _NEW[name]) for name in (VECTORS, SENTENCES)},
                }  # fmt: skip
                with _synced(folder / _NEW[INDEX_RECORD]) as stream:
                    stream.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
                (folder / _NEW[INDEX_RECORD]).replace(folder / INDEX_RECORD)
            except OSError:
                for name in _NEW.values():
                    (folder / name).unlink(missing_ok=True)
                raise
            for name in (VECTORS, SENTENCES):
                (folder / _NEW[name]).replace(folder / name)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}. Choose another folder.") from error


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
    if record["sentences"] < 0 or set(record["files"]) != {VECTORS, SENTENCES}:
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
        files = {name: _file_of(folder, name, digest) for name, digest in record["files"].items()}
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
