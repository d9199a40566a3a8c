"""8-bit products on processors that have them (VNNI): linear layers, and what makes them lose less."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simcse_bench.models import cpu_kernels
from simcse_bench.models.cpu_kernels import PackedLinear

_SMOOTHING = 0.75  # of an input's range that its weights take over; all-MiniLM-L6-v2 loses more at 0.5, 0.7 and 0.85


def multiplies_in_int8() -> bool:
    """Whether the processor has 8-bit products (VNNI) and this torch oneDNN's layer for them."""
    check = getattr(torch.cpu, "_is_vnni_supported", None)
    packed = cpu_kernels.supported(torch.float32) and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return bool(check and check()) and packed


@functools.cache
def _rounds_in_one_pass() -> bool:
    """Whether torch has the function that rounds to 8 bits in one pass: it means to drop it, which it says once."""
    with warnings.catch_warnings(action="ignore"):
        try:
            torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
        except (AttributeError, RuntimeError):
            return False
    return True


def _rounded(x: Tensor, scale: float, zero: int) -> Tensor:
    """x / scale + zero to the nearest whole number, as uint8; within its range but for the rounding.

    In one pass an 8-bit model takes 6 to 15 % less time than in three.
    """
    if not _rounds_in_one_pass():
        # by way of int16, which is far faster than at once
        return torch.add(zero + 0.5, x, alpha=1 / scale).to(torch.int16).to(torch.uint8)
    rounded = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
    # the same memory as plain numbers: int_repr() would copy it, slowly
    plain = torch.empty(0, dtype=torch.uint8)
    return plain.set_(rounded.untyped_storage(), 0, rounded.shape, rounded.stride())


class Rounded(NamedTuple):
    """Numbers rounded to 8 bits: (values - zero) * scale."""

    values: Tensor  # uint8
    scale: float
    zero: int


class Int8Linear(PackedLinear):
    """``nn.Linear`` with 8-bit weights, a scale for each output, and inputs rounded to 8 bits, by one scale a call.

    So a vector depends a little on the sentences that share its batch. ``smooth`` (in,) divides the inputs and
    multiplies the weights, see ``smoothing``.
    """

    def __init__(self, linear: nn.Linear, gelu: str | None = None, smooth: Tensor | None = None):
        nn.Module.__init__(self)
        weight = linear.weight.detach()
        self.inverse = None if smooth is None else 1 / smooth
        if smooth is not None:
            weight = weight * smooth
        self.scales = weight.abs().amax(1).clamp_min(1e-12) / 127  # (out,)
        rounded = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation, self.algorithm = ("none", "") if gelu is None else ("gelu", gelu)

    def prepared(self, x: Tensor) -> Rounded:
        """The input as the product takes it."""
        if self.inverse is not None:
            x = x * self.inverse
        low, high = (min(max(float(end), -3e38), 3e38) for end in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 254 or 1.0  # not 255: the largest is rounded up to it
        zero = round(-low / scale)
        return Rounded(_rounded(x, scale, zero), scale, zero)

    def forward(self, x: Tensor | Rounded) -> Tensor:
        """(..., in) -> (..., out)."""
        given = x if isinstance(x, Rounded) else self.prepared(x)
        out: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            *given, self.weight, self.scales, self.zeros, self.bias, 1.0, 0, torch.float32,
            self.activation, [], self.algorithm,
        )  # fmt: skip
        return out

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The layer's output for x (..., in) added to the residual (..., out)."""
        added: Tensor = self(x).add_(residual)
        return added


class _Input(NamedTuple):
    """What some linear layers are given."""

    states: Tensor  # (..., in), kept so that no other tensor takes its place in memory
    largest: Tensor  # (in,), of every channel
    layers: set[nn.Linear]


@torch.inference_mode()
def smoothing(model: nn.Module, run: Callable[[], Any]) -> dict[nn.Linear, Tensor]:
    """A factor (in,) of each input of the linear layers by which 8 bits lose less, the same for layers that share one.

    A few channels of a hidden state are far larger than the others, and one scale for all leaves these few bits: their
    range is shared out between inputs and weights. Source: SmoothQuant (Xiao et al. 2023), equation 4. The wide inputs
    of a layer that narrows stay as they are: scaling them takes more time than it is worth.

    Args:
        model: before its layers are packed.
        run: lets it embed a few sentences.
    """
    inputs: dict[int, _Input] = {}

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        states = given[0]
        known = inputs.setdefault(id(states), _Input(states, states.abs().flatten(0, -2).amax(0), set()))
        if isinstance(layer, nn.Linear):
            known.layers.add(layer)

    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features <= m.out_features]
    hooks = [layer.register_forward_pre_hook(note) for layer in linears]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    largest: dict[frozenset[nn.Linear], Tensor] = {}
    for one in inputs.values():
        layers = frozenset(one.layers)
        largest[layers] = torch.maximum(largest.get(layers, one.largest), one.largest)
    factors: dict[nn.Linear, Tensor] = {}
    for layers, channels in largest.items():
        weights = torch.stack([layer.weight.detach().abs().amax(0) for layer in layers]).amax(0)
        factor = channels.clamp_min(1e-5) ** _SMOOTHING / weights.clamp_min(1e-5) ** (1 - _SMOOTHING)
        factors |= dict.fromkeys(layers, factor)
    return factors
