"""Draw the tables of a results folder from its JSON reports; or check that they are up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simcse_bench import analysis_pages, pages, render, reproduction_pages, tables, website
from simcse_bench.errors import UserError
from simcse_bench.report import Report, load_worst, write_bytes, write_text
from simcse_bench.weights import read_json

_FOREIGN = (KeyError, TypeError, AttributeError, ValueError, IndexError)  # JSON of another form


def write_tables(report: Report, path: Path) -> None:
    """The Markdown page and the CSV beside a report's JSON."""
    for file, text in drawn(report, path).items():
        write_text(file, text)


def drawn(report: Report, path: Path) -> dict[Path, str]:
    """File -> content of all that is drawn from one report."""
    return {
        path.with_name(path.stem + ".md"): tables.report_markdown(report, "spearman", "all"),
        path.with_name(path.stem + ".csv"): render.csv_text(tables.long_rows(report)),
    }


def regenerate(results: Path, check: bool = False) -> list[Path]:
    """Write (or with ``check`` compare) every table, plot and page below ``results``, and the site ``index.html``.

    Raises:
        UserError: damaged reports (the others are still written), or with ``check`` the stale files.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; expected one with reports such as results/sts/<model>.json.")
    problems: list[str] = []
    wanted: dict[Path, str] = {}
    groups: dict[str, list[list[Report]]] = {}
    worst: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for folder, paths in _reports(results).items():
        reports = []
        for path in paths:
            try:
                report = Report.load(path)
                wanted |= drawn(report, path)
                if pairs := load_worst(path, report):
                    worst[report.key] = pairs
            except UserError as error:
                problems += error.problems
            except _FOREIGN as error:
                problems.append(f"{path}: not a whole report ({error!r}).")
            else:
                reports.append(report)
        if reports:
            groups[str(folder.relative_to(results))] = found = grouped(reports)
            boards = [tables.leaderboard(group) for group in found]
            wanted[folder / "leaderboard.md"] = "\n".join(map(render.markdown, boards))
            rows = [{"protocol": b.title, **dict(zip(b.header, row, strict=True))} for b in boards for row in b.rows]
            wanted[folder / "leaderboard.csv"] = render.csv_text(rows)
    for path in sorted(results.glob("speed/*.json")):
        try:
            wanted[path.with_suffix(".md")] = render.markdown(tables.speed_table(read_json(path)))
        except UserError as error:
            problems += error.problems
        except _FOREIGN as error:
            problems.append(f"{path}: not a benchmark's figures ({error!r}).")
    files = {path: text.encode() for path, text in wanted.items()}
    summaries = []
    for summary in sorted(results.rglob(f"ablations/*/{pages.SUMMARY}")):
        try:
            files |= pages.drawn(summary.parent)
        except UserError as error:
            problems += error.problems
        except _FOREIGN as error:
            problems.append(f"{summary}: not a sweep's summary ({error!r}).")
        else:
            summaries += [summary] * (summary.parent.parent.parent == results)  # a reproduction has its own page
    if any(pages.read_summary(path)["findings"] for path in summaries):
        statements = pages.findings_table([pages.read_summary(path) for path in summaries])
        files[results / "ablations" / "findings.md"] = render.markdown(statements).encode()
    analyses, damaged = analysis_pages.read_analyses(results / "analysis")
    problems += damaged
    if analyses:
        files |= analysis_pages.drawn(results / "analysis", analyses)
    reproductions = sorted(results.glob(f"*/{reproduction_pages.RECORD}"))
    for path in reproductions:
        try:
            files |= reproduction_pages.drawn(path.parent)
        except UserError as error:
            problems += error.problems
        except _FOREIGN as error:
            problems.append(f"{path}: not a reproduction's record ({error!r}).")
    files[results / "index.html"] = website.drawn(
        groups, worst, summaries, analyses, [path.parent.name for path in reproductions]
    )
    for path, content in files.items():
        if not check:
            write_bytes(path, content)
        elif pages.stale(path, content):
            problems.append(f"{path} is stale: run `simcse-bench report {results}`.")
    if problems:
        raise UserError(*problems)
    return list(files)


def _reports(results: Path) -> dict[Path, list[Path]]:
    """Folder -> its files that should be reports."""
    others = {"speed", "analysis", "ablations"}
    names = {reproduction_pages.RECORD, reproduction_pages.TRAJECTORIES}
    found: dict[Path, list[Path]] = {}
    for path in sorted(results.rglob("*.json")):
        if path.name not in names and not others & set(path.relative_to(results).parts[:-1]):
            found.setdefault(path.parent, []).append(path)
    return found


def grouped(reports: Sequence[Report]) -> list[list[Report]]:
    """Reports that share a leaderboard: by protocol, split, probe and tasks; other numbers never share a column."""
    groups: dict[tuple[object, ...], list[Report]] = {}
    for report in reports:
        p = report.protocol
        key = (p["name"] != "simcse", p["name"], p["split"] != "test", p["split"], p.get("probe", ""), *report.tasks)
        groups.setdefault(key, []).append(report)
    return [groups[key] for key in sorted(groups)]
