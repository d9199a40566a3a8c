import json
import math
import shutil

import numpy as np
import pytest
import torch
from steps import (
    agree,
    bare,
    batch,
    cosine,
    loss_of,
    nearly,
    plain_loss,
    refused,
    resumed_is_the_same,
    same,
    sentence_model,
    softmax,
    step,
    texts_of,
    vectors,
)
from tiny import tiny_bert
from transformers import BertConfig, BertModel

from simcse_bench.models.baselines import RandomWords
from simcse_bench.models.open import open_model
from simcse_bench.training.methods.rankcse import consistency, listmle, listnet

WORDS = {"teacher": "random-words"}
TEMPERATURES = {"consistency_temperature": 0.4, "ranking_temperature": 0.7, "teacher_temperature": 0.3}


def shares(logits):
    exponentials = [torch.exp(x) for x in logits]
    return [x / sum(exponentials) for x in exponentials]


def divergence(p, q):
    """Of Jensen and Shannon."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return sum(
        (a * torch.log(a / m) + b * torch.log(b / m)) / 2 for a, b, m in zip(p, q, middle, strict=True)
    )  # fmt: skip


def by_formula(taught, kind, beta, gamma):
    """SimCSE's loss + β L_consistency + γ L_rank, list by list."""

    def loss(one, two):
        n, total = len(one), plain_loss(one, two)
        for i in range(n):
            forth, back = [cosine(one[i], z) for z in two], [cosine(two[i], z) for z in one]
            total = total + beta / n * divergence(*(shares([c / 0.4 for c in x]) for x in (forth, back)))
            others = [j for j in range(n) if j != i]
            if kind == "listnet":
                wanted = shares([taught[i][j] / 0.3 for j in others])
                found = shares([forth[j] / 0.7 for j in others])
                total = total - gamma / n * sum(w * torch.log(f) for w, f in zip(wanted, found, strict=True))
            else:
                order = sorted(range(n), key=lambda j: -float(taught[i][j]))
                for place, j in enumerate(order):
                    rest = sum(torch.exp(forth[k] / 0.7) for k in order[place:])
                    total = total - gamma / n * torch.log(torch.exp(forth[j] / 0.7) / rest)
        return total

    return loss


@pytest.mark.parametrize("kind", ["listnet", "listmle"])
@pytest.mark.parametrize("beta,gamma", [(1.0, 1.0), (0.5, 2.0), (0.0, 0.3)])
def test_loss_and_gradients_equal_the_formula(kind, beta, gamma):
    method = bare("rankcse", distillation=kind, consistency_weight=beta, distillation_weight=gamma, **WORDS, **TEMPERATURES)  # fmt: skip
    teacher = vectors(6, 1, seed=9)[0]
    method.taught = torch.tensor([[float(cosine(a, b)) for b in teacher] for a in teacher])
    parts = vectors(6, 2)
    agree(lambda *given: loss_of(method, *given), by_formula(method.taught, kind, beta, gamma), parts)


def test_two_sentences_by_hand():
    """Anchors at 0° and 90°, positives at 0° and 45°."""
    anchors, positives = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    lists = [((1, half), (1, 0)), ((0, half), (half, half))]  # view 1 against 2, and 2 against 1
    expected = 0.0
    for forth, back in lists:
        p, q = softmax(*forth), softmax(*back)
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        expected += sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True)) / 4
    logits = torch.tensor([[1, half], [0, half]])
    assert consistency(logits).item() == nearly(expected)
    method = bare("rankcse", temperature=1.0, width=2, distillation_weight=0.0, consistency_temperature=1.0)
    plain = -sum(math.log(softmax(*lists[i][0])[i]) for i in (0, 1)) / 2
    assert loss_of(method, anchors, positives).item() == nearly(plain + expected)
    # the teacher finds the other sentence first in row 0, and the own one in row 1
    order = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    mle = -(math.log(softmax(1, half)[1]) + math.log(softmax(0, half)[1])) / 2
    assert listmle(logits, order).item() == nearly(mle)


def test_three_lists_by_hand():
    logits = torch.tensor([[9.0, 1.0, 2.0], [0.0, 9.0, 0.0], [3.0, 0.0, 9.0]])
    taught = torch.tensor([[5.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 2.0, 5.0]])
    rows = [((0, 0), (1, 2)), ((1, 0), (0, 0)), ((0, 2), (3, 0))]  # without the own positive
    expected = [
        -sum(w * math.log(f) for w, f in zip(softmax(*a), softmax(*b), strict=True)) for a, b in rows
    ]  # fmt: skip
    assert listnet(logits, taught).item() == nearly(sum(expected) / 3)
    one = -math.log(softmax(9, 1, 2)[0]) - math.log(softmax(1, 2)[0])  # of equal ones the first row comes first
    assert listmle(logits[:1], taught[:1]).item() == nearly(one)


def test_views_that_rank_alike_do_not_diverge():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    assert consistency(logits + logits.T).item() == nearly(0)
    assert 0 < consistency(50 * logits).item() <= math.log(2)
    assert consistency(1e4 * logits).isfinite()  # shares of 0


def test_without_its_terms_it_is_simcse(bert):
    rows, off = batch(8, 1), {"consistency_weight": 0.0, "distillation_weight": 0.0}
    plain = step(sentence_model(bert), rows)
    for own in (off, off | WORDS):
        same(step(sentence_model(bert, method="rankcse", method_settings=own), rows), plain, 1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "random-words:5"},
        {"teacher2": "random-words:5"},
        {"distillation": "listnet"},
        {"distillation_weight": 0.5},
        {"consistency_weight": 0.0},
        {"consistency_temperature": 0.5},
        {"ranking_temperature": 0.5},
    ],
)
def test_settings_matter(bert, change):
    rows = batch(8, 1)
    one, other = (
        step(sentence_model(bert, method="rankcse", method_settings=WORDS | own), rows) for own in ({}, change)
    )
    assert abs(one[0] - other[0]) > 1e-3


@pytest.mark.parametrize("kind", ["listnet", "listmle"])
def test_cached_gradients_equal_plain_ones(bert, kind):
    rows, own = batch(12, 1), WORDS | {"distillation": kind}
    plain, cached = (
        sentence_model(bert, method="rankcse", cached_gradients=c, method_settings=own) for c in (False, True)
    )
    assert len(plain.chunks([row[0] for row in rows])) > 3
    same(step(cached, rows), step(plain, rows), 1e-5)


# --- teachers


@pytest.fixture
def teacher(tmp_path):
    """Of another width than the trained model."""
    folder = tiny_bert(tmp_path / "teacher", seed=4)
    config = BertConfig.from_pretrained(folder, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    torch.manual_seed(4)
    BertModel(config).save_pretrained(folder)
    return folder


def test_the_teachers_cosines_are_those_of_eval(bert, teacher):
    own = {"teacher": str(teacher), "teacher_pooling": "mean", "teacher2": "random-words:7", "teacher_weight": 0.25}
    model, rows = sentence_model(bert, method="rankcse", method_settings=own), batch(5, 1)
    step(model, rows)
    both = [open_model(str(teacher), pooling="mean", head="none", device="cpu").load(), RandomWords(7)]
    expected = np.zeros((5, 5))
    for share, each in zip((0.25, 0.75), both, strict=True):
        z = each.encode(texts_of(rows)).astype(np.float64)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        expected += share * z @ z.T
    np.testing.assert_allclose(model.method.taught, expected, atol=1e-5)


def test_a_teacher_is_neither_trained_nor_saved(bert, teacher):
    own = {"teacher": str(teacher), "teacher_pooling": "cls"}
    model, plain = sentence_model(bert, method="rankcse", method_settings=own), sentence_model(bert)
    before = {n: p.clone() for n, p in model.method.teachers[0].model.named_parameters()}
    found, expected = step(model, batch(4, 1)), step(plain, batch(4, 1))
    assert found[1].keys() == expected[1].keys()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not model.method.taught.requires_grad
    for name, p in model.method.teachers[0].model.named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[name])
    assert not model.method.teachers[0].model.training


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text, teacher):
    own = {"teacher": str(teacher), "teacher_pooling": "mean"}
    assert resumed_is_the_same(tmp_path, bert, text, method="rankcse", method_settings=own)


def test_what_a_teacher_holds_decides_the_run_and_not_where_it_is(train, teacher, tmp_path):
    own = {"method": "rankcse", "teacher_pooling": "mean", "max_steps": 2}
    assert train(**own, teacher=teacher).code == 0
    record = json.loads((tmp_path / "runs/x/train.json").read_text())
    assert record["method_models"]["teacher"]["files"]["model.safetensors"]
    assert str(tmp_path) not in json.dumps(record)
    shutil.copytree(teacher, tmp_path / "copy")
    again = train(**own, teacher=tmp_path / "copy")
    assert (again.code, json.loads((tmp_path / "runs/x/train.json").read_text())) == (0, record)
    (tmp_path / "copy/vocab.txt").write_text((tmp_path / "copy/vocab.txt").read_text() + "more\n")
    other = train(**own, teacher=tmp_path / "copy")
    assert (other.code, "holds another finished run" in other.err) == (2, True)
    inside = train(**own, teacher=teacher, out=teacher)
    assert (inside.code, f"is the folder of teacher {teacher}, which is read" in inside.err) == (2, True)


# --- what it cannot work with


def test_a_teacher_is_needed_for_what_is_learned_from_it(cli):
    said = "method rankcse: learns from a teacher; set teacher to a model that `eval` takes, or distillation_weight 0"
    assert said in refused(cli, "method=rankcse")
    assert said in refused(cli, "method=rankcse", "distillation_weight=0", "teacher2=random-words")


@pytest.mark.parametrize("name", ["teacher", "teacher2"])
def test_a_teacher_that_cannot_be_loaded_is_told(told, tmp_path, bert, name):
    own = {"method": "rankcse"} | ({} if name == "teacher" else WORDS)
    assert told(**own, **{name: "./no/such"}) == f"{name} ./no/such: model './no/such': no such folder."
    said = told(**own, **{name: bert})
    assert said.startswith(f"{name} {bert}: tiny-bert does not say its pooling")
    assert said.endswith(f"Set {name}_pooling.")
    said = told(**own, **{name: bert, f"{name}_pooling": "men"})
    assert f"{name} {bert}: unknown pooling 'men'; did you mean 'mean'?" in said
    folder = tiny_bert(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    said = told(**own, **{name: folder, f"{name}_pooling": "mean"})
    assert said.startswith(f"{name} {folder}: damaged: transformers cannot load")


def test_unknown_ways_and_temperatures_of_zero_are_refused(cli):
    said = refused(cli, "method=rankcse", "teacher=random-words", "distillation=listnett")
    assert "unknown distillation 'listnett'; did you mean 'listnet'? Known: listnet, listmle." in said
    for name in TEMPERATURES:
        assert f"{name} 0.0: expected at least 0.001." in refused(cli, "method=rankcse", f"{name}=0")
    assert "is a change of the cosine" in refused(cli, "method=rankcse", "teacher=random-words", "similarity=dot")
