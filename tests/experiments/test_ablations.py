"""The ablations as data: every arm a run of its own, the paper's scores beside them."""

import dataclasses
from pathlib import Path

import pytest

from simcse_bench.experiments import summary, sweep
from simcse_bench.experiments.ablations import ABLATIONS, PRESETS
from simcse_bench.training.run import RunOptions


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_arm_is_a_possible_run_of_its_own(name, preset):
    planned = sweep.plan_sweep(ABLATIONS[name], preset, 1, (), (), Path("results"), RunOptions(Path("results")))
    configs = [dataclasses.replace(t.config, seed=0) for t in planned.trials]
    assert len(set(configs)) == len(configs)
    assert len({t.path for t in planned.trials}) == len(configs)
    assert planned.reference in planned.arms
    for claim in ABLATIONS[name].findings:
        assert {claim.better, claim.worse} <= set(planned.arms)


def test_the_published_scores_are_the_papers():
    def score(name, arm):
        return summary.published_scores(ABLATIONS[name].published)[arm]

    assert [score("dropout", a) for a in ("0.0", "0.1", "fixed 0.1")] == [71.1, 82.5, 43.6]
    assert score("hard-negatives", "α = 2") == 86.2
    assert score("hard-negatives", "none") == 84.9
    assert score("objective", "unsup simcse, two encoders") == 80.7
    assert score("temperature", "0.05") == 86.2
    for ablation in ABLATIONS.values():  # every row of the paper's table has its arm
        missing = set(summary.published_scores(ablation.published)) - set(ablation.arms)
        assert not missing, f"{ablation.name}: {missing}"
