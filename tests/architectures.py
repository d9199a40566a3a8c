"""Tiny random models of transformers' architectures, and what became of each here: docs/architectures.md.

`python tests/architectures.py docs/architectures.md` writes the page; test_agreement.py holds it.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import sentences, write_tokenizer

from simcse_bench.errors import UserError
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.loading import load_encoder
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import backward
from simcse_bench.training.model import load_model
from simcse_bench.training.processes import Processes

DTYPES = ("float32", "bfloat16", "float16")
TOLERANCE = {"float32": 1e-4, "bfloat16": 8e-2, "float16": 1e-2}  # of a vector, as a share of its length
TEXTS = sentences(8, longest=9)
_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "n_inner", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "moe_intermediate_size": 64, "num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 40,
    "type_vocab_size": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "unk_token_id": 1,
}  # fmt: skip
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
           "num_key_value_heads": 4}  # fmt: skip
# what an architecture needs beside or instead of the sizes above; None: as its config has it
_OWN: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "roc_bert": {"pronunciation_vocab_size": 40, "shape_vocab_size": 40, "pronunciation_embed_dim": 16,
                 "shape_embed_dim": 16},
    "codegen": {"rotary_dim": 4}, "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "xlnet": {"max_position_embeddings": None, "n_ctx": None},
    "deepseek_v2": _LATENT | {"topk_group": 1, "n_group": 1, "num_experts_per_tok": 2}, "deepseek_v3": _LATENT | {"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
    "minicpm3": _LATENT, "canine": {"vocab_size": None}, "esm": {"vocab_size": 40, "token_dropout": False, "mask_token_id": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},     "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32},
    "lilt": {"channel_shrink_ratio": 1}, "perceiver": {"d_latents": 32, "num_latents": 8},
    "big_bird": {"attention_type": "original_full"},
    "longformer": {"attention_window": [8, 8]},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
}  # fmt: skip
_SCALES = {"ctrl": 0.1, "mobilebert": 0.05}  # of weights: larger ones amplify rounding beyond the bounds below
ARCHITECTURES = """
    afmoe albert apertus arcee beam bert bert-generation big_bird biogpt bitnet bloom bros camembert canine
    clip_text_model codegen cohere cohere2 convbert cpmant ctrl cwm data2vec-text deberta deberta-v2 deepseek_v2
    deepseek_v3 diffllama distilbert doge dpr electra ernie ernie4_5 esm eurobert exaone4 falcon falcon_mamba
    flaubert flex_olmo flint fnet gemma gemma2 gemma3_text glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox
    gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe gte helium ibert imagegpt internlm3 jais2
    jetmoe jina_embeddings_v3 layoutlm lfm2 llama longformer luke mamba mamba2 markuplm megatron-bert minicpm3
    ministral3 mistral mixtral mobilebert modernbert modernbert-decoder mpnet mpt mra nanochat nomic_bert
    nystromformer olmo olmo2 olmo3 olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
    qwen3_moe rembert roberta roberta-prelayernorm roc_bert roformer rwkv seed_oss smollm3 splinter squeezebert
    stablelm starcoder2 t5 tapas ultrabert vaultgemma visual_bert xglm xlm xlm-roberta xlm-roberta-xl xlnet xmod
    yoso
""".split()  # noqa: SIM905 (130 quotes more)


def build(name: str, folder: Path) -> Any:
    """A tiny random model of an architecture, saved with a tokenizer; the transformers model."""
    import transformers

    torch.manual_seed(0)
    kind = transformers.CONFIG_MAPPING[name]
    base = kind()
    sizes = {k: v for k, v in _SIZES.items() if getattr(base, k, None) is not None or k.endswith("_id")}
    wanted = {k: v for k, v in (sizes | _OWN.get(name, {})).items() if v is not None}
    for alias, field in getattr(kind, "attribute_map", {}).items():
        if alias in wanted and field in wanted:
            del wanted[alias]
    model = transformers.AutoModel.from_config(kind(**wanted)).eval()
    if sum(p.numel() for p in model.parameters()) > 3_000_000:
        raise ValueError("not tiny")
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, _SCALES.get(name, 0.3))
    model.save_pretrained(folder)
    write_tokenizer(folder / "words")
    words = transformers.AutoTokenizer.from_pretrained(folder / "words").backend_tokenizer
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    return model


def by_hand(folder: Path, dtype: str, grad: bool = False) -> Any:
    """Mean-pooled vectors (n, d) one by one from transformers alone, and the model."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    more = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.set_grad_enabled(grad):
        rows = [
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]), **more).last_hidden_state[0].float().mean(0)
            for text in TEXTS
        ]
    return torch.stack(rows), model


def apart(found: Any, expected: Any) -> float:
    """Largest distance of two vectors, as a share of their length."""
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


def evaluated(folder: Path, dtype: str) -> tuple[str, str]:
    """What became of evaluation in a dtype, and how it is run."""
    try:
        encoder = load_encoder(resolve(str(folder), pooling="mean", head="none"), dtype, "cpu")
        found = [encoder.encode(TEXTS)]
        if encoder.padding:
            encoder.slack, encoder.batch_tokens = 0.9, 4096  # padded batches, as on a GPU
            found.append(encoder.encode(TEXTS))
    except UserError as error:
        return "refused", str(error).replace(str(folder), "model").replace(folder.name, "model")
    try:
        expected = by_hand(folder, dtype)[0].numpy()
    except RuntimeError as error:
        return "WRONG", f"transformers itself fails: {error}"
    worst = max(apart(vectors, expected) for vectors in found)
    how = encoder.provenance["kernels"] + ("" if encoder.padding else ", never padded")
    return ("agrees" if worst <= TOLERANCE[dtype] else f"WRONG by {worst:.1g}"), how


def trained(folder: Path) -> tuple[str, str]:
    """What became of one training step: loss and gradient beside those of transformers alone."""
    config = TrainConfig(model=str(folder), pooling="mean", mlp="none", max_length=32, temperature=0.5)
    try:
        model, _ = load_model(resolve(str(folder), pooling="mean", head="none"), config, torch.device("cpu"))
    except UserError as error:
        return "refused", str(error).replace(str(folder), "model").replace(folder.name, "model")
    ids = [model.tokenizer(text)["input_ids"] for text in TEXTS]
    loss = float(backward(model.eval(), [(x,) for x in ids], Processes(0, 1, torch.device("cpu")), 0))
    vectors, theirs = by_hand(folder, "float32", grad=True)
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    expected = torch.nn.functional.cross_entropy(unit @ unit.T / 0.5, torch.arange(len(unit)))
    expected.backward()
    expected = expected.detach()
    if abs(loss - float(expected)) > 1e-4:
        return "WRONG", f"loss {loss:.5f} instead of {float(expected):.5f}"
    named = {k: p.grad for k, p in theirs.named_parameters() if p.grad is not None}
    ours = {k: p.grad for k, p in model.encoders[0].named_parameters() if p.grad is not None}
    largest = max(float(g.norm()) for g in named.values())
    worst = max(float((ours[k] - g).norm()) / largest if k in ours else 1.0 for k, g in named.items())
    how = "our layers" if any(type(m).__name__ == "TrainedLinear" for m in model.modules()) else "transformers' layers"
    return ("agrees" if worst <= 1e-3 else f"WRONG by {worst:.1g}"), how + ("" if model.padding else ", never padded")


def row(name: str) -> list[str]:
    """An architecture's row of the page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        build(name, folder)
        outcomes = [evaluated(folder, dtype) for dtype in DTYPES]
        step = trained(folder)
    hows = list(dict.fromkeys(how for outcome, how in [outcomes[0], step] if outcome != "refused"))
    reasons: dict[str, list[str]] = {}  # and where each applies
    for where, (outcome, how) in zip([*DTYPES, "training"], [*outcomes, step], strict=True):
        if outcome != "agrees":
            reason = re.sub(r" in (float32|bfloat16|float16)(?= |:)|^model: |\.? Use --dtype.*|\.$", "", how)
            reasons.setdefault(reason, []).append(where)
    everywhere = len(DTYPES) + 1
    why = [said if len(where) == everywhere else f"{', '.join(where)}: {said}" for said, where in reasons.items()]
    return [name, *(outcome for outcome, _ in outcomes), step[0], "; ".join([*hows, *why])]


HEAD = """# Architectures

Every architecture of transformers that reads text and can be built tiny without the Hub, with random weights: what
`eval --device cpu` and a step of `train` make of it, beside transformers' own code run sentence by sentence.
"agrees": mean-pooled vectors within 1e-4 of their length (bfloat16 8e-2, float16 1e-2), alone and in padded batches; of
the training step, the loss within 1e-4 and every gradient within 1e-3. "refused": an error that says why. Whatever the
architecture, `eval` and `train` repeat such a comparison on a few sentences each time they load a model, and go without
our faster layers, or without padding, where it fails. Written and checked by `tests/architectures.py`.

| architecture | float32 | bfloat16 | float16 | training step | how, or why not |
| :-- | :-- | :-- | :-- | :-- | :-- |
"""


def page(rows: list[list[str]]) -> str:
    """docs/architectures.md."""
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    names = sys.argv[2:] or ARCHITECTURES
    found = []
    for each in names:
        try:
            found.append(row(each))
        except Exception as problem:
            found.append([each, "NOT BUILT", type(problem).__name__, str(problem).split("\n")[0][:200], "", ""])
        print(*found[-1], sep=" | ", flush=True)
    Path(sys.argv[1]).write_text(page(found), encoding="utf-8")
