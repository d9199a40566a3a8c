"""Every file that we write keeps the JSON schema that `simcse-bench schema` prints: the committed ones, and new ones."""

import json
from pathlib import Path

import pytest
from mteb_tasks import Local, sts_rows
from our_files import checked_kinds, kind_of, schema_problems, validator
from tiny import sentences

from simcse_bench.cli.listing import SCHEMAS
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.task import MTEB
from simcse_bench.training import recipes
from simcse_bench.training.folder import RunFolder

RESULTS = Path(__file__).parent.parent / "results"
COMMITTED = {"report", "pairs", "trial", "summary", "reproduction", "trajectories", "geometry", "robustness", "speed"}
FAST = {"report", "pairs", "overlap", "index", "encode", "train", "log", "checkpoint", "config", "settings", "tokens"}
SLOW = {"geometry", "robustness", "mteb", "trial", "summary", "export", "reproduction", "trajectories"}


def test_every_kind_is_among_those_checked_here():
    assert set(SCHEMAS) == COMMITTED | FAST | SLOW


def test_committed_results():
    if not RESULTS.is_dir():
        pytest.skip("no results/ here: this is no checkout")
    assert checked_kinds(RESULTS) >= COMMITTED


@pytest.mark.usefixtures("few_resamples")
def test_new_files(cli, bert, tmp_path, monkeypatch):
    """What `eval`, `rescore`, `data overlap`, `index`, `encode` and `train` write."""
    monkeypatch.setattr(RunFolder, "clear_checkpoints", lambda self: None)  # so that they are there at the end
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences(40)) + "\n", "utf-8")
    of_bert = ("--model", bert, "--pooling", "cls", "--head", "none", "--device", "cpu")
    train = {"model": bert, "train": text, "batch_size": 8, "max_steps": 2, "eval_task": "mini-sts", "eval_every": 1,
             "track_geometry": 1}  # fmt: skip
    commands = [
        ("eval", *of_bert, "--task", "mini-sts,mini-minimal-pairs", "--limit", "9"),
        ("index", text, *of_bert, "--out", "index"),
        ("encode", text, *of_bert, "--out", "v.npy"),
        ("data", "overlap", "--train", text, "--task", "mini-sts"),
        ("train", "--out", "run", "--device", "cpu", *(x for k, v in train.items() for x in ("--set", f"{k}={v}"))),
    ]
    for command in commands:
        done = cli(*command)
        assert done.code == 0, done.err
    (saved,) = Path("results").rglob("*.pairs.jsonl")
    assert cli("rescore", saved, "--out", "again", "--resamples", "200").code == 0
    assert checked_kinds(tmp_path) == FAST


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_new_files_of_the_long_commands(cli, bert, tmp_path, monkeypatch, senteval):
    """What `analyze`, `run-ablation`, `reproduce`, `export` and mteb's tasks write."""
    words = sentences(180)
    Path("text.txt").write_text("\n".join(words[:60]) + "\n", "utf-8")
    rows = (f"{','.join(row)}\n" for row in zip(words[:60], words[60:120], words[120:], strict=True))
    Path("triplets.csv").write_text("sent0,sent1,hard_neg\n" + "".join(rows), "utf-8")
    small = {"model": str(bert), "max_steps": 3, "batch_size": 8, "dtype": "float32"}
    for name, text in (("mini-unsup", "text.txt"), ("mini-sup", "triplets.csv")):
        monkeypatch.setitem(recipes.RECIPES, name, recipes.RECIPES[name] | small | {"train": str(tmp_path / text)})
    Local(monkeypatch).give(
        "STSBenchmark", {"test": sts_rows(read_task_pairs(load_task("stsb"), "test", MTEB.text, senteval))}
    )
    of_bert = ("--model", bert, "--pooling", "cls", "--head", "none", "--device", "cpu")
    commands = [
        ("reproduce", "simcse-2021", "--device", "cpu", "--table", "4", "--table", "figure 2", "--table", "figure 3",
         "--seeds", "1", "--progress", "none"),
        ("analyze", *of_bert, "--task", "mini-sts"),
        ("analyze", *of_bert, "--task", "mini-sts", "--robustness"),
        ("eval", *of_bert, "--task", "mini-probe", "--probe", "sklearn"),
        ("export", *of_bert[:-2], "--to", "transformers", "--out", "exported"),
        ("eval", *of_bert, "--suite", "mteb:STSBenchmark"),
    ]  # fmt: skip
    for command in commands:
        done = cli(*command)
        assert done.code == 0, done.err
    assert checked_kinds(tmp_path) >= SLOW


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("report", lambda x: x | {"more": 1}),
        ("report", lambda x: {k: v for k, v in x.items() if k != "key"}),
        ("report", lambda x: x | {"limit": "9"}),
        ("report", lambda x: x | {"tasks": {}}),
        ("summary", lambda x: x | {"arms": {}}),
        ("pairs", lambda x: x | {"schema": 7}),
    ],
)
def test_a_schema_refuses_what_the_reader_refuses(kind, change):
    paths = sorted(p for p in RESULTS.rglob("*.json*") if kind_of(p) == kind)
    if not paths:
        pytest.skip("no results/ here: this is no checkout")
    assert not schema_problems(paths[0], kind)
    assert list(validator(kind).iter_errors(change(json.loads(paths[0].read_text("utf-8").splitlines()[0]
                                                              if kind == "pairs" else paths[0].read_text("utf-8")))))  # fmt: skip
