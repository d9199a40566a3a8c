"""The plots of robustness: how far vectors move where the meaning is kept and where it is changed; what scores lose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simcse_bench.reports.plots import MARKS, drawing, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN = "mean"  # the last row of each panel of the movement
_BOUND = 400.0  # percent: what moves farther (of a model whose vectors all point one way) is drawn at the edge
Row = tuple[str, Sequence[float | None], Sequence[Sequence[float] | None]]  # label; a value and an interval per model


def plot_movement(models: Sequence[Mapping[str, Any]]) -> Figure:
    """Invariance beside sensitivity: a panel for the changes that keep the meaning and one for those of it, same axis.

    A mark is the mean over sentences, its line their middle half; colour and shape are the model's.
    """
    kept, lost = _movements(models, True), _movements(models, False)
    tall = max(len(kept), len(lost) + 1 + len(models) / 2)
    with drawing(7.2, 1.1 + tall * _row_height(models), ncols=2, sharex=True) as (figure, (left, right)):
        for axes, rows, title in (
            (left, kept, "meaning kept:\nshould not move"),
            (right, lost, "meaning changed:\nshould move"),
        ):
            _draw_rows(axes, rows, tall)
            axes.set_title(title, fontsize=10)
            if len(rows) > 1:
                axes.axhline(len(rows) - 1.5, color="black", linewidth=0.6)
        left.set_xlim(left=min(0.0, left.get_xlim()[0]))
        figure.supxlabel("moved, % of the distance of two sentences (line: middle half of the sentences)", fontsize=9)
        right.legend(**_handles(right, models), loc="lower left")
    return figure


def plot_change(models: Sequence[Mapping[str, Any]]) -> Figure:
    """Change of the Spearman correlation with its 95 % interval, one side of the pairs changed and both."""
    names = _names(models)
    kept = sum(all(m["average"]["changes"][n]["keeps"] for m in models if n in m["average"]["changes"]) for n in names)
    tall = len(names)
    height = 1.1 + tall * _row_height(models) + 0.22 * len(models)
    with drawing(7.2, height, ncols=2, sharex=True, sharey=True) as (figure, pair):
        for axes, side, title in zip(pair, ("one", "both"), ("one sentence changed", "both changed"), strict=True):
            _draw_rows(axes, [_effects(models, name, side) for name in names], tall)
            axes.set_title(title, fontsize=10)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.axhline(kept - 0.5, color="black", linewidth=0.6)
        words = {"transform": pair[1].get_yaxis_transform(), "fontsize": 8, "color": "#555555", "ha": "left"}
        pair[1].text(1.01, kept - 0.6, "kept", va="bottom", rotation=90, **words)
        pair[1].text(1.01, kept - 0.4, "changed", va="top", rotation=90, **words)
        figure.supxlabel("change of Spearman ×100, 95 % interval", fontsize=9)
        figure.legend(**_handles(pair[0], models), loc="outside upper left")
    return figure


def _names(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of all models' rules, those that keep the meaning first."""
    keeps = {name: change["keeps"] for m in models for name, change in m["average"]["changes"].items()}
    return sorted(keeps, key=lambda name: not keeps[name])


def _movements(models: Sequence[Mapping[str, Any]], keeps: bool) -> list[Row]:
    rows: list[Row] = []
    for name in _names(models):
        changes = [m["average"]["changes"].get(name) for m in models]
        if any(c and c["keeps"] is keeps for c in changes):
            values = [_percent(c and c["moved"]) for c in changes]
            spans = [
                [float(_percent(q) or 0) for q in c["quartiles"]] if c and c["quartiles"] else None for c in changes
            ]
            rows.append((name, values, [s and (s[0], s[2]) for s in spans]))
    means = [_percent(m["average"]["moved_kept" if keeps else "moved_changed"]) for m in models]
    return [*rows, (_MEAN, means, [None] * len(models))]


def _effects(models: Sequence[Mapping[str, Any]], name: str, side: str) -> Row:
    effects = [c[side] if (c := m["average"]["changes"].get(name)) else None for m in models]
    return name, [e and e["change"] for e in effects], [e and e["interval"] for e in effects]


def _percent(share: float | None) -> float | None:
    return None if share is None else min(max(100 * share, -_BOUND), _BOUND)


def _row_height(models: Sequence[Mapping[str, Any]]) -> float:
    return 0.2 + 0.11 * len(models)


def _draw_rows(axes: Axes, rows: Sequence[Row], tall: float) -> None:
    """A row for each, the first at the top; the models' marks below each other in it."""
    for place, (_, values, spans) in enumerate(rows):
        for i, (value, span, (colour, marker)) in enumerate(zip(values, spans, itertools.cycle(MARKS), strict=False)):
            y = place + 0.7 * ((i + 0.5) / len(values) - 0.5)
            if span:
                axes.plot(span, [y, y], color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
            if value is not None:
                axes.plot(value, y, marker, color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=0.7)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=9.5)
    axes.set_ylim(tall - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(left=False)


def _handles(axes: Axes, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a legend: each model's mark with its name."""
    for m, (colour, marker) in zip(models, itertools.cycle(MARKS), strict=False):
        axes.plot([], [], marker, color=colour, markersize=6.5, label=short_name(m["model"]["name"]))
    handles, labels = axes.get_legend_handles_labels()
    return {"handles": handles, "labels": labels, "frameon": False, "fontsize": 9, "borderpad": 0, "handletextpad": 0.2}
