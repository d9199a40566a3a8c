"""The steps of a reproduction: what each would do, and what of it is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.data.senteval import is_configured
from simcse_bench.experiments.board import show_sweep
from simcse_bench.experiments.run import Executor, read_finished, run_one_by_one, run_sweep
from simcse_bench.experiments.sweep import Sweep, named_ablation, slug
from simcse_bench.experiments.sweep import plan_sweep as plan_sweep
from simcse_bench.files import write_json
from simcse_bench.papers.simcse_2021 import Line, Paper, Part
from simcse_bench.progress import Say, show_training, silent
from simcse_bench.reports.report import report_path
from simcse_bench.reports.reproduction import TRAJECTORIES, read_trajectories
from simcse_bench.training.recipes import recipe
from simcse_bench.training.run import RunOptions, train

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
    options: RunOptions  # device and data
    execute: Executor = run_one_by_one

    @property
    def real(self) -> bool:
        """Whether real evaluation data is configured."""
        return self.preset != "mini" or is_configured(self.options.where)

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
    run: Callable[[], Sequence[str] | None]  # gives what has failed and did not stop the rest


def steps(r: Reproduction, how: str, say: Say) -> Iterator[Step]:
    """The work in its order: models first, then what is measured on them, then the ablations.

    ``how``: progress is shown, see ``progress.show_training``.
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


def seeds_of(r: Reproduction, line: Line) -> Sequence[int]:
    """Of a line's models; an encoder as it is has none."""
    base = recipe(line.recipes[r.preset]).seed
    return range(base, base + r.seeds) if line.trained else (0,)


def name_of(line: Line, seed: int) -> str:
    """A model's name in reports."""
    return f"{line.name}, seed {seed}" if line.trained else line.name


def report_of(r: Reproduction, suite: str, line: Line, seed: int) -> Path:
    """Where ``run_evaluation`` saves it: a pooling of one's own stands in the file's name."""
    return report_path(r.folder, suite, name_of(line, seed), f"--{line.pooling}-none" if line.pooling else "")


def _run_folder(r: Reproduction, line: Line, seed: int) -> Path:
    return r.runs / f"{slug(line.name)}-seed{seed}"


def _training(r: Reproduction, line: Line, how: str) -> Step:
    from simcse_bench.training.folder import RunFolder

    base = recipe(line.recipes[r.preset], (), r.options.where, r.options.device)
    todo = []
    for seed in seeds_of(r, line):
        record = RunFolder(_run_folder(r, line, seed)).record()
        if record is None or record["status"] != "finished":
            todo.append(seed)

    def work() -> None:
        for seed in seeds_of(r, line):  # a finished one is compared with these settings
            options = dataclasses.replace(r.options, out=_run_folder(r, line, seed), resume=True)
            with show_training(how) as show:
                train(dataclasses.replace(base, seed=seed), options, show, silent)

    return Step(f"train {line.name}", len(todo), r.seeds, line.recipes[r.preset], work)


def _models(r: Reproduction) -> Iterator[tuple[Line, int, Callable[[], Any]]]:
    """Every model of the main tables, its seed, and how to open it."""
    from simcse_bench.models.open import open_model

    for line in r.paper.lines:
        for seed in seeds_of(r, line):
            where = str(_run_folder(r, line, seed)) if line.trained else recipe(line.recipes[r.preset]).model
            head = None if line.pooling is None else "none"

            def opened(line: Line = line, seed: int = seed, where: str = where, head: str | None = head) -> Any:
                return open_model(where, pooling=line.pooling, head=head, device=r.options.device,
                                  name=name_of(line, seed))  # fmt: skip

            yield line, seed, opened


def _scores(r: Reproduction, part: Part, say: Say) -> Step:
    from simcse_bench.evaluation.run import EvaluationSettings, plan_evaluation
    from simcse_bench.evaluation.run import run_evaluation as evaluate

    suite, options = r.suite(part.name), r.options
    paths = [report_of(r, suite, line, seed) for line in r.paper.lines for seed in seeds_of(r, line)]
    missing = sum(not path.exists() for path in paths)

    def work() -> None:
        settings = EvaluationSettings(suite, where=options.where, out=r.folder)
        for _, _, opened in _models(r):
            evaluate(plan_evaluation(opened(), settings), None, say)

    return Step(f"Table {part.number}: {suite}", missing, len(paths), None, work)


def _geometry(r: Reproduction, part: Part) -> Step:
    from simcse_bench.evaluation import geometry

    options, task = r.options, "stsb" if r.real else "mini-sts"
    names = [name_of(line, seed) for line in r.paper.lines for seed in list(seeds_of(r, line))[:1]]
    paths = {name: report_path(r.folder, "analysis", name) for name in names}

    def work() -> None:
        pairs = geometry.read_whole(task, (), options.where)
        for line, seed, opened in _models(r):
            path = paths.get(name_of(line, seed))
            if path and not path.exists():
                analysis = geometry.analyse_model(opened(), task, (), pairs)
                write_json(path, analysis, None)

    return Step(part.number, sum(not p.exists() for p in paths.values()), len(paths), None, work)


def _trajectories(r: Reproduction, part: Part, how: str) -> Step:
    from simcse_bench.evaluation import geometry

    path = r.folder / TRAJECTORIES
    there = set(read_trajectories(path)) if path.exists() else set()
    folders = {name: r.runs / f"trajectory-{slug(name)}" for name in r.paper.trajectories}

    def work() -> None:
        points = {}
        for name, (ablation, arm) in r.paper.trajectories.items():
            known = named_ablation(ablation)
            changes = dict(known.arms_of(r.preset)[arm]) | {"track_geometry": TRACK_EVERY}
            base = recipe(known.recipes[r.preset], (), r.options.where, r.options.device)
            config = dataclasses.replace(base, **changes).check()
            with show_training(how) as show:
                train(config, dataclasses.replace(r.options, out=folders[name], resume=True), show, silent)
            points[name] = geometry.read_trajectory(folders[name])
        write_json(path, points)

    recipe_name = named_ablation(next(iter(r.paper.trajectories.values()))[0]).recipes[r.preset]
    return Step(part.number, len(set(folders) - there), len(folders), recipe_name, work)


def _ablation(r: Reproduction, part: Part, how: str, say: Say) -> Step:
    sweep = _sweep(r, part)
    missing = sum(read_finished(trial) is None for trial in sweep.trials)

    what = f"Table {part.number}: ablation {part.name}"

    def work() -> list[str]:
        with show_sweep(how, sweep.trials) as show_trial:
            summary = run_sweep(sweep, False, show_trial, say, r.execute)
        return [f"{what}, {arm['arm']}, seed {f['seed']}" for arm in summary["arms"] for f in arm["failed"]]

    return Step(what, missing, len(sweep.trials), named_ablation(part.name).recipes[r.preset], work)


def _sweep(r: Reproduction, part: Part) -> Sweep:
    return plan_sweep(named_ablation(part.name), r.preset, r.seeds, (), (), r.folder, r.options)
