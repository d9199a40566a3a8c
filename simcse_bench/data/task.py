"""Tasks and protocols: what is measured and under which rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse_bench.errors import unknown

STS_FORMATS = ("semeval", "tsv", "csv", "hub", "cxc")
TRANSFER_FORMATS = ("class_files", "sst", "sst_fine", "trec", "mrpc", "snli", "probing", "tsv")
TABLES = ("tsv", "csv", "hub")
FORMATS = {  # of each kind of task
    "sts": STS_FORMATS,
    "transfer": TRANSFER_FORMATS,
    "paraphrase": TABLES,
    "triplet": TABLES,
    "ranking": ("jsonl", "sts"),
}
KINDS = tuple(FORMATS)
PAIR_COLUMNS, TRIPLET_COLUMNS = ("gold", "left", "right"), ("anchor", "positive", "negative")
# of a transfer task -> its number of splits
PROBE_SPLITS = {"nested_kfold": 1, "kfold": 2, "split": 3, "linear_split": 3, "snli": 3, "relatedness": 3}
PAIR_PROBES = ("snli", "relatedness")
TEXT_VARIANTS = ("senteval", "raw")
OPTIONAL_FORMATS = ("snli", "probing")  # data from SentEval itself, which need not be in the official archive
PARTS = {"semeval": ("input", "gs"), "snli": ("s1", "s2", "labels")}  # of a format that has several files a subset
UNICODE_FORMS = ("", "NFC")
PROBE_NAMES = ("exact", "fast", "sklearn", "mlp", "mlp-tuned")
METRICS = ("spearman", "pearson")
METRICS_OF = {  # the scores of each kind of task; the first is the one that is shown
    "sts": METRICS,
    "transfer": ("accuracy",),
    "paraphrase": ("ap", "f1", "accuracy"),
    "triplet": ("accuracy",),
    "ranking": ("mrr", "hits@1", "hits@3"),
}
REGRESSION = ("pearson",)  # of a transfer task whose probe is a regression
AGGREGATES = ("all", "mean", "wmean")


@dataclass(frozen=True)
class Source:
    """Where the rows of a task lie and how to read them (one text variant)."""

    format: str
    path: str = ""  # relative to the data folder; {split}, {subset} and (PARTS) {part} are filled in. hub: of a copy
    columns: Mapping[str, int | str] = field(default_factory=lambda: {"gold": 0, "left": 1, "right": 2})
    header: bool = False
    widths: tuple[int, ...] = ()  # numbers of fields that a line may have; empty: as many as the header or the first
    encoding: str = "utf-8"
    unicode: str = ""  # NFC: sentences are brought into this form; empty: as they stand in the file
    dataset: str = ""  # hub: dataset id
    config: str | None = None
    revision: str | None = None
    positives: Mapping[str, float | str] = field(default_factory=dict)  # sts: task -> lowest gold, or "25 %": the best

    def fields(self) -> list[int | str]:
        """The columns of a row's fields: gold, left and right (if any), or anchor, positive and negative."""
        names = TRIPLET_COLUMNS if "anchor" in self.columns else PAIR_COLUMNS
        return [self.columns[name] for name in names if name in self.columns]

    @property
    def in_one_field(self) -> bool:
        """Whether one column holds both sentences."""
        return "left" in self.columns and self.columns["left"] == self.columns.get("right")

    @property
    def is_pairs(self) -> bool:
        """Whether a row has two sentences."""
        singles = ("class_files", "sst", "sst_fine", "trec", "probing")
        return self.format not in singles and (self.format != "tsv" or "right" in self.columns)


@dataclass(frozen=True)
class Task:
    """One evaluation task. ``splits[split][subset]`` is the number of rows, None where it is not known."""

    name: str
    title: str
    kind: str
    reference: str
    sources: Mapping[str, Source]  # text variant -> source; the key "only" serves every variant
    splits: Mapping[str, Mapping[str, int | None]]
    gold: tuple[float, float] = (0.0, 5.0)
    labels: tuple[str, ...] = ()  # their order numbers them; of a probing file none: those of its training rows
    probe: str = ""
    folder: Path = Path()  # where the YAML file lies: a user's own data paths are relative to it
    aliases: tuple[str, ...] = ()  # what else it is called: SentEval's and mteb's names of the same data
    unique: tuple[str, ...] = ()  # splits without the pairs that stand twice in them or in another split, see rows
    center: bool = False  # ranking: the mean of all the task's vectors is subtracted before the cosine

    @property
    def metric(self) -> str:
        """The first metric of its kind; of a trained regression its correlation."""
        return "pearson" if self.probe == "relatedness" else METRICS_OF[self.kind][0]

    def source(self, variant: str) -> tuple[str, Source]:
        """The variant that is truly read, and its source; what is built from STS tasks has their variants.

        Raises:
            UserError: the task has no such text variant.
        """
        if "only" in self.sources:
            only = self.sources["only"]
            return variant if only.format == "sts" else "only", only
        if variant not in self.sources:
            raise unknown(f"text variant of task {self.name}", variant, self.sources)
        return variant, self.sources[variant]


@dataclass(frozen=True)
class EvalProtocol:
    """The rules that decide a number; stored whole in every report."""

    name: str
    text: str  # text variant: "senteval" (tokenised, STS lower-cased) or "raw" (as SemEval released it)
    split: str = "test"
    task_splits: Mapping[str, str] = field(default_factory=dict)  # task -> split, where it differs
    probe: str = "exact"  # classifier of transfer tasks: one of probe.PROBES
    resamples: int = 1000  # of the bootstrap
    bootstrap_seed: int = 0
    excluded: Mapping[str, str] | None = None  # pairs left out: of which training text, by which record

    def split_of(self, task: Task) -> str:
        """The split of this task that the protocol reads."""
        return self.task_splits.get(task.name, self.split)


# SimCSE evaluation.py, mode "test"/"dev", with its fork of SentEval
SIMCSE = EvalProtocol("simcse", text="senteval")
# mteb's English STS tasks: raw text, SICK-R over all 9,927 pairs
MTEB = EvalProtocol("mteb", text="raw", task_splits={"sickr": "all"})
PROTOCOLS = {p.name: p for p in (SIMCSE, MTEB)}


def named_protocol(name: str) -> EvalProtocol:
    """The protocol of this name."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def best_share(rule: Any) -> float | None:
    """0.25 of "25 %"; None where it is no share."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", rule) if isinstance(rule, str) else None
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None
