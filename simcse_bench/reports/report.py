"""Report: every number with what it came from, as JSON; saved whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, read_json, write_json, write_text
from simcse_bench.models.identity import deciding, shown_files, shown_model, shown_origin
from simcse_bench.reports.table import MISSING

REPORT_SCHEMA = 1
PAIRS = ".pairs.jsonl"


@dataclass(frozen=True)
class Report:
    """One evaluation of one model.

    ``tasks[name]`` holds ``scores[metric][aggregate] = {value, interval}`` in percent, ``subsets``, ``n`` and ``data``
    (split, text variant, fingerprint); ``average[metric][aggregate]`` exists only if no task of the suite is missing.
    """

    key: str  # fingerprint of all that decides the numbers
    suite: str
    model: Mapping[str, Any]
    protocol: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    average: Mapping[str, Any] | None
    skipped: Mapping[str, str]  # tasks of the suite without a score, and why
    limit: int | None  # first pairs of each subset only: such numbers compare with nothing
    stats: Mapping[str, int]
    environment: Mapping[str, Any]
    seconds: Mapping[str, float]
    created: str
    schema: int = REPORT_SCHEMA

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        write_json(path, asdict(self), allow_nan=False)

    @staticmethod
    def load(path: Path) -> Report:
        """Read a saved report; UserError where the file is no report of this version."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path}: not a readable report ({error}). Move it away or evaluate again.") from error
        names = {f.name for f in fields(Report)}
        if not isinstance(content, dict) or content.get("schema") != REPORT_SCHEMA or set(content) != names:
            raise UserError(f"{path}: not a report of this version of simcse-bench (schema {REPORT_SCHEMA}).")
        return Report(**content)


def read_fields(path: Path, names: Collection[str], otherwise: str) -> dict[str, Any]:
    """A JSON file that holds at least these fields.

    Raises:
        UserError: a damaged file, or one without them; ``otherwise`` says what it is then, and what to do.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not set(names) <= set(content):
        raise UserError(f"{path}: {otherwise}")
    return content


def pairs_path(path: Path) -> Path:
    """The file beside a report that holds its pairs' similarities."""
    return path.with_name(path.stem + PAIRS)


def save_pairs(
    path: Path, key: str, similarities: Mapping[str, Iterable[float]], worst: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Keep the cosine of every pair of a report's STS tasks, for comparisons with others, and its worst pairs."""
    lines = [
        {"task": name, "similarities": [round(float(x), 7) for x in values], "worst": list(worst.get(name, ()))}
        for name, values in similarities.items()
    ]
    if lines:
        rows = [{"schema": REPORT_SCHEMA, "key": key}, *lines]
        write_text(pairs_path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_pairs(path: Path, report: Report) -> dict[str, list[float]]:
    """Task -> cosines of its pairs, of a saved report.

    Raises:
        UserError: they are not there, or belong to another evaluation.
    """
    beside = pairs_path(path)
    if not beside.is_file():
        raise UserError(f"{beside}: no such file; evaluate {report.model['name']} again with --force to write it.")
    return {row["task"]: row["similarities"] for row in _pair_rows(beside, report)}


def load_worst(path: Path, report: Report) -> dict[str, list[dict[str, Any]]]:
    """Task -> its worst pairs, see ``metrics.worst_pairs``; none where the report has no pairs beside it.

    Raises:
        UserError: the pairs belong to another evaluation, or are not readable.
    """
    beside = pairs_path(path)
    rows = _pair_rows(beside, report) if beside.is_file() else ()
    return {row["task"]: row["worst"] for row in rows if row.get("worst")}


def _pair_rows(beside: Path, report: Report) -> list[dict[str, Any]]:
    try:
        head, *rows = (json.loads(line) for line in beside.read_text(encoding="utf-8").split("\n") if line)
        if head["key"] != report.key:
            raise UserError(f"{beside} belongs to another evaluation; evaluate again with --force.")
        if not all(isinstance(row, dict) and {"task", "similarities"} <= set(row) for row in rows):
            raise ValueError("not a task's pairs")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{beside}: not readable ({error!r}). Evaluate again with --force.") from error
    return rows


def evaluation_key(
    model: Mapping[str, Any], protocol: Mapping[str, Any], fingerprints: Mapping[str, str], limit: int | None
) -> str:
    """Fingerprint of all that decides an evaluation's numbers; batch size, device and versions are recorded only."""
    identity = deciding(model)
    if model.get("files") is None:  # an encoder of the user's own: nothing but its name tells it apart
        identity["name"] = model.get("name")
    return fingerprint([identity, protocol, fingerprints, limit])


def report_path(out: Path, suite: str, name: str, variant: str = "") -> Path:
    """``<out>/<suite>/<model>[--variant].json``; "/" in a model's name becomes "__".

    Raises:
        UserError: a name that makes no file name, or one that the drawn tables need.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"name {name!r}: not valid unicode; give another --name.") from None
    file, folder = _slug(name, "model") + _slug(variant, ""), _slug(suite, "tasks")
    if len(file) > 200:
        raise UserError(f"name {name[:60]!r}...: too long for a file name; give a shorter --name.")
    if file == "leaderboard" or folder in ("speed", "mteb"):
        raise UserError(f"{folder}/{file}: this name is taken by the tables; give another one.")
    return out / folder / f"{file}.json"


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
