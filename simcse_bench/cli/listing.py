"""The commands that look: `ls`, `doctor`, `report`, `card`, `data where`, `fetch`, `sentences`, `check`, `overlap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simcse_bench.cli import console, official
from simcse_bench.errors import UserError, unknown


def list_command(
    what: Annotated[
        str,
        typer.Argument(
            help="tasks, suites, models, poolings, protocols, recipes, methods, settings, ablations or schemas"
        ),
    ] = "tasks",
    tasks_dir: console.TasksDir = None,
) -> None:
    """List what has a name: tasks, suites, models, poolings, protocols, recipes, settings of `train`, and so on.

    \b
    simcse-bench ls models
    simcse-bench ls settings
    simcse-bench ls tasks --tasks-dir my-tasks
    """

    from simcse_bench.cli import lists

    if what == "schemas":
        schema_command()
        return
    listings = {
        "tasks": lambda: lists.list_tasks(tasks_dir),
        "suites": lambda: lists.list_suites(tasks_dir),
        "models": lists.list_models,
        "poolings": lists.list_poolings,
        "protocols": lists.list_protocols,
        "recipes": lists.list_recipes,
        "methods": lists.list_methods,
        "settings": lists.list_settings,
        "ablations": lists.list_ablations,
    }
    if what not in listings:
        raise unknown("list", what, [*listings, "schemas"])
    console.print_table(listings[what]())


# name of a kind of file of ours -> the type it is read as
SCHEMAS = {
    "report": "simcse_bench.reports.report:Report",
    "pairs": "simcse_bench.reports.pair_records:PairsLine",
    "mteb": "simcse_bench.reports.mteb:MtebReport",
    "overlap": "simcse_bench.reports.overlap:Overlap",
    "trial": "simcse_bench.experiments.trial:TrialResult",
    "summary": "simcse_bench.reports.summary:Summary",
    "reproduction": "simcse_bench.reports.reproduction:Reproduced",
    "trajectories": "simcse_bench.reports.reproduction:Trajectories",
    "geometry": "simcse_bench.reports.geometry:Analysis",
    "robustness": "simcse_bench.reports.robustness:Robustness",
    "speed": "simcse_bench.reports.speed:Speed",
    "train": "simcse_bench.training.folder:RunRecord",
    "log": "simcse_bench.training.folder:LogLine",
    "checkpoint": "simcse_bench.training.folder:State",
    "config": "simcse_bench.training.config:TrainConfig",
    "settings": "simcse_bench.models.weights:ModelSettings",
    "tokens": "simcse_bench.training.tokenised:CachedTokens",
    "index": "simcse_bench.search.index:IndexRecord",
    "encode": "simcse_bench.search.encode_file:Encoded",
    "export": "simcse_bench.export.run:ExportRecord",
}


def schema_command(
    name: Annotated[str | None, typer.Argument(help="A kind of file; none: lists them.")] = None,
) -> None:
    """Print the JSON schema of a kind of file that we write: report, trial, summary, ...

    A .jsonl file (pairs, log) holds one such object a line.

    \b
    simcse-bench schema
    simcse-bench schema report
    """
    import json

    from simcse_bench.reports.table import Table

    if name is not None and name not in SCHEMAS:
        raise unknown("schema", name, SCHEMAS)
    if name is not None:
        typer.echo(json.dumps(versioned_schema(name), indent=1, ensure_ascii=False))
        return
    rows = [[kind, versioned_schema(kind)["$id"]] for kind in SCHEMAS]
    console.print_table(Table("files of simcse-bench; `simcse-bench schema NAME` prints one", ["name", "schema"], rows))


def versioned_schema(name: str) -> dict[str, Any]:
    """The JSON schema of a kind of file, with its name and version."""
    import importlib

    from simcse_bench.schema import json_schema, schema_version

    module, _, kind = SCHEMAS[name].partition(":")
    schema = json_schema(getattr(importlib.import_module(module), kind))
    known_as = f"simcse-bench/{name}/{schema_version(schema)}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": known_as, **schema}


def report_command(
    results: Annotated[Path, typer.Argument(help="Folder with reports.")] = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 2 if a table is stale.")] = False,
) -> None:
    """Draw every table below a results folder anew from its JSON reports.

    \b
    simcse-bench report
    simcse-bench report results --check
    """
    from simcse_bench.reports.site import regenerate

    files = regenerate(results, check)
    typer.echo(f"{len(files)} files {'are up to date' if check else 'written'} below {results}")


def card_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its name in reports, or the last part of that.")],
    results: Annotated[Path, console.where(help="Folder of the results.")] = Path("results"),
    out: Annotated[Path | None, console.where(help="Folder of the page (default: RESULTS/models).")] = None,
    quiet: console.Quiet = False,
) -> None:
    """Write a page on one model: all that its saved results say, and the command that makes each number again.

    Scores with intervals and the published row beside them, geometry, robustness, contamination, speed, and what is
    not measured yet; as HTML and Markdown. No model is loaded. `simcse-bench report` draws the page anew with the
    others and links it from index.html.

    \b
    simcse-bench card sentence-transformers/all-MiniLM-L6-v2
    simcse-bench card mini --results results --out pages
    """
    from simcse_bench.reports.model_page import write_model_page

    page = write_model_page(model, results, out)
    console.print_table(page.scores)
    for problem in page.left_out:
        console.aloud(f"left out: {problem}")
    if not quiet:
        console.aloud(f"written: {page.html} (.md)")


def doctor_command(
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Results = Path("results"),
    as_json: Annotated[bool, console.output("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at this machine: torch, threads, kernels, GPU, data, caches, extras; what a missing piece costs.

    Nothing is downloaded or written.

    \b
    simcse-bench doctor
    simcse-bench doctor --json
    """
    import dataclasses
    import json

    from simcse_bench.doctor import doctor_table, examine

    findings = examine(console.where_from(data_dir, None, data_revision), out)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=1, ensure_ascii=False))
    else:
        console.print_table(doctor_table(findings))


data_app = typer.Typer(help="Where the evaluation data is; download and check it.", no_args_is_help=True)


@data_app.command("where", cls=official.Command)
def data_where(data_dir: console.DataDir = None, data_revision: console.DataRevision = "main") -> None:
    """Say which folder the data is read from; download nothing.

    \b
    simcse-bench data where
    simcse-bench data where --data-dir SentEval/data
    """
    from simcse_bench.data.senteval import find_root

    root = find_root(console.where_from(data_dir, None, data_revision), download=False)
    typer.echo(f"{root.path} ({root.origin})")


@data_app.command("fetch", cls=official.Command)
def data_fetch(
    data_revision: console.DataRevision = "main",
    force: Annotated[bool, typer.Option("--force", help="Download and unpack again.")] = False,
) -> None:
    """Download the official archive (senteval.tar, 90 MB) from the Hub into the cache.

    \b
    simcse-bench data fetch
    SIMCSE_BENCH_CACHE=/big/disk simcse-bench data fetch
    """
    from simcse_bench.data.senteval import fetch_archive

    root = fetch_archive(data_revision, force)
    typer.echo(f"{root.path} ({root.origin})")


@data_app.command("sentences", cls=official.Command)
def data_sentences(
    out: Annotated[Path, typer.Option(help="sentences.txt, one a line; or .jsonl.")],
    task: Annotated[list[str] | None, console.what(help="Only these tasks: stsb,sickr.")] = None,
    suite: Annotated[list[str] | None, console.what(help="sts (default), or others: sts,transfer.")] = None,
    split: Annotated[str | None, console.what(metavar="dev|test", help="Default: the protocol's, test.")] = None,
    protocol: Annotated[str, console.how(metavar="simcse|mteb", help="Whose text.")] = "simcse",
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    force: Annotated[bool, console.output("--force", help="Replace what is there.")] = False,
) -> None:
    """Write every distinct sentence that an evaluation embeds, for `encode` on another machine and `rescore` here.

    \b
    simcse-bench data sentences --suite sts --out sts.txt
    simcse-bench data sentences --task stsb,sickr --split dev --out dev.jsonl
    """
    from simcse_bench.evaluation.run import EvaluationSettings, sentences_of, write_sentences

    names = console.split_names(task, "--task")
    if suite and names:
        raise UserError("--suite and --task exclude each other; name the suite, or the tasks.")
    suites = ",".join(console.split_names(suite, "--suite")) or ("" if names else "sts")
    where = console.where_from(data_dir, tasks_dir, data_revision)
    settings = EvaluationSettings(suite=suites, tasks=names, protocol=protocol, split=split, where=where)
    count = write_sentences(out, sentences_of(settings), force)
    typer.echo(f"{out}: {count:,} sentences")


@data_app.command("check", cls=official.Command)
def data_check(
    task: Annotated[list[str] | None, console.what(help="Only these tasks: stsb,sickr.")] = None,
    suite: Annotated[list[str] | None, console.what(help="Only the tasks of these suites, such as sts-ja.")] = None,
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
) -> None:
    """Check row counts, gold ranges and duplicates of every task, and print the fingerprints reports carry.

    Other languages are checked where a copy of their data is here; named by --task or --suite, they come from the Hub.
    SNLI and the probing tasks are checked where they are here, or named.

    \b
    simcse-bench data check
    simcse-bench data check --suite sts-ja
    """
    from simcse_bench.cli import lists
    from simcse_bench.data.pairs import data_root
    from simcse_bench.data.registry import load_suite, load_task, task_names

    chosen = [load_task(name, tasks_dir) for name in console.split_names(task, "--task")]
    chosen += [one for name in console.split_names(suite, "--suite") for one in load_suite(name, tasks_dir)]
    tasks = chosen or [load_task(name, tasks_dir) for name in task_names(tasks_dir)]
    root = data_root(tasks, console.where_from(data_dir, tasks_dir, data_revision))
    table, problems = lists.check_data(tasks, root.path if root else None, fetch=bool(chosen))
    if root:
        typer.echo(f"{root.path} ({root.origin})", err=True)
    console.print_table(table)
    if problems:
        raise UserError(*problems)


@data_app.command("overlap", cls=official.Command)
def data_overlap(
    train: Annotated[str, console.what(help="Training text: a file, wiki1m, nli, or a dataset on the Hub.")],
    suite: Annotated[list[str] | None, console.what(help="Suites whose sentences are searched for: sts.")] = None,
    task: Annotated[list[str] | None, console.what(help="Tasks instead of a suite: stsb,sickr.")] = None,
    split: Annotated[str | None, console.what(metavar="dev|test", help="Default: the protocol's, test.")] = None,
    column: Annotated[list[str] | None, console.what(help="Columns of the text: sent0,sent1 (default: all).")] = None,
    protocol: Annotated[
        str, console.how(metavar="simcse|mteb", help="mteb: SICK-R's 9,927 pairs; the texts of both are searched for.")
    ] = "simcse",
    kind: Annotated[
        list[str] | None, console.how(help="What counts: exact, normalised, inside, near (default: all).")
    ] = None,
    min_words: Annotated[int, console.how(help="Different words of a sentence that is looked for as near.")] = 4,
    tasks_dir: console.TasksDir = None,
    data_dir: console.DataDir = None,
    data_revision: console.DataRevision = "main",
    out: console.Results = Path("results"),
    force: Annotated[bool, console.output("--force", help="Search again, replacing an existing record.")] = False,
    quiet: console.Quiet = False,
) -> None:
    """Search a training text, of any size, for the sentences of evaluation tasks.

    Writes OUT/overlap/TEXT--SUITE.json with a table (.md) and every sentence found (.csv). Leaderboards mark models
    trained on that text; `eval --exclude-overlap FILE` scores without the pairs that were found.

    \b
    simcse-bench data overlap --train wiki.txt
    simcse-bench data overlap --train nli.csv --column sent0,sent1 --suite sts --min-words 8
    simcse-bench data overlap --train stsb-train.tsv --task sts12,sts13 --kind exact,normalised
    """
    from dataclasses import replace

    from simcse_bench.data.corpus import open_corpus
    from simcse_bench.data.overlap import KINDS
    from simcse_bench.data.registry import load_suite, load_task
    from simcse_bench.data.task import named_protocol
    from simcse_bench.evaluation.overlap import find_overlaps
    from simcse_bench.progress import silent
    from simcse_bench.reports.overlap import overlap_path, overlap_table

    if suite and task:
        raise UserError("--suite and --task exclude each other; name the suite, or the tasks.")
    if min_words < 1:
        raise UserError(f"--min-words {min_words}: expected at least 1.")
    names, suites = console.split_names(task, "--task"), console.split_names(suite, "--suite") or ("sts",)
    tasks = [load_task(n, tasks_dir) for n in names] or [t for s in suites for t in load_suite(s, tasks_dir)]
    rules = named_protocol(protocol)
    rules = replace(rules, split=split, task_splits={}) if split else rules
    corpus = open_corpus(train, console.split_names(column, "--column"), option="--column a,b")
    label = "+".join(names or suites)
    variant = f"--{protocol}" * (protocol != "simcse") + f"--{split}" * (split not in (None, "test"))
    path = overlap_path(out, corpus.name, label, variant)
    overlap, known = find_overlaps(
        corpus, tasks, rules, console.where_from(data_dir, tasks_dir, data_revision), label,
        console.split_names(kind, "--kind") or tuple(KINDS), min_words, path, force, silent if quiet else console.aloud,
    )  # fmt: skip
    console.print_table(overlap_table(overlap))
    if not quiet:
        console.aloud(f"{'already there, printed again' if known else 'written'}: {path} (.md, .csv)")
