"""One trial of a sweep: trained and measured, by this process or by several that train it together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired

import torch
from typing_extensions import TypedDict

from simcse_bench.errors import UserError
from simcse_bench.experiments.sweep import Sweep, Trial
from simcse_bench.files import Environment, sha256
from simcse_bench.models.encoders import free_memory, out_of_memory
from simcse_bench.progress import silent
from simcse_bench.reports.report import Provenance
from simcse_bench.schema import read_record
from simcse_bench.training.folder import RunFolder, remove_whole, shown_config
from simcse_bench.training.run import RunOptions, train
from simcse_bench.training.together import train_together

if TYPE_CHECKING:
    from simcse_bench.progress import Show

TRIAL_SCHEMA = 1
RUNS = "runs"  # unfinished trials' run folders, below the sweep's
_NOT_A_TRIAL = "not a trial's result of this version. Move it away or use --force."


class TrialText(TypedDict):
    """What a trial was trained on."""

    name: str
    rows: int
    fingerprint: str


class TrialRun(TypedDict):
    """The record of a trial's training, see ``training.folder``; what is read of it."""

    model: Provenance
    data: TrialText
    seconds: float
    state_mib: NotRequired[float]  # weights, gradients, moments and a method's own state
    environment: Environment


class TrialScore(TypedDict):
    """A trained model on a split of a task."""

    task: str
    split: str
    n: int
    fingerprint: str
    score: float
    alignment: NotRequired[float]
    uniformity: NotRequired[float]


class TrialDev(TrialScore):
    """On the dev split, with the cosines of its pairs."""

    similarities: Sequence[float]


class FinishedTrial(TypedDict):
    """The result of a trial."""

    schema: Literal[1]
    arm: str
    seed: int
    config: Mapping[str, Any]  # of the training; see ``training.config``
    status: Literal["finished"]
    run: TrialRun
    dev: TrialDev
    test: TrialScore | None
    augmentation_file: NotRequired[Any]  # fingerprint of what it holds, where there is one
    trained_as: NotRequired[str]  # the ablation and arm it was trained for, where that was another of these settings


class FailedTrial(TypedDict):
    """A trial that failed, and why."""

    schema: Literal[1]
    arm: str
    seed: int
    config: Mapping[str, Any]
    status: Literal["failed"]
    problems: Sequence[str]


TrialResult = FinishedTrial | FailedTrial


class _Head(TypedDict):
    status: str


def read_trial(path: Path) -> TrialResult:
    """A trial's JSON.

    Raises:
        UserError: a damaged file.
    """
    if read_record(path, _Head, _NOT_A_TRIAL)["status"] != "finished":
        return read_record(path, FailedTrial, _NOT_A_TRIAL)
    trial = read_record(path, FinishedTrial, _NOT_A_TRIAL)
    there, due = len(trial["dev"]["similarities"]), trial["dev"]["n"]
    if there != due:
        raise UserError(f"{path}: {_NOT_A_TRIAL} (dev: {there} similarities of {due} pairs)")
    return trial


def augmenter_fingerprint(augmentation: str, file: str) -> Any:
    """Fingerprint of what makes the positives: a file of synonyms, a language model; None where it is no file.

    A file that is not there is left to the training to refuse.
    """
    if not file or augmentation not in ("synonym", "mlm"):
        return None
    if augmentation == "synonym":
        return sha256(Path(file)) if Path(file).is_file() else "none"
    from simcse_bench.models.checkpoints import resolve

    return resolve(file, None, "cls", "none").provenance()["files"]


def run_trial(sweep: Sweep, trial: Trial, force: bool, show: Show) -> TrialResult:
    """The content of a trial's JSON: ``status`` "finished" with scores, or "failed" with the problems.

    Trains from the trial's checkpoint where there is one. Needs nothing but its arguments: a worker elsewhere can call
    it.

    Raises:
        Stopped: after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    try:
        result: Any = trial_head(sweep, trial) | {"status": "finished"} | _trained(sweep, trial, force, show)
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        return failed_trial(sweep, trial, *(error.problems if isinstance(error, UserError) else ["out of memory."]))
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            free_memory()  # recorded graphs and their model refer to each other; the next trial needs it
    return result  # type: ignore[no-any-return]


def failed_trial(sweep: Sweep, trial: Trial, *problems: str) -> FailedTrial:
    """The content of a failed trial's JSON."""
    result: Any = trial_head(sweep, trial) | {"status": "failed", "problems": list(problems)}
    return result  # type: ignore[no-any-return]


def trial_head(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """What a trial's JSON begins with."""
    return {"schema": TRIAL_SCHEMA, "ablation": sweep.ablation.name, "preset": sweep.preset, "arm": trial.arm,
            "seed": trial.seed, "config": shown_config(trial.config)}  # fmt: skip


def _trained(sweep: Sweep, trial: Trial, force: bool, show: Show) -> dict[str, Any]:
    """``run`` and scores of a trial; its run folder is removed when all is done."""
    made_by = augmenter_fingerprint(trial.config.augmentation, trial.config.augmentation_file)
    out = sweep.folder / RUNS / trial.path.stem
    begun = None if force else RunFolder(out).config()
    if force or (begun is not None and begun != trial.config):
        remove_whole(out)
    # a score that selects nothing is taken once, by measure
    options = dataclasses.replace(sweep.options, out=out, resume=True, force=False, lone_score=False)
    if sweep.processes > 1:
        record = train_together(trial.config, options, sweep.processes, show)
    else:
        record = train(trial.config, options, show, silent)
    measured = measure(out, trial.config.eval_task, options)
    remove_whole(out)  # a kill between the two leaves a folder that is gone on with, or none
    with contextlib.suppress(OSError):  # failed trials keep theirs
        out.parent.rmdir()
    run = {k: v for k, v in record.items() if k not in ("config", "existing", "status", "schema")}
    return {"run": run, **measured} | ({"augmentation_file": made_by} if made_by else {})


def measure(model: Path, task_name: str, options: RunOptions) -> dict[str, Any]:
    """Dev and test scores, geometry, and the dev pairs' similarities of a trained model, from one forward pass.

    ``test`` is None where the task has no such split.
    """
    from simcse_bench.data.registry import load_task
    from simcse_bench.evaluation.evaluate import embed_once
    from simcse_bench.models.open import open_model
    from simcse_bench.training.selection import read_split

    names = [s for s in ("dev", "test") if s in load_task(task_name, options.where.tasks_dir).splits]
    splits = {s: read_split(task_name, s, options.where) for s in names}
    encoder = open_model(str(model), device=options.device).load()
    whole = embed_once(encoder, [split.data for split in splits.values()])
    measured: dict[str, Any] = {"test": None}
    for name, split in splits.items():
        measured[name] = split.describe() | {"score": round(split.score(whole), 4)} | split.shape(whole)
    dev: Any = splits["dev"].data  # pairs: `run.read_dev_of` has seen to that
    measured["dev"]["similarities"] = [round(float(x), 5) for x in whole.cosines(dev)]
    return measured
