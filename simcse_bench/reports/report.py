"""Report: every number with what it came from, as JSON; saved whole or not at all."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import MinLen
from typing_extensions import TypedDict

from simcse_bench.data.task import METRICS, METRICS_OF
from simcse_bench.errors import UserError
from simcse_bench.files import Environment, fingerprint, write_json, write_text
from simcse_bench.models.identity import deciding, shown_files, shown_model, shown_origin
from simcse_bench.reports.table import MISSING
from simcse_bench.schema import parse_record, read_bytes, read_record

REPORT_SCHEMA: Literal[1] = 1
PAIRS = ".pairs.jsonl"
MEASURES = {  # kind of task -> its first metric, in words
    "transfer": "accuracy",
    "triplet": "accuracy",
    "paraphrase": "average precision",
    "ranking": "MRR",
}
LONGEST = 200  # bytes of a name, of 255: endings and a temporary file's letters come to it
_NOT_A_REPORT = "not a report of this version of simcse-bench. Move it away or evaluate again."


class Provenance(TypedDict):
    """A model, as a file of ours holds it: what decides its vectors, and where it is from."""

    name: str
    revision: NotRequired[str | None]
    pooling: NotRequired[str | None]
    head: NotRequired[str | None]
    settings_from: NotRequired[str | None]
    max_length: NotRequired[int | None]
    max_length_used: NotRequired[int | None]
    preprocess: NotRequired[str | None]
    normalize: NotRequired[bool | None]
    files: NotRequired[Mapping[str, str] | None]  # fingerprints
    embedded: NotRequired[bool]
    usage: NotRequired[str]
    dtype: NotRequired[str]
    whiten: NotRequired[Mapping[str, str] | None]
    object: NotRequired[str]  # of the user's own: module and class
    name_or_path: NotRequired[str]


class Entry(TypedDict):
    """A score in percent with its 95 % interval."""

    value: float
    interval: tuple[float, float] | None


Scores = Mapping[str, Mapping[str, Entry]]  # metric (of METRICS_OF) -> aggregate (at least all)


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
    test_f1: NotRequired[float]


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
    data: TaskData


class ReportProtocol(TypedDict):
    """The rules of an evaluation; see ``data.task.EvalProtocol``."""

    name: str
    split: str
    text: NotRequired[str]
    probe: NotRequired[str]


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
        problems = _score_problems("average", report.average) if report.average else []
        for name, task in report.tasks.items():
            problems += _score_problems(f"tasks.{name}.scores", task["scores"])
            if "probe" in task and len(task["probe"]["folds"]) != len(task["probe"]["l2"]):
                problems.append(f"tasks.{name}.probe: folds and l2 differ in number")
        if problems:
            raise UserError(f"{path}: {_NOT_A_REPORT} ({problems[0]})")
        return report


def metrics_of(scores: Mapping[str, Any]) -> Sequence[str]:
    """The metrics of the kind of task that these scores are of; the first is the one that is shown."""
    # paraphrases have an accuracy too: of the kinds whose first metric is there, the one with most
    return max((metrics for metrics in METRICS_OF.values() if metrics[0] in scores), key=len, default=METRICS)


def shown_metric(scores: Mapping[str, Any], metric: str) -> str:
    """The metric, or the first of the kind of task where it has no such metric."""
    return metric if metric in scores else metrics_of(scores)[0]


def measures(report: Report) -> list[str]:
    """What the first metrics of the report's tasks are called, other than an STS task's correlation."""
    kinds = {task.get("kind", "sts") for task in report.tasks.values()}
    return list(dict.fromkeys(name for kind, name in MEASURES.items() if kind in kinds))


def _score_problems(place: str, scores: Scores) -> list[str]:
    """What is missing in scores, where their type alone cannot say it."""
    metrics = metrics_of(scores)
    missing = [f"{place}.{metric}" for metric in metrics if metric not in scores]
    missing += [f"{place}.{metric}.all" for metric, by_aggregate in scores.items() if "all" not in by_aggregate]
    return [f"{where}: it is missing" for where in missing]


class WorstPair(TypedDict):
    """A pair whose rank by cosine is far from its rank by gold score; ranks in percent."""

    gold: float
    cosine: float
    gold_rank: float
    cosine_rank: float
    left: str
    right: str


class PairsHead(TypedDict):
    """The first line of a report's pairs."""

    schema: Literal[1]
    key: str  # of the report


class TaskPairs(TypedDict):
    """A further line: a value for each row of a task, in their order, under the name that ``KEPT`` gives."""

    task: str
    similarities: NotRequired[Sequence[float]]  # cosines of pairs
    margins: NotRequired[Sequence[float]]  # of triplets
    ranks: NotRequired[Sequence[float]]  # of queries
    worst: NotRequired[Sequence[WorstPair]]


PairsLine = PairsHead | TaskPairs
# kind of task -> the values of its rows that are kept beside a report, and that comparisons need
KEPT = {"sts": "similarities", "paraphrase": "similarities", "triplet": "margins", "ranking": "ranks"}


def pairs_path(path: Path) -> Path:
    """The file beside a report that holds its pairs' similarities."""
    return path.with_name(path.stem + PAIRS)


def save_pairs(
    path: Path,
    key: str,
    values: Mapping[str, Iterable[float]],
    worst: Mapping[str, Sequence[Mapping[str, Any]]],
    kept: Mapping[str, str],
) -> None:
    """Keep a value for every row of a report's tasks, for comparisons with others, and the worst pairs of STS tasks.

    ``kept``: what the values are (``KEPT``), by task.
    """
    lines = [
        {"task": name, kept[name]: [round(float(x), 7) for x in rows], "worst": list(worst.get(name, ()))}
        for name, rows in values.items()
    ]
    if lines:
        rows = [{"schema": REPORT_SCHEMA, "key": key}, *lines]
        write_text(pairs_path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_pairs(path: Path, report: Report) -> dict[str, Sequence[float]]:
    """Task -> the values of its rows (cosines, margins or ranks), of a saved report.

    Raises:
        UserError: they are not there, or belong to another evaluation.
    """
    beside = pairs_path(path)
    if not beside.is_file():
        raise UserError(f"{beside}: no such file; evaluate {report.model['name']} again with --force to write it.")
    otherwise = "not a report's pairs. Evaluate again with --force."
    values = {}
    for row in _pair_rows(beside, report):
        kept: Mapping[str, Any] = row
        name = KEPT[report.tasks[row["task"]].get("kind", "sts") if row["task"] in report.tasks else "sts"]
        if name not in kept:
            raise UserError(f"{beside}: {row['task']}: {name}: it is missing: {otherwise}")
        values[row["task"]] = kept[name]
    return values


def load_worst(path: Path, report: Report) -> dict[str, Sequence[WorstPair]]:
    """Task -> its worst pairs, see ``metrics.worst_pairs``; none where the report has no pairs beside it.

    Raises:
        UserError: the pairs belong to another evaluation, or are not readable.
    """
    beside = pairs_path(path)
    rows = _pair_rows(beside, report) if beside.exists() else ()
    return {row["task"]: row["worst"] for row in rows if row.get("worst")}


def _pair_rows(beside: Path, report: Report) -> list[TaskPairs]:
    otherwise = "not a report's pairs. Evaluate again with --force."
    lines = [line for line in read_bytes(beside, otherwise).split(b"\n") if line]
    if not lines:
        raise UserError(f"{beside}: it is empty: {otherwise}")
    head = parse_record(lines[0], PairsHead, f"{beside}:1", otherwise)
    if head["key"] != report.key:
        raise UserError(f"{beside} belongs to another evaluation; evaluate again with --force.")
    return [parse_record(line, TaskPairs, f"{beside}:{i}", otherwise) for i, line in enumerate(lines[1:], 2)]


def evaluation_key(
    model: Mapping[str, Any], protocol: Mapping[str, Any], fingerprints: Mapping[str, str], limit: int | None
) -> str:
    """Fingerprint of all that decides an evaluation's numbers; batch size, device and versions are recorded only."""
    return fingerprint([deciding(model), protocol, fingerprints, limit])


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
    file, folder = _slug(name, "model") + _slug(variant, ""), _slug(suite, "tasks")
    for part, what in ((file, f"name {name[:60]!r} with its settings"), (folder, f"suite {suite[:60]!r}")):
        if len(part.encode()) > LONGEST:
            raise UserError(
                f"{what}: {len(part.encode())} bytes, too long for a file name; expected at most {LONGEST}. "
                "Give a shorter --name, or fewer tasks at once."
            )
    if file == "leaderboard" or folder in ("speed", "mteb"):
        raise UserError(f"{folder}/{file}: this name is taken by the tables; give another one.")
    return out / folder / f"{file}.json"


def readable_name(name: str, file: str) -> str:
    """A model's name with what its file's name adds to it: "runs/u, mean-none" for runs__u--mean-none."""
    slug = _slug(name, "model")
    return ", ".join([name, *file.removeprefix(slug).split("--")[1:]] if file.startswith(slug) else [name])


def model_variant(model: Mapping[str, Any]) -> list[str]:
    """What sets a model's use apart from its default one, for the file name."""
    parts = [f"{model['pooling']}-{model['head']}"] if "--" in str(model.get("settings_from")) else []
    parts += [str(model["dtype"])] if model.get("dtype", "float32") != "float32" else []
    return parts + ["whitened"] * bool(model.get("whiten"))


def model_facts(model: Mapping[str, Any], max_length: str) -> dict[str, str]:
    """What a page tells of the model."""
    return {
        "model": shown_model(model),
        "pooling, head": shown_origin(model),
        "max length": max_length,
        "dtype": str(model.get("dtype", MISSING)),
        "weights": shown_files(model) or MISSING,
    }


def _slug(text: str, otherwise: str) -> str:
    slug = re.sub(r"[^\w.+-]+", "-", text.replace("/", "__"))
    return (slug if slug.startswith("--") else slug.strip("-.")) or otherwise
