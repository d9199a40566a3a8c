"""Options of SimCSE's scripts, mteb and sentence-transformers: which of ours does the same, told where one is given.

An option that is not ours stays an error: theirs often means something a little different, and the answer says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer.core

from simcse_bench.errors import UserError

_BATCH = "a batch holds so many tokens, sentences of one length together without padding; it decides speed, no score."
# SimCSE evaluation.py, mteb's command, sentence-transformers' names; "{}" is the value that was given
_MODELS = {
    "model_name_or_path": "--model {}, or the name alone as the first word.",
    "model_name": "--model {}, or the name alone as the first word.",
    "pooler_type": "--pooler {}.",
    "max_seq_length": "--max-length {}.",
    "cache_dir": "the environment's HF_HOME (models) and SIMCSE_BENCH_CACHE (data).",
    "batch_size": f"nothing: {_BATCH}",
    "fp16": "--dtype float16.",
    "bf16": "--dtype bfloat16.",
    "precision": "--dtype {}.",
    "no_cuda": "--device cpu.",
    "model_revision": "--revision {}.",
}
_EVALUATION = _MODELS | {
    "batch_size": f"--batch-tokens N: {_BATCH}",
    "per_device_eval_batch_size": f"--batch-tokens N: {_BATCH}",
    "task_set": "--suite sts, transfer or all (SimCSE's full); SimCSE's na: name the tasks, --task stsb,sickr.",
    "tasks": "--task {}, names separated by commas; tasks of mteb by its own protocol: --suite mteb:NAME,...",
    "mode": "test is the default; for dev --split dev, for fasttest --probe fast.",
    "benchmark": "--suite 'mteb:{}'.",
    "benchmarks": "--suite 'mteb:{}'.",
    "output_dir": "--out {}.",
    "output_folder": "--out {}.",
    "task_types": "--suite 'mteb:MTEB(eng, v2)' or mteb:TASK,...; the types are the benchmark's.",
    "overwrite": "--force.",
}
# SimCSE train.py and transformers' TrainingArguments, where a field of `--set` does not say it by its name alone
_TRAINING = {
    "model_name_or_path": "--model {}.",
    "train_file": "--train {}.",
    "dataset_name": "--train {}.",
    "output_dir": "--out {}.",
    "overwrite_output_dir": "--force.",
    "do_train": "nothing: `train` trains.",
    "do_eval": "nothing: the dev score is taken every --set eval_every=125 updates.",
    "do_mlm": "--set mlm_weight=0.1.",
    "evaluation_strategy": "nothing: by steps, --set eval_every=125.",
    "eval_strategy": "nothing: by steps, --set eval_every=125.",
    "metric_for_best_model": "--set eval_task=stsb, the default: the weights with its best dev score are kept.",
    "load_best_model_at_end": "nothing: the weights with the best dev score are always kept.",
    "eval_transfer": "after training, `simcse-bench eval RUN --suite transfer`.",
    "pooler_type": "--set pooling=cls and --set mlp=train_only, always or none; for avg pooling=mean, mlp=none.",
    "mlp_only_train": "--set mlp=train_only, the default.",
    "hard_negative_weight": "--set hard_negative_weight=A, the weight itself: SimCSE's flag is its logarithm.",
    "per_device_train_batch_size": "--set batch_size={}: over all processes together, where theirs is for each.",
    "fp16": "--set dtype=float16, or bfloat16.",
    "bf16": "--set dtype=bfloat16.",
    "save_steps": "--save-every {}.",
    "report_to": "--tracker {}.",
    "resume_from_checkpoint": "--resume.",
    "logging_steps": "nothing: log.jsonl in the run's folder has every update.",
    "pad_to_max_length": "nothing: sentences are not padded.",
    "local_rank": "nothing: torchrun sets it; `torchrun --nproc-per-node 4 -m simcse_bench train ...`.",
    "no_cuda": "--device cpu.",
    "cache_dir": "the environment's HF_HOME (models) and SIMCSE_BENCH_CACHE (data).",
}
_ANSWERS: Mapping[str, Mapping[str, str]] = {
    "eval": _EVALUATION,
    "verify": _MODELS,
    "analyze": _MODELS,
    "train": _TRAINING,
    "run-ablation": _TRAINING,
    "index": _MODELS,
    "encode": _MODELS,
    "demo": _MODELS,
    "export": _MODELS,
}


# what --help calls the values of an option, by typer's word for their type; an argument has a name already
_VALUES = {"<bool>": "", "<str>": "TEXT", "<list[str]>": "TEXT", "<int>": "N", "<float>": "X", "<path>": "PATH",
           "<list[Path]>": "PATH"}  # fmt: skip


class Command(typer.core.TyperCommand):
    """A command that answers the options of other tools with its own, and shows --help in its last group."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See click; a flag has no value to be named."""
        for param in self.get_params(ctx):
            if isinstance(param, typer.core.TyperArgument):
                param.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]
            elif isinstance(param, typer.core.TyperOption) and param.metavar is None:
                shown = param.display_type(ctx)
                param.metavar = _VALUES.get(shown, shown)
        super().format_help(ctx, formatter)

    def get_help_option(self, ctx: Any) -> Any:
        """See click."""
        option = super().get_help_option(ctx)
        panels = [panel for p in self.params if (panel := getattr(p, "rich_help_panel", None))]
        if isinstance(option, typer.core.TyperOption) and panels:
            option.rich_help_panel = panels[-1]
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click; a foreign option is a UserError that names ours."""
        given = list(args)  # click takes them away
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # click's own classes lie elsewhere in every version of typer
            if type(error).__name__ != "NoSuchOption":
                raise
            options = {option for param in self.params for option in (*param.opts, *param.secondary_opts)}
            problems = answers(str(self.name), given, options)
            if not problems:
                raise
            raise UserError(*problems) from None


def answers(command: str, words: Sequence[str], options: set[str]) -> list[str]:
    """A line for each option of another tool in a command line; ``options`` are the command's own."""
    lines = []
    for i, word in enumerate(words):
        if word == "--":
            break
        option, equals, value = word.partition("=")
        if not option.startswith("--") or option in options:
            continue
        after = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("-") else "..."
        line = _answer(command, option.removeprefix("--").replace("-", "_"), value if equals else after, options)
        lines += [f"no option {option} here: {line}"] if line else []
    return lines


def _answer(command: str, name: str, value: str, options: set[str]) -> str:
    """What does the same as another tool's option of this name; "" where nothing is known of it."""
    ours = f"--{name.replace('_', '-')}"
    if ours in options:
        return f"{ours} {value}."
    answer = _ANSWERS.get(command, {}).get(name, "")
    if answer:
        said = set(re.findall(r"--[a-z][a-z-]*", answer.partition("`")[0]))
        return answer.replace("{}", value) if said <= options else ""
    if "--set" in options:
        return _setting(name, value)
    return ""


def _setting(name: str, value: str) -> str:
    from simcse_bench.training.recipes import named_field

    field = named_field(name)
    return f"--set {field}={value}." if field else ""
