"""The command line: resolve names, call one function, print. Everything heavy is imported where it is used."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.comparing_commands import analyze_command, compare_command, leaderboard_command, verify_command
from simcse_bench.console import PROGRESS, DataDir, DataRevision, TasksDir, aloud, print_reports, print_table, quietly
from simcse_bench.data_commands import data_app
from simcse_bench.errors import Stopped, UserError, unknown
from simcse_bench.export_commands import export_command
from simcse_bench.mteb_command import evaluate_on_mteb, mteb_problems
from simcse_bench.paper_commands import reproduce_command
from simcse_bench.search_commands import demo_command, encode_command, index_command, search_command
from simcse_bench.training_commands import ablation_command, train_command

app = typer.Typer(
    name="simcse-bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")

FORMATS = ("table", "md", "csv", "latex", "json")


def _print_version(wanted: bool) -> None:
    if wanted:
        import simcse_bench

        typer.echo(f"simcse-bench {simcse_bench.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """SimCSE: training by the paper's recipes, and evaluation that equals the official one, with intervals.

    \b
    simcse-bench eval --model mini
    simcse-bench COMMAND --help    # every command with examples
    """


@app.command("eval")
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
    from simcse_bench.metrics import AGGREGATES, METRICS

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
    from simcse_bench.archive import HOW_TO_CONFIGURE
    from simcse_bench.bench import Settings, default_suite, each_suite, prepare, run

    settings = Settings(
        suite=suite or "", tasks=tuple(task or ()), protocol=protocol, split=split, limit=limit, tasks_dir=tasks_dir,
        probe=probe, data_dir=data_dir, data_revision=data_revision, out=out, force=force,
    )  # fmt: skip
    if dry_run:
        from simcse_bench.dry_run import Asked, describe

        for table in describe(Asked(model, revision, pooling, head, max_length, whiten, dtype, name), settings):
            print_table(table)
        return
    from simcse_bench.models import open_model
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


app.command("train")(train_command)
app.command("run-ablation")(ablation_command)
app.command("reproduce")(reproduce_command)
app.command("verify")(verify_command)
app.command("compare")(compare_command)
app.command("leaderboard")(leaderboard_command)
app.command("analyze")(analyze_command)
app.command("export")(export_command)
app.command("index")(index_command)
app.command("search")(search_command)
app.command("encode")(encode_command)
app.command("demo")(demo_command)


@app.command("ls")
def list_command(
    what: Annotated[
        str, typer.Argument(help="tasks, suites, models, poolings, protocols, recipes, settings or ablations")
    ] = "tasks",
    tasks_dir: TasksDir = None,
) -> None:
    """List what has a name: tasks, suites, models, poolings, protocols, recipes, settings of `train`, ablations.

    \b
    simcse-bench ls models
    simcse-bench ls settings
    simcse-bench ls tasks --tasks-dir my-tasks
    """
    from simcse_bench import listing

    listings = {
        "tasks": lambda: listing.tasks(tasks_dir),
        "suites": lambda: listing.suites(tasks_dir),
        "models": listing.models,
        "poolings": listing.poolings,
        "protocols": listing.protocols,
        "recipes": listing.recipes,
        "settings": listing.settings,
        "ablations": listing.ablations,
    }
    if what not in listings:
        raise unknown("list", what, listings)
    print_table(listings[what]())


@app.command("report")
def report_command(
    results: Annotated[Path, typer.Argument(help="Folder with reports.")] = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 2 if a table is stale.")] = False,
) -> None:
    """Draw every table below a results folder anew from its JSON reports.

    \b
    simcse-bench report
    simcse-bench report results --check
    """
    from simcse_bench.regenerate import regenerate

    files = regenerate(results, check)
    typer.echo(f"{len(files)} files {'are up to date' if check else 'written'} below {results}")


def main() -> None:
    """Entry point: a UserError is printed without a traceback and exits with 2."""
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise SystemExit(2) from None
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing half-written", err=True)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `simcse-bench ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
