"""`eval --suite mteb:...`: the part of the command line that runs mteb's tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from simcse_bench.console import aloud, print_table, quietly

if TYPE_CHECKING:
    from simcse_bench.models import Model
    from simcse_bench.mteb_report import MtebReport

# options of `eval` that say what our own tasks are scored on and what is shown of it
_OURS = (
    "task",
    "protocol",
    "probe",
    "split",
    "aggregate",
    "metric",
    "limit",
    "tasks_dir",
    "data_dir",
    "data_revision",
    "dry_run",
)


def mteb_problems(context: typer.Context, on_mteb: bool) -> list[str]:
    """What cannot go together: our tasks' options with mteb's tasks, mteb's files with our tasks."""
    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if not on_mteb:
        return ["--mteb-json: mteb's own files exist for --suite mteb:... only."] if "mteb_json" in given else []
    options = {f"--{name.replace('_', '-')}": context.params[name] for name in _OURS if name in given}
    if options.get("--protocol") == "mteb":
        del options["--protocol"]
    if not options:
        return []
    return [f"{', '.join(options)}: not with --suite mteb:...; mteb's tasks bring their data, splits and scores."]


def evaluate_on_mteb(
    model: Model, suite: str, out: Path, force: bool, export: Path | None, format: str, quiet: bool, progress: str
) -> None:
    """Run, save and print; the arguments are the command line's."""
    import contextlib

    from simcse_bench.mteb_suite import prepare, run
    from simcse_bench.progress import progress_shown

    plan = prepare(model, suite, out, force, export)
    # mteb encodes in many passes: a bar for each, where there can be one; in a log, a line per task
    bar = not quiet and (progress == "bar" or (progress == "auto" and sys.stderr.isatty()))
    say = quietly if quiet or progress == "none" else aloud
    report = run(plan, (lambda: progress_shown("bar")) if bar else contextlib.nullcontext, say)
    print_mteb(report, format)
    if not quiet:
        aloud(f"{'already there, printed again' if plan.existing else 'written'}: {plan.path} (.md, .csv)")
        if export is not None:
            aloud(f"written: mteb's own files below {export}/results")


def print_mteb(report: MtebReport, format: str) -> None:
    """Print a report in a format of the command line: table, md, csv, latex or json."""
    import dataclasses
    import json

    from simcse_bench import mteb_report, render

    if format == "csv":
        typer.echo(render.csv_text(mteb_report.long_rows(report)), nl=False)
    elif format == "json":
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False))
    elif format == "table":
        print_table(mteb_report.score_table(report))
    else:
        typer.echo((render.markdown if format == "md" else render.latex)(mteb_report.score_table(report)), nl=False)
