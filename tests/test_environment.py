"""The command line where locale, home, user, terminal and standard output are unusual: the same result, or one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny import sentences

import simcse_bench
from simcse_bench.data.corpus import open_corpus
from simcse_bench.data.labelled import read_labelled
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_suites, load_task
from simcse_bench.data.task import Source, Task

TIMEOUT = 120
# without rights but to read what the installation may have locked away from others
STRANGER = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps", "+dac_read_search",
            "--ambient-caps", "+dac_read_search", "--bounding-set", "-all,+dac_read_search"]  # fmt: skip
is_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become an unknown user (and needs setpriv)",
)


@dataclass(frozen=True)
class Place:
    """Surroundings of a command; None removes a variable."""

    env: dict[str, str | None] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    output: str = ""  # a shell's redirection of standard output
    locked_home: bool = False


PLACES = {
    "C locale": Place({"LC_ALL": "C", "PYTHONIOENCODING": None}),
    "bare C locale": Place({"LC_ALL": "C", "PYTHONIOENCODING": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "ascii": Place({"PYTHONIOENCODING": "ascii"}),
    "latin-1": Place({"PYTHONIOENCODING": "latin-1"}),
    "no home": Place({"HOME": None}),
    "nobody": Place({"HOME": None}, prefix=tuple(STRANGER)),
    "read-only home": Place(prefix=tuple(STRANGER), locked_home=True),
    "narrow": Place({"COLUMNS": "20", "TERM": "dumb"}),
    "optimised": Place({"PYTHONOPTIMIZE": "1"}),
    "closed": Place(output=">&-"),
    "full": Place(output="> /dev/full"),
}
COMMANDS = {
    "help": ["--help"],
    "ls": ["ls", "ablations"],
    "report": ["report", "results"],
    "leaderboard": ["leaderboard", "results"],
    "eval": ["eval", "--model", "mini", "--task", "mini-sts", "--limit", "3", "--progress", "none", "--device", "cpu", "--out", "new"],
    "search": ["search", "idx", "犬 – ≥ a dog .", "--threshold", "-1", "--top-k", "3", "--device", "cpu"],
}  # fmt: skip
FAST = {("help", p) for p in ("C locale", "closed", "full")} | {("ls", p) for p in PLACES}


def command(place: Place, arguments, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run it in a folder that anybody may write in."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "LC_", "LANG", "COLUMNS"))}
    env |= {"HOME": str(home), "SIMCSE_BENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(Path(simcse_bench.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}  # fmt: skip
    env = {k: v for k, v in (env | place.env).items() if v is not None}
    words = [*place.prefix, sys.executable, "-m", "simcse_bench", *arguments]
    return subprocess.run(["sh", "-c", f'"$@" {place.output}', "sh", *words], cwd=folder, env=env, capture_output=True,
                          encoding="utf-8", errors="backslashreplace", timeout=TIMEOUT)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a small index, and a report of three pairs."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "text.txt").write_text("\n".join([*sentences(20), "犬が走る – ≥ 3", "Ünïcode"]) + "\n", "utf-8")
    (folder / "home").mkdir()
    for arguments in (
        ["index", "text.txt", "--model", "mini", "--out", "idx", "--progress", "none"],
        [*COMMANDS["eval"][:-1], "results"],
    ):
        done = command(Place(), arguments, folder, folder / "home")
        assert done.returncode == 0, done.stderr
    return folder


def copy(folder, target):
    """A copy in which anybody may write."""
    shutil.copytree(folder, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o777)
    return target


def cases():
    for name in COMMANDS:
        for place, what in PLACES.items():
            marks = [] if (name, place) in FAST else [pytest.mark.slow]
            yield pytest.param(name, place, marks=[*marks, is_root] if what.prefix else marks, id=f"{name}-{place}")


@pytest.fixture(scope="module")
def ordinary():
    """Command -> what it prints in ordinary surroundings."""
    return {}


@pytest.mark.parametrize("name, place", [*cases()])
def test_the_same_result_or_one_line(request, tmp_path, ordinary, name, place):
    (tmp_path / "empty" / "home").mkdir(parents=True)
    start = tmp_path / "empty" if name in ("help", "ls") else request.getfixturevalue("made")
    if name not in ordinary:
        folder = copy(start, tmp_path / "ordinary")
        ordinary[name] = command(Place(), COMMANDS[name], folder, folder / "home").stdout
    folder, what = copy(start, tmp_path / "work"), PLACES[place]
    home = folder / "home"
    home.chmod(0o555 if what.locked_home else 0o777)
    before = {p.name for p in folder.iterdir()}
    done = command(what, COMMANDS[name], folder, home)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert list(home.iterdir()) == []  # none of these commands keeps anything
    assert {p.name for p in folder.iterdir()} - before <= {"new", "cache"}  # no folder of the name ~, no core
    if what.output:
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        assert len(errors) == 1
        assert re.fullmatch(r"error: standard output cannot be written \(.+\); the result is not printed\.", errors[0])
        return
    if (name, place) == ("search", "bare C locale"):  # there Python cannot read the query's signs
        assert done.returncode == 2
        assert "error: sentence 0 is not valid unicode" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    if place in ("no home", "nobody", "read-only home", "optimised"):
        assert done.stdout == ordinary[name]
    numbers = r"\d+\.\d+"
    assert re.findall(numbers, done.stdout) == re.findall(numbers, ordinary[name]) or place == "narrow"
    assert len(done.stdout) > 20


@pytest.mark.slow
def test_json_for_an_encoding_without_the_signs_is_read_back(made):
    arguments = [*COMMANDS["search"], "--format", "json"]
    found = [
        json.loads(command(Place({"PYTHONIOENCODING": encoding}), arguments, made, made / "home").stdout)
        for encoding in ("utf-8", "ascii")
    ]
    assert found[0] == found[1]
    assert found[0][0]["query"] == "犬 – ≥ a dog ."


@is_root
def test_without_a_home_the_data_is_not_lost_in_silence(tmp_path):
    done = command(
        Place({"HOME": None, "SIMCSE_BENCH_CACHE": None}, tuple(STRANGER)), ["data", "where"], tmp_path, tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "error: no cache folder: this user has no home folder. Set SIMCSE_BENCH_CACHE to a folder.\n"


def test_without_docstrings_there_is_neither_help_nor_transformers(tmp_path):
    done = command(Place({"PYTHONOPTIMIZE": "2"}), ["--help"], tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: PYTHONOPTIMIZE=2 (python -OO) removes the docstrings that transformers and --help read. "
        "Unset it, or take 1.\n"
    )


def test_windows_line_ends(tmp_path):
    """Every text that is read: with \\r\\n it is the same."""
    texts = {
        "a.txt": "one dog\ntwo dogs\n",
        "a.csv": 'text,more\none dog,"a, b"\ntwo dogs,c\n',
        "a.tsv": "text\tmore\none dog\ta, b\ntwo dogs\tc\n",
        "a.jsonl": '{"text": "one dog"}\n{"text": "two dogs"}\n',
        "pairs.tsv": "1\ta\tb\n2\tc\td\n",
        "pairs.csv": '1,"a, b",b\n2,c,d\n',
        "STS.input.x": "a\tb\nc\td\n",
        "STS.gs.x": "1\n2\n",
        "sst": "a dog\t1\na cat\t0\n",
        "trec": "HUM:x who ?\nLOC:y where ?\n",
        "mrpc": "q\ti\tj\ta\tb\n1\t1\t2\ta dog\ta cat\n0\t1\t2\ta\tb\n",
        "suites.yaml": "mine: [own]\nother:\n  - own\n",
        "own.yaml": "title: Own\nsource:\n  format: tsv\n  path: pairs.tsv\nsplits:\n  test: {test: 2}\n",
    }
    found = []
    for end in ("\n", "\r\n"):
        folder = tmp_path / repr(end)
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_bytes(text.replace("\n", end).encode())

        def labelled(form, folder=folder, **more):
            source = {"only": Source(form, form, **more)}
            task = Task(
                "t", "T", "transfer", "", source, {"train": {"x": 2}}, labels=("0", "1", "HUM", "LOC"), folder=folder
            )
            return read_labelled(task, None).fingerprint()

        def pairs(form, path, folder=folder):
            task = Task("t", "T", "sts", "", {"only": Source(form, path)}, {"test": {"x": 2}}, folder=folder)
            return read_task_pairs(task, "test", "senteval", None).fingerprint()

        rows = [list(open_corpus(str(folder / f"a.{x}")).rows()) for x in ("txt", "csv", "tsv", "jsonl")]
        found.append((rows, pairs("tsv", "pairs.tsv"), pairs("csv", "pairs.csv"), pairs("semeval", "STS.{part}.{subset}"),
                      labelled("sst"), labelled("trec"), labelled("mrpc", header=True), load_suites(folder)["other"],
                      load_task("own", folder).title))  # fmt: skip
    assert found[0] == found[1]
    assert found[0][0][1] == [("one dog", "a, b"), ("two dogs", "c")]
