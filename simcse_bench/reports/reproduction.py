"""What is drawn from a reproduction: every table and figure of the paper beside ours, on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, sha256
from simcse_bench.papers.published import read_table
from simcse_bench.papers.simcse_2021 import PAPERS, Paper, Part
from simcse_bench.reports import ablation, geometry, page, plots
from simcse_bench.reports.page import Section, section
from simcse_bench.reports.report import Report, read_fields
from simcse_bench.reports.table import MISSING, Table, machine_facts, shown_spread, spread, to_markdown

REPRODUCTION_RECORD, TRAJECTORIES = "reproduction.json", "trajectories.json"
_PUBLISHED = {"sts": "simcse_2021_table5_sts", "transfer": "simcse_2021_table_e1_transfer"}
_METRIC = {"sts": "spearman", "transfer": "accuracy"}


def read_reproduction(path: Path) -> dict[str, Any]:
    """A reproduction's record or trajectories.

    Raises:
        UserError: a damaged file.
    """
    return read_fields(path, (), "not a reproduction's file. Move it away and run the command again.")


def draw_reproduction(folder: Path) -> dict[Path, bytes]:
    """index.html and tables.md, from the record and the JSON of ablations, reports and analyses below the folder.

    Raises:
        UserError: a damaged file.
    """
    record = read_reproduction(folder / REPRODUCTION_RECORD)
    paper = PAPERS[record["paper"]]
    sections = [section("The paper's statements", None, statements_table(folder, record))]
    for part in paper.parts:
        sections += _part(folder, record, paper, part)
    sections.append(section("Time", None, _times(record)))
    title = f"{paper.title}: reproduced with preset {record['preset']}"
    tried = [bundled.ENCODER, *([] if record["real"] else [bundled.DATA])] if record["preset"] == "mini" else []
    subtitle = "Every table beside the paper's" + "".join(f" — {t}" for t in tried)
    tables = [s.table for s in sections if s.table]
    text = "\n".join([f"# {title}", "", subtitle, "", *map(to_markdown, tables)])
    whole = page.page(title, subtitle, sections, _provenance(record), results_fingerprint(folder))
    return {folder / "tables.md": text.encode(), folder / "index.html": whole}


def results_fingerprint(folder: Path) -> str:
    """Fingerprint of all JSON below the folder."""
    files = (f"{path.relative_to(folder)} {sha256(path)}" for path in sorted(folder.rglob("*.json")))
    return fingerprint(" ".join(files).encode())


def _part(folder: Path, record: Mapping[str, Any], paper: Paper, part: Part) -> Iterator[Section]:
    """The sections of a table or figure; one that is not there yet says so."""
    number = part.number if part.number.startswith("Figure") else f"Table {part.number}"
    heading = f"{number}: {part.title}"
    if part.kind == "ablation":
        path = folder / "ablations" / f"{part.name}-{record['preset']}" / ablation.SUMMARY
        if path.exists():
            summary = ablation.read_summary(path)
            yield section(heading, ablation.ablation_plot(summary), ablation.ablation_table(summary))
            return
    elif part.kind == "scores":
        table = scores_table(folder / record["suites"][part.name], paper, part.name)
        if table is not None:
            yield section(heading, None, table)
            return
    elif part.kind == "trajectory" and (folder / TRAJECTORIES).exists():
        yield section(heading, plots.plot_trajectory(read_reproduction(folder / TRAJECTORIES)))
        return
    elif part.kind == "geometry":
        analyses, problems = geometry.read_analyses(folder / "analysis")
        if problems:
            raise UserError(*problems)
        if analyses:
            yield section(heading, plots.plot_scatter(analyses), geometry.geometry_table(analyses))
            for m in analyses:
                yield section(f"{number}: cosines of {m['model']['name']}", plots.plot_densities(m))
            return
    yield section(heading, None, Table("not run yet", [part.title], []))


def scores_table(folder: Path, paper: Paper, suite: str) -> Table | None:
    """A row per model of the main tables: mean ± SD over seeds of every task, and the paper's average; None: no report.

    Args:
        folder: of the reports.
        paper: whose lines are shown.
        suite: sts or transfer, for the paper's numbers.
    """
    reports = [Report.load(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    if not reports:
        return None
    metric = _METRIC[suite]
    published = {row["model"]: row["avg"] for row in read_table(_PUBLISHED[suite])}
    tasks = list(reports[0].tasks)
    rows = []
    for line in paper.lines:
        own = [r for r in reports if r.model["name"].partition(", seed ")[0] == line.name]
        if not own:
            continue
        values = [[r.tasks[n]["scores"][metric]["all"]["value"] for r in own] for n in tasks]
        values.append([r.average[metric]["all"]["value"] for r in own if r.average])
        name = (line.published or {}).get(suite)
        rows.append([line.name, str(len(own)) if line.trained else MISSING, *(shown_spread(*spread(v)) for v in values),
                     published[name] if name else MISSING])  # fmt: skip
    header = ["model", "seeds", *(reports[0].tasks[n]["title"] for n in tasks), "Avg.", "paper's Avg., BERT-base"]
    what = "Spearman ×100" if suite == "sts" else "accuracy ×100"
    notes = ["Mean ± standard deviation over seeds. Intervals of every score stand in the reports beside this page."]
    return Table(f"{what}, {reports[0].suite}", header, rows, notes)


def statements_table(folder: Path, record: Mapping[str, Any]) -> Table:
    """The verdict on every statement of the paper: of the main table, then of the ablations."""
    main = {
        "title": "Main table",
        "findings": record["statements"],
        "dev": True,
        "model": {"name": "see the table", "embedded": record["preset"] == "mini"},
        "train": {"name": "the recipes' text"},
        "arms": [{"seeds": list(range(record["seeds"]))}],
    }
    names = [p.name for p in PAPERS[record["paper"]].parts if p.kind == "ablation"]
    paths = [folder / "ablations" / f"{name}-{record['preset']}" / ablation.SUMMARY for name in names]
    summaries = [ablation.read_summary(p) for p in paths if p.exists()]
    return ablation.findings_table([main, *summaries])


def _times(record: Mapping[str, Any]) -> Table:
    rows = [[what, f"{seconds / 60:.1f}"] for what, seconds in record["seconds"].items()]
    rows.append(["together", f"{sum(record['seconds'].values()) / 60:.1f}"])
    return Table("minutes taken", ["step", "minutes"], rows)


def _provenance(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        "preset": f"{record['preset']}, {record['seeds']} seed(s)",
        "suites": ", ".join(record["suites"].values()),
        **machine_facts(record["environment"]),
        "created": record["created"],
    }
