"""The optimiser of a run: AdamW, the schedule, clipping, averaging over processes."""

from __future__ import annotations

import math
from typing import Any

import torch

from simcse_bench.config import TrainConfig
from simcse_bench.processes import Processes, average_gradients
from simcse_bench.sentence_model import SentenceModel


def make_optimizer(model: SentenceModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with SimCSE's settings (transformers' defaults: betas 0.9 and 0.999, epsilon 1e-8)."""
    return torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8,
        weight_decay=config.weight_decay, fused=model.device.type in ("cpu", "cuda"),
    )  # fmt: skip


def apply(
    model: SentenceModel,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    config: TrainConfig,
    rate: float,
    processes: Processes,
) -> torch.Tensor:
    """Average the gradients over the processes, clip them, update the weights; gives the norm before clipping."""
    average_gradients(model.parameters(), processes)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf)
    for group in optimizer.param_groups:
        group["lr"] = rate
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return norm.detach()


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Of update ``step`` (from 0): linear warm-up, then linear decay to 0 (transformers' linear schedule)."""
    warm = config.warmup_steps
    if step < warm:
        return config.learning_rate * step / warm
    return config.learning_rate * max(0, steps - step) / max(1, steps - warm)
