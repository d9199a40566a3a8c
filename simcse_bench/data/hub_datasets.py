"""Datasets on the Hugging Face Hub as rows of pairs, and the copies of them that lie in a data folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from simcse_bench.data.senteval import ENV_DATA
from simcse_bench.data.task import Source
from simcse_bench.errors import Unavailable, UserError, first_line
from simcse_bench.hub import quiet_datasets

PairRow = tuple[str, Any, str, str]  # where (file:line), gold as found, left, right; or the sentences of a triplet
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


def copy_form(source: Source) -> Source:
    """How a copy is read: a .csv is the dataset's own file, with its header; else tabs, no header, as ``COPY``."""
    if source.path.endswith(".csv"):
        return replace(source, format="csv", header=True)
    return replace(COPY, columns=dict(zip(source.columns, range(3), strict=True)))


def both_sentences(where: str, gold: Any, text: Any) -> PairRow | str:
    """A pair whose two sentences stand in one field with a line break between them, as STR-2022's."""
    left, line_break, right = str(text or "").strip().partition("\n")
    if not line_break or "\n" in right:
        return f"{where}: expected two sentences with a line break between them, found {str(text)[:80]!r}."
    return where, gold, left, right


def hub_rows(source: Source, split: str, subset: str) -> Iterator[PairRow | str]:
    """A dataset on the Hub (or anything ``datasets.load_dataset`` takes).

    ``subset`` is its split there; or, where the config is "{subset}", the config, and the split is ``split``.
    """
    import datasets

    by_config = source.config == "{subset}"
    part, config = (split, subset) if by_config else (subset, source.config)
    what = f"{shown_dataset(replace(source, config=config))}, split {part!r}"
    try:
        with quiet_datasets():
            table = datasets.load_dataset(source.dataset, config, split=part, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # ConnectionError is an OSError
        reason = first_line(error).rstrip(".")
        kind = Unavailable if isinstance(error, ConnectionError) else UserError
        raise kind(f"{what} could not be loaded: {reason}.", *_advise_copy(source, split, subset)) from None
    missing = [c for c in source.columns.values() if c not in table.column_names]
    if missing:
        raise UserError(
            f"{shown_dataset(source)} has no column {missing[0]!r}; it has: {', '.join(table.column_names)}."
        )
    for row, (g, a, b) in enumerate(zip(*(table[c] for c in source.fields()), strict=True)):
        where = f"{source.dataset}[{subset}] row {row}"
        yield both_sentences(where, g, a) if source.in_one_field else (where, g, a or "", b or "")


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
        f"Without the Hub, put copies there ({_copy_in_words(source)}) and name the folder: --data-dir or {ENV_DATA}.",
    )


def _copy_in_words(source: Source) -> str:
    """The form of a copy."""
    if source.path.endswith(".csv"):
        return "the dataset's own .csv"
    if "anchor" in source.columns:
        return "a triplet a line: anchor, tab, positive, tab, negative"
    return "a pair a line: score, tab, sentence, tab, sentence"
