"""`simcse-bench run-ablation` from the plan to table, plot and page, with a tiny BERT."""

import csv
import dataclasses
import json
import os
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny import sentences, without_time

from simcse_bench.data.senteval import DataSource
from simcse_bench.errors import UserError
from simcse_bench.experiments import run, sweep, trial
from simcse_bench.experiments.ablations import Ablation
from simcse_bench.experiments.summary import _own_settings
from simcse_bench.reports.again import ablation_command
from simcse_bench.training.folder import shown_config
from simcse_bench.training.run import RunOptions
from simcse_bench.training.selection import read_split

FOLDER = Path("results/ablations/dropout-mini")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ablate(cli, bert, senteval, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")
    fixed = ("--model", bert, "--train", text, "--data-dir", senteval, "--device", "cpu", "--set", "eval_every=0",
             "--set", "batch_size=8", "--set", "learning_rate=1e-3")  # fmt: skip

    def run(name, *args, steps=3):
        return cli("run-ablation", *([name] if name else []), *fixed, "--set", f"max_steps={steps}", *args)

    return run


TWO = ("--arm", "0.0", "--arm", "0.1")


def found(folder=FOLDER):
    return json.loads((folder / "summary.json").read_text("utf-8"))


def trials(folder=FOLDER):
    return {p.stem: json.loads(p.read_text("utf-8")) for p in folder.glob("*--seed*.json")}


# --- the catalog


def test_a_grid_has_every_combination():
    grid = sweep.grid_ablation("mine", "mini-unsup", ["batch_size=8,16", "temperature=0.1,0.2"])
    assert list(grid.arms) == [f"batch_size={b}, temperature={t}" for b in (8, 16) for t in (0.1, 0.2)]
    assert grid.arms["batch_size=16, temperature=0.2"] == {"batch_size": 16, "temperature": 0.2}
    one = sweep.grid_ablation("mine", "mini-unsup", ["learning_rate=1e-4,3e-4"])
    assert (list(one.arms), one.axis) == (["1e-4", "3e-4"], "learning_rate")
    with pytest.raises(UserError, match="expected field=value,value"):
        sweep.grid_ablation("mine", "mini-unsup", ["batch_size"])
    with pytest.raises(UserError, match="did you mean 'batch_size'"):
        sweep.grid_ablation("mine", "mini-unsup", ["batchsize=1,2"])


def test_a_setting_of_one_arm_leaves_the_others_as_they_are(tmp_path):
    def planned(*settings, name="methods"):
        return sweep.plan_sweep(sweep.named_ablation(name), "mini", 1, settings, (), tmp_path, RunOptions(tmp_path))

    plain = {t.arm: t.config for t in planned().trials}
    changed = {t.arm: t.config for t in planned("esimcse:queue=5", "gs:dropout=0.2").trials}
    assert plain["esimcse"].method_settings == {"repetition": 0.32, "queue": 2.5, "momentum": 0.995}
    assert changed["esimcse"].method_settings == {"repetition": 0.32, "queue": 5.0, "momentum": 0.995}
    assert changed["gs"] == dataclasses.replace(plain["gs"], hidden_dropout=0.2, attention_dropout=0.2)
    assert {arm for arm in plain if plain[arm] != changed[arm]} == {"esimcse", "gs"}
    assert planned("0.5:seed=7", name="dropout").trials[-1].config.seed == 42
    for setting, said in {
        "esimce:queue=5": "unknown arm 'esimce'; did you mean 'esimcse'",
        "gs:queue=5": "queue: a setting of method esimcse; the method here is gs",
        "esimcse:queue=0.5": "queue 0.5: expected from 1 to 10000",
    }.items():
        with pytest.raises(UserError, match=said):
            planned(setting)


def test_a_grid_varies_a_methods_own_settings():
    grid = sweep.grid_ablation("mine", "mini-unsup", ["method=esimcse", "queue=1,5"])
    assert [a["method_settings"]["queue"] for a in grid.arms.values()] == [1.0, 5.0]


def test_arms_that_would_share_a_file_have_one_each(tmp_path):
    def names(*values):
        grid = sweep.grid_ablation("mine", "mini-unsup", [f"learning_rate={','.join(values)}"])
        planned = sweep.plan_sweep(grid, "mini-unsup", 1, (), (), tmp_path, RunOptions(tmp_path))
        return {t.arm: t.path.name for t in planned.trials}

    assert names("1e-1") == {"1e-1": "1e-1--seed42.json"}
    both = names("1e-1", "1e+1", "1E-1")
    assert both["1e-1"] == "1e-1--seed42.json"
    assert len({name.casefold() for name in both.values()}) == 3
    files = sweep.grid_ablation("mine", "mini-unsup", ["augmentation_file=a/b.txt,a-b.txt"])
    planned = sweep.plan_sweep(files, "mini-unsup", 2, (), (), tmp_path, RunOptions(tmp_path))
    assert len({t.path for t in planned.trials}) == 4


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
def test_a_name_of_any_arms_is_a_files_and_its_own(arms):
    ablation = Ablation("x", "X", {"mini": "mini-unsup"}, {arm: {} for arm in arms}, "")
    planned = sweep.plan_sweep(ablation, "mini", 1, (), (), Path("results"), RunOptions(Path()))
    names = [t.path.name for t in planned.trials]
    assert len(set(names)) == len(arms)
    assert all("/" not in name and len(os.fsencode(name)) < 230 for name in names)


def test_names_of_arms_stay_what_they_are():
    assert sweep.slug("SNLI+MNLI entailment (314k)") == "SNLI-MNLI-entailment-314k"
    assert sweep.slug("α = 0.5") == "alpha-0.5"
    assert sweep.slug("x" * 200) == "x" * 200
    assert len(sweep.slug("x" * 201)) == 200
    assert sweep.slug("模" * 78)[:63] == "模" * 63
    assert len(sweep.slug("模" * 78).encode()) <= 200
    with pytest.raises(UserError, match="not too long for a folder"):
        sweep.grid_ablation("模" * 78, "mini-unsup", ["seed=1"])


# --- a sweep


def test_an_arm_of_two_ablations_is_trained_once(ablate, monkeypatch):
    ablate("augmentation", "--arm", "none")
    folder, calls, trained = Path("results/ablations/objective-mini"), [], run.run_trial
    monkeypatch.setattr(run, "run_trial", lambda *given: calls.append(given) or trained(*given))
    done = ablate("objective", "--arm", "unsup simcse")
    assert (done.code, calls) == (0, []), done.err
    (shared,), (one,) = trials(folder).values(), trials(FOLDER.with_name("augmentation-mini")).values()
    assert shared.pop("trained_as") == "augmentation-mini, none"
    assert {k for k in one if shared[k] != one[k]} == {"ablation", "arm"}
    assert found(folder)["arms"][0]["arm"] == "unsup simcse"
    for again in ({"steps": 4, "seed": 1}, {"steps": 3, "seed": 2}):  # other settings, other machine
        if again["seed"] == 2:
            monkeypatch.setattr(run, "environment", lambda device: {"processor": "another"})
        shutil.rmtree(folder)
        done = ablate("objective", "--arm", "unsup simcse", steps=again["steps"])
        assert (done.code, len(calls)) == (0, again["seed"]), done.err
        assert "trained_as" not in next(iter(trials(folder).values()))


def cells_of(arm, reference, other):
    """The first cells of an arm's row, from the trials' scores; the interval from the summary."""
    seeds = [
        f"{statistics.mean(arm[s]['values']):.2f} ± {statistics.stdev(arm[s]['values']):.2f}" for s in ("dev", "test")
    ]
    change = ["–", "–"]
    if arm["arm"] != reference:
        low, high = arm["difference"]["interval"]
        value = statistics.mean(arm["dev"]["values"]) - statistics.mean(other["dev"]["values"])
        sure = (low > 0 or high < 0) and arm["difference"]["holm"] < 0.05
        change = [f"{value:+.2f}" + " *" * sure, f"{low:+.1f} to {high:+.1f}"]
    return [seeds[0], str(len(arm["seeds"])), *change, seeds[1]]


def markdown_cells(text):
    """Title, header and rows of the first table of a page."""
    table = text.split("\n\n")[1].splitlines()
    return [
        [text.split("\n\n")[0]],
        *([c.strip() for c in line.strip("|").split("|")] for line in (table[0], *table[2:])),
    ]


def test_a_sweep_leaves_results_table_plot_and_page(ablate, senteval):
    done = ablate("dropout", *TWO, "--seeds", "2")
    assert done.code == 0, done.err
    names = {p.name for p in FOLDER.iterdir()}
    assert names == {
        "0.0--seed42.json", "0.0--seed43.json", "0.1--seed42.json", "0.1--seed43.json", "summary.json",
        "table.md", "table.csv", "table.tex", "plot.png", "plot.svg", "index.html",
    }  # fmt: skip
    content, parts = found(), trials()
    zero, tenth = content["arms"]
    assert (zero["arm"], zero["seeds"], zero["published"]) == ("0.0", [42, 43], 71.1)
    assert zero["dev"]["values"] == [parts["0.0--seed42"]["dev"]["score"], parts["0.0--seed43"]["dev"]["score"]]
    assert zero["dev"]["mean"] == pytest.approx(np.mean(zero["dev"]["values"]), abs=1e-4)
    assert zero["dev"]["sd"] == pytest.approx(np.std(zero["dev"]["values"], ddof=1), abs=1e-4)
    assert zero["difference"]["value"] == pytest.approx(zero["dev"]["mean"] - tenth["dev"]["mean"], abs=0.01)
    assert "difference" not in tenth
    assert parts["0.0--seed42"]["run"]["dropout"] == {"hidden": 0.0, "attention": 0.0}
    assert parts["0.1--seed42"]["run"]["dropout"] == {"hidden": 0.1, "attention": 0.1}
    # the similarities kept are those of the score
    gold = read_split("stsb", "dev", DataSource(senteval)).data.gold
    for part in parts.values():
        assert 100 * stats.spearmanr(part["dev"]["similarities"], gold)[0] == pytest.approx(
            part["dev"]["score"], abs=0.02
        )
    page = (FOLDER / "index.html").read_text("utf-8")
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert (FOLDER / "plot.png").read_bytes().startswith(b"\x89PNG")
    with (FOLDER / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = ["ablation", "preset", "arm", "seed", "dev", "test", "alignment", "uniformity", "published"]
    assert [list(row) for row in rows] == [columns] * 4
    for row, name in zip(rows, ("0.0--seed42", "0.0--seed43", "0.1--seed42", "0.1--seed43"), strict=True):
        assert f"{row['arm']}--seed{row['seed']}" == name
        assert (row["ablation"], row["preset"], float(row["published"])) == (
            "dropout", "mini", {"0.0": 71.1, "0.1": 82.5}[row["arm"]]
        )  # fmt: skip
        assert [float(row[split]) for split in ("dev", "test")] == pytest.approx(
            [parts[name][split]["score"] for split in ("dev", "test")], abs=1e-6
        )
    zero_cells = ["0.0", *cells_of(zero, "0.1", tenth)]
    title, header, *body = markdown_cells((FOLDER / "table.md").read_text("utf-8"))
    assert title == [f"**{content['title']}, tiny-bert trained on text, STS-B dev, Spearman ×100**"]
    assert header[:6] == ["arm", "dev", "seeds", "difference to 0.1", "95 %", "test"]
    assert header[-1] == "SimCSE Table 3, BERT-base"
    assert [row[:6] for row in body] == [zero_cells, ["0.1", *cells_of(tenth, "0.1", tenth)]]
    assert [row[-1] for row in body] == ["71.1", "82.5"]
    latex = [line.removesuffix(r" \\").split(" & ") for line in (FOLDER / "table.tex").read_text("utf-8").splitlines()]
    (latex_row,) = [row[:6] for row in latex if row[0] == "0.0"]
    signs = {"±": r"$\pm$", "–": "--", "*": r"$^{*}$"}
    assert latex_row == ["".join(signs.get(sign, sign) for sign in cell) for cell in zero_cells]


def test_the_score_is_that_of_train_and_eval(ablate, cli, bert, senteval, tmp_path):
    assert ablate("dropout", "--arm", "0.1").code == 0
    done = cli("train", "--recipe", "mini-unsup", "--model", bert, "--train", tmp_path / "text.txt", "--out", "runs/x",
               "--data-dir", senteval, "--device", "cpu", "--set", "eval_every=0", "--set", "batch_size=8", "--set",
               "learning_rate=1e-3", "--set", "max_steps=3", "--set", "dropout=0.1")  # fmt: skip
    assert done.code == 0, done.err
    for split in ("dev", "test"):
        done = cli("eval", "--model", "runs/x", "--task", "stsb", "--split", split, "--data-dir", senteval, "--device",
                   "cpu", "--format", "json", "-q")  # fmt: skip
        score = json.loads(done.out)["tasks"]["stsb"]["scores"]["spearman"]["all"]["value"]
        assert trials()["0.1--seed42"][split]["score"] == pytest.approx(score, abs=0.01)


def test_dev_pairs_are_embedded_once_where_their_score_selects_nothing(ablate, monkeypatch, senteval):
    from simcse_bench.training import train as training

    real, taken = training.Run.measure, []
    monkeypatch.setattr(training.Run, "measure", lambda self, *due: taken.append(self.state.step) or real(self, *due))
    assert ablate("dropout", "--arm", "0.1", "--set", "eval_every=1000").code == 0
    assert taken == []
    part = trials()["0.1--seed42"]["dev"]
    gold = read_split("stsb", "dev", DataSource(senteval)).data.gold
    assert part["score"] == pytest.approx(100 * stats.spearmanr(part["similarities"], gold)[0], abs=0.02)
    assert ablate("dropout", "--arm", "0.1", "--force", "--set", "eval_every=2").code == 0
    assert taken == [2, 3]  # here they choose between two


def test_the_same_command_again_trains_nothing_and_more_seeds_only_those(ablate, monkeypatch):
    assert ablate("dropout", *TWO).code == 0
    before = trials()
    trained = []
    real = trial.train
    monkeypatch.setattr(trial, "train", lambda config, *rest: trained.append(config.seed) or real(config, *rest))
    done = ablate("dropout", *TWO)
    assert done.code == 0
    assert trained == []
    assert done.err.count(": there, dev ") == 2
    assert ablate("dropout", *TWO, "--seeds", "2").code == 0
    assert trained == [43, 43]
    assert {k: v for k, v in trials().items() if k in before} == before


def test_other_settings_are_named_and_not_mixed(ablate):
    assert ablate("dropout", "--arm", "0.1").code == 0
    before = trials()
    done = ablate("dropout", "--arm", "0.1", steps=4)
    assert done.code == 2
    assert "max_steps 3 there, 4 here" in done.err
    assert trials() == before
    assert ablate("dropout", "--arm", "0.1", "--force", steps=4).code == 0
    assert trials()["0.1--seed42"]["run"]["steps"] == 4


def test_an_arm_that_fails_is_told_and_the_others_go_on(ablate, monkeypatch):
    real = trial.train

    def broken(config, *rest):
        if config.hidden_dropout == 0:
            raise UserError("the disk is made of cheese.")
        return real(config, *rest)

    monkeypatch.setattr(trial, "train", broken)
    done = ablate("dropout", *TWO)
    assert done.code == 1
    assert "0.0, seed 42: the disk is made of cheese." in done.err
    assert [bool(a["failed"]) for a in found()["arms"]] == [True, False]
    assert "FAILED: the disk is made of cheese." in (FOLDER / "table.md").read_text("utf-8")
    monkeypatch.setattr(trial, "train", real)
    assert ablate("dropout", *TWO).code == 0
    assert not any(a["failed"] for a in found()["arms"])


def test_a_sweep_stopped_anywhere_ends_like_an_undisturbed_one(ablate, monkeypatch):
    """Ctrl-C inside the second trial: the first stays, the second goes on from its checkpoint."""
    from simcse_bench.training import train as training

    assert ablate("dropout", *TWO, "--out", "whole", steps=12).code == 0
    real, seen = training.Run.update, []

    def stop(self):
        seen.append(1)
        real(self)
        if len(seen) == 17:
            import signal

            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training.Run, "update", stop)
    done = ablate("dropout", *TWO, steps=12)
    assert done.code == 130, done.err
    assert list(trials()) == ["0.0--seed42"]
    assert "the same command (without --force) goes on" in done.err
    assert [a["seeds"] for a in found()["arms"]] == [[42], []]
    assert list(FOLDER.glob("runs/0.1--seed42/checkpoints/step-*"))
    monkeypatch.setattr(training.Run, "update", lambda self: seen.append(2) or real(self))
    assert ablate("dropout", *TWO, steps=12).code == 0
    assert seen.count(2) == 12 - 5
    whole = Path("whole/ablations/dropout-mini")
    assert without_time(found()) == without_time(found(whole))
    assert not (FOLDER / "runs").exists()


def test_force_never_puts_a_failure_over_a_result(ablate, monkeypatch):
    assert ablate("dropout", "--arm", "0.1").code == 0
    before = trials()

    def broken(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "train", broken)
    done = ablate("dropout", *TWO, "--force")
    assert done.code == 1
    assert "out of memory" in done.err
    assert "Traceback" not in done.err
    assert trials()["0.1--seed42"] == before["0.1--seed42"]
    assert trials()["0.0--seed42"]["status"] == "failed"


def test_a_narrower_command_keeps_the_others_in_the_table(ablate):
    assert ablate("dropout", *TWO, "--seeds", "2").code == 0
    before = found()
    assert ablate("dropout", "--arm", "0.1").code == 0
    assert found() == before


def test_changed_text_weights_or_dev_pairs_are_not_mixed_in(ablate, tmp_path, bert, senteval):
    assert ablate("dropout", "--arm", "0.1").code == 0
    text = tmp_path / "text.txt"
    old = text.read_text("utf-8")
    text.write_text(old + "One more sentence.\n", encoding="utf-8")
    done = ablate("dropout", "--arm", "0.1", "--seeds", "2")
    assert done.code == 2
    assert "other text" in done.err
    assert len(trials()) == 1
    text.write_text(old, encoding="utf-8")
    assert ablate("dropout", "--arm", "0.1").code == 0


def copied(senteval, tmp_path):
    """The data, to be changed."""
    return shutil.copytree(senteval, tmp_path / "own-data")


def test_changed_test_pairs_are_not_mixed_in(ablate, senteval, tmp_path):
    data = copied(senteval, tmp_path)
    assert ablate("dropout", "--arm", "0.1", "--data-dir", data).code == 0
    for path in data.glob("STS/STSBenchmark/**/sts-test.csv"):
        path.write_text(path.read_text("utf-8").replace("dog", "cat"), encoding="utf-8")
    done = ablate("dropout", "--arm", "0.1", "--data-dir", data)
    assert (done.code, "other test" in done.err) == (2, True), done.err


def test_a_changed_file_of_synonyms_is_not_mixed_in(ablate, tmp_path):
    synonyms = tmp_path / "synonyms.tsv"
    synonyms.write_text("dog\thound\n")
    own = ("--arm", "synonym replacement", "--set", f"augmentation_file={synonyms}")
    assert ablate("augmentation", *own).code == 0
    folder = Path("results/ablations/augmentation-mini")
    (path,) = folder.glob("*--seed42.json")
    assert ablate("augmentation", *own).code == 0
    synonyms.write_text("dog\tpuppy\n")
    done = ablate("augmentation", *own)
    assert (done.code, "other augmentation_file" in done.err) == (2, True), done.err
    # a trial of a version that did not keep it
    content = json.loads(path.read_text("utf-8"))
    del content["augmentation_file"]
    path.write_text(json.dumps(content), encoding="utf-8")
    done = ablate("augmentation", *own)
    assert (done.code, "augmentation_file of unknown content" in done.err) == (2, True), done.err
    assert ablate("augmentation", *own, "--force").code == 0
    assert ablate("augmentation", *own).code == 0


def test_what_is_left_out_of_the_table_is_told(ablate):
    assert ablate("dropout", *TWO).code == 0
    (FOLDER / "0.0--seed42.json").write_text("{")
    done = ablate("dropout", "--arm", "0.1")
    assert done.code == 0
    assert "left out: " in done.err
    assert "0.0--seed42.json: not readable JSON" in done.err
    assert [a["arm"] for a in found()["arms"]] == ["0.1"]


@pytest.mark.parametrize("field", ["config", "run", "dev", "status", "seed"])
def test_a_result_with_nothing_in_a_field_is_named(ablate, field):
    assert ablate("dropout", "--arm", "0.1").code == 0
    path = FOLDER / "0.1--seed42.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {field: None}), encoding="utf-8")
    before = path.read_bytes()
    done = ablate("dropout", "--arm", "0.1")
    assert done.code == 2
    assert f"0.1--seed42.json: not a trial's result of this version. Move it away or use --force. ({field}:" in done.err
    assert path.read_bytes() == before


def test_a_corrected_command_is_not_blocked_by_a_failure(ablate, monkeypatch):
    real = trial.train
    monkeypatch.setattr(trial, "train", lambda *a: (_ for _ in ()).throw(UserError("no.")))
    assert ablate("dropout", "--arm", "0.1").code == 1
    assert "no trial has finished" in (FOLDER / "table.md").read_text("utf-8")
    assert not (FOLDER / "index.html").exists()
    monkeypatch.setattr(trial, "train", real)
    assert ablate("dropout", "--arm", "0.1", steps=4).code == 0


def test_two_sweeps_do_not_share_a_folder(ablate):
    from simcse_bench.files import lock_folder

    with lock_folder(FOLDER):
        done = ablate("dropout", "--arm", "0.1")
    assert done.code == 2
    assert "another command" in done.err


def test_a_launcher_of_processes_is_refused(ablate, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = ablate("dropout", "--arm", "0.1")
    assert done.code == 2
    assert "use --processes" in done.err


def test_settings_of_all_arms_are_only_those_they_share(ablate):
    assert ablate("dropout", *TWO).code == 0
    base = found()["base"]
    assert base["batch_size"] == 8
    assert not {"hidden_dropout", "attention_dropout"} & set(base)
    assert "ARMS WITH ONE SEED" in (FOLDER / "table.md").read_text("utf-8")


def test_a_setting_that_one_arm_changes_is_taken_by_the_others_and_told(ablate):
    own = ("--set", "0.1:weight_decay=0.01")
    done = ablate("dropout", "--arm", "0.1", "--arm", "fixed 0.1", "--set", "same_mask=replay", "--set", "seed=1", *own)
    assert done.code == 0, done.err
    assert "arm fixed 0.1 keeps its own same_mask, copy" in done.err
    assert {name: r["config"]["same_mask"] for name, r in trials().items()} == {
        "0.1--seed1": "replay",
        "fixed-0.1--seed1": "copy",
    }
    assert found()["own"] == {
        "same_mask": {"": "replay", "fixed 0.1": "copy"},
        "weight_decay": {"": 0.0, "0.1": 0.01},
    }
    assert "but some: same_mask replay (fixed 0.1: copy); weight_decay 0.0 (0.1: 0.01)" in (
        FOLDER / "table.md"
    ).read_text("utf-8")
    assert "settings of single arms: 0.1:weight_decay=0.01" in (FOLDER / "table.md").read_text("utf-8")
    command = ablation_command(found())
    assert "--set same_mask=replay" in command
    assert command.endswith("--set 0.1:weight_decay=0.01")
    dry = ablate("methods", "--arm", "promptbert", "--set", "pooling=mean", "--dry-run")
    assert "arm promptbert keeps its own pooling, mask" in dry.out


def test_settings_of_all_arms_but_some_of_every_method(tmp_path):
    """Also where an arm changes settings that its method alone has."""
    methods = sweep.plan_sweep(
        sweep.named_ablation("methods"), "mini", 1, ["pooling=mean"], (), tmp_path, RunOptions(tmp_path)
    )
    done = [{"arm": t.arm, "config": shown_config(t.config)} for t in methods.trials]
    own = _own_settings(methods, done)
    assert own == {
        "max_length": {"": 24, "promptbert": 32},
        "mlp": {"": "train_only", "scd": "none", "diffcse": "none"},
        "pooling": {"": "mean", "promptbert": "mask"},
        "template": {"": "", "promptbert": 'This sentence of "{sentence}" means [MASK] .'},
    }


def test_a_dry_run_shows_the_plan_and_writes_nothing(ablate):
    assert ablate("dropout", "--arm", "0.1").code == 0
    before = sorted(p for p in Path("results").rglob("*"))
    done = ablate("dropout", *TWO, "--seeds", "2", "--dry-run")
    assert done.code == 0, done.err
    assert "1 of 4 trials are there" in done.out
    assert "hidden_dropout 0.0" in done.out
    assert "min" in done.out
    assert sorted(p for p in Path("results").rglob("*")) == before
    assert "1 trial like that one" in ablate("dropout", *TWO, "--dry-run").out
    Path("afile").touch()
    refused = ablate("dropout", *TWO, "--dry-run", "--out", "afile")
    assert (refused.code, "cannot write afile/ablations/dropout-mini/summary.json" in refused.err) == (2, True)


def test_a_grid_from_the_command_line(ablate):
    done = ablate("mine", "--vary", "temperature=0.05,0.5")
    assert done.code == 0, done.err
    folder = Path("results/ablations/mine-mini-unsup")
    assert [a["arm"] for a in found(folder)["arms"]] == ["0.05", "0.5"]
    assert found(folder)["reference"] == "0.05"


@pytest.mark.parametrize(
    "name, args, said",
    [
        ("dropuot", (), "unknown ablation 'dropuot'; did you mean 'dropout'?"),
        (None, (), "name an ablation"),
        ("dropout", ("--arm", "0.11"), "unknown arm of dropout '0.11'"),
        ("dropout", ("--preset", "papr"), "unknown preset 'papr'; did you mean 'paper'?"),
        ("dropout", ("--seeds", "0"), "--seeds 0: expected at least 1"),
        ("dropout", ("--set", "temprature=1"), "did you mean 'temperature'"),
        ("x", ("--vary", "temprature=1,2"), "did you mean 'temperature'"),
        ("../x", ("--vary", "temperature=1,2"), "give the grid a name of its own"),
        ("dropout", ("--vary", "temperature=1,2"), "give the grid a name of its own"),
        (None, ("--vary", "temperature=1,2"), "give the grid a name of its own"),
        ("x", ("--vary", "temperature=1,2", "--preset", "paper"), "a grid starts from --recipe"),
        ("x", ("--vary", "temperature=1,2", "--set", "temperature=3"), "the arms of x change it themselves"),
        ("dropout", ("--recipe", "sup-bert-base"), "a named ablation has its own"),
        ("dropout", ("--set", "dropout=0.3"), "the arms of dropout change it themselves"),
        ("dropout", ("--train", "nowhere.txt"), "nowhere.txt: no such file"),
        ("dropout", ("--set", "eval_task=mini-probe"), "eval_task mini-probe: ablations compare similarities"),
    ],
)
def test_a_wrong_command_is_told(ablate, name, args, said):
    done = ablate(name, *args)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not Path("results").exists()


def test_a_damaged_result_is_named(ablate):
    assert ablate("dropout", "--arm", "0.1").code == 0
    (FOLDER / "0.1--seed42.json").write_text("{")
    done = ablate("dropout", "--arm", "0.1")
    assert done.code == 2
    assert "0.1--seed42.json" in done.err


# --- what is concluded


def test_report_draws_a_sweep_anew_and_check_tells_what_is_stale(ablate, cli):
    assert ablate("dropout", *TWO).code == 0
    before = {p.name: p.read_bytes() for p in FOLDER.iterdir()}
    assert cli("report", "results").code == 0
    assert cli("report", "results", "--check").code == 0
    statements = (FOLDER.parent / "findings.md").read_text("utf-8")
    value = f"{found()['findings'][0]['value']:+.2f}"
    assert re.search(rf"\| dropout 0.1 beats no dropout +\| one seed +\| +{re.escape(value)} ", statements)
    assert re.search(r"\| dropout 0.1 beats 0.5 +\| not run ", statements)
    (FOLDER / "table.md").unlink()
    (FOLDER / "plot.png").unlink()
    done = cli("report", "results", "--check")
    assert done.code == 2
    assert {line.split()[1] for line in done.err.splitlines()} == {str(FOLDER / "table.md"), str(FOLDER / "plot.png")}
    assert cli("report", "results").code == 0
    assert {p.name: p.read_bytes() for p in FOLDER.iterdir()} == before
    changed = found()
    changed["arms"][0]["dev"]["mean"] += 1
    (FOLDER / "summary.json").write_text(json.dumps(changed))
    done = cli("report", "results", "--check")
    assert done.code == 2
    assert "index.html is stale" in done.err
    (FOLDER / "summary.json").write_text("[]")
    done = cli("report", "results")
    assert done.code == 2
    assert "not a sweep's summary" in done.err


def test_report_finds_the_sweeps_of_folders_below(ablate, cli):
    assert ablate("dropout", *TWO).code == 0
    shutil.copytree(FOLDER.parent, "results/other/ablations")
    assert cli("report", "results").code == 0
    both = [folder / "findings.md" for folder in (FOLDER.parent, Path("results/other/ablations"))]
    assert both[0].read_text("utf-8") == both[1].read_text("utf-8")
    page = Path("results/index.html").read_text("utf-8")
    for ident in ("dropout-mini", "other-dropout-mini"):
        assert page.count(f'<article class="panel" id="{ident}"') == 1
        assert f'href="#{ident}"' in page
    assert "in other/ablations" in page
