"""`eval --dry-run`: what would be loaded, why, on which data, and where the report would go; nothing is computed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_bench import bundled, hub
from simcse_bench.data.hub_datasets import shown_dataset
from simcse_bench.data.pairs import needs_root, parts
from simcse_bench.data.rows import file_paths, in_archive
from simcse_bench.data.senteval import ARCHIVE, REPO, DataRoot, find_root, given_root, is_configured
from simcse_bench.data.task import EvalProtocol, Task
from simcse_bench.errors import Unavailable
from simcse_bench.evaluation.run import EvaluationSettings, default_suite, destination, each_suite
from simcse_bench.files import read_json
from simcse_bench.models import baselines, checkpoints
from simcse_bench.models.baselines import whitening_provenance
from simcse_bench.models.catalog import HEADS, POOLINGS, known_model
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.mteb_model import PREFIX, registry_entry
from simcse_bench.models.prompts import NO_WISH, PromptOptions
from simcse_bench.models.weights import weight_files
from simcse_bench.reports.table import Table

NOT_HERE = "not on this machine"
_CATALOG = "catalog (`ls models`)"
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # their position table starts behind the padding index


@dataclass(frozen=True)
class Asked:
    """The model as the command line names it; see ``open_model``."""

    model: str
    revision: str | None = None
    pooling: str | None = None
    head: str | None = None
    max_length: int | None = None
    whiten: Path | None = None
    dtype: str = "auto"
    name: str | None = None
    prompt: PromptOptions = NO_WISH
    truncate_dim: int | None = None
    trust_code: bool = False


def describe_evaluation(asked: Asked, settings: EvaluationSettings) -> list[Table]:
    """Two tables: the model; the data and the reports of each suite.

    Weights and data sets are not downloaded; of a model on the Hub only its small settings files are read.

    Raises:
        UserError: whatever the evaluation itself would refuse before it loads anything.
    """
    whitening = {} if asked.whiten is None else whitening_provenance(asked.whiten)
    with tempfile.TemporaryDirectory() as scratch:
        provenance, rows = _model(asked, Path(scratch))
    provenance |= {"name": asked.name or provenance["name"]}
    if dtype := provenance.get("dtype"):  # else known once it is loaded
        stored = "how its weights are stored" if dtype != "float32" else "the default"
        rows.append(["dtype", dtype, stored if asked.dtype == "auto" else "--dtype"])
    if asked.whiten is not None:
        provenance |= whitening
        rows.append(["whitening", f"fitted on {asked.whiten}", "--whiten"])
    suite_from = "--suite" if settings.suite else "--task"
    if not settings.suite and not settings.tasks:
        settings = replace(settings, suite=default_suite(provenance, settings.where))
        suite_from = "the model's language" if settings.suite.startswith("sts-") else "the default"
        if settings.suite == bundled.SUITE:
            suite_from = "the embedded data: no real data is configured"
    title = f"{provenance['name']}: what would be evaluated (nothing was computed)"
    model = Table(title, ["", "value", "decided by"], rows)
    return [model, *(_suite(provenance, one, suite_from) for one in each_suite(settings))]


def _model(asked: Asked, scratch: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """What reports are named by, and the rows that tell how the model would be used."""
    if baselines.is_baseline(asked.model):
        words = baselines.named_baseline(asked.model)
        pooling = ["pooling", words.provenance["pooling"], "word vectors have one"]
        return words.provenance | {"dtype": "float32"}, [["files", str(words.file), "--model"], pooling]
    if asked.model.startswith(PREFIX):
        meta = registry_entry(asked.model)
        said = {"name": PREFIX + meta.name, "revision": meta.revision, "library": "mteb"}
        return said, [["revision", str(meta.revision), "mteb's registry"]]
    problem = ""
    try:
        checkpoint = checkpoints.resolve(
            asked.model, asked.revision, asked.pooling, asked.head, asked.max_length, scratch,
            asked.prompt, asked.truncate_dim, asked.trust_code,
        )  # fmt: skip
    except Unavailable as error:  # what the catalog says needs no file
        spec = known_model(asked.model)
        if spec is None:
            raise
        checkpoint = checkpoints.from_catalog(spec, asked.pooling, asked.head, asked.max_length)
        problem = error.problems[0]
    rows = _rows(checkpoint, _files(checkpoint, scratch), problem, asked.max_length)
    return checkpoint.provenance(fingerprints=False) | {"dtype": checkpoint.settled_dtype(asked.dtype)}, rows


def _files(checkpoint: Checkpoint, scratch: Path) -> list[str]:
    """Files with their sizes: those on this machine, or those a download would bring."""
    if checkpoint.folder != Path() and not checkpoint.folder.is_relative_to(scratch):
        return [f"{name} ({_size(path.stat().st_size)})" for name, path in checkpoint.files().items()]
    if checkpoint.folder == Path():
        return []
    model, revision = (checkpoint.base, None) if checkpoint.base else (checkpoint.name, checkpoint.revision)
    return [f"{name} ({_size(size)})" for name, size in hub.file_sizes(model, revision).items()]


def _rows(checkpoint: Checkpoint, files: Sequence[str], problem: str, given: int | None) -> list[list[str]]:
    if checkpoint.folder != Path() and weight_files(checkpoint.folder):
        place = str(checkpoint.folder)
    else:
        place = f"{NOT_HERE}; would be downloaded from the Hub" + f". {problem}" * (checkpoint.folder == Path())
    origin = f"Hub, revision {checkpoint.revision}" if checkpoint.revision else "the name" if not files else "--model"
    spec, reason = checkpoint.spec, checkpoint.reason.replace("catalog", _CATALOG)
    pooling = "known once its files are here"
    if spec.pooling:
        pooling = "\n".join(f"{part}: {POOLINGS.get(part, 'its own modules')}" for part in spec.pooling.split("+"))
    rows = [
        ["folder", place, origin],
        *[["files", "\n".join(files), "safetensors where there are any"]] * bool(files),
        ["pooling", pooling, reason],
        ["head", f"{spec.head}: {HEADS[spec.head]}", reason],
        ["max length", *_length(checkpoint, given, reason)],
        ["preprocessing", f"{spec.preprocess}, before the tokenizer" if spec.preprocess else "none",
         _CATALOG if known_model(checkpoint.name) else "only catalog models have one"],
        ["normalised", *(("yes", "modules.json") if checkpoint.normalize else ("no", "no such module"))],
    ]  # fmt: skip
    prompt = checkpoint.prompt
    if prompt.provenance():
        left_out = " (left out of pooling)" * (not prompt.counted)
        rows.append(["prompt", prompt.template + left_out, "the model's own, or the options"])
    rows += [["dimensions", f"the first {checkpoint.truncate_dim}", "truncate_dim"]] * bool(checkpoint.truncate_dim)
    rows += [["embedded by", "sentence-transformers", checkpoint.library]] * bool(checkpoint.library)
    rows += [["usage", checkpoint.taken_usage(), "its card shows several"]] if checkpoint.taken_usage() else []
    rows += [["note", spec.note, _CATALOG]] if spec.note else []
    return rows


def _length(checkpoint: Checkpoint, given: int | None, reason: str) -> tuple[str, str]:
    """Most tokens of a sentence, and where that comes from."""
    if given is not None:
        return str(given), "--max-length"
    if checkpoint.spec.max_length is not None:
        known = known_model(checkpoint.name)
        from_catalog = known is not None and known.max_length is not None
        return str(checkpoint.spec.max_length), _CATALOG if from_catalog else reason
    if checkpoint.folder == Path():
        return "the model's own limit", "its config.json"
    # as loading.length_limit, from the two settings files instead of the loaded model
    config = read_json(checkpoint.folder / "config.json")
    limits = []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        padded = config.get("model_type") in _PADDED_POSITIONS
        limits.append((positions - (int(config.get("pad_token_id") or 0) + 1 if padded else 0), "config.json"))
    path = checkpoint.folder / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.is_file() else None
    if isinstance(length, int) and length < 10**9:
        limits.append((length, "tokenizer_config.json"))
    limit, source = min(limits, default=(None, "its tokenizer"))
    return (f"{limit}, " if limit else "") + "the model's own limit", source


def _suite(provenance: Mapping[str, Any], settings: EvaluationSettings, suite_from: str) -> Table:
    """The tasks of a suite, where their data lies, and where the report would go."""
    tasks, protocol, path = destination(provenance, settings)
    rows = [_task(task, protocol, settings) for task in tasks]
    what = f"suite {settings.suite} ({suite_from})" if settings.suite else "single tasks (--task)"
    there = "a report is there already: the same evaluation is printed again, another needs --force"
    notes = [f"report: {path} (.md, .csv){f'; {there}' if path.exists() and not settings.force else ''}"]
    return Table(f"{what}, protocol {protocol.name}", ["task", "title", "split", "rows", "data"], rows, notes)


def _task(task: Task, protocol: EvalProtocol, settings: EvaluationSettings) -> list[str]:
    split = protocol.split_of(task)
    splits = list(task.splits) if task.kind == "transfer" else [split]
    if not set(splits) <= set(task.splits):
        return [task.name, task.title, split, "", f"no {split} split: left out"]
    counts = [n for s in splits for n in task.splits[s].values()]
    total = str(sum(n for n in counts if n)) if all(counts) else "not known beforehand"
    return [task.name, task.title, " + ".join(splits), total, _place(task, splits, protocol.text, settings)]


def _place(task: Task, splits: Sequence[str], variant: str, settings: EvaluationSettings) -> str:
    """Where a task's rows would come from."""
    _, source = task.source("only" if task.kind == "transfer" else variant)
    subsets = [(split, subset) for split in splits for subset in task.splits[split]]
    if source.format == "hub":
        given = given_root(settings.where)
        copies = [file_paths(task, source, s, n, given.path if given else None) for s, n in subsets]
        if all(copies):
            return "copy " + ", ".join(str(p) for c in copies for p in c.values())
        return f"{shown_dataset(source)}, split {', '.join(n for _, n in subsets)}: from the Hub or its cache"
    if not needs_root(task):
        return str(task.folder)
    configured = is_configured(settings.where)
    if not configured and any(map(in_archive, parts(task))):
        return f"{NOT_HERE}; {ARCHIVE} (90 MB) would be downloaded from {REPO}"
    root = find_root(settings.where, download=False) if configured else DataRoot(task.folder, "beside the task's file")
    absent = [p for s, n in subsets for p in file_paths(task, source, s, n, root.path).values() if not p.is_file()]
    return f"MISSING: {absent[0]}" if absent else f"{root.path} ({root.origin})"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"
