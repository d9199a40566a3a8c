"""Tasks and suites by name: one YAML file in ``tasks/`` is a task, its file name is the task's name."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from simcse_bench.bundled import builtin_tasks_dir
from simcse_bench.data.task import Task
from simcse_bench.data.task_yaml import are_names, parse_task, read_yaml, shown
from simcse_bench.errors import UserError, unknown


def task_names(tasks_dir: str | Path | None = None) -> list[str]:
    """Names of the built-in tasks and of those in the user's folder, in suite order then by name."""
    names = [n for members in _suites(builtin_tasks_dir()).values() for n in members if "/" not in n]
    for folder in reversed(_folders(tasks_dir)):
        names += sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "suites")
    return list(dict.fromkeys(names))


def load_suites(tasks_dir: str | Path | None = None) -> dict[str, list[str]]:
    """Suite name -> task names; a user's folder may add suites of its own in ``suites.yaml``."""
    builtin = _suites(builtin_tasks_dir())
    suites = {name: members for folder in reversed(_folders(tasks_dir)) for name, members in _suites(folder).items()}
    taken = [name for name, members in builtin.items() if suites[name] != members]
    if taken:
        raise UserError(*(f"{tasks_dir}/suites.yaml: suite {name!r} {_TAKEN}" for name in taken))
    return suites


def load_suite(name: str, tasks_dir: str | Path | None = None) -> list[Task]:
    """The tasks of a suite, in the order of the paper's columns; its name in any spelling of ``same_name``."""
    suites = load_suites(tasks_dir)
    known = known_name(name, suites)
    if known is None:
        raise unknown("suite", name, suites)
    return [load_task(t, tasks_dir) for t in suites[known]]


def load_task(name: str, tasks_dir: str | Path | None = None) -> Task:
    """Read the task of this name, in any spelling of ``same_name``, or of this alias.

    A file's exact name comes before other spellings of it, the user's folder before the built-in tasks. ``TASK/SUBSET``
    is one subset of an STS task: a language, for one.

    Raises:
        UserError: no such task; one of the user's under the name of a built-in one, whose numbers it would pass for.
    """
    stem, _, subset = name.partition("/")
    path = _task_file(stem, tasks_dir)
    if path is not None:
        task = parse_task(path.stem, read_yaml(path), path)
        return _one_subset(task, subset) if subset else task
    paths = _task_files(tasks_dir)
    error = unknown("task", name, [*task_names(tasks_dir), *(a for p in paths for a in _aliases(p))])
    raise UserError(f"{error} A task of mteb's own: --suite mteb:NAME.")


def _one_subset(task: Task, subset: str) -> Task:
    """The task with one of its subsets only, called ``TASK/SUBSET``."""
    if task.kind != "sts":
        raise UserError(
            f"{task.name}/{subset}: {task.name} is a {task.kind} task; only STS tasks are taken in subsets."
        )
    known = known_name(subset, dict.fromkeys(name for subsets in task.splits.values() for name in subsets))
    if known is None:
        raise unknown(f"subset of task {task.name}", subset, [n for subsets in task.splits.values() for n in subsets])
    splits = {split: {known: subsets[known]} for split, subsets in task.splits.items() if known in subsets}
    return replace(task, name=f"{task.name}/{known}", title=f"{task.title} {known}", splits=splits, aliases=())


def same_name(name: str) -> str:
    """What all spellings of a name share: STS-B, STSB and sts_b are one task."""
    return re.sub(r"[\s_-]", "", name).casefold()


def known_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant: the same, else the same in another spelling; None where there is none."""
    names = list(known)
    return name if name in names else next((n for n in names if same_name(n) == same_name(name)), None)


def task_name(name: str, tasks_dir: str | Path | None = None) -> str:
    """The name of the task that a name means; the name itself where there is none."""
    stem, slash, subset = name.partition("/")
    path = _task_file(stem, tasks_dir)
    return f"{path.stem}{slash}{subset}" if path else name


@cache
def builtin_names() -> Mapping[str, str]:
    """Every name and alias of the built-in tasks, spelt as by ``same_name``, and the task that it means."""
    files = _task_files(None)
    return {same_name(alias): path.stem for path in files for alias in (*_aliases(path), path.stem)}


@cache
def built_from(name: str) -> tuple[str, ...]:
    """The STS tasks that a built-in ranking task is built from; none of any other task."""
    if name not in task_names():
        return ()
    return tuple(part for source in load_task(name).sources.values() for part in source.positives)


def _task_file(name: str, tasks_dir: str | Path | None) -> Path | None:
    """The task's file: of this name, of this name spelt otherwise, of this alias."""
    paths, wanted = _task_files(tasks_dir), same_name(name)
    kinds = (
        (p for p in paths if p.stem == name),
        (p for p in paths if same_name(p.stem) == wanted),
        (p for p in paths if wanted in map(same_name, _aliases(p))),
    )
    return next(itertools.chain(*kinds), None)


def _aliases(path: Path) -> list[str]:
    """The aliases in a task's file; none of one that cannot be read, which is told when it is named."""
    with contextlib.suppress(UserError):
        aliases = read_yaml(path).get("aliases")
        return [str(alias) for alias in aliases] if isinstance(aliases, list) else []
    return []


def _task_files(tasks_dir: str | Path | None) -> list[Path]:
    return [p for folder in _folders(tasks_dir) for p in sorted(folder.glob("*.yaml")) if p.stem != "suites"]


_TAKEN = "comes with simcse-bench, whose published numbers are beside its scores. Give yours another name."


def _refuse_taken(tasks_dir: Path) -> None:
    """UserError for task files that are another task under a built-in one's name."""
    builtin = {path.stem: path for path in builtin_tasks_dir().glob("*.yaml")}
    taken = [path for path in sorted(tasks_dir.glob("*.yaml")) if path.stem in builtin and path.stem != "suites"]
    other = [path for path in taken if not _same_task(path, builtin[path.stem])]
    if other:
        raise UserError(*(f"{path}: task {path.stem!r} {_TAKEN}" for path in other))


def _same_task(path: Path, builtin: Path) -> bool:
    """Whether a file says what the built-in one says; of equal bytes neither is parsed."""
    with contextlib.suppress(OSError):  # told in words by ``read_yaml``
        if path.is_file() and path.read_bytes() == builtin.read_bytes():
            return True
    return read_yaml(path) == read_yaml(builtin)


def _folders(tasks_dir: str | Path | None) -> list[Path]:
    """Where task files lie: the user's folder first, then the built-in ones."""
    if not tasks_dir:
        return [builtin_tasks_dir()]
    if not Path(tasks_dir).is_dir():
        raise UserError(f"--tasks-dir {tasks_dir} is not a folder; give one that holds task files such as mytask.yaml.")
    _refuse_taken(Path(tasks_dir))
    return [Path(tasks_dir), builtin_tasks_dir()]


def _suites(folder: Path) -> dict[str, list[str]]:
    path = folder / "suites.yaml"
    suites = read_yaml(path) if path.exists() else {}
    for name, tasks in suites.items():
        if not tasks or not are_names(tasks) or not all(isinstance(t, str) for t in tasks):
            raise UserError(
                f"{path}: suite {name!r}: expected a list of task names such as [mytask, stsb], none twice, "
                f"found {shown(tasks)}."
            )
    return suites
