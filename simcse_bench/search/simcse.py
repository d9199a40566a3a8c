"""SimCSE: the class of the official package `simcse`, with its arguments, defaults and return types."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.corpus import read_sentences, require_text
from simcse_bench.errors import UserError, unknown
from simcse_bench.evaluation.metrics import unit
from simcse_bench.models.catalog import POOLERS
from simcse_bench.models.open import open_model
from simcse_bench.models.prompts import NO_WISH, PromptOptions
from simcse_bench.search import index
from simcse_bench.search.faiss import Approximate, Flat, make_store, require_approximate
from simcse_bench.search.nearest import Store

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from simcse_bench.progress import Progress

Device: TypeAlias = "str | int | torch.device | None"  # as torch names it; an int is a GPU's number
MAX_LENGTH = 128  # tokens; source: simcse/tool.py
BATCH = 64  # sentences; source: simcse/tool.py
BLOCK = 1 << 16  # sentences embedded at a time: more would hold too many tokens
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
        device: Device = None,
        num_cells: int = 100,
        num_cells_in_search: int = 10,
        pooler: str | None = None,
        *,
        pooling: str | None = None,
        head: str | None = None,
        revision: str | None = None,
        max_length: int = MAX_LENGTH,
        dtype: str = "auto",
        prompt: PromptOptions = NO_WISH,
        truncate_dim: int | None = None,
        trust_code: bool = False,
    ):
        """Load a model.

        Args:
            model_name_or_path: as for ``open_model``: folder, Hub id, catalog name, ``word-vectors:FILE``; or an object
                with ``encode``.
            device: where to compute; None: a GPU where there is one; "cuda:0,cuda:1": a copy on each.
            num_cells, num_cells_in_search: of ``build_index(faiss_fast=True)``.
            pooler: an official name of pooling and head, a key of ``catalog.POOLERS``.
            pooling, head: the two by themselves; see ``catalog.POOLINGS`` and ``HEADS``. Without them and without
                ``pooler`` the model's own; one that does not say is refused.
                differs from SimCSE: tool.py takes cls_before_pooler where the name holds "unsup", else cls.
            revision: of a model on the Hub.
            max_length: default of ``encode``, and what the index and ``similarity`` use.
            dtype, prompt, truncate_dim, trust_code: see ``open_model``.

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
        self.progress: Progress | None = None  # told (sentences done, in all) of every list of sentences
        self._stats: Counter[str] = Counter()
        self._place = 0, 0, 0  # sentences done, of the block under way, in all
        self._settings: dict[str, Any] = {
            "revision": revision, "pooling": pooling, "head": head, "dtype": dtype, "prompt": prompt,
            "truncate_dim": truncate_dim, "trust_code": trust_code,
        }  # fmt: skip
        self._loaded: dict[str, _Loaded] = {}
        self._asked, self.device = _asked_device(device), _device_name(device)
        first = self._on(None)
        said = dict(getattr(first.encoder, "provenance", {}))
        self.provenance = said | {"max_length": first.length(max_length) or said.get("max_length")}

    @property
    def model(self) -> Any:
        """The transformers model, for inference (a processor's weights are packed); word vectors have none.

        differs from SimCSE: the head is not in it, so its ``pooler_output`` is None; ``encode`` applies the head.
        """
        return self._on(None).encoder.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._on(None).encoder.tokenizer

    @property
    def pooler(self) -> str:
        """Pooling and head under their official name, see ``catalog.POOLERS``; "pooling + head" where it has none."""
        view = (self.provenance["pooling"], self.provenance["head"])
        return next((name for name, known in POOLERS.items() if known == view), " + ".join(map(str, view)))

    @property
    def recipe(self) -> dict[str, Any]:
        """The constructor's arguments that decide the vectors: with them another process has the same model."""
        named = {"model_name_or_path": self.model_name_or_path, "device": self._asked, "max_length": self.max_length}
        return named | self._settings

    @property
    def is_faiss_index(self) -> bool:
        """Whether the index is faiss's."""
        return self.index is not None and isinstance(self.index.store, Flat | Approximate)

    @property
    def stats(self) -> dict[str, int]:
        """Of the last call: sentences, tokens, truncated, ..."""
        return dict(self._stats)

    def encode(
        self,
        sentence: str | Iterable[str],
        device: Device = None,
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
        self, queries: str | Iterable[str], keys: str | Iterable[str] | NDArray[Any] | Tensor, device: Device = None
    ) -> float | NDArray[np.float32]:
        """Cosines of N queries and M keys, (N, M); of one query (a str) (M,), of two strings a float.

        ``keys`` may be embeddings of ``encode``, (M, d) or (d,).
        """
        rows = self._vectors([queries] if isinstance(queries, str) else queries, device)
        single_key = isinstance(keys, str)
        given = np.asarray(keys) if hasattr(keys, "__array__") else None
        if given is None or given.dtype.kind not in "fiu":  # an array or a column of texts is a list of them
            columns = self._vectors([keys] if isinstance(keys, str) else keys, device)
        else:
            single_key = given.ndim == 1
            columns = unit(np.atleast_2d(given.astype(np.float32)))
            if columns.shape[1:] != rows.shape[1:]:
                raise UserError(f"keys have shape {given.shape}; this model's embeddings have {rows.shape[1]} values.")
        cosines: NDArray[np.float32] = rows @ columns.T
        if not isinstance(queries, str):
            return cosines
        return float(cosines[0, 0]) if single_key else cosines[0]

    def build_index(
        self,
        sentences_or_file_path: str | Path | Iterable[str],
        use_faiss: bool | None = None,
        faiss_fast: bool = False,
        device: Device = None,
        batch_size: int = BATCH,
        *,
        approximate: str | None = None,
    ) -> None:
        """Embed sentences, or those of a file, for ``search``; an index that was there is forgotten.

        Args:
            sentences_or_file_path: a list; or a file, see ``corpus.read_sentences``: white space at the end of a line
                is removed as in tool.py. differs from SimCSE: blank lines are left out, not sentences of their own.
            use_faiss: True has faiss (extra ``search``) compare them, for which it copies the vectors; the answers are
                the same. True without it is told as a warning. differs from SimCSE: None is False, for no time is won.
            faiss_fast: search the nearest ``num_cells_in_search`` of ``num_cells`` cells only: not exact. Without
                faiss, or with ``use_faiss=False``, the search is exact, and a warning says so.
            device, batch_size: see ``encode``.
            approximate: "hnsw" or "ivf", through faiss: not exact, faster; how many of the nearest it finds is
                measured, ``index.store.recall``.
        """
        if approximate is not None:
            require_approximate(approximate)
        sentences = _listed(sentences_or_file_path)
        vectors = self._vectors(sentences, device, batch_size)
        self.index = index.Index(sentences, self._store(vectors, use_faiss, faiss_fast, approximate))

    def add_to_index(
        self, sentences_or_file_path: str | Path | Iterable[str], device: Device = None, batch_size: int = BATCH
    ) -> None:
        """Embed more sentences, or those of a file, and put them behind the others."""
        there = self._index()
        sentences = _listed(sentences_or_file_path)
        there.add(sentences, self._vectors(sentences, device, batch_size))

    def search(
        self, queries: str | Iterable[str], device: Device = None, threshold: float = 0.6, top_k: int = 5
    ) -> index.Hits | list[index.Hits]:
        """(sentence, cosine) of the ``top_k`` nearest with at least ``threshold``, best first; of a list, a list each.

        Equal cosines stand in the order of the index.
        """
        hits = self.nearest([queries] if isinstance(queries, str) else queries, device, threshold, top_k)
        return hits[0] if isinstance(queries, str) else hits

    def nearest(
        self, queries: Iterable[str], device: Device = None, threshold: float = 0.6, top_k: int = 5
    ) -> list[index.Hits]:
        """``search`` of a list."""
        return self._index().search(self._vectors(queries, device), threshold, top_k)

    def save_index(self, folder: str | Path, force: bool = False) -> None:
        """Write the index to a folder, whole or not at all.

        Raises:
            UserError: there is an index in the folder (without ``force``).
        """
        index.require_place(Path(folder), force)
        model = self.model_name_or_path
        name = model if isinstance(model, str) else str(self.provenance["name"])  # an object is not found again
        where = index.note_model(name, Path(folder))
        index.save_index(self._index(), Path(folder), self.provenance, where)

    def load_index(self, folder: str | Path, use_faiss: bool | None = None, faiss_fast: bool = False) -> None:
        """Take an index of ``save_index`` or `simcse-bench index`; one that another model made is refused.

        The vectors are mapped from the folder, not read. An approximate index is searched as it was made, exactly with
        ``use_faiss=False``.
        """
        sentences, vectors = index.load_index(Path(folder), self.provenance)
        saved = index.load_approximate(Path(folder), vectors) if use_faiss is None and not faiss_fast else None
        self.index = index.Index(sentences, saved or self._store(vectors, use_faiss, faiss_fast))

    def _index(self) -> index.Index:
        if self.index is None:
            raise UserError("there is no index yet: call build_index or load_index first.")
        return self.index

    def _store(
        self, vectors: NDArray[np.float32], use_faiss: bool | None, fast: bool, approximate: str | None = None
    ) -> Store:
        return make_store(vectors, use_faiss, fast, self.num_cells, self.num_cells_in_search, approximate)

    def _on(self, device: Device) -> _Loaded:
        """The model on a device; each is loaded once, because a processor's weights are repacked for it."""
        name = self.device if device is None else _device_name(device)
        if name not in self._loaded:
            encoder: Any = open_model(self.model_name_or_path, **self._settings, device=name).load(self._tell)
            limit, budget = getattr(encoder, "max_length", None), getattr(encoder, "batch_tokens", 0)
            self._loaded[name] = _Loaded(encoder, limit, budget)
        return self._loaded[name]

    def _tell(self, done: int, total: int) -> None:
        """Tokens of a block of sentences, which are told as sentences of the list."""
        if self.progress:
            before, size, whole = self._place
            self.progress(before + size * done // max(1, total), whole)

    def _vectors(
        self,
        sentences: Iterable[str],
        device: Device,
        batch_size: int = BATCH,
        max_length: int | None = None,
        scale: bool = True,
    ) -> NDArray[np.float32]:
        """(n, d): every distinct sentence embedded once, block by block, so that two copies are never held."""
        sentences = list(sentences)  # a generator gives its sentences once only
        require_text(sentences)
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: expected at least 1.")
        loaded = self._on(device)
        encoder = loaded.encoder
        if loaded.limit is not None:
            encoder.max_length = loaded.length(self.max_length if max_length is None else max_length)
            encoder.batch_tokens = max(1, loaded.batch_tokens * batch_size // BATCH)
        if not sentences:
            return np.zeros((0, encoder.encode(["a"]).shape[1]), dtype=np.float32)
        first: dict[str, int] = {}  # sentence -> where it stands first
        for i, sentence in enumerate(sentences):
            first.setdefault(sentence, i)
        rows = np.fromiter(first.values(), dtype=np.int64, count=len(first))
        self._stats = Counter()
        whole = np.zeros((0, 0), dtype=np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            self._place = start, len(block), len(rows)
            vectors = self._embed(encoder, [sentences[i] for i in block])
            if len(block) == len(sentences):
                return unit(vectors) if scale else vectors
            if not start:
                whole = np.empty((len(sentences), vectors.shape[1]), dtype=np.float32)
            whole[block] = unit(vectors) if scale else vectors
        again = [i for i, sentence in enumerate(sentences) if first[sentence] != i]
        for start in range(0, len(again), BLOCK):
            part = again[start : start + BLOCK]
            whole[part] = whole[[first[sentences[i]] for i in part]]
        return whole

    def _embed(self, encoder: Any, sentences: list[str]) -> NDArray[np.float32]:
        """(n, d); UserError unless all of it is finite."""
        vectors: NDArray[np.float32] = encoder.encode(sentences)
        self._stats.update(getattr(encoder, "stats", {}))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            text = sentences[int(np.flatnonzero(~finite)[0])]
            raise UserError(
                f"the embedding of {text[:80]!r} is not finite; are the weights damaged, or dtype too small?"
            )
        return vectors


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


def _device_name(device: Device) -> str:
    from simcse_bench.models.copies import named_devices

    return ",".join(named_devices(_asked_device(device)))


def _asked_device(device: Device) -> str:
    return "auto" if device is None else f"cuda:{device}" if isinstance(device, int) else str(device)


def _listed(sentences_or_file_path: str | Path | Iterable[str]) -> list[str]:
    if not isinstance(sentences_or_file_path, str | Path):
        return list(sentences_or_file_path)
    sentences, blank = read_sentences(str(sentences_or_file_path))
    if blank:
        _log.info("%s: %d blank lines are left out", sentences_or_file_path, blank)
    return sentences
