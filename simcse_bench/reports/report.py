"""Report: every number with what it came from, as JSON; saved whole or not at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, MinLen
from typing_extensions import TypedDict

from simcse_bench.data.task import METRICS, METRICS_OF, REGRESSION
from simcse_bench.errors import UserError
from simcse_bench.files import Environment, fingerprint, write_json
from simcse_bench.models.identity import deciding, shown_files, shown_model, shown_origin
from simcse_bench.reports.table import MISSING
from simcse_bench.schema import read_record

REPORT_SCHEMA: Literal[1] = 1
MEASURES = {  # the first metric of a task, in words; of cosines it is a choice
    "accuracy": "accuracy",
    "pearson": "Pearson of a trained regression",
    "ap": "average precision",
    "mrr": "MRR",
}
LONGEST = 200  # bytes of a name, of 255: endings and a temporary file's letters come to it
_NOT_A_REPORT = "not a report of this version of simcse-bench. Move it away or evaluate again."


class ScoredFrom(TypedDict):
    """The saved file that scores come from, where no model was loaded."""

    what: Literal["pairs", "vectors"]
    file: str
    sha256: str  # first 16 hex digits
    key: str  # of the report that the pairs stand beside, or of the vectors' record
    normalized: NotRequired[bool]  # vectors that were scaled to length 1


class TrainedOn(TypedDict):
    """Text that a model was trained on."""

    name: str
    fingerprint: NotRequired[str]  # see ``data.corpus.Corpus``


class Provenance(TypedDict):
    """A model, as a file of ours holds it: what decides its vectors, and where it is from."""

    name: str
    revision: NotRequired[str | None]
    pooling: NotRequired[str | None]
    head: NotRequired[str | None]
    settings_from: NotRequired[str | None]
    max_length: NotRequired[int | None]
    max_length_used: NotRequired[int | None]
    parameters: NotRequired[Annotated[int, Ge(0)]]  # of what was loaded: encoder and head
    preprocess: NotRequired[str | None]
    normalize: NotRequired[bool | None]
    files: NotRequired[Mapping[str, str] | None]  # fingerprints
    embedded: NotRequired[bool]
    usage: NotRequired[str]
    dtype: NotRequired[str]
    whiten: NotRequired[Mapping[str, str] | None]
    object: NotRequired[str]  # of the user's own: module and class
    name_or_path: NotRequired[str]
    scored_from: NotRequired[ScoredFrom]  # not from the model itself
    trained_on: NotRequired[Sequence[TrainedOn]]  # where its run, or mteb's registry, says


class Entry(TypedDict):
    """A score in percent with its 95 % interval."""

    value: float
    interval: tuple[float, float] | None


Scores = Mapping[str, Mapping[str, Entry]]  # metric (see ``metrics_of``) -> aggregate (at least all)


class Subset(TypedDict):
    """Part of an STS task."""

    n: int
    spearman: Entry
    pearson: Entry


class ProbeResult(TypedDict):
    """What the classifier of a transfer task found, in percent."""

    test: float
    dev: float
    folds: Sequence[float]
    l2: Sequence[float]
    hidden: NotRequired[Sequence[int]]  # units of an MLP's hidden layer
    dropout: NotRequired[Sequence[float]]
    test_f1: NotRequired[float]
    test_spearman: NotRequired[float]  # of a regression, whose score is Pearson's correlation
    test_mse: NotRequired[float]


class ParaphraseResult(TypedDict):
    """Thresholds of a paraphrase task: cosines, and the scores they give, in percent, by metric (f1, accuracy)."""

    dev_pairs: int
    thresholds: Mapping[str, float]  # chosen on the dev pairs
    dev: Mapping[str, float]  # what they give there
    best: Mapping[str, float]  # what the best threshold for the scored pairs themselves would give


class TripletResult(TypedDict):
    """Margins of a triplet task: cosine with the positive minus cosine with the negative."""

    ties: int
    mean_margin: float


class RankingResult(TypedDict):
    """Ranks of a ranking task."""

    candidates: int | None  # sentences in the pool; None: every query has its own
    units: int  # drawn by the bootstrap
    center: bool
    mean_rank: float
    median_rank: float


class TaskData(TypedDict):
    """The rows a task was scored on."""

    split: str
    text: str
    fingerprint: str
    left_out: NotRequired[Sequence[int]]  # positions of pairs without which it was scored


class TaskResult(TypedDict):
    """One task of a report."""

    title: str
    kind: NotRequired[str]
    n: int
    scores: Scores
    subsets: Mapping[str, Subset]
    probe: NotRequired[ProbeResult]
    paraphrase: NotRequired[ParaphraseResult]
    triplet: NotRequired[TripletResult]
    ranking: NotRequired[RankingResult]
    float32: NotRequired[Scores]  # of an int8 evaluation: the same model's in float32
    data: TaskData


class Excluded(TypedDict):
    """Why pairs were left out: they hold sentences of a training text."""

    train: str  # its name
    overlap: str  # key of the record that says which
    file: str  # of that record


class ReportProtocol(TypedDict):
    """The rules of an evaluation; see ``data.task.EvalProtocol``."""

    name: str
    split: str
    text: NotRequired[str]
    probe: NotRequired[str]
    resamples: NotRequired[int]
    bootstrap_seed: NotRequired[int]
    excluded: NotRequired[Excluded]


class Times(TypedDict):
    """Seconds."""

    embedding: float
    scoring: float


@dataclass(frozen=True)
class Report:
    """One evaluation of one model; ``average`` exists only if no task of the suite is missing."""

    key: str  # fingerprint of all that decides the numbers
    suite: str
    model: Provenance
    protocol: ReportProtocol
    tasks: Annotated[Mapping[str, TaskResult], MinLen(1)]
    average: Scores | None
    skipped: Mapping[str, str]  # tasks of the suite without a score, and why
    limit: int | None  # first pairs of each subset only: such numbers compare with nothing
    stats: Mapping[str, int]
    environment: Environment
    seconds: Times
    created: str
    schema: Literal[1] = REPORT_SCHEMA

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        write_json(path, asdict(self), allow_nan=False)

    @staticmethod
    def load(path: Path) -> Report:
        """Read a saved report; UserError where the file is no whole report of this version."""
        report = read_record(path, Report, _NOT_A_REPORT)
        trained = all("probe" in task for task in report.tasks.values())
        problems = _score_problems("average", report.average, trained) if report.average else []
        for name, task in report.tasks.items():
            problems += _score_problems(f"tasks.{name}.scores", task["scores"], "probe" in task)
            if "probe" in task and len(task["probe"]["folds"]) != len(task["probe"]["l2"]):
                problems.append(f"tasks.{name}.probe: folds and l2 differ in number")
        if problems:
            raise UserError(f"{path}: {_NOT_A_REPORT} ({problems[0]})")
        return report


def metrics_of(scores: Mapping[str, Any]) -> Sequence[str]:
    """The metrics of the kind of task that these scores are of; the first is the one that is shown."""
    # paraphrases have an accuracy too, cosines a Pearson: of those whose first metric is there, the one with most
    known = [*METRICS_OF.values(), REGRESSION]
    return max((metrics for metrics in known if metrics[0] in scores), key=len, default=METRICS)


def shown_metric(scores: Mapping[str, Any], metric: str) -> str:
    """The metric that is asked for, where a task has it; else the first of its kind."""
    return metric if metric in scores else metrics_of(scores)[0]


def measures(report: Report) -> list[str]:
    """What the first metrics of the report's tasks are called, other than an STS task's correlation."""
    first = {metrics_of(task["scores"])[0] for task in report.tasks.values()}
    return [name for metric, name in MEASURES.items() if metric in first]


def _score_problems(place: str, scores: Scores, trained: bool) -> list[str]:
    """What is missing in scores, where their type alone cannot say it; only a trained probe has Pearson alone."""
    metrics = metrics_of(scores)
    metrics = METRICS if metrics == REGRESSION and not trained else metrics
    missing = [f"{place}.{metric}" for metric in metrics if metric not in scores]
    missing += [f"{place}.{metric}.all" for metric, by_aggregate in scores.items() if "all" not in by_aggregate]
    return [f"{where}: it is missing" for where in missing]


def evaluation_key(
    model: Mapping[str, Any], protocol: Mapping[str, Any], fingerprints: Mapping[str, str], limit: int | None
) -> str:
    """Fingerprint of all that decides an evaluation's numbers; batch size, device and versions are recorded only."""
    return fingerprint([deciding(model), protocol, fingerprints, limit])


_TAKEN = {"speed", "mteb", "overlap", "models"}  # folders of a results folder where no report can stand
NOT_REPORTS = _TAKEN | {"analysis", "robustness", "ablations"}  # and all that hold something else


def report_path(out: Path, suite: str, name: str, variant: str = "") -> Path:
    """``<out>/<suite>/<model>[--variant].json``; "/" in a model's name becomes "__".

    Raises:
        UserError: a name that makes no file name, or one that the drawn tables need.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"name {name!r}: not valid unicode; give another --name.") from None
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in name):
        raise UserError(f"name {name[:60]!r}: holds a line break or a control character; give another --name.")
    file, folder = file_name(name) + _slug(variant, ""), _slug(suite, "tasks")
    for part, what in ((file, f"name {name[:60]!r} with its settings"), (folder, f"suite {suite[:60]!r}")):
        if len(part.encode()) > LONGEST:
            raise UserError(
                f"{what}: {len(part.encode())} bytes, too long for a file name; expected at most {LONGEST}. "
                "Give a shorter --name, or fewer tasks at once."
            )
    if file == "leaderboard" or folder in _TAKEN:
        raise UserError(f"{folder}/{file}: this name is taken by the tables; give another one.")
    return out / folder / f"{file}.json"


def readable_name(name: str, file: str) -> str:
    """A model's name with what its file's name adds to it: "runs/u, mean-none" for runs__u--mean-none."""
    slug = file_name(name)
    return ", ".join([name, *file.removeprefix(slug).split("--")[1:]] if file.startswith(slug) else [name])


def model_variant(model: Mapping[str, Any]) -> list[str]:
    """What sets a model's use apart from its default one, for the file name."""
    parts = [f"{model['pooling']}-{model['head']}"] if "--" in str(model.get("settings_from")) else []
    parts += [str(model["dtype"])] if model.get("dtype", "float32") != "float32" else []
    return parts + ["whitened"] * bool(model.get("whiten"))


def source_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """What a page tells of the saved file that scores come from; nothing where the model was loaded."""
    source = model.get("scored_from")
    return {"scored from": f"{source['what']}, {source['file']} {source['sha256']}"} if source else {}


def model_facts(model: Mapping[str, Any], max_length: str) -> dict[str, str]:
    """What a page tells of the model."""
    return {
        "model": shown_model(model),
        "pooling, head": shown_origin(model),
        "max length": max_length,
        "dtype": str(model.get("dtype", MISSING)),
        "weights": shown_files(model) or MISSING,
        **source_facts(model),
    }


def file_name(name: str) -> str:
    """A model's name as that of its files, without an ending."""
    return _slug(name, "model")


def _slug(text: str, otherwise: str) -> str:
    slug = re.sub(r"[^\w.+-]+", "-", text.replace("/", "__"))
    return (slug if slug.startswith("--") else slug.strip("-.")) or otherwise
