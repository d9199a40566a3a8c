"""Checkpoints: find a model's files and decide pooling and head from what is known; nothing is loaded."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_bench import bundled, hub
from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.files import read_json, sha256, shown_name
from simcse_bench.models.catalog import ALIASES, HEADS, MODELS, POOLINGS, ModelSpec, named_view, pooling_parts
from simcse_bench.models.modules import MODULES_FILE, Modules, read_modules
from simcse_bench.models.prompts import NO_PROMPT, NO_WISH, SLOT, Prompt, PromptOptions, choose_prompt
from simcse_bench.models.weights import RUN_RECORD, SETTINGS_FILE, tensor_names, weight_files

_TOKENIZER_FILES = ("tokenizer*", "added_tokens.json", "vocab*", "merges.txt", "special_tokens_map.json", "*.model",
                    "bpe.codes")  # fmt: skip


_LIBRARY_FILES = (".json", ".txt", ".model", ".safetensors", ".bin", ".npy", ".py", ".codes")
ADAPTER_FILE = "adapter_config.json"
LIBRARY = "sentence-transformers"  # in place of a pooling: the folder's modules, run by the library itself


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
    prompt: Prompt = NO_PROMPT
    modules: Modules | None = None  # what a folder of sentence-transformers says
    adapter: Path | None = None  # folder of a LoRA that is merged into the model of ``folder``
    base: str = ""  # the name of that model
    trust_code: bool = False  # whether Python code in the folder may run
    truncate_dim: int | None = None  # only the first values of a vector, after all else
    embedded: bool = False  # the mini encoder that ships with the package, or trained from it

    def provenance(self, fingerprints: bool = True) -> dict[str, Any]:
        """What decides the embeddings, for the report; without ``fingerprints`` no file is read."""
        marks = self.prompt.provenance() | {
            "library": self.library,
            "base": self.base,
            "lower_case": self.lower_case,
            "truncate_dim": self.truncate_dim,
            "embedded": self.embedded,
            "usage": self.taken_usage(),
            "language": self.spec.language,
            "trained_on": self.trained_on(),
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

    def trained_on(self) -> list[dict[str, str]]:
        """The training text of a run of ours, by name and fingerprint; nothing of other models."""
        path = self.folder / RUN_RECORD
        if self.folder == Path() or not path.is_file():
            return []
        with suppress(UserError):
            record = read_json(path)
            data = record.get("data") if isinstance(record, dict) else None
            return [{k: str(data.get(k)) for k in ("name", "fingerprint")}] if isinstance(data, dict) else []
        return []

    @property
    def library(self) -> str:
        """Why sentence-transformers itself embeds; "" where our own path does."""
        return self.modules.library if self.modules and self.spec.pooling == LIBRARY else ""

    @property
    def stored_dtype(self) -> str:
        """The type of the weights in the files, as config.json has it; float32 where it does not say."""
        path = self.folder / "config.json"
        content = read_json(path) if path.is_file() else {}
        content = content if isinstance(content, dict) else {}
        return str(content.get("dtype") or content.get("torch_dtype") or "float32").removeprefix("torch.")

    def settled_dtype(self, asked: str) -> str:
        """The type to load: "auto" is float32, but bfloat16 where the files are."""
        if asked != "auto":
            return asked
        return "bfloat16" if self.stored_dtype == "bfloat16" else "float32"

    def taken_usage(self) -> str:
        """Which of its card's usages is taken; empty where there is one, or the command line decided."""
        return self.spec.usage if "--" not in self.reason else ""

    def files(self) -> dict[str, Path]:
        """The files that decide the embeddings; without weights where those have not been downloaded."""
        if self.library:
            inside = (p for p in sorted(self.folder.rglob("*")) if p.suffix in _LIBRARY_FILES)
            return {p.relative_to(self.folder).as_posix(): p for p in inside if p.is_file()}
        tokenizer = [p for pattern in _TOKENIZER_FILES for p in sorted(self.folder.glob(pattern))]
        paths = {p.name: p for p in (self.folder / "config.json", *tokenizer, *weight_files(self.folder))}
        if self.dense:
            dense = (self.dense / "config.json", *weight_files(self.dense))
            paths |= {f"{self.dense.name}/{p.name}": p for p in dense}
        if self.adapter:
            own = (self.adapter / ADAPTER_FILE, *sorted(self.adapter.glob("adapter_model.*")))
            own += tuple(p for pattern in _TOKENIZER_FILES for p in sorted(self.adapter.glob(pattern)))
            paths |= {f"adapter/{p.name}": p for p in own}
        return {name: p for name, p in paths.items() if p.is_file()}


def resolve(
    name: str,
    revision: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    max_length: int | None = None,
    scratch: Path | None = None,
    prompt: PromptOptions = NO_WISH,
    truncate_dim: int | None = None,
    trust_code: bool = False,
) -> Checkpoint:
    """Find a checkpoint (folder, catalog name or Hub id) and decide how it is used.

    With ``scratch``, a model that is not in the Hub cache is not downloaded: only its small settings files are, into
    that folder; ``files`` then says nothing of its weights.

    Pooling and head come from the arguments (SimCSE's names too: ``catalog.named_view``), else the catalog (by name),
    else the checkpoint's ``simcse_bench.json`` (written by our trainer), else its ``modules.json``; a Normalize module
    there is followed unless ``pooling`` is given (it changes transfer scores, never cosines). A model's default prompt
    is used unless ``prompt`` says another.
    ``trust_code`` lets Python code in the folder run.

    Raises:
        UserError: unknown names, missing files, or a checkpoint that does not say its pooling: never a guess.
    """
    pooling, head = named_view(pooling, head)
    if pooling is not None:
        pooling_parts(pooling)
    if head is not None and head not in HEADS:
        raise unknown("head", head, HEADS)
    if truncate_dim is not None and truncate_dim < 1:
        raise UserError(f"--truncate-dim {truncate_dim}: expected at least 1 dimension.")
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
    checkpoint = replace(checkpoint, trust_code=trust_code)
    decided = _decide(checkpoint, pooling, head, scratch)
    known, default = (decided.modules.prompts, decided.modules.default_prompt) if decided.modules else ({}, None)
    chosen = choose_prompt(name, prompt, known, default, decided.prompt)
    decided = _override(replace(decided, prompt=chosen), pooling, head, max_length)
    if chosen.debiased and (chosen.template == SLOT or decided.spec.pooling != "mask"):
        raise UserError("--remove-template-bias: needs a --template and --pooling mask.")
    return decided if truncate_dim is None else replace(decided, truncate_dim=truncate_dim)


def from_catalog(spec: ModelSpec, pooling: str | None, head: str | None, max_length: int | None) -> Checkpoint:
    """What the catalog alone says of a model whose files are out of reach; its pooling may be left open."""
    reason = "catalog" if spec.pooling else "its modules.json"
    pooling, head = named_view(pooling, head)
    checkpoint = Checkpoint(spec.checkpoint, Path(), spec, reason, prompt=_catalog_prompt(spec, NO_PROMPT))
    return _override(checkpoint, pooling, head, max_length)


def _catalog_prompt(spec: ModelSpec, otherwise: Prompt) -> Prompt:
    return otherwise if spec.template is None else Prompt(spec.template)


def _download(hub_id: str, revision: str | None, scratch: Path | None) -> Path:
    try:
        if scratch is not None:
            return hub.find_cached(hub_id, revision) or hub.download_settings(hub_id, revision, scratch)
        return hub.download_model(hub_id, revision)
    except UserError as error:
        near = "" if hub_id in MODELS else suggestion(hub_id, MODELS).replace("; did", " Did").removeprefix(".")
        if beside := [p.as_posix() for p in Path(hub_id).parent.glob("*") if p.is_dir()]:  # runs/mine, mistyped
            near = f" There is no folder {hub_id} here either{suggestion(hub_id, beside)}"
        raise type(error)(*(p.rstrip() + near for p in error.problems)) from None


def _decide(checkpoint: Checkpoint, pooling: str | None, head: str | None, scratch: Path | None) -> Checkpoint:
    """Fill in pooling, head, length, and say where they come from; where nothing tells, the options have to."""
    decided = checkpoint
    if (checkpoint.folder / SETTINGS_FILE).is_file():
        decided = _follow_settings(checkpoint)
    elif (checkpoint.folder / MODULES_FILE).is_file():
        decided = _follow_modules(checkpoint)
        if decided.library and pooling is None and checkpoint.spec.pooling is None:
            return decided
        if decided.library:  # the transformers model in it, with the pooling asked for
            if decided.modules is None or decided.modules.transformer is None:
                raise UserError(f"--pooling {pooling}: {decided.name} is no transformers model ({decided.library}).")
            decided = replace(decided, folder=decided.modules.transformer, dense=None)
    if not (decided.folder / "config.json").is_file() and (decided.folder / ADAPTER_FILE).is_file():
        decided = _adapted(decided, scratch)
    if not (decided.folder / "config.json").is_file():
        if _is_unfinished_run(decided.folder):
            raise UserError(
                f"{decided.name}: an unfinished run, which has no model yet; "
                f"`simcse-bench train --resume --out {shlex.quote(str(decided.folder))}` goes on with it."
            )
        raise UserError(f"{decided.name}: no config.json in {decided.folder}; expected a transformers checkpoint.")
    looked_at = scratch is not None and decided.folder.is_relative_to(scratch)
    if not looked_at and not weight_files(decided.folder):
        other = next((p.name for form in ("*.gguf", "*.onnx", "onnx/*.onnx") for p in decided.folder.glob(form)), "")
        advice = f" {other} is not read; give the original model's folder." if other else ""
        raise UserError(f"{decided.name}: no model.safetensors or pytorch_model.bin in {decided.folder}.{advice}")
    if checkpoint.spec.pooling is not None:
        return replace(
            decided,
            spec=checkpoint.spec,
            reason="catalog",
            embedded=checkpoint.embedded,
            prompt=_catalog_prompt(checkpoint.spec, decided.prompt),
        )
    if decided.spec.pooling is None and (pooling is None or (pooling == "cls" and head is None)):
        raise _undecided(decided, pooling)
    return decided


def _is_unfinished_run(folder: Path) -> bool:
    path = folder / RUN_RECORD
    record = read_json(path) if path.is_file() else None
    return isinstance(record, dict) and record.get("status") == "running"


def _override(checkpoint: Checkpoint, pooling: str | None, head: str | None, max_length: int | None) -> Checkpoint:
    """The options of the command line on top of what was decided."""
    spec, reason = checkpoint.spec, checkpoint.reason
    if head is not None and pooling is None and spec.pooling == LIBRARY:
        raise UserError(f"--head {head}: {checkpoint.name} is embedded by its own modules; give --pooling, too.")
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
    named = isinstance(pooling, str) and set(pooling.split("+")) <= set(POOLINGS)
    if not named or head not in tuple(HEADS):  # it may be anything, a list too
        raise UserError(f"{path}: expected pooling ({', '.join(POOLINGS)}) and head ({', '.join(HEADS)}).")
    spec = replace(checkpoint.spec, pooling=pooling, head=head)
    embedded = content.get("start") == bundled.MODEL
    template = content.get("template", SLOT)
    if not isinstance(template, str) or template.count(SLOT) != 1:
        raise UserError(f"{path}: template {template!r}; expected a text with {SLOT} in it.")
    counted, debiased = content.get("prompt_left_out") is not True, content.get("template_bias_removed") is True
    prompt = Prompt(template, counted, debiased)
    return replace(checkpoint, spec=spec, reason=SETTINGS_FILE, embedded=embedded, prompt=prompt)


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


def _follow_modules(checkpoint: Checkpoint) -> Checkpoint:
    """What sentence-transformers' modules.json says."""
    modules = read_modules(checkpoint.folder)
    spec = replace(checkpoint.spec, pooling=modules.pooling or LIBRARY, head="mlp" if modules.dense else "none")
    return replace(
        checkpoint,
        folder=checkpoint.folder if modules.library else modules.transformer or checkpoint.folder,
        spec=replace(spec, max_length=spec.max_length or modules.max_length),
        reason=MODULES_FILE,
        dense=modules.dense,
        normalize=modules.normalize,
        lower_case=modules.lower_case,
        truncate_dim=modules.truncate_dim,
        prompt=Prompt(counted=modules.prompt_counted),
        modules=modules,
    )


def _adapted(checkpoint: Checkpoint, scratch: Path | None) -> Checkpoint:
    """The base model of an adapter (LoRA), which is merged into it when it is loaded."""
    path = checkpoint.folder / ADAPTER_FILE
    content = read_json(path)
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: no base_model_name_or_path in it; expected the settings of an adapter of peft.")
    near = checkpoint.folder / base
    try:
        folder = Path(base) if Path(base).is_dir() else near if near.is_dir() else _download(base, None, scratch)
    except UserError as error:
        missing = f"{checkpoint.name}: an adapter whose base model is missing: "
        raise type(error)(*(missing + problem for problem in error.problems)) from error
    return replace(checkpoint, folder=folder, adapter=checkpoint.folder, base=base)
