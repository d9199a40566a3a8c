"""The commands around `SimCSE`, the official package's class: `index`, `search`, `encode` and `demo`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_bench.cli import console
from simcse_bench.errors import UserError

if TYPE_CHECKING:
    from simcse_bench.search.encode_file import Embedder
    from simcse_bench.search.simcse import SimCSE

EXAMPLES = 1000  # embedded sentences that `demo` takes without a corpus, as many as the official demo
LENGTH = 128  # simcse.MAX_LENGTH, which is not loaded for --help
Model = Annotated[
    str, console.what("--model", "-m", help="Folder, Hub id, a name from `ls models`, or word-vectors:FILE.")
]
MaxLength = Annotated[int, console.how(help="Truncate after so many tokens (the model's own limit holds too).")]
Column = Annotated[str | None, console.what(help="Column of the sentences, where the file has several.")]
_FILE = "Sentences: .txt, .csv, .tsv, .jsonl (each also .gz), .parquet, or mini-sentences."


def index_command(
    *,
    file: Annotated[str, typer.Argument(help=_FILE)],
    model: Model,
    revision: console.Revision = None,
    column: Column = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    max_length: MaxLength = LENGTH,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    dtype: console.Dtype = "auto",
    device: console.Devices = "auto",
    approximate: Annotated[
        str | None,
        console.how(metavar="hnsw|ivf", help="Search faster, through faiss, not exactly; its recall is measured."),
    ] = None,
    out: Annotated[Path, console.where(help="Folder of the index.")],
    force: Annotated[bool, console.output("--force", help="Replace an index that is there.")] = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Embed a file's sentences, and save them with their vectors for `search` and `demo`.

    \b
    simcse-bench index sentences.txt --model princeton-nlp/sup-simcse-bert-base-uncased --out my-index
    simcse-bench index million.txt --model mini --approximate ivf --out large-index
    """
    from simcse_bench.data.corpus import read_sentences
    from simcse_bench.progress import show_progress
    from simcse_bench.reports.table import counted
    from simcse_bench.search.faiss import Approximate, require_approximate
    from simcse_bench.search.index import describe_approximate, require_place
    from simcse_bench.search.simcse import SimCSE

    console.require_choices(progress=(progress, console.PROGRESS))
    if approximate is not None:
        require_approximate(approximate)
    require_place(out, force)
    sentences, blank = read_sentences(file, column)
    pooling, head = console.named_view(pooling, head, pooler)
    made = SimCSE(
        model, device, pooling=pooling, head=head, revision=revision, max_length=max_length, dtype=dtype,
        prompt=console.prompt_from(prompt, prompt_name, template, False), truncate_dim=truncate_dim,
        trust_code=trust_remote_code,
    )  # fmt: skip
    with show_progress(progress, "sentences") as made.progress:
        made.build_index(sentences, approximate=approximate)
    made.save_index(out, force)
    console.aloud(
        f"written: {out}/, {counted(len(sentences), 'sentence')}{_left_out(blank)}"
        f"{_cut(made.stats.get('truncated', 0), made)}"
    )
    if made.index is not None and isinstance(made.index.store, Approximate):
        console.aloud(describe_approximate(made.index.store))


def search_command(
    index: Annotated[Path, typer.Argument(help="Folder that `index` has made.")],
    query: Annotated[list[str], typer.Argument(help="One sentence or several.")],
    top_k: Annotated[int, console.what(help="At most so many for each.")] = 5,
    threshold: Annotated[float, console.what(help="Only those with at least this cosine.")] = 0.6,
    model: Annotated[str | None, console.what("--model", "-m", help="The index's model, where it has moved.")] = None,
    exact: Annotated[bool, console.how("--exact", help="Compare every sentence, of an approximate index too.")] = False,
    trust_remote_code: console.TrustCode = False,
    device: console.Devices = "auto",
    format: Annotated[str, console.output(metavar="table|json", help="What is printed.")] = "table",
) -> None:
    """Find the sentences of an index that are nearest to a sentence.

    \b
    simcse-bench search my-index "He plays guitar." --top-k 10 --threshold 0.5
    """
    from simcse_bench.reports.table import Table

    problems = console.choice_problems(format=(format, ("table", "json")))
    if top_k < 1:
        problems.append(f"--top-k {top_k}: expected at least 1.")
    if not -1 <= threshold <= 1:
        problems.append(f"--threshold {threshold:g}: expected a cosine, from -1 to 1.")
    if problems:
        raise UserError(*problems)
    opened = _open_index(index, model, device, exact, trust_remote_code)
    hits = opened.nearest(query, threshold=threshold, top_k=top_k)
    if format == "json":
        content = [
            {"query": one, "results": [{"sentence": text, "score": score} for text, score in results]}
            for one, results in zip(query, hits, strict=True)
        ]
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    for one, results in zip(query, hits, strict=True):
        notes = [] if results else [f"no sentence reaches a cosine of {threshold}; lower --threshold."]
        console.print_table(
            Table(one, ("cosine", "sentence"), [(f"{score:.4f}", text) for text, score in results], notes)
        )


def encode_command(
    *,
    file: Annotated[str, typer.Argument(help=_FILE)],
    model: Model,
    revision: console.Revision = None,
    column: Column = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    max_length: MaxLength = LENGTH,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    dtype: console.Dtype = "auto",
    device: console.Devices = "auto",
    executor: Annotated[
        str, console.how(metavar="local|ray", help="Block after block here, or shards of the file on a Ray cluster.")
    ] = "local",
    ray_address: console.RayAddress = None,
    cpus_per_shard: Annotated[
        float | None, console.how(help="With ray: CPUs a shard takes (as many as threads here).")
    ] = None,
    gpus_per_shard: Annotated[
        float | None, console.how(help="With ray: GPUs a shard takes (1, if there are any).")
    ] = None,
    out: Annotated[Path, console.where(help="vectors.npy, or .parquet with row numbers and sentences.")],
    raw: Annotated[bool, console.output("--raw", help="Not scaled to length 1.")] = False,
    force: Annotated[bool, console.output("--force", help="Replace what is there.")] = False,
    progress: console.ProgressKind = "auto",
) -> None:
    """Embed a file's sentences, however many, into a file of vectors. The same command goes on after a kill.

    \b
    simcse-bench encode sentences.txt --model princeton-nlp/sup-simcse-bert-base-uncased --out vectors.npy
    simcse-bench encode sentences.txt --model mini --out vectors.npy --executor ray --ray-address head:6379
    """
    from simcse_bench.data.corpus import open_sentences
    from simcse_bench.progress import show_progress
    from simcse_bench.reports.table import counted
    from simcse_bench.search.encode_file import embed_here, encode_file, require_target
    from simcse_bench.search.simcse import SimCSE

    console.require_choices(progress=(progress, console.PROGRESS))
    cluster = console.ray_cluster(executor, "shard", ray_address, cpus_per_shard, gpus_per_shard)
    embed: Embedder = embed_here
    if cluster is not None:
        from simcse_bench.search.ray import embed_on_ray

        embed = functools.partial(embed_on_ray, cluster=cluster)
    require_target(out, force)
    open_sentences(file, column)  # what is wrong with it is told before the model is loaded
    pooling, head = console.named_view(pooling, head, pooler)
    opened = SimCSE(
        model, device, pooling=pooling, head=head, revision=revision, max_length=max_length, dtype=dtype,
        prompt=console.prompt_from(prompt, prompt_name, template, False), truncate_dim=truncate_dim,
        trust_code=trust_remote_code,
    )  # fmt: skip
    with show_progress(progress, "sentences") as show:
        record = encode_file(opened, file, out, column, not raw, force, show, console.aloud, embed)
    shape = f"{counted(record.sentences, 'sentence')}, {record.dimension} values each"
    console.aloud(f"{out}: {shape}{_left_out(record.blank)}{_cut(record.truncated, opened)}")


def demo_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As for `index`; with --index its own is taken.")
    ] = None,
    model_option: console.ModelOption = None,
    corpus: Annotated[str | None, console.what(help=f"{_FILE} Without: the first 1,000 of mini-sentences.")] = None,
    index: Annotated[Path | None, console.what(help="Folder that `index` has made, instead of --corpus.")] = None,
    revision: console.Revision = None,
    column: Column = None,
    pooling: console.Pooling = None,
    head: console.Head = None,
    pooler: console.Pooler = None,
    max_length: MaxLength = LENGTH,
    prompt: console.Prompt = None,
    prompt_name: console.PromptName = None,
    template: console.Template = None,
    truncate_dim: console.TruncateDim = None,
    trust_remote_code: console.TrustCode = False,
    dtype: console.Dtype = "auto",
    device: console.Devices = "auto",
    port: Annotated[int, console.where(help="Port; 0: any free one.")] = 8888,
    host: Annotated[
        str, console.where(help="Address to answer at; 0.0.0.0: for whoever reaches this machine.")
    ] = "127.0.0.1",
    progress: console.ProgressKind = "auto",
) -> None:
    """Serve a page on this machine: search over a corpus, and the similarity of two sentences.

    \b
    simcse-bench demo mini
    simcse-bench demo --index my-index --port 9000
    """
    from simcse_bench.data.corpus import read_sentences
    from simcse_bench.files import shown_name
    from simcse_bench.progress import show_progress
    from simcse_bench.reports.table import counted
    from simcse_bench.search import demo
    from simcse_bench.search.simcse import SimCSE

    console.require_choices(progress=(progress, console.PROGRESS))
    pooling, head = console.named_view(pooling, head, pooler)
    own = corpus, pooling, head, revision, prompt, prompt_name, template, truncate_dim
    if index is not None and any(value is not None for value in own):
        raise UserError(
            "--index has its own corpus and model settings; leave --corpus, --pooling, --prompt and the like."
        )
    if index is None and model is None and model_option is None:
        raise UserError("no model: give one (`mini` ships with simcse-bench), or --index.")
    named = console.one_model(model, model_option) if model or model_option else None
    with demo.take_port(host, port) as server:
        if index is not None:
            name, opened = shown_name(str(index)), _open_index(index, named, device, trust_code=trust_remote_code)
        else:
            name = corpus or "mini-sentences"
            sentences, blank = read_sentences(name, column)
            sentences = sentences if corpus else sentences[:EXAMPLES]
            opened = SimCSE(
                str(named), device, pooling=pooling, head=head, revision=revision, max_length=max_length, dtype=dtype,
                prompt=console.prompt_from(prompt, prompt_name, template, False), truncate_dim=truncate_dim,
                trust_code=trust_remote_code,
            )  # fmt: skip
            with show_progress(progress, "sentences") as opened.progress:
                opened.build_index(sentences)
            opened.progress = None
            console.aloud(
                f"{counted(len(sentences), 'sentence')}{_left_out(blank)}"
                f"{_cut(opened.stats.get('truncated', 0), opened)}"
            )
        server.answers = demo.Answers(opened, shown_name(name))
        if not server.local:
            console.aloud(f"warning: whoever reaches this machine at {host} can use the demo.")
        console.aloud(f"{server.url} (Ctrl-C stops)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.aloud("stopped")


def _open_index(folder: Path, model: str | None, device: str, exact: bool = False, trust_code: bool = False) -> SimCSE:
    """The index's model, as it was used, with the index."""
    from simcse_bench.models.checkpoints import LIBRARY
    from simcse_bench.models.copies import named_devices
    from simcse_bench.models.open import takes_no_settings
    from simcse_bench.models.prompts import SLOT, PromptOptions
    from simcse_bench.search import index
    from simcse_bench.search.simcse import SimCSE

    about = index.read_index_record(folder)["model"]
    name = model or index.locate_model(str(about["located"]), folder)
    settings: dict[str, Any] = {"dtype": "float32"}
    if not takes_no_settings(name):
        template = PromptOptions(template=about.get("template") or SLOT)
        settings = {"dtype": about.get("dtype", "auto"), "prompt": template, "truncate_dim": about.get("truncate_dim")}
        settings |= {"revision": about.get("revision") if model is None else None, "trust_code": trust_code}
        if about["pooling"] != LIBRARY:
            settings |= {"pooling": about["pooling"], "head": about["head"]}
    named_devices(device)  # one that is not here is not the model's fault
    try:
        opened = SimCSE(name, device, **settings, max_length=about["max_length"] or LENGTH)
    except UserError as error:
        raise UserError(
            *error.problems, f"{folder} was made with {about['name']}; say where it is: --model."
        ) from error
    opened.load_index(folder, use_faiss=False if exact else None)
    return opened


def _left_out(blank: int) -> str:
    from simcse_bench.reports.table import counted

    return f"; {counted(blank, 'blank line')} left out" if blank else ""


def _cut(truncated: int, model: SimCSE) -> str:
    return f"; {truncated:,} cut off after {model.provenance['max_length']} tokens" if truncated else ""
