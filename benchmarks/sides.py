"""Two sides measured in turn, every run a process of its own, a busy process beside, and the file of the figures."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS, THEIRS = "simcse-bench", "sentence-transformers"
BASE = "BERT-base form, random weights"


def in_turn(script: str, dtype: str, runs: int, options: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Side -> what ``script --one SIDE --dtype DTYPE`` printed as JSON in its last line, run by run."""
    found: dict[str, list[dict[str, float]]] = {OURS: [], THEIRS: []}
    for i in range(runs):
        for side, results in found.items():
            command = [sys.executable, script, "--one", side, "--dtype", dtype, *options]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{dtype} run {i + 1} {side}: {results[-1]['seconds']:.3f} s", flush=True)
    return found


def as_the_command() -> None:
    """What `simcse-bench` does at its start where other processes hold cores; before torch is imported."""
    from simcse_bench.cli.console import yield_shared_cores

    yield_shared_cores()


@contextmanager
def beside_another() -> Iterator[None]:
    """While another process keeps a core busy."""
    busy = subprocess.Popen([sys.executable, "-c", "while True:\n    sum(range(10000))"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def bert_base(folder: Path) -> str:
    """A sentence-transformers folder: BERT-base's form, random weights, the embedded encoder's tokenizer, mean pooling.

    Weights decide nothing about speed.
    """
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import AutoTokenizer, BertConfig, BertModel

    from simcse_bench.bundled import model_folder

    torch.manual_seed(0)
    inner = folder / "transformer"
    BertModel(BertConfig()).save_pretrained(inner)
    AutoTokenizer.from_pretrained(model_folder()).save_pretrained(inner)
    words = models.Transformer(str(inner))
    pooling = models.Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder / "bert-base"))
    return str(folder / "bert-base")


def row(side: str, dtype: str, seconds: Sequence[float], digits: int, **more: Any) -> dict[str, Any]:
    """One line of the report: all runs and their median."""
    rounded = [round(s, digits) for s in seconds]
    return {"what": side, "dtype": dtype, "seconds": rounded, "median": statistics.median(rounded), **more}


def save(
    path: Path,
    title: str,
    note: str,
    rows: Sequence[dict[str, Any]],
    device: str,
    reference: str = THEIRS,
    counted: str = "sentences",
) -> None:
    """Write the JSON that `simcse-bench report` draws the table from."""
    import sentence_transformers

    from simcse_bench.files import environment, write_text

    versions = environment(device) | {"sentence-transformers": sentence_transformers.__version__}
    content = {"title": title, "reference": reference, "counted": counted, "rows": rows, "note": note,
               "environment": versions}  # fmt: skip
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {path}")
