"""An index on disk: vectors, sentences and the model that made them, without pickle, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench import embedded
from simcse_bench.errors import UserError
from simcse_bench.index import Array, Index
from simcse_bench.report import require_writable
from simcse_bench.weights import read_json

SCHEMA = 1
RECORD, VECTORS, SENTENCES = "index.json", "vectors.npy", "sentences.jsonl"
_IDENTITY = ("files", "pooling", "head", "max_length", "preprocess")


def identity(model: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a vector's direction, of a model's provenance."""
    return {key: model.get(key) for key in _IDENTITY}


def fingerprint(model: Mapping[str, Any]) -> str:
    """16 hex digits: two models with the same one give vectors that can be compared."""
    return hashlib.sha256(json.dumps(identity(model), sort_keys=True).encode()).hexdigest()[:16]


def shown_model(model: Mapping[str, Any]) -> str:
    """A model in a sentence: name, pooling, head, length, fingerprint."""
    length = f", at most {model['max_length']} tokens" if model.get("max_length") else ""
    return f"{model['name']} (pooling {model['pooling']}, head {model['head']}{length}; {fingerprint(model)})"


def require_place(folder: Path, force: bool = True) -> None:
    """UserError unless an index can be written at ``folder``; another index there needs ``force``."""
    require_writable(folder)
    there = folder.is_dir() and (folder / RECORD).is_file()
    if (folder.exists() or folder.is_symlink()) and not there:
        raise UserError(f"{folder}: exists and is no index; nothing is overwritten. Choose another folder.")
    if there and not force:
        raise UserError(f"{folder}: an index is there already. Give --force to replace it, or another --out.")


def save(index: Index, folder: Path, model: Mapping[str, Any], located: str) -> None:
    """Write an index folder, whole or not at all; one that is there is replaced.

    Args:
        index: what to save.
        folder: gets index.json, vectors.npy and sentences.jsonl.
        model: provenance of the model, see ``identity``.
        located: the model's name or path, for ``search`` without ``--model``.
    """
    require_place(folder)
    n = len(index.sentences)
    vectors = index.store.rows(np.arange(n, dtype=np.int64))
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (a link stays)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            np.save(new / VECTORS, vectors, allow_pickle=False)
            with (new / SENTENCES).open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(sentence) + "\n" for sentence in index.sentences)
            record = {
                "schema": SCHEMA, "sentences": n, "dimension": vectors.shape[1], "fingerprint": fingerprint(model),
                "model": dict(model) | identity(model) | {"located": located},
                "files": {name: _digest(new / name) for name in (VECTORS, SENTENCES)},
            }  # fmt: skip
            (new / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}. Choose another folder.") from error


def read_record(folder: Path) -> dict[str, Any]:
    """index.json of an index folder; UserError where there is none or it is damaged."""
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder}: no index ({RECORD}) there; make one with `simcse-bench index FILE --out {folder}`.")
    record = read_json(folder / RECORD)
    expected = {"schema", "sentences", "dimension", "fingerprint", "model", "files"}
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not expected <= set(record):
        raise UserError(f"{folder / RECORD}: not the record of an index of this version (schema {SCHEMA}).")
    model = record["model"]
    if not isinstance(model, dict) or not {"name", "pooling", "head", "located", *_IDENTITY} <= set(model):
        raise UserError(f"{folder / RECORD}: damaged, it does not say its model. Make the index again.")
    return record


def load(folder: Path, model: Mapping[str, Any]) -> tuple[list[str], Array]:
    """Sentences and vectors (mapped from the disk) of an index made by this model.

    Raises:
        UserError: it was made by another model, or is damaged.
    """
    record = read_record(folder)
    if fingerprint(record["model"]) != fingerprint(model):
        raise UserError(
            f"{folder} was made with {shown_model(record['model'])}; this model is {shown_model(model)}. "
            "Search it with its own model, or make it again with this one."
        )
    try:
        for name in (VECTORS, SENTENCES):
            if _digest(folder / name) != record["files"].get(name):
                raise ValueError(f"{name} is not the file that was written")
        vectors: Array = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        with (folder / SENTENCES).open(encoding="utf-8") as lines:
            sentences = [json.loads(line) for line in lines]
        if vectors.shape != (record["sentences"], record["dimension"]) or len(sentences) != len(vectors):
            raise ValueError(f"{len(sentences)} sentences, vectors of shape {vectors.shape}")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: damaged index ({error}). Make it again.") from error
    return sentences, vectors


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def located(model: str, folder: Path) -> str:
    """How ``search`` finds the model of an index: its name; of a folder, the way there from the index."""
    if model == embedded.MODEL or not os.path.isdir(model):  # noqa: PTH112 (Path raises for long names)
        return model
    return os.path.relpath(Path(model).resolve(), folder.resolve())


def found(name: str, folder: Path) -> str:
    """The model that ``located`` has noted."""
    return str((folder.resolve() / name).resolve()) if name.startswith("..") else name
