"""The exact search block by block: what a plain sort gives, ties and thresholds included, whatever the blocks."""

import numpy as np
import pytest

from simcse_bench.search import nearest
from simcse_bench.search.nearest import Exact


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute(queries, vectors, top_k, threshold):
    """Positions by a stable sort of all cosines in float64."""
    found = []
    for query in queries:
        cosines = [float((v.astype(np.float64) * query.astype(np.float64)).sum()) for v in vectors]
        order = sorted(range(len(vectors)), key=lambda i: (-cosines[i], i))
        found.append([(i, cosines[i]) for i in order if cosines[i] >= threshold][:top_k])
    return found


def plain(hits):
    return [list(zip(h.positions.tolist(), h.cosines.tolist(), strict=True)) for h in hits]


@pytest.mark.parametrize("cells", [1, 70, 350, 1 << 20])
@pytest.mark.parametrize("top_k, threshold", [(1, -1), (3, 0.2), (10, -np.inf), (400, 0), (7, 2)])
def test_blocks_of_any_size_give_what_a_sort_gives(monkeypatch, cells, top_k, threshold):
    monkeypatch.setattr(nearest, "_CELLS", cells)
    monkeypatch.setattr(nearest, "_FIRST", 20)
    vectors, queries = unit(150, 12), unit(7, 12, seed=1)
    vectors[40:90] = vectors[3]  # in several blocks
    vectors[100] = 0
    queries[0] = vectors[3]
    found = plain(Exact(vectors).nearest(queries, top_k, threshold))
    assert found == brute(queries, vectors, top_k, threshold)


def test_the_best_may_come_last_or_first(monkeypatch):
    monkeypatch.setattr(nearest, "_CELLS", 30)
    monkeypatch.setattr(nearest, "_FIRST", 10)
    query = unit(1, 8)
    vectors = unit(300, 8, seed=2)
    rising = vectors[np.argsort(vectors @ query[0])]
    for ordered in (rising, rising[::-1]):
        assert plain(Exact(ordered).nearest(query, 5, -1)) == brute(query, ordered, 5, -1)


def test_more_queries_than_are_searched_together(monkeypatch):
    monkeypatch.setattr(nearest, "_QUERIES", 4)
    vectors, queries = unit(60, 8), unit(11, 8, seed=1)
    assert plain(Exact(vectors).nearest(queries, 3, -1)) == brute(queries, vectors, 3, -1)
    assert plain(Exact(vectors).nearest(queries[:0], 3, -1)) == []


def test_no_more_than_the_best_are_held():
    """A million comparisons of equal vectors leave top_k lines of each query."""
    vectors = np.repeat(unit(1, 4), 20_000, axis=0)
    best = nearest._Best(vectors[:2], 5, np.full(2, -1.0))
    for first in range(0, len(vectors), 5000):
        best.compare(vectors[first : first + 5000], first)
        assert len(best.rows) == 10
    assert [x.positions.tolist() for x in best.each()] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("threads", [1, 5])
def test_as_many_threads_as_numpy_takes(monkeypatch, threads):
    """Each has blocks of its own; numpy has its threads back at the end."""
    import threadpoolctl

    monkeypatch.setattr(nearest, "_CELLS", 300)
    monkeypatch.setattr(nearest, "_FIRST", 10)
    vectors, queries = unit(3000, 8), unit(9, 8, seed=1)
    vectors[::7] = vectors[5]
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        found = plain(Exact(vectors).nearest(queries, 6, -1))
        assert {x["num_threads"] for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"} == {threads}
    assert found == brute(queries, vectors, 6, -1)


def test_mapped_vectors_are_searched_where_they_lie(tmp_path):
    np.save(tmp_path / "v.npy", unit(500, 16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    store = Exact(mapped)
    assert np.shares_memory(store.vectors, mapped)
    assert plain(store.nearest(unit(2, 16, seed=1), 4, -1)) == brute(unit(2, 16, seed=1), mapped, 4, -1)
