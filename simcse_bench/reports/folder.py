"""A results folder read whole: what its tables, its page and the pages of its models are drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from simcse_bench.errors import UserError, first_line
from simcse_bench.reports import geometry, mteb, overlap, reproduction, robustness
from simcse_bench.reports.again import reproduce_command
from simcse_bench.reports.geometry import Analysis
from simcse_bench.reports.mteb import MtebReport
from simcse_bench.reports.overlap import Overlap
from simcse_bench.reports.report import NOT_REPORTS, Provenance, Report
from simcse_bench.reports.reproduction import Reproduced
from simcse_bench.reports.robustness import Robustness
from simcse_bench.reports.speed import Speed, read_speed
from simcse_bench.reports.standings import Saved
from simcse_bench.reports.summary import SUMMARY, Summary, read_summary

T = TypeVar("T")
_UNDRAWABLE = (ValueError, ArithmeticError, LookupError)  # numbers that matplotlib has no axis for


@dataclass(frozen=True)
class Results:
    """What is saved below a results folder; a place is a path below it."""

    reports: Sequence[Saved] = ()
    sweeps: Mapping[str, Summary] = field(default_factory=dict)  # place of a sweep's folder -> its summary
    analyses: Mapping[str, Sequence[Analysis]] = field(default_factory=dict)  # place of a folder -> those in it
    reproductions: Mapping[str, Reproduced] = field(default_factory=dict)  # place of a folder -> its record
    mteb: Mapping[str, MtebReport] = field(default_factory=dict)  # place -> a report of mteb's own tasks
    robustness: Sequence[Robustness] = ()
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)  # place -> what was found in a training text
    speeds: Mapping[str, Speed] = field(default_factory=dict)  # place -> a benchmark's figures

    def models(self) -> list[Provenance]:
        """The model of every result, as that says it."""
        return [
            *(s.report.model for s in self.reports),
            *(one["model"] for group in self.analyses.values() for one in group),
            *(one["model"] for one in self.robustness),
            *(report.model for report in self.mteb.values()),
        ]

    def reproduction_of(self, place: str) -> str:
        """The reproduction that a place lies in, or ""."""
        return next((r for r in self.reproductions if place.startswith(f"{r}/")), "")

    def command_of(self, place: str) -> str:
        """The command of the reproduction that a place lies in, or ""."""
        whole = self.reproduction_of(place)
        return reproduce_command(self.reproductions[whole]) if whole else ""

    def saved(self) -> list[Saved]:
        """The reports, each with the command of the reproduction that it is part of."""
        return [dataclasses.replace(s, part_of=self.command_of(s.place)) for s in self.reports]


def read_folder(folder: Path) -> tuple[Results, list[str]]:
    """Everything below a results folder, and the problems of the files that cannot be read.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with reports such as results/sts/<model>.json.")
    problems: list[str] = []

    def read_all(paths: Iterable[Path], read: Callable[[Path], T]) -> dict[str, T]:
        return {place_of(path, folder): content for path, content in tried(sorted(paths), read, problems)}

    reports = read_reports(folder, problems)
    overlaps = overlap.read_overlaps(folder, problems)
    searched = list(overlaps.values())
    records = read_all(folder.rglob(reproduction.REPRODUCTION_RECORD), reproduction.read_reproduction)
    sweeps = read_all(folder.rglob(f"ablations/*/{SUMMARY}"), read_summary)
    analyses, damaged = geometry.read_analyses(folder / "analysis")
    changed, also_damaged = robustness.read_all_robustness(folder / robustness.FOLDER)
    problems += [*damaged, *also_damaged]
    reproductions = {place.rpartition("/")[0]: record for place, record in records.items()}
    # the page of a reproduction tells of the damaged analyses in it
    parts = {f"{r}/analysis": geometry.read_analyses(folder / r / "analysis")[0] for r in reproductions}
    results = Results(
        [
            Saved(place_of(path, folder), report, seen=overlap.contaminated(report, searched))
            for path, report in reports.items()
        ],
        {place.rpartition("/")[0]: summary for place, summary in sweeps.items()},
        {"analysis": analyses} | parts,
        reproductions,
        read_all(folder.rglob(f"{mteb.FOLDER}/*.json"), MtebReport.load),
        changed,
        {place_of(path, folder): record for path, record in overlaps.items()},
        read_all(folder.glob("speed/*.json"), read_speed),
    )
    return results, problems


def read_reports(folder: Path, problems: list[str]) -> dict[Path, Report]:
    """The whole reports below a folder."""
    names = {reproduction.REPRODUCTION_RECORD, reproduction.TRAJECTORIES}
    paths = [
        path
        for path in sorted(folder.rglob("*.json"))
        if path.name not in names and not NOT_REPORTS & set(path.relative_to(folder).parts[:-1])
    ]
    return dict(tried(paths, Report.load, problems))


def place_of(path: Path, folder: Path) -> str:
    """Where a file lies below the results folder."""
    return path.relative_to(folder).as_posix()


def tried(paths: Iterable[Path], read: Callable[[Path], T], problems: list[str]) -> Iterator[tuple[Path, T]]:
    """What is read, or drawn, from each file; the problems of the others are added."""
    for path in paths:
        try:
            content = read(path)
        except UserError as error:
            problems += error.problems
        except _UNDRAWABLE as error:
            problems.append(f"{path}: cannot be drawn ({first_line(error)}). Move it away or make it anew.")
        else:
            yield path, content
