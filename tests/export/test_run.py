"""`simcse-bench export`: each form gives our embeddings, or nothing is left behind."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from processes import set_options
from safetensors.torch import load_file, save_file
from search.mutations import damage_json
from tiny import sentences, tiny_bert, write_tokenizer

from simcse_bench.errors import UserError
from simcse_bench.export import card, parity
from simcse_bench.export import run as exporting
from simcse_bench.models import checkpoints, loading, saving
from simcse_bench.training import train as training

TEXTS = [*sentences(9, seed=5), "The man ."]
ALL = ("sentence-transformers", "transformers", "onnx")
OUT = Path("out")


def ours(folder, texts=TEXTS, **settings):
    return loading.load_encoder(checkpoints.resolve(str(folder), **settings), device="cpu").encode(texts)


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=tolerance, rtol=0)


def sentence_transformer(folder, texts=TEXTS):
    from sentence_transformers import SentenceTransformer

    with parity.quiet():
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(texts)


def nothing_left(path=OUT):
    assert not path.exists()
    assert not list(Path().glob(".new-*"))


def plain_sentence_transformer(folder, target, dense=None, normalize=False, length=None):
    """A sentence-transformers folder: mean pooling, then a Dense module (out features, activation), Normalize."""
    shutil.copytree(folder, target)
    modules = ["Transformer", "Pooling"] + ["Dense"] * bool(dense) + ["Normalize"] * normalize
    listed = []
    for i, kind in enumerate(modules):
        path = f"{i}_{kind}" if i else ""
        (target / path).mkdir(exist_ok=True)
        listed.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
    (target / "modules.json").write_text(json.dumps(listed))
    pooled = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooled))
    if length:
        (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    if dense:
        width, activation = dense
        torch.manual_seed(3)
        weights = {"linear.weight": 0.2 * torch.randn(width, 32), "linear.bias": torch.randn(width)}
        save_file(weights, target / "2_Dense" / "model.safetensors")
        settings = {"in_features": 32, "out_features": width, "bias": True, "activation_function": activation}
        (target / "2_Dense" / "config.json").write_text(json.dumps(settings))
    return target


@pytest.fixture
def run(cli, bert, tmp_path, senteval):
    """A finished supervised run of two updates in runs/sup."""
    rows = [(s, " ".join(reversed(s.split()))) for s in sentences(20)]
    (tmp_path / "pairs.tsv").write_text("a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    settings = {"model": bert, "train": "pairs.tsv", "batch_size": 4, "max_steps": 2, "eval_every": 0, "mlp": "always",
                "learning_rate": 0.01}  # fmt: skip

    def train(*args):
        done = cli(
            "train", "--out", "runs/sup", "--device", "cpu", "-q", "--data-dir", senteval, *set_options(settings), *args
        )
        return done, Path("runs/sup")

    return train


# --- the forms


def test_a_run_as_a_sentence_transformer(run, cli):
    _, folder = run()
    done = cli("export", folder, "--to", "sentence-transformers", "--out", "deep/out")
    assert done.code == 0, done.err
    difference = float(re.search(r"largest difference to our embeddings (\S+) over 28 sentences", done.out)[1])
    assert 0 <= difference < 1e-5
    expected = ours(folder)
    close(sentence_transformer("deep/out"), expected)
    close(ours("deep/out"), expected)
    assert np.abs(ours(folder, pooling="cls", head="none") - expected).max() > 0.1
    record = json.loads(Path("deep/out/export.json").read_text())
    assert record["model"]["files"] == checkpoints.resolve(str(folder)).provenance()["files"]
    assert record["parity"]["difference"] == pytest.approx(difference, rel=0.1)
    assert set(record["files"]) == {
        p.relative_to("deep/out").as_posix() for p in Path("deep/out").rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("pooling, head", [("cls", "mlp"), ("cls", "none"), ("mean", "none"), ("first_last", "none"),
                                           ("embedding_last", "none"), ("top2", "none")])  # fmt: skip
def test_a_plain_checkpoint_in_both_libraries(bert, cli, pooling, head):
    expected = ours(bert, pooling=pooling, head=head)
    for form in ("transformers", "sentence-transformers"):
        out = Path(form)
        done = cli("export", bert, "--to", form, "--out", out, "--pooling", pooling, "--head", head, "-q")
        assert done.code == 0, done.err
        close(ours(out), expected)
        close(sentence_transformer(out), expected)
        # the checkpoint's own pooler is kept, used or not: AutoModel draws no random one
        theirs, original = (load_file(f / "model.safetensors")["pooler.dense.weight"] for f in (out, bert))
        assert torch.equal(theirs, original)


def test_onnx_takes_any_batch_and_length(bert, cli, tmp_path):
    import onnxruntime
    from transformers import AutoTokenizer

    source = plain_sentence_transformer(bert, tmp_path / "st", (8, "torch.nn.modules.activation.ReLU"), True, 20)
    done = cli("export", source, "--to", "onnx", "--out", OUT)
    assert done.code == 0, done.err
    names = {p.name for p in OUT.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "README.md", "export.json"} <= names
    assert not names & {"model.safetensors", "modules.json", "simcse_bench.json"}
    session = onnxruntime.InferenceSession(OUT / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        (name, ["batch", "length"], "tensor(int64)") for name in ("input_ids", "attention_mask")
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("sentence_embedding", ["batch", 8])]
    tokenizer = AutoTokenizer.from_pretrained(OUT)
    assert tokenizer.model_max_length == 20
    texts = [*TEXTS, " ".join(["the dog sees a big red house ."] * 5)]
    expected = ours(source, texts)
    close(np.linalg.norm(expected, axis=1), np.ones(len(texts)))
    for group in ([0], [1, 2], range(len(texts))):
        batch = tokenizer([texts[i] for i in group], padding=True, truncation=True, return_tensors="np")
        inputs = {n: batch[n].astype(np.int64) for n in ("input_ids", "attention_mask")}
        close(session.run(None, inputs)[0], expected[list(group)])
    card = ModelCard.load(OUT / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("onnx", "sentence-similarity")
    assert "SentenceTransformer" not in card.text
    place = {}  # the code on the card gives our embeddings
    code = re.search(r"onnxruntime:\n\n```python\n(.*?)```", card.text, re.DOTALL)[1]
    exec(code.replace("path/to/model", str(OUT)), place)
    close(place["embeddings"], ours(source, place["sentences"]))


@pytest.mark.slow
@pytest.mark.parametrize("pooling, head", [("cls", "mlp"), ("mean", "none"), ("first_last", "none"),
                                           ("embedding_last", "none"), ("top2", "none")])  # fmt: skip
def test_onnx_has_every_pooling(bert, cli, pooling, head):
    done = cli("export", bert, "--to", "onnx", "--out", OUT, "--pooling", pooling, "--head", head)
    assert done.code == 0, done.err
    assert json.loads((OUT / "export.json").read_text())["parity"]["difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Roberta", "DistilBert"])
def test_onnx_of_other_architectures(tmp_path, cli, kind):
    import transformers

    torch.manual_seed(1)
    sizes = {"vocab_size": 40, "max_position_embeddings": 48, "initializer_range": 0.4, "pad_token_id": 0}
    names = ("dim", "n_layers", "n_heads", "hidden_dim") if kind == "DistilBert" else (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")  # fmt: skip
    sizes |= dict(zip(names, (32, 2, 4, 64), strict=True))
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "m")
    write_tokenizer(tmp_path / "m")
    done = cli("export", tmp_path / "m", "--to", "onnx", "--out", OUT, "--pooling", "first_last")
    assert done.code == 0, done.err


@pytest.mark.parametrize("dense, normalize, length", [
    ((32, "torch.nn.modules.activation.Tanh"), False, None), ((8, "torch.nn.modules.activation.Tanh"), False, None),
    ((32, "torch.nn.modules.activation.ReLU"), False, None), (None, True, 12),
])  # fmt: skip
def test_other_heads_unit_length_and_a_short_limit(bert, cli, tmp_path, dense, normalize, length):
    source = plain_sentence_transformer(bert, tmp_path / "st", dense, normalize, length)
    texts = [*TEXTS, " ".join(["the dog sees a big red house ."] * 3)]
    expected = ours(source, texts)
    done = cli("export", source, "--to", "sentence-transformers", "--out", OUT)
    assert done.code == 0, done.err
    close(sentence_transformer(OUT, texts), expected)
    close(ours(OUT, texts), expected)
    done = cli("export", source, "--to", "transformers", "--out", "plain")
    if dense is None:
        assert done.code == 0, done.err
    else:
        assert done.code == 2
        assert "transformers cannot express pooling 'mean' with this head (dense 32 to" in done.err
        assert "--to onnx" in done.err
        nothing_left(Path("plain"))


def test_an_official_training_checkpoint_needs_no_conversion(bert, cli, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(bert, folder)
    state = load_file(folder / "model.safetensors")
    raw = {
        k.replace("pooler.dense", "mlp.dense") if k.startswith("pooler") else f"bert.{k}": v for k, v in state.items()
    }
    save_file(raw, folder / "model.safetensors", metadata={"format": "pt"})
    done = cli("export", folder, "--to", "transformers", "--out", OUT, "--pooling", "cls", "--head", "mlp")
    assert done.code == 0, done.err
    close(ours(OUT), ours(bert, pooling="cls", head="mlp"))


@pytest.mark.data
@pytest.mark.parametrize("form", ALL)
def test_the_real_model(minilm, cli, form):
    done = cli("export", minilm, "--to", form, "--out", OUT)
    assert done.code == 0, done.err
    assert json.loads((OUT / "export.json").read_text())["parity"]["difference"] < 1e-5


# --- refused


@pytest.mark.parametrize("form, broken", [
    ("sentence-transformers", {"1_Pooling/config.json": ("cls_token\": true", "cls_token\": false, \"pooling_mode_max_tokens\": true")}),
    ("transformers", {"config.json": ('"layer_norm_eps": 1e-12', '"layer_norm_eps": 0.1')}),
])  # fmt: skip
def test_other_embeddings_are_refused_and_nothing_is_left(bert, cli, monkeypatch, form, broken):
    write = saving.write_parts

    def wrong(parts, folder):
        write(parts, folder)
        for name, (old, new) in broken.items():
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_text(text.replace(old, new))

    monkeypatch.setattr(saving, "write_parts", wrong)
    args = ("export", bert, "--to", form, "--out", "a/b/out", "--pooling", "cls", "--head", "none")
    done = cli(*args)
    assert done.code == 2
    assert re.search(
        r"its embeddings differ from ours by up to \S+ \(sentence '.+'\); expected at most 0\.0001", done.err
    )
    nothing_left(Path("a"))
    Path("there").mkdir()
    assert cli(*args[:5], "there", *args[6:]).code == 2
    assert list(Path("there").iterdir()) == []
    assert cli(*args, "--tolerance", "1000").code == 0


def test_comparison_by_hand():
    a = np.array([[1.0, 0.0], [0.0, 20.0]], dtype=np.float32)
    assert parity.measure_parity(a, a + np.float32(0.001), ["x", "y"], 1e-4, "onnx") == {
        "difference": pytest.approx(0.001, rel=1e-2), "tolerance": 1e-4, "largest_value": 20.0, "sentences": 2}  # fmt: skip
    with pytest.raises(UserError, match=r"up to 0.0031? \(sentence 'y'\)"):
        parity.measure_parity(a, a + np.float32([[0, 0], [0.003, 0]]), ["x", "y"], 1e-4, "onnx")
    with pytest.raises(UserError, match="sentence 'x'"):
        parity.measure_parity(a, a * np.float32([[np.nan], [1]]), ["x", "y"], 1e-4, "onnx")
    with pytest.raises(UserError, match="3 values, ours 2"):
        parity.measure_parity(a, np.zeros((2, 3), np.float32), ["x", "y"], 1e-4, "onnx")


def test_unknown_format_and_no_such_model(bert, cli):
    done = cli("export", bert, "--to", "onx", "--out", OUT, "--pooling", "mean")
    assert (done.code, "unknown format 'onx'; did you mean 'onnx'?" in done.err) == (2, True)
    done = cli("export", bert, "--to", "onnx", "--out", OUT)
    assert (done.code, "does not say its pooling" in done.err) == (2, True)
    done = cli("export", "./nowhere", "--to", "onnx", "--out", OUT)
    assert (done.code, "no such folder" in done.err) == (2, True)
    done = cli("export", "word-vectors:glove.txt", "--to", "onnx", "--out", OUT)
    assert (done.code, "no transformers model" in done.err) == (2, True)
    done = cli("export", bert, "--to", "onnx", "--out", OUT, "--tolerance", "0")
    assert (done.code, "--tolerance 0" in done.err) == (2, True)
    nothing_left()


@pytest.mark.parametrize("form, package, install", [("onnx", "onnxruntime", "simcse-bench[onnx]"), ("onnx", "onnxscript", "simcse-bench[onnx]"),
                                                  ("sentence-transformers", "sentence_transformers", "sentence-transformers")])  # fmt: skip
def test_a_missing_package_is_told_with_its_command(bert, cli, monkeypatch, form, package, install):
    found = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda n: None if n == package else found(n))
    done = cli("export", bert, "--to", form, "--out", OUT, "--pooling", "mean")
    assert done.code == 2
    assert f'--to {form} needs {package.replace("_", "-")}: pip install "{install}"' in done.err
    nothing_left()


def test_an_unfinished_run(run, cli, monkeypatch):
    with monkeypatch.context() as patch:
        update = training.Run.update

        def stopped(self):
            if self.state.step == 1:
                raise KeyboardInterrupt
            update(self)

        patch.setattr(training.Run, "update", stopped)
        done, folder = run("--save-every", "1")
    assert done.code == 130
    done = cli("export", folder, "--to", "transformers", "--out", OUT)
    assert done.code == 2
    assert f"{folder}: this run is not finished" in done.err
    assert "step-00000001" in done.err
    assert f"train --resume --out {folder}" in done.err
    done = cli("export", folder / "checkpoints" / "step-00000001", "--to", "transformers", "--out", OUT)
    assert done.code == 2
    assert f"an intermediate state of the run in {folder}" in done.err
    nothing_left()


def test_a_broken_run(run, cli):
    _, folder = run()
    args = ("export", folder, "--to", "transformers", "--out", OUT)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-64] + bytes(64))
    done = cli(*args)
    assert (done.code, "model.safetensors is not what this run wrote" in done.err) == (2, True), done.err
    (folder / "model.safetensors").unlink()
    for path in (*folder.glob("tokenizer*"), folder / "config.json"):
        path.unlink()
    done = cli(*args)
    assert done.code == 2
    assert (
        "this run is broken: config.json, model.safetensors, tokenizer.json, tokenizer_config.json missing" in done.err
    )
    (folder / "train.json").write_text("{")
    done = cli(*args)
    assert (done.code, "not readable JSON" in done.err) == (2, True)
    nothing_left()


def test_a_folder_with_something_else(bert, cli):
    OUT.mkdir()
    (OUT / "thesis.txt").write_text("mine")
    args = ("export", bert, "--pooling", "mean", "--out", OUT, "--to")
    done = cli(*args, "transformers")
    assert (done.code, "out holds something else (thesis.txt). Use --force" in done.err) == (2, True)
    assert [p.name for p in OUT.iterdir()] == ["thesis.txt"]
    done = cli(*args, "transformers", "--force")
    assert done.code == 0, done.err
    assert (OUT / "thesis.txt").read_text() == "mine"
    assert "thesis.txt" not in json.loads((OUT / "export.json").read_text())["files"]
    assert cli(*args, "transformers").code == 0  # the same model in the same form again
    assert cli(*args, "sentence-transformers").code == 2
    assert cli("export", bert, "--pooling", "top2", "--out", OUT, "--to", "transformers", "--force").code == 0
    assert (OUT / "1_WeightedLayerPooling").is_dir()
    assert cli(*args, "transformers", "--force").code == 0
    assert not (OUT / "1_WeightedLayerPooling").exists()  # what an earlier export left is not mixed into this one
    assert (OUT / "thesis.txt").exists()
    close(sentence_transformer(OUT), ours(bert, pooling="mean"))


def test_the_model_itself_is_never_overwritten(bert, cli, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bert, copy)
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    done = cli("export", "copy", "--pooling", "mean", "--to", "transformers", "--out", copy, "--force")
    assert (done.code, "is the model's own folder" in done.err) == (2, True)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_places_that_cannot_be_written(bert, cli, monkeypatch):
    Path("file").write_text("mine")
    args = ("export", bert, "--pooling", "mean", "--to", "transformers", "--out")
    done = cli(*args, "file")
    assert (done.code, "it is a file" in done.err) == (2, True)
    done = cli(*args, "file/below")
    assert (done.code, "cannot write file/below" in done.err) == (2, True)
    Path("closed").mkdir()
    os.chmod("closed", 0o500)  # noqa: PTH101
    if not os.access("closed", os.W_OK):  # root may write everywhere
        done = cli(*args, "closed/out")
        assert (done.code, "Permission denied" in done.err) == (2, True)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    done = cli(*args, "new/out")
    assert (done.code, "No space left on device" in done.err) == (2, True)
    nothing_left(Path("new"))


def test_a_head_that_auto_model_has_no_place_for(tmp_path, cli):
    folder = tiny_bert(tmp_path / "m", seed=2)
    done = cli("export", folder, "--to", "transformers", "--out", OUT, "--pooling", "mean", "--head", "mlp")
    assert done.code == 2
    assert "transformers cannot express pooling 'mean' with this head (dense 32 to 32, Tanh)" in done.err
    done = cli("export", folder, "--to", "sentence-transformers", "--out", OUT, "--pooling", "mean", "--head", "mlp")
    assert done.code == 0, done.err
    close(sentence_transformer(OUT), ours(folder, pooling="mean", head="mlp"))


RUN_RECORD = {
    "schema": 1, "status": "finished", "config": {"model": "m", "epochs": 1.0}, "key": "k",
    "model": {"name": "m", "revision": None}, "data": {"name": "t", "origin": "file", "rows": 3, "columns": 1, "fingerprint": "f"},
    "kept": {"step": 4, "dev": 70.5}, "dev": {"task": "stsb", "split": "dev", "metric": "spearman"}, "dropout": {"hidden": 0.1},
    "steps": 5, "epochs": 1.0, "seconds": 2.5,
    "environment": {"processor": "p", "processes": 1, "versions": {"torch": "2"}}, "files": {},
}  # fmt: skip


def test_a_damaged_record_of_a_run_is_told_in_a_line(tmp_path):
    """Whatever is read is enough for the card."""
    for name in ("config.json", "simcse_bench.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    whole, read, said = json.dumps(RUN_RECORD).encode(), 0, []
    for number in range(400):
        (tmp_path / "train.json").write_bytes(damage_json(whole, random.Random(number)))
        try:
            record = exporting._finished(tmp_path)
        except UserError as error:
            said.append(str(error))
            continue
        read += 1
        assert card._training(record)["machine"]
        card._datasets(record)
    assert 20 < read < 300
    assert not any("\n" in line for line in said)


def test_a_damaged_record_of_an_export_is_no_record_of_ours(tmp_path):
    whole = {"schema": 1, "format": "onnx", "model": {"name": "m"}, "parity": {}, "files": ["model.onnx", "../x"], "versions": {"a": "1"}, "created": "now"}  # fmt: skip
    for number in range(300):
        (tmp_path / "export.json").write_bytes(damage_json(json.dumps(whole).encode(), random.Random(number)))
        record = exporting._earlier(tmp_path)
        if record is not None:
            (tmp_path / "x").write_text("")
            exporting._remove_earlier(tmp_path / "sub", record["files"], [])
            exporting._remove_earlier(tmp_path, record["files"], ["export.json"])
            assert (tmp_path / "x").exists() or "x" in record["files"]
