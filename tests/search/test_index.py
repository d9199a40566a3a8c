"""The nearest, exactly: against brute force in float64, through numpy and faiss."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from kill_points import kill_points
from tiny import sentences

from simcse_bench.errors import UserError
from simcse_bench.search.faiss import make_store
from simcse_bench.search.index import Index, load_approximate, load_index, save_index

STORES = [False, True]


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(vectors, use_faiss, fast=False, **cells):
    if use_faiss:
        pytest.importorskip("faiss")
    return Index([str(i) for i in range(len(vectors))], make_store(vectors, use_faiss, fast, **cells))


def brute(query, vectors, threshold, top_k):
    scores = [sum(a * b for a, b in zip(map(float, query), map(float, v), strict=True)) for v in vectors]
    order = sorted(range(len(scores)), key=lambda i: (-round(scores[i], 9), i))
    return [(str(i), pytest.approx(scores[i], abs=1e-9)) for i in order if scores[i] >= threshold][:top_k]


@pytest.mark.parametrize("use_faiss", STORES)
@pytest.mark.parametrize("top_k, threshold", [(1, -1), (5, 0.1), (50, 0), (1000, -1), (3, 0.99)])
def test_equal_to_brute_force(use_faiss, top_k, threshold):
    vectors, queries = unit(200, 24), unit(6, 24, seed=1)
    found = made(vectors, use_faiss).search(queries, threshold, top_k)
    assert found == [brute(q, vectors, threshold, top_k) for q in queries]


@pytest.mark.parametrize("use_faiss", STORES)
def test_ties_stand_in_the_order_of_the_sentences(use_faiss):
    one, two, three = unit(3, 16)
    vectors = np.stack([two, one, three, *[one] * 40, two, one])  # 42 equal ones, far more than top_k
    (found,) = made(vectors, use_faiss).search(one[None], -1, 5)
    assert [text for text, _ in found] == ["1", "3", "4", "5", "6"]
    assert len({score for _, score in found}) == 1
    (found,) = made(vectors, use_faiss).search(two[None], -1, 3)
    assert [text for text, _ in found][:2] == ["0", "43"]


def test_numpy_and_faiss_give_the_very_same():
    pytest.importorskip("faiss")
    vectors, queries = unit(3000, 40), unit(20, 40, seed=3)
    assert made(vectors, False).search(queries, 0.2, 10) == made(vectors, True).search(queries, 0.2, 10)


@pytest.mark.parametrize("use_faiss", STORES)
def test_the_threshold_itself_is_reached(use_faiss):
    vectors = np.array([[1, 0], [0.5, 0.75**0.5], [0, 1]], dtype=np.float32)
    index = made(vectors, use_faiss)
    assert index.search(vectors[:1], 0.5, 5) == [[("0", 1.0), ("1", 0.5)]]
    assert index.search(vectors[:1], np.nextafter(0.5, 1), 5) == [[("0", 1.0)]]


@pytest.mark.parametrize("use_faiss", STORES)
def test_a_zero_vector_is_near_nothing(use_faiss):
    vectors = np.array([[0, 0], [1, 0]], dtype=np.float32)
    assert made(vectors, use_faiss).search(vectors, -1, 1) == [[("0", 0.0)], [("1", 1.0)]]


def test_cells_find_most_and_rank_what_they_find():
    vectors, queries = unit(2000, 16), unit(30, 16, seed=1)
    exact = made(vectors, False).search(queries, -1, 10)
    all_probed = made(vectors, True, fast=True, cells=20, probed=20)
    assert all_probed.search(queries, -1, 10) == exact
    some = made(vectors, True, fast=True, cells=20, probed=5).search(queries, -1, 10)
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, some, strict=True)])
    assert 0.4 < shared < 1
    all_probed.add(["new"], unit(1, 16, seed=1))  # a new one is found, and with its own vector
    assert all_probed.search(queries[:1], -1, 1) == [[("new", pytest.approx(1))]]


def test_without_faiss_numpy_searches_and_says_so(monkeypatch, caplog):
    vectors = unit(5, 4)
    for missing in (None, types.ModuleType("faiss")):  # not there; a folder that is called faiss
        monkeypatch.setitem(sys.modules, "faiss", missing)
        caplog.clear()
        assert make_store(vectors, None, False).kind == "numpy, exact"
        assert not caplog.records
        for use_faiss, fast in ((True, False), (None, True), (True, True)):
            caplog.clear()
            assert make_store(vectors, use_faiss, fast).kind == "numpy, exact"
            (said,) = caplog.messages
            assert 'pip install "simcse-bench[search]"; until then numpy compares every sentence' in said


def test_fast_without_faiss_wanted_is_exact_and_says_so(caplog):
    assert make_store(unit(5, 4), False, True).kind == "numpy, exact"
    assert caplog.messages == ["faiss_fast: use_faiss is False; numpy compares every sentence."]


def test_bad_numbers_are_refused():
    index = made(unit(3, 4), False)
    with pytest.raises(UserError, match="top_k -1"):
        index.search(unit(1, 4), 0, -1)
    with pytest.raises(UserError, match="threshold nan"):
        index.search(unit(1, 4), float("nan"), 1)


MODEL = {"name": "m", "pooling": "cls", "head": "none", "files": {}, "dtype": "float32"}


@pytest.mark.parametrize("earlier, approximate", [(False, None), (True, None), (True, "ivf")])
def test_killed_at_any_point_the_index_is_the_old_or_the_new(tmp_path, earlier, approximate):
    if approximate:
        pytest.importorskip("faiss")
    old, new, folder = unit(3, 4), unit(5, 4, seed=1), tmp_path / "idx"

    # made before the forks: faiss computes with threads
    stores = {3: make_store(old, False, False), 5: make_store(new, False, False, approximate=approximate)}

    def save(vectors):
        store = stores[len(vectors)]
        save_index(Index([f"s{i}" for i in range(len(vectors))], store), folder, MODEL, "m")

    def prepare():
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if earlier:
            save(old)

    points = 0
    for point in kill_points(lambda: save(new), prepare):
        points += 1
        if earlier or (folder / "index.json").exists():
            sentences, vectors = load_index(folder, MODEL)
            wanted = next(v for v in (old, new) if len(v) == len(vectors))
            np.testing.assert_array_equal(vectors, wanted, err_msg=point)
            assert len(sentences) == len(vectors), point
            found = load_approximate(folder, vectors)
            assert (found is not None) == (approximate is not None and len(vectors) == 5), point
        for again in (old, new):
            save(again)  # over what a killed one has left
            np.testing.assert_array_equal(load_index(folder, MODEL)[1], again, err_msg=point)
        own = ["approximate.faiss"] * (approximate is not None)
        assert sorted(p.name for p in folder.iterdir()) == [*own, "index.json", "sentences.jsonl", "vectors.npy"], point
        assert [p.name for p in tmp_path.iterdir()] == ["idx"], point
    assert points > 15


@pytest.mark.parametrize("asked", [["--template", "the dog {sentence} [MASK]", "--pooling", "mask"],
                                   ["--prompt", "a cat ", "--pooling", "mean", "--truncate-dim", "8"]])  # fmt: skip
def test_an_index_knows_its_prompt(cli, bert, tmp_path, asked):
    (tmp_path / "text.txt").write_text("\n".join(sentences(12)) + "\n")
    done = cli("index", "text.txt", "--model", bert, "--head", "none", "--out", "i", "--device", "cpu", *asked)
    assert done.code == 0, done.err
    done = cli("search", "i", sentences(12)[4], "--device", "cpu", "--format", "json")
    assert done.code == 0, done.err
    best = json.loads(done.out)[0]["results"][0]
    assert (best["sentence"], round(best["score"], 4)) == (sentences(12)[4], 1.0)
    record = json.loads((tmp_path / "i" / "index.json").read_text())
    assert record["model"]["template"] == (asked[1] if "mask" in asked else "a cat {sentence}")
    assert record["dimension"] == (32 if "mask" in asked else 8)
