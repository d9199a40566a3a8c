"""Templates around a sentence: what the tokenizer gets, which vector is taken, and the template's own one removed."""

import json

import numpy as np
import pytest
import torch
from tiny import sentences, tiny_bert
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from simcse_bench.errors import UserError
from simcse_bench.models import prompts
from simcse_bench.models.catalog import MODELS, POOLINGS, PREPROCESSES
from simcse_bench.models.loading import _preprocessor
from simcse_bench.models.open import open_model
from simcse_bench.models.prompts import (
    NO_PROMPT,
    SLOT,
    Prompt,
    PromptOptions,
    in_plain_quotes,
    prefix_length,
    template_ids,
    tokenize,
    with_full_stop,
)

TEXTS = sentences(12)
BERT = "the dog , {sentence} . a [MASK] ."
EOL = "the man sees {sentence} , a"


@pytest.mark.parametrize("longest", [100, 6])
def test_sentences_in_blocks_have_the_ids_that_they_have_together(tmp_path, monkeypatch, longest):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert(tmp_path / "m"))
    whole = tokenize(tokenizer, TEXTS, NO_PROMPT, longest)
    assert whole[0][0] == tokenizer(TEXTS[0], truncation=True, max_length=longest)["input_ids"]
    monkeypatch.setattr(prompts, "_AT_ONCE", 5)
    assert tokenize(tokenizer, TEXTS, NO_PROMPT, longest) == whole
    assert tokenize(tokenizer, [], NO_PROMPT, longest) == ([], 0)


def embedded(folder, texts=TEXTS, **options):
    encoder = open_model(str(folder), device="cpu", head="none", **options).load()
    return encoder.encode(texts), encoder


def problem(folder, **options):
    with pytest.raises(UserError) as error:
        embedded(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def by_hand(folder, template, token, texts=TEXTS):
    """One by one: the last layer at a token of the filled-in template."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            batch = tokenizer(template.replace("{sentence}", text), return_tensors="pt")
            at = -1 if token is None else batch["input_ids"][0].tolist().index(tokenizer.convert_tokens_to_ids(token))
            rows.append(model(**batch).last_hidden_state[0, at].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(("template", "pooling", "token"), [(BERT, "mask", "[MASK]"), (EOL, "last_token", None)])
def test_a_template_and_the_vector_at_its_token(bert, template, pooling, token):
    found, encoder = embedded(bert, pooling=pooling, prompt=PromptOptions(template=template))
    np.testing.assert_allclose(found, by_hand(bert, template, token), atol=1e-5)
    encoder.batch_tokens, encoder.slack = 4096, 0.9  # padded
    np.testing.assert_allclose(encoder.encode(TEXTS), found, atol=1e-5)
    assert encoder.provenance["template"] == template


def test_the_templates_own_vector_is_removed(bert):
    """PromptBERT, section 4.2: the template alone, what follows the sentence at the positions that it has with it."""
    options = {"pooling": "mask", "prompt": PromptOptions(template=BERT, debiased=True)}
    found, encoder = embedded(bert, **options)
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    whole = by_hand(bert, BERT, "[MASK]")
    alone = tokenizer(BERT.replace("{sentence}", ""))["input_ids"]
    before = len(tokenizer("the dog ,")["input_ids"]) - 1
    for row, text, with_it in zip(found, TEXTS, whole, strict=True):
        n = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        places = [*range(before), *range(before + n, len(alone) + n)]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([alone]), position_ids=torch.tensor([places])).last_hidden_state
        bias = states[0, alone.index(tokenizer.mask_token_id)].numpy()
        np.testing.assert_allclose(row, with_it - bias, atol=1e-5)
    assert encoder.provenance["template_bias_removed"] is True


def test_the_sentence_is_cut_and_not_the_template(bert):
    tokenizer, prompt = AutoTokenizer.from_pretrained(bert), Prompt(BERT)
    long = " ".join(["dog"] * 50)
    ids, cut = tokenize(tokenizer, [long, "a dog"], prompt, 20)
    assert (cut, len(ids[0])) == (1, 20)
    shown = tokenizer.decode(ids[0])
    assert shown.startswith("[CLS] the dog, dog dog")
    assert shown.endswith("dog. a [MASK]. [SEP]")
    assert ids[1] == tokenizer("the dog , a dog . a [MASK] .")["input_ids"]
    with pytest.raises(UserError, match="no room for a sentence within 9 tokens"):
        tokenize(tokenizer, [long], prompt, 9)
    plain = tokenize(tokenizer, [long], Prompt("a cat {sentence}"), 20)[0][0]
    assert plain == tokenizer("a cat " + long, truncation=True, max_length=20)["input_ids"]


def test_tokens_before_the_sentence(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    assert prefix_length(tokenizer, Prompt(BERT)) == 4  # [CLS] the dog ,
    assert prefix_length(tokenizer, Prompt()) == 0
    ids, before = template_ids(tokenizer, Prompt(BERT))
    assert (ids, before) == (tokenizer("the dog , . a [MASK] .")["input_ids"], 4)


def test_a_space_before_the_sentence_belongs_to_it():
    """Byte-level tokens, as RoBERTa's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "</s>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        ["a sentence : ' two dogs ' means"] * 9,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, mask_token="<mask>", cls_token="<s>", sep_token="</s>")
    prompt = Prompt("a sentence : ' {sentence} ' means <mask>")
    ids, before = template_ids(tokenizer, prompt)
    shown = tokenizer.convert_ids_to_tokens
    assert shown(ids[:before]) == ["<s>", "a", "Ġsentence", "Ġ:", "Ġ'"]
    with_it = tokenizer(prompt.wrap("two dogs"))["input_ids"]
    assert with_it == [*ids[:before], *tokenizer(" two dogs")["input_ids"][1:-1], *ids[before:]]


def test_what_does_not_go_together_is_told(bert, tmp_path):
    assert "no [MASK] in the text; put it into a --template" in problem(bert, pooling="mask")
    assert "needs a --template and --pooling mask" in problem(bert, pooling="cls", prompt=PromptOptions(debiased=True))
    folder = tiny_bert(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"mask_token": None}))
    said = problem(folder, pooling="mask", prompt=PromptOptions(template="{sentence} a"))
    assert "this model's tokenizer has no mask token" in said
    assert "unknown pooling 'lasttoken'; did you mean 'last_token'" in problem(bert, pooling="lasttoken")
    assert "unknown pooling 'men'; did you mean 'mean'" in problem(bert, pooling="max+men")


def test_the_catalogs_template_and_what_is_done_to_a_sentence_before(bert, monkeypatch):
    """PromptBERT by its name: as its evaluation.py fills the template in; a template of the user's wins."""
    monkeypatch.setattr("simcse_bench.models.checkpoints._download", lambda *_: bert)
    name, texts = "royokong/unsup-PromptBERT", [*TEXTS[:3], "the dog ?", "a red ball"]
    template = 'This sentence of "{sentence}" means[MASK].'
    encoder = open_model(name, device="cpu").load()
    ended = [*TEXTS[:3], "the dog ?", "a red ball."]
    np.testing.assert_allclose(encoder.encode(texts), by_hand(bert, template, "[MASK]", ended), atol=1e-5)
    said = {field: encoder.provenance[field] for field in ("pooling", "template", "preprocess", "settings_from")}
    assert said == {"pooling": "mask", "template": template, "preprocess": "promptbert", "settings_from": "catalog"}
    other = open_model(name, device="cpu", prompt=PromptOptions(template=BERT)).load()
    np.testing.assert_allclose(other.encode(texts), by_hand(bert, BERT, "[MASK]", ended), atol=1e-5)


@pytest.mark.parametrize(("sentence", "ended", "plain"), [
    ("a dog", "a dog.", "a dog."),
    ("a dog .", "a dog .", "a dog ."),
    ("a dog ?", "a dog ?", "a dog ."),
    ('he said " no "', 'he said " no "', "he said ' no '"),
    ("it 's '", "it 's '", "it 's '"),
    ("stop !", "stop !.", "stop !."),
    ("", "", ""),
])  # fmt: skip
def test_how_sentences_end_in_a_template(sentence, ended, plain):
    assert (with_full_stop(sentence), in_plain_quotes(sentence)) == (ended, plain)


def test_every_template_and_preprocessing_of_the_catalog_is_known():
    for name, spec in MODELS.items():
        assert spec.pooling is None or spec.pooling in POOLINGS
        assert spec.preprocess is None or spec.preprocess in PREPROCESSES
        assert spec.template is None or spec.template.count(SLOT) == 1, name
        assert (spec.pooling == "mask") <= (spec.template is not None and "mask" in spec.template.lower())
    assert all(_preprocessor(name) is not None for name in PREPROCESSES if name != "pyvi")


def test_poolings_side_by_side(bert):
    found = embedded(bert, pooling="mean+top2+cls")[0]
    parts = [embedded(bert, pooling=name)[0] for name in ("mean", "top2", "cls")]
    np.testing.assert_allclose(found, np.concatenate(parts, 1), atol=1e-6)


def test_the_command_line(cli, bert, senteval):
    asked = [
        "eval",
        "--model",
        bert,
        "--head",
        "none",
        "--data-dir",
        senteval,
        "--task",
        "stsb",
        "--device",
        "cpu",
        "-q",
    ]
    plain = cli(*asked, "--pooling", "mask", "--template", BERT, "--name", "a", "--format", "json")
    without = cli(
        *asked, "--pooling", "mask", "--template", BERT, "--name", "b", "--format", "json", "--remove-template-bias"
    )
    reports = [json.loads(done.out) for done in (plain, without)]
    reports = [r[0] if isinstance(r, list) else r for r in reports]
    assert [r["model"]["template"] for r in reports] == [BERT, BERT]
    assert reports[0]["key"] != reports[1]["key"]
    done = cli(*asked, "--pooling", "mean", "--template", "{sentence}", "--prompt", "a")
    assert (done.code, "exclude each other" in done.err) == (2, True)
    again = cli(*asked, "--pooling", "mask", "--template", "a {sentence} [MASK]", "--name", "a")
    assert (again.code, "holds another evaluation (template" in again.err) == (2, True)
    dry = cli("eval", "--model", bert, "--pooling", "mask", "--head", "none", "--template", BERT, "--dry-run",
              "--data-dir", senteval)  # fmt: skip
    assert BERT in dry.out
