"""The data of a task of any kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from simcse_bench.data.judged import Paraphrases, Triplets, read_paraphrases, read_triplets
from simcse_bench.data.labelled import Labelled, read_labelled
from simcse_bench.data.pairs import Pairs, read_task_pairs
from simcse_bench.data.ranking import Ranking, read_ranking
from simcse_bench.data.task import Task

Thinned = Pairs | Paraphrases | Triplets  # rows of which some may be left out: no other needs them
Data = Pairs | Labelled | Paraphrases | Triplets | Ranking
_READERS: Mapping[str, Callable[[Task, str, str, Path | None], Pairs | Paraphrases | Triplets | Ranking]] = {
    "sts": read_task_pairs,
    "paraphrase": read_paraphrases,
    "triplet": read_triplets,
    "ranking": read_ranking,
}


def read_task(
    task: Task, split: str, variant: str, root: Path | None, limit: int | None = None, left_out: Collection[int] = ()
) -> Data:
    """Read one split of a task (of a transfer task, all its splits) and check every row and count.

    Args:
        task: of any kind.
        split, variant, root: see ``read_task_pairs``.
        limit: only the first rows of every subset, label or class.
        left_out: positions of pairs or triplets that are not scored; then the first of the others.

    Raises:
        UserError: all problems of the files at once.
    """
    if task.kind == "transfer":
        return read_labelled(task, root, limit)
    data = _READERS[task.kind](task, split, variant, root)
    if left_out and isinstance(data, Thinned):
        data = data.without(left_out)
    return data.head(limit) if limit else data
