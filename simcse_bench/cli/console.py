"""What the command line shares: options, tables in a terminal, reports in every format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simcse_bench.reports.report import Report
    from simcse_bench.reports.table import Table

PROGRESS = ("auto", "bar", "plain", "none")
DataDir = Annotated[
    Path | None, typer.Option(help="Folder in SentEval's layout (else $SIMCSE_BENCH_DATA, the cache, the Hub).")
]
DataRevision = Annotated[str, typer.Option(help="Revision of princeton-nlp/datasets-for-simcse on the Hub.")]
TasksDir = Annotated[Path | None, typer.Option(help="Folder with task files of your own (see tasks/README.md).")]


def aloud(line: str) -> None:
    """A note to the user, beside the result."""
    typer.echo(line, err=True)


def quietly(line: str) -> None:
    """No note."""


def print_reports(reports: list[Report], metric: str, aggregate: str, format: str) -> None:
    """Print reports in a format of the command line: table, md, csv, latex or json."""
    import dataclasses
    import json

    from simcse_bench.reports import scores
    from simcse_bench.reports.table import to_csv, to_latex, to_markdown

    if format == "csv":
        typer.echo(to_csv([row for report in reports for row in scores.long_rows(report)]), nl=False)
        return
    if format == "json":
        content = [dataclasses.asdict(report) for report in reports]
        typer.echo(json.dumps(content if len(content) > 1 else content[0], indent=1, ensure_ascii=False))
        return
    for report in reports:
        table = scores.score_table(report, metric, aggregate, narrow=format == "table")
        if format == "table":
            print_table(dataclasses.replace(table, title=f"{report.model['name']}\n{table.title}"))
        else:
            typer.echo((to_markdown if format == "md" else to_latex)(table), nl=False)


def print_table(table: Table) -> None:
    """Print a table for a terminal; in a file or a pipe, 160 columns wide."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from simcse_bench.reports.table import text_columns

    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    left = text_columns(table)
    for i, column in enumerate(table.header):
        drawn.add_column(column, justify="left" if i in left else "right", overflow="fold", no_wrap=i == 0)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file or a pipe has no width of its own
    console.print(Text(table.title, style="bold"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note))
