"""SimCSE as its users know it: the documented example, the official signatures, known answers."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from tiny import sentences, tiny_bert

from simcse_bench import SimCSE
from simcse_bench.errors import UserError
from simcse_bench.models.open import open_model
from simcse_bench.search.simcse import _device_name

SENTENCES = ["a woman sees a dog .", "a man plays a guitar .", "the cat eats .", "two dog runs ."]


@pytest.fixture(scope="module")
def model(bert):
    return SimCSE(str(bert), device="cpu", pooler="cls")


def test_the_documented_example_works_but_for_the_import(bert):
    model = SimCSE(str(bert), pooler="cls")
    embeddings = model.encode("A woman is reading.")
    assert isinstance(embeddings, torch.Tensor)
    assert embeddings.shape == (32,)
    sentences_a = ["A woman is reading.", "A man is playing a guitar."]
    sentences_b = ["He plays guitar.", "A woman is making a photo.", "A man."]
    similarities = model.similarity(sentences_a, sentences_b)
    assert isinstance(similarities, np.ndarray)
    assert similarities.shape == (2, 3)
    model.build_index(sentences_a)
    assert model.search("He plays guitar.", threshold=-1, top_k=1)[0][0] in sentences_a
    ((text, score),) = model.search("a man is playing a GUITAR.", threshold=0.999)
    assert text == sentences_a[1]
    assert score == pytest.approx(1)


OFFICIAL = "princeton-nlp/sup-simcse-bert-base-uncased"
SCRIPT = """
import sys
if "without" in sys.argv:
    sys.modules["faiss"] = None  # an import of it fails
from simcse_bench import SimCSE

if __name__ == "__main__":
    corpus = ["a woman sees a dog .", "a man plays a guitar .", "the cat eats .", "two dog runs ."] * 2
    questions = ["a man plays a ball .", "the dog runs ."]
    simcse = SimCSE("%s")
    print(simcse.similarity(questions, corpus).shape)
    for settings in (dict(use_faiss=False), dict(use_faiss=True), dict(faiss_fast=True, use_faiss=True)):
        simcse.build_index(corpus, **settings)
        print(simcse.is_faiss_index)
        results = simcse.search(questions, threshold=-1)
        for i, result in enumerate(results):
            print("Retrieval results for query: {}".format(questions[i]))
            for sentence, score in result:
                print("    {}  (cosine similarity: {:.4f})".format(sentence, score))
"""


@pytest.mark.parametrize("faiss", [pytest.param("with", marks=pytest.mark.slow), "without"])
def test_the_official_example_runs_unchanged_but_for_the_import(bert, tmp_path, faiss):
    """The steps of tool.py's own example, under the official model's name, with the index in each of its forms."""
    if faiss == "with":
        pytest.importorskip("faiss")
    commit = "0" * 40
    hub = tmp_path / "hub" / f"models--{OFFICIAL.replace('/', '--')}"
    shutil.copytree(bert, hub / "snapshots" / commit)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit)
    (tmp_path / "example.py").write_text(SCRIPT % OFFICIAL)
    run = subprocess.run([sys.executable, "example.py", faiss], capture_output=True, text=True, timeout=120,
                         env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "(2, 8)"
    assert [x for x in lines if x in ("True", "False")] == ["False", *[str(faiss == "with")] * 2]
    found = [x for x in lines if "cosine" in x]
    assert len(found) == 3 * 2 * 5
    assert found[:10] == found[10:20]
    assert run.stderr.count("numpy compares every sentence") == (0 if faiss == "with" else 2)


def test_attributes_of_the_official_class(model, bert):
    batch = model.tokenizer(SENTENCES[:1], return_tensors="pt")
    with torch.no_grad():
        first = model.model(**batch, return_dict=True).last_hidden_state[:, 0]
    plain = SimCSE(str(bert), pooler="cls_before_pooler", device="cpu")
    np.testing.assert_allclose(plain.encode(SENTENCES[:1], normalize_to_unit=False), first, atol=1e-5)
    assert model.pooler == "cls"
    assert SimCSE(str(bert), pooling="top2", head="none", device="cpu").pooler == "avg_top2"
    assert plain.pooler == "cls_before_pooler"
    model.build_index(SENTENCES, use_faiss=False)
    assert model.index["sentences"] == SENTENCES
    np.testing.assert_array_equal(model.index["index"], model.encode(SENTENCES, return_numpy=True))
    assert not model.is_faiss_index
    pytest.importorskip("faiss")
    model.build_index(SENTENCES, use_faiss=True)
    assert model.is_faiss_index
    assert model.index["index"].ntotal == 4


def test_a_device_is_given_as_to_torch(bert, monkeypatch):
    model = SimCSE(str(bert), torch.device("cpu"), pooler="cls")
    assert model.device == "cpu"
    assert model.encode("a", device=torch.device("cpu")).shape == (32,)
    with pytest.raises(UserError, match="--device cuda:99: not available"):
        model.encode("a", device=99)
    monkeypatch.setattr("simcse_bench.models.copies.torch_device", lambda name: name)
    assert _device_name(0) == "cuda:0"  # a GPU, not "none given"
    assert _device_name("cuda:0, cuda:1") == "cuda:0,cuda:1"
    assert _device_name(None) == "auto"


def test_sentences_in_any_form(model):
    import pandas as pd

    wanted = model.encode(SENTENCES, return_numpy=True)
    for given in ((x for x in SENTENCES), tuple(SENTENCES), np.array(SENTENCES), pd.Series(SENTENCES)):
        np.testing.assert_array_equal(model.encode(given, return_numpy=True), wanted)
    np.testing.assert_allclose(
        model.similarity((x for x in SENTENCES), (x for x in SENTENCES)), wanted @ wanted.T, atol=1e-5
    )
    np.testing.assert_allclose(model.similarity(SENTENCES, pd.Series(SENTENCES)), wanted @ wanted.T, atol=1e-5)
    model.build_index(x for x in SENTENCES)
    model.add_to_index(x for x in SENTENCES[:1])
    assert model.index["sentences"] == SENTENCES + SENTENCES[:1]
    assert [len(hits) for hits in model.search((x for x in SENTENCES), top_k=1)] == [1] * 4
    assert model.search(SENTENCES[0], top_k=0) == []
    assert model.search(SENTENCES, top_k=0) == [[]] * 4


def test_arguments_and_defaults_are_the_official_ones():
    official = {  # simcse/tool.py at 49fa580
        "__init__": {
            "model_name_or_path": inspect.Parameter.empty,
            "device": None,
            "num_cells": 100,
            "num_cells_in_search": 10,
            "pooler": None,
        },
        "encode": {
            "sentence": inspect.Parameter.empty,
            "device": None,
            "return_numpy": False,
            "normalize_to_unit": True,
            "keepdim": False,
            "batch_size": 64,
            "max_length": None,
        },
        "similarity": {"queries": inspect.Parameter.empty, "keys": inspect.Parameter.empty, "device": None},
        "build_index": {
            "sentences_or_file_path": inspect.Parameter.empty,
            "use_faiss": None,
            "faiss_fast": False,
            "device": None,
            "batch_size": 64,
        },
        "add_to_index": {"sentences_or_file_path": inspect.Parameter.empty, "device": None, "batch_size": 64},
        "search": {"queries": inspect.Parameter.empty, "device": None, "threshold": 0.6, "top_k": 5},
    }
    for name, expected in official.items():
        found = [
            p for p in inspect.signature(getattr(SimCSE, name)).parameters.values() if p.kind is not p.KEYWORD_ONLY
        ]
        assert {p.name: p.default for p in found[1:]} == expected
    assert inspect.signature(SimCSE.__init__).parameters["max_length"].default == 128  # stands for encode's None


@pytest.mark.parametrize(
    "pooler, oracle",
    [
        ("cls", lambda out: out.pooler_output),
        ("cls_before_pooler", lambda out: out.last_hidden_state[:, 0]),
        ("avg", lambda out: out.last_hidden_state.mean(1)),
        ("avg_first_last", lambda out: (out.hidden_states[1] + out.hidden_states[-1]).mean(1) / 2),
        ("avg_top2", lambda out: (out.hidden_states[-2] + out.hidden_states[-1]).mean(1) / 2),
    ],
)
def test_encode_equals_transformers(bert, pooler, oracle):
    from transformers import AutoModel, AutoTokenizer

    plain, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    model = SimCSE(str(bert), pooler=pooler, device="cpu")
    got = model.encode(SENTENCES, return_numpy=True, normalize_to_unit=False, batch_size=1)
    for text, vector in zip(SENTENCES, got, strict=True):
        with torch.no_grad():
            wanted = oracle(plain(**tokenizer(text, return_tensors="pt"), output_hidden_states=True))[0]
        np.testing.assert_allclose(vector, wanted, atol=2e-5)


def test_shapes_types_and_length_of_vectors(model):
    one = model.encode("a dog .", keepdim=True)
    assert one.shape == (1, 32)
    assert model.encode([], return_numpy=True).shape == (0, 32)
    many = model.encode(SENTENCES, return_numpy=True)
    assert isinstance(many, np.ndarray)
    assert many.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)
    raw = model.encode(SENTENCES, normalize_to_unit=False)
    assert not np.allclose(raw.norm(dim=1), 1, atol=1e-2)
    twice = model.encode([SENTENCES[1], SENTENCES[0], SENTENCES[1]], return_numpy=True)
    assert (twice[0] == twice[2]).all()
    np.testing.assert_allclose(twice[:2], many[[1, 0]], atol=1e-6)


def test_max_length_cuts(model):
    long = "a man " * 15
    np.testing.assert_allclose(model.encode(long, max_length=4), model.encode("a man", max_length=4), atol=1e-6)
    assert not np.allclose(model.encode(long), model.encode("a man"), atol=1e-2)
    assert model.encode("a man " * 60).shape == (32,)  # over the model's own 48 tokens, under the default 128
    with pytest.raises(UserError, match="max_length 2: 2 tokens of it are special; expected at least 3"):
        model.encode("a", max_length=2)


def test_similarity_has_the_shape_of_what_is_asked(model):
    vectors = model.encode(SENTENCES, return_numpy=True).astype(np.float64)
    wanted = vectors @ vectors.T
    np.testing.assert_allclose(model.similarity(SENTENCES, SENTENCES), wanted, atol=1e-5)
    assert isinstance(model.similarity(SENTENCES[0], SENTENCES[1]), float)
    assert model.similarity(SENTENCES[0], SENTENCES[1]) == pytest.approx(wanted[0, 1], abs=1e-5)
    np.testing.assert_allclose(model.similarity(SENTENCES[0], SENTENCES), wanted[0], atol=1e-5)
    np.testing.assert_allclose(model.similarity(SENTENCES, SENTENCES[2]), wanted[:, 2:3], atol=1e-5)
    np.testing.assert_allclose(model.similarity(SENTENCES, 3 * vectors), wanted, atol=1e-5)
    np.testing.assert_allclose(model.similarity(SENTENCES[0], model.encode(SENTENCES)), wanted[0], atol=1e-5)
    assert model.similarity(SENTENCES[0], vectors[1]) == pytest.approx(wanted[0, 1], abs=1e-5)
    assert model.similarity([], SENTENCES).shape == (0, 4)
    assert model.similarity(SENTENCES, []).shape == (4, 0)
    with pytest.raises(UserError, match=r"keys have shape \(2, 3\); this model's embeddings have 32"):
        model.similarity("a", np.ones((2, 3)))


@pytest.mark.parametrize("use_faiss", [False, True])
def test_search_equals_brute_force(model, use_faiss):
    if use_faiss:
        pytest.importorskip("faiss")
    corpus = [*sentences(150, seed=1), *sentences(20, seed=1)]  # the first twenty twice
    queries = [*sentences(10, seed=2), corpus[3]]
    scores = model.similarity(queries, corpus)
    model.build_index(corpus[:100], use_faiss=use_faiss)
    model.add_to_index(corpus[100:])
    edge = float(np.median(scores))
    for top_k, threshold in ((1, -1), (7, -1), (1000, -1), (25, edge), (5, 2)):
        found = model.search(queries, threshold=threshold, top_k=top_k)
        for row, hits in zip(scores, found, strict=True):
            wanted = sorted((x for x in row if x >= threshold), reverse=True)[:top_k]
            np.testing.assert_allclose([score for _, score in hits], wanted, atol=1e-5)
            assert all(score == pytest.approx(row[corpus.index(text)], abs=1e-5) for text, score in hits)
            assert len(hits) == len(wanted)
            assert all(n <= corpus.count(text) for text, n in Counter(text for text, _ in hits).items())
    assert [text for text, _ in model.search(corpus[3], top_k=2)] == [corpus[3]] * 2
    assert model.search([]) == []


def test_an_empty_index_is_searched(model):
    model.build_index([])
    assert model.search("a dog .") == []
    assert model.search(["a", "b"]) == [[], []]
    model.add_to_index(["a dog ."])
    assert model.search("a dog .") == [("a dog .", pytest.approx(1))]
    model.add_to_index([])
    assert len(model.index.sentences) == 1


def test_a_file_is_read_without_its_blank_lines(model, tmp_path, caplog):
    (tmp_path / "a.txt").write_text("a dog .\n\n  \n the cat eats . \t\n", "utf-8")
    with caplog.at_level("INFO"):
        model.build_index(str(tmp_path / "a.txt"))
    assert model.index.sentences == ["a dog .", " the cat eats ."]  # white space behind a line goes, as in tool.py
    assert "2 blank lines are left out" in caplog.text
    (tmp_path / "b.txt").write_bytes(b"a\nb\xff\nc\n")
    with pytest.raises(UserError, match=r"b\.txt:2: not utf-8 text \(byte 0xff\)"):
        model.build_index(str(tmp_path / "b.txt"))
    assert len(model.index.sentences) == 2  # the old index is still there


def test_bad_input_is_named(model, bert):
    for wrong in (["a", None], [3]):
        with pytest.raises(UserError, match=r"sentence \d is (NoneType|int), expected text"):
            model.encode(wrong)
    with pytest.raises(UserError, match="sentence 1 is not valid unicode"):
        model.encode(["a", "b \ud800"])
    with pytest.raises(UserError, match="batch_size 0"):
        model.encode(["a"], batch_size=0)
    with pytest.raises(UserError, match="top_k -1"):
        model.build_index(["a"]) or model.search("a", top_k=-1)
    with pytest.raises(UserError, match="unknown pooler 'cls_befor_pooler'; did you mean 'cls_before_pooler'"):
        SimCSE(str(bert), pooler="cls_befor_pooler")
    with pytest.raises(UserError, match="give them or the pooler, not both"):
        SimCSE(str(bert), pooler="cls", pooling="mean")
    with pytest.raises(UserError, match="does not say its pooling"):  # never a guess from the name
        SimCSE(str(bert))
    with pytest.raises(UserError, match="call build_index or load_index first"):
        SimCSE(str(bert), pooling="mean").search("a")


def test_a_pooling_and_head_are_those_of_eval(bert):
    wanted = open_model(str(bert), pooling="top2").load().encode(SENTENCES)
    found = SimCSE(str(bert), pooling="top2").encode(SENTENCES, return_numpy=True, normalize_to_unit=False)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_embedded_encoder_needs_no_settings():
    model = SimCSE("mini", device="cpu")
    assert model.similarity("The dog is asleep.", "A dog sleeps.") > model.similarity(
        "The dog is asleep.", "Sell gold."
    )


def test_word_vectors_search_too(tmp_path):
    (tmp_path / "v.txt").write_text("dog 1 0\ncat 0 1\na 1 1\n", "utf-8")
    model = SimCSE(f"word-vectors:{tmp_path / 'v.txt'}")
    model.build_index(["dog", "cat"])
    assert model.search("dog") == [("dog", 1.0)]
    assert model.encode([]).shape == (0, 2)
    model.save_index(tmp_path / "idx")
    model.load_index(tmp_path / "idx")
    assert model.search("dog") == [("dog", 1.0)]


@pytest.mark.parametrize("use_faiss", [False, True])
def test_a_saved_index_answers_the_same(model, tmp_path, use_faiss):
    if use_faiss:
        pytest.importorskip("faiss")
    corpus = [*sentences(60, seed=5), "line\nbreak \u2028 ünï"]
    model.build_index(corpus, use_faiss=use_faiss)
    before = model.search(corpus[:5], top_k=3)
    model.save_index(tmp_path / "idx")
    model.build_index(["a"])
    model.save_index(tmp_path / "other")
    model.load_index(tmp_path / "idx", use_faiss=use_faiss)
    assert model.search(corpus[:5], top_k=3) == before
    assert model.index.sentences == corpus
    model.add_to_index(["a new sentence"])
    model.save_index(tmp_path / "idx", force=True)  # over itself, mapped as it is
    model.load_index(tmp_path / "idx")
    assert model.search("a new sentence", top_k=1)[0][0] == "a new sentence"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["idx", "other"]  # nothing temporary is left
    assert sorted(p.name for p in (tmp_path / "idx").iterdir()) == ["index.json", "sentences.jsonl", "vectors.npy"]
    record = json.loads((tmp_path / "idx" / "index.json").read_text("utf-8"))
    assert (record["model"]["pooling"], record["model"]["head"]) == ("cls", "mlp")
    assert str(tmp_path) not in json.dumps(record)


def test_an_index_of_another_model_is_refused_naming_both(model, bert, tmp_path):
    model.build_index(SENTENCES)
    model.save_index(tmp_path / "idx")
    other = tiny_bert(tmp_path / "other-bert", seed=9)
    for wrong in (
        SimCSE(str(other), pooler="cls"),
        SimCSE(str(bert), pooling="mean"),
        SimCSE(str(bert), pooler="cls", max_length=9),
    ):
        with pytest.raises(UserError) as caught:
            wrong.load_index(tmp_path / "idx")
        assert "was made with tiny-bert (pooling cls, head mlp, at most 48 tokens" in str(caught.value)
        about = wrong.provenance
        assert f"this model is {about['name']} (pooling {about['pooling']}, head {about['head']}" in str(caught.value)


def test_a_damaged_index_is_refused(model, tmp_path):
    folder = tmp_path / "idx"
    model.build_index(SENTENCES)
    for name in ("vectors.npy", "sentences.jsonl"):
        model.save_index(folder, force=True)
        content = (folder / name).read_bytes()
        for broken in (content[:-3], content[:-3] + b"abc", b""):
            (folder / name).write_bytes(broken)
            with pytest.raises(UserError, match=f"damaged index.*{name}"):
                model.load_index(folder)
        (folder / name).unlink()
        with pytest.raises(UserError, match="damaged index"):
            model.load_index(folder)
    for broken in ("", "[]", "{}", '{"schema": 1}'):
        (folder / "index.json").write_text(broken, "utf-8")
        with pytest.raises(UserError, match=r"index\.json: not"):
            model.load_index(folder)
    with pytest.raises(UserError, match="no index"):
        model.load_index(tmp_path)


def test_a_folder_that_is_no_index_is_never_overwritten(model, tmp_path):
    model.build_index(SENTENCES)
    for name in ("mine", "site", "link"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x", "utf-8")
    (tmp_path / "site" / "index.json").write_text('{"pages": []}', "utf-8")  # another program's
    (tmp_path / "file").write_text("x", "utf-8")
    (tmp_path / "link").rmdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "site", "file", "link"):
        with pytest.raises(UserError, match=r"exists and is no index|site.index\.json: not the record of an index"):
            model.save_index(tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "index.json", "link", "mine", "notes.txt", "site"]
    with pytest.raises(UserError, match="cannot write"):
        model.save_index("/proc/idx")  # nobody may, not even root


def test_only_the_index_of_a_folder_is_replaced(model, tmp_path):
    model.build_index(SENTENCES)
    (tmp_path / "idx").mkdir()  # an empty folder is nobody's
    model.save_index(tmp_path / "idx")
    (tmp_path / "idx" / "notes.txt").write_text("mine", "utf-8")
    (tmp_path / "idx" / "vectors.npy").write_bytes(b"damaged")
    model.build_index(SENTENCES[:1])
    with pytest.raises(UserError, match="an index is there already"):
        model.save_index(tmp_path / "idx")
    model.save_index(tmp_path / "idx", force=True)
    model.load_index(tmp_path / "idx")
    assert model.index["sentences"] == SENTENCES[:1]
    assert (tmp_path / "idx" / "notes.txt").read_text("utf-8") == "mine"
    assert len(list((tmp_path / "idx").iterdir())) == 4


def test_a_full_disk_keeps_the_index_that_was_there(model, tmp_path, monkeypatch):
    model.build_index(SENTENCES)
    for earlier in (False, True):
        if earlier:
            model.save_index(tmp_path / "idx")
        before = {p.name: p.read_bytes() for p in tmp_path.glob("idx/*")}
        for name in ("save", "fsync"):
            with monkeypatch.context() as patch:
                patch.setattr(np if name == "save" else os, name, lambda *a, **k: raise_full())
                with pytest.raises(UserError, match="No space left"):
                    model.save_index(tmp_path / "idx", force=True)
            assert {p.name: p.read_bytes() for p in tmp_path.glob("idx/*")} == before
            assert (tmp_path / "idx").exists() == earlier


def raise_full():
    raise OSError(28, "No space left on device")
