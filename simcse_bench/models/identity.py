"""What decides a vector, said once: report keys, indices, model cards and tables read it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SETTINGS = ("pooling", "head", "max_length", "preprocess")  # how a checkpoint is used: what the catalog says of it
DIRECTION = (*SETTINGS, "files")  # of a vector, and so its cosines up to rounding: what an index depends on
VALUES = (*DIRECTION, "normalize", "whiten", "dtype")  # every number of it
LATER = (
    "lower_case",
    "truncate_dim",
    "template",
    "prompt_left_out",
    "template_bias_removed",
    "library",
    "base",
)  # as above, where it is set: keys and fingerprints without it stay
_UNSAID = "–"


def deciding(model: Mapping[str, Any], fields: Sequence[str] = VALUES) -> dict[str, Any]:
    """Those fields of a model's provenance, None for what it does not say, and of ``LATER`` what it does."""
    return {field: model.get(field) for field in fields} | {name: model[name] for name in LATER if model.get(name)}


def shown_usage(model: Mapping[str, Any]) -> str:
    """How a model makes a vector, in a word: pooling, head, whitening; an encoder of the user's own need not say."""
    how = (model.get("pooling") or _UNSAID) + " + mlp" * (model.get("head") == "mlp")
    return how + ", whitened" * bool(model.get("whiten"))


def shown_settings(model: Mapping[str, Any]) -> str:
    """Pooling and head, for a page's provenance."""
    return f"{model.get('pooling') or _UNSAID}, {model.get('head') or _UNSAID}"


def shown_origin(model: Mapping[str, Any]) -> str:
    """``shown_settings``, and what decided them."""
    return shown_settings(model) + (f" (from {model['settings_from']})" if model.get("settings_from") else "")


def shown_model(model: Mapping[str, Any]) -> str:
    """Name and, of a model on the Hub, its commit."""
    return str(model["name"]) + (f" @ {model['revision']}" if model.get("revision") else "")


def shown_files(model: Mapping[str, Any]) -> str:
    """Files with their fingerprints."""
    return ", ".join(f"{name} {digest}" for name, digest in (model.get("files") or {}).items())


def marked_name(model: Mapping[str, Any]) -> str:
    """The name in a table: it says where the model is, or comes from, the embedded encoder."""
    return str(model["name"]) + " (embedded)" * bool(model.get("embedded"))
