"""An ablation's table: what its columns hold, each with a known answer."""

import pytest
from summaries import arm, summary

from simcse_bench.reports.ablation import ablation_table, reading_notes


def costing(seconds, state_mib, *args, **difference):
    return arm(*args, **difference) | {"cost": {"seconds": seconds, "state_mib": state_mib}}


def test_costs_are_shown_relative_to_the_reference_and_gains_with_their_sign():
    content = summary(
        costing(2.0, 100.0, "0.1", [70.0, 72.0], 0.0),
        costing(3.0, 250.0, "0.5", [60.0, 64.0], 1.5, value=-9.0, interval=(-12.0, -6.0)),
    )
    table = ablation_table(content | {"gains": True, "source": "reported gain"})
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [(r["time"], r["memory"], r["reported gain, BERT-base"]) for r in rows] == [
        ("1.00×", "1.00×", "+0.00"),
        ("1.50×", "2.50×", "+1.50"),
    ]
    notes = " ".join(reading_notes([content | {"gains": True}]))
    assert "relative to the reference" in notes
    assert "seven STS tasks" in notes
    assert "compare the order" not in notes


@pytest.mark.parametrize("without", ["0.1", "0.5"])
def test_an_arm_without_costs_has_no_ratio(without):
    arms = [costing(2.0, 100.0, "0.1", [70.0]), costing(3.0, 250.0, "0.5", [60.0])]
    for each in arms:
        if each["arm"] == without:
            del each["cost"]
    table = ablation_table(summary(*arms))
    shown = {row[0]: row[-2:] for row in table.rows}
    assert shown["0.5"] == ["–", "–"]
    assert shown["0.1"] == (["–", "–"] if without == "0.1" else ["1.00×", "1.00×"])
    assert "time" not in ablation_table(summary(arm("0.1", [70.0]))).header
