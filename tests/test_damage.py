"""Damaged files of ours, by the hundred: the right result, or one line that names the file; the others are untouched.

The fast set takes a seeded share; marked slow, all.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import PLACES, damage, told

from simcse_bench.data.pairs import read_task_pairs as read_task
from simcse_bench.data.registry import load_task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.compare import read_data, read_sides
from simcse_bench.evaluation.geometry import read_trajectory
from simcse_bench.evaluation.metrics import pair_records
from simcse_bench.experiments import run
from simcse_bench.experiments.summary import summarise
from simcse_bench.experiments.sweep import named_ablation, plan_sweep
from simcse_bench.experiments.trial import read_trial
from simcse_bench.reports import (
    ablation,
    frames,
    geometry,
    mteb,
    panels,
    reproduction,
    robustness,
    scores,
    site,
    speed,
    standings,
)
from simcse_bench.reports.pair_records import load_pairs, load_worst, save_pairs
from simcse_bench.reports.report import Report
from simcse_bench.reports.summary import read_summary
from simcse_bench.training.run import RunOptions

RESULTS = Path(__file__).parent.parent / "results"
PAPER = RESULTS / "embedded" / "simcse-2021-mini"
VERSION_1 = Path(__file__).parent / "version1"  # a report and its pairs from before these held sentences
OLD = "mini/CLS--cls-none.json"
pytestmark = pytest.mark.skipif(not PAPER.is_dir(), reason="no results/ here: this is no checkout")

MTEB = {
    "key": "k", "selection": "BIOSSES", "benchmark": None, "model": {"name": "m", "pooling": "cls", "head": "none"},
    "mteb": {"version": "2.1", "name": "a/m", "revision": "r"},
    "tasks": {"BIOSSES": {"type": "STS", "metric": "cosine_spearman", "score": 80.0, "data": {"path": "p", "revision": "v"},
                          "superseded_by": None, "parts": [{"split": "test", "subset": "default", "score": 80.0,
                                                            "metrics": {"cosine_spearman": 0.8, "ap": None}}]}},
    "averages": {}, "environment": {"processor": "p", "cores": 2, "versions": {"torch": "2"}}, "seconds": 1.0,
    "created": "2026-01-01", "protocol": "mteb's own", "schema": 1,
}  # fmt: skip


def read_report(path: Path) -> None:
    report = Report.load(path)
    scores.draw_report(report, path)
    scores.score_table(report, "spearman", "wmean", narrow=True)
    standings.board([standings.Saved("sts/r.json", report)])
    draw_folder(path)


def read_pairs(path: Path) -> None:
    named = path.with_name(path.name.replace(".pairs.jsonl", ".json"))
    report = Report.load(named)
    worst = load_worst(named, report)
    load_pairs(named, report)
    for pairs in worst.values():
        assert all({"gold", "cosine", "left", "right"} <= set(pair) for pair in pairs)
    other = next(p for p in sorted(path.parent.glob("*.json")) if p != named)
    read_data(read_sides([str(named), str(other)], path.parent.parent, "mini"))


def draw_folder(path: Path) -> None:
    """A file that can be read is drawn, and stops no other."""
    site.regenerate(path.parent.parent)
    frames.read_results(path.parent.parent)


def read_one_trial(path: Path) -> None:
    result = read_trial(path)
    if result["status"] == "failed":
        return
    planned = plan_sweep(named_ablation("dropout"), "mini", 1, (), (), Path("x"), RunOptions(Path("x")))
    original = read_trial(PAPER / "ablations" / "dropout-mini" / path.name)
    assert original["status"] == "finished"
    known = run.known_inputs(original)
    if run.known_inputs(result) != known or result["config"] != original["config"]:
        return  # it would not be taken for this sweep's
    title, dev = run.read_dev_of(planned)
    summary = summarise(planned, [original, result | {"seed": 7, "arm": "0.1"}], title, dev.gold, dev.sizes())
    ablation.ablation_markdown(summary, ablation.ablation_table(summary))


def read_sweep(path: Path) -> None:
    read_summary(path)
    ablation.draw_ablation(path.parent)
    ablation.findings_table([read_summary(path)])
    panels.ablation_panel("a", "ablations/a", read_summary(path))


def read_analysis(path: Path) -> None:
    analysis = geometry.read_analysis(path)
    geometry.geometry_rows([analysis])
    geometry.draw_geometry(path.parent, [analysis])
    panels.geometry_panel("g", "analysis", [analysis])


def read_changed(path: Path) -> None:
    found = robustness.read_robustness(path)
    robustness.robustness_rows([found])
    robustness.draw_robustness(path.parent, [found])
    panels.robustness_panel("robustness", [found])


def read_record(path: Path) -> None:
    problems: list[str] = []
    reproduction.draw_reproduction(path.parent, problems)
    if problems:
        raise UserError(*problems)


def read_reproduced(path: Path) -> None:
    """A report that a reproduction's page is drawn from."""
    read_record(path.parent.parent / "reproduction.json")


def read_speed(path: Path) -> None:
    speed.speed_table(speed.read_speed(path))


def read_mteb(path: Path) -> None:
    report = mteb.MtebReport.load(path)
    mteb.draw_mteb(report, path)
    mteb.mteb_leaderboards([report])


def read_run(path: Path) -> None:
    read_trajectory(path.parent)


# kind -> file, the files beside it, how it is read, how many in the fast set and in all
KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], None], int, int]] = {
    "report": ("mini/CLS--cls-none.json", ("mini/unsupervised-SimCSE-seed-42.json",), read_report, 60, 600),
    "transfer": ("mini-transfer/CLS--cls-none.json", (), read_report, 40, 400),
    "pairs": ("mini/new.pairs.jsonl", ("mini/new.json", "mini/unsupervised-SimCSE-seed-42.json",
              "mini/unsupervised-SimCSE-seed-42.pairs.jsonl"), read_pairs, 25, 300),
    "first pairs": ("mini/CLS--cls-none.pairs.jsonl", ("mini/CLS--cls-none.json", "mini/unsupervised-SimCSE-seed-42.json",
                    "mini/unsupervised-SimCSE-seed-42.pairs.jsonl"), read_pairs, 25, 300),
    "trial": ("ablations/dropout-mini/0.1--seed42.json", (), read_one_trial, 40, 400),
    "summary": ("ablations/dropout-mini/summary.json", (), read_sweep, 12, 400),
    "geometry": ("analysis/CLS.json", (), read_analysis, 6, 300),
    "robustness": ("robustness/random-words-300.json", (), read_changed, 6, 200),
    "reproduction": ("reproduction.json", (), read_record, 25, 300),
    "reproduced": ("mini/CLS--cls-none.json", ("reproduction.json", "mini/unsupervised-SimCSE-seed-42.json"),
                   read_reproduced, 40, 300),
    "trajectories": ("trajectories.json", ("reproduction.json",), read_record, 8, 200),
    "speed": ("speed/training.json", (), read_speed, 100, 500),
    "mteb": ("mteb/m.json", (), read_mteb, 100, 500),
    "run": ("run/train.json", (), read_run, 60, 300),
}  # fmt: skip


def source(name: str) -> bytes:
    if name.startswith("speed/"):
        return next(iter(sorted((RESULTS / "speed").glob("*.json")))).read_bytes()
    if name.startswith("robustness/"):
        return (RESULTS / name).read_bytes()
    if name.startswith("mteb/"):
        return json.dumps(MTEB).encode()
    if name.startswith("run/"):
        points = json.loads((PAPER / "trajectories.json").read_text("utf-8"))["no dropout"]
        return json.dumps({"config": {}, "status": "finished", "measured": points}).encode()
    if name == "mini/new.json":
        return source(OLD)
    if name == "mini/new.pairs.jsonl":
        return new_pairs()
    return ((VERSION_1 if name.startswith("mini/CLS") else PAPER) / name).read_bytes()


@functools.cache
def new_pairs() -> bytes:
    """The pairs of version 1 as today's."""
    path = VERSION_1 / OLD
    report = Report.load(path)
    data = {n: read_task(load_task(n), "test", "senteval", None) for n in report.tasks}
    rows = [pair_records(n, data[n], np.array(x)) for n, x in load_pairs(path, report).items()]
    with tempfile.TemporaryDirectory() as folder:
        save_pairs(Path(folder) / "r.json", report.key, itertools.chain.from_iterable(rows))
        return (Path(folder) / "r.pairs.jsonl").read_bytes()


def parsed(raw: bytes, name: str) -> Any:
    return [json.loads(line) for line in raw.splitlines()] if name.endswith("l") else json.loads(raw)


def lines(raw: bytes) -> bytes:
    """A list as the lines of a .jsonl; what is none stays."""
    try:
        rows = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    return "\n".join(map(json.dumps, rows)).encode() if isinstance(rows, list) else raw


def put(folder: Path, name: str, beside: tuple[str, ...]) -> Path:
    for one in (name, *beside):
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        (folder / one).write_bytes(source(one))
    return folder / name


def contents(folder: Path, but: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*.json*") if p != but and p.is_file()}


def check(read: Callable[[Path], None], path: Path, folder: Path, before: dict[Path, bytes]) -> bool:
    """Whether it was refused."""
    refused = False
    try:
        read(path)
    except UserError as error:
        told(error, path.name, path.name.replace(".pairs.jsonl", ".json"), f"{path.parent.name}: no run")
        refused = True
    assert contents(folder, path) == before
    return refused


def suffer(kind: str, tmp_path: Path, count: int) -> None:
    name, beside, read, _, _ = KINDS[kind]
    path = put(tmp_path / "r", name, beside)
    before = contents(tmp_path / "r", path)
    assert not check(read, path, tmp_path / "r", before)  # whole, it is read
    content, rng, refused = parsed(path.read_bytes(), name), random.Random(f"{kind} 1"), 0
    for i in range(count):
        what, raw = damage(content, rng)
        path.write_bytes(lines(raw) if name.endswith("l") else raw)
        try:
            refused += check(read, path, tmp_path / "r", before)
        except BaseException as fault:
            fault.add_note(f"{kind}, number {i}: {what}")
            raise
    assert refused > count / 4
    for place, change in PLACES.items():
        shutil.rmtree(tmp_path / "r")
        path = put(tmp_path / "r", name, beside)
        change(path)
        assert check(read, path, tmp_path / "r", before) or place == "a dangling link"


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("kind", KINDS)
def test_damage(kind, tmp_path):
    suffer(kind, tmp_path, KINDS[kind][3])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("kind", KINDS)
def test_more_damage(kind, tmp_path):
    suffer(kind, tmp_path, KINDS[kind][4])


def check_command(cli: Callable[..., Any], arguments: list[str], path: Path, before: dict[Path, bytes]) -> bool:
    """Whether the command line refused it, in lines that name the file, and touched nothing."""
    raw = path.read_bytes() if path.is_file() else b""
    done = cli(*arguments)
    assert done.code in (0, 2), done.err
    assert "Traceback" not in done.err
    if done.code == 2:
        assert path.name in done.err
        assert all(line.startswith("error: ") for line in done.err.splitlines())
    assert contents(path.parent.parent, path) == before
    assert not path.is_file() or path.read_bytes() == raw
    return bool(done.code == 2)


@pytest.mark.parametrize("count", [12, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("few_resamples")
def test_eval_prints_a_report_again_or_refuses_it(cli, count):
    command = ["eval", "--model", "mini", "--suite", "mini", "-q"]
    first = cli(*command)
    assert first.code == 0, first.err
    path = Path("results/mini/mini.json")
    content, rng = json.loads(path.read_text("utf-8")), random.Random("eval 1")
    before = contents(Path("results"), path)
    for i in range(count):
        what, raw = damage(content, rng)
        path.write_bytes(raw)
        try:
            check_command(cli, command, path, before)
        except BaseException as fault:
            fault.add_note(f"number {i}: {what}")
            raise
    assert cli(*command, "--force").code == 0
    assert cli(*command).out == first.out


@pytest.mark.parametrize("count", [15, pytest.param(150, marks=pytest.mark.slow)])
def test_the_leaderboard_goes_on_without_it(cli, count):
    name, other = "mini/CLS--cls-none.json", "mini/unsupervised-SimCSE-seed-42.json"
    path = put(Path("results"), name, (other,))
    content, rng = json.loads(path.read_text("utf-8")), random.Random("leaderboard 1")
    for _ in range(count):
        path.write_bytes(damage(content, rng)[1])
        done = cli("leaderboard")
        assert done.code == 0, done.err
        assert "unsupervised SimCSE" in done.out
        assert not done.err or (path.name in done.err and done.err.startswith("left out: "))
