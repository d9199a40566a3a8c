"""Imports point one way: a module may import only modules above it in this list."""

import ast
import subprocess
import sys
from pathlib import Path

import simcse_bench

ORDER = [
    "__init__", "errors", "catalog", "ablations", "paper", "config", "task", "embedded", "hub", "archive",
    "hub_datasets", "data", "labelled", "metrics", "stats", "comparison", "worst",
    "geometry", "classifiers", "probe", "transfer", "weights", "kernels", "checkpoints", "encoders", "loading",
    "baselines",
    "models", "report", "published", "render", "tables", "mteb_report", "fonts", "plots", "pages",
    "analysis_pages", "reproduction_pages", "website",
    "regenerate", "evaluate", "mteb_adapter", "mteb_cache", "mteb_selection", "mteb_suite", "bench", "dry_run",
    "versus", "verification", "text_formats", "corpus", "index", "saved_index", "simcse", "demo",
    "augment", "tokenised", "losses", "training_kernels", "sentence_model", "processes", "gradients", "optimiser",
    "export", "run_folder", "encode_file", "selection", "analysis", "job", "train", "tracking", "launch",
    "parity", "onnx_graph", "exporting", "card_usage", "model_card", "publish", "plan", "trial", "sweep",
    "ray_executor", "summary", "listing", "progress", "sweep_progress", "reproduction_steps", "reproduction",
    "console",
    "comparing_commands", "data_commands", "mteb_command", "training_commands", "paper_commands", "export_commands",
    "search_commands", "__main__",
]  # fmt: skip
PACKAGE = Path(simcse_bench.__file__).parent


def imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    checked_only = {id(n) for guard in guards for n in ast.walk(guard)}
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "simcse_bench":
            below = (node.module or "").split(".")[1:]
            yield from below[:1] or [alias.name for alias in node.names]


def test_imports_point_one_way():
    assert {p.stem for p in PACKAGE.glob("*.py")} == set(ORDER)
    for path in PACKAGE.glob("*.py"):
        for name in imports(path):
            assert ORDER.index(name) < ORDER.index(path.stem), f"{path.stem} imports {name}"


def test_importing_the_package_loads_nothing():
    code = "import sys, simcse_bench; print([m for m in sys.modules if m.startswith('simcse_bench') or m == 'torch'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "['simcse_bench']"


def test_tasks_are_found_inside_the_package_or_beside_it():
    from simcse_bench.task import builtin_tasks_dir

    assert (builtin_tasks_dir() / "sts12.yaml").is_file()
