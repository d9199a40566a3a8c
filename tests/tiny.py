"""A tiny BERT with random weights, its vocabulary, and sentences of that vocabulary."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = (
    "a the man woman dog cat plays eats runs sees red blue big small guitar ball house tree not two three".split()  # noqa: SIM905
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","]


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n", encoding="utf-8")
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def tiny_bert(folder: Path, pooler: bool = True, seed: int = 0, layers: int = 3) -> Path:
    """A BERT checkpoint with random weights, in the files of the official SimCSE models."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=48, initializer_range=0.4,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def sentences(n: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Distinct random sentences of the tiny vocabulary."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" ".join(rng.choices(WORDS, k=rng.randint(2, longest))) + " ."] = None
    return list(found)


def without_time(content: Any) -> Any:
    """Saved JSON without what differs from run to run."""
    dropped = {"seconds", "created", "sentences_per_second", "tokens_per_second", "environment"}
    if isinstance(content, dict):
        return {k: without_time(v) for k, v in content.items() if k not in dropped}
    return [without_time(x) for x in content] if isinstance(content, list) else content
