"""The commands that compare: `leaderboard`, `compare`, `verify` and `analyze`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError, unknown
from simcse_bench.progress import silent

if TYPE_CHECKING:
    from simcse_bench.data.senteval import DataSource

BOARD_FORMATS = ("table", "md", "csv", "latex")


def leaderboard_command(
    results: Annotated[Path, typer.Argument(help="Folder of the reports.")] = Path("results"),
    suite: Annotated[str | None, console.what(help="Only this folder of reports: sts, transfer, ...")] = None,
    published: Annotated[
        bool, console.what("--published", help="The SimCSE family's published rows (--suite sts or transfer) and ours.")
    ] = False,
    metric: Annotated[str, console.output(metavar="spearman|pearson", help="Which is shown.")] = "spearman",
    aggregate: Annotated[str, console.output(metavar="all|mean|wmean", help="Shown for tasks with subsets.")] = "all",
    format: Annotated[str, console.output(metavar="table|md|csv|latex", help="What is printed.")] = "table",
) -> None:
    """Print the leaderboards of all saved reports, with intervals and what noise cannot tell apart.

    `simcse-bench report` writes them as leaderboard.md and .csv.

    \b
    simcse-bench leaderboard
    simcse-bench leaderboard --suite transfer --format latex
    simcse-bench leaderboard --published --format md
    """
    from simcse_bench.data.registry import known_name
    from simcse_bench.data.task import AGGREGATES, METRICS
    from simcse_bench.reports.scores import leaderboard_rows, narrow_leaderboard
    from simcse_bench.reports.site import read_leaderboards
    from simcse_bench.reports.table import to_csv

    console.require_choices(
        metric=(metric, METRICS), aggregation=(aggregate, AGGREGATES), format=(format, BOARD_FORMATS)
    )
    if published:
        _print_family(results, suite or "sts", metric, aggregate, format)
        return
    boards, problems = read_leaderboards(results, metric, aggregate)
    if suite is not None and (suite := known_name(asked := suite, boards)) is None:
        raise unknown("folder of reports", asked, boards)
    shown = [(folder, table) for folder in (boards if suite is None else [suite]) for table in boards[folder]]
    if format == "csv":  # one document, however many leaderboards
        rows = [{"folder": folder} | row for folder, table in shown for row in leaderboard_rows(table)]
        typer.echo(to_csv(rows), nl=False)
    for folder, table in shown if format != "csv" else ():
        if format == "table":
            console.print_table(dataclasses.replace(narrow_leaderboard(table), title=f"{folder}: {table.title}"))
        else:
            console.print_table(table, format)
    for problem in problems:
        console.aloud(f"left out: {problem}")
    if not boards:
        raise UserError(f"{results}: no reports; `simcse-bench eval --model M` writes them.")


def _print_family(results: Path, suite: str, metric: str, aggregate: str, format: str) -> None:
    """What the papers state and what the reports say under the same rules."""
    from simcse_bench.data.registry import known_name
    from simcse_bench.papers.published import FAMILY_SUITES
    from simcse_bench.reports.family import family_table, narrow_family
    from simcse_bench.reports.folder import read_reports
    from simcse_bench.reports.scores import leaderboard_rows
    from simcse_bench.reports.table import to_csv

    if (metric, aggregate) != ("spearman", "all"):
        raise UserError("--published: the papers state Spearman with aggregation 'all'; no other is shown beside them.")
    known = known_name(suite, FAMILY_SUITES)
    if known is None:
        raise unknown("suite with --published", suite, FAMILY_SUITES)
    problems: list[str] = []
    table = family_table(list(read_reports(results, problems).values()), known)
    if format == "csv":
        typer.echo(to_csv(leaderboard_rows(table)), nl=False)
    else:
        console.print_table(narrow_family(table) if format == "table" else table, format)
    for problem in problems:
        console.aloud(f"left out: {problem}")


def compare_command(
    reports: Annotated[list[str], typer.Argument(help="Two or more: names of evaluated models, or report files.")],
    suite: Annotated[
        str | None, console.what(help="Suite whose reports are meant by names (default: one that has all).")
    ] = None,
    results: Annotated[Path, console.where(help="Folder of the reports.")] = Path("results"),
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    worst: Annotated[int, console.output(help="How many of the pairs seen most differently are shown.")] = 20,
) -> None:
    """Compare evaluated models task by task: is the difference more than noise?

    The first is the reference.

    \b
    simcse-bench compare mini runs/unsup
    simcse-bench compare princeton-nlp/unsup-simcse-bert-base-uncased runs/mine
    simcse-bench compare results/sts/a.json results/sts/b.json --worst 50
    """
    from simcse_bench.evaluation.compare import (
        comparison_table,
        differences,
        most_different_pairs,
        read_data,
        read_sides,
    )

    if len(reports) < 2:
        raise UserError(f"one report to compare ({reports[0]}); name at least two.")
    if worst < 0:
        raise UserError(f"--worst {worst}: expected 0 or more.")
    first, *others = read_sides(reports, results, suite)
    data = read_data([first, *others], console.where_from(data_dir, tasks_dir, data_revision))
    for other in others:
        console.print_table(comparison_table(first.name, other.name, differences(first, other, data)))
        if worst and (seen := most_different_pairs(first, other, data, worst)).rows:
            console.print_table(seen)


def verify_command(
    model: console.ModelWord = None,
    model_option: console.ModelOption = None,
    as_: Annotated[str | None, console.what("--as", help="Model of `ls models` whose numbers it should have.")] = None,
    revision: console.Revision = None,
    protocol: Annotated[
        str, console.how(metavar="simcse|mteb", help="The paper's, or raw text and all of SICK-R.")
    ] = "simcse",
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    remove_template_bias: console.RemoveBias = False,
    trust_remote_code: console.TrustCode = False,
    dtype: console.Dtype = "float32",
    device: console.Device = "auto",
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Reports = Path("results"),
    force: console.Again = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Evaluate a model on the STS suite and hold it against its published numbers; exit 1 where one differs.

    Where it differs, the other poolings and heads are tried from one forward pass.

    \b
    simcse-bench verify princeton-nlp/sup-simcse-bert-base-uncased
    simcse-bench verify ./my-copy --as princeton-nlp/unsup-simcse-roberta-base --pooling cls --head none
    """
    from simcse_bench.evaluation.run import EvaluationSettings
    from simcse_bench.evaluation.verify import verification_table, verify
    from simcse_bench.progress import show_progress

    console.require_choices(progress=(progress, console.PROGRESS))
    pooling, head = console.named_view(pooling, head, pooler)
    settings = EvaluationSettings(
        protocol=protocol, where=console.where_from(data_dir, None, data_revision), out=out, force=force
    )
    named = console.one_model(model, model_option)
    with show_progress(progress) as show:
        verification = verify(
            named, as_, settings, show, silent if progress == "none" else console.aloud,
            revision=revision, pooling=pooling, head=head, dtype=dtype, device=device,
            prompt=console.prompt_from(prompt, prompt_name, template, remove_template_bias),
            trust_code=trust_remote_code,
        )  # fmt: skip
    console.print_table(verification_table(verification))
    if verification.advice:
        typer.echo(verification.advice)
    if not verification.verified:
        raise typer.Exit(1)


def analyze_command(
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Folders, Hub ids or names from `ls models`.", show_default=False),
    ] = None,
    model_option: Annotated[
        list[str] | None, console.what("--model", "-m", help="MODEL as an option; repeatable.")
    ] = None,
    run: Annotated[
        list[Path] | None, console.what(help="Run with --track-geometry: its trajectory; repeatable.")
    ] = None,
    robustness: Annotated[
        bool, console.what("--robustness", help="Instead: the same pairs with case, typos, negation, ... changed.")
    ] = False,
    task: Annotated[
        str | None,
        console.what(
            help="STS task (default: stsb; mini-sts where no data is). With --robustness several: stsb,sickr."
        ),
    ] = None,
    suite: Annotated[str | None, console.what(help="With --robustness: the STS tasks of a suite instead.")] = None,
    split: Annotated[
        list[str] | None,
        console.what(help="Only this split; repeatable. Default: the whole task; with --robustness: test."),
    ] = None,
    typo_rate: Annotated[
        float | None, console.how(help="With --robustness: share of the words with a typing error (default: 0.1).")
    ] = None,
    seed: Annotated[
        int | None, console.how(help="With --robustness: of typos, frames and word orders (default: 42).")
    ] = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    remove_template_bias: console.RemoveBias = False,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    dtype: console.Dtype = "auto",
    device: console.Device = "auto",
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Results = Path("results"),
    force: Annotated[
        bool, console.output("--force", help="Replace a saved analysis of other weights, settings or data.")
    ] = False,
) -> None:
    """Alignment, uniformity, cosines by gold score, spectrum and anisotropy of models; tables, plots, one page.

    With --robustness: what scores and vectors do where sentences are changed, their meaning kept or not.

    \b
    simcse-bench analyze bert-base-uncased princeton-nlp/unsup-simcse-bert-base-uncased
    simcse-bench analyze --run runs/a --run runs/b
    simcse-bench analyze mini random-words --robustness --task mini-sts
    simcse-bench analyze runs/mine --robustness --suite sts --typo-rate 0.2
    """
    from simcse_bench.evaluation.geometry import analyze, read_trajectories
    from simcse_bench.reports import plots
    from simcse_bench.reports.geometry import geometry_table, read_analyses

    models = list(dict.fromkeys([*(model or ()), *(model_option or ())]))
    pooling, head = console.named_view(pooling, head, pooler)
    if not models and not run:
        raise UserError("nothing to analyze: give a model, or --run for the trajectory of a training run.")
    where = console.where_from(data_dir, tasks_dir, data_revision)
    asked = console.prompt_from(prompt, prompt_name, template, remove_template_bias)
    options = {
        "pooling": pooling, "head": head, "dtype": dtype, "device": device, "prompt": asked,
        "truncate_dim": truncate_dim, "trust_code": trust_remote_code,
    }  # fmt: skip
    if robustness:
        if run or not models:
            raise UserError("--robustness: give models, without --run.")
        _analyze_robustness(models, suite, task, split, typo_rate, seed, out, where, force, options)
        return
    given = {"--suite": suite, "--typo-rate": typo_rate, "--seed": seed}
    if alone := [option for option, value in given.items() if value is not None]:
        raise UserError(f"{', '.join(alone)}: for --robustness only.")
    folder = out / "analysis"
    trajectories = read_trajectories(run or ())
    if models:
        analyze(models, task, split or (), out, where, force, **options)
        analyses, problems = read_analyses(folder)
        console.print_table(geometry_table(analyses))
        for problem in problems:
            console.aloud(f"left out: {problem}")
    if trajectories:
        plots.write_figure(plots.plot_trajectory(trajectories), folder / "trajectory")
    console.aloud(f"written: {folder}/")


def _analyze_robustness(
    models: list[str],
    suite: str | None,
    task: str | None,
    splits: list[str] | None,
    rate: float | None,
    seed: int | None,
    out: Path,
    where: DataSource,
    force: bool,
    options: dict[str, Any],
) -> None:
    """Measure, save and print; the arguments are the command line's."""
    from simcse_bench.data.perturbations import RATE, SEED
    from simcse_bench.evaluation.robustness import analyze_robustness
    from simcse_bench.progress import show_progress
    from simcse_bench.reports.robustness import FOLDER, changes_table, read_all_robustness, summary_table

    with show_progress("auto" if sys.stderr.isatty() else "none") as show:
        rows = analyze_robustness(
            models, console.split_names(None if task is None else [task], "--task"), suite, splits or ("test",),
            RATE if rate is None else rate, SEED if seed is None else seed, out, where, force, show, **options,
        )  # fmt: skip
    saved, problems = read_all_robustness(out / FOLDER)
    console.print_table(summary_table(saved))
    for one in saved:
        if one["model"]["name"] in set(rows["model"]):
            console.print_table(changes_table(one))
    for problem in problems:
        console.aloud(f"left out: {problem}")
    console.aloud(f"written: {out / FOLDER}/")
