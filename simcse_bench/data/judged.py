"""Pairs that are paraphrases or not, and triplets: what is judged without a graded score."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_bench.data.pairs import Pairs, others, read_task_pairs
from simcse_bench.data.rows import Clean, first_of_each, read_rows
from simcse_bench.data.task import Source, Task
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint


@dataclass(frozen=True)
class Paraphrases:
    """Sentence pairs with gold 1 (a paraphrase) or 0, and those on which the thresholds are chosen."""

    pairs: Pairs
    dev: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def left_out(self) -> tuple[int, ...]:
        """Positions of scored pairs without which the task is scored."""
        return self.pairs.left_out

    def without(self, rows: Collection[int]) -> Paraphrases:
        """All scored pairs but those at these positions; the dev pairs stay."""
        return replace(self, pairs=self.pairs.without(rows))

    def head(self, n: int) -> Paraphrases:
        """The first ``n`` pairs of each label, scored and dev."""
        return Paraphrases(_first_of_each_label(self.pairs, n), _first_of_each_label(self.dev, n))

    def sentences(self) -> Iterator[str]:
        """Every sentence, pair by pair."""
        return itertools.chain(self.pairs.sentences(), self.dev.sentences())

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over both sets of pairs."""
        return fingerprint([self.pairs.fingerprint(), self.dev.fingerprint()])

    def duplicates(self) -> int:
        """Number of scored rows whose two sentences already stood in an earlier row."""
        return self.pairs.duplicates()


@dataclass(frozen=True)
class Triplets:
    """An anchor with a sentence that is nearer to it in meaning, and one that is not."""

    anchor: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    subset: tuple[str, ...]
    left_out: tuple[int, ...] = ()  # positions among all triplets of the task, see ``without``

    def __len__(self) -> int:
        return len(self.anchor)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Anchor, positive and negative."""
        return zip(self.anchor, self.positive, self.negative, strict=True)

    def head(self, n: int) -> Triplets:
        """The first ``n`` triplets of every subset."""
        return self._take(first_of_each(self.subset, n))

    def without(self, rows: Collection[int]) -> Triplets:
        """All triplets of a task but those at these positions."""
        return replace(self._take(others(len(self), rows)), left_out=tuple(sorted(set(rows))))

    def _take(self, keep: Sequence[int]) -> Triplets:
        fields = (self.anchor, self.positive, self.negative, self.subset)
        anchor, positive, negative, subset = (tuple(field[i] for i in keep) for field in fields)
        return Triplets(anchor, positive, negative, subset, self.left_out)

    def sentences(self) -> Iterator[str]:
        """Every sentence, triplet by triplet."""
        return itertools.chain.from_iterable(self.rows())

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the three sentences of every row."""
        return fingerprint("".join("\t".join(row) + "\n" for row in self.rows()).encode())

    def duplicates(self) -> int:
        """Number of rows that already stood in an earlier row."""
        return len(self) - len(set(self.rows()))


def read_paraphrases(task: Task, split: str, variant: str, root: Path | None) -> Paraphrases:
    """One split of a paraphrase task, and its dev split.

    Raises:
        UserError: all problems of the files at once; a split with pairs of one label only.
    """
    pairs = read_task_pairs(task, split, variant, root)
    dev = pairs if split == "dev" else read_task_pairs(task, "dev", variant, root)
    for name, part in {split: pairs, "dev": dev}.items():
        labels = sorted(set(part.gold.tolist()))
        if len(labels) < 2:
            raise UserError(
                f"task {task.name!r}: all {len(part)} pairs of split {name} have the label {labels[0]:g}; expected "
                "paraphrases (1) and others (0)."
            )
    return Paraphrases(pairs, dev)


def read_triplets(task: Task, split: str, variant: str, root: Path | None) -> Triplets:
    """One split of a triplet task.

    Raises:
        UserError: all problems of the files at once; a row whose negative is its positive.
    """

    def triplet(source: Source, clean: Clean, row: Any) -> tuple[str, str, str]:
        anchor, positive, negative = map(clean, row)
        if positive == negative:
            raise ValueError("the positive and the negative are the same sentence")
        return anchor, positive, negative

    rows, subset = read_rows(task, split, variant, root, triplet)
    anchor, positive, negative = zip(*rows, strict=True)
    return Triplets(anchor, positive, negative, subset)


def _first_of_each_label(pairs: Pairs, n: int) -> Pairs:
    return pairs.take(first_of_each(pairs.gold.tolist(), n))
