"""What a sweep will run: the arms of an ablation, or of a grid, times seeds."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError, unknown
from simcse_bench.experiments.ablations import ABLATIONS, Ablation
from simcse_bench.files import fingerprint
from simcse_bench.reports.plots import is_number
from simcse_bench.reports.report import LONGEST
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.recipes import fields_of, recipe, with_settings
from simcse_bench.training.run import RunOptions


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
    options: RunOptions  # of the runs: device and data
    processes: int = 1  # that train one trial together
    notes: Sequence[str] = ()  # for people
    of_arms: Sequence[str] = ()  # settings of single arms, as they were given

    def trial(self, arm: str, seed: int) -> Trial:
        """An arm under a seed."""
        changes = self.ablation.arms_of(self.preset)[arm]
        config = dataclasses.replace(self.base, **{**changes, "seed": seed}).check().completed()
        return Trial(arm, seed, config, self.folder / f"{self._file_name(arm)}--seed{seed}.json")

    def seeds_there(self, arm: str) -> list[int]:
        """The seeds of an arm that have a file, in order."""
        names = [path.stem.rpartition("--seed") for path in self.folder.glob(f"{self._file_name(arm)}--seed*.json")]
        return sorted(int(seed) for _, _, seed in names if seed.isdecimal())

    def _file_name(self, arm: str) -> str:
        """``slug``; of two arms that would share one, the later has a fingerprint behind it."""
        before = itertools.takewhile(arm.__ne__, self.ablation.arms_of(self.preset))
        shared = slug(arm).casefold() in {slug(other).casefold() for other in before}
        return slug(arm) + f"-{fingerprint(arm)[:8]}" * shared

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the table's order."""
        return list(dict.fromkeys(t.arm for t in self.trials))


def plan_sweep(
    ablation: Ablation,
    preset: str,
    seeds: int,
    settings: Sequence[str],
    only: Sequence[str],
    out: Path,
    options: RunOptions,
) -> Sweep:
    """The trials of an ablation.

    Args:
        ablation: from ``named_ablation`` or ``grid_ablation``.
        preset: a key of ``ablation.recipes``.
        seeds: so many, from the recipe's own seed on.
        settings: ``field=value`` changes of the base recipe, for all arms; ``arm:field=value`` for one.
        only: arms to run; none: all.
        out: the results folder; the sweep's is ``<out>/ablations/<name>-<preset>``.
        options: where the runs' device and data come from.

    Raises:
        UserError: unknown preset, arm or field, no seeds, an arm whose settings exclude each other, a setting that the
            arms all change themselves. What some of them change stays theirs, which the sweep's notes say.
    """
    if preset not in ablation.recipes:
        raise unknown("preset", preset, ablation.recipes)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1.")
    recipe_config = recipe(ablation.recipes[preset])
    arms = ablation.arms_of(preset)
    settings, of_arms = _apart(settings, arms)
    base = recipe(ablation.recipes[preset], settings, options.where, options.device)
    changed = {k for k, v in dataclasses.asdict(base).items() if v != getattr(recipe_config, k)} - {"eval_task"}
    if taken := sorted(changed & varied_fields(arms)):
        raise UserError(f"--set {taken[0]}: the arms of {ablation.name} change it themselves.")
    for name in only:
        if name not in arms:
            raise unknown(f"arm of {ablation.name}", name, arms)
    if of_arms:
        arms = {arm: _changed(base, changes, of_arms.get(arm, ())) for arm, changes in arms.items()}
        ablation = dataclasses.replace(ablation, arms=arms, by_preset={})
    notes = [f"arm {arm} keeps its own {k}, {own[k]}" for arm, own in arms.items() for k in sorted(changed & set(own))]
    folder = out / "ablations" / f"{ablation.name}-{preset}"
    reference = ablation.reference_of(preset, dataclasses.asdict(base))
    single = [f"{arm}:{setting}" for arm, own in of_arms.items() for setting in own]
    sweep = Sweep(ablation, preset, base, reference, (), folder, options, notes=notes, of_arms=single)
    chosen = [arm for arm in arms if not only or arm in only]
    trials = [sweep.trial(arm, seed) for arm in chosen for seed in range(base.seed, base.seed + seeds)]
    return dataclasses.replace(sweep, trials=trials)


def varied_fields(arms: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """What the ablation is about: the fields that every arm changes which changes any."""
    changes = [set(changed) for changed in arms.values() if changed]
    return set.intersection(*changes) if changes else set()


def _apart(settings: Sequence[str], arms: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Settings of all arms, and those of single ones, ``arm:field=value``."""
    shared: list[str] = []
    single: dict[str, list[str]] = {}
    for setting in settings:
        arm, colon, rest = setting.partition(":")
        if not colon or "=" in arm:
            shared.append(setting)
        elif arm.strip() not in arms:
            raise unknown("arm", arm.strip(), arms)
        else:
            single.setdefault(arm.strip(), []).append(rest)
    return shared, single


def _changed(base: TrainConfig, changes: Mapping[str, Any], settings: Sequence[str]) -> Mapping[str, Any]:
    """An arm's changes of the base recipe, with settings of its own."""
    if not settings:
        return changes
    arm = with_settings(dataclasses.replace(base, **changes), settings)
    fields = set(changes) | {f.name for f in dataclasses.fields(arm) if getattr(arm, f.name) != getattr(base, f.name)}
    return {name: getattr(arm, name) for name in fields}


def named_ablation(name: str) -> Ablation:
    """The ablation of this name."""
    if name not in ABLATIONS:
        raise unknown("ablation", name, ABLATIONS)
    return ABLATIONS[name]


def grid_ablation(name: str | None, recipe_name: str, vary: Sequence[str]) -> Ablation:
    """A grid of settings: ``vary`` holds ``field=a,b,c``; every combination is an arm.

    Raises:
        UserError: no name, one that makes no folder or is an ablation's, unknown fields.
    """
    if not name or slug(name) != name or name in ABLATIONS:
        raise UserError(
            f"--vary: give the grid a name of its own, of letters, digits, dots and dashes, not too long for a folder; "
            f"found {name!r}."
        )
    axes = []
    for one in vary:
        key, sign, values = one.partition("=")
        if not sign or not key or not all(values.split(",")):
            raise UserError(f"--vary {one}: expected field=value,value.")
        if key == "seed":
            raise UserError("--vary seed: use --seeds N; they go up from the recipe's own, or from --set seed=.")
        axes.append([f"{key}={value}" for value in values.split(",")])
    base = recipe(recipe_name)
    arms: dict[str, Mapping[str, Any]] = {}
    for settings in itertools.product(*axes):
        config = with_settings(base, settings)
        named = [name for one in settings for name in fields_of(one.partition("=")[0])]
        fields = {name if hasattr(config, name) else "method_settings" for name in named}  # its own, by name
        label = ", ".join(settings) if len(axes) > 1 else settings[0].partition("=")[2]
        arms[label] = {k: getattr(config, k) for k in fields}
    numbers = len(axes) == 1 and all(is_number(arm) for arm in arms)
    axis = axes[0][0].partition("=")[0] if numbers else ""
    title = " × ".join(axis[0].partition("=")[0] for axis in axes) + f" of {recipe_name}"
    return Ablation(name, title, {recipe_name: recipe_name}, arms, "", axis)


def slug(arm: str) -> str:
    """A file name for an arm; too long a one is cut, and ends in a fingerprint."""
    named = arm
    for sign, word in {"α = ": "alpha-", "%": "pc", "w/o": "without", "w/": "with", "=": "-"}.items():
        named = named.replace(sign, word)
    name = re.sub(r"[^\w.]+", "-", named).strip("-")
    if len(name.encode()) <= LONGEST:
        return name
    return name.encode()[: LONGEST - 9].decode(errors="ignore") + f"-{fingerprint(arm)[:8]}"
