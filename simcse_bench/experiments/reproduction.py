"""A paper gone through: what is missing is trained and measured, then one page holds every table beside the paper's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench.data.pairs import Pairs
from simcse_bench.errors import UserError, unknown
from simcse_bench.experiments.ablations import PRESETS
from simcse_bench.experiments.run import Executor, run_one_by_one
from simcse_bench.experiments.steps import Reproduction, report_of, seeds_of, steps
from simcse_bench.experiments.summary import judge
from simcse_bench.files import environment, now, require_writable, write_json
from simcse_bench.models.loading import torch_device
from simcse_bench.papers.simcse_2021 import PAPERS
from simcse_bench.progress import Say
from simcse_bench.reports.page import require_own, write_drawn
from simcse_bench.reports.pair_records import load_pairs
from simcse_bench.reports.report import Report
from simcse_bench.reports.reproduction import REPRODUCTION_RECORD, Reproduced, draw_reproduction, read_reproduction
from simcse_bench.reports.table import MISSING, Table
from simcse_bench.training.dry_run import estimate, shown_duration
from simcse_bench.training.recipes import recipe
from simcse_bench.training.run import RunOptions


def plan_reproduction(
    paper: str,
    numbers: Sequence[str],
    preset: str,
    seeds: int,
    out: Path,
    runs: Path,
    options: RunOptions,
    execute: Executor = run_one_by_one,
) -> Reproduction:
    """The parts of a paper.

    Args:
        paper: a key of ``PAPERS``.
        numbers: of tables and figures ("3", "D.1", "figure 2"); none: all.
        preset: mini or paper.
        seeds: of everything that is trained.
        out: the results folder; the paper's own is ``<out>/<paper>-<preset>``.
        runs: the folder of the main tables' trained models.
        options: device and data.
        execute: runs the ablations' trials.

    Raises:
        UserError: an unknown paper, part or preset; no seeds.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    whole = PAPERS[paper]
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1.")
    known = {part.number.lower(): part for part in whole.parts}
    for number in numbers:
        if number.lower() not in known:
            raise unknown(f"table or figure of {paper}", number, [p.number for p in whole.parts])
    wanted = {number.lower() for number in numbers}
    parts = [part for part in whole.parts if not wanted or part.number.lower() in wanted]
    name = f"{paper}-{preset}"
    return Reproduction(whole, parts, preset, seeds, out / name, runs / name, options, execute)


def reproduce(r: Reproduction, how: str, say: Say) -> Reproduced:
    """Do what is missing, step by step, and draw the page after each; gives the record.

    An ablation's arm that fails is told and listed as "failed"; the others go on, and the next call tries it again.

    Raises:
        Stopped: after Ctrl-C; the same command goes on.
        UserError: input that cannot be used, results of other settings; after all else is done, damaged files that
            the page leaves out.
    """
    record = _begin(r)
    for step in steps(r, how, say):
        if step.missing:
            say(f"{step.what}: {step.missing} of {step.of} missing")
        began = time.perf_counter()
        try:
            record["failed"] += step.run() or ()
        finally:
            if step.missing:
                before = record["seconds"].get(step.what, 0.0)
                record["seconds"][step.what] = round(before + time.perf_counter() - began, 1)
            _write(r, record)
    problems: list[str] = []
    record["statements"] = _statements(r, problems)
    problems += _write(r, record)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return record


def forecast_reproduction(r: Reproduction, say: Say) -> Table:
    """The steps, what of each is missing, and its time by a few updates of its recipe."""
    each: dict[str, float] = {}
    rows, whole = [], 0.0
    for step in steps(r, "none", say):
        seconds = 0.0
        if step.missing and step.recipe:
            if step.recipe not in each:
                config = recipe(step.recipe, (), r.options.where, r.options.device)
                each[step.recipe] = estimate(config, r.options, say)[1]
            seconds = step.missing * each[step.recipe]
        whole += seconds
        rows.append([step.what, f"{step.missing} of {step.of}", shown_duration(seconds) if seconds else MISSING])
    notes = [
        f"Training together: at most {shown_duration(whole).removeprefix('about ')}, one run after the other; an arm "
        "that several tables share is trained once. Dev scores are counted, evaluations of finished models are not."
    ]
    return Table(f"{r.paper.title}, preset {r.preset}: {r.folder}", ["step", "missing", "training"], rows, notes)


def _begin(r: Reproduction) -> Reproduced:
    path = r.folder / REPRODUCTION_RECORD
    require_writable(path)
    require_own(r.folder / "index.html")
    before: Mapping[str, Any] = read_reproduction(path) if path.exists() else {}
    machine: Any = environment(str(torch_device(r.options.device)))
    return {
        "schema": 1,
        "paper": r.paper.name,
        "preset": r.preset,
        "seeds": r.seeds,
        "real": r.real,
        "suites": {p.name: r.suite(p.name) for p in r.paper.parts if p.kind == "scores"},
        "seconds": dict(before.get("seconds", {})),
        "statements": before.get("statements", []),
        "failed": [],
        "environment": machine,
        "created": now(),
    }


def _write(r: Reproduction, record: Reproduced) -> list[str]:
    """Write record and page; gives the problems of files that the page leaves out."""
    write_json(r.folder / REPRODUCTION_RECORD, record)
    problems: list[str] = []
    for path, content in draw_reproduction(r.folder, problems).items():
        write_drawn(path, content)
    return problems


def _statements(r: Reproduction, problems: list[str]) -> list[Any]:
    """The paper's statements on its main table, judged on one task's pairs with all seeds.

    ``problems``: those of damaged reports are added; statements on them are not judged.
    """
    from simcse_bench.papers.published import read_table
    from simcse_bench.training.selection import read_split

    if not r.paper.statements:
        return []
    task, suite = ("stsb", "sts") if r.real else ("mini-sts", "mini")
    pairs: Any = read_split(task, "test", r.options.where).data
    similarities: dict[str, Any] = {}
    for line in r.paper.lines:
        paths = [report_of(r, suite, line, seed) for seed in seeds_of(r, line)]
        try:
            if all(p.exists() for p in paths):
                similarities[line.name] = np.array([_cosines(p, task, pairs) for p in paths])
        except UserError as error:
            problems += error.problems
    rows = {row["model"]: row for row in read_table("simcse_2021_table5_sts")}
    published = {
        line.name: float(rows[line.published["sts"]]["stsb"])
        for line in r.paper.lines
        if line.published and "sts" in line.published
    }
    untrained = [line.name for line in r.paper.lines if not line.trained]
    return [judge(claim, similarities, pairs.gold, pairs.sizes(), published, untrained) for claim in r.paper.statements]


def _cosines(path: Path, task: str, pairs: Pairs) -> Sequence[float]:
    """Of a task's pairs, from beside a report."""
    cosines = load_pairs(path, Report.load(path)).get(task, ())
    if len(cosines) != len(pairs):
        raise UserError(
            f"{path}: {len(cosines)} cosines of {task}, which has {len(pairs)} pairs. Evaluate again with --force."
        )
    return cosines
