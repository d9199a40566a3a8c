"""The commands that compare: `leaderboard`, `compare`, `verify` and `analyze`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.cli.console import PROGRESS, DataDir, DataRevision, TasksDir, aloud, print_table, quietly
from simcse_bench.errors import UserError, unknown

BOARD_FORMATS = ("table", "md", "csv", "latex")


def leaderboard_command(
    results: Annotated[Path, typer.Argument(help="Folder of the reports.")] = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this folder of reports: sts, transfer, ...")] = None,
    metric: Annotated[str, typer.Option(help="spearman or pearson.")] = "spearman",
    aggregate: Annotated[str, typer.Option(help="all, mean or wmean.")] = "all",
    format: Annotated[str, typer.Option(help="table, md, csv or latex.")] = "table",
) -> None:
    """Print the leaderboards of all saved reports, with intervals and what noise cannot tell apart.

    `simcse-bench report` writes them as leaderboard.md and .csv.

    \b
    simcse-bench leaderboard
    simcse-bench leaderboard --suite transfer --format latex
    """
    from simcse_bench.data.task import AGGREGATES, METRICS
    from simcse_bench.reports import scores
    from simcse_bench.reports.site import leaderboards
    from simcse_bench.reports.table import MISSING, to_csv, to_latex, to_markdown

    for kind, value, known in (
        ("metric", metric, METRICS),
        ("aggregation", aggregate, AGGREGATES),
        ("format", format, BOARD_FORMATS),
    ):
        if value not in known:
            raise unknown(kind, value, known)
    groups, problems = leaderboards(results)
    if suite is not None and suite not in groups:
        raise unknown("folder of reports", suite, groups)
    shown = {"md": to_markdown, "latex": to_latex}
    for folder, found in groups.items():
        for reports in found if suite in (None, folder) else ():
            table = scores.leaderboard(reports, metric, aggregate)
            if format == "table":  # model, pooling and dtype in one column, to fit a terminal
                first = [f"{row[0]}\n  {row[1]}" + f", {row[2]}" * (row[2] != MISSING) for row in table.rows]
                rows = [[name, *row[3:]] for name, row in zip(first, table.rows, strict=True)]
                title = f"{folder}: {table.title}"
                print_table(dataclasses.replace(table, title=title, header=["model", *table.header[3:]], rows=rows))
            elif format == "csv":
                own = {"folder": folder, "protocol": table.title}
                cells = [own | dict(zip(table.header, row, strict=True)) for row in table.rows]
                typer.echo(to_csv(cells), nl=False)
            else:
                typer.echo(shown[format](table), nl=False)
    for problem in problems:
        aloud(f"left out: {problem}")
    if not groups:
        raise UserError(f"{results}: no reports; `simcse-bench eval --model M` writes them.")


def compare_command(
    reports: Annotated[list[str], typer.Argument(help="Two or more: names of evaluated models, or report files.")],
    suite: Annotated[str, typer.Option(help="Suite whose reports are meant by names.")] = "sts",
    results: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("results"),
    worst: Annotated[int, typer.Option(help="How many of the pairs seen most differently are shown.")] = 20,
    tasks_dir: TasksDir = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
) -> None:
    """Compare evaluated models task by task: is the difference more than noise?

    The first is the reference.

    \b
    simcse-bench compare princeton-nlp/unsup-simcse-bert-base-uncased runs/mine
    simcse-bench compare results/sts/a.json results/sts/b.json --worst 50
    """
    from simcse_bench.evaluation import compare

    if len(reports) < 2:
        raise UserError(f"one report to compare ({reports[0]}); name at least two.")
    if worst < 0:
        raise UserError(f"--worst {worst}: expected 0 or more.")
    sides = [compare.read_side(given, results, suite) for given in reports]
    data = compare.read_data(sides, data_dir, tasks_dir, data_revision)
    for other in sides[1:]:
        print_table(compare.compare(sides[0], other, data))
        if worst:
            print_table(compare.worst_pairs(sides[0], other, data, worst))


def verify_command(
    model: Annotated[str, typer.Option(help="Folder, Hub id, or a name from `ls models`.")],
    as_: Annotated[str | None, typer.Option("--as", help="Model of `ls models` whose numbers it should have.")] = None,
    protocol: Annotated[str, typer.Option(help="simcse (the paper's) or mteb.")] = "simcse",
    pooling: Annotated[str | None, typer.Option(help="Instead of the checkpoint's own; see `ls poolings`.")] = None,
    head: Annotated[str | None, typer.Option(help="none or mlp, instead of the checkpoint's own.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    out: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Evaluate again, replacing an existing report.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain or none.")] = "auto",
) -> None:
    """Evaluate a model on the STS suite and hold it against its published numbers; exit 1 where one differs.

    Where it differs, the other poolings and heads are tried from one forward pass.

    \b
    simcse-bench verify --model princeton-nlp/sup-simcse-bert-base-uncased
    simcse-bench verify --model ./my-copy --as princeton-nlp/unsup-simcse-roberta-base --pooling cls --head none
    """
    from simcse_bench.evaluation.compare import advice, nearest_view, published_row, verdicts, verification_table
    from simcse_bench.evaluation.run import Settings, prepare, run
    from simcse_bench.models.catalog import known_model
    from simcse_bench.models.encoders import TransformerEncoder
    from simcse_bench.models.open import open_model
    from simcse_bench.progress import progress_shown

    if progress not in PROGRESS:
        raise unknown("progress", progress, PROGRESS)
    row = published_row(as_ or model, protocol)
    if as_ is not None and pooling is None:  # used as the published model is
        spec = known_model(as_)
        pooling, head = (spec.pooling, head or spec.head) if spec else (pooling, head)
    opened = open_model(model, revision, pooling, head, dtype=dtype, device=device)
    settings = Settings("sts", protocol=protocol, data_dir=data_dir, data_revision=data_revision, out=out, force=force)
    plan = prepare(opened, settings)
    with progress_shown(progress) as show:
        report = run(plan, show, quietly if progress == "none" else aloud)
    print_table(verification_table(report, row))
    found = set(verdicts(report, row).values())
    if found <= {"OK", "close"}:
        return
    try:  # with its MLP, where the checkpoint has one
        encoder = open_model(model, revision, "cls", "mlp", dtype=dtype, device=device).load()
    except UserError:
        encoder = opened.load()
    if isinstance(encoder, TransformerEncoder):
        typer.echo(advice(nearest_view(plan, encoder, row), report))
    raise typer.Exit(1)


def analyze_command(
    model: Annotated[list[str] | None, typer.Option(help="Folder, Hub id or catalog name; repeatable.")] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="Run with --track-geometry: its trajectory; repeatable.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="STS task (default: stsb; mini-sts where no data is).")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Only this split; repeatable. Default: the whole task.")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Instead of the checkpoints' own; see `ls poolings`.")] = None,
    head: Annotated[str | None, typer.Option(help="none or mlp, instead of the checkpoints' own.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    tasks_dir: TasksDir = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
) -> None:
    """Alignment, uniformity, cosines by gold score, spectrum and anisotropy of models; tables, plots, one page.

    \b
    simcse-bench analyze --model bert-base-uncased --model princeton-nlp/unsup-simcse-bert-base-uncased
    simcse-bench analyze --run runs/a --run runs/b
    """
    from simcse_bench.evaluation import geometry as analysis
    from simcse_bench.evaluation.run import default_suite
    from simcse_bench.files import require_writable, write_bytes, write_text
    from simcse_bench.models.open import open_model
    from simcse_bench.reports import geometry, plots
    from simcse_bench.reports.report import report_path

    if not model and not run:
        raise UserError("nothing to analyze: give --model, or --run for the trajectory of a training run.")
    folder = out / "analysis"
    require_writable(folder / "index.html")
    trajectories = {path.name: analysis.trajectory(path) for path in run or ()}
    models = [open_model(m, pooling=pooling, head=head, dtype=dtype, device=device) for m in model or ()]
    if models:
        suites = {default_suite(m.provenance, data_dir, data_revision) for m in models}
        name = task or ("mini-sts" if suites == {"mini"} else "stsb")
        pairs = analysis.read_whole(name, split or (), data_dir, tasks_dir, data_revision)
        for opened in models:
            found = analysis.analyse(opened, name, split or (), pairs)
            write_text(report_path(out, "analysis", opened.name), json.dumps(found, ensure_ascii=False) + "\n")
        analyses, problems = geometry.read_analyses(folder)
        for path, content in geometry.drawn(folder, analyses).items():
            write_bytes(path, content)
        print_table(geometry.geometry_table(analyses))
        for problem in problems:
            aloud(f"left out: {problem}")
    if trajectories:
        figure = plots.trajectory(trajectories)
        for form in ("svg", "png"):
            write_bytes(folder / f"trajectory.{form}", plots.rendered(figure, form))
    aloud(f"written: {folder}/")
