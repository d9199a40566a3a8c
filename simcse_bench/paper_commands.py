"""The command that goes through a whole paper: `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.console import PROGRESS, DataDir, DataRevision, aloud, print_table, quietly
from simcse_bench.errors import unknown
from simcse_bench.training_commands import chosen_executor


def reproduce_command(
    paper: Annotated[str, typer.Argument(help="simcse-2021.")] = "simcse-2021",
    table: Annotated[
        list[str] | None, typer.Option(help='Only this table or figure: 3, D.1, "figure 2"; repeatable.')
    ] = None,
    preset: Annotated[str, typer.Option(help="mini (embedded) or paper (BERT-base, from the Hub).")] = "mini",
    seeds: Annotated[int, typer.Option(help="Seeds of everything that is trained.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what is missing and its time; do nothing.")] = False,
    save_every: Annotated[int, typer.Option(help="Updates between checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    executor: Annotated[str, typer.Option(help="Of the ablations' arms: local or ray (on a Ray cluster).")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Cluster of --executor ray: host:port, auto.")] = None,
    cpus_per_arm: Annotated[float | None, typer.Option(help="With ray: CPUs an arm takes (1).")] = None,
    gpus_per_arm: Annotated[
        float | None, typer.Option(help="With ray: GPUs an arm takes (1, if there are any).")
    ] = None,
    data_dir: DataDir = None,
    data_revision: DataRevision = "main",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Folder for the trained models.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes: only the result.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain or none.")] = "auto",
) -> None:
    """Go through a paper: train and measure what is missing, and put every table beside the paper's on one page.

    The same command goes on after an interruption.

    \b
    simcse-bench reproduce simcse-2021 --dry-run
    simcse-bench reproduce simcse-2021 --table 3 --table D.1 --seeds 3
    simcse-bench reproduce simcse-2021 --preset paper --seeds 3 --executor ray --ray-address head:6379
    """
    from simcse_bench import reproduction
    from simcse_bench.launch import Place
    from simcse_bench.reproduction_pages import statements_table

    if progress not in PROGRESS:
        raise unknown("progress", progress, PROGRESS)
    place = Place(out, save_every=save_every, device=device, data_dir=data_dir, data_revision=data_revision)
    execute = chosen_executor(executor, ray_address, cpus_per_arm, gpus_per_arm)
    planned = reproduction.plan(paper, table or (), preset, seeds, out, runs, place, execute)
    say = quietly if quiet else aloud
    if dry_run:
        print_table(reproduction.forecast(planned, say))
        return
    record = reproduction.run(planned, "none" if quiet else progress, say)
    print_table(statements_table(planned.folder, record))
    if not quiet:
        typer.echo(f"written: {planned.folder}/ (index.html, tables.md)", err=True)
    for what in record["failed"]:
        typer.echo(f"failed: {what}; the page says why, the same command tries again", err=True)
    if record["failed"]:
        raise typer.Exit(1)
