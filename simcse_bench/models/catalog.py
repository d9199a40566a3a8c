"""Everything about models that has a name: poolings, heads, and the models whose settings are known."""

from __future__ import annotations

from dataclasses import dataclass

from simcse_bench.errors import UserError, unknown

POOLINGS = {
    "cls": "last layer at [CLS] (SimCSE evaluation.py: cls_before_pooler; with --head mlp: cls)",
    "mean": "mean of the last layer over all tokens (avg)",
    "first_last": "mean over tokens of (first layer + last layer) / 2 (avg_first_last since January 2022)",
    "embedding_last": "mean over tokens of (embedding layer + last layer) / 2 (the paper's first-last avg.)",
    "top2": "mean over tokens of the last two layers' average (avg_top2)",
    "max": "largest value over all tokens of the last layer, for each dimension",
    "mean_sqrt_len": "sum of the last layer over all tokens, divided by the square root of their number",
    "weighted_mean": "mean of the last layer, the n-th token weighing n (SGPT)",
    "last_token": "last layer at the last token (decoders; PromptEOL)",
    "mask": "last layer at the mask token of a template (PromptBERT)",
}
PLAIN_POOLINGS = tuple(p for p in POOLINGS if p != "mask")  # that need no template
LAST_LAYER = ("cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token", "mask")  # that need no other layer
DTYPES = ("float32", "bfloat16", "float16")
INT8 = "int8"  # 8-bit products of a float32 model: for embedding on a processor alone
HEADS = {
    "none": "the pooled vector as it is",
    "mlp": "dense layer and tanh on top (a checkpoint's mlp.dense or pooler.dense; sup SimCSE's pooler_output)",
}
PREPROCESSES = {  # what is done to a sentence before its template and the tokenizer
    "pyvi": "Vietnamese word segmentation by pyvi",
    "promptbert": "a full stop after a sentence that ends in none of . ? \" ' (Prompt-BERT evaluation.py)",
    "prompteol": "as promptbert, then ' for every \" and . for a final ? (scaling_sentemb evaluation.py; AnglE)",
}
POOLERS = {  # SimCSE's names of a pooling and a head together (tool.py: the first two; evaluation.py: all)
    "cls": ("cls", "mlp"),
    "cls_before_pooler": ("cls", "none"),
    "avg": ("mean", "none"),
    "avg_first_last": ("first_last", "none"),
    "avg_top2": ("top2", "none"),
}


@dataclass(frozen=True)
class ModelSpec:
    """How a checkpoint is meant to be used. ``pooling=None``: its own ``modules.json`` decides."""

    checkpoint: str  # Hub id
    pooling: str | None
    head: str = "none"
    revision: str | None = None
    max_length: int | None = None  # tokens; None: the model's own limit
    preprocess: str | None = None  # of ``PREPROCESSES``
    template: str | None = None  # around every {sentence}, unless the user gives another
    published: str | None = None  # its row in papers/*.csv
    language: str = "en"  # its STS suite is the default: sts, or sts-<language>
    usage: str = ""  # which of several usages in its card is taken here
    note: str = ""
    trained_on: tuple[str, ...] = ()  # by its card or repository, as they or ``corpus.NAMED`` call it; empty: unsaid


_BACKBONES = {  # of the official checkpoints -> how the paper's tables call it
    "bert-base-uncased": "BERT-base",
    "bert-large-uncased": "BERT-large",
    "roberta-base": "RoBERTa-base",
    "roberta-large": "RoBERTa-large",
}
_FIRST_LAST = "the paper's first-last average; SimCSE's code since 2022: --pooling first_last"
_POOLER = "the card uses model(...)[1], the pooler output"
_MASKED = {  # Prompt-BERT eval_only.sh, without the marks of its own
    "BERT": 'This sentence of "{sentence}" means[MASK].',
    "RoBERTa": "This sentence : ' {sentence} ' means<mask>.",
}
_IN_ONE_WORD = 'This sentence : "{sentence}" means in one word:"'  # the README of kongds/scaling_sentemb
_SUMMARIZE = 'Summarize sentence "{sentence}" in one word:"'  # AnglE's Prompts.A
# training set -> tasks that hold sentences of it, and how that is known; nothing is here on a guess
HOLDS: dict[str, tuple[tuple[str, ...], str]] = {
    "STSB-vn": (
        ("sts12-vi", "sts13-vi", "sts14-vi", "sts15-vi", "sts16-vi"),
        "STS-B's train split is drawn from STS12 to STS16 (readme.txt in its archive), here in translation",
    ),
    "STSBenchmark": (
        ("sts12", "sts13", "sts14", "sts15", "sts16"),
        "its train split is drawn from STS12 to STS16 (readme.txt in its archive)",
    ),
}
# the card of all-MiniLM-L6-v2, in its order
_MINILM_DATA = (
    "s2orc", "flax-sentence-embeddings/stackexchange_xml", "MS Marco", "gooaq", "yahoo_answers_topics",
    "code_search_net", "search_qa", "eli5", "snli", "multi_nli", "wikihow", "natural_questions", "trivia_qa",
    "embedding-data/sentence-compression", "embedding-data/flickr30k-captions", "embedding-data/altlex",
    "embedding-data/simple-wiki", "embedding-data/QQP", "embedding-data/SPECTER", "embedding-data/PAQ_pairs",
    "embedding-data/WikiAnswers",
)  # fmt: skip
_NLI_ADAPTER = "an adapter (extra peft); trained on NLI"
_SPECS = (
    # SimCSE README: unsup is trained with an MLP that is dropped at test; sup keeps it (its checkpoint's pooler).
    # SimCSE evaluation.py does not truncate, so max_length is the model's own limit.
    *(
        ModelSpec(
            f"princeton-nlp/{kind}-simcse-{backbone}",
            "cls",
            head,
            published=f"{kind} SimCSE-{row}",
            trained_on=(data,),
        )
        for kind, head, data in (("unsup", "none", "wiki1m"), ("sup", "mlp", "nli"))
        for backbone, row in _BACKBONES.items()
    ),
    ModelSpec(
        "google-bert/bert-base-uncased",
        "embedding_last",
        published="BERT-base (first-last avg.) (old definition, h[0]+h[-1])",
        note=_FIRST_LAST,
    ),
    ModelSpec(
        "FacebookAI/roberta-base", "embedding_last", published="RoBERTa-base (first-last avg.)", note=_FIRST_LAST
    ),
    ModelSpec("mini", "cls", note="ships with simcse-bench; its ancestor all-MiniLM-L6-v2 was trained on pairs"),
    ModelSpec(
        "sentence-transformers/all-MiniLM-L6-v2",
        "mean",
        max_length=256,
        published="all-MiniLM-L6-v2",
        trained_on=_MINILM_DATA,
    ),
    # Its card: SentenceTransformer with mean pooling on text segmented by pyvi. max_seq_length there is 512, but
    # PhoBERT has 258 positions, two of them for padding: the model's own limit of 256 counts.
    ModelSpec(
        "dangvantuan/vietnamese-embedding",
        "mean",
        preprocess="pyvi",
        language="vi",
        published="dangvantuan/vietnamese-embedding",
        note="PhoBERT; trained on STSB-vn's train split",
        trained_on=("ViNLI-SimCSE-supervised", "XNLI-vn", "STSB-vn"),
    ),
    # Their cards show two usages that give different embeddings: transformers' pooler_output, and plain
    # sentence-transformers, which means mean pooling as there is no modules.json. Text segmented by pyvi in both.
    ModelSpec(
        "VoVanPhuc/sup-SimCSE-VietNamese-phobert-base",
        "cls",
        "mlp",
        preprocess="pyvi",
        language="vi",
        published="VoVanPhuc/sup-SimCSE-VietNamese-phobert-base",
        usage="pooler_output, as its card's transformers example and as supervised SimCSE is used; the card's "
        "sentence-transformers example means --pooling mean",
    ),
    ModelSpec(
        "VoVanPhuc/unsup-SimCSE-VietNamese-phobert-base",
        "cls",
        preprocess="pyvi",
        language="vi",
        usage="[CLS] without the MLP, as unsupervised SimCSE is used; of its card's examples, transformers' "
        "pooler_output is --pooling cls --head mlp, and sentence-transformers' is --pooling mean",
    ),
    # no word on pooling or length in its card; modules.json, 1_Pooling and sentence_bert_config.json are in its files
    ModelSpec(
        "cyclone/simcse-chinese-roberta-wwm-ext",
        None,
        language="zh",
        note="its modules.json decides pooling and length",
    ),
    ModelSpec("demdecuong/stroke_simcse", "cls", "mlp", note=_POOLER),
    ModelSpec("demdecuong/stroke_sup_simcse", "cls", "mlp", note=_POOLER),
    # 1_Pooling/config.json: pooling_mode_cls_token. sentence_bert_config.json: 32 (read for m-bert-thai-cased, of the
    # same size for distil-m-bert; the training length of all three). No pooler is used: DistilBERT has none.
    *(
        ModelSpec(f"mrp/simcse-model-{name}", "cls", max_length=32, language="th", published=f"mrp/simcse-model-{name}")
        for name in ("distil-m-bert", "m-bert-thai-cased", "roberta-base-thai")
    ),
    # The SimCSE family, each as the evaluation in its repository's README calls it. cls_before_pooler there:
    *(
        ModelSpec(name, "cls", published=row, trained_on=() if "InfoCSE" in name else ("wiki1m",))
        for name, row in (
            ("voidism/diffcse-bert-base-uncased-sts", "DiffCSE-BERT-base"),
            ("voidism/diffcse-bert-base-uncased-trans", "DiffCSE trans-BERT-base"),
            ("voidism/diffcse-roberta-base-sts", "DiffCSE-RoBERTa-base"),
            ("voidism/diffcse-roberta-base-trans", "DiffCSE trans-RoBERTa-base"),
            ("ffgcc/esimcse-bert-base-uncased", "ESimCSE-BERT-base"),
            ("ffgcc/esimcse-bert-large-uncased", "ESimCSE-BERT-large"),
            ("ffgcc/esimcse-roberta-base", "ESimCSE-RoBERTa-base"),
            ("ffgcc/esimcse-roberta-large", "ESimCSE-RoBERTa-large"),
            ("ffgcc/InfoCSE-bert-base", "InfoCSE-BERT-base"),
            ("ffgcc/InfoCSE-bert-large", "InfoCSE-BERT-large"),
            ("caskcsg/InfoCSE-bert-base-rtd", "InfoCSE rtd-BERT-base"),
        )
    ),
    *(
        ModelSpec(
            f"perceptiveshawty/rankcse-{loss}-bert-base-uncased",
            "cls",
            note="RankCSE trained by others",
            trained_on=("wiki1m",),
        )
        for loss in ("listmle", "listnet")
    ),
    # --pooler cls there: with the dense layer
    *(
        ModelSpec(name, "cls", "mlp", published=row, trained_on=("wiki1m",) if "whitened" in name else ())
        for name, row in (
            ("ffgcc/gsInfoNCE-bert-base-uncased", "GS-InfoNCE-BERT-base"),
            ("ffgcc/gsInfoNCE-bert-large-uncased", "GS-InfoNCE-BERT-large"),
            ("ffgcc/gsInfoNCE-roberta-base", "GS-InfoNCE-RoBERTa-base"),
            ("ffgcc/gsInfoNCE-roberta-large", "GS-InfoNCE-RoBERTa-large"),
            ("SupstarZh/whitenedcse-bert-base", "WhitenedCSE-BERT-base"),
            ("SupstarZh/whitenedcse-bert-large", "WhitenedCSE-BERT-large"),
        )
    ),
    # its evaluation/eval.py: --agg_mode cls, --maxlen 64; its scores come from a script of its own, so none is compared
    *(
        ModelSpec(f"cambridgeltl/mirror-{backbone}-sentence{kind}", "cls", max_length=64, trained_on=("STSBenchmark",))
        for backbone in ("bert-base-uncased", "roberta-base")
        for kind in ("", "-drophead")
    ),
    # The supervised ones have a head of the masked language model or subtract their template's vector: not listed.
    *(
        ModelSpec(
            f"royokong/unsup-Prompt{kind}",
            "mask",
            preprocess="promptbert",
            template=template,
            published=f"PromptBERT-{kind}-base",
            trained_on=("wiki1m",),
        )
        for kind, template in _MASKED.items()
    ),
    *(
        ModelSpec(
            f"royokong/prompteol-opt-{size.lower()}",
            "last_token",
            preprocess="prompteol",
            template=_IN_ONE_WORD,
            published=f"sup PromptEOL-OPT-{size}",
            note=_NLI_ADAPTER,
            trained_on=("nli",),
        )
        for size in ("1.3B", "2.7B", "6.7B", "13B")
    ),
    *(
        ModelSpec(
            f"SeanLee97/{name}",
            "last_token",
            preprocess="prompteol",
            template=_SUMMARIZE,
            published=row,
            note=_NLI_ADAPTER,
            trained_on=("multi_nli", "snli"),
        )
        for name, row in (
            ("angle-llama-7b-nli-20231027", "sup AnglE (20231027)-LLaMA-2-7B"),
            ("angle-llama-7b-nli-v2", "sup AnglE (v2)-LLaMA-2-7B"),
            ("angle-llama-13b-nli", "sup AnglE-LLaMA-2-13B"),
        )
    ),
)
MODELS = {spec.checkpoint: spec for spec in _SPECS}
ALIASES = {  # the Hub's own short names for these repositories
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
}


def pooling_parts(pooling: str) -> list[str]:
    """The poolings whose vectors are put one after the other: "mean+max" is twice as wide as "mean".

    Raises:
        UserError: one that is not in ``POOLINGS``.
    """
    parts = pooling.split("+")
    for part in parts:
        if part not in POOLINGS:
            raise unknown("pooling", part, POOLINGS)
    return parts


def named_view(pooling: str | None, head: str | None, pooler: str | None = None) -> tuple[str | None, str | None]:
    """Pooling and head under our names; ``pooler``, or a pooling of its name only, is one of ``POOLERS``.

    ``cls`` is a pooling of ours too, and stays one: the checkpoint says whether its head goes with it.

    Raises:
        UserError: an unknown pooler; a pooling or a head that contradicts it.
    """
    if pooler is not None and pooler not in POOLERS:
        raise unknown("pooler", pooler, POOLERS)
    name = pooler or (pooling if pooling in POOLERS and pooling not in POOLINGS else None)
    if name is None:
        return pooling, head
    means = POOLERS[name]
    option = f"--pooler {name}" if pooler else f"--pooling {name}"
    other = f"--pooling {pooling}" if pooling not in (None, name, means[0]) else ""
    other = f"--head {head}" if head not in (None, means[1]) else other
    if other:
        ours = f"--pooling {means[0]} --head {means[1]}"
        raise UserError(f"{option} is SimCSE's name for {ours}, which contradicts {other}; leave one of them out.")
    return means


def needs_all_layers(pooling: str) -> bool:
    """Whether ``pool`` looks at more than the last layer."""
    return not set(pooling_parts(pooling)) <= set(LAST_LAYER)


def known_model(name: str) -> ModelSpec | None:
    """The catalog's entry for a Hub id or its short name, else None."""
    return MODELS.get(ALIASES.get(name, name))
