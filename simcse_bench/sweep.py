"""A sweep: the arms of an ablation times seeds, each trained and measured once, one JSON each; resumable anywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.ablations import ABLATIONS, PRESETS, Ablation
from simcse_bench.config import TrainConfig, recipe, with_settings
from simcse_bench.errors import UserError, unknown
from simcse_bench.launch import Place, launch
from simcse_bench.render import Table
from simcse_bench.report import require_writable, write_text
from simcse_bench.weights import read_json

if TYPE_CHECKING:
    from simcse_bench.train import Show

SCHEMA = 1
RUNS = "runs"  # unfinished arms' run folders, below the sweep's
Say = Callable[[str], None]
Watch = Callable[["Trial", str], "Show"]  # told a trial's state: running, there, done or failed


@dataclass(frozen=True)
class Trial:
    """One arm under one seed."""

    arm: str
    seed: int
    config: TrainConfig
    path: Path  # of its JSON


@dataclass(frozen=True)
class Sweep:
    """What will be run; nothing is computed yet."""

    ablation: Ablation
    preset: str
    base: TrainConfig
    reference: str
    trials: Sequence[Trial]
    folder: Path
    place: Place  # of the runs: device and data

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the table's order."""
        return list(dict.fromkeys(t.arm for t in self.trials))


def plan(
    ablation: Ablation, preset: str, seeds: int, settings: Sequence[str], only: Sequence[str], out: Path, place: Place
) -> Sweep:
    """The trials of an ablation.

    Args:
        ablation: from ``named`` or ``varied``.
        preset: a key of ``ablations.PRESETS``.
        seeds: so many, from the recipe's own seed on.
        settings: ``field=value`` changes of the base recipe, for all arms.
        only: arms to run; none: all.
        out: the results folder; the sweep's is ``<out>/ablations/<name>-<preset>``.
        place: where the runs' device and data come from.

    Raises:
        UserError: unknown preset, arm or field, no seeds, an arm whose settings exclude each other.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1.")
    from simcse_bench.selection import settled

    base = settled(with_settings(recipe(ablation.recipes[preset]), settings), place.data_dir, place.data_revision)
    arms = ablation.arms_of(preset)
    for name in only:
        if name not in arms:
            raise unknown(f"arm of {ablation.name}", name, arms)
    folder = out / "ablations" / f"{ablation.name}-{preset}"
    trials = []
    for arm, changes in arms.items():
        if only and arm not in only:
            continue
        for seed in range(base.seed, base.seed + seeds):
            config = dataclasses.replace(base, **changes, seed=seed).check()
            trials.append(Trial(arm, seed, config, folder / f"{slug(arm)}--seed{seed}.json"))
    reference = ablation.reference_of(preset, dataclasses.asdict(base))
    return Sweep(ablation, preset, base, reference, trials, folder, place)


def named(name: str) -> Ablation:
    """The ablation of this name."""
    if name not in ABLATIONS:
        raise unknown("ablation", name, ABLATIONS)
    return ABLATIONS[name]


def varied(name: str, recipe_name: str, vary: Sequence[str]) -> Ablation:
    """A grid of settings: ``vary`` holds ``field=a,b,c``; every combination is an arm."""
    axes = []
    for one in vary:
        key, sign, values = one.partition("=")
        if not sign or not key or not all(values.split(",")):
            raise UserError(f"--vary {one}: expected field=value,value.")
        axes.append([f"{key}={value}" for value in values.split(",")])
    base = recipe(recipe_name)
    arms: dict[str, Mapping[str, Any]] = {}
    for settings in itertools.product(*axes):
        config = with_settings(base, settings)
        changed = {k: v for k, v in dataclasses.asdict(config).items() if v != getattr(base, k)}
        label = ", ".join(settings) if len(axes) > 1 else settings[0].partition("=")[2]
        arms[label] = {k: getattr(config, k) for k in changed}
    numbers = len(axes) == 1 and all(_is_number(arm) for arm in arms)
    axis = axes[0][0].partition("=")[0] if numbers else ""
    title = " × ".join(axis[0].partition("=")[0] for axis in axes) + f" of {recipe_name}"
    return Ablation(name, title, dict.fromkeys(PRESETS, recipe_name), arms, "", axis)


def finished(trial: Trial, place: Place) -> dict[str, Any] | None:
    """The trial's result, where it is there.

    Raises:
        UserError: a damaged file, or the result of other settings.
    """
    if not trial.path.exists():
        return None
    content = read_json(trial.path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "status" not in content:
        raise UserError(f"{trial.path}: not a trial's result of this version. Move it away or use --force.")
    there, here = content["config"], json.loads(json.dumps(_shown(trial.config)))
    changed = [f"{k} {there.get(k)!r} there, {here[k]!r} here" for k in here if there.get(k) != here[k]]
    if changed:
        raise UserError(f"{trial.path} has other settings ({'; '.join(changed)}). Use --force or another --out.")
    return content if content["status"] == "finished" else None


def run(sweep: Sweep, force: bool, watch: Watch, say: Say) -> Iterator[dict[str, Any]]:
    """Train and measure every trial that is not there yet; gives all results, one by one.

    A trial that fails is written down as failed, told, and tried again by the next call. ``watch(trial, state)`` gives
    what shows a running trial's log.

    Raises:
        Stopped: after Ctrl-C; what is done stays, the trial under way has its checkpoint.
        UserError: a folder that cannot be written, results of other settings.
    """
    require_writable(sweep.folder / "summary.json")
    found = {} if force else {t.path: r for t in sweep.trials if (r := finished(t, sweep.place))}
    for trial in sweep.trials:
        result = found.get(trial.path)
        if result is not None:
            watch(trial, "there")
        else:
            show = watch(trial, "running")
            try:
                result = _trained(sweep, trial, force, show, say)
            except UserError as error:
                result = _head(sweep, trial) | {"status": "failed", "problems": list(error.problems)}
                for problem in error.problems:
                    say(f"{trial.arm}, seed {trial.seed}: {problem}")
            write_text(trial.path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            watch(trial, "done" if result["status"] == "finished" else "failed")
        yield result


def _trained(sweep: Sweep, trial: Trial, force: bool, show: Show, say: Say) -> dict[str, Any]:
    """Train one trial (from its checkpoint, where there is one) and measure it; its run folder is removed after."""
    out = sweep.folder / RUNS / trial.path.stem
    if force:
        shutil.rmtree(out, ignore_errors=True)
    place = dataclasses.replace(sweep.place, out=out, resume=not force, force=force)
    record = launch(trial.config, place, show, lambda line: None)
    measured = measure(out, trial.config.eval_task, place)
    shutil.rmtree(out)
    with contextlib.suppress(OSError):  # other trials are under way there
        out.parent.rmdir()
    with_files = {k: v for k, v in record.items() if k not in ("config", "existing", "status", "schema")}
    return _head(sweep, trial) | {"status": "finished", "run": with_files, **measured}


def measure(model: Path, task_name: str, place: Place) -> dict[str, Any]:
    """Dev and test scores, geometry, and the dev pairs' similarities of a trained model, from one forward pass."""
    from simcse_bench.data import Pairs
    from simcse_bench.evaluate import distinct_sentences, embed
    from simcse_bench.models import open_model
    from simcse_bench.selection import read_split

    splits = {
        s: read_split(task_name, s, place.data_dir, place.tasks_dir, place.data_revision) for s in ("dev", "test")
    }
    sentences = distinct_sentences([split.data for split in splits.values()])
    encoder = open_model(str(model), device=place.device).load(None)
    vectors = dict(zip(sentences, embed(encoder, sentences), strict=True))
    found: dict[str, Any] = {}
    for name, split in splits.items():
        found[name] = split.describe() | {"score": round(split.score(vectors), 4)}
        if isinstance(split.data, Pairs):
            found[name] |= split.shape(vectors)
    if isinstance(splits["dev"].data, Pairs):
        found["dev"]["similarities"] = [round(float(x), 5) for x in splits["dev"].similarities(vectors)]
    return found


def forecast(sweep: Sweep, say: Say) -> Table:
    """Arms, what is there already, and what the rest will take, by a few updates of its first trial."""
    from simcse_bench.launch import estimate

    missing = [t for t in sweep.trials if finished(t, sweep.place) is None]
    rows = []
    for arm in sweep.arms:
        own = [t for t in sweep.trials if t.arm == arm]
        changed = sweep.ablation.arms_of(sweep.preset)[arm]
        seeds = f"{own[0].seed} to {own[-1].seed}" if len(own) > 1 else str(own[0].seed)
        done = sum(t not in missing for t in own)
        rows.append(
            [arm, ", ".join(f"{k} {v}" for k, v in changed.items()) or "the recipe", seeds, f"{done} of {len(own)}"]
        )
    notes = [f"{len(sweep.trials) - len(missing)} of {len(sweep.trials)} trials are there."]
    if missing:
        facts = dict(estimate(missing[0].config, sweep.place, say))
        notes += [f"{missing[0].arm}: {k} {facts[k]}" for k in ("data", "steps", "time", "memory", "disk")]
        notes.append(f"{len(missing)} trials to train, one after the other; disk is needed for the one under way only.")
    return Table(
        f"{sweep.ablation.title}, preset {sweep.preset}: {sweep.folder}",
        ["arm", "changes", "seeds", "there"],
        rows,
        notes,
    )


def slug(arm: str) -> str:
    """A file name for an arm."""
    names = {"α = ": "alpha-", "%": "pc", "w/o": "without", "w/": "with", "=": "-"}
    for sign, word in names.items():
        arm = arm.replace(sign, word)
    return re.sub(r"[^\w.]+", "-", arm).strip("-")


def _head(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    return {"schema": SCHEMA, "ablation": sweep.ablation.name, "preset": sweep.preset, "arm": trial.arm,
            "seed": trial.seed, "config": _shown(trial.config)}  # fmt: skip


def _shown(config: TrainConfig) -> dict[str, Any]:
    """The settings without the machine's own paths."""
    from simcse_bench.weights import shown_name

    paths = ("model", "train", "augmentation_file")
    shown = {k: shown_name(getattr(config, k)) if getattr(config, k) else "" for k in paths}
    return dataclasses.asdict(config) | shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
