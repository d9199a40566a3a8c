"""Export a model in another library's form, held against our own encoder before anything is left behind."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.errors import UserError, unknown
from simcse_bench.files import environment, now, require_writable, sha256, write_json, write_text
from simcse_bench.models.checkpoints import Checkpoint, resolve
from simcse_bench.models.open import takes_no_settings
from simcse_bench.models.weights import MLP_KEYS, SETTINGS_FILE, dense_head, mlp_head, tensor_names
from simcse_bench.models.weights import RUN_RECORD as RUN
from simcse_bench.schema import read_record

EXPORT_FORMATS = {
    "sentence-transformers": "SentenceTransformer(folder).encode(sentences)",
    "transformers": "AutoModel and AutoTokenizer; a head must be the model's own pooler_output",
    "onnx": "one onnxruntime call from token ids to sentence embeddings: pooling and head are in the graph",
}
EXPORT_RECORD = "export.json"  # beside an export: what it was made from, and how close it is
TOLERANCE = 1e-4
_PACKAGES = {"sentence-transformers": ("sentence_transformers",), "onnx": ("onnx", "onnxruntime", "onnxscript")}
_INSTALL = {"sentence-transformers": "sentence-transformers", "onnx": "simcse-bench[onnx]"}


class _Text(TypedDict):
    name: str
    origin: str
    rows: int
    columns: int
    fingerprint: str


class _Kept(TypedDict):
    step: int
    dev: float | None


class _Dev(TypedDict):
    task: str
    split: str
    metric: str


class _Start(TypedDict):
    name: str
    revision: NotRequired[str | None]


class _Versions(TypedDict):
    torch: str


class _Machine(TypedDict):
    processor: str
    gpu: NotRequired[str]
    processes: int
    versions: _Versions


class RunStatus(TypedDict):
    """What every train.json says."""

    status: str


class TrainedRun(RunStatus):
    """What an export and its card read of a finished run's train.json."""

    config: Mapping[str, Any]
    data: _Text
    model: _Start
    kept: _Kept
    dev: NotRequired[_Dev | None]
    dropout: Mapping[str, float | None]
    steps: int
    epochs: float
    seconds: float
    environment: _Machine
    files: NotRequired[Mapping[str, str] | None]


class ExportRecord(TypedDict):
    """export.json."""

    schema: Literal[1]
    format: str
    model: Mapping[str, Any]
    parity: Mapping[str, Any]
    files: list[str]
    versions: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Export:
    """An export that is done or about to be: what it came from and what its parity test gave."""

    form: str  # a key of EXPORT_FORMATS
    checkpoint: Checkpoint
    record: TrainedRun | None  # train.json, where the source is a run
    dimension: int = 0
    max_length: int = 0
    pooler: bool = False  # AutoModel's pooler_output is the sentence embedding
    parity: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see parity.measure_parity


def find_model(
    name: str,
    revision: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    max_length: int | None = None,
) -> tuple[Checkpoint, TrainedRun | None]:
    """The model to export, and its run's record where it is the folder of a run; options as for ``eval``.

    Raises:
        UserError: a run that is not finished or not whole (it says what is missing), whatever ``resolve`` refuses.
    """
    if takes_no_settings(name):
        raise UserError(f"{name}: no transformers model of a folder or the Hub; there is nothing to export.")
    folder = Path(name)
    given = name != bundled.MODEL and len(name) < 4096 and "\0" not in name and folder.is_dir()
    record = _finished(folder) if given else None
    return resolve(name, revision, pooling, head, max_length), record


def _finished(folder: Path) -> TrainedRun | None:
    """The record of the finished run in a folder; None where it is no run's."""
    if (folder / "optimizer.safetensors").is_file():
        run = folder.parent.parent
        raise UserError(
            f"{folder}: an intermediate state of the run in {run}, not a model. "
            f"Finish it with `simcse-bench train --resume --out {run}`, then export {run}."
        )
    path, steps = folder / RUN, sorted(p.name for p in folder.glob("checkpoints/step-*"))
    if not path.is_file():
        if steps:
            raise UserError(f"{folder}: a run without {RUN}; its last checkpoint is {steps[-1]}. Train it again.")
        return None
    what = "not a run's record; expected one that `simcse-bench train` wrote."
    status = read_record(path, RunStatus, what)["status"]
    if status != "finished":
        last = f"its last checkpoint is {steps[-1]}" if steps else "it has no checkpoint yet"
        raise UserError(
            f"{folder}: this run is not finished ({status}; {last}). "
            f"Go on with `simcse-bench train --resume --out {folder}`, then export it."
        )
    record = read_record(path, TrainedRun, what)
    wanted = dict.fromkeys(["config.json", SETTINGS_FILE, *(record.get("files") or {})])
    missing = [n for n in wanted if not (folder / n).is_file()]
    if not any(folder.glob("tokenizer*")) and not any(n.startswith("tokenizer") for n in wanted):
        missing.append("the tokenizer's files")
    if missing:
        raise UserError(f"{folder}: this run is broken: {', '.join(missing)} missing. Train it again with --force.")
    changed = [n for n, digest in (record.get("files") or {}).items() if sha256(folder / n) != digest]
    if changed:
        raise UserError(
            f"{folder}: {', '.join(changed)} is not what this run wrote ({RUN} has another fingerprint): damaged or "
            f"replaced. Train it again with --force, or remove {RUN} to export the file as it is."
        )
    return record


def check_export(form: str, out: Path, checkpoint: Checkpoint, force: bool) -> None:
    """Refuse, before anything is loaded, what cannot be exported.

    Raises:
        UserError: an unknown format, a missing package, an output folder with something else in it.
    """
    if form not in EXPORT_FORMATS:
        raise unknown("format", form, EXPORT_FORMATS)
    missing = [p for p in _PACKAGES.get(form, ()) if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(
            f'--to {form} needs {", ".join(p.replace("_", "-") for p in missing)}: pip install "{_INSTALL[form]}".'
        )
    _check_form(form, checkpoint)
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot write {out}: it is a file. Choose another --out.")
    if out.is_dir() and out.resolve() == checkpoint.folder.resolve():
        raise UserError(f"--out {out} is the model's own folder; an export never overwrites it. Choose another --out.")
    there = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if there and not force and not _same_source(out, form, checkpoint):
        shown = ", ".join(there[:4]) + (", ..." if len(there) > 4 else "")
        raise UserError(
            f"{out} holds something else ({shown}). Use --force to write beside and over it, or another --out."
        )
    require_writable(out / EXPORT_RECORD)


def _check_form(form: str, checkpoint: Checkpoint) -> None:
    """UserError for what a form has no place for."""
    if form == "sentence-transformers":
        wanted = {"a template around the sentence": bool(checkpoint.prompt.suffix),
                  "pooling mask": "mask" in str(checkpoint.spec.pooling)}  # fmt: skip
    else:
        wanted = {"a prompt": bool(checkpoint.prompt.provenance()), "truncate_dim": checkpoint.truncate_dim is not None,
                  "pooling mask": "mask" in str(checkpoint.spec.pooling)}  # fmt: skip
    lacking = [what for what, there in wanted.items() if there]
    if lacking:
        raise UserError(f"{checkpoint.name}: --to {form} has no place for {' and '.join(lacking)}.")


def _same_source(out: Path, form: str, checkpoint: Checkpoint) -> bool:
    """Whether a folder holds an earlier export of the same model in the same form."""
    record = _earlier(out)
    model = json.loads(json.dumps(checkpoint.provenance()))
    return record is not None and record["format"] == form and record["model"] == model


def _earlier(out: Path) -> ExportRecord | None:
    """The record of an earlier export in a folder; None where there is none, or another program's file."""
    if (out / EXPORT_RECORD).is_file():
        with suppress(UserError):
            return read_record(out / EXPORT_RECORD, ExportRecord, "not an export's record.")
    return None


def export_model(
    export: Export, out: Path, tolerance: float, card: Callable[[Export], str]
) -> tuple[Export, list[str]]:
    """Write the export with its card below ``out``; the export with its parity, and the names of its files.

    Args:
        export: from ``find_model``; ``check_export`` has passed.
        out: the folder.
        tolerance: largest difference to our own embeddings, as a share of their largest value (of 1 if that is less).
        card: the text of README.md, from the finished export.

    Raises:
        UserError: the form cannot express the model, or its embeddings differ; nothing is left behind then.
    """
    from simcse_bench.export import parity
    from simcse_bench.models.loading import load_encoder
    from simcse_bench.models.saving import fill_folder, write_parts

    parts = load_parts(export)
    sentences = parity.parity_sentences(parts.limit)
    ours = load_encoder(export.checkpoint, device="cpu")
    expected = ours.encode(sentences)
    prepared = [ours.preprocess(s) for s in sentences] if ours.preprocess else sentences
    with _nothing_left(out), fill_folder(out) as new:
        if export.form == "onnx":
            from simcse_bench.export.onnx import write_onnx

            write_onnx(parts, new)
        else:
            write_parts(parts, new)
        theirs = parity.embed_with_export(export.form, new, prepared, parts)
        compared = parity.measure_parity(expected, theirs, sentences, tolerance, export.form)
        pooler = parts.head == "mlp" and _pooler_is_head(parts)
        export = dataclasses.replace(
            export, parity=compared, dimension=expected.shape[1], max_length=parts.limit, pooler=pooler
        )
        write_text(new / "README.md", card(export))
        files = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
        files = sorted([*files, EXPORT_RECORD])
        write_json(new / EXPORT_RECORD, _record(export, files))
        earlier = _earlier(out)
    _remove_earlier(out, earlier["files"] if earlier else [], files)
    return export, files


def _remove_earlier(out: Path, earlier: list[str], files: list[str]) -> None:
    """Remove what an earlier export left in the folder and this one does not replace; nothing else."""
    for name in earlier:
        path = out / name
        # (Path.is_file raises for names that can be none)
        if name not in files and os.path.isfile(path) and out.resolve() in path.resolve().parents:  # noqa: PTH113
            path.unlink()
            with suppress(OSError):  # the folder of a module, where nothing else is in it
                path.parent.rmdir()


def load_parts(export: Export) -> Any:
    """The model's weights, tokenizer and head as an ``saving.Parts``.

    Raises:
        UserError: the form cannot express it.
    """
    import torch

    from simcse_bench.models.loading import length_limit, load_backbone
    from simcse_bench.models.saving import Parts

    checkpoint = export.checkpoint
    backbone = load_backbone(checkpoint, torch.float32, "eager")
    tokenizer = backbone.tokenizer
    limit = min(checkpoint.spec.max_length or 10**9, length_limit(backbone.model, tokenizer))
    if limit < 10**9:
        tokenizer.model_max_length = limit  # so that every library truncates where we do
    dense = None
    if checkpoint.spec.head == "mlp":
        dense = dense_head(checkpoint.dense) if checkpoint.dense else mlp_head(checkpoint.name, checkpoint.folder)
    parts = Parts(
        backbone.model,
        tokenizer,
        str(checkpoint.spec.pooling),
        limit,
        dense,
        None,
        checkpoint.normalize,
        checkpoint.embedded,
        checkpoint.prompt,
        checkpoint.truncate_dim,
    )
    pooler = None
    if dense is not None and parts.simcse_head and dense[0].bias is not None:
        pooler = dense[0]
    elif dense is None and any(f"{k}.weight" in tensor_names(checkpoint.folder) for k in MLP_KEYS):
        pooler = mlp_head(checkpoint.name, checkpoint.folder)[
            0
        ]  # unused at test; without it AutoModel would draw a random one
    parts = dataclasses.replace(parts, pooler=pooler)
    if export.form == "transformers" and dense is not None and not _pooler_is_head(parts):
        raise UserError(
            f"{checkpoint.name}: transformers cannot express pooling {parts.pooling!r} with this head "
            f"({_shown_head(dense)}): AutoModel has a dense layer and tanh over [CLS] only (pooler_output), and not "
            f"in every architecture ({type(backbone.model).__name__}). Use --to sentence-transformers or --to onnx."
        )
    return parts


def _pooler_is_head(parts: Any) -> bool:
    return bool(parts.pooling == "cls" and parts.simcse_head and parts.pooler and hasattr(parts.encoder, "pooler"))


def _shown_head(dense: Any) -> str:
    linear, activation = dense
    return f"dense {linear.in_features} to {linear.out_features}, {type(activation).__name__}"


def _record(export: Export, files: list[str]) -> dict[str, Any]:
    versions = {n: importlib.metadata.version(n.replace("_", "-")) for n in _PACKAGES.get(export.form, ())}
    return {
        "schema": 1,
        "format": export.form,
        "model": export.checkpoint.provenance(),
        "parity": export.parity,
        "files": files,
        "versions": environment()["versions"] | versions,
        "created": now(),
    }


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Remove the folders that were made for an export that failed."""
    new = [p for p in (out, *out.parents) if not p.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # another command may have written there since
                path.rmdir()
        raise
