"""Checkpoints of the same form as the SimCSE models on the Hub: architecture, tokenizer, files, names; tiny, random.

Files as their repositories list them; the weights of the official and the older ones are pickled, as there.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import SPECIAL, WORDS
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BACKBONES = ("bert-base-uncased", "bert-large-uncased", "roberta-base", "roberta-large")
OFFICIAL = [f"princeton-nlp/{kind}-simcse-{backbone}" for kind in ("unsup", "sup") for backbone in BACKBONES]
VIETNAMESE = [
    "dangvantuan/vietnamese-embedding",
    "VoVanPhuc/sup-SimCSE-VietNamese-phobert-base",
    "VoVanPhuc/unsup-SimCSE-VietNamese-phobert-base",
]
CHINESE = ["cyclone/simcse-chinese-roberta-wwm-ext"]
STROKE = ["demdecuong/stroke_simcse", "demdecuong/stroke_sup_simcse"]
THAI = [f"mrp/simcse-model-{m}" for m in ("distil-m-bert", "m-bert-thai-cased", "roberta-base-thai")]
MODELS = [*OFFICIAL, *VIETNAMESE, *CHINESE, *STROKE, *THAI]

ENGLISH_TEXT = ["a man plays the guitar .", "the dog runs", "two cats see a big house .", "a red ball", "three"]
VIETNAMESE_TEXT = ["hà nội là thủ đô của việt nam", "đà nẵng là thành phố du lịch", "thủ đô", "một thành phố"]
CHINESE_TEXT = ["一个女孩正在梳头。", "一群男人在海滩上踢足球。", "一个人", "狗在跑"]
THAI_TEXT = ["ผู้หญิงกำลังเล่นกีตาร์", "เด็กเล็กกำลังขี่ม้า", "สุนัข วิ่ง", "ม้า " * 40]  # the last over 32 tokens


def texts(name: str) -> list[str]:
    """Sentences in the language of a model."""
    if name in VIETNAMESE:
        return VIETNAMESE_TEXT
    if name in CHINESE:
        return CHINESE_TEXT
    return THAI_TEXT if name in THAI else ENGLISH_TEXT


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint of this name."""
    folder.mkdir(parents=True)
    torch.manual_seed(MODELS.index(name))
    if name in OFFICIAL:
        _official(name, folder)
    elif name in VIETNAMESE:
        _phobert(name, folder)
    elif name in CHINESE:
        _bert_tokenizer(folder, _characters(CHINESE_TEXT), lower=True)
        _bert(folder, vocabulary=200)
        _sentence_transformers(folder, "cls_token", 24)
    elif name in STROKE:
        _stroke(folder)
    else:
        _thai(name, folder)
    return folder


def _official(name: str, folder: Path) -> None:
    layers = 3 if "large" in name else 2
    if "roberta" in name:
        _roberta_tokenizer(folder)
        config = RobertaConfig(**SIZE | {"num_hidden_layers": layers}, vocab_size=300, max_position_embeddings=514,
                               pad_token_id=1, type_vocab_size=1, initializer_range=0.3)  # fmt: skip
        RobertaModel(config).save_pretrained(folder)
    else:
        _bert_tokenizer(folder, WORDS, lower=True)
        _bert(folder, layers=layers)
    _pickled(folder)
    (folder / "flax_model.msgpack").write_bytes(b"never downloaded")


def _phobert(name: str, folder: Path) -> None:
    words = sorted({w for t in VIETNAMESE_TEXT for w in t.split()})
    characters = sorted(set("".join(words)) | {"_"})
    pieces = [p for c in characters for p in (c, f"{c}@@")] + ["thủ_đô", "du_lịch"]
    (folder / "vocab.txt").write_text("".join(f"{p} 1\n" for p in dict.fromkeys(pieces)), encoding="utf-8")
    merges, so_far = [], "t"  # so that thủ_đô is one token, as PhoBERT's segmented words are
    for c in "hủ_đ":
        merges.append(f"{so_far} {c} 1")
        so_far += c
    merges.append(f"{so_far} ô</w> 1")
    (folder / "bpe.codes").write_text("".join(f"{m}\n" for m in merges), encoding="utf-8")
    (folder / "added_tokens.json").write_text('{"<mask>": 250}', encoding="utf-8")
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "PhobertTokenizer", "model_max_length": 256})
    config = RobertaConfig(**SIZE, vocab_size=251, max_position_embeddings=258, pad_token_id=1, type_vocab_size=1,
                           initializer_range=0.3, tokenizer_class="PhobertTokenizer")  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    if name == "dangvantuan/vietnamese-embedding":
        _sentence_transformers(folder, "mean_tokens", 512)
    else:  # pickled and safe weights side by side, and the class of SimCSE's trainer
        content = json.loads((folder / "config.json").read_text())
        _json(folder / "config.json", content | {"architectures": ["RobertaForCL"]})
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")


def _stroke(folder: Path) -> None:
    """A folder straight from SimCSE's trainer: bert.* and mlp.dense.*, with its optimizer and state."""
    _bert_tokenizer(folder, WORDS, lower=True)
    _bert(folder, pooler=False)
    state = {f"bert.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    state |= {"mlp.dense.weight": torch.randn(32, 32) / 3, "mlp.dense.bias": torch.randn(32)}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    content = json.loads((folder / "config.json").read_text())
    _json(folder / "config.json", content | {"architectures": ["BertForCL"]})
    _json(folder / "trainer_state.json", {"global_step": 1660})
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        (folder / name).write_bytes(b"never downloaded")


def _thai(name: str, folder: Path) -> None:
    pieces = _characters(THAI_TEXT)
    if "roberta" in name:
        special = [(t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>")]
        vocabulary = [*special, *(("▁" + p, -3.0) for p in pieces), *((p, -4.0) for p in pieces), ("<mask>", 0.0)]
        XLMRobertaTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
        (folder / "sentencepiece.bpe.model").write_bytes(b"the slow tokenizer's")
        config = XLMRobertaConfig(**SIZE, vocab_size=len(vocabulary), max_position_embeddings=514, pad_token_id=1,
                                  type_vocab_size=1, initializer_range=0.3)  # fmt: skip
        XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    elif "distil" in name:
        _bert_tokenizer(folder, pieces, lower=False, kind="DistilBertTokenizer")
        config = DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=200, initializer_range=0.3)
        DistilBertModel(config).save_pretrained(folder)
    else:
        _bert_tokenizer(folder, pieces, lower=False)
        _bert(folder, vocabulary=200, pooler=False)
    _sentence_transformers(folder, "cls_token", 32)
    _pickled(folder)


def _bert(folder: Path, vocabulary: int = 100, layers: int = 2, pooler: bool = True) -> None:
    size = SIZE | {"num_hidden_layers": layers}
    config = BertConfig(**size, vocab_size=vocabulary, max_position_embeddings=512, initializer_range=0.3)
    BertModel(config, add_pooling_layer=pooler).save_pretrained(folder)


def _bert_tokenizer(folder: Path, pieces: list[str], lower: bool, kind: str = "BertTokenizer") -> None:
    vocabulary = [*SPECIAL, *pieces, *(f"##{p}" for p in pieces if len(p) == 1)]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in vocabulary), encoding="utf-8")
    _json(folder / "tokenizer_config.json", {"do_lower_case": lower, "tokenizer_class": kind, "model_max_length": 512})
    _json(folder / "special_tokens_map.json", {"unk_token": "[UNK]", "pad_token": "[PAD]"})


def _roberta_tokenizer(folder: Path) -> None:
    """GPT-2's byte alphabet, no merges: vocab.json and merges.txt, no tokenizer.json, as in the official models."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    _json(folder / "vocab.json", {p: i for i, p in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n", encoding="utf-8")
    content = json.loads((folder / "vocab.json").read_text())
    _json(folder / "vocab.json", content | {"th": len(pieces)})
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512})


def _sentence_transformers(folder: Path, mode: str, length: int) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32} | {f"pooling_mode_{n}": n == mode for n in names},
    )
    _json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _characters(sentences: list[str]) -> list[str]:
    return sorted(set("".join(sentences)) - {" "})


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
