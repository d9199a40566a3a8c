"""Decoders, templates and low-rank changes in training: what is trained is what every reader of the folder loads."""

import json
import warnings

import numpy as np
import pytest
import torch
from architectures import build
from processes import set_options
from safetensors.torch import load_file
from tiny import sentences
from transformers import AutoModel, AutoTokenizer

from simcse_bench.errors import UserError
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.open import open_model
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import backward
from simcse_bench.training.model import load_model, merged_state
from simcse_bench.training.processes import Processes
from simcse_bench.training.recipes import RECIPES

CPU = torch.device("cpu")
TEXTS = sentences(10)
EOL = "the man sees {sentence} , a"
LORA = {"lora_rank": 4, "lora_targets": ("q_proj", "v_proj"), "pooling": "last_token", "mlp": "none", "template": EOL}


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def decoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    build(request.param, folder)
    return folder


def model_of(folder, **settings):
    config = TrainConfig(model=str(folder), max_length=32, temperature=0.5, **settings).check()
    return load_model(resolve(str(folder), pooling="cls", head="none"), config, CPU)


def step(model, rows):
    model.zero_grad()
    torch.manual_seed(3)
    loss = backward(model, rows, Processes(0, 1, CPU), 3)
    return float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def rows_of(model):
    return [(model.tokenizer(EOL.replace("{sentence}", text))["input_ids"],) for text in TEXTS]


def test_low_rank_changes_alone_are_trained(decoder):
    model, drawn = model_of(decoder, **LORA)
    assert "lora" in drawn
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # layers, targets, A and B
    assert all(".lora_" in n for n in trained)
    before = load_file(decoder / "model.safetensors")
    same = merged_state(model.encoders[0])
    assert all(torch.equal(same[k], v) for k, v in before.items())
    loss, gradients = step(model, rows_of(model))
    assert set(gradients) <= trained
    assert np.isfinite(loss)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in trained:
                p += 0.3
    changed = {k for k, v in merged_state(model.encoders[0]).items() if not torch.equal(v, before[k])}
    assert len(changed) == 4
    assert all(k.endswith(("q_proj.weight", "v_proj.weight")) for k in changed)


def test_the_change_is_alpha_over_rank_times_b_a(decoder):
    model, _ = model_of(decoder, **LORA, lora_alpha=8)
    layer = model.encoders[0].layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b.normal_()
    whole = merged_state(model.encoders[0])["layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(whole, layer.base_layer.weight + 8 / 4 * b @ a)


@pytest.mark.parametrize("settings", [{}, LORA])
def test_gradient_checkpointing_changes_no_gradient(decoder, settings):
    chosen = settings or {"mlp": "none", "pooling": "mean"}
    plain, checkpointed = (model_of(decoder, **chosen, gradient_checkpointing=on)[0] for on in (False, True))
    rows = rows_of(plain)
    expected, found = step(plain, rows), step(checkpointed, rows)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.fixture
def trained(cli, decoder, senteval, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(sentences(40)) + "\n")
    settings = {**LORA, "lora_targets": "q_proj,v_proj", "model": decoder, "train": "text.txt", "max_steps": 4,
                "batch_size": 8, "learning_rate": 1e-2, "eval_every": 0}  # fmt: skip

    def run(out, *more, **changes):
        return cli("train", "--out", out, "--device", "cpu", "--data-dir", senteval, "-q",
                   *set_options(settings | changes), *more)  # fmt: skip

    return run


def test_every_reader_loads_what_was_trained(trained, decoder, tmp_path):
    done = trained("runs/a")
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "a"
    encoder = open_model(str(folder), device="cpu").load()
    found = encoder.encode(TEXTS)
    assert encoder.provenance["template"] == EOL
    start = open_model(str(decoder), device="cpu", pooling="last_token", head="none").load()
    start.prompt = encoder.prompt
    assert not np.allclose(found, start.encode(TEXTS), atol=1e-3)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        for row, text in zip(found, TEXTS, strict=True):
            batch = tokenizer(EOL.replace("{sentence}", text), return_tensors="pt")
            np.testing.assert_allclose(row, model(**batch).last_hidden_state[0, -1], atol=1e-5)
    record = json.loads((folder / "train.json").read_text())
    assert record["config"]["template"] == EOL
    assert "lora" in record["random_at_start"]
    assert not (folder / "modules.json").exists()  # sentence-transformers has no template


def test_a_prompt_is_one_for_sentence_transformers_too(trained, tmp_path):
    from sentence_transformers import SentenceTransformer

    assert trained("runs/b", template="the man sees {sentence}").code == 0
    folder = tmp_path / "runs" / "b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(open_model(str(folder), device="cpu").load().encode(TEXTS), theirs, atol=1e-5)


def test_resume_is_bit_exact(trained, tmp_path, monkeypatch):
    assert trained("runs/whole").code == 0
    from simcse_bench.training import train

    update, seen = train.Run.update, []

    def stop(run):
        update(run)
        seen.append(run)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.Run, "update", stop)
    assert trained("runs/part", "--save-every", 1).code == 130
    monkeypatch.setattr(train.Run, "update", update)
    assert trained("runs/part", "--resume").code == 0
    one, other = (load_file(tmp_path / "runs" / name / "model.safetensors") for name in ("whole", "part"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_decoder_goes_through_every_command(cli, decoder, senteval, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS) + "\n")
    usual = ["--model", decoder, "--pooling", "last_token", "--head", "none", "--device", "cpu"]
    for suite in ("sts", "mini-transfer"):
        done = cli("eval", *usual, "--suite", suite, "--data-dir", senteval, "-q")
        assert done.code == 0, done.err
    assert cli("analyze", *usual, "--data-dir", senteval).code == 0
    assert cli("encode", "text.txt", *usual, "--out", "v.npy").code == 0
    assert np.load("v.npy").shape == (10, 32)
    assert cli("index", "text.txt", *usual, "--out", "index").code == 0
    done = cli("search", "index", TEXTS[3], "--device", "cpu", "--format", "json")
    assert json.loads(done.out)[0]["results"][0]["sentence"] == TEXTS[3]
    done = cli("export", decoder, *usual[2:6], "--to", "sentence-transformers", "--out", "exported")
    assert done.code == 0, done.err
    ours, again = (open_model(str(f), device="cpu", **k).load().encode(TEXTS) for f, k in (
        (decoder, {"pooling": "last_token", "head": "none"}), ("exported", {})))  # fmt: skip
    np.testing.assert_allclose(again, ours, atol=1e-5)


def test_an_adapter_is_merged_into_its_base(decoder, tmp_path):
    import peft

    base = AutoModel.from_pretrained(decoder)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": str(decoder)})
    )
    encoder = open_model(str(tmp_path / "adapter"), pooling="mean", head="none", device="cpu").load()
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    with torch.no_grad():
        for row, text in zip(encoder.encode(TEXTS), TEXTS, strict=True):
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            np.testing.assert_allclose(row, states.mean(0), atol=1e-5)
    files = encoder.provenance["files"]
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"} <= set(files)
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "nobody/nothing"})
    )
    with pytest.raises(UserError, match=r"an adapter whose base model is missing: .*nobody/nothing"):
        resolve(str(tmp_path / "adapter"), pooling="mean", head="none")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="no base_model_name_or_path in it"):
        resolve(str(tmp_path / "adapter"), pooling="mean", head="none")


def test_weights_stored_in_bfloat16_are_loaded_so(decoder, tmp_path):
    AutoModel.from_pretrained(decoder, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path / "half")
    options = {"pooling": "mean", "head": "none", "device": "cpu"}
    assert open_model(str(tmp_path / "half"), **options).provenance["dtype"] == "bfloat16"
    assert open_model(str(tmp_path / "half"), **options, dtype="float32").provenance["dtype"] == "float32"
    assert open_model(str(decoder), **options).provenance["dtype"] == "float32"


def test_what_does_not_go_together_is_told(decoder):
    for changes, said in (
        ({"template": "a"}, "expected {sentence} in it"),
        ({"pooling": "mask"}, "needs a template with the mask token"),
        ({"lora_rank": 4, "mlm_weight": 0.1}, "not with lora_rank"),
        ({"lora_rank": -1}, "lora_rank -1"),
    ):
        with pytest.raises(UserError, match=said):
            TrainConfig(**changes).check()
    with pytest.raises(UserError, match="lora_targets nowhere: "):
        model_of(decoder, lora_rank=4, lora_targets=("nowhere",), mlp="none")


@pytest.mark.parametrize("name", [n for n in RECIPES if "lora" in n])
def test_the_recipes_with_low_rank_changes_on_a_tiny_model(cli, decoder, senteval, tmp_path, name):
    columns = "a,b,c\n" if "sup" in name and "unsup" not in name else ""
    rows = [",".join(sentences(40)[i : i + 3]).replace(" ,", "") for i in range(30)] if columns else sentences(40)
    text = tmp_path / ("text.csv" if columns else "text.txt")
    text.write_text(columns + "\n".join(rows) + "\n")
    changed = set_options({"model": decoder, "train": text, "batch_size": 8, "max_steps": 2, "eval_every": 0})
    done = cli(
        "train", "--recipe", name, "--out", "runs/x", "--data-dir", senteval, "--device", "cpu", "--dry-run", *changed
    )
    assert done.code == 0, done.err
