"""Which kind of file of ours a path is, and whether it keeps its JSON schema."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from simcse_bench.cli.listing import versioned_schema

_NAMED = {
    "summary.json": "summary", "reproduction.json": "reproduction", "trajectories.json": "trajectories",
    "train.json": "train", "log.jsonl": "log", "state.json": "checkpoint", "index.json": "index",
    "export.json": "export", "meta.json": "tokens", "simcse_bench.json": "settings",
}  # fmt: skip
_PLACED = {"analysis": "geometry", "robustness": "robustness", "overlap": "overlap", "speed": "speed", "mteb": "mteb",
           "checkpoints": "config"}  # fmt: skip
# of transformers, tokenizers and sentence-transformers; and the sentences of an index, texts each
_OTHERS = {
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modules.json",
    "sentence_bert_config.json", "config_sentence_transformers.json", "sentences.jsonl",
}  # fmt: skip


def kind_of(path: Path) -> str | None:
    """A name that ``simcse-bench schema`` knows; None of files that other libraries define."""
    if {"cache", "mteb"} <= set(path.parts):  # mteb's own results
        return None
    if path.name.endswith(".pairs.jsonl"):
        return "pairs"
    if path.name.endswith((".npy.json", ".parquet.json")):
        return "encode"
    kind = _NAMED.get(path.name) or _PLACED.get(path.parent.name)
    if kind is None and path.name not in _OTHERS:
        return "trial" if path.parent.parent.name == "ablations" else "report"
    return kind


@functools.cache
def validator(kind: str) -> Draft202012Validator:
    schema = versioned_schema(kind)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def schema_problems(path: Path, kind: str) -> list[str]:
    """What a validator that knows nothing of us finds."""
    text = path.read_text("utf-8")
    documents: list[Any] = list(map(json.loads, text.splitlines())) if path.suffix == ".jsonl" else [json.loads(text)]
    return [f"{path}: {e.json_path}: {e.message[:200]}" for one in documents for e in validator(kind).iter_errors(one)]


def checked_kinds(folder: Path) -> set[str]:
    """The kinds of all files of ours below a folder; AssertionError where one does not keep its schema."""
    kinds = {path: kind_of(path) for path in (*folder.rglob("*.json"), *folder.rglob("*.jsonl"))}
    problems = [problem for path, kind in kinds.items() if kind for problem in schema_problems(path, kind)]
    assert not problems, "\n".join(problems[:5])
    return {kind for kind in kinds.values() if kind}
