"""What only a GPU shows. Skipped where there is none, which is said; `pytest tests/training/test_gpu.py` on one."""

import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from steps import CLS, SEP, STILL, batch, largest_difference, same, scores, texts_of
from tiny import SPECIAL, WORDS, sentences, write_tokenizer
from transformers import BertConfig, BertForMaskedLM

from simcse_bench.evaluation.probe import FAST, kfold
from simcse_bench.models import checkpoints
from simcse_bench.models.loading import load_encoder
from simcse_bench.progress import unseen
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.gradients import backward
from simcse_bench.training.job import prepare_job
from simcse_bench.training.methods.known import METHODS
from simcse_bench.training.model import load_model
from simcse_bench.training.processes import Processes, _Gather
from simcse_bench.training.train import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
TYPES = ("float32", "bfloat16", "float16")


def model_on(device, folder, **settings):
    defaults = {"max_length": 32, "temperature": 0.2, "seed": 1}
    config = TrainConfig(**(defaults | settings)).check()
    torch.manual_seed(1)
    model, _ = load_model(checkpoints.resolve(str(folder), pooling="cls", head="none"), config, torch.device(device))
    return model


def step_on(model, rows, seed=7):
    """Loss and gradients by name, on the processor, with the random state of the seed."""
    model.zero_grad()
    torch.manual_seed(seed)
    alone = Processes(0, 1, model.device)
    loss = backward(model, rows, alone, seed, texts=texts_of(rows), scores=scores(model, len(rows)))
    return loss.cpu(), {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}


def of_length(n):
    """So many token ids."""
    return [CLS, *(len(SPECIAL) + i % len(WORDS) for i in range(n - 2)), SEP]


def without_graphs(model):
    model.graphs = None
    return model


@pytest.mark.parametrize("pooling", ["cls", "mean", "first_last", "last_token"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_gradients_are_the_processors(bert, pooling, columns):
    rows = batch(8, columns)
    ours = model_on("cuda", bert, pooling=pooling, **STILL)
    for _ in range(2):  # the second time from the graph alone
        same(step_on(ours, rows), step_on(model_on("cpu", bert, pooling=pooling, **STILL), rows), 1e-4)
    assert len(ours.graphs._made) == 1


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [
        ({"mlm_weight": 0.1}, True),
        ({"matryoshka": (8, 16), "mlp": "none"}, True),
        ({"same_mask": "copy"}, True),
        ({"encoders": 2}, False),
        ({"same_mask": "replay"}, False),
        ({"accumulation": 2}, False),
        ({"cached_gradients": True}, False),
        ({"gradient_checkpointing": True}, False),
    ],
)
def test_other_settings_too(bert, settings, recorded):
    rows = batch(8, 1)
    ours, theirs = (model_on(device, bert, **settings, **STILL) for device in ("cuda", "cpu"))
    for _ in range(2):
        same(step_on(ours, rows), step_on(theirs, rows), 1e-4)
    assert bool(ours.graphs and ours.graphs._made) is recorded


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("columns", "settings"), [(1, {}), (3, {"pooling": "mean", "mlp": "none"})])
def test_a_graph_gives_what_the_calls_give_dropout_included(bert, monkeypatch, dtype, columns, settings):
    """Sentences up to a multiple of 8, and calls for all of them in the order given: so both draw the same."""
    first, second = ([[of_length(n)] * columns for n in lengths] for lengths in ((16, 9, 12), (24, 20, 9)))
    graphs = model_on("cuda", bert, dtype=dtype, **settings)
    calls = without_graphs(model_on("cuda", bert, dtype=dtype, **settings))
    monkeypatch.setattr(calls, "chunks", lambda sentences: [list(range(len(sentences)))])
    for rows in (first, second, first):
        for seed in (7, 8):
            found, expected = step_on(graphs, rows, seed), step_on(calls, rows, seed)
            if dtype == "float32":
                same(found, expected, 1e-4)
            else:
                flat = [torch.cat([g.flatten() for g in x[1].values()]) for x in (found, expected)]
                assert torch.cosine_similarity(*flat, dim=0) > 0.99
        assert largest_difference(found, step_on(graphs, rows, 7)) > 1e-3  # another seed, other masks
    assert len(graphs.graphs._made) == 2


@pytest.mark.parametrize("dtype", TYPES)
def test_what_cannot_be_recorded_is_called(bert, monkeypatch, dtype):
    """A call that waits for the GPU is found before the recording; training goes on, with the same random numbers."""
    rows = [[of_length(n)] for n in (16, 9, 12)]
    model = model_on("cuda", bert, dtype=dtype)
    forward = model.mlp[0].forward

    def waiting(x):
        float(x.detach().sum())
        return forward(x)

    monkeypatch.setattr(model.mlp[0], "forward", waiting)
    found = step_on(model, rows)
    assert (model.graphs._made, model.graphs._failed) == ({}, True)
    same(found, step_on(without_graphs(model_on("cuda", bert, dtype=dtype)), rows), 1e-4)
    following = model_on("cuda", bert, dtype=dtype)  # the next model in this process
    step_on(following, rows)
    assert len(following.graphs._made) == 1


@pytest.mark.parametrize("settings", [{}, {"mlm_weight": 0.1}, {"same_mask": "replay"}, {"pooling": "mean"}])
def test_cached_gradients_equal_plain_ones_with_dropout_on(bert, settings):
    rows = batch(8, 1)
    one = {"chunk_tokens": 64, **settings}
    plain = without_graphs(model_on("cuda", bert, **one))
    same(step_on(model_on("cuda", bert, cached_gradients=True, **one), rows), step_on(plain, rows), 1e-4)


def run_on_gpu(folder, model, text, **settings):
    given = {"model": str(model), "train": str(text), "batch_size": 8, "max_steps": 40, "eval_every": 0} | settings
    job = prepare_job(TrainConfig(**given), Processes(0, 1, torch.device("cuda")))
    return Run(job, RunFolder(folder), unseen)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentences(64, longest=9)) + "\n", encoding="utf-8")
    return path


OWN = {
    "diffcse": {"mlp": "none"},
    "scd": {"mlp": "none"},
    "rankcse": {"method_settings": {"teacher": "random-words"}},
    "promptbert": {"pooling": "mask", "template": "the {sentence} [MASK] ."},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(bert, tmp_path, text, name):
    model = bert
    if METHODS[name].scored:
        text = tmp_path / "pairs.tsv"
        pairs = zip(sentences(64), sentences(64, seed=1), strict=True)
        lines = (f"{a}\t{b}\t{i % 5}\n" for i, (a, b) in enumerate(pairs))
        text.write_text("sentence1\tsentence2\tscore\n" + "".join(lines), encoding="utf-8")
    if name == "diffcse":
        model = tmp_path / "lm"
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig.from_pretrained(bert)).save_pretrained(model)
        write_tokenizer(model)
    run = run_on_gpu(tmp_path / "x", model, text, method=name, **OWN.get(name, {}))
    for _ in range(3):
        run.update()
    assert np.isfinite(run.check()).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_resumed_is_undisturbed(bert, tmp_path, text, dtype):
    whole, half = (run_on_gpu(tmp_path / name, bert, text, dtype=dtype) for name in ("whole", "half"))
    for _ in range(6):
        whole.update()
    for _ in range(3):
        half.update()
    half.save()
    rest = run_on_gpu(tmp_path / "half", bert, text, dtype=dtype)
    rest.restore()
    for _ in range(3):
        rest.update()
    for (name, a), b in zip(whole.model.named_parameters(), rest.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
    assert len(whole.check()) == 6


def test_no_update_waits_for_the_gpu(bert, tmp_path, text):
    """After the first ones, which record: a wait in between is an error in this mode of torch."""
    run = run_on_gpu(tmp_path / "x", bert, text)
    for _ in range(8):
        run.update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(8):
            run.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_warning_of_torch(bert):
    model = model_on("cuda", bert)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            step_on(model, batch(8, 1, seed), seed)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("float16", 0.03), ("bfloat16", 0.15)])
@pytest.mark.parametrize("pooling", ["cls", "mean", "first_last"])
def test_vectors_are_the_processors(bert, dtype, apart, pooling):
    texts = sentences(300)
    found, expected = (
        load_encoder(checkpoints.resolve(str(bert), pooling=pooling, head="none"), of, device).encode(texts)
        for of, device in ((dtype, "cuda"), ("float32", "cpu"))
    )
    assert np.linalg.norm(found - expected, axis=1).max() <= apart * np.linalg.norm(expected, axis=1).max()


def test_the_last_layer_is_for_the_first_token_alone(bert):
    assert load_encoder(checkpoints.resolve(str(bert), pooling="cls", head="none"), device="cuda").first_token
    assert model_on("cuda", bert).first_token


def test_the_probe_is_the_processors():
    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((400, 16)).astype(np.float32)
    y = (x[:, 0] + drawn.standard_normal(400) / 2 > 0).astype(np.int64)
    on = [kfold(x, y, 300, FAST, device) for device in ("cuda", "cpu")]
    assert on[0].test == pytest.approx(on[1].test, abs=2)


def test_gathering_over_nccl(tmp_path):
    """One process is a group, too: values and gradients pass through its calls."""
    dist.init_process_group("nccl", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        x = torch.randn(5, 3, device="cuda", requires_grad=True)
        whole = _Gather.apply(x, Processes(0, 1, x.device))
        (whole**2).sum().backward()
        torch.testing.assert_close(whole, x)
        torch.testing.assert_close(x.grad, 2 * x)
    finally:
        dist.destroy_process_group()
