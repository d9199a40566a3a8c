"""A table, its forms (Markdown, LaTeX, CSV), and how numbers and facts are shown in it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench.files import shown_machine, shown_versions

MISSING = "–"
_LATEX = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "×": r"$\times$", "–": "--", "±": r"$\pm$", "−": "$-$",
    "α": r"$\alpha$", "λ": r"$\lambda$", "*": r"$^{*}$", "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip
# what Markdown would not show as it stands: marks that open or close something, tags, entities, links
_MARKDOWN = re.compile(r"[\\|<`]|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])|~(?=~)|&(?=#?\w+;)|(?<=\])\(")
_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would compute
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Table:
    """Cells as text, the first of each row being its label."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def to_markdown(table: Table) -> str:
    """GitHub's table form, numbers to the right; a Chinese character takes two columns, a combining mark none."""
    from rich.cells import cell_len

    cells = [[*map(to_cell, row)] for row in (table.header, *table.rows)]
    widths = [max(3, *(cell_len(row[i]) for row in cells)) for i in range(len(table.header))]
    text = text_columns(table)

    def line(row: Sequence[str]) -> str:
        gaps = (" " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True))
        padded = (c + gap if i in text else gap + c for i, (c, gap) in enumerate(zip(row, gaps, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (w - 1) if i in text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [
        f"**{_words(table.title)}**",
        "",
        line(cells[0]),
        "| " + " | ".join(rule) + " |",
        *map(line, cells[1:]),
        "",
    ]
    return "\n".join(lines + [f"{_words(note)}\n" for note in table.notes])


def to_cell(text: str) -> str:
    """A text on a line of Markdown, shown as it stands."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def to_heading(text: str, level: int) -> str:
    """A text as a heading of Markdown."""
    return f"{'#' * level} {to_cell(text)}"


def to_latex(table: Table) -> str:
    """A booktabs table, title and notes as comments."""

    def line(row: Sequence[str]) -> str:
        first, *others = map(_latex, row)
        first = "{[}" + first[1:] if first.startswith("[") else first  # else an option of the line before
        return " & ".join([first, *others]) + " \\\\"

    text = text_columns(table)
    columns = "".join("l" if i in text else "r" for i in range(len(table.header)))
    comments = [f"% {line}" for part in (table.title, *table.notes) for line in part.splitlines()]
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.header), r"\midrule"]
    return "\n".join([*comments, *head, *map(line, table.rows), r"\bottomrule", r"\end{tabular}", ""])


def _latex(cell: str) -> str:
    signs = "".join(_LATEX.get(sign, sign) for sign in re.sub("-(?=-)", "-\0", one_line(cell)))
    return signs.replace("\0", "{}")  # two hyphens, no dash


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under the union of their columns; empty for no rows.

    A text that a spreadsheet would compute, for it starts with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return
    and is no number, has an apostrophe before it (one more, where it starts with such ones already).
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines: list[list[Any]] = [columns, *([row.get(column) for column in columns] for row in rows)]
    return "".join(",".join(map(_csv, line)) + "\n" for line in lines) if rows else ""


def _csv(value: Any) -> str:
    text = "" if value is None or value != value else str(value)
    if isinstance(value, str) and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def one_line(text: str) -> str:
    """A text on a line."""
    return _BREAK.sub(" ", text)


def _words(text: str) -> str:
    """A title or a note, which may hold code in backticks, for Markdown."""
    return one_line(text).replace("<", r"\<")


def text_columns(table: Table) -> set[int]:
    """Columns that hold words: aligned to the left."""

    def textual(cell: str) -> bool:
        return cell != MISSING and any(ch.isalpha() for ch in cell)

    return {0} | {i for i in range(len(table.header)) if any(textual(row[i]) for row in table.rows)}


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over seeds; None where there are too few values for it."""
    return statistics.mean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def shown_spread(mean: float | None, deviation: float | None, digits: int = 2) -> str:
    """``mean ± SD``; the mean alone where there is no deviation, a dash where there is no mean."""
    shown = shown_numbers(f"{{:.{digits}f}}", mean)
    return shown if deviation is None else f"{shown} ± {deviation:.{digits}f}"


def counted(count: int, thing: str) -> str:
    """``1 sentence``, ``2,000 sentences``."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def shown_numbers(form: str, *numbers: float | None) -> str:
    """The numbers in this form; a dash where there is none, or one is missing or NaN."""
    missing = not numbers or any(n is None or n != n for n in numbers)
    return MISSING if missing else form.format(*numbers)


def machine_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The machine and the versions, for a page's provenance."""
    return {"machine": shown_machine(environment), "versions": shown_versions(environment)}


def to_list(facts: Mapping[str, str]) -> list[str]:
    """Facts as the lines of a Markdown list."""
    return [f"- {_words(name)}: {_words(fact)}" for name, fact in facts.items()]
