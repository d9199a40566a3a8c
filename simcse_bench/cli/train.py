"""The command that trains: `train`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError
from simcse_bench.progress import silent


def train_command(
    *,
    recipe: Annotated[str | None, console.what(help="Settings of the paper or small ones; see `ls recipes`.")] = None,
    model: console.StartModel = None,
    train: console.TrainText = None,
    set: Annotated[list[str] | None, console.how(help="field=value, repeatable; see `ls settings`.")] = None,
    resume: Annotated[bool, console.how("--resume", help="Go on from the run's last checkpoint, if any.")] = False,
    force: Annotated[bool, console.how("--force", help="Start anew over another run in the folder.")] = False,
    save_every: Annotated[int, console.how(help="Updates between checkpoints.")] = 500,
    device: console.Device = "auto",
    out: Annotated[Path, console.where(help="Folder of the run: the model, train.json, log.jsonl.")],
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    track_geometry: Annotated[
        int | None, console.output(help="Record alignment and uniformity every N updates.")
    ] = None,
    dry_run: Annotated[bool, console.output("--dry-run", help="Print steps, memory and time; train nothing.")] = False,
    tracker: Annotated[
        list[str] | None, console.output(metavar="tensorboard|wandb| trackio|...", help="Repeatable.")
    ] = None,
    quiet: console.Quiet = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Train an encoder with SimCSE and keep the weights with the best dev score.

    \b
    simcse-bench train --recipe unsup-bert-base --train wiki1m --out runs/unsup
    simcse-bench train --recipe sup-bert-base --train nli.csv --out runs/sup --set seed=1 --set dropout=0.2
    simcse-bench train --resume --out runs/sup
    torchrun --nproc-per-node 4 -m simcse_bench train --recipe sup-roberta-large --out runs/large
    """
    from simcse_bench.training import run
    from simcse_bench.training.dry_run import estimate

    console.require_choices(progress=(progress, console.PROGRESS))
    if resume and force:
        raise UserError("--resume and --force exclude each other: go on with a run, or start anew.")
    short = {"model": model, "train": train, "track_geometry": track_geometry}
    settings = [f"{k}={v}" for k, v in short.items() if v is not None] + list(set or ())
    options = run.RunOptions(
        out,
        resume,
        force,
        save_every,
        device,
        console.where_from(data_dir, tasks_dir, data_revision),
        tuple(tracker or ()),
    )
    config = run.settle_config(recipe, settings, options)
    main_process = os.environ.get("RANK", "0") == "0"
    hushed = quiet or progress == "none" or not main_process
    say = silent if hushed else console.aloud
    if dry_run and config is not None:
        for what, text in estimate(config, options, say)[0]:
            typer.echo(f"{what:<11} {text}")
        return
    from simcse_bench.progress import show_training

    with show_training("none" if hushed else progress) as show:
        record = run.train(config, options, show, say)
    if main_process:
        kept = record["kept"]
        score = "no dev score" if kept["dev"] is None else f"dev {kept['dev']:.2f} ({record['dev']['task']})"
        typer.echo(f"{out}: weights of step {kept['step']} of {record['steps']}, {score}")
        if not quiet:
            done = "already there" if record.get("existing") else f"{record['sentences_per_second']:.0f} sentences/s"
            typer.echo(f"{done}; evaluate with: simcse-bench eval {shlex.quote(str(out))}", err=True)
