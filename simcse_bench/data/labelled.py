"""Readers of the transfer tasks' formats: sentences with labels, in SentEval's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.pairs import file_paths, read_lines, shortened
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
    texts: list[str] = []
    seconds: list[str] = []
    labels: list[int] = []
    sizes: dict[str, int] = {}
    for split, subsets in task.splits.items():
        rows: list[tuple[int, str, str]] = []
        for subset, expected in subsets.items():
            path = file_paths(task, source, split, subset, root)[""]
            try:
                found = list(_READERS[source.format](source, path, subset))
            except UserError as error:
                problems += error.problems
                continue
            bad = [
                f"{where}: unknown label {label!r}; expected one of {', '.join(task.labels)}."
                for where, label, _, _ in found
                if label not in task.labels
            ]
            problems += shortened(bad)
            if expected is not None and len(found) != expected:
                problems.append(_count_problem(task, subset, path, len(found), expected))
            rows += [(task.labels.index(lab), a, b) for _, lab, a, b in found if lab in task.labels]
        rows.sort(key=lambda r: (len(r[1].split()), len(r[2].split()), r[0]))
        if limit:
            rows = _first_of_every_class(rows, limit)
        sizes[split] = len(rows)
        texts += [r[1] for r in rows]
        seconds += [r[2] for r in rows if source.format == "mrpc"]
        labels += [r[0] for r in rows]
    if problems:
        raise UserError(*problems)
    return Labelled(tuple(texts), tuple(seconds), np.array(labels, dtype=np.int64), sizes)


def _first_of_every_class(rows: list[tuple[int, str, str]], limit: int) -> list[tuple[int, str, str]]:
    seen: dict[int, int] = {}
    kept = []
    for row in rows:
        seen[row[0]] = seen.get(row[0], 0) + 1
        if seen[row[0]] <= limit:
            kept.append(row)
    return kept


def _count_problem(task: Task, subset: str, path: Path, found: int, expected: int) -> str:
    text = f"{task.name}/{subset}: {found} rows in {path}, expected {expected}. "
    if task.name == "subj" and found <= 20:
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


def _read_sst(source: Source, path: Path, subset: str) -> Iterator[LabelledRow]:
    """Sentence, tab, label (SentEval sst.py)."""
    yield from _fields(source, path, "\t", (1, 0, None), "a sentence and a label with a tab between them")


def _read_trec(source: Source, path: Path, subset: str) -> Iterator[LabelledRow]:
    """COARSE:fine, space, question (SentEval trec.py): the coarse label counts."""
    problems = []
    for number, line in enumerate(read_lines(path, source.encoding), 1):
        label, colon, rest = line.strip().partition(":")
        _, space, question = rest.partition(" ")
        if not (colon and space):
            problems.append(f"{path}:{number}: expected 'COARSE:fine question'.")
            continue
        yield f"{path}:{number}", label, _clean(question), ""
    if problems:
        raise UserError(*shortened(problems))


def _read_mrpc(source: Source, path: Path, subset: str) -> Iterator[LabelledRow]:
    """Label, two ids, two sentences, under a header (SentEval mrpc.py)."""
    yield from _fields(source, path, "\t", (0, 3, 4), "a label, two ids and two sentences with tabs between them")


def _fields(
    source: Source, path: Path, separator: str, columns: tuple[int, int, int | None], expected: str
) -> Iterator[LabelledRow]:
    label, first, second = columns
    problems = []
    for number, line in enumerate(read_lines(path, source.encoding), 1):
        if number == 1 and source.header:
            continue
        fields = line.strip().split(separator)
        if len(fields) <= max(label, first, second or 0):
            problems.append(f"{path}:{number}: expected {expected}.")
            continue
        yield f"{path}:{number}", fields[label], _clean(fields[first]), _clean(fields[second]) if second else ""
    if problems:
        raise UserError(*shortened(problems))


_READERS: Mapping[str, Callable[[Source, Path, str], Iterator[LabelledRow]]] = {
    "class_files": _read_class_file,
    "sst": _read_sst,
    "trec": _read_trec,
    "mrpc": _read_mrpc,
}
