"""mteb as an independent oracle: its own STS scoring of the same embeddings on the same pairs."""

import json
import warnings
import zlib

import numpy as np
import pytest
import yaml
from mteb_tasks import mteb, sts_rows
from tiny import sentences

from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import EvalProtocol
from simcse_bench.evaluation.evaluate import evaluate
from simcse_bench.models.loading import load_encoder

NAMES = {"sts12": "STS12", "stsb": "STSBenchmark", "sickr": "SICK-R"}


def random_vector(sentence):
    return np.random.default_rng(zlib.crc32(sentence.encode())).normal(size=24).astype(np.float32)


class Random:
    def encode(self, sentences):
        return np.stack([random_vector(s) for s in sentences])


def mteb_scores(encoder, name, rows, monkeypatch, tmp_path, subset=None):
    """The scores of mteb's task, or of a subset of it, fed with these columns instead of its download."""
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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

        task = mteb.get_task(name, hf_subsets=[subset] if subset else None)
        data = DatasetDict({split: Dataset.from_dict(rows) for split in task.eval_splits})
        task.dataset, task.data_loaded = {subset: data} if subset else data, True
        result = mteb.evaluate(Adapter(), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def compare(encoder, name, root, monkeypatch, tmp_path):
    task, protocol = load_task(name), EvalProtocol("simcse", text="senteval", resamples=10)
    rows = sts_rows(read_task_pairs(task, "test", "senteval", root))
    theirs = mteb_scores(encoder, NAMES[name], rows, monkeypatch, tmp_path)
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


EXTENDED = {"biosses": "BIOSSES", "sts17": "STS17", "sts22": "STS22.v2", "semrel24": "SemRel24STS"}


@pytest.mark.parametrize(("name", "theirs"), EXTENDED.items())
def test_definitions_are_mtebs(name, theirs):
    """Dataset, revision, languages, row counts and range; columns as AbsTaskSTS has them."""
    task, official = load_task(name), mteb.get_task(theirs)
    _, source = task.source("raw")
    assert {"path": source.dataset, "revision": source.revision} == dict(official.metadata.dataset)
    assert task.gold == (official.min_score, official.max_score)
    assert (source.columns["left"], source.columns["right"]) == official.column_names
    assert [*task.splits] == [*official.metadata.eval_splits] == ["test"]
    counted = official.metadata.descriptive_stats["test"]
    subsets = counted.get("hf_subset_descriptive_stats", {"test": counted})
    assert dict(task.splits["test"]) == {subset: part["num_samples"] for subset, part in subsets.items()}
    if source.config:
        assert source.config == "{subset}"
        assert {*task.splits["test"]} == {*official.metadata.eval_langs}
    assert source.unicode == ""  # mteb takes the text as it stands


@pytest.mark.parametrize(
    ("name", "subset", "from_hub"),
    [("biosses", "", True), ("biosses", "", False), ("sts17", "en-de", True), ("sts22", "zh-en", True),
     ("sts22", "fr-pl", False), ("semrel24", "eng", True)],
)  # fmt: skip
def test_extended_sts_on_small_data_of_the_same_form(name, subset, from_hub, monkeypatch, tmp_path):
    """From a dataset of the Hub's form and from copies; the scores are within 1e-6 of mteb's."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    task = load_task(name)
    content = yaml.safe_load((task.folder / f"{name}.yaml").read_text(encoding="utf-8"))
    pool, rng = sentences(80), np.random.default_rng(5)
    low, high = task.gold
    scores = np.round(rng.uniform(low, high, 40) * 3) / 3  # thirds, as averages of annotators are: ties
    rows = {"score": np.clip(scores, low, high).tolist(), "sentence1": pool[:40], "sentence2": pool[40:]}
    hub = tmp_path / "hub"
    hub.mkdir()
    lines = (dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True))
    (hub / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = {"config_name": subset or "default", "data_files": [{"split": "test", "path": "rows.jsonl"}]}
    (hub / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': [config]})}---\n", encoding="utf-8")
    content["source"] |= {"dataset": str(hub), "revision": None}
    del content["source"]["revision"]
    content["splits"] = {"test": {subset or "test": 40}}
    (tmp_path / f"small-{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    if not from_hub:
        copy = tmp_path / "data" / content["source"]["path"].format(subset=subset or "test", split="test")
        copy.parent.mkdir(parents=True)
        text = "".join(f"{g}\t{a}\t{b}\n" for g, a, b in zip(*rows.values(), strict=True))
        copy.write_text(text, encoding="utf-8")
        (hub / "rows.jsonl").unlink()
    named = f"small-{name}/{subset}" if subset else f"small-{name}"
    where = DataSource(None if from_hub else tmp_path / "data")
    report = evaluate(Random(), [load_task(named, tmp_path)], EvalProtocol("mteb", text="raw", resamples=10), where)
    ours = report.tasks[named]["scores"]
    theirs = mteb_scores(Random(), EXTENDED[name], rows, monkeypatch, tmp_path, subset)
    assert ours["spearman"]["all"]["value"] / 100 == pytest.approx(theirs["cosine_spearman"], abs=1e-6)
    assert ours["pearson"]["all"]["value"] / 100 == pytest.approx(theirs["cosine_pearson"], abs=1e-6)


def test_paraphrases_as_mtebs_pair_classification(monkeypatch, tmp_path):
    """Average precision, and what the best thresholds for the scored pairs give: mteb's max_f1 and max_accuracy."""
    pool, labels = sentences(120), np.random.default_rng(6).integers(0, 2, 60).tolist()
    pool[60:] = [
        a if label and i % 3 else b for i, (a, b, label) in enumerate(zip(pool[:60], pool[60:], labels, strict=True))
    ]
    (tmp_path / "pairs.tsv").write_text(
        "".join(f"{g}\t{a}\t{b}\n" for g, a, b in zip(labels, pool[:60], pool[60:], strict=True)), encoding="utf-8"
    )
    source = {"format": "tsv", "path": "pairs.tsv"}
    content = {"kind": "paraphrase", "source": source, "splits": {"dev": {"dev": 60}, "test": {"test": 60}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    ours = evaluate(Random(), [load_task("own", tmp_path)], EvalProtocol("simcse", text="raw", resamples=10))
    rows = {"sentence1": pool[:60], "sentence2": pool[60:], "labels": labels}
    theirs = mteb_scores(Random(), "PawsXPairClassification", rows, monkeypatch, tmp_path, "en")
    task = ours.tasks["own"]
    assert task["scores"]["ap"]["all"]["value"] / 100 == pytest.approx(theirs["cosine_ap"], abs=1e-6)
    assert task["paraphrase"]["best"]["f1"] / 100 == pytest.approx(theirs["cosine_f1"], abs=1e-6)
    assert task["paraphrase"]["best"]["accuracy"] / 100 == pytest.approx(theirs["cosine_accuracy"], abs=1e-6)
    # the dev pairs here are the scored ones: the chosen thresholds are the best
    assert task["scores"]["f1"]["all"]["value"] == pytest.approx(task["paraphrase"]["best"]["f1"], abs=1e-5)
