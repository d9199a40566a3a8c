"""What ships with the package: the mini encoder, its data, and the commands that use them without a network."""

import csv
import importlib.util
import json
import re
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from simcse_bench import bundled, evaluate, open_model
from simcse_bench.bundled import builtin_tasks_dir
from simcse_bench.data.labelled import read_labelled
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.models import cpu_kernels
from simcse_bench.training.recipes import recipe, with_settings

DATA = builtin_tasks_dir() / "mini"
SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the embedded default reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def plain(sentence):
    return re.sub(r"\W+", " ", sentence.lower()).strip()


def pairs(split):
    return read_task_pairs(load_task("mini-sts"), split, "senteval", None)


def sentences_of(found):
    return {plain(s) for s in (*found.left, *found.right)}


# --- the data


REGISTERS = {"captions", "headlines", "questions", "answers", "news"}


def test_the_pairs_are_spread_over_the_scale_and_the_registers():
    for found in (pairs("dev"), pairs("test")):
        assert len(found.gold) >= 1000
        share = np.histogram(found.gold, bins=[0, 1, 2, 3, 4, 5])[0] / len(found.gold)
        assert 0.12 < share.min() < share.max() < 0.28
        assert set(found.subset) == REGISTERS


def test_the_gold_score_is_the_mean_of_two_ratings_that_agree():
    lines = [line.split("\t") for path in DATA.glob("sts/*.tsv") for line in path.read_text("utf-8").splitlines()]
    gold, writer, rater = np.array([[line[0], *line[4:]] for line in lines], dtype=float).T
    assert np.abs(gold - (writer + rater) / 2).max() < 0.006  # gold has two digits
    # what tasks/mini/README.md says
    assert round(float(np.corrcoef(writer, rater)[0, 1]), 3) == 0.966
    assert round(float(np.abs(writer - rater).mean()), 2) == 0.33


def test_word_overlap_tells_something_but_not_all():
    found = pairs("test")
    words = [(set(plain(a).split()), set(plain(b).split())) for a, b in zip(found.left, found.right, strict=True)]
    overlap = [len(a & b) / len(a | b) for a, b in words]
    assert 0.4 < spearmanr(found.gold, overlap).statistic < 0.65


def test_the_minimal_pairs_fool_word_overlap():
    lines = [
        line.split("\t") for path in DATA.glob("minimal-pairs/*.tsv") for line in path.read_text("utf-8").splitlines()
    ]
    assert {"negation", "roles", "number", "tense", "part-whole", "sense", "paraphrase"} <= {line[4] for line in lines}
    read = [read_task_pairs(load_task("mini-minimal-pairs"), split, "senteval", None) for split in ("dev", "test")]
    assert sum(len(r.gold) for r in read) == len(lines) == 922
    assert not sentences_of(read[0]) & sentences_of(read[1])


def test_dev_and_test_share_no_sentence():
    assert not sentences_of(pairs("dev")) & sentences_of(pairs("test"))


def test_the_training_text_holds_no_sentence_of_the_evaluation():
    lines = bundled.text_file("mini-sentences").read_text("utf-8").splitlines()
    with bundled.text_file("mini-nli").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert len({plain(line) for line in lines}) == len(lines) >= 10_000
    assert len({plain(row[0]) for row in rows}) == len(rows) >= 4000
    assert all(len(row) == 3 and all(row) and len(set(row)) == 3 for row in rows)
    trained = {plain(s) for s in lines} | {plain(s) for row in rows for s in row}
    probe = {plain(s) for s in read_labelled(load_task("mini-probe"), None).texts}
    assert not trained & (sentences_of(pairs("dev")) | sentences_of(pairs("test")) | probe)


def test_sentences_vary_in_length_form_and_beginning():
    lines = bundled.text_file("mini-sentences").read_text("utf-8").splitlines()
    words = [len(line.split()) for line in lines]
    assert min(words) <= 3
    assert np.percentile(words, 95) >= 25
    assert 15 < np.mean(words) < 20
    assert sum(line.endswith("?") for line in lines) > 100
    # a pattern with its words exchanged shows as many sentences that begin alike
    begun = Counter(tuple(plain(line).split()[:4]) for line in lines)
    assert begun.most_common(1)[0][1] / len(lines) < 0.002


# --- the encoder


def test_the_encoder_is_a_plain_transformers_folder_of_the_promised_size():
    from transformers import AutoModel, AutoTokenizer

    folder = bundled.model_folder()
    assert sum(p.stat().st_size for p in folder.iterdir()) < 17e6
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "bert"
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.tokenize("The CAT sat.") == tokenizer.tokenize("the cat sat.")
    found = json.loads((folder / "pretraining.json").read_text("utf-8"))
    assert found["tokens"] > 1e6
    losses = [loss for _, loss in found["loss"]]
    assert losses[-1] < losses[0] - 2


def test_the_encoder_finds_the_paraphrase(cli):
    from simcse_bench.evaluation.evaluate import embed
    from simcse_bench.evaluation.metrics import paired_cosine
    from simcse_bench.models.open import open_model

    texts = [
        "The bakery sells fresh bread.",
        "You can buy fresh bread at the bakery.",
        "My laptop needs a new battery.",
    ]
    vectors = embed(open_model("mini", device="cpu").load(), texts)
    near, far = paired_cosine(vectors[[0, 0]], vectors[[1, 2]])
    assert near > far + 0.1


def test_a_revision_of_it_is_refused(cli):
    done = cli("eval", "--model", "mini", "--revision", "main")
    assert done.code == 2
    assert "has no revisions" in done.err


# --- the commands


def test_eval_without_data_takes_the_embedded_suite_and_says_so(cli):
    done = cli("eval", "--model", "mini", "--device", "cpu")
    assert done.code == 0, done.err
    assert "no real data is configured: suite mini" in done.err
    assert "SIMCSE_BENCH_DATA" in done.err
    assert "embedded mini encoder" in done.out
    assert "for trying, no benchmark" in " ".join(done.out.split())
    report = json.loads(Path("results/mini/mini.json").read_text())
    assert report["model"]["embedded"] is True
    assert set(report["tasks"]["mini-sts"]["subsets"]) >= {"captions", "questions"}
    assert report["average"]["spearman"]["all"]["value"] > 60
    page = Path("results/mini/mini.md").read_text("utf-8")
    assert "ancestor all-MiniLM-L6-v2 was trained on sentence pairs" in page
    assert cli("report", "results").code == 0
    assert "(embedded)" in Path("results/mini/leaderboard.md").read_text("utf-8")


def test_the_title_goes_by_the_task_not_by_the_suites_name(cli, bert, senteval, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "suites.yaml").write_text("minis: [stsb]\n")
    for args, marked in (
        (("--suite", "minis", "--tasks-dir", tmp_path / "own"), False),
        (("--task", "mini-sts"), True),
    ):
        done = cli("eval", "--model", bert, "--pooling", "cls", "--head", "none", "--data-dir", senteval, "--device",
                   "cpu", *args)  # fmt: skip
        assert done.code == 0, done.err
        assert ("embedded data" in done.out) is marked


def test_eval_with_data_takes_the_real_suite(cli, senteval):
    done = cli("eval", "--model", "mini", "--device", "cpu", "--data-dir", senteval, "--limit", "20")
    assert done.code == 0, done.err
    assert Path("results/sts/mini--first20.json").is_file()


def test_a_model_of_the_users_own_never_falls_back(cli, bert):
    done = cli("eval", "--model", bert, "--pooling", "cls", "--head", "none")
    assert done.code == 2  # the Hub is not reached: an error, not another suite


def test_the_probe_suite(cli):
    done = cli("eval", "--model", "mini", "--suite", "mini-transfer", "--device", "cpu", "--probe", "fast")
    assert done.code == 0, done.err
    report = json.loads(Path("results/mini-transfer/mini--fast.json").read_text())
    assert report["tasks"]["mini-probe"]["n"] == 520
    assert report["average"]["accuracy"]["all"]["value"] > 55


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("name, text", [("mini-unsup", "mini-sentences"), ("mini-sup", "mini-nli")])
def test_the_recipes_train_and_their_models_stay_marked(cli, name, text):
    done = cli("train", "--recipe", name, "--out", "runs/x", "--set", "max_steps=4", "--set", "eval_every=4",
               "--set", "batch_size=16", "--device", "cpu")  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads(Path("runs/x/train.json").read_text())
    assert (record["data"]["name"], record["data"]["origin"]) == (text, "embedded")
    assert record["config"]["eval_task"] == record["dev"]["task"] == "mini-sts"
    assert (record["config"]["model"], record["model"]["embedded"]) == ("mini", True)
    done = cli("eval", "--model", "runs/x", "--device", "cpu")
    assert done.code == 0, done.err
    assert "embedded mini encoder" in done.out
    report = json.loads(next(Path("results/mini").glob("*.json")).read_text())
    assert report["model"]["embedded"] is True


def test_the_dev_task_auto_is_the_real_one_where_its_data_is(cli, senteval, monkeypatch):

    config = recipe("mini-unsup")
    assert config.eval_task == "auto"
    assert config.settled().eval_task == "mini-sts"
    assert config.settled(DataSource(senteval)).eval_task == "stsb"
    monkeypatch.setenv("SIMCSE_BENCH_DATA", str(senteval))
    assert config.settled().eval_task == "stsb"
    assert with_settings(config, ["eval_task=sickr"]).settled().eval_task == "sickr"


@pytest.mark.parametrize("native, dtype", [(True, "bfloat16"), (False, "float32")])
def test_the_dtype_auto_is_bfloat16_where_the_machine_multiplies_in_it(monkeypatch, native, dtype):
    monkeypatch.setattr(cpu_kernels, "multiplies_in_bfloat16", lambda device: native)
    config = recipe("mini-unsup")
    assert (config.dtype, config.settled().dtype) == ("auto", dtype)
    assert with_settings(config, ["dtype=float16"]).settled().dtype == "float16"


def test_the_dtype_auto_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(cpu_kernels, "processor_multiplies_in_bfloat16", lambda: False)
    where = DataSource()
    found = {device: recipe("mini-unsup", (), where, device).dtype for device in ("auto", "cuda:1", "cpu")}
    assert found == {"auto": "bfloat16", "cuda:1": "bfloat16", "cpu": "float32"}


def test_resume_finds_the_run_of_an_automatic_dev_task(cli):
    args = ("train", "--recipe", "mini-unsup", "--out", "runs/x", "--set", "max_steps=2", "--set", "batch_size=8",
            "--device", "cpu")  # fmt: skip
    assert cli(*args).code == 0
    done = cli(*args, "--resume")
    assert done.code == 0, done.err
    assert "already there" in done.err


@pytest.mark.slow
def test_the_first_training_improves_on_the_encoders_own_best_pooling(cli):
    """What the README promises: about three points on the test split; 1.5 allows for another processor's rounding."""
    assert cli("train", "--recipe", "mini-unsup", "--out", "runs/unsup", "--device", "cpu").code == 0
    for model in ("mini", "runs/unsup"):
        assert cli("eval", model, "--device", "cpu", "--suite", "mini").code == 0
    reports = [json.loads(Path(f"results/mini/{name}.json").read_text()) for name in ("mini", "runs__unsup")]
    scores = [report["average"]["spearman"]["all"]["value"] for report in reports]
    own = ("mean", "first_last", "embedding_last", "cls+mean", "cls+embedding_last")
    encoders = [open_model("mini", pooling=p, head="none", device="cpu").load() for p in own]
    tried = [evaluate(e, [load_task("mini-sts")]).average["spearman"]["all"]["value"] for e in encoders]
    assert scores[0] > max(tried[:3])  # cls is the best single one
    assert scores[1] > max(scores[0], *tried) + 1.5


PAPER = Path(__file__).parent.parent / "results" / "embedded" / "simcse-2021-mini"
SWEEP = PAPER / "ablations" / "dropout-mini"


@pytest.mark.skipif(not PAPER.is_dir(), reason="the committed results are in the repository only")
def test_the_committed_probe_is_not_lowered_by_training():
    """From what ``eval mini`` says, three seeds; the joined pooling's own start is higher, results/embedded/README.md."""
    folder = PAPER / "mini-transfer"
    accuracy = {
        path.stem: json.loads(path.read_text("utf-8"))["average"]["accuracy"]["all"]["value"]
        for path in folder.glob("*.json")
    }
    trained = [value for name, value in accuracy.items() if name.startswith("unsupervised")]
    assert len(trained) >= 3
    assert np.mean(trained) >= accuracy["CLS--cls-none"]


@pytest.mark.skipif(not SWEEP.is_dir(), reason="the committed results are in the repository only")
def test_the_committed_curve_of_dropout_has_the_papers_form():
    by_arm = {}
    for path in SWEEP.glob("*--seed*.json"):
        trial = json.loads(path.read_text("utf-8"))
        by_arm.setdefault(trial["arm"], {})[trial["seed"]] = trial["dev"]["score"]
    mean = {arm: np.mean(list(seeds.values())) for arm, seeds in by_arm.items()}
    assert all(len(seeds) >= 3 for seeds in by_arm.values())
    peak = max(mean, key=mean.get)
    assert peak in ("0.05", "0.1", "0.15", "0.2")
    error = {arm: np.std(list(seeds.values()), ddof=1) / len(seeds) ** 0.5 for arm, seeds in by_arm.items()}
    for arm in ("0.0", "0.5", "fixed 0.1"):
        assert mean["0.1"] - mean[arm] > 2 * np.hypot(error["0.1"], error[arm]), arm


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="scripts/ is in the repository only")
def test_pretraining_lowers_the_loss_and_goes_on_after_a_kill(minilm, tmp_path, monkeypatch):
    """50 updates on the embedded sentences; the same again, stopped in the middle."""
    import sys

    spec = importlib.util.spec_from_file_location("pretrain_mini", SCRIPTS / "pretrain_mini.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SAVE_EVERY", 10)

    def run(out, tokens=20_000):
        monkeypatch.setattr(sys, "argv", [
            "pretrain_mini.py", "--text", str(bundled.text_file("mini-sentences")), "--ancestor", str(minilm),
            "--out", str(out), "--tokens", str(tokens), "--batch-tokens", "400", "--vocabulary", "1000", "--layers", "0",
            "--neurons", "64",
        ])  # fmt: skip
        module.main()

    run(tmp_path / "a")
    found = json.loads((tmp_path / "a" / "mini" / "pretraining.json").read_text())
    assert found["steps"] >= 50
    assert found["loss"][-1][1] < 6.9  # log(1000): what guessing costs
    updates, real = [], module.update

    def stop(*args):
        updates.append(1)
        if len(updates) == 25:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    monkeypatch.setattr(module, "update", real)
    run(tmp_path / "b")
    a, b = ((tmp_path / x / "mini" / "model.safetensors").read_bytes() for x in "ab")
    assert a == b
