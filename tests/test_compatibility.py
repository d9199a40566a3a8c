"""What earlier versions saved is still what it was: keys and fingerprints, by which finished work is found, do not move."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from simcse_bench.data.corpus import open_corpus
from simcse_bench.data.labelled import Labelled
from simcse_bench.data.pairs import Pairs
from simcse_bench.evaluation.mteb.adapter import content_name
from simcse_bench.experiments.trial import read_trial
from simcse_bench.reports.geometry import read_analysis
from simcse_bench.reports.pair_records import load_pairs
from simcse_bench.reports.report import Report, evaluation_key
from simcse_bench.reports.reproduction import read_reproduction, read_trajectories
from simcse_bench.reports.robustness import read_robustness
from simcse_bench.reports.speed import read_speed
from simcse_bench.reports.summary import read_summary
from simcse_bench.search.index import load_index, model_fingerprint
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder

MODEL = {
    "name": "m", "files": {"model.safetensors": "0123456789abcdef"}, "pooling": "cls", "head": "none", "max_length": 32,
    "preprocess": None, "normalize": False, "dtype": "float32",
}  # fmt: skip
PROTOCOL = {"name": "simcse", "split": "test", "resamples": 1000}


def test_keys_of_saved_reports():
    assert evaluation_key(MODEL, PROTOCOL, {"stsb": "ffff"}, None) == "6bfb944e4fb80f09"
    assert content_name(MODEL) == "simcse-bench/m-b066f636c5ba"


def test_fingerprints_of_data(tmp_path):
    assert Pairs(("a", "ü"), ("b", "c"), np.array([1.0, 4.5]), ("x", "y")).fingerprint() == "f527aa3078995dcb"
    assert Labelled(("a", "b"), (), np.array([0, 1]), {"train": 2}).fingerprint() == "7a68e614853d3912"
    assert Labelled(("a", "b"), ("c", "d"), np.array([0, 1]), {"train": 2}).fingerprint() == "b04b0d0de8fe7588"
    text = tmp_path / "x.txt"
    text.write_text("A dog runs.\nTwo men cook.\n", encoding="utf-8")
    assert open_corpus(str(text)).fingerprint == "c304587c02fe3a7f"
    assert open_corpus(str(text), max_rows=1).fingerprint == "7b1f3bad1a41c020"


def test_an_index_of_the_version_before(tmp_path):
    assert model_fingerprint(MODEL) == "d1fd6fe8b890f7c3"
    folder = tmp_path / "index"
    folder.mkdir()
    np.save(folder / "vectors.npy", np.eye(2, 3, dtype=np.float32))
    (folder / "sentences.jsonl").write_text('"A dog runs."\n"H\\u00e0 N\\u1ed9i"\n')
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    record = {"schema": 1, "sentences": 2, "dimension": 3, "fingerprint": "d1fd6fe8b890f7c3",
              "model": MODEL | {"located": "m"}, "files": digests}  # fmt: skip
    (folder / "index.json").write_text(json.dumps(record))
    sentences, vectors = load_index(folder, MODEL)
    assert sentences == ["A dog runs.", "Hà Nội"]
    assert vectors.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_the_settings_of_an_unfinished_run(tmp_path):
    config = TrainConfig()
    assert config.fingerprint() == "67ec4aabf009fd52"
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config) | {"columns": [], "seed": 7}))
    assert RunFolder(tmp_path / "run").config() == dataclasses.replace(config, seed=7)


RESULTS = Path(__file__).parent.parent / "results"


def read(path):
    """A committed file through its type."""
    if path.suffix == ".jsonl":
        report = path.with_name(path.name.removesuffix(".pairs.jsonl") + ".json")
        return load_pairs(report, Report.load(report))
    if "--seed" in path.name:
        return read_trial(path)
    named = {"summary": read_summary, "reproduction": read_reproduction, "trajectories": read_trajectories}
    placed = {"analysis": read_analysis, "speed": read_speed, "robustness": read_robustness}
    return named.get(path.stem, placed.get(path.parent.name, Report.load))(path)


def test_every_committed_file_is_read_as_its_type():
    paths = [*RESULTS.rglob("*.json"), *RESULTS.rglob("*.jsonl")]
    if not paths:
        pytest.skip("no results/ here: this is no checkout")
    kinds = {type(read(path)) for path in paths}
    assert len(paths) > 150
    assert Report in kinds
