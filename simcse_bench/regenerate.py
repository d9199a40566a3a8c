"""Draw the tables of a results folder from its JSON reports; or check that they are up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from simcse_bench import analysis_pages, mteb_report, pages, render, reproduction_pages, tables, website
from simcse_bench.errors import UserError
from simcse_bench.report import Report, load_worst, write_bytes, write_text
from simcse_bench.weights import read_json

T = TypeVar("T")
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
    found = _read_reports(results, problems)
    files: dict[Path, bytes] = {}
    for path, report in found.items():
        files |= {file: text.encode() for file, text in drawn(report, path).items()}
    groups = _by_folder(results, found)
    for folder, boards in ((results / name, [tables.leaderboard(g) for g in group]) for name, group in groups.items()):
        files[folder / "leaderboard.md"] = "\n".join(map(render.markdown, boards)).encode()
        rows = [{"protocol": b.title, **dict(zip(b.header, row, strict=True))} for b in boards for row in b.rows]
        files[folder / "leaderboard.csv"] = render.csv_text(rows).encode()
    worst = dict(_tried(found, lambda path: load_worst(path, found[path]), "a report's pairs", problems))
    boards_of_mteb = []
    for folder in sorted({p.parent for p in results.rglob(f"{mteb_report.FOLDER}/*.json")}):
        texts, boards, damaged = mteb_report.drawn_folder(folder)
        files |= {file: text.encode() for file, text in texts.items()}
        boards_of_mteb += boards
        problems += damaged
    for path, table in _tried(sorted(results.glob("speed/*.json")), _speed, "a benchmark's figures", problems):
        files[path.with_suffix(".md")] = render.markdown(table).encode()
    summaries = []
    reproduced = {path.parent for path in results.rglob(reproduction_pages.RECORD)}
    paths = sorted(results.rglob(f"ablations/*/{pages.SUMMARY}"))
    for path, sweep in _tried(paths, lambda path: pages.drawn(path.parent), "a sweep's summary", problems):
        files |= sweep
        summaries += [path] * (not reproduced & set(path.parents))  # a reproduction has its own page
    for folder in dict.fromkeys(path.parent.parent for path in summaries):
        statements = pages.findings_table([pages.read_summary(p) for p in summaries if p.parent.parent == folder])
        if statements.rows:
            files[folder / "findings.md"] = render.markdown(statements).encode()
    analyses, damaged = analysis_pages.read_analyses(results / "analysis")
    problems += damaged
    if analyses:
        files |= analysis_pages.drawn(results / "analysis", analyses)
    papers = []
    for folder, paper in _tried(sorted(reproduced), reproduction_pages.drawn, "a reproduction", problems):
        files |= paper
        papers.append(folder.relative_to(results).as_posix())
    pairs = {found[path].key: tasks for path, tasks in worst.items() if tasks}
    shown = {"/".join(p for p in s.parent.relative_to(results).parts if p != "ablations"): s for s in summaries}
    files[results / "index.html"] = website.drawn(groups, pairs, shown, analyses, papers, boards_of_mteb)
    for path, content in files.items():
        if not check:
            write_bytes(path, content)
        elif pages.stale(path, content):
            problems.append(f"{path} is stale: run `simcse-bench report {results}`.")
    if problems:
        raise UserError(*problems)
    return list(files)


def leaderboards(results: Path) -> tuple[dict[str, list[list[Report]]], list[str]]:
    """Folder -> groups of reports that share a leaderboard, and the problems of the files that are no reports."""
    problems: list[str] = []
    return _by_folder(results, _read_reports(results, problems)), problems


def _read_reports(results: Path, problems: list[str]) -> dict[Path, Report]:
    """The whole reports below a folder."""

    def read(path: Path) -> Report:
        report = Report.load(path)
        drawn(report, path)  # one of another form fails here
        return report

    return dict(_tried(_report_files(results), read, "a whole report", problems))


def _by_folder(results: Path, reports: Mapping[Path, Report]) -> dict[str, list[list[Report]]]:
    below = {path.parent.relative_to(results) for path in reports}
    folders = sorted(below, key=lambda f: (len(f.parts), f))  # the results folder's own first
    return {str(f): grouped([r for p, r in reports.items() if p.parent == results / f]) for f in folders}


def _tried(
    paths: Iterable[Path], read: Callable[[Path], T], what: str, problems: list[str]
) -> Iterator[tuple[Path, T]]:
    """What is read from each file; the others are added to the problems."""
    for path in paths:
        try:
            found = read(path)
        except UserError as error:
            problems += error.problems
        except _FOREIGN as error:
            problems.append(f"{path}: not {what} ({error!r}).")
        else:
            yield path, found


def _speed(path: Path) -> render.Table:
    return tables.speed_table(read_json(path))


def _report_files(results: Path) -> list[Path]:
    """JSON that should be reports: not that of benchmarks, analyses, ablations, mteb and reproductions."""
    others = {"speed", "analysis", "ablations", mteb_report.FOLDER}
    names = {reproduction_pages.RECORD, reproduction_pages.TRAJECTORIES}
    return [
        path
        for path in sorted(results.rglob("*.json"))
        if path.name not in names and not others & set(path.relative_to(results).parts[:-1])
    ]


def grouped(reports: Sequence[Report]) -> list[list[Report]]:
    """Reports that share a leaderboard: by protocol, split, probe and tasks; other numbers never share a column."""
    groups: dict[tuple[object, ...], list[Report]] = {}
    for report in reports:
        p = report.protocol
        key = (p["name"] != "simcse", p["name"], p["split"] != "test", p["split"], p.get("probe", ""), *report.tasks)
        groups.setdefault(key, []).append(report)
    return [groups[key] for key in sorted(groups)]
