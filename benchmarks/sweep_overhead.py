"""What `run-ablation` costs beside the training itself: the whole command against `train` on each of its arms.

    python benchmarks/sweep_overhead.py dropout pooling temperature

Each ablation runs once as a user types it, with the embedded encoder and text, in a folder and a cache of its own; then
its arms are trained one after the other by what `simcse-bench train` calls, in one process whose start is not counted:
weights loaded, updates, one dev score, model saved. The updates alone are what the arms' own JSON tells. The rest of
the command is the start of the process, tokenising, test scores, statistics, table, plots and page. The figures go to
results/speed/sweep-overhead.json; `simcse-bench report results` draws the table.
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

WHOLE, ARMS, UPDATES = "whole command", "train, arm after arm", "updates alone"


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

    from simcse_bench.report import environment, write_text

    rows = []
    for name in args.ablations:
        wall, updates, sentences = command(name, args.seeds)
        alone = apart(__file__, name, "--seeds", str(args.seeds), "--one")
        print(
            f"{name}: {wall:.1f} s; train {alone:.1f} s ({wall / alone - 1:+.1%}); updates {updates:.1f} s", flush=True
        )
        for what, seconds in ((WHOLE, wall), (ARMS, alone), (UPDATES, updates)):
            rows.append({"what": f"{name}: {what}", "dtype": "float32", "seconds": [round(seconds, 1)],
                         "median": round(seconds, 1), "base": round(alone, 1), "sentences": sentences,
                         "peak_mb": None})  # fmt: skip
    content = {
        "title": f"run-ablation, embedded encoder and text, {args.seeds} seed(s), cpu: the command and its training",
        "reference": ARMS,
        "rows": rows,
        "note": "The command also starts a process, tokenises, takes test scores, draws tables, plots and page. One "
        "run each: command and updates are the same run, train is another. Sentences: rows trained on.",
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


def apart(*arguments: str) -> float:
    """The seconds that a process of its own prints."""
    with tempfile.TemporaryDirectory() as folder:
        return float(run(*arguments, folder))


def run(*arguments: str) -> str:
    """What a Python process prints that has no data but the embedded, and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        setting = {k: v for k, v in os.environ.items() if k != "SIMCSE_BENCH_DATA"}
        setting |= {"SIMCSE_BENCH_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=setting)
    return done.stdout


def bare(name: str, seeds: int, folder: Path) -> float:
    """Seconds that the arms take to train, one after the other, each into a folder of its own."""
    import dataclasses

    from simcse_bench import train
    from simcse_bench.launch import Place, launch
    from simcse_bench.plan import named, plan

    assert train, "loaded before the clock starts"
    sweep = plan(named(name), "mini", seeds, (), (), folder, Place(folder, device="cpu"))
    spent = 0.0
    for trial in sweep.trials:
        place = dataclasses.replace(sweep.place, out=folder / trial.path.stem)
        start = time.perf_counter()
        launch(trial.config, place, lambda entry: None, lambda text: None)
        spent += time.perf_counter() - start
    return spent


if __name__ == "__main__":
    main()
