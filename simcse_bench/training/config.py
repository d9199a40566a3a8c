"""TrainConfig: every setting that decides what a training run gives, with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.registry import task_name
from simcse_bench.data.senteval import ANYWHERE, DataSource, is_configured
from simcse_bench.errors import UserError, unknown
from simcse_bench.files import fingerprint
from simcse_bench.models.catalog import DTYPES, POOLERS, POOLINGS
from simcse_bench.models.prompts import NO_PROMPT, SLOT, Prompt
from simcse_bench.schema import read_record
from simcse_bench.training.methods.known import METHODS, complete_settings, method_class, setting_problems

MLPS = {
    "train_only": "in training, not at test (unsupervised SimCSE: mlp_only_train)",
    "always": "in training and at test (supervised SimCSE)",
    "none": "the pooled vector as it is",
}
SIMILARITIES = {"cosine": "cosine / temperature", "dot": "plain dot product, without a temperature"}
SAME_MASKS = {
    "no": "each of the two passes has its own dropout mask",
    "copy": "one pass, z2 = z1: the authors' own way to 'Fixed 0.1'",
    "replay": "two passes under the same random state: the same values and gradients as copy, up to rounding",
}
GATHERS = {
    "exact": "gradients through all processes' embeddings: those of one process with the whole batch",
    "simcse": "gradients through the own embeddings only (SimCSE models.py): 1 / processes of the exact ones",
}
OBJECTIVES = {
    "self": "the sentence itself, through another dropout mask",
    "next_sentence": "the next line of the text (which must be in document order; wiki1m is not)",
    "next_3_sentences": "one of the next three lines, drawn at random",
}
AUGMENTATIONS = {
    "none": "dropout alone: unsupervised SimCSE",
    "crop": "a random stretch of (1 - rate) of the words",
    "word_deletion": "rate of the words left out at random",
    "delete_one_word": "one word left out",
    "synonym": "one word replaced by a WordNet synonym",
    "mlm": "rate of the tokens masked and filled in by a masked language model",
}
_CHOICES: Mapping[str, Sequence[str] | Mapping[str, str]] = {
    "mlp": MLPS,
    "similarity": SIMILARITIES,
    "same_mask": SAME_MASKS,
    "augmentation": AUGMENTATIONS,
    "objective": OBJECTIVES,
    "gather": GATHERS,
    "dtype": ("auto", *DTYPES),
}


def _set(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Defaults: unsupervised SimCSE on BERT-base (paper, Table A.1; SimCSE train.py)."""

    model: str = _set("bert-base-uncased", "encoder to start from: a folder or a Hub id")
    revision: str | None = _set(None, "its branch, tag or commit on the Hub")
    train: str = _set("wiki1m", "training text: a file (.txt .csv .tsv .jsonl .parquet), wiki1m, nli, or a Hub dataset")
    columns: tuple[str, ...] = _set(
        (), "columns by name: sentence, positive, hard negatives; or sentence, sentence, score; none: by position"
    )
    max_rows: int = _set(0, "only the first rows of the training text; 0: all")
    max_length: int = _set(32, "tokens per sentence in training; Table A.1")

    batch_size: int = _set(64, "rows in one loss, over all processes: each has batch_size - 1 other rows as negatives")
    accumulation: int = _set(1, "losses averaged for one update; more rows per update, NOT more negatives")
    cached_gradients: bool = _set(False, "large batches in fixed memory (GradCache): same gradients, one more forward")
    chunk_tokens: int = _set(8192, "most tokens embedded at once: memory, no effect on the loss")
    epochs: float = _set(1.0, "passes over the data; Table A.1: 1 unsupervised, 3 supervised")
    max_steps: int = _set(0, "stop the schedule after so many updates instead; 0: by epochs")
    learning_rate: float = _set(3e-5, "AdamW's, decayed linearly to 0; Table A.1")
    warmup_steps: int = _set(0, "updates of linear warm-up; SimCSE: 0")
    weight_decay: float = _set(0.0, "AdamW's; SimCSE: 0")
    max_grad_norm: float = _set(1.0, "gradients are clipped to this norm; 0: never; SimCSE: 1.0")
    seed: int = _set(42, "of everything drawn; SimCSE: 42")
    dtype: str = _set(
        "float32",
        "float32, or autocast to bfloat16 or float16 (weights stay float32); auto: bfloat16 where the GPU or the "
        "processor multiplies in it, else float32",
    )

    similarity: str = _set("cosine", "cosine / temperature, or dot (plain dot product; Table D.1)")
    temperature: float = _set(0.05, "of the cosine; Table D.1")
    hard_negative_weight: float = _set(1.0, "α of Eq. 8, for a row's own hard negatives (SimCSE's flag is ln α)")
    symmetric: bool = _set(False, "also positive -> anchor, both directions averaged; SimCSE: one direction")
    false_negative_threshold: float | None = _set(
        None, "rows whose sentences have a cosine above this are not each other's negatives; none: all are"
    )
    gather: str = _set("exact", "several processes: exact gradients, or simcse (own slice only, 1/processes of them)")
    hidden_dropout: float | None = _set(None, "overrides the checkpoint's hidden_dropout_prob; Table 3")
    attention_dropout: float | None = _set(None, "overrides the checkpoint's attention_probs_dropout_prob; Table 3")
    same_mask: str = _set("no", "Table 3, Fixed 0.1: copy (z2 = z1) or replay (two passes, same random state)")
    mlm_weight: float = _set(0.0, "λ of the masked-language-modelling term; Table D.2: 0.1; 0: none")
    mlm_probability: float = _set(0.15, "share of tokens masked for it")
    mlm_tied: bool = _set(False, "its decoder is the word embeddings (BERT), instead of a copy (SimCSE)")

    template: str = _set("", "text around every {sentence} (PromptBERT, PromptEOL), counted in max_length; none: alone")
    lora_rank: int = _set(0, "train low-rank changes of linear layers (LoRA, extra peft), merged at the end; 0: all")
    lora_alpha: float = _set(16.0, "their scale is alpha / rank")
    lora_dropout: float = _set(0.05, "before them")
    lora_targets: tuple[str, ...] = _set((), "names of the layers, such as q_proj,v_proj; none: all linear layers")
    gradient_checkpointing: bool = _set(False, "layers computed again in the backward pass: less memory")

    pooling: str = _set("cls", "see `ls poolings`; Table 6; cls+mean: both, one after the other")
    mlp: str = _set("train_only", "dense + tanh on the pooled vector: train_only, always or none; Table 6")
    objective: str = _set("self", "positive of a one-column row: self, next_sentence, next_3_sentences; Table 2")
    encoders: int = _set(1, "2: anchors and positives have an encoder each (Table 2); the anchors' is saved")
    augmentation: str = _set("none", "of the positive of a one-column row; see `ls settings`; Table 1")
    augmentation_rate: float = _set(0.1, "k of crop and word deletion; share of tokens for mlm")
    augmentation_file: str = _set("", "synonym: a file of word<TAB>synonyms; mlm: the language model; none: model")

    method: str = _set("simcse", "what is changed in SimCSE's step: see `ls methods`")
    method_settings: Mapping[str, Any] = field(
        default_factory=dict, hash=False, metadata={"help": "the method's own settings, each set by its name"}
    )
    matryoshka: tuple[int, ...] = _set((), "also the loss of the vectors' first so many values, of equal weight")

    eval_task: str = _set(
        "stsb", "task whose dev score selects the best weights; auto: stsb where its data is, else mini-sts"
    )
    eval_every: int = _set(125, "updates between dev scores, one more at the end; 0: none, the last weights are kept")
    track_geometry: int = _set(0, "updates between records of alignment and uniformity (Figure 2); 0: none")

    @property
    def makes_positives(self) -> bool:
        """Whether the positives of one-column rows are made of text, by an objective or an augmentation."""
        return self.objective != "self" or self.augmentation != "none"

    @property
    def scored(self) -> bool:
        """Whether it trains on pairs of sentences with scores."""
        return METHODS[self.method].scored

    def views(self, columns: int) -> int:
        """How often each sentence of a row is embedded: a lone one twice, to be its own positive, but not a copy."""
        return 2 if columns == 1 and self.same_mask != "copy" else 1

    def decisive(self) -> dict[str, Any]:
        """All fields by name; those that came later (``_LATER``) only where they say something.

        So runs and trials from before them stay what they are.
        """
        default = TrainConfig()
        content = dataclasses.asdict(self)
        silent = {name for name in _LATER if content[name] == getattr(default, name)}
        return {name: value for name, value in content.items() if name not in silent}

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the decisive fields."""
        return fingerprint(self.decisive())

    def settled(self, where: DataSource = ANYWHERE, device: str = "auto") -> TrainConfig:
        """``eval_task`` by its own name, and each "auto" (its own, ``dtype``'s) replaced by what it means there."""
        asked = ("stsb" if is_configured(where) else bundled.TASK) if self.eval_task == "auto" else self.eval_task
        dtype = self.dtype
        if dtype == "auto":
            from simcse_bench.models.cpu_kernels import multiplies_in_bfloat16

            dtype = "bfloat16" if multiplies_in_bfloat16(device) else "float32"
        return dataclasses.replace(
            self,
            eval_task=task_name(asked, where.tasks_dir),
            dtype=dtype,
        ).completed()

    def completed(self) -> TrainConfig:
        """With all settings of the method, those left out by their defaults."""
        return dataclasses.replace(self, method_settings=complete_settings(self.method, self.method_settings))

    def check(self) -> TrainConfig:
        """Self, where every value is possible; else a UserError with all problems."""
        problems = [
            str(unknown(name, getattr(self, name), known))
            for name, known in _CHOICES.items()
            if getattr(self, name) not in known
        ]
        parts = str(self.pooling).split("+")
        problems += [str(unknown("pooling", part, POOLINGS)) for part in parts if part not in POOLINGS]
        problems += [
            f"{name} {getattr(self, name)!r:.60}: expected {wanted}."
            for name, (wanted, valid) in _RANGES.items()
            if not valid(getattr(self, name)) and not (getattr(self, name) is None and name in _OPTIONAL)
        ]
        if self.pooling in POOLERS and self.pooling not in POOLINGS:
            pooling, _ = POOLERS[self.pooling]
            problems.append(f"{self.pooling} is SimCSE's name for pooling={pooling} with mlp=none; set these two.")
        if self.objective != "self" and self.augmentation != "none":
            problems.append("objective and augmentation exclude each other; set one of them.")
        if self.same_mask != "no" and (self.makes_positives or self.encoders == 2):
            problems.append(
                "same_mask: needs one sentence and one encoder, so no augmentation, objective or encoders 2."
            )
        if self.encoders == 2 and self.mlm_weight:
            problems.append("mlm_weight: with two encoders there is no one encoder to train with it; set encoders 1.")
        if self.template and self.template.count(SLOT) != 1:
            problems.append(f"template {self.template!r:.60}: expected {SLOT} in it, once, where the sentence goes.")
        if "mask" in parts and not self.template:
            problems.append("pooling mask: needs a template with the mask token in it.")
        if self.lora_rank and self.mlm_weight:
            problems.append("mlm_weight: not with lora_rank; the language model's head would stay as it is.")
        widths = self.matryoshka
        if any(not _is(n, Integral) or n < 1 for n in widths) or len(set(widths)) < len(widths):
            problems.append(f"matryoshka {widths!r:.60}: expected different whole numbers above 0, such as 64,128.")
        if widths and self.mlp == "train_only":
            problems.append(
                "matryoshka: with mlp train_only the first values learned would be the MLP's, which is "
                "dropped at test; set mlp none or always."
            )
        if self.method not in METHODS:
            problems.append(str(unknown("method", self.method, METHODS)))
        elif not problems and (self.method != "simcse" or self.method_settings):  # the plain one needs no torch here
            problems = setting_problems(self.method, self.method_settings) or method_class(self.method).problems(self)
        if problems:
            raise UserError(*problems)
        return self


# fields that came after runs and trials that people have
_LATER = ("method", "method_settings", "matryoshka", "false_negative_threshold")
_Range = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that
_MOST_ROWS = 2**31 - 1  # of rows, updates or tokens: more than any run can have
_LARGEST = 3.4e38  # of float32, in which the weights are


def _whole(low: int, why: str = "", high: int = _MOST_ROWS) -> _Range:
    return f"at least {low}{why}, a whole number up to {high}", lambda x: _is(x, Integral) and low <= x <= high


def _real(low: float, high: float, below: bool = False) -> _Range:
    """From ``low`` on, or with ``below`` more than that, up to ``high``."""
    words = f"{'more than' if below else 'at least'} {low:g}, at most {high:g}"
    return words, lambda x: _is(x, Real) and (low < x if below else low <= x) and x <= high


def _is(x: Any, kind: type) -> bool:
    return isinstance(x, kind) and not isinstance(x, bool)


_RANGES: Mapping[str, _Range] = {
    "max_rows": _whole(0),
    "max_length": _whole(3, " tokens"),
    "batch_size": _whole(2, " (a row alone has no negative)"),
    "accumulation": _whole(1),
    "chunk_tokens": _whole(32),
    "epochs": _real(0, 1e6, below=True),
    "max_steps": _whole(0),
    "learning_rate": _real(0, _LARGEST, below=True),
    "warmup_steps": _whole(0),
    "weight_decay": _real(0, _LARGEST),
    "max_grad_norm": _real(0, _LARGEST),
    "seed": _whole(0, high=2**32 - 1),
    "temperature": _real(0, _LARGEST, below=True),
    "hard_negative_weight": _real(0, _LARGEST, below=True),  # α: its logarithm is added
    "false_negative_threshold": _real(0, 1),
    "hidden_dropout": _real(0, 0.999),
    "attention_dropout": _real(0, 0.999),
    "mlm_weight": _real(0, _LARGEST),
    "mlm_probability": _real(0, 1, below=True),
    "lora_rank": _whole(0, high=65536),
    "lora_alpha": _real(0, _LARGEST, below=True),
    "lora_dropout": _real(0, 0.999),
    "encoders": ("1 or 2", lambda x: _is(x, Integral) and x in (1, 2)),
    "augmentation_rate": ("a share above 0, below 1", lambda x: _is(x, Real) and 0 < x < 1),
    "eval_every": _whole(0),
    "track_geometry": _whole(0),
}

_OPTIONAL = ("false_negative_threshold", "hidden_dropout", "attention_dropout")  # of them, those that may be None


def prompt_of(config: TrainConfig) -> Prompt:
    """What is put around every sentence."""
    return Prompt(config.template) if config.template else NO_PROMPT


def read_config(path: Path) -> TrainConfig:
    """A run's settings from its JSON.

    Raises:
        UserError: it cannot be read, is of another version, or holds what no setting can be.
    """
    otherwise = "not the settings of a run. Start a new one with --force or another --out."
    there, known = set(read_record(path, dict[str, Any], otherwise)), {f.name for f in fields(TrainConfig)}
    other = there ^ known - (set(_LATER) - there)
    if other:
        shown = ", ".join(sorted(other)[:8])
        raise UserError(f"{path}: made by another version of simcse-bench (fields: {shown}); start a new run.")
    config = read_record(path, TrainConfig, otherwise)
    lists: Any = {name: tuple(getattr(config, name)) for name in ("columns", "lora_targets", "matryoshka")}
    return dataclasses.replace(config, **lists).check()
