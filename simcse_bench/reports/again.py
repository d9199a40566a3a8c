"""The command that makes a saved number again, from what its JSON says of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simcse_bench.data.perturbations import RATE, SEED
from simcse_bench.data.task import SIMCSE
from simcse_bench.models.baselines import RANDOM, is_baseline
from simcse_bench.models.catalog import known_model
from simcse_bench.reports.geometry import Analysis
from simcse_bench.reports.mteb import MtebReport
from simcse_bench.reports.report import Report
from simcse_bench.reports.robustness import Robustness
from simcse_bench.reports.summary import Summary

UNKNOWN = "MODEL_FOLDER"  # a report under a name of the user's own does not say where its model lies
_ANALYSED = ("--model", "--pooling", "--head", "--dtype", "--template", "--truncate-dim")  # of ``analyze``
_RECORDED = {"simcse": "", "test": "", "exact": "", "float32": ""}  # what a command need not say


def eval_command(report: Report) -> str:
    """``simcse-bench eval …``; ``UNKNOWN`` stands for a model that the report knows under a name of its own."""
    protocol, model = report.protocol, report.model
    names = [*report.tasks, *report.skipped]
    suite = [("--suite", report.suite)] if report.suite != "tasks" else [("--task", name) for name in names]
    transfer = any(task.get("kind") == "transfer" for task in report.tasks.values())
    probe = protocol.get("probe", "exact") if transfer else "exact"
    rules = [("--protocol", protocol["name"]), ("--split", protocol["split"]), ("--probe", probe)]
    excluded = protocol.get("excluded")
    options = [
        *_model(model),
        *suite,
        *((option, value) for option, value in rules if value not in _RECORDED),
        *_intervals(protocol),
        *([("--limit", str(report.limit))] if report.limit else []),
        *([("--exclude-overlap", f"results/overlap/{excluded['file']}")] if excluded else []),
    ]
    return _line(["eval"], options)


def mteb_command(report: MtebReport) -> str:
    """``simcse-bench eval … --suite mteb:…``."""
    return model_command(report.model, ["eval"], [("--suite", f"mteb:{report.selection}")])


def model_command(model: Mapping[str, Any], command: Sequence[str], options: Sequence[tuple[str, str]]) -> str:
    """Any command on a model, used as its provenance in a saved result says."""
    return _line(command, [*(_analysed(model) if command[0] == "analyze" else _model(model)), *options])


def analyze_command(analysis: Analysis) -> str:
    """``simcse-bench analyze …``."""
    data = analysis["data"]
    options = [("--task", data["task"]), *(("--split", split) for split in data["splits"])]
    return model_command(analysis["model"], ["analyze"], options)


def robustness_command(robustness: Robustness) -> str:
    """``simcse-bench analyze … --robustness …``."""
    options = [
        ("--task", ",".join(robustness["tasks"])),
        *(("--split", split) for split in robustness["splits"] if list(robustness["splits"]) != ["test"]),
        *((("--typo-rate", f"{robustness['rate']:g}"),) if robustness["rate"] != RATE else ()),
        *((("--seed", str(robustness["seed"])),) if robustness["seed"] != SEED else ()),
    ]
    return model_command(robustness["model"], ["analyze", "--robustness"], options)


def ablation_command(summary: Summary) -> str:
    """``simcse-bench run-ablation …`` with every setting of all arms, or all but some; "" where no trial has finished.

    A line more for arms that have more seeds than others.
    """
    base = summary["base"]
    if not base:
        return ""
    arms = [arm["arm"] for arm in summary["arms"]]
    seeds = [seed for arm in summary["arms"] for seed in arm["seeds"]]
    fields = summary["title"].removesuffix(f" of {summary['preset']}").split(" × ")
    if summary["title"].endswith(f" of {summary['preset']}"):  # a grid of the user's own
        start = [("--recipe", summary["preset"]), *(("--vary", one) for one in _grid(fields, arms))]
    else:
        start = [("--preset", summary["preset"])]
    shared_by = {**base, **{field: values[""] for field, values in summary.get("own", {}).items()}}
    chosen = {**{k: v for k, v in shared_by.items() if v not in (None, "", [])}, "seed": min(seeds)}
    named = [(f"--{key}", str(chosen.pop(key))) for key in ("model", "train") if key in chosen]
    shared = [*named, *(("--set", _set(*setting)) for setting in chosen.items())]
    shared += [("--set", setting) for setting in summary.get("of_arms", ())]
    counts = {arm["arm"]: len(arm["seeds"]) for arm in summary["arms"]}
    lines = []
    for count in sorted(set(counts.values()) - {0}):
        some = [arm for arm, n in counts.items() if n >= count]
        only = [("--arm", arm) for arm in some] if len(some) < len(counts) else []
        lines.append(_line(["run-ablation", summary["name"]], [*start, ("--seeds", str(count)), *only, *shared]))
    return "\n".join(lines)


def reproduce_command(record: Mapping[str, Any]) -> str:
    """``simcse-bench reproduce …``."""
    options = [("--preset", str(record["preset"])), ("--seeds", str(record["seeds"]))]
    return _line(["reproduce", str(record["paper"])], options)


def _intervals(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options of the bootstrap, where they are not the protocol's own."""
    for field in ("resamples", "bootstrap_seed"):
        if protocol.get(field, getattr(SIMCSE, field)) != getattr(SIMCSE, field):
            yield f"--{field.replace('_', '-')}", str(protocol[field])


def _model(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options that decide a model's vectors."""
    name = str(model.get("name_or_path") or model["name"])
    if name.startswith(f"{RANDOM}-"):
        name = f"{RANDOM}:{name.removeprefix(f'{RANDOM}-')}"
    elif not (_findable(name) or model.get("name_or_path")):
        yield "--model", UNKNOWN
        yield "--name", name
        name = ""
    if name:
        yield "--model", name
    asked = str(model.get("settings_from") or "")
    for option in ("pooling", "head"):
        if "--" in asked and model.get(option):
            yield f"--{option}", str(model[option])
    for option in ("max_length", "revision", "template", "truncate_dim"):
        if model.get(option):
            yield f"--{option.replace('_', '-')}", str(model[option])
    if model.get("dtype", "float32") not in _RECORDED:
        yield "--dtype", str(model["dtype"])
    for text in model.get("whiten") or ():
        yield "--whiten", text


def _analysed(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those that ``analyze`` takes: no name, length, revision or whitening."""
    return [(option, value) for option, value in _model(model) if option in _ANALYSED]


def _findable(name: str) -> bool:
    """Whether the command line finds a model by its name in a report: of the catalog, a baseline, or on the Hub."""
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
    return on_hub or is_baseline(name) or name.startswith("mteb:") or known_model(name) is not None


def _grid(fields: Sequence[str], arms: Sequence[str]) -> list[str]:
    """``field=a,b`` of every field of a grid, from the names of its arms."""
    if len(fields) == 1:
        return [f"{fields[0]}={','.join(arms)}"]
    pairs = dict.fromkeys(pair for arm in arms for pair in arm.split(", "))
    return [f"{f}={','.join(p.partition('=')[2] for p in pairs if p.startswith(f'{f}='))}" for f in fields]


def _set(field: str, value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return f"{field}={str(value).lower() if isinstance(value, bool) else value}"


def _line(command: Sequence[str], options: Sequence[tuple[str, str]]) -> str:
    return shlex.join(["simcse-bench", *command, *(word for option in options for word in option)])
