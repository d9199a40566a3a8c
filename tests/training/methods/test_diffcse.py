import json
import math
import shutil

import pytest
import torch
from steps import (
    batch,
    cosine,
    cross_entropy,
    largest_difference,
    nearly,
    refused,
    resumed_is_the_same,
    same,
    sentence_model,
    step,
)
from tiny import SPECIAL, WORDS, write_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from simcse_bench.errors import UserError
from simcse_bench.models.open import open_model
from simcse_bench.training.gradients import masked_copies
from simcse_bench.training.optimizer import make_optimizer


def masked_lm(folder, width=32, layers=3, seed=0, spare=0, words=()):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS) + len(words) + spare, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=48, initializer_range=0.4,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{word}\n" for word in words)
    return folder


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A start that is a masked language model."""
    return masked_lm(tmp_path_factory.mktemp("models") / "lm")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A generator of another size, with places in its vocabulary that no token has."""
    return masked_lm(tmp_path_factory.mktemp("models") / "small", 16, 1, seed=5, spare=40)


def diffcse(folder, dropout=None, dtype="float32", chunk_tokens=32, **own):
    rates = {} if dropout is None else {"hidden_dropout": dropout, "attention_dropout": dropout}
    return sentence_model(folder, model=str(folder), method="diffcse", mlp="none", dtype=dtype, chunk_tokens=chunk_tokens,
                          method_settings=own, **rates)  # fmt: skip


def normal(x):
    """BatchNorm without weights, (n, d)."""
    return (x - x.mean(0)) / (((x - x.mean(0)) ** 2).mean(0) + 1e-5).sqrt()


def reference(folder, generator, model, rows, weight, seed=7):
    """Loss and gradients by transformers' own models, sentence by sentence in float64, by the formula."""
    one, two = (
        AutoModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").double().eval()
        for _ in range(2)
    )
    writer = AutoModelForMaskedLM.from_pretrained(generator).eval()
    own = {n: p.detach().double().requires_grad_() for n, p in model.method.named_parameters() if "encoder" not in n}
    up, scale, shift, down, head, bias = (
        own[n] for n in ("projector.0.weight", "projector.1.weight", "projector.1.bias", "projector.3.weight",
                         "discriminator.head.weight", "discriminator.head.bias")
    )  # fmt: skip
    sentences = [row[0] for row in rows] * 2
    h = torch.stack([one(input_ids=torch.tensor([s])).last_hidden_state[0, 0] for s in sentences])
    z = normal((normal(h @ up.T) * scale + shift).clamp_min(0) @ down.T)
    n, longest, kinds = len(rows), max(map(len, sentences)), set()
    logits = [[cosine(z[i], z[n + j]) / 0.2 for j in range(n)] for i in range(n)]
    loss = sum(cross_entropy(row, i) for i, row in enumerate(logits)) / n
    masked, _ = masked_copies(model, sentences, seed, model.method.settings.masking)
    for vector, sentence, given in zip(z, sentences, masked, strict=True):
        with torch.no_grad():
            scores = writer(input_ids=torch.tensor([given])).logits[0, :, : len(SPECIAL + WORDS)]
        written = [sentence[0], *scores.argmax(-1)[1:].tolist()]
        embedded = two.embeddings(torch.tensor([written]))
        embedded = torch.cat([vector[None, None], embedded[:, 1:]], 1)
        states = two.encoder(embedded).last_hidden_state[0]
        for state, there, here in zip(states, written, sentence, strict=True):
            kinds.add(there != here)
            loss = loss + weight * cross_entropy(list(head @ state + bias), int(there != here)) / (2 * n * longest)
    assert kinds == {True, False}
    loss.backward()
    grads = {f"encoders.0.{k}": p.grad for k, p in one.named_parameters() if p.grad is not None}
    grads |= {f"method.discriminator.encoder.{k}": p.grad for k, p in two.named_parameters() if p.grad is not None}
    grads |= {f"method.{k}": p.grad for k, p in own.items()}
    return loss, {k: g.float() for k, g in grads.items()}


@pytest.mark.parametrize("generator", ["", "small"])
def test_loss_and_gradients_equal_the_formula_on_transformers_own_models(lm, generator, request):
    given = request.getfixturevalue(generator) if generator else lm
    own = {"generator": str(given)} if generator else {}
    model, rows = diffcse(lm, 0.0, replaced_weight=2.0, **own), batch(6, 1)
    assert len(model.chunks([row[0] for row in rows])) > 1
    same(step(model, rows), reference(lm, given, model, rows, 2.0), 1e-4)  # as far as float32 takes the formula itself


def test_two_sentences_by_hand(lm):
    """Two rows less their mean are opposite: cosines of 1 and -1; where nothing is known a token's loss is log 2."""
    rows = [[[2, 8, 9, 3]], [[2, 10, 11, 12, 13, 3]]]
    plain = math.log(1 + math.exp(-2 / 0.2))
    assert step(diffcse(lm, 0.0, replaced_weight=0.0), rows)[0].item() == nearly(plain)
    model = diffcse(lm, 0.0, replaced_weight=0.3)
    nn.init.zeros_(model.method.discriminator.head.weight)
    nn.init.zeros_(model.method.discriminator.head.bias)
    assert step(model, rows)[0].item() == nearly(plain + 0.3 * math.log(2) * (4 + 6) / (6 + 6))  # of 12 places, 10


def test_without_projector_and_discriminator_it_is_simcse(lm):
    rows = batch(8, 1)
    plain = sentence_model(lm, model=str(lm), mlp="none")
    model = diffcse(lm, replaced_weight=0.0)
    model.method.projector = nn.Identity()
    found, expected = step(model, rows), step(plain, rows)
    own = {n: g for n, g in found[1].items() if n.startswith("method.")}
    assert own
    assert not any(g.any() for g in own.values())
    same((found[0], {n: g for n, g in found[1].items() if n not in own}), expected, 1e-6)


@pytest.mark.parametrize("change", [{"masking": 0.9}, {"replaced_weight": 1.0}, {"generator": "small"}])
def test_settings_matter(lm, small, change):
    change = {"generator": str(small)} if "generator" in change else change
    rows = batch(8, 1)
    one, other = (step(diffcse(lm, 0.0, **{"replaced_weight": 0.1} | own), rows) for own in ({}, change))
    assert abs(one[0] - other[0]) > 1e-4


def test_the_chunk_size_changes_nothing(lm):
    rows = batch(8, 1)
    small, large = (diffcse(lm, 0.0, chunk_tokens=n, replaced_weight=1.0) for n in (33, 8192))
    same(step(large, rows), step(small, rows), 5e-5)


def test_dropout_is_on_in_encoder_and_discriminator_and_not_in_the_generator(lm):
    model, rows = diffcse(lm, 0.3), batch(6, 1)
    assert largest_difference(step(model, rows, seed=7), step(diffcse(lm, 0.0), rows, seed=7)) > 1e-3
    ids = torch.tensor([rows[0][0]])
    real, vector = torch.ones_like(ids), torch.zeros(1, 32)
    assert not torch.equal(*(model.method.discriminator(ids, real, vector) for _ in range(2)))
    (generator,) = model.method.generator
    assert torch.equal(*(generator(input_ids=ids).logits for _ in range(2)))
    assert not generator.training


def test_what_is_written_leaves_the_first_token_and_the_padding(lm):
    model, drawn = diffcse(lm), torch.Generator().manual_seed(0)
    ids = torch.randint(len(SPECIAL), len(SPECIAL + WORDS), (3, 9), generator=drawn)
    real = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 5, 2)])
    written = model.method.written(ids, ids, real)
    assert torch.equal(written[:, 0], ids[:, 0])
    assert torch.equal(written[real == 0], ids[real == 0])
    assert (written != ids).sum() > 5


def test_the_generator_is_neither_trained_nor_saved(lm):
    model, rows = diffcse(lm, replaced_weight=1.0), batch(6, 1)
    (generator,) = model.method.generator
    before = {n: p.clone() for n, p in generator.named_parameters()}
    step(model, rows)
    chosen = {id(p) for group in make_optimizer(model, model.config).param_groups for p in group["params"]}
    assert chosen == {id(p) for p in model.parameters()}
    for name, p in generator.named_parameters():
        assert id(p) not in chosen
        assert p.grad is None
        assert torch.equal(p, before[name])
    names = {name for name, _ in model.named_parameters()}
    assert {name.partition(".")[0] for name in names} == {"encoders", "method"}
    assert {name.split(".")[1] for name in names if name.startswith("method.")} == {"projector", "discriminator"}


def test_the_discriminator_starts_as_the_encoder_and_learns_apart(lm):
    model = diffcse(lm)
    one, two = model.encoders[0].state_dict(), model.method.discriminator.encoder.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not {p.data_ptr() for p in model.encoders[0].parameters()} & {
        p.data_ptr() for p in model.method.discriminator.parameters()
    }


def test_a_resumed_run_has_the_same_bits(tmp_path, lm, text):
    changed = resumed_is_the_same(tmp_path, lm, text, method="diffcse", mlp="none")
    own = {name for name in changed if name.startswith("method.")}
    assert {"method.projector.1.running_mean", "method.projector.4.running_var", "method.projector.0.weight",
            "method.discriminator.head.weight", "method.projector.1.num_batches_tracked"} <= own  # fmt: skip
    assert any(name.startswith("method.discriminator.encoder.") for name in own)


def test_the_encoder_alone_is_written(train, lm):
    assert train(model=lm, method="diffcse", mlp="none", max_steps=2).code == 0
    written, start = (AutoModel.from_pretrained(folder, add_pooling_layer=False) for folder in ("runs/x", lm))
    assert written.state_dict().keys() == start.state_dict().keys()
    assert open_model("runs/x", device="cpu").provenance["head"] == "none"


def test_what_a_generator_holds_decides_the_run_and_not_where_it_is(train, lm, small, tmp_path):
    own = {"model": lm, "method": "diffcse", "mlp": "none", "max_steps": 2}
    shutil.copytree(small, tmp_path / "one")
    assert train(**own, generator=tmp_path / "one").code == 0
    record = json.loads((tmp_path / "runs/x/train.json").read_text())
    assert str(tmp_path) not in json.dumps(record)
    assert record["method_models"]["generator"]["files"]["model.safetensors"]
    (tmp_path / "one").rename(tmp_path / "two")
    assert train(**own, generator=tmp_path / "two").code == 0
    masked_lm(tmp_path / "two", 16, 1, seed=6, spare=40)
    other = train(**own, generator=tmp_path / "two")
    assert (other.code, "holds another finished run" in other.err) == (2, True)


def test_it_trains_in_bfloat16(lm):
    rows = batch(8, 1)
    full, half = (step(diffcse(lm, 0.0, dtype, replaced_weight=0.0), rows) for dtype in ("float32", "bfloat16"))
    assert half[0].item() == pytest.approx(full[0].item(), abs=0.2)
    assert all(g.isfinite().all() for g in step(diffcse(lm, 0.0, "bfloat16"), rows)[1].values())


# --- what it cannot work with


def test_what_does_not_go_with_it_is_refused(cli):
    assert "method diffcse: its projector takes the MLP's place, in training only; set mlp none." in refused(
        cli, "method=diffcse"
    )
    none = ("method=diffcse", "mlp=none")
    assert "method diffcse: not with cached_gradients" in refused(cli, *none, "cached_gradients=true")
    assert "method diffcse: its projector takes whole vectors; not with matryoshka." in refused(
        cli, *none, "matryoshka=64"
    )
    assert "masking 1.5: expected from 0 to 1." in refused(cli, *none, "masking=1.5")


def test_a_start_without_a_language_model_needs_a_generator(told, bert, small, lm, train):
    own = {"method": "diffcse", "mlp": "none", "max_steps": 1}
    said = told(**own, model=bert)
    assert said.startswith("method diffcse: tiny-bert holds no language model's head; set generator to a masked")
    assert train(**own, model=bert, generator=small).code == 0


def test_a_generator_that_is_none_is_told(told, lm, bert, tmp_path):
    own = {"model": lm, "method": "diffcse", "mlp": "none"}
    assert told(**own, generator="./no/such") == "generator ./no/such: model './no/such': no such folder."
    assert "tiny-bert holds no language model's head" in told(**own, generator=bert)
    other = masked_lm(tmp_path / "other", words=["more"])
    assert f"generator other: its vocabulary is not that of {lm}; set generator to" in told(**own, generator=other)
    (other / "model.safetensors").write_bytes(b"x" * 100)
    assert "method diffcse: no masked language model: other: transformers cannot load" in told(**own, generator=other)


def test_an_encoder_whose_embeddings_are_narrower_is_refused(tmp_path):
    from transformers import ElectraConfig, ElectraForMaskedLM

    folder = tmp_path / "electra"
    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=len(SPECIAL + WORDS), embedding_size=16, hidden_size=32, num_hidden_layers=1,
                           num_attention_heads=4, intermediate_size=64, max_position_embeddings=48)  # fmt: skip
    ElectraForMaskedLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    with pytest.raises(UserError, match="method diffcse: ElectraModel has no embedding layer like BERT's"):
        diffcse(folder)


def test_more_than_one_process_is_refused(bert, text):
    from simcse_bench.training.config import TrainConfig
    from simcse_bench.training.job import prepare_job
    from simcse_bench.training.processes import Processes

    config = TrainConfig(model=str(bert), train=str(text), method="diffcse", mlp="none", eval_every=0)
    with pytest.raises(UserError, match="method diffcse: trains in one process, not in 2"):
        prepare_job(config, Processes(0, 2, torch.device("cpu")))
