import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from kill_points import kill_points
from safetensors.torch import load_file
from tiny import SPECIAL, WORDS, sentences, write_tokenizer
from transformers import AutoModel, AutoTokenizer

from simcse_bench.errors import UserError
from simcse_bench.models import checkpoints, loading, saving
from simcse_bench.models.catalog import PLAIN_POOLINGS
from simcse_bench.training import train
from simcse_bench.training.config import MLPS, TrainConfig
from simcse_bench.training.model import load_model

TEXTS = [*sentences(9, seed=5), "The man .", "a dog unknownword"]


def trained(folder, seed=4, **settings):
    """A model as after training: MLP and one layer moved away from the checkpoint."""
    config = TrainConfig(**{"max_length": 16, "seed": seed, **settings}).check()
    model, _ = load_model(checkpoints.resolve(str(folder), pooling="cls", head="none"), config, torch.device("cpu"))
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in [*model.encoders[0].parameters()][-4:]:
            p += 0.1 * torch.randn_like(p)
        if model.mlp is not None:
            model.mlp[0].weight += 0.3 * torch.randn_like(model.mlp[0].weight)
            model.mlp[0].bias += 0.3
    return model


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=tolerance, rtol=0)


def plain(folder, texts):
    """transformers' own output of each sentence alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(**tokenizer(t, return_tensors="pt"), output_hidden_states=True) for t in texts]


def by_hand(output, pooling):
    if "+" in pooling:
        return torch.cat([by_hand(output, part) for part in pooling.split("+")])
    h = output.hidden_states
    if pooling == "cls":
        return h[-1][0, 0]
    tokens = h[-1][0]
    places = torch.arange(1, len(tokens) + 1)[:, None]
    others = {"max": tokens.amax(0), "mean_sqrt_len": tokens.sum(0) / len(tokens) ** 0.5, "last_token": tokens[-1],
              "weighted_mean": (tokens * places).sum(0) / places.sum()}  # fmt: skip
    if pooling in others:
        return others[pooling]
    other = {"mean": -1, "first_last": 1, "embedding_last": 0, "top2": -2}[pooling]
    return (h[other][0] + h[-1][0]).mean(0) / 2


def sentence_transformer(folder):
    """The folder in sentence-transformers, without the warning that it names old module paths."""
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.mark.parametrize("pooling", [*PLAIN_POOLINGS, "cls+mean"])
@pytest.mark.parametrize("mlp", MLPS)
def test_an_exported_model_gives_the_embeddings_of_training(bert, tmp_path, pooling, mlp):
    model = trained(bert, pooling=pooling, mlp=mlp)
    # larger values; sums of twice as many
    tolerance = 3e-5 if pooling in ("mean_sqrt_len", "cls+mean") else 1e-5
    expected = model.encoder().encode(TEXTS)
    assert not np.allclose(expected, trained(bert, pooling=pooling, mlp=mlp, seed=5).encoder().encode(TEXTS), atol=1e-3)
    train.write_model(model, tmp_path / "out")

    found = checkpoints.resolve(str(tmp_path / "out"))
    assert (found.spec.pooling, found.spec.head) == (pooling, "mlp" if mlp == "always" else "none")
    assert found.reason == "simcse_bench.json"
    close(loading.load_encoder(found, device="cpu").encode(TEXTS), expected, tolerance)

    close(sentence_transformer(tmp_path / "out").encode(TEXTS, convert_to_numpy=True), expected, tolerance)

    outputs = plain(tmp_path / "out", TEXTS)
    pooled = torch.stack([by_hand(o, pooling) for o in outputs])
    if mlp == "always":
        if pooling == "cls":  # BERT's pooler is the MLP
            close(torch.cat([o.pooler_output for o in outputs]), expected, tolerance)
        pooled = torch.tanh(pooled @ model.mlp[0].weight.T + model.mlp[0].bias).detach()
    close(pooled, expected, tolerance)


def test_an_mlp_of_training_only_is_kept_as_the_pooler(bert, tmp_path):
    model = trained(bert, mlp="train_only")
    train.write_model(model, tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(state["pooler.dense.weight"], model.mlp[0].weight)
    again = loading.load_encoder(checkpoints.resolve(str(tmp_path / "out"), head="mlp"), device="cpu").encode(TEXTS)
    outputs = plain(tmp_path / "out", TEXTS)
    close(torch.cat([o.pooler_output for o in outputs]), again)
    train.write_model(trained(bert, mlp="none"), tmp_path / "none")
    assert not any("pooler" in k for k in load_file(tmp_path / "none" / "model.safetensors"))


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    from transformers import DistilBertConfig, DistilBertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-distilbert"
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(SPECIAL + WORDS), dim=32, n_layers=2, n_heads=4, hidden_dim=64,
        max_position_embeddings=48, initializer_range=0.4,
    )  # fmt: skip
    DistilBertModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("pooling", ["cls", "first_last"])
def test_a_model_without_a_pooler_keeps_its_mlp(distilbert, tmp_path, pooling):
    model = trained(distilbert, pooling=pooling, mlp="always", hidden_dropout=0.2)
    assert model.dropout()["hidden"] == 0.2
    expected = model.encoder().encode(TEXTS)
    train.write_model(model, tmp_path / "out")
    found = checkpoints.resolve(str(tmp_path / "out"))
    assert (found.spec.pooling, found.spec.head) == (pooling, "mlp")
    close(loading.load_encoder(found, device="cpu").encode(TEXTS), expected)
    close(sentence_transformer(tmp_path / "out").encode(TEXTS, convert_to_numpy=True), expected)


def test_the_anchors_encoder_is_exported(bert, tmp_path):
    model = trained(bert, encoders=2)
    with torch.no_grad():
        for p in model.encoders[1].parameters():
            p.zero_()
    train.write_model(model, tmp_path / "out")
    found = loading.load_encoder(checkpoints.resolve(str(tmp_path / "out")), device="cpu").encode(TEXTS)
    assert np.abs(found).max() > 0.1
    close(found, model.encoder().encode(TEXTS))


def test_a_language_model_head_is_left_out(bert, tmp_path):
    model = trained(bert, mlm_weight=0.1)
    train.write_model(model, tmp_path / "out")
    assert not any("cls." in k or "lm_head" in k for k in load_file(tmp_path / "out" / "model.safetensors"))
    found = loading.load_encoder(checkpoints.resolve(str(tmp_path / "out")), device="cpu").encode(TEXTS)
    close(found, model.encoder().encode(TEXTS))


def test_sentence_transformers_takes_sentences_as_long_as_the_model_does(bert, tmp_path):
    train.write_model(trained(bert, max_length=8), tmp_path / "out")
    long = " ".join(["the dog sees a big red house ."] * 4)
    expected = loading.load_encoder(checkpoints.resolve(str(tmp_path / "out")), device="cpu").encode([long])
    model = sentence_transformer(tmp_path / "out")
    assert model.max_seq_length == 48
    close(model.encode([long]), expected)


def test_an_exported_model_can_be_trained_again(bert, tmp_path):
    first = trained(bert, pooling="mean", mlp="none", hidden_dropout=0.3)
    train.write_model(first, tmp_path / "out")
    again, _ = load_model(
        checkpoints.resolve(str(tmp_path / "out")), TrainConfig(pooling="mean", mlp="none"), torch.device("cpu")
    )
    assert again.dropout() == {"hidden": 0.3, "attention": 0.1}
    close(again.encoder().encode(TEXTS), first.encoder().encode(TEXTS))


def test_a_second_export_replaces_the_first(bert, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    train.write_model(trained(bert, pooling="top2", mlp="always"), folder)
    model = trained(bert, pooling="mean", mlp="none", seed=9)
    train.write_model(model, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.glob(".new-*"))
    found = checkpoints.resolve(str(folder))
    assert (found.spec.pooling, found.spec.head) == ("mean", "none")
    expected = model.encoder().encode(TEXTS)
    close(loading.load_encoder(found, device="cpu").encode(TEXTS), expected)
    close(sentence_transformer(folder).encode(TEXTS, convert_to_numpy=True), expected)


@pytest.mark.parametrize(
    "content", ['{"pooling": "meen", "head": "none"}', '{"pooling": "mean", "head": "both"}', '{"pooling": "mean"}',
                '["mean", "none"]', '{"pooling": ["mean"], "head": "none"}', "{"],
)  # fmt: skip
def test_a_settings_file_that_says_nothing_possible_is_refused(bert, tmp_path, content):
    train.write_model(trained(bert), tmp_path / "out")
    (tmp_path / "out" / "simcse_bench.json").write_text(content)
    with pytest.raises(UserError, match=r"simcse_bench\.json"):
        checkpoints.resolve(str(tmp_path / "out"))


@pytest.mark.parametrize("place", ["save_file", "write_json"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failing_write_leaves_what_was_there(bert, tmp_path, monkeypatch, place, call):
    folder = tmp_path / "out"
    train.write_model(trained(bert, pooling="top2", mlp="always"), folder)
    before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    calls, real = [], getattr(saving, place)

    def full(*args, **options):
        calls.append(args)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(saving, place, full)
    with pytest.raises(UserError, match="No space left on device"):
        train.write_model(trained(bert, pooling="mean", mlp="always"), folder)
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_failing_write_into_a_new_folder_leaves_it_empty(bert, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_write_modules", full)
    with pytest.raises(UserError, match="cannot write"):
        train.write_model(trained(bert), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused(bert, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        train.write_model(trained(bert), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_the_config_names_the_architecture_and_no_folder_of_this_machine(bert, tmp_path):
    train.write_model(trained(bert), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert config["model_type"] == "bert"
    for path in (tmp_path / "out").rglob("*.json"):
        assert str(bert.parent) not in path.read_text(), path


@pytest.mark.parametrize("earlier", [False, True])
def test_a_folder_killed_while_it_is_filled_is_one_of_the_two_or_no_model(tmp_path, earlier):
    names = ("config.json", "export.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json")
    folder = tmp_path / "model"

    def fill(content):
        with saving.fill_folder(folder) as new:
            for name in names:
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(content)

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        if earlier:
            fill("old")

    points = 0
    for point in kill_points(lambda: fill("new"), prepare):
        points += 1
        found = {name: (folder / name).read_text() for name in names if (folder / name).exists()}
        if {"config.json", "export.json"} & found.keys():
            assert len(set(found.values())) == 1, point
        fill("again")
        assert {(folder / name).read_text() for name in names} == {"again"}, point
    assert points > 20
