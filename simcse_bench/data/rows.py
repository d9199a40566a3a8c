"""Readers: the files of a task -> its rows, each checked, and what is wrong with them, each with file and line."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from simcse_bench.bundled import builtin_tasks_dir
from simcse_bench.data.hub_datasets import PairRow, both_sentences, copy_form, copy_of, hub_rows, shown_dataset
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import MARKERS, PROBING
from simcse_bench.data.task import PARTS, Source, Task
from simcse_bench.data.text_formats import ADVICE, MAX_LINE, TOO_LONG, csv_rows, csv_rows_over_lines
from simcse_bench.errors import Unavailable, UserError, first_line

MAX_ROW_ERRORS = 5  # of one file; the rest are counted
CAPTIONS = "dataset_coco.json"  # Karpathy's, beside the ratings of Crisscrossed Captions
Row = TypeVar("Row", bound=tuple[Any, ...])
Clean = Callable[[str], str]  # a sentence as the task takes it


def read_rows(
    task: Task, split: str, variant: str, root: Path | None, made: Callable[[Source, Clean, Any], Row]
) -> tuple[list[Row], tuple[str, ...]]:
    """Every row of a split, and its subset; of a ``unique`` split those that stand nowhere else.

    Args:
        made: of the source, what cleans a sentence, and the row's three fields; a ValueError is a problem of that row.

    Raises:
        UserError: all problems of the files at once, each with file and line; counts that are not met.
    """
    if split not in task.splits:
        raise UserError(f"task {task.name!r} has no split {split!r}; it has: {', '.join(task.splits)}.")
    variant, source = task.source(variant)
    clean = partial(clean_text, variant=variant, source=source)
    made_of = partial(made, source, clean)
    whole, problems = _read_split(task, source, split, root, made_of)
    if split in task.unique:
        others = [_read_split(task, source, other, root, made_of) for other in task.splits if other != split]
        problems += [problem for _, wrong in others for problem in wrong]
        whole = _once(whole, [row for rows, _ in others for row in rows])
        for name in () if problems else task.splits[split]:
            kept = sum(subset == name for _, subset in whole)
            problems += _count_problems(task, source, split, name, kept, file_paths(task, source, split, name, root))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return [row for row, _ in whole], tuple(subset for _, subset in whole)


def _read_split(
    task: Task, source: Source, split: str, root: Path | None, made: Callable[[Any], Row]
) -> tuple[list[tuple[Row, str]], list[str]]:
    """The rows of a split, each with its subset, and the problems of its files."""
    whole: list[tuple[Row, str]] = []
    problems: list[str] = []
    unavailable: list[str] = []
    for name in task.splits[split]:
        try:
            paths = file_paths(task, source, split, name, root)
            rows = require_rows(_READERS[source.format](source, paths, split, name))
        except Unavailable as error:  # for one reason: told once
            problems += [] if unavailable else error.problems
            unavailable.append(name)
            continue
        except UserError as error:
            problems += error.problems
            continue
        bad = []
        for where, *fields in rows:
            try:
                whole.append((made(fields), name))
            except ValueError as error:
                bad.append(f"{where}: {error}")
        problems += shorten(bad, f" in {name}")
        if split not in task.unique:
            problems += _count_problems(task, source, split, name, len(rows), paths)
    if unavailable[1:]:
        problems.append(f"The same holds for its other subsets: {', '.join(unavailable[1:])}.")
    return whole, problems


def _count_problems(
    task: Task, source: Source, split: str, name: str, rows: int, paths: Mapping[str, Path]
) -> list[str]:
    """What is wrong with the number of a subset's rows."""
    expected = task.splits[split][name]
    if rows and expected in (None, rows):
        return []
    place = list(paths.values())[-1] if paths else shown_dataset(source)
    what = "scored pairs" if task.kind == "sts" else "rows"
    return [
        f"{task.name}/{name}: {rows} {what} in {place}, expected {expected or 'at least one'}. "
        "The file is not the one this task was made for, or is cut off."
    ]


def _once(rows: Sequence[tuple[Row, str]], others: Sequence[tuple[Row, str]]) -> list[tuple[Row, str]]:
    """The rows whose pair, in either order and any case, stands in no other row here or in the other splits.

    As mteb's STSBenchmark.v2 was cleaned (its pull request 4876): of repeated pairs none stays, for their scores may
    differ.
    """

    def pair(row: Row) -> tuple[str, ...]:
        return tuple(sorted(" ".join(text.lower().split()) for text in row[-2:]))

    counts = Counter(pair(row) for row, _ in (*rows, *others))
    return [(row, subset) for row, subset in rows if counts[pair(row)] == 1]


def gold_score(score: Any, bounds: tuple[float, float], decimals: int | None = None) -> float:
    """A gold score as a number; ValueError where it is none, or outside the bounds."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        raise ValueError(f"gold score {score!r} is not a number") from None
    value = value if decimals is None else round(value, decimals)
    if not bounds[0] <= value <= bounds[1]:  # also catches NaN
        raise ValueError(f"gold score {value:g} is outside [{bounds[0]:g}, {bounds[1]:g}]")
    return value


def clean_text(text: str, variant: str, source: Source) -> str:
    """SentEval: ' '.join(line.split()); a raw text keeps its inner spaces. NFC where the task file asks for it."""
    text = " ".join(text.split()) if variant == "senteval" else text.strip()
    return unicodedata.normalize("NFC", text) if source.unicode else text


def in_archive(task: Task) -> bool:
    """Whether its files lie in the data folder: a built-in task's, and those below a folder of the official archive."""
    folders = {source.path.partition("/")[0] for source in task.sources.values()}
    return task.folder == builtin_tasks_dir() or not folders.isdisjoint(MARKERS)


def file_paths(task: Task, source: Source, split: str, subset: str, root: Path | None) -> Mapping[str, Path]:
    """File paths by part; a user's own file lies beside the YAML, a built-in task's in the data folder.

    Of a Hub dataset it is the copy on this machine; empty where there is none. Of an STS task that a ranking task is
    built from, all its files.
    """
    if source.format == "sts":
        built_from = load_task(subset, task.folder)
        return {
            f"{split}/{name}/{kind}": path
            for split, names in built_from.splits.items()
            for name in names
            for kind, path in file_paths(built_from, built_from.source("senteval")[1], split, name, root).items()
        }
    if source.format == "hub":
        copy = copy_of(source, task.folder, split, subset, root)
        return {"": copy} if copy else {}
    paths = {}
    for part in PARTS.get(source.format, ("",)):
        relative = Path(source.path.format(split=split, subset=subset, part=part))
        places = [task.folder / relative]
        if root is not None:
            places.append(root / relative)
        if root is not None and source.format == PROBING:  # SentEval's data/probing stands beside data/downstream
            places.append(root.absolute().parent / relative)
        expected = places[min(1, len(places) - 1)] if in_archive(task) else places[0]
        paths[part] = next((p for p in places if p.exists()), expected)
    if source.format == "cxc":
        paths["captions"] = paths[""].with_name(CAPTIONS)
    return paths


def read_lines(path: Path, encoding: str, longest: int | None = MAX_LINE) -> list[str]:
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
        if longest and len(text) > longest:
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


def read_table(source: Source, paths: Mapping[str, Path], split: str, subset: str) -> Iterator[PairRow | str]:
    """Tab-separated without quoting (STS-B has lone quotes), or comma-separated with the usual quoting.

    Where ``columns`` name no right sentence it is "".
    """
    path = paths[""]
    lines = read_lines(path, source.encoding)
    if source.format == "tsv":
        table: Iterator[tuple[int, list[str]]] = ((n, line.split("\t")) for n, line in enumerate(lines, 1))
    else:
        table = (csv_rows_over_lines if source.in_one_field else csv_rows)(path, lines)
    columns, header = source.fields(), []
    if source.header:
        header = next(table, (0, []))[1]
        missing = [c for c in columns if isinstance(c, str) and c not in header]
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r} in its header; it has: {', '.join(header):.300}.")
    places = [header.index(c) if isinstance(c, str) else c for c in columns]
    least, widths = max(places) + 1, source.widths or ((len(header),) if header else ())
    for number, fields in table:
        if not any(fields):
            continue
        widths = widths or (max(least, len(fields)),)
        if problem := _width_problem(source, widths, fields):
            yield f"{path}:{number}: {problem}"
        elif source.in_one_field:
            yield both_sentences(f"{path}:{number}", fields[places[0]], fields[places[1]])
        else:
            first, second, third, *_ = *(fields[place] for place in places), ""
            yield f"{path}:{number}", first, second, third


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
    return read_table(copy_form(source), paths, split, subset) if paths else hub_rows(source, split, subset)


def _read_cxc(source: Source, paths: Mapping[str, Path], split: str, subset: str) -> Iterator[PairRow | str]:
    """Crisscrossed Captions' ratings of MS-COCO's captions, named by number: their text stands in Karpathy's file.

    Source: https://github.com/google-research-datasets/Crisscrossed-Captions, setup.py (``sentid``).
    """
    content = "\n".join(read_lines(paths["captions"], "utf-8", longest=None))
    try:
        images = json.loads(content)["images"]
        captions = {str(c["sentid"]): c["raw"] for image in images for c in image["sentences"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{paths['captions']}: not Karpathy's {CAPTIONS} ({first_line(error)}); expected images with sentences, "
            "each with sentid and raw."
        ) from None
    for row in read_table(replace(source, format="csv"), paths, split, subset):
        if isinstance(row, str):
            yield row
            continue
        where, gold, *sides = row
        known = [captions.get(side.rpartition(":")[2]) for side in sides]
        if None in known:
            yield f"{where}: caption {sides[known.index(None)]!r} is not in {paths['captions'].name}."
        else:
            yield where, gold, str(known[0]), str(known[1])


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
    "tsv": read_table,
    "csv": read_table,
    "hub": _read_hub,
    "cxc": _read_cxc,
}
