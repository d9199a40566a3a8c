"""Embedding the seven STS tasks: simcse-bench against sentence-transformers, same model, data and dtype.

    python benchmarks/eval_speed.py --model FOLDER --name all-MiniLM-L6-v2 --data-dir DIR

Every run is a process of its own, ours and theirs in turn; the clock runs from the loaded model to the last
embedding, tokenising included. sentence-transformers encodes as its evaluators and mteb do: two `encode` calls per
task, one for each side of the pairs, batches of 32. Medians and their ratio go to results/speed/;
`simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import sides
from sides import OURS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a sentence-transformers folder or Hub id")
    parser.add_argument("--name", help="name of the model in the report")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_run(args)))
    else:
        compare(args)


def one_run(args: argparse.Namespace) -> dict[str, float]:
    """One run of one side: seconds, peak memory above the loaded model in MB, sentences embedded."""
    import torch

    from simcse_bench.data.registry import load_suite
    from simcse_bench.data.senteval import DataSource, find_root
    from simcse_bench.data.task import SIMCSE
    from simcse_bench.evaluation.evaluate import distinct_sentences, read_all

    pairs, _ = read_all(load_suite("sts"), SIMCSE, find_root(DataSource(args.data_dir)).path)
    dtype = args.dtype[0]
    if args.one == OURS:
        from simcse_bench.models.checkpoints import resolve
        from simcse_bench.models.loading import load_encoder

        encoder = load_encoder(resolve(args.model), dtype, args.device)
        before, start = peak_mb(), time.perf_counter()
        sentences = distinct_sentences(pairs.values())
        encoder.encode(sentences)
        count = len(sentences)
    else:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(args.model, device=args.device, model_kwargs={"dtype": getattr(torch, dtype)})
        before, start = peak_mb(), time.perf_counter()
        for p in pairs.values():
            for side in (p.left, p.right):
                model.encode(list(side), batch_size=32, show_progress_bar=False)
        count = 2 * sum(map(len, pairs.values()))
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb() - before, "sentences": count}


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def compare(args: argparse.Namespace) -> None:
    """Run both sides in turn and save medians and ratios."""
    options = ["--model", args.model, "--device", args.device]
    options += ["--data-dir", str(args.data_dir)] if args.data_dir else []
    rows = []
    for dtype in args.dtype:
        for side, found in sides.in_turn(__file__, dtype, args.runs, options).items():
            more = {"sentences": found[0]["sentences"], "peak_mb": round(max(r["peak_mb"] for r in found))}
            rows.append(sides.row(side, dtype, [r["seconds"] for r in found], 2, **more))
    sides.save(
        args.out / "speed" / f"eval-{args.device.replace(':', '')}.json",
        f"Embedding STS12-16, STS-B and SICK-R (test): {args.name or args.model}, {args.device}",
        "Clock: from the loaded model to the last embedding, tokenising included; runs in turn, medians. "
        "Peak memory is above the loaded model.",
        rows,
        args.device,
    )


if __name__ == "__main__":
    main()
