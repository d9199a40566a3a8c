"""Hundreds of damaged files: the right result, or what is wrong in a line each; nothing else changes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from search.mutations import damage_bytes, damage_json, damage_text, replace_file
from tiny import sentences

from simcse_bench.data.corpus import open_corpus
from simcse_bench.data.pairs import Pairs, read_task_pairs
from simcse_bench.data.registry import load_suites, load_task
from simcse_bench.data.task import Task
from simcse_bench.errors import UserError
from simcse_bench.search.encode_file import encode_file
from simcse_bench.search.faiss import make_store
from simcse_bench.search.index import Index, load_index, note_model, save_index

MODEL = {"name": "m", "pooling": "cls", "head": "none", "files": {"a": "0"}, "dtype": "float32"}
TEXT = "\n".join(sentences(12)) + "\n"


def said(work):
    """The result, or the problems of a UserError, each on a line of its own that can be read."""
    problems = ()
    try:
        return work(), ()
    except UserError as error:
        problems = error.problems
    for problem in problems:
        assert "\n" not in problem, problem
        assert 10 < len(problem) < 2000, problem[:3000]
    assert problems
    return None, problems


def content_of(folder: Path):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        if p.is_file() and p.resolve() != Path("/dev/null")
        else p.is_dir()
        for p in sorted(folder.rglob("*"))
    }


def damaged(path: Path, whole: bytes, number: int):
    """The file, damaged in the way of this number."""
    rng = random.Random(number)
    path.write_bytes(whole)
    if number % 10 == 0:
        replace_file(path, rng)
    elif path.suffix == ".json" and number % 10 < 8:
        path.write_bytes(damage_json(whole, rng))
    elif path.suffix in (".json", ".npy"):
        path.write_bytes(damage_bytes(whole, rng))
    else:
        path.write_bytes(damage_text(whole, rng))


def clear(path: Path):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name, count", [("index.json", 300), ("vectors.npy", 80), ("sentences.jsonl", 80)])
def test_an_index(tmp_path, name, count):
    folder, rng = tmp_path / "idx", np.random.default_rng(0)
    texts, vectors = sentences(6), rng.normal(size=(6, 4)).astype(np.float32)
    save_index(Index(texts, make_store(vectors, False, False)), folder, MODEL, note_model("m", folder))
    whole, refused = (folder / name).read_bytes(), 0
    for number in range(count):
        clear(folder / name)
        damaged(folder / name, whole, number)
        before = content_of(tmp_path)
        result, problems = said(lambda: load_index(folder, MODEL))
        refused += bool(problems)
        if result is not None:
            assert result[0] == texts, number
            np.testing.assert_array_equal(result[1], vectors)
        assert content_of(tmp_path) == before, number
        if name == "index.json":
            _, problems = said(lambda: save_index(Index(texts, make_store(vectors, False, False)), folder, MODEL, "m"))
            if problems:  # what cannot be known as ours is left alone
                assert content_of(tmp_path) == before, number
            else:
                assert load_index(folder, MODEL)[0] == texts
    assert refused > count / 2


class Letters:
    """Stands for a model: a vector counts letters."""

    provenance = {"name": "letters", "pooling": "mean", "head": "none", "files": {}, "dtype": "float32"}  # noqa: RUF012
    stats = {"truncated": 0}  # noqa: RUF012

    def encode(self, block, return_numpy=True, normalize_to_unit=True):
        return np.array([[text.count(x) for x in "aeio"] for text in block], dtype=np.float32)


class Killed(BaseException):
    pass


def die(done, total):
    if done >= 8:
        raise Killed


@pytest.mark.parametrize(
    "name, count",
    [("v.npy.json", 200), ("v.npy", 60), ("v.npy.part/state.json", 250), ("v.npy.part/vectors.npy", 80)],
)
def test_a_file_of_vectors(tmp_path, monkeypatch, name, count):
    """Finished or half done, forced or not."""
    monkeypatch.setattr("simcse_bench.search.encode_file.BLOCK", 4)
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    source, model = str(tmp_path / "text.txt"), Letters()
    encode_file(model, source, tmp_path / "wanted.npy")
    wanted = (tmp_path / "wanted.npy").read_bytes()
    here = tmp_path / "here"
    (tmp_path / "start").mkdir()
    if ".part" in name:
        with pytest.raises(Killed):
            encode_file(model, source, tmp_path / "start" / "v.npy", progress=die)
    else:
        encode_file(model, source, tmp_path / "start" / "v.npy")
    whole, refused = (tmp_path / "start" / name).read_bytes(), 0
    for number in range(count):
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(tmp_path / "start", here)
        damaged(here / name, whole, number)
        before = content_of(here)
        for force in (False, True):
            record, problems = said(lambda force=force: encode_file(model, source, here / "v.npy", force=force))
            refused += bool(problems)
            if problems:
                assert content_of(here) == before, (number, problems)
                continue
            assert (here / "v.npy").read_bytes() == wanted, number
            assert (record.sentences, record.blank, record.normalized) == (12, 0, True), number
            assert sorted(p.name for p in here.iterdir()) == ["v.npy", "v.npy.json"], number
            break
    assert refused > count / 4


YAML = """title: Own task
kind: sts
gold: [0, 5]
source: {format: csv, path: pairs.csv, header: true, columns: {gold: s, left: a, right: b}, encoding: utf-8}
splits:
  test: {test: 4}
  dev: {dev: }
"""
PAIRS = 's,a,b\n1,a dog,"one, two"\n2,c,d\n3.5,e,f\n5,"say ""x""",h\n'


@pytest.mark.parametrize("name, count", [("own.yaml", 500), ("suites.yaml", 200), ("pairs.csv", 400)])
def test_a_task(tmp_path, name, count):
    whole = {
        "own.yaml": YAML.encode(),
        "suites.yaml": b"mine: [own, stsb]\nothers:\n- own\n",
        "pairs.csv": PAIRS.encode(),
    }
    for number in range(count):
        for other, content in whole.items():
            clear(tmp_path / other)
            (tmp_path / other).write_bytes(content)
        damaged(tmp_path / name, whole[name], number)
        before = content_of(tmp_path)
        suites, _ = said(lambda: load_suites(tmp_path))
        if suites is not None:
            assert all(isinstance(n, str) and t and all(isinstance(x, str) for x in t) for n, t in suites.items())
        task, _ = said(lambda: load_task("own", tmp_path))
        if task is not None:
            assert isinstance(task, Task)
            split = next(iter(task.splits))
            if task.kind == "sts":
                pairs, _ = said(lambda task=task, split=split: read_task_pairs(task, split, "senteval", tmp_path))
                if pairs is not None:
                    assert isinstance(pairs, Pairs)
                    lines = [
                        x
                        for x in (tmp_path / "pairs.csv")
                        .read_bytes()
                        .decode(task.source("senteval")[1].encoding)
                        .split("\n")
                        if x.strip(',"\r ')
                    ]
                    assert len(pairs) >= len(lines) - 1, number  # no row swallowed another
        assert content_of(tmp_path) == before, number


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".txt.gz"])
def test_a_text(tmp_path, suffix):
    rows = [(text, f"{text} too, said") for text in sentences(6)]
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [a for a, _ in rows], "b": [b for _, b in rows]}), tmp_path / "x.parquet")
        whole = (tmp_path / "x.parquet").read_bytes()
    elif suffix == ".txt.gz":
        import gzip

        whole = gzip.compress(TEXT.encode(), mtime=0)
    else:
        whole = {
            ".txt": TEXT,
            ".csv": "a,b\n" + "".join(f'{a},"{b}"\n' for a, b in rows),
            ".tsv": "a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in rows),
            ".jsonl": "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows),
        }[suffix].encode()
    path = tmp_path / f"text{suffix}"
    for number in range(200):
        clear(path)
        damaged(path, whole, number)
        before = content_of(tmp_path)

        def read():
            corpus = open_corpus(str(path))
            return corpus.columns, list(corpus.rows())

        found, _ = said(read)
        if found is not None:
            columns, texts = found
            assert all(len(row) == columns and all(isinstance(x, str) for x in row) for row in texts)
            if suffix in (".csv", ".tsv"):
                lines = path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
                assert len(texts) == len(lines) - 1, number  # no row swallowed another
        assert content_of(tmp_path) == before, number


def test_fields_of_an_index_that_only_its_search_reads(tmp_path, cli, monkeypatch):
    folder = tmp_path / "idx"
    from simcse_bench.search.simcse import SimCSE

    model = SimCSE("mini", device="cpu")
    model.build_index(["a dog", "a cat"], use_faiss=False)
    model.save_index(folder)
    whole = json.loads((folder / "index.json").read_text("utf-8"))
    for field, value in (
        ("located", "x\0y"), ("located", "x" * 5000), ("located", ""), ("located", ".."), ("located", "/"), ("located", "word-vectors:x"),
        ("located", "..\0"), ("dtype", "float33"), ("dtype", ""), ("revision", "\0"), ("name", "[/b]$\n"),
    ):  # fmt: skip
        (folder / "index.json").write_text(json.dumps(whole | {"model": whole["model"] | {field: value}}), "utf-8")
        done = cli("search", folder, "a dog", "--device", "cpu")
        assert done.code in ((0,) if field == "name" else (2,)), (field, value, done.err)
        assert "Traceback" not in done.err
        assert done.err.strip().replace("\n", "").isprintable()
