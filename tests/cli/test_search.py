"""index, search and encode at the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import sentences, tiny_bert

from simcse_bench.data import corpus
from simcse_bench.search.simcse import SimCSE


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*sentences(30), "", "the dog eats ."]) + "\n", "utf-8")
    return path


def test_an_index_is_made_and_searched(cli, text, tmp_path):
    model = tiny_bert(tmp_path / "m")
    done = cli("index", text, "--model", model, "--pooling", "mean", "--out", "idx", "--device", "cpu")
    assert done.code == 0, done.err
    assert "written: idx/, 31 sentences; 1 blank line left out" in done.err
    oracle = SimCSE(str(model), pooling="mean", device="cpu")
    oracle.build_index(str(text))
    queries = ["the dog eats .", "a red ball ."]
    done = cli("search", "idx", *queries, "--threshold", -1, "--top-k", 3, "--format", "json", "--device", "cpu")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["query"] for one in found] == queries
    for one, hits in zip(found, oracle.search(queries, threshold=-1, top_k=3), strict=True):
        assert [(h["sentence"], h["score"]) for h in one["results"]] == [
            (t, pytest.approx(s, abs=1e-5)) for t, s in hits
        ]
    done = cli("search", "idx", "the dog eats .", "--threshold", 0.999)
    assert "1.0000   the dog eats ." in done.out
    done = cli("search", "idx", "eats", "--threshold", 1)
    assert "no sentence reaches a cosine of 1.0; lower --threshold." in done.out
    done = cli("search", "idx", "a", "--device", "cpu:1")
    assert (done.code, done.err) == (2, "error: --device cpu:1: not available. Known: auto, cpu, cuda, cuda:1, mps.\n")
    moved = tmp_path / "elsewhere"
    model.rename(moved)
    done = cli("search", "idx", "a")
    assert done.code == 2
    assert "idx was made with m; say where it is: --model" in done.err
    assert cli("search", "idx", "a", "--model", moved).code == 0
    other = tiny_bert(tmp_path / "other", seed=5)
    done = cli("search", "idx", "a", "--model", other)
    assert done.code == 2
    assert "idx was made with m (pooling mean" in done.err
    assert "this model is other (pooling mean" in done.err


def test_index_and_model_may_move_together(cli, text, tmp_path):
    (tmp_path / "here").mkdir()
    tiny_bert(tmp_path / "here" / "m")
    assert cli("index", text, "--model", "here/m", "--pooling", "mean", "--out", "here/idx").code == 0
    (tmp_path / "here").rename(tmp_path / "there")
    assert cli("search", tmp_path / "there" / "idx", "a").code == 0


def test_the_embedded_encoder_and_sentences_work_without_settings(cli, monkeypatch):
    real = corpus.read_sentences
    monkeypatch.setattr(corpus, "read_sentences", lambda *given: (real(*given)[0][:200], 0))  # all take a minute
    assert cli("index", "mini-sentences", "--model", "mini", "--out", "idx", "--progress", "none").code == 0
    done = cli("search", "idx", "The children are eating soup.", "--top-k", 1, "--threshold", 0)
    assert done.code == 0, done.err
    assert json.loads(Path("idx/index.json").read_text("utf-8"))["model"]["located"] == "mini"


def test_an_index_that_is_there_needs_force(cli, text, bert):
    command = ("index", text, "--model", bert, "--pooling", "mean", "--out", "idx")
    assert cli(*command).code == 0
    done = cli(*command)
    assert done.code == 2
    assert "an index is there already. Use force (--force)" in done.err
    assert cli(*command, "--force").code == 0
    (Path("idx") / "vectors.npy").write_bytes(b"\x93NUMPY broken")
    done = cli("search", "idx", "a")
    assert done.code == 2
    assert "idx: damaged index" in done.err
    shutil.rmtree("idx")
    assert "no index (index.json) there" in cli("search", "idx", "a").err


def test_encode_at_the_command_line(cli, text, bert):
    command = ("encode", text, "--model", bert, "--pooling", "mean", "--device", "cpu", "--progress", "plain")
    done = cli(*command, "--out", "v.npy")
    assert done.code == 0, done.err
    assert "embedding 100 %, 31 of 31 sentences" in done.err
    assert "v.npy: 31 sentences, 32 values each; 1 blank line left out" in done.err
    assert np.load("v.npy").shape == (31, 32)
    again = cli(*command, "--out", "v.npy")
    assert again.code == 0
    assert "embedding" not in again.err
    done = cli(*command, "--out", "v.csv")
    assert done.code == 2
    assert "unknown suffix '.csv'" in done.err
    assert not Path("v.csv").exists()


def test_bad_options_are_refused_before_the_work(cli, text):
    for command in (
        ("index", text, "--model", "mini", "--out", "idx", "--progress", "loud"),
        ("index", text, "--model", "mini", "--out", "idx", "--pooling", "means"),
        ("index", text, "--model", "nini", "--out", "idx"),
        ("search", "idx", "a", "--format", "xml"),
        ("demo", "--index", "idx", "--corpus", text),
    ):
        done = cli(*command)
        assert done.code == 2, command
        assert "error: " in done.err
        assert "Traceback" not in done.err
    assert not Path("idx").exists()


@pytest.mark.parametrize("options, said", [
    (("--top-k", 0), "--top-k 0: expected at least 1."), (("--top-k", -1), "--top-k -1: expected at least 1."),
    (("--threshold", "inf"), "--threshold inf: expected a cosine, from -1 to 1."),
    (("--threshold", "nan"), "--threshold nan: expected a cosine, from -1 to 1."),
])  # fmt: skip
def test_what_no_search_can_answer_is_refused_before_the_index_is_opened(cli, options, said):
    done = cli("search", "nowhere", "a", *options)
    assert (done.code, done.err) == (2, f"error: {said}\n")


def test_a_wrong_file_is_told_before_the_model_is_loaded(cli, monkeypatch):
    monkeypatch.setattr("simcse_bench.search.simcse.SimCSE.__init__", None)
    done = cli("encode", "nowhere.txt", "--model", "mini", "--out", "v.npy")
    assert (done.code, done.err) == (2, "error: nowhere.txt: no such file.\n")


def test_one_sentence_is_no_sentences(cli, tmp_path, bert):
    (tmp_path / "one.txt").write_text("a dog .\n", "utf-8")
    command = (tmp_path / "one.txt", "--model", bert, "--pooling", "mean", "--progress", "none", "--out")
    assert "written: idx/, 1 sentence\n" in cli("index", *command, "idx").err
    assert "v.npy: 1 sentence, 32 values each" in cli("encode", *command, "v.npy").err
