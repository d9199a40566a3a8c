"""simcse-bench: SimCSE evaluation that equals the official one.

Importing this package loads no torch; each module is imported where it is used::

    from simcse_bench.checkpoints import load_encoder
    from simcse_bench.evaluate import evaluate
    from simcse_bench.task import SIMCSE, load_suite

Beside them the package itself gives ``mteb_model``: an encoder of ours for ``mteb.evaluate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse_bench.mteb_adapter import mteb_model

__all__ = ["__version__", "mteb_model"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # loaded when it is asked for: it needs torch and mteb
    if name != "mteb_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module("simcse_bench.mteb_adapter").mteb_model
