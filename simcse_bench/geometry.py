"""Alignment and uniformity of sentence embeddings (Wang and Isola 2020; SimCSE section 2.3), in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
BLOCK = 2048  # rows compared at once: memory is 2048 x 2048 numbers, whatever n


def unit(vectors: Floats) -> NDArray[np.float64]:
    """Rows (n, d) scaled to length 1, in float64; a zero row stays zero."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms == 0, 1, norms)


def alignment(left: Floats, right: Floats) -> float:
    """Mean squared distance of unit vectors of positive pairs (n, d), (n, d); lower is better (Eq. 2).

    SimCSE takes the pairs of STS-B with a gold score above 4 (footnote 3).
    """
    if not len(left):
        raise ValueError("alignment needs at least one pair")
    return float(np.mean(np.sum((unit(left) - unit(right)) ** 2, axis=1)))


def uniformity(vectors: Floats) -> float:
    """log mean exp(-2 |x - y|^2) over all pairs of different rows of unit vectors (n, d); lower is better (Eq. 3)."""
    if len(vectors) < 2:
        raise ValueError("uniformity needs at least two vectors")
    x = unit(vectors)
    total = 0.0
    for i in range(0, len(x), BLOCK):
        for j in range(i, len(x), BLOCK):
            # |x - y|^2 = |x|^2 + |y|^2 - 2xy
            squares = (x[i : i + BLOCK] ** 2).sum(1)[:, None] + (x[j : j + BLOCK] ** 2).sum(1)[None]
            kernel = np.exp(-2 * (squares - 2 * x[i : i + BLOCK] @ x[j : j + BLOCK].T))
            total += float(np.triu(kernel, 1).sum() if i == j else kernel.sum())
    pairs = len(x) * (len(x) - 1) / 2
    return float(np.log(total / pairs))
