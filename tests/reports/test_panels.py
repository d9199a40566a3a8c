"""The site's figures: places on an axis, verdicts, differences, each with a known answer."""

import math

import pytest
from summaries import arm, summary

from simcse_bench.reports.panels import Axis, Found, Source, ablation_panel, statements, without_far_ones


def test_an_axis_has_round_ticks_and_places_in_percent():
    axis = Axis.around([0.0, 100.0])
    assert list(axis.ticks) == [0, 50, 100]
    assert (axis.at(-4.0), axis.at(50.0), axis.at(104.0)) == (0.0, 50.0, 100.0)
    assert list(Axis.around([-0.3, 0.1]).ticks) == [-0.2, 0.0]
    assert 0 < Axis.around([7.0, 9.0], zero=True).at(0.0) < 10
    assert Axis.around([5.0, 5.0]).at(5.0) == 50.0
    assert Axis.around([]).at(0.0) == 50.0
    assert Axis.around([1.0, 2.0, 1e300]).high < 3  # of a damaged file


def test_an_arm_stands_at_its_difference_to_the_reference():
    panel = ablation_panel("d", "ablations/d", summary(
        arm("0.1", [70.0, 72.0], 82.5),
        arm("0.5", [60.0, 64.0], 71.0, value=-9.0, interval=(-12.0, -6.0)),
    ))  # fmt: skip
    first, second = panel["rows"]
    assert (first["reference"], first["mean"], first["seeds"], first["paper"]) == (True, 0.0, [-1.0, 1.0], 0.0)
    assert (second["reference"], second["mean"], second["seeds"]) == (False, -9.0, [-11.0, -7.0])
    assert (second["interval"], second["paper"], second["shown"]) == ((-12.0, -6.0), -11.5, "62.00 ± 1.00")
    assert panel["axis"].low <= -12.0
    assert panel["axis"].high >= 1.0
    assert panel["unit"] == "points above 0.1"


def test_one_arm_far_from_all_others_stands_at_the_end_of_the_axis():
    near = [arm(f"{x}", [70.0 + x, 71.0 + x], 80.0 + x, value=x, interval=(x - 1, x + 1)) for x in (1.0, 2.0, -2.0)]
    panel = ablation_panel("d", "ablations/d", summary(
        arm("0.1", [70.0, 71.0], 80.0), *near,
        arm("fixed", [68.0, 69.0], 40.0, value=-2.0, interval=(-30.0, 1.0)),
    ))  # fmt: skip
    axis = panel["axis"]
    assert -4 < axis.low < -3.0
    assert (axis.beyond(-40.0), axis.at(-40.0), axis.beyond(0.0), axis.beyond(99.0)) == (-1, 0.0, 0, 1)
    assert without_far_ones([0.0, 1.0, -3.0, 5.0]) == (-math.inf, math.inf)
    assert without_far_ones([0.0, 1.0, -1.0, 2.0, 3.0, -9.0]) == (pytest.approx(-3.45), pytest.approx(3.45))


def test_without_the_reference_scores_stand_in_place_of_differences():
    panel = ablation_panel("d", "ablations/d", summary(arm("0.1", [], 82.5), arm("0.5", [60.0], 71.0)))
    first, second = panel["rows"]
    assert (first["mean"], first["shown"], first["paper"]) == (None, "–", 82.5)
    assert (second["mean"], second["paper"]) == (60.0, 71.0)
    assert panel["unit"] == "Spearman ×100"


def test_a_paper_without_the_reference_gives_no_difference():
    panel = ablation_panel("d", "ablations/d", summary(arm("0.1", [70.0]), arm("0.5", [60.0], 71.0)))
    assert [row["paper"] for row in panel["rows"]] == [None, None]


@pytest.mark.parametrize(
    ("verdict", "sign"),
    [("holds", "✓"), ("does not hold", "✗"), ("undecided", "?"), ("one seed", "1"), ("not run", "–")],
)
def test_a_verdict_has_a_sign_a_word_and_a_colour(verdict, sign):
    drawn = statements([Found(Source("t", True, "d"), "Dropout", {"text": "a beats b", "verdict": verdict})])
    (line,) = drawn["groups"]["Dropout"]["a beats b"]
    assert (line["verdict"], line["sign"], line["shown"], line["between"]) == (verdict, sign, "–", "–")
    assert [(c["verdict"], c["count"]) for c in drawn["counts"]] == [(verdict, 1)]
    assert drawn["embedded"]


def test_a_statement_tried_twice_stands_once_with_both_verdicts():
    results = [
        {"text": "a beats b", "verdict": "holds", "value": 3.0, "interval": (1.0, 5.0), "published": 11.4},
        {"text": "a beats b", "verdict": "does not hold", "value": -3.0, "interval": (-5.0, -1.0), "published": 11.4},
    ]
    drawn = statements([Found(Source(f"s{i}", i == 0, "d"), "Dropout", r) for i, r in enumerate(results)])
    lines = drawn["groups"]["Dropout"]["a beats b"]
    assert [(line["shown"], line["between"], line["shown_paper"]) for line in lines] == [
        ("+3.00", "+1.0 to +5.0", "+11.4"), ("−3.00", "−5.0 to −1.0", "+11.4"),
    ]  # fmt: skip
    assert not drawn["embedded"]
    assert drawn["axis"].at(-5.0) < drawn["axis"].at(0.0) < drawn["axis"].at(11.4) <= 100
