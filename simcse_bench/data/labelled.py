"""Readers of the transfer tasks' formats: sentences with labels, in SentEval's order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.rows import (
    file_paths,
    first_of_each,
    gold_score,
    read_lines,
    read_table,
    require_rows,
    shorten,
)
from simcse_bench.data.task import PARTS, Source, Task
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint


@dataclass(frozen=True)
class Labelled:
    """Labelled sentences or pairs, split after split, each in SentEval's order."""

    texts: tuple[str, ...]
    seconds: tuple[str, ...]  # second sentences of pairs; empty for single sentences
    labels: NDArray[Any]  # (n,) positions in the label set, int64; of a regression gold scores, float64
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
Paths = Mapping[str, Path]  # by part
Row = tuple[float, str, str]  # label, sentence, second sentence
PROBING_SPLITS = ("tr", "va", "te")
PROBING_HOME = "github.com/facebookresearch/SentEval, data/probing"


def read_labelled(task: Task, root: Path | None, limit: int | None = None) -> Labelled:
    """Read every split of a transfer task and check every row and count.

    The rows of a split are sorted by number of words, then label, as SentEval sorts them to save padding: its folds
    depend on that order. ``limit`` keeps so many rows of every class and split (of a regression, of every split).

    Raises:
        UserError: all problems of the files at once.
    """
    _, source = task.source("senteval")
    problems: list[str] = []
    whole: list[Row] = []
    sizes: dict[str, int] = {}
    labels: Sequence[str] = task.labels
    for split, subsets in task.splits.items():
        rows: list[Row] = []
        for subset, expected in subsets.items():
            paths = file_paths(task, source, split, subset, root)
            try:
                lines = require_rows(_READERS[source.format](source, paths, subset))
            except UserError as error:
                problems += error.problems
                continue
            if not labels and task.probe != "relatedness":  # SentEval probing.py: the training rows', sorted as text
                labels = sorted({label for _, label, _, _ in lines})
            read, bad = _numbered(task, labels, lines)
            rows += read
            problems += shorten(bad)
            if not lines or (expected is not None and len(lines) != expected):
                problems.append(_count_problem(task, subset, list(paths.values())[-1], len(lines), expected))
        rows.sort(key=_order(task, labels))
        if limit:
            classes = (0 if task.probe == "relatedness" else label for label, _, _ in rows)
            rows = [rows[i] for i in first_of_each(classes, limit)]
        sizes[split] = len(rows)
        whole += rows
    if problems:
        raise UserError(*dict.fromkeys(problems))
    numbers = np.array([n for n, _, _ in whole], dtype=np.float64 if task.probe == "relatedness" else np.int64)
    seconds = tuple(b for _, _, b in whole) if source.is_pairs else ()
    return Labelled(tuple(a for _, a, _ in whole), seconds, numbers, sizes)


def _numbered(task: Task, labels: Sequence[str], lines: Sequence[LabelledRow]) -> tuple[list[Row], list[str]]:
    """The rows with a number for their label, and what is wrong with the others."""
    rows: list[Row] = []
    bad: list[str] = []
    number = {label: i for i, label in enumerate(labels)}
    for where, label, a, b in lines:
        try:
            rows.append((gold_score(label, task.gold) if task.probe == "relatedness" else number[label], a, b))
        except KeyError:
            bad.append(f"{where}: unknown label {label!r}; expected one of {', '.join(labels):.300}.")
        except ValueError as error:
            bad.append(f"{where}: {error}.")
    return rows, bad


def _order(task: Task, labels: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """By the sentences' words, then label; SNLI by those of the second first, and by the label's name (snli.py)."""
    if task.probe == "snli":
        return lambda row: (len(row[2].split()), len(row[1].split()), labels[int(row[0])])
    return lambda row: (len(row[1].split()), len(row[2].split()), row[0])


def _count_problem(task: Task, subset: str, path: Path, rows: int, expected: int | None) -> str:
    text = f"{task.name}/{subset}: {rows} rows in {path}, expected {expected or 'at least one'}. "
    if task.name == "subj" and rows <= 20:
        return text + (
            "This is the corrupt SUBJ of archives made before September 2021 (20 sentences, 99 % accuracy): "
            "`simcse-bench data fetch --force`."
        )
    return text + "The file is not the one this task was made for, or is cut off."


def _clean(text: str) -> str:
    return " ".join(text.split())


def _read_class_file(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow]:
    """One sentence a line; the file is the class (SentEval binary.py)."""
    for where, line in _lines(source, paths):
        yield where, subset, _clean(line), ""


def _read_trec(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow | str]:
    """COARSE:fine, space, question (SentEval trec.py): the coarse label counts."""
    for where, line in _lines(source, paths):
        label, colon, rest = line.strip().partition(":")
        _, space, question = rest.partition(" ")
        if colon and space:
            yield where, label, _clean(question), ""
        else:
            yield f"{where}: expected 'COARSE:fine question'."


def _read_sst_fine(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow | str]:
    """Label, space, sentence (SentEval sst.py, five classes)."""
    for where, line in _lines(source, paths):
        label, space, sentence = line.strip().partition(" ")
        yield (where, label, _clean(sentence), "") if space else f"{where}: expected 'label sentence'."


def _read_fields(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow | str]:
    """Fields with tabs between them, see ``_FIELDS``."""
    label, first, second, width, expected = _FIELDS[source.format]
    for where, line in _lines(source, paths)[int(source.header) :]:
        fields = line.strip().split("\t")
        if len(fields) != width:
            yield f"{where}: {len(fields)} fields, expected {expected}."
        else:
            yield where, fields[label], _clean(fields[first]), _clean(fields[second]) if second else ""


def _read_tsv(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow | str]:
    """The columns that the task names; ``gold`` is the label."""
    for row in read_table(source, paths, "", subset):
        yield row if isinstance(row, str) else (row[0], str(row[1]).strip(), _clean(row[2]), _clean(row[3]))


def _read_snli(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow]:
    """Three files of as many lines: first sentences, second sentences, labels (SentEval snli.py).

    # differs from SentEval: a line ends at a newline only; there also at U+0085, which shifts the rows behind it
    """
    for path in paths.values():
        _require(path, "SentEval's data/downstream/get_transfer_data.bash makes the folder SNLI.")
    columns = [read_lines(paths[part], source.encoding) for part in PARTS["snli"]]
    if len({len(lines) for lines in columns}) > 1:
        counts = ", ".join(f"{paths[p]} has {len(c)}" for p, c in zip(PARTS["snli"], columns, strict=True))
        raise UserError(f"{counts} lines; expected as many in each. Make the files anew.")
    for number, (first, second, label) in enumerate(zip(*columns, strict=True), 1):
        yield f"{paths['labels']}:{number}", label.strip(), _clean(first), _clean(second)


def _read_probing(source: Source, paths: Paths, subset: str) -> Iterator[LabelledRow | str]:
    """tr, va or te, label, perhaps more, sentence, with tabs between them (SentEval probing.py, data/probing)."""
    _require(paths[""], f"Put SentEval's folder probing there ({PROBING_HOME}).")
    for where, line in _lines(source, paths):
        fields = line.rstrip().split("\t")
        if len(fields) < 3 or fields[0] not in PROBING_SPLITS:
            yield f"{where}: expected {', '.join(PROBING_SPLITS)}, a label and a sentence with tabs between them."
        elif fields[0] == subset:
            yield where, fields[1], _clean(fields[-1]), ""


def _require(path: Path, advice: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file. {advice}")


def _lines(source: Source, paths: Paths) -> list[tuple[str, str]]:
    """The lines of the one file, each with where it stands."""
    return [(f"{paths['']}:{number}", line) for number, line in enumerate(read_lines(paths[""], source.encoding), 1)]


# fields of label, sentence, second sentence; how many there are; the form
_FIELDS: Mapping[str, tuple[int, int, int | None, int, str]] = {
    "sst": (1, 0, None, 2, "a sentence and a label with a tab between them"),  # SentEval sst.py
    "mrpc": (
        0,
        3,
        4,
        5,
        "a label, two ids and two sentences with tabs between them",
    ),  # SentEval mrpc.py
}
_READERS: Mapping[str, Callable[[Source, Paths, str], Iterator[LabelledRow | str]]] = {
    "class_files": _read_class_file,
    "sst": _read_fields,
    "sst_fine": _read_sst_fine,
    "trec": _read_trec,
    "mrpc": _read_fields,
    "tsv": _read_tsv,
    "snli": _read_snli,
    "probing": _read_probing,
}
