"""Several GPUs share a call's sentences: told by copies on the processor, and by what is loaded for which device."""

import numpy as np
import pytest
from tiny import sentences, tiny_bert

from simcse_bench.errors import UserError
from simcse_bench.models import copies, loading
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.copies import Copies, named_devices
from simcse_bench.models.open import open_model


@pytest.fixture
def checkpoint(tmp_path):
    return resolve(str(tiny_bert(tmp_path / "m", pooler=False)), pooling="mean", head="none")


def load_copies(checkpoint, count, progress=None):
    def on(device, told):
        encoder = loading.load_encoder(checkpoint, "float32", "cpu", 256, told)
        encoder.fused = None  # whose threads would fight for this processor
        return encoder

    return Copies(on, [f"cuda:{i}" for i in range(count)], progress)


@pytest.mark.parametrize("count", [2, 3])
def test_vectors_stand_in_the_order_of_the_sentences(checkpoint, count):
    texts = sentences(41)
    alone = loading.load_encoder(checkpoint).encode(texts)
    several = load_copies(checkpoint, count)
    np.testing.assert_allclose(several.encode(texts), alone, atol=1e-6)
    assert several.stats["sentences"] == 41
    assert several.provenance["device"] == ",".join(f"cuda:{i}" for i in range(count))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_sentences_than_copies(checkpoint, count):
    texts = sentences(1)[:count]
    assert len(load_copies(checkpoint, 3).encode(texts)) == count


def test_each_copy_has_as_much_to_do(checkpoint):
    several = load_copies(checkpoint, 2)
    several.encode(sentences(200))
    tokens = [encoder.stats["tokens"] for encoder in several._encoders]
    assert abs(tokens[0] - tokens[1]) < 0.1 * sum(tokens)


def test_a_setting_is_that_of_every_copy(checkpoint):
    several = load_copies(checkpoint, 2)
    several.max_length = 5
    assert [encoder.max_length for encoder in several._encoders] == [5, 5]
    assert several.max_length == 5
    assert several.tokenizer is several._encoders[0].tokenizer


def test_progress_is_that_of_all_together(checkpoint):
    told = []
    several = load_copies(checkpoint, 2, lambda done, total: told.append((done, total)))
    for _ in range(2):
        told.clear()
        several.encode(sentences(60))
        assert {total for _, total in told} == {several.stats["tokens"]}
        assert told[-1][0] == several.stats["tokens"]
        assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_an_error_of_one_copy_is_raised(checkpoint):
    several = load_copies(checkpoint, 2)
    several._encoders[1].encode = lambda texts: (_ for _ in ()).throw(UserError("out of memory"))
    with pytest.raises(UserError, match="out of memory"):
        several.encode(sentences(9))


def test_open_model_loads_a_copy_for_each_device(checkpoint, monkeypatch):
    asked = []
    load = loading.load_encoder

    def loaded(found, dtype, device, *rest):
        asked.append(device)
        return load(found, dtype, "cpu", *rest)

    monkeypatch.setattr(loading, "load_encoder", loaded)
    monkeypatch.setattr(copies, "torch_device", lambda name: name)
    encoder = open_model(str(checkpoint.folder), pooling="mean", head="none", device="cuda:0, cuda:2").load()
    assert asked == ["cuda:0", "cuda:2"]
    assert isinstance(encoder, Copies)


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cpu,cpu", "cuda,cuda:1", "cuda:0,", "auto,cpu"])
def test_what_are_no_different_gpus(device):
    with pytest.raises(UserError, match="expected different GPUs by their numbers, such as cuda:0,cuda:1"):
        named_devices(device)


def test_one_device_stays_what_it_is():
    assert named_devices("cpu") == ["cpu"]


def test_what_takes_one_device_says_who_takes_several(cli):
    done = cli("train", "--recipe", "mini-unsup", "--device", "cuda:0,cuda:1", "--out", "run", "--dry-run")
    assert done.code == 2
    assert "they train with torchrun" in done.err


def test_from_the_command_line(cli, checkpoint):
    done = cli("eval", str(checkpoint.folder), "--pooling", "mean", "--suite", "mini", "--device", "cpu,cpu")
    assert done.code == 2
    assert "expected different GPUs" in done.err
