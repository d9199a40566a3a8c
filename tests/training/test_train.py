"""`simcse-bench train` from the command line to the model folder, with a tiny BERT."""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from processes import stop_at
from safetensors.torch import load_file
from steps import sentence_model
from tiny import sentences, tiny_bert, write_tokenizer

from simcse_bench.errors import UserError
from simcse_bench.training import dry_run, run, selection
from simcse_bench.training import train as training
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.job import Job, prepare_job
from simcse_bench.training.optimizer import apply_update, learning_rate, make_optimizer
from simcse_bench.training.processes import Processes

CPU = Processes(0, 1, torch.device("cpu"))
OUT = Path("runs/x")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(out=OUT):
    return json.loads((out / "train.json").read_text(encoding="utf-8"))


def log(out=OUT):
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(out=OUT):
    return {e["step"]: e["loss"] for e in log(out) if "loss" in e}


def weights(out=OUT):
    return (out / "model.safetensors").read_bytes()


def table(path, columns, n=60):
    """Rows of a sentence, the same words in another order, and another sentence."""
    texts = sentences(n)
    rows = [(s, " ".join(reversed(s.split())), texts[i - 1]) for i, s in enumerate(texts)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("sent0", "sent1", "hard_neg")[:columns])
        writer.writerows(row[:columns] for row in rows)
    return path


def values(content):
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from values(part)
    else:
        yield content


def dev_of(cli, senteval, out=OUT):
    done = cli("eval", "--model", out, "--task", "stsb", "--split", "dev", "--data-dir", senteval, "--device", "cpu",
               "--format", "json", "-q", "--out", "results")  # fmt: skip
    assert done.code == 0, done.err
    return json.loads(done.out)["tasks"]["stsb"]["scores"]["spearman"]["all"]["value"]


# --- a run


def test_a_run_leaves_a_model_a_log_and_a_record(train, cli, senteval, tmp_path, bert):
    done = train("--track-geometry", "6", max_steps=12, eval_every=4, seed=7)
    assert done.code == 0, done.err
    names = {p.name for p in OUT.iterdir()}
    assert {"config.json", "model.safetensors", "modules.json", "simcse_bench.json", "train.json", "log.jsonl"} <= names
    assert "checkpoints" not in names
    assert not [n for n in names if n.startswith(".")]
    found = record()
    assert (found["status"], found["steps"], found["epochs"]) == ("finished", 12, 1.5)
    assert (found["config"]["seed"], found["config"]["batch_size"], found["config"]["model"]) == (7, 8, bert.name)
    assert (found["data"]["rows"], found["data"]["columns"], found["data"]["empty"]) == (60, 1, 0)
    assert re.fullmatch("[0-9a-f]{16}", found["data"]["fingerprint"])
    assert found["data"]["tokens"] == sum(len(s.split()) + 2 for s in sentences(60))
    assert found["seconds"] > 0
    assert found["sentences_per_second"] == pytest.approx(
        2 * sum(8 if (i + 1) % 8 else 4 for i in range(12)) / found["seconds"], rel=0.05
    )
    assert found["environment"]["processes"] == 1
    assert found["environment"]["versions"]["torch"] == torch.__version__
    assert found["dev"]["n"] == 1500
    everything = (OUT / "train.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in everything
    assert not [v for v in values(found) if isinstance(v, str) and v.startswith(("/", "~"))]
    assert [(m["step"], "dev" in m, "alignment" in m) for m in found["measured"]] == [
        (0, True, True), (4, True, False), (6, False, True), (8, True, False), (12, True, True)
    ]  # fmt: skip
    assert list(losses()) == [4, 6, 8, 10, 12]
    assert [e["step"] for e in log() if "loss" not in e] == [0, 4, 6, 8, 12]
    best = max((m for m in found["measured"] if m["step"] and "dev" in m), key=lambda m: m["dev"])
    assert found["kept"] == {"step": best["step"], "dev": best["dev"]}
    assert f"weights of step {best['step']} of 12, dev {best['dev']:.2f} (stsb)" in done.out
    assert dev_of(cli, senteval) == pytest.approx(best["dev"], abs=0.01)


@pytest.mark.parametrize("method", ["simcse", "esimcse"])
def test_a_records_memory_is_that_of_all_tensors(bert, method):
    model = sentence_model(bert, method=method, batch_size=8)
    encoder = sum(p.numel() for p in model.encoders[0].parameters())
    mlp = 32 * 32 + 32
    kept = encoder + 20 * 32 if method == "esimcse" else 0  # the momentum encoder, and a queue of 2.5 batches
    count = 8 if method == "esimcse" else 0  # how many of the queue are filled, a whole number of 8 bytes
    assert training.state_bytes(model) == 4 * (4 * (encoder + mlp) + kept) + count


def test_the_dev_score_with_an_mlp_kept_equals_that_of_eval(train, cli, senteval):
    assert train(eval_every=3, mlp="always", pooling="first_last").code == 0
    assert dev_of(cli, senteval) == pytest.approx(record()["kept"]["dev"], abs=0.01)


def test_the_loss_falls_on_what_can_be_learnt(train, tmp_path):
    path = table(tmp_path / "triplets.csv", 3, 12)
    done = train(train=path, max_steps=60, batch_size=12, learning_rate=1e-3, pooling="mean", mlp="none", dropout=0)
    assert done.code == 0, done.err
    found = losses()
    assert found[60] < 0.5 * found[10]
    assert found[60] < 2  # equal vectors for all sentences would give ln 24 = 3.2
    assert record()["data"]["columns"] == 3


def test_the_loss_falls_with_several_hard_negatives_a_row(train, tmp_path):
    with (path := tmp_path / "several.csv").open("w", encoding="utf-8", newline="") as stream:
        texts = sentences(40)
        rows = [(s, " ".join(reversed(s.split())), *texts[10 + i :: 10]) for i, s in enumerate(texts[:10])]
        csv.writer(stream).writerows([("s", "p", "neg1", "neg2", "neg3"), *rows])
    settings = {
        "batch_size": 10,
        "max_steps": 40,
        "learning_rate": 1e-3,
        "pooling": "mean",
        "mlp": "none",
        "dropout": 0,
    }
    for cached in (False, True):
        done = train(train=path, out=Path(f"runs/{cached}"), cached_gradients=cached, **settings)
        assert done.code == 0, done.err
    found = losses(Path("runs/False"))
    assert found[40] < 0.5 * found[10]
    assert losses(Path("runs/True")) == pytest.approx(found, abs=1e-3)
    assert record(Path("runs/True"))["data"]["columns"] == 5


def test_a_matryoshka_model_is_saved_whole_and_evaluated_at_any_width(train, cli, senteval, tmp_path):
    path = table(tmp_path / "pairs.csv", 2)
    assert train(train=path, mlp="none", pooling="mean", max_steps=3, out=Path("plain")).code == 0
    done = train(train=path, mlp="none", pooling="mean", max_steps=3, matryoshka="8,16")
    assert done.code == 0, done.err
    assert record()["config"]["matryoshka"] == [8, 16]
    assert "matryoshka" not in record(Path("plain"))["config"]
    assert weights() != weights(Path("plain"))
    for name in ("simcse_bench.json", "modules.json", "config_sentence_transformers.json"):
        one, other = ((out / name).read_text() if (out / name).exists() else None for out in (OUT, Path("plain")))
        assert one == other
    found = []
    for more in ((), ("--truncate-dim", 8)):
        done = cli("eval", "--model", OUT, "--task", "stsb", "--split", "dev", "--data-dir", senteval, "--device", "cpu",
                   "--format", "json", "-q", "--out", f"results{len(found)}", *more)  # fmt: skip
        assert done.code == 0, done.err
        found.append(json.loads(done.out)["tasks"]["stsb"]["scores"]["spearman"]["all"]["value"])
    assert found[0] != pytest.approx(found[1], abs=0.01)


def test_matryoshka_that_cannot_be_is_refused_in_a_line(train, bert):
    for settings, said in (
        ({"matryoshka": 8}, "with mlp train_only the first values learned would be the MLP's"),
        ({"matryoshka": 32, "mlp": "none"}, f"matryoshka 32: {bert.name}'s vectors have 32 values."),
        ({"matryoshka": "8,0", "mlp": "none"}, "expected different whole numbers above 0"),
    ):
        done = train(**settings)
        assert done.code == 2
        assert said in done.err
        assert [line for line in done.err.splitlines() if line.startswith("error")] == [done.err.splitlines()[-1]]


def test_two_columns_without_an_mlp(train, tmp_path):
    done = train(train=table(tmp_path / "pairs.csv", 2), mlp="none")
    assert done.code == 0, done.err
    assert record()["random_at_start"] == []
    assert record()["data"]["columns"] == 2


def test_with_the_masked_language_modelling_term(train, tmp_path, bert):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    folder = tmp_path / "mlm"
    BertForMaskedLM(BertConfig.from_pretrained(bert)).save_pretrained(folder)
    write_tokenizer(folder)
    same = {"model": folder, "mlp": "none", "dropout": 0, "learning_rate": 1e-9}
    done = train(**same, mlm_weight=0.1)
    assert done.code == 0, done.err
    assert record()["random_at_start"] == []
    assert train(**same, out=Path("runs/without")).code == 0
    assert losses()[6] > losses(Path("runs/without"))[6] + 0.1
    assert not [k for k in load_file(OUT / "model.safetensors") if k.startswith(("cls.", "lm_head"))]


@pytest.mark.parametrize("blank", [False, True])
def test_a_short_run_fills_the_words_of_the_rows_it_reaches_only(bert, text, monkeypatch, blank):
    if blank:
        text.write_text(text.read_text().replace("\n", "\n\n", 7), encoding="utf-8")
    asked = []

    def filler(*_):
        return lambda texts: asked.extend(texts) or [t.upper() if len(t) % 5 else " " for t in texts]

    monkeypatch.setattr("simcse_bench.training.augment.mlm_filler", filler)
    config = TrainConfig(model=str(bert), train=str(text), batch_size=8, eval_every=0, augmentation="mlm")
    whole, short = (prepare_job(dataclasses.replace(config, max_steps=steps), CPU) for steps in (7, 4))
    assert len(asked) == 60 + 4 * 8  # 7 batches may be more than an epoch's
    assert [short.rows(i) for i in range(4)] == [whole.rows(i) for i in range(4)]
    assert short.data.counts["rows"] == 60
    assert short.key() != whole.key()


@pytest.mark.parametrize(
    "changed", [{"encoders": 2}, {"augmentation": "word_deletion"}, {"objective": "next_sentence"}, {"same_mask": "replay"}]
)  # fmt: skip
def test_a_variant_of_the_positive_trains_other_weights(train, changed):
    assert train(out=Path("runs/plain")).code == 0
    done = train(**changed)
    assert done.code == 0, done.err
    assert weights() != weights(Path("runs/plain"))
    (name, value), *_ = changed.items()
    assert record()["config"][name] == value
    assert set(load_file(OUT / "model.safetensors")) == set(load_file("runs/plain/model.safetensors"))


def test_the_seed_decides_the_weights(train):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(out=Path(out), seed=seed).code == 0
    assert weights(Path("a")) == weights(Path("b"))
    assert weights(Path("a")) != weights(Path("c"))


def test_dropout_is_set_for_both_kinds(train):
    assert train(dropout=0.25).code == 0
    assert record()["dropout"] == {"hidden": 0.25, "attention": 0.25}


# --- selection


@pytest.fixture
def scripted(monkeypatch):
    """Dev scores by script; gives the encoder's weights at every one."""
    seen = []

    def script(*scores):
        def measure(self, encoder, score=True, shape=False):
            state = encoder.model.state_dict()
            seen.append({k: v.clone() for k, v in state.items()})
            return {"dev": scores[len(seen) - 1]}

        monkeypatch.setattr(selection.Dev, "measure", measure)
        return seen

    return script


def test_the_weights_of_the_best_dev_score_are_kept(train, scripted):
    seen = scripted(10.0, 50.0, 30.0, 50.0)
    done = train(max_steps=8, eval_every=2, learning_rate=1e-3)
    assert done.code == 0, done.err
    assert record()["kept"] == {"step": 4, "dev": 50.0}
    found = load_file(OUT / "model.safetensors")
    encoder = {k: v for k, v in found.items() if k in seen[1] and "pooler" not in k}
    assert len(encoder) > 20
    assert all(torch.equal(v, seen[1][k]) for k, v in encoder.items())
    assert not all(torch.equal(v, seen[3][k]) for k, v in encoder.items())
    assert not (OUT / "checkpoints").exists()


def test_the_best_weights_outlive_a_stop_and_later_checkpoints(train, scripted, monkeypatch):
    seen = scripted(50.0, 30.0, 20.0, 10.0)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        assert train("--save-every", "1", max_steps=8, eval_every=2, learning_rate=1e-3).code == 130
    assert sorted(RunFolder(OUT).checkpoints()) == [2, 5, 6]
    done = train("--resume", max_steps=8, eval_every=2, learning_rate=1e-3)
    assert done.code == 0, done.err
    assert record()["kept"] == {"step": 2, "dev": 50.0}
    found = load_file(OUT / "model.safetensors")
    assert all(torch.equal(v, seen[0][k]) for k, v in found.items() if k in seen[0] and "pooler" not in k)


def test_without_dev_scores_the_last_weights_are_kept(train):
    done = train()
    assert "no dev scores: the last weights are kept." in done.err
    assert record()["kept"] == {"step": 6, "dev": None}
    assert "no dev score" in done.out


def test_only_the_main_process_reads_the_best_weights_at_the_end(bert, text):
    """The others do not know which checkpoints are still there: the main one replaces and removes them."""

    class Second(Processes):
        def wait(self):
            pass

    config = TrainConfig(model=str(bert), train=str(text), batch_size=8, eval_every=0, max_steps=4)
    job = dataclasses.replace(prepare_job(config, CPU), processes=Second(1, 2, torch.device("cpu")))
    run = training.Run(job, RunFolder(OUT), lambda entry: None)
    run.state.step, run.state.best, run.state.best_step = 4, 50.0, 2
    run.finish()
    assert not OUT.exists()


# --- a folder that holds a run


def test_the_same_command_again_trains_nothing(train, monkeypatch):
    assert train().code == 0
    files = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in OUT.rglob("*") if p.is_file()}
    monkeypatch.setattr(training.Run, "update", lambda self: pytest.fail("trained again"))
    done = train()
    assert (done.code, done.out) == (0, "runs/x: weights of step 6 of 6, no dev score\n")
    assert "already there" in done.err
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in OUT.rglob("*") if p.is_file()} == files
    OUT.rename("runs/a b")  # as a shell takes it
    assert "evaluate with: simcse-bench eval 'runs/a b'\n" in train(out="runs/a b").err


def test_a_finished_run_resumed_trains_nothing(train, monkeypatch):
    assert train().code == 0
    monkeypatch.setattr(training.Run, "update", lambda self: pytest.fail("trained again"))
    done = train("--resume")
    assert (done.code, done.out) == (0, "runs/x: weights of step 6 of 6, no dev score\n")


def test_resume_alone_on_a_finished_run_prints_it(train, cli):
    assert train().code == 0
    done = cli("train", "--resume", "--out", OUT)
    assert (done.code, done.out) == (0, "runs/x: weights of step 6 of 6, no dev score\n"), done.err


def test_other_settings_in_the_folder_of_a_finished_run_are_refused(train):
    assert train().code == 0
    before = weights()
    done = train(temperature=0.1, seed=3)
    assert done.code == 2
    assert "temperature 0.05 there, 0.1 here" in done.err
    assert "seed 42 there, 3 here" in done.err
    assert "--force" in done.err
    assert weights() == before
    done = train("--force", temperature=0.1)
    assert done.code == 0, done.err
    assert weights() != before
    assert record()["config"]["temperature"] == 0.1
    assert [e["step"] for e in log()] == [6]


def test_other_text_under_the_same_name_is_refused(train, text):
    assert train().code == 0
    text.write_text("\n".join(sentences(60, seed=9)) + "\n", encoding="utf-8")
    done = train()
    assert done.code == 2
    assert "the files of its model or data" in done.err


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_unasked(train, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2").code == 130
    done = train()
    assert done.code == 2
    assert "a run stopped at step 4. --resume goes on, --force starts anew." in done.err
    done = train("--resume", temperature=0.1)
    assert done.code == 2
    assert "temperature 0.05 there, 0.1 here" in done.err
    assert sorted(RunFolder(OUT).checkpoints()) == [2, 4]
    assert train("--force").code == 0
    assert train(out=Path("whole")).code == 0
    assert weights() == weights(Path("whole"))


def test_resume_goes_on_where_it_stopped(train, cli, monkeypatch):
    assert train(out=Path("whole"), accumulation=2, warmup_steps=2).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2", accumulation=2, warmup_steps=2).code == 130
    steps = []
    update = training.Run.update
    monkeypatch.setattr(training.Run, "update", lambda self: (steps.append(self.state.step), update(self)))
    done = cli("train", "--resume", "--out", OUT, "--device", "cpu")
    assert done.code == 0, done.err
    assert steps == [4, 5]
    assert weights() == weights(Path("whole"))
    assert record()["config"] == record(Path("whole"))["config"]
    assert [e["step"] for e in log()] == [2, 4, 6]


@pytest.mark.parametrize("changed", [{"mlm_weight": 0.1}, {"mlm_weight": 0.1, "mlm_tied": True}, {"dtype": "float16"}])
def test_resume_with_a_head_or_a_scaler_goes_on_to_the_same_weights(train, monkeypatch, changed):
    assert train(out=Path("whole"), **changed).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2", **changed).code == 130
    kept = load_file(RunFolder(OUT).checkpoints()[4] / "model.safetensors")
    untied = "mlm_weight" in changed and "mlm_tied" not in changed
    assert ("lm_head.predictions.decoder.weight" in kept) is untied
    done = train("--resume", **changed)
    assert done.code == 0, done.err
    assert weights() == weights(Path("whole"))


def test_the_speed_after_a_resume_counts_only_what_was_embedded_since(train, monkeypatch):
    entries = []
    with monkeypatch.context() as patch:
        stop_at(patch, 16)
        assert train("--save-every", "16", max_steps=17).code == 130
    counted = training.Run.write_log

    def write_log(self):
        before, start = self.counted[0], self.state.seconds
        counted(self)
        entries.append((self.state.sentences - before, self.state.seconds - start))

    monkeypatch.setattr(training.Run, "write_log", write_log)
    assert train("--resume", max_steps=17).code == 0
    ((embedded, _),) = entries
    assert embedded == 2 * 8


def test_resume_notices_that_the_training_text_has_changed(train, text, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2").code == 130
    text.write_text("\n".join(sentences(60, seed=9)) + "\n", encoding="utf-8")
    done = train("--resume")
    assert done.code == 2
    assert sorted(RunFolder(OUT).checkpoints()) == [2, 4]


def test_resume_in_an_empty_folder_starts_from_the_beginning(train):
    assert train("--resume").code == 0
    assert train(out=Path("whole")).code == 0
    assert weights() == weights(Path("whole"))


@pytest.mark.parametrize("args", [(), ("--resume",), ("--force",)])
def test_a_folder_in_which_another_command_trains_is_left_alone(train, monkeypatch, args):
    stop_at(monkeypatch, 4)
    assert train().code == 130
    before = {p: p.read_bytes() for p in OUT.rglob("*") if p.is_file()}
    with RunFolder(OUT).locked():
        done = train(*args)
        assert done.code == 2
        assert "another command is training there" in done.err
    assert {p: p.read_bytes() for p in OUT.rglob("*") if p.is_file()} == before


def test_resume_and_force_exclude_each_other(train):
    done = train("--resume", "--force")
    assert done.code == 2
    assert "--resume and --force exclude each other" in done.err
    assert not OUT.exists()


def test_the_log_of_a_stopped_run_is_cut_at_its_checkpoint(train, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 11)
        assert train("--save-every", "6", max_steps=12).code == 130
    assert [e["step"] for e in log()] == [6, 10]
    with (OUT / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 11, "lo')
    assert train("--resume", max_steps=12).code == 0
    assert [e["step"] for e in log()] == [6, 10, 12]


# --- optimisation


def test_the_accumulation_note_says_that_negatives_do_not_grow(train):
    done = train(accumulation=3)
    assert done.code == 0
    assert "accumulation 3: 24 rows an update, but each anchor still meets the 7 other rows" in done.err
    assert any("accumulation 3" in note for note in record()["notes"])


def test_accumulated_gradients_are_the_mean_of_their_batches(bert, text, monkeypatch):
    seen = []

    def keep(model, optimizer, *rest):
        seen.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
        return torch.tensor(0.0)

    monkeypatch.setattr(training, "apply_update", keep)
    config = TrainConfig(
        model=str(bert), train=str(text), batch_size=8, eval_every=0, max_steps=2, hidden_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    for changed, updates in (({}, 2), ({"accumulation": 2}, 1)):
        run = training.Run(prepare_job(dataclasses.replace(config, **changed), CPU), RunFolder(OUT), lambda entry: None)
        for _ in range(updates):
            run.update()
    first, second, both = seen
    assert max(float(g.abs().max()) for g in both.values()) > 0.01
    for name, grad in both.items():
        torch.testing.assert_close(grad, (first[name] + second[name]) / 2, atol=1e-5, rtol=1e-4)
    assert any(not torch.allclose(first[n], second[n], atol=1e-3) for n in both)


def official_updates(batches, epochs, accumulation, max_steps=0):
    """Batches of every update as the loop of SimCSE trainers.py makes them, line by line."""
    per_epoch = max(batches // accumulation, 1)
    if max_steps:
        epochs, steps = max_steps // per_epoch + int(max_steps % per_epoch > 0), max_steps
    else:
        epochs, steps = math.ceil(epochs), math.ceil(epochs * per_epoch)
    updates, gathered = [], []
    for epoch in range(epochs):
        for step in range(batches):
            gathered.append(epoch * batches + step)
            whole = (step + 1) % accumulation == 0
            if whole or (batches <= accumulation and step + 1 == batches):
                updates.append(gathered)
                gathered = []
                if len(updates) == steps:
                    return updates
    raise AssertionError("the official loop ended before its own number of steps")


@given(
    st.integers(1, 40), st.integers(1, 12), st.one_of(st.integers(1, 400).map(lambda n: n / 100), st.integers(1, 5)),
    st.integers(0, 90),
)  # fmt: skip
@example(10, 4, 2, 0)
def test_every_update_has_the_batches_of_the_official_loop(batches, accumulation, epochs, max_steps):
    config = TrainConfig(batch_size=2, accumulation=accumulation, epochs=epochs, max_steps=max_steps)
    job = Job(config, None, None, range(2 * batches), None, CPU)
    expected = official_updates(batches, epochs, accumulation, max_steps)
    assert job.batches == batches
    assert job.steps == len(expected)
    assert [list(job.batches_of(step)) for step in range(job.steps)] == expected
    assert job.epoch(job.steps) == (expected[-1][-1] + 1) / batches
    assert job.epoch(0) == 0


def test_what_an_epoch_leaves_over_is_in_the_next_ones_first_update(bert, text):
    config = TrainConfig(model=str(bert), train=str(text), batch_size=6, eval_every=0, accumulation=4, epochs=2)
    job = prepare_job(config, CPU)
    assert (job.batches, job.steps) == (10, 4)
    assert [list(job.batches_of(i)) for i in range(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]  # fmt: skip


def update_of_transformers(weights, moments, gradients, step, rate, decay):
    """AdamW of transformers 4.2.1 (optimization.py, step) on one tensor, in float64; ``step`` from 1."""
    first, second = moments
    first.mul_(0.9).add_(gradients, alpha=1 - 0.9)
    second.mul_(0.999).addcmul_(gradients, gradients, value=1 - 0.999)
    size = rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    weights.addcdiv_(first, second.sqrt().add_(1e-8), value=-size)
    weights.add_(weights, alpha=-rate * decay)


class Weights(torch.nn.Module):
    """Matrices and vectors with gradients of 1 down to 1e-9, where epsilon decides the update."""

    device = torch.device("cpu")

    def __init__(self, config):
        super().__init__()
        drawn = torch.Generator().manual_seed(3)
        self.config, self.drawn = config, drawn
        self.matrix = torch.nn.Parameter(torch.randn(10, 7, generator=drawn) / 50)
        self.bias = torch.nn.Parameter(torch.randn(7, generator=drawn) / 50)
        self.sizes = 10.0 ** -torch.arange(10)

    def draw_gradients(self):
        self.matrix.grad = torch.randn(10, 7, generator=self.drawn) * self.sizes[:, None]
        self.bias.grad = torch.randn(7, generator=self.drawn) * self.sizes[3:]


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("half", [False, True])
def test_the_optimiser_is_that_of_transformers_4_2_1(decay, half):
    config = TrainConfig(weight_decay=decay, learning_rate=1e-3, max_grad_norm=0)
    model = Weights(config)
    optimizer, scaler = make_optimizer(model, config), torch.amp.GradScaler("cpu", enabled=half)
    scaler.scale(torch.ones(()))
    plain = {n: p.detach().double() for n, p in model.named_parameters()}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in plain.items()}
    taken = 0
    for step in range(100):
        model.draw_gradients()
        rate = learning_rate(config, step, 100)
        overflow = half and step in (0, 1, 40)  # an update that float16's scaler skips
        if not overflow:
            taken += 1
            for name, p in model.named_parameters():
                own = decay if name == "matrix" else 0.0
                update_of_transformers(plain[name], moments[name], p.grad.double(), taken, rate, own)
        for p in model.parameters():
            p.grad = p.grad * (math.inf if overflow else scaler.get_scale())
        apply_update(model, optimizer, scaler, config, step, rate, CPU)
    assert taken == (97 if half else 100)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.double(), plain[name], atol=2e-7, rtol=0)


def test_biases_and_layer_norms_are_not_decayed(bert, text):
    config = TrainConfig(model=str(bert), train=str(text), batch_size=8, eval_every=0, weight_decay=0.1, mlm_weight=0.1)
    made = training.Run(prepare_job(config, CPU), RunFolder(OUT), lambda entry: None)
    decays = {p: g["weight_decay"] for g in made.optimizer.param_groups for p in g["params"]}
    assert len(decays) == len(list(made.model.parameters()))
    for name, p in made.model.named_parameters():
        exempt = "bias" in name or "LayerNorm.weight" in name  # transformers 4.2.1 trainer.py, no_decay
        assert decays[p] == (0.0 if exempt else 0.1), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_training_in_16_bits_is_close_to_32(train, dtype):
    assert train(learning_rate=1e-4, dropout=0.0).code == 0
    expected = losses()
    done = train("--force", dtype=dtype, learning_rate=1e-4, dropout=0.0)
    assert done.code == 0, done.err
    assert losses() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_schedule_is_that_of_transformers(warmup):
    from transformers import get_linear_schedule_with_warmup

    config = TrainConfig(learning_rate=3e-4, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, 20)
    for step in range(20):
        assert learning_rate(config, step, 20) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_log_has_the_learning_rate_of_its_update(train):
    assert train(max_steps=20, learning_rate=1e-4).code == 0
    assert {e["step"]: e["learning_rate"] for e in log()} == pytest.approx({10: 1e-4 * 11 / 20, 20: 1e-4 / 20})


# --- dry run


def test_a_dry_run_tells_the_cost_and_writes_no_run(train):
    done = train("--dry-run", max_steps=0, epochs=2, eval_every=5)
    assert done.code == 0, done.err
    said = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.out.splitlines() if "  " in line)
    assert said["steps"] == "16 updates, 2.00 epochs, batch 8"
    assert said["data"].startswith("text.txt: 60 rows of 1 column, ")
    assert said["dev scores"] == "4 on stsb"
    assert "GB" in said["memory"]
    assert "GB" in said["disk"]
    assert re.fullmatch(r"about 1 min on cpu, [\d.]+ s an update, [\d.]+ s a dev score", said["time"])
    assert not OUT.exists()
    assert re.search(r"steps +1 update, .*GB at the peak of 1 update\n", train("--dry-run", max_steps=1).out, re.DOTALL)


def test_a_dry_run_counts_the_dev_scores(bert, text, monkeypatch):
    config = TrainConfig(model=str(bert), train=str(text), batch_size=8, epochs=2, eval_every=5, eval_task="mini-sts")
    monkeypatch.setattr(dry_run, "_dev_seconds", lambda run: 1000.0)
    whole = dry_run.estimate(config, run.RunOptions(OUT, device="cpu"), lambda line: None)[1]
    assert whole == pytest.approx(4000, abs=100)
    config = dataclasses.replace(config, eval_every=0)
    assert dry_run.estimate(config, run.RunOptions(OUT, device="cpu"), lambda line: None)[1] < 100


def test_the_tokens_of_a_dry_run_are_those_of_the_run(train, bert, text):
    config = TrainConfig(model=str(bert), train=str(text), batch_size=10, epochs=1, eval_every=0)
    said = dict(dry_run.estimate(config, run.RunOptions(OUT, device="cpu"), lambda line: None)[0])
    assert train(max_steps=0, batch_size=10).code == 0
    each = record()["data"]["tokens"] / 60
    assert said["tokens"] == f"{2 * record()['data']['tokens'] / 1e6:,.1f} million, {each:.1f} a sentence"


# --- errors


@pytest.mark.parametrize(
    "args, settings, said",
    [
        (["--recipe", "mini-unsop"], {}, "unknown recipe 'mini-unsop'; did you mean 'mini-unsup'?"),
        ([], {"temprature": 1}, "unknown field 'temprature'; did you mean 'temperature'?"),
        ([], {"temperature": "warm"}, "temperature=warm: expected a number"),
        ([], {"train": "missing.txt"}, "missing.txt: no such file"),
        ([], {"model": "./missing"}, "missing"),
        ([], {"eval_every": 2, "eval_task": "sts12"}, "Set eval_every 0"),
        ([], {"eval_every": 2, "eval_task": "stsB2"}, "did you mean 'stsb'?"),
        ([], {"batch_size": 1}, "batch_size 1: expected at least 2"),
        ([], {"max_rows": 1}, "1 rows are too few"),
        ([], {"warmup_steps": 6}, "warmup_steps 6: the run has only 6 updates"),
        ([], {"max_length": 500}, "max_length 500"),
        ([], {"max_length": 10**20}, "max_length 100000000000000000000: expected at least 3 tokens"),
        ([], {"max_rows": 2**63}, "max_rows 9223372036854775808: expected"),
        ([], {"epochs": "1e308", "max_steps": 0}, "epochs 1e+308: expected more than 0, at most 1e+06"),
        ([], {"dropout": 0.999999}, "hidden_dropout 0.999999: expected at least 0, at most 0.999"),
        ([], {"temperature": "1e308"}, "temperature 1e+308: expected"),
        ([], {"track_geometry": 2, "eval_task": "trec"}, "Set eval_every 0 (and track_geometry 0)"),
        (["--save-every", "0"], {}, "--save-every 0"),
        (["--progress", "loud"], {}, "unknown progress 'loud'"),
        (["--tracker", "tensorbord"], {}, "unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["--device", "cuda:99"], {}, "cuda:99"),
    ],
)
def test_a_wrong_command_is_told_and_leaves_a_finished_run_whole(train, args, settings, said):
    assert train(out=Path("runs/y")).code == 0
    done = train(*args, **settings)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not OUT.exists()
    before = {p.name: p.read_bytes() for p in Path("runs/y").rglob("*") if p.is_file()}
    assert train(*args, "--force", out=Path("runs/y"), **settings).code == 2
    assert {p.name: p.read_bytes() for p in Path("runs/y").rglob("*") if p.is_file()} == before


def test_a_ragged_table_is_told_with_its_line(train, tmp_path):
    path = tmp_path / "ragged.csv"
    path.write_text("a,b\nthe dog,the cat\nthe man,the cat,the dog\n", encoding="utf-8")
    done = train(train=path)
    assert done.code == 2
    assert "ragged.csv:3: 3 fields, expected 2" in done.err


def test_a_batch_larger_than_the_text_takes_all_rows(train):
    done = train(batch_size=1000, max_steps=0, epochs=3)
    assert done.code == 0, done.err
    assert (record()["steps"], record()["epochs"]) == (3, 3.0)


def test_a_column_that_makes_its_own_positive_takes_no_augmentation(train, tmp_path):
    done = train(train=table(tmp_path / "pairs.csv", 2), augmentation="crop")
    assert done.code == 2
    assert "augmentation: makes the positive of a one-column row" in done.err


def test_a_tracker_that_is_not_installed_is_told(train, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    done = train("--tracker", "wandb")
    assert done.code == 2
    assert "--tracker wandb: the package is not installed. Installed: none." in done.err
    assert not OUT.exists()


def test_a_tracker_gets_the_settings_and_every_entry(train, monkeypatch):
    seen = []

    class Fake:
        requires_logging_directory = False

        def __init__(self, name):
            seen.append(("name", name))

        def store_init_configuration(self, settings):
            seen.append(("seed", settings["seed"]))

        def log(self, entry, step):
            seen.append((step, sorted(entry)))

        def finish(self):
            seen.append(("finish", ""))

    monkeypatch.setattr("accelerate.tracking.LOGGER_TYPE_TO_CLASS", {"fake": Fake})
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [SimpleNamespace(value="fake")])
    done = train("--tracker", "fake", eval_every=6)
    assert done.code == 0, done.err
    numbers = ["epoch", "grad_norm", "learning_rate", "loss", "sentences_per_second", "tokens_per_second"]
    assert seen == [("name", "x"), ("seed", 42), (6, numbers), (6, ["dev"]), ("finish", "")]


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_batch_that_does_not_fit_is_told_with_what_takes_less(train, monkeypatch):
    def small(*given):
        raise NO_MEMORY

    monkeypatch.setattr(training, "backward", small)
    done = train("--device", "cpu", dtype="bfloat16")
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        "error: step 1: out of memory on cpu. What takes less, by --set: cached_gradients=true (the same gradients, "
        "chunk by chunk); gradient_checkpointing=true; max_length below 32; batch_size below 8 (another training)."
    )


def test_where_recorded_graphs_leave_no_memory_the_batch_is_done_without_them(train, monkeypatch):
    assert train().code == 0
    before, made, plain = weights(), [], training.backward

    class Recorded(training.Run):
        def __init__(self, *given):
            super().__init__(*given)
            self.model.graphs = "recorded"
            made.append(self.model)

    def beside_graphs(model, *given):
        loss = plain(model, *given) if model.graphs is None else None
        if loss is None:  # with half of the gradients there
            next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
            model.graphs = "recorded"
            raise NO_MEMORY
        return loss

    monkeypatch.setattr(training, "Run", Recorded)
    monkeypatch.setattr(training, "backward", beside_graphs)
    done = train("--force")
    assert done.code == 0, done.err
    assert made[0].graphs is None
    assert weights() == before


def test_a_run_that_ends_in_an_error_lets_its_graphs_go(train, monkeypatch):
    made = []

    class Recorded(training.Run):
        def update(self):
            made.append(self.model)
            self.model.graphs = "recorded"
            raise UserError("no more.")

    monkeypatch.setattr(training, "Run", Recorded)
    assert train().code == 2
    assert made[0].graphs is None


def test_a_diverged_run_names_the_step_and_exports_nothing(train):
    done = train("--save-every", "1", learning_rate=1e30, max_grad_norm=0)
    assert done.code == 2
    found = re.search(r"step (\d+): loss \S+, gradient norm \S+: training has diverged", done.err)
    assert found, done.err
    assert "learning_rate 1e+30 too high" in done.err
    assert "Traceback" not in done.err
    assert not (OUT / "model.safetensors").exists()
    assert max(RunFolder(OUT).checkpoints()) == int(found[1]) - 1
    assert f"The checkpoint of step {int(found[1]) - 1} is kept" in done.err


def test_a_forced_run_that_fails_leaves_no_other_runs_weights_under_its_record(train):
    assert train().code == 0
    done = train("--force", learning_rate=1e30, max_grad_norm=0)
    assert done.code == 2
    assert record()["status"] == "finished" or not (OUT / "model.safetensors").exists()


# --- real weights and data


def _found(real_data, name):
    for parent in real_data.parents:
        if (parent / name).is_file():
            return parent / name
    pytest.skip(f"no {name} beside the real data")


@pytest.mark.data
@pytest.mark.parametrize(
    "recipe, name", [("mini-unsup", "text/wikipedia.txt"), ("mini-sup", "nli/nli_triplets.csv")]
)  # fmt: skip
def test_a_mini_recipe_on_real_data(cli, minilm, real_data, recipe, name):
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from simcse_bench.evaluation.evaluate import embed
    from simcse_bench.models.open import open_model

    path = _found(real_data, name)
    settings = (
        "max_steps=6",
        "eval_every=3",
        "max_rows=240",
        "batch_size=40",
        "learning_rate=3e-5",
        "dtype=float32",
    )
    done = cli("train", "--recipe", recipe, "--model", minilm, "--train", path, "--data-dir", real_data, "--out", OUT,
               "--device", "cpu", *(part for s in settings for part in ("--set", s)))  # fmt: skip
    assert done.code == 0, done.err
    found = record()
    assert [m["step"] for m in found["measured"]] == [3, 6]
    assert dev_of(cli, real_data) == pytest.approx(found["kept"]["dev"], abs=0.01)
    assert found["kept"]["dev"] > 70
    texts = ["A man is playing a guitar.", "The cat sat on the mat, and then it slept for a long while.", "no"]
    ours = embed(open_model(str(OUT), device="cpu").load(), texts)
    theirs = SentenceTransformer(str(OUT), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_folder_of_another_model_is_the_start(train, tmp_path):
    """Another start gives other weights under the same settings, and the record tells them apart."""
    assert train().code == 0
    other = tiny_bert(tmp_path / "other", seed=5)
    done = train(model=other)
    assert done.code == 2
    assert "model 'tiny-bert' there, 'other' here" in done.err
