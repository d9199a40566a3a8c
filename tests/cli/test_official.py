"""Options and names of SimCSE's scripts and of other tools: understood, or answered with ours."""

import json

import pytest
import typer

from simcse_bench.__main__ import app
from simcse_bench.cli import official
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.recipes import OTHER_NAMES

GROUP = typer.main.get_command(app)


@pytest.mark.parametrize(
    ("command", "given", "answer"),
    [
        ("eval", ("--model_name_or_path", "runs/u"), "--model runs/u"),
        ("eval", ("--batch-size", "64"), "--batch-tokens N: a batch holds so many tokens"),
        ("eval", ("--batch_size=64",), "--batch-tokens N"),
        ("eval", ("--task_set", "sts"), "--suite sts, transfer or all (SimCSE's full)"),
        ("eval", ("--tasks", "STS12"), "--task STS12,"),
        ("eval", ("--mode", "fasttest"), "for fasttest --probe fast"),
        ("eval", ("--max_length", "32"), "--max-length 32."),
        ("encode", ("--batch-size", "64"), "nothing: a batch holds so many tokens"),
        ("train", ("--temp", "0.1"), "--set temperature=0.1."),
        ("train", ("--lr=1e-4",), "--set learning_rate=1e-4."),
        ("train", ("--learning-rate", "1e-4"), "--set learning_rate=1e-4."),
        ("train", ("--num_train_epochs", "1"), "--set epochs=1."),
        ("train", ("--max_seq_length", "32"), "--set max_length=32."),
        ("train", ("--per_device_train_batch_size", "64"), "--set batch_size=64: over all processes"),
        ("train", ("--hard_negative_weight", "0"), "the weight itself: SimCSE's flag is its logarithm"),
        ("train", ("--output_dir", "r"), "--out r."),
        ("train", ("--fp16",), "--set dtype=float16, or bfloat16."),
        ("run-ablation", ("--temp", "0.1"), "--set temperature=0.1."),
    ],
)
def test_the_option_of_another_tool_is_answered_with_ours(cli, command, given, answer):
    done = cli(command, *given)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: no option {given[0].partition('=')[0]} here: ")
    assert answer in done.err


def test_all_of_simcses_own_example_at_once(cli):
    """run_unsup_example.sh: every flag of it gets its answer."""
    line = (
        "--model_name_or_path bert-base-uncased --train_file wiki.txt --output_dir result/x --num_train_epochs 1 "
        "--per_device_train_batch_size 64 --learning_rate 3e-5 --max_seq_length 32 --evaluation_strategy steps "
        "--metric_for_best_model stsb_spearman --load_best_model_at_end --eval_steps 125 --pooler_type cls "
        "--mlp_only_train --overwrite_output_dir --temp 0.05 --do_train --do_eval --fp16"
    )
    flags = line.split()
    done = cli("train", *flags)
    assert done.code == 2
    assert [line.split()[3] for line in done.err.splitlines()] == [f for f in flags if f.startswith("--")]
    assert "..." not in done.err


def test_what_is_no_option_anywhere_stays_clicks_error(cli):
    done = cli("eval", "mini", "--modle", "x")
    assert done.code == 2
    assert "No such option" in done.err
    assert "here:" not in done.err


def test_what_stands_behind_a_double_dash_is_no_option():
    assert official.answers("train", ["--", "--temp", "1"], {"--set"}) == []
    assert official.answers("search", ["--temp", "1"], {"--top-k"}) == []


@pytest.mark.parametrize("command", ["eval", "train"])
def test_every_answer_names_options_that_the_command_has(command):
    options = {o for p in GROUP.commands[command].params for o in p.opts}
    for name in official._ANSWERS[command]:
        assert official.answers(command, [f"--{name}", "x"], options), name


def test_an_option_that_the_command_lacks_is_not_offered(cli):
    assert "No such option" in cli("verify", "mini", "--max_seq_length", "5").err  # the model's own length counts
    assert "No such option" in cli("run-ablation", "dropout", "--report_to", "wandb").err
    assert set(OTHER_NAMES.values()) <= set(TrainConfig.__dataclass_fields__)


def test_a_model_is_the_first_word_or_an_option(cli, tmp_path):
    base = ("--task", "mini-sts", "--format", "json", "--quiet", "--limit", "10")
    runs = [cli("eval", *how, *base) for how in (("mini",), ("-m", "mini"), ("--model", "mini"))]
    assert [r.code for r in runs] == [0, 0, 0]
    assert len({r.out for r in runs}) == 1
    assert "two models: mini and --model other; give one" in cli("eval", "mini", "--model", "other").err
    for command in (("eval",), ("verify",), ("export", "--to", "onnx", "--out", "x")):
        assert "error: no model: give a folder" in cli(*command).err, command
    assert "nothing to analyze: give a model" in cli("analyze").err
    analysed = cli("analyze", "mini", "--task", "MINI-STS", "--split", "test")
    assert (analysed.code, "mini" in analysed.out) == (0, True)
    assert json.loads((tmp_path / "results/analysis/mini.json").read_text())["data"]["task"] == "mini-sts"


def test_commas_and_repeated_options_are_the_same_tasks(cli, bert, senteval):
    base = ("eval", bert, "--pooler", "avg", "--data-dir", senteval, "--limit", "20", "--quiet", "--format", "json")
    runs = [cli(*base, *how) for how in (("--task", "STSBenchmark, SICK-R"), ("--task", "stsb", "--task", "sickr"))]
    assert [r.code for r in runs] == [0, 0], runs[0].err
    assert runs[0].out == runs[1].out  # found again: the file has the tasks' own names
    assert list(json.loads(runs[0].out)["tasks"]) == ["stsb", "sickr"]


def test_several_suites_are_evaluated_one_after_the_other(cli, tmp_path):
    done = cli("eval", "mini", "--suite", "MINI,mini_transfer", "--probe", "fast", "--quiet", "--format", "json")
    assert done.code == 0, done.err
    assert [report["suite"] for report in json.loads(done.out)] == ["mini", "mini-transfer"]
    assert {p.parent.name for p in tmp_path.glob("results/*/mini*.pairs.jsonl")} >= {"mini"}
    again = cli("eval", "mini", "--suite", "mini", "--suite", "mini-transfer", "--probe", "fast", "--dry-run")
    assert "suite mini-transfer" in again.out
    for wrong, message in (
        (("--suite", "sts,transfr"), "unknown suite 'transfr'; did you mean 'transfer'?"),
        (("--suite", "sts,mteb:STS12"), "one after the other"),
        (("--suite", "mteb:STS12", "--suite", "sts"), "one after the other"),
        (("--suite", ","), "names nothing; leave it out for the default"),
        (("--suite", "mini", "--probe", "fast"), "STS tasks have no classifier"),
    ):
        run = cli("eval", "mini", *wrong)
        assert (run.code, message in run.err) == (2, True), run.err


@pytest.mark.parametrize(
    ("options", "view"),
    [
        (("--pooler", "cls"), ("cls", "mlp")), (("--pooler", "cls_before_pooler"), ("cls", "none")),
        (("--pooling", "cls_before_pooler"), ("cls", "none")), (("--pooling", "avg"), ("mean", "none")),
        (("--pooling", "avg_first_last"), ("first_last", "none")), (("--pooler", "avg_top2"), ("top2", "none")),
        (("--pooler", "avg", "--head", "none", "--pooling", "mean"), ("mean", "none")),
    ],
)  # fmt: skip
def test_simcses_poolers_are_a_pooling_and_a_head(cli, bert, options, view):
    done = cli("eval", bert, *options, "--task", "mini-sts", "--limit", "10", "--format", "json", "--quiet")
    assert done.code == 0, done.err
    model = json.loads(done.out)["model"]
    assert (model["pooling"], model["head"]) == view
    assert f"{view[1]}:" in cli("eval", bert, *options, "--task", "mini-sts", "--dry-run").out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pooler", "cls", "--head", "none"), "--pooler cls is SimCSE's name for --pooling cls --head mlp, which"),
        (("--pooling", "avg", "--head", "mlp"), "which contradicts --head mlp; leave one of them out"),
        (("--pooler", "avg", "--pooling", "cls"), "which contradicts --pooling cls"),
        (("--pooler", "avg_top3"), "unknown pooler 'avg_top3'; did you mean 'avg_top2'?"),
    ],
)
@pytest.mark.parametrize("command", [("eval",), ("verify",), ("export", "--to", "onnx", "--out", "x"), ("demo",)])
def test_a_contradicted_pooler_is_refused(cli, bert, command, options, message):
    done = cli(*command, bert, *options)
    assert (done.code, message in done.err) == (2, True), done.err


def test_train_says_the_two_fields_of_a_pooler(cli):
    done = cli("train", "--out", "x", "--recipe", "mini-unsup", "--set", "pooling=avg_top2")
    assert "avg_top2 is SimCSE's name for pooling=top2 with mlp=none; set these two." in done.err


@pytest.mark.parametrize(
    ("given", "field"),
    [("lr", "learning_rate"), ("temp", "temperature"), ("bs", "batch_size"), ("max_seq_length", "max_length"),
     ("num_train_epochs", "epochs"), ("batch-size", "batch_size"), ("pooler_type", "pooling")],
)  # fmt: skip
def test_short_and_foreign_names_of_settings_suggest_the_field(cli, given, field):
    done = cli("train", "--out", "x", "--set", f"{given}=1")
    assert (done.code, f"unknown field '{given}'; did you mean '{field}'?" in done.err) == (2, True), done.err
