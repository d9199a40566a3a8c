"""simcse-bench: SimCSE evaluation that equals the official one.

Importing this package loads neither torch nor numpy; what it offers is loaded when it is asked for (docs/python.md)::

    from simcse_bench import evaluate, load_task, open_model

    report = evaluate(open_model("mini").load(), [load_task("mini-sts")])

Its rooms, and what to open first in each: docs/architecture.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse_bench.data.task import load_suite, load_task
    from simcse_bench.evaluation.evaluate import evaluate
    from simcse_bench.evaluation.mteb.adapter import mteb_model
    from simcse_bench.models.open import open_model
    from simcse_bench.search.simcse import SimCSE
    from simcse_bench.training.config import recipe

__version__ = "0.1.0"
_HOMES = {
    "SimCSE": "search.simcse",
    "evaluate": "evaluation.evaluate",
    "load_suite": "data.task",
    "load_task": "data.task",
    "mteb_model": "evaluation.mteb.adapter",
    "open_model": "models.open",
    "recipe": "training.config",
}
__all__ = ["SimCSE", "__version__", "evaluate", "load_suite", "load_task", "mteb_model", "open_model", "recipe"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
