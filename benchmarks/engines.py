"""The same sentences through every engine a user could pick, alone and beside another busy process.

    python benchmarks/engines.py --model FOLDER --name all-MiniLM-L6-v2 --data-dir DIR
    python benchmarks/engines.py --form base --sentences 400 --data-dir DIR
    python benchmarks/engines.py --form base --sentences 30000 --device cuda --dtype float32 bfloat16 --data-dir DIR

Distinct sentences of the seven STS tasks, one sample for all. OpenVINO and ONNX Runtime run the model as torch exports
it, on the batches without padding that we run (what sentence-transformers' own backends would be given is padded);
sentence-transformers runs as it comes, in batches of 32, on a GPU in batches of 512, too. The clock runs from the
loaded model to the last embedding, tokenising included; every run is a process of its own, the engines in turn.
"beside another": one other process keeps a core busy, which on a GPU is left out. ``--form base`` makes a BERT-base of
random weights, which serve for speed. Needs the packages openvino, onnx and onnxruntime, on a GPU none of them.
`simcse-bench report results` draws the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sides

ENGINES = {  # and the types each of them has on a processor
    "OpenVINO": ("float32", "bfloat16"),
    "ONNX Runtime": ("float32", "int8"),
    "sentence-transformers": ("float32", "bfloat16"),
    sides.OURS: ("float32", "bfloat16", "int8"),
}
LARGE = f"{sides.THEIRS}, batches of 512"
ON_GPU = dict.fromkeys((sides.THEIRS, LARGE, sides.OURS), ("float32", "bfloat16", "float16"))
BESIDE = ", beside another"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a BERT that sentence-transformers reads: a folder")
    parser.add_argument("--form", choices=["base"], help="instead: random weights of this form")
    parser.add_argument("--name", help="of the model in the report")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=3000)
    parser.add_argument("--dtype", nargs="+", default=["float32"], help="float32, bfloat16, int8; on a GPU float16")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--machine", default="", help="a word for this machine, where others' figures are kept: AMD")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        sentences = sample(args.data_dir, args.sentences)
        seconds = one_run(args.one, args.model, args.dtype[0], args.device, sentences)
        print(json.dumps({"seconds": seconds}))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.model = args.model or sides.bert_base(Path(folder))
        args.name = args.name or Path(args.model).name
        compare(args)


def sample(data_dir: Path, count: int) -> list[str]:
    """So many of the distinct sentences of the STS tasks, drawn at random, always the same."""
    from simcse_bench.data.registry import load_suite
    from simcse_bench.data.senteval import DataSource, find_root
    from simcse_bench.data.task import SIMCSE
    from simcse_bench.evaluation.evaluate import distinct_sentences, read_all

    pairs, _ = read_all(load_suite("sts"), SIMCSE, find_root(DataSource(data_dir)).path)
    sentences = distinct_sentences(pairs.values())
    return [sentences[i] for i in np.random.default_rng(0).permutation(len(sentences))[:count]]


def one_run(engine: str, model: str, dtype: str, device: str, sentences: Sequence[str]) -> float:
    """Seconds that an engine takes for the sentences."""
    encode = {
        sides.OURS: ours, sides.THEIRS: library, LARGE: partial(library, batch=512), "OpenVINO": openvino,
        "ONNX Runtime": onnxruntime,
    }[engine](model, dtype, device)  # fmt: skip
    encode(sentences[: 64 if device == "cpu" else 2048])  # what an engine prepares at its first calls
    start = time.perf_counter()
    vectors = encode(sentences)
    seconds = time.perf_counter() - start
    assert vectors.shape[0] == len(sentences)
    assert np.isfinite(vectors).all()
    return seconds


Encode = Callable[[Sequence[str]], Any]


def ours(model: str, dtype: str, device: str) -> Encode:
    from simcse_bench.models.checkpoints import resolve
    from simcse_bench.models.loading import load_encoder

    return load_encoder(resolve(model, pooling="mean", head="none"), dtype, device).encode


def library(model: str, dtype: str, device: str, batch: int = 32) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device=device, model_kwargs={"dtype": getattr(torch, dtype)})
    return lambda sentences: loaded.encode(list(sentences), batch_size=batch, show_progress_bar=False)


def openvino(model: str, dtype: str, device: str) -> Encode:
    import openvino as ov

    core = ov.Core()
    hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype], "PERFORMANCE_HINT": "LATENCY"}
    with exported(model) as path:
        compiled = core.compile_model(core.read_model(path), "CPU", hints)
    return in_our_batches(model, lambda inputs: compiled(inputs)["states"])


def onnxruntime(model: str, dtype: str, device: str) -> Encode:
    import onnxruntime as ort
    from onnxruntime.quantization import quantize_dynamic

    with exported(model) as path:
        if dtype == "int8":  # weights with a scale for each output, inputs with one a call, as ours
            quantize_dynamic(path, path, per_channel=True)
        session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return in_our_batches(model, lambda inputs: session.run(["states"], inputs)[0])


@contextmanager
def exported(model: str) -> Any:
    """The model as an ONNX file: ids and mask (B, L) -> last hidden states (B, L, h)."""
    import torch
    import transformers

    class LastStates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(model, add_pooling_layer=False).eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in [*names, "states"]}
    like = torch.ones(2, 9, dtype=torch.long)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(LastStates(), (like, like), str(path), input_names=names, output_names=["states"],
                          dynamic_axes=axes, dynamo=False)  # fmt: skip
        yield path


def in_our_batches(model: str, states: Callable[[dict[str, Any]], Any]) -> Encode:
    """An engine on our batches without padding; mean over the tokens."""
    import transformers

    from simcse_bench.models.encoders import embed_in_batches

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)

    def encode(sentences: Sequence[str]) -> Any:
        ids = tokenizer(list(sentences), truncation=True, max_length=256)["input_ids"]

        def embed(rows: Sequence[int]) -> list[Any]:
            batch = np.array([ids[i] for i in rows])
            return [states({"input_ids": batch, "attention_mask": np.ones_like(batch)}).mean(1)]

        return embed_in_batches([len(x) for x in ids], embed, 2048, 0.0, {}, "cpu")[0]

    return encode


def compare(args: argparse.Namespace) -> None:
    """Run all engines in turn, idle and beside another process, and save medians and ratios."""
    engines, reference = (ENGINES, "OpenVINO") if args.device == "cpu" else (ON_GPU, sides.THEIRS)
    found: dict[tuple[str, str, str], list[float]] = {}
    for run in range(args.runs):
        for dtype in args.dtype:
            for beside in ("", BESIDE) if args.device == "cpu" else ("",):
                for engine, types in engines.items():
                    if dtype in types:
                        seconds = timed(engine, dtype, bool(beside), args)
                        found.setdefault((engine, dtype, beside), []).append(seconds)
                        print(f"run {run + 1} {engine}{beside} {dtype}: {seconds:.2f} s", flush=True)
    rows = []
    for (engine, dtype, beside), seconds in found.items():
        against = found[reference, "float32" if dtype == "int8" else dtype, beside]
        counts = {"sentences": args.sentences, "peak_mb": 0, "base": float(np.median(against))}
        rows.append(sides.row(engine + beside, dtype, seconds, 3, **counts))
    import sentence_transformers as st

    clock = "Clock: from the loaded model to the last embedding, tokenising included; runs in turn, medians; ratio: to "
    if args.device == "cpu":
        import onnxruntime as ort
        import openvino as ov

        note = (
            "OpenVINO in the same situation (int8: to its float32), smaller is faster. OpenVINO and ONNX Runtime run "
            "the exported model on our batches without padding. Beside another: one other process keeps a core busy. "
            f"openvino {ov.__version__.split('-')[0]}, onnxruntime {ort.__version__}, "
        )
    else:
        note = "sentence-transformers in its own batches of 32, smaller is faster. "
    machine = f"-{args.machine}" * bool(args.machine)
    sides.save(
        args.out / "speed" / f"engines-{args.form or args.name}-{args.device}{machine.lower()}.json",
        f"One engine beside the other: {sides.BASE if args.form else args.name}, {args.sentences} STS sentences"
        + f", {args.machine}" * bool(args.machine),
        f"{clock}{note}sentence-transformers {st.__version__}.",
        rows, args.device, reference=reference,
    )  # fmt: skip


def timed(engine: str, dtype: str, beside: bool, args: argparse.Namespace) -> float:
    """Seconds of one run in a process of its own."""
    command = [
        sys.executable, __file__, "--one", engine, "--dtype", dtype, "--model", args.model, "--device", args.device,
        "--data-dir", str(args.data_dir), "--sentences", str(args.sentences),
    ]  # fmt: skip
    with sides.beside_another() if beside else nullcontext():
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    main()
