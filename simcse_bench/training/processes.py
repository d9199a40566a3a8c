"""Processes of a training run: one, or several under `accelerate launch` or torchrun; gathering across them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from simcse_bench.errors import UserError, unknown
from simcse_bench.models.loading import torch_device
from simcse_bench.training.config import GATHERS

_PATIENCE = timedelta(hours=12)  # the others wait while the first one tokenises a corpus, or fills masks in it


@dataclass(frozen=True)
class Processes:
    """This process among all of a run."""

    rank: int
    count: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This process's part of a batch of so many rows: consecutive, sizes that differ by one at most."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        anywhere = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(anywhere, dist.ReduceOp.MAX)
        return bool(anywhere)


def join_processes(device: str = "auto") -> Processes:
    """This process, after meeting the others where a launcher started several.

    Raises:
        UserError: a device that is not there, more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        alone = torch_device(device)
        if alone.type == "cuda" and alone.index is not None:
            torch.cuda.set_device(alone)  # so that what torch does on "the" GPU is done there
        return Processes(0, 1, alone)
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    if not cpu and device not in ("auto", "cuda"):
        raise UserError(f"--device {device}: with {count} processes each takes its own GPU; use auto or cpu.")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if not cpu and here > gpus:
        raise UserError(
            f"{here} processes were started on this machine, and {gpus} of its GPUs can be seen; each "
            "process takes one. Start as many as there are GPUs, or use --device cpu."
        )
    state = PartialState(cpu=cpu, timeout=_PATIENCE, **({"backend": "gloo"} if cpu else {}))
    return Processes(state.process_index, state.num_processes, torch.device("cpu") if cpu else state.device)


def gather(vectors: Tensor, how: str, processes: Processes) -> Tensor:
    """All processes' rows (n, d) from each one's own (n_r, d), in the order of the ranks.

    ``exact``: the gradient of every process's loss flows back to the rows' owner. ``simcse``: only the own rows carry
    a gradient (SimCSE models.py, cl_forward). After ``average_gradients`` the first gives the gradient of one process
    with the whole batch, the second 1 / processes of it (both where every process computes the loss of all rows).
    """
    if processes.count == 1:
        return vectors
    if how == "exact":
        return _Gather.apply(vectors, processes)  # type: ignore[no-any-return, no-untyped-call]
    if how == "simcse":
        parts = _all_parts(vectors.detach(), processes)
        parts[processes.rank] = vectors
        return torch.cat(parts)
    raise unknown("gather", how, GATHERS)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, processes: Processes) -> Tensor:
        parts = _all_parts(vectors, processes)
        start = sum(len(p) for p in parts[: processes.rank])
        ctx.own = slice(start, start + len(vectors))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.contiguous()
        dist.all_reduce(total)
        return total[ctx.own], None


def _all_parts(vectors: Tensor, processes: Processes) -> list[Tensor]:
    """Every process's rows; their numbers may differ, so what is sent is filled up to the longest."""
    sizes = torch.zeros(processes.count, dtype=torch.int64, device=vectors.device)
    sizes[processes.rank] = len(vectors)
    dist.all_reduce(sizes)
    longest = int(sizes.max())
    sent = vectors.new_zeros(longest, vectors.shape[1])
    sent[: len(vectors)] = vectors
    received = [torch.empty_like(sent) for _ in range(processes.count)]
    dist.all_gather(received, sent)
    return [part[:n] for part, n in zip(received, sizes.tolist(), strict=True)]


def average_gradients(parameters: Iterable[Tensor], processes: Processes) -> None:
    """Mean of every parameter's gradient over the processes, in place, sent as one message."""
    if processes.count == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= processes.count
    for grad, mean in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
