"""Checkpoints: find a model's files and decide pooling and head from what is known; nothing is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_bench import bundled, hub
from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.files import read_json, sha256, shown_name
from simcse_bench.models.catalog import ALIASES, HEADS, MODELS, POOLINGS, ModelSpec
from simcse_bench.models.weights import SETTINGS_FILE, tensor_names, weight_files

_TOKENIZER_FILES = ("tokenizer*", "added_tokens.json", "vocab*", "merges.txt", "special_tokens_map.json", "*.model",
                    "bpe.codes")  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk and how it will be used; nothing is loaded yet."""

    name: str
    folder: Path  # of the transformers files
    spec: ModelSpec  # resolved: pooling is set
    reason: str  # where pooling and head come from
    revision: str | None = None  # commit, where the files came from the Hub
    dense: Path | None = None  # a sentence-transformers Dense module
    normalize: bool = False
    lower_case: bool = False  # sentence-transformers' do_lower_case: before whatever the tokenizer does
    truncate_dim: int | None = None  # only the first values of a vector, after all else
    embedded: bool = False  # the mini encoder that ships with the package, or trained from it

    def provenance(self, fingerprints: bool = True) -> dict[str, Any]:
        """What decides the embeddings, for the report; without ``fingerprints`` no file is read."""
        marks = {
            "lower_case": self.lower_case,
            "truncate_dim": self.truncate_dim,
            "embedded": self.embedded,
            "usage": self.taken_usage(),
            "language": self.spec.language,
        }
        return {
            "name": self.name,
            "revision": self.revision,
            "pooling": self.spec.pooling,
            "head": self.spec.head,
            "settings_from": self.reason,
            "max_length": self.spec.max_length,
            "preprocess": self.spec.preprocess,
            "normalize": self.normalize,
            "note": self.spec.note,
            "files": {name: sha256(p) for name, p in self.files().items()} if fingerprints else {},
        } | {k: v for k, v in marks.items() if v and v != "en"}  # what only some models have

    def taken_usage(self) -> str:
        """Which of its card's usages is taken; empty where there is one, or the command line decided."""
        return self.spec.usage if "--" not in self.reason else ""

    def files(self) -> dict[str, Path]:
        """The files that decide the embeddings; without weights where those have not been downloaded."""
        tokenizer = [p for pattern in _TOKENIZER_FILES for p in sorted(self.folder.glob(pattern))]
        paths = {p.name: p for p in (self.folder / "config.json", *tokenizer, *weight_files(self.folder))}
        if self.dense:
            dense = (self.dense / "config.json", *weight_files(self.dense))
            paths |= {f"{self.dense.name}/{p.name}": p for p in dense}
        return {name: p for name, p in paths.items() if p.is_file()}


def resolve(
    name: str,
    revision: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    max_length: int | None = None,
    scratch: Path | None = None,
) -> Checkpoint:
    """Find a checkpoint (folder, catalog name or Hub id) and decide how it is used.

    With ``scratch``, a model that is not in the Hub cache is not downloaded: only its small settings files are, into
    that folder; ``files`` then says nothing of its weights.

    Pooling and head come from the arguments, else the catalog (by name), else the checkpoint's ``simcse_bench.json``
    (written by our trainer), else its ``modules.json``; a Normalize module there is followed unless ``pooling`` is
    given (it changes transfer scores, never cosines).

    Raises:
        UserError: unknown names, missing files, or a checkpoint that does not say its pooling: never a guess.
    """
    for kind, value, known in (("pooling", pooling, POOLINGS), ("head", head, HEADS)):
        if value is not None and value not in known:
            raise unknown(kind, value, known)
    if max_length is not None and max_length < 1:
        raise UserError(f"--max-length {max_length}: expected at least 1 token.")
    if name == bundled.MODEL:  # a folder of this name is ./mini
        if revision is not None:
            raise UserError(f"--revision {revision}: {name} ships with simcse-bench; it has no revisions.")
        checkpoint = Checkpoint(name, bundled.model_folder(), MODELS[name], "", embedded=True)
    elif len(name) < 4096 and "\0" not in name and os.path.isdir(name):  # noqa: PTH112 (Path raises for long names)
        if revision is not None:
            raise UserError(f"--revision {revision}: {name} is a folder; a revision belongs to a model on the Hub.")
        checkpoint = Checkpoint(shown_name(name), Path(name), ModelSpec(name, None), "")
    elif name.startswith((".", "~", os.sep)) or name.count("/") > 1 or name.endswith("/"):
        raise UserError(f"model {name!r}: no such folder.")
    else:
        hub_id = ALIASES.get(name, name)
        if hub_id not in MODELS and "/" not in name:
            raise UserError(
                f"unknown model {name!r}{suggestion(name, [*MODELS, *ALIASES])} Expected a folder, a Hub id "
                "(owner/name), word-vectors:FILE, or a name from `simcse-bench ls models`."
            )
        spec = MODELS.get(hub_id) or ModelSpec(hub_id, None)
        folder = _download(hub_id, revision or spec.revision, scratch)
        checkpoint = Checkpoint(hub_id, folder, spec, "", revision=folder.name)
    looked_at = scratch is not None and checkpoint.folder.is_relative_to(scratch)
    return _override(_decide(checkpoint, pooling, head, weights=not looked_at), pooling, head, max_length)


def from_catalog(spec: ModelSpec, pooling: str | None, head: str | None, max_length: int | None) -> Checkpoint:
    """What the catalog alone says of a model whose files are out of reach; its pooling may be left open."""
    reason = "catalog" if spec.pooling else "its modules.json"
    return _override(Checkpoint(spec.checkpoint, Path(), spec, reason), pooling, head, max_length)


def _download(hub_id: str, revision: str | None, scratch: Path | None) -> Path:
    try:
        if scratch is not None:
            return hub.find_cached(hub_id, revision) or hub.download_settings(hub_id, revision, scratch)
        return hub.download_model(hub_id, revision)
    except UserError as error:
        near = "" if hub_id in MODELS else suggestion(hub_id, MODELS).replace("; did", " Did").removeprefix(".")
        raise type(error)(*(p.rstrip() + near for p in error.problems)) from error


def _decide(checkpoint: Checkpoint, pooling: str | None, head: str | None, weights: bool) -> Checkpoint:
    """Fill in pooling, head, length, and say where they come from; where nothing tells, the options have to."""
    decided = checkpoint
    if (checkpoint.folder / SETTINGS_FILE).is_file():
        decided = _follow_settings(checkpoint)
    elif (checkpoint.folder / "modules.json").is_file():
        try:
            decided = _follow_modules(checkpoint)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{checkpoint.folder}/modules.json: not in sentence-transformers' form ({error!r})."
            ) from error
    if not (decided.folder / "config.json").is_file():
        raise UserError(f"{decided.name}: no config.json in {decided.folder}; expected a transformers checkpoint.")
    if weights and not weight_files(decided.folder):
        raise UserError(f"{decided.name}: no model.safetensors or pytorch_model.bin in {decided.folder}.")
    if checkpoint.spec.pooling is not None:
        return replace(decided, spec=checkpoint.spec, reason="catalog", embedded=checkpoint.embedded)
    if decided.spec.pooling is None and (pooling is None or (pooling == "cls" and head is None)):
        raise _undecided(decided, pooling)
    return decided


def _override(checkpoint: Checkpoint, pooling: str | None, head: str | None, max_length: int | None) -> Checkpoint:
    """The options of the command line on top of what was decided."""
    spec, reason = checkpoint.spec, checkpoint.reason
    if pooling is not None:
        # an MLP belongs to the pooling it was trained on: another pooling goes without, unless asked for
        kept = spec.head if pooling == spec.pooling else "none"
        spec = replace(spec, pooling=pooling, head=head or kept)
        reason = "--pooling" if head is None else "--pooling, --head"
        # the pooled vector as it is, like SimCSE evaluation.py's --pooler
        checkpoint = replace(checkpoint, normalize=False, truncate_dim=None)
    elif head is not None:
        spec, reason = replace(spec, head=head), f"{reason}, --head"
    if max_length is not None:
        spec = replace(spec, max_length=max_length)
    return replace(checkpoint, spec=spec, reason=reason, dense=checkpoint.dense if spec.head == "mlp" else None)


def _follow_settings(checkpoint: Checkpoint) -> Checkpoint:
    """Pooling, head, and whether it comes from the mini encoder: what our trainer wrote beside a checkpoint."""
    path = checkpoint.folder / SETTINGS_FILE
    content = read_json(path)
    pooling, head = (content.get("pooling"), content.get("head")) if isinstance(content, dict) else (None, None)
    if pooling not in tuple(POOLINGS) or head not in tuple(HEADS):  # it may be anything, a list too
        raise UserError(f"{path}: expected pooling ({', '.join(POOLINGS)}) and head ({', '.join(HEADS)}).")
    spec = replace(checkpoint.spec, pooling=pooling, head=head)
    return replace(checkpoint, spec=spec, reason=SETTINGS_FILE, embedded=content.get("start") == bundled.MODEL)


def _undecided(checkpoint: Checkpoint, pooling: str | None) -> UserError:
    looked = "no modules.json (sentence-transformers) in it, and its name is not in `simcse-bench ls models`"
    options = "\n".join(f"  --pooling {k:<15} {v}" for k, v in POOLINGS.items())
    heads = "\n".join(f"  --head {k:<18} {v}" for k, v in HEADS.items())
    if any(key.startswith("mlp.dense") for key in tensor_names(checkpoint.folder)):
        looked += (
            ".\nIt is an official SimCSE training checkpoint (mlp.dense): --pooling cls, with --head none for an "
            "unsupervised model and --head mlp for a supervised one"
        )
    what = "pooling" if pooling is None else "head (cls needs one of the two)"
    return UserError(f"{checkpoint.name} does not say its {what}: {looked}.\nChoose one of:\n{options}\n{heads}")


# the forms of sentence-transformers that are read: these modules, in this order
_FORM = ("Transformer", "Pooling", "Dense", "Normalize")


def _follow_modules(checkpoint: Checkpoint) -> Checkpoint:
    """sentence-transformers' modules.json, in its old and new layouts, and the settings beside it."""
    folder = checkpoint.folder
    modules = [(m["type"].split(".")[-1], folder / m["path"]) for m in read_json(folder / "modules.json")]
    kinds = [kind for kind, _ in modules]
    if kinds != [kind for kind in _FORM if kind in kinds] or not {"Transformer", "Pooling"} <= set(kinds):
        raise UserError(
            f"{folder}/modules.json: {', '.join(kinds) or 'no modules'} is not supported; "
            f"known, in this order and once each: {', '.join(_FORM)} (the last two may be left out)."
        )
    paths = dict(modules)
    whole = _optional(folder / "config_sentence_transformers.json")
    if whole.get("default_prompt_name") is not None:
        raise UserError(
            f"{folder}/config_sentence_transformers.json: the model puts the prompt {whole['default_prompt_name']!r} "
            "before every sentence; that is not supported."
        )
    settings = _optional(paths["Transformer"] / "sentence_bert_config.json")
    length = _positive(settings, "max_seq_length", paths["Transformer"] / "sentence_bert_config.json")
    head = "mlp" if "Dense" in paths else "none"
    spec = replace(checkpoint.spec, pooling=_pooling_mode(paths["Pooling"]), head=head)
    return replace(
        checkpoint,
        folder=paths["Transformer"],
        spec=replace(spec, max_length=spec.max_length or length),
        reason="modules.json",
        dense=paths.get("Dense"),
        normalize="Normalize" in paths,
        lower_case=settings.get("do_lower_case") is True,
        truncate_dim=_positive(whole, "truncate_dim", folder / "config_sentence_transformers.json"),
    )


def _optional(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of settings, found {type(content).__name__}.")
    return content


def _positive(settings: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = settings.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"{path}: {name} {value!r}; expected a number of at least 1, or null.")
    return value


def _pooling_mode(folder: Path) -> str:
    """The pooling of a Pooling module."""
    config = _optional(folder / "config.json")
    modes = [config["pooling_mode"]] if "pooling_mode" in config else []
    modes += [
        k.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for k, v in config.items()
        if k.startswith("pooling_mode_") and v is True
    ]
    if modes not in (["cls"], ["mean"]):
        raise UserError(
            f"{folder}/config.json: pooling {' + '.join(map(str, modes))} is not supported; known: cls, mean."
        )
    return str(modes[0])
