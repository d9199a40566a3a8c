"""Plots: a fallback font for characters that the own one lacks, no warning where there is none; names do not overlap."""

import itertools
import warnings

import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from simcse_bench.reports import plots
from simcse_bench.reports.arm_plot import plot_ablation

MODELS = [{"model": {"name": name}, "uniformity": -2.0 - i, "alignment": 0.2, "spearman": 70.0 + i}
          for i, name in enumerate(["模型", "โมเดล"])]  # fmt: skip
PLAIN = [m | {"model": {"name": f"model {i}"}} for i, m in enumerate(MODELS)]


def write_font(path, name, characters):
    """A font with a square for each of these characters."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, point in enumerate([(100, 0), (100, 700), (800, 700), (800, 0)]):
        (pen.lineTo if move else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    glyphs = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(glyphs, square))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def only_own(monkeypatch):
    """A machine without any other font."""
    monkeypatch.setattr(plots, "_installed", list)


@pytest.fixture
def asian(tmp_path, monkeypatch):
    before = list(font_manager.fontManager.ttflist)
    files = [("Tiny Sans CJK", "模型日"), ("Tiny Serif CJK", "模型日本"), ("Tiny Thai", "โมเดล")]
    made = [(name, str(write_font(tmp_path / f"{name}.ttf", name, text))) for name, text in files]
    for _, file in made:
        font_manager.fontManager.addfont(file)
    monkeypatch.setattr(plots, "_installed", lambda: made)
    yield made
    font_manager.fontManager.ttflist[:] = before
    font_manager.fontManager._findfont_cached.cache_clear()


def drawn(points, form="svg"):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return plots.render_figure(plots.plot_scatter(points), form)


@pytest.mark.parametrize("form", ["svg", "png"])
def test_without_such_a_font_boxes_and_no_warning(only_own, form):
    assert drawn(MODELS, form)[:5] in (b"<?xml", b"\x89PNG\r")


def test_with_such_fonts_they_are_used_in_order(asian, monkeypatch):
    assert plots.find_fonts(frozenset("abc 模型")) == ("Tiny Sans CJK",)
    assert plots.find_fonts(frozenset("模本โ")) == ("Tiny Sans CJK", "Tiny Serif CJK", "Tiny Thai")
    assert plots.find_fonts(frozenset("abc ×α±")) == ()
    figure = plots.plot_scatter(MODELS)
    plots.add_fonts(figure)
    families = {tuple(t.get_fontfamily()) for t in figure.findobj(Text)}
    assert families == {(plots.OWN, "Tiny Sans CJK", "Tiny Thai")}
    with_fonts = drawn(MODELS)
    monkeypatch.setattr(plots, "_installed", list)
    assert with_fonts != drawn(MODELS)


def test_a_plain_plot_is_left_as_it_is(asian):
    figure = plots.plot_scatter(PLAIN)
    before = [tuple(t.get_fontfamily()) for t in figure.findobj(Text)]
    plots.add_fonts(figure)
    assert [tuple(t.get_fontfamily()) for t in figure.findobj(Text)] == before


def test_installed_fonts_are_upright_and_plain_ones_come_first():
    found = plots._installed()
    assert any(name == plots.OWN for name, _ in found)
    assert not any("Oblique" in file or "Italic" in file for _, file in found)
    plain = ["sans" in name.lower() or "gothic" in name.lower() or "hei" in name.lower() for name, _ in found]
    assert plain == sorted(plain, reverse=True)


def test_wide_characters_are_aligned_in_markdown():
    from rich.cells import cell_len

    from simcse_bench.reports.table import Table, to_markdown

    rows = [["日本語のモデル", "70.00"], ["ผู้หญิง", "1.00"], ["한국어", "x"], ["plain", "–"]]
    lines = [line for line in to_markdown(Table("t", ["model", "模"], rows)).splitlines() if line.startswith("|")]
    assert len({cell_len(line) for line in lines}) == 1
    assert len({len(line) for line in lines}) > 1
    assert to_markdown(Table("t", ["", "b"], [["ab", "1"]])).splitlines()[2:] == [
        "|     |   b |",
        "| :-- | --: |",
        "| ab  |   1 |",
    ]


@pytest.mark.parametrize("kind", ["trajectory", "scatter"])
def test_names_of_near_points_do_not_stand_on_each_other(kind):
    near = {f"a run with a long name {i}": (-2.0 - i / 500, 0.5 + i / 1000) for i in range(5)}
    if kind == "trajectory":
        figure = plots.plot_trajectory({n: [{"uniformity": u, "alignment": a}] for n, (u, a) in near.items()})
    else:
        points = [{"model": {"name": n}, "uniformity": u, "alignment": a} for n, (u, a) in near.items()]
        figure = plots.plot_scatter([p | {"spearman": 70.0 + i} for i, p in enumerate(points)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) == len(near)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("form", ["svg", "png"])
def test_dollar_signs_are_no_formula(form):
    """matplotlib raises for a formula it cannot read, and draws another text for one that it can."""
    for name in ("$x^$ and $", "a$b$c", "$", r"\$x\$"):
        points = [m | {"model": {"name": name}} for m in MODELS]
        figure = plots.plot_scatter(points)
        drawn(points, form)
        shown = [t for t in figure.axes[0].texts if t.get_text()]
        assert {t._preprocess_math(t.get_text()) for t in shown} == {(name, False)}
    arm = {"arm": "$1$", "seeds": [1], "dev": {"mean": 1.0, "sd": None, "values": [1.0]}, "published": 2.0}
    summary = {"title": "$t_$", "axis": "$a^$", "source": "$s^$", "arms": [arm], "model": {"name": "$m^$"},
               "reference": "$1$", "train": {"name": "$x^$"}, "dev": {"title": "$d^$"}}  # fmt: skip
    for axis in ("$a^$", ""):
        plots.render_figure(plot_ablation(summary | {"axis": axis}), form)
