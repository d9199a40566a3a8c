"""Evaluation without the rows of which a search of training text found a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simcse_bench.data.judged import Paraphrases, Triplets
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.reading import Data, Thinned
from simcse_bench.errors import UserError
from simcse_bench.reports.overlap import read_overlap


def excluded_by(path: Path) -> dict[str, str]:
    """What a report says of the record that decided which pairs were left out."""
    overlap = read_overlap(path)
    return {"train": overlap.train["name"], "overlap": overlap.key, "file": path.name}


def leave_out(path: Path, data: Mapping[str, Data], limit: int | None = None) -> dict[str, Data]:
    """The data without the pairs and triplets of which a record of ``data overlap`` found a sentence; their first ones.

    Raises:
        UserError: no record, or not of these tasks on these data; transfer tasks, whose classifiers need their rows;
            rankings, whose queries are candidates of the others; too few rows left for a score.
    """
    overlap = read_overlap(path)
    kept: dict[str, Data] = {}
    problems = []
    for name, rows in data.items():
        here = overlap.tasks.get(name)
        if not isinstance(rows, Thinned):
            kind = "ranking" if isinstance(rows, Ranking) else "transfer"
            problems.append(
                f"{path}: {name} is a {kind} task; pairs (of STS, paraphrases) and triplets can be left out."
            )
        elif here is None or rows.fingerprint() not in here["fingerprints"]:
            what = f"is of other data of {name} (another split, or other files)" if here else f"says nothing of {name}"
            problems.append(f"{path} {what}. Run `simcse-bench data overlap` with the same tasks, --protocol, --split.")
        else:
            left = rows.without(overlap.rows(name))
            kept[name] = left.head(limit) if limit else left
            one_label = isinstance(left, Paraphrases) and len(set(left.pairs.gold.tolist())) < 2
            if len(left) < 2 or one_label:
                needed = "one of each label" if one_label else "two"
                what = "triplets" if isinstance(left, Triplets) else "pairs"
                problems.append(
                    f"{path}: {len(left)} of {len(rows)} {what} of {name} are left; a score needs {needed}."
                )
    if problems:
        raise UserError(*problems)
    return kept
