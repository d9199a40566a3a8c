"""The commands that train many times: `run-ablation` and `reproduce`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError
from simcse_bench.progress import silent

if TYPE_CHECKING:
    from simcse_bench.experiments.run import Executor


def reproduce_command(
    paper: Annotated[str, typer.Argument(help="simcse-2021, or simcse-successors.")] = "simcse-2021",
    table: Annotated[
        list[str] | None, console.what(help='Only this table or figure: 3, D.1, "figure 2"; repeatable.')
    ] = None,
    preset: Annotated[
        str, console.what(metavar="mini|paper", help="Embedded encoder and text, or BERT-base from the Hub.")
    ] = "mini",
    seeds: Annotated[int, console.what(help="Seeds of everything that is trained.")] = 1,
    save_every: Annotated[int, console.how(help="Updates between checkpoints.")] = 500,
    device: console.Device = "auto",
    executor: Annotated[
        str, console.how(metavar="local|ray", help="Of the ablations' arms; ray: on a cluster.")
    ] = "local",
    ray_address: console.RayAddress = None,
    cpus_per_arm: Annotated[float | None, console.how(help="With ray: CPUs an arm takes (1).")] = None,
    gpus_per_arm: Annotated[
        float | None, console.how(help="With ray: GPUs an arm takes (1, if there are any).")
    ] = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Results = Path("results"),
    runs: Annotated[Path, console.where(help="Folder for the trained models.")] = Path("runs"),
    dry_run: Annotated[
        bool, console.output("--dry-run", help="Print what is missing and its time; do nothing.")
    ] = False,
    quiet: console.Quiet = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Go through a paper: train and measure what is missing, and put every table beside the paper's on one page.

    The same command goes on after an interruption.

    \b
    simcse-bench reproduce simcse-2021 --dry-run
    simcse-bench reproduce simcse-2021 --table 3 --table D.1 --seeds 3
    simcse-bench reproduce simcse-2021 --preset paper --seeds 3 --executor ray --ray-address head:6379
    """
    from simcse_bench.experiments import reproduction
    from simcse_bench.reports.reproduction import statements_table
    from simcse_bench.training.run import RunOptions

    console.require_choices(progress=(progress, console.PROGRESS))
    options = RunOptions(
        out, save_every=save_every, device=device, where=console.where_from(data_dir, None, data_revision)
    )
    execute = chosen_executor(executor, ray_address, cpus_per_arm, gpus_per_arm)
    planned = reproduction.plan_reproduction(paper, table or (), preset, seeds, out, runs, options, execute)
    say = silent if quiet else console.aloud
    if dry_run:
        console.print_table(reproduction.forecast_reproduction(planned, say))
        return
    record = reproduction.reproduce(planned, "none" if quiet else progress, say)
    console.print_table(statements_table(planned.folder, record, []))
    if not quiet:
        typer.echo(f"written: {planned.folder}/ (index.html, tables.md)", err=True)
    failed = record.get("failed", [])
    for what in failed:
        typer.echo(f"failed: {what}; the page says why, the same command tries again", err=True)
    if failed:
        raise typer.Exit(1)


def ablation_command(
    name: Annotated[
        str | None, typer.Argument(help="An ablation of `ls ablations`; with --vary a name of yours.")
    ] = None,
    preset: Annotated[
        str | None,
        console.what(metavar="mini|paper", help="Embedded encoder and text (default), or BERT-base from the Hub."),
    ] = None,
    seeds: Annotated[int, console.what(help="Seeds of every arm.")] = 1,
    vary: Annotated[
        list[str] | None, console.what(help="field=a,b,c; repeatable: a grid instead of a named one.")
    ] = None,
    recipe: Annotated[str | None, console.what(help="Recipe that --vary starts from (mini-unsup).")] = None,
    arm: Annotated[list[str] | None, console.what(help="Only this arm; repeatable.")] = None,
    model: console.StartModel = None,
    train: console.TrainText = None,
    set: Annotated[list[str] | None, console.how(help="field=value for all arms, ARM:field=value for one.")] = None,
    force: Annotated[bool, console.how("--force", help="Train again what is there.")] = False,
    save_every: Annotated[int, console.how(help="Updates between checkpoints inside an arm.")] = 500,
    device: console.Device = "auto",
    processes: Annotated[int, console.how(help="Processes that train an arm together, on a GPU each.")] = 1,
    executor: Annotated[
        str, console.how(metavar="local|ray", help="One arm after the other, or the arms on a Ray cluster.")
    ] = ("local"),
    ray_address: console.RayAddress = None,
    cpus_per_arm: Annotated[float | None, console.how(help="With ray: CPUs an arm takes (1).")] = None,
    gpus_per_arm: Annotated[
        float | None, console.how(help="With ray: GPUs an arm takes (one for each process, if there are any).")
    ] = None,
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Results = Path("results"),
    dry_run: Annotated[
        bool, console.output("--dry-run", help="Print arms, what is there, time and disk; train nothing.")
    ] = False,
    quiet: Annotated[bool, console.output("--quiet", "-q", help="No progress, no notes: only the table.")] = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Train and compare the arms of an ablation; the same command goes on after an interruption.

    \b
    simcse-bench run-ablation dropout --seeds 3
    simcse-bench run-ablation temperature --preset paper --device cuda
    simcse-bench run-ablation mine --vary learning_rate=1e-4,3e-4 --vary batch_size=32,64
    simcse-bench run-ablation methods --seeds 3 --set esimcse:queue=5
    simcse-bench run-ablation pooling --preset paper --executor ray --ray-address head:6379 --gpus-per-arm 1
    """
    import dataclasses

    from simcse_bench.experiments.sweep import grid_ablation, named_ablation, plan_sweep
    from simcse_bench.training.run import RunOptions

    console.require_choices(progress=(progress, console.PROGRESS))
    if name is None and not vary:
        raise UserError("name an ablation (see `simcse-bench ls ablations`), or give a name and --vary field=a,b.")
    if preset and vary:
        raise UserError("--preset belongs to the named ablations; a grid starts from --recipe.")
    if recipe and not vary:
        raise UserError("--recipe: a named ablation has its own, see --preset; --recipe starts a grid of --vary.")
    execute = chosen_executor(executor, ray_address, cpus_per_arm, gpus_per_arm)
    if processes < 1:
        raise UserError(f"--processes {processes}: expected at least 1.")
    recipe = recipe or "mini-unsup"
    preset = preset or (recipe if vary else "mini")
    ablation = grid_ablation(name, recipe, vary) if vary else named_ablation(str(name))
    short = {"model": model, "train": train}
    settings = [f"{k}={v}" for k, v in short.items() if v is not None] + list(set or ())
    options = RunOptions(out, False, force, save_every, device, console.where_from(data_dir, tasks_dir, data_revision))
    planned = plan_sweep(ablation, preset, seeds, settings, arm or (), out, options)
    planned = dataclasses.replace(planned, processes=processes)
    say = silent if quiet else console.aloud
    if dry_run:
        from simcse_bench.experiments.run import forecast_sweep

        console.print_table(forecast_sweep(planned, force, say))
        return
    from simcse_bench.experiments.board import show_sweep
    from simcse_bench.experiments.run import run_sweep
    from simcse_bench.reports.ablation import ablation_table

    with show_sweep("none" if quiet else progress, planned.trials) as show_trial:
        summary = run_sweep(planned, force, show_trial, say, execute)
    console.print_table(ablation_table(summary))
    if not quiet:
        typer.echo(f"written: {planned.folder}/ (summary.json, table.*, plot.*, index.html)", err=True)
    if any(entry["failed"] for entry in summary["arms"]):
        raise typer.Exit(1)


def chosen_executor(name: str, address: str | None, cpus: float | None, gpus: float | None) -> Executor:
    """What runs a sweep's trials, by --executor and the options that belong to ray.

    Raises:
        UserError: an unknown executor, options of ray for another one.
    """
    from simcse_bench.experiments import ray, run

    cluster = console.ray_cluster(name, "arm", address, cpus, gpus)
    return run.run_one_by_one if cluster is None else functools.partial(ray.run_on_ray, cluster=cluster)
