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
    from simcse_bench.data.registry import load_suite, load_task
    from simcse_bench.data.senteval import DataSource
    from simcse_bench.evaluation.compare import compare
    from simcse_bench.evaluation.evaluate import evaluate
    from simcse_bench.evaluation.geometry import alignment, analyze, uniformity
    from simcse_bench.evaluation.mteb.adapter import mteb_model
    from simcse_bench.evaluation.rescore import rescore
    from simcse_bench.evaluation.robustness import analyze_robustness
    from simcse_bench.evaluation.statistics import difference, holm
    from simcse_bench.evaluation.verify import verify
    from simcse_bench.experiments.run import run_ablation
    from simcse_bench.models.open import open_model
    from simcse_bench.reports.frames import read_pairs, read_results
    from simcse_bench.reports.model_page import write_model_page
    from simcse_bench.search.simcse import SimCSE
    from simcse_bench.search.vectors import open_vectors
    from simcse_bench.training.losses import contrastive_loss
    from simcse_bench.training.recipes import recipe
    from simcse_bench.training.run import RunOptions, train

__version__ = "0.1.0"
_HOMES = {
    "DataSource": "data.senteval",
    "RunOptions": "training.run",
    "SimCSE": "search.simcse",
    "alignment": "evaluation.geometry",
    "analyze": "evaluation.geometry",
    "analyze_robustness": "evaluation.robustness",
    "compare": "evaluation.compare",
    "contrastive_loss": "training.losses",
    "difference": "evaluation.statistics",
    "evaluate": "evaluation.evaluate",
    "holm": "evaluation.statistics",
    "load_suite": "data.registry",
    "load_task": "data.registry",
    "mteb_model": "evaluation.mteb.adapter",
    "open_model": "models.open",
    "open_vectors": "search.vectors",
    "read_pairs": "reports.frames",
    "read_results": "reports.frames",
    "recipe": "training.recipes",
    "rescore": "evaluation.rescore",
    "run_ablation": "experiments.run",
    "train": "training.run",
    "uniformity": "evaluation.geometry",
    "verify": "evaluation.verify",
    "write_model_page": "reports.model_page",
}
__all__ = [
    "DataSource", "RunOptions", "SimCSE", "__version__", "alignment", "analyze", "analyze_robustness", "compare",
    "contrastive_loss", "difference", "evaluate", "holm", "load_suite", "load_task", "mteb_model", "open_model",
    "open_vectors", "read_pairs", "read_results", "recipe", "rescore", "run_ablation", "train", "uniformity", "verify",
    "write_model_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
