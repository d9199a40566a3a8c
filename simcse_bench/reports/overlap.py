"""Evaluation sentences found in training text: the record, its table and CSV, and the marks it puts on leaderboards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from simcse_bench.data.overlap import KINDS
from simcse_bench.data.registry import built_from, builtin_names, same_name
from simcse_bench.errors import UserError
from simcse_bench.files import write_json, write_text
from simcse_bench.models.catalog import HOLDS, known_model
from simcse_bench.reports.report import Report, report_path
from simcse_bench.reports.table import Table, to_csv, to_list, to_markdown
from simcse_bench.schema import read_record

FOLDER = "overlap"  # below the results folder
MARK = "†"
_CERTAIN = ("exact", "normalised", "inside")  # a near sentence may be another one: it puts no mark on a row
_NOT_OURS = "not a record of `simcse-bench data overlap`. Move it away or run that again."


class TrainText(TypedDict):
    """The text that was searched."""

    name: str
    origin: str
    fingerprint: str
    rows: int
    texts: int


class Found(TypedDict):
    """A sentence that was found, how it stands there at its closest, and the first row where it does."""

    sentence: str
    kind: str
    changed: int  # words, where it is near
    times: int  # texts in which it was found
    row: int  # from 1, a text file's line
    text: str
    where: Mapping[str, Sequence[int]]  # task -> its rows (pairs) with this sentence, from 0


class TaskOverlap(TypedDict):
    """What was searched for of one task."""

    title: str
    split: str
    n: int  # rows: pairs, or labelled sentences
    sentences: int
    fingerprints: Sequence[str]  # of its data, one a text variant
    whole: int  # rows of which all sentences were found


@dataclass(frozen=True)
class Overlap:
    """Evaluation sentences in a training text."""

    key: str  # fingerprint of both sides and of how it was searched
    train: TrainText
    suite: str
    protocol: str
    kinds: Sequence[str]
    least: int  # different words of a sentence that is looked for as near
    tasks: Mapping[str, TaskOverlap]
    sentences: int  # distinct ones of all tasks
    found: Sequence[Found]
    version: str
    seconds: float
    created: str
    schema: Literal[1] = 1

    def rows(self, task: str, kinds: Sequence[str] = tuple(KINDS)) -> dict[int, str]:
        """The rows of a task with a sentence found in one of these ways, each with the closest."""
        rows: dict[int, str] = {}
        for found in sorted(self.found, key=lambda f: _rank(f["kind"]), reverse=True):
            if found["kind"] in kinds:
                rows |= dict.fromkeys(found["where"].get(task, ()), found["kind"])
        return rows


def overlap_path(out: Path, train: str, suite: str, variant: str = "") -> Path:
    """``<out>/overlap/<train>--<suite>.json``."""
    return out / FOLDER / report_path(out, "tasks", train, f"--{suite}{variant}").name


def read_overlap(path: Path) -> Overlap:
    """A saved record; UserError where the file is none."""
    overlap = read_record(path, Overlap, _NOT_OURS)
    for kind in (*overlap.kinds, *(found["kind"] for found in overlap.found)):
        if kind not in KINDS:
            raise UserError(f"{path}: unknown kind {kind[:40]!r}, expected {', '.join(KINDS)}: {_NOT_OURS}")
    for found in overlap.found:
        for task, rows in found["where"].items():
            if task not in overlap.tasks or not all(0 <= row < overlap.tasks[task]["n"] for row in rows):
                raise UserError(f"{path}: found.where: no such row of task {task[:40]!r}: {_NOT_OURS}")
    return overlap


def save_overlap(path: Path, overlap: Overlap) -> None:
    """The record, its table and its CSV."""
    write_json(path, asdict(overlap), allow_nan=False)
    for file, text in draw_overlap(overlap, path).items():
        write_text(file, text)


def draw_overlap(overlap: Overlap, path: Path) -> dict[Path, str]:
    """File -> content of all that is drawn from a record."""
    facts = {
        "training text": f"{overlap.train['name']}, {overlap.train['origin']}, {overlap.train['fingerprint']}",
        "data": ", ".join(f"{name} {' '.join(task['fingerprints'])}" for name, task in overlap.tasks.items()),
        "time": f"{overlap.seconds} s, {overlap.created}, simcse-bench {overlap.version}",
        "search": overlap.key,
    }
    page = "\n".join([to_markdown(overlap_table(overlap)), *to_list(facts), ""])
    rows = overlap_rows(overlap)
    table = to_csv(rows) if rows else ",".join(_COLUMNS) + "\n"
    return {path.with_suffix(".md"): page, path.with_suffix(".csv"): table}


_COLUMNS = ("task", "split", "rows", "kind", "changed", "sentence", "times", "train_row", "train_text")


def overlap_rows(overlap: Overlap) -> list[dict[str, Any]]:
    """Tidy rows: one per sentence found and task."""
    return [
        dict(
            zip(
                _COLUMNS,
                (task, overlap.tasks[task]["split"], " ".join(map(str, rows)), found["kind"], found["changed"],
                 found["sentence"], found["times"], found["row"], found["text"]),
                strict=True,
            )
        )
        for found in overlap.found
        for task, rows in found["where"].items()
    ]  # fmt: skip


def overlap_table(overlap: Overlap) -> Table:
    """Sentences found, by task and kind; and the rows that hold one."""

    def row(title: str, sentences: int, found: Sequence[Found], n: int, hit: int, whole: int) -> list[str]:
        counts = Counter(one["kind"] for one in found)
        numbers = [sentences, *(counts[kind] for kind in overlap.kinds), n, hit]
        return [title, *map(str, numbers), f"{100 * hit / n:.1f}", str(whole)]

    hits = {name: len(overlap.rows(name)) for name in overlap.tasks}
    rows = [
        row(task["title"], task["sentences"], [one for one in overlap.found if name in one["where"]], task["n"],
            hits[name], task["whole"])
        for name, task in overlap.tasks.items()
    ]  # fmt: skip
    if len(rows) > 1:
        n, whole = sum(t["n"] for t in overlap.tasks.values()), sum(t["whole"] for t in overlap.tasks.values())
        rows.append(row("all", overlap.sentences, overlap.found, n, sum(hits.values()), whole))
    title = (
        f"sentences of {overlap.suite} in {overlap.train['name']} "
        f"({overlap.train['rows']:,} rows, {overlap.train['texts']:,} texts)"
    )
    header = ["task", "sentences", *overlap.kinds, "rows", "with one", "%", "with all"]
    notes = [f"{kind}: {KINDS[kind]}." for kind in overlap.kinds]
    if "near" in overlap.kinds:
        notes[-1] = notes[-1][:-1] + f"; sentences of {overlap.least} different words and more."
    notes.append("Each sentence is counted once, at its closest. with one, with all: rows whose sentences were found.")
    return Table(title, header, rows, notes)


def contaminated(report: Report, overlaps: Sequence[Overlap] = ()) -> dict[str, str]:
    """Tasks of a report whose sentences are known to stand in the text its model was trained on, and how it is known.

    Known from a record of ``data overlap`` on that text, from what its training set is made of (``HOLDS``), or
    because the card, or mteb's registry, names the task's own data as training data. Nothing else is taken for known.
    """
    model, spec = report.model, known_model(report.model["name"])
    trained = [*(spec.trained_on if spec else ()), *(one["name"] for one in model.get("trained_on") or ())]
    fingerprints = {one.get("fingerprint") for one in model.get("trained_on") or ()}
    marks: dict[str, str] = {}
    for name, task in report.tasks.items():
        parts = built_from(name) or (name.partition("/")[0],)
        for data in trained:
            if builtin_names().get(same_name(data)) in parts:
                marks[name] = f"trained on data of this task ({data})"
            elif {*parts} & {*HOLDS.get(data, ((), ""))[0]}:
                marks[name] = f"trained on {data}: {HOLDS[data][1]}"
        for one in overlaps:
            named = one.train["name"] in trained and one.train["origin"].startswith("Hub dataset")
            same = name in one.tasks and task["data"]["fingerprint"] in one.tasks[name]["fingerprints"]
            hit = len(one.rows(name, _CERTAIN)) if same and (named or one.train["fingerprint"] in fingerprints) else 0
            if hit:
                marks[name] = f"trained on {one.train['name']}: sentences of {hit} of {task['n']} rows stand in it"
    return marks


def seen_note(report: Report, marks: Mapping[str, str]) -> list[str]:
    """What the mark of a model's row means: its tasks by how it is known; none without marks."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in marks.items():
        by_reason.setdefault(reason, []).append(report.tasks[name]["title"])
    known = "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in by_reason.items())
    return [f"{MARK} {report.model['name']} has seen sentences of these tasks in training. {known}."] if known else []


def read_overlaps(results: Path, problems: list[str]) -> dict[Path, Overlap]:
    """The records below a folder; what cannot be read is added to the problems."""
    overlaps = {}
    for path in sorted(results.rglob(f"{FOLDER}/*.json")):
        try:
            overlaps[path] = read_overlap(path)
        except UserError as error:
            problems += error.problems
    return overlaps


def _rank(kind: str) -> int:
    return list(KINDS).index(kind)
