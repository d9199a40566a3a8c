import numpy as np
import pytest
import torch
from tiny import sentences, tiny_bert
from transformers import AutoModel, AutoTokenizer

from simcse_bench.errors import UserError
from simcse_bench.models.catalog import PLAIN_POOLINGS
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.encoders import plan_batches, pool
from simcse_bench.models.loading import load_encoder


def direct(folder, texts, pooling):
    """One sentence at a time, straight from transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            out = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            h = [x[0] for x in out.hidden_states]
            rows.append({
                "cls": h[-1][0], "mean": h[-1].mean(0), "first_last": ((h[1] + h[-1]) / 2).mean(0),
                "embedding_last": ((h[0] + h[-1]) / 2).mean(0), "top2": ((h[-1] + h[-2]) / 2).mean(0),
                "pooler": out.pooler_output[0], "max": h[-1].amax(0), "last_token": h[-1][-1],
                "mean_sqrt_len": h[-1].sum(0) / len(h[-1]) ** 0.5,
                "weighted_mean": sum((i + 1) * t for i, t in enumerate(h[-1])) / sum(range(len(h[-1]) + 1)),
            }[pooling].numpy())  # fmt: skip
    return np.stack(rows)


@pytest.mark.parametrize("slack", [0.0, 0.9])
def test_every_pooling_equals_a_direct_computation(bert, slack):
    texts = sentences(40)
    encoder = load_encoder(resolve(str(bert), pooling="cls", head="mlp"), batch_tokens=64)
    encoder.slack = slack  # 0.9: padded batches with a mask
    found = encoder.encode_views(texts, [(p, "none") for p in PLAIN_POOLINGS] + [("cls", "mlp")])
    for vectors, pooling in zip(found, [*PLAIN_POOLINGS, "pooler"], strict=True):
        np.testing.assert_allclose(vectors, direct(bert, texts, pooling), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts), found[-1], atol=1e-5)  # its last layer for [CLS] alone


def test_pool_ignores_padding():
    torch.manual_seed(0)
    layers = [torch.randn(2, 5, 4) for _ in range(4)]
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    for pooling in PLAIN_POOLINGS:
        whole = pool([x[:1, :3] for x in layers], None, pooling)
        torch.testing.assert_close(pool(layers, mask, pooling)[:1], whole)
    with pytest.raises(UserError, match="unknown pooling 'firstlast'; did you mean 'first_last'"):
        pool(layers, mask, "firstlast")


def test_batches_cover_all_once_within_budget_and_without_padding():
    lengths = np.random.default_rng(0).integers(2, 40, 500).tolist()
    batches = list(plan_batches(lengths, 256))
    assert sorted(i for b in batches for i in b) == list(range(500))
    for batch in batches:
        assert len({lengths[i] for i in batch}) == 1
        assert sum(lengths[i] for i in batch) <= 256
    loose = list(plan_batches(lengths, 256, slack=0.2))
    assert len(loose) < len(batches)
    for batch in loose:
        longest = max(lengths[i] for i in batch)
        assert len(batch) * longest <= 256
        assert min(lengths[i] for i in batch) >= 0.8 * longest
    assert list(plan_batches([300, 2], 256)) == [[0], [1]]
    assert list(plan_batches([], 256)) == []


def test_long_sentences_are_truncated_and_counted(bert):
    encoder = load_encoder(resolve(str(bert), pooling="mean", max_length=6))
    long, short = "the dog plays the guitar and the ball", "the dog"
    vectors = encoder.encode([long, short])
    assert encoder.stats["truncated"] == 1
    np.testing.assert_allclose(vectors[0], encoder.encode(["the dog plays the"])[0], atol=1e-6)
    assert encoder.stats["truncated"] == 0


def test_an_empty_sentence_is_encoded_as_such(bert):
    encoder = load_encoder(resolve(str(bert), pooling="mean"))
    np.testing.assert_allclose(encoder.encode([""]), direct(bert, [""], "mean"), atol=1e-5)
    assert encoder.encode([]).shape == (0, 0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory"),
                                   RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
                                   RuntimeError("CUDA error: out of memory")])  # fmt: skip
def test_out_of_memory_halves_the_budget_and_goes_on(bert, monkeypatch, error):
    monkeypatch.setattr("gc.collect", int)  # a second each beside the objects of a thousand tests
    texts = sentences(60)
    encoder = load_encoder(resolve(str(bert), pooling="mean"), batch_tokens=400)
    expected, forward = encoder.encode(texts), encoder._forward

    def small_memory(ids, views):
        if sum(map(len, ids)) > 100:
            raise error
        return forward(ids, views)

    monkeypatch.setattr(encoder, "_forward", small_memory)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert encoder.stats["halvings"] == 2

    monkeypatch.setattr(encoder, "_forward", lambda ids, views: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="out of memory on cpu with one sentence"):
        encoder.encode(texts)


def test_a_model_that_does_not_fit_is_told_in_a_line(cli, bert, senteval, monkeypatch):
    def small(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr("simcse_bench.models.loading.load_encoder", small)
    done = cli("eval", "--model", bert, "--pooler", "avg", "--data-dir", senteval, "--device", "cpu")
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        "error: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.). End what else takes memory, or use "
        "another --device or a smaller model."
    )


def test_other_errors_are_not_taken_for_memory(bert, monkeypatch):
    encoder = load_encoder(resolve(str(bert), pooling="mean"))
    monkeypatch.setattr(encoder, "_forward", lambda ids, views: (_ for _ in ()).throw(RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        encoder.encode(["a"])


def test_half_precision_is_close_and_batches_do_not_matter(bert):
    texts = sentences(50)
    full = load_encoder(resolve(str(bert), pooling="mean"))
    half = load_encoder(resolve(str(bert), pooling="mean"), dtype="bfloat16")
    a, b = full.encode(texts), half.encode(texts)
    assert b.dtype == np.float32
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.995
    one_by_one = np.concatenate([full.encode([t]) for t in texts])
    np.testing.assert_allclose(a, one_by_one, atol=1e-5)


def test_unknown_head_of_a_checkpoint(tmp_path):
    encoder = load_encoder(resolve(str(tiny_bert(tmp_path / "m", pooler=False)), pooling="mean"))
    with pytest.raises(UserError, match="has no head 'mlp'; it has: none"):
        encoder.encode_views(["a"], [("cls", "mlp")])


SIZES = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def architectures():
    import transformers as t

    yield t.RobertaModel(t.RobertaConfig(**SIZES, max_position_embeddings=50, pad_token_id=1, initializer_range=0.2))
    yield t.DistilBertModel(t.DistilBertConfig(vocab_size=40, dim=32, n_layers=3, n_heads=4, hidden_dim=64))
    yield t.MPNetModel(t.MPNetConfig(**SIZES, max_position_embeddings=50, initializer_range=0.2))
    yield t.ElectraModel(t.ElectraConfig(**SIZES, embedding_size=16, initializer_range=0.2))
    yield t.AlbertModel(t.AlbertConfig(**SIZES, embedding_size=16))


@pytest.mark.parametrize("model", list(architectures()), ids=lambda m: type(m).__name__)
def test_other_architectures_equal_transformers(tmp_path, model):
    from tiny import write_tokenizer

    model.eval().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    texts = sentences(20)
    encoder = load_encoder(resolve(str(tmp_path), pooling="first_last"))
    found = dict(
        zip(("cls", "first_last"), encoder.encode_views(texts, [("cls", "none"), ("first_last", "none")]), strict=True)
    )
    plain = AutoModel.from_pretrained(tmp_path).eval()
    for i, text in enumerate(texts):
        ids = torch.tensor(encoder.tokenizer([text])["input_ids"])
        with torch.no_grad():
            out = plain(input_ids=ids, output_hidden_states=True)
        np.testing.assert_allclose(found["cls"][i], out.last_hidden_state[0, 0], atol=1e-4)
        both = (out.hidden_states[1] + out.hidden_states[-1])[0] / 2
        np.testing.assert_allclose(found["first_last"][i], both.mean(0), atol=1e-4)
