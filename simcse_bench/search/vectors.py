"""Vectors that ``encode`` wrote, as a model: a sentence is looked up, nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.corpus import number_sentences, open_sentences
from simcse_bench.data.text_formats import file_errors
from simcse_bench.errors import UserError
from simcse_bench.files import sha256
from simcse_bench.models.open import Model
from simcse_bench.schema import read_record
from simcse_bench.search.encode_file import VECTOR_FORMATS, Encoded, record_path

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Array
    from simcse_bench.progress import Progress


class SavedVectors:
    """An encoder that knows some sentences; ``provenance`` says which model embedded them."""

    def __init__(self, name: str, sentences: Sequence[str], vectors: Array, record: Encoded, about: Mapping[str, Any]):
        self.name, self.vectors, self.provenance = name, vectors, about
        # a sentence that stands there twice was embedded twice by one model: the first is taken
        self.rows = {sentence: i for i, sentence in reversed(list(enumerate(sentences)))}
        self.stats = {"truncated": record.truncated}

    def require(self, sentences: Sequence[str]) -> None:
        """UserError unless there is a vector for each."""
        missing = [s for s in sentences if s not in self.rows]
        if missing:
            raise UserError(
                f"{self.name}: no vector for {len(missing):,} of {len(sentences):,} sentences, first "
                f"{missing[0][:80]!r}. `simcse-bench data sentences` writes those of an evaluation; encode them."
            )

    def encode(self, sentences: Sequence[str]) -> Array:
        """Vectors (n, d) as they were saved.

        Raises:
            UserError: a sentence that is not among them.
        """
        self.require(sentences)
        found: Array = np.asarray(self.vectors[[self.rows[s] for s in sentences]], dtype=np.float32)
        return found


def open_vectors(
    path: str | Path, sentences: str | None = None, column: str | None = None, name: str | None = None
) -> Model:
    """The model of a file of vectors, for ``evaluate``, ``analyze`` and whatever else takes a model.

    Args:
        path: the .npy or .parquet that ``encode`` wrote, with its record beside it.
        sentences, column: of .npy: the text they were made of, see ``corpus.open_sentences``; default: the file that
            the record names. A .parquet holds its own.
        name: another name of the model.

    Raises:
        UserError: no such file or record, vectors that are not the record's, text that they were not made of.
    """
    target = Path(path)
    if target.suffix.lower() not in VECTOR_FORMATS:
        raise UserError(
            f"{target}: no vectors; expected a file that `simcse-bench encode` wrote: {', '.join(VECTOR_FORMATS)}."
        )
    if not target.is_file():
        raise UserError(f"{target}: no such file; `simcse-bench encode` writes it.")
    if not record_path(target).exists():
        raise UserError(
            f"{record_path(target)}: no such file; `simcse-bench encode` writes this record beside its vectors; "
            "those of another origin cannot be scored."
        )
    record = read_record(
        record_path(target), Encoded, "not the record of a file of vectors. Encode again with --force."
    )
    digest = sha256(target)
    if digest != record.file:
        raise UserError(f"{target}: not the file of its record {record_path(target).name}: damaged or replaced.")
    if target.suffix.lower() == ".parquet":
        if sentences is not None:
            raise UserError(f"--sentences {sentences}: {target} holds its own sentences; leave it out.")
        texts, vectors = _read_parquet(target)
    else:
        texts, vectors = _read_text(target, record, sentences, column), _read_array(target)
    if vectors.shape != (len(texts), record.dimension) or len(texts) != record.sentences:
        raise UserError(
            f"{target}: vectors of shape {vectors.shape} for {len(texts):,} sentences; its record says "
            f"{record.sentences:,} of {record.dimension} values. Encode again with --force."
        )
    source = {"what": "vectors", "file": target.name, "sha256": digest, "key": record.key}
    said = {**record.model, "device": "cpu", "scored_from": source | {"normalized": record.normalized}}
    provenance = {**said, "name": name or record.model["name"]}

    def load(progress: Progress | None = None) -> Any:
        return SavedVectors(str(target), texts, vectors, record, provenance)

    return Model(provenance, load)


def _read_text(target: Path, record: Encoded, sentences: str | None, column: str | None) -> list[str]:
    """The sentences that an array's rows are the vectors of."""
    source = sentences or str(record.corpus["name"])
    try:
        corpus = open_sentences(source, column)
        texts = [text for _, text in number_sentences(corpus)]
    except UserError as error:
        if sentences is not None:
            raise
        raise UserError(*error.problems, f"{target}: give the text that it was made of: --sentences FILE.") from error
    if corpus.fingerprint != record.corpus["fingerprint"]:
        raise UserError(
            f"{source}: not the text that {target} was made of (fingerprint {corpus.fingerprint}, its record says "
            f"{record.corpus['fingerprint']}): another file, or column, or it has changed since."
        )
    return texts


def _read_array(target: Path) -> Array:
    with file_errors(target):
        vectors: Array = np.load(target, mmap_mode="r", allow_pickle=False)
    return vectors


def _read_parquet(target: Path) -> tuple[list[str], Array]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    with file_errors(target):
        table = pq.read_table(target, columns=["sentence", "vector"])
        column = table.column("vector").combine_chunks()
        vectors: Array = np.asarray(column.flatten()).reshape(len(column), -1)
        return table.column("sentence").to_pylist(), vectors
