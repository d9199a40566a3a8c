"""A trained model as a folder: transformers' files with the MLP, sentence-transformers' modules, our own settings."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from simcse_bench.bundled import MODEL
from simcse_bench.errors import UserError
from simcse_bench.files import write_json
from simcse_bench.models.prompts import NO_PROMPT, Prompt
from simcse_bench.models.weights import SETTINGS_FILE

# pooling -> sentence-transformers' setting pooling_mode_..., in its order of concatenation
_MODES = {"cls": "cls_token", "max": "max_tokens"}
_MODES |= dict.fromkeys(("mean", "first_last", "embedding_last", "top2"), "mean_tokens")
_MODES |= {"mean_sqrt_len": "mean_sqrt_len_tokens", "weighted_mean": "weightedmean_tokens", "last_token": "lasttoken"}
# hidden states that a pooling averages, as (first layer, weights of it and those above) for WeightedLayerPooling
_LAYERS = {"first_last": (1, "ends"), "embedding_last": (0, "ends"), "top2": (-1, "all")}


@dataclass(frozen=True)
class Parts:
    """What a model folder is written from."""

    encoder: Any  # a transformers model without a pooling layer
    tokenizer: Any
    pooling: str
    limit: int  # tokens of a sentence, special ones included
    dense: Any = None  # linear layer and activation of the test-time head
    pooler: Any = None  # linear layer kept as BERT keeps its pooler, used at test or not
    normalize: bool = False
    embedded: bool = False
    prompt: Prompt = NO_PROMPT
    truncate_dim: int | None = None
    state: Mapping[str, Any] | None = None  # the encoder's weights, where they are not as it has them (LoRA)

    @property
    def modules(self) -> bool:
        """Whether sentence-transformers can express it: no template around the sentence, no pooling that it lacks."""
        parts = self.pooling.split("+")
        known = [name for name in _MODES if name in parts]  # its order, which legacy settings imply
        layered = len(parts) == 1 or not set(parts) & set(_LAYERS)
        return not self.prompt.suffix and known == parts and layered

    @property
    def head(self) -> str:
        """The head at test, a key of ``catalog.HEADS``."""
        return "none" if self.dense is None else "mlp"

    @property
    def fits(self) -> bool:
        """Whether the kept pooler has the shape of BERT's."""
        return bool(self.pooler.in_features == self.encoder.config.hidden_size)

    @property
    def simcse_head(self) -> bool:
        """Whether the head (if any) is SimCSE's: dense and tanh, as wide as the encoder."""
        if self.dense is None:
            return True
        linear, activation = self.dense
        return type(activation).__name__ == "Tanh" and linear.in_features == linear.out_features


def write_parts(parts: Parts, folder: Path) -> None:
    """Files for transformers, sentence-transformers and ``simcse-bench eval`` in an empty folder."""
    encoder = parts.encoder
    state = {k: _plain(v) for k, v in (parts.state or encoder.state_dict()).items()}
    if parts.pooler is not None and (parts.fits or parts.dense is not None):
        # where BERT keeps its pooler: what simcse_to_huggingface.py does. Poolings side by side are too wide for that
        # place: a layer used at test is then named as in an official training checkpoint, another is left out
        place = "pooler" if parts.fits else "mlp"
        state |= {f"{place}.dense.{name}": _plain(getattr(parts.pooler, name)) for name in ("weight", "bias")}
    write_config(encoder, folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    parts.tokenizer.save_pretrained(folder)
    if parts.simcse_head and not parts.normalize and parts.truncate_dim is None:  # else modules.json alone can say it
        settings = {"pooling": parts.pooling, "head": parts.head} | parts.prompt.provenance()
        write_json(folder / SETTINGS_FILE, settings | ({"start": MODEL} if parts.embedded else {}), 2)
    if parts.modules:
        _write_modules(parts, folder)


def write_config(encoder: Any, folder: Path) -> None:
    """transformers' config.json of float32 weights, without the machine's own paths."""
    config = encoder.config.to_dict() | {"architectures": [type(encoder).__name__], "dtype": "float32"}
    write_json(folder / "config.json", {k: v for k, v in config.items() if k != "_name_or_path"}, 2)


def _write_modules(parts: Parts, folder: Path) -> None:
    """modules.json in the layout that every release since 2 reads, with each module's own files."""
    import torch

    config, pooling = parts.encoder.config, parts.pooling
    width, modules = int(config.hidden_size), [("", "Transformer")]

    def add(kind: str, settings: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        path = folder / f"{len(modules)}_{kind}"
        path.mkdir()
        write_json(path / "config.json", settings, 2)
        if state is not None:
            save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        modules.append((path.name, kind))

    # sentence-transformers truncates at this length; SimCSE evaluates untruncated, so it is the model's own limit
    settings: dict[str, Any] = {"max_seq_length": parts.limit, "do_lower_case": False}
    if pooling in _LAYERS:
        settings["config_args"] = {"output_hidden_states": True}
        layers = int(config.num_hidden_layers)
        first, kind = _LAYERS[pooling]
        first %= layers
        weights = [float(kind == "all")] * (layers + 1 - first)
        weights[0] = weights[-1] = 1.0
        layered = {"word_embedding_dimension": width, "layer_start": first, "num_hidden_layers": layers}
        add("WeightedLayerPooling", layered, {"layer_weights": torch.tensor(weights)})
    write_json(folder / "sentence_bert_config.json", settings, 2)
    modes = {_MODES[name] for name in pooling.split("+")}
    chosen = {f"pooling_mode_{mode}": mode in modes for mode in dict.fromkeys(_MODES.values())}
    counted = {} if parts.prompt.counted else {"include_prompt": False}
    add("Pooling", {"word_embedding_dimension": width} | chosen | counted)
    if parts.dense is not None:
        linear, activation = parts.dense
        add(
            "Dense",
            {
                "in_features": linear.in_features,
                "out_features": linear.out_features,
                "bias": linear.bias is not None,
                "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
            },
            {f"linear.{part}": _plain(tensor) for part, tensor in linear.named_parameters()},
        )
    if parts.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))  # it has no files
    listed = [
        {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for i, (name, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed, 2)
    prompts = {"prompts": {"default": parts.prompt.prefix}, "default_prompt_name": "default"}
    whole: dict[str, Any] = prompts if parts.prompt.prefix else {}
    if parts.truncate_dim is not None:
        whole |= {"truncate_dim": parts.truncate_dim}
    if whole:
        write_json(folder / "config_sentence_transformers.json", whole, 2)


_LAST = ("config.json", "export.json")


@contextlib.contextmanager
def fill_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill; what it holds at the end is moved into ``folder``, after an error in it nothing is.

    The files that say what the others are go first and come last: a folder that a kill left with files of two models
    has no config.json, so that nothing loads it.
    """
    new = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        yield new
        for name in _LAST:
            (folder / name).unlink(missing_ok=True)
        for path in sorted(new.iterdir(), key=lambda path: (path.name in _LAST, path.name)):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {folder}: {reason}. Free some space or choose another --out.") from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _plain(tensor: Any) -> Any:
    return tensor.detach().float().cpu().contiguous()
