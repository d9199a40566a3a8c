"""Ranking tasks: a query, its positives and the candidates among which they are to be found."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench.data.pairs import parts, read_task_pairs
from simcse_bench.data.rows import Clean, clean_text, file_paths, read_lines, shorten
from simcse_bench.data.task import Source, Task, best_share
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint

_EXPECTED = '{"query": "...", "positives": ["..."]}, and "candidates": ["..."] in every row or in none'


@dataclass(frozen=True)
class Ranking:
    """Queries with their positives; all fields but ``pool`` have one entry per query."""

    queries: tuple[str, ...]
    positives: tuple[tuple[str, ...], ...]
    candidates: tuple[tuple[str, ...], ...]  # of each query; empty: all have the pool
    pool: tuple[str, ...]  # every distinct sentence; none is a candidate of the query that it is
    unit: tuple[int, ...]  # queries of one unit are drawn together by the bootstrap: both directions of a pair

    def __len__(self) -> int:
        return len(self.queries)

    def head(self, n: int) -> Ranking:
        """The first ``n`` queries, and the sentences that they need."""
        queries, positives, candidates = self.queries[:n], self.positives[:n], self.candidates[:n]
        return Ranking(queries, positives, candidates, _pool(queries, positives, candidates), self.unit[:n])

    def sentences(self) -> Iterator[str]:
        """Every distinct sentence."""
        return iter(self.pool)

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the pool, and every query with its positives and candidates."""
        return fingerprint([sorted(self.pool), self.queries, self.positives, self.candidates])

    def duplicates(self) -> int:
        """Number of queries that already stood in an earlier row with the same positives."""
        return len(self) - len(set(zip(self.queries, self.positives, strict=True)))


def read_ranking(task: Task, split: str, variant: str, root: Path | None) -> Ranking:
    """One split of a ranking task: a user's own file, or built from the pairs of STS tasks.

    Raises:
        UserError: all problems of the files at once, each with file and line.
    """
    if split not in task.splits:
        raise UserError(f"task {task.name!r} has no split {split!r}; it has: {', '.join(task.splits)}.")
    variant, source = task.source(variant)
    if source.format == "sts":
        return _from_pairs(task, split, source, variant, root)
    rows: list[_Row] = []
    problems: list[str] = []
    for subset, expected in task.splits[split].items():
        path = file_paths(task, source, split, subset, root)[""]
        try:
            read = list(_read_jsonl(path, partial(clean_text, variant=variant, source=source)))
        except UserError as error:
            problems += error.problems
            continue
        problems += shorten([row for row in read if isinstance(row, str)], f" in {subset}")
        whole = [row for row in read if not isinstance(row, str)]
        if not read or (expected is not None and len(read) != expected):
            problems.append(
                f"{task.name}/{subset}: {len(read)} queries in {path}, expected {expected or 'at least one'}."
            )
        rows += whole
    if problems:
        raise UserError(*problems)
    queries, positives, candidates = zip(*rows, strict=True)
    if any(candidates) and not all(candidates):
        missing = queries[[bool(c) for c in candidates].index(False)]
        raise UserError(
            f"task {task.name!r}: the query {missing[:80]!r} has no candidates, others have; expected {_EXPECTED}."
        )
    own = candidates if any(candidates) else ()
    return Ranking(queries, positives, own, _pool(queries, positives, own), tuple(range(len(queries))))


_Row = tuple[str, tuple[str, ...], tuple[str, ...]]  # query, positives, candidates


def _read_jsonl(path: Path, clean: Clean) -> Iterator[_Row | str]:
    """A query a line: an object with query, positives and, where they are its own, candidates."""
    for number, line in enumerate(read_lines(path, "utf-8"), 1):
        if line.strip():
            try:
                query, positives, candidates = _fields(json.loads(line))
            except (ValueError, RecursionError):
                yield f"{path}:{number}: expected {_EXPECTED}; found {line[:80]!r}."
            else:
                cleaned = [tuple(dict.fromkeys(map(clean, texts))) for texts in (positives, candidates)]
                yield clean(query), cleaned[0], cleaned[1]


def _fields(row: Any) -> tuple[str, list[str], list[str]]:
    """Query, positives, candidates; ValueError where they are not what is expected."""
    if not isinstance(row, dict) or not {"query", "positives"} <= {*row} <= {"query", "positives", "candidates"}:
        raise ValueError
    query, *lists = row["query"], row["positives"], row.get("candidates", [])
    texts = [query, *itertools.chain.from_iterable(texts if isinstance(texts, list) else [None] for texts in lists)]
    if not all(isinstance(text, str) and text.strip() for text in texts) or not all(row[f] for f in row):
        raise ValueError
    return query, lists[0], lists[1]


def _pool(
    queries: Iterable[str], positives: Iterable[Sequence[str]], candidates: Iterable[Sequence[str]]
) -> tuple[str, ...]:
    """Every distinct sentence, in the order of first appearance."""
    return tuple(dict.fromkeys(itertools.chain(queries, *positives, *candidates)))


def _from_pairs(task: Task, split: str, source: Source, variant: str, root: Path | None) -> Ranking:
    """EvalRank: both sentences of every positive pair find each other among all sentences of the STS tasks.

    Source: Wang et al. 2022; https://github.com/BinWang28/EvalRank-Embedding-Evaluation, data/sent_evalrank and
    src/s_data_loader.py: each direction of a pair once, a pair of a sentence with itself included.
    """
    problems: list[str] = []
    found: dict[tuple[str, str], int] = {}
    sentences: dict[str, None] = {}
    for part in parts(task):
        if part.kind != "sts":
            raise UserError(f"task {task.name!r} is built from {part.name!r}, a {part.kind} task; expected STS tasks.")
        try:
            pieces = [read_task_pairs(part, name, variant, root) for name in part.splits]
        except UserError as error:
            problems += error.problems
            continue
        expected, rows = task.splits[split].get(part.name), sum(map(len, pieces))
        if expected is not None and rows != expected:
            problems.append(f"{task.name}/{part.name}: {rows} pairs, expected {expected}.")
        pairs = [pair for piece in pieces for pair in zip(piece.left, piece.right, strict=True)]
        gold = np.concatenate([piece.gold for piece in pieces])
        for i in _positive(gold, source.positives[part.name]):
            left, right = pairs[i]
            unit = found.get((left, right), len(found))
            found.setdefault((left, right), unit)
            found.setdefault((right, left), unit)
        sentences |= dict.fromkeys(itertools.chain.from_iterable(pairs))
    if problems:
        raise UserError(*problems)
    if not found:
        raise UserError(f"task {task.name!r}: no pair is positive by {dict(source.positives)}; lower the scores there.")
    queries = tuple(query for query, _ in found)
    return Ranking(queries, tuple((positive,) for _, positive in found), (), tuple(sentences), tuple(found.values()))


def _positive(gold: np.ndarray[Any, Any], rule: float | str) -> list[int]:
    """Which pairs are positive: of at least this score, or the best so many percent, ties in the order of the file."""
    share = best_share(rule)
    if share is None:
        return [int(i) for i in np.flatnonzero(gold >= float(rule))]
    best = np.argsort(-gold, kind="stable")[: round(share * len(gold))]
    return sorted(int(i) for i in best)
