"""Work spread over a Ray cluster: the workers compute, this process plans, collects and writes.

What a worker was lost with is done again elsewhere, ``RETRIES`` times. The workers need this package, and what the work
names (models, texts) under the same names and paths.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError, first_line

RETRIES = 3  # of work whose worker was lost
_PASSED_ON = ("SIMCSE_BENCH_DATA", "SIMCSE_BENCH_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT")  # no secrets


@dataclass(frozen=True)
class RayCluster:
    """Which cluster, and what a unit of work takes of it."""

    unit: str  # arm, shard: as the options call it
    address: str | None = None  # None: a Ray of this machine, started and ended with the command
    cpus: float | None = None  # None: as many as the work can use
    gpus: float | None = None  # the same, where the cluster has any


@dataclass(frozen=True)
class Lost:
    """The outcome of work whose worker was lost again and again."""

    reason: str


@dataclass(frozen=True)
class Workers:
    """A cluster that answers."""

    ray: Any  # the package
    resources: dict[str, float]  # that a unit of work takes
    at_once: int  # units that the cluster has room for

    def remote(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function as one that runs on a worker and gives a reference at once, see ``outcome``.

        Relative paths are those of this process's folder, where the worker's machine has it.
        """
        sent = self.ray.remote(**self.resources, max_retries=RETRIES)(_work)
        folder = str(Path.cwd())
        return lambda *given: sent.remote(folder, work, *given)

    def outcome(self, ref: Any) -> Any:
        """What the work gave, or ``Lost``; errors that it raised are raised here."""
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise  # a fault of ours: with its traceback
        except self.ray.exceptions.RayError as error:
            last = first_line(error)
            return Lost(f"its worker was lost {RETRIES + 1} times; the last time: {last}")

    def in_order(self, work: Callable[..., Any], plan: Any, items: Iterable[Any]) -> Iterator[Any]:
        """The outcomes of ``work(plan, item)``, in the order of the items; few are under way at a time."""
        send, shared = self.remote(work), self.ray.put(plan)
        under_way: deque[Any] = deque()
        for item in items:
            under_way.append(send(shared, item))
            if len(under_way) > 2 * self.at_once:
                yield self.outcome(under_way.popleft())
        while under_way:
            yield self.outcome(under_way.popleft())


def _work(folder: str, work: Callable[..., Any], *given: Any) -> Any:
    """On the worker."""
    if Path(folder).is_dir():
        os.chdir(folder)
    return work(*given)


@contextlib.contextmanager
def connected(cluster: RayCluster, cpus: float, gpus: float) -> Iterator[Workers]:
    """The cluster's workers, for as long as the context lasts; ``cpus`` and ``gpus`` that a unit can use.

    Raises:
        UserError: no Ray, no cluster at the address, or none of its machines has what a unit takes.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UserError("--executor ray needs the package ray: `pip install 'simcse-bench[ray]'`.") from None
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
        reason = first_line(error)
        raise UserError(f"--ray-address {cluster.address}: no Ray cluster answers there ({reason}).") from error
    try:
        yield _workers(ray, cluster, cpus, gpus)
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Ray itself looks for a cluster that is not there for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError, UnicodeError) as error:  # the latter of ports and names that cannot be
            raise UserError(
                f"--ray-address {address}: no Ray cluster answers there ({error}). `ray start --head` starts one."
            ) from error


def _workers(ray: Any, cluster: RayCluster, cpus: float, gpus: float) -> Workers:
    """The workers; UserError where no machine has what a unit takes: Ray itself would wait for one for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = cpus if cluster.cpus is None else cluster.cpus
    if cluster.gpus is not None:
        gpus = cluster.gpus
    elif not any(m.get("GPU", 0) for m in machines):
        gpus = 0
    takes = {"CPU": cpus, "GPU": gpus}
    room = [min(int(m.get(k, 0) / v) for k, v in takes.items() if v) if any(takes.values()) else 1 for m in machines]
    if not any(room):
        have = ", ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
        raise UserError(
            f"each {cluster.unit} takes {cpus:g} CPUs and {gpus:g} GPUs, no machine of the cluster has them ({have}). "
            f"Lower --cpus-per-{cluster.unit} or --gpus-per-{cluster.unit}."
        )
    return Workers(ray, {"num_cpus": cpus, "num_gpus": gpus}, sum(room))
