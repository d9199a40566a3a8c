"""The command beside a number makes it again."""

import itertools
import shlex
from pathlib import Path

import pytest

from simcse_bench.experiments.sweep import named_ablation, plan_sweep
from simcse_bench.reports.again import (
    UNKNOWN,
    ablation_command,
    analyze_command,
    eval_command,
    reproduce_command,
    robustness_command,
)
from simcse_bench.reports.geometry import read_analysis
from simcse_bench.reports.report import Report
from simcse_bench.reports.summary import read_summary
from simcse_bench.training.run import RunOptions

SUMMARY = {
    "name": "dropout", "preset": "mini", "title": "Dropout probability", "base": {"model": "mini", "train": "my text.txt"},
    "arms": [{"arm": "0.1", "seeds": [42, 43]}, {"arm": "fixed 0.1", "seeds": [42]}, {"arm": "0.5", "seeds": []}],
}  # fmt: skip


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(
    "options", ["", "--pooling mean --head none --max-length 8 --truncate-dim 16 --limit 5 --dtype float16"]
)
def test_it_finds_the_evaluation_again(cli, monkeypatch, options):
    assert cli("eval", "--model", "mini", "--suite", "mini", "-q", *options.split()).code == 0
    (path,) = Path("results/mini").glob("*.json")
    command = shlex.split(eval_command(Report.load(path)))
    assert command[:2] == ["simcse-bench", "eval"]
    monkeypatch.setattr("simcse_bench.evaluation.run.score_all", lambda *a, **k: pytest.fail("another evaluation"))
    assert cli(*command[1:]).code == 0  # the report that is there is of the same key


@pytest.mark.usefixtures("few_resamples")
def test_a_name_of_ones_own_is_no_model(cli):
    assert cli("eval", "--model", "mini", "--suite", "mini", "-q", "--name", "my model").code == 0
    (path,) = Path("results/mini").glob("*.json")
    assert eval_command(Report.load(path)) == f"simcse-bench eval --model {UNKNOWN} --name 'my model' --suite mini"


def test_single_tasks_and_rules_that_are_not_the_default(cli):
    done = cli("eval", "--model", "random-words:20", "--task", "mini-probe", "--split", "dev", "-q")
    assert done.code == 0, done.err
    (path,) = Path("results/tasks").glob("*.json")
    command = eval_command(Report.load(path))
    assert command == ("simcse-bench eval --model random-words:20 --task mini-probe --split dev --probe fast")


def test_an_ablation_with_arms_of_different_seeds_takes_two_lines():
    assert ablation_command(SUMMARY).splitlines() == [
        "simcse-bench run-ablation dropout --preset mini --seeds 1 --arm 0.1 --arm 'fixed 0.1' --model mini "
        "--train 'my text.txt' --set seed=42",
        "simcse-bench run-ablation dropout --preset mini --seeds 2 --arm 0.1 --model mini --train 'my text.txt' --set seed=42",
    ]
    assert ablation_command({**SUMMARY, "base": None}) == ""


def test_a_grid_is_varied():
    grid = {"name": "mine", "preset": "mini-unsup", "base": {"model": "mini"},
            "title": "learning_rate × batch_size of mini-unsup",
            "arms": [{"arm": f"learning_rate={r}, batch_size={b}", "seeds": [1]} for r in ("1e-4", "3e-4") for b in (32, 64)]}  # fmt: skip
    assert ablation_command(grid) == (
        "simcse-bench run-ablation mine --recipe mini-unsup --vary learning_rate=1e-4,3e-4 --vary batch_size=32,64 "
        "--seeds 1 --model mini --set seed=1"
    )
    one = {**grid, "title": "dropout of mini-unsup", "arms": [{"arm": a, "seeds": [1]} for a in ("0.1", "0.2")]}
    assert "--vary dropout=0.1,0.2 --seeds 1" in ablation_command(one)


def test_every_setting_of_a_saved_sweep_is_in_its_command():
    paths = sorted((Path(__file__).parents[2] / "results").rglob("ablations/dropout-*/summary.json"))
    if not paths:
        pytest.skip("no results/ here: this is no checkout")
    summary = read_summary(paths[0])
    words = shlex.split(ablation_command(summary).splitlines()[-1])
    value = {k: v for k, v in itertools.pairwise(words) if k in ("--model", "--train", "--preset", "--seeds")}
    settings = [v for k, v in itertools.pairwise(words) if k == "--set"]
    settings += [f"{k}={value[f'--{k}']}" for k in ("model", "train")]
    sweep = plan_sweep(named_ablation(summary["name"]), value["--preset"], int(value["--seeds"]), settings, (), Path("x"),
                       RunOptions(Path("x")))  # fmt: skip
    for key, wanted in summary["base"].items():
        assert getattr(sweep.base, key) in (wanted, tuple(wanted) if isinstance(wanted, list) else wanted), key


def test_analyses_and_reproductions(cli):
    done = cli(
        "analyze", "--model", "mini", "--pooling", "mean", "--head", "none", "--task", "mini-sts", "--split", "dev"
    )
    assert done.code == 0, done.err
    (path,) = Path("results/analysis").glob("*.json")
    assert analyze_command(read_analysis(path)) == (
        "simcse-bench analyze --model mini --pooling mean --head none --task mini-sts --split dev"
    )
    record = {"paper": "simcse-2021", "preset": "mini", "seeds": 3}
    assert reproduce_command(record) == "simcse-bench reproduce simcse-2021 --preset mini --seeds 3"


def test_what_analyze_does_not_take_is_left_out():
    model = {"name": "a/b", "settings_from": "--pooling", "pooling": "mean", "head": "none", "max_length": 256,
             "revision": "r", "whiten": {"t.txt": "f"}, "dtype": "bfloat16"}  # fmt: skip
    analysis = {"model": model, "data": {"task": "stsb", "splits": []}}
    assert analyze_command(analysis) == (
        "simcse-bench analyze --model a/b --pooling mean --head none --dtype bfloat16 --task stsb"
    )


def test_sentences_changed_by_rule():
    robustness = {"model": {"name": "mini", "settings_from": "simcse_bench.json"}, "tasks": {"stsb": {}, "sickr": {}},
                  "splits": ["test"], "seed": 42, "rate": 0.1}  # fmt: skip
    assert robustness_command(robustness) == "simcse-bench analyze --robustness --model mini --task stsb,sickr"
    assert robustness_command(robustness | {"splits": ["dev", "test"], "seed": 7, "rate": 0.25}) == (
        "simcse-bench analyze --robustness --model mini --task stsb,sickr --split dev --split test --typo-rate 0.25 --seed 7"
    )
