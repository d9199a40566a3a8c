"""Fonts for what the plots' own font cannot draw: Chinese, Japanese, Korean, Thai, ... where one is installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "DejaVu Sans"  # ships with matplotlib
_PREFERRED = ("sans", "gothic", "hei")  # in the name of a plain face, before serif and decorative ones


def add_missing(figure: Figure) -> None:
    """Give every text of a figure the fonts that its characters need; what no font has stays an empty box.

    A figure whose texts the own font can draw is left as it is, to the byte.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    more = covering(frozenset("".join(text.get_text() for text in texts)))
    for text in texts if more else ():
        text.set_fontfamily([OWN, *more])


def covering(characters: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts that together have as many as possible of the characters that the own one lacks."""
    from matplotlib import font_manager

    lacking = {ord(c) for c in characters if c.isprintable()} - _characters(font_manager.findfont(OWN))
    found: list[str] = []
    for name, file in _installed() if lacking else ():
        if lacking & _characters(file):
            found.append(name)
            lacking -= _characters(file)
        if not lacking:
            break
    return tuple(found)


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
