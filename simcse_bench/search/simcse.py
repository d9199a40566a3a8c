"""SimCSE: the class of the official package `simcse`, with its arguments, defaults and return types."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.corpus import read_sentences, require_text
from simcse_bench.errors import UserError, unknown
from simcse_bench.evaluation.metrics import unit
from simcse_bench.models.catalog import POOLERS
from simcse_bench.models.open import open_model
from simcse_bench.search import index

if TYPE_CHECKING:
    from torch import Tensor

    from simcse_bench.progress import Progress

MAX_LENGTH = 128  # tokens; source: simcse/tool.py
BATCH = 64  # sentences; source: simcse/tool.py
_log = logging.getLogger(__name__)


class SimCSE:
    """Embed sentences, compare them, and search among them::

        from simcse_bench import SimCSE

        model = SimCSE("princeton-nlp/sup-simcse-bert-base-uncased")
        model.similarity(["A woman is reading."], ["He plays guitar."])
        model.build_index(["A woman is reading.", "A man is playing a guitar."])
        model.search("He plays guitar.")

    What the official class lacks: any pooling and head, ``save_index`` and ``load_index``, empty lists, batches of
    sentences of one length.
    """

    def __init__(
        self,
        model_name_or_path: str | Any,
        device: str | None = None,
        num_cells: int = 100,
        num_cells_in_search: int = 10,
        pooler: str | None = None,
        *,
        pooling: str | None = None,
        head: str | None = None,
        revision: str | None = None,
        max_length: int = MAX_LENGTH,
        dtype: str = "float32",
    ):
        """Load a model.

        Args:
            model_name_or_path: as for ``open_model``: folder, Hub id, catalog name, ``word-vectors:FILE``; or an object
                with ``encode``.
            device: where to compute; None: a GPU where there is one.
            num_cells, num_cells_in_search: of ``build_index(faiss_fast=True)``.
            pooler: an official name of pooling and head, a key of ``catalog.POOLERS``.
            pooling, head: the two by themselves; see ``catalog.POOLINGS`` and ``HEADS``. Without them and without
                ``pooler`` the model's own; one that does not say is refused.
                differs from SimCSE: tool.py takes cls_before_pooler where the name holds "unsup", else cls.
            revision: of a model on the Hub.
            max_length: default of ``encode``, and what the index and ``similarity`` use.
            dtype: float32, bfloat16 or float16.

        Raises:
            UserError: whatever ``open_model`` refuses.
        """
        if pooler is not None:
            if pooling is not None or head is not None:
                raise UserError(f"pooler {pooler!r} means a pooling and a head; give them or the pooler, not both.")
            if pooler not in POOLERS:
                raise unknown("pooler", pooler, POOLERS)
            pooling, head = POOLERS[pooler]
        self.model_name_or_path = model_name_or_path
        self.num_cells, self.num_cells_in_search = num_cells, num_cells_in_search
        self.max_length = max_length
        self.index: index.Index | None = None
        self.progress: Progress | None = None  # told (tokens done, tokens in all) of every list of sentences
        self._settings: dict[str, Any] = {"revision": revision, "pooling": pooling, "head": head, "dtype": dtype}
        self._loaded: dict[str, _Loaded] = {}
        self.device = _device_name(device)
        first = self._on(None)
        said = dict(getattr(first.encoder, "provenance", {}))
        self.provenance = said | {"max_length": first.length(max_length) or said.get("max_length")}

    @property
    def stats(self) -> dict[str, int]:
        """Of the last call: sentences, tokens, truncated, ..."""
        return dict(getattr(self._on(None).encoder, "stats", {}))

    def encode(
        self,
        sentence: str | Sequence[str],
        device: str | None = None,
        return_numpy: bool = False,
        normalize_to_unit: bool = True,
        keepdim: bool = False,
        batch_size: int = BATCH,
        max_length: int | None = None,
    ) -> NDArray[np.float32] | Tensor:
        """Embeddings (n, d) of a list, (d,) of one sentence ((1, d) with ``keepdim``); on the CPU.

        Args:
            sentence: one or several; no sentence gives (0, d).
            device: another than the model's, for this call.
            return_numpy: an array instead of a tensor.
            normalize_to_unit: to length 1; a zero vector stays.
            keepdim: see above.
            batch_size: sentences of ordinary length in a batch; batches are cut by tokens, and the embeddings do not
                depend on it.
            max_length: tokens after which a sentence is cut off, at most the model's own limit; None: 128, or what
                the constructor was given.
        """
        one = isinstance(sentence, str)
        sentences = [sentence] if isinstance(sentence, str) else sentence
        vectors = self._vectors(sentences, device, batch_size, max_length, normalize_to_unit)
        if one and not keepdim:
            vectors = vectors[0]
        if return_numpy:
            return vectors
        import torch

        return torch.from_numpy(vectors)

    def similarity(
        self, queries: str | Sequence[str], keys: str | Sequence[str] | NDArray[Any] | Tensor, device: str | None = None
    ) -> float | NDArray[np.float32]:
        """Cosines of N queries and M keys, (N, M); of one query (a str) (M,), of two strings a float.

        ``keys`` may be embeddings of ``encode``, (M, d) or (d,).
        """
        rows = self._vectors([queries] if isinstance(queries, str) else queries, device)
        single_key = isinstance(keys, str)
        if isinstance(keys, str):
            columns = self._vectors([keys], device)
        elif isinstance(keys, list | tuple):
            columns = self._vectors(keys, device)
        else:
            given = np.asarray(keys, dtype=np.float32)
            single_key = given.ndim == 1
            columns = unit(np.atleast_2d(given))
            if columns.shape[1:] != rows.shape[1:]:
                raise UserError(f"keys have shape {given.shape}; this model's embeddings have {rows.shape[1]} values.")
        cosines: NDArray[np.float32] = rows @ columns.T
        if not isinstance(queries, str):
            return cosines
        return float(cosines[0, 0]) if single_key else cosines[0]

    def build_index(
        self,
        sentences_or_file_path: str | Sequence[str],
        use_faiss: bool | None = None,
        faiss_fast: bool = False,
        device: str | None = None,
        batch_size: int = BATCH,
    ) -> None:
        """Embed sentences, or those of a file, for ``search``; an index that was there is forgotten.

        Args:
            sentences_or_file_path: a list; or a file, see ``corpus.read_sentences``: blank lines are left out.
            use_faiss: None takes it where it is installed (extra ``search``); the answers are the same.
            faiss_fast: search the nearest ``num_cells_in_search`` of ``num_cells`` cells only: not exact, needs faiss.
            device, batch_size: see ``encode``.
        """
        index.make_store(np.zeros((0, 1), np.float32), use_faiss, faiss_fast)  # a missing faiss, before the work
        sentences = _listed(sentences_or_file_path)
        vectors = self._vectors(sentences, device, batch_size)
        self.index = index.Index(sentences, self._store(vectors, use_faiss, faiss_fast))

    def add_to_index(
        self, sentences_or_file_path: str | Sequence[str], device: str | None = None, batch_size: int = BATCH
    ) -> None:
        """Embed more sentences, or those of a file, and put them behind the others."""
        there = self._index()
        sentences = _listed(sentences_or_file_path)
        there.add(sentences, self._vectors(sentences, device, batch_size))

    def search(
        self, queries: str | Sequence[str], device: str | None = None, threshold: float = 0.6, top_k: int = 5
    ) -> index.Hits | list[index.Hits]:
        """(sentence, cosine) of the ``top_k`` nearest with at least ``threshold``, best first; of a list, a list each.

        Equal cosines stand in the order of the index.
        """
        hits = self.nearest([queries] if isinstance(queries, str) else queries, device, threshold, top_k)
        return hits[0] if isinstance(queries, str) else hits

    def nearest(
        self, queries: Sequence[str], device: str | None = None, threshold: float = 0.6, top_k: int = 5
    ) -> list[index.Hits]:
        """``search`` of a list."""
        return self._index().search(self._vectors(queries, device), threshold, top_k)

    def save_index(self, folder: str | Path) -> None:
        """Write the index to a folder, whole or not at all; an index that is there is replaced."""
        model = self.model_name_or_path
        name = model if isinstance(model, str) else str(self.provenance["name"])  # an object is not found again
        where = index.note_model(name, Path(folder))
        index.save_index(self._index(), Path(folder), self.provenance, where)

    def load_index(self, folder: str | Path, use_faiss: bool | None = None, faiss_fast: bool = False) -> None:
        """Take an index of ``save_index`` or `simcse-bench index`; one that another model made is refused."""
        sentences, vectors = index.load_index(Path(folder), self.provenance)
        self.index = index.Index(sentences, self._store(vectors, use_faiss, faiss_fast))

    def _index(self) -> index.Index:
        if self.index is None:
            raise UserError("there is no index yet: call build_index or load_index first.")
        return self.index

    def _store(self, vectors: NDArray[np.float32], use_faiss: bool | None, fast: bool) -> index.Store:
        return index.make_store(vectors, use_faiss, fast, self.num_cells, self.num_cells_in_search)

    def _on(self, device: str | None) -> _Loaded:
        """The model on a device; each is loaded once, because a processor's weights are repacked for it."""
        name = self.device if device is None else _device_name(device)
        if name not in self._loaded:
            encoder: Any = open_model(self.model_name_or_path, **self._settings, device=name).load(self._tell)
            limit, budget = getattr(encoder, "max_length", None), getattr(encoder, "batch_tokens", 0)
            self._loaded[name] = _Loaded(encoder, limit, budget)
        return self._loaded[name]

    def _tell(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(done, total)

    def _vectors(
        self,
        sentences: Sequence[str],
        device: str | None,
        batch_size: int = BATCH,
        max_length: int | None = None,
        scale: bool = True,
    ) -> NDArray[np.float32]:
        """(n, d): every distinct sentence embedded once."""
        require_text(sentences)
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: expected at least 1.")
        loaded = self._on(device)
        encoder = loaded.encoder
        if loaded.limit is not None:
            encoder.max_length = loaded.length(self.max_length if max_length is None else max_length)
            encoder.batch_tokens = max(1, loaded.batch_tokens * batch_size // BATCH)
        place = {text: i for i, text in enumerate(dict.fromkeys(sentences))}
        if not place:
            return np.zeros((0, encoder.encode(["a"]).shape[1]), dtype=np.float32)
        vectors: NDArray[np.float32] = encoder.encode(list(place))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            text = list(place)[int(np.flatnonzero(~finite)[0])]
            raise UserError(
                f"the embedding of {text[:80]!r} is not finite; are the weights damaged, or dtype too small?"
            )
        if scale:
            vectors = unit(vectors)
        return vectors if len(place) == len(sentences) else vectors[[place[text] for text in sentences]]


@dataclass(frozen=True)
class _Loaded:
    """An encoder on a device, and its own limits."""

    encoder: Any
    limit: int | None  # tokens of a sentence; None for a model that knows no tokens
    batch_tokens: int  # of a batch of ordinary size

    def length(self, asked: int) -> int | None:
        """Tokens that a sentence is cut to."""
        if self.limit is None:
            return None
        special = self.encoder.tokenizer.num_special_tokens_to_add()
        if asked <= special:
            raise UserError(f"max_length {asked}: {special} tokens of it are special; expected at least {special + 1}.")
        return min(self.limit, asked)


def _device_name(device: str | None) -> str:
    from simcse_bench.models.loading import torch_device

    return str(torch_device(device or "auto"))


def _listed(sentences_or_file_path: str | Sequence[str]) -> list[str]:
    if not isinstance(sentences_or_file_path, str):
        return list(sentences_or_file_path)
    sentences, blank = read_sentences(sentences_or_file_path)
    if blank:
        _log.info("%s: %d blank lines are left out", sentences_or_file_path, blank)
    return sentences
