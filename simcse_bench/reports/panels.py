"""The site's figures as data for its template: statements of the paper, ablations, geometry, robustness.

Places on an axis are percentages of its width, so that a figure fits any screen and its text keeps its size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench import bundled
from simcse_bench.models.identity import shown_usage
from simcse_bench.reports import ablation, geometry, page, robustness
from simcse_bench.reports.again import ablation_command, analyze_command, robustness_command
from simcse_bench.reports.geometry import Analysis
from simcse_bench.reports.robustness import Robustness
from simcse_bench.reports.summary import FindingResult, Summary
from simcse_bench.reports.table import shown_numbers, shown_spread

_FAR = 1.8
_FAR_MOVE = 400.0  # percent of the distance of two sentences: what moves farther is shown at the axis' end
_ABSURD = 1e9  # a score or a difference of a damaged file: it gets no place on an axis


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``."""

    low: float
    high: float
    ticks: Sequence[float]

    @staticmethod
    def around(values: Iterable[float], *, zero: bool = False) -> Axis:
        """The axis that holds these values (and 0), with round ticks and a little room at its ends."""
        within = [v for v in values if abs(v) < _ABSURD] + [0.0] * zero or [0.0]
        low, high = min(within), max(within)
        room = 0.04 * (high - low) or 0.5
        low, high = low - room, high + room
        step = _round_step((high - low) / 4)
        first, last = math.ceil(low / step), math.floor(high / step)
        return Axis(low, high, [round(i * step, 10) for i in range(first, last + 1)])

    def at(self, value: float) -> float:
        """The place of a value, in percent of the width, two digits; that of an end for a value beyond it."""
        return round(100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low), 2)

    def beyond(self, value: float) -> int:
        """-1 below the axis, 1 above it, else 0."""
        return (value > self.high) - (value < self.low)


@dataclass(frozen=True)
class Source:
    """Where a statement was tried."""

    trained: str  # what on what, with how many seeds
    embedded: bool
    link: str  # id of a part of the page


@dataclass(frozen=True)
class Found:
    """A statement of the paper with its verdict."""

    source: Source
    title: str  # of the table that it belongs to
    result: FindingResult


def without_far_ones(marks: Sequence[float]) -> tuple[float, float]:
    """Where an axis around differences may end, so that one far from all others does not make them a heap at 0.

    The farthest is left out while it is more than ``_FAR`` times as far as the next one and three others stay.
    """
    far = sorted(map(abs, marks), reverse=True)
    while len(far) > 4 and far[0] > _FAR * far[1] > 0:
        del far[0]
    limit = 1.15 * far[0] if far and len(far) < len(marks) else math.inf
    return -limit, limit


def statements(found: Sequence[Found]) -> dict[str, Any]:
    """The dashboard: every statement of the paper, grouped by table, with the verdict wherever it was tried."""
    results = [f.result for f in found]
    marks = [v for r in results for v in (r.get("value"), r.get("published")) if v is not None]
    low, high = without_far_ones(marks)
    values = [v for v in (*marks, *(v for r in results for v in r.get("interval") or ())) if low <= v <= high]
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for f in found:
        result = f.result
        line = {
            "source": f.source,
            "value": result.get("value"),
            "interval": result.get("interval"),
            "paper": result.get("published"),
            "shown": _signed("{:+.2f}", result.get("value")),
            "between": _signed("{:+.1f} to {:+.1f}", *(result.get("interval") or ())),
            "shown_paper": _signed("{:+.1f}", result.get("published")),
            **_verdict(result["verdict"]),
        }
        groups.setdefault(f.title, {}).setdefault(result["text"], []).append(line)
    counts = {name: sum(r["verdict"] == name for r in results) for name in page.VERDICTS}
    return {
        "axis": Axis.around(values, zero=True),
        "groups": groups,
        "embedded": all(f.source.embedded for f in found),
        "counts": [{**_verdict(name), "count": n} for name, n in counts.items() if n],
    }


def ablation_panel(ident: str, place: str, summary: Summary, part_of: str = "") -> dict[str, Any]:
    """One of the small multiples: every arm's difference to the reference in points, its seeds, and the paper's.

    Where the reference has not been run, scores stand in place of differences.

    Args:
        ident: of the panel on the page.
        place: of the sweep's folder, below the results folder.
        summary: of the sweep.
        part_of: the command that makes it, where it is part of a reproduction.
    """
    by_name = {arm["arm"]: arm for arm in summary["arms"]}
    reference = by_name.get(summary["reference"])
    start = reference["dev"]["mean"] if reference and reference["dev"] else None
    paper = reference["published"] if reference else None
    ours, theirs = start or 0.0, (paper or 0.0) if start is not None else 0.0
    drawn_paper = paper is not None or start is None  # a difference of the paper needs its reference, too
    rows: list[dict[str, Any]] = []
    for arm in summary["arms"]:
        dev, apart = arm["dev"], arm.get("difference")
        published = arm["published"]
        rows.append({
            "arm": arm["arm"],
            "reference": arm is reference,
            "shown": shown_spread(dev["mean"], dev["sd"]) if dev else shown_numbers("", None),
            "difference": _signed("{:+.2f}", apart["value"] if apart else None),
            "mean": dev["mean"] - ours if dev else None,
            "interval": apart["interval"] if apart and start is not None else None,
            "seeds": [v - ours for v in dev["values"]] if dev else [],
            "paper": published - theirs if published is not None and drawn_paper else None,
        })  # fmt: skip
    marks = [[v for v in (r["mean"], r["paper"]) if v is not None] for r in rows]
    low, high = without_far_ones([v for own in marks for v in own]) if start is not None else (-math.inf, math.inf)
    values: list[float] = []
    for row, own in zip(rows, marks, strict=True):
        near = [v for v in own if low <= v <= high]
        values += near if len(near) < len(own) else [*own, *(row["interval"] or ()), *row["seeds"]]
    table = ablation.ablation_table(summary)
    table = dataclasses.replace(table, notes=bundled.other_notes(table.notes))
    model, train, dev_data = summary["model"], summary["train"], summary["dev"]
    return {
        "id": ident,
        "place": place,
        "title": summary["title"],
        "source": summary["source"] or "",
        "setting": f"{model['name']} on {train['name']}" if model and train else "no trial has finished",
        "measure": f"{dev_data['title']} dev" if dev_data else "",
        "unit": f"points above {summary['reference']}" if start is not None else "Spearman ×100",
        "embedded": bool(model and model["embedded"]),
        "axis": Axis.around(values, zero=start is not None),
        "rows": rows,
        "verdicts": [{"text": f["text"], **_verdict(f["verdict"])} for f in summary["findings"]],
        "table": page.section("", None, table),
        "reference": summary["reference"],
        "made": {
            "title": summary["title"],
            "facts": [*ablation.ablation_provenance(summary).items(), ("folder", place)],
            "command": part_of or ablation_command(summary),
        },
    }


def geometry_panel(ident: str, place: str, analyses: Sequence[Analysis], part_of: str = "") -> dict[str, Any]:
    """Alignment against uniformity, and the cosines by gold score, of the models analysed in one folder.

    ``part_of``: the command that makes them, where they are part of a reproduction.
    """
    named = geometry.own_names(analyses)
    bins = [q for m in named for c in m["cosines"] for q in c["quartiles"]]
    return {
        "id": ident,
        "place": place,
        "x": Axis.around(m["uniformity"] for m in named),
        "y": Axis.around(m["alignment"] for m in named),
        "cosine": Axis.around(bins),
        "models": [
            {**m, "name": m["model"]["name"], "settings": shown_usage(m["model"]),
             "embedded": bool(m["model"].get("embedded"))}
            for m in named
        ],
        "notes": bundled.other_notes(geometry.geometry_table(analyses).notes),
        "made": {
            "title": "Geometry",
            "facts": [*geometry.geometry_provenance(named).items(), ("folder", place)],
            "command": part_of or "\n".join(dict.fromkeys(map(analyze_command, analyses))),
        },
    }  # fmt: skip


def robustness_panel(place: str, models: Sequence[Robustness]) -> dict[str, Any]:
    """How far vectors move, model by model: where the meaning is kept, and where it is changed, on one axis."""
    named = geometry.own_names(models)
    shown: list[dict[str, Any]] = [
        {"name": m["model"]["name"], "embedded": bool(m["model"].get("embedded")), "groups": _groups(m)} for m in named
    ]
    moves = [v for m in shown for g in m["groups"] for r in g["rows"] for v in (r["moved"], *(r["half"] or ()))]
    summary = robustness.summary_table(models)
    return {
        "id": place,
        "place": place,
        "axis": Axis.around([v for v in moves if v is not None and abs(v) < _FAR_MOVE], zero=True),
        "models": shown,
        "table": page.section("", None, dataclasses.replace(summary, notes=bundled.other_notes(summary.notes))),
        "made": {
            "title": "Robustness",
            "facts": [*robustness.robustness_provenance(named).items(), ("folder", place)],
            "command": "\n".join(dict.fromkeys(map(robustness_command, models))),
        },
    }


def _groups(model: Robustness) -> list[dict[str, Any]]:
    """The changes that keep the meaning, and those of it; movement in percent."""
    changes = robustness.by_kind(model["average"]["changes"])
    means = {True: model["average"]["moved_kept"], False: model["average"]["moved_changed"]}
    return [
        {
            "meaning": "kept" if keeps else "changed",
            "mean": robustness.percent(means[keeps]),
            "rows": [
                {
                    "change": name,
                    "moved": _times100(c["moved"]),
                    "half": (100 * c["quartiles"][0], 100 * c["quartiles"][2]) if c["quartiles"] else None,
                    "shown": robustness.percent(c["moved"]),
                    "score": _signed("{:+.2f}", c["both"]["change"]),
                }
                for name, c in changes
                if c["keeps"] is keeps
            ],
        }
        for keeps in (True, False)
    ]


def _times100(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least * (1 - 1e-9))


def _signed(form: str, *numbers: float | None) -> str:
    """With a minus, not a hyphen."""
    return shown_numbers(form, *numbers).replace("-", "−")


def _verdict(name: str) -> dict[str, str]:
    kind, sign = page.VERDICTS.get(name, ("none", "–"))
    return {"verdict": name, "kind": kind, "sign": sign}
