"""Corpora: rows of text for training, from a file, from SimCSE's own files or from a dataset on the Hub."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench import bundled, hub
from simcse_bench.data.rows import MAX_ROW_ERRORS
from simcse_bench.data.senteval import REPO
from simcse_bench.data.text_formats import (
    MAX_LINE,
    OPENERS,
    TEXT_FORMATS,
    TEXT_TYPE,
    TextRow,
    file_errors,
    suffix_of,
    texts_of,
)
from simcse_bench.errors import UserError, first_line, suggestion, unknown
from simcse_bench.files import fingerprint, sha256, shown_name

NAMED = {"wiki1m": "wiki1m_for_simcse.txt", "nli": "nli_for_simcse.csv"}  # files of REPO
_SPLIT = "train"  # of a dataset on the Hub
MAX_COLUMNS = 34  # sentence, positive, hard negatives
_NEGATIVE = re.compile("hard|neg", re.IGNORECASE)  # how their columns' names begin
SCORES = ("score", "label", "similarity", "gold")  # names of a column of scores, in any case


@dataclass(frozen=True)
class _Wanted:
    """The columns that a caller wants; see ``open_corpus``."""

    columns: Sequence[str]
    scored: bool | None
    option: str
    single: bool


@dataclass(frozen=True)
class Corpus:
    """Rows of texts: sentence; sentence and positive; sentence, positive and hard negatives, each as many.

    Or ``scored``: two sentences, and their score, a number, as the last field.

    ``rows()`` starts a fresh pass in constant memory. It gives empty fields as they are, and raises UserError after
    the last good row before a malformed one, with up to five problems.
    """

    name: str
    origin: str
    fingerprint: str  # 16 hex digits: the content, and the columns and row limit where they restrict it
    columns: int  # sentences of a row
    rows: Callable[[], Iterator[TextRow]]
    scored: bool = False


def open_corpus(
    train: str,
    columns: Sequence[str] = (),
    max_rows: int = 0,
    scored: bool | None = None,
    option: str = "--set columns=a,b",
    single: bool = False,
) -> Corpus:
    """Open training data; nothing but the header and the first row is read, and the file's checksum taken.

    Args:
        train: a file (see ``TEXT_FORMATS``; ``.gz`` behind the suffix is unpacked on the way, Parquet excepted), a
            name of ``NAMED`` or ``bundled.TEXTS``, or the split "train" of a dataset on the Hub: ``owner/name`` or
            ``owner/name:config``. ``@revision`` behind what is on the Hub: a branch, tag or commit of it.
        columns: names in the order sentence, positive, hard negatives. Without, all columns of a file by position
            like SimCSE train.py, and all text columns of a Parquet file or a dataset; more than three of them only
            where their names say that they are hard negatives.
        max_rows: the first rows only; 0 takes all. A dataset on the Hub is then streamed, never downloaded whole.
        scored: the rows are two sentences and a score: the last of the ``columns``, else the one called as in
            ``SCORES``, wherever it stands. False: such a column is refused; None: it is one as any other.
        option: how the user of the command chooses columns, for errors.
        single: one column of text is read, and no more.

    Raises:
        UserError: no such data, no rows, an unknown format or column, too many columns, two of one name, scores that
            are not there or not wanted.
    """
    wanted = _Wanted(columns, scored, option, single)
    if max_rows < 0:
        raise UserError(f"max_rows {max_rows}: expected a number of rows, or 0 for all.")
    if os.path.isfile(train):  # noqa: PTH113 (Path raises for long names)
        return _file_corpus(Path(train), wanted, max_rows, shown_name(train), "file")
    names = [*NAMED, *bundled.TEXTS]
    if train in bundled.TEXTS:
        return _file_corpus(bundled.text_file(train), wanted, max_rows, train, "embedded")
    whole, _, revision = train.partition("@")
    if whole in NAMED:
        path = hub.dataset_file(REPO, NAMED[whole], revision or "main")
        origin = f"Hub dataset {REPO} at revision {path.parent.name}"  # the folder's name is the commit hash
        return _file_corpus(path, wanted, max_rows, train, origin)
    if os.path.isdir(train):  # noqa: PTH112
        raise UserError(f"{train}: is a folder, expected a file ({', '.join(TEXT_FORMATS)}).")
    name, _, config = whole.partition(":")
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or suffix_of(train) in TEXT_FORMATS:
        raise UserError(f"{train}: no such file.")
    if name.count("/") != 1:
        raise UserError(
            f"unknown training data {train!r}{suggestion(train, names)} Expected a file ({', '.join(TEXT_FORMATS)}), "
            "a dataset on the Hub (owner/name, owner/name:config, with @revision or without), or one of: "
            f"{', '.join(names)}."
        )
    return _hub_corpus(train, name, config or None, revision or None, wanted, max_rows)


def open_sentences(source: str, column: str | None = None) -> Corpus:
    """Text of one column, see ``open_corpus``.

    Raises:
        UserError: whatever ``open_corpus`` refuses, or several text columns and no ``column``.
    """
    return open_corpus(source, (column,) if column else (), option="--column NAME", single=True)


def number_sentences(corpus: Corpus) -> Iterator[tuple[int, str]]:
    """The sentences that are not blank, each with the number of its row (a text file's line), from 1."""
    return ((i, text) for i, (text,) in enumerate(corpus.rows(), 1) if text.strip())


def read_sentences(source: str, column: str | None = None) -> tuple[list[str], int]:
    """The sentences of a file (or whatever ``open_sentences`` takes), and how many blank ones were left out.

    White space behind a sentence is removed. source: simcse/tool.py

    Raises:
        UserError: whatever ``open_sentences`` refuses; lines that are not UTF-8, with their numbers; blank lines only.
    """
    corpus = open_sentences(source, column)
    texts = [text.rstrip() for (text,) in corpus.rows()]
    sentences = [text for text in texts if text]
    if not sentences:
        raise UserError(f"{source}: {len(texts)} lines, all blank; expected one sentence a line.")
    return sentences, len(texts) - len(sentences)


def require_text(sentences: Sequence[str]) -> None:
    """UserError for the first that is no text."""
    for i, text in enumerate(sentences):
        if not isinstance(text, str):
            raise UserError(f"sentence {i} is {type(text).__name__}, expected text (str): {text!r:.80}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"sentence {i} is not valid unicode (half a surrogate pair): {text!r:.80}") from None
        if len(text) > MAX_LINE:
            raise UserError(
                f"sentence {i} has {len(text):,} characters, expected at most {MAX_LINE:,}: {text[:40]!r}..."
            )


def _file_corpus(path: Path, wanted: _Wanted, max_rows: int, name: str, origin: str) -> Corpus:
    suffix = suffix_of(path.name)
    if suffix not in TEXT_FORMATS or (suffix == ".parquet" and path.suffix == ".gz"):
        known = "\n".join(f"  {s:<9} {text}" for s, text in TEXT_FORMATS.items())
        raise UserError(f"{path}: unknown suffix {path.suffix!r}. Known, all but .parquet also with .gz:\n{known}")
    with file_errors(path):
        names, texts, rows = OPENERS[suffix](path)
        content = sha256(path)
    chosen, scored = _choose(str(path), names, texts, wanted), bool(wanted.scored)
    restricted = chosen if list(chosen) != list(names) else ()
    identity = [[suffix, content, *restricted], max_rows]

    def checked() -> Iterator[TextRow]:
        return _check_rows(rows(chosen, scored, wanted.option), max_rows)

    corpus = _corpus(name, origin, identity, chosen, checked, scored)
    if next(corpus.rows(), None) is None:
        raise UserError(f"{path}: no rows; expected {TEXT_FORMATS[suffix]}.")
    return corpus


def _corpus(
    name: str,
    origin: str,
    identity: list[Any],
    chosen: Sequence[str],
    rows: Callable[[], Iterator[TextRow]],
    scored: bool,
) -> Corpus:
    if scored:
        return Corpus(name, origin, fingerprint([*identity, "scored"]), len(chosen) - 1, rows, True)
    return Corpus(name, origin, fingerprint(identity), len(chosen), rows)


def _check_rows(rows: Iterable[TextRow | str], max_rows: int) -> Iterator[TextRow]:
    """Rows up to the first problem; then the problems, so that a long file is not worked on in vain."""
    problems: list[str] = []
    try:
        for number, row in enumerate(itertools.islice(rows, max_rows or None), 1):
            if isinstance(row, str):
                problems.append(row)
            elif any(len(text) > MAX_LINE for text in row):
                problems.append(f"row {number}: a text of more than {MAX_LINE:,} characters, expected a sentence.")
            elif not problems:
                yield row
            if len(problems) == MAX_ROW_ERRORS:
                problems.append("Reading stopped there; more such rows may follow.")
                break
    except UserError as error:
        raise UserError(*problems, *error.problems) from error
    if problems:
        raise UserError(*problems)


def _choose(place: str, names: Sequence[str], texts: Sequence[str], wanted: _Wanted) -> Sequence[str]:
    """The columns asked for, else all that hold text."""
    columns, scored = wanted.columns, wanted.scored
    for i, column in enumerate(columns):
        if column not in names:
            raise UserError(f"{place}: {unknown('column', column, names)}")
        if column not in texts and not (scored and i == 2):
            raise UserError(f"{place}: column {column!r} holds no text. Those that do: {', '.join(texts) or 'none'}.")
        if column in columns[:i]:
            raise UserError(f"{place}: column {column!r} is named twice.")
    twice = next((name for name in columns or texts if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{place}: {names.count(twice)} columns are called {twice!r}. Give each a name of its own.")
    scores = [name for known in SCORES for name in names if name.lower() == known]
    if scored:
        chosen = columns or [*(name for name in texts if name not in scores[:1]), *scores[:1]]
        if len(chosen) != 3 or not (columns or scores):
            raise UserError(
                f"{place}: this method trains on two sentences and a score; expected two text columns and one called "
                f"{', '.join(SCORES[:-1])} or {SCORES[-1]}. It has: {', '.join(names):.300}. Give --set columns=a,b,c, "
                "the score's last."
            )
        return chosen
    chosen = columns or texts
    unwanted = [name for name in scores if name in chosen[2:] or (not columns and len(texts) > 1)]
    if scored is False and unwanted:
        raise UserError(
            f"{place}: column {unwanted[0]!r} holds scores, for which this method has no use. Choose the columns of "
            "text, --set columns=a,b, or a method for scored pairs, --set method=cosent."
        )
    clear = columns or len(chosen) <= 3 or all(map(_NEGATIVE.match, chosen[2:]))
    fits = len(chosen) == 1 if wanted.single else clear and 1 <= len(chosen) <= MAX_COLUMNS
    if not fits:
        several = f"1 to 3 (sentence, positive, hard negative), or up to {MAX_COLUMNS} where those behind are called "
        several += "negative_1, negative_2"
        advice = f" Name {'it' if wanted.single else 'them'}: {wanted.option}." if chosen else ""
        raise UserError(
            f"{place}: {len(chosen) or 'no'} text column{'s' * (len(chosen) != 1)}, expected "
            f"{1 if wanted.single else several}. It has: {', '.join(names):.300}.{advice}"
        )
    return chosen


def _hub_corpus(
    train: str,
    name: str,
    config: str | None,
    revision: str | None,
    wanted: _Wanted,
    max_rows: int,
) -> Corpus:
    import datasets

    what = f"Hub dataset {train!r}, split {_SPLIT!r}"
    with _dataset_errors(what):
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        # without the Hub, datasets gives whatever it has in its cache, of any revision
        cached = type(builder).__module__.startswith("datasets.packaged_modules.cache")
        if cached and revision not in (None, builder.hash):
            raise UserError(f"{what}: the Hub cannot be reached, and the cache holds revision {builder.hash}.")
        if max_rows:
            table = builder.as_streaming_dataset(split=_SPLIT).take(max_rows)
        else:
            builder.download_and_prepare()
            table = builder.as_dataset(split=_SPLIT)
        # a streamed CSV tells its types by its first row only
        features: Mapping[str, Any] = table.features or next(iter(table), {})
    texts = [
        k for k, v in features.items() if isinstance(v, str | None) or TEXT_TYPE.match(str(getattr(v, "dtype", "")))
    ]
    chosen, scored = _choose(what, list(features), texts, wanted), bool(wanted.scored)

    def rows() -> Iterator[TextRow | str]:
        with _dataset_errors(what):
            batches = table.select_columns(list(chosen)).iter(batch_size=1000)
            texts = (row for batch in batches for row in zip(*(batch[name] for name in chosen), strict=True))
            for number, row in enumerate(texts):
                fields = dict(zip(chosen, row, strict=True))
                yield texts_of(f"{what}, row {number}", fields, chosen, scored, wanted.option)

    # datasets' hash is the commit
    identity = [[name, builder.config.name, _SPLIT, builder.hash, *chosen], max_rows]
    origin = f"Hub dataset {name} at revision {builder.hash}"
    return _corpus(train, origin, identity, chosen, lambda: _check_rows(rows(), max_rows), scored)


@contextmanager
def _dataset_errors(what: str) -> Iterator[None]:
    """What datasets raises, as a UserError; failures to reach the Hub are left to hub_errors."""
    import datasets

    with hub.hub_errors(what, advice="Without the Hub, give a file."), hub.quiet_datasets():
        try:
            yield
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            # a file that cannot be parsed is told by the cause only
            cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
            raise UserError(f"{what} could not be loaded: {first_line(cause or error)}") from error
