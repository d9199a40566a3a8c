"""`simcse-bench eval --model princeton-nlp/...` against a Hub on loopback; once in a process of its own, cold and warm."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
import torch
from hub_server import COMMIT, NOWHERE, Hub, ask, serving
from safetensors.torch import load_file
from tiny import tiny_bert

from simcse_bench.hub import quiet_datasets, quiet_hub, wanted_files
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.loading import load_encoder

MODEL = "princeton-nlp/sup-simcse-bert-base-uncased"
DATA = "princeton-nlp/datasets-for-simcse"
EVAL = ("eval", "--model", MODEL)


@pytest.fixture
def hub(tmp_path, senteval):
    """A tiny BERT in the official model's files (pickled weights, as there), and a tiny senteval.tar."""
    hub = Hub()
    model = tiny_bert(tmp_path / "hub" / "model", seed=5)
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    (model / "flax_model.msgpack").write_bytes(b"never downloaded")
    data = tmp_path / "hub" / "data"
    data.mkdir()
    with tarfile.open(data / "senteval.tar", "w") as tar:
        for name in ("STS", "SICK"):
            tar.add(senteval / name, arcname=name)
    hub.repositories = {f"models/{MODEL}": model, f"datasets/{DATA}": data}
    return hub


@pytest.fixture
def simcse_bench(cli, tmp_path, monkeypatch):
    """A command line that asks the Hub at an endpoint."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(endpoint, *args, offline=False):
        ask(monkeypatch, endpoint, tmp_path / "hf", offline)
        return cli(*args)

    return run


@pytest.fixture
def process(tmp_path):
    """The same in a process of its own, by the variables that a user sets."""

    def run(endpoint, *args, **more):
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "SYSTEMROOT", "VIRTUAL_ENV", "PYTHONPATH")}
        environment = keep | {
            "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "5", "COLUMNS": "100", "PYTHONWARNINGS": "default",
        } | more  # fmt: skip
        command = [sys.executable, "-m", "simcse_bench", *map(str, args)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=180)

    return run


@pytest.mark.slow
def test_cold_then_warm_with_the_server_gone(hub, process, tmp_path):
    with serving(hub) as endpoint:
        cold = process(endpoint, *EVAL)
    assert cold.returncode == 0, cold.stderr
    assert "published 75.30 84.67 80.19 85.40 80.82 84.25 80.39 81.57" in " ".join(cold.stdout.split())
    saved = tmp_path / "results" / "sts" / f"{MODEL.replace('/', '__')}.json"
    report = json.loads(saved.read_text())
    assert (report["model"]["pooling"], report["model"]["head"]) == ("cls", "mlp")
    assert report["model"]["revision"] == COMMIT
    assert len(report["tasks"]) == 7
    assert saved.with_suffix(".md").is_file()
    assert saved.with_suffix(".csv").is_file()
    assert not any("flax" in r for r in hub.requests)
    again = process(endpoint, *EVAL)  # the server is gone
    assert again.returncode == 0, again.stderr
    assert "already there, printed again" in again.stderr
    shutil.rmtree(tmp_path / "results")
    fresh = process(NOWHERE, *EVAL, HF_HUB_OFFLINE="1")
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(saved.read_text())["tasks"] == report["tasks"]


def test_a_dry_run_of_an_adapter_downloads_no_base_model(hub, simcse_bench, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": MODEL}))
    (adapter / "adapter_model.safetensors").write_bytes(b"never read")
    with serving(hub) as endpoint:
        done = simcse_bench(endpoint, "eval", "--model", adapter, "--pooler", "avg", "--suite", "mini", "--dry-run")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "would be downloaded from the Hub" in text
    assert "pytorch_model.bin (" in text
    assert not any("pytorch_model" in r for r in hub.requests)
    assert not (tmp_path / "hf" / "hub").exists()


def test_an_adapters_safetensors_are_taken_before_its_pickle():
    files = ["README.md", "adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]
    assert wanted_files(files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert wanted_files(files[:3]) == ["adapter_config.json", "adapter_model.bin"]


@pytest.mark.parametrize("quiet, library", [(quiet_hub, "huggingface_hub.utils"), (quiet_datasets, "datasets.utils")])
def test_bars_that_a_user_disabled_stay_so(quiet, library):
    bars = importlib.import_module(library)
    bars.enable_progress_bars()  # other libraries' tests may have disabled them
    with quiet():
        assert bars.are_progress_bars_disabled()
    assert not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        with quiet():
            assert bars.are_progress_bars_disabled()
        assert bars.are_progress_bars_disabled()
    finally:
        bars.enable_progress_bars()


def test_loading_a_model_leaves_the_bars_of_downloads(bert):
    from huggingface_hub import utils

    utils.enable_progress_bars()
    load_encoder(resolve(str(bert), pooling="mean"))
    assert not utils.are_progress_bars_disabled()


@pytest.mark.slow
def test_a_process_that_finds_nothing_offline_ends_without_a_traceback(process, tmp_path):
    done = process(NOWHERE, *EVAL, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / ".cache" / "simcse-bench").exists()


def expect_error(result, tmp_path, *parts):
    assert result.code == 2, result.out + result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err, result.err
    assert not (tmp_path / "results").exists()
    cache = tmp_path / "cache"
    assert not cache.exists() or [p.name for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_archive_cut_off_on_the_server(hub, simcse_bench, tmp_path):
    archive = hub.repositories[f"datasets/{DATA}"] / "senteval.tar"
    archive.write_bytes(archive.read_bytes()[:300_000])
    with serving(hub) as endpoint:
        expect_error(simcse_bench(endpoint, *EVAL), tmp_path, "senteval.tar: damaged or cut off", "data fetch --force")


def test_archive_cut_off_on_the_way_then_fetched_again(hub, simcse_bench, tmp_path):
    hub.cut["senteval.tar"] = 300_000
    with serving(hub) as endpoint:
        expect_error(simcse_bench(endpoint, "data", "fetch"), tmp_path, "could not be downloaded", "SIMCSE_BENCH_DATA")
        hub.cut.clear()
        fetched = simcse_bench(endpoint, "data", "fetch")
        assert fetched.code == 0, fetched.err
        assert simcse_bench(endpoint, "data", "where").out == fetched.out.replace("downloaded", "cache")


def test_wrong_row_count_in_the_archive(hub, simcse_bench, tmp_path, senteval):
    copy = tmp_path / "short"
    shutil.copytree(senteval, copy)
    file = copy / "STS" / "STSBenchmark" / "sts-test.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-79]))
    with tarfile.open(hub.repositories[f"datasets/{DATA}"] / "senteval.tar", "w") as tar:
        tar.add(copy / "STS", arcname="STS")
        tar.add(copy / "SICK", arcname="SICK")
    with serving(hub) as endpoint:
        result = simcse_bench(endpoint, *EVAL)
        assert result.code == 2
        assert "stsb/test: 1300 scored pairs in" in result.err
        assert "expected 1379" in result.err
        assert "Traceback" not in result.err
        assert not (tmp_path / "results").exists()


def test_unknown_model_and_revision(hub, simcse_bench, tmp_path):
    with serving(hub) as endpoint:
        wrong = simcse_bench(endpoint, "eval", "--model", MODEL.replace("uncased", "uncasd"))
        expect_error(wrong, tmp_path, "does not exist on the Hub (404)", f"Did you mean '{MODEL}'?")
        wrong = simcse_bench(endpoint, *EVAL, "--revision", "v9")
        expect_error(wrong, tmp_path, "has no such revision (404)")
        del hub.repositories[f"datasets/{DATA}"]
        expect_error(
            simcse_bench(endpoint, *EVAL), tmp_path, f"dataset {DATA}@main does not exist", "SIMCSE_BENCH_DATA"
        )


def test_server_errors(hub, simcse_bench, tmp_path):
    hub.status["pytorch_model.bin"] = 501  # not retried by huggingface_hub; the other 5xx are, for half a minute
    with serving(hub) as endpoint:
        expect_error(simcse_bench(endpoint, *EVAL), tmp_path, "501")
        hub.status = {"senteval.tar": 501}
        result = simcse_bench(endpoint, *EVAL)
        expect_error(result, tmp_path, f"dataset {DATA}@main", "501", "SIMCSE_BENCH_DATA")


def test_a_server_that_is_out_of_order_is_asked_several_times(hub, simcse_bench, tmp_path):
    hub.status["senteval.tar"] = 503
    with serving(hub) as endpoint:
        result = simcse_bench(endpoint, "data", "fetch")
    expect_error(result, tmp_path, f"dataset {DATA}@main", "503", "SIMCSE_BENCH_DATA")
    assert sum("senteval.tar" in request for request in hub.requests) > 3


def test_offline_with_nothing_cached(simcse_bench, tmp_path, bert):
    expect_error(simcse_bench(NOWHERE, *EVAL, offline=True), tmp_path, "HF_HUB_OFFLINE is set")
    own = simcse_bench(NOWHERE, "eval", "--model", bert, "--pooling", "mean", offline=True)
    expect_error(own, tmp_path, "SIMCSE_BENCH_DATA", "STS/STS12-en-test/STS.input.MSRpar.txt", "HF_HUB_OFFLINE is set")
