"""Tables in a terminal: words stay whole, columns narrow or are stacked."""

import pytest
from rich.console import Console

from simcse_bench.cli import lists, terminal
from simcse_bench.reports.table import Table

NAMES = ["tasks", "suites", "models", "poolings", "protocols", "recipes", "methods", "settings", "ablations"]


def lines(table, width):
    console = Console(width=width, file=None, record=True, quiet=False, force_terminal=False)
    with console.capture() as captured:
        for part in terminal.draw(table, width, str):
            console.print(part)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 50])
@pytest.mark.parametrize("name", NAMES)
def test_no_list_breaks_a_word(name, width):
    table = getattr(lists, f"list_{name}")()
    shown = lines(table, width)
    assert max(map(len, shown)) <= width
    whole = " ".join(shown).split()
    words = {w for row in (*table.rows, table.header) for cell in row[1:] for w in cell.split() if len(w) < width - 6}
    words -= {"–"}
    there = {w.rstrip(":") for w in whole} | set(whole)
    assert {w for w in words if w.rstrip(":") not in there} == set()


def test_columns_narrow_between_words_only():
    table = Table("t", ["name", "text", "n"], [["a", "one two three four five six seven", "1.50"]])
    assert terminal.fit([table.header, *table.rows], {0, 1}, 80) == [4, 33, 4]
    assert terminal.fit([table.header, *table.rows], {0, 1}, 40) == [4, 24, 4]
    assert terminal.fit([table.header, *table.rows], {0, 1}, 20) is None
    shown = [" ".join(line.split()) for line in lines(table, 40) if line.strip(" ─")]
    assert shown == ["t", "name text n", "a one two three four five 1.50", "six seven"]


def test_what_does_not_fit_is_stacked():
    header = ["model", "pooling", "score", "difference", ""]
    row = ["owner/a-model-with-a-long-name", "mean of word vectors", "75.30", "–", "note"]
    shown = lines(Table("title", header, [row], ["a note"]), 44)
    assert shown == [
        "title", "", "owner/a-model-with-a-long-name", "  pooling: mean of word vectors", "  score: 75.30   note", "",
        "a note",
    ]  # fmt: skip


def test_numbers_are_never_wrapped_but_their_header_is():
    table = Table("t", ["", "95 % interval of all"], [["a", "-0.10 to 0.20"]])
    assert terminal.fit([table.header, *table.rows], {0}, 20) == [1, 14]
    assert terminal.fit([table.header, *table.rows], {0}, 17) is None
