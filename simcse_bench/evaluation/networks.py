"""The classifiers that a chunk trains in step: logistic regressions, or networks with one hidden layer.

Source: SimCSE's SentEval, senteval/tools/classifier.py (MLP). A step is a few batched products over (folds, L2 values).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

_SEED_LOCK = threading.Lock()


class Layer:
    """One layer of all classifiers with its optimiser's state: (folds, in + 1, R * out), the last row being the bias.

    Args:
        start: initial weights (in + 1, out), the same for all.
        l2: of each classifier (folds, R).
    """

    def __init__(self, start: Tensor, l2: Tensor):
        folds, values = l2.shape
        self.out = start.shape[1]
        self.l2 = l2.repeat_interleave(self.out, dim=1)[:, None]  # (folds, 1, R * out)
        self.p = start.to(l2.device).repeat(folds, 1, values)
        self.m, self.v, self.gradient = (torch.zeros_like(self.p) for _ in range(3))
        self.kept = self.p.clone()  # of all folds; the others hold those that still learn

    def step(self, steps: int, optimizer: str, rate: float) -> None:
        """One step of torch.optim's Adam or RMSprop with its defaults, weight decay added to the gradient."""
        p, g, v = self.p, self.gradient, self.v
        g.addcmul_(p, self.l2)
        if optimizer == "adam":
            self.m.lerp_(g, 1 - 0.9)
            v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
            scale = v.sqrt().div_((1 - 0.999**steps) ** 0.5).add_(1e-8)
            p.addcdiv_(self.m, scale, value=-rate / (1 - 0.9**steps))
        else:
            v.mul_(0.99).addcmul_(g, g, value=1 - 0.99)
            p.addcdiv_(g, v.sqrt().add_(1e-8), value=-rate)

    def keep(self, place: int, value: int, fold: int) -> None:
        """Remember the weights of one classifier, which stands at ``place`` among those that still learn."""
        part = self._part(value)
        self.kept[fold, :, part] = self.p[place, :, part]

    def kept_weights(self, fold: int, value: int) -> tuple[Tensor, Tensor]:
        """w (in, out) and b (out,) as they were remembered."""
        weights = self.kept[fold, :, self._part(value)]
        return weights[:-1].clone(), weights[-1].clone()

    def select(self, places: Tensor) -> None:
        """Go on with these folds only."""
        self.l2, self.p, self.m, self.v, self.gradient = (
            t[places] for t in (self.l2, self.p, self.m, self.v, self.gradient)
        )

    def _part(self, value: int) -> slice:
        return slice(value * self.out, (value + 1) * self.out)


class Network(Protocol):
    """What a chunk trains."""

    layers: Sequence[Layer]

    def differentiate(self, x: Tensor, labels: Tensor) -> None:
        """Fill in the layers' gradients of the mean cross entropy; x is (folds, B, d), labels (folds, B)."""

    def logits(self, x: Tensor, place: int) -> Tensor:
        """Logits (n, R, K) of rows (n, d) by the classifiers of one fold."""


class Logistic:
    """Logistic regressions."""

    def __init__(self, dimension: int, classes: int, l2: Tensor, seed: int):
        (start,), _ = initial_weights([dimension, classes], seed)
        self.layer, self.classes = Layer(start, l2), classes
        self.layers: Sequence[Layer] = [self.layer]

    def differentiate(self, x: Tensor, labels: Tensor) -> None:
        """x^T (softmax - one-hot) / B."""
        p, gradient = self.layer.p, self.layer.gradient
        w, b = p[:, :-1], p[:, -1:]
        share = 1.0 / x.shape[1]
        if self.classes == 2:
            # the two classes' gradients are opposite: one product for both
            towards = torch.baddbmm(b[:, :, 1::2] - b[:, :, ::2], x, w[:, :, 1::2] - w[:, :, ::2])  # (folds, B, R)
            error = towards.sigmoid_().sub_(labels[:, :, None]).mul_(share)
            slope = torch.bmm(x.transpose(1, 2), error)  # (folds, d, R)
            gradient[:, :-1, 1::2] = slope
            torch.neg(slope, out=slope)
            gradient[:, :-1, ::2] = slope
            gradient[:, -1, 1::2] = error.sum(1)
            gradient[:, -1, ::2] = -gradient[:, -1, 1::2]
            return
        logits = torch.baddbmm(b, x, w)  # (folds, B, R * K)
        error = logits.view(*labels.shape, -1, self.classes).softmax(-1)
        error -= torch.nn.functional.one_hot(labels, self.classes)[:, :, None]
        error = error.view_as(logits).mul_(share)
        gradient[:, :-1] = torch.bmm(x.transpose(1, 2), error)
        gradient[:, -1] = error.sum(1)

    def logits(self, x: Tensor, place: int) -> Tensor:
        """See ``Network``."""
        p = self.layer.p[place]
        return torch.addmm(p[-1:], x, p[:-1]).view(len(x), -1, self.classes)


class HiddenLayer:
    """Linear, dropout, sigmoid, linear: SentEval's MLP, dropout before the nonlinearity as there."""

    def __init__(self, dimension: int, hidden: int, classes: int, l2: Tensor, seed: int, dropout: float):
        starts, self.random = initial_weights([dimension, hidden, classes], seed)
        self.first, self.second = (Layer(start, l2) for start in starts)
        self.layers: Sequence[Layer] = [self.first, self.second]
        self.hidden, self.classes, self.dropout = hidden, classes, dropout

    def differentiate(self, x: Tensor, labels: Tensor) -> None:
        """See ``Network``; every classifier meets the same dropout masks, as each would after SentEval's seed."""
        first, second = self.first.p, self.second.p
        folds, size = labels.shape
        inputs = torch.baddbmm(first[:, -1:], x, first[:, :-1]).view(folds, size, -1, self.hidden)  # (folds, B, R, H)
        mask = self._mask(size, x.device) if self.dropout else None
        if mask is not None:
            inputs *= mask[:, None]
        a = inputs.sigmoid_()
        w = second[:, :-1].view(folds, self.hidden, -1, self.classes)  # (folds, H, R, K)
        error = (torch.einsum("fbrh,fhrk->fbrk", a, w) + second[:, -1].view(folds, 1, -1, self.classes)).softmax(-1)
        error -= torch.nn.functional.one_hot(labels, self.classes)[:, :, None]
        error /= size
        self.second.gradient[:, :-1] = torch.einsum("fbrh,fbrk->fhrk", a, error).flatten(2)
        self.second.gradient[:, -1] = error.sum(1).flatten(1)
        slope = torch.einsum("fbrk,fhrk->fbrh", error, w) * a * (1 - a)
        if mask is not None:
            slope *= mask[:, None]
        slope = slope.flatten(2)  # (folds, B, R * H)
        self.first.gradient[:, :-1] = torch.bmm(x.transpose(1, 2), slope)
        self.first.gradient[:, -1] = slope.sum(1)

    def logits(self, x: Tensor, place: int) -> Tensor:
        """See ``Network``; nothing is dropped."""
        first, second = self.first.p[place], self.second.p[place]
        a = torch.addmm(first[-1:], x, first[:-1]).sigmoid_().view(len(x), -1, self.hidden)  # (n, R, H)
        w = second[:-1].view(self.hidden, -1, self.classes)
        return torch.einsum("nrh,hrk->nrk", a, w) + second[-1].view(-1, self.classes)

    def _mask(self, size: int, device: torch.device) -> Tensor:
        """(B, H): 0 for what is dropped, else 1 / (1 - p). # differs from SentEval: on a GPU it draws them there."""
        kept = torch.empty(size, self.hidden).bernoulli_(1 - self.dropout, generator=self.random)
        return kept.div_(1 - self.dropout).to(device)


def initial_weights(sizes: Sequence[int], seed: int) -> tuple[list[Tensor], torch.Generator]:
    """torch's initial weights (in + 1, out) of ``nn.Linear`` after ``nn.Linear``, right after ``manual_seed(seed)``.

    And what is drawn from then on; no other state is touched.
    """
    with _SEED_LOCK, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the processor's alone
        layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
        after = torch.Generator()
        after.set_state(torch.get_rng_state())
    return [torch.cat([layer.weight.detach().T, layer.bias.detach()[None]]) for layer in layers], after
