"""Alignment and uniformity of sentence embeddings (Wang and Isola 2020; SimCSE section 2.3); a model's analysis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.registry import load_task, task_name
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.errors import UserError
from simcse_bench.evaluation.analyses import claim_files, default_task, read_splits, require_page
from simcse_bench.evaluation.evaluate import embed_once
from simcse_bench.evaluation.metrics import Floats, correlation, unit
from simcse_bench.files import environment, now, write_json
from simcse_bench.models.open import Model, open_model
from simcse_bench.reports.geometry import Analysis, Cosines, Third, read_analysis
from simcse_bench.reports.report import Provenance
from simcse_bench.schema import read_record

if TYPE_CHECKING:
    import pandas as pd

Vectors = NDArray[np.floating[Any]]  # (n, d)
BLOCK_ROWS = 2048  # rows compared at once: memory is 2048 x 2048 numbers, whatever n
ALIGNED = 4.0  # gold above it makes a positive pair (SimCSE, footnote 3; STS-B's scale of 0 to 5)
BINS = 120  # of the cosine histograms, over -1 to 1
PARTS = ("low", "middle", "high")  # thirds of the pairs by length and by overlap


def _unit(vectors: Vectors) -> Floats:
    """In float64."""
    return unit(np.asarray(vectors, dtype=np.float64))


def alignment(left: Vectors, right: Vectors) -> float:
    """Mean squared distance of unit vectors of positive pairs (n, d), (n, d); lower is better (Eq. 2).

    SimCSE takes the pairs of STS-B with a gold score above 4 (footnote 3).
    """
    if not len(left):
        raise ValueError("alignment needs at least one pair")
    return float(np.mean(np.sum((_unit(left) - _unit(right)) ** 2, axis=1)))


def uniformity(vectors: Vectors) -> float:
    """log mean exp(-2 |x - y|^2) over all pairs of different rows of unit vectors (n, d); lower is better (Eq. 3)."""
    if len(vectors) < 2:
        raise ValueError("uniformity needs at least two vectors")
    x = _unit(vectors)
    blocks = [x[i : i + BLOCK_ROWS] for i in range(0, len(x), BLOCK_ROWS)]
    total = 0.0
    for i, one in enumerate(blocks):
        for other in blocks[i:]:
            # |x - y|^2 = |x|^2 + |y|^2 - 2xy
            squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None]
            kernel = np.exp(-2 * (squares - 2 * one @ other.T))
            total += float(np.triu(kernel, 1).sum() if other is one else kernel.sum())
    return float(np.log(total / (len(x) * (len(x) - 1) / 2)))


def mean_cosine(vectors: Vectors) -> float:
    """Mean cosine of all pairs of different rows (n, d): anisotropy (Ethayarajh 2019); 0 for even directions."""
    x = _unit(vectors)
    n = len(x)
    if n < 2:
        raise ValueError("a mean cosine needs at least two vectors")
    # the sum over all pairs is the square of the sum
    return float((np.sum(x.sum(0) ** 2) - np.sum(x**2)) / (n * (n - 1)))


def singular_values(vectors: Vectors) -> Floats:
    """Singular values of the centred unit vectors (n, d), largest first, in blocks: memory O(d^2)."""
    x = _unit(vectors)
    centre = x.mean(0)
    square = np.zeros((x.shape[1], x.shape[1]))
    for i in range(0, len(x), BLOCK_ROWS):
        block = x[i : i + BLOCK_ROWS] - centre
        square += block.T @ block
    values: Floats = np.sqrt(np.clip(np.linalg.eigvalsh(square)[::-1], 0, None))
    return values


def effective_rank(singular: Floats) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007): 1 for a line, d for a sphere."""
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def read_whole(name: str, splits: Sequence[str] = (), where: DataSource = ANYWHERE) -> Pairs:
    """Pairs of several splits of an STS task behind each other; no splits: all that it has.

    Raises:
        UserError: no such task or split, a transfer task, no pair with a gold score above ``ALIGNED``.
    """
    task = load_task(name, where.tasks_dir)
    whole = read_splits(task, splits or tuple(task.splits), "senteval", data_folder([task], where))
    if not (whole.gold > ALIGNED).any():
        raise UserError(f"{name}: no pair has a gold score above {ALIGNED:g}: alignment needs such pairs.")
    return whole


def analyse_model(model: Model, name: str, splits: Sequence[str], pairs: Pairs) -> Analysis:
    """All figures of one model, for its JSON.

    Alignment is that of the pairs with a gold score above 4, uniformity that of all distinct sentences (SimCSE,
    footnote 3), both of unit vectors.
    """
    encoder = model.load()
    whole = embed_once(encoder, [pairs])
    (left, right), vectors, cosines = whole.sides(pairs), whole.vectors, whole.cosines(pairs)
    near = pairs.gold > ALIGNED
    spectrum = singular_values(vectors)
    described: Any = dict(model.provenance)
    machine: Any = environment(str(described.get("device", "cpu")))
    return {
        "schema": 1,
        "model": described,
        "data": {"task": name, "splits": list(splits), "pairs": len(pairs), "sentences": len(vectors),
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
        "environment": machine,
        "created": now(),
    }  # fmt: skip


def analyze(
    models: Sequence[str | Model],
    task: str | None = None,
    splits: Sequence[str] = (),
    out: str | Path = "results",
    where: DataSource = ANYWHERE,
    force: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Analyse models on the pairs of an STS task, and draw all analyses below ``<out>/analysis``.

    A model's file bears its name, and the pooling and head or dtype where they were chosen.

    Args:
        models: names as for ``open_model``, or opened ones.
        task: default: stsb; mini-sts where all are the embedded encoder's and no real data is configured.
        splits: of the task; none: all of them.
        out: the results folder.
        where: the data.
        force: replace a saved analysis of other weights, settings or data.
        options: of ``open_model``.

    Returns:
        A row per model: model, data, spearman, alignment, uniformity, mean_cosine, effective_rank, dimension.

    Raises:
        UserError: whatever ``read_whole`` and ``open_model`` refuse; two models for one file; another analysis in a
            model's file (without force).
    """
    import pandas as pd

    from simcse_bench.reports.geometry import geometry_rows, write_analyses

    folder = Path(out) / "analysis"
    require_page(folder)
    opened = [open_model(m, **options) if isinstance(m, str) else m for m in models]
    name = task_name(task or default_task(opened, where), where.tasks_dir)
    pairs = read_whole(name, splits, where)

    def saved(path: Path) -> tuple[Provenance, Mapping[str, Any]]:
        analysis = read_analysis(path)
        return analysis["model"], dict(analysis["data"])

    data = {"task": name, "splits": list(splits), "fingerprint": pairs.fingerprint()}
    analyses = []
    for path, model in claim_files(opened, folder, data, None if force else saved).items():
        analyses.append(analyse_model(model, name, splits, pairs))
        write_json(path, analyses[-1], None)
    write_analyses(folder)
    return pd.DataFrame(geometry_rows(analyses))


def by_gold(cosines: Floats, gold: Floats) -> list[Cosines]:
    """Distribution of the cosines of the pairs of each unit of gold score: [0, 1), ..., [4, 5]."""
    edges = np.linspace(-1, 1, BINS + 1)
    units: list[Cosines] = []
    for low in range(5):
        chosen = cosines[(gold >= low) & ((gold < low + 1) | (low == 4))]
        if len(chosen):
            quartiles: Any = [round(float(q), 4) for q in np.quantile(chosen, [0.25, 0.5, 0.75])]
            counts = np.histogram(np.clip(chosen, -1, 1), edges)[0].tolist()
            bounds: Any = [low, low + 1]
            units.append({"gold": bounds, "n": len(chosen), "quartiles": quartiles, "counts": counts})
    return units


def by_third(key: Floats, cosines: Floats, gold: Floats) -> list[Third]:
    """Spearman within the thirds of the pairs by ``key`` (n,); None where a third has no correlation."""
    thirds: list[Third] = []
    for name, chosen in zip(PARTS, np.array_split(np.argsort(key, kind="stable"), 3), strict=True):
        try:
            score: float | None = round(correlation("spearman", cosines[chosen], gold[chosen]), 4)
        except UserError:
            score = None
        limits: Any = [round(float(x), 3) for x in (key[chosen].min(), key[chosen].max())] if len(chosen) else None
        thirds.append({"part": name, "from_to": limits, "n": len(chosen), "spearman": score})
    return thirds


class _Run(TypedDict):
    """What is read here of a run's record, see ``training.folder``."""

    measured: NotRequired[Sequence[Mapping[str, float]]]


def read_trajectory(run: Path) -> list[Mapping[str, float]]:
    """Alignment and uniformity at the steps of a run with ``--track-geometry``.

    Raises:
        UserError: no run, or one without them.
    """
    path = run / "train.json"
    record: _Run = read_record(path, _Run, "not a run's record.") if path.exists() else {}
    points = [p for p in record.get("measured", ()) if {"alignment", "uniformity"} <= p.keys()]
    if not points:
        raise UserError(f"{run}: no run with alignment and uniformity; train with --track-geometry N.")
    return points


def read_trajectories(runs: Sequence[Path]) -> dict[str, list[Mapping[str, float]]]:
    """``read_trajectory`` of several runs, by the shortest ends of their paths that tell them apart."""
    paths = list(dict.fromkeys(path.resolve() for path in runs))
    count = next(n for n in range(1, 1000) if len({path.parts[-n:] for path in paths}) == len(paths))
    return {"/".join(path.parts[-count:]): read_trajectory(path) for path in paths}


def _lengths(pairs: Pairs) -> Floats:
    return np.array([(len(a.split()) + len(b.split())) / 2 for a, b in zip(pairs.left, pairs.right, strict=True)])


def _overlap(pairs: Pairs) -> Floats:
    """Jaccard index of the words of a pair's sentences."""
    words = [[set(re.findall(r"\w+", s.lower())) for s in side] for side in (pairs.left, pairs.right)]
    return np.array([len(a & b) / max(1, len(a | b)) for a, b in zip(*words, strict=True)])
