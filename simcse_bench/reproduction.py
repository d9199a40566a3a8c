"""A paper gone through: what is missing is trained and measured, then one page holds every table beside the paper's."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench.archive import configured
from simcse_bench.config import TrainConfig, recipe
from simcse_bench.errors import UserError, unknown
from simcse_bench.launch import Place, duration, estimate, launch
from simcse_bench.paper import PAPERS, Line, Paper, Part
from simcse_bench.plan import Sweep, named, slug
from simcse_bench.plan import plan as plan_sweep
from simcse_bench.progress import training_shown
from simcse_bench.render import MISSING, Table
from simcse_bench.report import Report, environment, load_pairs, report_path, write_bytes, write_text
from simcse_bench.reproduction_pages import RECORD, TRAJECTORIES, drawn, read_record
from simcse_bench.summary import complete, finding
from simcse_bench.sweep import Executor, Say, finished, one_by_one
from simcse_bench.sweep_progress import sweep_shown

SCHEMA = 1
TRACK_EVERY = 10  # updates between two points of a trajectory (SimCSE, Figure 2)
_EMBEDDED = {"sts": "mini", "transfer": "mini-transfer"}  # suites where no real data is configured


@dataclass(frozen=True)
class Reproduction:
    """What will be gone through; nothing is computed yet."""

    paper: Paper
    parts: Sequence[Part]
    preset: str
    seeds: int
    folder: Path  # of everything that is written but the models
    runs: Path  # of the models
    place: Place  # device and data
    execute: Executor = one_by_one

    @property
    def real(self) -> bool:
        """Whether real evaluation data is configured."""
        return self.preset != "mini" or configured(self.place.data_dir, self.place.data_revision)

    def suite(self, name: str) -> str:
        """The suite that is evaluated: without real data the embedded one."""
        return name if self.real else _EMBEDDED[name]


@dataclass(frozen=True)
class Step:
    """A piece of work, and what of it is missing."""

    what: str
    missing: int  # runs, trials or reports
    of: int
    recipe: str | None  # of its trainings, for the cost
    run: Callable[[], None]


def plan(
    paper: str,
    numbers: Sequence[str],
    preset: str,
    seeds: int,
    out: Path,
    runs: Path,
    place: Place,
    execute: Executor = one_by_one,
) -> Reproduction:
    """The parts of a paper.

    Args:
        paper: a key of ``PAPERS``.
        numbers: of tables and figures ("3", "D.1", "figure 2"); none: all.
        preset: mini or paper.
        seeds: of everything that is trained.
        out: the results folder; the paper's own is ``<out>/<paper>-<preset>``.
        runs: the folder of the main tables' trained models.
        place: device and data.
        execute: runs the ablations' trials.

    Raises:
        UserError: an unknown paper, part or preset; no seeds.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    whole = PAPERS[paper]
    if preset not in whole.lines[0].recipes:
        raise unknown("preset", preset, whole.lines[0].recipes)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1.")
    known = {part.number.lower(): part for part in whole.parts}
    for number in numbers:
        if number.lower() not in known:
            raise unknown(f"table or figure of {paper}", number, [p.number for p in whole.parts])
    wanted = {number.lower() for number in numbers}
    parts = [part for part in whole.parts if not wanted or part.number.lower() in wanted]
    name = f"{paper}-{preset}"
    return Reproduction(whole, parts, preset, seeds, out / name, runs / name, place, execute)


def steps(r: Reproduction, how: str, say: Say) -> Iterator[Step]:
    """The work in its order: models first, then what is measured on them, then the ablations.

    ``how``: progress is shown, see ``progress.training_shown``.
    """
    kinds = {part.kind for part in r.parts}
    if kinds & {"scores", "geometry"}:
        for line in r.paper.lines:
            if line.trained:
                yield _training(r, line, how)
    for part in r.parts:
        if part.kind == "scores":
            yield _scores(r, part, say)
        elif part.kind == "geometry":
            yield _geometry(r, part)
        elif part.kind == "trajectory":
            yield _trajectories(r, part, how)
        else:
            yield _ablation(r, part, how, say)


def run(r: Reproduction, how: str, say: Say) -> dict[str, Any]:
    """Do what is missing, step by step, and draw the page after each; gives the record.

    Raises:
        Stopped: after Ctrl-C; the same command goes on.
        UserError: input that cannot be used, results of other settings.
    """
    record = _begin(r)
    for step in steps(r, how, say):
        if step.missing:
            say(f"{step.what}: {step.missing} of {step.of} missing")
        began = time.perf_counter()
        try:
            step.run()
        finally:
            if step.missing:
                record["seconds"][step.what] = round(
                    record["seconds"].get(step.what, 0.0) + time.perf_counter() - began, 1
                )
            _write(r, record)
    record["statements"] = _statements(r)
    _write(r, record)
    return record


def forecast(r: Reproduction, say: Say) -> Table:
    """The steps, what of each is missing, and its time by a few updates of its recipe."""
    each: dict[str, float] = {}
    rows, whole = [], 0.0
    for step in steps(r, "none", say):
        seconds = 0.0
        if step.missing and step.recipe:
            if step.recipe not in each:
                each[step.recipe] = estimate(_settled(r, recipe(step.recipe)), r.place, say)[1]
            seconds = step.missing * each[step.recipe]
        whole += seconds
        rows.append([step.what, f"{step.missing} of {step.of}", duration(seconds) if seconds else MISSING])
    notes = [f"Training together: {duration(whole)}, one run after the other; evaluations are not counted."]
    return Table(f"{r.paper.title}, preset {r.preset}: {r.folder}", ["step", "missing", "training"], rows, notes)


def _begin(r: Reproduction) -> dict[str, Any]:
    path = r.folder / RECORD
    before = read_record(path) if path.exists() else {}
    return {
        "schema": SCHEMA,
        "paper": r.paper.name,
        "preset": r.preset,
        "seeds": r.seeds,
        "real": r.real,
        "suites": {p.name: r.suite(p.name) for p in r.paper.parts if p.kind == "scores"},
        "seconds": before.get("seconds", {}),
        "statements": before.get("statements", []),
        "environment": environment(r.place.device),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write(r: Reproduction, record: Mapping[str, Any]) -> None:
    write_text(r.folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    for path, content in drawn(r.folder).items():
        write_bytes(path, content)


def _seeds(r: Reproduction, line: Line) -> Sequence[int]:
    """Of a line's models; an encoder as it is has none."""
    base = recipe(line.recipes[r.preset]).seed
    return range(base, base + r.seeds) if line.trained else (0,)


def _name(line: Line, seed: int) -> str:
    return f"{line.name}, seed {seed}" if line.trained else line.name


def _report(r: Reproduction, suite: str, line: Line, seed: int) -> Path:
    """Where `bench.run` saves it: a pooling of one's own stands in the file's name."""
    return report_path(r.folder, suite, _name(line, seed), f"--{line.pooling}-none" if line.pooling else "")


def _run_folder(r: Reproduction, line: Line, seed: int) -> Path:
    return r.runs / f"{slug(line.name)}-seed{seed}"


def _training(r: Reproduction, line: Line, how: str) -> Step:
    from simcse_bench.run_folder import RunFolder

    base = _settled(r, recipe(line.recipes[r.preset]))
    todo = []
    for seed in _seeds(r, line):
        record = RunFolder(_run_folder(r, line, seed)).record()
        if record is None or record["status"] != "finished":
            todo.append(seed)

    def work() -> None:
        for seed in _seeds(r, line):  # a finished one is compared with these settings
            place = dataclasses.replace(r.place, out=_run_folder(r, line, seed), resume=True)
            with training_shown(how) as show:
                launch(dataclasses.replace(base, seed=seed), place, show, lambda text: None)

    return Step(f"train {line.name}", len(todo), r.seeds, line.recipes[r.preset], work)


def _settled(r: Reproduction, config: TrainConfig) -> TrainConfig:
    from simcse_bench.selection import settled

    return settled(config, r.place.data_dir, r.place.data_revision)


def _models(r: Reproduction) -> Iterator[tuple[Line, int, Callable[[], Any]]]:
    """Every model of the main tables, its seed, and how to open it."""
    from simcse_bench.models import open_model

    for line in r.paper.lines:
        for seed in _seeds(r, line):
            where = str(_run_folder(r, line, seed)) if line.trained else recipe(line.recipes[r.preset]).model
            head = None if line.pooling is None else "none"

            def opened(line: Line = line, seed: int = seed, where: str = where, head: str | None = head) -> Any:
                return open_model(where, pooling=line.pooling, head=head, device=r.place.device,
                                  name=_name(line, seed))  # fmt: skip

            yield line, seed, opened


def _scores(r: Reproduction, part: Part, say: Say) -> Step:
    from simcse_bench.bench import Settings, prepare
    from simcse_bench.bench import run as evaluate

    suite, place = r.suite(part.name), r.place
    paths = [_report(r, suite, line, seed) for line in r.paper.lines for seed in _seeds(r, line)]
    missing = sum(not path.exists() for path in paths)

    def work() -> None:
        settings = Settings(suite, data_dir=place.data_dir, data_revision=place.data_revision, out=r.folder)
        for _, _, opened in _models(r):
            evaluate(prepare(opened(), settings), None, say)

    return Step(f"Table {part.number}: {suite}", missing, len(paths), None, work)


def _geometry(r: Reproduction, part: Part) -> Step:
    from simcse_bench import analysis

    place, task = r.place, "stsb" if r.real else "mini-sts"
    names = [_name(line, seed) for line in r.paper.lines for seed in list(_seeds(r, line))[:1]]
    paths = {name: report_path(r.folder, "analysis", name) for name in names}

    def work() -> None:
        pairs = analysis.read_whole(task, (), place.data_dir, None, place.data_revision)
        for line, seed, opened in _models(r):
            path = paths.get(_name(line, seed))
            if path and not path.exists():
                found = analysis.analyse(opened(), task, (), pairs)
                write_text(path, json.dumps(found, ensure_ascii=False) + "\n")

    return Step(part.number, sum(not p.exists() for p in paths.values()), len(paths), None, work)


def _trajectories(r: Reproduction, part: Part, how: str) -> Step:
    from simcse_bench import analysis

    path = r.folder / TRAJECTORIES
    there = set(read_record(path)) if path.exists() else set()
    folders = {name: r.runs / f"trajectory-{slug(name)}" for name in r.paper.trajectories}

    def work() -> None:
        points = {}
        for name, (ablation, arm) in r.paper.trajectories.items():
            known = named(ablation)
            changes = dict(known.arms_of(r.preset)[arm]) | {"track_geometry": TRACK_EVERY}
            config = dataclasses.replace(_settled(r, recipe(known.recipes[r.preset])), **changes).check()
            with training_shown(how) as show:
                launch(config, dataclasses.replace(r.place, out=folders[name], resume=True), show, lambda text: None)
            points[name] = analysis.trajectory(folders[name])
        write_text(path, json.dumps(points, indent=1) + "\n")

    recipe_name = named(next(iter(r.paper.trajectories.values()))[0]).recipes[r.preset]
    return Step(part.number, len(set(folders) - there), len(folders), recipe_name, work)


def _ablation(r: Reproduction, part: Part, how: str, say: Say) -> Step:
    sweep = _sweep(r, part)
    missing = sum(finished(trial) is None for trial in sweep.trials)

    def work() -> None:
        with sweep_shown(how, sweep.trials) as watch:
            complete(sweep, False, watch, say, r.execute)

    what = f"Table {part.number}: ablation {part.name}"
    return Step(what, missing, len(sweep.trials), named(part.name).recipes[r.preset], work)


def _sweep(r: Reproduction, part: Part) -> Sweep:
    return plan_sweep(named(part.name), r.preset, r.seeds, (), (), r.folder, r.place)


def _statements(r: Reproduction) -> list[dict[str, Any]]:
    """The paper's statements on its main table, judged on one task's pairs with all seeds."""
    from simcse_bench.published import read_table
    from simcse_bench.selection import read_split

    task, suite = ("stsb", "sts") if r.real else ("mini-sts", "mini")
    similarities: dict[str, Any] = {}
    for line in r.paper.lines:
        paths = [_report(r, suite, line, seed) for seed in _seeds(r, line)]
        if all(p.exists() for p in paths):
            similarities[line.name] = np.array([load_pairs(p, Report.load(p))[task] for p in paths])
    pairs: Any = read_split(task, "test", r.place.data_dir, None, r.place.data_revision).data
    rows = {row["model"]: row for row in read_table("simcse_2021_table5_sts")}
    published = {
        line.name: float(rows[line.published["sts"]]["stsb"])
        for line in r.paper.lines
        if line.published and "sts" in line.published
    }
    untrained = [line.name for line in r.paper.lines if not line.trained]
    return [
        finding(claim, similarities, pairs.gold, pairs.sizes(), published, untrained) for claim in r.paper.statements
    ]
