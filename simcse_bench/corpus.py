"""Corpora: rows of text for training, from a file, from SimCSE's own files or from a dataset on the Hub."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from simcse_bench import hub
from simcse_bench.archive import REPO
from simcse_bench.data import MAX_ROW_ERRORS
from simcse_bench.errors import UserError, suggestion, unknown
from simcse_bench.weights import sha256, shown_name

Row = tuple[str, ...]
NAMED = {"wiki1m": "wiki1m_for_simcse.txt", "nli": "nli_for_simcse.csv"}  # files of REPO
FORMATS = {
    ".txt": "one sentence a line, no header",
    ".csv": "comma-separated with the usual quoting, under a header",
    ".tsv": "tab-separated without quoting, under a header",
    ".jsonl": "one object a line",
    ".parquet": "text columns of a Parquet file",
}
MAX_COLUMNS = 3  # sentence, positive, hard negative


@dataclass(frozen=True)
class Corpus:
    """Rows of one, two or three texts: sentence; sentence and positive; sentence, positive and hard negative.

    ``rows()`` starts a fresh pass in constant memory. It gives empty fields as they are, and raises UserError after
    the last good row before a malformed one, with up to five problems.
    """

    name: str
    origin: str
    fingerprint: str  # 16 hex digits: the content, and the columns and row limit where they restrict it
    columns: int
    rows: Callable[[], Iterator[Row]]


# what a format gives: the names of its columns, those that hold text, and rows of the chosen ones or a problem
_Rows = Callable[[Sequence[str]], Iterator[Row | str]]
_Opened = tuple[Sequence[str], Sequence[str], _Rows]
_TEXT = re.compile(r"(dictionary<values=)?(large_)?string")  # Arrow's types of text


def open_corpus(
    train: str, columns: Sequence[str] = (), max_rows: int = 0, split: str = "train", revision: str | None = None
) -> Corpus:
    """Open training data; nothing but the header and the first row is read, and the file's checksum taken.

    Args:
        train: a file (see ``FORMATS``; ``.gz`` behind the suffix is unpacked on the way, Parquet excepted), a name of
            ``NAMED``, or a dataset on the Hub: ``owner/name`` or ``owner/name:config``.
        columns: names of one to three columns, in the order sentence, positive, hard negative. Without, all columns of
            a file by position like SimCSE train.py, and all text columns of a Parquet file or a dataset.
        max_rows: the first rows only; 0 takes all. A dataset on the Hub is then streamed, never downloaded whole.
        split, revision: of a dataset on the Hub.

    Raises:
        UserError: no such data, no rows, an unknown format or column, more than three columns.
    """
    if max_rows < 0:
        raise UserError(f"max_rows {max_rows}: expected a number of rows, or 0 for all.")
    if os.path.isfile(train):  # noqa: PTH113 (Path raises for long names)
        if revision is not None or split != "train":
            given = f"revision {revision!r}" if revision is not None else f"split {split!r}"
            raise UserError(f"{given}: {train} is a file; splits and revisions belong to a dataset on the Hub.")
        return _file_corpus(Path(train), columns, max_rows, shown_name(train), "file")
    if train in NAMED:
        if split != "train":
            raise UserError(f"split {split!r}: {train} has the split 'train' only.")
        path = hub.dataset_file(REPO, NAMED[train], revision or "main")
        origin = f"Hub dataset {REPO} at revision {path.parent.name}"  # the folder's name is the commit hash
        return _file_corpus(path, columns, max_rows, train, origin)
    if os.path.isdir(train):  # noqa: PTH112
        raise UserError(f"{train}: is a folder, expected a file ({', '.join(FORMATS)}).")
    name, _, config = train.partition(":")
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or _suffix(train) in FORMATS:
        raise UserError(f"{train}: no such file.")
    if name.count("/") != 1:
        raise UserError(
            f"unknown training data {train!r}{suggestion(train, NAMED)} Expected a file ({', '.join(FORMATS)}), "
            f"a dataset on the Hub (owner/name or owner/name:config), or one of: {', '.join(NAMED)}."
        )
    return _hub_corpus(train, name, config or None, columns, max_rows, split, revision)


def _file_corpus(path: Path, columns: Sequence[str], max_rows: int, name: str, origin: str) -> Corpus:
    suffix = _suffix(path.name)
    if suffix not in FORMATS or (suffix == ".parquet" and path.suffix == ".gz"):
        known = "\n".join(f"  {s:<9} {text}" for s, text in FORMATS.items())
        raise UserError(f"{path}: unknown suffix {path.suffix!r}. Known, all but .parquet also with .gz:\n{known}")
    with _file_errors(path):
        names, texts, rows = _OPENERS[suffix](path)
        content = sha256(path)
    chosen = _choose(str(path), names, texts, columns)
    restricted = chosen if list(chosen) != list(names) else ()
    corpus = _corpus(name, origin, [suffix, content, *restricted], len(chosen), lambda: rows(chosen), max_rows)
    if next(corpus.rows(), None) is None:
        raise UserError(f"{path}: no rows; expected {FORMATS[suffix]}.")
    return corpus


def _corpus(
    name: str, origin: str, identity: list[str], columns: int, items: Callable[[], Iterator[Row | str]], max_rows: int
) -> Corpus:
    """``max_rows`` applied, malformed rows collected."""
    fingerprint = hashlib.sha256(json.dumps([identity, max_rows]).encode()).hexdigest()[:16]
    limit = max_rows or None
    return Corpus(name, origin, fingerprint, columns, lambda: _checked(itertools.islice(items(), limit)))


def _checked(items: Iterable[Row | str]) -> Iterator[Row]:
    """Rows up to the first problem; then the problems, so that a long file is not worked on in vain."""
    problems: list[str] = []
    try:
        for item in items:
            if not isinstance(item, str):
                if not problems:
                    yield item
                continue
            problems.append(item)
            if len(problems) == MAX_ROW_ERRORS:
                problems.append("Reading stopped there; more such rows may follow.")
                break
    except UserError as error:
        raise UserError(*problems, *error.problems) from error
    if problems:
        raise UserError(*problems)


def _choose(place: str, names: Sequence[str], texts: Sequence[str], columns: Sequence[str]) -> Sequence[str]:
    """The columns asked for, else all that hold text."""
    listed = ", ".join(names)
    for i, column in enumerate(columns):
        if column not in names:
            error = unknown("column", column, names)
            raise UserError(f"{place}: {error.problems[0]}")
        if column not in texts:
            raise UserError(f"{place}: column {column!r} holds no text. Those that do: {', '.join(texts) or 'none'}.")
        if column in columns[:i]:
            raise UserError(f"{place}: column {column!r} is named twice.")
    chosen = columns or texts
    if not 1 <= len(chosen) <= MAX_COLUMNS:
        raise UserError(
            f"{place}: {len(chosen)} text columns, expected 1 to {MAX_COLUMNS} (sentence, positive, hard negative). "
            f"It has: {listed}. Give --set columns=a,b."
        )
    return chosen


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path}: damaged or cut off ({error}).") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line, without its end; split at newlines only, as data.read_lines does."""
    with _file_errors(path), _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise UserError(f"{path}:{number}: not utf-8 text (byte {byte:#04x}). Convert the file.") from None
            yield number, text.removesuffix("\n").removesuffix("\r")


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _open_txt(path: Path) -> _Opened:
    return ["text"], ["text"], lambda _: ((line,) for _, line in _lines(path))


def _open_table(path: Path) -> _Opened:
    """The columns by position, like SimCSE train.py; the header's names serve to choose others."""
    # differs from SimCSE: pandas takes fields such as None, NA or null for missing; here they are text
    read = _csv_rows if _suffix(path.name) == ".csv" else _tsv_rows
    header = next(read(path), (0, []))[1]

    def rows(chosen: Sequence[str]) -> Iterator[Row | str]:
        index = [header.index(c) for c in chosen]
        for number, fields in itertools.islice(read(path), 1, None):
            if fields in ([], [""]):  # a blank line
                yield ("",) * len(index)
            elif len(fields) != len(header):
                yield f"{path}:{number}: {len(fields)} fields, expected {len(header)} ({', '.join(header)})."
            else:
                yield tuple(fields[i] for i in index)

    if not header:
        raise UserError(f"{path}: no header line; expected {FORMATS[_suffix(path.name)]}.")
    return header, header, rows


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in _lines(path))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every row with the line it starts at."""
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        for _, line in _lines(path):
            yield line + "\n"
        ended = True

    reader, start = csv.reader(lines()), 1
    try:
        for fields in reader:
            if ended:  # a whole row never asks for a line behind the last one
                raise UserError(f"{path}:{start}: a quote is opened in this row and never closed.")
            yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{start}: not readable as comma-separated text ({error}).") from error


def _open_jsonl(path: Path) -> _Opened:
    """The keys of the first object are the columns; blank lines are passed over."""

    def objects() -> Iterator[tuple[str, Any]]:
        for number, line in _lines(path):
            if line.strip():
                try:
                    yield f"{path}:{number}", json.loads(line)
                except (json.JSONDecodeError, RecursionError):
                    yield f"{path}:{number}", None

    place, first = next(objects(), (str(path), None))
    if not isinstance(first, dict):
        raise UserError(f"{place}: not a JSON object; expected {FORMATS['.jsonl']}.")
    return list(first), list(first), lambda chosen: (_texts(where, row, chosen) for where, row in objects())


def _texts(place: str, found: Any, chosen: Sequence[str]) -> Row | str:
    """The chosen fields of a row, null as empty; else what is wrong with it."""
    if not isinstance(found, dict):
        return f"{place}: not a JSON object; expected one a line."
    for column in chosen:
        if column not in found:
            return f"{place}: no {column!r}; expected {', '.join(chosen)}."
        if not isinstance(found[column], str | None):
            kind = type(found[column]).__name__
            return f"{place}: {column!r} is {kind}, expected text. Choose the text columns: --set columns=a,b."
        if re.search("[\ud800-\udfff]", found[column] or ""):
            return f"{place}: {column!r} is not valid unicode (half a surrogate pair)."
    return tuple(found[column] or "" for column in chosen)


def _open_parquet(path: Path) -> _Opened:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    def rows(chosen: Sequence[str]) -> Iterator[Row | str]:
        with _file_errors(path), pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024, columns=list(chosen)):
                fields = (batch.column(name).to_pylist() for name in chosen)
                yield from (tuple(text or "" for text in row) for row in zip(*fields, strict=True))

    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
    return schema.names, [field.name for field in schema if _TEXT.match(str(field.type))], rows


_OPENERS: Mapping[str, Callable[[Path], _Opened]] = {
    ".txt": _open_txt,
    ".csv": _open_table,
    ".tsv": _open_table,
    ".jsonl": _open_jsonl,
    ".parquet": _open_parquet,
}


def _hub_corpus(
    train: str, name: str, config: str | None, columns: Sequence[str], max_rows: int, split: str, revision: str | None
) -> Corpus:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    what = f"Hub dataset {train!r}, split {split!r}" + (f", revision {revision!r}" if revision else "")
    with _dataset_errors(what):
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        # without the Hub, datasets gives whatever it has in its cache, of any revision
        if revision not in (None, builder.hash) and type(builder).__module__.startswith(
            "datasets.packaged_modules.cache"
        ):
            raise UserError(f"{what}: the Hub cannot be reached, and the cache holds revision {builder.hash}.")
        if max_rows:
            table = builder.as_streaming_dataset(split=split).take(max_rows)
        else:
            builder.download_and_prepare()
            table = builder.as_dataset(split=split)
        features: Mapping[str, Any] = table.features or next(
            iter(table), {}
        )  # a streamed CSV tells its types by its first row only
    texts = [k for k, v in features.items() if isinstance(v, str | None) or _TEXT.match(str(getattr(v, "dtype", "")))]
    chosen = _choose(what, list(features), texts, columns)

    def rows() -> Iterator[Row | str]:
        with _dataset_errors(what):
            batches = table.select_columns(list(chosen)).iter(batch_size=1000)
            found = ((batch[name][i] for name in chosen) for batch in batches for i in range(len(batch[chosen[0]])))
            for number, row in enumerate(found):
                yield _texts(f"{what}, row {number}", dict(zip(chosen, row, strict=True)), chosen)

    # datasets' hash is the commit
    identity = [name, builder.config.name, split, builder.hash, *chosen]
    return _corpus(train, f"Hub dataset {name} at revision {builder.hash}", identity, len(chosen), rows, max_rows)


@contextmanager
def _dataset_errors(what: str) -> Iterator[None]:
    """What datasets raises, as a UserError; failures to reach the Hub are left to hub_errors."""
    import datasets

    with hub.hub_errors(what, advice="Without the Hub, give a file."):
        try:
            yield
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            # a file that cannot be parsed is told by the cause only
            cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
            reason = (str(cause or error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{what} could not be loaded: {reason}") from error
