"""Recipes, Table A.1's and small ones; and the settings that a user gives as ``field=value``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from simcse_bench.data.senteval import DataSource
from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.methods.known import METHODS, setting_problems, settings_of

# Changed fields of TrainConfig. Source: paper, Table A.1; SimCSE README and run_*_example.sh (epochs, dtype auto
# stands for the scripts' --fp16, the batch is the total over GPUs).
_SUP = {"train": "nli", "epochs": 3.0, "mlp": "always", "batch_size": 512, "dtype": "auto"}
_UNSUP = {"train": "wiki1m", "epochs": 1.0, "mlp": "train_only", "batch_size": 64, "dtype": "auto"}
_ROBERTA = "FacebookAI/roberta"
_BERT = "google-bert/bert"
# The embedded encoder (bundled.py): few updates at a high rate, from which dropout's effect shows in seconds; see
# results/embedded/README.md. One dev score, at the end: the best of several would hide it.
# differs from the paper: [CLS] alone forgets what the transfer tasks ask for, beside the mean it does not
_MINI = {"model": "mini", "pooling": "cls+mean", "eval_task": "auto", "eval_every": 1000, "max_length": 24,
         "batch_size": 64}  # fmt: skip
# differs from the paper: temperature 0.07, not 0.05, at which dropout's effect does not show in 20 updates of both
_MINI_UNSUP = {"train": "mini-sentences", "learning_rate": 8e-4, "max_steps": 20, "temperature": 0.07}
# differs from the paper: the MLP, drawn at random, has no time to be of use at test; contradictions, which share their
# subject with the sentence, weigh less
_MINI_SUP = {"train": "mini-nli", "learning_rate": 3e-4, "max_steps": 50, "mlp": "train_only",
             "hard_negative_weight": 0.3}  # fmt: skip
_LORA = {"lora_rank": 64, "lora_targets": ("q_proj", "v_proj"), "learning_rate": 5e-4, "batch_size": 256,
         "cached_gradients": True, "mlp": "none"}  # fmt: skip
_EOL = _LORA | {"template": 'This sentence : "{sentence}" means in one word:"', "pooling": "last_token",
                "max_length": 64}  # fmt: skip
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "unsup-bert-base": _UNSUP | {"model": f"{_BERT}-base-uncased", "learning_rate": 3e-5},
    "unsup-bert-large": _UNSUP | {"model": f"{_BERT}-large-uncased", "learning_rate": 1e-5},
    "unsup-roberta-base": _UNSUP | {"model": f"{_ROBERTA}-base", "learning_rate": 1e-5, "batch_size": 512},
    "unsup-roberta-large": _UNSUP | {"model": f"{_ROBERTA}-large", "learning_rate": 3e-5, "batch_size": 512},
    "sup-bert-base": _SUP | {"model": f"{_BERT}-base-uncased", "learning_rate": 5e-5},
    "sup-bert-large": _SUP | {"model": f"{_BERT}-large-uncased", "learning_rate": 1e-5},
    "sup-roberta-base": _SUP | {"model": f"{_ROBERTA}-base", "learning_rate": 5e-5},
    "sup-roberta-large": _SUP | {"model": f"{_ROBERTA}-large", "learning_rate": 1e-5},
    # after PromptEOL (Jiang et al. 2023), section 4.3 and its script; smaller models than there
    "unsup-prompteol-lora": _UNSUP | _EOL | {"model": "facebook/opt-1.3b"},
    "sup-prompteol-lora": _SUP | _EOL | {"model": "facebook/opt-1.3b", "epochs": 1.0},
    "sup-qwen3-lora": _SUP | _LORA | {"model": "Qwen/Qwen3-0.6B", "pooling": "last_token", "epochs": 1.0},
    "mini-unsup": _UNSUP | _MINI | _MINI_UNSUP,
    "mini-sup": _SUP | _MINI | _MINI_SUP,
}
# other names of fields: SimCSE train.py's flags, and what people type
OTHER_NAMES = {
    "model_name_or_path": "model", "model_revision": "revision", "train_file": "train", "dataset_name": "train",
    "max_seq_length": "max_length", "max_len": "max_length",
    "bs": "batch_size", "batch": "batch_size", "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation", "grad_accum": "accumulation",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "epoch": "epochs", "steps": "max_steps",
    "lr": "learning_rate", "wd": "weight_decay", "warmup": "warmup_steps", "num_warmup_steps": "warmup_steps",
    "temp": "temperature", "tau": "temperature",
    "sim": "similarity", "alpha": "hard_negative_weight",
    "pooler": "pooling", "pooler_type": "pooling", "mlp_only_train": "mlp", "head": "mlp",
    "hidden_dropout_prob": "hidden_dropout", "attention_probs_dropout_prob": "attention_dropout",
    "lambda": "mlm_weight", "fp16": "dtype", "bf16": "dtype", "precision": "dtype",
    "eval_steps": "eval_every", "metric_for_best_model": "eval_task",
    "random_seed": "seed", "gradcache": "cached_gradients", "lora_r": "lora_rank",
}  # fmt: skip


def recipe(
    name: str | None, settings: Sequence[str] = (), where: DataSource | None = None, device: str = "auto"
) -> TrainConfig:
    """A named recipe (Table A.1's eight, and small ones), with every ``field=value`` applied, checked.

    Args:
        name: a key of ``RECIPES``; None: the defaults.
        settings: see ``with_settings``.
        where, device: the data that is there and the device, which settle every "auto", see ``TrainConfig.settled``.
    """
    if name is not None and name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    config = with_settings(TrainConfig(**RECIPES[name] if name else {}), settings)
    return config if where is None else config.settled(where, device)


def with_settings(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """``config`` with every ``field=value`` applied, checked.

    ``dropout=p`` stands for both dropout fields, ``none`` for None; columns are separated by commas.
    """
    hints = {k: v for k, v in get_type_hints(TrainConfig).items() if k != "method_settings"}
    changes: dict[str, Any] = {}
    problems: list[str] = []
    method = _method_of(config, settings)
    own = settings_of(method) if method in METHODS else {}
    chosen = dict(config.method_settings) if method == config.method else {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        names = fields_of(name)
        shown = setting if setting.isprintable() and len(setting) <= 80 else f"{setting!r:.80}"
        if not equals:
            problems.append(f"--set {shown}: expected field=value.")
        elif name in own:
            try:
                chosen[name] = _parsed(text, type(own[name]))
            except ValueError as error:
                problems.append(f"--set {shown}: {error}.")
        elif names[0] not in hints and any(name in settings_of(other) for other in METHODS):
            problems += [f"--set {problem}" for problem in setting_problems(method, {name: text})]
        elif names[0] not in hints:
            other = named_field(name)
            near = f"; did you mean {other!r}?" if other else suggestion(name, [*hints, *own, "dropout"])
            problems.append(f"--set {shown}: unknown field {name!r}{near} `simcse-bench ls settings` lists them.")
        else:
            try:
                changes |= {n: _parsed(text, hints[n]) for n in names}
            except ValueError as error:
                problems.append(f"--set {shown}: {error}.")
    if problems:
        raise UserError(*problems)
    return dataclasses.replace(config, **changes, method_settings=chosen).check()


def _method_of(config: TrainConfig, settings: Sequence[str]) -> str:
    """The method that settings are for: the last one named among them, or the config's."""
    named = [text.strip() for name, _, text in (s.partition("=") for s in settings) if name.strip() == "method"]
    return named[-1] if named else config.method


def named_field(name: str) -> str:
    """The field that another tool's or a short name stands for, or a field's own in another spelling; "" for none."""
    name = name.replace("-", "_").lower()
    return name if name in (*TrainConfig.__dataclass_fields__, "dropout") else OTHER_NAMES.get(name, "")


def fields_of(name: str) -> list[str]:
    """The fields that a name of ``--set`` stands for."""
    return ["hidden_dropout", "attention_dropout"] if name == "dropout" else [name]


def _parsed(text: str, hint: Any) -> Any:
    """A value of the field's type; ValueError says what was expected."""
    kinds = [k for k in getattr(hint, "__args__", (hint,)) if k is not Ellipsis]
    if type(None) in kinds:
        if text.lower() in ("none", ""):
            return None
        kinds.remove(type(None))
    if getattr(hint, "__origin__", None) is tuple:
        parts = [] if text.lower() == "none" else [part.strip() for part in text.split(",") if part.strip()]
        return tuple(_parsed(part, kinds[0]) for part in parts)
    kind = kinds[0]
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError("expected true or false")
        return text.lower() in ("true", "yes", "1")
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("expected a whole number") from None
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError("expected a number") from None
    return text
