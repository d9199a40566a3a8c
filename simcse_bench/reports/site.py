"""A results folder drawn anew or checked, and its index.html: leaderboards, ablations, analyses, pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from simcse_bench import bundled
from simcse_bench.data.task import AGGREGATES, METRICS
from simcse_bench.errors import UserError, first_line
from simcse_bench.files import fingerprint
from simcse_bench.reports import (
    ablation,
    geometry,
    mteb,
    page,
    panels,
    reproduction,
    robustness,
    scores,
    speed,
    standings,
)
from simcse_bench.reports.ablation import Summary
from simcse_bench.reports.again import reproduce_command
from simcse_bench.reports.geometry import Analysis
from simcse_bench.reports.overlap import FOLDER as OVERLAPS
from simcse_bench.reports.overlap import contaminated, draw_overlap, read_overlaps
from simcse_bench.reports.pair_records import load_worst
from simcse_bench.reports.report import Report
from simcse_bench.reports.reproduction import Reproduced
from simcse_bench.reports.robustness import Robustness
from simcse_bench.reports.standings import Saved
from simcse_bench.reports.table import Table, machine_facts, to_markdown

T = TypeVar("T")
_UNDRAWABLE = (ValueError, ArithmeticError, LookupError)  # numbers that matplotlib has no axis for


@dataclasses.dataclass(frozen=True)
class Results:
    """What the site is drawn from; places are folders below the results folder."""

    reports: Sequence[Saved]
    sweeps: Mapping[str, Summary]  # place -> its summary
    analyses: Mapping[str, Sequence[Analysis]]  # place -> the models analysed there
    reproductions: Mapping[str, Reproduced]  # place -> its record
    mteb_boards: Sequence[Table] = ()  # of mteb's own tasks, from ``mteb.mteb_leaderboards``
    robustness: Sequence[Robustness] = ()  # of the models there

    def reproduction_of(self, place: str) -> str:
        """The reproduction that a place lies in, or ""."""
        return next((r for r in self.reproductions if place.startswith(f"{r}/")), "")

    def command_of(self, place: str) -> str:
        """The command of the reproduction that a place lies in, or ""."""
        whole = self.reproduction_of(place)
        return reproduce_command(self.reproductions[whole]) if whole else ""


def draw_site(results: Results) -> bytes:
    """The page."""
    boards = standings.boards([dataclasses.replace(s, part_of=results.command_of(s.place)) for s in results.reports])
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
        mteb=[page.section(t.title, None, t) for t in results.mteb_boards],
        made={
            panel["id"]: panel["made"]
            for panel in (*sweeps.values(), *shapes, *([changed] if changed else []), *papers)
        },
        notes={"encoder": bundled.ENCODER, "data": bundled.DATA},
        source=fingerprint(_drawn_from(results)),
        metrics=METRICS,
        aggregates=AGGREGATES,
        languages=sorted({b["language"] for b in boards}),
        protocols=sorted({b["protocol"] for b in boards}) + ["mteb's own"] * bool(results.mteb_boards),
    )


def _drawn_from(results: Results) -> dict[str, Any]:
    """For the page's fingerprint, which stays where nothing of a later kind is there."""
    content = dataclasses.asdict(results)
    if not content["robustness"]:
        del content["robustness"]
    return content


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
    overlaps = read_overlaps(results, problems)
    for path, record in overlaps.items():
        texts |= draw_overlap(record, path)
    searched = list(overlaps.values())
    for name, group in groups.items():
        texts |= scores.draw_leaderboards(results / name, scores.leaderboards(group, overlaps=searched))
    worst = dict(_tried(reports, lambda path: load_worst(path, reports[path]), problems))
    saved = [
        Saved(_place(path, results), r, worst.get(path, {}), seen=contaminated(r, searched))
        for path, r in reports.items()
    ]
    boards_of_mteb = []
    for folder in sorted({p.parent for p in results.rglob(f"{mteb.FOLDER}/*.json")}):
        drawn, boards, damaged = mteb.draw_mteb_folder(folder)
        texts |= drawn
        boards_of_mteb += boards
        problems += damaged
    speeds = sorted(results.glob("speed/*.json"))
    for path, table in _tried(speeds, lambda p: speed.speed_table(speed.read_speed(p)), problems):
        texts[path.with_suffix(".md")] = to_markdown(table)
    files = {path: text.encode() for path, text in texts.items()}
    reproduced = {path.parent for path in results.rglob(reproduction.REPRODUCTION_RECORD)}
    sweeps: dict[Path, Summary] = {}
    paths = sorted(results.rglob(f"ablations/*/{ablation.SUMMARY}"))
    for path, sweep in _tried(paths, lambda path: ablation.draw_ablation(path.parent), problems):
        files |= sweep
        sweeps[path.parent] = ablation.read_summary(path)
    own = [folder for folder in sweeps if not reproduced & set(folder.parents)]  # a reproduction has its own page
    for parent in dict.fromkeys(folder.parent for folder in own):
        statements = ablation.findings_table([sweeps[folder] for folder in own if folder.parent == parent])
        if statements.rows:
            files[parent / "findings.md"] = to_markdown(statements).encode()
    analyses, damaged = geometry.read_analyses(results / "analysis")
    problems += damaged
    if analyses:
        files |= geometry.draw_geometry(results / "analysis", analyses)
    analysed = {"analysis": analyses}
    changed, damaged = robustness.read_all_robustness(results / robustness.FOLDER)
    problems += damaged
    if changed:
        files |= robustness.draw_robustness(results / robustness.FOLDER, changed)
    records: dict[str, Reproduced] = {}
    for folder, paper in _tried(
        sorted(reproduced), lambda folder: reproduction.draw_reproduction(folder, problems), problems
    ):
        files |= paper
        records[_place(folder, results)] = reproduction.read_reproduction(folder / reproduction.REPRODUCTION_RECORD)
        analysed[_place(folder / "analysis", results)] = geometry.read_analyses(folder / "analysis")[0]
    places = {_place(folder, results): summary for folder, summary in sweeps.items()}
    files[results / "index.html"] = draw_site(Results(saved, places, analysed, records, boards_of_mteb, changed))
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
    overlaps = list(read_overlaps(results, problems).values())
    boards = {folder: scores.leaderboards(group, metric, aggregate, overlaps) for folder, group in groups.items()}
    return boards, problems


def read_reports(results: Path, problems: list[str]) -> dict[Path, Report]:
    """The whole reports below a folder."""

    # what else is saved: benchmarks, analyses, ablations, mteb, searches of training text and reproductions
    others = {"speed", "analysis", robustness.FOLDER, "ablations", mteb.FOLDER, OVERLAPS}
    names = {reproduction.REPRODUCTION_RECORD, reproduction.TRAJECTORIES}
    paths = [
        path
        for path in sorted(results.rglob("*.json"))
        if path.name not in names and not others & set(path.relative_to(results).parts[:-1])
    ]
    return dict(_tried(paths, Report.load, problems))


def _place(path: Path, results: Path) -> str:
    return path.relative_to(results).as_posix()


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
