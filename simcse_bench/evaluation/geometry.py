"""Alignment and uniformity of sentence embeddings (Wang and Isola 2020; SimCSE section 2.3), in blocks."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.pairs import Pairs, data_root, read_pairs
from simcse_bench.data.task import load_task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.evaluate import distinct_sentences, embed
from simcse_bench.evaluation.metrics import Floats, correlation, paired_cosine
from simcse_bench.files import environment, read_json

if TYPE_CHECKING:
    from simcse_bench.models.open import Model

Vectors = NDArray[np.floating[Any]]  # (n, d)
BLOCK = 2048  # rows compared at once: memory is 2048 x 2048 numbers, whatever n


def unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows (n, d) scaled to length 1, in float64; a zero row stays zero."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms == 0, 1, norms)


def alignment(left: Vectors, right: Vectors) -> float:
    """Mean squared distance of unit vectors of positive pairs (n, d), (n, d); lower is better (Eq. 2).

    SimCSE takes the pairs of STS-B with a gold score above 4 (footnote 3).
    """
    if not len(left):
        raise ValueError("alignment needs at least one pair")
    return float(np.mean(np.sum((unit(left) - unit(right)) ** 2, axis=1)))


def uniformity(vectors: Vectors) -> float:
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


def mean_cosine(vectors: Vectors) -> float:
    """Mean cosine of all pairs of different rows (n, d): anisotropy (Ethayarajh 2019); 0 for even directions."""
    x = unit(vectors)
    n = len(x)
    if n < 2:
        raise ValueError("a mean cosine needs at least two vectors")
    # the sum over all pairs is the square of the sum
    return float((np.sum(x.sum(0) ** 2) - np.sum(x**2)) / (n * (n - 1)))


def singular_values(vectors: Vectors) -> NDArray[np.float64]:
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


SCHEMA = 1
BINS = 120  # of the cosine histograms, over -1 to 1
PARTS = ("low", "middle", "high")  # thirds of the pairs by length and by overlap


def read_whole(name: str, splits: Sequence[str], data_dir: Path | None, tasks_dir: Path | None, revision: str) -> Pairs:
    """Pairs of several splits of an STS task behind each other; no splits: all that it has.

    Raises:
        UserError: no such task or split, a transfer task, no pair with a gold score above ``ALIGNED``.
    """
    task = load_task(name, tasks_dir)
    if task.kind != "sts":
        raise UserError(f"task {name!r} has no pairs: geometry needs an STS task, such as stsb.")
    root = data_root([task], data_dir, revision)
    folder = root.path if root else None
    parts = [read_pairs(task, split, "senteval", folder) for split in splits or task.splits]
    whole = Pairs(
        tuple(s for p in parts for s in p.left),
        tuple(s for p in parts for s in p.right),
        np.concatenate([p.gold for p in parts]),
        tuple(s for p in parts for s in p.subset),
    )
    if not (whole.gold > ALIGNED).any():
        raise UserError(f"{name}: no pair has a gold score above {ALIGNED:g}: alignment needs such pairs.")
    return whole


def analyse(model: Model, name: str, splits: Sequence[str], pairs: Pairs) -> dict[str, Any]:
    """All figures of one model, for its JSON.

    Alignment is that of the pairs with a gold score above 4, uniformity that of all distinct sentences (SimCSE,
    footnote 3), both of unit vectors.
    """
    encoder = model.load()
    sentences = distinct_sentences([pairs])
    vectors = embed(encoder, sentences)
    row = {s: i for i, s in enumerate(sentences)}
    left, right = (vectors[[row[s] for s in side]] for side in (pairs.left, pairs.right))
    cosines = paired_cosine(left, right)
    near = pairs.gold > ALIGNED
    spectrum = singular_values(vectors)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "model": dict(model.provenance),
        "data": {"task": name, "splits": list(splits), "pairs": len(pairs), "sentences": len(sentences),
                 "aligned_pairs": int(near.sum()), "fingerprint": pairs.fingerprint()},
        "spearman": round(correlation("spearman", cosines, pairs.gold), 4),
        "alignment": round(alignment(left[near], right[near]), 6),
        "uniformity": round(uniformity(vectors), 6),
        "mean_cosine": round(mean_cosine(vectors), 6),
        "effective_rank": round(effective_rank(spectrum), 3),
        "dimension": int(vectors.shape[1]),
        "singular_values": [round(float(s), 6) for s in spectrum / spectrum[0]],
        "cosines": by_gold(cosines, pairs.gold),
        "by_length": by_third(_lengths(pairs), cosines, pairs.gold),
        "by_overlap": by_third(_overlap(pairs), cosines, pairs.gold),
        "environment": environment(str(getattr(encoder, "device", "cpu"))),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return found


def by_gold(cosines: Floats, gold: Floats) -> list[dict[str, Any]]:
    """Distribution of the cosines of the pairs of each unit of gold score: [0, 1), ..., [4, 5]."""
    edges = np.linspace(-1, 1, BINS + 1)
    found = []
    for low in range(5):
        chosen = cosines[(gold >= low) & ((gold < low + 1) | (low == 4))]
        if len(chosen):
            quartiles = [round(float(q), 4) for q in np.quantile(chosen, [0.25, 0.5, 0.75])]
            counts = np.histogram(np.clip(chosen, -1, 1), edges)[0].tolist()
            found.append({"gold": [low, low + 1], "n": len(chosen), "quartiles": quartiles, "counts": counts})
    return found


def by_third(key: Floats, cosines: Floats, gold: Floats) -> list[dict[str, Any]]:
    """Spearman within the thirds of the pairs by ``key`` (n,); None where a third has no correlation."""
    found = []
    for name, chosen in zip(PARTS, np.array_split(np.argsort(key, kind="stable"), 3), strict=True):
        try:
            score: float | None = round(correlation("spearman", cosines[chosen], gold[chosen]), 4)
        except UserError:
            score = None
        limits = [round(float(x), 3) for x in (key[chosen].min(), key[chosen].max())] if len(chosen) else None
        found.append({"part": name, "from_to": limits, "n": len(chosen), "spearman": score})
    return found


def trajectory(run: Path) -> list[Mapping[str, float]]:
    """Alignment and uniformity at the steps of a run with ``--track-geometry``.

    Raises:
        UserError: no run, or one without them.
    """
    record = read_json(run / "train.json") if (run / "train.json").is_file() else None
    points = [p for p in (record or {}).get("measured", []) if "alignment" in p] if isinstance(record, dict) else []
    if not points:
        raise UserError(f"{run}: no run with alignment and uniformity; train with --track-geometry N.")
    return points


def _lengths(pairs: Pairs) -> Floats:
    return np.array([(len(a.split()) + len(b.split())) / 2 for a, b in zip(pairs.left, pairs.right, strict=True)])


def _overlap(pairs: Pairs) -> Floats:
    """Jaccard index of the words of a pair's sentences."""
    words = [[set(re.findall(r"\w+", s.lower())) for s in side] for side in (pairs.left, pairs.right)]
    return np.array([len(a & b) / max(1, len(a | b)) for a, b in zip(*words, strict=True)])


ALIGNED = 4.0  # gold above it makes a positive pair (SimCSE, footnote 3; STS-B's scale of 0 to 5)
