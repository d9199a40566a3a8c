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
    changes: str  # in SimCSE's step
    place: str  # module:class


_HERE = "simcse_bench.training.methods"
METHODS: Mapping[str, KnownMethod] = {
    "simcse": KnownMethod("SimCSE", "Gao, Yao and Chen 2021", "nothing", "simcse:SimCSE"),
    "arccon": KnownMethod(
        "ArcCSE (ArcCon)", "Zhang et al. 2022, Eq. 4", "an angular margin between a pair", "arccon:ArcCon"
    ),
    "mixcse": KnownMethod(
        "MixCSE", "Zhang et al. 2022, Eq. 8", "negatives mixed of a positive and another", "mixcse:MixCSE"
    ),
    "gs": KnownMethod("GS-InfoNCE", "Wu et al. 2021, Eq. 3", "Gaussian noise as negatives", "gs:GaussianSmoothing"),
    "esimcse": KnownMethod(
        "ESimCSE", "Wu et al. 2022, Eq. 4 to 7", "repeated words in positives; a momentum queue", "esimcse:ESimCSE"
    ),
    "cosent": KnownMethod(
        "CoSENT", "Su 2022; Huang et al. 2024", "pairs with scores: cosines in the order of the scores", "cosent:CoSENT"
    ),
    "angle": KnownMethod("AnglE", "Li and Li 2023", "CoSENT's loss, also of angles in complex space", "angle:AnglE"),
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
            near = suggestion(key, list(own)) or f" Settings of {name}: {', '.join(own) or 'none'}."
            problems.append(f"{key}: unknown setting of method {name}.{near}")
    if not problems and name != "simcse":
        try:
            method_class(name).Settings(**given)
        except UserError as error:
            problems += error.problems
    return problems
