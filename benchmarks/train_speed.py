"""Training updates: simcse-bench against sentence-transformers' trainer, same checkpoint, data, batch, length, dtype.

    python benchmarks/train_speed.py --model FOLDER --name all-MiniLM-L6-v2 --train FILE
    python benchmarks/train_speed.py --form base --device cuda --train FILE

Every run is a process of its own, ours and theirs in turn. Both train the folder's own pooling without an MLP with
AdamW, a linear schedule and clipping at 1.0, batch 64, at most 32 tokens, dropout as in the checkpoint; theirs with
MultipleNegativesRankingLoss (scale 20). A file of one column is trained against itself, one of three with its hard
negatives. The clock runs over whole updates, the data loader included; the first ones, which fetch memory and compile
kernels, are left out. ``--form base`` makes a BERT-base of random weights, which serve for speed. Medians and their
ratio go to results/speed/; `simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sides
from sides import OURS

if TYPE_CHECKING:
    from simcse_bench.training.train import Run

BATCH, LENGTH, WARM = 64, 32, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a sentence-transformers folder or Hub id, pooling mean or cls")
    parser.add_argument("--form", choices=["base"], help="instead: random weights of this form")
    parser.add_argument("--name", help="name of the model in the report")
    parser.add_argument("--train", required=True, help="training text, one column or three")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one == OURS:
        sides.as_the_command()
    if args.one:
        print(json.dumps((ours if args.one == OURS else theirs)(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.name = args.name or args.model or sides.BASE
        args.model = args.model or sides.bert_base(Path(folder))
        compare(args)


def ours(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of every update of our trainer."""
    import torch

    run = our_run(args)
    seconds = []
    for _ in range(args.updates + WARM):
        start = time.perf_counter()
        run.update()
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[WARM:])}


def our_run(args: argparse.Namespace) -> Run:
    """Our trainer, before its first update."""
    from simcse_bench.models.checkpoints import resolve
    from simcse_bench.training.config import TrainConfig
    from simcse_bench.training.folder import RunFolder
    from simcse_bench.training.job import prepare_job
    from simcse_bench.training.processes import join_processes
    from simcse_bench.training.recipes import with_settings
    from simcse_bench.training.train import Run

    settings = (
        f"model={args.model}", f"train={args.train}", f"max_rows={rows(args)}", f"max_length={LENGTH}", "mlp=none",
        f"batch_size={BATCH}", "eval_every=0", f"dtype={args.dtype[0]}", f"pooling={resolve(args.model).spec.pooling}",
    )  # fmt: skip
    return Run(
        prepare_job(with_settings(TrainConfig(), settings), join_processes(args.device)),
        RunFolder(args.out),
        lambda entry: None,
    )


def theirs(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of every update of sentence-transformers' trainer."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from simcse_bench.data.corpus import open_corpus

    columns = list(zip(*open_corpus(args.train, (), rows(args)).rows(), strict=True))
    columns = columns if len(columns) > 1 else columns * 2
    data = Dataset.from_dict({f"column{i}": list(column) for i, column in enumerate(columns)})
    model = SentenceTransformer(args.model, device=args.device)
    model.max_seq_length = LENGTH
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            if args.device == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, per_device_train_batch_size=BATCH, max_steps=args.updates + WARM, learning_rate=3e-5,
            bf16=args.dtype[0] == "bfloat16", use_cpu=args.device == "cpu", save_strategy="no",
            report_to="none", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model, scale=20.0),
            callbacks=[Clock()],
        ).train()  # fmt: skip
    return {"seconds": statistics.median(b - a for a, b in zip(ends[WARM - 1 :], ends[WARM:], strict=False))}


def rows(args: argparse.Namespace) -> int:
    """Rows of the training text that the updates need."""
    return (args.updates + WARM) * BATCH


def compare(args: argparse.Namespace) -> None:
    """Run both sides in turn and save medians and ratios."""
    options = ["--model", args.model, "--train", args.train, "--device", args.device, "--updates", str(args.updates)]
    rows = []
    for dtype in args.dtype:
        for side, found in sides.in_turn(__file__, dtype, args.runs, options).items():
            seconds = [r["seconds"] for r in found]
            more = {
                "sentences": BATCH,
                "peak_mb": None,
                "rows_per_second": round(BATCH / statistics.median(seconds), 1),
            }
            rows.append(sides.row(side, dtype, seconds, 3, **more))
    text = Path(args.train)
    sides.save(
        args.out / "speed" / f"train{'-base' * bool(args.form)}-{text.stem}-{args.device}.json",
        f"Training updates: {args.name}, {text.name}, batch {BATCH}, {LENGTH} tokens, {args.device}",
        f"Seconds of one update of {BATCH} rows, in each run the median of {args.updates}; runs in turn. Both "
        "sides train on the same rows, each in an order of its own.",
        rows,
        args.device,
    )


if __name__ == "__main__":
    main()
