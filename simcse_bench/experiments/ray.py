"""Trials on a Ray cluster: the workers train and measure, this process plans, collects and writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simcse_bench.cluster import Lost, RayCluster, connected
from simcse_bench.errors import Stopped
from simcse_bench.experiments.sweep import Sweep, Trial
from simcse_bench.experiments.trial import TrialResult, failed_trial, run_trial

if TYPE_CHECKING:
    from simcse_bench.experiments.run import ShowTrial
    from simcse_bench.progress import Show

_POLL = 0.5  # seconds between two looks at the cluster
_PATIENCE = 120.0  # seconds for the checkpoints after Ctrl-C


def run_on_ray(
    sweep: Sweep, trials: Sequence[Trial], force: bool, show_trial: ShowTrial, cluster: RayCluster
) -> Iterator[tuple[Trial, TrialResult]]:
    """The trials and their outcomes, as they end.

    A lost worker's trial is tried again elsewhere; it goes on from the trial's checkpoint where that can be reached: on
    a shared file system the workers share token cache and checkpoints.

    Raises:
        UserError: see ``cluster.connected``.
        Stopped: after Ctrl-C, when the running trials have left their checkpoints.
    """
    with connected(cluster, 1, 0 if sweep.options.device == "cpu" else sweep.processes) as workers:
        ray = workers.ray
        from ray.util.queue import Queue

        news = Queue(actor_options={"num_cpus": 0})
        plan = ray.put((dataclasses.replace(sweep, folder=sweep.folder.absolute()), force))
        send = workers.remote(_run)
        waiting = {send(plan, trial, news): trial for trial in trials}
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
                    trial, result = waiting.pop(ref), workers.outcome(ref)
                    yield trial, failed_trial(sweep, trial, result.reason) if isinstance(result, Lost) else result
        except KeyboardInterrupt:
            for ref in waiting:
                ray.cancel(ref)
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_PATIENCE)
            raise Stopped("stopped; the same command goes on.", 130) from None


def _run(plan: tuple[Sweep, bool], trial: Trial, news: Any) -> TrialResult:
    """On the worker."""
    sweep, force = plan

    def show(entry: Mapping[str, Any]) -> None:
        news.put((trial.path.stem, dict(entry)))

    show({})  # running
    return run_trial(sweep, trial, force, show)
