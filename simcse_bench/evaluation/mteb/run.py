"""``--suite mteb:...``: tasks and benchmarks of mteb, run by mteb with our encoder; results kept in a cache of ours."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError, first_line
from simcse_bench.evaluation.mteb.adapter import MtebModel, ShowPass
from simcse_bench.evaluation.mteb.selection import Selection, select_mteb
from simcse_bench.files import ENV_CACHE, cache_dir, environment, fingerprint, now, require_writable, write_text
from simcse_bench.hub import hub_errors, quiet_datasets
from simcse_bench.models.mteb_model import import_mteb
from simcse_bench.models.open import Model
from simcse_bench.progress import Say, silent
from simcse_bench.reports.mteb import FOLDER, MtebReport, draw_mteb
from simcse_bench.reports.report import model_variant, report_path

_UNREADABLE = (ValueError, RuntimeError, LookupError, TypeError, ImportError)  # what mteb and datasets raise for data
_BATCH = 512  # texts that mteb hands over at once; they are sorted into batches of ours


@dataclass(frozen=True)
class MtebPlan:
    """An evaluation whose names have been checked; nothing is downloaded or computed yet."""

    model: Model
    selection: Selection
    adapter: MtebModel
    key: str
    path: Path
    existing: MtebReport | None
    force: bool
    export: Path | None  # folder for mteb's own JSON


class _NoDataError(Exception):
    """The data of one task cannot be had; the others can still be evaluated."""

    def __init__(self, task: str, reason: str):
        super().__init__(task, reason)
        self.task, self.reason = task, reason


def plan_mteb(model: Model, spec: str, out: Path, force: bool = False, export: Path | None = None) -> MtebPlan:
    """Check names and places.

    Raises:
        UserError: see ``select_mteb``; a report of another evaluation in the same file (without force); an export
            folder among the reports.
    """
    if model.provenance.get("library") == "mteb":
        raise UserError(f"{model.name} on {spec}: mteb's own model on mteb's own tasks; use `mteb run` for that.")
    if export is not None:
        if export.resolve().is_relative_to(out.resolve()):
            raise UserError(f"--mteb-json {export}: lies in the folder of our own reports, {out}; choose another.")
        require_writable(export / "results")
    selection = select_mteb(spec)
    adapter = MtebModel(model)
    slug = re.sub(r"[^\w.+-]+", "-", selection.label.replace(",", "+").replace("[", ".")).strip("-")
    if len(slug) > 80:
        slug = f"{len(selection.tasks)}-tasks-{fingerprint(slug.encode())[:8]}"
    variant = "".join(f"--{part}" for part in (slug, *model_variant(model.provenance)))
    path = out / FOLDER / report_path(out, "tasks", model.name, variant).name
    require_writable(path)
    tasks = [[t.metadata.name, list(t.eval_splits), list(t.hf_subsets), t.metadata.revision] for t in selection.tasks]
    key = fingerprint([adapter.mteb_model_meta.revision, import_mteb().__version__, tasks])
    existing = None
    if path.exists() and not force:
        existing = MtebReport.load(path)
        if existing.key != key:
            raise UserError(
                f"{path} holds another evaluation (of other weights or settings, or by another mteb: "
                f"{existing.mteb['version']} there). Use --force to replace it, or another --out or --name."
            )
    return MtebPlan(model, selection, adapter, key, path, existing, force, export)


def run_mteb(plan: MtebPlan, show_pass: ShowPass = contextlib.nullcontext, say: Say = silent) -> MtebReport:
    """Evaluate what the cache does not hold and save, or give the report that is there already.

    Args:
        plan: from ``plan_mteb``.
        show_pass: opened around every pass of the encoder, gives a callback for its progress.
        say: gets a line per task.

    Raises:
        UserError: data that cannot be had (after all other tasks have run), NaN embeddings or scores.
    """
    report = plan.existing
    if report is None or plan.export is not None:
        plan.adapter.show_pass = show_pass
        results = _results(plan, say)
        if plan.export is not None:
            _export(plan.export, results, plan.adapter.mteb_model_meta)
        if report is None:
            report = _report(plan, results)
            report.save(plan.path)
    for file, text in draw_mteb(report, plan.path).items():
        write_text(file, text)
    return report


def _results(plan: MtebPlan, say: Say) -> dict[str, Any]:
    version = str(import_mteb().__version__)
    cache = TaskCache(cache_dir() / "mteb" / f"results-{version}")  # another mteb may score otherwise
    results: dict[str, Any] = {}
    missing: dict[str, list[str]] = {}  # by reason, often one for all
    with _quiet():
        for task in plan.selection.tasks:
            name, metric = task.metadata.name, task.metadata.main_score
            try:
                results[name] = _chosen(_result(plan, task, cache), task)
            except _NoDataError as error:
                missing.setdefault(error.reason, []).append(error.task)
            except UserError as error:
                raise UserError(*(f"mteb task {name!r}: {problem}" for problem in error.problems)) from error
            else:
                say(f"{name}: {100 * results[name].get_score():.2f} ({metric} ×100)")
    if missing:
        kept = f" The other {len(results)} are in the cache: the same command goes on." if results else ""
        advice = f"Run it once with the Hub, and the data stays in the cache of datasets ($HF_HOME).{kept}"
        raise UserError(*(f"no data for mteb's {', '.join(n)}: {why} {advice}" for why, n in missing.items()))
    return results


def _result(plan: MtebPlan, task: Any, cache: TaskCache) -> Any:
    if task.is_aggregate:
        combined = task.combine_task_results([_result(plan, part, cache) for part in task.tasks])
        return combined.model_copy(update={"kg_co2_emissions": None})  # else NaN, which is no JSON
    meta = plan.adapter.mteb_model_meta
    done = None if plan.force else cache.load_task_result(task.metadata.name, meta)
    if done is None or done.get_missing_evaluations(task):
        given = task.data_loaded
        if not given:
            _load(task)
        try:
            import_mteb().evaluate(
                plan.adapter, task, cache=cache, co2_tracker=False, show_progress_bar=False,
                encode_kwargs={"batch_size": _BATCH, "show_progress_bar": False},
                overwrite_strategy="always" if plan.force else "only-missing",
            )  # fmt: skip
        finally:
            if not given:
                task.unload_data()
        done = cache.load_task_result(task.metadata.name, meta)  # rounded as every later reader finds it
    return done


def _load(task: Any) -> None:
    what = f"{task.metadata.name} ({task.metadata.dataset['path']})"
    try:
        with hub_errors("it", advice=""):
            task.load_data()
    except UserError as error:
        raise _NoDataError(what, " ".join(error.problems).strip()) from error
    except _UNREADABLE as error:
        reason = first_line(error)
        raise _NoDataError(what, f"mteb cannot read it: {reason}.") from error


def _chosen(result: Any, task: Any) -> Any:
    """A result without the splits and subsets that the cache holds beyond the choice."""
    subsets = {"default"} if task.is_aggregate else set(task.hf_subsets)
    scores = {s: [part for part in result.scores[s] if part["hf_subset"] in subsets] for s in task.eval_splits}
    return result.model_copy(update={"scores": scores})


def _report(plan: MtebPlan, results: dict[str, Any]) -> MtebReport:
    meta = plan.adapter.mteb_model_meta
    known = getattr(plan.adapter.encoder, "provenance", plan.model.provenance)
    described: Any = dict(known)
    machine: Any = environment(str(known.get("device", "cpu")))
    tasks: dict[str, Any] = {}
    for task in plan.selection.tasks:
        about, result = task.metadata, results[task.metadata.name]
        tasks[about.name] = {
            "type": about.type,
            "metric": about.main_score,
            "score": _percent(result.get_score()),
            "parts": [_part(split, part) for split, parts in result.scores.items() for part in parts],
            "data": {"path": about.dataset["path"], "revision": about.revision},
            "superseded_by": task.superseded_by,
        }
    return MtebReport(
        key=plan.key,
        selection=plan.selection.label,
        benchmark=plan.selection.benchmark.name if plan.selection.benchmark else None,
        model=described,
        mteb={"version": str(import_mteb().__version__), "name": meta.name, "revision": meta.revision},
        tasks=tasks,
        averages=_averages(plan, results),
        environment=machine,
        seconds=round(sum(r.evaluation_time or 0.0 for r in results.values()), 2),
        created=now(),
    )


def _averages(plan: MtebPlan, results: dict[str, Any]) -> dict[str, float]:
    """A benchmark's averages as mteb takes them; of single tasks, a mean where they are of one type."""
    if plan.selection.benchmark is not None:
        from mteb.results import BenchmarkResults, ModelResult

        meta = plan.adapter.mteb_model_meta
        one = ModelResult(model_name=meta.name, model_revision=meta.revision, task_results=list(results.values()))
        with _quiet():
            scores = plan.selection.benchmark.get_score(BenchmarkResults(model_results=[one]), raise_error=True)
        return {k: _percent(v) for k, v in scores[meta.name].items() if v is not None and k != "Rank"}
    same = len({task.metadata.type for task in plan.selection.tasks}) == 1
    if len(results) < 2 or not same:
        return {}
    return {"Mean(Task)": _percent(sum(r.get_score() for r in results.values()) / len(results))}


def _part(split: str, part: dict[str, Any]) -> dict[str, Any]:
    numbers = {k: v for k, v in part.items() if isinstance(v, int | float) and k != "main_score"}
    metrics = {k: v if math.isfinite(v) else None for k, v in numbers.items()}  # a few of mteb's side metrics are NaN
    return {"split": split, "subset": part["hf_subset"], "score": _percent(part["main_score"]), "metrics": metrics}


def _percent(value: float) -> float:
    return round(100 * float(value), 6)


def _export(folder: Path, results: dict[str, Any], meta: Any) -> None:
    """mteb's own files, as ``mteb run --output-folder`` writes them; ``mteb.ResultCache(folder)`` reads them."""
    try:
        files = import_mteb().ResultCache(folder)
        for result in results.values():
            files.save_to_cache(result, meta, encode_kwargs={"batch_size": _BATCH})
    except OSError as error:
        raise UserError(f"cannot write --mteb-json {folder}: {error.strerror or error}.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without mteb's and datasets' notes; bars of downloads in a terminal only."""

    logger = logging.getLogger("mteb")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet_datasets(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class TaskCache:
    """mteb's results of one model by task; what mteb's own cache does, but by content alone, and whole or not there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load_task_result(self, task_name: str, model: Any) -> Any:
        """mteb's ``TaskResult``, or None where there is none that can be read."""
        from mteb.results import TaskResult

        path = self._path(task_name, model)
        try:
            return TaskResult.from_disk(path, load_historic_data=False) if path.is_file() else None
        except (ValueError, OSError):  # cut off by a full disk; it is computed again
            return None

    def save_to_cache(self, result: Any, model: Any, **_: Any) -> None:
        """Keep a result; UserError where a main score is not a number, or the disk is full."""
        for split, part in ((split, part) for split, parts in result.scores.items() for part in parts):
            if not math.isfinite(part["main_score"]):
                raise UserError(
                    f"mteb gives {part['main_score']} as main score of {split}, {part['hf_subset']}: "
                    "no score exists. Are the embeddings all the same?"
                )
        path = self._path(result.task_name, model)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            result.to_disk(temporary)
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}. Set {ENV_CACHE}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _path(self, task_name: str, model: Any) -> Path:
        return self.folder / str(model.revision) / f"{task_name}.json"
