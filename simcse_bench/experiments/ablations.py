"""The ablations: which setting is varied, from which recipe, what the paper found. Data only; ``sweep`` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simcse_bench.papers.simcse_2021 import SUP, UNSUP, Finding, PublishedColumn
from simcse_bench.training.methods.known import METHODS

PRESETS = {"mini": "embedded encoder and data, offline", "paper": "BERT-base with wiki1m or NLI, from the Hub"}
Changes = Mapping[str, Any]  # fields of TrainConfig


@dataclass(frozen=True)
class Ablation:
    """One table: arms (name -> changed fields of the base recipe), the first of them or ``reference`` compared with."""

    name: str
    title: str
    recipes: Mapping[str, str]  # preset -> recipe
    arms: Mapping[str, Changes]
    reference: str
    axis: str = ""  # label of the numeric axis where the arms' names are numbers
    published: PublishedColumn | None = None
    findings: tuple[Finding, ...] = ()
    by_preset: Mapping[str, Mapping[str, Changes]] = field(default_factory=dict)  # arms that replace those of a preset
    note: str = ""
    costs: bool = False  # time and memory of the arms stand in the table

    def arms_of(self, preset: str) -> Mapping[str, Changes]:
        """The arms under a preset."""
        return self.by_preset.get(preset, self.arms)

    def reference_of(self, preset: str, base: Changes) -> str:
        """The arm the others are compared with: the named one, else the one that is the base recipe, else the first."""
        arms = self.arms_of(preset)
        if self.reference in arms:
            return self.reference
        same = [name for name, changes in arms.items() if all(base.get(k) == v for k, v in changes.items())]
        return (same or list(arms))[0]


_WORDS = "word_deletion"
_UNSUPERVISED = {name: method for name, method in METHODS.items() if not method.scored}
_TEMPLATE = {"pooling": "mask", "template": 'This sentence of "{sentence}" means [MASK] .'}  # 8 tokens
_NO_GAIN = ("scd",)  # whose paper reports less than SimCSE's average and states no gain over it
# preset -> method -> what it needs besides. A run of 20 updates fills no buffer of 1,024; its own start is the teacher
_NEEDED: Mapping[str, Mapping[str, Changes]] = {
    "paper": {
        "promptbert": _TEMPLATE | {"max_length": 40},
        "scd": {"mlp": "none"},
        "diffcse": {"mlp": "none", "method_settings": {"generator": "distilbert/distilbert-base-uncased"}},
        "rankcse": {"method_settings": {"teacher": "voidism/diffcse-bert-base-uncased-sts"}},
    },
    "mini": {
        "promptbert": _TEMPLATE | {"max_length": 32},
        "scd": {"mlp": "none"},
        "diffcse": {"mlp": "none"},
        "rankcse": {"method_settings": {"teacher": "mini"}},
        "iscse": {"method_settings": {"buffer": 256}},
    },
}
_ALL = (
    Ablation(
        "dropout",
        "Dropout probability",
        UNSUP,
        {p: {"hidden_dropout": float(p), "attention_dropout": float(p)}
         for p in ("0.0", "0.01", "0.05", "0.1", "0.15", "0.2", "0.5")} | {
            "fixed 0.1": {"hidden_dropout": 0.1, "attention_dropout": 0.1, "same_mask": "copy"}
        },
        "0.1",
        "dropout probability",
        PublishedColumn("simcse_2021_table3_dropout", "dropout", "stsb_dev", "SimCSE Table 3"),
        (
            Finding("dropout 0.1 beats no dropout", "0.1", "0.0"),
            Finding("dropout 0.1 beats one mask for both passes (fixed 0.1)", "0.1", "fixed 0.1"),
            Finding("no dropout beats fixed 0.1", "0.0", "fixed 0.1"),
            Finding("dropout 0.1 beats 0.5", "0.1", "0.5"),
        ),
    ),
    Ablation(
        "pooling",
        "Pooling and MLP",
        UNSUP,
        {
            "cls w/ mlp": {"pooling": "cls", "mlp": "always"},
            "cls w/ mlp (train only)": {"pooling": "cls", "mlp": "train_only"},
            "cls w/o mlp": {"pooling": "cls", "mlp": "none"},
            "first-last avg": {"pooling": "embedding_last", "mlp": "none"},
            "mean": {"pooling": "mean", "mlp": "none"},
        },
        "cls w/ mlp (train only)",
        published=PublishedColumn("simcse_2021_table6_pooling", "pooling", "unsup", "SimCSE Table 6"),
        findings=(
            Finding("the MLP in training only beats the MLP kept", "cls w/ mlp (train only)", "cls w/ mlp"),
            Finding("the MLP in training only beats no MLP", "cls w/ mlp (train only)", "cls w/o mlp"),
        ),
    ),
    Ablation(
        "temperature",
        "Temperature (supervised)",
        SUP,
        {"dot product": {"similarity": "dot"}}
        | {t: {"temperature": float(t)} for t in ("0.001", "0.01", "0.05", "0.1", "1")},
        "0.05",
        "temperature",
        PublishedColumn("simcse_2021_table_d1_temperature", "temperature", "stsb_dev", "SimCSE Table D.1"),
        (
            Finding("temperature 0.05 beats 1", "0.05", "1"),
            Finding("temperature 0.05 beats 0.001", "0.05", "0.001"),
            Finding("temperature 0.05 beats the plain dot product", "0.05", "dot product"),
        ),
    ),
    Ablation(
        "augmentation",
        "Augmentation of the positive",
        UNSUP,
        {"none": {}}
        | {f"crop {k}%": {"augmentation": "crop", "augmentation_rate": k / 100} for k in (10, 20, 30)}
        | {f"word deletion {k}%": {"augmentation": _WORDS, "augmentation_rate": k / 100} for k in (10, 20, 30)}
        | {
            "delete one word": {"augmentation": "delete_one_word"},
            "delete one word w/o dropout": {
                "augmentation": "delete_one_word", "hidden_dropout": 0.0, "attention_dropout": 0.0,
            },
            "synonym replacement": {"augmentation": "synonym"},
            "mlm 15%": {"augmentation": "mlm", "augmentation_rate": 0.15},
        },
        "none",
        published=PublishedColumn("simcse_2021_table1_augmentation", "augmentation", "stsb_dev", "SimCSE Table 1"),
        findings=(
            Finding("dropout alone beats cropping 10 %", "none", "crop 10%"),
            Finding("dropout alone beats deleting one word", "none", "delete one word"),
            Finding("dropout alone beats masked-language-model filling", "none", "mlm 15%"),
            Finding("cropping 10 % beats cropping 30 %", "crop 10%", "crop 30%"),
        ),
        note="Synonym replacement needs WordNet (package nltk) or --set augmentation_file=FILE.",
    ),
    Ablation(
        "objective",
        "Training objective, one and two encoders",
        UNSUP,
        {
            f"{row}{suffix}": changes | encoders
            for suffix, encoders in (("", {}), (", two encoders", {"encoders": 2}))
            for row, changes in {
                "next sentence": {"objective": "next_sentence"},
                "next 3 sentences": {"objective": "next_3_sentences"},
                "delete one word": {"augmentation": "delete_one_word"},
                "unsup simcse": {},
            }.items()
        },
        "unsup simcse",
        published=PublishedColumn("simcse_2021_table2_objective", "objective", "one_encoder", "SimCSE Table 2"),
        findings=(
            Finding("dropout alone beats the next sentence", "unsup simcse", "next sentence"),
            Finding("one encoder beats two", "unsup simcse", "unsup simcse, two encoders"),
        ),
        note="Next sentences need text in document order: mini-sentences is, wiki1m is not.",
    ),
    Ablation(
        "hard-negatives",
        "Hard negatives and their weight",
        SUP,
        {"none": {"columns": ("sent0", "sent1")}}
        | {f"α = {a:g}": {"hard_negative_weight": a} for a in (0.5, 1.0, 2.0)},
        "α = 1",
        published=PublishedColumn(
            "simcse_2021_table7_hard_negatives", "hard_negative", "stsb_dev", "SimCSE Table 7",
            ("contradiction+neutral",),
        ),
        findings=(Finding("hard negatives help", "α = 1", "none"), Finding("α = 1 beats α = 0.5", "α = 1", "α = 0.5")),
        note="Table 7's row with neutral hypotheses needs data with both kinds of negatives; it is not covered.",
    ),
    Ablation(
        "supervised-data",
        "Supervised data",
        SUP,
        {
            "SNLI+MNLI entailment (314k)": {"columns": ("sent0", "sent1")},
            "SNLI+MNLI contradiction (314k)": {"columns": ("sent0", "hard_neg")},
            "entailment + hard negative": {},
        },
        "entailment + hard negative",
        published=PublishedColumn(
            "simcse_2021_table4_supervised_data", "dataset", "full", "SimCSE Table 4",
            ("unsup simcse (1m)", "QQP (134k)", "Flickr30k (318k)", "ParaNMT (5m)", "SNLI+MNLI neutral (314k)",
             "SNLI+MNLI all (942k)", "entailment + hard negative + ANLI (52k)"),
        ),
        findings=(
            Finding("entailed hypotheses are better positives than contradicting ones",
                    "SNLI+MNLI entailment (314k)", "SNLI+MNLI contradiction (314k)"),
            Finding("hard negatives help", "entailment + hard negative", "SNLI+MNLI entailment (314k)"),
        ),
        note="Arms are named after the paper's rows; the text is the one trained on. Table 4's other data sets are not "
        "covered: --train takes any.",
    ),
    Ablation(
        "mlm",
        "Weight of the masked-language-modelling term",
        SUP,
        {"none": {}} | {w: {"mlm_weight": float(w)} for w in ("0.01", "0.1", "1")},
        "none",
        "λ",
        PublishedColumn("simcse_2021_table_d2_mlm", "mlm_weight", "stsb_dev", "SimCSE Table D.2"),
        (Finding("on STS the term does not help: none beats λ = 1", "none", "1"),),
    ),
    Ablation(
        "batch-size",
        "Batch size",
        UNSUP,
        {str(n): {"batch_size": n} for n in (64, 128, 256, 512)},
        "64",
        "batch size",
        by_preset={"mini": {str(n): {"batch_size": n} for n in (16, 32, 64, 128)}},
        note="Preset mini: the same number of updates; paper: the same epochs, so fewer updates of larger batches. The "
        "learning rate stays, where the paper tunes it for each batch size.",
    ),
    Ablation(
        "learning-rate",
        "Learning rate",
        UNSUP,
        {rate: {"learning_rate": float(rate)} for rate in ("1e-05", "3e-05", "5e-05", "1e-04")},
        "3e-05",
        "learning rate",
        by_preset={"mini": {rate: {"learning_rate": float(rate)} for rate in ("5e-05", "1e-04", "5e-04", "1e-03")}},
    ),
    Ablation(
        "data-size",
        "Training sentences",
        UNSUP,
        {str(n): {"max_rows": n} for n in (1_000, 10_000, 100_000, 1_000_000)},
        "1000000",
        "training sentences",
        by_preset={"mini": {str(n): {"max_rows": n} for n in (250, 1000, 4000)} | {"all": {}}},
        note="Arms of fewer rows see them more often where the recipe fixes the number of updates.",
    ),
    Ablation(
        "methods",
        "SimCSE's successors",
        UNSUP,
        {name: {"method": name, **_NEEDED["paper"].get(name, {})} for name in _UNSUPERVISED},
        "simcse",
        by_preset={"mini": {name: {"method": name, **_NEEDED["mini"].get(name, {})} for name in _UNSUPERVISED}},
        published=PublishedColumn("simcse_successors_gains", "method", "gain", "reported gain", gains=True),
        findings=tuple(
            Finding(f"{m.title} beats SimCSE", name, "simcse")
            for name, m in _UNSUPERVISED.items()
            if m.changes and name not in _NO_GAIN
        ),
        note="One base recipe, equal updates and selection for all. Each method has its paper's own settings, but not "
        "its paper's learning rate, batch size, dropout or epochs: --set ARM:field=value sets them for one.",
        costs=True,
    ),
    Ablation("seed", "Spread over seeds of one recipe", UNSUP, {"recipe": {}}, "recipe"),
)  # fmt: skip
ABLATIONS: Mapping[str, Ablation] = {a.name: a for a in _ALL}
