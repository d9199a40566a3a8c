"""A table in a terminal: columns as wide as their words need, or, where these do not fit, a row under the other.

No word is ever broken that fits a line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from simcse_bench.reports.table import MISSING, Table, text_columns

_READABLE = 18  # columns that words get at least, where they have so many: a narrower column is a tall one
_GAP, _EDGES = 3, 2  # of rich's SIMPLE_HEAD


def draw(table: Table, width: int, spelled: Callable[[str], str]) -> list[RenderableType]:
    """What shows a table in a terminal of ``width`` columns; ``spelled`` writes signs that it may lack in letters."""
    title = Text(spelled(table.title), "bold")
    header, rows = [spelled(c) for c in table.header], [[spelled(c) for c in row] for row in table.rows]
    widths = fit([header, *rows], text_columns(table), width)
    body = _stacked(header, rows, width) if widths is None else [_columns(header, rows, text_columns(table), widths)]
    return [title, *body, *(Text(spelled(note)) for note in table.notes)]


def fit(lines: Sequence[Sequence[str]], words: set[int], width: int) -> list[int] | None:
    """Widths of the columns, the widest made narrower first; None where the words do not fit.

    Args:
        lines: header and rows.
        words: columns of text, which may be wrapped between words; in the others only the header is.
        width: of the terminal.
    """
    room = width - _EDGES - _GAP * (len(lines[0]) - 1)
    widths, least = [], []
    for i, column in enumerate(zip(*lines, strict=True)):
        longest = [max(map(cell_len, cell.split("\n"))) for cell in column]
        word = max(cell_len(w) for cell in column for w in cell.split() or [""])
        widths.append(max(longest))
        least.append(max(word, min(widths[-1], _READABLE) if i in words else max(longest[1:], default=0)))
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return None
        widths[widest] -= 1
    return widths


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], words: set[int], widths: Sequence[int]) -> RichTable:
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for i, (name, width) in enumerate(zip(header, widths, strict=True)):
        drawn.add_column(Text(name), justify="left" if i in words else "right", overflow="fold", width=width)
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _stacked(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Text]:
    """Every row as its label and, indented below, the other cells with the names of their columns."""
    drawn = [Text("")]
    for label, *cells in rows:
        drawn.append(Text(label, "bold"))
        named = zip(header[1:], cells, strict=True)
        facts = [f"{name}: {cell}" if name else cell for name, cell in named if cell not in ("", MISSING)]
        drawn += [Text(line) for line in _filled(facts, width)]
    return [*drawn, Text("")]


def _filled(facts: Sequence[str], width: int) -> list[str]:
    """Facts side by side on lines, none broken but one that is longer than a line."""
    lines: list[str] = []
    for fact in facts:
        beside = f"{lines[-1]}   {fact}" if lines else ""
        if beside and cell_len(beside) <= width:
            lines[-1] = beside
        else:
            lines += textwrap.wrap(
                fact,
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines
