"""Draw the tables of a results folder from its JSON reports; or check that they are up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simcse_bench import render, tables
from simcse_bench.errors import UserError
from simcse_bench.report import Report, write_text
from simcse_bench.weights import read_json


def write_tables(report: Report, path: Path, metric: str = "spearman", aggregate: str = "all") -> None:
    """The Markdown page and the CSV beside a report's JSON."""
    for file, text in drawn(report, path, metric, aggregate).items():
        write_text(file, text)


def drawn(report: Report, path: Path, metric: str = "spearman", aggregate: str = "all") -> dict[Path, str]:
    """File -> content of all that is drawn from one report."""
    return {
        path.with_name(path.stem + ".md"): tables.report_markdown(report, metric, aggregate),
        path.with_name(path.stem + ".csv"): render.csv_text(tables.long_rows(report)),
    }


def regenerate(results: Path, check: bool = False) -> list[Path]:
    """Write (or with ``check`` compare) every table below ``results``, and a leaderboard per suite.

    Raises:
        UserError: damaged reports (the others are still written), or with ``check`` the stale files.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; expected one with reports such as results/sts/<model>.json.")
    problems: list[str] = []
    wanted: dict[Path, str] = {}
    for folder in sorted({p.parent for p in results.rglob("*.json") if p.parent.name != "speed"}):
        reports = []
        for path in sorted(folder.glob("*.json")):
            try:
                reports.append(Report.load(path))
            except UserError as error:
                problems += error.problems
                continue
            wanted |= drawn(reports[-1], path)
        if reports:
            boards = leaderboards(reports)
            wanted[folder / "leaderboard.md"] = "\n".join(map(render.markdown, boards))
            rows = [{"protocol": b.title, **dict(zip(b.header, row, strict=True))} for b in boards for row in b.rows]
            wanted[folder / "leaderboard.csv"] = render.csv_text(rows)
    for path in sorted(results.glob("speed/*.json")):
        wanted[path.with_suffix(".md")] = render.markdown(tables.speed_table(read_json(path)))
    for path, text in wanted.items():
        if not check:
            write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path} is stale: run `simcse-bench report {results}`.")
    if problems:
        raise UserError(*problems)
    return list(wanted)


def leaderboards(reports: Sequence[Report]) -> list[render.Table]:
    """A leaderboard per protocol, split, probe and set of tasks: other numbers never share a column."""
    groups: dict[tuple[object, ...], list[Report]] = {}
    for report in reports:
        p = report.protocol
        key = (p["name"] != "simcse", p["name"], p["split"] != "test", p["split"], p.get("probe", ""), *report.tasks)
        groups.setdefault(key, []).append(report)
    return [tables.leaderboard(groups[key]) for key in sorted(groups)]
