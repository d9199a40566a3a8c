"""``mteb:NAME,...``: which tasks of mteb are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.models.mteb_model import PREFIX, import_mteb

HOW = "expected names of mteb's tasks (mteb:BIOSSES,STS22.v2[en]) or one of its benchmarks ('mteb:MTEB(eng, v2)')"
_COMMA = re.compile(r",(?![^(\[]*[)\]])")  # those inside brackets belong to a name or its subsets


@dataclass(frozen=True)
class Selection:
    """What was chosen after ``mteb:``."""

    label: str
    tasks: Sequence[Any]  # mteb.AbsTask
    benchmark: Any = None  # mteb.Benchmark, where the choice is one whole benchmark


def select_mteb(spec: str) -> Selection:
    """The tasks that ``mteb:NAME,NAME[subset],...`` means; a name may be a benchmark's.

    Raises:
        UserError: all names that are unknown, and all tasks that need more than text.
    """
    mteb = import_mteb()
    from mteb.get_tasks import TASK_LIST

    text = spec.removeprefix(PREFIX).strip()
    names = [name.strip() for name in _COMMA.split(text) if name.strip()]
    if not names:
        raise UserError(f"--suite {spec}: names no task; {HOW}.")
    known = [task.metadata.name for task in TASK_LIST]
    benchmarks = {name: b for b in mteb.get_benchmarks() for name in (b.name, *(b.aliases or ()))}
    chosen: dict[str, Any] = {}
    problems: list[str] = []
    for name in names:
        try:
            tasks = benchmarks[name].tasks if name in benchmarks else [_task(mteb, name, known, benchmarks)]
        except UserError as error:
            problems += error.problems
            continue
        for task in tasks:
            other = chosen.setdefault(task.metadata.name, task)
            if other.hf_subsets != task.hf_subsets or other.eval_splits != task.eval_splits:
                problems.append(
                    f"mteb task {task.metadata.name!r} is chosen twice, with different subsets; choose one."
                )
    for name, task in chosen.items():
        if list(task.metadata.modalities) != ["text"]:
            more = ", ".join(m for m in task.metadata.modalities if m != "text")
            problems.append(f"mteb task {name!r} ({task.metadata.type}) needs {more}; our encoders take text only.")
    if problems:
        raise UserError(*problems)
    return Selection(",".join(names), list(chosen.values()), benchmarks.get(text))


def _task(mteb: Any, name: str, known: Sequence[str], benchmarks: Iterable[str]) -> Any:
    bracketed = re.fullmatch(r"(.+?)\[(.*)\]", name)
    plain = bracketed[1] if bracketed else name
    if plain not in known:
        near = suggestion(plain, [*known, *benchmarks])
        raise UserError(f"unknown mteb task or benchmark {plain!r}{near} `mteb available-tasks` lists them; {HOW}.")
    task = mteb.get_task(plain)
    if bracketed is None:
        return task
    subsets = [s.strip() for s in bracketed[2].split(",")]
    for wrong in (s for s in subsets if s not in task.hf_subsets):
        raise unknown(f"subset of mteb task {plain!r}:", wrong, task.hf_subsets)
    return mteb.get_task(plain, hf_subsets=subsets)
