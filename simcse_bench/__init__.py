"""simcse-bench: SimCSE evaluation that equals the official one.

Importing this package loads no torch; each module is imported where it is used (examples: docs/python.md)::

    from simcse_bench.evaluate import evaluate
    from simcse_bench.models import open_model
    from simcse_bench.task import load_task

    report = evaluate(open_model("mini").load(), [load_task("mini-sts")])

Two names of the package itself are loaded when they are asked for: ``SimCSE``, the class of the official package
`simcse`, and ``mteb_model``, an encoder of ours for ``mteb.evaluate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse_bench.mteb_adapter import mteb_model
    from simcse_bench.simcse import SimCSE

__all__ = ["SimCSE", "__version__", "mteb_model"]

__version__ = "0.1.0"
_LAZY = {"SimCSE": "simcse", "mteb_model": "mteb_adapter"}  # they need torch and mteb


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"simcse_bench.{_LAZY[name]}"), name)
