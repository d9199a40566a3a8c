"""Sentences with their vectors: the nearest by cosine, exactly, with numpy or faiss; and such an index on disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, read_json, require_writable
from simcse_bench.models.identity import DIRECTION, deciding

Array = NDArray[np.float32]
Positions = NDArray[np.int64]
Hits = list[tuple[str, float]]  # sentence, cosine; best first
# float32 products of unit vectors are wrong by less than half of this; whoever is so near the last place is a candidate
MARGIN = 1e-5
_CELLS = 1 << 24  # scores held at once


class Store(Protocol):
    """Unit vectors, and which of them may be among the nearest."""

    kind: str  # for people

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
        faiss = _faiss()
        self.kind = f"faiss, {probed} of {cells} cells" if cells else "faiss, exact"
        self.index: Any = faiss.IndexFlatIP(vectors.shape[1])
        if cells:
            self._quantizer = self.index  # faiss does not keep it alive
            self.index = faiss.IndexIVFFlat(self._quantizer, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
            self.index.train(vectors)
            self.index.nprobe = probed
            self.index.make_direct_map()  # finds a vector again by its position
        self.index.add(vectors)

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

    def add(self, sentences: Sequence[str], vectors: Array) -> None:
        """Put sentences behind the others."""
        self.store.add(vectors)
        self.sentences.extend(sentences)

    def search(self, queries: Array, threshold: float, top_k: int) -> list[Hits]:
        """For every query vector (unit length), the ``top_k`` nearest with a cosine of at least ``threshold``.

        Equal scores stand in the order of the sentences. The scores are summed in float64 from the stored vectors,
        so that they do not depend on what found them.
        """
        if top_k < 1:
            raise UserError(f"top_k {top_k}: expected at least 1.")
        if np.isnan(threshold):
            raise UserError("threshold nan: expected a cosine, -1 to 1.")
        if not self.sentences:
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
    """numpy or faiss.

    Args:
        vectors: unit vectors (n, d).
        use_faiss: None takes it where it is installed.
        fast: search ``probed`` of ``cells`` cells only; needs faiss.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if fast and use_faiss is False:
        raise UserError("faiss_fast=True needs faiss, and use_faiss is False; leave one of them out.")
    if not (use_faiss or fast) and (use_faiss is False or not has_faiss()):
        return Exact(vectors)
    n = len(vectors)
    return Faiss(vectors, min(cells, n) if fast else 0, min(probed, cells, n))  # no cells for no vectors


def has_faiss() -> bool:
    """Whether faiss is installed."""
    import importlib.util

    return importlib.util.find_spec("faiss") is not None


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError(
            'faiss is not installed: pip install "simcse-bench[search]" (the package faiss-cpu), or leave use_faiss '
            "and faiss_fast out: the search with numpy is exact too."
        ) from None
    return faiss


INDEX_SCHEMA = 1
INDEX_RECORD, VECTORS, SENTENCES = "index.json", "vectors.npy", "sentences.jsonl"


def model_fingerprint(model: Mapping[str, Any]) -> str:
    """16 hex digits: two models with the same one give vectors that can be compared."""
    return fingerprint(deciding(model, DIRECTION))


def describe_model(model: Mapping[str, Any]) -> str:
    """A model in a sentence: name, pooling, head, length, fingerprint."""
    length = f", at most {model['max_length']} tokens" if model.get("max_length") else ""
    pooling, head = model.get("pooling") or "its own", model.get("head") or "its own"  # of the user's own: not said
    return f"{model['name']} (pooling {pooling}, head {head}{length}; {model_fingerprint(model)})"


def require_place(folder: Path, force: bool = True) -> None:
    """UserError unless an index can be written at ``folder``; another index there needs ``force``."""
    require_writable(folder)
    there = folder.is_dir() and (folder / INDEX_RECORD).is_file()
    if (folder.exists() or folder.is_symlink()) and not there:
        raise UserError(f"{folder}: exists and is no index; nothing is overwritten. Choose another folder.")
    if there and not force:
        raise UserError(f"{folder}: an index is there already. Give --force to replace it, or another --out.")


def save_index(index: Index, folder: Path, model: Mapping[str, Any], located: str) -> None:
    """Write an index folder, whole or not at all; one that is there is replaced.

    Args:
        index: what to save.
        folder: gets index.json, vectors.npy and sentences.jsonl.
        model: provenance of the model, see ``identity``.
        located: the model's name or path, for ``search`` without ``--model``.
    """
    require_place(folder)
    n = len(index.sentences)
    vectors = index.store.rows(np.arange(n, dtype=np.int64))
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (a link stays)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            np.save(new / VECTORS, vectors, allow_pickle=False)
            with (new / SENTENCES).open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(sentence) + "\n" for sentence in index.sentences)
            record = {
                "schema": INDEX_SCHEMA, "sentences": n, "dimension": vectors.shape[1],
                "fingerprint": model_fingerprint(model),
                "model": dict(model) | deciding(model, DIRECTION) | {"located": located},
                "files": {name: _digest(new / name) for name in (VECTORS, SENTENCES)},
            }  # fmt: skip
            (new / INDEX_RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}. Choose another folder.") from error


def read_index_record(folder: Path) -> dict[str, Any]:
    """index.json of an index folder; UserError where there is none or it is damaged."""
    if not (folder / INDEX_RECORD).is_file():
        raise UserError(
            f"{folder}: no index ({INDEX_RECORD}) there; make one with `simcse-bench index FILE --out {folder}`."
        )
    record = read_json(folder / INDEX_RECORD)
    expected = {"schema", "sentences", "dimension", "fingerprint", "model", "files"}
    if not isinstance(record, dict) or record.get("schema") != INDEX_SCHEMA or not expected <= set(record):
        raise UserError(f"{folder / INDEX_RECORD}: not the record of an index of this version (schema {INDEX_SCHEMA}).")
    model = record["model"]
    if not isinstance(model, dict) or not {"name", "pooling", "head", "located", *DIRECTION} <= set(model):
        raise UserError(f"{folder / INDEX_RECORD}: damaged, it does not say its model. Make the index again.")
    return record


def load_index(folder: Path, model: Mapping[str, Any]) -> tuple[list[str], Array]:
    """Sentences and vectors (mapped from the disk) of an index made by this model.

    Raises:
        UserError: it was made by another model, or is damaged.
    """
    record = read_index_record(folder)
    if model_fingerprint(record["model"]) != model_fingerprint(model):
        raise UserError(
            f"{folder} was made with {describe_model(record['model'])}; this model is {describe_model(model)}. "
            "Search it with its own model, or make it again with this one."
        )
    try:
        for name in (VECTORS, SENTENCES):
            if _digest(folder / name) != record["files"].get(name):
                raise ValueError(f"{name} is not the file that was written")
        vectors: Array = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        with (folder / SENTENCES).open(encoding="utf-8") as lines:
            sentences = [json.loads(line) for line in lines]
        if vectors.shape != (record["sentences"], record["dimension"]) or len(sentences) != len(vectors):
            raise ValueError(f"{len(sentences)} sentences, vectors of shape {vectors.shape}")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: damaged index ({error}). Make it again.") from error
    return sentences, vectors


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def note_model(model: str, folder: Path) -> str:
    """How ``search`` finds the model of an index: its name; of a folder, the way there from the index."""
    if model == bundled.MODEL or not os.path.isdir(model):  # noqa: PTH112 (Path raises for long names)
        return model
    return os.path.relpath(Path(model).resolve(), folder.resolve())


def locate_model(name: str, folder: Path) -> str:
    """The model that ``located`` has noted."""
    return str((folder.resolve() / name).resolve()) if name.startswith("..") else name
