"""Training text searched for the sentences of evaluation tasks, in one pass."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import simcse_bench
from simcse_bench.data.corpus import Corpus
from simcse_bench.data.judged import Paraphrases, Triplets
from simcse_bench.data.labelled import Labelled
from simcse_bench.data.overlap import KINDS, LEAST_NEAR, METHOD, Match, SentenceIndex
from simcse_bench.data.pairs import data_folder
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.reading import Data
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import SIMCSE, TEXT_VARIANTS, EvalProtocol, Task, named_protocol
from simcse_bench.errors import UserError, unknown
from simcse_bench.evaluation.evaluate import read_all
from simcse_bench.files import fingerprint, now, require_writable
from simcse_bench.progress import Say, silent
from simcse_bench.reports.overlap import Found, Overlap, TrainText, read_overlap, save_overlap

_TOLD = 1_000_000  # rows between two lines of progress
_SHOWN = 500  # characters that are kept of a training text
Places = Mapping[int, Mapping[str, Sequence[int]]]  # sentence -> task -> rows


def find_overlaps(
    corpus: Corpus,
    tasks: Sequence[Task],
    protocol: EvalProtocol | str = SIMCSE,
    where: DataSource = ANYWHERE,
    suite: str = "custom",
    kinds: Collection[str] = tuple(KINDS),
    least: int = LEAST_NEAR,
    save: Path | None = None,
    force: bool = False,
    say: Say = silent,
) -> tuple[Overlap, bool]:
    """Which sentences of these tasks stand in a training text, and whether that was known already.

    The text is read once, row by row; memory holds the evaluation sentences (in every text variant of a task, as it
    was released and as SentEval tokenises it) and what was found.

    Args:
        corpus: from ``open_corpus``; all its texts are searched.
        tasks: searched for the rows of the protocol's split, transfer tasks for those of all their splits. A row of a
            ranking is a query with its positives: what else is in its pool is not looked for.
        kinds: of ``KINDS``: what counts as found.
        least: different words that a near sentence has at least; fewer find phrases, more find less.
        save: file of the record; the same search is not done again.
        force: search again, and replace another search in that file.

    Raises:
        UserError: an unknown kind, unreadable data or text, another search in the file.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of overlap", kind, KINDS)
    if least < 1 or not kinds:
        raise UserError(f"least {least}, kinds {', '.join(kinds) or 'none'}: expected at least 1 word and one kind.")
    start = time.perf_counter()
    protocol = named_protocol(protocol) if isinstance(protocol, str) else protocol
    variants = [_read(tasks, protocol, variant, where) for variant in TEXT_VARIANTS]
    whole = {name: rows for data in variants for name, rows in data.items()}
    fingerprints = {n: list(dict.fromkeys(data[n].fingerprint() for data in variants if n in data)) for n in whole}
    asked = [kind for kind in KINDS if kind in kinds]
    key = fingerprint([METHOD, corpus.fingerprint, fingerprints, asked, least])
    if save is not None:
        require_writable(save)
        if save.exists() and not force:
            known = read_overlap(save)
            if known.key == key:
                return known, True
            there = {"text": known.train["fingerprint"], "tasks": ", ".join(known.tasks),
                     "kinds": ", ".join(known.kinds), "least words": known.least}  # fmt: skip
            here = {"text": corpus.fingerprint, "tasks": ", ".join(whole), "kinds": ", ".join(asked),
                    "least words": least}  # fmt: skip
            other = [f"its {what} {there[what]}, here {here[what]}" for what in here if there[what] != here[what]]
            raise UserError(
                f"{save} holds another search ({'; '.join(other) or 'of other data'}). "
                "Use --force to replace it, or another --out."
            )
    texts_of_all = (text for data in variants for rows in data.values() for row in _rows(rows) for text in row)
    index = SentenceIndex(texts_of_all, least if "near" in asked else 0)
    places = _places(index, variants)
    texts = {number: text for text, number in reversed(index.numbers.items())}  # of each sentence, the first
    found, train = _search(corpus, index, texts, places, asked, say)
    overlap = Overlap(
        key=key,
        train=train,
        suite=suite,
        protocol=protocol.name,
        kinds=asked,
        least=least,
        tasks={
            task.name: {
                "title": task.title,
                "split": " + ".join(task.splits) if task.kind == "transfer" else protocol.split_of(task),
                "n": len(whole[task.name]),
                "sentences": sum(task.name in where for where in places.values()),
                "fingerprints": fingerprints[task.name],
                "whole": _whole(whole[task.name], index, found),
            }
            for task in tasks
            if task.name in whole
        },
        sentences=len(places),
        found=[found[n] for n in sorted(found, key=lambda n: (asked.index(found[n]["kind"]), texts[n]))],
        version=simcse_bench.__version__,
        seconds=round(time.perf_counter() - start, 1),
        created=now(),
    )
    if save is not None:
        save_overlap(save, overlap)
    return overlap, False


def _read(tasks: Sequence[Task], protocol: EvalProtocol, variant: str, where: DataSource) -> dict[str, Data]:
    """The data in a text variant; rankings in the protocol's own only, for in another their queries are others."""
    data = read_all(tasks, replace(protocol, text=variant), data_folder(tasks, where))[0]
    return {n: rows for n, rows in data.items() if variant == protocol.text or not isinstance(rows, Ranking)}


def _rows(data: Data) -> Iterator[tuple[str, ...]]:
    """The sentences of every row: of paraphrases the scored ones, of a ranking a query with its positives."""
    if isinstance(data, Ranking):
        return ((query, *positives) for query, positives in zip(data.queries, data.positives, strict=True))
    if isinstance(data, Triplets):
        return data.rows()
    if isinstance(data, Labelled):
        return zip(data.texts, data.seconds, strict=True) if data.seconds else zip(data.texts)
    pairs = data.pairs if isinstance(data, Paraphrases) else data
    return zip(pairs.left, pairs.right, strict=True)


def _places(index: SentenceIndex, variants: Sequence[Mapping[str, Data]]) -> Places:
    """Where each sentence stands."""
    places: dict[int, dict[str, dict[int, None]]] = {}
    for data in variants:
        for name, rows in data.items():
            for row, texts in enumerate(_rows(rows)):
                for text in texts:
                    number = index.numbers[text.strip()]
                    places.setdefault(number, {}).setdefault(name, {})[row] = None
    return {n: {task: sorted(rows) for task, rows in tasks.items()} for n, tasks in places.items()}


def _search(
    corpus: Corpus, index: SentenceIndex, texts: Mapping[int, str], places: Places, kinds: Sequence[str], say: Say
) -> tuple[dict[int, Found], TrainText]:
    """What is found in a pass over the corpus, by the number of the sentence."""
    closest: dict[int, tuple[Match, int, str]] = {}  # with the first row and text where it is so close
    times: defaultdict[int, int] = defaultdict(int)
    row = searched = 0
    blank = True
    rank = {kind: i for i, kind in enumerate(kinds)}
    for row, fields in enumerate(corpus.rows(), 1):
        for text in fields[: corpus.columns]:
            searched += 1
            blank = blank and not text.strip()
            for match in index.find(text):
                if match.kind not in rank:
                    continue
                times[match.sentence] += 1
                best = closest.get(match.sentence)
                if best is None or _closeness(match, rank) < _closeness(best[0], rank):
                    closest[match.sentence] = match, row, text.strip()[:_SHOWN]
        if row % _TOLD == 0:
            say(f"{row:,} rows, {len(closest):,} sentences found")
    if blank:
        raise UserError(f"{corpus.name}: nothing but blanks in its {row:,} rows; there is no text to search.")
    found: dict[int, Found] = {
        number: {
            "sentence": texts[number],
            "kind": match.kind,
            "changed": match.changed,
            "times": times[number],
            "row": at,
            "text": text,
            "where": places[number],
        }
        for number, (match, at, text) in closest.items()
    }
    name = {"name": corpus.name, "origin": corpus.origin, "fingerprint": corpus.fingerprint}
    train: Any = name | {"rows": row, "texts": searched}
    return found, train


def _closeness(match: Match, rank: Mapping[str, int]) -> tuple[int, int]:
    return rank[match.kind], match.changed


def _whole(rows: Data, index: SentenceIndex, found: Collection[int]) -> int:
    """Rows of which every sentence was found."""
    return sum(all(index.numbers[text.strip()] in found for text in row) for row in _rows(rows))
