"""What a sweep's summary.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, MinLen
from typing_extensions import TypedDict

from simcse_bench.errors import UserError
from simcse_bench.files import Environment
from simcse_bench.schema import read_record

SUMMARY = "summary.json"
_NOT_A_SUMMARY = "not a sweep's summary. Move it away and run the ablation again."


class Spread(TypedDict):
    """A score over seeds."""

    mean: float
    sd: Annotated[float, Ge(0)] | None  # of one seed: None
    values: Annotated[Sequence[float], MinLen(1)]


class ArmDifference(TypedDict):
    """An arm minus the reference, in points."""

    value: float
    interval: tuple[float, float] | None
    holm: float  # p, corrected for the number of arms
    seeds: int  # of the side that has fewer


class FailedSeed(TypedDict):
    """A trial that failed."""

    seed: int
    problems: Sequence[str]


class ArmCost(TypedDict):
    """What an arm costs, mean over seeds."""

    seconds: float  # of training
    state_mib: float  # weights, gradients, moments and a method's own state; activations left out


class Arm(TypedDict):
    """An arm of a sweep, over its seeds."""

    arm: str
    seeds: Sequence[int]
    dev: Spread | None
    test: Spread | None
    alignment: Spread | None
    uniformity: Spread | None
    published: float | None
    failed: Sequence[FailedSeed]
    difference: NotRequired[ArmDifference]
    cost: NotRequired[ArmCost]


class FindingResult(TypedDict):
    """A statement of the paper, held against the trials here."""

    text: str
    verdict: str
    value: NotRequired[float]  # where both sides are there
    interval: NotRequired[tuple[float, float] | None]
    published: NotRequired[float]


class SweptModel(TypedDict):
    """The encoder that the trials start from."""

    name: str
    embedded: bool


class SweptText(TypedDict):
    """What they are trained on; None where it is not the same for all."""

    name: str
    rows: int | None
    fingerprint: str | None


class SweptDev(TypedDict):
    """What they are scored on."""

    title: str
    task: str
    split: str
    n: int
    fingerprint: str


class Summary(TypedDict):
    """A sweep's summary.json, see ``experiments.summary``.

    From model to environment, what is of trials is None where none has finished.
    """

    schema: Literal[1]
    name: str
    preset: str
    title: str
    axis: str
    note: str
    reference: str
    source: str | None
    gains: NotRequired[bool]  # what is published are gains over the reference
    arms: Annotated[Sequence[Arm], MinLen(1)]
    findings: Sequence[FindingResult]
    model: SweptModel | None
    train: SweptText | None
    dev: SweptDev | None
    base: Mapping[str, Any] | None  # settings of all arms
    # settings of the arms but some: of those, by arm, and of the others, as ""
    own: NotRequired[Mapping[str, Mapping[str, Any]]]
    of_arms: NotRequired[Sequence[str]]  # arm:field=value, as they were given
    seconds: float
    environment: Environment | None


def read_summary(path: Path) -> Summary:
    """A sweep's summary.json.

    Raises:
        UserError: a damaged file.
    """
    summary = read_record(path, Summary, _NOT_A_SUMMARY)
    finished = any(arm["seeds"] for arm in summary["arms"])
    of_trials = {k: summary[k] for k in ("model", "train", "dev", "base", "environment")}
    problems = [
        f"{k}: {'missing' if finished else 'of no trial'}" for k, v in of_trials.items() if (v is None) == finished
    ]
    problems += [f"own.{k}: none of the other arms" for k, v in summary.get("own", {}).items() if "" not in v]
    for arm in summary["arms"]:
        scores = {k: arm[k] for k in ("dev", "test", "alignment", "uniformity")}
        counts = {k: len(v["values"]) for k, v in scores.items() if v} | ({} if arm["dev"] else {"dev": 0})
        problems += [f"{arm['arm']}: {k} of {n} seeds" for k, n in counts.items() if n != len(arm["seeds"])]
    if problems:
        raise UserError(f"{path}: {_NOT_A_SUMMARY} ({problems[0]})")
    return summary
