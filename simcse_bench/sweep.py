"""Run a sweep: every trial trained and measured once, one JSON each; resumable anywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.config import TrainConfig
from simcse_bench.data import Pairs
from simcse_bench.encoders import out_of_memory
from simcse_bench.errors import UserError
from simcse_bench.launch import Place, launch
from simcse_bench.plan import Sweep, Trial, slug
from simcse_bench.render import Table
from simcse_bench.report import write_text
from simcse_bench.run_folder import RunFolder, shown_settings
from simcse_bench.weights import read_json

if TYPE_CHECKING:
    from simcse_bench.train import Show

SCHEMA = 1
RUNS = "runs"  # unfinished arms' run folders, below the sweep's
Say = Callable[[str], None]
Identities = Callable[[TrainConfig], Mapping[str, Any]]  # fingerprints of a trial's inputs
Watch = Callable[[Trial, str], "Show"]  # told a trial's state: running, there, done or failed


def read_dev_of(sweep: Sweep) -> tuple[str, Pairs]:
    """Title and dev pairs of the task that all arms are scored on.

    Raises:
        UserError: arms with different tasks, a task without pairs, data that cannot be read.
    """
    from simcse_bench.selection import read_split

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
        UserError: several processes, or model or text that no trial could be trained with; a single arm's problem is
            that arm's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run-ablation trains its arms in one process; start it without torchrun or accelerate launch.")
    from simcse_bench.checkpoints import resolve
    from simcse_bench.corpus import open_corpus

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


def run(sweep: Sweep, force: bool, identity: Identities, watch: Watch, say: Say) -> Iterator[dict[str, Any]]:
    """Train and measure every trial that is not there yet; gives all results, one by one.

    A trial that fails is written down as failed (not over a finished one), told, and tried again by the next call.
    ``watch(trial, state)`` gives what shows a running trial's log.

    Raises:
        Stopped: after Ctrl-C; what is done stays, the trial under way has its checkpoint.
        UserError: a folder that cannot be written, results of other settings.
    """
    there = {} if force else {t.path: r for t in sweep.trials if (r := finished(t, identity))}
    for trial in sweep.trials:
        result = there.get(trial.path)
        if result is not None:
            watch(trial, "there")
            yield result
            continue
        show = watch(trial, "running")
        try:
            result = _trained(sweep, trial, force, show)
        except (UserError, MemoryError, RuntimeError) as error:
            if not isinstance(error, UserError) and not out_of_memory(error):
                raise
            problems = list(error.problems) if isinstance(error, UserError) else ["out of memory."]
            result = _head(sweep, trial) | {"status": "failed", "problems": problems}
            for problem in problems:
                say(f"{trial.arm}, seed {trial.seed}: {problem}")
        if result["status"] == "finished" or not trial.path.exists():
            write_text(trial.path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        watch(trial, "done" if result["status"] == "finished" else "failed")
        yield result


def _trained(sweep: Sweep, trial: Trial, force: bool, show: Show) -> dict[str, Any]:
    """Train one trial (from its checkpoint, where there is one) and measure it; its run folder is removed after."""
    out = sweep.folder / RUNS / trial.path.stem
    begun = RunFolder(out).config()
    if force or (begun is not None and begun != trial.config):
        shutil.rmtree(out, ignore_errors=True)
    place = dataclasses.replace(sweep.place, out=out, resume=True, force=False)
    record = launch(trial.config, place, show, lambda line: None)
    measured = measure(out, trial.config.eval_task, place)
    shutil.rmtree(out)
    with contextlib.suppress(OSError):  # failed trials keep theirs
        out.parent.rmdir()
    record = {k: v for k, v in record.items() if k not in ("config", "existing", "status", "schema")}
    return _head(sweep, trial) | {"status": "finished", "run": record, **measured}


def measure(model: Path, task_name: str, place: Place) -> dict[str, Any]:
    """Dev and test scores, geometry, and the dev pairs' similarities of a trained model, from one forward pass.

    ``test`` is None where the task has no such split.
    """
    from simcse_bench.evaluate import distinct_sentences, embed
    from simcse_bench.models import open_model
    from simcse_bench.selection import read_split
    from simcse_bench.task import load_task

    names = [s for s in ("dev", "test") if s in load_task(task_name, place.tasks_dir).splits]
    splits = {s: read_split(task_name, s, place.data_dir, place.tasks_dir, place.data_revision) for s in names}
    sentences = distinct_sentences([split.data for split in splits.values()])
    encoder = open_model(str(model), device=place.device).load(None)
    vectors = dict(zip(sentences, embed(encoder, sentences), strict=True))
    found: dict[str, Any] = {"test": None}
    for name, split in splits.items():
        found[name] = split.describe() | {"score": round(split.score(vectors), 4)} | split.shape(vectors)
    found["dev"]["similarities"] = [round(float(x), 5) for x in splits["dev"].similarities(vectors)]
    return found


def forecast(sweep: Sweep, force: bool, say: Say) -> Table:
    """Arms, what is there already, and what the rest will take, by a few updates of its first trial."""
    from simcse_bench.launch import duration, estimate

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


def _head(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    return {"schema": SCHEMA, "ablation": sweep.ablation.name, "preset": sweep.preset, "arm": trial.arm,
            "seed": trial.seed, "config": shown_settings(trial.config)}  # fmt: skip
