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
from simcse_bench.experiments.sweep import Sweep, Trial, named_ablation, plan_sweep
from simcse_bench.experiments.trial import (
    FinishedTrial,
    TrialResult,
    augmenter_fingerprint,
    read_trial,
    run_trial,
    trial_head,
)
from simcse_bench.files import environment, fingerprint, lock_folder, require_writable, write_json
from simcse_bench.models.loading import torch_device
from simcse_bench.progress import Say, silent, unseen
from simcse_bench.reports.ablation import DRAWN, ablation_rows, draw_ablation
from simcse_bench.reports.page import require_own, write_drawn
from simcse_bench.reports.summary import SUMMARY, Summary
from simcse_bench.reports.table import Table, counted
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import shown_config
from simcse_bench.training.run import RunOptions

if TYPE_CHECKING:
    import pandas as pd

    from simcse_bench.progress import Show

Identities = Callable[[TrainConfig], Mapping[str, Any]]  # fingerprints of a trial's inputs
Outcomes = Iterator[tuple[Trial, TrialResult]]


class ShowTrial(Protocol):
    """Is told what becomes of a trial."""

    def __call__(self, trial: Trial, state: str, dev: float | None = None) -> Show:
        """``state``: running, there, done or failed; gives what shows a running trial's log."""


Executor = Callable[[Sweep, "Sequence[Trial]", bool, ShowTrial], Outcomes]  # (sweep, trials, force, show_trial)


def read_dev_of(sweep: Sweep) -> tuple[str, Pairs]:
    """Title and dev pairs of the task that all arms are scored on.

    Raises:
        UserError: arms with different tasks, a task without pairs, data that cannot be read.
    """
    from simcse_bench.training.selection import read_split

    tasks = {t.config.eval_task for t in sweep.trials}
    if len(tasks) > 1:
        raise UserError(f"eval_task: the arms are scored on the same task, not on {', '.join(sorted(tasks))}.")
    dev = read_split(tasks.pop(), "dev", sweep.options.where)
    if not isinstance(dev.data, Pairs):
        raise UserError(f"eval_task {dev.task.name}: ablations compare similarities; use an STS task.")
    return dev.task.title, dev.data


def check_inputs(sweep: Sweep) -> Identities:
    """What tells the trials' inputs apart: ``identities(config)`` gives fingerprints.

    They are those of the text, the weights, the dev and test pairs and what makes the positives.

    Raises:
        UserError: started by a launcher; model or text that no trial could be trained with; a single arm's problem is
            that arm's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run-ablation starts its processes itself: use --processes, without torchrun or accelerate.")
    from simcse_bench.data.corpus import open_corpus
    from simcse_bench.models.checkpoints import resolve

    dev = read_dev_of(sweep)[1].fingerprint()
    test = _test_fingerprint(sweep)

    @functools.cache
    def text(train: str, columns: tuple[str, ...], max_rows: int, scored: bool) -> str:
        return open_corpus(train, columns, max_rows, scored=scored).fingerprint

    @functools.cache
    def weights(model: str, revision: str | None) -> Any:
        return resolve(model, revision, "cls", "none").provenance()["files"]

    augmenter = functools.cache(augmenter_fingerprint)

    def identity(config: TrainConfig) -> dict[str, Any]:
        return {
            "text": text(config.train, tuple(config.columns), config.max_rows, config.scored),
            "weights": weights(config.model, config.revision),
            "dev": dev,
            "test": test,
            "augmentation_file": augmenter(config.augmentation, config.augmentation_file),
        }

    problems: dict[str, None] = {}
    for trial in sweep.trials:
        try:
            identity(trial.config)
            return identity
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    raise UserError(*problems)


def _test_fingerprint(sweep: Sweep) -> str | None:
    """Of the pairs of the task's test split; None where it has none."""
    from simcse_bench.data.registry import load_task
    from simcse_bench.training.selection import read_split

    name, where = sweep.trials[0].config.eval_task, sweep.options.where
    if "test" not in load_task(name, where.tasks_dir).splits:
        return None
    return read_split(name, "test", where).data.fingerprint()


def read_finished(trial: Trial, identity: Identities | None = None) -> FinishedTrial | None:
    """The trial's result, where it is there.

    Raises:
        UserError: a damaged file, or the result of other settings or inputs.
    """
    if not trial.path.exists():
        return None
    content = read_trial(trial.path)
    if content["status"] == "failed":
        return None
    there, here = content["config"], json.loads(json.dumps(shown_config(trial.config)))
    changed = [f"{k} {there.get(k)!r} there, {here[k]!r} here" for k in here if there.get(k) != here[k]]
    if identity is not None and not changed:
        known = known_inputs(content)
        changed = [
            f"other {k}" if known[k] is not None else f"{k} of unknown content"
            for k, v in identity(trial.config).items()
            if known[k] != v
        ]
    if changed:
        raise UserError(f"{trial.path} has other settings ({'; '.join(changed)}). Use --force or another --out.")
    return content


def known_inputs(result: FinishedTrial) -> dict[str, Any]:
    """What a trial's result says of its inputs, as ``check_inputs`` gives them."""
    dev, test = result["dev"], result["test"]
    return {
        "text": result["run"]["data"]["fingerprint"],
        "weights": result["run"]["model"].get("files"),
        "dev": dev["fingerprint"],
        "test": test and test["fingerprint"],
        "augmentation_file": result.get("augmentation_file"),
    }


def equal_trials(sweep: Sweep, identity: Identities) -> Callable[[Trial], FinishedTrial | None]:
    """What finds a trial's result in the ablations beside this one: an arm of several tables is trained once.

    It is of the same settings, seed and inputs, and was trained by these versions on this machine.
    """

    @functools.cache
    def beside() -> Mapping[str, tuple[str, FinishedTrial]]:
        """By settings; read when the first trial is missing."""
        here = environment(str(torch_device(sweep.options.device))) | {"processes": sweep.processes}
        there: dict[str, tuple[str, FinishedTrial]] = {}
        for path in sorted(sweep.folder.parent.glob("*/*--seed*.json")):
            if path.parent != sweep.folder:
                with contextlib.suppress(UserError):  # told where that ablation is run
                    result = read_trial(path)
                    if result["status"] == "finished" and result["run"]["environment"] == here:
                        there.setdefault(fingerprint(result["config"]), (path.parent.name, result))
        return there

    def find(trial: Trial) -> FinishedTrial | None:
        ablation, result = beside().get(fingerprint(shown_config(trial.config)), ("", None))
        if result is None or known_inputs(result) != identity(trial.config):
            return None
        own: Any = {"trained_as": f"{ablation}, {result['arm']}"} | result | trial_head(sweep, trial)
        return own  # type: ignore[no-any-return]

    return find


def collect_finished(sweep: Sweep, identity: Identities, say: Say) -> list[FinishedTrial]:
    """Every finished trial of this sweep in its folder, whichever command left it there, in the arms' order.

    ``say`` is told of those that are left out: damaged, or of other settings or inputs.
    """
    results = []
    for arm in sweep.ablation.arms_of(sweep.preset):
        for seed in sweep.seeds_there(arm):
            try:
                result = read_finished(sweep.trial(arm, seed), identity)
            except UserError as error:
                say(f"left out: {error}")
            else:
                results += [result] if result else []
    return results


def run_trials(
    sweep: Sweep, force: bool, identity: Identities, show_trial: ShowTrial, say: Say, execute: Executor
) -> Iterator[TrialResult]:
    """Train and measure every trial that is not there yet, nor in an ablation beside it; gives all results, one by one.

    A trial that fails is written down as failed (not over a finished one), told, and tried again by the next call.

    Raises:
        Stopped: after Ctrl-C; what is done stays, the trials under way have their checkpoints.
        UserError: a folder that cannot be written, results of other settings.
    """
    missing: list[Trial] = []
    equal = None if force else equal_trials(sweep, identity)
    for trial in sweep.trials:
        there = None if force else read_finished(trial, identity)
        if equal and there is None and (there := equal(trial)):
            write_json(trial.path, there)
        if there is None:
            missing.append(trial)
        else:
            show_trial(trial, "there", there["dev"]["score"])
            yield there
    for trial, result in execute(sweep, missing, force, show_trial) if missing else ():
        if result["status"] == "finished" or not trial.path.exists():
            write_json(trial.path, result)
        if result["status"] == "finished":
            show_trial(trial, "done", result["dev"]["score"])
        else:
            for problem in result["problems"]:
                say(f"{trial.arm}, seed {trial.seed}: {problem}")
            show_trial(trial, "failed")
        yield result


def run_one_by_one(sweep: Sweep, trials: Sequence[Trial], force: bool, show_trial: ShowTrial) -> Outcomes:
    """The executor on this machine: one trial after the other, in their order."""
    for trial in trials:
        yield trial, run_trial(sweep, trial, force, show_trial(trial, "running"))


def forecast_sweep(sweep: Sweep, force: bool, say: Say) -> Table:
    """Arms, what is there already, and what the rest will take, by a few updates of its first trial."""
    from simcse_bench.training.dry_run import estimate, shown_duration

    _require_place(sweep)
    missing = [t for t in sweep.trials if force or read_finished(t) is None]
    rows = []
    for arm in sweep.arms:
        own = [t for t in sweep.trials if t.arm == arm]
        changes = ", ".join(f"{k} {v}" for k, v in sweep.ablation.arms_of(sweep.preset)[arm].items())
        seeds = f"{own[0].seed} to {own[-1].seed}" if len(own) > 1 else str(own[0].seed)
        done = sum(t not in missing for t in own)
        rows.append([arm, changes or "the recipe", seeds, f"{done} of {len(own)}"])
    notes = [*sweep.notes, f"{len(sweep.trials) - len(missing)} of {len(sweep.trials)} trials are there."]
    if missing:
        facts, seconds = estimate(missing[0].config, sweep.options, say)
        notes += [f"{missing[0].arm}: {k} {v}" for k, v in facts if k in ("data", "steps", "time", "memory", "disk")]
        notes.append(
            f"{counted(len(missing), 'trial')} like that one, one after the other: "
            f"{shown_duration(len(missing) * seconds)}."
        )
    title = f"{sweep.ablation.title}, preset {sweep.preset}: {sweep.folder}"
    return Table(title, ["arm", "changes", "seeds", "there"], rows, notes)


def run_sweep(
    sweep: Sweep, force: bool, show_trial: ShowTrial, say: Say, execute: Executor = run_one_by_one
) -> Summary:
    """Run what is missing, then write summary.json and all that is drawn from it, after an interruption too.

    The summary holds every trial of the ablation that is in the folder, those of earlier commands included.

    Raises:
        UserError: dev data that cannot be used, another sweep in the folder; what ``run_trials`` raises.
    """
    for note in sweep.notes:
        say(note)
    title, dev = read_dev_of(sweep)
    identities = check_inputs(sweep)
    _require_place(sweep)
    with lock_folder(sweep.folder):
        results: list[TrialResult] = []
        try:
            results.extend(
                run_trials(sweep, force, identities, show_trial, say, execute)
            )  # those before an interruption are kept
        except Stopped as stop:
            raise Stopped("stopped; the same command (without --force) goes on.", stop.code) from stop
        finally:
            failed = [r for r in results if r["status"] == "failed"]
            there: list[TrialResult] = [*collect_finished(sweep, identities, say), *failed]
            summary = summarise(sweep, there, title, dev.gold, dev.sizes())
            if there:
                _write(sweep.folder, summary)
    return summary


def _require_place(sweep: Sweep) -> None:
    """UserError where the sweep's folder cannot be written, or holds a page that is not ours."""
    require_writable(sweep.folder / SUMMARY)
    require_own(sweep.folder / "index.html")


def _write(folder: Path, summary: Summary) -> None:
    write_json(folder / SUMMARY, summary)
    files = draw_ablation(folder)
    for name in DRAWN:
        if folder / name not in files:  # of an earlier summary
            if name.endswith(".html"):
                require_own(folder / name)
            (folder / name).unlink(missing_ok=True)
    for path, content in files.items():
        write_drawn(path, content)


def run_ablation(
    name: str,
    preset: str = "mini",
    seeds: int = 1,
    settings: Sequence[str] = (),
    arms: Sequence[str] = (),
    out: str | Path = "results",
    options: RunOptions | None = None,
    show_trial: ShowTrial | None = None,
    say: Say = silent,
) -> pd.DataFrame:
    """Train and compare the arms of a named ablation; the same call trains only what is missing.

    Args:
        name: of `simcse-bench ls ablations`.
        preset: mini (embedded encoder and text) or paper (BERT-base, from the Hub).
        seeds: so many of every arm.
        settings: ``field=value`` changes for all arms.
        arms: only these; none: all.
        out: the results folder; tables, plot and page lie below ``<out>/ablations/<name>-<preset>``.
        options: device and data of the runs.
        show_trial: is told what becomes of each trial.
        say: gets a line per problem.

    Returns:
        A row per arm and seed, as ``read_results(out, "ablations")`` gives it; means, differences and the verdicts on
        the paper's statements stand in summary.json.
    """
    import pandas as pd

    planned = plan_sweep(
        named_ablation(name), preset, seeds, settings, arms, Path(out), options or RunOptions(Path(out))
    )
    summary = run_sweep(planned, False, show_trial or (lambda trial, state, dev=None: unseen), say)
    return pd.DataFrame(ablation_rows(summary))
