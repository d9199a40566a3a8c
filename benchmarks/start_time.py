"""Where the time of the first command goes: `simcse-bench eval mini`, whole, and what it waits for on the way.

    python benchmarks/start_time.py

Every run is a process of its own, the rows in turn: Python with torch alone, with transformers' BERT and tokenizer too,
and the whole command, of which its own report says the seconds of embedding and scoring. The files lie in the cache of
the operating system after a first run that does not count. `simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import sides

WHOLE = "simcse-bench eval mini, whole"
EMBEDDING, SCORING = ", of it embedding", ", of it scoring with intervals"
IMPORTS = {
    "Python, torch": "import torch",
    "Python, torch, transformers' BERT": "import torch; from transformers import AutoTokenizer, BertModel",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results"))
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    for run in range(args.runs + 1):
        seconds = command() | {what: timed(["-c", code]) for what, code in IMPORTS.items()}
        for what, taken in seconds.items():
            print(f"run {run} {what}: {taken:.2f} s", flush=True)
            if run:  # the first fetches the files
                found.setdefault(what, []).append(taken)
    whole = sides.row(WHOLE, "float32", found[WHOLE], 2)["median"]
    rows = [
        sides.row(what, "float32", taken, 2, sentences=args.runs, peak_mb=None, base=whole)
        for what, taken in found.items()
    ]
    sides.save(
        args.out / "speed" / "start-cpu.json",
        "The first command: eval mini, cpu",
        "Medians of runs in turn, every run a process of its own, files in the operating system's cache.",
        rows, "cpu", reference="the whole command", counted="runs",
    )  # fmt: skip


def timed(arguments: Sequence[str]) -> float:
    """Seconds of a Python process from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def command() -> dict[str, float]:
    """Seconds of the whole command, and of the parts of it that its report tells."""
    with tempfile.TemporaryDirectory() as folder:
        whole = timed(["-m", "simcse_bench", "eval", "mini", "--out", folder])
        (report,) = Path(folder).rglob("*.json")
        parts = json.loads(report.read_text())["seconds"]
    return {WHOLE: whole, WHOLE + EMBEDDING: parts["embedding"], WHOLE + SCORING: parts["scoring"]}


if __name__ == "__main__":
    main()
