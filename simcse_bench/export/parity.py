"""Does an export give our own embeddings? Each form is used as its users will use it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench.bundled import text_file
from simcse_bench.errors import UserError
from simcse_bench.hub import hide_transformers_bars
from simcse_bench.models.encoders import Array, pool
from simcse_bench.models.saving import Parts

_BATCH = 8  # sentences of unequal length, so that padding is tested too
_LONGEST = 600  # words of the sentence that is truncated


def parity_sentences(limit: int) -> list[str]:
    """Sentences to compare: short and long, cased, not English, one above ``limit`` tokens (where that is short)."""
    lines = text_file("mini-sentences").read_text(encoding="utf-8").splitlines()[:20]
    odd = ["Yes.", "THE CAT SAT ON THE MAT!", "  two   spaces, a tab\tand 3.14 %  ", "Hà Nội là thủ đô của Việt Nam.",
           "北京是中国的首都。", "naïve café — “quoted” … e\u0301", "@user https://example.org :-) 🙂"]  # fmt: skip
    words = " ".join(lines).split()
    count = min(limit + 40, _LONGEST)
    return [*lines, *odd, " ".join((words * (count // len(words) + 1))[:count])]


def embed_with_export(form: str, folder: Path, texts: Sequence[str], parts: Parts) -> Array:
    """Embeddings (n, d) by an exported folder; ``parts`` says what a form's users must know (its pooling)."""
    ways: Mapping[str, Callable[[], Array]] = {
        "sentence-transformers": lambda: _sentence_transformers(folder, texts),
        "transformers": lambda: _transformers(folder, texts, parts),
        "onnx": lambda: _onnx(folder, texts),
    }
    with quiet():
        return ways[form]()


def measure_parity(ours: Array, theirs: Array, texts: Sequence[str], tolerance: float, form: str) -> dict[str, Any]:
    """Largest difference of two sets of embeddings (n, d), for the record.

    Raises:
        UserError: it is above ``tolerance`` times the largest value (1 if that is less), or not finite.
    """
    if ours.shape != theirs.shape:
        raise UserError(
            f"--to {form}: its embeddings have {theirs.shape[-1]} values, ours {ours.shape[1]}. Nothing was exported."
        )
    by_sentence = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(1)
    worst = int(np.argmax(np.where(np.isfinite(by_sentence), by_sentence, np.inf)))
    scale = max(1.0, float(np.abs(ours).max()))
    difference = float(by_sentence[worst])
    if not difference <= tolerance * scale:  # NaN too
        text = texts[worst] if len(texts[worst]) <= 60 else f"{texts[worst][:57]}..."
        raise UserError(
            f"--to {form}: its embeddings differ from ours by up to {difference:.2g} (sentence {text!r}); expected at "
            f"most {tolerance:g} × {scale:.3g}, their largest value. Nothing was exported. If such a difference is "
            "fine for you, give a larger --tolerance."
        )
    return {"difference": difference, "tolerance": tolerance, "largest_value": scale, "sentences": len(texts)}


def _sentence_transformers(folder: Path, texts: Sequence[str]) -> Array:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    vectors = model.encode(list(texts), batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def _transformers(folder: Path, texts: Sequence[str], parts: Parts) -> Array:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False).eval()
    batches = []
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(list(texts[start : start + _BATCH]), padding=True, truncation=True, return_tensors="pt")
            output = model(**batch, output_hidden_states=True)
            if parts.head == "mlp":
                vectors = output.pooler_output
            else:
                vectors = pool(output.hidden_states, batch["attention_mask"], parts.pooling)
            batches.append(torch.nn.functional.normalize(vectors, dim=-1) if parts.normalize else vectors)
    vectors_of_all: Array = torch.cat(batches).float().numpy()
    return vectors_of_all


def _onnx(folder: Path, texts: Sequence[str]) -> Array:
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    batches = []
    for start in (0, 1, *range(1 + _BATCH, len(texts), _BATCH)):  # a batch of one first
        stop = 1 if start == 0 else start + _BATCH
        batch = tokenizer(list(texts[start:stop]), padding=True, truncation=True, return_tensors="np")
        batches.append(session.run(["sentence_embedding"], {n: batch[n].astype(np.int64) for n in names})[0])
    return np.concatenate(batches).astype(np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep other libraries' warnings and log lines from the user: what matters is told by the comparison."""

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    hide_transformers_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
