"""--help: options in groups, choices in sight and those of the live tables, fast."""

import re
import subprocess
import sys

import pytest
import typer

from simcse_bench.__main__ import app
from simcse_bench.cli import console
from simcse_bench.cli.compare import BOARD_FORMATS
from simcse_bench.data.task import AGGREGATES, METRICS, PROBE_NAMES, PROTOCOLS
from simcse_bench.experiments.ablations import PRESETS
from simcse_bench.export.run import EXPORT_FORMATS
from simcse_bench.models.catalog import DTYPES, HEADS, INT8
from simcse_bench.search.faiss import APPROXIMATE

GROUP = typer.main.get_command(app)
GROUPS = ["What", "How", "Where", "Output"]
BIG = [
    "eval",
    "rescore",
    "train",
    "run-ablation",
    "reproduce",
    "verify",
    "analyze",
    "export",
    "index",
    "encode",
    "demo",
]
CHOICES = {  # option -> what it takes, where a command shows its choices
    "metric": METRICS, "aggregate": AGGREGATES, "probe": PROBE_NAMES, "protocol": PROTOCOLS, "head": HEADS,
    "dtype": ("auto", *DTYPES, INT8), "progress": console.PROGRESS, "executor": console.EXECUTORS, "preset": PRESETS,
    "to": EXPORT_FORMATS, "approximate": APPROXIMATE,
}  # fmt: skip
FORMATS = {
    "eval": console.PRINT_FORMATS,
    "rescore": console.PRINT_FORMATS,
    "leaderboard": BOARD_FORMATS,
    "search": ("table", "json"),
}


def options(name):
    return [p for p in GROUP.commands[name].params if p.param_type_name == "option"]


@pytest.mark.parametrize("name", list(GROUP.commands))
def test_the_groups_stand_in_one_order(name):
    if name == "data":
        return
    panels = [getattr(p, "rich_help_panel", None) for p in options(name)]
    named = [p for p in dict.fromkeys(panels) if p]
    assert named == [g for g in GROUPS if g in named]
    if name in BIG:
        assert None not in panels
        assert len(named) == 4


def test_choices_are_shown_and_are_the_live_ones():
    checked = 0
    for name in GROUP.commands:
        for option in options(name) if name != "data" else ():
            known = FORMATS.get(name) if option.name == "format" else CHOICES.get(option.name)
            if known is None:
                continue
            assert option.metavar.replace(" ", "").split("|") == list(known), (name, option.name)
            checked += 1
    assert checked > 30


def test_the_help_of_eval_fits_80_columns(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    done = cli("eval", "--help")
    assert done.code == 0
    assert "auto|float32|" in done.out
    assert [g for g in GROUPS if f"╭─ {g} ─" in done.out] == GROUPS


def test_help_loads_neither_torch_nor_numpy():
    code = (
        "import sys; sys.argv = ['simcse-bench', 'eval', '--help']\n"
        "from simcse_bench.__main__ import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'yaml', 'transformers', 'pandas') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "name", [*(n for n in GROUP.commands if n != "data"), "data check", "data overlap", "data fetch"]
)
def test_values_have_names_and_flags_none(cli, name):
    shown = cli(*name.split(), "--help").out
    assert "--help" in shown
    assert not re.findall(r"<(?:bool|str|int|float|path|list\[\w+\])>", shown)
