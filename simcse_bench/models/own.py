"""An object of the user's own with ``encode``: its vectors as arrays of ours, and what tells it from others."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.errors import UserError, first_line, unknown
from simcse_bench.files import fingerprint, shown_name
from simcse_bench.models.catalog import DTYPES
from simcse_bench.models.prompts import SLOT

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Array

_NAMES = ("name_or_path", "model_name_or_path", "model_name")  # where an object, or its tokenizer, says whence it is
_DIGITS = (3, 2)  # of the cosines and lengths of probes: without and with weights beside them
PROBES = (  # short enough for any encoder, told apart by words, order, case, length, signs, digits, language
    "A man is playing a guitar.",
    "A guitar is playing a man.",
    "a man is playing a guitar",
    "Nobody is playing the guitar.",
    "The stock market fell 3.5% on Tuesday, its worst day since 2008.",
    "What is the capital of France?",
    "yes",
    "Don't put your money in (or near) the bank!",
    "Un garçon lit un très vieux livre à côté de la fenêtre.",
    "The old woman who lives at the end of the road says that she saw, on the evening before the storm, two small "
    "boats leave the harbour, though nobody in the village remembers who owned them.",
)


class OwnEncoder:
    """The user's object as an encoder of ours; ``provenance`` says what it is, see ``describe``."""

    def __init__(self, encoder: Any, provenance: Mapping[str, Any]):
        self.encoder = encoder
        self.provenance = provenance

    @property
    def stats(self) -> Mapping[str, int]:
        """Of the last call, where the object counts anything."""
        stats: Mapping[str, int] = getattr(self.encoder, "stats", {})
        return stats

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d)."""
        return encode_with(self.encoder, sentences)


def encode_with(encoder: Any, sentences: Sequence[str]) -> Array:
    """Embeddings (n, d) by any object: no progress bar of its own, no gradients.

    Raises:
        UserError: something else than a row of numbers per sentence.
    """
    options: dict[str, Any] = {}
    with contextlib.suppress(TypeError, ValueError):  # a function without a signature
        if "show_progress_bar" in inspect.signature(encoder.encode).parameters:
            options = {"show_progress_bar": False}
    torch = sys.modules.get("torch")
    with torch.no_grad() if torch else contextlib.nullcontext():
        return as_rows(encoder.encode(list(sentences), **options), len(sentences))


def as_rows(vectors: Any, count: int) -> Array:
    """Float32 (count, d) of what an encoder returned: an array, a tensor on any device, or a list of either.

    Raises:
        UserError: something else.
    """
    try:
        with np.errstate(over="ignore"):  # infinite then, which is told where it matters
            rows: Array = np.asarray(_plain(vectors), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the encoder returned {_kind(vectors)} that is no array of real numbers ({first_line(error)}); expected "
            "one row of numbers per sentence, all of one length."
        ) from error
    if rows.ndim != 2 or len(rows) != count or not rows.shape[1]:
        raise UserError(
            f"the encoder returned an array of shape {rows.shape} for {count} sentences; expected one row per sentence."
        )
    return rows


def _plain(vectors: Any) -> Any:
    """Tensors as arrays, inside lists too."""
    if hasattr(vectors, "detach"):
        dense = vectors.to_dense() if getattr(vectors, "is_sparse", False) else vectors
        if dense.is_complex():
            raise TypeError("complex numbers")
        return dense.detach().cpu().float().numpy()  # numpy knows no bfloat16
    if isinstance(vectors, list | tuple):
        return [_plain(x) for x in vectors]
    if np.iscomplexobj(vectors):
        raise TypeError("complex numbers")
    return vectors


def describe(encoder: Any, name: str | None = None, dtype: str | None = None) -> dict[str, Any]:
    """Provenance of an object: what it says of itself, where it comes from, fingerprints of what decides its vectors.

    Its weights are hashed, where it is or holds a torch module, and how its vectors of ``PROBES`` lie to each other. An
    object with ``provenance["files"]`` (ours have it) is taken at its word.

    Args:
        encoder: anything with ``encode``.
        name: for reports; default: its own, that of its files, that of its class.
        dtype: what it computes in, where its weights do not say; recorded, nothing is converted.

    Raises:
        UserError: no ``encode``, an unknown or contradicted dtype, an ``encode`` that fails on the probes.
    """
    if not callable(getattr(encoder, "encode", None)) or isinstance(encoder, type):
        raise UserError(
            f"{_kind(encoder)} has no encode(); expected a model's name, an opened model, or an object with "
            "encode(list of sentences) -> (n, d) array."
        )
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    said = dict(getattr(encoder, "provenance", None) or {})
    if said.get("files") and dtype not in (None, said.get("dtype", dtype)):
        raise UserError(f"dtype {dtype}: {said.get('name', _kind(encoder))} computes in {said['dtype']}.")
    found = {} if said.get("files") else _look(encoder)
    whole = {"name": found.get("name_or_path") or type(encoder).__name__, **found, **said}
    return whole | ({"name": name} if name else {}) | ({"dtype": dtype} if dtype else {})


def _look(encoder: Any) -> dict[str, Any]:
    """What can be seen of an object from outside; of a sentence-transformers model also its settings."""
    weights = _weights(encoder)
    try:
        vectors = encode_with(encoder, PROBES)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{_kind(encoder)} cannot encode sentences that are not of the tasks, by which it is told from others "
            f"({type(error).__name__}: {first_line(error)}). Give it a fingerprint of your own: "
            'provenance = {"name": ..., "files": {"vectors": "..."}}.'
        ) from error
    made_by = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
    found: dict[str, Any] = {"object": made_by, "settings_from": f"an object of {made_by}"}
    places = [getattr(x, name, None) for x in (encoder, getattr(encoder, "tokenizer", None)) for name in _NAMES]
    if path := next((place for place in places if isinstance(place, str) and place), None):
        found["name_or_path"] = shown_name(path)
    for field, attribute in {"max_length": "max_seq_length", "truncate_dim": "truncate_dim"}.items():
        if isinstance(number := getattr(encoder, attribute, None), int):
            found[field] = number
    prompts = getattr(encoder, "prompts", None)
    if isinstance(prompts, Mapping) and (prompt := prompts.get(getattr(encoder, "default_prompt_name", None))):
        found["template"] = f"{prompt}{SLOT}"
    if weights:
        found["dtype"] = weights[1]
        found["device"] = str(getattr(encoder, "device", "cpu"))
    probes = probes_fingerprint(vectors, _DIGITS[bool(weights)])
    return found | {"files": ({"weights": weights[0]} if weights else {}) | {"probes": probes}}


def _weights(encoder: Any) -> tuple[str, str] | None:
    """Fingerprint and dtype of the weights, if the object is a torch module or holds some as attributes."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    held = {"": encoder} | dict(getattr(encoder, "__dict__", {}))
    modules = {name: x for name, x in held.items() if isinstance(x, torch.nn.Module)}
    modules = {"": encoder} if "" in modules else modules
    digest, dtypes = hashlib.sha256(), []
    for name, tensor in _tensors(modules):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.is_meta:
            return None
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        dtypes += [str(tensor.dtype).removeprefix("torch.")] * tensor.is_floating_point()
    return (digest.hexdigest()[:16], dtypes[0]) if dtypes else None


def _tensors(modules: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters and saved buffers by name."""
    for prefix, module in sorted(modules.items()):
        for name, value in sorted(module.state_dict().items()):
            if hasattr(value, "detach"):  # else a module's own extra state
                yield f"{prefix}.{name}", value


def probes_fingerprint(vectors: Array, digits: int) -> str:
    """Of the cosines and lengths of vectors (n, d), rounded: batches and threads move the eighth digit only."""
    x = np.nan_to_num(vectors, posinf=0, neginf=0).astype(np.float64)
    lengths = np.linalg.norm(x, axis=1)
    unit = x / np.where(lengths > 0, lengths, 1)[:, None]
    cosines = np.round((unit @ unit.T)[np.triu_indices(len(x), 1)], digits) + 0.0  # no -0
    return fingerprint([cosines.tolist(), [f"{length:.{digits}g}" for length in lengths], x.shape[1]])


def _kind(value: Any) -> str:
    """For messages: what something is."""
    return f"the class {value.__name__} itself" if isinstance(value, type) else f"an object of {type(value).__name__}"
