"""Formats of training text: files of lines, tables, objects -> rows of texts, or the problem of a malformed row."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError, first_line

TextRow = tuple[str, ...]
TEXT_FORMATS = {
    ".txt": "one sentence a line, no header",
    ".csv": "comma-separated with the usual quoting, a row a line, under a header",
    ".tsv": "tab-separated without quoting, under a header",
    ".jsonl": "one object a line",
    ".parquet": "text columns of a Parquet file",
}
ADVICE = {  # for a row with too many fields
    ".csv": "Put a sentence with commas in quotes.",
    ".tsv": "Replace a tab inside a sentence by a space.",
}
_SEPARATORS = {".csv": "commas", ".tsv": "tabs"}
MAX_LINE = 1 << 20  # bytes of a line, characters of a text: a tokenizer takes a gigabyte for ten times as many
TOO_LONG = f"more than {MAX_LINE:,} bytes, expected a sentence a line. Does the file have line ends?"
# what a format gives: the names of its columns, those that hold text, and rows of the chosen ones (with ``scored`` the
# last of them is a number; the option is the one that chooses them) or a problem
ReadRows = Callable[[Sequence[str], bool, str], Iterator[TextRow | str]]
Opened = tuple[Sequence[str], Sequence[str], ReadRows]
_LARGEST_SCORE = 1e30  # scores are kept as float32
TEXT_TYPE = re.compile(r"(dictionary<values=)?(large_)?string")  # Arrow's types of text


def suffix_of(name: str) -> str:
    """ ".csv" of "a.csv" and of "a.csv.gz"."""
    return Path(name.lower().removesuffix(".gz")).suffix


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what reading a missing or damaged file raises into a UserError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path}: damaged or cut off ({first_line(error).rstrip('.')}).") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or first_line(error).rstrip('.')}.") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line, without its end; split at newlines only, as rows.read_lines does."""
    packed = path.suffix.lower() == ".gz"
    with file_errors(path), gzip.open(path) if packed else path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), 1):
            if len(line) > MAX_LINE:
                raise UserError(f"{path}:{number}: {TOO_LONG}")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise UserError(f"{path}:{number}: not utf-8 text (byte {byte:#04x}). Convert the file.") from None
            yield number, text.removesuffix("\n").removesuffix("\r")


def _open_txt(path: Path) -> Opened:
    r"""A sentence a line, which ends at \n, \r\n or \r: what Python's ``open`` takes for lines.

    # differs from SimCSE: the datasets 1.2.1 of its first months (packaged text.py, splitlines) ended lines at form
    # feed, U+0085 and U+2028 too; since 2.0.0 the loader it calls does as here
    """
    return ["text"], ["text"], lambda *_: ((part,) for _, line in _lines(path) for part in line.split("\r"))


def _open_table(path: Path) -> Opened:
    """The columns by position, like SimCSE train.py; the header's names serve to choose others."""
    # differs from SimCSE: pandas takes fields such as None, NA or null for missing; here they are text
    read = _comma_rows if suffix_of(path.name) == ".csv" else _tab_rows
    header = next(read(path), (0, []))[1]

    def rows(chosen: Sequence[str], scored: bool, option: str) -> Iterator[TextRow | str]:
        index = [header.index(c) for c in chosen]
        for number, fields in itertools.islice(read(path), 1, None):
            if fields in ([], [""]):  # a blank line
                yield ("",) * len(index)
            elif len(fields) != len(header):
                advice = f" {ADVICE[suffix_of(path.name)]}" if len(fields) > len(header) else ""
                yield f"{path}:{number}: {len(fields)} fields, expected {len(header)} ({', '.join(header)}).{advice}"
            else:
                row = tuple(fields[i] for i in index)
                yield _score_checked(f"{path}:{number}", row, chosen) if scored else row

    if not header:
        raise UserError(f"{path}: no header line; expected {TEXT_FORMATS[suffix_of(path.name)]}.")
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise UserError(
            f"{path}: its header is one column, {header[0]!r:.80}; expected {_SEPARATORS[suffix_of(path.name)]} "
            "between columns. Write the file with them, or rename the column."
        )
    return header, header, rows


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in _lines(path))


def _comma_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    return csv_rows(path, (line for _, line in _lines(path)))


def csv_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Every line of comma-separated text as its number and fields; a row is one line.

    A quote that is part of a sentence would else swallow the rows up to the next one, wherever that is.
    differs from SimCSE: pandas takes quoted fields over several lines, and text behind a closing quote.

    Raises:
        UserError: a quote that its line does not close, text behind a closing quote, too long a field; ``path`` is for
            the message.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield number, next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            if long := _long_field(error):
                raise UserError(f"{path}:{number}: {long} Longer texts need .jsonl.") from error
            unclosed = "unexpected end" in str(error)
            raise UserError(
                f"{path}:{number}: {'a quote is opened in this line and not closed in it' if unclosed else error}. "
                'Write a field with a quote in it as "He said ""yes""."; sentences with line breaks need .jsonl.'
            ) from error


def csv_rows_over_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows of comma-separated text whose quoted fields may hold line breaks, each with the number of its last line.

    Raises:
        UserError: a quote that is never closed, text behind a closing quote, too long a field.
    """
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        if long := _long_field(error):
            raise UserError(f"{path}:{reader.line_num}: {long} Is a quote before it not closed?") from error
        raise UserError(f"{path}:{reader.line_num}: {error}. Write a quote in a field as two.") from error


def _long_field(error: csv.Error) -> str:
    """What is wrong where a field is longer than csv reads; "" where the error is another."""
    limit = csv.field_size_limit()
    return f"a field of more than {limit:,} characters, expected a sentence." if "field limit" in str(error) else ""


def _open_jsonl(path: Path) -> Opened:
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
        raise UserError(f"{place}: not a JSON object; expected {TEXT_FORMATS['.jsonl']}.")
    return (
        list(first), list(first),
        lambda chosen, scored, option: (texts_of(where, row, chosen, scored, option) for where, row in objects()),
    )  # fmt: skip


def texts_of(place: str, row: Any, chosen: Sequence[str], scored: bool, option: str) -> TextRow | str:
    """The chosen fields of a row, null as empty; else what is wrong with it, and the option that chooses others."""
    if isinstance(row, dict) and scored and _is_number(row.get(chosen[-1])):
        row = row | {chosen[-1]: str(row[chosen[-1]])}
    if not isinstance(row, dict):
        return f"{place}: not a JSON object; expected one a line."
    for column in chosen:
        if column not in row:
            return f"{place}: no {column!r}; expected {', '.join(chosen)}."
        if not isinstance(row[column], str | None):
            kind = type(row[column]).__name__
            return f"{place}: {column!r} is {kind}, expected text. Choose the text columns: {option}."
        if re.search("[\ud800-\udfff]", row[column] or ""):
            return f"{place}: {column!r} is not valid unicode (half a surrogate pair)."
    texts = tuple(row[column] or "" for column in chosen)
    return _score_checked(place, texts, chosen) if scored else texts


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def _score_checked(place: str, row: TextRow, chosen: Sequence[str]) -> TextRow | str:
    """The row, where its last field is a number or empty; else what is wrong with it."""
    try:
        fine = not row[-1].strip() or abs(float(row[-1])) < _LARGEST_SCORE  # NaN is not
    except ValueError:
        fine = False
    return row if fine else f"{place}: {chosen[-1]!r} is {row[-1]!r:.60}, expected a number, the score of the pair."


def _open_parquet(path: Path) -> Opened:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    def rows(chosen: Sequence[str], scored: bool, option: str) -> Iterator[TextRow | str]:
        with file_errors(path), pq.ParquetFile(path) as table:
            batches = table.iter_batches(batch_size=1024, columns=list(chosen))
            fields = (zip(*(batch.column(name).to_pylist() for name in chosen), strict=True) for batch in batches)
            for number, row in enumerate(itertools.chain.from_iterable(fields), 1):
                if scored:
                    fields_of_row = dict(zip(chosen, row, strict=True))
                    yield texts_of(f"{path}, row {number}", fields_of_row, chosen, scored, option)
                else:
                    yield tuple(text or "" for text in row)

    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
    return schema.names, [field.name for field in schema if TEXT_TYPE.match(str(field.type))], rows


OPENERS: Mapping[str, Callable[[Path], Opened]] = {
    ".txt": _open_txt,
    ".csv": _open_table,
    ".tsv": _open_table,
    ".jsonl": _open_jsonl,
    ".parquet": _open_parquet,
}
