"""What the documentation shows works: its Python is run, its commands and those of --help are understood."""

import configparser
import doctest
import itertools
import json
import re
import shlex
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import simcse_bench
from simcse_bench.__main__ import app
from simcse_bench.cli import console
from simcse_bench.data.registry import load_suites
from simcse_bench.errors import UserError
from simcse_bench.experiments.ablations import Ablation
from simcse_bench.experiments.sweep import grid_ablation, named_ablation, plan_sweep
from simcse_bench.export.run import EXPORT_FORMATS
from simcse_bench.papers.simcse_2021 import Finding
from simcse_bench.reports.report import Report
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.recipes import recipe, with_settings
from simcse_bench.training.run import RunOptions

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "tasks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
GROUP = typer.main.get_command(app)
LAUNCHERS = ("torchrun", "accelerate")  # ... -m simcse_bench COMMAND
_VARIABLE = re.compile(r"[A-Z_]+=")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(group=GROUP, path=()):
    """Every command with its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def blocks(page, *kinds):
    return [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind in kinds]


def prose(page):
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def lines_of(text):
    """The arguments of every command line of ours in a text."""
    for line in text.splitlines():
        if not re.search(r"(^|&& |\$ |[A-Z_]+=\S+ )simcse-bench|-m simcse_bench", line.strip()):
            assert not re.search(r"(?<!`)simcse-bench ", line.partition("#")[0]) or "pip" in line, (
                f"not understood: {line}"
            )
            continue
        for one in line.strip().removeprefix("$ ").split(" && "):
            words = shlex.split(one, comments=True)
            while words and _VARIABLE.match(words[0]):
                words.pop(0)
            if words[:1] == ["simcse-bench"]:
                yield words[1:]
            elif words and words[0] in LAUNCHERS:
                yield words[words.index("simcse_bench") + 1 :]


def in_page(page):
    inline = [span.replace("\n", " ") for span in re.findall(r"`(simcse-bench\s[^`]+)`", prose(page))]
    shown = [text for text in blocks(page, "bash", "text") if "simcse" in text]
    return [words for text in (*shown, *inline) for words in lines_of(text)]


def understood(words):
    """Parse a command line as the command would, and look up its names, without running it."""
    if words[0].startswith("--") or words[0].isupper():  # --version, COMMAND --help
        return
    path = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
    assert path in COMMANDS, f"no such command: {words}"
    if "--help" not in words:
        COMMANDS[path].make_context(path[-1], list(words[len(path) :]))
    pairs = list(itertools.pairwise(words))
    given = dict(pairs)
    settings = [after for word, after in pairs if word == "--set" and not after.endswith("=")]
    with_settings(TrainConfig(), [s for s in settings if path != ("run-ablation",) or ":" not in s.partition("=")[0]])
    if "--recipe" in given:
        recipe(given["--recipe"])
    if path == ("run-ablation",) and len(words) > 1 and not words[1].isupper():
        vary = [after for word, after in pairs if word == "--vary"]
        start = given.get("--recipe", "mini-unsup")
        ablation = grid_ablation(words[1], start, vary) if vary else named_ablation(words[1])
        own = [s for s in settings if ":" in s.partition("=")[0]]  # arm:field=value
        plan_sweep(ablation, start if vary else "mini", 1, own, (), Path("x"), RunOptions(Path("x")))
    if "--suite" in given and not given["--suite"].startswith("mteb:"):
        assert set(given["--suite"].split(",")) <= {*load_suites(), "all"}
    if "--to" in given:
        assert set(given["--to"].split("|")) <= set(EXPORT_FORMATS)


def test_python_page():
    found = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 40


def test_other_python_can_be_read():
    shown = [text for page in PAGES for text in blocks(page, "python") if ">>>" not in text]
    assert len(shown) >= 3
    for text in shown:
        compile(text, "page", "exec")


def test_the_ablation_of_the_page(tmp_path):
    (text,) = blocks(ROOT / "docs" / "ablations.md", "python")
    ablation = eval(text, {"Ablation": Ablation, "Finding": Finding})
    assert len(plan_sweep(ablation, "mini", 1, (), (), tmp_path, RunOptions(tmp_path)).trials) == 3


def test_the_packages_own_example():
    text = re.search(r"::\n\n(.*?)\n\n\w", simcse_bench.__doc__, re.DOTALL).group(1)
    space = {}
    exec(compile(textwrap.dedent(text), "docstring", "exec"), space)
    assert list(space["report"].tasks) == ["mini-sts"]


def test_commands_of_the_pages():
    shown = [words for page in PAGES for words in in_page(page)]
    assert len(shown) > 60
    for words in shown:
        understood(words)
    assert {path[0] for path in COMMANDS} <= {words[0] for words in shown}


def test_commands_of_the_committed_pages_on_models():
    pages = sorted((ROOT / "results" / "models").glob("*.md"))
    if not pages:
        pytest.skip("no results/ here: this is no checkout")
    shown = [words for page in pages for words in in_page(page)]
    assert len(shown) > 20
    for words in shown:
        understood(words)


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_help_has_examples(path):
    examples = list(lines_of(COMMANDS[path].help or ""))
    assert any(tuple(words[: len(path)]) == path for words in examples)
    for words in examples:
        understood(words)


@pytest.mark.parametrize(
    "line",
    [
        "eval --modle x", "evaluate --model x", "search only-an-index", "run-ablation droput", "eval --model x --suite sst",
        "train --out x --set sed=1", "train --out x --recipe unsup", "export x --out y --to onyx",
        "run-ablation mine --vary sed=1,2", "run-ablation mine --vary seed=1,2",
    ],
)  # fmt: skip
def test_a_wrong_example_would_be_found(line):
    # click's own classes lie elsewhere in every version of typer
    with pytest.raises(Exception) as found:
        understood(line.split())
    kind = type(found.value)
    assert issubclass(kind, (AssertionError, UserError)) or "UsageError" in {c.__name__ for c in kind.__mro__}


def test_options_in_prose_exist():
    known = {o for c in (*COMMANDS.values(), GROUP) for p in c.params for o in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--install-completion"}
    used = {
        option
        for page in PAGES
        for span in re.findall(r"`([^`]*--[a-z][^`]*)`", prose(page))
        if "simcse_bench" not in span
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)
    }
    assert len(used) > 30
    assert used <= known


def test_links_lead_somewhere():
    if not (ROOT / "results").is_dir():
        pytest.skip("no results/ here: this is no checkout")
    links = [
        (page, target) for page in PAGES for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    here = [(page, target) for page, target in links if not target.startswith("http")]
    assert len(here) > 20
    assert [target for page, target in here if not (page.parent / target).exists()] == []


def test_extras_and_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    extras = re.findall(r"extras? `(\w+)`", text)
    extras += [name for names in re.findall(r"\"\.\[([\w,]+)\]\"", text) for name in names.split(",")]
    assert len(extras) > 4
    assert set(extras) <= set(project["optional-dependencies"])
    assert f"version: {simcse_bench.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_version(cli):
    assert cli("--version").out == f"simcse-bench {simcse_bench.__version__}\n"


def test_the_committed_results_do_not_stand_in_the_way_of_the_first_commands():
    """In a checkout, what the pages show writes into results/ too: other results there would be refused, not mixed."""
    for path in ("ablations", "mini", "mini-transfer", "analysis", "simcse-2021-mini", "simcse-2021-paper"):
        committed = subprocess.run(["git", "ls-files", f"results/{path}"], cwd=ROOT, capture_output=True, text=True)
        if committed.returncode:
            pytest.skip("no git here: this is no checkout")
        assert committed.stdout == ""


# --- what checks and packs the repository elsewhere

WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="the workflows are in the repository only")
def test_the_workflow_checks_every_python_of_the_package_and_publishes_without_a_token():
    text = (WORKFLOWS / "checks.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    versions = [c.rsplit(" ", 1)[1] for c in classifiers if c.startswith("Programming Language :: Python :: 3.")]
    assert jobs["test"]["strategy"]["matrix"]["python-version"] == versions == ["3.11", "3.12", "3.13"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"python -m build", "twine check --strict dist/*"} <= set(commands)
    asked = {name for c in commands if c.startswith("tox -e ") for name in c.removeprefix("tox -e ").split(",")}
    assert asked == {"lint", "type", "results", "tests"}
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    assert {f"testenv:{name}" for name in asked} <= set(tox.sections())
    for name in asked:  # the one environment of the README's command runs them all
        assert f"{{[testenv:{name}]commands}}" in tox["testenv:check"]["commands"]
    assert all("-c constraints.txt" in command for command in commands if command.startswith("pip install"))
    release = jobs["release"]
    assert workflow[True]["push"]["tags"] == ["v*"]  # YAML 1.1 reads `on` as true
    assert release["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(release["needs"]) == set(jobs) - {"release"}
    assert (release["environment"], release["permissions"]) == ("pypi", {"id-token": "write"})
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for name, job in jobs.items() if name != "release")
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"(actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1)", name) for name in used)
    assert "secrets." not in text


@pytest.mark.skipif(not (ROOT / "Dockerfile").is_file(), reason="the Dockerfile is in the repository only")
def test_the_dockerfile_copies_what_the_wheel_is_made_of_and_runs_the_command_as_no_root():
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    assert lines.index("USER user") < lines.index('ENTRYPOINT ["simcse-bench"]')
    copied = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert copied == {"simcse_bench", "tasks", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_readme_shows_of_an_evaluation_is_what_is_printed(capsys):
    report = Report.load(ROOT / "results" / "sts" / "sentence-transformers__all-MiniLM-L6-v2--mteb.json")
    console.print_reports([report], "spearman", "all", "table")
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (shown,) = (text for _, text in _BLOCK.findall(PAGES[0].read_text(encoding="utf-8")) if "STS12" in text)
    lines = [line.rstrip() for line in shown.splitlines()[1:] if line.strip()]
    assert len(lines) == 8
    assert [line for line in lines if line not in printed] == []


def test_the_readmes_table_of_speed_is_that_of_the_figures():
    def times(name):
        rows = json.loads((ROOT / "results" / "speed" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        return {(row["what"], row["dtype"]): row["median"] for row in rows}

    engines = ("sentence-transformers", "OpenVINO", "ONNX Runtime")
    wanted = [("eval-cpu", None, engines[0], "")]
    for model, beside in (("all-MiniLM-L6-v2", ""), ("all-MiniLM-L6-v2", ", beside another"), ("base", "")):
        files = [f"engines-{model}-cpu-{machine}" for machine in ("amd", "intel")]
        wanted += [(*files, engine, beside) for engine in engines]
    text = PAGES[0].read_text(encoding="utf-8").partition("## Speed")[2].partition("Sources:")[0]
    shown = [[cell.strip() for cell in line.strip("| ").split("|")][-4:] for line in text.splitlines() if "|" in line][
        2:
    ]
    assert len(shown) == len(wanted) + 2  # and the trainer's
    for (amd, intel, peer, beside), (said, *cells) in zip(wanted, shown, strict=False):
        assert said == peer
        for name, dtype, cell in zip((amd, amd, intel), ("float32", "bfloat16", "float32"), cells, strict=True):
            found = times(name) if name else {}
            theirs, ours = found.get((peer + beside, dtype)), found.get(("simcse-bench" + beside, dtype))
            assert cell == (f"{theirs / ours:.{len(cell) - 2}f}" if theirs else "–")
    for name, (said, *cells) in zip(("train-wikipedia-cpu", "train-nli_triplets-cpu"), shown[-2:], strict=True):
        assert said == "sentence-transformers' trainer"
        found = times(name)
        for dtype, cell in zip(("float32", "bfloat16"), cells, strict=False):
            assert cell == f"{found['sentence-transformers', dtype] / found['simcse-bench', dtype]:.1f}"
