"""The command `eval`, on our own tasks and on mteb's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError
from simcse_bench.progress import Say, silent

if TYPE_CHECKING:
    from simcse_bench.evaluation.run import EvaluationPlan, EvaluationSettings
    from simcse_bench.models.open import Model
    from simcse_bench.reports.mteb import MtebReport
    from simcse_bench.reports.report import Report

OURS = "for our own tasks only"  # marks options that mteb's tasks decide themselves


def evaluate_command(
    context: typer.Context,
    model: console.ModelWord = None,
    model_option: console.ModelOption = None,
    suite: Annotated[
        list[str] | None,
        console.what(
            help="sts (default), transfer, all (both), mini, sts-extended, ranking, sts-ja and other languages, "
            "your own (see `ls suites`); several: sts,transfer. mteb:TASK,... or 'mteb:MTEB(eng, v2)': tasks of mteb "
            "by its own protocol."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        console.what(help="Tasks instead of a suite: stsb,sickr; SentEval's and mteb's names too (see `ls tasks`)."),
        OURS,
    ] = None,
    split: Annotated[
        str | None,
        console.what(metavar="dev|test", help="Default: the protocol's, test."),
        OURS,
    ] = None,
    limit: Annotated[
        int | None,
        console.what(help="Only the first N pairs of every subset, to try things out."),
        OURS,
    ] = None,
    exclude_overlap: Annotated[
        Path | None,
        console.what(help="Score without the rows that `data overlap` found: its record, results/overlap/X.json."),
        OURS,
    ] = None,
    revision: console.Revision = None,
    protocol: Annotated[
        str,
        console.how(metavar="simcse|mteb", help="The paper's, or raw text and all of SICK-R."),
        OURS,
    ] = "simcse",
    probe: Annotated[
        str | None,
        console.how(metavar="exact|fast|sklearn|mlp|mlp-tuned", help="Classifier of transfer and probing tasks."),
        OURS,
    ] = None,
    resamples: Annotated[console.Resamples, OURS] = None,
    bootstrap_seed: Annotated[console.BootstrapSeed, OURS] = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    max_length: console.MaxLength = None,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    remove_template_bias: console.RemoveBias = False,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    whiten: Annotated[
        Path | None,
        console.how(help="Fit BERT-whitening on this text, a sentence a line."),
    ] = None,
    dtype: console.Dtype = "auto",
    device: console.Devices = "auto",
    batch_tokens: Annotated[
        int | None,
        console.how(help="Tokens per batch (default: 2048 CPU, 32768 GPU); decides no score."),
    ] = None,
    executor: Annotated[
        str, console.how(metavar="local|ray", help="One suite after the other, or the suites on a Ray cluster."), OURS
    ] = "local",
    ray_address: Annotated[console.RayAddress, OURS] = None,
    cpus_per_suite: Annotated[
        float | None, console.how(help="With ray: CPUs a suite takes (as many as threads here)."), OURS
    ] = None,
    gpus_per_suite: Annotated[
        float | None, console.how(help="With ray: GPUs a suite takes (1, if there are any)."), OURS
    ] = None,
    tasks_dir: Annotated[console.TasksDir, OURS] = None,
    data_dir: Annotated[console.DataDir, OURS] = None,
    data_revision: Annotated[console.DataRevision, OURS] = "main",
    out: console.Reports = Path("results"),
    mteb_json: Annotated[
        Path | None,
        console.where(help="With --suite mteb:...: mteb's own result files into this folder."),
    ] = None,
    name: Annotated[
        str | None,
        console.output(help="Name of the model in reports and file names."),
    ] = None,
    metric: Annotated[console.Metric, OURS] = "spearman",
    aggregate: Annotated[console.Aggregate, OURS] = "all",
    format: console.PrintFormat = "table",
    force: console.Again = False,
    dry_run: Annotated[
        bool,
        console.output("--dry-run", help="Only say what would be loaded and why, and where the report would go."),
        OURS,
    ] = False,
    quiet: console.Quiet = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Evaluate a model and print one table beside the published numbers.

    \b
    simcse-bench eval mini
    simcse-bench eval princeton-nlp/sup-simcse-bert-base-uncased --suite sts,transfer
    simcse-bench eval runs/mine --task stsb,sickr --pooling cls --head none
    simcse-bench eval runs/mine --suite 'mteb:MTEB(eng, v2)'
    simcse-bench eval word-vectors:glove.840B.300d.txt --dry-run
    """
    from simcse_bench.data.task import AGGREGATES, METRICS

    named = console.one_model(model, model_option)
    suites = ",".join(suite or ()) if console.split_names(suite, "--suite") else ""
    problems = console.choice_problems(
        aggregation=(aggregate, AGGREGATES), metric=(metric, METRICS), format=(format, console.PRINT_FORMATS),
        progress=(progress, console.PROGRESS),
    )  # fmt: skip
    if suite and task:
        problems.append("--suite and --task exclude each other; name the suite, or the tasks.")
    if limit is not None and limit < 2:
        problems.append(f"--limit {limit}: a correlation needs at least 2 pairs of each subset.")
    if batch_tokens is not None and batch_tokens < 1:
        problems.append(f"--batch-tokens {batch_tokens}: expected at least 1 token.")
    on_mteb = suites.startswith("mteb:")
    if "mteb:" in suites[1:] or (on_mteb and len(suite or ()) > 1):
        problems.append(f"--suite {suites}: tasks of mteb and suites of ours are evaluated one after the other.")
    problems += _mteb_problems(context, on_mteb)
    if problems:
        raise UserError(*problems)
    cluster = console.ray_cluster(executor, "suite", ray_address, cpus_per_suite, gpus_per_suite)
    from simcse_bench.evaluation.run import EvaluationSettings

    settings = EvaluationSettings(
        suite=suites, tasks=console.split_names(task, "--task"), protocol=protocol, split=split, limit=limit,
        probe=probe, resamples=resamples, bootstrap_seed=bootstrap_seed,
        where=console.where_from(data_dir, tasks_dir, data_revision), out=out, force=force,
        exclude=exclude_overlap,
    )  # fmt: skip
    pooling, head = console.named_view(pooling, head, pooler)
    asked_prompt = console.prompt_from(prompt, prompt_name, template, remove_template_bias)
    if dry_run:
        from simcse_bench.evaluation.dry_run import Asked, describe_evaluation

        asked = Asked(
            named, revision, pooling, head, max_length, whiten, dtype, name, asked_prompt, truncate_dim,
            trust_remote_code,
        )  # fmt: skip
        for table in describe_evaluation(asked, settings):
            console.print_table(table)
        return
    from simcse_bench.models.open import open_model

    recipe: dict[str, Any] = {
        "model": named, "revision": revision, "pooling": pooling, "head": head, "max_length": max_length,
        "whiten": whiten, "dtype": dtype, "device": device, "batch_tokens": batch_tokens, "name": name,
        "prompt": asked_prompt, "truncate_dim": truncate_dim, "trust_code": trust_remote_code,
    }  # fmt: skip
    opened = open_model(**recipe)
    if on_mteb:
        _evaluate_on_mteb(opened, suites, out, force, mteb_json, format, quiet, progress)
    else:
        say = silent if quiet or progress == "none" else console.aloud
        plans = plans_of(opened, settings, say)
        if cluster is None:
            reports = run_plans(plans, quiet, progress, say)
        else:
            from simcse_bench.evaluation.ray import run_on_ray

            reports = run_on_ray(plans, recipe, cluster, say)
        print_evaluations(plans, reports, metric, aggregate, format, quiet)


def plans_of(model: Model, settings: EvaluationSettings, say: Say) -> list[EvaluationPlan]:
    """The plan of every suite: all is checked before anything is computed."""
    from simcse_bench.evaluation.run import each_suite, plan_evaluation

    return [plan_evaluation(model, one) for one in each_suite(_with_suite(settings, model, say))]


def run_plans(plans: Sequence[EvaluationPlan], quiet: bool, progress: str, say: Say) -> Iterator[Report]:
    """Run and save evaluations, one after the other; the other arguments are the command line's."""
    from simcse_bench.evaluation.run import run_evaluation
    from simcse_bench.progress import show_progress

    for plan in plans:
        with show_progress("none" if quiet else progress) as show:
            report = run_evaluation(plan, show, say)
        yield report


def print_evaluations(
    plans: Sequence[EvaluationPlan], found: Iterable[Report], metric: str, aggregate: str, format: str, quiet: bool
) -> None:
    """Print the plans' reports as they come; the other arguments are the command line's."""
    reports = []
    for plan, report in zip(plans, found, strict=True):
        reports.append(report)
        if format not in ("csv", "json"):
            console.print_reports([report], metric, aggregate, format)
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
    if not on_mteb:
        given = context.params["mteb_json"] is not None
        return ["--mteb-json: mteb's own files exist for --suite mteb:... only."] if given else []
    options = console.given_options(context, evaluate_command, OURS)
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
