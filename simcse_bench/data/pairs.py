"""Sentence pairs with gold scores: read, with every row checked; and the fingerprint of what was read."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.hub_datasets import GOLD_DECIMALS
from simcse_bench.data.registry import load_task
from simcse_bench.data.rows import Clean, file_paths, first_of_each, gold_score, in_archive, read_rows
from simcse_bench.data.senteval import ANYWHERE, PROBING, DataRoot, DataSource, find_root, given_root, is_configured
from simcse_bench.data.task import Source, Task
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint


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
        return self.take(first_of_each(self.subset, n))

    def without(self, rows: Collection[int]) -> Pairs:
        """All pairs of a task but those at these positions."""
        return replace(self.take(others(len(self), rows)), left_out=tuple(sorted(set(rows))))

    def take(self, keep: Sequence[int]) -> Pairs:
        """The pairs at these positions."""
        left, right, subset = (tuple(field[i] for i in keep) for field in (self.left, self.right, self.subset))
        return Pairs(left, right, self.gold[list(keep)], subset, self.left_out)

    def sizes(self) -> dict[str, int]:
        """Number of pairs of each subset."""
        return {name: self.subset.count(name) for name in dict.fromkeys(self.subset)}

    def ids(self, task: str) -> list[str]:
        """``task/subset/number`` of every pair; the number counts the subset's scored pairs from 0, in file order."""
        return [f"{task}/{name}/{i}" for name, n in self.sizes().items() for i in range(n)]

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over subset, gold and both sentences of every row."""
        rows = zip(self.subset, self.gold.tolist(), self.left, self.right, strict=True)
        return fingerprint("".join("\t".join(map(str, row)) + "\n" for row in rows).encode())

    def sentences(self) -> Iterator[str]:
        """Every sentence, pair by pair."""
        return itertools.chain.from_iterable(zip(self.left, self.right, strict=True))

    def duplicates(self) -> int:
        """Number of rows whose two sentences (in either order) already stood in an earlier row."""
        return len(self) - len({tuple(sorted(pair)) for pair in zip(self.left, self.right, strict=True)})


def others(n: int, rows: Collection[int]) -> list[int]:
    """Positions of n rows but these."""
    gone = frozenset(rows)
    return [i for i in range(n) if i not in gone]


def read_task_pairs(task: Task, split: str, variant: str, root: Path | None) -> Pairs:
    """Read one split of a task of pairs and check every row and count.

    Args:
        task: an STS task, or one of paraphrases.
        split: a key of ``task.splits``.
        variant: text variant, "senteval" or "raw".
        root: the data folder (None for a task that needs none: a user's own file, a Hub dataset).

    Raises:
        UserError: all problems of the files at once, each with file and line.
    """
    if task.kind not in ("sts", "paraphrase"):
        raise UserError(f"task {task.name!r} is a {task.kind} task; pairs are read from STS and paraphrase tasks.")

    def pair(source: Source, clean: Clean, row: tuple[Any, str, str]) -> tuple[float, str, str]:
        gold = gold_score(row[0], task.gold, GOLD_DECIMALS if source.format == "hub" else None)
        if task.kind == "paraphrase" and gold not in (0, 1):
            raise ValueError(f"label {gold:g}; expected 1 for a paraphrase, else 0")
        return gold, clean(row[1]), clean(row[2])

    rows, subset = read_rows(task, split, variant, root, pair)
    golds, left, right = zip(*rows, strict=True)
    return Pairs(left, right, np.array(golds, dtype=np.float64), subset)


def parts(task: Task) -> list[Task]:
    """The STS tasks that a ranking task is built from; of other tasks, the task itself."""
    if any(source.format == "sts" for source in task.sources.values()):
        return [load_task(name, task.folder) for subsets in task.splits.values() for name in subsets]
    return [task]


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

    For Hub datasets with a copy it is the folder the user named, if any; None for tasks that bring their own files:
    one that is not there is no reason for a download, and is told when it is read.
    """
    tasks = [part for task in tasks for part in parts(task)]
    needy = [t for t in tasks if needs_root(t)]
    archived = [t for t in needy if in_archive(t)]
    if archived or (needy and is_configured(where)):
        return find_root(where, download=any(s.format != PROBING for t in archived for s in t.sources.values()))
    copied = any(s.format == "hub" and s.path for t in tasks for s in t.sources.values())
    return given_root(where) if copied else None


def data_folder(tasks: Iterable[Task], where: DataSource = ANYWHERE) -> Path | None:
    """The path of ``data_root``."""
    root = data_root(tasks, where)
    return root.path if root else None
