"""Readers of the transfer tasks' formats: sentences with labels, in SentEval's order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.rows import file_paths, first_of_each, read_lines, require_rows, shorten
from simcse_bench.data.task import Source, Task
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint


@dataclass(frozen=True)
class Labelled:
    """Labelled sentences (or, for MRPC, pairs), split after split, each in SentEval's order."""

    texts: tuple[str, ...]
    seconds: tuple[str, ...]  # second sentences of pairs; empty for single sentences
    labels: NDArray[np.int64]  # (n,) positions in task.labels
    sizes: Mapping[str, int]  # rows of each split, in order

    def __len__(self) -> int:
        return len(self.texts)

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the splits' sizes, labels and sentences."""
        seconds = self.seconds or ("",) * len(self)
        rows = zip(self.labels.tolist(), self.texts, seconds, strict=True)
        lines = ("\t".join(map(str, row)) + "\n" for row in rows)
        return fingerprint((repr(dict(self.sizes)) + "".join(lines)).encode())

    def sentences(self) -> Iterator[str]:
        """Every sentence: the first ones, then the second ones of pairs."""
        return itertools.chain(self.texts, self.seconds)

    def duplicates(self) -> int:
        """Number of rows whose text already stood in an earlier row."""
        return len(self) - len(set(zip(self.texts, self.seconds or self.texts, strict=True)))


LabelledRow = tuple[str, str, str, str]  # where (file:line), label as found, sentence, second sentence


def read_labelled(task: Task, root: Path | None, limit: int | None = None) -> Labelled:
    """Read every split of a transfer task and check every row and count.

    The rows of a split are sorted by number of words, then label, as SentEval sorts them to save padding: its folds
    depend on that order. ``limit`` keeps so many rows of every class and split.

    Raises:
        UserError: all problems of the files at once.
    """
    _, source = task.source("senteval")
    problems: list[str] = []
    whole: list[tuple[int, str, str]] = []
    sizes: dict[str, int] = {}
    for split, subsets in task.splits.items():
        rows: list[tuple[int, str, str]] = []  # label, sentence, second sentence
        for subset, expected in subsets.items():
            path = file_paths(task, source, split, subset, root)[""]
            try:
                lines = require_rows(_READERS[source.format](source, path, subset))
            except UserError as error:
                problems += error.problems
                continue
            bad = [
                f"{where}: unknown label {label!r}; expected one of {', '.join(task.labels)}."
                for where, label, _, _ in lines
                if label not in task.labels
            ]
            problems += shorten(bad)
            if expected is not None and len(lines) != expected:
                problems.append(_count_problem(task, subset, path, len(lines), expected))
            rows += [(task.labels.index(label), a, b) for _, label, a, b in lines if label in task.labels]
        rows.sort(key=lambda r: (len(r[1].split()), len(r[2].split()), r[0]))
        if limit:
            rows = [rows[i] for i in first_of_each((label for label, _, _ in rows), limit)]
        sizes[split] = len(rows)
        whole += rows
    if problems:
        raise UserError(*problems)
    labels = np.array([label for label, _, _ in whole], dtype=np.int64)
    seconds = tuple(b for _, _, b in whole) if source.format == "mrpc" else ()
    return Labelled(tuple(a for _, a, _ in whole), seconds, labels, sizes)


def _count_problem(task: Task, subset: str, path: Path, rows: int, expected: int) -> str:
    text = f"{task.name}/{subset}: {rows} rows in {path}, expected {expected}. "
    if task.name == "subj" and rows <= 20:
        return text + (
            "This is the corrupt SUBJ of archives made before September 2021 (20 sentences, 99 % accuracy): "
            "`simcse-bench data fetch --force`."
        )
    return text + "The file is not the one this task was made for, or is cut off."


def _clean(text: str) -> str:
    return " ".join(text.split())


def _read_class_file(source: Source, path: Path, subset: str) -> Iterator[LabelledRow]:
    """One sentence a line; the file is the class (SentEval binary.py)."""
    for number, line in enumerate(read_lines(path, source.encoding), 1):
        yield f"{path}:{number}", subset, _clean(line), ""


def _read_trec(source: Source, path: Path, subset: str) -> Iterator[LabelledRow | str]:
    """COARSE:fine, space, question (SentEval trec.py): the coarse label counts."""
    for number, line in enumerate(read_lines(path, source.encoding), 1):
        label, colon, rest = line.strip().partition(":")
        _, space, question = rest.partition(" ")
        if colon and space:
            yield f"{path}:{number}", label, _clean(question), ""
        else:
            yield f"{path}:{number}: expected 'COARSE:fine question'."


def _read_table(source: Source, path: Path, subset: str) -> Iterator[LabelledRow | str]:
    """Fields with tabs between them, see ``_TABLES``."""
    label, first, second, width, expected = _TABLES[source.format]
    for number, line in enumerate(read_lines(path, source.encoding), 1):
        if number == 1 and source.header:
            continue
        fields = line.strip().split("\t")
        if len(fields) != width:
            yield f"{path}:{number}: {len(fields)} fields, expected {expected}."
        else:
            yield f"{path}:{number}", fields[label], _clean(fields[first]), _clean(fields[second]) if second else ""


# fields of label, sentence, second sentence; how many there are; the form
_TABLES: Mapping[str, tuple[int, int, int | None, int, str]] = {
    "sst": (1, 0, None, 2, "a sentence and a label with a tab between them"),  # SentEval sst.py
    "mrpc": (
        0,
        3,
        4,
        5,
        "a label, two ids and two sentences with tabs between them",
    ),  # SentEval mrpc.py
}
_READERS: Mapping[str, Callable[[Source, Path, str], Iterator[LabelledRow | str]]] = {
    "class_files": _read_class_file,
    "sst": _read_table,
    "trec": _read_trec,
    "mrpc": _read_table,
}
