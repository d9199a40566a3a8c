"""SentEval's exact probe on CR: all classifiers at once against one at a time, on the same embeddings.

    python benchmarks/transfer_speed.py --model FOLDER --name all-MiniLM-L6-v2 --data-dir DIR

Both sides train the same 410 classifiers on the same cores, in turn; the one at a time is a plain torch loop (module,
optimiser, backward) with SentEval's seeds, permutations and early stopping, as in tests/test_probe.py. Medians and
their ratio go to results/speed/transfer-<device>.json; `simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

OURS, THEIRS = "all at once", "one at a time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", help="name of the model in the report")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--task", default="cr", help="a task with nested folds")
    parser.add_argument("--runs", type=int, default=3, help="of ours; one at a time runs once, after the first")
    parser.add_argument("--out", type=Path, default=Path("results"))
    args = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from test_probe import plain_nested

    from simcse_bench.data.labelled import read_labelled
    from simcse_bench.data.registry import load_task
    from simcse_bench.data.senteval import DataSource, find_root
    from simcse_bench.evaluation.probe import EXACT, nested_kfold
    from simcse_bench.files import environment, write_text
    from simcse_bench.models.checkpoints import resolve
    from simcse_bench.models.loading import load_encoder

    data = read_labelled(load_task(args.task), find_root(DataSource(args.data_dir)).path)
    x = load_encoder(resolve(args.model, pooling="mean"), device="cpu").encode(data.texts)
    runs: dict[str, list[float]] = {OURS: [], THEIRS: []}
    found = {}
    for i in range(args.runs):
        for side in (OURS, THEIRS) if i == 0 else (OURS,):
            start = time.perf_counter()
            if side == OURS:
                outcome = nested_kfold(x, data.labels, EXACT)
                found[side] = (outcome.test, outcome.dev)
            else:
                dev, folds, _ = plain_nested(x, data.labels, EXACT)
                found[side] = (round(float(np.mean(folds)), 2), float(dev))
            runs[side].append(round(time.perf_counter() - start, 2))
            print(f"{side}: {runs[side][-1]} s, test and dev accuracy {found[side]}", flush=True)
    rows = [
        {"what": f"{side} (test {found[side][0]:.2f}, dev {found[side][1]:.2f})", "dtype": "float32",
         "seconds": seconds, "median": statistics.median(seconds), "sentences": len(x), "peak_mb": None}
        for side, seconds in runs.items()
    ]  # fmt: skip
    content = {
        "title": f"SentEval's exact probe on {args.task.upper()} ({len(x)} sentences, 410 classifiers): "
        f"{args.name or args.model}, mean pooling, cpu",
        "reference": rows[1]["what"],
        "rows": rows,
        "note": "Clock: from the embeddings to the accuracies; both on the same cores in one process.",
        "environment": environment("cpu"),
    }
    path = args.out / "speed" / "transfer-cpu.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
