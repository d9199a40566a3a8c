"""Files of a checkpoint: weights read without running what a pickle says, heads built from them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

from simcse_bench.errors import UserError, first_line
from simcse_bench.files import read_json

RUN_RECORD = "train.json"  # of a run, whose folder its model lies in
SETTINGS_FILE = "simcse_bench.json"  # beside a checkpoint that we trained: {"pooling": ..., "head": ...} at test
DAMAGED = (SafetensorError, pickle.UnpicklingError, EOFError)  # what reading a broken or refused weight file raises
# heads in the order of preference: an official training checkpoint (mlp), a converted one or BERT's own (pooler)
MLP_KEYS = ("mlp.dense", "pooler.dense", "bert.pooler.dense", "roberta.pooler.dense")


class ModelSettings(TypedDict):
    """``SETTINGS_FILE``: how a model folder that we wrote is used."""

    pooling: str
    head: str
    start: NotRequired[str]  # mini, where it was trained from the embedded encoder
    template: NotRequired[str]  # around the sentence, see ``prompts.Prompt``
    prompt_left_out: NotRequired[bool]
    template_bias_removed: NotRequired[bool]


def mlp_head(name: str, folder: Path) -> Any:
    """SimCSE's head, dense + tanh, from a checkpoint's own weights; UserError where it has none."""
    import torch

    files = tensor_names(folder)
    for key in MLP_KEYS:
        if f"{key}.weight" in files:
            if f"{key}.bias" not in files:
                raise UserError(f"{name}: {key}.weight without {key}.bias; its weights are not complete.")
            return _linear(files, key, True, torch.nn.Tanh())
    raise UserError(
        f"{name}: --head mlp needs {' or '.join(f'{k}.weight' for k in MLP_KEYS[:2])}, "
        "and the checkpoint has neither: the head would be random. Use --head none."
    )


def dense_head(folder: Path) -> Any:
    """A sentence-transformers Dense module with its activation."""
    import torch

    name = str(read_json(folder / "config.json").get("activation_function", "torch.nn.modules.activation.Tanh"))
    known = {"Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU"}
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or kind not in known:
        raise UserError(f"{folder}/config.json: activation {name!r}; known: {', '.join(sorted(known))} of torch.nn.")
    files = tensor_names(folder)
    if "linear.weight" not in files:
        raise UserError(f"{folder}: no linear.weight in its weights; expected a sentence-transformers Dense module.")
    return _linear(files, "linear", "linear.bias" in files, getattr(torch.nn, kind)())


def _linear(files: Mapping[str, Path], key: str, bias: bool, activation: Any) -> Any:
    """The linear layer of this name, and what follows it."""
    import torch

    parts = ("weight", "bias") if bias else ("weight",)
    state = {part: _tensor(files[f"{key}.{part}"], f"{key}.{part}").float() for part in parts}
    width_out, width_in = state["weight"].shape
    linear = torch.nn.Linear(width_in, width_out, bias=bias)
    linear.load_state_dict(state)
    return torch.nn.Sequential(linear, activation).eval()


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: of safetensors, or where there are none pickled (read with weights_only).

    One file or the shards that an index names; files of other names beside them are not looked at.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            content = read_json(index)
            shards = content.get("weight_map") if isinstance(content, dict) else None
            if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
                raise UserError(f"{index}: no weight_map in it; expected the index of a checkpoint in several files.")
            return sorted({folder / shard for shard in shards.values()})
    return []


def tensor_names(folder: Path) -> dict[str, Path]:
    """Name of every tensor in a folder's weight files -> its file."""
    names: dict[str, Path] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as tensors:
                    names |= dict.fromkeys(tensors.keys(), path)
            except SafetensorError as error:
                raise UserError(f"{path}: damaged or cut off ({error}).") from error
        else:
            names |= dict.fromkeys(_load_bin(path), path)
    return names


def _tensor(path: Path, name: str) -> Any:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as tensors:
            return tensors.get_tensor(name)
    return _load_bin(path)[name]


def _load_bin(path: Path) -> Mapping[str, Any]:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except pickle.UnpicklingError as error:  # torch's own words advise to run the file's code
        raise UserError(f"{path}: refused; it holds more than tensors, which loading would run as code.") from error
    except (*DAMAGED, RuntimeError, OSError) as error:
        raise UserError(f"{path}: damaged, not a file of weights ({first_line(error)}).") from error
