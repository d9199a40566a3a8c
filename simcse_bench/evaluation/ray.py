"""Suites on a Ray cluster: a worker embeds and scores each; this process reads the data, checks and saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simcse_bench.cluster import Lost, RayCluster, connected
from simcse_bench.errors import UserError
from simcse_bench.evaluation.run import EvaluationPlan, Scored, run_evaluation, save_scores, score_plan
from simcse_bench.models.open import open_model
from simcse_bench.progress import Say, silent
from simcse_bench.reports.report import Report


def run_on_ray(
    plans: Sequence[EvaluationPlan], recipe: Mapping[str, Any], cluster: RayCluster, say: Say = silent
) -> Iterator[Report]:
    """Evaluate and save, as ``run_evaluation`` does; the reports in the order of the plans.

    Args:
        plans: of one model; their data goes to the workers with them.
        recipe: the arguments of ``open_model``, with which the workers open it themselves.
        cluster: each suite takes as many CPUs as threads are used here, so that batches, and rounding, are the same.
        say: see ``run_evaluation``.

    Raises:
        UserError: see ``cluster.connected``; another model under that name on a worker; a worker that is lost again
            and again.
    """
    import torch

    missing = [plan for plan in plans if plan.existing is None]
    if not missing:
        yield from (run_evaluation(plan) for plan in plans)
        return
    threads = torch.get_num_threads()
    with connected(cluster, threads, 0 if recipe["device"] == "cpu" else 1) as workers:
        sent: Any = (dict(recipe), threads)
        items = (dataclasses.replace(plan, model=None) for plan in missing)  # type: ignore[arg-type]
        outcomes = workers.in_order(_score, sent, items)
        for plan in plans:
            if plan.existing is not None:
                yield run_evaluation(plan)
                continue
            outcome = next(outcomes)
            if isinstance(outcome, Lost):
                raise UserError(f"suite {plan.suite}: {outcome.reason}. The same command goes on.")
            scored, notes = outcome
            for note in notes:
                say(note)
            yield save_scores(plan, scored)


def _score(sent: tuple[dict[str, Any], int], plan: EvaluationPlan) -> tuple[Scored, list[str]]:
    """On the worker: the scores, and what was said of them."""
    import torch

    recipe, threads = sent
    torch.set_num_threads(threads)
    said: list[str] = []
    return score_plan(plan, open_model(**recipe).load(), said.append), said
