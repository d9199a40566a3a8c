"""The commands that train: `train` and `run-ablation`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_bench.console import PROGRESS, DataDir, DataRevision, TasksDir, aloud, print_table, quietly
from simcse_bench.errors import UserError, unknown

if TYPE_CHECKING:
    from simcse_bench.sweep import Executor


EXECUTORS = ("local", "ray")


def train_command(
    out: Annotated[Path, typer.Option(help="Folder of the run: the model, train.json, log.jsonl.")],
    recipe: Annotated[str | None, typer.Option(help="Settings of the paper or small ones; see `ls recipes`.")] = None,
    model: Annotated[str | None, typer.Option(help="Encoder to start from; short for --set model=.")] = None,
    train: Annotated[str | None, typer.Option(help="Training text; short for --set train=.")] = None,
    set: Annotated[list[str] | None, typer.Option(help="field=value, repeatable; see `ls settings`.")] = None,
    track_geometry: Annotated[int | None, typer.Option(help="Record alignment and uniformity every N updates.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint, if any.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start anew over another run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print steps, memory and time; train nothing.")] = False,
    save_every: Annotated[int, typer.Option(help="Updates between checkpoints.")] = 500,
    tracker: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb, trackio, ...; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    tasks_dir: TasksDir = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes: only the result.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain or none.")] = "auto",
) -> None:
    """Train an encoder with SimCSE and keep the weights with the best dev score.

    \b
    simcse-bench train --recipe unsup-bert-base --train wiki1m --out runs/unsup
    simcse-bench train --recipe sup-bert-base --train nli.csv --out runs/sup --set seed=1 --set dropout=0.2
    simcse-bench train --resume --out runs/sup
    torchrun --nproc-per-node 4 -m simcse_bench train --recipe sup-roberta-large --out runs/large
    """
    from simcse_bench import launch

    if progress not in PROGRESS:
        raise unknown("progress", progress, PROGRESS)
    if resume and force:
        raise UserError("--resume and --force exclude each other: go on with a run, or start anew.")
    short = {"model": model, "train": train, "track_geometry": track_geometry}
    settings = [f"{k}={v}" for k, v in short.items() if v is not None] + list(set or ())
    place = launch.Place(
        out, resume, force, save_every, device, data_dir, data_revision, tasks_dir, tuple(tracker or ())
    )
    config = launch.settle(recipe, settings, place)
    main_process = os.environ.get("RANK", "0") == "0"
    silent = quiet or progress == "none" or not main_process
    say = quietly if silent else aloud
    if dry_run and config is not None:
        for what, text in launch.estimate(config, place, say)[0]:
            typer.echo(f"{what:<11} {text}")
        return
    from simcse_bench.progress import training_shown

    with training_shown("none" if silent else progress) as show:
        record = launch.launch(config, place, show, say)
    if main_process:
        kept = record["kept"]
        score = "no dev score" if kept["dev"] is None else f"dev {kept['dev']:.2f} ({record['dev']['task']})"
        typer.echo(f"{out}: weights of step {kept['step']} of {record['steps']}, {score}")
        if not quiet:
            done = "already there" if record.get("existing") else f"{record['sentences_per_second']:.0f} sentences/s"
            typer.echo(f"{done}; evaluate with: simcse-bench eval --model {out}", err=True)


def ablation_command(
    name: Annotated[
        str | None, typer.Argument(help="An ablation of `ls ablations`; with --vary a name of yours.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="mini (default; embedded) or paper (BERT-base, from the Hub).")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of every arm.")] = 1,
    vary: Annotated[
        list[str] | None, typer.Option(help="field=a,b,c; repeatable: a grid instead of a named one.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe that --vary starts from (mini-unsup).")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; repeatable.")] = None,
    model: Annotated[str | None, typer.Option(help="Encoder to start from; short for --set model=.")] = None,
    train: Annotated[str | None, typer.Option(help="Training text; short for --set train=.")] = None,
    set: Annotated[list[str] | None, typer.Option(help="field=value for all arms, repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print arms, what is there, time and disk; train nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train again what is there.")] = False,
    save_every: Annotated[int, typer.Option(help="Updates between checkpoints inside an arm.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that train an arm together, on a GPU each.")] = 1,
    executor: Annotated[str, typer.Option(help="local (one arm after the other) or ray (arms on a Ray cluster).")] = (
        "local"
    ),
    ray_address: Annotated[
        str | None, typer.Option(help="Cluster of --executor ray (else a Ray of this machine's own): host:port, auto.")
    ] = None,
    cpus_per_arm: Annotated[float | None, typer.Option(help="With ray: CPUs an arm takes (1).")] = None,
    gpus_per_arm: Annotated[
        float | None, typer.Option(help="With ray: GPUs an arm takes (one for each process, if there are any).")
    ] = None,
    tasks_dir: TasksDir = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes: only the table.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain or none.")] = "auto",
) -> None:
    """Train and compare the arms of an ablation; the same command goes on after an interruption.

    \b
    simcse-bench run-ablation dropout --seeds 3
    simcse-bench run-ablation temperature --preset paper --device cuda
    simcse-bench run-ablation mine --vary learning_rate=1e-4,3e-4 --vary batch_size=32,64
    simcse-bench run-ablation pooling --preset paper --executor ray --ray-address head:6379 --gpus-per-arm 1
    """
    import dataclasses

    from simcse_bench.launch import Place
    from simcse_bench.plan import named, plan, varied

    if progress not in PROGRESS:
        raise unknown("progress", progress, PROGRESS)
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
    ablation = varied(name, recipe, vary) if vary else named(str(name))
    short = {"model": model, "train": train}
    settings = [f"{k}={v}" for k, v in short.items() if v is not None] + list(set or ())
    place = Place(out, False, force, save_every, device, data_dir, data_revision, tasks_dir)
    planned = plan(ablation, preset, seeds, settings, arm or (), out, place)
    planned = dataclasses.replace(planned, processes=processes)
    say = quietly if quiet else aloud
    if dry_run:
        from simcse_bench.sweep import forecast

        print_table(forecast(planned, force, say))
        return
    from simcse_bench.pages import ablation_table
    from simcse_bench.summary import complete
    from simcse_bench.sweep_progress import sweep_shown

    with sweep_shown("none" if quiet else progress, planned.trials) as watch:
        summary = complete(planned, force, watch, say, execute)
    print_table(ablation_table(summary))
    if not quiet:
        typer.echo(f"written: {planned.folder}/ (summary.json, table.*, plot.*, index.html)", err=True)
    if any(entry["failed"] for entry in summary["arms"]):
        raise typer.Exit(1)


def chosen_executor(name: str, address: str | None, cpus: float | None, gpus: float | None) -> Executor:
    """What runs a sweep's trials, by --executor and the options that belong to ray.

    Raises:
        UserError: an unknown executor, options of ray for another one.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    cluster: dict[str, Any] = {"address": address, "cpus": cpus, "gpus": gpus}
    cluster = {k: v for k, v in cluster.items() if v is not None}
    from simcse_bench import ray_executor, sweep

    if name == "ray":
        return functools.partial(ray_executor.run, cluster=ray_executor.Cluster(**cluster))
    if cluster:
        raise UserError("--ray-address, --cpus-per-arm and --gpus-per-arm belong to --executor ray.")
    return sweep.one_by_one
