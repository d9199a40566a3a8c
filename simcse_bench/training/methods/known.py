"""The training methods by name, and their settings. Without torch: a method's own module is loaded when it is used."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import UserError, suggestion, unknown

if TYPE_CHECKING:
    from simcse_bench.training.methods.simcse import SimCSE


@dataclass(frozen=True)
class KnownMethod:
    """A method's name for people, its source, and where its class is."""

    title: str
    source: str
    changes: str  # in SimCSE's step; none: SimCSE itself
    place: str  # module:class
    scored: bool = False  # trains on pairs with scores, not on sentences


_HERE = "simcse_bench.training.methods"
METHODS: Mapping[str, KnownMethod] = {
    "simcse": KnownMethod("SimCSE", "Gao, Yao and Chen 2021", "", "simcse:SimCSE"),
    "gs": KnownMethod("GS-InfoNCE", "Wu et al. 2021", "Gaussian noise as negatives", "gs:GaussianSmoothing"),
    "esimcse": KnownMethod(
        "ESimCSE", "Wu et al. 2022", "repeated words in positives; a momentum queue", "esimcse:ESimCSE"
    ),
    "arccon": KnownMethod("ArcCSE (ArcCon)", "Zhang et al. 2022", "an angular margin between a pair", "arccon:ArcCon"),
    "mixcse": KnownMethod("MixCSE", "Zhang et al. 2022", "negatives mixed of a positive and another", "mixcse:MixCSE"),
    "dclr": KnownMethod("DCLR", "Zhou et al. 2022", "noise as hard negatives; no false negatives", "dclr:DCLR"),
    "scd": KnownMethod(
        "SCD", "Klein and Nabi 2022", "no negatives: two dropout rates' views repel, features decorrelate", "scd:SCD"
    ),
    "promptbert": KnownMethod(
        "PromptBERT",
        "Jiang et al. 2022",
        "two templates are the two views; their own vectors removed",
        "promptbert:PromptBERT",
    ),
    "diffcse": KnownMethod(
        "DiffCSE",
        "Chuang et al. 2022",
        "a sentence's vector has to tell which of its tokens were replaced",
        "diffcse:DiffCSE",
    ),
    "rankcse": KnownMethod(
        "RankCSE", "Liu et al. 2023", "both views rank the batch alike, and as teachers do", "rankcse:RankCSE"
    ),
    "iscse": KnownMethod(
        "IS-CSE", "He et al. 2023", "a second loss, with positives smoothed by neighbours", "iscse:ISCSE"
    ),
    "simcse++": KnownMethod(
        "SimCSE++", "Xu et al. 2023", "negatives without dropout; a loss between dimensions", "simcse_pp:SimCSEPlusPlus"
    ),
    "cosent": KnownMethod(
        "CoSENT",
        "Su 2022; Huang et al. 2024",
        "pairs with scores: cosines in the order of the scores",
        "cosent:CoSENT",
        scored=True,
    ),
    "angle": KnownMethod(
        "AnglE", "Li and Li 2023", "CoSENT's loss, also of angles in complex space", "angle:AnglE", scored=True
    ),
}


def method_class(name: str) -> type[SimCSE]:
    """The class of a method.

    Raises:
        UserError: an unknown name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, _, attribute = METHODS[name].place.partition(":")
    return getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)  # type: ignore[no-any-return]


def settings_of(name: str) -> Mapping[str, Any]:
    """A method's settings with their defaults."""
    if name == "simcse":
        return {}
    return {f.name: f.default for f in dataclasses.fields(method_class(name).Settings)}


def complete_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings: those given, and the defaults of the others; what is not known stays, to be refused."""
    return {**settings_of(name), **given}


def setting_problems(name: str, given: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings given to a method: unknown ones, another method's, impossible values."""
    own, problems = settings_of(name), []
    for key in set(given) - set(own):
        others = [other for other in METHODS if other != name and key in settings_of(other)]
        if others:
            problems.append(f"{key}: a setting of method {' and '.join(others)}; the method here is {name}.")
        else:
            there = ", ".join(own) or "none"
            problems.append(f"{key}: unknown setting of method {name}{suggestion(key, own)} Its settings: {there}.")
    if not problems and name != "simcse":
        try:
            method_class(name).Settings(**given)
        except UserError as error:
            problems += error.problems
    return problems
