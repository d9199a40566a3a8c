"""What SimCSE states and shows, as data: findings, published columns, tables, figures, main models; its successors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The paper's statement that one arm scores higher than another; held against our numbers by ``summary.judge``."""

    text: str
    better: str
    worse: str


@dataclass(frozen=True)
class PublishedColumn:
    """The paper's column: a file of ``papers/``, its key column (values are arm names) and its score column."""

    file: str
    key: str
    score: str
    source: str
    without: tuple[str, ...] = ()  # rows that no arm stands for
    gains: bool = False  # over the reference, not levels


@dataclass(frozen=True)
class Part:
    """A table or figure.

    ``kind`` says how it comes about: "ablation" (``name`` is one), "scores" (every model on the suite ``name``),
    "geometry" (alignment, uniformity and cosines of every model) or "trajectory" (of every training run).
    """

    number: str
    title: str
    kind: str
    name: str = ""


@dataclass(frozen=True)
class Line:
    """A model of the main tables: the encoder that training starts from, or one trained by a recipe."""

    name: str
    recipes: Mapping[str, str]  # preset -> recipe whose encoder it is
    trained: bool
    pooling: str | None = None  # None: the recipe's own
    published: Mapping[str, str] | None = None  # suite -> row of the paper's table


@dataclass(frozen=True)
class Paper:
    """What of a paper can be reproduced."""

    name: str
    title: str
    parts: tuple[Part, ...]
    lines: tuple[Line, ...]
    statements: tuple[Finding, ...]  # of the first suite's tables, judged on its STS-B
    trajectories: Mapping[str, tuple[str, str]]  # name -> ablation and arm, for the figure of training runs


UNSUP = {"mini": "mini-unsup", "paper": "unsup-bert-base"}
SUP = {"mini": "mini-sup", "paper": "sup-bert-base"}
_SIMCSE = Paper(
    "simcse-2021",
    "SimCSE: Simple Contrastive Learning of Sentence Embeddings (Gao, Yao and Chen, EMNLP 2021)",
    (
        Part("1", "Augmentation of the positive", "ablation", "augmentation"),
        Part("2", "Training objective, one and two encoders", "ablation", "objective"),
        Part("3", "Dropout probability", "ablation", "dropout"),
        Part("Figure 2", "Alignment and uniformity during training", "trajectory"),
        Part("4", "Supervised data", "ablation", "supervised-data"),
        Part("5", "Semantic textual similarity", "scores", "sts"),
        Part("6", "Pooling and MLP", "ablation", "pooling"),
        Part("7", "Hard negatives and their weight", "ablation", "hard-negatives"),
        Part("Figure 3", "Alignment, uniformity and score", "geometry"),
        Part("D.1", "Temperature", "ablation", "temperature"),
        Part("D.2", "Masked-language-modelling term", "ablation", "mlm"),
        Part("E.1", "Transfer tasks", "scores", "transfer"),
    ),
    (
        Line("first-last average", UNSUP, False, "embedding_last", {
            "sts": "BERT-base (first-last avg.) (old definition, h[0]+h[-1])",
        }),
        Line("[CLS]", UNSUP, False, "cls", {"transfer": "BERT-[CLS] (SBERT paper)"}),
        Line("unsupervised SimCSE", UNSUP, True, None, {
            "sts": "unsup SimCSE-BERT-base", "transfer": "unsup SimCSE-BERT-base",
        }),
        Line("supervised SimCSE", SUP, True, None, {
            "sts": "sup SimCSE-BERT-base", "transfer": "sup SimCSE-BERT-base",
        }),
    ),
    (
        Finding("unsupervised training beats the encoder's first-last average", "unsupervised SimCSE",
                "first-last average"),
        Finding("supervised training beats unsupervised", "supervised SimCSE", "unsupervised SimCSE"),
    ),
    {
        "unsupervised SimCSE": ("dropout", "0.1"),
        "no dropout": ("dropout", "0.0"),
        "fixed 0.1": ("dropout", "fixed 0.1"),
        "delete one word": ("augmentation", "delete one word"),
    },
)  # fmt: skip
_SUCCESSORS = Paper(
    "simcse-successors",
    "SimCSE's successors, 2021 to 2023, under the same conditions",
    (Part("1", "SimCSE's successors", "ablation", "methods"),),
    (),
    (),
    {},
)
PAPERS: Mapping[str, Paper] = {p.name: p for p in (_SIMCSE, _SUCCESSORS)}
