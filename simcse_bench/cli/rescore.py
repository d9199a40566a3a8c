"""The command `rescore`: saved pairs or saved vectors scored again, without the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simcse_bench.cli import console
from simcse_bench.cli.evaluate import plans_of, print_evaluations, run_plans
from simcse_bench.errors import UserError

VECTORS = "for vectors only"  # marks options that a report's pairs decide themselves


def rescore_command(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help="A report or its .pairs.jsonl; or the .npy or .parquet that `encode` wrote."),
    ],
    sentences: Annotated[
        str | None,
        console.what(help="Of .npy: the text it was made of (default: the file that its record names)."),
        VECTORS,
    ] = None,
    column: Annotated[str | None, console.what(help="Its column, where it has several."), VECTORS] = None,
    suite: Annotated[list[str] | None, console.what(help="As for `eval`; default: sts."), VECTORS] = None,
    task: Annotated[list[str] | None, console.what(help="Tasks instead of a suite: stsb,sickr."), VECTORS] = None,
    split: Annotated[
        str | None, console.what(metavar="dev|test", help="Default: the protocol's, test."), VECTORS
    ] = None,
    limit: Annotated[int | None, console.what(help="Only the first N pairs of every subset."), VECTORS] = None,
    protocol: Annotated[
        str, console.how(metavar="simcse|mteb", help="The paper's, or raw text and all of SICK-R."), VECTORS
    ] = "simcse",
    probe: Annotated[
        str | None,
        console.how(metavar="exact|fast|sklearn|mlp|mlp-tuned", help="Classifier of transfer tasks."),
        VECTORS,
    ] = None,
    resamples: console.Resamples = None,
    bootstrap_seed: console.BootstrapSeed = None,
    tasks_dir: Annotated[console.TasksDir, VECTORS] = None,
    data_dir: Annotated[console.DataDir, VECTORS] = None,
    data_revision: Annotated[console.DataRevision, VECTORS] = "main",
    out: console.Reports = Path("results"),
    name: Annotated[str | None, console.output(help="Another name of the model in reports and file names.")] = None,
    metric: console.Metric = "spearman",
    aggregate: console.Aggregate = "all",
    format: console.PrintFormat = "table",
    force: console.Again = False,
    quiet: console.Quiet = False,
) -> None:
    """Score saved pairs or vectors again, without the model: the report that `eval` would give.

    A report's pairs bring their tasks, split and protocol, and need no data folder. Vectors are made of the sentences
    that `data sentences` writes; --raw keeps every digit.

    \b
    simcse-bench rescore results/sts/M.json --resamples 10000
    simcse-bench rescore results/sts/M.pairs.jsonl --metric pearson --aggregate wmean
    simcse-bench data sentences --suite sts --out sts.txt
    simcse-bench encode sts.txt --model M --raw --out M.npy
    simcse-bench rescore M.npy --suite sts
    """
    from simcse_bench.data.task import AGGREGATES, METRICS
    from simcse_bench.progress import silent

    problems = console.choice_problems(
        aggregation=(aggregate, AGGREGATES), metric=(metric, METRICS), format=(format, console.PRINT_FORMATS)
    )
    of_pairs = file.suffix in (".json", ".jsonl")
    given = console.given_options(context, rescore_command, VECTORS)
    if of_pairs and given:
        problems.append(f"{', '.join(given)}: not with {file}; pairs bring their tasks, split, protocol and data.")
    if suite and task:
        problems.append("--suite and --task exclude each other; name the suite, or the tasks.")
    if limit is not None and limit < 2:
        problems.append(f"--limit {limit}: a correlation needs at least 2 pairs of each subset.")
    if problems:
        raise UserError(*problems)
    say = silent if quiet else console.aloud
    if of_pairs:
        from simcse_bench.evaluation.rescore import plan_rescore

        plans = [plan_rescore(file, resamples, bootstrap_seed, out, name, force)]
    else:
        from simcse_bench.evaluation.evaluate import distinct_sentences
        from simcse_bench.evaluation.run import EvaluationSettings
        from simcse_bench.search.vectors import open_vectors

        settings = EvaluationSettings(
            suite=",".join(console.split_names(suite, "--suite")), tasks=console.split_names(task, "--task"),
            protocol=protocol, split=split, limit=limit, probe=probe, resamples=resamples,
            bootstrap_seed=bootstrap_seed, where=console.where_from(data_dir, tasks_dir, data_revision), out=out,
            force=force,
        )  # fmt: skip
        vectors = open_vectors(file, sentences, column, name)
        plans = plans_of(vectors, settings, say)
        for plan in plans:
            if plan.existing:  # it may be of other vectors of that model
                saved: Any = vectors.load()
                saved.require(distinct_sentences(plan.data.values()))
    print_evaluations(plans, run_plans(plans, quiet, "none", say), metric, aggregate, format, quiet)
