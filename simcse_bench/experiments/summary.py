"""What a sweep found: means over seeds, differences with intervals, the paper's statements held against them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from simcse_bench.evaluation.metrics import Floats
from simcse_bench.evaluation.statistics import Difference, difference, holm
from simcse_bench.experiments.sweep import Sweep, varied_fields
from simcse_bench.experiments.trial import TrialResult
from simcse_bench.papers.published import read_table
from simcse_bench.papers.simcse_2021 import Finding, PublishedColumn
from simcse_bench.reports.summary import Summary


def summarise(
    sweep: Sweep, results: Sequence[TrialResult], title: str, gold: Floats, sizes: Mapping[str, int]
) -> Summary:
    """The content of summary.json, the source of table, plot and page.

    Args:
        sweep: what was planned.
        results: finished trials, and those that failed.
        title: of the dev task.
        gold: gold scores (n,) of the dev pairs; they stay out of the result.
        sizes: dev pairs of each subset.
    """
    done = [r for r in results if r["status"] == "finished"]
    arms_there = {r["arm"] for r in results} | set(sweep.arms)
    names = [a for a in sweep.ablation.arms_of(sweep.preset) if a in arms_there]
    by_arm = {arm: [r for r in done if r["arm"] == arm] for arm in names}
    similarities = {arm: np.array([r["dev"]["similarities"] for r in own]) for arm, own in by_arm.items() if own}
    reference = similarities.get(sweep.reference)
    differences = {
        arm: difference(reference, rows, gold, sizes)
        for arm, rows in similarities.items()
        if reference is not None and arm != sweep.reference
    }
    corrected = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))
    paper = published_scores(sweep.ablation.published)
    arms = []
    for arm, own in by_arm.items():
        entry: dict[str, Any] = {
            "arm": arm,
            "seeds": [r["seed"] for r in own],
            "dev": _spread([r["dev"]["score"] for r in own]),
            "test": _spread([r["test"]["score"] for r in own if r["test"]]),
            "alignment": _spread([r["dev"]["alignment"] for r in own if "alignment" in r["dev"]]),
            "uniformity": _spread([r["dev"]["uniformity"] for r in own if "uniformity" in r["dev"]]),
            "published": paper.get(arm),
            "failed": [
                {"seed": r["seed"], "problems": r["problems"]}
                for r in results
                if r["arm"] == arm and r["status"] == "failed"
            ],
        }
        if sweep.ablation.costs and own:
            entry["cost"] = {
                "seconds": round(statistics.mean(r["run"]["seconds"] for r in own), 3),
                "state_mib": round(statistics.mean(r["run"]["state_mib"] for r in own), 2),
            }
        if arm in differences:
            seeds = min(len(own), len(by_arm[sweep.reference]))
            entry["difference"] = _plain(differences[arm]) | {"holm": corrected[arm], "seeds": seeds}
        arms.append(entry)
    first = next(iter(done), None)
    but_some = _own_settings(sweep, done)
    summary: Any = {
        "schema": 1,
        "name": sweep.ablation.name,
        "preset": sweep.preset,
        "title": sweep.ablation.title,
        "axis": sweep.ablation.axis,
        "note": sweep.ablation.note,
        "reference": sweep.reference,
        "source": sweep.ablation.published.source if sweep.ablation.published else None,
        **({"gains": True} if sweep.ablation.published and sweep.ablation.published.gains else {}),
        "arms": arms,
        "findings": [judge(f, similarities, gold, sizes, paper) for f in sweep.ablation.findings],
        "model": _shared([{"name": r["run"]["model"]["name"], "embedded": bool(r["run"]["model"].get("embedded"))}
                          for r in done], "several encoders"),
        "train": _shared([{k: r["run"]["data"][k] for k in ("name", "rows", "fingerprint")} for r in done],
                         "several texts"),
        "dev": {"title": title, **{k: first["dev"][k] for k in ("task", "split", "n", "fingerprint")}}
        if first
        else None,
        "base": {k: v for k, v in first["config"].items() if all(r["config"].get(k) == v for r in done)}
        if first
        else None,
        **({"own": but_some} if but_some else {}),
        **({"of_arms": [*sweep.of_arms]} if sweep.of_arms else {}),
        "seconds": round(sum(r["run"]["seconds"] for r in done), 1),
        "environment": first["run"]["environment"] if first else None,
    }  # fmt: skip
    return summary  # type: ignore[no-any-return]


def _own_settings(sweep: Sweep, done: Sequence[TrialResult]) -> dict[str, dict[str, Any]]:
    """Settings of the arms but some: by field, the values of those some, and of the others, as ""."""
    changes = sweep.ablation.arms_of(sweep.preset)
    settings: dict[str, dict[str, Any]] = {}
    changed = {name for r in done for name in changes[r["arm"]]} - varied_fields(changes)
    for field in sorted(name for name in changed if all(name in r["config"] for r in done)):  # not a method's own
        others = [r["config"][field] for r in done if field not in changes[r["arm"]]]
        if others and all(value == others[0] for value in others):
            own = {r["arm"]: r["config"][field] for r in done if field in changes[r["arm"]]}
            settings[field] = {"": others[0], **own}
    return settings


def _shared(values: Sequence[Mapping[str, Any]], otherwise: str) -> dict[str, Any] | None:
    """What all trials share, field by field; the name says where they differ."""
    if not values:
        return None
    shared = {k: v if all(other[k] == v for other in values) else None for k, v in values[0].items()}
    if shared["name"] is None:
        shared["name"] = otherwise
    if "embedded" in shared:
        shared["embedded"] = any(v["embedded"] for v in values)
    return shared


def judge(
    claim: Finding,
    similarities: Mapping[str, Floats],
    gold: Floats,
    sizes: Mapping[str, int],
    paper: Mapping[str, float],
    untrained: Collection[str] = (),
) -> dict[str, Any]:
    """Whether a statement holds here: yes or no where the interval leaves no doubt, else undecided; "one seed" of one.

    ``untrained``: sides that are one encoder as it is; the others need two seeds for a verdict.
    """
    entry: dict[str, Any] = {"text": claim.text, "better": claim.better, "worse": claim.worse, "verdict": "not run"}
    if claim.better in paper and claim.worse in paper:
        entry["published"] = round(paper[claim.better] - paper[claim.worse], 2)
    if claim.better in similarities and claim.worse in similarities:
        measured = difference(similarities[claim.worse], similarities[claim.better], gold, sizes)
        entry |= _plain(measured)
        low, high = measured.interval or (-1.0, 1.0)
        entry["verdict"] = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
        trained = {claim.better, claim.worse} - set(untrained)
        if any(len(similarities[side]) < 2 for side in trained):
            entry["verdict"] = "one seed"  # which says nothing of the spread over seeds
    return entry


def published_scores(published: PublishedColumn | None) -> dict[str, float]:
    """Arm -> the paper's score."""
    if published is None:
        return {}
    rows = read_table(published.file)
    named = {
        (f"α = {float(r['alpha']):g}" if r.get("alpha") else r[published.key]): r[published.score]
        for r in rows
        if r[published.key] not in published.without
    }
    named |= {f"{r[published.key]}, two encoders": r["two_encoders"] for r in rows if "two_encoders" in r}
    return {arm: float(score) for arm, score in named.items() if score}


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 4), "sd": None if deviation is None else round(deviation, 4),
            "values": list(values)}  # fmt: skip


def _plain(measured: Difference) -> dict[str, Any]:
    interval = None if measured.interval is None else [round(x, 4) for x in measured.interval]
    detectable = None if measured.detectable is None else round(measured.detectable, 4)
    return {
        "value": round(measured.value, 4),
        "interval": interval,
        "p": round(measured.p, 6),
        "detectable": detectable,
    }
