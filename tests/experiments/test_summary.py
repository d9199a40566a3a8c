"""What a sweep's results say of the paper's statements."""

import numpy as np
import pytest

from simcse_bench.experiments import summary
from simcse_bench.papers.simcse_2021 import Finding


def test_a_statement_holds_fails_or_stays_open():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 26, 400) / 5
    good, bad = (np.stack([gold + noise * rng.standard_normal(400) for _ in range(3)]) for noise in (0.5, 4.0))
    claim = Finding("good beats bad", "a", "b")
    verdict = [
        summary.judge(claim, sides, gold, {"all": 400}, {"a": 82.5, "b": 71.1})
        for sides in ({"a": good, "b": bad}, {"a": bad, "b": good}, {"a": good, "b": good}, {"a": good})
    ]
    assert [v["verdict"] for v in verdict] == ["holds", "does not hold", "undecided", "not run"]
    one = summary.judge(claim, {"a": good[:1], "b": bad[:1]}, gold, {"all": 400}, {})
    assert one["verdict"] == "one seed"
    as_it_is = summary.judge(claim, {"a": good, "b": bad[:1]}, gold, {"all": 400}, {}, ["b"])
    assert as_it_is["verdict"] == "holds"
    assert verdict[0]["published"] == pytest.approx(11.4)
