"""A results folder drawn anew or checked, and its index.html: leaderboards, ablations and geometry on one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from simcse_bench.data.task import AGGREGATES, METRICS
from simcse_bench.errors import UserError, first_line
from simcse_bench.files import fingerprint
from simcse_bench.models.identity import marked_name, shown_files, shown_model, shown_settings, shown_usage
from simcse_bench.reports import ablation, geometry, mteb, page, plots, reproduction, scores
from simcse_bench.reports.report import Report, load_worst
from simcse_bench.reports.scores import board_title
from simcse_bench.reports.table import Table, machine_facts, to_markdown

Groups = Mapping[str, Sequence[Sequence[Report]]]  # folder -> groups of reports that share a leaderboard
Worst = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # report's key -> task -> its worst pairs
T = TypeVar("T")
_UNDRAWABLE = (ValueError, ArithmeticError, LookupError)  # numbers that matplotlib has no axis for


def draw_site(
    groups: Groups,
    worst: Worst,
    summaries: Mapping[str, Path],
    analyses: Sequence[geometry.Analysis],
    reproductions: Sequence[str] = (),
    mteb_boards: Sequence[Table] = (),
) -> bytes:
    """The page.

    Args:
        groups: see ``Groups``.
        worst: of the reports that have their pairs beside them.
        summaries: name -> summary.json of the ablations.
        analyses: from ``geometry.read_analyses``.
        reproductions: folders that have a page of their own, to link to.
        mteb_boards: leaderboards of mteb's own tasks, from ``mteb.mteb_leaderboards``.
    """
    boards = [
        board(f"board{i}-{j}", folder, reports, worst, mark)
        for i, (folder, group) in enumerate(groups.items())
        for j, (reports, mark) in enumerate(zip(group, scores.group_marks(group), strict=True))
    ]
    ablations = [_ablation(name, path) for name, path in summaries.items()]
    findings = ablation.findings_table([ablation.read_summary(path) for path in summaries.values()])
    shapes = []
    if analyses:
        scatter = plots.plot_scatter(geometry.own_names(analyses)) if len(analyses) > 1 else None
        shapes = [page.section("", scatter, geometry.geometry_table(analyses))]
    drawn_from = [boards, [p.read_text("utf-8") for p in summaries.values()], analyses, list(reproductions)]
    return page.render_template(
        "site.html",
        boards=boards,
        findings=[page.section("", None, findings)] if findings.rows else [],
        ablations=ablations,
        geometry=shapes,
        reproductions=reproductions,
        mteb=[page.section(t.title, None, t) for t in mteb_boards],
        source=fingerprint([*drawn_from, *(dataclasses.asdict(t) for t in mteb_boards)]),
        metrics=METRICS,
        aggregates=AGGREGATES,
    )


def board(ident: str, folder: str, reports: Sequence[Report], worst: Worst, mark: str = "") -> dict[str, Any]:
    """A leaderboard as data for the page's script: every metric, aggregation, subset, provenance and worst pair.

    ``mark``: from ``scores.group_marks``, for the title.
    """
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}
    kinds = {t.get("kind", "sts") for r in reports for t in r.tasks.values()}
    return {
        "id": ident,
        "title": f"{folder}: {board_title(reports)}{mark}",
        "sts": "sts" in kinds,
        "tasks": [{"name": n, "title": titles.get(n, n)} for n in names],
        "rows": [_row(r) | {"worst": worst.get(r.key, {})} for r in reports],
        "worst": any(r.key in worst for r in reports),
    }


def _row(report: Report) -> dict[str, Any]:
    model = report.model
    dtype = str(model.get("dtype", "float32"))
    settings = shown_usage(model) + f", {dtype}" * (dtype != "float32")
    return {
        "model": marked_name(model),
        "settings": settings + f", first {report.limit}" * bool(report.limit),
        "scores": {n: t["scores"] for n, t in report.tasks.items()},
        "subsets": {n: t["subsets"] for n, t in report.tasks.items() if len(t.get("subsets") or {}) > 1},
        "average": report.average,
        "provenance": {
            "model": shown_model(model),
            "pooling, head": shown_settings(model),
            "weights": shown_files(model),
            "protocol": f"{report.protocol['name']}, {report.protocol['split']}",
            **machine_facts(report.environment),
            "created": report.created,
            "evaluation": report.key,
        },
        "data": {n: f"{t['n']} rows, {t['data']['fingerprint']}" for n, t in report.tasks.items()},
    }


def _ablation(name: str, path: Path) -> dict[str, Any]:
    summary = ablation.read_summary(path)
    arms = ablation.ablation_table(summary)
    return {
        "id": name.replace("/", "-"), "name": name, "title": summary["title"], "subtitle": arms.title,
        "reference": summary["reference"], "section": page.section("", ablation.ablation_plot(summary), arms),
        "provenance": ablation.ablation_provenance(summary),
    }  # fmt: skip


def regenerate(results: Path, check: bool = False) -> list[Path]:
    """Write (or with ``check`` compare) every table, plot and page below ``results``, and the site ``index.html``.

    Raises:
        UserError: damaged reports (the others are still written), or with ``check`` the stale files.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; expected one with reports such as results/sts/<model>.json.")
    problems: list[str] = []
    reports = read_reports(results, problems)
    texts: dict[Path, str] = {}
    for path, report in reports.items():
        texts |= scores.draw_report(report, path)
    groups = _by_folder(results, reports)
    for name, group in groups.items():
        texts |= scores.draw_leaderboards(results / name, scores.leaderboards(group))
    worst = dict(_tried(reports, lambda path: load_worst(path, reports[path]), problems))
    boards_of_mteb = []
    for folder in sorted({p.parent for p in results.rglob(f"{mteb.FOLDER}/*.json")}):
        drawn, boards, damaged = mteb.draw_mteb_folder(folder)
        texts |= drawn
        boards_of_mteb += boards
        problems += damaged
    speeds = sorted(results.glob("speed/*.json"))
    for path, table in _tried(speeds, lambda p: scores.speed_table(scores.read_speed(p)), problems):
        texts[path.with_suffix(".md")] = to_markdown(table)
    files = {path: text.encode() for path, text in texts.items()}
    summaries = []
    reproduced = {path.parent for path in results.rglob(reproduction.REPRODUCTION_RECORD)}
    paths = sorted(results.rglob(f"ablations/*/{ablation.SUMMARY}"))
    for path, sweep in _tried(paths, lambda path: ablation.draw_ablation(path.parent), problems):
        files |= sweep
        summaries += [path] * (not reproduced & set(path.parents))  # a reproduction has its own page
    for folder in dict.fromkeys(path.parent.parent for path in summaries):
        statements = ablation.findings_table([ablation.read_summary(p) for p in summaries if p.parent.parent == folder])
        if statements.rows:
            files[folder / "findings.md"] = to_markdown(statements).encode()
    analyses, damaged = geometry.read_analyses(results / "analysis")
    problems += damaged
    if analyses:
        files |= geometry.draw_geometry(results / "analysis", analyses)
    papers = []
    for folder, paper in _tried(
        sorted(reproduced), lambda folder: reproduction.draw_reproduction(folder, problems), problems
    ):
        files |= paper
        papers.append(folder.relative_to(results).as_posix())
    pairs = {reports[path].key: tasks for path, tasks in worst.items() if tasks}
    shown = {"/".join(p for p in s.parent.relative_to(results).parts if p != "ablations"): s for s in summaries}
    files[results / "index.html"] = draw_site(groups, pairs, shown, analyses, papers, boards_of_mteb)
    for path, content in files.items():
        try:
            if not check:
                page.write_drawn(path, content)
            elif page.stale(path, content):
                problems.append(f"{path} is stale: run `simcse-bench report {results}`.")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return list(files)


def read_leaderboards(
    results: Path, metric: str = "spearman", aggregate: str = "all"
) -> tuple[dict[str, list[Table]], list[str]]:
    """Folder -> its leaderboards, and the problems of the files that are no reports."""
    problems: list[str] = []
    groups = _by_folder(results, read_reports(results, problems))
    boards = {folder: scores.leaderboards(group, metric, aggregate) for folder, group in groups.items()}
    return boards, problems


def read_reports(results: Path, problems: list[str]) -> dict[Path, Report]:
    """The whole reports below a folder."""

    # what else is saved: benchmarks, analyses, ablations, mteb and reproductions
    others = {"speed", "analysis", "ablations", mteb.FOLDER}
    names = {reproduction.REPRODUCTION_RECORD, reproduction.TRAJECTORIES}
    paths = [
        path
        for path in sorted(results.rglob("*.json"))
        if path.name not in names and not others & set(path.relative_to(results).parts[:-1])
    ]
    return dict(_tried(paths, Report.load, problems))


def _by_folder(results: Path, reports: Mapping[Path, Report]) -> dict[str, list[list[Report]]]:
    below = {path.parent.relative_to(results) for path in reports}
    folders = sorted(below, key=lambda f: (len(f.parts), f))  # the results folder's own first
    return {str(f): scores.grouped([r for p, r in reports.items() if p.parent == results / f]) for f in folders}


def _tried(paths: Iterable[Path], read: Callable[[Path], T], problems: list[str]) -> Iterator[tuple[Path, T]]:
    """What is read from each file; the others are added to the problems."""
    for path in paths:
        try:
            content = read(path)
        except UserError as error:
            problems += error.problems
        except _UNDRAWABLE as error:
            problems.append(f"{path}: cannot be drawn ({first_line(error)}). Move it away or make it anew.")
        else:
            yield path, content
