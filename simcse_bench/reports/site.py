"""A results folder drawn anew or checked, and its index.html: leaderboards, ablations, analyses, pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from simcse_bench import bundled
from simcse_bench.data.task import AGGREGATES, METRICS
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint
from simcse_bench.reports import (
    ablation,
    geometry,
    model_page,
    mteb,
    page,
    panels,
    reproduction,
    robustness,
    scores,
    standings,
)
from simcse_bench.reports.again import reproduce_command
from simcse_bench.reports.folder import Results, place_of, read_folder, read_reports, tried
from simcse_bench.reports.overlap import draw_overlap, read_overlaps
from simcse_bench.reports.pair_records import load_worst
from simcse_bench.reports.report import Report
from simcse_bench.reports.reproduction import Reproduced
from simcse_bench.reports.speed import speed_table
from simcse_bench.reports.standings import Saved
from simcse_bench.reports.table import Table, machine_facts, to_markdown

T = TypeVar("T")


def draw_site(results: Results, pages: Mapping[str, str] | None = None) -> bytes:
    """The page.

    Args:
        results: all of it.
        pages: a model's name -> the place of its page, where there is one; leaderboards link to it.
    """
    boards = standings.boards(results.saved())
    for row in (row for board in boards for row in board["rows"]):
        row["page"] = (pages or {}).get(row["model"], "")
    by_mteb = _mteb_boards(results)
    sweeps = {
        place: panels.ablation_panel(_ident(place), place, summary, results.command_of(place))
        for place, summary in results.sweeps.items()
    }
    shapes = [
        panels.geometry_panel(_ident(place), place, analyses, results.command_of(place))
        for place, analyses in results.analyses.items()
        if analyses
    ]
    changed = panels.robustness_panel(robustness.FOLDER, results.robustness) if results.robustness else None
    papers = [_paper(place, record) for place, record in results.reproductions.items()]
    findings = _findings(results)
    return page.render_template(
        "site.html",
        boards=boards,
        pairs=_pairs(results.reports),
        statements=panels.statements(findings) if findings else None,
        sweeps=_by_source(results, sweeps),
        geometry=shapes,
        robustness=changed,
        papers=papers,
        mteb=[page.section(t.title, None, t, bundled.other_notes(t.notes)) for t in by_mteb],
        made={
            panel["id"]: panel["made"]
            for panel in (*sweeps.values(), *shapes, *([changed] if changed else []), *papers)
        },
        notes={"encoder": bundled.ENCODER, "data": bundled.DATA},
        source=fingerprint(_drawn_from(results, by_mteb, pages)),
        metrics=METRICS,
        aggregates=AGGREGATES,
        languages=sorted({b["language"] for b in boards}),
        protocols=sorted({b["protocol"] for b in boards}) + ["mteb's own"] * bool(by_mteb),
    )


def _drawn_from(results: Results, by_mteb: Sequence[Table], pages: Mapping[str, str] | None) -> dict[str, Any]:
    """For the page's fingerprint, which stays where nothing of a later kind is there."""
    whole = dataclasses.asdict(results)
    content = {kind: whole[kind] for kind in ("reports", "sweeps", "analyses", "reproductions")}
    content["mteb_boards"] = [dataclasses.asdict(table) for table in by_mteb]
    later = {"robustness": whole["robustness"], "pages": pages}
    return content | {kind: what for kind, what in later.items() if what}


def _mteb_boards(results: Results) -> list[Table]:
    """Of mteb's own tasks, folder by folder."""
    return [board for group in _below(results.mteb).values() for board in mteb.mteb_leaderboards([*group.values()])]


def _findings(results: Results) -> list[panels.Found]:
    """The paper's statements: of the reproductions' main tables, and of every sweep."""
    found: list[panels.Found] = []
    for place, summary in results.sweeps.items():
        model, train = summary["model"], summary["train"]
        if model and train:
            trained = ablation.shown_training(model["name"], train["name"], [len(a["seeds"]) for a in summary["arms"]])
            source = panels.Source(trained, model["embedded"], _ident(place))
            found += [panels.Found(source, summary["title"], f) for f in summary["findings"]]
    for place, record in results.reproductions.items():
        trained = f"reproduction, preset {record['preset']}, {record['seeds']} seed" + "s" * (record["seeds"] > 1)
        source = panels.Source(trained, record["preset"] == "mini", _ident(place))
        found += [panels.Found(source, "Main table", f) for f in record["statements"]]
    return sorted(found, key=lambda f: f.title != "Main table")


def _by_source(results: Results, sweeps: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The panels of each folder of sweeps; those of reproductions after the others, with the reproduction's place."""
    groups: dict[str, dict[str, Any]] = {}
    for place, panel in sweeps.items():
        folder = place.rpartition("/")[0]
        whole = results.reproduction_of(place)
        group = groups.setdefault(folder, {"folder": folder, "reproduction": whole, "panels": []})
        group["panels"].append(panel)
    return sorted(groups.values(), key=lambda g: (bool(g["reproduction"]), g["folder"]))


def _paper(place: str, record: Reproduced) -> dict[str, Any]:
    facts = {
        "preset": record["preset"],
        "seeds": str(record["seeds"]),
        "suites": ", ".join(record["suites"].values()),
        "time": f"{sum(record['seconds'].values()) / 60:.0f} min",
        **machine_facts(record["environment"]),
        "created": record["created"],
    }
    made = {"title": record["paper"], "facts": [*facts.items()], "command": reproduce_command(record)}
    return {"id": _ident(place), "place": place, "embedded": record["preset"] == "mini", "made": made, "record": record}


def _pairs(reports: Sequence[Saved]) -> list[dict[str, Any]]:
    """Of every report that has its pairs beside it: the worst ones, by task."""
    return [
        {
            "model": s.report.model["name"],
            "place": s.place,
            "tasks": [{"title": s.report.tasks[n]["title"], "pairs": pairs} for n, pairs in s.worst.items()],
        }
        for s in reports
        if s.worst
    ]


def _ident(place: str) -> str:
    """A place as the id of a part of the page."""
    return "-".join(part for part in place.split("/") if part != "ablations")


def regenerate(folder: Path, check: bool = False) -> list[Path]:
    """Write (or with ``check`` compare) every table, plot and page below a results folder, and the site ``index.html``.

    Raises:
        UserError: damaged reports (the others are still written), or with ``check`` the stale files.
    """
    results, problems = read_folder(folder)
    files = _draw_folder(folder, results, problems)
    for path, content in files.items():
        try:
            if not check:
                page.write_drawn(path, content)
            elif page.stale(path, content):
                problems.append(f"{path} is stale: run `simcse-bench report {folder}`.")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return list(files)


def _draw_folder(folder: Path, results: Results, problems: list[str]) -> dict[Path, bytes]:
    """File -> content of all that is drawn; the problems of what cannot be are added."""
    texts = _draw_tables(folder, results, problems)
    files = {path: text.encode() for path, text in texts.items()}
    sweeps = dict(tried((folder / place for place in results.sweeps), ablation.draw_ablation, problems))
    reproduced = {path.parent for path in folder.rglob(reproduction.REPRODUCTION_RECORD)}
    own = [path for path in sweeps if not reproduced & set(path.parents)]  # a reproduction has its own page
    for parent in dict.fromkeys(path.parent for path in own):
        summaries = [results.sweeps[place_of(path, folder)] for path in own if path.parent == parent]
        statements = ablation.findings_table(summaries)
        if statements.rows:
            files[parent / "findings.md"] = to_markdown(statements).encode()
    papers = dict(
        tried(
            (folder / place for place in results.reproductions),
            lambda path: reproduction.draw_reproduction(path, problems),
            problems,
        )
    )
    for drawn in (*sweeps.values(), *papers.values()):
        files |= drawn
    if results.analyses.get("analysis"):
        files |= geometry.draw_geometry(folder / "analysis", results.analyses["analysis"])
    if results.robustness:
        files |= robustness.draw_robustness(folder / robustness.FOLDER, results.robustness)
    pages, orphans = model_page.pages_of(folder, results)
    problems += [f"{path} is stale: no model here has this page. Remove it." for path in orphans]
    for _, drawn in tried(pages, lambda path: model_page.draw_model(folder, results, pages[path]), problems):
        files |= drawn
    reports = {folder / s.place: s.report for s in results.reports}
    worst = dict(tried(reports, lambda path: load_worst(path, reports[path]), problems))
    shown = dataclasses.replace(
        results,
        reports=[dataclasses.replace(s, worst=worst.get(folder / s.place, {})) for s in results.reports],
        sweeps={place: summary for place, summary in results.sweeps.items() if folder / place in sweeps},
        reproductions={place: record for place, record in results.reproductions.items() if folder / place in papers},
    )
    models = model_page.models_of(results)
    links = {name: place_of(path, folder) for path, model in pages.items() for name in (model, *models[model])}
    return files | {folder / "index.html": draw_site(shown, links)}


def _draw_tables(folder: Path, results: Results, problems: list[str]) -> dict[Path, str]:
    """File -> content of what is drawn from one file, and of the leaderboards."""
    texts: dict[Path, str] = {}
    for one in results.reports:
        texts |= scores.draw_report(one.report, folder / one.place)
    for place, record in results.overlaps.items():
        texts |= draw_overlap(record, folder / place)
    searched = list(results.overlaps.values())
    for name, groups in _by_folder({s.place: s.report for s in results.reports}).items():
        texts |= scores.draw_leaderboards(folder / name, scores.leaderboards(groups, overlaps=searched))
    for name, reports in _below(results.mteb).items():
        texts |= mteb.draw_mteb_folder(folder / name, {folder / place: report for place, report in reports.items()})
    speeds = {folder / place: speed for place, speed in results.speeds.items()}
    for path, table in tried(speeds, lambda path: speed_table(speeds[path]), problems):
        texts[path.with_suffix(".md")] = to_markdown(table)
    return texts


def read_leaderboards(
    results: Path, metric: str = "spearman", aggregate: str = "all"
) -> tuple[dict[str, list[Table]], list[str]]:
    """Folder -> its leaderboards, and the problems of the files that are no reports."""
    problems: list[str] = []
    reports = {place_of(path, results): report for path, report in read_reports(results, problems).items()}
    groups = _by_folder(reports)
    overlaps = list(read_overlaps(results, problems).values())
    boards = {folder: scores.leaderboards(group, metric, aggregate, overlaps) for folder, group in groups.items()}
    return boards, problems


def _by_folder(reports: Mapping[str, Report]) -> dict[str, list[list[Report]]]:
    """Folder -> the groups of its reports that share a leaderboard."""
    return {folder: scores.grouped([*below.values()]) for folder, below in _below(reports).items()}


def _below(files: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Place -> content, by folder: the results folder's own (".") first."""
    folders: dict[str, dict[str, T]] = {}
    for place, content in files.items():
        folders.setdefault(place.rpartition("/")[0] or ".", {})[place] = content
    return {name: folders[name] for name in sorted(folders, key=lambda f: (len(Path(f).parts), Path(f)))}
