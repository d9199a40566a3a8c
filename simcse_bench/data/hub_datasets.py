"""Datasets on the Hugging Face Hub as rows of pairs, and the copies of them that lie in a data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_bench.data.senteval import ENV_DATA
from simcse_bench.data.task import Source
from simcse_bench.errors import UserError, first_line

PairRow = tuple[str, Any, str, str]  # where (file:line), gold as found, left, right
COPY = Source("tsv")  # the form of a copy: score, tab, sentence, tab, sentence; a pair a line, no header
# the Hub keeps some scores as float32 (3.5999999) where the copies say 3.6: both give one number, and one fingerprint
GOLD_DECIMALS = 6


def copy_of(source: Source, beside: Path, split: str, subset: str, root: Path | None) -> Path | None:
    """The copy of a Hub dataset on this machine, else None.

    Args:
        source: of format hub; its ``path`` names the copy.
        beside: folder of the task file, where the copy may lie.
        split, subset: fill in the path.
        root: the data folder. The copy lies in it, under its whole path or its bare name, or in one of the two
            folders above it, so that ``sts_multilingual/`` may stand beside SentEval's ``downstream/``.
    """
    if not source.path:
        return None
    relative = Path(source.path.format(split=split, subset=subset, part=""))
    places = [beside / relative]
    if root is not None:
        above = list(root.absolute().parents)[:2]
        places += [root / relative, root / relative.name, *(folder / relative for folder in above)]
    return next((p for p in places if p.is_file()), None)


def hub_rows(source: Source, split: str, subset: str) -> Iterator[PairRow]:
    """A dataset on the Hub (or anything ``datasets.load_dataset`` takes); ``subset`` is its split there."""
    import datasets

    datasets.disable_progress_bars()
    what = f"{shown_dataset(source)}, split {subset!r}"
    try:
        table = datasets.load_dataset(source.dataset, source.config, split=subset, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # ConnectionError is an OSError
        reason = first_line(error).rstrip(".")
        raise UserError(f"{what} could not be loaded: {reason}.", *_advise_copy(source, split, subset)) from error
    missing = [c for c in source.columns.values() if c not in table.column_names]
    if missing:
        raise UserError(
            f"{shown_dataset(source)} has no column {missing[0]!r}; it has: {', '.join(table.column_names)}."
        )
    gold, left, right = (table[source.columns[k]] for k in ("gold", "left", "right"))
    for row, (g, a, b) in enumerate(zip(gold, left, right, strict=True)):
        yield f"{source.dataset}[{subset}] row {row}", g, a or "", b or ""


def shown_dataset(source: Source) -> str:
    """The dataset in words."""
    return f"Hub dataset {source.dataset!r}" + (f" ({source.config})" if source.config else "")


def _advise_copy(source: Source, split: str, subset: str) -> tuple[str, ...]:
    """What to do without the Hub; the last sentence is the same for every task, and is told once."""
    if not source.path:
        return ()
    path = source.path.format(split=split, subset=subset, part="")
    return (
        f"No copy of it at {path} in the data folder either.",
        f"Without the Hub, put copies there (a pair a line: score, tab, sentence, tab, sentence) and name the folder: "
        f"--data-dir or {ENV_DATA}.",
    )
