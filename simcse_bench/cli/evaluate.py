"""The command `eval`, on our own tasks and on mteb's."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError
from simcse_bench.progress import Say, silent

if TYPE_CHECKING:
    from simcse_bench.evaluation.run import EvaluationSettings
    from simcse_bench.models.open import Model
    from simcse_bench.reports.mteb import MtebReport

PRINT_FORMATS = ("table", "md", "csv", "latex", "json")
OURS = "for our own tasks only"  # marks options that mteb's tasks decide themselves


def evaluate_command(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(help="Folder, Hub id, name from `ls models`, word-vectors:FILE, random-words, mteb:NAME."),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suite: sts (default), transfer, all (both), sts-ja and other languages, mini, or your own (see "
            "`ls suites`); mteb:TASK,... or 'mteb:MTEB(eng, v2)': tasks of mteb by its own protocol."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Single task instead of a suite; may be repeated."), OURS
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="simcse (the paper's) or mteb (raw text, all of SICK-R)."), OURS
    ] = "simcse",
    probe: Annotated[
        str | None, typer.Option(help="Classifier of transfer tasks: exact, fast or sklearn."), OURS
    ] = None,
    split: Annotated[str | None, typer.Option(help="dev or test (default: the protocol's, test)."), OURS] = None,
    aggregate: Annotated[str, typer.Option(help="Shown for tasks with subsets: all, mean or wmean."), OURS] = "all",
    metric: Annotated[str, typer.Option(help="Shown: spearman or pearson."), OURS] = "spearman",
    pooling: console.Pooling = None,
    head: console.Head = None,
    revision: console.Revision = None,
    max_length: console.MaxLength = None,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    remove_template_bias: console.RemoveBias = False,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    whiten: Annotated[Path | None, typer.Option(help="Fit BERT-whitening on this text, a sentence a line.")] = None,
    dtype: console.Dtype = "auto",
    device: console.Device = "auto",
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens per batch (default: 2048 CPU, 32768 GPU).")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N pairs of every subset, to try things out."), OURS
    ] = None,
    tasks_dir: Annotated[console.TasksDir, OURS] = None,
    data_dir: Annotated[console.DataDir, OURS] = None,
    data_revision: Annotated[console.DataRevision, OURS] = "main",
    out: console.Reports = Path("results"),
    name: Annotated[str | None, typer.Option(help="Name of the model in reports and file names.")] = None,
    mteb_json: Annotated[
        Path | None, typer.Option(help="With --suite mteb:...: mteb's own result files into this folder.")
    ] = None,
    format: Annotated[str, typer.Option(help="What is printed: table, md, csv, latex or json.")] = "table",
    force: console.Again = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be loaded and why, and where the report would go."),
        OURS,
    ] = False,
    quiet: console.Quiet = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain (a line every 10 %) or none.")] = "auto",
) -> None:
    """Evaluate a model and print one table beside the published numbers.

    \b
    simcse-bench eval --model princeton-nlp/sup-simcse-bert-base-uncased
    simcse-bench eval --model runs/mine --pooling cls --head none --dtype bfloat16
    simcse-bench eval --model Qwen/Qwen3-Embedding-0.6B --prompt-name query --truncate-dim 256
    simcse-bench eval --model runs/mine --suite transfer --probe fast
    simcse-bench eval --model mteb:Qwen/Qwen3-Embedding-0.6B
    simcse-bench eval --model word-vectors:glove.840B.300d.txt --aggregate wmean
    simcse-bench eval --model runs/mine --suite 'mteb:MTEB(eng, v2)'
    simcse-bench eval --model VoVanPhuc/sup-SimCSE-VietNamese-phobert-base --dry-run
    """
    from simcse_bench.data.task import AGGREGATES, METRICS

    problems = console.choice_problems(
        aggregation=(aggregate, AGGREGATES), metric=(metric, METRICS), format=(format, PRINT_FORMATS),
        progress=(progress, console.PROGRESS),
    )  # fmt: skip
    if suite and task:
        problems.append("--suite and --task exclude each other; name the suite, or the tasks.")
    if limit is not None and limit < 2:
        problems.append(f"--limit {limit}: a correlation needs at least 2 pairs of each subset.")
    on_mteb = (suite or "").startswith("mteb:")
    problems += _mteb_problems(context, on_mteb)
    if problems:
        raise UserError(*problems)
    from simcse_bench.evaluation.run import EvaluationSettings

    settings = EvaluationSettings(
        suite=suite or "", tasks=tuple(task or ()), protocol=protocol, split=split, limit=limit, probe=probe,
        where=console.where_from(data_dir, tasks_dir, data_revision), out=out, force=force,
    )  # fmt: skip
    asked_prompt = console.prompt_from(prompt, prompt_name, template, remove_template_bias)
    if dry_run:
        from simcse_bench.evaluation.dry_run import Asked, describe_evaluation

        asked = Asked(
            model, revision, pooling, head, max_length, whiten, dtype, name, asked_prompt, truncate_dim,
            trust_remote_code,
        )  # fmt: skip
        for table in describe_evaluation(asked, settings):
            console.print_table(table)
        return
    from simcse_bench.models.open import open_model

    opened = open_model(
        model, revision, pooling, head, max_length, whiten, dtype, device, batch_tokens, name,
        asked_prompt, truncate_dim, trust_remote_code,
    )  # fmt: skip
    if on_mteb:
        _evaluate_on_mteb(opened, str(suite), out, force, mteb_json, format, quiet, progress)
    else:
        _evaluate(opened, settings, metric, aggregate, format, quiet, progress)


def _evaluate(
    model: Model, settings: EvaluationSettings, metric: str, aggregate: str, format: str, quiet: bool, progress: str
) -> None:
    """Run, save and print; the arguments are the command line's."""
    from simcse_bench.evaluation.run import each_suite, plan_evaluation, run_evaluation
    from simcse_bench.progress import show_progress

    say = silent if quiet or progress == "none" else console.aloud
    settings = _with_suite(settings, model, say)
    plans = [plan_evaluation(model, one) for one in each_suite(settings)]  # all is checked before anything is computed
    reports = []
    for plan in plans:
        with show_progress("none" if quiet else progress) as show:
            reports.append(run_evaluation(plan, show, say))
        if format not in ("csv", "json"):
            console.print_reports(reports[-1:], metric, aggregate, format)
        if not quiet:
            console.aloud(f"{'already there, printed again' if plan.existing else 'written'}: {plan.path} (.md, .csv)")
    if format in ("csv", "json"):  # one document, however many suites
        console.print_reports(reports, metric, aggregate, format)


def _with_suite(settings: EvaluationSettings, model: Model, say: Say) -> EvaluationSettings:
    """The model's default suite, where neither suite nor task was named."""
    from simcse_bench.data.senteval import HOW_TO_CONFIGURE
    from simcse_bench.evaluation.run import default_suite

    if settings.suite or settings.tasks:
        return settings
    suite = default_suite(model.provenance, settings.where)
    if suite.startswith("sts-"):
        say(f"suite {suite}, the model's language; --suite sts for English.")
    elif suite != "sts":
        say(f"no real data is configured: suite {suite}, embedded data. {HOW_TO_CONFIGURE}")
    return replace(settings, suite=suite)


def _mteb_problems(context: typer.Context, on_mteb: bool) -> list[str]:
    """What cannot go together: our tasks' options with mteb's tasks, mteb's files with our tasks."""
    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if not on_mteb:
        return ["--mteb-json: mteb's own files exist for --suite mteb:... only."] if "mteb_json" in given else []
    hints = get_type_hints(evaluate_command, include_extras=True)
    ours = [name for name in hints if name in given and OURS in getattr(hints[name], "__metadata__", ())]
    options = {f"--{name.replace('_', '-')}": context.params[name] for name in ours}
    if options.get("--protocol") == "mteb":
        del options["--protocol"]
    if not options:
        return []
    return [f"{', '.join(options)}: not with --suite mteb:...; mteb's tasks bring their data, splits and scores."]


def _evaluate_on_mteb(
    model: Model, suite: str, out: Path, force: bool, export: Path | None, format: str, quiet: bool, progress: str
) -> None:
    """Run, save and print; the arguments are the command line's."""
    import contextlib

    from simcse_bench.evaluation.mteb.run import plan_mteb, run_mteb
    from simcse_bench.progress import show_progress

    plan = plan_mteb(model, suite, out, force, export)
    # mteb encodes in many passes: a bar for each, where there can be one; in a log, a line per task
    bar = not quiet and (progress == "bar" or (progress == "auto" and sys.stderr.isatty()))
    say = silent if quiet or progress == "none" else console.aloud
    report = run_mteb(plan, (lambda: show_progress("bar")) if bar else contextlib.nullcontext, say)
    _print_mteb(report, format)
    if not quiet:
        console.aloud(f"{'already there, printed again' if plan.existing else 'written'}: {plan.path} (.md, .csv)")
        if export is not None:
            console.aloud(f"written: mteb's own files below {export}/results")


def _print_mteb(report: MtebReport, format: str) -> None:
    """Print a report in a format of the command line: table, md, csv, latex or json."""
    import dataclasses
    import json

    from simcse_bench.reports.mteb import mteb_rows, mteb_table
    from simcse_bench.reports.table import to_csv

    if format == "csv":
        typer.echo(to_csv(mteb_rows(report)), nl=False)
    elif format == "json":
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False))
    else:
        console.print_table(mteb_table(report), format)
