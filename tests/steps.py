"""Single steps of training on the tiny BERT: what the tests of gradients and of the methods share."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import SPECIAL, WORDS

from simcse_bench.models import checkpoints
from simcse_bench.progress import unseen
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.gradients import backward
from simcse_bench.training.job import prepare_job
from simcse_bench.training.methods.known import method_class
from simcse_bench.training.model import load_model
from simcse_bench.training.processes import Processes
from simcse_bench.training.train import Run

CPU = torch.device("cpu")
CLS, SEP = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
ALONE = Processes(0, 1, CPU)
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0}


def sentence_model(folder, seed=1, **settings):
    defaults = {"max_length": 32, "temperature": 0.2, "chunk_tokens": 32, "seed": seed}
    config = TrainConfig(**(defaults | settings)).check()
    torch.manual_seed(seed)  # of a language-model head that the checkpoint lacks
    model, _ = load_model(checkpoints.resolve(str(folder), pooling="cls", head="none"), config, CPU)
    return model


def batch(n, columns, seed=0):
    """Rows of token ids of 3 to 14 tokens."""
    drawn = torch.Generator().manual_seed(seed)

    def sentence():
        length = int(torch.randint(1, 13, (), generator=drawn))
        words = torch.randint(len(SPECIAL), len(SPECIAL + WORDS), (length,), generator=drawn)
        return [CLS, *words.tolist(), SEP]

    return [[sentence() for _ in range(columns)] for _ in range(n)]


def texts_of(rows):
    """The first sentences of rows of token ids as text."""
    words = SPECIAL + WORDS
    return [" ".join(words[token] for token in row[0][1:-1]) for row in rows]


def scores(model, n):
    """Those of n pairs, with ties, where the method needs some."""
    return (np.arange(n) * 7 % 5).astype(np.float32) if model.config.scored else None


def step(model, rows, seed=7, scale=1.0):
    """Loss and gradients by name, with the random state of the seed."""
    model.zero_grad()
    torch.manual_seed(seed)
    loss = backward(model, rows, ALONE, seed, scale, texts=texts_of(rows), scores=scores(model, len(rows)))
    return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(found, expected, tolerance):
    """Loss and every gradient within the tolerance, relative to the largest number of the gradient."""
    assert found[0].item() == pytest.approx(expected[0].item(), abs=tolerance)
    assert found[1].keys() == expected[1].keys()
    assert len(found[1]) > 20
    for name, grad in expected[1].items():
        largest = max(1.0, float(grad.abs().max()))
        off = float((found[1][name] - grad).abs().max()) / largest
        assert off <= tolerance, f"{name}: off by {off:.1e}"


def largest_difference(one, other):
    return max(float((one[1][n] - other[1][n]).abs().max()) for n in one[1])


# --- methods


def bare(name, width=4, temperature=0.5, batch_size=8, mlp="train_only", **settings):
    """A method without a model, which its loss of given vectors does not need."""
    config = TrainConfig(
        method=name, temperature=temperature, batch_size=batch_size, mlp=mlp, method_settings=settings
    ).check()
    return method_class(name)(config, SimpleNamespace(width=width, device=CPU))


def vectors(n, parts, width=4, seed=0):
    """Parts of unequal norms, (n, width) each, float64."""
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(0.5, 1.5, n, dtype=torch.float64)[:, None]
    return [lengths * torch.randn(n, width, generator=drawn, dtype=torch.float64) for _ in range(parts)]


def loss_of(method, *parts, seed=3):
    """A method's loss of the vectors, with random numbers of the seed."""
    return method.loss(parts, torch.Generator().manual_seed(seed))


def agree(ours, theirs, parts, tolerance=1e-6):
    """Two functions of the vectors have the same value, and the same gradient for each vector."""
    found = []
    for function in (ours, theirs):
        leaves = [part.clone().requires_grad_() for part in parts]
        loss = function(*leaves)
        loss.backward()
        grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
        found.append((loss.detach().double(), grads))
    (one, ours_), (two, theirs_) = found
    assert one.item() == pytest.approx(two.item(), rel=tolerance, abs=tolerance)
    for a, b in zip(ours_, theirs_, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance * 10)


def cosine(u, v):
    """In plain products and sums."""
    dot, left, right = (sum(a * b for a, b in zip(x, y, strict=True)) for x, y in ((u, v), (u, u), (v, v)))
    return dot / (left.sqrt() * right.sqrt())


def cross_entropy(row, label):
    """-log of the label's share of the exponentials of a list of logits."""
    return torch.log(sum(torch.exp(logit) for logit in row)) - row[label]


def plain_loss(one, two, temperature=0.5):
    """SimCSE's, Eq. 4."""
    rows = [[cosine(a, p) / temperature for p in two] for a in one]
    return sum(cross_entropy(row, i) for i, row in enumerate(rows)) / len(rows)


def nearly(number):
    """float32's idea of a number."""
    return pytest.approx(number, abs=1e-6)


def softmax(*logits):
    """Of plain numbers."""
    exponentials = [math.exp(x) for x in logits]
    return [x / sum(exponentials) for x in exponentials]


def a_run(folder, bert, text, **settings):
    """A run of 4 updates of 8 rows, not begun."""
    given = {"model": str(bert), "train": str(text), "batch_size": 8, "max_steps": 4, "eval_every": 0}
    return Run(prepare_job(TrainConfig(**(given | settings)), ALONE), RunFolder(folder), unseen)


def everything(model):
    """All parameters and buffers of a model, the method's too."""
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def resumed_is_the_same(tmp_path, bert, text, **settings):
    """4 updates, and 2 with a checkpoint and 2 from it, end with the same bits; gives the names of what has a state."""
    whole = a_run(tmp_path / "whole", bert, text, **settings)
    for _ in range(4):
        whole.update()
    half = a_run(tmp_path / "half", bert, text, **settings)
    begun = everything(half.model)
    for _ in range(2):
        half.update()
    half.save()
    rest = a_run(tmp_path / "half", bert, text, **settings)
    rest.restore()
    for _ in range(2):
        rest.update()
    expected, found = everything(whole.model), everything(rest.model)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    return {name for name, tensor in expected.items() if not torch.equal(tensor, begun[name])}


def refused(cli, *settings):
    """What `train` says of settings that are none, in a line."""
    done = cli("train", "--out", "x", "--device", "cpu", *[part for s in settings for part in ("--set", s)])
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    return lines[0]
