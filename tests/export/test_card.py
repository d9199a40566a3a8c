"""The card of an export: its scores are those of the saved reports of these weights, its code runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny import sentences

from simcse_bench.data.senteval import REPO
from simcse_bench.export import parity
from simcse_bench.export.card import About, read_measured, uses
from simcse_bench.export.run import Export
from simcse_bench.models import checkpoints, loading
from simcse_bench.reports.report import Report

OUT = Path("out")

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def model(bert, tmp_path):
    """A folder that says its pooling, as our trainer writes it."""
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "simcse_bench.json").write_text('{"pooling": "first_last", "head": "none"}')
    return Path("model")


@pytest.fixture
def export(cli, model):
    def run(*args, source=model, form="transformers"):
        done = cli("export", source, "--to", form, "--out", OUT, "--force", *args)
        assert done.code == 0, done.err
        return ModelCard.load(OUT / "README.md"), done

    return run


def evaluate(cli, model, *args, data=None):
    chosen = ("--data-dir", data) if data else ()
    done = cli("eval", "--model", model, "--device", "cpu", "-q", *chosen, *args)
    assert done.code == 0, done.err


def entries(card):
    return {(r.dataset_config, r.metric_type): r for r in card.data.eval_results or ()}


def test_the_scores_are_those_of_the_reports_of_these_weights(cli, model, bert, export, senteval):
    card, done = export()
    assert card.data.eval_results is None
    assert "No evaluation of these weights was at hand" in card.text
    assert "no scores in results; evaluate with `simcse-bench eval model`" in done.err
    evaluate(cli, model, "--task", "stsb", "--task", "sickr", data=senteval)
    evaluate(cli, model, "--suite", "mini-transfer")
    # none of these is of the exported embeddings: another pooling, other weights, other dtype, the first pairs only
    evaluate(cli, model, "--suite", "mini", "--pooling", "mean", "--name", "other-pooling")
    evaluate(cli, model, "--suite", "mini", "--dtype", "bfloat16", "--name", "other-dtype")
    evaluate(cli, model, "--suite", "mini", "--limit", "20", "--name", "first-pairs")
    copy = Path("copy")
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text()) | {"layer_norm_eps": 1e-6}
    (copy / "config.json").write_text(json.dumps(config))
    evaluate(cli, copy, "--suite", "mini")
    assert cli("analyze", "--model", model, "--task", "mini-sts").code == 0
    analysis = json.loads(Path("results/analysis/model.json").read_text())
    other = analysis | {"model": analysis["model"] | {"name": "copy", "files": {}}, "alignment": 9.0}
    Path("results/analysis/copy.json").write_text(json.dumps(other))
    Path("results/broken.json").write_text("{")

    card, done = export("--name", "my-simcse")
    report, transfer = (
        Report.load(next(Path("results/tasks").glob("model*.json"))),
        Report.load(Path("results/mini-transfer/model.json")),
    )
    assert card.data.model_name == "my-simcse"
    found = entries(card)
    expected = {
        (n, f"{m}_cosine"): t["scores"][m]["all"] for n, t in report.tasks.items() for m in ("spearman", "pearson")
    }
    expected |= {("mini-probe", "accuracy"): transfer.tasks["mini-probe"]["scores"]["accuracy"]["all"]}
    assert len(card.data.eval_results) == len(expected) + 2  # and the two correlations' averages
    for key, entry in expected.items():
        assert found[key].metric_value == pytest.approx(entry["value"], abs=1e-4)
        assert found[key].metric_args == {"interval_95": entry["interval"]}
    stsb = found["stsb", "spearman_cosine"]
    assert (stsb.dataset_type, stsb.dataset_split, stsb.dataset_args["protocol"]) == (REPO, "test", "simcse")
    assert stsb.dataset_args["fingerprint"] == report.tasks["stsb"]["data"]["fingerprint"]
    assert found["mini-probe", "accuracy"].dataset_type == "unknown"
    assert found["average", "spearman_cosine"].dataset_type == REPO
    assert found["average", "spearman_cosine"].metric_value == pytest.approx(
        report.average["spearman"]["all"]["value"], abs=1e-4
    )

    row = next(line for line in card.text.partition("SICK-R |")[2].splitlines() if line.startswith("| my-simcse"))
    shown = [float(c) for c in row.split("|")[2:-1]]
    assert shown == [round(t["scores"]["spearman"]["all"]["value"], 2) for t in report.tasks.values()] + [
        round(report.average["spearman"]["all"]["value"], 2)
    ]
    geometry = card.text.partition("## Geometry")[2].partition("## Training")[0]
    assert f"{analysis['alignment']:.3f}" in geometry
    assert geometry.count("| my-simcse") == 1
    assert geometry.count("| copy") == 0
    assert "scores of mini-transfer, tasks from results" in done.err


def test_only_float32_reports_of_whole_data_match(cli, model, tmp_path):
    evaluate(cli, model, "--suite", "mini")
    evaluate(cli, model, "--suite", "mini", "--name", "again")
    provenance = checkpoints.resolve(str(model)).provenance()
    assert len(read_measured(Path("results"), provenance).reports) == 1  # one evaluation, under two names
    assert read_measured(Path("results"), {**provenance, "normalize": True}).reports == []
    assert read_measured(Path("results"), {**provenance, "max_length": 12}).reports == []
    assert read_measured(tmp_path / "nowhere", provenance).reports == []


def test_what_the_user_says_stands_in_the_front_matter(export):
    card, done = export("--license", "apache-2.0", "--language", "en", "--language", "vi", "--tag", "medical",
                        "--base-model", "google-bert/bert-base-uncased", "--name", "n")  # fmt: skip
    data = card.data.to_dict()
    assert (data["license"], data["language"], data["base_model"]) == (
        "apache-2.0",
        ["en", "vi"],
        "google-bert/bert-base-uncased",
    )
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "feature-extraction")
    assert {"simcse", "sentence-transformers", "medical"} <= set(data["tags"])
    assert "no license" not in done.err
    card, done = export(form="sentence-transformers")
    data = card.data.to_dict()
    assert not {"license", "language", "base_model", "model-index", "datasets"} & set(data)
    assert (data["library_name"], data["pipeline_tag"]) == ("sentence-transformers", "sentence-similarity")
    assert "no license; give --license" in done.err


@pytest.mark.parametrize(
    "option, value", [("--language", "english"), ("--license", "MIT License"), ("--base-model", "a/b/c")]
)
def test_what_the_hub_would_refuse_is_refused(cli, model, option, value):
    done = cli("export", model, "--to", "transformers", "--out", OUT, option, value)
    assert done.code == 2
    assert f"{option} {value!r}: expected" in done.err
    assert not OUT.exists()


def run_code(text, title):
    """Execute the card's code of this title and give its `embeddings`."""
    code = re.search(rf"{title}:\n\n```python\n(.*?)```", text, re.DOTALL)[1]
    place = {}
    with parity.quiet():
        exec(code.replace("path/to/model", str(OUT)), place)
    return np.asarray(place["embeddings"])


@pytest.mark.parametrize("pooling, head", [("cls", "mlp"), ("cls", "none"), ("mean", "none"), ("first_last", "none"),
                                           ("embedding_last", "none"), ("top2", "none")])  # fmt: skip
def test_the_code_on_the_card_gives_our_embeddings(bert, export, pooling, head):
    card, _ = export("--pooling", pooling, "--head", head, source=bert)
    found = checkpoints.resolve(str(bert), pooling=pooling, head=head)
    texts = ["A man is playing a guitar.", "Someone plays the guitar."]
    expected = loading.load_encoder(found, device="cpu").encode(texts)
    for title in ("transformers", "sentence-transformers"):
        np.testing.assert_allclose(run_code(card.text, title), expected, atol=1e-5, rtol=0)


def test_a_head_beyond_auto_model_has_no_transformers_code(bert):
    found = checkpoints.resolve(str(bert), pooling="mean", head="mlp")
    assert [u.title for u in uses(Export("sentence-transformers", found, None), "me/mine")] == [
        "sentence-transformers",
        "simcse-bench",
    ]
    found = checkpoints.resolve(str(bert), pooling="mean")
    shown = uses(Export("onnx", found, None), "me/mine")[0].code
    assert 'snapshot_download("me/mine")' in shown


def test_training_is_told_and_no_path_of_this_machine(cli, bert, tmp_path, export):
    (tmp_path / "text.txt").write_text("\n".join(sentences(20)) + "\n")
    settings = [f"model={bert}", f"train={tmp_path}/text.txt", "batch_size=4", "max_steps=2", "eval_every=0", "seed=11"]
    given = [part for s in settings for part in ("--set", s)]
    assert cli("train", "--out", tmp_path / "runs" / "x", "--device", "cpu", "-q", *given).code == 0
    card, _ = export(source=tmp_path / "runs" / "x")
    assert "- seed: 11" in card.text
    assert "- text: text.txt (file), 20 rows of 1" in card.text
    assert "- updates: 2" in card.text
    assert f"- start: {bert.name}" in card.text
    assert '"batch_size": 4' in card.text
    assert "base_model" not in card.data.to_dict()  # it did not come from the Hub
    for path in OUT.rglob("*"):
        if path.suffix in (".md", ".json"):
            assert str(tmp_path) not in path.read_text(), path
            assert str(bert.parent) not in path.read_text(), path


def test_base_model_and_data_from_the_hub_are_named(bert):
    from simcse_bench.export.card import _metadata

    record = {"model": {"name": "google-bert/bert-base-uncased", "revision": "abc"},
              "data": {"name": "wiki1m", "origin": f"Hub dataset {REPO} at revision abc"}}  # fmt: skip
    done = Export("transformers", checkpoints.resolve(str(bert), pooling="mean"), record)
    data = _metadata(done, About("x"), []).to_dict()
    assert (data["base_model"], data["datasets"]) == ("google-bert/bert-base-uncased", [REPO])
    record["data"] = {"name": "owner/texts:en", "origin": "Hub dataset owner/texts:en"}
    assert _metadata(done, About("x"), []).to_dict()["datasets"] == ["owner/texts"]
    record["data"] = {"name": "mine.txt", "origin": "file"}
    assert "datasets" not in _metadata(done, About("x"), []).to_dict()
