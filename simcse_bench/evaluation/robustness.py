"""Robustness of a model: what becomes of a task's score, and how far vectors move, where sentences are changed by rule.

Where the meaning is kept, nothing should move (invariance); where it is changed, something should (sensitivity): the
two kinds of CheckList's tests of changed text (Ribeiro et al. 2020). The changes: ``data.perturbations``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.perturbations import PERTURBATIONS, RATE, SEED, Perturbation, require_setting
from simcse_bench.data.registry import load_suite, load_task
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import Task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.analyses import claim_files, default_task, read_splits, require_page
from simcse_bench.evaluation.evaluate import Embedded, distinct_sentences, embed_once
from simcse_bench.evaluation.geometry import mean_cosine
from simcse_bench.evaluation.metrics import Floats, correlation, paired_cosine
from simcse_bench.evaluation.statistics import RESAMPLES, mean_difference
from simcse_bench.files import environment, now, write_json
from simcse_bench.models.open import Model, open_model
from simcse_bench.progress import Progress
from simcse_bench.reports.report import Provenance
from simcse_bench.reports.robustness import FOLDER, Change, Robustness, Summary, TaskRobustness, read_robustness
from simcse_bench.reports.standings import language

if TYPE_CHECKING:
    import pandas as pd

TEXT = (
    "raw"  # not the official text, which is in lower case with its punctuation apart: nothing of it is left to change
)
SAME = 1e-6  # cosines that differ by less are a tie: batches and the order of a sum move the seventh digit


@dataclass(frozen=True)
class Part:
    """A task's pairs, and the rules that apply to its language."""

    task: Task
    pairs: Pairs
    rules: Sequence[Perturbation]

    @property
    def strata(self) -> dict[str, int]:
        """Sizes of the runs of rows of one subset: pairs are drawn within them."""
        runs = itertools.groupby(self.pairs.subset)
        return {f"{i} {name}": len(list(rows)) for i, (name, rows) in enumerate(runs)}


@dataclass(frozen=True)
class _Cosines:
    """The cosines (n,) of a task's pairs: as they are, and by rule and side."""

    part: Part
    before: Floats
    after: Mapping[str, Mapping[str, Floats]]


def analyze_robustness(
    models: Sequence[str | Model],
    tasks: Sequence[str] = (),
    suite: str | None = None,
    splits: Sequence[str] = ("test",),
    rate: float = RATE,
    seed: int = SEED,
    out: str | Path = "results",
    where: DataSource = ANYWHERE,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Change the sentences of STS tasks by rule, and draw all that is known of it below ``<out>/robustness``.

    Args:
        models: names as for ``open_model``, or opened ones; a model's file bears its name, as ``analyze`` has it.
        tasks: STS tasks; default: stsb; mini-sts where all models are the embedded encoder's and no real data is there.
        suite: all tasks of it, instead.
        splits: of each task, behind each other.
        rate: share of the words that get a typing error.
        seed: of typing errors, frames and word orders.
        out: the results folder.
        where: the data.
        force: replace a saved analysis of other weights, settings or data.
        progress: of the embedding, task by task.
        options: of ``open_model``.

    Returns:
        A row per model and change: see ``reports.robustness.robustness_rows``.

    Raises:
        UserError: whatever ``open_model`` and the readers refuse; a task of another kind; a suite and tasks; two models
            for one file; another analysis in a model's file (without force).
    """
    import pandas as pd

    from simcse_bench.reports.robustness import robustness_rows, write_robustness

    require_setting(seed, rate)
    if suite and tasks:
        raise UserError("--suite and --task exclude each other; name the suite, or the tasks.")
    folder = Path(out) / FOLDER
    require_page(folder)
    opened = [open_model(m, **options) if isinstance(m, str) else m for m in models]
    named = [load_task(name, where.tasks_dir) for name in tasks or [default_task(opened, where)]]
    parts = read_parts(load_suite(suite, where.tasks_dir) if suite else named, splits, where)

    def saved(path: Path) -> tuple[Provenance, Mapping[str, Any]]:
        there = read_robustness(path)
        return there["model"], _data(there["seed"], there["rate"], there["splits"],
                                     {n: t["fingerprint"] for n, t in there["tasks"].items()})  # fmt: skip

    data = _data(seed, rate, splits, {p.task.name: p.pairs.fingerprint() for p in parts})
    analyses = []
    for path, model in claim_files(opened, folder, data, None if force else saved).items():
        analyses.append(measure_robustness(model, parts, splits, seed, rate, progress))
        write_json(path, analyses[-1], None)
    write_robustness(folder)
    return pd.DataFrame(robustness_rows(analyses))


def _data(seed: int, rate: float, splits: Sequence[str], fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """What decides the numbers beside the model."""
    return {"seed": seed, "typo rate": rate, "splits": list(splits), "tasks": dict(fingerprints)}


def read_parts(tasks: Iterable[Task], splits: Sequence[str], where: DataSource = ANYWHERE) -> list[Part]:
    """The pairs of every task with the rules for its language; of a user's own task all rules.

    Raises:
        UserError: the problems of all tasks.
    """
    tasks = list({task.name: task for task in tasks}.values())
    folder = data_folder(tasks, where)
    parts: list[Part] = []
    problems: list[str] = []
    for task in tasks:
        try:
            pairs = read_splits(task, splits, TEXT, folder)
        except UserError as error:
            problems += error.problems
            continue
        english = language([task.name]) in ("en", "other")
        parts.append(Part(task, pairs, [p for p in PERTURBATIONS.values() if english or not p.english]))
    if problems:
        raise UserError(*problems)
    return parts


def measure_robustness(
    model: Model,
    parts: Sequence[Part],
    splits: Sequence[str],
    seed: int = SEED,
    rate: float = RATE,
    progress: Progress | None = None,
) -> Robustness:
    """All figures of one model, for its JSON; ``average`` is of all tasks, rule by rule where every task has it."""
    encoder = model.load(progress)
    tasks: dict[str, TaskRobustness] = {}
    cosines: list[_Cosines] = []
    for part in parts:
        try:
            tasks[part.task.name], own = _measure_task(encoder, part, seed, rate)
        except UserError as error:
            raise UserError(*(f"task {part.task.name!r}: {problem}" for problem in error.problems)) from error
        cosines.append(own)
    described: Any = dict(model.provenance)
    machine: Any = environment(str(described.get("device", "cpu")))
    return {
        "schema": 1,
        "model": described,
        "seed": seed,
        "rate": rate,
        "resamples": RESAMPLES,
        "splits": list(splits),
        "tasks": tasks,
        "average": _average(tasks, cosines),
        "environment": machine,
        "created": now(),
    }


def _measure_task(encoder: Any, part: Part, seed: int, rate: float) -> tuple[TaskRobustness, _Cosines]:
    """One task: every sentence and every changed one embedded once."""
    pairs = part.pairs
    sentences = distinct_sentences([pairs])
    changed = {p.name: {s: p.apply(s, seed, rate) for s in sentences} for p in part.rules}
    both = {name: _changed_pairs(pairs, to, to) for name, to in changed.items()}
    whole = embed_once(encoder, [pairs, *both.values()])
    before = whole.cosines(pairs)
    after = {
        name: {"one": whole.cosines(_changed_pairs(pairs, {}, to)), "both": whole.cosines(both[name])}
        for name, to in changed.items()
    }
    own = _Cosines(part, before, after)
    typical = mean_cosine(whole.of(sentences))
    near = {name: _self_cosines(whole, sentences, to) for name, to in changed.items()}
    found: dict[str, Change] = {}
    for rule in part.rules:
        cosines = near[rule.name]
        there = cosines[np.isfinite(cosines)]
        found[rule.name] = {
            "keeps": rule.keeps,
            "changed": len(there),
            "cosine": _rounded(float(there.mean())) if len(there) else None,
            "moved": _rounded(moved(float(there.mean()), typical)) if len(there) else None,
            "quartiles": _quartiles(there, typical),
            "one": _effect([own], rule.name, "one"),
            "both": _effect([own], rule.name, "both"),
        }
    task: TaskRobustness = {
        "title": part.task.title,
        "text": part.task.source(TEXT)[0],
        "pairs": len(pairs),
        "sentences": len(sentences),
        "fingerprint": pairs.fingerprint(),
        "mean_cosine": _rounded(typical),
        **_summary(found, _spearman(own), _separated(near, part.rules)),
    }
    return task, own


def moved(cosine: float, typical: float) -> float:
    """How far a vector moves, 1 - cosine, as a share of the mean distance of two sentences of the task.

    0: it stays; 1: as far as another sentence. Of a model whose vectors all point one way (``typical`` near 1) small
    angles count as much as large ones of another's.
    """
    return (1 - cosine) / max(1 - typical, 1e-9)


def _changed_pairs(pairs: Pairs, left: Mapping[str, str], right: Mapping[str, str]) -> Pairs:
    return Pairs(
        tuple(left.get(s, s) for s in pairs.left), tuple(right.get(s, s) for s in pairs.right), pairs.gold, pairs.subset
    )


def _self_cosines(whole: Embedded, sentences: Sequence[str], to: Mapping[str, str]) -> Floats:
    """Cosine of every sentence (n,) with its changed self; NaN where the rule leaves it as it is."""
    cosines = paired_cosine(whole.of(sentences), whole.of([to[s] for s in sentences]))
    cosines[[to[s] == s for s in sentences]] = np.nan
    return cosines


def _separated(near: Mapping[str, Floats], rules: Sequence[Perturbation]) -> float | None:
    """How often a change of a sentence's meaning moves it farther than one that keeps it, in percent; ties count half.

    Over every sentence and every two rules that change it, one of each kind: 100 where each change of meaning is the
    larger one, 50 where they cannot be told apart.
    """
    kept, lost = ([near[r.name] for r in rules if r.keeps is keeps] for keeps in (True, False))
    sums = np.zeros(2)
    for one, other in itertools.product(kept, lost):
        gap = (one - other)[np.isfinite(one) & np.isfinite(other)]
        sums += (np.sum(gap > SAME) + np.sum(np.abs(gap) <= SAME) / 2, len(gap))
    return round(float(100 * sums[0] / sums[1]), 4) if sums[1] else None


def _effect(tasks: Sequence[_Cosines], rule: str, side: str) -> Any:
    """Change of the Spearman correlation, or of its mean over tasks, with the paired bootstrap's interval."""
    names = [t.part.task.name for t in tasks]
    difference = mean_difference(
        dict(zip(names, (t.before for t in tasks), strict=True)),
        dict(zip(names, (t.after[rule][side] for t in tasks), strict=True)),
        dict(zip(names, (t.part.pairs.gold for t in tasks), strict=True)),
        dict(zip(names, (t.part.strata for t in tasks), strict=True)),
        RESAMPLES,
    )
    interval = None if difference.interval is None else [round(x, 4) + 0.0 for x in difference.interval]
    return {"change": round(difference.value, 4) + 0.0, "interval": interval}


def _spearman(task: _Cosines) -> float:
    return correlation("spearman", task.before, task.part.pairs.gold)


def _summary(changes: Mapping[str, Change], spearman: float, separated: float | None) -> Summary:
    """What is said of a task and of the average alike."""
    by_kind = {
        keeps: [c["moved"] for c in changes.values() if c["keeps"] is keeps and c["moved"] is not None]
        for keeps in (True, False)
    }
    kept, lost = [_rounded(float(np.mean(v))) if v else None for v in (by_kind[True], by_kind[False])]
    return {
        "spearman": round(spearman, 4),
        "moved_kept": kept,
        "moved_changed": lost,
        "separated": separated,
        "changes": changes,
    }


def _average(tasks: Mapping[str, TaskRobustness], cosines: Sequence[_Cosines]) -> Summary:
    """Means over the tasks; of one task its own figures."""
    each = list(tasks.values())
    if len(each) == 1:
        (only,) = each
        return {key: only[key] for key in Summary.__annotations__}  # type: ignore[return-value, literal-required]
    shared = [name for name in each[0]["changes"] if all(name in t["changes"] for t in each)]
    changes: dict[str, Change] = {}
    for name in shared:
        own = [t["changes"][name] for t in each]
        quartiles = [q for c in own if (q := c["quartiles"]) is not None]
        changes[name] = {
            "keeps": own[0]["keeps"],
            "changed": sum(c["changed"] for c in own),
            "cosine": _mean([c["cosine"] for c in own]),
            "moved": _mean([c["moved"] for c in own]),
            "quartiles": _triple(np.mean(quartiles, axis=0)) if len(quartiles) == len(own) else None,
            "one": _effect(cosines, name, "one"),
            "both": _effect(cosines, name, "both"),
        }
    spearman = float(np.mean([_spearman(t) for t in cosines]))
    return _summary(changes, spearman, _mean([t["separated"] for t in each]))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing."""
    there = [v for v in values if v is not None]
    return _rounded(float(np.mean(there))) if len(there) == len(values) else None


def _quartiles(cosines: Floats, typical: float) -> Any:
    """Of how far the vectors move; the lowest first."""
    if not len(cosines):
        return None
    return _triple([moved(float(q), typical) for q in np.quantile(cosines, [0.75, 0.5, 0.25])])


def _triple(values: Iterable[float]) -> Any:
    return [_rounded(float(v)) for v in values]


def _rounded(value: float) -> float:
    return round(value, 6) + 0.0  # no -0
