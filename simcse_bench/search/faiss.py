"""The nearest through faiss: exactly; or approximately, by HNSW or IVF, with what that finds measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench.errors import UserError, first_line, unknown
from simcse_bench.search.nearest import MARGIN, Array, Exact, Nearest, Positions, Store, rank

APPROXIMATE = ("hnsw", "ivf")
RECALL, RECALL_K, RECALL_QUERIES = 0.95, 10, 200  # aimed at; of so many nearest; of so many vectors
_WIDER = 4  # times top_k are proposed: codes alone would confuse near ones
_FOR_TRAINING = 40  # vectors of each cell
_BLOCK = 1 << 16  # vectors given to faiss at a time
_INSTALL = 'pip install "simcse-bench[search]"'
_log = logging.getLogger(__name__)


class Flat:
    """Every vector compared by faiss, which holds them."""

    kind = "faiss, exact"

    def __init__(self, vectors: Array):
        import faiss

        self.index: Any = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)

    @property
    def vectors(self) -> Array:
        """See ``Store``; until the next ``add``."""
        import faiss

        n, d = self.index.ntotal, self.index.d
        whole: Array = faiss.rev_swig_ptr(self.index.get_xb(), n * d).reshape(n, d) if n else np.zeros((0, d), "f4")
        return whole

    @property
    def searched(self) -> Any:
        """See ``Store``."""
        return self.index

    def add(self, vectors: Array) -> None:
        """See ``Store``."""
        self.index.add(vectors)

    def nearest(self, queries: Array, top_k: int, threshold: float) -> Iterator[Nearest]:
        """See ``Store``."""
        vectors = self.vectors
        scores, proposed = self.index.search(queries, min(top_k + 1, len(vectors)))
        for query, reached, ids in zip(queries, scores, proposed, strict=True):
            if len(ids) > top_k and reached[top_k] >= reached[top_k - 1] - MARGIN:
                # others tie with the last place, and faiss keeps any of them: take all
                edge = max(float(reached[top_k - 1]), threshold) - MARGIN
                ids = self.index.range_search(query[None], edge)[2]
            yield rank(query, vectors, ids, top_k, threshold)


@dataclass
class Approximate:
    """Few vectors compared: faiss proposes some by codes of a byte a value; the vectors decide among those.

    "hnsw" is a graph of neighbours that is walked, "ivf" are cells of which the nearest are looked through.
    """

    vectors: Array  # (n, d)
    index: Any  # faiss's
    kind: str
    recall: float = 0.0  # see ``measure_recall``

    @property
    def searched(self) -> Any:
        """See ``Store``."""
        return self.index

    def add(self, vectors: Array) -> None:
        """See ``Store``."""
        self.vectors = np.concatenate([self.vectors, vectors])
        self.index.add(vectors)
        self.recall = measure_recall(self, exact_neighbours(self.vectors))

    def nearest(self, queries: Array, top_k: int, threshold: float) -> Iterator[Nearest]:
        """See ``Store``."""
        wider = min(_WIDER * top_k, len(self.vectors))
        for query, ids in zip(queries, self.index.search(queries, wider)[1], strict=True):
            yield rank(query, self.vectors, ids, top_k, threshold)

    @property
    def effort(self) -> int:
        """What is looked at for a query: cells, or candidates in the graph."""
        return int(self.index.hnsw.efSearch if self.kind == "hnsw" else self.index.nprobe)

    @effort.setter
    def effort(self, value: int) -> None:
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = value
        else:
            self.index.nprobe = value

    @property
    def most(self) -> int:
        """Effort beyond which nothing is to be won."""
        return 1024 if self.kind == "hnsw" else int(self.index.nlist)


def build_approximate(kind: str, vectors: Array, cells: int = 0, probed: int = 0) -> Approximate:
    """An index of faiss over vectors (n, d), n at least 1, which are read block by block, not copied.

    Without ``probed`` it is made to look at more and more until it finds ``RECALL`` of the nearest, or can no more.

    Args:
        kind: one of ``APPROXIMATE``.
        vectors: of unit length.
        cells: of ivf; 0: the root of n.
        probed: of them, for a query.

    Raises:
        UserError: an unknown kind, or no faiss.
    """
    require_approximate(kind)
    import faiss

    n, d = vectors.shape
    cells = min(cells or round(n**0.5), n)
    form = "HNSW32_SQ8" if kind == "hnsw" else f"IVF{cells},SQ8"
    index: Any = faiss.index_factory(d, form, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(n)[: max(_BLOCK, _FOR_TRAINING * cells)]
    if kind == "ivf":
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _FOR_TRAINING
    index.train(vectors[np.sort(sample)])
    for start in range(0, n, _BLOCK):
        index.add(vectors[start : start + _BLOCK])
    made = Approximate(vectors, index, kind)
    exact = exact_neighbours(vectors)
    made.effort = min(probed or 16, made.most)
    made.recall = measure_recall(made, exact)
    while not probed and made.recall < RECALL and made.effort < made.most:
        made.effort = min(2 * made.effort, made.most)
        made.recall = measure_recall(made, exact)
    return made


def exact_neighbours(vectors: Array) -> tuple[Positions, list[Nearest]]:
    """Positions of a sample of the vectors, and the ``RECALL_K`` + 1 nearest of each, as a rule itself among them."""
    sample = np.sort(np.random.default_rng(1).permutation(len(vectors))[:RECALL_QUERIES])
    return sample, list(Exact(vectors).nearest(vectors[sample], RECALL_K + 1, -np.inf))


def measure_recall(store: Store, exact: tuple[Positions, list[Nearest]]) -> float:
    """The share that ``store`` finds of the ``RECALL_K`` nearest of the sampled vectors, itself left out.

    Whoever ties with the last of them counts as one.
    """
    sample, nearest = exact
    shares = []
    answers = store.nearest(store.vectors[sample], RECALL_K + 1, -np.inf)
    for own, wanted, answer in zip(sample, nearest, answers, strict=True):
        there, reached = (x.cosines[x.positions != own][:RECALL_K] for x in (wanted, answer))
        shares += [(reached >= there[-1]).sum() / len(there)] if len(there) else []
    return float(np.mean(shares)) if shares else 1.0


def make_store(
    vectors: Array,
    use_faiss: bool | None,
    fast: bool,
    cells: int = 100,
    probed: int = 10,
    approximate: str | None = None,
) -> Store:
    """What searches the vectors; without faiss, who asks for it is warned and has an exact search, as in tool.py.

    Args:
        vectors: unit vectors (n, d).
        use_faiss: True: compared by faiss, which copies them; the answers are the same.
        fast: search ``probed`` of ``cells`` cells only; not exact.
        approximate: see ``build_approximate``.

    Raises:
        UserError: ``approximate`` of an unknown kind, or without faiss.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if approximate is not None:
        require_approximate(approximate)
        return build_approximate(approximate, vectors) if len(vectors) else Exact(vectors)
    if use_faiss is False and fast:
        _log.warning("faiss_fast: use_faiss is False; numpy compares every sentence.")
    elif (use_faiss or fast) and not has_faiss():
        _log.warning(f"faiss is not installed: {_INSTALL}; until then numpy compares every sentence.")
    elif fast and len(vectors):
        return build_approximate("ivf", vectors, cells, probed)
    elif use_faiss:
        return Flat(vectors)
    return Exact(vectors)


def require_approximate(kind: str) -> None:
    """UserError for an unknown kind, or without faiss."""
    if kind not in APPROXIMATE:
        raise unknown("approximate index", kind, APPROXIMATE)
    if not has_faiss():
        raise UserError(f"an approximate index ({kind}) needs faiss: {_INSTALL}.")


def has_faiss() -> bool:
    """Whether faiss is installed, and whole."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "IndexFlatIP")  # a folder of that name can be imported too; source: simcse/tool.py


def write_faiss(index: Any, path: Path) -> None:
    """Write faiss's index; OSError where that fails."""
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(first_line(error)) from error


def read_faiss(path: Path) -> Any:
    """faiss's index of a file; ValueError where it holds none."""
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path.name} is no index of faiss") from error
