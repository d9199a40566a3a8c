"""The layers in few calls, and batches side by side: the same vectors as transformers' own code gives."""

import threading

import numpy as np
import pytest
import torch
from architectures import build
from tiny import sentences

from simcse_bench.models.agreement import padded, probe, run_of
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.cpu_kernels import pack_linears
from simcse_bench.models.encoders import embed_in_batches
from simcse_bench.models.fused_bert import fused_bert
from simcse_bench.models.loading import load_backbone, load_encoder


@pytest.fixture
def two_threads(set_threads):
    set_threads(2)


def loaded(folder, pooling="mean", **options):
    return load_encoder(resolve(str(folder), pooling=pooling, head="none"), **options)


@pytest.mark.parametrize("pooling", ["mean", "cls", "first_last", "embedding_last", "max", "last_token"])
def test_vectors_are_those_of_transformers_alone(bert, pooling, two_threads):
    texts = sentences(40)
    encoder = loaded(bert, pooling, batch_tokens=64)
    assert encoder.fused is not None
    found = encoder.encode(texts)
    backbone = load_backbone(resolve(str(bert), pooling=pooling, head="none"), torch.float32)
    encoder.model, encoder.fused, encoder.first_token = backbone.model.eval(), None, False
    torch.testing.assert_close(torch.tensor(found), torch.tensor(encoder.encode(texts)), atol=2e-6, rtol=0)


def test_half_precision_stays_within_its_rounding(bert, two_threads):
    texts = sentences(40)
    half = loaded(bert, dtype="bfloat16", batch_tokens=64)
    assert half.fused is not None
    found, full = torch.tensor(half.encode(texts)), torch.tensor(loaded(bert).encode(texts))
    assert float(torch.cosine_similarity(found, full).min()) > 0.999


@pytest.mark.parametrize("length", [1, 2, 17, 48])
def test_hidden_states_of_every_layer_at_every_length(bert, length):
    backbone = load_backbone(resolve(str(bert), pooling="cls", head="none"), torch.float32)
    model = backbone.model.eval()
    expected = probe("x", run_of(model), backbone.tokenizer, 128, torch.float32)
    ids = torch.randint(5, 20, (3, length), generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        own = model(input_ids=ids, output_hidden_states=True).hidden_states
        pack_linears(model)
        fused = fused_bert(model, expected)
        for mine, theirs in zip(fused(ids, all_layers=True), own, strict=True):
            torch.testing.assert_close(mine, theirs, atol=4e-6, rtol=0)
        for first in (False, True):
            (last,) = fused(ids, first)
            torch.testing.assert_close(last, own[-1][:, :1] if first else own[-1], atol=4e-6, rtol=0)


@pytest.mark.parametrize("kind, known", [("roberta", True), ("electra", True), ("camembert", True), ("mpnet", False),
                                         ("big_bird", False), ("deberta-v2", False), ("distilbert", False)])  # fmt: skip
def test_other_architectures_are_left_to_transformers(kind, known, tmp_path):
    build(kind, tmp_path)
    assert (loaded(tmp_path).fused is not None) == known


def test_a_layer_that_gives_other_vectors_is_not_taken(bert):
    backbone = load_backbone(resolve(str(bert), pooling="cls", head="none"), torch.float32)
    model = backbone.model.eval()
    expected = probe("x", run_of(model), backbone.tokenizer, 32, torch.float32)
    pack_linears(model)
    assert fused_bert(model, expected) is not None
    model.encoder.layer[0].output.LayerNorm.weight.data *= 1.1
    assert fused_bert(model, expected) is None
    model.encoder.layer[0].output.dense = torch.nn.Linear(37, 32)
    assert fused_bert(model, expected) is None


LENGTHS = [3, 9, 3, 5, 9, 4, 4, 4, 3, 7] * 30


def test_threads_share_the_batches_and_leave_torch_as_it_was(two_threads):
    seen, there = set(), threading.Barrier(2, timeout=20)

    def embed(rows):
        if len(seen) < 2 and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            there.wait()
        assert torch.get_num_threads() == 1
        return [np.array([[i, LENGTHS[i]] for i in rows], np.float32)]

    stats, told = {}, []
    (vectors,) = embed_in_batches(LENGTHS, embed, 64, 0.0, stats, "cpu", lambda *at: told.append(at), threads=2)
    assert vectors.tolist() == [[i, n] for i, n in enumerate(LENGTHS)]
    assert len(seen) == 2
    assert torch.get_num_threads() == 2
    assert stats["sentences"] == len(LENGTHS)
    assert told[-1] == (sum(LENGTHS), sum(LENGTHS))


def test_memory_that_runs_out_in_a_thread_halves_the_budget(two_threads):
    def embed(rows):
        if sum(LENGTHS[i] for i in rows) > 40:
            raise MemoryError
        return [np.array([[i] for i in rows], np.float32)]

    stats = {}
    (vectors,) = embed_in_batches(LENGTHS, embed, 100, 0.0, stats, "cpu", threads=2)
    assert vectors[:, 0].tolist() == list(range(len(LENGTHS)))
    assert stats["halvings"] == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_ends_the_threads_without_the_batches_left(two_threads, error):
    calls = []

    def embed(rows):
        calls.append(rows)
        raise error

    with pytest.raises(error):
        embed_in_batches(LENGTHS, embed, 8, 0.0, {}, "cpu", threads=2)
    assert len(calls) < 40  # of 150 batches
    assert torch.get_num_threads() == 2


def test_a_gpus_vectors_are_fetched_when_the_next_batch_is_under_way():
    told = []

    class Remote(torch.Tensor):
        def cpu(self):
            told.append("fetched")
            return self.as_subclass(torch.Tensor)

    def embed(rows):
        told.append("asked")
        return [torch.tensor([[float(i)] for i in rows]).as_subclass(Remote)]

    (vectors,) = embed_in_batches([4] * 6, embed, 8, 0.0, {}, "cuda")
    assert vectors[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert told == ["asked", "asked", "fetched", "asked", "fetched", "fetched"]
    told.clear()
    embed_in_batches([4] * 6, embed, 8, 0.0, {}, "cpu")
    assert told == ["asked", "fetched"] * 3
    assert len(embed_in_batches([4], embed, 8, 0.0, {}, "cuda")[0]) == 1


def test_a_few_sentences_are_spread_over_the_threads():
    sizes = []

    def embed(rows):
        sizes.append(len(rows))
        return [np.zeros((len(rows), 1), np.float32)]

    embed_in_batches([16] * 256, embed, 2048, 0.0, {}, "cpu", threads=4)
    assert sizes == [16] * 16  # batches of 256 tokens: four for each thread, where the budget alone gives two in all
    sizes.clear()
    embed_in_batches([16] * 256, embed, 2048, 0.0, {}, "cpu")
    assert sizes == [128, 128]
    assert padded([[1, 2]], 0)[1] is None
