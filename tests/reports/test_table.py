"""Text is text in every form of a table: what is read back is what was put in."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_bench.reports.table import Table, one_line, to_csv, to_latex, to_markdown

NASTY = [
    "$x$ and $y$", "[/b]", "[b]x[/b]", "a|b", r"a\|b", r"C:\new", "<b>x</b>", "&lt;", "`code`", "**x**", "_x_", "__0__", "~~x~~",
    "[x](http://y)", "{a}^b~c", "--pooling", "[CLS]", "# x", "100 %", "a\nb", "a\r\nb", "x\u2028y",
]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(lambda s: s == s.strip())


def markdown_cells(text):
    """The texts of a table's cells, as GitHub's reader takes them; a star for an emphasis that nobody meant."""
    markdown_it = pytest.importorskip("markdown_it")
    rows = []
    for token in markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and rows:
            shown = {"text": lambda t: t.content, "softbreak": lambda t: " "}
            rows[-1].append("".join(shown.get(c.type, lambda t: f"<<{t.type}>>")(c) for c in token.children))
    return rows


@given(st.lists(TEXT | st.sampled_from(NASTY), min_size=2, max_size=4))
def test_markdown_shows_the_text(cells):
    table = Table("t", ["x"] * len(cells), [cells])
    assert markdown_cells(to_markdown(table))[1] == [one_line(cell) for cell in cells]


MADE = {
    r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<", r"\textgreater{}": ">",
    r"\textbar{}": "|", r"\&": "&", r"\%": "%", r"\_": "_", r"\#": "#", r"\$": "$", r"\{": "{", r"\}": "}",
    r"$^{*}$": "*", r"$\times$": "×", r"$\pm$": "±", "$-$": "−", r"$\alpha$": "α", r"$\lambda$": "λ", "-{}-": "--", "{[}": "[",
}  # fmt: skip


def unlatex(cell):
    made = re.compile("|".join(re.escape(sign) for sign in sorted(MADE, key=len, reverse=True)))
    assert not set(made.sub("", cell)) & set("\\{}^~&%$#_"), cell
    return made.sub(lambda m: MADE[m[0]], cell)


@given(TEXT.filter(lambda s: "–" not in s and "---" not in s) | st.sampled_from(NASTY))
def test_latex_sets_the_text(cell):
    (line,) = to_latex(Table("t\nu", ["x"], [[cell]])).split("\\midrule\n")[1].split(" \\\\\n\\bottomrule")[:-1]
    assert not line.startswith("[")
    assert unlatex(line) == one_line(cell)


def test_a_title_of_two_lines_stays_a_comment():
    assert to_latex(Table("a\nb", ["x"], [["1"]], ["c\u2028d"])).splitlines()[:4] == ["% a", "% b", "% c", "% d"]


def unquoted(text):
    return (
        text[1:]
        if re.match(r"'+[=+\-@\t\r]", text) and not re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text)
        else text
    )


FORMULAS = ["=1+1", "+1+1|cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "'x"]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(FORMULAS), min_size=1, max_size=3))
def test_csv_holds_the_text_and_no_formula(cells):
    rows = list(
        csv.reader(io.StringIO(to_csv([{f"c{i}": cell for i, cell in enumerate(cells)} | {"n": -1.5}]), newline=""))
    )
    assert [unquoted(cell) for cell in rows[1]] == [*cells, "-1.5"]
    number = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
    assert not any(re.match(r"[=+\-@\t\r]", cell) and not number.fullmatch(cell) for cell in rows[1])


def test_numbers_are_left_as_they_are():
    assert (
        to_csv([{"a": -1, "b": "+0.23", "c": "-1e-05", "=x": None}, {"a": 2.5}])
        == "a,b,c,'=x\n-1,+0.23,-1e-05,\n2.5,,,\n"
    )
    assert to_csv([]) == ""
