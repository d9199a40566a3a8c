"""Tasks, suites and protocols: what is measured and under which rules.

A task is one YAML file in ``tasks/`` (its file name is its name; fields in ``tasks/README.md``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from simcse_bench.errors import UserError, unknown

KINDS = ("sts", "transfer")
READABLE_FORMATS = ("semeval", "tsv", "csv", "hub")
TRANSFER_FORMATS = ("class_files", "sst", "trec", "mrpc")
TEXT_VARIANTS = ("senteval", "raw")
PROBE_NAMES = ("exact", "fast", "sklearn")


@dataclass(frozen=True)
class Source:
    """Where the rows of a task lie and how to read them (one text variant)."""

    format: str
    path: str = ""  # relative to the data folder; {split}, {subset} and (semeval) {part} are filled in
    columns: Mapping[str, int | str] = field(default_factory=lambda: {"gold": 0, "left": 1, "right": 2})
    header: bool = False
    encoding: str = "utf-8"
    dataset: str = ""  # hub: dataset id
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Task:
    """One evaluation task. ``splits[split][subset]`` is the number of rows, None where it is not known."""

    name: str
    title: str
    kind: str
    reference: str
    sources: Mapping[str, Source]  # text variant -> source; the key "only" serves every variant
    splits: Mapping[str, Mapping[str, int | None]]
    gold: tuple[float, float] = (0.0, 5.0)
    labels: tuple[str, ...] = ()
    probe: str = ""
    folder: Path = Path()  # where the YAML file lies: a user's own data paths are relative to it

    def source(self, variant: str) -> tuple[str, Source]:
        """The variant that is truly read, and its source.

        Raises:
            UserError: the task has no such text variant.
        """
        if "only" in self.sources:
            return "only", self.sources["only"]
        if variant not in self.sources:
            raise unknown(f"text variant of task {self.name}", variant, self.sources)
        return variant, self.sources[variant]


@dataclass(frozen=True)
class EvalProtocol:
    """The rules that decide a number; stored whole in every report.

    ``aggregate`` and ``metric`` choose what is printed: reports keep all of them.
    """

    name: str
    text: str  # text variant: "senteval" (tokenised, STS lower-cased) or "raw" (as SemEval released it)
    split: str = "test"
    task_splits: Mapping[str, str] = field(default_factory=dict)  # task -> split, where it differs
    aggregate: str = "all"  # of a task's subsets: all (one correlation over the union), mean, wmean
    metric: str = "spearman"
    probe: str = "exact"  # classifier of transfer tasks: exact, fast or sklearn (probe.PROBES)
    resamples: int = 1000  # of the bootstrap
    bootstrap_seed: int = 0

    def split_of(self, task: Task) -> str:
        """The split of this task that the protocol reads."""
        return self.task_splits.get(task.name, self.split)


# SimCSE evaluation.py, mode "test"/"dev", with its fork of SentEval
SIMCSE = EvalProtocol("simcse", text="senteval")
# mteb's English STS tasks: raw text, SICK-R over all 9,927 pairs
MTEB = EvalProtocol("mteb", text="raw", task_splits={"sickr": "all"})
PROTOCOLS = {p.name: p for p in (SIMCSE, MTEB)}


def builtin_tasks_dir() -> Path:
    """``<package>/tasks`` in a wheel, ``<package>/../tasks`` in a checkout."""
    package = Path(__file__).parent
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def task_names(tasks_dir: Path | None = None) -> list[str]:
    """Names of the built-in tasks and of those in the user's folder, in suite order then by name."""
    names = [n for members in _suites(builtin_tasks_dir()).values() for n in members]
    for folder in (builtin_tasks_dir(), *([tasks_dir] if tasks_dir else [])):
        names += sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "suites")
    return list(dict.fromkeys(names))


def load_suites(tasks_dir: Path | None = None) -> dict[str, list[str]]:
    """Suite name -> task names; a user's folder may add suites of its own in ``suites.yaml``."""
    return _suites(builtin_tasks_dir()) | (_suites(tasks_dir) if tasks_dir else {})


def load_suite(name: str, tasks_dir: Path | None = None) -> list[Task]:
    """The tasks of a suite, in the order of the paper's columns."""
    suites = load_suites(tasks_dir)
    if name not in suites:
        raise unknown("suite", name, suites)
    return [load_task(t, tasks_dir) for t in suites[name]]


def load_task(name: str, tasks_dir: Path | None = None) -> Task:
    """Read ``<name>.yaml`` from the user's folder, else from the built-in ones."""
    if tasks_dir is not None and not tasks_dir.is_dir():
        raise UserError(f"--tasks-dir {tasks_dir} is not a folder; give one that holds task files such as mytask.yaml.")
    for folder in (*([tasks_dir] if tasks_dir else []), builtin_tasks_dir()):
        path = folder / f"{name}.yaml"
        if name != "suites" and path.is_file():
            return parse_task(name, _read_yaml(path), path)
    raise unknown("task", name, task_names(tasks_dir))


def parse_task(name: str, fields: Mapping[str, Any], path: Path) -> Task:
    """Build a Task from the fields of its YAML file.

    Raises:
        UserError: every problem of the file at once.
    """
    problems = []
    known = {"title", "kind", "reference", "gold", "source", "sources", "splits", "labels", "probe"}
    problems += [str(unknown("field", f, sorted(known))) for f in fields if f not in known]
    kind = fields.get("kind", "sts")
    if kind not in KINDS:
        problems.append(str(unknown("kind", str(kind), KINDS)))
    if ("source" in fields) == ("sources" in fields):
        problems.append("exactly one of 'source' (one text) and 'sources' (one per text variant) is needed.")
    raw_sources = {"only": fields["source"]} if "source" in fields else fields.get("sources") or {}
    sources = {}
    for variant, entry in raw_sources.items():
        try:
            sources[str(variant)] = Source(**entry)
        except TypeError as error:
            problems.append(f"source {variant!r}: {error}; known fields: {', '.join(Source.__dataclass_fields__)}.")
            continue
        if sources[variant].format not in READABLE_FORMATS + TRANSFER_FORMATS:
            problems.append(str(unknown("format", sources[variant].format, READABLE_FORMATS + TRANSFER_FORMATS)))
    gold = fields.get("gold", [0, 5])
    if not (isinstance(gold, Sequence) and len(gold) == 2 and all(isinstance(g, int | float) for g in gold)):
        problems.append(f"gold: expected [lowest, highest], found {gold!r}.")
        gold = (0, 5)
    splits = fields.get("splits")
    if not isinstance(splits, Mapping) or not splits or not all(isinstance(s, Mapping) for s in splits.values()):
        problems.append("splits: expected 'split: {subset: rows}', rows empty where unknown, such as 'test: {test: }'.")
        splits = {}
    if problems:
        raise UserError(*(f"{path}: {p}" for p in problems))
    return Task(
        name=name,
        title=str(fields.get("title", name)),
        kind=kind,
        reference=str(fields.get("reference", "")),
        sources=sources,
        splits={str(s): {str(k): v for k, v in subsets.items()} for s, subsets in splits.items()},
        gold=(float(gold[0]), float(gold[1])),
        labels=tuple(str(label) for label in fields.get("labels", ())),
        probe=str(fields.get("probe", "")),
        folder=path.parent,
    )


def _suites(folder: Path) -> dict[str, list[str]]:
    path = folder / "suites.yaml"
    return {str(k): list(v) for k, v in _read_yaml(path).items()} if path.is_file() else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected fields such as 'title: ...', found {type(content).__name__}.")
    return content
