"""Trials on a Ray cluster: the workers train and measure, this process plans, collects and writes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import Stopped, UserError
from simcse_bench.experiments.sweep import Sweep, Trial
from simcse_bench.experiments.trial import TrialResult, failed_trial, run_trial

if TYPE_CHECKING:
    from simcse_bench.experiments.run import ShowTrial
    from simcse_bench.progress import Show

RETRIES = 3  # of a trial whose worker was lost; each goes on from the trial's checkpoint where it can be reached
_POLL = 0.5  # seconds between two looks at the cluster
_PATIENCE = 120.0  # seconds for the checkpoints after Ctrl-C
_PASSED_ON = ("SIMCSE_BENCH_DATA", "SIMCSE_BENCH_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT")  # no secrets


@dataclass(frozen=True)
class RayCluster:
    """Which cluster, and what a trial takes of it."""

    address: str | None = None  # None: a Ray of this machine, started and ended with the command
    cpus: float = 1
    gpus: float | None = None  # None: one for each process where the cluster has any, unless the device is cpu


def run_on_ray(
    sweep: Sweep, trials: Sequence[Trial], force: bool, show_trial: ShowTrial, cluster: RayCluster
) -> Iterator[tuple[Trial, TrialResult]]:
    """The trials and their outcomes, as they end.

    A lost worker's trial is tried again elsewhere, ``RETRIES`` times. The workers need this package, the model and the
    training text under the same names and paths; on a shared file system they share token cache and checkpoints too.

    Raises:
        UserError: no Ray, no cluster at the address, or none of its machines has what a trial takes.
        Stopped: after Ctrl-C, when the running trials have left their checkpoints.
    """
    ray = _ray()
    with _connected(ray, cluster):
        takes = _takes(ray, cluster, sweep)
        from ray.util.queue import Queue

        news = Queue(actor_options={"num_cpus": 0})
        plan = ray.put((dataclasses.replace(sweep, folder=sweep.folder.absolute()), force, str(Path.cwd())))
        work = ray.remote(**takes, max_retries=RETRIES)(_work)
        waiting = {work.remote(plan, trial, news): trial for trial in trials}
        named = {trial.path.stem: trial for trial in trials}
        shown: dict[str, Show] = {}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=_POLL)
                for name, entry in news.get_nowait_batch(news.qsize()):
                    if entry:
                        shown[name](entry)
                    else:  # also after the loss of a worker
                        shown[name] = show_trial(named[name], "running")
                for ref in done:
                    trial = waiting.pop(ref)
                    yield trial, _result(ray, ref, sweep, trial)
        except KeyboardInterrupt:
            for ref in waiting:
                ray.cancel(ref)
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_PATIENCE)
            raise Stopped("stopped; the same command goes on.", 130) from None


def _work(plan: tuple[Sweep, bool, str], trial: Trial, news: Any) -> TrialResult:
    """On the worker."""
    sweep, force, folder = plan
    if Path(folder).is_dir():  # relative paths are those of the command's folder, where this machine has it
        os.chdir(folder)

    def show(entry: Mapping[str, Any]) -> None:
        news.put((trial.path.stem, dict(entry)))

    show({})  # running
    return run_trial(sweep, trial, force, show)


def _result(ray: Any, ref: Any, sweep: Sweep, trial: Trial) -> TrialResult:
    try:
        return ray.get(ref)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError:  # a fault of ours: with its traceback
        raise
    except ray.exceptions.RayError as error:
        lost = str(error).strip().splitlines()[0]
        return failed_trial(sweep, trial, f"its worker was lost {RETRIES + 1} times; the last time: {lost}")


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs the package ray: `pip install 'simcse-bench[ray]'`.") from None
    return ray


@contextlib.contextmanager
def _connected(ray: Any, cluster: RayCluster) -> Iterator[None]:
    _check_address(cluster.address)
    # a Ray of our own reports nothing to its makers
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    passed_on = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
    own: dict[str, Any] = {} if cluster.address else {"include_dashboard": False}
    try:
        ray.init(
            address=cluster.address or "local", runtime_env={"env_vars": passed_on}, log_to_driver=False,
            logging_level="ERROR", **own,
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--ray-address {cluster.address}: no Ray cluster answers there ({reason}).") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Ray itself looks for a cluster that is not there for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UserError(
                f"--ray-address {address}: no Ray cluster answers there ({error}). `ray start --head` starts one."
            ) from error


def _takes(ray: Any, cluster: RayCluster, sweep: Sweep) -> dict[str, float]:
    """CPUs and GPUs of a trial.

    Raises:
        UserError: no machine of the cluster has so many; Ray itself would wait for one for ever.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus
    if gpus is None:
        there = sweep.options.device != "cpu" and any(m.get("GPU", 0) for m in machines)
        gpus = sweep.processes if there else 0
    if not any(m.get("CPU", 0) >= cluster.cpus and m.get("GPU", 0) >= gpus for m in machines):
        have = ", ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
        raise UserError(
            f"a trial takes {cluster.cpus:g} CPUs and {gpus:g} GPUs, and no machine of the cluster has them ({have}). "
            "Lower --cpus-per-arm or --gpus-per-arm."
        )
    return {"num_cpus": cluster.cpus, "num_gpus": gpus}
