"""Training and the probe alone and beside another busy process; embedding beside one is in engines.py.

    python benchmarks/contention.py --model FOLDER --name all-MiniLM-L6-v2 --train FILE

Every run is a process of its own, alone and beside in turn. The ratio of a row is to the same work alone. Training is
that of train_speed.py, ours and sentence-transformers', in float32; the probe that of growth.py. `simcse-bench report
results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import sides

HERE = Path(__file__).parent
PROBE = 2000  # rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a sentence-transformers folder or Hub id, pooling mean or cls")
    parser.add_argument("--name", help="name of the model in the report")
    parser.add_argument("--train", required=True, help="training text, one column or three")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results"))
    args = parser.parse_args()
    training = [str(HERE / "train_speed.py"), "--model", args.model, "--train", args.train, "--dtype", "float32",
                "--updates", str(args.updates)]  # fmt: skip
    commands = {
        f"an update, {sides.OURS}": [*training, "--one", sides.OURS],
        f"an update, {sides.THEIRS}": [*training, "--one", sides.THEIRS],
        f"probe, fast, {PROBE:,} rows": [str(HERE / "growth.py"), "--part", "probe, fast", "--one", str(PROBE)],
    }
    found: dict[tuple[str, str], list[float]] = {}
    for run in range(args.runs):
        for what, command in commands.items():
            for beside in ("", ", beside another"):
                with sides.beside_another() if beside else nullcontext():
                    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
                printed = json.loads(done.stdout.splitlines()[-1])
                seconds = float(printed["seconds"] if isinstance(printed, dict) else printed[0])
                found.setdefault((what, beside), []).append(seconds)
                print(f"run {run + 1} {what}{beside}: {seconds:.2f} s", flush=True)
    rows = [
        sides.row(what + beside, "float32", seconds, 3, sentences=PROBE if "probe" in what else 64, peak_mb=None,
                  base=statistics.median(found[what, ""]))
        for (what, beside), seconds in found.items()
    ]  # fmt: skip
    sides.save(
        args.out / "speed" / "contention-cpu.json",
        f"Training and the probe beside another busy process: {args.name or args.model}, cpu",
        "Medians of runs in turn. Beside another: one other process keeps a core busy.",
        rows, "cpu", reference="the same alone", counted="rows",
    )  # fmt: skip


if __name__ == "__main__":
    main()
