"""What `run-ablation` costs beside the training itself: the whole command against `train` on each of its arms.

    python benchmarks/sweep_overhead.py dropout pooling temperature

Each ablation runs once as a user types it, with the embedded encoder and text, in a folder and a cache of its own; then
its arms are trained one after the other by what `simcse-bench train` calls, in one process whose start is not counted:
weights loaded, updates, one dev score, model saved. Each is held against its own updates, which its records tell: a
machine that is slower a minute later changes neither ratio. The rest of the command is the start of the process,
tokenising, test scores, statistics, table, plots and page. The figures go to results/speed/sweep-overhead.json;
`simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WHOLE, ARMS, UPDATES = "whole command", "train, arm after arm", "its own updates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablations", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(bare(args.ablations[0], args.seeds, args.one)))
        return

    from simcse_bench.files import environment, write_text

    rows = []
    for name in args.ablations:
        wall, updates, sentences = command(name, args.seeds)
        alone, its_updates = apart(__file__, name, "--seeds", str(args.seeds), "--one")
        overhead = (wall / updates) / (alone / its_updates) - 1
        print(
            f"{name}: {wall:.1f} of {updates:.1f} s; train {alone:.1f} of {its_updates:.1f} s: {overhead:+.1%}",
            flush=True,
        )
        for what, seconds, base in ((WHOLE, wall, updates), (ARMS, alone, its_updates)):
            rows.append({"what": f"{name}: {what}", "dtype": "float32", "seconds": [round(seconds, 1)],
                         "median": round(seconds, 1), "base": round(base, 1), "sentences": sentences,
                         "peak_mb": None})  # fmt: skip
    content = {
        "title": f"run-ablation, embedded encoder and text, {args.seeds} seed(s), cpu: the command and its training",
        "reference": UPDATES,
        "rows": rows,
        "note": "train: weights loaded, dev score, model saved, in a process that is there already. The command also "
        "starts its process, tokenises, takes test scores, draws tables, plots and page. Sentences: rows trained on.",
        "environment": environment("cpu"),
    }
    write_text(args.out / "speed" / "sweep-overhead.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def command(name: str, seeds: int) -> tuple[float, float, int]:
    """Seconds of the whole command, seconds of its updates, rows trained on."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run("-m", "simcse_bench", "run-ablation", name, "--seeds", str(seeds), "--device", "cpu", "--out", folder)
        wall = time.perf_counter() - start
        trials = [json.loads(p.read_text()) for p in Path(folder).glob("ablations/*/*--seed*.json")]
    sentences = sum(t["run"]["steps"] * t["config"]["batch_size"] for t in trials)
    return wall, sum(t["run"]["seconds"] for t in trials), sentences


def apart(*arguments: str) -> tuple[float, float]:
    """Seconds of training, and of its updates, that a process of its own prints."""
    with tempfile.TemporaryDirectory() as folder:
        spent, updates = json.loads(run(*arguments, folder))
    return spent, updates


def run(*arguments: str) -> str:
    """What a Python process prints that has no data but the embedded, and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        setting = {k: v for k, v in os.environ.items() if k != "SIMCSE_BENCH_DATA"}
        setting |= {"SIMCSE_BENCH_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=setting)
    return done.stdout


def bare(name: str, seeds: int, folder: Path) -> tuple[float, float]:
    """Seconds that the arms take to train, one after the other, each into a folder of its own, and of their updates."""
    import dataclasses

    from simcse_bench.experiments.sweep import named_ablation, plan_sweep
    from simcse_bench.training import train as loop
    from simcse_bench.training.run import RunOptions, train

    assert loop, "loaded before the clock starts"
    sweep = plan_sweep(named_ablation(name), "mini", seeds, (), (), folder, RunOptions(folder, device="cpu"))
    spent = updates = 0.0
    for trial in sweep.trials:
        options = dataclasses.replace(sweep.options, out=folder / trial.path.stem)
        start = time.perf_counter()
        record = train(trial.config, options, lambda entry: None, lambda text: None)
        spent += time.perf_counter() - start
        updates += record["seconds"]
    return spent, updates


if __name__ == "__main__":
    main()
