"""`eval --suite mteb:...`: the part of the command line that runs mteb's tasks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_bench.cli.console import (
    PROGRESS,
    DataDir,
    DataRevision,
    TasksDir,
    aloud,
    print_reports,
    print_table,
    quietly,
)
from simcse_bench.errors import UserError, unknown

if TYPE_CHECKING:
    from simcse_bench.models.open import Model
    from simcse_bench.reports.mteb import MtebReport

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

    from simcse_bench.evaluation.mteb.run import prepare, run
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

    from simcse_bench.reports import mteb
    from simcse_bench.reports.table import to_csv, to_latex, to_markdown

    if format == "csv":
        typer.echo(to_csv(mteb.long_rows(report)), nl=False)
    elif format == "json":
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False))
    elif format == "table":
        print_table(mteb.score_table(report))
    else:
        typer.echo((to_markdown if format == "md" else to_latex)(mteb.score_table(report)), nl=False)


FORMATS = ("table", "md", "csv", "latex", "json")


def evaluate_command(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Folder, Hub id, name from `ls models`, word-vectors:FILE, random-words.")],
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suite: sts (default), transfer, all (both), sts-ja and other languages, mini, or your own (see "
            "`ls suites`); mteb:TASK,... or 'mteb:MTEB(eng, v2)': tasks of mteb by its own protocol."
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Single task instead of a suite; may be repeated.")] = None,
    protocol: Annotated[str, typer.Option(help="simcse (the paper's) or mteb (raw text, all of SICK-R).")] = "simcse",
    probe: Annotated[str | None, typer.Option(help="Classifier of transfer tasks: exact, fast or sklearn.")] = None,
    split: Annotated[str | None, typer.Option(help="dev or test (default: the protocol's, test).")] = None,
    aggregate: Annotated[str, typer.Option(help="Shown for tasks with subsets: all, mean or wmean.")] = "all",
    metric: Annotated[str, typer.Option(help="Shown: spearman or pearson.")] = "spearman",
    pooling: Annotated[str | None, typer.Option(help="Instead of the checkpoint's own; see `ls poolings`.")] = None,
    head: Annotated[str | None, typer.Option(help="none or mlp, instead of the checkpoint's own.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Truncate after so many tokens.")] = None,
    whiten: Annotated[Path | None, typer.Option(help="Fit BERT-whitening on this text, a sentence a line.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens per batch (default: 2048 CPU, 32768 GPU).")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N pairs of every subset, to try things out.")
    ] = None,
    tasks_dir: TasksDir = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    out: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path("results"),
    name: Annotated[str | None, typer.Option(help="Name of the model in reports and file names.")] = None,
    mteb_json: Annotated[
        Path | None, typer.Option(help="With --suite mteb:...: mteb's own result files into this folder.")
    ] = None,
    format: Annotated[str, typer.Option(help="What is printed: table, md, csv, latex or json.")] = "table",
    force: Annotated[bool, typer.Option("--force", help="Evaluate again, replacing an existing report.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be loaded and why, and where the report would go.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes: only the result.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain (a line every 10 %) or none.")] = "auto",
) -> None:
    """Evaluate a model and print one table beside the published numbers.

    \b
    simcse-bench eval --model princeton-nlp/sup-simcse-bert-base-uncased
    simcse-bench eval --model runs/mine --pooling cls --head none --dtype bfloat16
    simcse-bench eval --model runs/mine --suite transfer --probe fast
    simcse-bench eval --model word-vectors:glove.840B.300d.txt --aggregate wmean
    simcse-bench eval --model runs/mine --suite 'mteb:MTEB(eng, v2)'
    simcse-bench eval --model VoVanPhuc/sup-SimCSE-VietNamese-phobert-base --dry-run
    """
    from simcse_bench.data.task import AGGREGATES, METRICS

    problems = [
        str(unknown(kind, value, known))
        for kind, value, known in (
            ("aggregation", aggregate, AGGREGATES),
            ("metric", metric, METRICS),
            ("format", format, FORMATS),
            ("progress", progress, PROGRESS),
        )
        if value not in known
    ]
    if suite and task:
        problems.append("--suite and --task exclude each other; name the suite, or the tasks.")
    if limit is not None and limit < 2:
        problems.append(f"--limit {limit}: a correlation needs at least 2 pairs of each subset.")
    on_mteb = (suite or "").startswith("mteb:")
    problems += mteb_problems(context, on_mteb)
    if problems:
        raise UserError(*problems)
    from simcse_bench.data.senteval import HOW_TO_CONFIGURE
    from simcse_bench.evaluation.run import Settings, default_suite, each_suite, prepare, run

    settings = Settings(
        suite=suite or "", tasks=tuple(task or ()), protocol=protocol, split=split, limit=limit, tasks_dir=tasks_dir,
        probe=probe, data_dir=data_dir, data_revision=data_revision, out=out, force=force,
    )  # fmt: skip
    if dry_run:
        from simcse_bench.evaluation.dry_run import Asked, describe

        for table in describe(Asked(model, revision, pooling, head, max_length, whiten, dtype, name), settings):
            print_table(table)
        return
    from simcse_bench.models.open import open_model
    from simcse_bench.progress import progress_shown

    opened = open_model(model, revision, pooling, head, max_length, whiten, dtype, device, batch_tokens, name)
    silent = quiet or progress == "none"
    say = quietly if silent else aloud
    if on_mteb:
        evaluate_on_mteb(opened, str(suite), out, force, mteb_json, format, quiet, progress)
        return
    if not suite and not task:
        settings = replace(settings, suite=default_suite(opened.provenance, data_dir, data_revision))
        if settings.suite.startswith("sts-"):
            say(f"suite {settings.suite}, the model's language; --suite sts for English.")
        elif settings.suite != "sts":
            say(f"no real data is configured: suite {settings.suite}, embedded data. {HOW_TO_CONFIGURE}")
    plans = [prepare(opened, one) for one in each_suite(settings)]  # all input is checked before anything is computed
    reports = []
    for plan in plans:
        with progress_shown("none" if quiet else progress) as show:
            reports.append(run(plan, show, say))
        if format not in ("csv", "json"):
            print_reports(reports[-1:], metric, aggregate, format)
        if not quiet:
            typer.echo(
                f"{'already there, printed again' if plan.existing else 'written'}: {plan.path} (.md, .csv)", err=True
            )
    if format in ("csv", "json"):  # one document, however many suites
        print_reports(reports, metric, aggregate, format)
