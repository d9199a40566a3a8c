"""Folders that sentence-transformers writes: our vectors are its own, or the folder is refused in words."""

import json
import warnings

import numpy as np
import pytest
import torch
from architectures import build
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tiny import WORDS, sentences, tiny_bert
from tokenizers import Tokenizer, models, pre_tokenizers

from simcse_bench.errors import UserError
from simcse_bench.models.identity import deciding
from simcse_bench.models.modules import read_modules
from simcse_bench.models.open import open_model
from simcse_bench.models.prompts import PromptOptions

TEXTS = [*sentences(14), "Two Dog .", "two dog .", "the Dog runs", "THE dog RUNS ."]
PROMPTS = {"prompts": {"query": "the dog : ", "none": ""}, "default_prompt_name": "query"}


def set_json(path, **fields):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | fields))


def transformer(path, cased=False):
    folder = tiny_bert(path)
    if cased:
        words = (folder / "vocab.txt").read_text().splitlines()
        (folder / "vocab.txt").write_text("\n".join([*words[:-2], "Two", "Dog"]) + "\n")
        set_json(folder / "tokenizer_config.json", do_lower_case=False)
    return Transformer(str(folder))


def static():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticEmbedding(tokenizer, embedding_dim=16)


def words():
    return WordEmbeddings(WhitespaceTokenizer(WORDS), np.random.default_rng(0).normal(size=(len(WORDS), 12)))


FORMS = {
    **{mode: lambda p, mode=mode: [transformer(p), Pooling(32, mode)] for mode in Pooling.POOLING_MODES},
    "concatenated": lambda p: [transformer(p), Pooling(32, ("max", "mean", "lasttoken"))],
    "dense": lambda p: [transformer(p), Pooling(32, "mean"), Dense(32, 20, activation_function=torch.nn.GELU())],
    "dense on concatenated": lambda p: [transformer(p), Pooling(32, ("cls", "mean")), Dense(64, 20)],
    "normalize": lambda p: [transformer(p), Pooling(32, "mean"), Dense(32, 32, bias=False), Normalize()],
    "several dense": lambda p: [transformer(p), Pooling(32, "mean"), Dense(32, 24), Dense(24, 16)],
    "normalize before dense": lambda p: [transformer(p), Pooling(32, "mean"), Normalize(), Dense(32, 16)],
    "residual dense": lambda p: [transformer(p), Pooling(32, "mean"), Dense(32, 16, use_residual=True)],
    "layer norm": lambda p: [transformer(p), Pooling(32, "mean"), LayerNorm(32)],
    "cnn": lambda p: [words(), CNN(12, 8), Pooling(24, "max")],
    "lstm": lambda p: [words(), LSTM(12, 8), Pooling(16, "mean")],
    "static": lambda p: [static()],
    "router": lambda p: [Router.for_query_document([static()], [static()], default_route="document")],
    "decoder": lambda p: [Transformer(str(decoder(p))), Pooling(32, "lasttoken"), Normalize()],
}
READ_HERE = {*Pooling.POOLING_MODES, "concatenated", "dense", "dense on concatenated", "normalize", "decoder"}


def decoder(path):
    build("qwen3", path)
    return path


def save(tmp_path, form):
    torch.manual_seed(1)
    SentenceTransformer(modules=FORMS[form](tmp_path / "start"), device="cpu").save(str(tmp_path / "st"))
    return tmp_path / "st"


def theirs(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old settings
        return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **options)


def ours(folder, **options):
    encoder = open_model(str(folder), device="cpu", **options).load()
    return encoder.encode(TEXTS), encoder


def problem(folder, **options):
    with pytest.raises(UserError) as error:
        ours(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_librarys_own_vectors(tmp_path, form):
    folder = save(tmp_path, form)
    found, encoder = ours(folder)
    # alone: its CNN gives a sentence other vectors in other company
    np.testing.assert_allclose(found, theirs(folder, **{"batch_size": 1} if form == "cnn" else {}), atol=1e-5)
    assert ("encoded_by" in encoder.provenance) == (form not in READ_HERE)
    assert bool(deciding(encoder.provenance).get("library")) == (form not in READ_HERE)
    encoder.batch_tokens, encoder.slack = 4096, 0.9  # padded
    np.testing.assert_allclose(encoder.encode(TEXTS), found, atol=1e-5)
    assert encoder.provenance["files"]


@pytest.mark.parametrize("form", ["mean", "dense", "normalize", "several dense", "static"])
def test_truncate_dim_of_the_folder_and_of_the_command(tmp_path, form):
    folder = save(tmp_path, form)
    set_json(folder / "config_sentence_transformers.json", truncate_dim=10)
    found, encoder = ours(folder)
    assert found.shape == (len(TEXTS), 10)
    np.testing.assert_allclose(found, theirs(folder), atol=1e-5)
    assert deciding(encoder.provenance)["truncate_dim"] == 10
    assert ours(folder, truncate_dim=5)[0].shape == (len(TEXTS), 5)
    assert "gives only" in problem(folder, truncate_dim=4000)
    assert "--truncate-dim 0" in problem(folder, truncate_dim=0)
    set_json(folder / "config_sentence_transformers.json", truncate_dim=-1)
    assert "truncate_dim -1; expected a number of at least 1" in problem(folder)


@pytest.mark.parametrize("lower", [False, True])
def test_do_lower_case(tmp_path, lower):
    SentenceTransformer(modules=[transformer(tmp_path / "b", cased=True), Pooling(32, "mean")]).save(
        str(tmp_path / "st")
    )
    # release 6.2 reads it, but writes it no more
    set_json(tmp_path / "st" / "sentence_bert_config.json", do_lower_case=lower)
    found, encoder = ours(tmp_path / "st")
    np.testing.assert_allclose(found, theirs(tmp_path / "st"), atol=1e-5)
    assert np.allclose(found[-4], found[-3], atol=1e-6) == lower
    assert encoder.provenance.get("lower_case", False) == lower


@pytest.mark.parametrize(
    "form", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "several dense"]
)
@pytest.mark.parametrize("counted", [True, False])
def test_prompts(tmp_path, form, counted):
    folder = save(tmp_path, form)
    set_json(folder / "config_sentence_transformers.json", **PROMPTS)
    set_json(folder / "1_Pooling" / "config.json", include_prompt=counted)
    found, encoder = ours(folder)
    np.testing.assert_allclose(found, theirs(folder), atol=1e-5)
    said = deciding(encoder.provenance)
    assert said["template"] == "the dog : {sentence}"
    if form in READ_HERE:
        assert bool(said.get("prompt_left_out")) != counted
    plain, encoder = ours(folder, prompt=PromptOptions(prompt=""))
    assert not np.allclose(plain, found, atol=1e-3)
    np.testing.assert_allclose(plain, theirs(folder, prompt=""), atol=1e-5)
    np.testing.assert_allclose(ours(folder, prompt=PromptOptions(prompt_name="none"))[0], plain, atol=1e-6)
    other = ours(folder, prompt=PromptOptions(prompt="a cat "))[0]
    np.testing.assert_allclose(other, theirs(folder, prompt="a cat "), atol=1e-5)


def test_prompts_that_cannot_be(tmp_path):
    folder = save(tmp_path, "mean")
    set_json(folder / "config_sentence_transformers.json", **PROMPTS)
    said = problem(folder, prompt=PromptOptions(prompt_name="qury"))
    assert "unknown prompt 'qury'; did you mean 'query'? Known: query, none" in said
    assert "exclude each other" in problem(folder, prompt=PromptOptions(prompt="a", prompt_name="query"))
    assert "use --template" in problem(folder, prompt=PromptOptions(prompt="a {sentence}"))
    assert "expected {sentence} in it" in problem(folder, prompt=PromptOptions(template="a"))
    set_json(folder / "config_sentence_transformers.json", default_prompt_name="no")
    assert "default_prompt_name 'no' is not among its prompts (query, none)" in problem(folder)
    set_json(folder / "config_sentence_transformers.json", prompts=["a"])
    assert "expected a text for every name" in problem(folder)


def old_layout(folder):
    """As releases 2 to 4 wrote it."""
    new = json.loads((folder / "1_Pooling" / "config.json").read_text())
    modes = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "lasttoken": "lasttoken"}
    chosen = new["pooling_mode"] if isinstance(new["pooling_mode"], list) else [new["pooling_mode"]]
    old = {f"pooling_mode_{key}": mode in chosen for key, mode in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | old))
    listed = json.loads((folder / "modules.json").read_text())
    for module in listed:
        module["type"] = "sentence_transformers.models." + module["type"].split(".")[-1]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").unlink()
    (folder / "sentence_roberta_config.json").write_text('{"max_seq_length": 8, "do_lower_case": false}')


@pytest.mark.parametrize("form", ["mean", "cls", "concatenated", "normalize"])
def test_old_layouts(tmp_path, form):
    folder = save(tmp_path, form)
    old_layout(folder)
    found, encoder = ours(folder)
    np.testing.assert_allclose(found, theirs(folder), atol=1e-5)
    assert encoder.max_length == 8
    assert encoder.stats["truncated"] > 0


@pytest.mark.parametrize("length", ["Infinity", "1e400", '"48"', "true", "-3"])
def test_an_impossible_max_seq_length(tmp_path, length):
    folder = save(tmp_path, "mean")
    (folder / "sentence_bert_config.json").write_text(f'{{"max_seq_length": {length}}}')
    assert "max_seq_length" in problem(folder)


def test_every_setting_that_the_library_writes_is_known(tmp_path):
    """Nothing of a folder is ignored: a key is followed here, or the library itself embeds."""
    for form in READ_HERE:
        assert not read_modules(save(tmp_path / form.replace(" ", "-"), form)).library, form
    folder = tmp_path / "mean" / "st"
    files = ("config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json")
    for name in files:
        before = (folder / name).read_text()
        set_json(folder / name, some_new_key=1)
        assert "the setting some_new_key" in read_modules(folder).library, name
        (folder / name).write_text(before)
    changes = {"transformer_task": "text-generation", "module_output_name": "other", "processing_kwargs": {"text": {}}}
    for key, value in changes.items():
        before = (folder / "sentence_bert_config.json").read_text()
        set_json(folder / "sentence_bert_config.json", **{key: value})
        assert key in read_modules(folder).library
        (folder / "sentence_bert_config.json").write_text(before)


def test_code_of_its_own_runs_only_where_it_is_trusted(cli, tmp_path):
    folder = save(tmp_path, "mean")
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from sentence_transformers.sentence_transformer.modules import Normalize\n"
        "class Twice(Normalize):\n"
        "    def forward(self, features):\n"
        "        features['sentence_embedding'] = 2 * features['sentence_embedding']\n"
        "        return features\n"
    )
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 2, "name": "2", "path": "", "type": "own.Twice"})
    plain = ours(folder)[0]
    (folder / "modules.json").write_text(json.dumps(listed))
    said = problem(folder)
    assert "needs Python code of its own (own.Twice), which is not run" in said
    assert "--trust-remote-code" in said
    assert not (tmp_path / "ran").exists()
    found, encoder = ours(folder, trust_code=True)
    np.testing.assert_allclose(found, 2 * plain, atol=1e-5)
    assert (tmp_path / "ran").exists()
    assert "own.py" in encoder.provenance["files"]
    (tmp_path / "text.txt").write_text("\n".join(text for text in TEXTS if text.strip()), encoding="utf-8")
    made = cli("index", tmp_path / "text.txt", "--model", folder, "--trust-remote-code", "--out", "idx")
    assert made.code == 0, made.err
    refused = cli("search", "idx", TEXTS[0])
    assert (refused.code, "--trust-remote-code" in refused.err) == (2, True)
    assert cli("search", "idx", TEXTS[0], "--trust-remote-code").code == 0


def test_a_pooling_of_a_form_that_the_library_embeds(tmp_path):
    folder = save(tmp_path, "several dense")
    found, encoder = ours(folder, pooling="mean")
    assert found.shape == (len(TEXTS), 32)
    assert "encoded_by" not in encoder.provenance
    assert "--head none: st is embedded by its own modules; give --pooling" in problem(folder, head="none")
    assert "is no transformers model (its modules (StaticEmbedding))" in problem(
        save(tmp_path / "s", "static"), pooling="mean"
    )


def test_a_type_that_is_none_is_told_of_every_form(tmp_path):
    for form in ("mean", "static"):
        folder = save(tmp_path / form, form)
        assert "unknown dtype 'float23'; did you mean 'float32'" in problem(folder, dtype="float23")
        assert "--batch-tokens 0" in problem(folder, batch_tokens=0)
    assert "unknown dtype 'int8'" in problem(save(tmp_path / "library", "static"), dtype="int8")  # not ours to round


def test_weights_of_another_kind(tmp_path):
    folder = save(tmp_path, "mean")
    (folder / "model.safetensors").rename(folder / "model.Q4.gguf")
    assert "model.Q4.gguf is not read; give the original model's folder" in problem(folder)
