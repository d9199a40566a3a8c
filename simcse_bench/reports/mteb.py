"""Scores by mteb's own protocol: saved, and drawn in tables of their own, apart from the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.files import Environment, write_json
from simcse_bench.models.identity import marked_name, shown_model, shown_usage
from simcse_bench.reports.report import Provenance, model_facts
from simcse_bench.reports.scores import draw_leaderboards
from simcse_bench.reports.table import MISSING, Table, machine_facts, to_csv, to_list, to_markdown
from simcse_bench.schema import read_record

FOLDER = "mteb"  # below the results folder
MTEB_SCHEMA: Literal[1] = 1
_APART = "mteb's protocol: to be compared with mteb's numbers only, and never averaged with the paper's. No intervals."


class MtebName(TypedDict):
    """The release of mteb, and what the model is called there."""

    version: str
    name: str
    revision: str


class MtebPart(TypedDict):
    """A split and subset of a task; ``score`` in percent, ``metrics`` in mteb's own scale."""

    split: str
    subset: str
    score: float
    metrics: Mapping[str, float | bool | None]


class MtebData(TypedDict):
    """A dataset on the Hub."""

    path: str
    revision: str | None


class MtebTask(TypedDict):
    """A task; ``score`` is the mean over its parts, as mteb takes it, in percent."""

    type: str
    metric: str  # mteb's main score
    score: float
    parts: Annotated[Sequence[MtebPart], MinLen(1)]
    data: MtebData
    superseded_by: str | None


@dataclass(frozen=True)
class MtebReport:
    """One model on tasks of mteb."""

    key: str  # fingerprint of all that decides the numbers
    selection: str  # as given after "mteb:"
    benchmark: str | None  # where a whole benchmark was chosen
    model: Provenance
    mteb: MtebName
    tasks: Annotated[Mapping[str, MtebTask], MinLen(1)]
    averages: Mapping[str, float]  # mteb's own, in percent; none where tasks have nothing to average
    environment: Environment
    seconds: float
    created: str
    protocol: str = "mteb's own"
    schema: Literal[1] = MTEB_SCHEMA

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        write_json(path, asdict(self), allow_nan=False)

    @staticmethod
    def load(path: Path) -> MtebReport:
        """Read a saved report; UserError where the file is none of this version."""
        return read_record(path, MtebReport, "not a report of mteb's tasks. Move it away or evaluate again.")


def draw_mteb(report: MtebReport, path: Path) -> dict[Path, str]:
    """File -> content of all that is drawn from one report."""
    return {
        path.with_suffix(".md"): mteb_markdown(report),
        path.with_suffix(".csv"): to_csv(mteb_rows(report)),
    }


def draw_mteb_folder(folder: Path, reports: Mapping[Path, MtebReport]) -> dict[Path, str]:
    """File -> content of all that is drawn from a folder's reports, which are at least one."""
    files = {file: text for path, report in reports.items() for file, text in draw_mteb(report, path).items()}
    return files | draw_leaderboards(folder, mteb_leaderboards(list(reports.values())))


def mteb_table(report: MtebReport) -> Table:
    """A row per task, then mteb's averages."""
    rows = [
        [name, task["type"], task["metric"], _parts(task["parts"]), f"{task['score']:.2f}"]
        for name, task in report.tasks.items()
    ]
    rows += [[name, "average", MISSING, MISSING, f"{value:.2f}"] for name, value in report.averages.items()]
    title = f"{marked_name(report.model)}: {_title([report])}"
    return Table(title, ["task", "type", "metric", "split, subset", "score"], rows, _notes(report))


def mteb_parts_table(report: MtebReport) -> Table:
    """A row per split and subset of the tasks that have several."""
    several = {name: task["parts"] for name, task in report.tasks.items() if len(task["parts"]) > 1}
    rows = [[n, p["split"], p["subset"], f"{p['score']:.2f}"] for n, parts in several.items() for p in parts]
    return Table("in parts, ×100", ["task", "split", "subset", "score"], rows)


def mteb_leaderboards(reports: Sequence[MtebReport]) -> list[Table]:
    """One table per mteb version and choice of tasks, splits, subsets and data: other numbers never share a column."""
    groups: dict[tuple[Any, ...], list[MtebReport]] = {}
    for report in reports:
        parts = [(n, t["data"]["revision"] or "", tuple((p["split"], p["subset"]) for p in t["parts"]))
                 for n, t in report.tasks.items()]  # fmt: skip
        key = report.mteb["version"], report.benchmark or "", tuple(report.averages), *parts
        groups.setdefault(key, []).append(report)
    return [_leaderboard(groups[key], _data_mark(groups[key], reports)) for key in sorted(groups)]


def mteb_rows(report: MtebReport) -> list[dict[str, Any]]:
    """A row per task, part and metric, in mteb's own scale."""
    return [
        {
            "model": report.model["name"], "protocol": f"mteb {report.mteb['version']}", "task": name,
            "type": task["type"], "split": part["split"], "subset": part["subset"], "metric": metric,
            "main": int(metric == task["metric"]), "value": "" if value is None else value,
        }
        for name, task in report.tasks.items()
        for part in task["parts"]
        for metric, value in part["metrics"].items()
    ]  # fmt: skip


def mteb_markdown(report: MtebReport) -> str:
    """The whole Markdown page of a report: scores, parts, provenance."""
    parts = mteb_parts_table(report)
    tables = [mteb_table(report), *([parts] if parts.rows else [])]
    return "\n".join([*map(to_markdown, tables), *to_list(mteb_facts(report)), ""])


def mteb_facts(report: MtebReport) -> dict[str, str]:
    """What decided a report's numbers."""
    return {
        "model": shown_model(report.model),
        "in mteb": f"{report.mteb['name']} @ {report.mteb['revision']}",
        **model_facts(report.model, str(report.model.get("max_length") or "the model's own limit")),
        "data": ", ".join(f"{n} {t['data']['path']}@{t['data']['revision']}" for n, t in report.tasks.items()),
        **machine_facts(report.environment),
        "time": f"{report.seconds} s in mteb, {report.created}",
        "evaluation": report.key,
    }


def _data_mark(group: Sequence[MtebReport], reports: Sequence[MtebReport]) -> str:
    """Revisions of the data that other reports have in another one."""
    own = {n: task["data"]["revision"] for n, task in group[0].tasks.items()}
    different = [n for n, r in own.items() if any(o.tasks[n]["data"]["revision"] != r for o in reports if n in o.tasks)]
    return f"; data of its own: {', '.join(f'{n} @ {own[n]}' for n in different)}" if different else ""


def _leaderboard(reports: Sequence[MtebReport], mark: str) -> Table:
    tasks, averages = list(reports[0].tasks), list(reports[0].averages)
    rows = []
    for r in sorted(reports, key=lambda r: (-next(iter(r.averages.values()), 0.0), r.model["name"], r.key)):
        scores = [*(r.tasks[n]["score"] for n in tasks), *(r.averages[n] for n in averages)]
        settings = [marked_name(r.model), shown_usage(r.model), str(r.model.get("dtype", "float32"))]
        rows.append([*settings, *(f"{s:.2f}" for s in scores)])
    counts = {n: len(task["parts"]) for n, task in reports[0].tasks.items()}
    labels = [n if count == 1 else f"{n} ({count} parts)" for n, count in counts.items()]
    notes = [_APART, *bundled.caveats(any(r.model.get("embedded") for r in reports), False)]
    return Table(_title(reports) + mark, ["model", "pooling", "dtype", *labels, *averages], rows, notes)


def _title(reports: Sequence[MtebReport]) -> str:
    first = reports[0]
    what = f"{first.benchmark}, " if first.benchmark else ""
    badge = bundled.badge(all(r.model.get("embedded") for r in reports), False)
    return f"{what}mteb {first.mteb['version']}'s own protocol, main scores ×100{badge}"


def _notes(report: MtebReport) -> list[str]:
    notes = [_APART, *bundled.caveats(bool(report.model.get("embedded")), False)]
    if not report.averages and len(report.tasks) > 1:
        notes.append("No average: tasks of different types have none outside a benchmark of mteb.")
    if not report.benchmark:
        notes += [
            f"{n} is superseded in mteb by {t['superseded_by']}." for n, t in report.tasks.items() if t["superseded_by"]
        ]
    return notes


def _parts(parts: Sequence[MtebPart]) -> str:
    if len(parts) > 1:
        return f"mean of {len(parts)}"
    return parts[0]["split"] + (f", {parts[0]['subset']}" if parts[0]["subset"] != "default" else "")
