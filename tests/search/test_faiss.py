"""Through faiss: the approximate indexes with their recall, saved and loaded; without faiss, damaged, misspelt."""

import json
import sys

import numpy as np
import pytest
from tiny import sentences

from simcse_bench.errors import UserError
from simcse_bench.search import faiss as ours
from simcse_bench.search.faiss import build_approximate, make_store, measure_recall
from simcse_bench.search.index import Index, load_approximate, load_index, save_index
from simcse_bench.search.nearest import Exact, Nearest

MODEL = {"name": "m", "pooling": "cls", "head": "none", "files": {}, "dtype": "float32"}
KINDS = ["hnsw", "ivf"]


def clustered(n, d=24, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, d))[rng.integers(30, size=n)] + 0.5 * rng.normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("faiss")


class Half:
    """A store that finds every second of the nearest."""

    def __init__(self, vectors):
        self.vectors = vectors

    def nearest(self, queries, top_k, threshold):
        for whole in Exact(self.vectors).nearest(queries, top_k, threshold):
            yield Nearest(whole.positions[::2], whole.cosines[::2])


def test_recall_is_what_is_found_of_the_nearest():
    vectors = clustered(500)
    exact = ours.exact_neighbours(vectors)
    assert len(exact[0]) == 200
    assert measure_recall(Exact(vectors), exact) == 1
    assert measure_recall(Half(vectors), exact) == 0.5  # 2nd, 4th, ... behind itself


def test_ties_and_few_vectors_count_right():
    same = np.repeat(clustered(1), 40, axis=0)
    assert measure_recall(Exact(same), ours.exact_neighbours(same)) == 1  # any ten of the equal ones
    one = clustered(1)
    assert measure_recall(Exact(one), ours.exact_neighbours(one)) == 1
    three = clustered(3)
    assert measure_recall(Exact(three), ours.exact_neighbours(three)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_approximate_index_reaches_the_recall_it_says(kind):
    vectors, queries = clustered(3000), clustered(100, seed=0)[:50]
    made = build_approximate(kind, vectors)
    assert made.recall >= ours.RECALL
    exact = [set(h.positions.tolist()) for h in Exact(vectors).nearest(queries, 10, -1)]
    found = list(made.nearest(queries, 10, -1))
    assert np.mean([len(e & set(f.positions.tolist())) / 10 for e, f in zip(exact, found, strict=True)]) > 0.9
    for query, hits in zip(queries, found, strict=True):  # cosines are those of the vectors, best first
        wanted = (vectors[hits.positions].astype(np.float64) * query.astype(np.float64)).sum(1)
        np.testing.assert_array_equal(hits.cosines, wanted)
        assert (np.diff(hits.cosines) <= 0).all()


def test_more_is_looked_at_until_the_recall_is_reached(monkeypatch):
    vectors = clustered(3000)
    little = build_approximate("ivf", vectors, cells=300, probed=1)
    assert (little.effort, little.most) == (1, 300)
    assert little.recall < ours.RECALL  # told as it is
    monkeypatch.setattr(ours, "RECALL", 1.1)  # never
    assert build_approximate("ivf", vectors, cells=300).effort == 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 11])
def test_a_handful_of_vectors(kind, n):
    vectors = clustered(n)
    made = build_approximate(kind, vectors)
    (hits,) = made.nearest(vectors[:1], 5, 0.99)
    assert hits.positions[0] == 0
    assert made.recall == 1
    assert make_store(vectors[:0], None, False, approximate=kind).kind == "numpy, exact"  # none at all


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_answers_the_same(tmp_path, kind):
    vectors, folder = clustered(800), tmp_path / "idx"
    store = build_approximate(kind, vectors)
    save_index(Index([str(i) for i in range(800)], store), folder, MODEL, "m")
    record = json.loads((folder / "index.json").read_text("utf-8"))
    assert record["approximate"] == {
        "kind": kind, "effort": store.effort, "recall": round(store.recall, 4), "k": 10, "queries": 200,
    }  # fmt: skip
    _, mapped = load_index(folder, MODEL)
    assert isinstance(mapped, np.memmap)
    again = load_approximate(folder, mapped)
    assert (again.kind, again.effort) == (kind, store.effort)
    for a, b in zip(store.nearest(vectors[:20], 5, -1), again.nearest(vectors[:20], 5, -1), strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
    save_index(Index(["0"], Exact(vectors[:1])), folder, MODEL, "m")
    assert load_approximate(folder, mapped) is None
    assert sorted(p.name for p in folder.iterdir()) == ["index.json", "sentences.jsonl", "vectors.npy"]


def test_damage_is_told_in_a_line(tmp_path):
    vectors, folder = clustered(300), tmp_path / "idx"
    save_index(Index([str(i) for i in range(300)], build_approximate("ivf", vectors)), folder, MODEL, "m")
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}
    record = json.loads(whole["index.json"])
    for content in (b"", whole["approximate.faiss"][:-50], whole["approximate.faiss"] + b"x", None):
        (folder / "approximate.faiss").unlink()
        if content is not None:
            (folder / "approximate.faiss").write_bytes(content)
        with pytest.raises(UserError, match=r"damaged index \(approximate\.faiss is not the file"):
            load_approximate(folder, vectors)
        (folder / "approximate.faiss").write_bytes(whole["approximate.faiss"])
    with pytest.raises(UserError, match="of other vectors"):
        load_approximate(folder, vectors[:-1])
    for change in ({"kind": "hnsw"}, {"effort": 0}):
        (folder / "index.json").write_text(json.dumps(record | {"approximate": record["approximate"] | change}))
        with pytest.raises(UserError, match="damaged index"):
            load_approximate(folder, vectors)
    for change in ({"kind": "lsh"}, {"recall": None}):
        (folder / "index.json").write_text(json.dumps(record | {"approximate": record["approximate"] | change}))
        with pytest.raises(UserError, match="not the record of an index"):
            load_approximate(folder, vectors)


def test_the_command(cli, bert, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(sentences(120)) + "\n")
    made = ["index", "text.txt", "--model", bert, "--pooling", "mean", "--device", "cpu", "--out", "i"]
    done = cli(*made, "--approximate", "hsnw")
    assert done.code == 2
    assert done.err.strip() == "error: unknown approximate index 'hsnw'; did you mean 'hnsw'? Known: hnsw, ivf."
    done = cli(*made, "--approximate", "ivf")
    assert done.code == 0, done.err
    assert "cells a query: recall@10" in done.err
    assert "of its own sentences, against the exact search" in done.err
    asked = ["search", "i", sentences(120)[7], "--device", "cpu", "--format", "json"]
    answers = [cli(*asked, *more) for more in ([], ["--exact"])]
    assert [a.code for a in answers] == [0, 0]
    assert json.loads(answers[0].out)[0]["results"][0]["sentence"] == sentences(120)[7]
    with (tmp_path / "i" / "vectors.npy").open("r+b") as stream:
        stream.truncate(999)
    done = cli(*asked)
    assert done.code == 2
    assert "vectors.npy is not the file that was written" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert cli(*made, "--approximate", "ivf", "--force").code == 0
    monkeypatch.setitem(sys.modules, "faiss", None)
    done = cli(*asked)
    assert done.code == 2
    assert 'needs faiss: pip install "simcse-bench[search]". Or search it exactly: --exact' in done.err
    assert cli(*asked, "--exact").code == 0
    done = cli(*made, "--approximate", "hnsw", "--force")
    assert done.code == 2
    assert 'an approximate index (hnsw) needs faiss: pip install "simcse-bench[search]".' in done.err
