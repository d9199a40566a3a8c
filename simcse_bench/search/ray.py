"""Blocks of a file embedded on a Ray cluster: this process reads and writes, in the file's order."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench.cluster import Lost, RayCluster, connected
from simcse_bench.errors import UserError
from simcse_bench.models.identity import deciding
from simcse_bench.search.encode_file import Embedded, embed_block
from simcse_bench.search.simcse import SimCSE


@dataclass(frozen=True)
class _Plan:
    """What a worker needs for every block."""

    recipe: Mapping[str, Any]
    deciding: Mapping[str, Any]  # of the model here
    normalize: bool
    threads: int  # batches are cut by it, and rounding differs by the batch


def embed_on_ray(
    model: SimCSE, blocks: Iterator[list[str]], normalize: bool, cluster: RayCluster
) -> Iterator[Embedded]:
    """The vectors of every block, in order, as ``encode_file.embed_here`` gives them.

    They are the same, byte for byte, where the workers' machines round as this one does: each takes as many threads.

    Raises:
        UserError: see ``cluster.connected``; another model under that name on a worker; a worker that is lost again
            and again.
    """
    import torch

    recipe = model.recipe
    if not isinstance(recipe["model_name_or_path"], str):
        raise UserError("--executor ray: the workers load the model themselves; give its name, not an object.")
    plan = _Plan(recipe, deciding(model.provenance), normalize, torch.get_num_threads())
    with connected(cluster, plan.threads, 0 if recipe["device"] == "cpu" else 1) as workers:
        for outcome in workers.in_order(_embed, plan, blocks):
            if isinstance(outcome, Lost):
                raise UserError(f"a block of sentences was not embedded: {outcome.reason}. The same command goes on.")
            yield outcome


def _embed(plan: _Plan, block: Sequence[str]) -> Embedded:
    """On the worker, which keeps the model for its next block."""
    import torch

    torch.set_num_threads(plan.threads)
    model = _load(tuple(plan.recipe.items()))
    if deciding(model.provenance) != plan.deciding:
        raise UserError(
            f"{plan.recipe['model_name_or_path']}: another model on a worker than here (files, settings or dtype). "
            "Give the workers the same one under this name."
        )
    return embed_block(model, block, plan.normalize)


@functools.lru_cache(maxsize=1)
def _load(recipe: tuple[tuple[str, Any], ...]) -> SimCSE:
    return SimCSE(**dict(recipe))
