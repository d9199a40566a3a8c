import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny import sentences, tiny_bert, write_tokenizer
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM

from simcse_bench.errors import UserError
from simcse_bench.models.catalog import MODELS
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.loading import load_encoder

TEXTS = sentences(25)


def problem(*args, **kwargs):
    with pytest.raises(UserError) as error:
        load_encoder(resolve(*args, **kwargs))
    return str(error.value)


def edit(folder, change):
    """Rewrite a checkpoint's weights."""
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def set_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def training_checkpoint(tmp_path):
    """What SimCSE's train.py writes: bert.* and mlp.dense.*, no pooler."""
    folder = tiny_bert(tmp_path / "trained", pooler=False, seed=2)
    torch.manual_seed(9)
    mlp = {"mlp.dense.weight": torch.randn(32, 32) / 5, "mlp.dense.bias": torch.randn(32)}
    edit(folder, lambda state: {f"bert.{k}": v for k, v in state.items()} | mlp)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForCL"]}))
    return folder


def converted_pooler_output(folder, to):
    """simcse_to_huggingface.py: mlp becomes the pooler, bert. is stripped; then AutoModel's own pooler_output."""
    shutil.copytree(folder, to)
    edit(to, lambda s: {k.removeprefix("bert.").replace("mlp.", "pooler."): v for k, v in s.items()})
    tokenizer, model = AutoTokenizer.from_pretrained(to), AutoModel.from_pretrained(to).eval()
    with torch.no_grad():
        return np.concatenate([model(**tokenizer(t, return_tensors="pt")).pooler_output.numpy() for t in TEXTS])


@pytest.mark.parametrize("pickled", [False, True])
def test_training_checkpoint_equals_its_converted_form(training_checkpoint, tmp_path, pickled):
    expected = converted_pooler_output(training_checkpoint, tmp_path / "converted")
    if pickled:
        weights = training_checkpoint / "model.safetensors"
        torch.save(load_file(weights), training_checkpoint / "pytorch_model.bin")
        weights.unlink()
    for folder in (training_checkpoint, tmp_path / "converted"):
        found = load_encoder(resolve(str(folder), pooling="cls", head="mlp")).encode(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    without = load_encoder(resolve(str(training_checkpoint), pooling="cls", head="none")).encode(TEXTS)
    assert np.abs(without - expected).max() > 0.1


def test_training_checkpoint_asks_which_head(training_checkpoint):
    text = problem(str(training_checkpoint))
    assert "official SimCSE training checkpoint" in text
    assert "--head none for an unsupervised model and --head mlp for a supervised one" in text


def test_undecided_pooling_is_never_guessed(bert):
    text = problem(str(bert))
    for part in ("does not say its pooling", "no modules.json", "--pooling cls", "--pooling first_last", "--head mlp"):
        assert part in text
    assert "does not say its head" in problem(str(bert), pooling="cls")
    assert resolve(str(bert), pooling="mean").spec.head == "none"


def test_unknown_names(bert, tmp_path):
    assert "did you mean 'mean'" in problem(str(bert), pooling="meen")
    assert "unknown head 'mpl'; did you mean 'mlp'" in problem(str(bert), pooling="cls", head="mpl")
    assert "did you mean 'bert-base-uncased'" in problem("bert-base-uncase")
    assert "did you mean 'princeton-nlp/sup-simcse-roberta-base'" in problem("sup-simcse-roberta-bas")
    assert "no such folder" in problem("./nowhere")
    assert "no such folder" in problem(str(tmp_path / "nowhere"))
    Path("runs/unsup").mkdir(parents=True)  # in the test's own folder
    assert "There is no folder runs/unsp here either; did you mean 'runs/unsup'?" in problem("runs/unsp")
    assert "expected at least 1 token" in problem(str(bert), pooling="mean", max_length=0)


def test_missing_weights_are_refused_by_name(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    edit(folder, lambda s: {k: v for k, v in s.items() if k != "encoder.layer.1.output.dense.weight"})
    text = problem(str(folder), pooling="mean")
    assert "1 weights are missing from the checkpoint and would be random: encoder.layer.1.output.dense.weight" in text


def test_weights_of_another_shape_are_refused(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    edit(folder, lambda s: s | {"embeddings.word_embeddings.weight": torch.zeros(7, 32)})
    assert "embeddings.word_embeddings.weight" in problem(str(folder), pooling="mean")


def test_no_head_in_the_checkpoint(tmp_path):
    folder = tiny_bert(tmp_path / "m", pooler=False)
    assert "the head would be random. Use --head none" in problem(str(folder), pooling="cls", head="mlp")
    load_encoder(resolve(str(folder), pooling="cls", head="none"))


def test_half_a_head_in_the_checkpoint(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.bias"]
    save_file(weights, folder / "model.safetensors")
    assert "pooler.dense.weight without pooler.dense.bias" in problem(str(folder), pooling="cls", head="mlp")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickled_code_is_refused(tmp_path, capsys):
    folder = tiny_bert(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil()}))
    with pytest.raises(UserError):
        load_encoder(resolve(str(folder), pooling="cls", head="mlp"))
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError):
        load_encoder(resolve(str(folder), pooling="cls", head="mlp"))
    assert "executed" not in capsys.readouterr().out


def test_damaged_and_missing_files(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    assert "cannot load" in problem(str(folder), pooling="mean")
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors or pytorch_model.bin" in problem(str(folder), pooling="mean")
    (folder / "config.json").unlink()
    assert "no config.json" in problem(str(folder), pooling="mean")
    (folder / "train.json").write_text('{"status": "finished"}', "utf-8")
    assert "no config.json" in problem(str(folder), pooling="mean")
    unfinished = folder.rename(tmp_path / "my run")
    (unfinished / "train.json").write_text('{"status": "running"}', "utf-8")
    said = problem(str(unfinished), pooling="mean")
    assert said == (
        f"my run: an unfinished run, which has no model yet; `simcse-bench train --resume --out '{unfinished}'` goes on "
        "with it."
    )


def test_length_limits(tmp_path, bert):
    assert load_encoder(resolve(str(bert), pooling="mean")).max_length == 48
    assert "takes at most 48 tokens" in problem(str(bert), pooling="mean", max_length=49)
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path / "roberta"
    config = RobertaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=16, max_position_embeddings=34, pad_token_id=1)  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    assert load_encoder(resolve(str(folder), pooling="mean")).max_length == 32  # 34 - padding index 1 - 1


def save_with_sentence_transformers(bert, folder, pooling, dense, normalize):
    from sentence_transformers.sentence_transformer import modules

    model = SentenceTransformer(str(bert), device="cpu")
    size = 32
    parts = [model[0], modules.Pooling(size, pooling_mode=pooling)]
    if dense:
        torch.manual_seed(4)
        parts.append(modules.Dense(size, 20, activation_function=torch.nn.Tanh()))
    if normalize:
        parts.append(modules.Normalize())
    whole = SentenceTransformer(modules=parts, device="cpu")
    whole.max_seq_length = 9
    whole.save(str(folder))
    return whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pooling", "dense", "normalize"), [("mean", False, True), ("cls", True, False)])
def test_sentence_transformers_folder_needs_no_flag(bert, tmp_path, pooling, dense, normalize):
    theirs = save_with_sentence_transformers(bert, tmp_path / "st", pooling, dense, normalize)
    checkpoint = resolve(str(tmp_path / "st"))
    assert (checkpoint.spec.pooling, checkpoint.reason) == (pooling, "modules.json")
    encoder = load_encoder(checkpoint)
    assert encoder.max_length == 9
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)


def write_old_layout(folder, pooling):
    (folder / "1_Pooling").mkdir()
    kind = "sentence_transformers.models."
    modules = [{"idx": i, "name": str(i), "path": p, "type": kind + t} for i, (p, t) in
               enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    config = {"word_embedding_dimension": 32} | {f"pooling_mode_{k}": k in pooling for k in (
        "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}  # fmt: skip
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def test_the_old_layout_of_sentence_transformers(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    write_old_layout(folder, ["cls_token"])
    assert resolve(str(folder)).spec.pooling == "cls"
    assert resolve(str(folder)).spec.head == "none"


def test_the_arguments_win_over_modules_json(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    write_old_layout(folder, ["mean_tokens"])
    checkpoint = resolve(str(folder), pooling="cls", head="mlp")
    assert (checkpoint.spec.pooling, checkpoint.spec.head, checkpoint.reason) == ("cls", "mlp", "--pooling, --head")


def test_a_catalog_model_with_another_pooling_goes_without_its_head(monkeypatch, bert):
    name = "princeton-nlp/sup-simcse-bert-base-uncased"
    monkeypatch.setattr("simcse_bench.hub.download_model", lambda *_: bert)
    assert resolve(name).spec.head == "mlp"
    assert resolve(name, pooling="mean").spec.head == "none"
    assert resolve(name, pooling="cls").spec.head == "mlp"
    assert resolve(name, head="none").reason == "catalog, --head"


def test_the_official_eight_and_the_listed_ten_are_known():
    official = [f"princeton-nlp/{k}-simcse-{b}" for k in ("sup", "unsup")
                for b in ("bert-base-uncased", "bert-large-uncased", "roberta-base", "roberta-large")]  # fmt: skip
    for name in official:
        assert (MODELS[name].pooling, MODELS[name].head) == ("cls", "none" if "unsup" in name else "mlp")
    listed = {
        "dangvantuan/vietnamese-embedding",
        "VoVanPhuc/sup-SimCSE-VietNamese-phobert-base",
        "VoVanPhuc/unsup-SimCSE-VietNamese-phobert-base",
        "cyclone/simcse-chinese-roberta-wwm-ext",
        "demdecuong/stroke_simcse",
        "demdecuong/stroke_sup_simcse",
        "mrp/simcse-model-distil-m-bert",
        "mrp/simcse-model-m-bert-thai-cased",
        "mrp/simcse-model-roberta-base-thai",
        "princeton-nlp/sup-simcse-bert-large-uncased",
    }
    assert listed <= set(MODELS)
    assert {m.max_length for n, m in MODELS.items() if n.startswith("mrp/")} == {32}


def test_word_segmentation_is_an_extra_and_is_applied(bert, monkeypatch):
    checkpoint = resolve(str(bert), pooling="mean")
    checkpoint = dataclasses.replace(checkpoint, spec=dataclasses.replace(checkpoint.spec, preprocess="pyvi"))
    monkeypatch.setitem(__import__("sys").modules, "pyvi", None)
    with pytest.raises(UserError, match=r"pip install \"simcse-bench\[vi\]\""):
        load_encoder(checkpoint)

    class ViTokenizer:
        tokenize = staticmethod(str.upper)

    fake = type("pyvi", (), {"ViTokenizer": ViTokenizer})
    monkeypatch.setitem(__import__("sys").modules, "pyvi", fake)
    encoder = load_encoder(checkpoint)
    seen = []
    tokenizer = encoder.tokenizer
    encoder.tokenizer = type(
        "T", (), {"pad_token_id": 0, "__call__": lambda s, x, **k: seen.extend(x) or tokenizer(x, **k)}
    )()
    encoder.encode(["the dog"])
    assert seen == ["THE DOG"]


def test_a_masked_language_model_loads_without_its_own_head(tmp_path):
    from transformers import BertConfig

    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    write_tokenizer(tmp_path / "mlm")
    assert load_encoder(resolve(str(tmp_path / "mlm"), pooling="cls", head="none")).encode(["a dog"]).shape == (1, 16)


def test_fingerprints_follow_weights_and_tokenizer(tmp_path):
    a, b = tiny_bert(tmp_path / "a"), tiny_bert(tmp_path / "b", seed=1)
    files = [resolve(str(f), pooling="mean").provenance()["files"] for f in (a, b)]
    assert set(files[0]) == {"config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"}
    assert files[0]["vocab.txt"] == files[1]["vocab.txt"]
    assert files[0]["model.safetensors"] != files[1]["model.safetensors"]
    assert resolve(str(a), pooling="mean").provenance()["name"] == "a"  # no path of this machine in a report


def test_a_folder_without_vocabulary_is_refused(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "no vocabulary in" in problem(str(folder), pooling="mean")


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "more\nwords\n")
    assert "the tokenizer belongs to another model" in problem(str(folder), pooling="mean")


def test_a_length_of_special_tokens_only_is_refused(bert):
    assert "2 of them are special tokens; expected at least 3" in problem(str(bert), pooling="mean", max_length=2)


def test_a_revision_of_a_folder_is_refused(bert):
    assert "a revision belongs to a model on the Hub" in problem(str(bert), pooling="mean", revision="main")


@pytest.mark.filterwarnings("ignore")
def test_dense_and_transformer_weights_have_fingerprints_of_their_own(bert, tmp_path):
    save_with_sentence_transformers(bert, tmp_path / "st", "cls", dense=True, normalize=False)
    files = resolve(str(tmp_path / "st")).provenance()["files"]
    assert {"model.safetensors", "2_Dense/model.safetensors", "2_Dense/config.json"} <= set(files)
    config = tmp_path / "st" / "2_Dense" / "config.json"
    for activation in ("torch.nn.Linear", "torch.nn.modules.activation.Nothing", "os.system"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"activation_function": activation}))
        assert f"activation '{activation}'; known: ELU" in problem(str(tmp_path / "st"))


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '[{"idx": 0}]', "{"])
def test_broken_modules_json(tmp_path, content):
    folder = tiny_bert(tmp_path / "m")
    (folder / "modules.json").write_text(content)
    assert "modules.json" in problem(str(folder))


@pytest.mark.parametrize("change", [{"hidden_size": "abc"}, {"num_attention_heads": 0}, {"model_type": "klingon"}])
def test_broken_config(tmp_path, change):
    folder = tiny_bert(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert "cannot load" in problem(str(folder), pooling="mean")


def renamed(folder, old, new):
    (folder / old).rename(folder / new)


@pytest.mark.parametrize("stray", ["model.fp16.safetensors", "model.safetensors"])
def test_the_fingerprint_is_that_of_the_weights_that_are_loaded(tmp_path, stray):
    folder = tiny_bert(tmp_path / "m")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    if stray == "model.safetensors":  # a link to nowhere
        (folder / stray).unlink()
        (folder / stray).symlink_to(tmp_path / "nowhere")
    else:
        renamed(folder, "model.safetensors", stray)
    checkpoint = resolve(str(folder), pooling="cls", head="none")
    assert [n for n in checkpoint.files() if "model" in n] == ["pytorch_model.bin"]
    before = checkpoint.provenance()["files"], load_encoder(checkpoint).encode(["a dog ."])
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({k: v + 0.1 for k, v in state.items()}, folder / "pytorch_model.bin")
    assert checkpoint.provenance()["files"] != before[0]
    assert not np.allclose(load_encoder(checkpoint).encode(["a dog ."]), before[1])


def test_weights_in_several_files_are_those_of_the_index(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    whole = load_encoder(resolve(str(folder), pooling="cls", head="mlp")).encode(["a dog ."])
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(p.name for p in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    checkpoint = resolve(str(folder), pooling="cls", head="mlp")
    assert [n for n in checkpoint.files() if "safetensors" in n] == shards
    np.testing.assert_allclose(load_encoder(checkpoint).encode(["a dog ."]), whole, atol=1e-6)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert "model.safetensors.index.json: no weight_map" in problem(str(folder), pooling="cls", head="mlp")


def test_layers_that_the_config_leaves_out(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    set_json(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"16 weights are of layers that config.json leaves out: .*layer\.2\."):
        load_encoder(resolve(str(folder), pooling="cls", head="none"))


def test_a_folders_own_code_is_never_run(tmp_path, cli, senteval, monkeypatch):
    folder = tiny_bert(tmp_path / "m")
    auto = {"AutoConfig": "own.C", "AutoModel": "own.M"}
    set_json(folder / "config.json", model_type="own", auto_map=auto)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    done = cli("eval", "--model", folder, "--pooling", "cls", "--head", "none", "--data-dir", senteval)
    assert done.code == 2
    assert "Python code of its own" in done.err
    assert "trust_remote_code" not in done.err
    assert not (tmp_path / "ran").exists()


def test_a_run_of_ours_says_what_it_was_trained_on(bert, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(bert, folder)
    assert "trained_on" not in resolve(str(folder), pooling="cls", head="none").provenance()
    for record, expected in (
        ({"data": {"name": "t.txt", "fingerprint": "f", "rows": 3}}, [{"name": "t.txt", "fingerprint": "f"}]),
        ({"data": None}, None),
        ([], None),
    ):
        (folder / "train.json").write_text(json.dumps(record))
        assert resolve(str(folder), pooling="cls", head="none").provenance().get("trained_on") == expected
    (folder / "train.json").write_text("{")
    assert "trained_on" not in resolve(str(folder), pooling="cls", head="none").provenance()
