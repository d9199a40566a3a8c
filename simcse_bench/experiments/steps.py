"""The steps of a reproduction: what each would do, and what of it is missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.data.senteval import configured
from simcse_bench.experiments.board import sweep_shown
from simcse_bench.experiments.run import Executor, complete, finished, one_by_one
from simcse_bench.experiments.sweep import Sweep, named, slug
from simcse_bench.experiments.sweep import plan as plan_sweep
from simcse_bench.files import write_text
from simcse_bench.papers.simcse_2021 import Line, Paper, Part
from simcse_bench.progress import Say, training_shown
from simcse_bench.reports.report import report_path
from simcse_bench.reports.reproduction import TRAJECTORIES, read_record
from simcse_bench.training.config import TrainConfig, recipe
from simcse_bench.training.run import Place, launch

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
    run: Callable[[], Sequence[str] | None]  # gives what has failed and did not stop the rest


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


def seeds_of(r: Reproduction, line: Line) -> Sequence[int]:
    """Of a line's models; an encoder as it is has none."""
    base = recipe(line.recipes[r.preset]).seed
    return range(base, base + r.seeds) if line.trained else (0,)


def name_of(line: Line, seed: int) -> str:
    """A model's name in reports."""
    return f"{line.name}, seed {seed}" if line.trained else line.name


def report_of(r: Reproduction, suite: str, line: Line, seed: int) -> Path:
    """Where `bench.run` saves it: a pooling of one's own stands in the file's name."""
    return report_path(r.folder, suite, name_of(line, seed), f"--{line.pooling}-none" if line.pooling else "")


def _run_folder(r: Reproduction, line: Line, seed: int) -> Path:
    return r.runs / f"{slug(line.name)}-seed{seed}"


def _training(r: Reproduction, line: Line, how: str) -> Step:
    from simcse_bench.training.folder import RunFolder

    base = settle(r, recipe(line.recipes[r.preset]))
    todo = []
    for seed in seeds_of(r, line):
        record = RunFolder(_run_folder(r, line, seed)).record()
        if record is None or record["status"] != "finished":
            todo.append(seed)

    def work() -> None:
        for seed in seeds_of(r, line):  # a finished one is compared with these settings
            place = dataclasses.replace(r.place, out=_run_folder(r, line, seed), resume=True)
            with training_shown(how) as show:
                launch(dataclasses.replace(base, seed=seed), place, show, lambda text: None)

    return Step(f"train {line.name}", len(todo), r.seeds, line.recipes[r.preset], work)


def settle(r: Reproduction, config: TrainConfig) -> TrainConfig:
    """The config with the dev task that fits the data at hand."""
    from simcse_bench.training.selection import settled

    return settled(config, r.place.data_dir, r.place.data_revision)


def _models(r: Reproduction) -> Iterator[tuple[Line, int, Callable[[], Any]]]:
    """Every model of the main tables, its seed, and how to open it."""
    from simcse_bench.models.open import open_model

    for line in r.paper.lines:
        for seed in seeds_of(r, line):
            where = str(_run_folder(r, line, seed)) if line.trained else recipe(line.recipes[r.preset]).model
            head = None if line.pooling is None else "none"

            def opened(line: Line = line, seed: int = seed, where: str = where, head: str | None = head) -> Any:
                return open_model(where, pooling=line.pooling, head=head, device=r.place.device,
                                  name=name_of(line, seed))  # fmt: skip

            yield line, seed, opened


def _scores(r: Reproduction, part: Part, say: Say) -> Step:
    from simcse_bench.evaluation.run import Settings, prepare
    from simcse_bench.evaluation.run import run as evaluate

    suite, place = r.suite(part.name), r.place
    paths = [report_of(r, suite, line, seed) for line in r.paper.lines for seed in seeds_of(r, line)]
    missing = sum(not path.exists() for path in paths)

    def work() -> None:
        settings = Settings(suite, data_dir=place.data_dir, data_revision=place.data_revision, out=r.folder)
        for _, _, opened in _models(r):
            evaluate(prepare(opened(), settings), None, say)

    return Step(f"Table {part.number}: {suite}", missing, len(paths), None, work)


def _geometry(r: Reproduction, part: Part) -> Step:
    from simcse_bench.evaluation import geometry

    place, task = r.place, "stsb" if r.real else "mini-sts"
    names = [name_of(line, seed) for line in r.paper.lines for seed in list(seeds_of(r, line))[:1]]
    paths = {name: report_path(r.folder, "analysis", name) for name in names}

    def work() -> None:
        pairs = geometry.read_whole(task, (), place.data_dir, None, place.data_revision)
        for line, seed, opened in _models(r):
            path = paths.get(name_of(line, seed))
            if path and not path.exists():
                found = geometry.analyse(opened(), task, (), pairs)
                write_text(path, json.dumps(found, ensure_ascii=False) + "\n")

    return Step(part.number, sum(not p.exists() for p in paths.values()), len(paths), None, work)


def _trajectories(r: Reproduction, part: Part, how: str) -> Step:
    from simcse_bench.evaluation import geometry

    path = r.folder / TRAJECTORIES
    there = set(read_record(path)) if path.exists() else set()
    folders = {name: r.runs / f"trajectory-{slug(name)}" for name in r.paper.trajectories}

    def work() -> None:
        points = {}
        for name, (ablation, arm) in r.paper.trajectories.items():
            known = named(ablation)
            changes = dict(known.arms_of(r.preset)[arm]) | {"track_geometry": TRACK_EVERY}
            config = dataclasses.replace(settle(r, recipe(known.recipes[r.preset])), **changes).check()
            with training_shown(how) as show:
                launch(config, dataclasses.replace(r.place, out=folders[name], resume=True), show, lambda text: None)
            points[name] = geometry.trajectory(folders[name])
        write_text(path, json.dumps(points, indent=1) + "\n")

    recipe_name = named(next(iter(r.paper.trajectories.values()))[0]).recipes[r.preset]
    return Step(part.number, len(set(folders) - there), len(folders), recipe_name, work)


def _ablation(r: Reproduction, part: Part, how: str, say: Say) -> Step:
    sweep = _sweep(r, part)
    missing = sum(finished(trial) is None for trial in sweep.trials)

    what = f"Table {part.number}: ablation {part.name}"

    def work() -> list[str]:
        with sweep_shown(how, sweep.trials) as watch:
            summary = complete(sweep, False, watch, say, r.execute)
        return [f"{what}, {arm['arm']}, seed {f['seed']}" for arm in summary["arms"] for f in arm["failed"]]

    return Step(what, missing, len(sweep.trials), named(part.name).recipes[r.preset], work)


def _sweep(r: Reproduction, part: Part) -> Sweep:
    return plan_sweep(named(part.name), r.preset, r.seeds, (), (), r.folder, r.place)
