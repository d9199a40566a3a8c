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


def mean_cosine(vectors: Floats) -> float:
    """Mean cosine of all pairs of different rows (n, d): anisotropy (Ethayarajh 2019); 0 for even directions."""
    x = unit(vectors)
    n = len(x)
    if n < 2:
        raise ValueError("a mean cosine needs at least two vectors")
    # the sum over all pairs is the square of the sum
    return float((np.sum(x.sum(0) ** 2) - np.sum(x**2)) / (n * (n - 1)))


def singular_values(vectors: Floats) -> NDArray[np.float64]:
    """Singular values of the centred unit vectors (n, d), largest first, in blocks: memory O(d^2)."""
    x = unit(vectors)
    centre = x.mean(0)
    square = np.zeros((x.shape[1], x.shape[1]))
    for i in range(0, len(x), BLOCK):
        block = x[i : i + BLOCK] - centre
        square += block.T @ block
    values: NDArray[np.float64] = np.sqrt(np.clip(np.linalg.eigvalsh(square)[::-1], 0, None))
    return values


def effective_rank(singular: NDArray[np.float64]) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007): 1 for a line, d for a sphere."""
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
