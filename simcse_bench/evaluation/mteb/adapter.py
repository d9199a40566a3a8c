"""Our encoder as a model of mteb: its own pooling and head, our batches, a name and revision made of its content."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.evaluation.evaluate import finite_embeddings
from simcse_bench.evaluation.metrics import Floats, paired_cosine
from simcse_bench.files import fingerprint
from simcse_bench.models.identity import deciding
from simcse_bench.models.open import Model, open_model
from simcse_bench.progress import Progress
from simcse_bench.reports.report import evaluation_key

if TYPE_CHECKING:  # it loads torch
    from simcse_bench.models.encoders import Array, Encoder

ShowPass = Callable[[], contextlib.AbstractContextManager[Progress | None]]  # opened around every call of encode


def mteb_model(model: str, **options: Any) -> MtebModel:
    """A model for ``mteb.evaluate`` and everything else of mteb that takes an encoder.

    Args:
        model: folder, Hub id, catalog name, or ``word-vectors:FILE``.
        options: those of ``open_model``: revision, pooling, head, max_length, whiten, dtype, device,
            batch_tokens, name.

    Raises:
        UserError: as ``open_model``; while encoding, NaN or infinite embeddings.
    """
    return MtebModel(open_model(model, **options))


class MtebModel:
    """What mteb asks of an encoder (``mteb.models.EncoderProtocol``); the weights are loaded at the first sentence.

    mteb finds cached results by name and revision alone. Both are made of what decides the embeddings (weights,
    tokenizer, pooling, head, length, dtype, whitening), so that no two models ever share a result.
    """

    def __init__(self, model: Model, show_pass: ShowPass = contextlib.nullcontext):
        self.model = model
        self.show_pass = show_pass
        self.encoder: Encoder | None = None
        self._show: Progress | None = None
        self._pairs: tuple[str, dict[str, Array]] = ("", {})  # an STS task's name, and its sentences embedded so far

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's ``ModelMeta``."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        known = self.model.provenance
        return ModelMeta.create_empty(
            {
                "name": content_name(known),
                "revision": evaluation_key(known, {}, {}, None),
                "max_tokens": known.get("max_length"),
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "loader_kwargs": {k: v for k, v in deciding(known).items() if v is not None},
            }
        )

    def encode(self, inputs: Iterable[Mapping[str, Any]], task_metadata: Any = None, **_: Any) -> Array | Floats:
        """Embeddings (n, d) of the texts of mteb's batches; each distinct one is embedded once, in batches of ours.

        mteb's prompts are not used: SimCSE has none.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        if getattr(task_metadata, "type", None) != "STS":
            return self._embed(texts)
        # mteb asks for the two sides of the pairs one after the other: a sentence that stands on both has one vector,
        # or rounding, which differs from batch to batch, would order the pairs of equal sentences
        name = str(getattr(task_metadata, "name", ""))
        known = self._pairs[1] if name == self._pairs[0] else {}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, self._embed(new), strict=True))
        self._pairs = (name, known)
        # mteb takes cosines of pairs in the precision given; in float32 those of a narrow cone are ordered by rounding
        return np.stack([known[text] for text in texts]).astype(np.float64)

    def _embed(self, texts: Sequence[str]) -> Array:
        """(n, d): every distinct text embedded once."""
        if self.encoder is None:
            self.encoder = self.model.load(self._progress)
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        with self.show_pass() as self._show:
            vectors = finite_embeddings(self.encoder, list(row))
        return vectors[[row[text] for text in texts]]

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Any:
        """Cosine of each of (n, d) with each of (m, d): (n, m), by mteb's own function."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Floats:
        """Cosine of row i of both: (n,)."""
        return paired_cosine(embeddings1, embeddings2)

    def _progress(self, done: int, total: int) -> None:
        if self._show is not None:
            self._show(done, total)


def content_name(provenance: Mapping[str, Any]) -> str:
    """``simcse-bench/<name>-<fingerprint of the model's files>``."""
    shown = re.sub(r"[^\w.+-]+", "-", str(provenance["name"]).rpartition("/")[2]).strip("-.") or "model"
    return f"simcse-bench/{shown}-{fingerprint(provenance.get('files'))[:12]}"
