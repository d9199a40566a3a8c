"""encode on a Ray of this machine: byte for byte what one process writes, also when a worker is killed."""

import math
import os
import signal
import time
from pathlib import Path

import pytest
from processes import PATIENCE, finished, kept, start_command
from tiny import sentences

from simcse_bench import cluster
from simcse_bench.cli import console
from simcse_bench.cluster import RayCluster
from simcse_bench.errors import UserError
from simcse_bench.search.ray import embed_on_ray
from simcse_bench.search.simcse import SimCSE

LINES = 40_000  # ten blocks: enough to be stopped among them


@pytest.fixture
def start(bert, tmp_path):
    """Start `encode`; output goes to <out>.err."""
    (tmp_path / "text.txt").write_text(
        "\n".join(
            f"{a} {i % 7} {b}" for i, (a, b) in enumerate(zip(sentences(LINES), sentences(LINES, seed=1), strict=True))
        )
    )
    running = []

    def run(out, *args):
        command = ["encode", "text.txt", "--model", bert, "--pooling", "mean", "--device", "cpu", "--progress", "plain",
                   "--out", out, *args]  # fmt: skip
        process = start_command(
            command, Path(f"{out}.err"), {"SIMCSE_BENCH_CACHE": str(tmp_path / "cache")}, warm=False
        )
        running.append(process)
        return process

    with kept(running):
        yield run


def workers(tmp_path):
    """Process numbers of this test's Ray workers that embed."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes().startswith(b"ray::_work")
            if named and str(tmp_path).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(start, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    finished(start("one.npy"), "one.npy")
    process, end = start("ray.npy", "--executor", "ray"), time.monotonic() + PATIENCE
    while not workers(tmp_path):
        assert process.poll() is None, Path("ray.npy.err").read_text()
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(workers(tmp_path)[0], signal.SIGKILL)
    finished(process, "ray.npy")
    for name in ("{}.npy", "{}.npy.json"):
        assert Path(name.format("ray")).read_bytes() == Path(name.format("one")).read_bytes()
    assert not workers(tmp_path)


@pytest.mark.slow
def test_begun_on_ray_it_is_ended_here(start):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    finished(start("one.npy"), "one.npy")
    process, end = start("two.npy", "--executor", "ray"), time.monotonic() + PATIENCE
    while "embedding 20 %" not in Path("two.npy.err").read_text():
        assert process.poll() is None, Path("two.npy.err").read_text()
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = finished(process, "two.npy", 130)
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert "going on after" in finished(start("two.npy"), "two.npy")
    assert Path("two.npy").read_bytes() == Path("one.npy").read_bytes()


@pytest.mark.slow
def test_what_is_wrong_on_a_worker_is_told_here(start, bert):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    said = finished(start("a.npy", "--executor", "ray", "--cpus-per-shard", "5000"), "a.npy", 2)
    assert "each shard takes 5000 CPUs and 0 GPUs, no machine of the cluster has them" in said
    assert "Lower --cpus-per-shard" in said
    model = SimCSE(str(bert), pooling="mean", device="cpu")
    model.provenance = model.provenance | {"files": {"model.safetensors": "0" * 16}}
    with pytest.raises(UserError, match=r"another model on a worker than here"):
        list(embed_on_ray(model, iter([["a"]]), True, RayCluster("shard", cpus=1)))


def test_the_options_belong_together(bert):
    assert console.ray_cluster("local", "shard", None, None, None) is None
    assert console.ray_cluster("ray", "shard", "h:1", None, 2) == RayCluster("shard", "h:1", None, 2)
    with pytest.raises(UserError, match="unknown executor 'rai'; did you mean 'ray'"):
        console.ray_cluster("rai", "shard", None, None, None)
    with pytest.raises(UserError, match="--cpus-per-shard and --gpus-per-shard belong to --executor ray"):
        console.ray_cluster("local", "shard", None, 1, None)
    for amount in (-1.0, math.nan, math.inf, 1.5, 0.00001):
        with pytest.raises(UserError, match=r"^--gpus-per-shard .*: expected a whole number, or a part of 1"):
            console.ray_cluster("ray", "shard", None, None, amount)
    assert console.ray_cluster("ray", "shard", None, 0.25, 0) == RayCluster("shard", None, 0.25, 0)
    for address in ("head..local:6379", f"{'h' * 70}:6379", "localhost:99999"):
        with pytest.raises(UserError, match=f"--ray-address {address}: no Ray cluster answers there"):
            cluster._check_address(address)
    model = SimCSE(str(bert), pooling="mean", device="cpu", max_length=12)
    assert SimCSE(**model.recipe).recipe == model.recipe
    model.model_name_or_path = object()
    with pytest.raises(UserError, match="give its name, not an object"):
        next(embed_on_ray(model, iter(()), True, RayCluster("shard")))
