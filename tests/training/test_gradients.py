import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from steps import ALONE, CPU, STILL, batch, largest_difference, same, sentence_model, step
from tiny import SPECIAL, WORDS, tiny_bert, write_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM

from simcse_bench.errors import UserError
from simcse_bench.models import checkpoints
from simcse_bench.models.catalog import PLAIN_POOLINGS
from simcse_bench.training import gradients
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import backward, masked_copies
from simcse_bench.training.model import load_model
from simcse_bench.training.processes import Processes


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """On matrices this small a second thread costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(folder, model, rows, pooling, negative_weight=1.0):
    """Loss and gradients of transformers' own model on one padded batch, in float64, by the paper's formula."""
    plain = AutoModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").double().eval()
    mlp = None
    if model.mlp is not None:
        mlp = nn.Sequential(nn.Linear(32, 32), nn.Tanh()).double()
        mlp.load_state_dict(model.mlp.state_dict())
    columns = list(zip(*rows, strict=True))
    columns = [columns[0], columns[0]] if len(columns) == 1 else columns
    texts = [s for column in columns for s in column]
    longest = max(map(len, texts))
    fill = plain.config.pad_token_id
    ids = torch.tensor([[*s, *[fill] * (longest - len(s))] for s in texts])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in texts])
    h = plain(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    pairs = {"mean": (-1, -1), "first_last": (1, -1), "embedding_last": (0, -1), "top2": (-2, -1)}
    tokens = [h[-1][i, : len(s)] for i, s in enumerate(texts)]
    own = {
        "cls": lambda t: t[0], "last_token": lambda t: t[-1], "max": lambda t: t.amax(0),
        "mean_sqrt_len": lambda t: t.sum(0) / len(t) ** 0.5,
        "weighted_mean": lambda t: sum((k + 1) * x for k, x in enumerate(t)) / sum(range(1, len(t) + 1)),
    }  # fmt: skip
    if pooling in own:
        z = torch.stack([own[pooling](t) for t in tokens])
    else:
        one, two = pairs[pooling]
        z = torch.stack([(h[one][i, : len(s)] + h[two][i, : len(s)]).mean(0) / 2 for i, s in enumerate(texts)])
    z = z if mlp is None else mlp(z)
    loss = sum(by_formula(z[:, :width], len(rows), negative_weight) for width in (z.shape[1], *model.config.matryoshka))
    loss.backward()
    grads = {f"encoders.0.{n}": x.grad.float() for n, x in plain.named_parameters() if x.grad is not None}
    grads |= {} if mlp is None else {f"mlp.{n}": x.grad.float() for n, x in mlp.named_parameters()}
    return loss, grads


def by_formula(z, rows, negative_weight):
    """The paper's loss of vectors (anchors, positives, hard negatives), one exponential after the other."""
    z = z / (z * z).sum(1, keepdim=True).sqrt()
    a, p, *n = torch.split(z, rows)
    total = 0
    for i in range(rows):
        scores = [torch.exp(a[i] @ p[j] / 0.2) for j in range(rows)]
        below = sum(scores)
        for each in n:
            below = below + sum(
                (negative_weight if i == j else 1) * torch.exp(a[i] @ each[j] / 0.2) for j in range(rows)
            )
        total = total - torch.log(scores[i] / below)
    return total / rows


@pytest.mark.parametrize("pooling", PLAIN_POOLINGS)
@pytest.mark.parametrize("cached", [False, True])
def test_gradients_equal_the_formula_on_transformers_own_model(bert, pooling, cached):
    columns = PLAIN_POOLINGS.index(pooling) % 4 + 1
    model = sentence_model(bert, pooling=pooling, cached_gradients=cached, hard_negative_weight=2.0, **STILL)
    rows = batch(6, columns)
    assert len(model.chunks([s for row in rows for s in row])) > 1
    same(step(model, rows), reference(bert, model, rows, pooling, 2.0), 5e-5)


def test_gradients_without_an_mlp_equal_the_formula(bert):
    model, rows = sentence_model(bert, mlp="none", **STILL), batch(5, 2)
    same(step(model, rows), reference(bert, model, rows, "cls"), 1e-5)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("mlp", ["none", "always"])
@pytest.mark.parametrize("widths", [(8,), (16, 3, 31)])
def test_matryoshka_adds_the_losses_of_the_first_values(bert, cached, mlp, widths):
    settings = {"mlp": mlp, "hard_negative_weight": 2.0} | STILL
    model, rows = sentence_model(bert, matryoshka=widths, cached_gradients=cached, **settings), batch(6, 3)
    found = step(model, rows)
    same(found, reference(bert, model, rows, "cls", 2.0), 5e-5)
    assert largest_difference(found, step(sentence_model(bert, **settings), rows)) > 1e-3


@pytest.mark.parametrize("width", [32, 64])
def test_matryoshka_needs_widths_below_the_vectors(bert, width):
    with pytest.raises(UserError, match=rf"matryoshka {width}: tiny-bert's vectors have 32 values"):
        sentence_model(bert, mlp="none", matryoshka=(8, width))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("models") / "tiny-roberta"
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=48, initializer_range=0.4, pad_token_id=0,
    )  # fmt: skip
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_robertas_positions_count_as_with_token_ids(roberta, pooling):
    model, rows = sentence_model(roberta, pooling=pooling, **STILL), batch(6, 2)
    same(step(model, rows), reference(roberta, model, rows, pooling), 1e-5)


@pytest.mark.parametrize(
    "columns,settings",
    [
        (1, {}),
        (3, {"hard_negative_weight": 0.5, "symmetric": True}),
        (5, {"hard_negative_weight": 2.0}),
        (2, {"similarity": "dot"}),
        (2, {"false_negative_threshold": 0.5, "symmetric": True}),
        (3, {"matryoshka": (8, 16), "mlp": "none"}),
        (1, {"matryoshka": (8,), "mlp": "always", "method": "gs", "pooling": "mean"}),
        (1, {"mlm_weight": 0.1}),
        (3, {"mlm_weight": 0.5, "pooling": "mean"}),
        (1, {"same_mask": "replay"}),
        (1, {"same_mask": "copy"}),
        (2, {"encoders": 2}),
    ],
)
def test_cached_gradients_equal_plain_ones_with_dropout_on(bert, columns, settings):
    rows = batch(12, columns)
    plain = sentence_model(bert, **settings)
    cached = sentence_model(bert, cached_gradients=True, **settings)
    assert len(plain.chunks([row[0] for row in rows])) > 3
    first = step(plain, rows)
    same(step(cached, rows), first, 1e-6)
    assert largest_difference(step(plain, rows, seed=8), first) > 1e-3  # dropout was on


def test_a_devices_own_generator_is_part_of_the_random_state(monkeypatch):
    """Apple's GPU has one; what dropout draws there is drawn again in the second pass."""
    own = torch.Generator().manual_seed(5)
    monkeypatch.setattr(torch.mps, "get_rng_state", own.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", own.set_state)
    device = torch.device("mps")
    before = gradients._random_state(device)
    first = torch.rand(3), torch.rand(3, generator=own)
    gradients._set_random_state(before, device)
    assert torch.equal(first[0], torch.rand(3))
    assert torch.equal(first[1], torch.rand(3, generator=own))
    assert len(gradients._random_state(CPU)) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_the_random_state_after_a_step_does_not_repeat(bert, cached):
    model = sentence_model(bert, cached_gradients=cached)
    torch.manual_seed(3)
    losses = [backward(model, batch(4, 1), ALONE, 0).item() for _ in range(2)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("chunk_tokens", [33, 60, 8192])
@pytest.mark.parametrize("cached", [False, True])
def test_the_chunk_size_changes_nothing(bert, chunk_tokens, cached):
    rows = batch(12, 3)
    small = sentence_model(bert, pooling="mean", **STILL)
    other = sentence_model(bert, pooling="mean", chunk_tokens=chunk_tokens, cached_gradients=cached, **STILL)
    same(step(other, rows), step(small, rows), 1e-5)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("mlm_weight", [0.0, 0.1])
def test_the_scale_multiplies_the_gradients_and_not_the_loss(bert, cached, mlm_weight):
    model, rows = sentence_model(bert, cached_gradients=cached, mlm_weight=mlm_weight), batch(5, 2)
    loss, grads = step(model, rows)
    same(step(model, rows, scale=8.0), (loss, {n: 8 * g for n, g in grads.items()}), 1e-6)


def test_gradients_add_up_over_calls(bert):
    model, rows = sentence_model(bert, **STILL), batch(5, 2)
    loss, once = step(model, rows)
    backward(model, rows, ALONE, 0)
    twice = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    same((loss, twice), (loss, {n: 2 * g for n, g in once.items()}), 1e-6)


def recorded(monkeypatch, model, rows):
    """The two views that reach the loss."""
    seen = []

    def record(anchors, positives, *rest, **options):
        seen.append((anchors.detach(), positives.detach()))
        return (anchors - positives).square().sum()

    monkeypatch.setattr("simcse_bench.training.methods.simcse.contrastive_loss", record)
    step(model, rows)
    return seen[0]


@pytest.mark.parametrize("same_mask,equal", [("no", False), ("replay", True), ("copy", True)])
@pytest.mark.parametrize("cached", [False, True])
def test_the_same_mask_makes_both_views_equal(bert, monkeypatch, same_mask, equal, cached):
    model = sentence_model(bert, same_mask=same_mask, cached_gradients=cached)
    one, two = recorded(monkeypatch, model, batch(9, 1))
    assert torch.allclose(one, two, atol=1e-6) is equal


def test_copy_and_replay_are_the_same_training(bert):
    rows = batch(9, 1)
    copy, replay, no = (step(sentence_model(bert, same_mask=s), rows) for s in ("copy", "replay", "no"))
    same(replay, copy, 1e-5)
    assert largest_difference(no, copy) > 1e-3


def test_two_encoders_learn_each_from_its_own_column(bert, monkeypatch):
    model, rows = sentence_model(bert, encoders=2, **STILL), batch(5, 2)
    loss, grads = step(model, rows)
    one = {n.removeprefix("encoders.0."): g for n, g in grads.items() if n.startswith("encoders.0.")}
    two = {n.removeprefix("encoders.1."): g for n, g in grads.items() if n.startswith("encoders.1.")}
    assert one.keys() == two.keys()
    assert all(g.abs().max() > 1e-5 for n, g in one.items() if "key.bias" not in n)
    assert all(g.abs().max() > 1e-5 for n, g in two.items() if "key.bias" not in n)
    together = step(sentence_model(bert, **STILL), rows)  # at the start both encoders are the same
    both = {n: one[n.removeprefix("encoders.0.")] + two[n.removeprefix("encoders.0.")]
            for n in together[1] if n.startswith("encoders.")}  # fmt: skip
    same((loss, both | {n: g for n, g in grads.items() if n.startswith("mlp.")}), together, 1e-5)
    with torch.no_grad():
        for p in model.encoders[1].parameters():
            p.zero_()
    anchors, positives = recorded(monkeypatch, model, rows)
    assert anchors.abs().max() > 0.01
    assert not positives.any()


def test_the_dropout_of_the_settings_reaches_every_module(bert):
    model = sentence_model(bert, hidden_dropout=0.3, attention_dropout=0.2)
    assert model.dropout() == {"hidden": 0.3, "attention": 0.2}
    found = {n: m.p for n, m in model.encoders[0].named_modules() if isinstance(m, nn.Dropout)}
    assert len(found) == 1 + 3 * 3
    for name, p in found.items():
        assert p == (0.2 if name.endswith("attention.self.dropout") else 0.3), name
    assert sentence_model(bert).dropout() == {"hidden": 0.1, "attention": 0.1}
    assert sentence_model(bert, **STILL).dropout() == {"hidden": 0.0, "attention": 0.0}


@pytest.mark.parametrize("kind", ["hidden_dropout", "attention_dropout"])
def test_each_dropout_alone_makes_the_embeddings_random(bert, kind):
    model = sentence_model(bert, **{**STILL, kind: 0.3})
    sentence = batch(1, 1)[0]
    assert not torch.equal(model.embed(sentence), model.embed(sentence))
    still = sentence_model(bert, **STILL)
    assert torch.equal(still.embed(sentence), still.embed(sentence))


def test_attention_dropout_reaches_the_attention(bert, monkeypatch):
    model, seen = sentence_model(bert, hidden_dropout=0.0, attention_dropout=0.2), []
    monkeypatch.setattr("simcse_bench.models.cpu_kernels._dropout", lambda x, p: seen.append((tuple(x.shape), p)) or x)
    model.embed([[2, 8, 9, 3]])
    last = (1, 4, 1, 4), 0.2  # for the first token alone
    assert seen == [((1, 4, 4, 4), 0.2)] * 2 + [last]


def test_embeddings_come_back_in_the_order_given(bert):
    model = sentence_model(bert, **STILL)
    texts = [row[0] for row in batch(15, 1)]
    together = model.embed(texts)
    for i, text in enumerate(texts):
        torch.testing.assert_close(together[i], model.embed([text])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_the_language_model_term_is_the_mean_over_the_masked_tokens(bert, cached, tied):
    weight, rows = 0.5, batch(8, 2)
    with_term = sentence_model(bert, mlm_weight=weight, mlm_tied=tied, cached_gradients=cached, **STILL)
    without = sentence_model(bert, cached_gradients=cached, **STILL)
    without.load_state_dict({k: v for k, v in with_term.state_dict().items() if not k.startswith("lm_head.")})
    total, grads = step(with_term, rows)
    contrast, base = step(without, rows)

    whole = AutoModelForMaskedLM.from_pretrained(bert).eval()
    whole.base_model.load_state_dict(with_term.encoders[0].state_dict(), strict=False)
    whole.cls.load_state_dict(with_term.lm_head.state_dict())
    decoder = whole.cls.predictions.decoder
    assert decoder.weight is whole.get_input_embeddings().weight
    if not tied:  # SimCSE train.py: the head's weights are copied into one of its own
        decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    texts = [row[k] for k in range(2) for row in rows]
    masked, labels = masked_copies(with_term, texts, 7)
    chosen, losses = 0, 0
    for sentence, label in zip(masked, labels, strict=True):
        logits = whole(input_ids=torch.tensor([sentence])).logits[0]
        for position, wanted in enumerate(label):
            if wanted != -100:
                losses = losses - torch.log_softmax(logits[position], -1)[wanted]
                chosen += 1
    assert chosen > 5
    assert total.item() == pytest.approx(contrast.item() + weight * losses.item() / chosen, abs=1e-5)
    (weight * losses / chosen).backward()
    query = "encoder.layer.1.attention.self.query.weight"
    expected = base[f"encoders.0.{query}"] + dict(whole.base_model.named_parameters())[query].grad
    torch.testing.assert_close(grads[f"encoders.0.{query}"], expected, atol=1e-5, rtol=1e-4)
    table = "embeddings.word_embeddings.weight"  # shared with the head where it is tied
    expected = base[f"encoders.0.{table}"] + dict(whole.base_model.named_parameters())[table].grad
    torch.testing.assert_close(grads[f"encoders.0.{table}"], expected, atol=1e-5, rtol=1e-4)
    own = "lm_head.predictions.decoder.weight"
    assert (own in grads) is not tied
    if not tied:
        torch.testing.assert_close(grads[own], decoder.weight.grad, atol=1e-5, rtol=1e-4)
        seen = sorted({t for s in (*masked, *texts) for t in s})
        unseen = [i for i in range(len(SPECIAL + WORDS)) if i not in seen]
        assert unseen
        assert not grads[f"encoders.0.{table}"][unseen].any()
        assert grads[own][unseen].abs().max() > 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_the_decoder_starts_as_the_word_embeddings_and_learns_apart_unless_tied(bert, roberta, tied):
    for folder, name in ((bert, "predictions.decoder"), (roberta, "decoder")):
        model = sentence_model(folder, mlm_weight=0.1, mlm_tied=tied)
        decoder, words = model.lm_head.get_submodule(name), model.encoders[0].get_input_embeddings()
        assert torch.equal(decoder.weight, words.weight)
        assert (decoder.weight is words.weight) is tied
        own = [n for n, _ in model.named_parameters() if n.startswith("lm_head.") and n.endswith("decoder.weight")]
        assert own == ([] if tied else [f"lm_head.{name}.weight"])


def test_special_tokens_are_never_masked_in_sentences(bert):
    model = sentence_model(bert, mlm_weight=0.1, mlm_probability=1.0)
    texts = [row[0] for row in batch(20, 1)]
    masked, labels = masked_copies(model, texts, 0)
    assert [len(x) for x in masked] == [len(x) for x in labels] == [len(x) for x in texts]
    for text, copy, label in zip(texts, masked, labels, strict=True):
        assert [copy[0], copy[-1]] == [text[0], text[-1]]
        assert label == [-100, *text[1:-1], -100]
    assert masked_copies(model, texts, 0) == (masked, labels)
    assert masked_copies(model, texts, 1)[0] != masked


def test_bfloat16_comes_near_float32(bert):
    rows = batch(8, 2)
    half = step(sentence_model(bert, dtype="bfloat16", **STILL), rows)
    full = step(sentence_model(bert, **STILL), rows)
    assert half[0].item() == pytest.approx(full[0].item(), abs=0.1)
    flat = [torch.cat([g.float().flatten() for g in x[1].values()]) for x in (half, full)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.98
    cached = sentence_model(bert, dtype="bfloat16", cached_gradients=True)
    plain = sentence_model(bert, dtype="bfloat16")
    flat = [torch.cat([g.float().flatten() for g in step(m, rows)[1].values()]) for m in (cached, plain)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.999


def test_the_mlp_is_the_same_with_a_language_model_head(bert):
    assert torch.equal(sentence_model(bert).mlp[0].weight, sentence_model(bert, mlm_weight=0.1).mlp[0].weight)


def test_the_mlp_is_drawn_anew_from_the_seed(bert):
    weights = [sentence_model(bert, seed=s).mlp[0].weight for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.allclose(weights[0], AutoModel.from_pretrained(bert).pooler.dense.weight)


def official_checkpoint(folder, bert, width=32):
    """What the official train.py saves: the encoder below ``bert.``, and the trained MLP (models.py, BertForCL)."""
    shutil.copytree(bert, folder)
    state = load_file(bert / "model.safetensors")
    drawn = torch.Generator().manual_seed(9)
    mlp = {"mlp.dense.weight": torch.randn(width, width, generator=drawn), "mlp.dense.bias": torch.ones(width)}
    state = {f"bert.{k}": v for k, v in state.items() if not k.startswith("pooler.")} | mlp
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return mlp


def test_a_trained_mlp_of_the_official_code_is_gone_on_with(bert, tmp_path):
    mlp = official_checkpoint(tmp_path / "official", bert)
    start = checkpoints.resolve(str(tmp_path / "official"), pooling="cls", head="none")
    model, random = load_model(start, TrainConfig(), CPU)
    assert torch.equal(model.mlp[0].weight, mlp["mlp.dense.weight"])
    assert torch.equal(model.mlp[0].bias, mlp["mlp.dense.bias"])
    assert random == ()
    _, random = load_model(checkpoints.resolve(str(bert), pooling="cls", head="none"), TrainConfig(), CPU)
    assert random == ("mlp",)
    model, random = load_model(start, TrainConfig(mlp="none"), CPU)
    assert (model.mlp, random) == (None, ())


def test_a_trained_mlp_of_another_width_is_refused(bert, tmp_path):
    official_checkpoint(tmp_path / "official", bert, width=16)
    with pytest.raises(UserError, match=r"its mlp\.dense is 16x16; expected one as wide as the pooled vectors"):
        sentence_model(tmp_path / "official")


def test_a_length_above_the_models_limit_is_refused(bert):
    with pytest.raises(UserError, match=r"max_length 49: .* takes at most 48 tokens"):
        sentence_model(bert, max_length=49)


CASES = {  # rows, columns, settings
    "self": (64, 1, {}),
    "cached": (64, 1, {"cached_gradients": True}),
    "uneven": (7, 2, {}),
    "uneven-cached": (7, 2, {"cached_gradients": True}),
    "symmetric": (16, 2, {"symmetric": True, "similarity": "dot"}),
    "hard": (15, 3, {"hard_negative_weight": 3.0}),
    "hard-symmetric": (8, 3, {"symmetric": True}),
    "several-hard": (7, 5, {"hard_negative_weight": 0.5}),
    "false-negatives": (9, 2, {"false_negative_threshold": 0.5}),
    "copy": (9, 1, {"same_mask": "copy"}),
    "matryoshka": (9, 2, {"matryoshka": (8, 16), "mlp": "none"}),
    "cosent": (13, 2, {"method": "cosent"}),
    "angle": (7, 2, {"method": "angle", "method_settings": {"positive_score": 3.0}, "cached_gradients": True}),
}

SCRIPT = """
import os, sys
sys.path[:0] = [{tests!r}, os.path.dirname({tests!r})]
from safetensors.torch import save_file
import torch
torch.set_num_threads(1)
from simcse_bench.training.gradients import backward
from simcse_bench.training.processes import average_gradients, join_processes
from steps import STILL, batch, scores, sentence_model
from test_gradients import CASES

here = join_processes("cpu")
assert (here.count, here.rank) == (2, int(os.environ["RANK"]))
assert here.any(here.rank == 1) and not here.any(False)
for name, (n, columns, settings) in CASES.items():
    for how in ("exact", "simcse"):
        model = sentence_model({bert!r}, gather=how, **STILL, **settings)
        gold = scores(model, n)
        gold = None if gold is None else gold[here.share(n)]
        loss = backward(model, batch(n, columns)[here.share(n)], here, 0, scores=gold)
        average_gradients(model.parameters(), here)
        grads = {{k: p.grad for k, p in model.named_parameters() if p.grad is not None}}
        save_file(grads | {{"loss": loss.reshape(1)}}, f"{{name}}-{{how}}-{{here.rank}}.safetensors")
here.wait()
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder where both processes left the averaged gradients of every case."""
    folder = tmp_path_factory.mktemp("processes")
    bert = tiny_bert(folder / "bert")
    here = os.path.dirname(__file__)  # noqa: PTH120
    (folder / "script.py").write_text(SCRIPT.format(tests=here, bert=str(bert)), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port, "OMP_NUM_THREADS": 1}  # fmt: skip
        with (folder / f"log-{rank}").open("w") as log:
            env = os.environ | {k: str(v) for k, v in settings.items()}
            started.append(subprocess.Popen([sys.executable, "script.py"], cwd=folder, stdout=log, stderr=log, env=env))
    try:
        codes = [p.wait(timeout=120) for p in started]
    finally:
        for p in started:
            p.kill()
    assert codes == [0, 0], "\n".join((folder / f"log-{rank}").read_text() for rank in range(2))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_gradients_of_one(two_processes, name):
    n, columns, settings = CASES[name]
    expected = step(sentence_model(two_processes / "bert", **STILL, **settings), batch(n, columns))
    for rank in range(2):
        found = load_file(two_processes / f"{name}-exact-{rank}.safetensors")
        same((found.pop("loss")[0], found), expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_simcses_gather_gives_half_of_them(two_processes, name):
    n, columns, settings = CASES[name]
    loss, grads = step(sentence_model(two_processes / "bert", **STILL, **settings), batch(n, columns))
    for rank in range(2):
        found = load_file(two_processes / f"{name}-simcse-{rank}.safetensors")
        same((found.pop("loss")[0], found), (loss, {k: g / 2 for k, g in grads.items()}), 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_cover_a_batch_once_and_evenly(rows, count):
    shares = [list(range(rows))[Processes(rank, count, CPU).share(rows)] for rank in range(count)]
    assert [i for share in shares for i in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
