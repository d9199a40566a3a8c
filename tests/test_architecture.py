"""Imports point one way through the rooms, no module imports in a circle, and importing the package loads nothing."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import simcse_bench

# lowest first: a module may import from its own room and from those before it
ORDER = ["errors", "files", "schema", "bundled", "hub", "progress", "threads", "cluster", "data", "models", "papers", "reports", "evaluation", "training",
         "search", "export", "experiments", "doctor", "cli", "__main__"]  # fmt: skip
APART = ("search", "export", "experiments")  # these do not know each other
PACKAGE = Path(simcse_bench.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path):
    """Modules of ours that a module imports, anywhere in it but for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    checked_only = {id(n) for guard in guards for n in ast.walk(guard)}
    for node in ast.walk(tree):
        if id(node) in checked_only or not isinstance(node, ast.ImportFrom):
            continue
        first, *below = (node.module or "").split(".")
        if first == "simcse_bench":
            base = ".".join(below)
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                if whole in MODULES or base in MODULES:
                    yield whole if whole in MODULES else base


def room(module):
    return module.partition(".")[0]


def test_every_module_has_a_room():
    assert {room(module) for module in MODULES} == set(ORDER)
    assert len([m for m in MODULES if not m.startswith("training.methods.")]) <= 150  # a method is a module


def test_imports_point_one_way():
    for module, path in MODULES.items():
        for name in imports(path):
            here, there = room(module), room(name)
            assert ORDER.index(there) <= ORDER.index(here), f"{module} imports {name}"
            assert here == there or not {here, there} <= set(APART), f"{module} imports {name}"


def test_no_module_imports_in_a_circle():
    graph = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 200
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_command_line_of_ours_is_started_from_within():
    """A subprocess of `-m simcse_bench` would be an import of the highest room in disguise."""
    for module, path in MODULES.items():
        assert not re.search(r"""["']simcse_bench["'],""", path.read_text("utf-8")), module


def test_each_room_has_a_map():
    for folder in {path.parent for path in MODULES.values()} - {PACKAGE}:
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        text = ast.get_docstring(tree)
        assert len(tree.body) == 1, f"{folder.name}: an __init__ holds its docstring only"
        for path in folder.glob("*.py"):
            assert path.stem == "__init__" or f"``{path.stem}``" in text, path


def test_importing_the_package_loads_nothing():
    code = (
        "import sys, simcse_bench; print([m for m in sys.modules if m.startswith(('simcse_bench', 'torch', 'numpy'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "['simcse_bench']"


def test_tasks_are_found_inside_the_package_or_beside_it():
    from simcse_bench.bundled import builtin_tasks_dir

    assert (builtin_tasks_dir() / "sts12.yaml").is_file()


WHOLE = {
    "cli/test_help",
    "search/test_damage",
    "evaluation/test_real_data",
    "evaluation/mteb/test_oracle",
    "models/test_seed_models",
    "training/test_gpu",
}  # of no single module


def test_every_slow_test_is_there():
    here = Path(__file__).parent
    named = (here / "slow.txt").read_text(encoding="utf-8").split()
    for test in named:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (here / path).read_text(encoding="utf-8"), test
    assert named == sorted(set(named))


def test_tests_lie_in_the_rooms_of_their_modules():
    here = Path(__file__).parent
    found = {path.relative_to(here).with_suffix("") for path in here.glob("*/**/test_*.py")}
    homeless = {
        p.as_posix() for p in found if not (PACKAGE / p.parent / f"{p.name.removeprefix('test_')}.py").is_file()
    }
    assert homeless == WHOLE
    assert len(found) > 40
