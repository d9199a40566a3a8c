"""Sentences with their vectors: the nearest by cosine, exactly, with numpy or faiss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_bench.errors import UserError

Array = NDArray[np.float32]
Ids = NDArray[np.int64]
Hits = list[tuple[str, float]]  # sentence, cosine; best first
# float32 products of unit vectors are wrong by less than half of this; whoever is so near the last place is a candidate
MARGIN = 1e-5
_CELLS = 1 << 24  # scores held at once


class Store(Protocol):
    """Unit vectors, and which of them may be among the nearest."""

    kind: str  # for people

    def add(self, vectors: Array) -> None:
        """Put vectors (n, d) behind the others."""

    def rows(self, ids: Ids) -> Array:
        """Vectors (m, d) of these positions."""
        ...

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Ids]:
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

    def rows(self, ids: Ids) -> Array:
        """See ``Store``."""
        return self.vectors[ids]

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Ids]:
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

    def rows(self, ids: Ids) -> Array:
        """See ``Store``."""
        found: Array = self.index.reconstruct_batch(ids)
        return found

    def candidates(self, queries: Array, top_k: int, threshold: float) -> Iterator[Ids]:
        """See ``Store``."""
        for query in queries:
            scores, ids = (found[0] for found in self.index.search(query[None], min(top_k + 1, self.index.ntotal)))
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
        found = []
        for query, ids in zip(queries, self.store.candidates(queries, top_k, threshold), strict=True):
            scores = self._scores(query, ids)
            order = np.argsort(-scores, kind="stable")[:top_k]
            found.append([(self.sentences[ids[i]], float(scores[i])) for i in order if scores[i] >= threshold])
        return found

    def _scores(self, query: Array, ids: Ids) -> NDArray[np.float64]:
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
