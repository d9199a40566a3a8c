"""Readers: task files -> Pairs, with every row checked; and the fingerprint of what was read."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.hub_datasets import COPY, GOLD_DECIMALS, PairRow, copy_of, hub_rows, shown_dataset
from simcse_bench.data.senteval import ANYWHERE, DataRoot, DataSource, find_root, given_root
from simcse_bench.data.task import Source, Task
from simcse_bench.data.text_formats import ADVICE, MAX_LINE, TOO_LONG, csv_rows
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint

MAX_ROW_ERRORS = 5  # of one file; the rest are counted
Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs with gold scores; all four fields have one entry per pair.

    Rows of one subset stand together, in the order of the task file.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    gold: NDArray[np.float64]  # (n,)
    subset: tuple[str, ...]
    left_out: tuple[int, ...] = ()  # positions among all pairs of the task, see ``without``

    def __len__(self) -> int:
        return len(self.left)

    def head(self, n: int) -> Pairs:
        """The first ``n`` pairs of every subset."""
        return self._take(first_of_each(self.subset, n))

    def without(self, rows: Collection[int]) -> Pairs:
        """All pairs of a task but those at these positions."""
        rows = frozenset(rows)
        return replace(self._take([i for i in range(len(self)) if i not in rows]), left_out=tuple(sorted(rows)))

    def _take(self, keep: Sequence[int]) -> Pairs:
        left, right, subset = (tuple(field[i] for i in keep) for field in (self.left, self.right, self.subset))
        return Pairs(left, right, self.gold[list(keep)], subset, self.left_out)

    def sizes(self) -> dict[str, int]:
        """Number of pairs of each subset."""
        return {name: self.subset.count(name) for name in dict.fromkeys(self.subset)}

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over subset, gold and both sentences of every row."""
        rows = zip(self.subset, self.gold.tolist(), self.left, self.right, strict=True)
        return fingerprint("".join("\t".join(map(str, row)) + "\n" for row in rows).encode())

    def duplicates(self) -> int:
        """Number of rows whose two sentences (in either order) already stood in an earlier row."""
        return len(self) - len({tuple(sorted(pair)) for pair in zip(self.left, self.right, strict=True)})


def read_pairs(task: Task, split: str, variant: str, root: Path | None) -> Pairs:
    """Read one split of an STS task and check every row and count.

    Args:
        task: an STS task.
        split: a key of ``task.splits``.
        variant: text variant, "senteval" or "raw".
        root: the data folder (None for a task that needs none: a user's own file, a Hub dataset).

    Raises:
        UserError: all problems of the files at once, each with file and line.
    """
    if task.kind != "sts":
        raise UserError(f"task {task.name!r} is a {task.kind} task; pairs are read from STS tasks.")
    if split not in task.splits:
        raise UserError(f"task {task.name!r} has no split {split!r}; it has: {', '.join(task.splits)}.")
    variant, source = task.source(variant)
    whole, problems = _read_split(task, source, split, variant, root)
    if split in task.unique:
        others = [_read_split(task, source, other, variant, root) for other in task.splits if other != split]
        problems += [problem for _, wrong in others for problem in wrong]
        whole = _once(whole, [row for rows, _ in others for row in rows])
        for name in () if problems else task.splits[split]:
            kept = sum(subset == name for *_, subset in whole)
            problems += _count_problems(task, source, split, name, kept, file_paths(task, source, split, name, root))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    left, right, golds, subset = zip(*whole, strict=True)
    return Pairs(left, right, np.array(golds, dtype=np.float64), subset)


CheckedRow = tuple[str, str, float, str]  # left, right, gold, subset


def _read_split(
    task: Task, source: Source, split: str, variant: str, root: Path | None
) -> tuple[list[CheckedRow], list[str]]:
    """The rows of a split, and the problems of its files."""
    decimals = GOLD_DECIMALS if source.format == "hub" else None
    whole: list[CheckedRow] = []
    problems: list[str] = []
    for name in task.splits[split]:
        try:
            paths = file_paths(task, source, split, name, root)
            rows = require_rows(_READERS[source.format](source, paths, split, name))
        except UserError as error:
            problems += error.problems
            continue
        bad = []
        for where, score, a, b in rows:
            try:
                gold = _gold(score, task.gold, decimals)
                whole.append((_clean(a, variant, source), _clean(b, variant, source), gold, name))
            except ValueError as error:
                bad.append(f"{where}: {error}")
        problems += shorten(bad, f" in {name}")
        if split not in task.unique:
            problems += _count_problems(task, source, split, name, len(rows), paths)
    return whole, problems


def _count_problems(
    task: Task, source: Source, split: str, name: str, rows: int, paths: Mapping[str, Path]
) -> list[str]:
    """What is wrong with the number of a subset's rows."""
    expected = task.splits[split][name]
    if rows and expected in (None, rows):
        return []
    place = list(paths.values())[-1] if paths else shown_dataset(source)
    return [
        f"{task.name}/{name}: {rows} scored pairs in {place}, expected {expected or 'at least one'}. "
        "The file is not the one this task was made for, or is cut off."
    ]


def _once(rows: Sequence[CheckedRow], others: Sequence[CheckedRow]) -> list[CheckedRow]:
    """The rows whose pair, in either order and any case, stands in no other row here or in the other splits.

    As mteb's STSBenchmark.v2 was cleaned (its pull request 4876): of repeated pairs none stays, for their scores may
    differ.
    """

    def pair(row: CheckedRow) -> tuple[str, ...]:
        return tuple(sorted(" ".join(text.lower().split()) for text in row[:2]))

    counts = Counter(map(pair, (*rows, *others)))
    return [row for row in rows if counts[pair(row)] == 1]


def needs_root(task: Task) -> bool:
    """Whether any text of the task lies in the data folder (not in a user's own file or on the Hub)."""
    return any(
        not path.exists()
        for source in task.sources.values()
        if source.format != "hub"
        for split, subsets in task.splits.items()
        for subset in subsets
        for path in file_paths(task, source, split, subset, None).values()
    )


def data_root(tasks: Iterable[Task], where: DataSource = ANYWHERE) -> DataRoot | None:
    """The data folder these tasks read from: found, or downloaded, where one of them needs it.

    For Hub datasets with a copy it is the folder the user named, if any; None for tasks that bring their own files.
    """
    tasks = list(tasks)
    if any(needs_root(t) for t in tasks):
        return find_root(where)
    copied = any(s.format == "hub" and s.path for t in tasks for s in t.sources.values())
    return given_root(where) if copied else None


def data_folder(tasks: Iterable[Task], where: DataSource = ANYWHERE) -> Path | None:
    """The path of ``data_root``."""
    root = data_root(tasks, where)
    return root.path if root else None


def _clean(text: str, variant: str, source: Source) -> str:
    """SentEval: ' '.join(line.split()); a raw text keeps its inner spaces. NFC where the task file asks for it."""
    text = " ".join(text.split()) if variant == "senteval" else text.strip()
    return unicodedata.normalize("NFC", text) if source.unicode else text


def _gold(score: Any, bounds: tuple[float, float], decimals: int | None) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        raise ValueError(f"gold score {score!r} is not a number") from None
    value = value if decimals is None else round(value, decimals)
    if not bounds[0] <= value <= bounds[1]:  # also catches NaN
        raise ValueError(f"gold score {value:g} is outside [{bounds[0]:g}, {bounds[1]:g}]")
    return value


def file_paths(task: Task, source: Source, split: str, subset: str, root: Path | None) -> Mapping[str, Path]:
    """File paths by part; a user's own file lies beside the YAML, a built-in task's in the data folder.

    Of a Hub dataset it is the copy on this machine; empty where there is none.
    """
    if source.format == "hub":
        copy = copy_of(source, task.folder, split, subset, root)
        return {"": copy} if copy else {}
    paths = {}
    for part in ("input", "gs") if source.format == "semeval" else ("",):
        relative = Path(source.path.format(split=split, subset=subset, part=part))
        beside = task.folder / relative
        paths[part] = beside if root is None or beside.exists() else root / relative
    return paths


def read_lines(path: Path, encoding: str) -> list[str]:
    """Lines split at newlines only: str.splitlines would also split at U+0085 and U+2028 inside a sentence."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a folder or a pipe, expected a file.")
    try:
        text = path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not {encoding} text (byte {error.object[error.start]:#04x}).") from None
    except UnicodeError as error:  # of encodings that are no bytes of characters, such as idna
        raise UserError(f"{path}: not {encoding} text ({error}).") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    for i, text in enumerate(lines, 1):
        if len(text) > MAX_LINE:
            raise UserError(f"{path}:{i}: {TOO_LONG}")
    return lines


def _read_semeval(source: Source, paths: Mapping[str, Path], split: str, subset: str) -> Iterator[PairRow | str]:
    """SemEval's two files: ``STS.input`` (two sentences a line) and ``STS.gs`` (a score; empty = unscored pair)."""
    texts, golds = read_lines(paths["input"], source.encoding), read_lines(paths["gs"], source.encoding)
    if len(texts) != len(golds):
        raise UserError(
            f"{paths['input']} has {len(texts)} lines but {paths['gs']} has {len(golds)}: "
            "expected one score line per pair. Fetch the data again."
        )
    widths = source.widths
    for number, (text, gold) in enumerate(zip(texts, golds, strict=True), 1):
        fields = text.split("\t")
        widths = widths or (max(2, len(fields)),)  # SemEval 2016 has the sentences' origins behind them
        if gold.strip() and (problem := _width_problem(source, widths, fields)):
            yield f"{paths['input']}:{number}: expected two sentences with a tab between them; {problem}"
        elif gold.strip():
            yield f"{paths['gs']}:{number}", gold, fields[0], fields[1]


def _read_table(source: Source, paths: Mapping[str, Path], split: str, subset: str) -> Iterator[PairRow | str]:
    """Tab-separated without quoting (STS-B has lone quotes), or comma-separated with the usual quoting."""
    path = paths[""]
    lines = read_lines(path, source.encoding)
    if source.format == "tsv":
        table: Iterator[tuple[int, list[str]]] = ((n, line.split("\t")) for n, line in enumerate(lines, 1))
    else:
        table = csv_rows(path, lines)
    columns, header = dict(source.columns), []
    if source.header:
        header = next(table, (0, []))[1]
        missing = [c for c in columns.values() if isinstance(c, str) and c not in header]
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r} in its header; it has: {', '.join(header):.300}.")
        columns = {k: header.index(c) if isinstance(c, str) else c for k, c in columns.items()}
    gold, left, right = (int(columns[k]) for k in ("gold", "left", "right"))
    least, widths = max(gold, left, right) + 1, source.widths or ((len(header),) if header else ())
    for number, fields in table:
        if not any(fields):
            continue
        widths = widths or (max(least, len(fields)),)
        if problem := _width_problem(source, widths, fields):
            yield f"{path}:{number}: {problem}"
        else:
            yield f"{path}:{number}", fields[gold], fields[left], fields[right]


def _width_problem(source: Source, widths: Sequence[int], fields: list[str]) -> str:
    """What is wrong with the number of a row's fields: a lost or additional separator shifts the columns."""
    while len(fields) > max(widths) and not fields[-1].strip():  # separators behind the last field shift nothing
        fields.pop()
    if len(fields) in widths:
        return ""
    advice = f" {ADVICE['.csv' if source.format == 'csv' else '.tsv']}" if len(fields) > min(widths) else ""
    whence = "" if source.widths else " as in the first line"
    return f"{len(fields)} fields, expected {' or '.join(map(str, widths))}{whence}.{advice}"


def _read_hub(source: Source, paths: Mapping[str, Path], split: str, subset: str) -> Iterator[PairRow | str]:
    """The copy in the data folder where there is one, else the Hub."""
    return _read_table(COPY, paths, split, subset) if paths else hub_rows(source, split, subset)


def require_rows(rows: Iterable[Row | str]) -> list[Row]:
    """The rows that a reader gives; UserError with the first few problems where it gives any."""
    whole: list[Row] = []
    problems: list[str] = []
    for row in rows:
        if isinstance(row, str):
            problems.append(row)
        else:
            whole.append(row)
    if problems:
        raise UserError(*shorten(problems))
    return whole


def shorten(problems: list[str], where: str = "") -> list[str]:
    """The first few problems, and how many more there are ``where``."""
    rest = len(problems) - MAX_ROW_ERRORS
    return problems if rest <= 0 else [*problems[:MAX_ROW_ERRORS], f"... and {rest} more such lines{where}"]


def first_of_each(groups: Iterable[Hashable], n: int) -> list[int]:
    """Positions of the first ``n`` entries of every group."""
    seen: Counter[Hashable] = Counter()
    kept = []
    for position, group in enumerate(groups):
        seen[group] += 1
        if seen[group] <= n:
            kept.append(position)
    return kept


_READERS: Mapping[str, Callable[[Source, Mapping[str, Path], str, str], Iterator[PairRow | str]]] = {
    "semeval": _read_semeval,
    "tsv": _read_table,
    "csv": _read_table,
    "hub": _read_hub,
}
