"""Scored pairs: CoSENT's loss, and what it shares with AnglE: data, cached gradients, resuming, refusals."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from processes import stop_at
from tiny import SPECIAL, WORDS, sentences

from simcse_bench.errors import UserError
from simcse_bench.models import checkpoints
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import backward
from simcse_bench.training.methods.cosent import CoSENT, cosines, order_loss
from simcse_bench.training.model import load_model
from simcse_bench.training.processes import Processes

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("method", ["cosent", "angle"])


def by_formula(left, right, scores, temperature):
    """log(1 + the sum over ordered pairs of exp(difference of their cosines / temperature)), one after the other."""
    cosine = [a @ b / (a @ a).sqrt() / (b @ b).sqrt() for a, b in zip(left, right, strict=True)]
    total = torch.ones((), dtype=left.dtype)
    for p in range(len(left)):
        for q in range(len(left)):
            if scores[p] < scores[q]:
                total = total + torch.exp((cosine[p] - cosine[q]) / temperature)
    return torch.log(total)


def vectors(n, seed=0):
    """Two leaves (n, 6), float64, of unequal norms."""
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(0.5, 2, n, dtype=torch.float64)[:, None]
    return [(lengths * torch.randn(n, 6, generator=drawn, dtype=torch.float64)).requires_grad_() for _ in range(2)]


def test_three_pairs_by_hand():
    # cosines 1, 0, 0.6; by score the second is below the first, and both are below the third
    left = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    right = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    scores = torch.tensor([3.0, 1.0, 5.0])
    # (second, first): e^(0 - 1); (first, third): e^(1 - 0.6); (second, third): e^(0 - 0.6)
    expected = math.log(1 + math.exp(-1) + math.exp(0.4) + math.exp(-0.6))
    torch.testing.assert_close(cosines(left, right), torch.tensor([1.0, 0.0, 0.6]))
    assert order_loss(cosines(left, right), scores, 1.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scores", [[0, 1, 2, 3, 4, 5], [2.5, 0, 2.5, 5, 0, 1.25], [1, 0, 1, 1, 0, 0]])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_loss_and_gradients_equal_the_formula(scores, temperature):
    ours, theirs = vectors(6), vectors(6)
    found = order_loss(cosines(*ours), torch.tensor(scores), temperature)
    expected = by_formula(*theirs, scores, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    expected.backward()
    for one, other in zip(ours, theirs, strict=True):
        assert other.grad.abs().max() > 1e-3
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5)


def test_only_the_order_of_the_scores_matters():
    values = cosines(*vectors(6))
    scores = torch.tensor([0.0, 1.0, 1.0, 2.0, 5.0, 4.0])
    loss = order_loss(values, scores, 0.1)
    assert order_loss(values, scores**3 - 7, 0.1).item() == loss.item()
    assert order_loss(values, -scores, 0.1).item() != pytest.approx(loss.item(), abs=0.1)
    assert order_loss(values, scores, 0.2).item() != pytest.approx(loss.item(), abs=0.1)


def test_equal_scores_teach_nothing():
    ours = vectors(4)
    loss = order_loss(cosines(*ours), torch.full((4,), 2.5), 0.05)
    loss.backward()
    assert loss.item() == 0
    assert not ours[0].grad.any()


def test_the_loss_of_the_official_code():
    """sentence-transformers' CoSENTLoss, 98 to 113, as it stands there; bojone's cosent.py is the same in Keras."""
    values, labels = cosines(*vectors(5)).double(), torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0])
    scores = values * 20
    scores = scores[:, None] - scores[None, :]
    scores = scores - (1 - (labels[:, None] < labels[None, :]).double()) * 1e12
    expected = torch.logsumexp(torch.cat((torch.zeros(1), scores.view(-1)), dim=0), dim=0)
    assert order_loss(values, labels, 0.05).item() == pytest.approx(expected.item(), rel=1e-6)


# --- a batch of the tiny BERT


def sentence_model(folder, **settings):
    defaults = {"max_length": 32, "chunk_tokens": 32, "hidden_dropout": 0.0, "attention_dropout": 0.0, "mlp": "none"}
    if settings["method"] == "angle":
        settings = {"method_settings": {"positive_score": 3.0}} | settings
    config = TrainConfig(**(defaults | settings)).check()
    return load_model(checkpoints.resolve(str(folder), pooling="cls", head="none"), config, CPU)[0]


def batch(n, seed=0):
    """Rows of two sentences of 3 to 14 tokens, and scores with ties."""
    drawn = torch.Generator().manual_seed(seed)

    def sentence():
        length = int(torch.randint(1, 13, (), generator=drawn))
        words = torch.randint(len(SPECIAL), len(SPECIAL + WORDS), (length,), generator=drawn)
        return [SPECIAL.index("[CLS]"), *words.tolist(), SPECIAL.index("[SEP]")]

    return [(sentence(), sentence()) for _ in range(n)], np.array([i * 7 % 6 for i in range(n)], dtype=np.float32)


def step(model, rows, scores):
    """Loss and gradients by name."""
    model.zero_grad()
    torch.manual_seed(7)
    loss = backward(model, rows, Processes(0, 1, CPU), 7, scores=scores)
    return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_the_scores_of_a_batch_reach_the_loss(bert):
    rows, scores = batch(9)
    model = sentence_model(bert, method="cosent")
    one, two = (model.embed([row[k] for row in rows]) for k in (0, 1))
    expected = by_formula(one.double(), two.double(), scores.tolist(), 0.05)
    loss, grads = step(model, rows, scores)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert isinstance(model.method, CoSENT)
    assert step(model, rows, scores[::-1].copy())[0].item() != pytest.approx(loss.item(), rel=1e-2)
    assert sum(bool(g.abs().max() > 1e-4) for g in grads.values()) > 30


@BOTH
@pytest.mark.parametrize("more", [{}, {"matryoshka": (8, 16)}, {"encoders": 2}, {"mlp": "train_only"}])
def test_cached_gradients_equal_plain_ones(bert, method, more):
    rows, scores = batch(11)
    plain = step(sentence_model(bert, method=method, **more), rows, scores)
    cached = sentence_model(bert, method=method, cached_gradients=True, **more)
    assert len(cached.chunks([s for row in rows for s in row])) > 2
    found = step(cached, rows, scores)
    assert found[0].item() == pytest.approx(plain[0].item(), rel=2e-6, abs=1e-5)
    assert found[1].keys() == plain[1].keys()
    for name, grad in plain[1].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5 * max(1.0, float(grad.abs().max())), rtol=1e-4)


# --- runs


def write_pairs(path, header=("sentence1", "sentence2", "score"), change=lambda i, score: score):
    """60 pairs of sentences; the score is the share of their common words, times five."""
    texts, rows = sentences(61, seed=5), []
    for i in range(60):
        one, two = texts[i], texts[i + 1] if i % 3 else " ".join([*texts[i].split()[:-2], "."])
        words = [set(text.split()) for text in (one, two)]
        score = change(i, round(5 * len(words[0] & words[1]) / len(words[0] | words[1]), 2))
        rows.append([{"sentence1": one, "sentence2": two}.get(name, score) for name in header])
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(header, zip(*rows, strict=True), strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def losses(out):
    lines = (Path(out) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {e["step"]: e["loss"] for e in map(json.loads, lines) if "loss" in e}


LEARNING = {"max_steps": 60, "batch_size": 30, "learning_rate": 1e-3, "pooling": "mean", "mlp": "none", "dropout": 0}


@BOTH
def test_a_run_learns_the_order(train, tmp_path, method):
    path = write_pairs(tmp_path / "pairs.tsv")
    settings = LEARNING | ({"positive_score": 3} if method == "angle" else {})
    done = train(train=path, method=method, eval_every=30, **settings)
    assert done.code == 0, done.err
    found = losses("runs/x")
    assert found[60] < found[10] - 1
    record = json.loads(Path("runs/x/train.json").read_text())
    assert (record["data"]["columns"], record["data"]["rows"], record["config"]["method"]) == (2, 60, method)
    assert len([m for m in record["measured"] if "dev" in m]) == 2


def test_wherever_the_scores_stand_the_run_is_the_same(train, tmp_path):
    files = {
        "a.csv": ("sentence1", "sentence2", "score"),
        "b.tsv": ("score", "sentence1", "sentence2"),
        "c.jsonl": ("sentence1", "sentence2", "label"),
        "d.parquet": ("sentence1", "gold", "sentence2"),
        "e.csv": ("sentence1", "sentence2", "grade"),
    }
    seen = set()
    for name, header in files.items():
        named = {"columns": "sentence1,sentence2,grade"} if "grade" in header else {}
        path, out = write_pairs(tmp_path / name, header), Path("runs") / name
        done = train(train=path, method="cosent", out=out, max_steps=3, **named)
        assert done.code == 0, done.err
        seen.add((out / "model.safetensors").read_bytes())
    assert len(seen) == 1


@BOTH
def test_resume_goes_on_to_the_same_weights(train, tmp_path, monkeypatch, method):
    path = write_pairs(tmp_path / "pairs.csv")
    settings = {"train": path, "method": method, "max_steps": 4}
    if method == "angle":
        settings["positive_score"] = 3
    assert train(out=Path("whole"), **settings).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert train("--save-every", "2", **settings).code == 130
    done = train("--resume", **settings)
    assert done.code == 0, done.err
    assert Path("runs/x/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_other_scores_are_other_data(train, tmp_path, monkeypatch):
    path = write_pairs(tmp_path / "pairs.csv")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert train("--save-every", "2", train=path, method="cosent").code == 130
    write_pairs(path, change=lambda i, score: score + (i == 7))
    done = train("--resume", train=path, method="cosent")
    assert done.code == 2
    assert "was started with other data" in done.err


def test_a_dry_run_says_that_there_are_scores(train, tmp_path):
    done = train("--dry-run", train=write_pairs(tmp_path / "pairs.csv"), method="cosent")
    assert done.code == 0, done.err
    assert "60 rows of two sentences and a score" in done.out


# --- what is refused


def refused(done):
    assert done.code == 2, done.out
    assert not Path("runs/x/train.json").exists()
    assert len(done.err.strip().splitlines()) == 1, done.err
    return done.err


@BOTH
def test_text_without_scores_is_refused(train, text, method):
    assert "this method trains on two sentences and a score" in refused(train(method=method))


def test_scores_are_refused_by_contrastive_methods(train, tmp_path):
    path = write_pairs(tmp_path / "pairs.csv")
    for method in ("simcse", "arccon"):
        said = refused(train(train=path, method=method))
        assert "column 'score' holds scores, for which this method has no use" in said
        assert "--set method=cosent" in said
    assert train(train=path, columns="sentence1,sentence2", max_steps=1).code == 0


def test_a_score_that_is_no_number_is_refused_by_its_line(train, tmp_path):
    path = write_pairs(tmp_path / "pairs.csv", change=lambda i, score: "good" if i == 41 else score)
    said = refused(train(train=path, method="cosent"))
    assert f"{path}:43: 'score' is 'good', expected a number" in said


def test_scores_that_are_all_equal_are_refused(train, tmp_path):
    path = write_pairs(tmp_path / "pairs.csv", change=lambda i, score: 3)
    said = refused(train(train=path, method="cosent"))
    assert "method cosent: all rows have the score 3; expected pairs of different scores" in said


@BOTH
@pytest.mark.parametrize(
    "settings,text",
    [
        ({"similarity": "dot"}, "is a change of the cosine"),
        ({"symmetric": "true"}, "has no symmetric form"),
        ({"false_negative_threshold": 0.9}, "not with false_negative_threshold"),
        ({"augmentation": "crop"}, "augmentation: makes the positive of a one-column row"),
    ],
)
def test_settings_without_a_meaning_are_refused(train, tmp_path, method, settings, text):
    assert text in refused(train(train=write_pairs(tmp_path / "pairs.csv"), method=method, **settings))


def test_no_method_but_plain_simcse_masks_false_negatives(train):
    for method in ("arccon", "mixcse", "gs", "esimcse"):
        assert "not with false_negative_threshold" in refused(train(method=method, false_negative_threshold=0.9))
    with pytest.raises(UserError, match="symmetric"):
        TrainConfig(method="cosent", symmetric=True).check()
