"""Data of mteb's tasks from memory instead of the Hub."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

# importing mteb makes this folder
os.environ.setdefault("MTEB_CACHE", str(Path(tempfile.gettempdir()) / "simcse-bench-tests-mteb"))

import mteb
from datasets import Dataset, DatasetDict


def sts_rows(pairs):
    return {"sentence1": list(pairs.left), "sentence2": list(pairs.right), "score": pairs.gold.tolist()}


class Local:
    """Replaces ``load_data`` of tasks; ``loads`` counts what was loaded, by task and subset."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.loads: Counter[str] = Counter()

    def give(self, name, splits=None, **subsets):
        """``splits``: split -> columns; or such a mapping for each subset of a multilingual task."""
        kind = type(mteb.get_task(name))

        def load_data(task, **_):
            def made(found):
                return DatasetDict({split: Dataset.from_dict(columns) for split, columns in found.items()})

            for subset in task.hf_subsets:
                self.loads[name if splits else f"{name}[{subset}]"] += 1
            task.dataset = made(splits) if splits else {s: made(subsets[s]) for s in task.hf_subsets}
            task.data_loaded = True

        self.monkeypatch.setattr(kind, "load_data", load_data)
