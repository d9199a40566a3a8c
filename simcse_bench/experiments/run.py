"""Run a sweep: every trial trained and measured once, by an executor; one JSON each; resumable anywhere."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from simcse_bench.data.pairs import Pairs
from simcse_bench.errors import Stopped, UserError
from simcse_bench.experiments.summary import summarise
from simcse_bench.experiments.sweep import Sweep, Trial, slug
from simcse_bench.experiments.trial import SCHEMA, outcome
from simcse_bench.files import locked, read_json, require_writable, write_bytes, write_text
from simcse_bench.progress import Say
from simcse_bench.reports.ablation import DRAWN, SUMMARY, drawn
from simcse_bench.reports.table import Table
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import shown_settings

if TYPE_CHECKING:
    from simcse_bench.progress import Show

Identities = Callable[[TrainConfig], Mapping[str, Any]]  # fingerprints of a trial's inputs
Outcomes = Iterator[tuple[Trial, dict[str, Any]]]


class Watch(Protocol):
    """Is told what becomes of a trial."""

    def __call__(self, trial: Trial, state: str, dev: float | None = None) -> Show:
        """``state``: running, there, done or failed; gives what shows a running trial's log."""


Executor = Callable[[Sweep, "Sequence[Trial]", bool, Watch], Outcomes]  # (sweep, trials, force, watch)


def read_dev_of(sweep: Sweep) -> tuple[str, Pairs]:
    """Title and dev pairs of the task that all arms are scored on.

    Raises:
        UserError: arms with different tasks, a task without pairs, data that cannot be read.
    """
    from simcse_bench.training.selection import read_split

    tasks = {t.config.eval_task for t in sweep.trials}
    if len(tasks) > 1:
        raise UserError(f"eval_task: the arms are scored on the same task, not on {', '.join(sorted(tasks))}.")
    place = sweep.place
    dev = read_split(tasks.pop(), "dev", place.data_dir, place.tasks_dir, place.data_revision)
    if not isinstance(dev.data, Pairs):
        raise UserError(f"eval_task {dev.task.name}: ablations compare similarities; use an STS task.")
    return dev.task.title, dev.data


def check_inputs(sweep: Sweep) -> Identities:
    """What tells the trials' inputs apart: ``identities(config)`` gives fingerprints of text, weights and dev pairs.

    Raises:
        UserError: started by a launcher; model or text that no trial could be trained with; a single arm's problem is
            that arm's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run-ablation starts its processes itself: use --processes, without torchrun or accelerate.")
    from simcse_bench.data.corpus import open_corpus
    from simcse_bench.models.checkpoints import resolve

    dev = read_dev_of(sweep)[1].fingerprint()

    @functools.cache
    def text(train: str, columns: tuple[str, ...], max_rows: int) -> str:
        return open_corpus(train, columns, max_rows).fingerprint

    @functools.cache
    def weights(model: str, revision: str | None) -> Any:
        return resolve(model, revision, "cls", "none").provenance()["files"]

    def identity(config: TrainConfig) -> dict[str, Any]:
        return {
            "text": text(config.train, tuple(config.columns), config.max_rows),
            "weights": weights(config.model, config.revision),
            "dev": dev,
        }

    problems: dict[str, None] = {}
    for trial in sweep.trials:
        try:
            identity(trial.config)
            return identity
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    raise UserError(*problems)


def finished(trial: Trial, identity: Identities | None = None) -> dict[str, Any] | None:
    """The trial's result, where it is there.

    Raises:
        UserError: a damaged file, or the result of other settings, text, weights or dev pairs.
    """
    if not trial.path.exists():
        return None
    content = read_json(trial.path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "status" not in content:
        raise UserError(f"{trial.path}: not a trial's result of this version. Move it away or use --force.")
    if content["status"] != "finished":
        return None
    there, here = content["config"], json.loads(json.dumps(shown_settings(trial.config)))
    changed = [f"{k} {there.get(k)!r} there, {here[k]!r} here" for k in here if there.get(k) != here[k]]
    if identity is not None and not changed:
        run = content["run"]
        known = {
            "text": run["data"]["fingerprint"],
            "weights": run["model"]["files"],
            "dev": content["dev"]["fingerprint"],
        }
        changed = [f"other {k}" for k, v in identity(trial.config).items() if known[k] != v]
    if changed:
        raise UserError(f"{trial.path} has other settings ({'; '.join(changed)}). Use --force or another --out.")
    return content


def collected(sweep: Sweep, identity: Identities) -> list[dict[str, Any]]:
    """Every finished trial of this sweep in its folder, whichever command left it there, in the arms' order."""
    found = []
    for arm in sweep.ablation.arms_of(sweep.preset):
        paths = sweep.folder.glob(f"{slug(arm)}--seed*.json")
        for seed in sorted(
            int(p.stem.rpartition("--seed")[2]) for p in paths if p.stem.rpartition("--seed")[2].isdigit()
        ):
            with contextlib.suppress(UserError):  # of other settings: it belongs to another table
                result = finished(sweep.trial(arm, seed), identity)
                found += [result] if result else []
    return found


def run(
    sweep: Sweep, force: bool, identity: Identities, watch: Watch, say: Say, execute: Executor
) -> Iterator[dict[str, Any]]:
    """Train and measure every trial that is not there yet; gives all results, one by one.

    A trial that fails is written down as failed (not over a finished one), told, and tried again by the next call.

    Raises:
        Stopped: after Ctrl-C; what is done stays, the trials under way have their checkpoints.
        UserError: a folder that cannot be written, results of other settings.
    """
    missing = []
    for trial in sweep.trials:
        result = None if force else finished(trial, identity)
        if result is None:
            missing.append(trial)
        else:
            watch(trial, "there", result["dev"]["score"])
            yield result
    for trial, result in execute(sweep, missing, force, watch) if missing else ():
        failed = result["status"] == "failed"
        if failed:
            for problem in result["problems"]:
                say(f"{trial.arm}, seed {trial.seed}: {problem}")
        if not failed or not trial.path.exists():
            write_text(trial.path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        watch(trial, "failed" if failed else "done", None if failed else result["dev"]["score"])
        yield result


def one_by_one(sweep: Sweep, trials: Sequence[Trial], force: bool, watch: Watch) -> Outcomes:
    """The executor on this machine: one trial after the other, in their order."""
    for trial in trials:
        yield trial, outcome(sweep, trial, force, watch(trial, "running"))


def forecast(sweep: Sweep, force: bool, say: Say) -> Table:
    """Arms, what is there already, and what the rest will take, by a few updates of its first trial."""
    from simcse_bench.training.dry_run import duration, estimate

    missing = [t for t in sweep.trials if force or finished(t) is None]
    rows = []
    for arm in sweep.arms:
        own = [t for t in sweep.trials if t.arm == arm]
        changes = ", ".join(f"{k} {v}" for k, v in sweep.ablation.arms_of(sweep.preset)[arm].items())
        seeds = f"{own[0].seed} to {own[-1].seed}" if len(own) > 1 else str(own[0].seed)
        done = sum(t not in missing for t in own)
        rows.append([arm, changes or "the recipe", seeds, f"{done} of {len(own)}"])
    notes = [f"{len(sweep.trials) - len(missing)} of {len(sweep.trials)} trials are there."]
    if missing:
        facts, seconds = estimate(missing[0].config, sweep.place, say)
        notes += [f"{missing[0].arm}: {k} {v}" for k, v in facts if k in ("data", "steps", "time", "memory", "disk")]
        notes.append(f"{len(missing)} trials like that one, one after the other: {duration(len(missing) * seconds)}.")
    title = f"{sweep.ablation.title}, preset {sweep.preset}: {sweep.folder}"
    return Table(title, ["arm", "changes", "seeds", "there"], rows, notes)


def complete(sweep: Sweep, force: bool, watch: Watch, say: Say, execute: Executor = one_by_one) -> dict[str, Any]:
    """Run what is missing, then write summary.json and all that is drawn from it, after an interruption too.

    The summary holds every trial of the ablation that is in the folder, those of earlier commands included.

    Raises:
        UserError: dev data that cannot be used, another sweep in the folder; what ``sweep.run`` raises.
    """
    title, dev = read_dev_of(sweep)
    identities = check_inputs(sweep)
    require_writable(sweep.folder / SUMMARY)
    with locked(sweep.folder):
        results: list[dict[str, Any]] = []
        try:
            results.extend(run(sweep, force, identities, watch, say, execute))  # those before an interruption are kept
        except Stopped as stop:
            raise Stopped("stopped; the same command (without --force) goes on.", stop.code) from stop
        finally:
            failed = [r for r in results if r["status"] == "failed"]
            there = collected(sweep, identities) + failed
            summary = summarise(sweep, there, title, dev.gold, dev.sizes())
            if there:
                _write(sweep.folder, summary)
    return summary


def _write(folder: Path, summary: Mapping[str, Any]) -> None:
    write_text(folder / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    files = drawn(folder)
    for name in DRAWN:
        if folder / name not in files:  # of an earlier summary
            (folder / name).unlink(missing_ok=True)
    for path, content in files.items():
        write_bytes(path, content)
