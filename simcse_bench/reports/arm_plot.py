"""The plot of an ablation: what every arm adds to the reference, here and in the paper, each on a scale of its own.

The paper's encoder scores tens of points above a small one, and its effects may be ten times as large: on one axis, one
of the two would be a flat line.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simcse_bench.data.text_formats import TEXT_FORMATS, suffix_of
from simcse_bench.reports.plots import FAINT, OURS, PAPER, drawing, is_number, literal, short_name, shown_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOG_FROM = 5  # times the smallest positive setting: from there on the axis is logarithmic
_APART = 0.14  # of the numbers' extent: the distance to a setting that has no place among them
_ASIDE = 7  # points: seeds stand beside their mean, not on its interval
_ZERO = "#8a929a"


@dataclass(frozen=True)
class Place:
    """Where an arm stands on the axis of settings."""

    at: float
    joined: bool  # a number among others, to be joined by a line


@dataclass(frozen=True)
class _Panel:
    """Scores of one encoder, by arm; where the reference has one, differences to it."""

    title: str
    label: str
    colour: str
    marker: str
    scores: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None]
    seeds: Sequence[Sequence[float]]


def plot_ablation(summary: Mapping[str, Any], titled: bool = True) -> Figure:
    """Every arm's difference to the reference: mean, 95 % interval, every seed; beside it that of the paper.

    Where the reference has not been run, scores stand in place of differences.

    Args:
        summary: of a sweep, see ``reports.summary.Summary``.
        titled: with the ablation's title; without, for a page that has it as a heading.
    """
    arms = [a for a in summary["arms"] if a["dev"]]
    panels = [_ours(arms, summary)]
    if any(a["published"] is not None for a in arms):
        panels.append(_theirs(arms, summary))
    head = [plot_title(summary)] * titled + [_reading(arms, summary)]
    numeric = bool(summary["axis"]) and sum(is_number(a["arm"]) for a in arms) > 1
    ratios = (3, 2)[: len(panels)]
    shape: dict[str, Any]
    if numeric:
        height, shape = 3.3 + 1.7 * (len(panels) > 1), {"nrows": len(panels), "sharex": True, "height_ratios": ratios}
    else:
        height, shape = 1.3 + 0.34 * max(2, len(arms)), {"ncols": len(panels), "sharey": True, "width_ratios": ratios}
    with drawing(7.2, height + 0.4 * titled, squeeze=False, **shape) as (figure, grid):
        draw = _by_number if numeric else _by_name
        draw(list(grid.flat), panels, arms, summary)
        figure.suptitle(literal("\n".join(map(_wrapped, head))), x=0.01, ha="left", fontsize=10)
    return figure


def plot_title(summary: Mapping[str, Any]) -> str:
    """Title of an ablation's plot: what is varied, in which model, trained on which text."""
    return f"{summary['title']}\n{shown_encoder(summary)}, trained on {shown_text(summary['train']['name'])}"


def shown_encoder(summary: Mapping[str, Any]) -> str:
    """The encoder that the arms start from."""
    model = summary["model"] or {}
    return f"{model.get('name')} (embedded encoder)" if model.get("embedded") else str(model.get("name"))


def shown_text(name: str) -> str:
    """A training text in words: ``nli_triplets.csv`` is "nli triplets"."""
    suffix = suffix_of(name)
    return name.removesuffix(".gz").removesuffix(suffix).replace("_", " ") if suffix in TEXT_FORMATS else name


def places(names: Sequence[str]) -> list[Place]:
    """Arms on an axis of numbers, which is logarithmic where they differ by a factor of ``_LOG_FROM``.

    What has no place among them stands apart: 0 of a logarithmic axis, and names that are no numbers, on the side where
    they stand in the order of the arms.
    """
    numbers = {name: float(name) for name in names if is_number(name)}
    positive = [v for v in numbers.values() if v > 0]
    log = len(positive) > 1 and min(numbers.values()) >= 0 and max(positive) >= _LOG_FROM * min(positive)
    at = {n: math.log10(v) if log else v for n, v in numbers.items() if v or not log}
    first = min((names.index(n) for n in at), default=0)
    before = [n for n in names[:first] if n not in at]
    zero = [n for n in before if n in numbers]
    before = [n for n in before if n not in zero] + zero  # 0 next to the numbers
    after = [n for n in names if n not in at and n not in before]
    low, high = min(at.values(), default=0.0), max(at.values(), default=0.0)
    apart = _APART * (high - low) or 1.0
    at_all = at | {n: low - apart * (len(before) - i) for i, n in enumerate(before)}
    at_all |= {n: high + apart * (i + 1) for i, n in enumerate(after)}
    return [Place(at_all[n], n in at) for n in names]


def _wrapped(text: str) -> str:
    """A line in several, where it is longer than the figure is wide."""
    return "\n".join(textwrap.fill(line, 90) for line in text.split("\n"))


def _reading(arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """What is drawn, in a line."""
    counts = sorted({len(a["dev"]["values"]) for a in arms})
    several = counts[-1] > 1
    start = _reference(arms, summary)
    what = f"Spearman ×100, difference to {start['arm']}" if start else "Spearman ×100"
    bars = "95 % interval" if start else "± SD" * several
    marks = [
        "mean" if several else "one seed",
        *filter(None, [bars]),
        *[f"dots: {shown_range(counts)} seeds"] * several,
    ]
    return f"{what} ({', '.join(marks)})"


def _reference(arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arm that the others are compared with; nothing where it has not been run, or is the only one."""
    return next((a for a in arms if a["arm"] == summary["reference"] and len(arms) > 1), {})


def _ours(arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> _Panel:
    start = _reference(arms, summary)
    zero = start["dev"]["mean"] if start else 0.0
    if start:
        spreads = [(a.get("difference") or {}).get("interval") for a in arms]
    else:
        spreads = [(a["dev"]["mean"] - a["dev"]["sd"], a["dev"]["mean"] + a["dev"]["sd"]) if a["dev"]["sd"] else None
                   for a in arms]  # fmt: skip
    seeds = [[v - zero for v in a["dev"]["values"]] if len(a["dev"]["values"]) > 1 else [] for a in arms]
    name = f"{(summary['model'] or {}).get('name')}, {summary['dev']['title']} dev"
    return _Panel(name, _unit(zero), OURS, "o", [a["dev"]["mean"] - zero for a in arms], spreads, seeds)


def _theirs(arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> _Panel:
    zero = _reference(arms, summary).get("published") or 0.0
    scores = [None if a["published"] is None else a["published"] - zero for a in arms]
    none: list[Any] = [None] * len(arms)
    unit = "points, seven STS tasks" if summary.get("gains") else _unit(zero)
    return _Panel(f"BERT-base, {summary['source']}", unit, PAPER, "D", scores, none, [()] * len(arms))


def _unit(zero: float) -> str:
    return f"points (0 is {zero:.1f})" if zero else "Spearman ×100"


def _by_number(
    grid: Sequence[Axes], panels: Sequence[_Panel], arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    where = places([a["arm"] for a in arms])
    order = sorted(range(len(arms)), key=lambda i: where[i].at)
    for axes, panel in zip(grid, panels, strict=True):
        line = [i for i in order if where[i].joined and panel.scores[i] is not None]
        axes.plot(
            [where[i].at for i in line],
            [panel.scores[i] or 0.0 for i in line],
            color=panel.colour,
            linewidth=1,
            alpha=0.6,
        )
        aside = _shifted(axes, axes.transData, _ASIDE)
        for place, score, interval, seeds in zip(where, panel.scores, panel.intervals, panel.seeds, strict=True):
            _seeds(axes, [place.at] * len(seeds), seeds, aside)
            if interval:
                axes.plot([place.at] * 2, interval, color=panel.colour, linewidth=1.6, alpha=0.5, solid_capstyle="butt")
            if score is not None:
                _mark(axes, panel, place.at, score)
        if panel.label != _unit(0):
            axes.axhline(0, color=_ZERO, linewidth=0.9, zorder=1)
        axes.set_title(literal(panel.title), color=panel.colour, fontsize=9.5)
        axes.set_ylabel(panel.label, fontsize=9)
        axes.margins(x=0.06, y=0.1)
        axes.grid(False, axis="x")
        for left, right in itertools.pairwise(order):
            if where[left].joined != where[right].joined:
                _break(axes, (where[left].at + where[right].at) / 2)
    grid[-1].set_xlabel(short_name(summary["axis"]))
    extent = where[order[-1]].at - where[order[0]].at
    grid[-1].set_xticks(
        [where[i].at for i in order], _staggered([(where[i].at, arms[i]["arm"]) for i in order], extent)
    )
    _embolden(grid[-1].get_xticklabels(), [arms[i] for i in order], summary)


def _by_name(
    grid: Sequence[Axes], panels: Sequence[_Panel], arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    for axes, panel in zip(grid, panels, strict=True):
        aside = _shifted(axes, axes.transData, 0, -_ASIDE)
        for y, (score, interval, seeds) in enumerate(zip(panel.scores, panel.intervals, panel.seeds, strict=True)):
            _seeds(axes, seeds, [y] * len(seeds), aside)
            if interval:
                axes.plot(interval, [y, y], color=panel.colour, linewidth=1.6, alpha=0.5, solid_capstyle="butt")
            if score is not None:
                _mark(axes, panel, score, y)
        if panel.label != _unit(0):
            axes.axvline(0, color=_ZERO, linewidth=0.9, zorder=1)
        axes.set_title(literal(panel.title), color=panel.colour, fontsize=9.5)
        axes.set_xlabel(panel.label, fontsize=9)
        axes.margins(x=0.12)
        axes.tick_params(left=False)
    grid[0].set_yticks(range(len(arms)), [short_name(a["arm"]) for a in arms])
    grid[0].set_ylim(len(arms) - 0.4, -0.6)
    _embolden(grid[0].get_yticklabels(), arms, summary)


def _embolden(labels: Sequence[Any], arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """The reference's name."""
    for label, arm in zip(labels, arms, strict=True):
        label.set_fontweight("bold" if arm is _reference(arms, summary) else "normal")


def _seeds(axes: Axes, x: Sequence[float], y: Sequence[float], aside: Any) -> None:
    axes.plot(x, y, "o", color=FAINT, markersize=3.2, zorder=2, transform=aside)
    axes.update_datalim(list(zip(x, y, strict=True)))  # what is moved aside does not set the limits by itself


def _mark(axes: Axes, panel: _Panel, x: float, y: float) -> None:
    axes.plot([x], [y], panel.marker, color=panel.colour, markersize=5.5, zorder=4,
              markerfacecolor=panel.colour if panel.marker == "o" else "white")  # fmt: skip


def _shifted(axes: Axes, of: Any, right: float, up: float = 0) -> Any:
    """A transform, moved by some points."""
    from matplotlib.transforms import ScaledTranslation

    figure: Any = axes.get_figure(root=True)
    return of + ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)


def _break(axes: Axes, x: float) -> None:
    """Two strokes across the axis: what lies beyond is not on its scale."""
    across: Any = axes.get_xaxis_transform()
    stroke: dict[str, Any] = {"marker": [(-0.35, -1), (0.35, 1)], "markersize": 7, "clip_on": False}
    axes.plot([x], [0], color="white", markeredgewidth=4.5, transform=across, zorder=5, **stroke)
    for side in (-2, 2):
        axes.plot(
            [x], [0], color="black", markeredgewidth=0.9, transform=_shifted(axes, across, side), zorder=6, **stroke
        )


def _staggered(ticks: Sequence[tuple[float, str]], extent: float) -> list[str]:
    """Names of ticks in their order, each on the first of three lines on which it has room."""
    width = 68  # characters along the axis, about
    ends = [-math.inf] * 3
    names: list[str] = []
    for at, name in ticks:
        x = (at - ticks[0][0]) / (extent or 1.0) * width
        line = next((i for i, end in enumerate(ends) if x - len(name) / 2 > end + 1), len(ends) - 1)
        ends[line] = x + len(name) / 2
        names.append("\n" * line + short_name(name))
    return names
