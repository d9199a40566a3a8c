"""SimCSE's AdamW, its learning rate, and one update of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from simcse_bench.training.config import TrainConfig
from simcse_bench.training.model import SentenceModel
from simcse_bench.training.processes import Processes, average_gradients

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # transformers' defaults, which SimCSE keeps


def make_optimizer(model: SentenceModel, config: TrainConfig) -> torch.optim.AdamW:
    """SimCSE's AdamW, that of transformers 4.2.1: see also ``epsilon``. Biases and LayerNorms are not decayed."""
    # differs from SimCSE: weights are decayed before the update, there after it; of second order, and 0 by default
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, eps=_EPSILON, fused=fused)


def epsilon(update: int) -> float:
    """What torch's AdamW takes in its ``update`` (from 1) for transformers 4.2.1's epsilon.

    optimization.py adds it to the root of the second moment before the bias is corrected, torch after it.
    """
    return _EPSILON / math.sqrt(1 - _BETAS[1] ** update)


def apply_update(
    model: SentenceModel,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    config: TrainConfig,
    step: int,
    rate: float,
    processes: Processes,
) -> Tensor:
    """Average the gradients over the processes, clip them, update the weights; gives the norm before clipping.

    ``step``: updates before this one, those included that float16's scaler has skipped.
    """
    average_gradients(model.parameters(), processes)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf)
    if scaler.is_enabled():  # of those taken the optimiser itself keeps count
        step = int(next(iter(optimizer.state.values()), {"step": 0})["step"])
    for group in optimizer.param_groups:
        group["lr"], group["eps"] = rate, epsilon(step + 1)
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
