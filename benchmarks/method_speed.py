"""What a training method costs: its updates against plain SimCSE's, one after the other, and each one's peak memory.

    python benchmarks/method_speed.py arccon gs mixcse esimcse

Each method has a process of its own, in which it and SimCSE take turns, an update each, so that a machine that is
slower a minute later changes no ratio. Peak memory is of a further process that trains with the method alone. The
embedded encoder and text serve unless others are named. The figures go to results/speed/methods-<device>.json;
`simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLAIN, WARM = "simcse", 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--set", action="append", default=[], help="field=value of both")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--updates", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", choices=["time", "memory"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(turns(args) if args.one == "time" else peak(args)))
        return

    from simcse_bench.files import environment, write_text

    rows: list[dict[str, Any]] = []
    for name in (PLAIN, *args.methods):
        seconds, plain = apart(name, "time", args)
        (memory,) = apart(name, "memory", args)
        print(f"{name}: {seconds:.3f} s, SimCSE {plain:.3f}: {seconds / plain:.3f}; {memory:.0f} MB", flush=True)
        rows.append({"what": name, "dtype": "float32", "seconds": [round(seconds, 4)], "median": round(seconds, 4),
                     "base": round(plain, 4), "sentences": args.updates, "peak_mb": round(memory)})  # fmt: skip
    content = {
        "title": f"Training methods beside SimCSE, embedded encoder and text, {args.device}",
        "reference": "SimCSE, in turn",
        "counted": "updates",
        "rows": rows,
        "note": f"Seconds of an update, median of {args.updates} in turn with SimCSE's in one process; the first row "
        "is SimCSE beside itself. Peak memory: of a process that trains with the method alone.",
        "environment": environment(args.device),
    }
    write_text(args.out / "speed" / f"methods-{args.device}.json", json.dumps(content, indent=1) + "\n")


def apart(method: str, what: str, args: argparse.Namespace) -> list[float]:
    """What a process of its own prints."""
    settings = [part for one in args.set for part in ("--set", one)]
    command = [sys.executable, __file__, method, "--one", what, "--updates", str(args.updates), *settings]
    done = subprocess.run([*command, "--device", args.device], check=True, stdout=subprocess.PIPE, text=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def turns(args: argparse.Namespace) -> list[float]:
    """Median seconds of the method's updates and of SimCSE's, taken in turn."""
    runs = [started(args, name) for name in (args.methods[0], PLAIN)]
    spent: list[list[float]] = [[], []]
    for step in range(WARM + args.updates):
        for one in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter()
            runs[one].update()
            if args.device == "cuda":
                import torch

                torch.cuda.synchronize()
            spent[one].append(time.perf_counter() - start)
    return [statistics.median(seconds[WARM:]) for seconds in spent]


def peak(args: argparse.Namespace) -> list[float]:
    """MB at the most."""
    run = started(args, args.methods[0])
    for _ in range(WARM + 3):
        run.update()
    if args.device == "cuda":
        import torch

        return [torch.cuda.max_memory_allocated() / 1e6]
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6]


def started(args: argparse.Namespace, method: str) -> Any:
    """A run with the method, before its first update."""
    from simcse_bench.experiments.ablations import ABLATIONS
    from simcse_bench.training.folder import RunFolder
    from simcse_bench.training.job import prepare_job
    from simcse_bench.training.processes import join_processes
    from simcse_bench.training.recipes import recipe, with_settings
    from simcse_bench.training.train import Run

    changes = ABLATIONS["methods"].arms_of("mini")[method]
    own = [f"{k}={v}" for k, v in changes.items() if k != "method_settings"]
    own += [f"{k}={v}" for k, v in changes.get("method_settings", {}).items()]
    steps = ["eval_every=0", "dtype=float32", f"max_steps={10 * (WARM + args.updates)}"]
    config = with_settings(recipe("mini-unsup"), [*own, *steps, *args.set])
    return Run(prepare_job(config, join_processes(args.device)), RunFolder(Path(tempfile.mkdtemp())), lambda _: None)


if __name__ == "__main__":
    main()
