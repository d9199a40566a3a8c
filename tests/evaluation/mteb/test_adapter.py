"""Our encoder in mteb: the scores of our own mteb protocol, an identity made of content, tasks of other types."""

import contextlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from mteb_tasks import Dataset, DatasetDict, mteb, sts_rows
from tiny import sentences, tiny_bert

import simcse_bench
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import MTEB
from simcse_bench.errors import UserError
from simcse_bench.evaluation.evaluate import evaluate
from simcse_bench.evaluation.mteb.adapter import MtebModel
from simcse_bench.models.open import Model


def scored(model, name, splits):
    """All metrics of mteb's task on the given data."""
    task = mteb.get_task(name)
    task.dataset = DatasetDict({split: Dataset.from_dict(columns) for split, columns in splits.items()})
    task.data_loaded = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def agrees_with_our_own_protocol(model, root, **options):
    task = load_task("stsb")
    pairs = read_task_pairs(task, "test", MTEB.text, root)
    theirs = scored(simcse_bench.mteb_model(str(model), **options), "STSBenchmark", {"test": sts_rows(pairs)})
    encoder = simcse_bench.mteb_model(str(model), **options).model.load()
    ours = evaluate(encoder, [task], MTEB, DataSource(root)).tasks["stsb"]["scores"]
    for metric in ("spearman", "pearson"):
        value = ours[metric]["all"]["value"] / 100
        assert theirs[f"cosine_{metric}"] == pytest.approx(value, abs=1e-6)
        assert theirs[metric] == pytest.approx(value, abs=1e-6)  # by our own similarity
    assert theirs["main_score"] == theirs["cosine_spearman"]
    return theirs["main_score"]


def test_stsb_equals_our_own_mteb_protocol(bert, senteval):
    cls = agrees_with_our_own_protocol(bert, senteval, pooling="cls", head="mlp", device="cpu")
    mean = agrees_with_our_own_protocol(bert, senteval, pooling="mean", head="none", device="cpu")
    assert abs(cls - mean) > 1e-3  # pooling and head reach mteb


@pytest.mark.data
def test_minilm_on_the_real_stsb(minilm, real_data):
    score = agrees_with_our_own_protocol(minilm, real_data)
    assert 100 * score == pytest.approx(82.03, abs=0.005)  # its published number on mteb


def identity(bert, **options):
    meta = simcse_bench.mteb_model(str(bert), **({"pooling": "cls", "head": "none"} | options)).mteb_model_meta
    return meta.name, meta.revision


def test_whatever_decides_the_embeddings_decides_the_revision(bert, tmp_path):
    plain = identity(bert)
    assert plain[0].startswith("simcse-bench/tiny-bert-")
    shutil.copytree(bert, tmp_path / "copy")
    copied = identity(tmp_path / "copy")
    assert (copied[0].rpartition("-")[2], copied[1]) == (plain[0].rpartition("-")[2], plain[1])
    assert identity(bert, device="cpu", batch_tokens=77) == plain
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences(40)), encoding="utf-8")
    others = [identity(bert, **change) for change in (
        {"pooling": "mean"}, {"head": "mlp"}, {"max_length": 9}, {"dtype": "bfloat16"}, {"whiten": text})]  # fmt: skip
    others.append(identity(tiny_bert(tmp_path / "tiny-bert", seed=1)))
    assert len({revision for _, revision in [plain, *others]}) == 7
    assert others[-1][0] != plain[0]


def test_mteb_writes_the_settings_down(bert):
    meta = simcse_bench.mteb_model(str(bert), pooling="first_last", head="none", max_length=9).mteb_model_meta
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = meta.to_dict()
    assert written["loader_kwargs"]["pooling"] == "first_last"
    assert written["loader_kwargs"]["max_length"] == 9
    assert "model.safetensors" in written["loader_kwargs"]["files"]
    assert meta.experiment_name is None


class Counting:
    provenance = {"name": "counting", "files": {"a": "b"}}  # noqa: RUF012

    def __init__(self, vector=lambda s: [1.0, float(len(s))]):
        self.calls, self.vector = [], vector

    def encode(self, texts):
        self.calls.append(list(texts))
        return np.array([self.vector(t) for t in texts], dtype=np.float32)

    def model(self):
        return MtebModel(Model(self.provenance, lambda progress: self))


def test_a_sentence_is_embedded_once_and_order_is_kept():
    encoder = Counting()
    found = encoder.model().encode(iter([{"text": ["aaa", "b"]}, {"text": ["aaa", "cc"]}]), task_metadata=None)
    assert encoder.calls == [["aaa", "b", "cc"]]
    assert found[:, 1].tolist() == [3, 1, 3, 2]
    assert found.dtype == np.float32


def test_nan_is_an_error():
    broken = Counting(lambda s: [np.nan if s == "b" else 1.0, 0.0])
    with pytest.raises(UserError, match=r"NaN or infinite values for 1 of 2 sentences, first for 'b'"):
        broken.model().encode([{"text": ["a", "b"]}])


def test_progress_is_shown_around_every_pass(bert):
    seen = []

    @contextlib.contextmanager
    def show_pass():
        seen.append("open")
        yield lambda done, total: seen.append((done, total))

    model = simcse_bench.mteb_model(str(bert), pooling="cls", head="none", device="cpu")
    model.show_pass = show_pass
    for texts in (["the dog ."], ["a cat .", "a man plays ."]):
        model.encode([{"text": texts}])
    assert seen == ["open", (0, 5), (5, 5), "open", (0, 11), (6, 11), (11, 11)]


def test_retrieval_finds_the_same_sentence(bert):
    """A query equal to one document: nDCG 1; the document in its title and text is joined by mteb."""
    texts = sentences(30)
    documents = {"id": [f"d{i}" for i in range(30)], "title": [""] * 30, "text": texts}
    queries = {"id": [f"q{i}" for i in range(10)], "text": [texts[i] for i in range(10)]}
    task = mteb.get_task("ArguAna")
    task.dataset = {"default": {"test": {
        "corpus": Dataset.from_dict(documents), "queries": Dataset.from_dict(queries),
        "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in range(10)}, "top_ranked": None,
    }}}  # fmt: skip
    task.data_loaded = True
    model = simcse_bench.mteb_model(str(bert), pooling="mean", head="none", device="cpu")
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    assert result.task_results[0].scores["test"][0]["ndcg_at_10"] == pytest.approx(1.0)


def test_classification_of_two_fixed_texts_is_perfect(bert):
    rows = {"text": ["the red dog .", "a small guitar ."] * 20, "label": [0, 1] * 20}
    model = simcse_bench.mteb_model(str(bert), pooling="mean", head="none", device="cpu")
    assert scored(model, "Banking77Classification", {"train": rows, "test": rows})["accuracy"] == 1.0
    wrong = {"text": rows["text"], "label": [1, 0] * 20}
    assert scored(model, "Banking77Classification", {"train": rows, "test": wrong})["accuracy"] == 0.0


def test_the_package_gives_the_name_only_when_asked():
    code = "import sys, simcse_bench as s; a = set(sys.modules); s.mteb_model; print('torch' in a, 'mteb' in a, s.mteb_model)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.startswith("False False <function mteb_model"), run.stderr
    with pytest.raises(AttributeError, match="no attribute 'mteb_modell'"):
        simcse_bench.mteb_modell  # noqa: B018
