"""The pairs of a report, a line each, in a file beside it: sentences, gold score, cosine, ranks; of others a value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from simcse_bench.errors import UserError
from simcse_bench.files import write_text
from simcse_bench.reports.report import Report
from simcse_bench.schema import parse_record, read_bytes

PAIRS_SCHEMA: Literal[2] = 2
PAIRS = ".pairs.jsonl"
WORST = 20  # worst pairs of each task on the page
_LARGEST = 1.001  # a cosine, rounding included
_OTHERWISE = "not a report's pairs. Evaluate again with --force."


class PairsHead(TypedDict):
    """The first line of a report's pairs: the version, and the key of the report that they belong to."""

    schema: Literal[2]
    key: str


class Pair(TypedDict):
    """A further line: a pair of an STS or a paraphrase task, those of a task together and in the order of its file.

    ``id`` is "task/subset/number", the same for every model: numbers count the subset's scored pairs from 0. ``left``
    and ``right`` are the sentences as they were embedded, ``gold`` is the task's own score, ``cosine`` has all its
    digits; ``gold_rank`` and ``cosine_rank`` are average ranks among the task's pairs, in percent.
    """

    task: str
    subset: str
    id: str
    left: str
    right: str
    gold: float
    cosine: float
    gold_rank: float
    cosine_rank: float


class TaskValues(TypedDict):
    """A further line: a triplet or a ranking task, which has no pairs with a gold score.

    ``values`` are the margins of its triplets (cosine with the positive minus cosine with the negative), or the ranks
    of its queries' nearest positives, in the order of its file.
    """

    task: str
    values: Sequence[float]


class WorstPair(TypedDict):
    """A pair whose rank by cosine is far from its rank by gold score; ranks in percent."""

    gold: float
    cosine: float
    gold_rank: float
    cosine_rank: float
    left: str
    right: str


class FirstHead(TypedDict):
    """The first line of version 1, which had no sentences."""

    schema: Literal[1]
    key: str  # of the report


class FirstTask(TypedDict):
    """A further line of version 1: the cosines of a task's pairs, in their order, to seven decimals."""

    task: str
    similarities: Sequence[float]
    worst: NotRequired[Sequence[WorstPair]]


PairsLine = PairsHead | Pair | TaskValues | FirstHead | FirstTask


VALUED = {"triplet", "ranking"}  # kinds of task with a line of values


class _AnyHead(TypedDict):
    schema: Literal[1, 2]
    key: str


class _AnyLine(TypedDict):
    task: str


def pairs_path(path: Path) -> Path:
    """The file beside a report that holds its pairs."""
    return path.with_name(path.stem + PAIRS)


def report_beside(path: Path) -> Path:
    """The report of a file of pairs; a report is its own."""
    return path.with_name(path.name.removesuffix(PAIRS) + ".json") if path.name.endswith(PAIRS) else path


def save_pairs(path: Path, key: str, pairs: Iterable[Pair | TaskValues]) -> None:
    """Keep every pair of a report's tasks, see ``metrics.pair_records``, or their values; nothing where none is."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in ({"schema": PAIRS_SCHEMA, "key": key}, *pairs)]
    if len(lines) > 1:
        write_text(pairs_path(path), "".join(lines))


def load_records(path: Path, report: Report) -> dict[str, list[Pair]]:
    """Task -> its pairs, of a saved report; triplet and ranking tasks have none.

    Raises:
        UserError: they are not there, are of version 1, or belong to another evaluation; lines missing or doubled.
    """
    first, _, records = _read(path, report)
    if first:
        raise UserError(
            f"{pairs_path(path)}: written before pairs were kept with their sentences; evaluate "
            f"{report.model['name']} again with --force."
        )
    return records


def load_pairs(path: Path, report: Report) -> dict[str, Sequence[float]]:
    """Task -> cosines of its pairs (margins of its triplets, ranks of its queries), of a saved report.

    Raises:
        UserError: they are not there, or belong to another evaluation; lines missing or doubled.
    """
    return load_values(path, report)[0]


def load_values(path: Path, report: Report) -> tuple[dict[str, Sequence[float]], dict[str, list[tuple[str, str]]]]:
    """What ``load_pairs`` gives, and by task the sentences of its pairs, which version 1 did not keep.

    Raises:
        UserError: they are not there, or belong to another evaluation; lines missing or doubled.
    """
    first, valued, records = _read(path, report)
    values: dict[str, Sequence[float]] = {row["task"]: row["similarities"] for row in first}
    values |= {row["task"]: row["values"] for row in valued}
    values |= {task: [row["cosine"] for row in rows] for task, rows in records.items()}
    return values, {task: [(row["left"], row["right"]) for row in rows] for task, rows in records.items()}


def load_worst(path: Path, report: Report) -> dict[str, Sequence[WorstPair]]:
    """STS task -> its worst pairs, see ``worst_pairs``; none where the report has no pairs beside it.

    Raises:
        UserError: the pairs belong to another evaluation, or are not readable.
    """
    if not pairs_path(path).exists():
        return {}
    first, _, records = _read(path, report)
    worst: dict[str, Sequence[WorstPair]] = {row["task"]: row["worst"] for row in first if row.get("worst")}
    return worst | {
        task: worst_pairs(rows) for task, rows in records.items() if "spearman" in report.tasks[task]["scores"]
    }


def worst_pairs(rows: Sequence[Pair], count: int = WORST) -> list[WorstPair]:
    """The pairs of a task whose two ranks differ most, worst first, rounded for the page.

    Spearman's correlation is 1 minus a multiple of the sum of these squared differences: these pairs cost it most.
    """
    ordered = sorted(rows, key=lambda row: -abs(row["cosine_rank"] - row["gold_rank"]))
    return [
        {
            "gold": round(row["gold"], 4),
            "cosine": round(row["cosine"], 4),
            "gold_rank": round(row["gold_rank"], 1),
            "cosine_rank": round(row["cosine_rank"], 1),
            "left": row["left"],
            "right": row["right"],
        }
        for row in ordered[:count]
    ]


def _read(path: Path, report: Report) -> tuple[list[FirstTask], list[TaskValues], dict[str, list[Pair]]]:
    """The lines beside a report: those of version 1, or its tasks' values and its pairs by task."""
    beside = pairs_path(path)
    if not beside.exists():
        raise UserError(f"{beside}: no such file; evaluate {report.model['name']} again with --force to write it.")
    lines = [line for line in read_bytes(beside, _OTHERWISE).split(b"\n") if line]
    if not lines:
        raise UserError(f"{beside}: it is empty: {_OTHERWISE}")
    head = parse_record(lines[0], _AnyHead, f"{beside}:1", _OTHERWISE)
    if head["key"] != report.key:
        raise UserError(f"{beside} belongs to another evaluation; evaluate again with --force.")
    places = {f"{beside}:{i}": line for i, line in enumerate(lines[1:], 2)}
    if head["schema"] == 1:
        return [parse_record(line, FirstTask, where, _OTHERWISE) for where, line in places.items()], [], {}
    named = [name for name, task in report.tasks.items() if VALUED & {*task}]
    valued: list[TaskValues] = []
    records: dict[str, list[Pair]] = {}
    for where, line in places.items():
        if named and parse_record(line, _AnyLine, where, _OTHERWISE)["task"] in named:
            valued.append(parse_record(line, TaskValues, where, _OTHERWISE))
        else:
            row = parse_record(line, Pair, where, _OTHERWISE)
            if not abs(row["cosine"]) <= _LARGEST:
                raise UserError(f"{where}: cosine {row['cosine']:g}, expected -1 to 1: {_OTHERWISE}")
            records.setdefault(row["task"], []).append(row)
    _require_whole(beside, report, valued, records)
    return [], valued, records


def _require_whole(
    beside: Path, report: Report, valued: Sequence[TaskValues], records: Mapping[str, Sequence[Pair]]
) -> None:
    """UserError unless there is one line for each pair, and one value for each triplet and query."""
    sizes = {n: task["n"] for n, task in report.tasks.items() if "spearman" in task["scores"] or "paraphrase" in task}
    for name in (*sizes, *records):
        rows = records.get(name, ())
        ids = {row["id"] for row in rows}
        if len(rows) != sizes.get(name) or len(ids) != len(rows):
            doubled = f", {len(rows) - len(ids)} of them twice" if len(ids) != len(rows) else ""
            raise UserError(
                f"{beside}: {len(rows)} pairs of task {name!r}{doubled}, the report has {sizes.get(name, 'none')}: "
                f"{_OTHERWISE}"
            )
    for name, task in report.tasks.items():
        counts = [len(row["values"]) for row in valued if row["task"] == name]
        if VALUED & {*task} and counts != [task["n"]]:
            shown = " and ".join(map(str, counts)) or "no"
            raise UserError(f"{beside}: {shown} values of task {name!r}, the report has {task['n']}: {_OTHERWISE}")
