"""sentence-transformers' folders: modules.json and the settings beside it, followed here or left to the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError
from simcse_bench.files import read_json

MODULES_FILE = "modules.json"
_WHOLE = "config_sentence_transformers.json"
_TRANSFORMER = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# the form that is read here: these modules of sentence-transformers, in this order; any other is run by the library
_FORM = ("Transformer", "Pooling", "Dense", "Normalize")
# Pooling's modes in its order of concatenation -> ours
MODES = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "mean_sqrt_len",
         "weightedmean": "weighted_mean", "lasttoken": "last_token"}  # fmt: skip
_LEGACY = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
           "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
           "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken"}  # fmt: skip
_WIDTHS = {"embedding_dimension", "word_embedding_dimension"}
# key -> values with which it changes no vector, or with which it is followed here; None: whatever it is
_FREE: dict[str, Mapping[str, tuple[Any, ...] | None]] = {
    "module": {"idx": None, "name": None, "path": None, "type": None, "kwargs": ([], None)},
    "whole": {"__version__": None, "model_type": ("SentenceTransformer",), "prompts": None, "default_prompt_name": None,
              "similarity_fn_name": None, "truncate_dim": None},
    "Transformer": {"max_seq_length": None, "do_lower_case": (True, False, None), "unpad_inputs": None,
                    "transformer_task": ("feature-extraction",), "module_output_name": ("token_embeddings", None),
                    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
                    "model_args": ({},), "tokenizer_args": ({},), "config_args": ({}, {"output_hidden_states": True}),
                    "model_kwargs": ({},), "processor_kwargs": ({},), "config_kwargs": ({},),
                    "processing_kwargs": ({}, None), "query_length": (None,), "document_length": (None,),
                    "query_expansion": (None,)},
    "Pooling": {"pooling_mode": None, "include_prompt": (True, False), **dict.fromkeys([*_WIDTHS, *_LEGACY])},
    "Dense": {"in_features": None, "out_features": None, "bias": None, "activation_function": None,
              "module_input_name": ("sentence_embedding",), "module_output_name": ("sentence_embedding", None),
              "use_residual": (False,)},
    "Normalize": {"module_input_name": ("sentence_embedding",), "module_output_name": ("sentence_embedding", None)},
}  # fmt: skip


@dataclass(frozen=True)
class Modules:
    """What a folder of sentence-transformers says."""

    kinds: tuple[str, ...]
    transformer: Path | None  # of the first module, where that is a Transformer
    library: str  # why the library itself has to run it; "": it is read here
    pooling: str = ""
    dense: Path | None = None
    normalize: bool = False
    lower_case: bool = False
    max_length: int | None = None
    truncate_dim: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    prompt_counted: bool = True
    code: tuple[str, ...] = ()  # modules that are Python code of the folder's own


def read_modules(folder: Path) -> Modules:
    """What modules.json and the files beside it say, in their old and new layouts.

    Raises:
        UserError: a file that is not in sentence-transformers' form.
    """
    listed = _modules(folder)
    kinds = tuple(entry["type"].split(".")[-1] for entry in listed)
    code = tuple(entry["type"] for entry in listed if not entry["type"].startswith("sentence_transformers."))
    paths = {kind: folder / entry["path"] for kind, entry in zip(kinds, listed, strict=True)}
    whole = _settings(folder / _WHOLE)
    transformer = paths["Transformer"] if kinds[0] == "Transformer" and not code else None
    files = {kind: paths[kind] / "config.json" for kind in kinds if kind in ("Pooling", "Dense", "Normalize")}
    if transformer is not None:
        names = [transformer / f"sentence_{kind}_config.json" for kind in _TRANSFORMER]
        files["Transformer"] = next((path for path in names if path.is_file()), names[0])
    configs = {kind: _settings(path) for kind, path in files.items()}
    length = _positive(configs.get("Transformer", {}), "max_seq_length", files.get("Transformer", folder))
    prompts = whole.get("prompts") or {}
    default = whole.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(p, str | None) for p in prompts.values()):
        raise UserError(f"{folder / _WHOLE}: prompts {prompts!r}; expected a text for every name.")
    if default is not None and default not in prompts:
        known = ", ".join(prompts) or "none"
        raise UserError(f"{folder / _WHOLE}: default_prompt_name {default!r} is not among its prompts ({known}).")
    why = f"its own Python code ({', '.join(code)})" if code else ""
    if not why and (kinds != tuple(k for k in _FORM if k in kinds) or not {"Transformer", "Pooling"} <= set(kinds)):
        why = f"its modules ({', '.join(kinds)})"
    if not why and transformer is not None and _settings(transformer / "config.json").get("is_encoder_decoder") is True:
        why = "an encoder-decoder"
    for what, config in (*(("module", entry) for entry in listed), ("whole", whole), *configs.items()):
        why = why or _unread(what, config)
    modes = _pooling_modes(configs["Pooling"]) if "Pooling" in configs else []
    if not why and not set(modes) <= set(MODES):
        why = f"its pooling ({', '.join(map(str, modes))})"
    return Modules(
        kinds, transformer, why,
        pooling="+".join(MODES[mode] for mode in modes) if not why else "",
        dense=paths.get("Dense"),
        normalize="Normalize" in paths,
        lower_case=configs.get("Transformer", {}).get("do_lower_case") is True,
        max_length=length,
        truncate_dim=_positive(whole, "truncate_dim", folder / _WHOLE),
        prompts={name: text or "" for name, text in prompts.items()},
        default_prompt=default,
        prompt_counted=configs.get("Pooling", {}).get("include_prompt", True) is not False,
        code=code,
    )  # fmt: skip


def _modules(folder: Path) -> list[dict[str, Any]]:
    listed = read_json(folder / MODULES_FILE)
    good = isinstance(listed, list) and all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str) for m in listed
    )
    if not good or not listed:
        raise UserError(
            f"{folder}/{MODULES_FILE}: not in sentence-transformers' form; expected a list of type and path."
        )
    return listed  # type: ignore[no-any-return]


def _settings(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of settings, found {type(content).__name__}.")
    return content


def _positive(settings: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = settings.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"{path}: {name} {value!r}; expected a number of at least 1, or null.")
    return value


def _unread(what: str, config: Mapping[str, Any]) -> str:
    """The first setting that is not followed here; "" where there is none."""
    for key, value in config.items():
        free = _FREE[what]
        if key not in free:
            return f"the setting {key} of its {what}"
        values = free[key]
        if values is not None and value not in values:
            return f"{key} {value!r} of its {what}"
    return ""


def _pooling_modes(config: Mapping[str, Any]) -> list[Any]:
    """Pooling's modes, of its newer setting or its older ones."""
    given = config.get("pooling_mode")
    if given is not None:
        return list(given) if isinstance(given, list | tuple) else [given]
    return [mode for key, mode in _LEGACY.items() if config.get(key)] or ["mean"]
