"""Make the embedded mini encoder: shrink all-MiniLM-L6-v2, then masked-language modelling on open text.

    python scripts/pretrain_mini.py --text open.txt.gz --ancestor FOLDER --out runs/mini --tokens 20000000

Three steps. The vocabulary is cut to the word pieces most used in the text. Layers and feed-forward neurons are
dropped. Then the whole is trained to predict masked tokens, which takes it away from its ancestor's training on
sentence pairs. Batches, masks and dropout follow from --seed and the step's number alone, so that the same command
after a kill goes on to the same weights. --minutes chooses the number of tokens by the speed of the first steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizerFast

from simcse_bench.bundled import MODEL
from simcse_bench.data.corpus import open_corpus
from simcse_bench.files import cache_dir, environment, sha256, write_text
from simcse_bench.models import cpu_kernels
from simcse_bench.models.encoders import plan_batches
from simcse_bench.models.loading import Backbone
from simcse_bench.models.weights import SETTINGS_FILE
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.gradients import masked_copies
from simcse_bench.training.model import SentenceModel
from simcse_bench.training.tokenised import Tokenised, tokenise

WINDOW = 20_000  # sentences that are sorted by length together
WARM = 0.06  # share of the steps in which the learning rate rises
SAVE_EVERY = 200  # steps
TIMED = 12  # steps that tell the speed for --minutes
MAX_LENGTH = 64  # tokens of a training sentence
POSITIONS = 256  # of the finished model


def main() -> None:
    """Parse, shrink, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path, help="one sentence a line, may be gzipped")
    parser.add_argument("--ancestor", required=True, type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", required=True, type=Path)
    bound = parser.add_mutually_exclusive_group(required=True)
    bound.add_argument("--tokens", type=int, help="tokens to train on")
    bound.add_argument("--minutes", type=float, help="or time to train for")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 3, 5], help="the ancestor's that stay")
    parser.add_argument("--neurons", type=int, default=768, help="of each feed-forward layer that stay")
    parser.add_argument("--fresh-cls", action="store_true", help="draw the embedding of [CLS] anew")
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--masked", type=float, default=0.15, help="share of tokens to predict")
    parser.add_argument("--batch-tokens", type=int, default=6000)
    parser.add_argument("--max-rows", type=int, default=0, help="only the first rows of the text")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    cpu_kernels.keep_freed_memory()
    cpu_kernels.register_training_attention()
    started = args.out / "start"
    if not (started / "model.safetensors").exists():
        shrink(args, started)
    train(args, started)


def shrink(args: argparse.Namespace, out: Path) -> None:
    """Write the ancestor with fewer word pieces, layers and neurons, and a head for masked tokens."""
    tokenizer = AutoTokenizer.from_pretrained(args.ancestor)
    text = tokens_of(args, tokenizer, args.ancestor)
    kept = vocabulary(tokenizer, np.bincount(text.tokens, minlength=len(tokenizer)), args.vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    pieces = tokenizer.convert_ids_to_tokens(kept.tolist())
    new = BertTokenizerFast(
        vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True, model_max_length=POSITIONS
    )
    new.save_pretrained(out)
    old = AutoModel.from_pretrained(args.ancestor, dtype=torch.float32)
    torch.manual_seed(args.seed)
    c = old.config
    config = BertConfig(
        vocab_size=len(kept), hidden_size=c.hidden_size, num_hidden_layers=len(args.layers),
        num_attention_heads=c.num_attention_heads, intermediate_size=args.neurons, max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, pad_token_id=new.pad_token_id,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    missing = model.bert.load_state_dict(small_weights(old.state_dict(), kept, args.layers, args.neurons), strict=False)
    if missing.unexpected_keys or any(not k.endswith("position_ids") for k in missing.missing_keys):
        raise SystemExit(f"{args.ancestor}: not a BERT of the expected form ({missing}).")
    if args.fresh_cls:
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[new.cls_token_id].normal_(std=config.initializer_range)
    model.save_pretrained(out)


def vocabulary(tokenizer: Any, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Ids to keep, ascending: the special tokens, every single letter, digit and sign, then the most used pieces."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    always = set(tokenizer.all_special_ids)
    always |= {i for i, p in enumerate(pieces) if len(p.removeprefix("##")) == 1 and p.isascii()}
    usable = [i for i in np.argsort(-counts, kind="stable").tolist() if not pieces[i].startswith("[unused")]
    chosen = sorted(always | set([i for i in usable if i not in always][: size - len(always)]))
    return np.array(chosen, dtype=np.int64)


def small_weights(
    old: dict[str, Tensor], kept: NDArray[np.int64], layers: Sequence[int], neurons: int
) -> dict[str, Tensor]:
    """The encoder's weights without the other pieces, positions, layers, and the weakest neurons."""
    new = {k: v for k, v in old.items() if k.startswith("embeddings.") and "position_ids" not in k}
    new["embeddings.word_embeddings.weight"] = old["embeddings.word_embeddings.weight"][torch.from_numpy(kept)]
    new["embeddings.position_embeddings.weight"] = old["embeddings.position_embeddings.weight"][:POSITIONS]
    for i, layer in enumerate(layers):
        prefix = f"encoder.layer.{layer}."
        part = {k.removeprefix(prefix): v for k, v in old.items() if k.startswith(prefix)}
        rise, fall = part["intermediate.dense.weight"], part["output.dense.weight"]  # (f, h), (h, f)
        strongest = (rise.norm(dim=1) * fall.norm(dim=0)).topk(neurons).indices.sort().values
        part["intermediate.dense.weight"] = rise[strongest]
        part["intermediate.dense.bias"] = part["intermediate.dense.bias"][strongest]
        part["output.dense.weight"] = fall[:, strongest]
        new |= {f"encoder.layer.{i}.{k}": v.contiguous() for k, v in part.items()}
    return new


def tokens_of(args: argparse.Namespace, tokenizer: Any, folder: Path) -> Tokenised:
    """The text in the tokenizer's pieces, from the cache the second time."""
    corpus = open_corpus(str(args.text), (), args.max_rows)
    pieces = (folder / "tokenizer.json").read_bytes()
    key = hashlib.sha256(f"{corpus.fingerprint} {MAX_LENGTH}".encode() + pieces).hexdigest()[:16]
    return tokenise(corpus.rows(), 1, tokenizer, MAX_LENGTH, key, cache_dir())


def batches(lengths: NDArray[np.int64], batch_tokens: int, seed: int) -> Iterator[list[int]]:
    """Sentences of about one length, batch by batch, without end; every sentence once an epoch."""
    epoch = 0
    while True:
        draw = np.random.default_rng((seed, epoch))
        order = draw.permutation(len(lengths))
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            found = list(plan_batches(lengths[window].tolist(), batch_tokens, 0.1))
            for i in draw.permutation(len(found)):
                yield window[found[i]].tolist()
        epoch += 1


def train(args: argparse.Namespace, start: Path) -> None:
    """Train from the start or the last checkpoint to the end, and write the finished folder."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    data = tokens_of(args, tokenizer, start)
    whole = BertForMaskedLM.from_pretrained(start, attn_implementation="simcse_bench_training")
    config = TrainConfig(mlp="none", mlm_weight=1.0, mlm_probability=args.masked, chunk_tokens=2 * args.batch_tokens)
    model = SentenceModel(Backbone(whole.bert, tokenizer, whole), config, torch.device("cpu"))
    whole.train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=args.rate, weight_decay=0.01, fused=True)
    state: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "goal": args.tokens, "curve": []}
    folder = args.out / "checkpoint"
    if (folder / "state.json").exists():
        state = json.loads((folder / "state.json").read_text())
        load(folder / f"step-{state['step']}.safetensors", whole, optimizer)
    planned = batches(data.lengths()[:, 0], args.batch_tokens, args.seed)
    for _ in range(state["step"]):
        next(planned)
    recent: list[float] = []
    began = time.perf_counter() - state["seconds"]
    while not state["goal"] or state["tokens"] < state["goal"]:
        torch.manual_seed(hash((args.seed, state["step"])) % 2**63)
        sentences = [data.row(i)[0] for i in next(planned)]
        done = state["tokens"] / state["goal"] if state["goal"] else 0.0
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(done / WARM, (1 - done) / (1 - WARM)) if state["goal"] else 0.0
        recent.append(update(model, optimizer, sentences, int(torch.initial_seed() % 2**32)))
        state["step"] += 1
        state["tokens"] += sum(map(len, sentences))
        state["seconds"] = time.perf_counter() - began
        if state["goal"] is None and state["step"] == TIMED:
            state["goal"] = int(args.minutes * 60 * state["tokens"] / state["seconds"])
        if state["step"] % 50 == 0:
            state["curve"].append([state["tokens"], round(float(np.mean(recent[-50:])), 4)])
            speed = state["tokens"] / state["seconds"]
            print(
                f"step {state['step']}: {state['tokens'] / 1e6:.1f} of {(state['goal'] or 0) / 1e6:.1f} M tokens, "
                f"loss {state['curve'][-1][1]:.3f}, {speed:,.0f} tokens/s",
                flush=True,
            )
        if state["step"] % SAVE_EVERY == 0:
            save(folder, whole, optimizer, state)
    finish(args, whole, tokenizer, state)


def update(model: SentenceModel, optimizer: torch.optim.Optimizer, sentences: list[list[int]], seed: int) -> float:
    """One step; gives the loss per masked token."""
    masked, labels = masked_copies(model, sentences, seed)
    total = sum(label >= 0 for row in labels for label in row)
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.stack(list(model.mlm_losses(masked, labels))).sum() / max(1, total)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def save(folder: Path, model: BertForMaskedLM, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Weights and moments first, then the state that names them, then the older ones go."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight.{n}": p.detach().clone() for n, p in model.named_parameters()}
    for n, p in model.named_parameters():
        tensors |= {f"{key}.{n}": torch.as_tensor(v).clone() for key, v in optimizer.state[p].items()}
    target = folder / f"step-{state['step']}.safetensors"
    save_file(tensors, target)
    write_text(folder / "state.json", json.dumps(state))
    for path in folder.glob("step-*.safetensors"):
        if path != target:
            path.unlink()


def load(path: Path, model: BertForMaskedLM, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint into model and optimiser."""
    tensors = load_file(path)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(tensors[f"weight.{n}"])
            optimizer.state[p] = {key: tensors[f"{key}.{n}"] for key in ("step", "exp_avg", "exp_avg_sq")}


def finish(args: argparse.Namespace, model: BertForMaskedLM, tokenizer: Any, state: dict[str, Any]) -> None:
    """Write the model in float16 with its tokenizer, provenance and card."""
    out = args.out / "mini"
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_text(out / SETTINGS_FILE, json.dumps({"pooling": "cls", "head": "none", "start": MODEL}) + "\n")
    chosen = {k: v for k, v in vars(args).items() if k not in ("out", "text", "ancestor")}
    found = {
        "ancestor": {"name": "all-MiniLM-L6-v2", "sha256": sha256(args.ancestor / "model.safetensors")},
        "text": {"name": args.text.name, "sha256": sha256(args.text)},
        "settings": chosen, "tokens": state["tokens"], "steps": state["step"], "seconds": round(state["seconds"]),
        "loss": state["curve"], "environment": environment("cpu"),
    }  # fmt: skip
    write_text(out / "pretraining.json", json.dumps(found) + "\n")
    write_text(out / "README.md", card(found))
    print(f"written: {out}")


def card(found: dict[str, Any]) -> str:
    """The model's card (scripts/mini_card.md)."""
    s, machine = found["settings"], found["environment"]
    return (Path(__file__).parent / "mini_card.md").read_text(encoding="utf-8").format(
        **{k: s[k] for k in ("neurons", "vocabulary", "batch_tokens", "masked", "rate", "seed")},
        **{k: found[k] for k in ("tokens", "steps", "seconds")},
        **{k: found[k]["name"] for k in ("ancestor", "text")},
        **{f"{k}_sha256": found[k]["sha256"] for k in ("ancestor", "text")},
        depth=len(s["layers"]), layers=", ".join(map(str, s["layers"])),
        processor=machine["processor"], cores=machine["cores"],
        bound=f"--minutes {s['minutes']:g}" if s["minutes"] else f"--tokens {s['tokens']}",
        curve="\n".join(f"| {tokens / 1e6:.1f} | {loss:.2f} |" for tokens, loss in found["loss"][1::2]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
