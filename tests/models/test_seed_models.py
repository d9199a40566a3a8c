"""Every model of the seed on a checkpoint of its own form: against transformers by hand, and by name from a Hub."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import seed_models
import torch
from hub_server import COMMIT, Hub, serving
from transformers import AutoModel, AutoTokenizer

from simcse_bench.errors import UserError
from simcse_bench.models.catalog import MODELS
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.loading import load_encoder
from simcse_bench.models.weights import tensor_names

STAND_IN = """
def tokenize(text):
    for word in ("thủ đô", "du lịch", "thành phố"):
        text = text.replace(word, word.replace(" ", "_"))
    return text
"""
MEAN = ["dangvantuan/vietnamese-embedding"]
PLAIN_CLS = [n for n in seed_models.MODELS if "unsup" in n] + seed_models.THAI + seed_models.CHINESE
POOLER = [n for n in seed_models.MODELS if n not in MEAN + PLAIN_CLS]
LIMITS = {"mrp/": 32, "cyclone": 24, "phobert": 256, "vietnamese": 256}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("seed")
    return {name: seed_models.build(name, root / name.replace("/", "__")) for name in seed_models.MODELS}


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    """A folder with a stand-in for pyvi where the real one is not installed."""
    folder = tmp_path_factory.mktemp("segmenter")
    if importlib.util.find_spec("pyvi") is None:
        (folder / "pyvi").mkdir()
        (folder / "pyvi" / "__init__.py").write_text("")
        (folder / "pyvi" / "ViTokenizer.py").write_text(STAND_IN, encoding="utf-8")
    return folder


def by_hand(folder, sentences, how, length):
    """What the model's card does, with transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    heads = {n.removesuffix(".dense.weight"): p for n, p in tensor_names(folder).items() if n.endswith("e.weight")}
    rows = []
    with torch.no_grad():
        for sentence in sentences:
            last = model(**tokenizer(sentence, return_tensors="pt", truncation=True, max_length=length))[0][0]
            rows.append(last.mean(0) if how == "mean" else last[0])
        found = torch.stack(rows)
        if how == "pooler":
            state = torch.load(folder / "pytorch_model.bin", weights_only=True)
            key = "mlp" if "mlp" in heads else "pooler"
            found = torch.tanh(found @ state[f"{key}.dense.weight"].T + state[f"{key}.dense.bias"])
    return found.numpy()


def test_every_model_of_the_seed_is_in_the_catalog():
    assert set(seed_models.MODELS) <= set(MODELS)
    assert sorted(MEAN + PLAIN_CLS + POOLER) == sorted(seed_models.MODELS)


@pytest.mark.parametrize("name", seed_models.MODELS)
@pytest.mark.filterwarnings("ignore")
def test_embeddings_are_those_of_the_card(name, checkpoints, segmenter, monkeypatch):
    monkeypatch.syspath_prepend(str(segmenter))
    monkeypatch.setattr("simcse_bench.hub.download_model", lambda *_: checkpoints[name])
    found = resolve(name)
    encoder = load_encoder(found)
    sentences = segmented = seed_models.texts(name)
    if name in seed_models.VIETNAMESE:
        from pyvi import ViTokenizer

        segmented = [ViTokenizer.tokenize(s) for s in sentences]
        assert segmented != sentences
    assert encoder.max_length == next((n for part, n in LIMITS.items() if part in name), 512)
    how = "mean" if name in MEAN else "cls" if name in PLAIN_CLS else "pooler"
    expected = by_hand(checkpoints[name], segmented, how, encoder.max_length)
    np.testing.assert_allclose(encoder.encode(sentences), expected, atol=2e-5)
    if segmented != sentences:
        other = by_hand(checkpoints[name], sentences, how, encoder.max_length)
        assert np.abs(other - expected).max() > 0.01


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_pooler_refuses_the_head(checkpoints, monkeypatch):
    name = "mrp/simcse-model-distil-m-bert"
    monkeypatch.setattr("simcse_bench.hub.download_model", lambda *_: checkpoints[name])
    with pytest.raises(UserError, match="the head would be random"):
        load_encoder(resolve(name, pooling="cls", head="mlp"))


SCRIPT = """
import contextlib, io, json, sys
from simcse_bench.__main__ import main

answers = {}
for line in json.load(sys.stdin):
    sys.argv = ["simcse-bench", *line]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    answers[" ".join(line)] = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
json.dump(answers, sys.stdout)
"""


@pytest.fixture
def in_one_process(tmp_path, segmenter):
    """Run many command lines in one process of its own, which reads the Hub's address when it starts."""

    def run(endpoint, lines, **more):
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "VIRTUAL_ENV", "OMP_NUM_THREADS")}
        environment = keep | {
            "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "5", "COLUMNS": "100", "PYTHONUTF8": "1",
            "PYTHONPATH": os.pathsep.join([str(segmenter), os.environ.get("PYTHONPATH", "")]),
        } | more  # fmt: skip
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True,
                              text=True, timeout=600, input=json.dumps([[str(x) for x in line] for line in lines]))  # fmt: skip
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout).values())

    return run


@pytest.fixture
def hub(checkpoints):
    found = Hub()
    found.repositories = {f"models/{name}": folder for name, folder in checkpoints.items()}
    return found


def test_dry_run_of_every_model_from_a_hub_loads_no_weights(hub, in_one_process, tmp_path, senteval):
    lines = [("eval", "--model", name, "--dry-run", "--data-dir", senteval) for name in seed_models.MODELS]
    with serving(hub) as endpoint:
        answers = in_one_process(endpoint, lines)
    for name, answer in zip(seed_models.MODELS, answers, strict=True):
        text = " ".join(answer["out"].split())
        assert answer["code"] == 0, answer["err"]
        assert f"Hub, revision {COMMIT}" in text
        assert "would be downloaded from the Hub" in text
        assert "pytorch_model.bin (" in text or "model.safetensors (" in text
        assert "never" not in text
        assert "optimizer.pt" not in text
        assert "flax" not in text
        spec = MODELS[name]
        suite = "sts" if spec.language == "en" else f"sts-{spec.language}"
        assert f"suite {suite} (" in text
        assert f"report: results/{suite}/{name.replace('/', '__')}.json" in text
        assert (f"{spec.preprocess}, before the tokenizer" in text) == (spec.preprocess is not None)
        assert ("usage" in text) == name.startswith("VoVanPhuc")
        length = next((n for part, n in LIMITS.items() if part in name), 512)
        assert f"max length {length}" in text, text
        if name in seed_models.CHINESE:
            assert "pooling cls: last layer at [CLS]" in text
            assert "modules.json" in text
        if name in MEAN:
            assert "pooling mean: mean of the last layer over all tokens (avg) catalog" in text
        assert f"head {'mlp' if name in POOLER else 'none'}:" in text
    assert not any(word in r for r in hub.requests for word in ("pytorch_model", "safetensors", "vocab", "optimizer"))
    assert not (tmp_path / "hf" / "hub").exists()  # the user's cache is left as it was
    assert not (tmp_path / "results").exists()


def test_dry_run_without_the_hub_tells_what_the_catalog_knows(in_one_process, tmp_path):
    lines = [("eval", "--model", name, "--dry-run") for name in (*seed_models.MODELS, "somebody/else")]
    *answers, unknown = in_one_process("http://127.0.0.1:9", lines, HF_HUB_OFFLINE="1")
    for name, answer in zip(seed_models.MODELS, answers, strict=True):
        assert answer["code"] == 0, answer["err"]
        text = " ".join(answer["out"].split())
        assert "not on this machine; would be downloaded from the Hub" in text
        assert "HF_HUB_OFFLINE is set" in text
        expected = "known once its files are here" if name in seed_models.CHINESE else MODELS[name].pooling
        assert f"pooling {expected}" in text
    assert unknown["code"] == 2
    assert "not in the Hub cache" in unknown["err"]
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_every_model_is_evaluated_by_name(hub, in_one_process, tmp_path, tasks_dir):
    more = ("--task", "own", "--tasks-dir", tasks_dir, "--quiet", "--device", "cpu")
    lines = [("eval", "--model", name, *more) for name in seed_models.MODELS]
    with serving(hub) as endpoint:
        answers = in_one_process(endpoint, lines)
    for name, answer in zip(seed_models.MODELS, answers, strict=True):
        assert answer["code"] == 0, answer["err"]
        saved = json.loads((tmp_path / "results" / "tasks" / f"{name.replace('/', '__')}--own.json").read_text())
        model, spec = saved["model"], MODELS[name]
        assert model["revision"] == COMMIT
        assert (model["pooling"], model["head"]) == (spec.pooling or "cls", spec.head)
        assert model["preprocess"] == spec.preprocess
        assert model.get("usage", "") == spec.usage
        assert ("Usage:" in answer["out"]) == bool(spec.usage)
    assert not any(word in r for r in hub.requests for word in ("optimizer", "training_args", "flax"))
