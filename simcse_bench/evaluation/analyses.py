"""What the analyses of models share: the pairs that they look at, and the file of each model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse_bench import bundled
from simcse_bench.data.pairs import Pairs, read_task_pairs
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import Task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.run import default_suite
from simcse_bench.files import require_writable
from simcse_bench.models.identity import deciding
from simcse_bench.models.open import Model
from simcse_bench.reports.page import require_own
from simcse_bench.reports.report import model_variant, report_path


def read_splits(task: Task, splits: Sequence[str], variant: str, folder: Path | None) -> Pairs:
    """Pairs of several splits of an STS task behind each other.

    Raises:
        UserError: a task of another kind, or what ``read_task_pairs`` refuses.
    """
    if task.kind != "sts":
        raise UserError(f"task {task.name!r} has no pairs: `analyze` needs an STS task, such as stsb.")
    parts = [read_task_pairs(task, split, variant, folder) for split in splits]
    return Pairs(
        tuple(s for p in parts for s in p.left),
        tuple(s for p in parts for s in p.right),
        np.concatenate([p.gold for p in parts]),
        tuple(s for p in parts for s in p.subset),
    )


def require_page(folder: Path) -> None:
    """UserError where the folder's page cannot be written, or is not ours."""
    require_writable(folder / "index.html")
    require_own(folder / "index.html")


def default_task(models: Sequence[Model], where: DataSource) -> str:
    """What is analysed where no task is named: stsb; mini-sts where all are the embedded encoder's and no data is."""
    return bundled.TASK if {default_suite(m.provenance, where) for m in models} == {bundled.SUITE} else "stsb"


def claim_files(
    models: Sequence[Model],
    folder: Path,
    data: Mapping[str, Any],
    saved: Callable[[Path], tuple[Mapping[str, Any], Mapping[str, Any]]] | None,
) -> dict[Path, Model]:
    """Each model's file in the folder, before anything is computed.

    Args:
        models: analysed together.
        folder: below the results folder.
        data: what decides the numbers beside the model.
        saved: reads the model and the ``data`` of a saved analysis; None replaces it whatever it holds.

    Raises:
        UserError: two models for one file; an analysis of other weights, settings or data in it.
    """
    places: dict[Path, Model] = {}
    for model in models:
        variant = "".join(f"--{part}" for part in model_variant(model.provenance))
        path = report_path(folder.parent, folder.name, model.name, variant)
        if path in places and decided_by(places[path].provenance) != decided_by(model.provenance):
            raise UserError(
                f"two models of the name {model.name} would be saved as {path}; give relative paths, which stand in "
                "the file's name whole."
            )
        if path.exists() and saved is not None:
            _require_same(path, model, data, *saved(path))
        places[path] = model
    return places


def decided_by(model: Mapping[str, Any]) -> Any:
    """What decides a model's vectors, as JSON holds it."""
    return json.loads(json.dumps(deciding(model)))


def _require_same(
    path: Path, model: Model, data: Mapping[str, Any], saved: Mapping[str, Any], before: Mapping[str, Any]
) -> None:
    """UserError where the analysis in a file is of other weights, settings or data."""
    there, here = decided_by(saved), decided_by(model.provenance)
    changed = [k for k in here if here[k] != there.get(k)] + [k for k in data if data[k] != before[k]]
    if changed:
        raise UserError(
            f"{path} holds another analysis (other {', '.join(changed)}). Use --force to replace it, or another --out."
        )
