"""The commands that compare: `compare`, `verify` and `analyze`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.console import PROGRESS, DataDir, DataRevision, TasksDir, aloud, print_table, quietly
from simcse_bench.errors import UserError, unknown


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
    from simcse_bench import versus

    if len(reports) < 2:
        raise UserError(f"one report to compare ({reports[0]}); name at least two.")
    if worst < 0:
        raise UserError(f"--worst {worst}: expected 0 or more.")
    sides = [versus.read_side(given, results, suite) for given in reports]
    data = versus.read_data(sides, data_dir, tasks_dir, data_revision)
    for other in sides[1:]:
        print_table(versus.compare(sides[0], other, data))
        if worst:
            print_table(versus.worst_pairs(sides[0], other, data, worst))


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
    from simcse_bench.bench import Settings, prepare, run
    from simcse_bench.catalog import known_model
    from simcse_bench.encoders import TransformerEncoder
    from simcse_bench.models import open_model
    from simcse_bench.progress import progress_shown
    from simcse_bench.verification import advice, nearest_view, published_row, verdicts, verification_table

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
        encoder = open_model(model, revision, "cls", "mlp", dtype=dtype, device=device).load(None)
    except UserError:
        encoder = opened.load(None)
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
    from simcse_bench import analysis, analysis_pages, bench, plots
    from simcse_bench.models import open_model
    from simcse_bench.report import report_path, require_writable, write_bytes, write_text

    if not model and not run:
        raise UserError("nothing to analyze: give --model, or --run for the trajectory of a training run.")
    folder = out / "analysis"
    require_writable(folder / "index.html")
    trajectories = {path.name: analysis.trajectory(path) for path in run or ()}
    models = [open_model(m, pooling=pooling, head=head, dtype=dtype, device=device) for m in model or ()]
    if models:
        suites = {bench.default_suite(m, data_dir, data_revision) for m in models}
        name = task or ("stsb" if "sts" in suites else "mini-sts")
        pairs = analysis.read_whole(name, split or (), data_dir, tasks_dir, data_revision)
        for opened in models:
            found = analysis.analyse(opened, name, split or (), pairs)
            write_text(report_path(out, "analysis", opened.name), json.dumps(found, ensure_ascii=False) + "\n")
        analyses, problems = analysis_pages.read_analyses(folder)
        for path, content in analysis_pages.drawn(folder, analyses).items():
            write_bytes(path, content)
        print_table(analysis_pages.geometry_table(analyses))
        for problem in problems:
            aloud(f"left out: {problem}")
    if trajectories:
        figure = plots.trajectory(trajectories)
        for form in ("svg", "png"):
            write_bytes(folder / f"trajectory.{form}", plots.rendered(figure, form))
    aloud(f"written: {folder}/")
