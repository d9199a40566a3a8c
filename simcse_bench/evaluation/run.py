"""One evaluation from names to a saved report; finished work is found again by its key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.pairs import data_folder
from simcse_bench.data.reading import Data
from simcse_bench.data.registry import known_name, load_suite, load_suites, load_task
from simcse_bench.data.senteval import ANYWHERE, DataSource, is_configured
from simcse_bench.data.task import PROBE_NAMES, SIMCSE, EvalProtocol, Task, named_protocol
from simcse_bench.errors import UserError, unknown
from simcse_bench.evaluation.evaluate import (
    distinct_sentences,
    existing_report,
    protocol_fields,
    read_all,
    save_whole,
    score_all,
)
from simcse_bench.evaluation.exclusion import excluded_by
from simcse_bench.evaluation.metrics import Floats
from simcse_bench.files import require_writable, write_text
from simcse_bench.models.catalog import INT8
from simcse_bench.models.open import Model
from simcse_bench.progress import Progress, Say, silent
from simcse_bench.reports.report import Report, evaluation_key, model_variant, report_path
from simcse_bench.reports.scores import write_report_tables

RESAMPLES_RANGE = (100, 10_000)  # an interval needs a few beyond its ends; 10,000 of SICK-R take 2 GB


Scored = tuple[Report, Mapping[str, Floats]]


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate on, and where the report goes."""

    suite: str = "sts"  # one, or several separated by commas; empty: the single tasks below
    tasks: tuple[str, ...] = ()
    protocol: str = "simcse"
    split: str | None = None
    probe: str | None = None
    resamples: int | None = None  # of the bootstrap; None: the protocol's
    bootstrap_seed: int | None = None
    limit: int | None = None
    where: DataSource = ANYWHERE
    out: Path = Path("results")
    force: bool = False
    exclude: Path | None = None  # a record of ``data overlap``: pairs with a sentence that it found are left out


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation whose input has been read and checked whole; nothing is computed yet."""

    model: Model
    suite: str
    tasks: Sequence[Task]
    protocol: EvalProtocol
    data: Mapping[str, Data]
    skipped: Mapping[str, str]
    limit: int | None
    key: str
    path: Path
    existing: Report | None  # the report of the same evaluation, where there is one
    exact: Report | None = None  # of an int8 evaluation: the same in float32, where it is there


def default_suite(model: Mapping[str, Any], where: DataSource = ANYWHERE) -> str:
    """The STS suite of the model's language, sts for English.

    For the mini encoder, and what was trained from it, the embedded data where no real data is configured.
    """
    if model.get("embedded") and not is_configured(where):
        return bundled.SUITE
    return f"sts-{model['language']}" if model.get("language") else "sts"


def each_suite(settings: EvaluationSettings) -> list[EvaluationSettings]:
    """A setting for each suite that is named, ``all`` as the two it stands for; a probe belongs to transfer tasks.

    Raises:
        UserError: an unknown suite.
    """
    if not settings.suite:
        return [settings]
    both = dict.fromkeys(("all", "full"), ("sts", "transfer"))  # SimCSE evaluation.py's word: full
    suites = {**both, **{name: (name,) for name in load_suites(settings.where.tasks_dir)}}
    names: dict[str, bool] = {}  # and whether a probe applies
    problems = []
    for asked in filter(None, map(str.strip, settings.suite.split(","))):
        known = known_name(asked, suites)
        if known is None:
            problems.append(str(unknown("suite", asked, suites)))
            continue
        for name in suites[known]:
            names[name] = any(task.kind == "transfer" for task in load_suite(name, settings.where.tasks_dir))
    if problems or not names:
        raise UserError(*(problems or [f"--suite {settings.suite!r}: names no suite."]))
    everywhere = not any(names.values())  # then the probe is an error
    return [
        replace(settings, suite=n, probe=settings.probe if takes or everywhere else None) for n, takes in names.items()
    ]


def destination(model: Mapping[str, Any], settings: EvaluationSettings) -> tuple[list[Task], EvalProtocol, Path]:
    """The tasks and the protocol of an evaluation, and where its report goes; ``model`` is its provenance."""
    tasks, protocol = _rules(settings)
    settings = replace(settings, tasks=tuple(task.name for task in tasks))
    return tasks, protocol, place(model, protocol_fields(protocol, tasks), settings)


def place(model: Mapping[str, Any], protocol: Mapping[str, Any], settings: EvaluationSettings) -> Path:
    """Where the report of a model's evaluation under these rules goes."""
    variant = _variant(model, protocol, settings)
    return report_path(settings.out, settings.suite or "tasks", str(model["name"]), variant)


def plan_evaluation(model: Model, settings: EvaluationSettings) -> EvaluationPlan:
    """Read and check all input of an evaluation.

    Raises:
        UserError: any input that cannot be used; a report of another evaluation in the same file (without force).
    """
    tasks, protocol, path = destination(model.provenance, settings)
    suite = settings.suite or "tasks"
    require_writable(path)
    root = data_folder(tasks, settings.where)
    data, skipped = read_all(tasks, protocol, root, settings.limit, settings.exclude)
    fingerprints = {name: p.fingerprint() for name, p in data.items()}
    rules = protocol_fields(protocol, tasks)
    key = evaluation_key(model.provenance, rules, fingerprints, settings.limit)
    existing = exact = None
    if model.provenance.get("dtype") == INT8:
        plain = {**model.provenance, "dtype": "float32"}
        beside = place(plain, rules, replace(settings, tasks=tuple(task.name for task in tasks)))
        saved = Report.load(beside) if beside.exists() else None
        wanted = evaluation_key(plain, rules, fingerprints, settings.limit)
        exact = saved if saved and saved.key == wanted else None
    if not settings.force:
        existing = existing_report(path, key, model.provenance, fingerprints, "--force")
    return EvaluationPlan(model, suite, tasks, protocol, data, skipped, settings.limit, key, path, existing, exact)


def run_evaluation(plan: EvaluationPlan, progress: Progress | None = None, say: Say = silent) -> Report:
    """Evaluate and save, or give the report that is there already; ``say`` gets notes, and a line per transfer task."""
    if plan.existing is not None:
        write_report_tables(plan.existing, plan.path)
        return plan.existing
    return save_scores(plan, score_plan(plan, plan.model.load(progress), say))


def score_plan(plan: EvaluationPlan, encoder: Any, say: Say = silent) -> Scored:
    """The report of an evaluation, and a value per pair, triplet, query; nothing is saved."""
    for note in getattr(encoder, "notes", ()):
        say(note)
    report, values = score_all(encoder, plan.tasks, plan.data, plan.skipped, plan.protocol, plan.limit, plan.suite, say)
    if plan.exact is not None:
        scores: dict[str, Any] = {name: task["scores"] for name, task in plan.exact.tasks.items()}
        report = replace(report, tasks={n: {**task, "float32": scores[n]} for n, task in report.tasks.items()})
    elif report.model.get("dtype") == INT8:
        say("what int8 loses is told where the same evaluation in float32 is there: run that, then this with --force.")
    return report, values


def save_scores(plan: EvaluationPlan, scored: Scored) -> Report:
    """Save what ``score_plan`` gave.

    Raises:
        UserError: it is another model's than was planned; the place cannot be written.
    """
    report, values = scored
    if report.key != plan.key:
        raise UserError(
            f"{plan.suite}: the model that was loaded is not the one that was planned (key {report.key}, not "
            f"{plan.key}). Have its files changed meanwhile, or are a worker's others?"
        )
    save_whole(plan.path, report, plan.data, values)
    return report


def write_sentences(path: Path, sentences: Sequence[str], force: bool = False) -> int:
    """Sentences as a text of which ``encode`` makes vectors, blank ones left out; their number.

    Raises:
        UserError: another suffix than .txt and .jsonl; a line break inside a sentence of a .txt; something else there
            (without force).
    """
    whole = [sentence for sentence in sentences if sentence.strip()]
    if path.suffix == ".jsonl":
        lines = [json.dumps({"sentence": sentence}, ensure_ascii=False) for sentence in whole]
    elif path.suffix == ".txt":
        lines = whole
        broken = [sentence for sentence in whole if "\n" in sentence or "\r" in sentence]
        if broken:
            raise UserError(f"--out {path}: a line break in {broken[0][:80]!r}; give a .jsonl.")
    else:
        raise UserError(f"--out {path}: unknown suffix {path.suffix!r}; expected .txt or .jsonl.")
    text = "".join(line + "\n" for line in lines)
    if path.exists() and not force and not (path.is_file() and path.read_bytes() == text.encode("utf-8")):
        raise UserError(
            f"--out {path}: exists, and holds something else. Give --force to replace it, or another --out."
        )
    write_text(path, text)
    return len(whole)


def _rules(settings: EvaluationSettings) -> tuple[list[Task], EvalProtocol]:
    tasks = _tasks(settings)
    return tasks, _protocol(settings, tasks)


def _protocol(settings: EvaluationSettings, tasks: Sequence[Task]) -> EvalProtocol:
    protocol = named_protocol(settings.protocol)
    transfer = [t.name for t in tasks if t.kind == "transfer"]
    if transfer and protocol.name == "mteb":
        raise UserError(f"protocol mteb has none of {', '.join(transfer)}: its classification tasks are others.")
    if settings.probe is not None and not transfer:
        raise UserError(f"--probe {settings.probe}: STS tasks have no classifier; it applies to --suite transfer.")
    if settings.split and settings.split != protocol.split:  # else the protocol's own, SICK-R's under mteb included
        protocol = replace(protocol, split=settings.split, task_splits={})
    if transfer and protocol.split not in ("dev", "test"):
        raise UserError(f"--split {protocol.split}: transfer tasks have dev and test accuracies.")
    # SimCSE evaluation.py, mode dev: the fast settings
    probe = settings.probe or ("fast" if protocol.split == "dev" else "exact")
    if probe not in PROBE_NAMES:
        raise unknown("probe", probe, PROBE_NAMES)
    excluded = None if settings.exclude is None else excluded_by(settings.exclude)
    return with_bootstrap(
        replace(protocol, probe=probe, excluded=excluded), settings.resamples, settings.bootstrap_seed
    )


def with_bootstrap(protocol: EvalProtocol, resamples: int | None, seed: int | None) -> EvalProtocol:
    """The protocol with other intervals; None: its own.

    Raises:
        UserError: too few resamples for an interval, more than fit in memory, a seed below 0.
    """
    low, high = RESAMPLES_RANGE
    if resamples is not None and not low <= resamples <= high:
        raise UserError(
            f"--resamples {resamples}: expected {low} to {high:,}; the protocol's are {protocol.resamples}."
        )
    if seed is not None and seed < 0:
        raise UserError(f"--bootstrap-seed {seed}: expected 0 or more.")
    changes = {"resamples": resamples, "bootstrap_seed": seed}
    return replace(protocol, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def sentences_of(settings: EvaluationSettings) -> list[str]:
    """Every distinct sentence that an evaluation embeds, in its order."""
    data: list[Data] = []
    for one in each_suite(settings):
        tasks, protocol = _rules(one)
        data += read_all(tasks, protocol, data_folder(tasks, one.where), one.limit)[0].values()
    return distinct_sentences(data)


def _tasks(settings: EvaluationSettings) -> list[Task]:
    if settings.suite:
        return load_suite(settings.suite, settings.where.tasks_dir)
    problems: list[str] = []
    tasks: list[Task] = []
    for name in dict.fromkeys(settings.tasks):
        try:
            tasks.append(load_task(name, settings.where.tasks_dir))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return list({task.name: task for task in tasks}.values())


def _variant(model: Mapping[str, Any], protocol: Mapping[str, Any], settings: EvaluationSettings) -> str:
    """What sets this evaluation apart from the default one, for the file name."""
    parts = list(dict.fromkeys(settings.tasks)) if not settings.suite else []
    usual = {"name": "simcse", "split": "test", "probe": "exact"}
    parts += [protocol[field] for field, value in usual.items() if protocol.get(field, value) != value]
    drawn = {"resamples": SIMCSE.resamples, "bootstrap_seed": SIMCSE.bootstrap_seed}
    parts += [f"{field.removesuffix('_seed')}{protocol[field]}" for field, n in drawn.items() if protocol[field] != n]
    parts += [f"without-{protocol['excluded']['train']}"] if settings.exclude else []
    parts += [f"first{settings.limit}"] if settings.limit else []
    return "".join(f"--{p}" for p in (*parts, *model_variant(model)))
