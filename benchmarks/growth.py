"""How time and memory grow: each part of the work at 1, 10 and 100 times its size.

    python benchmarks/growth.py

Every size runs in a process of its own; the clock runs over the work alone, the memory is the process's peak. The
embedded encoder and text serve, sentences numbered so that all differ; vectors and scores are random. The ratio of a
row is to the same work at its first size. `simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sides

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        sides.as_the_command()
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(PARTS[args.part[0]][2], args.one, Path(folder))))
        return

    from simcse_bench.files import environment, write_text

    rows: list[dict[str, Any]] = []
    for part in args.part:
        first, unit, _ = PARTS[part]
        for size in (first, 10 * first, 100 * first):
            command = [sys.executable, __file__, "--part", part, "--one", str(size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, peak = json.loads(done.stdout.splitlines()[-1])
            base = rows[-1]["base"] if size > first else seconds
            print(f"{part}, {size} {unit}: {seconds:.2f} s ({seconds / base:.1f} times), {peak} MB", flush=True)
            rows.append({"what": f"{part}, {size:,} {unit}", "dtype": "float32", "seconds": [round(seconds, 3)],
                         "median": round(seconds, 3), "base": base, "sentences": size, "peak_mb": peak})  # fmt: skip
    content = {
        "title": "Growth: each part of the work at 1, 10 and 100 times its size, embedded encoder and text, cpu",
        "reference": "the first size",
        "counted": "size",
        "rows": rows,
        "note": "One run each. Peak memory is of the whole process, torch and transformers included where they are "
        "loaded.",
        "environment": environment("cpu"),
    }
    path = args.out / "speed" / "growth-cpu.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {path}")


def measured(prepare: Callable[[int, Path], Callable[[], Any]], size: int, folder: Path) -> tuple[float, int]:
    """Seconds of the work, and the process's peak memory in MB."""
    work = prepare(size, folder)
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return seconds, round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def sentences(count: int) -> Iterator[str]:
    """So many different sentences of the embedded text."""
    from simcse_bench.bundled import text_file

    lines = text_file("mini-sentences").read_text(encoding="utf-8").splitlines()
    numbered = (f"{line} {n}" if n else line for n in itertools.count() for line in lines)
    return itertools.islice(numbered, count)


def embedding(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.models.open import open_model

    encoder, texts = open_model("mini", device="cpu").load(), list(sentences(size))
    return lambda: encoder.encode(texts)


def encoding(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench import SimCSE
    from simcse_bench.search.encode_file import encode_file

    model, text = SimCSE("mini", device="cpu"), folder / "text.txt"
    text.write_text("".join(f"{one}\n" for one in sentences(size)), encoding="utf-8")
    return lambda: encode_file(model, str(text), folder / "vectors.npy")


def probing(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.evaluation.probe import FAST, nested_kfold

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size)
    vectors = (rng.normal(size=(size, 384)) + 0.1 * labels[:, None]).astype(np.float32)
    return lambda: nested_kfold(vectors, labels, FAST)


def resampling(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.evaluation.statistics import bootstrap

    rng = np.random.default_rng(0)
    gold = rng.integers(0, 26, size) / 5
    return lambda: bootstrap(gold + rng.normal(size=size), gold, {"all": size}, 1000, 0)


def spreading(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.evaluation.geometry import uniformity

    vectors = np.random.default_rng(0).normal(size=(size, 384)).astype(np.float32)
    return lambda: uniformity(vectors)


def searching(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.data.corpus import open_corpus
    from simcse_bench.data.registry import load_suite
    from simcse_bench.evaluation.overlap import find_overlaps

    text = folder / "text.txt"
    text.write_text("".join(f"{one}\n" for one in sentences(size)), encoding="utf-8")
    corpus, tasks = open_corpus(str(text)), load_suite("mini")
    return lambda: find_overlaps(corpus, tasks)


def drawing(size: int, folder: Path) -> Callable[[], Any]:
    from simcse_bench.reports.site import regenerate

    saved = json.loads(next((RESULTS / "sts").glob("*MiniLM-L6-v2.json"), RESULTS / "none").read_text("utf-8"))
    (folder / "sts").mkdir()
    for n in range(size):
        copy = saved | {"key": f"{n:016x}", "model": saved["model"] | {"name": f"model {n}"}}
        (folder / "sts" / f"{n}.json").write_text(json.dumps(copy), encoding="utf-8")
    return lambda: regenerate(folder)


PARTS: dict[str, tuple[int, str, Callable[[int, Path], Callable[[], Any]]]] = {  # first size, of what
    "embedding in memory": (1000, "sentences", embedding),
    "encode, a file": (1000, "sentences", encoding),
    "probe, fast": (200, "rows", probing),
    "bootstrap, 1,000 resamples": (1000, "pairs", resampling),
    "uniformity": (500, "vectors", spreading),
    "overlap with the embedded tasks": (10_000, "rows", searching),
    "tables and pages of a results folder": (4, "reports", drawing),
}

if __name__ == "__main__":
    main()
