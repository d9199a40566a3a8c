"""Plots for papers: readable in print, safe for colour-blind readers, labelled at the data; SVG and PNG."""

from __future__ import annotations

import io
import itertools
import math
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
MOST_LETTERS = 40  # of a name in a plot
OWN = "DejaVu Sans"  # the font that ships with matplotlib
_PREFERRED = ("sans", "gothic", "hei")  # in the name of a plain face, before serif and decorative ones
OURS, PAPER, FAINT = "#0072B2", "#D55E00", "#56B4E9"  # Okabe and Ito's palette
MARKS = ((OURS, "o"), (PAPER, "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#000000", "v"))  # the same; colour, marker
_STYLES = [(line, style) for style in ("-", "--", ":") for line in MARKS]
_STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 11, "axes.titlelocation": "left", "svg.hashsalt": "simcse-bench", "svg.fonttype": "path",
    "font.family": OWN,
}  # fmt: skip


def plot_scatter(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Figure 3: alignment against uniformity, a point per model's analysis, coloured by its score."""
    with drawing(6.4, 4.4) as (figure, axes):
        dots = axes.scatter(
            [p["uniformity"] for p in points], [p["alignment"] for p in points],
            c=[p["spearman"] for p in points], cmap="cividis", s=70, zorder=3, edgecolor="black", linewidth=0.6,
        )  # fmt: skip
        axes.set(xlabel="uniformity (lower is better)", ylabel="alignment (lower is better)")
        axes.margins(0.12)
        figure.colorbar(dots, label="Spearman ×100", pad=0.02, aspect=30).outline.set_visible(False)
        _names(axes, [(p["uniformity"], p["alignment"], p["model"]["name"], "black") for p in points])
    return figure


def plot_trajectory(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Figure 2: alignment against uniformity during training, a line per run, from its ring to its large mark."""
    with drawing(6.4, 4.2) as (figure, axes):
        ends = []
        for (name, points), (colour, marker) in zip(runs.items(), itertools.cycle(MARKS), strict=False):
            x, y = [p["uniformity"] for p in points], [p["alignment"] for p in points]
            axes.plot(x, y, f"{marker}-", color=colour, markersize=2.5, linewidth=0.9, alpha=0.7)
            axes.plot(x[:1], y[:1], "o", color=colour, markersize=8, fillstyle="none")
            axes.plot(x[-1:], y[-1:], marker, color=colour, markersize=7, markeredgecolor="white", zorder=4)
            ends.append((x[-1], y[-1], name, colour))
        axes.set(xlabel="uniformity (lower is better)", ylabel="alignment (lower is better)")
        axes.set_title("a line per training run, from its start (ring) to its end (large mark)", fontsize=9)
        axes.margins(0.1)
        _names(axes, ends)
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """``<path>.svg`` and ``<path>.png``."""
    for form in FORMS:
        write_bytes(path.with_name(f"{path.name}.{form}"), render_figure(figure, form))


def plot_densities(analyses: Sequence[Mapping[str, Any]]) -> Figure:
    """The cosines of the pairs of each unit of gold score (SimCSE, appendix: cosine densities), a panel per model.

    A line through each stands at its median. All panels have one axis of cosines.
    """
    columns = min(2, len(analyses))
    lines = -(-len(analyses) // columns)
    most = max(len(m["cosines"]) for m in analyses)
    with drawing(3.6 + 3.6 * (columns > 1), (0.5 + 0.36 * most) * lines + 0.5, grid=False, nrows=lines, ncols=columns,
                 squeeze=False, sharex=True) as (figure, grid):  # fmt: skip
        ends: list[float] = []
        for m, axes in zip(analyses, grid.flat, strict=False):
            ends += _draw_densities(axes, m)
        for axes in grid.flat[len(analyses) :]:
            axes.set_axis_off()
        grid[0][0].set_xlim(max(-1.02, min(ends) - 0.02), min(1.02, max(ends) + 0.02))
        for axes in list(grid.flat)[: len(analyses)][-columns:]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("cosine of a pair (line: median)", fontsize=9)
        figure.supylabel("gold score", fontsize=9)
    return figure


def _draw_densities(axes: Axes, analysis: Mapping[str, Any]) -> tuple[float, float]:
    """Gives the least and the greatest cosine."""
    rows = analysis["cosines"]
    colours = _pyplot().get_cmap("cividis")
    edges = [-1 + 2 * i / len(rows[0]["counts"]) for i in range(len(rows[0]["counts"]) + 1)]
    used = [i for row in rows for i, n in enumerate(row["counts"]) if n]
    for place, row in enumerate(rows):
        heights = [0.88 * n / max(row["counts"]) for n in row["counts"]]
        axes.stairs([place + h for h in heights], edges, baseline=place, fill=True, alpha=0.8,
                    color=colours(0.1 + 0.16 * row["gold"][0]))  # fmt: skip
        axes.plot([row["quartiles"][1]] * 2, [place, place + 0.88], color="black", linewidth=1)
    labels = [f"{r['gold'][0]} to {r['gold'][1]}\nn = {r['n']:,}" for r in rows]
    axes.set_yticks([i + 0.42 for i in range(len(rows))], labels, fontsize=7.5)
    axes.tick_params(left=False)
    axes.set_title(literal(f"{analysis['model']['name']}, {analysis['data']['task']}"), fontsize=9.5)
    return edges[min(used)], edges[max(used) + 1]


def plot_spectrum(models: Sequence[Mapping[str, Any]]) -> Figure:
    """Singular values of the centred unit vectors, relative to the largest, a line per model."""
    with drawing(6.4, 3.8) as (figure, axes):
        for analysis, ((colour, _), style) in zip(models, itertools.cycle(_STYLES), strict=False):
            values = [v for v in analysis["singular_values"] if v > 1e-4]
            label = f"{short_name(analysis['model']['name'])} (effective rank {analysis['effective_rank']:.0f})"
            axes.plot(range(1, len(values) + 1), values, style, color=colour, linewidth=1.5, label=label)
        axes.set(yscale="log", xlabel="singular value", ylabel="relative to the largest")
        axes.margins(x=0.02)
        axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor="linecolor")
    return figure


def render_figure(figure: Figure, form: str) -> bytes:
    """The file's bytes, svg or png (200 dpi); the same figure and fonts give the same bytes."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    with _pyplot().rc_context(_STYLE), no_glyph_warnings():
        add_fonts(figure)
        figure.savefig(stream, format=form, dpi=200, metadata=metadata)
    return stream.getvalue()


def literal(words: str) -> str:
    """A text that matplotlib draws as it stands: dollar signs enclose no formula."""
    return words.replace("$", r"\$")


def short_name(name: str) -> str:
    """A name for a plot: of a very long one, which would leave no room for the plot itself, the start and the end."""
    return literal(name if len(name) <= MOST_LETTERS else f"{name[:28]}…{name[-11:]}")


def shown_range(counts: Sequence[int]) -> str:
    """The smallest and the largest of sorted numbers, or the one there is."""
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def _names(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside points (x, y, name, colour): one that would stand on another is moved up, with a line to its point.

    A name stands to the right of its point, or to the left where it would leave the axes. Call it last: the names stand
    where they are with the axes' final limits.
    """
    from matplotlib.patheffects import withStroke

    figure: Any = axes.get_figure(root=True)
    ordered = sorted(points, key=lambda p: p[1])
    texts = [
        axes.annotate(
            short_name(name), (x, y), xytext=(7, 0), textcoords="offset points", color=colour, va="center",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        for x, y, name, colour in ordered
    ]  # fmt: skip
    for text in texts:
        text.set_in_layout(False)  # else a long name would shrink the axes
    add_fonts(figure)
    pixels = figure.dpi / 72
    placed: list[Any] = []
    with no_glyph_warnings():
        figure.draw_without_rendering()  # the layout decides where the points are
        right = axes.get_window_extent().x1
        for text, (x, y, _, colour) in zip(texts, ordered, strict=True):
            side = 7
            if text.get_window_extent().x1 > right:
                side = -7
                text.set(position=(side, 0), ha="right")
            own = box = text.get_window_extent()
            while any(box.overlaps(other) for other in placed):
                box = box.translated(0, pixels)
            placed.append(box)
            up = (box.y0 - own.y0) / pixels
            if up:
                text.set_position((side, up))
                line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2}
                axes.annotate("", (x, y), xytext=(side, up), textcoords="offset points", arrowprops=line)


def is_number(text: str) -> bool:
    """Whether an arm's name is a number that has a place on an axis."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@contextmanager
def drawing(width: float, height: float, grid: bool = True, **shape: Any) -> Iterator[tuple[Figure, Any]]:
    """A new figure (inches) in our style, and its axes: one, or an array (``shape``: of ``pyplot.subplots``)."""
    plt = _pyplot()
    with plt.rc_context(_STYLE | {"axes.grid": grid}):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **shape)
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
