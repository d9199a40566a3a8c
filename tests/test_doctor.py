"""`simcse-bench doctor`: what is here, what is missing, what that costs and what mends it; it never fails."""

import json
import tomllib
from pathlib import Path

import pytest

from simcse_bench import doctor
from simcse_bench.data.senteval import DataSource
from simcse_bench.doctor import MISSING, OK, PROBLEM


def by_name(findings):
    return {finding.what: finding for finding in findings}


def test_the_command_looks_at_everything_and_writes_nothing(cli, tmp_path):
    done = cli("doctor", "--json")
    assert done.code == 0, done.err
    found = {entry["what"]: entry for entry in json.loads(done.out)}
    assert set(found) >= {
        "versions", "torch", "processor", "kernels, float32", "kernels, bfloat16", "data", "data, other languages",
        "data, embedded", "cache, data", "cache, models", "disk", "results", *(f"extra {e}" for e in doctor.EXTRAS),
    }  # fmt: skip
    assert all(set(e) == {"what", "state", "here", "costs", "mend"} for e in found.values())
    assert {e["state"] for e in found.values()} <= {OK, MISSING, PROBLEM}
    assert "torch " in found["versions"]["here"]
    assert found["data"]["state"] == MISSING
    assert found["data"]["mend"].startswith("simcse-bench data fetch")
    assert found["data, embedded"]["state"] == OK
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_says_its_cost(cli):
    done = cli("doctor")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "no data in SentEval's layout is configured or cached without it: no published number" in text
    for finding in doctor.examine():
        assert finding.state == OK or finding.costs or finding.what == "results", finding


def test_data_is_told_task_by_task(senteval):
    found = by_name(doctor._data(DataSource(senteval)))
    assert found["data"].here == f"{senteval} (--data-dir)"
    assert (found["data, sts"].state, found["data, sts"].here) == (OK, "7 of 7 tasks")
    transfer = found["data, transfer"]
    assert (transfer.state, transfer.here.startswith("0 of 7 tasks; without mr, cr")) == (MISSING, True)
    assert "no average of suite transfer" in transfer.costs
    assert "simcse-bench data fetch" in transfer.mend


def test_a_folder_without_data_is_a_problem_and_no_end(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMCSE_BENCH_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "_kernels", lambda: iter(()))
    found = by_name(doctor.examine())
    assert found["data"].state == PROBLEM
    assert "no data found there" in found["data"].here
    assert found["results"].state == OK
    assert "Problems: data." in doctor.doctor_table(list(found.values())).notes[0]


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def broken():
        yield doctor.Finding("torch", OK, "so far")
        raise RuntimeError("libtorch is damaged\nand more")

    monkeypatch.setattr(doctor, "_torch", broken)
    monkeypatch.setattr(doctor, "_kernels", lambda: (_ for _ in ()).throw(ImportError("no module")))
    found = [(f.what, f.state, f.here) for f in doctor.examine()]
    assert ("torch", OK, "so far") in found
    assert ("torch", PROBLEM, "cannot be looked at: libtorch is damaged") in found
    assert ("kernels", PROBLEM, "cannot be looked at: no module") in found
    assert "results" in {what for what, _, _ in found}


def test_kernels_that_disagree_are_told(monkeypatch):
    from simcse_bench.models import cpu_kernels, loading

    monkeypatch.setattr(cpu_kernels, "supported", lambda dtype: True)
    monkeypatch.setattr(loading, "_quickened", lambda model, expected: False)
    first = next(doctor._kernels())
    assert (first.state, first.here.startswith("torch's own: ours do not give")) == (PROBLEM, True)
    monkeypatch.setattr(cpu_kernels, "supported", lambda dtype: False)
    assert {f.state for f in doctor._kernels()} == {MISSING}


@pytest.mark.parametrize(
    ("threads", "cores", "state", "mend"),
    [(1, 4, OK, "unset OMP_NUM_THREADS"), (8, 2, PROBLEM, "export OMP_NUM_THREADS=2"), (4, 4, OK, "")],
)
def test_threads(monkeypatch, threads, cores, state, mend):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (cores + 2.5, 0, 0), raising=False)
    first, load = doctor._processor()
    assert (first.state, first.mend) == (state, mend)
    assert load.here == f"{cores + 2.5:.1f} processes compute on {cores} cores"


def test_every_extra_for_users_is_looked_at(monkeypatch):
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"test", "dev"}
    assert set(doctor.EXTRAS) == extras
    monkeypatch.setattr(doctor, "_version", lambda package: "")
    found = by_name(doctor._extras())
    assert {f.state for f in found.values()} == {MISSING}
    assert found["extra onnx"].here == "not installed: onnx, onnxruntime, onnxscript"
    assert found["extra search"].mend == 'pip install "simcse-bench[search]"'


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    (found,) = doctor._results(tmp_path / "file" / "results")
    assert (found.state, found.mend) == (PROBLEM, "--out FOLDER")


def test_a_caches_size_is_a_lower_bound_where_it_takes_long(tmp_path, monkeypatch):
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 500_000)
    assert doctor._size(tmp_path) == "1.5 MB in 3 files"
    monkeypatch.setattr(doctor, "_SECONDS", -1)
    assert doctor._size(tmp_path) == "more than 0.5 MB"
    assert doctor._size(tmp_path / "none") == "not there yet"
