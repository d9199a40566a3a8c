"""Unit vectors -> the nearest by cosine, exactly: block by block, in no more memory than the vectors."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_bench.threads import ProductThreads

Array = NDArray[np.float32]
Positions = NDArray[np.int64]
# float32 products of unit vectors are wrong by less than half of this; whoever is so near the last place is looked at
MARGIN = 1e-5
_CELLS = 1 << 20  # scores held at once: as many stay in a core's cache
_QUERIES = 1024  # searched together
_BLOCK = 1 << 14  # vectors compared at a time, at most
_FIRST = 1024  # vectors compared before all others
_EXACTLY = 4096  # pairs scored in float64 at a time


@dataclass(frozen=True)
class Nearest:
    """Of one query: positions (m,) and cosines (m,), best first, equal ones in the order of their positions."""

    positions: Positions
    cosines: NDArray[np.float64]


class Store(Protocol):
    """Unit vectors that are searched.

    Cosines are summed in float64 from the vectors, so that they do not depend on what found them.
    """

    kind: str  # for people

    @property
    def vectors(self) -> Array:
        """Of all positions, (n, d), not copied: in memory or mapped from a file."""
        ...

    @property
    def searched(self) -> Any:
        """What is searched: the vectors, or faiss's index."""
        ...

    def add(self, vectors: Array) -> None:
        """Put vectors (n, d) behind the others."""

    def nearest(self, queries: Array, top_k: int, threshold: float) -> Iterable[Nearest]:
        """For every query (unit length) the ``top_k`` nearest, 1 or more, with a cosine of at least ``threshold``."""
        ...


class Exact:
    """Every vector compared: a block's products at a time, of which the best are kept. No second copy is made."""

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

    def nearest(self, queries: Array, top_k: int, threshold: float) -> Iterator[Nearest]:
        """See ``Store``."""
        for start in range(0, len(queries), _QUERIES):
            yield from self._together(queries[start : start + _QUERIES], top_k, threshold).each()

    def _together(self, queries: Array, top_k: int, threshold: float) -> _Best:
        least = np.full(len(queries), threshold, dtype=np.float64)
        best = _Best(queries, top_k, least)
        best.compare(self.vectors[:_FIRST], 0)  # a few, so that of the others few are looked at twice
        step = min(_BLOCK, max(1, _CELLS // len(queries)))
        starts = iter(range(_FIRST, len(self.vectors), step))

        def compare_rest(own: _Best) -> _Best:
            for first in starts:  # whoever is free takes the next block
                own.compare(self.vectors[first : first + step], first)
            return own

        if len(self.vectors) <= _FIRST + step:
            return compare_rest(best)
        with _a_core_each() as threads, ThreadPoolExecutor(threads) as pool:
            for own in pool.map(compare_rest, [_Best(queries, top_k, least) for _ in range(threads)]):
                best.take(own.rows, own.positions, own.cosines)
        return best


@functools.cache
def _libraries() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


def _set_threads(counts: Sequence[int]) -> None:
    for library, count in zip(_libraries(), counts, strict=True):
        library.set_num_threads(count)


_numpy_threads = ProductThreads(lambda: [library.num_threads for library in _libraries()], _set_threads)


@contextlib.contextmanager
def _a_core_each() -> Iterator[int]:
    """As many threads as numpy's products take, and each product in its own thread alone.

    Threads that share one product wait for each other at its end, which takes long where other processes hold cores.
    """
    with _numpy_threads.restored() as usual:
        _set_threads([1] * len(usual))
        yield max(usual, default=1)


class _Best:
    """The best of some queries (q, d) among the vectors seen so far; of each query ``top_k`` at most.

    ``least`` (q,) is what a newcomer must reach. Threads share it: any value that one of them writes holds for all.
    """

    def __init__(self, queries: Array, top_k: int, least: NDArray[np.float64]):
        self.queries, self.top_k, self.least = queries, top_k, least
        # one line for each that is kept: its query, position, cosine; sorted by query, then best first
        self.rows, self.positions = np.zeros((2, 0), dtype=np.int64)
        self.cosines = np.zeros(0)

    def compare(self, vectors: Array, first: int) -> None:
        """Look at the next vectors (b, d), the first of which has the position ``first``."""
        rows, places = self._candidates(self.queries @ vectors.T)
        if len(rows):
            self.take(rows, first + places, _cosines(self.queries, rows, vectors, places))

    def take(self, rows: Positions, positions: Positions, cosines: NDArray[np.float64]) -> None:
        """Keep the best of those that are kept and of these: their queries, positions and cosines."""
        rows, positions = np.concatenate([self.rows, rows]), np.concatenate([self.positions, positions])
        cosines = np.concatenate([self.cosines, cosines])
        order = np.lexsort((positions, -cosines, rows))
        rows, positions, cosines = rows[order], positions[order], cosines[order]
        standing = np.arange(len(rows)) - np.searchsorted(rows, rows)  # 0: the best of its query
        kept = (standing < self.top_k) & (cosines >= self.least[rows])
        last = kept & (standing == self.top_k - 1)
        self.least[rows[last]] = np.maximum(self.least[rows[last]], cosines[last])
        self.rows, self.positions, self.cosines = rows[kept], positions[kept], cosines[kept]

    def _candidates(self, scores: Array) -> tuple[Positions, Positions]:
        """Rows and columns of scores (q, b) that may be among the best; a few too many, never one too few."""
        rows, places = np.divmod(np.flatnonzero(scores >= _below(self.least)[:, None]), scores.shape[1])
        crowded = np.bincount(rows, minlength=len(scores)) > 4 * self.top_k  # at first, or where the best come together
        if crowded.any():
            least = _below(self.least)
            edge = scores.shape[1] - self.top_k
            least[crowded] = np.maximum(least[crowded], _below(np.partition(scores[crowded], edge)[:, edge]))
            may = scores[rows, places] >= least[rows]
            rows, places = rows[may], places[may]
        return rows, places

    def each(self) -> Iterator[Nearest]:
        """What is kept of every query."""
        ends = np.searchsorted(self.rows, np.arange(len(self.queries) + 1))
        for start, end in itertools.pairwise(ends):
            yield Nearest(self.positions[start:end], self.cosines[start:end])


def _below(scores: NDArray[Any]) -> Array:
    """What float32 scores must reach where exact ones must reach this."""
    low: Array = (scores - MARGIN).astype(np.float32)
    return low


def _cosines(queries: Array, rows: Positions, vectors: Array, places: Positions) -> NDArray[np.float64]:
    """Of queries[rows] and vectors[places], (m,)."""
    exact = np.empty(len(rows))
    for start in range(0, len(rows), _EXACTLY):
        part = slice(start, start + _EXACTLY)
        # a plain sum over each row: equal rows have equal scores, wherever they stand
        exact[part] = (vectors[places[part]].astype(np.float64) * queries[rows[part]].astype(np.float64)).sum(1)
    return exact


def rank(query: Array, vectors: Array, proposed: Positions, top_k: int, threshold: float) -> Nearest:
    """The best among proposed positions, in which -1 stands for none."""
    positions = np.sort(proposed[proposed >= 0])
    cosines = _cosines(query[None], np.zeros(len(positions), dtype=np.int64), vectors, positions)
    order = np.argsort(-cosines, kind="stable")[:top_k]
    order = order[cosines[order] >= threshold]
    return Nearest(positions[order], cosines[order])
