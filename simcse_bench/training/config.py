"""TrainConfig: every setting that decides what a training run gives, with its source; recipes and --set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_type_hints

from simcse_bench import bundled
from simcse_bench.data.registry import task_name
from simcse_bench.data.senteval import ANYWHERE, DataSource, is_configured
from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.files import fingerprint
from simcse_bench.models.catalog import DTYPES, POOLERS, POOLINGS
from simcse_bench.models.prompts import NO_PROMPT, SLOT, Prompt
from simcse_bench.schema import read_record
from simcse_bench.training.methods.known import METHODS, complete_settings, method_class, setting_problems, settings_of

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
# Changed fields of TrainConfig. Source: paper, Table A.1; SimCSE README and run_*_example.sh (epochs, dtype auto
# stands for the scripts' --fp16, the batch is the total over GPUs).
_SUP = {"train": "nli", "epochs": 3.0, "mlp": "always", "batch_size": 512, "dtype": "auto"}
_UNSUP = {"train": "wiki1m", "epochs": 1.0, "mlp": "train_only", "batch_size": 64, "dtype": "auto"}
_ROBERTA = "FacebookAI/roberta"
_BERT = "google-bert/bert"
# The embedded encoder (bundled.py): few updates at a high rate, from which dropout's effect shows in seconds; see
# results/embedded/README.md. One dev score, at the end: the best of several would hide it.
_MINI = {"model": "mini", "eval_task": "auto", "eval_every": 1000, "max_length": 24, "batch_size": 64}
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
    "mini-unsup": _UNSUP | _MINI | {"train": "mini-sentences", "learning_rate": 4e-4, "max_steps": 20},
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
_CHOICES: Mapping[str, Sequence[str] | Mapping[str, str]] = {
    "pooling": POOLINGS,
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

    pooling: str = _set("cls", "see `ls poolings`; Table 6")
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

    def settled(self, where: DataSource = ANYWHERE) -> TrainConfig:
        """``eval_task`` by its own name, and each "auto" (its own, ``dtype``'s) replaced by what it means here."""
        asked = ("stsb" if is_configured(where) else bundled.TASK) if self.eval_task == "auto" else self.eval_task
        dtype = self.dtype
        if dtype == "auto":
            from simcse_bench.models.cpu_kernels import multiplies_in_bfloat16

            dtype = "bfloat16" if multiplies_in_bfloat16() else "float32"
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
        if self.pooling == "mask" and not self.template:
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


def recipe(name: str | None, settings: Sequence[str] = (), where: DataSource | None = None) -> TrainConfig:
    """A named recipe (Table A.1's eight, and small ones), with every ``field=value`` applied, checked.

    Args:
        name: a key of ``RECIPES``; None: the defaults.
        settings: see ``with_settings``.
        where: the data that is there, which settles every "auto", see ``TrainConfig.settled``.
    """
    if name is not None and name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    config = with_settings(TrainConfig(**RECIPES[name] if name else {}), settings)
    return config if where is None else config.settled(where)


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
