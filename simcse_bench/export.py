"""A trained model as a folder: transformers' files with the MLP, sentence-transformers' modules, our own settings."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from simcse_bench.embedded import MODEL
from simcse_bench.errors import UserError
from simcse_bench.report import write_text
from simcse_bench.sentence_model import SentenceModel
from simcse_bench.weights import SETTINGS_FILE

# hidden states that a pooling averages, as (first layer, weights of it and those above) for WeightedLayerPooling
_LAYERS = {"first_last": (1, "ends"), "embedding_last": (0, "ends"), "top2": (-1, "all")}


def export(model: SentenceModel, folder: Path, embedded: bool = False) -> None:
    """Write the anchors' encoder, tokenizer and MLP below ``folder``, each file whole or not at all.

    ``AutoModel`` loads it (``pooler_output`` is the MLP's output, where there is an MLP), sentence-transformers from
    version 2 on loads it with the embeddings of ``simcse-bench eval``. ``embedded``: it was trained from the mini
    encoder, which stands in the title of its reports.

    Raises:
        UserError: a full disk or a folder that cannot be written.
    """
    with written(folder) as new:
        encoder: Any = model.encoders[0]
        state = {k: v.detach().float().cpu().contiguous() for k, v in encoder.state_dict().items()}
        if model.mlp is not None:  # where BERT keeps its pooler: what simcse_to_huggingface.py does
            dense = model.mlp[0]
            state |= {"pooler.dense.weight": _plain(dense.weight), "pooler.dense.bias": _plain(dense.bias)}
        config = encoder.config.to_dict() | {"architectures": [type(encoder).__name__], "dtype": "float32"}
        _json(new / "config.json", {k: v for k, v in config.items() if k != "_name_or_path"})
        save_file(state, new / "model.safetensors", metadata={"format": "pt"})
        model.tokenizer.save_pretrained(new)
        at_test = "mlp" if model.config.mlp == "always" else "none"
        _json(
            new / SETTINGS_FILE,
            {"pooling": model.config.pooling, "head": at_test} | ({"start": MODEL} if embedded else {}),
        )
        _sentence_transformers(model, new, at_test)


def _sentence_transformers(model: SentenceModel, folder: Path, head: str) -> None:
    """modules.json in the layout that every release since 2 reads, with each module's own files."""
    encoder: Any = model.encoders[0]
    width, pooling = int(encoder.config.hidden_size), model.config.pooling
    modules = [("", "Transformer")]
    # sentence-transformers truncates at this length; SimCSE evaluates untruncated, so it is the model's own limit
    settings: dict[str, Any] = {"max_seq_length": model.limit, "do_lower_case": False}
    if pooling in _LAYERS:
        settings["config_args"] = {"output_hidden_states": True}
        layers = int(encoder.config.num_hidden_layers)
        first, kind = _LAYERS[pooling]
        first %= layers
        weights = [float(kind == "all")] * (layers + 1 - first)
        weights[0] = weights[-1] = 1.0
        path = folder / f"{len(modules)}_WeightedLayerPooling"
        path.mkdir()
        _json(
            path / "config.json", {"word_embedding_dimension": width, "layer_start": first, "num_hidden_layers": layers}
        )
        import torch

        save_file({"layer_weights": torch.tensor(weights)}, path / "model.safetensors", metadata={"format": "pt"})
        modules.append((path.name, "WeightedLayerPooling"))
    _json(folder / "sentence_bert_config.json", settings)
    path = folder / f"{len(modules)}_Pooling"
    path.mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    chosen = "cls_token" if pooling == "cls" else "mean_tokens"
    pooled = {"word_embedding_dimension": width} | {f"pooling_mode_{m}": m == chosen for m in modes}
    _json(path / "config.json", pooled)
    modules.append((path.name, "Pooling"))
    if head == "mlp" and model.mlp is not None:
        path = folder / f"{len(modules)}_Dense"
        path.mkdir()
        activation = "torch.nn.modules.activation.Tanh"
        dense = {"in_features": width, "out_features": width, "bias": True, "activation_function": activation}
        _json(path / "config.json", dense)
        linear = model.mlp[0]
        state = {"linear.weight": _plain(linear.weight), "linear.bias": _plain(linear.bias)}
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        modules.append((path.name, "Dense"))
    listed = [
        {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for i, (name, kind) in enumerate(modules)
    ]
    _json(folder / "modules.json", listed)


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A new folder to fill; what it holds at the end is moved into ``folder``, on an error nothing is."""
    new = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        yield new
        for path in sorted(new.iterdir()):
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


def _json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
