"""mteb as an independent oracle: its own STS scoring of the same embeddings on the same pairs."""

import warnings
import zlib

import numpy as np
import pytest

from simcse_bench.data.pairs import read_pairs
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import EvalProtocol, load_task
from simcse_bench.evaluation.evaluate import evaluate
from simcse_bench.models.loading import load_encoder

NAMES = {"sts12": "STS12", "stsb": "STSBenchmark", "sickr": "SICK-R"}


def random_vector(sentence):
    return np.random.default_rng(zlib.crc32(sentence.encode())).normal(size=24).astype(np.float32)


class Random:
    def encode(self, sentences):
        return np.stack([random_vector(s) for s in sentences])


def mteb_scores(encoder, name, pairs, monkeypatch, tmp_path):
    """Cosine Spearman and Pearson of mteb's task, fed with our pairs instead of its download."""
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mteb
        from datasets import Dataset, DatasetDict
        from mteb.models.model_meta import ModelMeta

        class Adapter:
            mteb_model_meta = ModelMeta.create_empty({"name": "test/encoder", "revision": "0"})

            def encode(self, inputs, **_):
                texts = [t for batch in inputs for t in batch["text"]]
                return np.asarray(encoder.encode(texts), dtype=np.float64)

            def similarity(self, a, b):
                u, v = (np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
                return u @ v.T

            def similarity_pairwise(self, a, b):
                u, v = (np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
                return (u * v).sum(axis=1)

        task = mteb.get_task(NAMES[name])
        rows = {"sentence1": list(pairs.left), "sentence2": list(pairs.right), "score": pairs.gold.tolist()}
        task.dataset, task.data_loaded = DatasetDict({"test": Dataset.from_dict(rows)}), True
        result = mteb.evaluate(Adapter(), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def compare(encoder, name, root, monkeypatch, tmp_path):
    task, protocol = load_task(name), EvalProtocol("simcse", text="senteval", resamples=10)
    theirs = mteb_scores(encoder, name, read_pairs(task, "test", "senteval", root), monkeypatch, tmp_path)
    ours = evaluate(encoder, [task], protocol, DataSource(root)).tasks[name]["scores"]
    assert ours["spearman"]["all"]["value"] == pytest.approx(100 * theirs["cosine_spearman"], abs=1e-4)
    assert ours["pearson"]["all"]["value"] == pytest.approx(100 * theirs["cosine_pearson"], abs=1e-4)


@pytest.mark.parametrize("name", ["sts12", "stsb"])
def test_random_embeddings(senteval, monkeypatch, tmp_path, name):
    compare(Random(), name, senteval, monkeypatch, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["sts12", "stsb"])
def test_minilm_on_the_real_pairs(minilm, real_data, monkeypatch, tmp_path, name):
    from simcse_bench.models.checkpoints import resolve

    compare(load_encoder(resolve(str(minilm))), name, real_data, monkeypatch, tmp_path)
