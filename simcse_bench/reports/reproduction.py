"""What is drawn from a reproduction: every table and figure of the paper beside ours, on one page."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from annotated_types import Ge, Le, MinLen
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import Environment, fingerprint, sha256
from simcse_bench.papers.published import read_table
from simcse_bench.papers.simcse_2021 import PAPERS, Paper, Part
from simcse_bench.reports import ablation, geometry, page, plots
from simcse_bench.reports.page import Section, section
from simcse_bench.reports.report import Report
from simcse_bench.reports.scores import comparable
from simcse_bench.reports.summary import SUMMARY, FindingResult, Summary, read_summary
from simcse_bench.reports.table import MISSING, Table, machine_facts, shown_spread, spread, to_markdown
from simcse_bench.schema import read_record

T = TypeVar("T")
REPRODUCTION_RECORD, TRAJECTORIES = "reproduction.json", "trajectories.json"
_PUBLISHED = {"sts": "simcse_2021_table5_sts", "transfer": "simcse_2021_table_e1_transfer"}
_METRIC = {"sts": "spearman", "transfer": "accuracy"}


_NOT_OURS = "not a reproduction's file. Move it away and run the command again."


class Reproduced(TypedDict):
    """A reproduction's record, see ``experiments.reproduction``."""

    schema: Literal[1]
    paper: str
    preset: str
    seeds: Annotated[int, Ge(1), Le(100_000)]
    real: bool
    suites: Mapping[str, str]  # sts and transfer -> the suite evaluated in its place
    seconds: dict[str, float]  # of each step
    statements: Sequence[FindingResult]
    failed: NotRequired[list[str]]
    environment: Environment
    created: str


class Point(TypedDict):
    """Alignment and uniformity after some updates of a run."""

    alignment: float
    uniformity: float


Trajectories = dict[str, Annotated[list[Point], MinLen(1)]]  # name of a run -> its points


def read_reproduction(path: Path) -> Reproduced:
    """A reproduction's record.

    Raises:
        UserError: a damaged file.
    """
    record = read_record(path, Reproduced, _NOT_OURS)
    if record["paper"] not in PAPERS:
        raise UserError(f"{path}: {_NOT_OURS} (paper: {record['paper']!r} is unknown)")
    missing = {part.name for part in PAPERS[record["paper"]].parts if part.kind == "scores"} - set(record["suites"])
    if missing:
        raise UserError(f"{path}: {_NOT_OURS} (suites.{min(missing)}: it is missing)")
    return record


def read_trajectories(path: Path) -> Trajectories:
    """A reproduction's trajectories.

    Raises:
        UserError: a damaged file.
    """
    return read_record(path, Trajectories, _NOT_OURS)


def draw_reproduction(folder: Path, problems: list[str]) -> dict[Path, bytes]:
    """index.html and tables.md, from the record and the JSON of ablations, reports and analyses below the folder.

    Args:
        folder: of the reproduction.
        problems: those of files that cannot be read are added; the page is drawn without them and says so.

    Raises:
        UserError: a damaged record.
    """
    record = read_reproduction(folder / REPRODUCTION_RECORD)
    paper = PAPERS[record["paper"]]
    told: list[str] = []
    statements = statements_table(folder, record, told)
    sections = [s for part in paper.parts for s in _part(folder, record, paper, part, told)]
    sections.append(section("Time", None, _times(record)))
    problems += dict.fromkeys(told)
    seeds = f"{record['seeds']} seed" + "s" * (record["seeds"] > 1)
    how = f"Reproduced with preset {record['preset']}, {seeds}"
    said = f"{how}: every table and figure in the paper's order, our numbers beside its own."
    embedded = record["preset"] == "mini", record["preset"] == "mini" and not record["real"]
    subtitle = "Every table beside the paper's" + bundled.badge(*embedded)
    title = f"{paper.title}: reproduced with preset {record['preset']}"
    tables = [statements, *(s.table for s in sections if s.table)]
    text = "\n".join([f"# {title}", "", subtitle, "", *map(to_markdown, tables)])
    shown = [
        s if s.table is None or s.table.rows else dataclasses.replace(s, table=None, lead=s.table.title.capitalize())
        for s in sections
    ]
    reading = [*ablation.reading_notes(list(_summaries(folder, record, []))), statements.notes[0]]
    whole = page.page(
        paper.title, said, shown, _provenance(record), results_fingerprint(folder), bundled.caveats(*embedded), reading
    )
    return {folder / "tables.md": text.encode(), folder / "index.html": whole}


def results_fingerprint(folder: Path) -> str:
    """Fingerprint of all JSON below the folder."""
    files = (f"{path.relative_to(folder)} {sha256(path)}" for path in sorted(folder.rglob("*.json")) if path.is_file())
    return fingerprint(" ".join(files).encode())


def _part(folder: Path, record: Reproduced, paper: Paper, part: Part, problems: list[str]) -> Iterator[Section]:
    """The sections of a table or figure; one that is not there yet, or cannot be read, says so."""
    number = part.number if part.number.startswith("Figure") else f"Table {part.number}"
    heading = f"{number}: {part.title}"
    before = len(problems)
    if part.kind == "ablation":
        summary = _tried(_summary_path(folder, record, part), read_summary, problems)
        if summary is not None:
            yield ablation.ablation_section(summary, heading)
            return
    elif part.kind == "scores":
        scores = scores_table(folder / record["suites"][part.name], paper, part.name, problems)
        if scores is not None:
            table, order = scores
            first = next(p for p in paper.parts if p.kind == "scores")
            verdicts = ablation.verdicts_of(record["statements"]) if part == first else []
            lead = ". ".join(filter(None, [page.shown_tally(verdicts), order]))
            yield section(heading, None, table, lead=lead, caption=table.title, verdicts=verdicts)
            return
    elif part.kind == "trajectory":
        trajectories = _tried(folder / TRAJECTORIES, read_trajectories, problems)
        if trajectories is not None:
            ends = {name: points[-1] for name, points in trajectories.items()}
            shown = "; ".join(f"{name} {p['alignment']:.2f} and {p['uniformity']:.2f}" for name, p in ends.items())
            yield section(
                heading, plots.plot_trajectory(trajectories), lead=f"Alignment and uniformity at the end: {shown}"
            )
            return
    elif part.kind == "geometry":
        analyses, damaged = geometry.read_analyses(folder / "analysis")
        problems += damaged
        if analyses:
            yield geometry.geometry_section(heading, analyses, plots.plot_scatter(analyses))
            yield section(f"{number}: Cosines by gold score", plots.plot_densities(analyses))
            return
    state = "not run yet" if len(problems) == before else "its file cannot be read"
    yield section(heading, None, Table(state, [part.title], []))


def _summaries(folder: Path, record: Reproduced, problems: list[str]) -> Iterator[Summary]:
    """Of the ablations that are there."""
    for part in PAPERS[record["paper"]].parts:
        if part.kind == "ablation":
            summary = _tried(_summary_path(folder, record, part), read_summary, problems)
            if summary is not None:
                yield summary


def _summary_path(folder: Path, record: Reproduced, part: Part) -> Path:
    return folder / "ablations" / f"{part.name}-{record['preset']}" / SUMMARY


def _tried(path: Path, read: Callable[[Path], T], problems: list[str]) -> T | None:
    """What is read from a file; None where there is none, or it is damaged: its problems are added."""
    try:
        return read(path) if path.exists() else None
    except UserError as error:
        problems += error.problems
        return None


def scores_table(folder: Path, paper: Paper, suite: str, problems: list[str]) -> tuple[Table, str] | None:
    """A row per model of the main tables: mean ± SD over seeds of every task, and the paper's average; None: no report.

    With it in words whether the averages are in the paper's order.

    Args:
        folder: of the reports.
        paper: whose lines are shown.
        suite: sts or transfer, for the paper's numbers.
        problems: those of files that are no reports are added.
    """
    metric = _METRIC[suite]
    read = [_tried(path, Report.load, problems) for path in sorted(folder.glob("*.json"))]
    reports = [r for r in read if r is not None and all(metric in t["scores"] for t in r.tasks.values())]
    lines = {line.name: [r for r in reports if r.model["name"].partition(", seed ")[0] == line.name]
             for line in paper.lines}  # fmt: skip
    everyone = [r for own in lines.values() for r in own]
    if not everyone:
        return None
    first = everyone[0]
    others = [r.model["name"] for r in everyone if comparable(r) != comparable(first)]
    published = {row["model"]: row["avg"] for row in read_table(_PUBLISHED[suite])}
    rows = []
    averages: dict[str, tuple[float, float]] = {}  # line -> ours, the paper's
    for line in paper.lines:
        own = [r for r in lines[line.name] if comparable(r) == comparable(first)]
        if not own:
            continue
        values = [[_all(r.tasks[n]["scores"], metric) for r in own] for n in first.tasks]
        values.append([_all(r.average, metric) for r in own if r.average and metric in r.average])
        name = (line.published or {}).get(suite)
        if name and values[-1]:
            averages[line.name] = (statistics.mean(values[-1]), float(published[name]))
        shown = [shown_spread(*spread(v)) for v in (values if len(first.tasks) > 1 else values[:-1])]
        rows.append([line.name, str(len(own)) if line.trained else MISSING, *shown,
                     published[name] if name else MISSING])  # fmt: skip
    header = ["model", "seeds", *(task["title"] for task in first.tasks.values()), *["Avg."] * (len(first.tasks) > 1),
              "paper's Avg., BERT-base"]  # fmt: skip
    what = "Spearman ×100" if suite == "sts" else "accuracy ×100"
    notes = ["Mean ± standard deviation over seeds. Intervals of every score stand in the reports beside this page."]
    notes += [f"Left out, for other data or another protocol: {', '.join(others)}."] if others else []
    return Table(f"{what}, {first.suite}", header, rows, notes), _shown_order(averages)


def _shown_order(averages: Mapping[str, tuple[float, float]]) -> str:
    """Whether averages here are in the paper's order, in words; nothing of fewer than two."""
    ours, theirs = (sorted(averages, key=lambda n: -averages[n][i]) for i in (0, 1))
    if len(averages) < 2:
        return ""
    order = " > ".join(ours)
    return (
        f"Averages in the paper's order: {order}"
        if ours == theirs
        else (f"Averages not in the paper's order: {order}; in the paper {' > '.join(theirs)}")
    )


def _all(scores: Mapping[str, Any], metric: str) -> float:
    return float(scores[metric]["all"]["value"])


def statements_table(folder: Path, record: Reproduced, problems: list[str]) -> Table:
    """The verdict on every statement of the paper: of the main table, then of the ablations.

    ``problems``: those of damaged summaries are added.
    """
    trained = ablation.shown_training("see the table", "the recipes' text", [record["seeds"]])
    main = [ablation.statement_row("Main table", finding, trained) for finding in record["statements"]]
    summaries = list(_summaries(folder, record, problems))
    return ablation.findings_table(summaries, main, record["preset"] == "mini")


def _times(record: Reproduced) -> Table:
    rows = [[what, f"{seconds / 60:.1f}"] for what, seconds in record["seconds"].items()]
    rows.append(["together", f"{sum(record['seconds'].values()) / 60:.1f}"])
    return Table("minutes taken", ["step", "minutes"], rows)


def _provenance(record: Reproduced) -> dict[str, str]:
    return {
        "preset": f"{record['preset']}, {record['seeds']} seed(s)",
        "suites": ", ".join(record["suites"].values()),
        **machine_facts(record["environment"]),
        "created": record["created"],
    }
