import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from steps import (
    a_run,
    agree,
    bare,
    batch,
    cosine,
    cross_entropy,
    largest_difference,
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
from tiny import SPECIAL, WORDS
from transformers import AutoModel

from simcse_bench.training.methods.dclr import risen

ALONE_THE_NOISE = {"threshold": 2.0}  # no complement
ALONE_THE_WEIGHTS = {"noise": 0.0}


def dclr(bert, cached_gradients=False, **settings):
    return sentence_model(bert, method="dclr", cached_gradients=cached_gradients, method_settings=settings)


@pytest.fixture
def glove(tmp_path):
    """Word vectors of the tiny vocabulary."""
    return write_glove(tmp_path / "glove.txt")


def write_glove(path, seed=0):
    drawn = np.random.default_rng(seed)
    lines = [f"{word} " + " ".join(f"{x:.5f}" for x in drawn.normal(size=3)) for word in WORDS + SPECIAL]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- the loss


def moved(noise, anchors, positives, steps, rate):
    """Each vector of noise after steps along the gradient, written out, of the mean cross-entropy."""
    noise = [vector.clone() for vector in noise]
    n = len(anchors)
    for _ in range(steps):
        rows = []
        for anchor in anchors:
            logits = [float(cosine(anchor, other)) / 0.5 for other in (*positives, *noise)]
            rows.append(softmax(*logits)[n:])
        for j, vector in enumerate(noise):
            length, gradient = vector.norm(), 0
            for i, anchor in enumerate(anchors):
                side = anchor / (anchor.norm() * length) - cosine(anchor, vector) * vector / length**2
                gradient = gradient + rows[i][j] * side / 0.5 / n
            noise[j] = vector + rate * gradient / gradient.norm()
    return noise


def by_formula(alike, settings):
    """The paper's weights and noise, and SimCSE's cross-entropy, a logit at a time."""

    def loss(one, two):
        n, total = len(one), 0
        drawn = torch.randn(round(settings["noise"] * n), 4, generator=torch.Generator().manual_seed(3)).double()
        fixed = [part.detach() for part in (one, two)]
        noise = moved(drawn, *fixed, settings["ascent_steps"], settings["ascent_rate"])
        for i in range(n):
            own = cosine(one[i], two[i]) / 0.5
            row = [own] + [
                cosine(one[i], two[j]) / 0.5 for j in range(n) if j != i and alike[i][j] < settings["threshold"]
            ]
            row += [cosine(one[i], vector) / 0.5 for vector in noise]
            total = total + cross_entropy(row, 0)
        return total / n

    return loss


@pytest.mark.parametrize("noise,steps,rate", [(1.0, 4, 0.001), (2.0, 3, 0.7), (0.4, 0, 1.0), (0.0, 4, 0.1)])
@pytest.mark.parametrize("threshold", [0.9, 0.3])
def test_loss_and_gradients_equal_the_formula(noise, steps, rate, threshold):
    settings = {"noise": noise, "ascent_steps": steps, "ascent_rate": rate, "threshold": threshold}
    method = bare("dclr", **(settings | {"complement": "random-words"}))
    alike = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    alike = (alike + alike.T) / 2
    assert 0 < int((alike >= 0.3).sum()) < 25
    method.alike = alike
    agree(lambda *given: loss_of(method, *given), by_formula(alike.tolist(), settings), vectors(5, 2), 2e-6)


def test_a_false_negative_by_hand():
    """The first and the second of three sentences are alike: each has only the third as a negative."""
    method = bare("dclr", temperature=1.0, complement="random-words", **ALONE_THE_WEIGHTS)
    method.alike = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.89], [0.2, 0.89, 1.0]])
    found = loss_of(method, torch.eye(3), torch.eye(3))
    expected = 2 * -math.log(softmax(1, 0)[0]) - math.log(softmax(1, 0, 0)[0])
    assert found.item() == nearly(expected / 3)
    method.alike = torch.ones(3, 3)
    one = torch.eye(3, requires_grad=True)
    found = loss_of(method, one, torch.eye(3))  # nothing is left to tell them from
    found.backward()
    assert found.item() == 0.0
    assert one.grad.isfinite().all()


def test_without_both_parts_it_is_simcse(bert):
    agree(lambda *given: loss_of(bare("dclr", threshold=1.5, noise=0.0), *given), plain_loss, vectors(6, 2))
    rows = batch(6, 1)
    same(step(dclr(bert, threshold=1.5, noise=0.0), rows), step(sentence_model(bert), rows), 1e-6)


def test_the_ascent_raises_the_loss_and_steps_have_their_length():
    one, two = (part.float() for part in vectors(6, 2))
    logits = torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(two).T / 0.5
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before, losses = noise.clone(), []
    for steps in range(4):
        there = risen(noise.clone(), one, logits, 0.5, steps, 0.05)
        assert not there.requires_grad
        extra = torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(there).T / 0.5
        losses.append(torch.nn.functional.cross_entropy(torch.cat([logits, extra], 1), torch.arange(6)).item())
    assert losses == sorted(losses)
    assert losses[0] + 1e-3 < losses[-1]
    once = risen(noise.clone(), one, logits, 0.5, 1, 0.05)
    torch.testing.assert_close((once - before).norm(dim=1), torch.full((5,), 0.05))


def test_noise_without_a_gradient_stays():
    """It points where the one anchor does: its cosine is at its highest."""
    noise = torch.tensor([[2.0, 0.0]])
    assert torch.equal(risen(noise.clone(), torch.tensor([[3.0, 0.0]]), torch.ones(1, 1), 0.5, 4, 0.1), noise)


def test_noise_is_drawn_from_the_generator_given():
    method, parts = bare("dclr", **ALONE_THE_NOISE), vectors(5, 2)
    state = torch.get_rng_state()
    one, again, other = (loss_of(method, *parts, seed=s).item() for s in (1, 1, 2))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("setting,values", [("threshold", (0.9, 0.99)), ("noise", (1.0, 3.0)), ("ascent_steps", (0, 4)),
                                            ("ascent_rate", (0.001, 1.0)), ("complement", ("start", "random-words"))])  # fmt: skip
def test_every_setting_matters(bert, setting, values):
    rows = batch(8, 1)
    one, two = (step(dclr(bert, **({"threshold": 0.5} | {setting: value})), rows) for value in values)
    assert largest_difference(one, two) > 1e-5


def test_cached_gradients_equal_plain_ones_with_dropout_on(bert):
    rows = batch(9, 1)
    settings = {"threshold": 0.5, "ascent_rate": 1.0}
    same(step(dclr(bert, cached_gradients=True, **settings), rows), step(dclr(bert, **settings), rows), 1e-5)


# --- the complement


def test_the_start_is_kept_as_it_was_without_dropout(bert):
    model, rows = dclr(bert), batch(6, 1)
    before = model.method.complement.encode(texts_of(rows))
    with torch.no_grad():
        plain = AutoModel.from_pretrained(bert).eval()
        expected = [plain(torch.tensor([row[0]])).last_hidden_state[0, 0] for row in rows]
    torch.testing.assert_close(torch.from_numpy(before), torch.stack(expected), atol=1e-4, rtol=0)  # without the MLP
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    step(model, rows)
    assert np.array_equal(model.method.complement.encode(texts_of(rows)), before)
    cosines = torch.nn.functional.cosine_similarity(torch.stack(expected)[:, None], torch.stack(expected)[None], dim=-1)
    torch.testing.assert_close(model.method.alike, cosines, atol=1e-4, rtol=0)
    assert all(module.training for module in model.modules())
    assert not [name for name, _ in model.named_parameters() if name.startswith(("method.", "encoders.1."))]


def test_any_encoder_may_be_the_complement(bert, glove):
    model, rows = dclr(bert, complement=f"word-vectors:{glove}"), batch(6, 1)
    step(model, rows)
    table = {line.split()[0]: np.array(line.split()[1:], dtype=float) for line in glove.read_text().splitlines()}
    means = torch.tensor(np.array([np.mean([table[w] for w in text.split()], 0) for text in texts_of(rows)]))
    for i in range(6):
        for j in range(6):
            assert float(model.method.alike[i, j]) == pytest.approx(float(cosine(means[i], means[j])), abs=1e-4)


def test_a_trained_model_may_be_the_complement(train, bert):
    assert train(out=Path("teacher"), max_steps=2).code == 0
    model, rows = dclr(bert, complement="teacher"), batch(6, 1)
    teacher = AutoModel.from_pretrained("teacher").eval()
    with torch.no_grad():
        vectors = torch.stack([teacher(torch.tensor([row[0]])).last_hidden_state[0, 0] for row in rows])
    step(model, rows)
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    torch.testing.assert_close(model.method.alike, expected, atol=1e-4, rtol=0)


def test_above_one_no_complement_is_read(bert):
    model = dclr(bert, complement="no/such model", **ALONE_THE_NOISE)
    assert model.method.complement is None
    assert model.method.models(model.config) == {}


def test_a_run_reads_the_texts_of_its_rows(tmp_path, bert, text, monkeypatch):
    run = a_run(tmp_path / "x", bert, text, method="dclr")
    seen = []
    encode = run.model.method.complement.encode
    monkeypatch.setattr(run.model.method.complement, "encode", lambda texts: (seen.append(texts), encode(texts))[1])
    run.update()
    ids = [row[0] for row in run.job.rows(0)]
    assert run.model.tokenizer(seen[0])["input_ids"] == ids


def test_a_resumed_run_has_the_same_bits(tmp_path, bert, text):
    resumed_is_the_same(tmp_path, bert, text, method="dclr", method_settings={"threshold": 0.5})


def test_the_record_tells_what_the_complement_is_and_not_where(train, glove, tmp_path):
    assert train(method="dclr", complement=f"word-vectors:{glove}").code == 0
    written = Path("runs/x/train.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in written
    record = json.loads(written)
    assert record["config"]["method_settings"]["complement"] == "word-vectors:glove.txt"
    assert record["method_models"]["complement"]["name"] == "word-vectors:glove.txt"
    assert list(record["method_models"]["complement"]["files"]) == ["glove.txt"]


def test_what_the_complement_holds_counts_and_not_where_it_lies(train, bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "teacher"))
    (folder / "simcse_bench.json").write_text('{"pooling": "cls", "head": "none"}', encoding="utf-8")
    assert train(method="dclr", complement=folder).code == 0
    moved = folder.rename(tmp_path / "elsewhere")
    again = train(method="dclr", complement=moved)
    assert "already there" in again.err
    state = load_file(moved / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in state.items()}, moved / "model.safetensors", {"format": "pt"})
    changed = train(method="dclr", complement=moved)
    assert changed.code == 2
    assert "holds another finished run" in changed.err


# --- what it cannot work with


def test_a_complement_that_is_not_there_is_refused_before_anything_is_written(train, tmp_path):
    done = train(method="dclr", complement="./nowhere")
    assert done.code == 2
    assert "model './nowhere': no such folder." in done.err
    assert not Path("runs/x/train.json").exists()


def test_a_run_does_not_overwrite_its_complement(train):
    assert train(out=Path("runs/x")).code == 0
    done = train("--force", method="dclr", complement="runs/x")
    assert done.code == 2
    assert "--out runs/x: is the folder of complement runs/x, which is read." in done.err
    assert Path("runs/x/model.safetensors").exists()


def test_impossible_settings_are_refused(cli):
    assert "threshold -2.0: expected at least -1." in refused(cli, "method=dclr", "threshold=-2")
    assert "ascent_steps -1: expected from 0 to 1000." in refused(cli, "method=dclr", "ascent_steps=-1")
    assert "ascent_rate -0.1: expected at least 0." in refused(cli, "method=dclr", "ascent_rate=-0.1")
