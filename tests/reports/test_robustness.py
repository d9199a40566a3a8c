"""What is drawn of sentences changed by rule: the middle half of the movement, far ones at the edge, rows without numbers."""

import pytest
from summaries import changed

from simcse_bench.reports import robustness_plots
from simcse_bench.reports.panels import robustness_panel
from simcse_bench.reports.robustness import changes_table, summary_table


def test_the_site_shows_mean_and_middle_half_on_one_axis():
    panel = robustness_panel("robustness", [changed("a")])
    kept, lost = panel["models"][0]["groups"]
    assert [row["change"] for row in kept["rows"]] == ["typos", "a rule of later times", "frame"]
    assert (kept["mean"], lost["mean"]) == ("7.0", "30.0")
    assert kept["rows"][0]["half"] == pytest.approx((6, 24))
    assert (kept["rows"][2]["moved"], kept["rows"][2]["shown"]) == (None, "–")
    assert panel["axis"].low <= 0
    assert panel["axis"].high >= 60


def test_the_tables_say_what_is_missing():
    table = changes_table(changed("a"))
    assert [row[0] for row in table.rows] == ["typos", "a rule of later times", "frame", "negation"]
    assert table.rows[2][2:5] == ["0", "–", "–"]
    assert table.rows[0][5:] == ["-3.00", "-4.00 to -2.00", "-3.00", "-4.00 to -2.00"]
    assert summary_table([changed("a")]).rows[0][2:] == ["60.00", "7.0", "30.0", "88.0"]


def test_the_plot_has_a_mark_where_the_mean_is():
    figure = robustness_plots.plot_movement([changed("a"), changed("b")])
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["typos", "a rule of later times", "frame", "mean"]
    assert [t.get_text() for t in right.get_yticklabels()] == ["negation", "mean"]
    marks = {line.get_marker(): line.get_xdata()[0] for line in right.lines if line.get_marker() != "None"}
    assert marks == {"o": 30.0, "s": 30.0}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"a", "b"}
