"""Finished tasks of mteb, kept by the content of the model."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

from simcse_bench.archive import ENV_CACHE
from simcse_bench.errors import UserError


class TaskCache:
    """mteb's results of one model by task; what mteb's own cache does, but by content alone, and whole or not there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load_task_result(self, task_name: str, model: Any) -> Any:
        """mteb's ``TaskResult``, or None where there is none that can be read."""
        from mteb.results import TaskResult

        path = self._path(task_name, model)
        try:
            return TaskResult.from_disk(path, load_historic_data=False) if path.is_file() else None
        except (ValueError, OSError):  # cut off by a full disk; it is computed again
            return None

    def save_to_cache(self, result: Any, model: Any, **_: Any) -> None:
        """Keep a result; UserError where a main score is not a number, or the disk is full."""
        for split, parts in result.scores.items():
            for part in parts:
                if not math.isfinite(part["main_score"]):
                    raise UserError(
                        f"mteb gives {part['main_score']} as main score of {split}, {part['hf_subset']}: "
                        "no score exists. Are the embeddings all the same?"
                    )
        path = self._path(result.task_name, model)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            result.to_disk(temporary)
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}. Set {ENV_CACHE}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _path(self, task_name: str, model: Any) -> Path:
        return self.folder / str(model.revision) / f"{task_name}.json"
