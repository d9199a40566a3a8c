import json

import numpy as np
import pytest
import torch
from steps import STILL, batch, largest_difference, same, sentence_model, step, texts_of
from tiny import SPECIAL, WORDS, tiny_bert, write_tokenizer
from torch import nn
from transformers import AutoModel

from simcse_bench.errors import UserError
from simcse_bench.models.encoders import template_positions
from simcse_bench.models.open import open_model
from simcse_bench.training.optimizer import make_optimizer

FIRST = "the dog , {sentence} . a [MASK] ."
SECOND = "a man sees {sentence} . red [MASK] , ."
VOCABULARY = SPECIAL + WORDS
MASK = VOCABULARY.index("[MASK]")


def ids_of(text):
    return [VOCABULARY.index(word) for word in text.split()]


BEFORE, AFTER = ids_of("[CLS] the dog ,"), ids_of(". a [MASK] . [SEP]")
BEFORE_2, AFTER_2 = ids_of("[CLS] a man sees"), ids_of(". red [MASK] , . [SEP]")


def promptbert(folder, second=SECOND, template=FIRST, debiased=False, **settings):
    own = {"second_template": second, "debiased_at_test": debiased}
    return sentence_model(
        folder, method="promptbert", pooling="mask", template=template, method_settings=own, **settings
    )


def templated(n, seed=0):
    """Rows as they come from the tokenised text, in the first template."""
    return [[[*BEFORE, *row[0][1:-1], *AFTER]] for row in batch(n, 1, seed)]


def at_mask(model, before, words, after, first=0):
    """(h,): the last layer at the mask of one sentence, less that of the template alone."""
    whole, alone = [*before, *words, *after], [*before, *after]
    places = [*range(len(whole))]
    left = [*places[: len(before)], *places[len(before) + len(words) :]]
    vectors = []
    for ids, at in ((whole, places), (alone, left)):
        positions = torch.tensor([[first + place for place in at]])
        states = model(input_ids=torch.tensor([ids]), position_ids=positions).last_hidden_state
        vectors.append(states[0, ids.index(MASK)])
    return vectors[0] - vectors[1]


def reference(folder, model, rows, second=(BEFORE_2, AFTER_2), temperature=0.2):
    """Loss and gradients of transformers' own model, sentence by sentence in float64, by the formula."""
    plain = AutoModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").double().eval()
    mlp = nn.Sequential(nn.Linear(32, 32), nn.Tanh()).double()
    mlp.load_state_dict(model.mlp.state_dict())
    words = [row[0][len(BEFORE) : -len(AFTER)] for row in rows]
    one, two = (
        [mlp(at_mask(plain, before, each, after)) for each in words] for before, after in ((BEFORE, AFTER), second)
    )
    total = 0
    for i, a in enumerate(one):
        scores = [(a @ b) / (a.norm() * b.norm()) / temperature for b in two]
        total = total + torch.log(sum(torch.exp(s) for s in scores)) - scores[i]
    loss = total / len(rows)
    loss.backward()
    grads = {f"encoders.0.{n}": x.grad.float() for n, x in plain.named_parameters() if x.grad is not None}
    return loss, grads | {f"mlp.{n}": x.grad.float() for n, x in mlp.named_parameters()}


@pytest.mark.parametrize("cached", [False, True])
def test_loss_and_gradients_equal_the_formula_on_transformers_own_model(bert, cached):
    model, rows = promptbert(bert, cached_gradients=cached, **STILL), templated(6)
    assert len(model.chunks([row[0] for row in rows])) > 1
    same(step(model, rows), reference(bert, model, rows), 5e-5)


def test_each_template_alone_leaves_room_at_its_own_slot(bert):
    longer = ids_of("[CLS] a man sees two"), ids_of("red [MASK] , . [SEP]")
    model, rows = promptbert(bert, "a man sees two {sentence} red [MASK] , .", **STILL), templated(6)
    expected = reference(bert, model, rows, longer)
    same(step(model, rows), expected, 5e-5)
    assert len(longer[0]) != len(BEFORE)


def test_cached_gradients_equal_plain_ones_with_dropout_on(bert):
    rows = templated(10)
    first = step(promptbert(bert), rows)
    same(step(promptbert(bert, cached_gradients=True), rows), first, 1e-6)
    assert largest_difference(step(promptbert(bert), rows, seed=8), first) > 1e-3


def test_the_templates_own_vector_has_dropout_and_a_gradient(bert):
    model, rows = promptbert(bert, mlp="none"), templated(4)
    length = len(rows[0][0])
    one, two = (model.method._template_vectors(model, 0, [length]) for _ in range(2))
    assert one.requires_grad
    assert not torch.allclose(one, two)


def test_the_chunk_size_changes_nothing(bert):
    rows = templated(8)
    small, large = (promptbert(bert, chunk_tokens=n, **STILL) for n in (33, 8192))
    same(step(large, rows), step(small, rows), 1e-5)


def test_positions_of_a_template_by_hand():
    """Three tokens, one of them before the sentence: with two and with one token in it; RoBERTa counts from 2."""
    assert template_positions(3, 1, [5, 4], 0).tolist() == [[0, 3, 4], [0, 2, 3]]
    assert template_positions(3, 1, [3], 2).tolist() == [[2, 3, 4]]


def test_positives_are_the_sentences_tokens_in_the_second_template(bert):
    model = promptbert(bert)
    words = ids_of("two red cat")
    rows = [[[*BEFORE, *words, *AFTER]], [[*BEFORE, *words[:1], *AFTER]]]
    one, two = model.method.passes(rows, np.random.default_rng(0))
    assert list(one.sentences) == [row[0] for row in rows]
    assert list(two.sentences) == [[*BEFORE_2, *words, *AFTER_2], [*BEFORE_2, *words[:1], *AFTER_2]]
    assert model.encoders[two.encoder] is model.encoders[one.encoder]


def test_two_sentences_by_hand(bert, monkeypatch):
    """At the masks (1, 0) and (0, 1), of both views; the templates' vectors (-1, 0) and (0, 0): cosines of 45°."""
    model = promptbert(bert, mlp="none", temperature=1.0, **STILL)
    method, unit = model.method, torch.eye(2, 32)
    biases = {0: -unit[:1], method.second: 0 * unit[:1]}
    monkeypatch.setattr(method, "_template_vectors", lambda model, encoder, lengths: biases[encoder])
    rows = [[[1] * 9]] * 2
    one, two = (method.pooled(model, unit, [row[0] for row in rows], n) for n in (0, method.second))
    assert one.tolist() == (2 * unit[:1]).tolist() + (unit[:1] + unit[1:2]).tolist()
    assert torch.equal(two, unit)
    # anchors (2, 0) and (1, 1), positives (1, 0) and (0, 1): rows of cosines 1, 0 and √½, √½
    expected = (np.log(np.e + 1) - 1 + np.log(2)) / 2
    assert method.loss([one, two], torch.Generator()).item() == pytest.approx(expected, abs=1e-6)


def test_one_template_without_its_vector_is_simcse_at_its_mask(bert, monkeypatch):
    rows = templated(6)
    plain = sentence_model(bert, pooling="mask", template=FIRST, **STILL)
    model = promptbert(bert, second=FIRST, **STILL)
    assert largest_difference(step(model, rows), step(plain, rows)) > 1e-3
    zero = torch.zeros(1, 32)
    monkeypatch.setattr(
        model.method, "_template_vectors", lambda model, encoder, lengths: zero.expand(len(lengths), 32)
    )
    same(step(model, rows), step(plain, rows), 1e-6)


def test_the_second_template_matters(bert):
    rows = templated(6)
    one, other = (step(promptbert(bert, second=text, **STILL), rows) for text in (SECOND, FIRST))
    assert abs(one[0] - other[0]) > 1e-3


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("models") / "tiny-roberta"
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=48, initializer_range=0.4, pad_token_id=0,
    )  # fmt: skip
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("kind,first", [("bert", 0), ("roberta", 1)])
def test_training_and_evaluation_subtract_the_same(kind, first, request):
    folder = request.getfixturevalue(kind)
    model, rows = promptbert(folder, mlp="none", debiased=True, **STILL), batch(6, 1)
    trained = model.still([[*BEFORE, *row[0][1:-1], *AFTER] for row in rows])
    evaluated = model.encoder().encode(texts_of(rows))
    np.testing.assert_allclose(trained, evaluated, atol=1e-5)
    plain = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        for vector, row in zip(trained, rows, strict=True):
            torch.testing.assert_close(vector, at_mask(plain, BEFORE, row[0][1:-1], AFTER, first), atol=1e-5, rtol=0)


@pytest.mark.parametrize("debiased", [False, True])
def test_the_written_model_is_what_eval_loads(train, bert, text, debiased):
    settings = {"method": "promptbert", "pooling": "mask", "template": FIRST, "second_template": SECOND}
    assert train(**settings, debiased_at_test=debiased).code == 0
    written = open_model("runs/x", device="cpu")
    assert written.provenance["template"] == FIRST
    assert written.provenance.get("template_bias_removed", False) is debiased
    assert written.provenance["head"] == "none"
    plain = AutoModel.from_pretrained("runs/x").eval()
    texts = texts_of(batch(4, 1))
    for vector, row in zip(written.load().encode(texts), batch(4, 1), strict=True):
        words = row[0][1:-1]
        with torch.no_grad():
            ids = [*BEFORE, *words, *AFTER]
            expected = plain(input_ids=torch.tensor([ids])).last_hidden_state[0, ids.index(MASK)]
            expected = at_mask(plain, BEFORE, words, AFTER) if debiased else expected
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert plain.config.num_hidden_layers == 3


def test_the_encoder_is_saved_and_trained_once(bert):
    model = promptbert(bert)
    assert not [name for name, _ in model.named_parameters() if name.startswith("encoders.1.")]
    chosen = [id(p) for group in make_optimizer(model, model.config).param_groups for p in group["params"]]
    assert len(chosen) == len(set(chosen)) == len([*model.encoders[0].parameters(), *model.mlp.parameters()])


def test_it_trains_in_bfloat16_and_with_matryoshka(bert):
    rows = templated(6)
    full = step(promptbert(bert, matryoshka=(8, 16), mlp="always", **STILL), rows)
    half = step(promptbert(bert, matryoshka=(8, 16), mlp="always", dtype="bfloat16", **STILL), rows)
    assert half[0].item() == pytest.approx(full[0].item(), abs=0.2)


# --- what it cannot work with


OWN = {"method": "promptbert", "pooling": "mask", "template": FIRST, "second_template": SECOND}


def test_it_needs_a_template_and_the_pooling_at_its_mask(told, cli):
    reads = "method promptbert: reads its vectors at the mask of a template; set pooling mask, and template "
    assert told(**OWN | {"pooling": "cls"}).startswith(reads)
    done = cli("train", "--out", "x", "--set", "method=promptbert")
    assert (done.code, f"{reads}'This sentence of \"{{sentence}}\" means [MASK] .'" in done.err) == (2, True)
    assert told(**OWN | {"template": ""}) == "pooling mask: needs a template with the mask token in it."


def test_the_templates_need_their_places(told):
    wrong = {"second_template": ("a [MASK]", "{sentence} in it, once."), "template": ("{sentence} a", "[MASK] in it")}
    for name, (text, expected) in wrong.items():
        assert f"{name} {text!r}: expected {expected}" in told(**OWN | {name: text})
    assert "second_template 'a {sentence}': expected [MASK] in it, once" in told(
        **OWN | {"second_template": "a {sentence}"}
    )


def test_a_tokenizer_without_a_mask_is_refused(told, tmp_path):
    folder = tiny_bert(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"mask_token": None}))
    said = told(**OWN, model=folder)
    assert said == f"method promptbert: {folder} has no mask token, where the vectors are read."


def test_what_is_too_long_for_the_model_is_refused(bert):
    with pytest.raises(UserError, match="max_length 48: with second_template up to 49 tokens, and the model takes 48"):
        promptbert(bert, max_length=48)
    promptbert(bert, max_length=47)


def test_a_template_whose_tokens_run_into_the_sentences_is_refused(bert, monkeypatch):
    from simcse_bench.training.methods import promptbert as module

    monkeypatch.setattr(module, "tokenize", lambda *given: ([[*BEFORE, *AFTER[1:]]], 0))
    with pytest.raises(UserError, match="its tokens with this tokenizer are others beside a sentence"):
        promptbert(bert)


def test_other_positives_are_refused(told, tmp_path):
    (tmp_path / "pairs.tsv").write_text("one\ttwo\n" + "a dog\ta cat\n" * 9, encoding="utf-8")
    said = told(**OWN, train=tmp_path / "pairs.tsv")
    assert said == "method promptbert: rows of one sentence only; pairs.tsv has 2 columns."
    assert "with objective self" in told(**OWN, augmentation="crop")


def test_the_default_templates_are_the_official_ones(bert):
    first = 'This sentence of "{sentence}" means [MASK] .'
    model = sentence_model(bert, method="promptbert", pooling="mask", template=first)
    assert model.method.settings.second_template == 'This sentence : "{sentence}" means [MASK] .'
