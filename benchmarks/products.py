"""How much of the time the matrix products take, and how fast they run: what no engine can be faster than.

    python benchmarks/products.py --model FOLDER --name all-MiniLM-L6-v2 --data-dir DIR --train FILE FILE

The rows of products are those of the row before, as torch's profiler counts them. Embedding: 1,500 distinct STS
sentences in one thread. Training: an update of train_speed.py on each file, in all threads. "a product alone" is a
linear layer's forward product again and again, with packed weights, its data in the caches: the rate that can be had.
GFLOP: two for each weight of the linear layers and token without padding, in training six. `simcse-bench report
results` draws the table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sides
from engines import sample
from train_speed import WARM, our_run

SENTENCES, UPDATES = 1500, 6
PRODUCTS = ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise", "onednn::qlinear_pointwise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a BERT that sentence-transformers reads: a folder")
    parser.add_argument("--name", help="of the model in the report")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--train", nargs="+", default=[], help="training texts")
    parser.add_argument("--out", type=Path, default=Path("results"))
    args = parser.parse_args()
    sides.as_the_command()
    rows: list[dict[str, Any]] = []
    for dtype in ("float32", "bfloat16", "int8"):
        rows += embedding(args.model, dtype, sample(args.data_dir, SENTENCES))
    for train in args.train:
        for dtype in ("float32", "bfloat16"):
            rows += training(args.model, train, dtype)
    sides.save(
        args.out / "speed" / "products-cpu.json",
        f"Matrix products in embedding and training: {args.name or args.model}, cpu",
        "Seconds in which torch's profiler sees the work and its products; medians. A product alone: in one thread, "
        "with the data in the caches.",
        rows, "cpu", reference="the whole work", counted="GFLOP",
    )  # fmt: skip


def seen(work: Callable[[], Any], times: int) -> tuple[list[float], list[float]]:
    """Seconds of the work, and of the products in it, each time."""
    import torch

    whole, products = [], []
    for _ in range(times):
        start = time.perf_counter()
        with torch.profiler.profile() as profile:
            work()
            whole.append(time.perf_counter() - start)
        found = [e.self_cpu_time_total for e in profile.key_averages() if e.key in PRODUCTS]
        products.append(sum(found) / 1e6)
    return whole, products


def lines(what: str, dtype: str, seconds: tuple[list[float], list[float]], flop: float) -> list[dict[str, Any]]:
    """The rows of some work and of its products."""
    base = statistics.median(seconds[0])
    counts = {"sentences": round(flop / 1e9), "peak_mb": None, "base": base}
    return [sides.row(w, dtype, s, 3, **counts) for w, s in zip((what, what + ", products"), seconds, strict=True)]


def embedding(model: str, dtype: str, sentences: list[str]) -> list[dict[str, Any]]:
    """Of one thread that embeds the sentences, and a product alone."""
    import torch

    from simcse_bench.models.checkpoints import resolve
    from simcse_bench.models.cpu_kernels import PackedLinear
    from simcse_bench.models.int8 import Int8Linear
    from simcse_bench.models.loading import load_encoder

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    encoder = load_encoder(resolve(model, pooling="mean", head="none"), dtype, "cpu")
    encoder.encode(sentences)
    seconds = seen(lambda: encoder.encode(sentences), 3)
    rows = lines("embedding, one thread", dtype, seconds, 2 * weights(model) * encoder.stats["tokens"])
    linear = torch.nn.Linear(384, 1536)
    if dtype == "int8":
        alone: PackedLinear = Int8Linear(linear)
        given = alone.prepared(torch.randn(2048, 384))
    else:
        alone = PackedLinear(linear.to(getattr(torch, dtype)))
        given = torch.randn(2048, 384, dtype=getattr(torch, dtype))
    with torch.inference_mode():
        seconds = seen(lambda: [alone(given) for _ in range(100)], 3)
    torch.set_num_threads(threads)
    return [*rows, lines("a product alone, one thread, 100 times", dtype, seconds, 200 * 2048 * 384 * 1536)[1]]


def training(model: str, train: str, dtype: str) -> list[dict[str, Any]]:
    """Of an update on a text."""
    with tempfile.TemporaryDirectory() as folder:
        asked = argparse.Namespace(
            model=model, train=train, dtype=[dtype], device="cpu", updates=UPDATES, out=Path(folder)
        )
        run = our_run(asked)
        for _ in range(WARM):
            run.update()
        before = run.state.tokens
        seconds = seen(run.update, UPDATES)
        tokens = (run.state.tokens - before) / UPDATES
    return lines(f"an update, {Path(train).name}", dtype, seconds, 6 * weights(model) * tokens)


def weights(model: str) -> int:
    """Of the linear layers that every token passes."""
    import torch
    import transformers

    loaded = transformers.AutoModel.from_pretrained(model, add_pooling_layer=False)
    return sum(m.weight.numel() for m in loaded.modules() if isinstance(m, torch.nn.Linear))


if __name__ == "__main__":
    main()
