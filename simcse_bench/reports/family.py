"""The SimCSE family in one table: what its papers and repositories state, and what was measured here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from simcse_bench.data.registry import load_suites, load_task
from simcse_bench.models.identity import marked_name, shown_usage
from simcse_bench.papers import published
from simcse_bench.papers.published import PublishedRow
from simcse_bench.reports.report import Report
from simcse_bench.reports.scores import published_beside
from simcse_bench.reports.table import MISSING, Table, shown_numbers

OURS = "ours"
_METRICS = {"sts": "spearman", "transfer": "accuracy"}
_MEASURES = {"sts": "Spearman ×100, aggregation 'all'", "transfer": "accuracy ×100, probe 'exact'"}


def family_table(reports: Sequence[Report], suite: str) -> Table:
    """Published rows and ours, best average first.

    Args:
        reports: any; those under other rules than the papers' are left out, one saved twice is one row.
        suite: one of ``published.FAMILY_SUITES``.
    """
    names = load_suites()[suite]
    own = {r.key: _ours(r, _METRICS[suite]) for r in reports if _as_in_the_papers(r, names)}
    rows = sorted([*published.family_rows(suite), *own.values()], key=lambda r: (-(r.average or 0.0), r.row, r.source))
    cells = [
        [_model(r), r.backbone or MISSING, *map(_shown, [*map(r.scores.get, names), r.average]), r.source] for r in rows
    ]
    title = f"the SimCSE family as published, and {OURS}: {_MEASURES[suite]}, protocol simcse, test"
    header = ["model", "backbone", *(load_task(name).title for name in names), "Avg.", "source"]
    note = (
        f'"{OURS}" was measured here; all else is as its source states it, one run or the mean of several. '
        '"sup": trained on labelled pairs. The first line of each table in simcse_bench/papers/ says where it was read.'
    )
    return Table(title, header, cells, [note])


def narrow_family(table: Table) -> Table:
    """Model, backbone and source in one column, to fit a terminal."""
    first = [f"{row[0]}\n  " + ", ".join(c for c in (row[1], row[-1]) if c != MISSING) for row in table.rows]
    rows = [[name, *row[2:-1]] for name, row in zip(first, table.rows, strict=True)]
    return dataclasses.replace(table, header=["model", *table.header[2:-1]], rows=rows)


def _as_in_the_papers(report: Report, names: Sequence[str]) -> bool:
    """Whether a report has the same tasks, protocol, split and probe, all pairs, and an average."""
    rules = report.protocol
    same = (rules["name"], rules["split"], rules.get("probe", "exact")) == ("simcse", "test", "exact")
    return same and not report.limit and report.average is not None and set(report.tasks) == set(names)


def _ours(report: Report, metric: str) -> PublishedRow:
    """A report in the form of a published row."""
    beside = published_beside(report, "spearman", "all")
    source = ", ".join(part for part in (OURS, shown_usage(report.model), report.model.get("dtype")) if part)
    scores = {name: task["scores"][metric]["all"]["value"] for name, task in report.tasks.items()}
    average = report.average[metric]["all"]["value"] if report.average else None
    return PublishedRow(source, marked_name(report.model), scores, average, beside.backbone if beside else "")


def _model(row: PublishedRow) -> str:
    """A row's name without its backbone, which has a column."""
    return row.row.replace(f"-{row.backbone}", "", 1) if row.backbone and not row.source.startswith(OURS) else row.row


def _shown(value: float | None) -> str:
    return shown_numbers("{:.2f}", value)
