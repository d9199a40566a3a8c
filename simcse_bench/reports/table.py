"""A table, its forms (Markdown, LaTeX, CSV), and how numbers and facts are shown in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench.files import shown_machine, shown_versions

MISSING = "–"
_LATEX = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "×": r"$\times$", "–": "--", "±": r"$\pm$", "−": "$-$",
    "α": r"$\alpha$", "λ": r"$\lambda$", "*": r"$^{*}$",
}  # fmt: skip


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

    cells = [[c.replace("|", "\\|") for c in row] for row in (table.header, *table.rows)]
    widths = [max(3, *(cell_len(row[i]) for row in cells)) for i in range(len(table.header))]
    text = text_columns(table)

    def line(row: Sequence[str]) -> str:
        gaps = (" " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True))
        padded = (c + gap if i in text else gap + c for i, (c, gap) in enumerate(zip(row, gaps, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (w - 1) if i in text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [f"**{table.title}**", "", line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:]), ""]
    return "\n".join(lines + [f"{note}\n" for note in table.notes])


def to_latex(table: Table) -> str:
    """A booktabs table, title and notes as comments."""
    import pandas as pd

    escaped = [
        ["".join(_LATEX.get(sign, sign) for sign in cell) for cell in row] for row in (table.header, *table.rows)
    ]
    text = text_columns(table)
    columns = "".join("l" if i in text else "r" for i in range(len(table.header)))
    comments = "".join(f"% {line}\n" for part in (table.title, *table.notes) for line in part.splitlines())
    frame = pd.DataFrame(escaped[1:], columns=escaped[0])
    return comments + frame.to_latex(index=False, escape=False, column_format=columns)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under the union of their columns; empty for no rows."""
    import pandas as pd

    # as objects: a whole number stays one in a column where another is missing
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")) if rows else ""


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


def shown_numbers(form: str, *numbers: float | None) -> str:
    """The numbers in this form; a dash where there is none, or one is missing or NaN."""
    missing = not numbers or any(n is None or n != n for n in numbers)
    return MISSING if missing else form.format(*numbers)


def machine_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The machine and the versions, for a page's provenance."""
    return {"machine": shown_machine(environment), "versions": shown_versions(environment)}


def to_list(facts: Mapping[str, str]) -> list[str]:
    """Facts as the lines of a Markdown list."""
    return [f"- {name}: {fact}" for name, fact in facts.items()]
