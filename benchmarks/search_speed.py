"""Building and searching an index beside faiss's flat one, and embedding a file beside embedding a list.

    python benchmarks/search_speed.py
    python benchmarks/search_speed.py --count 10000 100000 --text sentences.txt

Random unit vectors of 384 values in clusters, each a centre and noise of the same length, always the same. Every run is
a process of its own, the sides in turn; all of them begin with the vectors in a file. faiss flat: mapped and added to
an ``IndexFlatIP``. Ours: the index folder opened, its digests and sentences included; the approximate indexes are built
from the mapped vectors, their recall measured in that time. "By BLAS": faiss multiplies many queries through its BLAS,
which since 1.15 it does for batches of 128,000 only. A search is for the 10 nearest, of 1 query (the median of seven)
or of 100 at once. Memory is what the process takes more at its peak than before it opens the vectors. With ``--text``,
its first sentences are embedded by the embedded encoder, as a list and to a file.
`simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sides

DIMENSION, CLUSTERS, TOP_K = 384, 1000, 10
FLAT, BLAS = "faiss flat", "faiss flat, by BLAS"
EXACT, IVF, HNSW = "simcse-bench, exact", "simcse-bench, ivf", "simcse-bench, hnsw"
LIST, FILE = "embedded as a list", "embedded to a file"
MODEL = {"name": "random", "pooling": "cls", "head": "none", "files": {}, "max_length": None, "preprocess": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--text", type=Path, help="also embed the first sentences of this file")
    parser.add_argument("--embedded", type=int, nargs="+", default=[10_000], help="so many of them")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        side, folder = args.one
        print(json.dumps((embed if side in (LIST, FILE) else search)(side, Path(folder))))
        return
    rows, noted = [], ""
    with tempfile.TemporaryDirectory() as place:
        for count in args.count:
            folder = Path(place) / str(count)
            make_index(folder, count)
            sides_of = {FLAT: args.runs, BLAS: 1, EXACT: args.runs, IVF: 1, HNSW: 1}
            found = in_turn(sides_of, folder)
            rows += search_rows(count, found)
            noted += f" {count:,}: the vectors are {4 * DIMENSION * count / 1e6:,.0f} MB."
        for count in args.embedded if args.text else ():
            folder = Path(place) / f"text-{count}"
            folder.mkdir()
            with args.text.open(encoding="utf-8") as lines:
                (folder / "text.txt").write_text("".join(itertools.islice(lines, count)), "utf-8")
            found = in_turn({LIST: 1, FILE: 1}, folder)
            base = statistics.median(run["seconds"] for run in found[LIST])
            rows += [row(f"{count:,}: {side}", count, runs, "seconds", base) for side, runs in found.items()]
    save(args.out, rows, noted)


def save(out: Path, rows: list[dict[str, Any]], noted: str) -> None:
    import faiss

    sides.save(
        out / "speed" / "search-cpu.json", f"Indexes of random vectors in clusters, {DIMENSION} values",
        f"Runs in turn, medians; ratio: to faiss flat (of embedding: to the list) in the same situation, smaller is "
        f"faster. IVF, HNSW, BLAS and embedding: one run each. "
        f"Memory: what the process takes more at its peak than before it opens the vectors.{noted} "
        f"faiss {faiss.__version__}.",
        rows, "cpu", reference=FLAT,
    )  # fmt: skip


def make_index(folder: Path, count: int) -> None:
    """An index folder of random vectors, and queries beside it."""
    from simcse_bench.search.index import Index, save_index
    from simcse_bench.search.nearest import Exact

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, DIMENSION), dtype=np.float32)

    def draw(many: int) -> Any:
        vectors = rng.standard_normal((many, DIMENSION), dtype=np.float32)
        vectors += centres[rng.integers(CLUSTERS, size=many)]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    vectors = np.empty((count, DIMENSION), dtype=np.float32)
    for start in range(0, count, 50_000):
        vectors[start : start + 50_000] = draw(len(vectors[start : start + 50_000]))
    start = time.perf_counter()
    save_index(Index([f"sentence {i}" for i in range(count)], Exact(vectors)), folder, MODEL, "random")
    print(f"{count:,}: index written in {time.perf_counter() - start:.1f} s", flush=True)
    np.save(folder / "queries.npy", draw(100))


def in_turn(runs: dict[str, int], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Side -> what each of its runs measured."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side, many in runs.items() if many}
    for run in range(max(runs.values())):
        for side in found:
            if run < runs[side]:
                command = [sys.executable, __file__, "--one", side, str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{folder.name}, run {run + 1}, {side}: {found[side][-1]}", flush=True)
    return found


def search(side: str, folder: Path) -> dict[str, Any]:
    """Seconds of building or opening, and of searches; the recall; the memory taken."""
    from simcse_bench.search.faiss import build_approximate
    from simcse_bench.search.index import Index, load_index
    from simcse_bench.search.nearest import Exact

    queries, measured = np.load(folder / "queries.npy"), {}
    if side != EXACT:
        import faiss
    if side == BLAS:  # as versions before 1.15 do from 20 queries on; blocks that are its quickest here
        faiss.cvar.distance_compute_blas_threshold, faiss.cvar.distance_compute_blas_database_bs = 20, 4096
    before, start = memory("VmRSS"), time.perf_counter()
    if side in (FLAT, BLAS):
        index = faiss.IndexFlatIP(DIMENSION)
        index.add(np.load(folder / "vectors.npy", mmap_mode="r"))
        find: Callable[[Any], Any] = lambda asked: index.search(asked, TOP_K)  # noqa: E731
    else:
        sentences, vectors = load_index(folder, MODEL)
        store: Any = Exact(vectors)
        if side != EXACT:
            start = time.perf_counter()
            store = build_approximate(side.rpartition(" ")[2], vectors)
            measured["recall"] = store.recall
        ready = Index(sentences, store)
        find = lambda asked: ready.search(asked, -1, TOP_K)  # noqa: E731
    measured["built"] = time.perf_counter() - start
    find(queries[:1])
    for many, times in ((1, 7), (100, 1)):
        seconds = []
        for i in range(times):
            start = time.perf_counter()
            find(np.roll(queries, -i, axis=0)[:many])
            seconds.append(time.perf_counter() - start)
        measured[str(many)] = statistics.median(seconds)
    return measured | {"memory": memory("VmHWM") - before}


def embed(side: str, folder: Path) -> dict[str, Any]:
    """Seconds from the loaded model to the last vector, and the memory taken."""
    from simcse_bench.search.encode_file import encode_file
    from simcse_bench.search.simcse import SimCSE

    model = SimCSE("mini", device="cpu")
    sentences = (folder / "text.txt").read_text("utf-8").split("\n")[:-1] if side == LIST else []
    model.encode(["What an engine prepares at its first call."] * 64)
    before, start = memory("VmRSS"), time.perf_counter()
    if side == LIST:
        model.encode(sentences, return_numpy=True)
    else:
        encode_file(model, str(folder / "text.txt"), folder / "vectors.npy", force=True)
    return {"seconds": time.perf_counter() - start, "memory": memory("VmHWM") - before}


def memory(field: str) -> int:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    line = next(x for x in Path("/proc/self/status").read_text("ascii").splitlines() if x.startswith(field))
    return int(line.split()[1]) // 1000


def search_rows(count: int, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each situation and side."""
    words = {"built": "opened", "1": "1 query", "100": "100 queries"}
    rows = []
    for case, said in words.items():
        base = statistics.median(run[case] for run in found[FLAT])
        for side, runs in found.items():
            if side == BLAS and case != "100":
                continue
            what = said if case != "built" or side == EXACT else "built"
            recall = f", recall@{TOP_K} {100 * runs[0]['recall']:.1f} %" if "recall" in runs[0] else ""
            rows.append(row(f"{count:,}: {side}{recall}, {what}", count, runs, case, base))
    return rows


def row(what: str, count: int, runs: list[dict[str, Any]], case: str, base: float) -> dict[str, Any]:
    peak = max(run["memory"] for run in runs)
    return sides.row(what, "float32", [run[case] for run in runs], 5, sentences=count, peak_mb=peak, base=base)


if __name__ == "__main__":
    main()
