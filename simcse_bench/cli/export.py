"""The command that hands a model on: `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError
from simcse_bench.progress import silent


def export_command(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Folder of a run or a checkpoint, Hub id, or a name from `ls models`.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[str, console.what(metavar="sentence-transformers| transformers|onnx", help="The library it is for.")],
    model_option: console.ModelOption = None,
    revision: console.Revision = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    max_length: console.MaxLength = None,
    tolerance: Annotated[
        float, console.how(help="Largest difference to our embeddings, as a share of their largest value.")
    ] = 1e-4,
    out: Annotated[Path, console.where(help="Folder of the export; new, empty, or with --force.")],
    results: Annotated[Path, console.where(help="Folder with reports: the card's scores.")] = Path("results"),
    name: Annotated[str | None, console.output(help="Name on the card (that of the repository or folder).")] = None,
    license: Annotated[str | None, console.output(help="For the card: mit, apache-2.0, ...")] = None,
    language: Annotated[list[str] | None, console.output(help="For the card: en, de, ...; repeatable.")] = None,
    base_model: Annotated[str | None, console.output(help="For the card: Hub id of the start, if unknown.")] = None,
    tag: Annotated[list[str] | None, console.output(help="Further tags of the card; repeatable.")] = None,
    push_to_hub: Annotated[str | None, console.output(help="Publish as owner/name on the Hugging Face Hub.")] = None,
    private: Annotated[bool, console.output("--private", help="A new repository is private.")] = False,
    update_repo: Annotated[
        bool, console.output("--update-repo", help="Commit to a repository that has files already.")
    ] = False,
    force: Annotated[bool, console.output("--force", help="Write into a folder that holds something else.")] = False,
    quiet: Annotated[bool, console.output("--quiet", "-q", help="No notes: only the result.")] = False,
) -> None:
    """Export a model for other libraries, checked against our own embeddings, with a model card.

    \b
    simcse-bench export runs/unsup --to sentence-transformers --out exported --license mit --language en
    simcse-bench export runs/unsup --to onnx --out exported-onnx
    simcse-bench export runs/unsup --to transformers --out exported --push-to-hub me/my-simcse --private
    """
    from simcse_bench.export import card, publish, run

    if not tolerance > 0:
        raise UserError(f"--tolerance {tolerance:g}: expected a number above 0, such as {run.TOLERANCE:g}.")
    if push_to_hub is None and (private or update_repo):
        raise UserError("--private and --update-repo belong to --push-to-hub.")
    named = console.one_model(model, model_option)
    pooling, head = console.named_view(pooling, head, pooler)
    shown = name or (push_to_hub or out.resolve().name).split("/")[-1]
    about = card.About(shown, push_to_hub, license, tuple(language or ()), base_model, tuple(tag or ())).check()
    checkpoint, record = run.find_model(named, revision, pooling, head, max_length)
    run.check_export(to, out, checkpoint, force)
    if push_to_hub is not None:
        publish.check_repo(push_to_hub, private, update_repo)
    scores = card.read_measured(results, checkpoint.provenance())
    say = silent if quiet else console.aloud
    export, files = run.export_model(
        run.Export(to, checkpoint, record), out, tolerance, lambda done: card.model_card(done, about, scores)
    )
    parity = export.parity
    typer.echo(
        f"{out}: {to}, {export.dimension} dimensions, largest difference to our embeddings "
        f"{parity['difference']:.1e} over {parity['sentences']} sentences (tolerance {tolerance:g})"
    )
    suites = ", ".join(dict.fromkeys(r.suite for r in scores.reports))
    say(f"model card: scores of {suites} from {results}" if suites else f"model card: no scores in {results}; evaluate "
        f"with `simcse-bench eval {named}` and export again to have them")  # fmt: skip
    if license is None:
        say("model card: no license; give --license")
    if push_to_hub is not None:
        url = publish.push_export(out, files, push_to_hub, private, f"simcse-bench export --to {to}")
        typer.echo(f"{push_to_hub}: {len(files)} files published, {url}")
