"""simcse-bench: SimCSE evaluation that equals the official one.

Importing this package loads no torch; each module is imported where it is used::

    from simcse_bench.checkpoints import load_encoder
    from simcse_bench.evaluate import evaluate
    from simcse_bench.task import SIMCSE, load_suite
"""

__version__ = "0.1.0"
