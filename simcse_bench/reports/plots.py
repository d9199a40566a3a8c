"""Plots for papers: readable in print, safe for colour-blind readers, labelled at the data; SVG and PNG."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png")
OWN = "DejaVu Sans"  # the font that ships with matplotlib
_PREFERRED = ("sans", "gothic", "hei")  # in the name of a plain face, before serif and decorative ones
OURS, PAPER, FAINT = "#0072B2", "#D55E00", "#56B4E9"  # Okabe and Ito's palette
_LINES = ((OURS, "o"), (PAPER, "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#000000", "v"))  # the same; colour, marker
_STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 11, "axes.titlelocation": "left", "svg.hashsalt": "simcse-bench", "svg.fonttype": "path",
    "font.family": OWN,
}  # fmt: skip


def plot_ablation(summary: Mapping[str, Any]) -> Figure:
    """Dev score of every arm: mean and standard deviation over seeds, every seed, the paper's points."""
    arms = [a for a in summary["arms"] if a["dev"]]
    size = (6.4, 4.0) if summary["axis"] else (6.8, 1.3 + 0.42 * max(3, len(arms)))
    with _drawing(*size) as (figure, axes):
        draw = _numeric if summary["axis"] else _categories
        draw(axes, arms, summary)
        figure.suptitle(_text(plot_title(summary)), x=0.01, ha="left", fontsize=11)
    return figure


def plot_title(summary: Mapping[str, Any]) -> str:
    """Title of an ablation's plot and page: what, which model, which data."""
    model = summary["model"] or {}
    name = "embedded mini encoder" if model.get("embedded") else model.get("name")
    lines = [summary["title"], f"{name}, trained on {summary['train']['name']}, {summary['dev']['title']} dev"]
    return "\n".join(lines)


def plot_scatter(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Figure 3: alignment against uniformity, a point per model's analysis, coloured by its score."""
    with _drawing(6.4, 4.4) as (figure, axes):
        dots = axes.scatter(
            [p["uniformity"] for p in points], [p["alignment"] for p in points],
            c=[p["spearman"] for p in points], cmap="cividis", s=60, zorder=3,
        )  # fmt: skip
        axes.set(xlabel="uniformity (lower is better)", ylabel="alignment (lower is better)")
        axes.margins(0.15)
        figure.colorbar(dots, label="Spearman ×100")
        _names(axes, [(p["uniformity"], p["alignment"], p["model"]["name"], "black") for p in points])
    return figure


def plot_trajectory(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Figure 2: alignment against uniformity during training, a line per run; the ring is its start."""
    with _drawing(6.4, 4.4) as (figure, axes):
        ends = []
        for (name, points), (colour, marker) in zip(runs.items(), itertools.cycle(_LINES), strict=False):
            x, y = [p["uniformity"] for p in points], [p["alignment"] for p in points]
            axes.plot(x, y, f"{marker}-", color=colour, markersize=3.5, linewidth=1.4)
            axes.plot(x[:1], y[:1], "o", color=colour, markersize=8, fillstyle="none")
            ends.append((x[-1], y[-1], name, colour))
        axes.set(xlabel="uniformity (lower is better)", ylabel="alignment (lower is better)")
        axes.margins(0.12)
        _names(axes, ends)
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """``<path>.svg`` and ``<path>.png``."""
    for form in FORMS:
        write_bytes(path.with_name(f"{path.name}.{form}"), render_figure(figure, form))


def plot_densities(analysis: Mapping[str, Any]) -> Figure:
    """The cosines of the pairs of each unit of gold score (SimCSE, appendix: cosine densities), one row each."""
    rows = analysis["cosines"][::-1]
    with _drawing(6.4, 0.9 + 0.75 * len(rows), grid=False) as (figure, axes):
        colours = _pyplot().get_cmap("cividis")
        edges = [-1 + 2 * i / len(rows[0]["counts"]) for i in range(len(rows[0]["counts"]) + 1)]
        used = [i for row in rows for i, n in enumerate(row["counts"]) if n]
        for place, row in enumerate(rows):
            heights = [0.85 * n / max(row["counts"]) for n in row["counts"]]
            axes.stairs([-place + h for h in heights], edges, baseline=-place, fill=True, alpha=0.75,
                        color=colours(1 - row["gold"][0] / 5))  # fmt: skip
            axes.plot([row["quartiles"][1]] * 2, [-place, -place + 0.85], color="black", linewidth=1)
        labels = [f"{r['gold'][0]} to {r['gold'][1]}\nn = {r['n']:,}" for r in rows]
        axes.set_yticks([0.42 - i for i in range(len(rows))], labels)
        axes.set_xlim(edges[max(0, min(used) - 1)], edges[min(len(edges) - 1, max(used) + 2)])
        axes.set(xlabel="cosine of the pair (line: median)", ylabel="gold score")
        title = _text(f"{analysis['model']['name']}, {analysis['data']['task']}")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def plot_spectrum(models: Sequence[Mapping[str, Any]]) -> Figure:
    """Singular values of the centred unit vectors, relative to the largest, a line per model."""
    with _drawing(6.4, 4.0) as (figure, axes):
        colours = _pyplot().get_cmap("cividis")
        for i, analysis in enumerate(models):
            values = [v for v in analysis["singular_values"] if v > 1e-4]
            colour = colours(i / max(1, len(models) - 1) * 0.85)
            axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.5)
            if not values:
                continue
            middle = len(values) * (i + 1) // (len(models) + 1)
            label = _text(f"{analysis['model']['name']} (effective rank {analysis['effective_rank']:.0f})")
            axes.annotate(label, (middle + 1, values[middle]), xytext=(4, 6), textcoords="offset points", color=colour)
        axes.set(yscale="log", xlabel="singular value", ylabel="relative to the largest")
    return figure


def render_figure(figure: Figure, form: str) -> bytes:
    """The file's bytes, svg or png (200 dpi); the same figure and fonts give the same bytes."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    with _pyplot().rc_context(_STYLE), no_glyph_warnings():
        add_fonts(figure)
        figure.savefig(stream, format=form, dpi=200, metadata=metadata)
    return stream.getvalue()


def _numeric(axes: Axes, arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Evenly spaced arms: their values as a rule span orders of magnitude."""
    place = range(len(arms))
    for x, arm in zip(place, arms, strict=True):
        axes.plot([x] * len(arm["dev"]["values"]), arm["dev"]["values"], "o", color=FAINT, markersize=3, zorder=2)
    numbers = [i for i, arm in enumerate(arms) if is_number(arm["arm"])]
    means, spreads = [a["dev"]["mean"] for a in arms], [a["dev"]["sd"] or 0.0 for a in arms]
    axes.plot(numbers, [means[i] for i in numbers], "-", color=OURS, linewidth=1.4, zorder=3)
    axes.errorbar(place, means, yerr=spreads, fmt="o", color=OURS, capsize=3, markersize=5, zorder=4)
    published = [(i, a["published"]) for i, a in enumerate(arms) if a["published"] is not None]
    if published:
        line = [(i, p) for i, p in published if i in numbers]
        axes.plot([i for i, _ in line], [p for _, p in line], "--", color=PAPER, linewidth=1)
        axes.plot(*zip(*published, strict=True), "D", color=PAPER, markersize=5, fillstyle="none")
        _label(axes, published[-1], f"{summary['source']}:\nBERT-base", PAPER)
    _label(axes, (len(arms) - 1, means[-1]), "here", OURS)
    axes.set_xticks(list(place), [_text(a["arm"]) for a in arms])
    axes.set(xlabel=_text(summary["axis"]), ylabel=_axis(summary, arms))
    axes.set_xlim(-0.4, len(arms) + 0.9)


def _categories(axes: Axes, arms: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    place = range(len(arms))
    for y, arm in zip(place, arms, strict=True):
        axes.plot(arm["dev"]["values"], [y] * len(arm["dev"]["values"]), "o", color=FAINT, markersize=3, zorder=2)
    axes.errorbar(
        [a["dev"]["mean"] for a in arms], place, xerr=[a["dev"]["sd"] or 0.0 for a in arms],
        fmt="o", color=OURS, capsize=3, markersize=5, zorder=4,
    )  # fmt: skip
    published = [(a["published"], i) for i, a in enumerate(arms) if a["published"] is not None]
    label: Any = {"textcoords": "offset points", "xytext": (0, 8), "va": "bottom"}
    # the two labels grow away from each other
    side = "right" if published and published[0][0] > arms[0]["dev"]["mean"] else "left" if published else "center"
    axes.annotate("here", (arms[0]["dev"]["mean"], 0), color=OURS, ha=side, **label)
    if published:
        axes.plot(*zip(*published, strict=True), "D", color=PAPER, markersize=5, fillstyle="none")
        axes.annotate(_text(f"{summary['source']}:\nBERT-base"), published[0], color=PAPER, ha="center", **label)
    axes.set_yticks(list(place), [_text(a["arm"]) for a in arms])
    axes.set_ylim(len(arms) - 0.5, -1.1)
    axes.set(xlabel=_axis(summary, arms))
    axes.margins(x=0.12)


def _text(words: str) -> str:
    """A text that matplotlib draws as it stands: dollar signs enclose no formula."""
    return words.replace("$", r"\$")


def _axis(summary: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({len(a["seeds"]) for a in arms})
    shown = f"\n(mean ± SD of {shown_range(counts)} seeds)" if counts[-1] > 1 else ""
    return _text(f"{summary['dev']['title']} dev, Spearman ×100{shown}")


def shown_range(counts: Sequence[int]) -> str:
    """The smallest and the largest of sorted numbers, or the one there is."""
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def _label(axes: Axes, point: tuple[float, float], text: str, colour: str) -> None:
    axes.annotate(_text(text), point, xytext=(8, 0), textcoords="offset points", color=colour, va="center", fontsize=9)


def _names(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside points (x, y, name, colour): one that would stand on another is moved up, with a line to its point.

    Call it last: the names stand where they are with the axes' final limits.
    """
    from matplotlib.patheffects import withStroke

    figure: Any = axes.get_figure(root=True)
    ordered = sorted(points, key=lambda p: p[1])
    texts = [
        axes.annotate(
            _text(name), (x, y), xytext=(7, 0), textcoords="offset points", color=colour, va="center",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        for x, y, name, colour in ordered
    ]  # fmt: skip
    add_fonts(figure)
    pixels = figure.dpi / 72
    placed: list[Any] = []
    with no_glyph_warnings():
        figure.draw_without_rendering()  # the layout decides where the points are
        for text, (x, y, _, colour) in zip(texts, ordered, strict=True):
            own = box = text.get_window_extent()
            while any(box.overlaps(other) for other in placed):
                box = box.translated(0, pixels)
            placed.append(box)
            up = (box.y0 - own.y0) / pixels
            if up:
                text.set_position((7, up))
                line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2}
                axes.annotate("", (x, y), xytext=(7, up), textcoords="offset points", arrowprops=line)


def is_number(text: str) -> bool:
    """Whether an arm's name is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _drawing(width: float, height: float, grid: bool = True) -> Iterator[tuple[Figure, Axes]]:
    """A new figure (inches) in our style, and its axes."""
    plt = _pyplot()
    with plt.rc_context(_STYLE | {"axes.grid": grid}):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        yield figure, axes
    plt.close(figure)  # off pyplot's list; it can still be saved


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def add_fonts(figure: Figure) -> None:
    """Give every text of a figure the fonts that its characters need; what no font has stays an empty box.

    A figure whose texts the own font can draw is left as it is, to the byte.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    more = find_fonts(frozenset("".join(text.get_text() for text in texts)))
    for text in texts if more else ():
        text.set_fontfamily([OWN, *more])


def find_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts that together have as many as possible of the characters that the own one lacks."""
    from matplotlib import font_manager

    lacking = {ord(c) for c in characters if c.isprintable()} - _characters(font_manager.findfont(OWN))
    fonts: list[str] = []
    for name, file in _installed() if lacking else ():
        if lacking & _characters(file):
            fonts.append(name)
            lacking -= _characters(file)
        if not lacking:
            break
    return tuple(fonts)


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """A missing glyph is drawn as a box; the text itself stands in the table beside the plot."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        yield


def _installed() -> list[tuple[str, str]]:
    """Name and file of every upright font of ordinary weight, plain faces first."""
    from matplotlib import font_manager

    fonts = {
        f.name: f.fname
        for f in font_manager.fontManager.ttflist
        if f.style == "normal" and str(f.weight) in ("400", "normal", "regular") and "LastResort" not in f.name
    }
    return sorted(fonts.items(), key=lambda font: (not any(w in font[0].lower() for w in _PREFERRED), font[0]))


@cache
def _characters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except RuntimeError:  # a font that freetype cannot open
        return frozenset()
