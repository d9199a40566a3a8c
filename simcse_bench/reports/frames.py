"""Saved results as tidy pandas frames: every number a row, with what it is and the file it comes from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import UserError, unknown
from simcse_bench.models.identity import VALUES, deciding
from simcse_bench.reports.ablation import ablation_rows
from simcse_bench.reports.folder import read_reports
from simcse_bench.reports.geometry import geometry_rows, read_analyses
from simcse_bench.reports.pair_records import load_records, pairs_path, report_beside
from simcse_bench.reports.report import Report
from simcse_bench.reports.robustness import FOLDER, read_all_robustness, robustness_rows
from simcse_bench.reports.scores import score_rows
from simcse_bench.reports.summary import SUMMARY, read_summary

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "scores": "a row per model, task, subset, metric and aggregation",
    "ablations": "a row per ablation, arm and seed",
    "geometry": "a row per analysed model",
    "robustness": "a row per model, task and change of the sentences",
}


def read_results(folder: str | Path = "results", kind: str = "scores") -> pd.DataFrame:
    """The results below a folder as a frame.

    Scores have the columns model, settings (what decides its vectors but the files), suite, protocol, split, task,
    subset, n, metric, aggregate, value, low, high (the 95 % interval; percent), limit, key and path; the task of an
    average is "avg".

    Args:
        folder: the results folder, or one below it.
        kind: a key of ``KINDS``.

    Raises:
        UserError: no such folder or kind; nothing there but damaged files.

    Warns:
        of every damaged file; the frame holds the others.
    """
    import pandas as pd

    results = Path(folder)
    if kind not in KINDS:
        raise unknown("kind of results", kind, KINDS)
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; expected one with results of `simcse-bench eval` or the like.")
    problems: list[str] = []
    readers = {"scores": _scores, "ablations": _ablations, "geometry": _geometry, "robustness": _robustness}
    rows = readers[kind](results, problems)
    if problems and not rows:
        raise UserError(*problems)
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return pd.DataFrame(rows)


def read_pairs(source: str | Path = "results") -> pd.DataFrame:
    """The pairs of saved STS reports as a frame, a row per model and pair.

    Columns: model, suite, task, subset, id ("task/subset/number", the same for every model), left, right (the sentences
    as they were embedded), gold (the task's own score), cosine, gold_rank, cosine_rank (average ranks among the task's
    pairs, in percent), key and path of the report.

    Args:
        source: a report, the ``.pairs.jsonl`` beside it, or a folder: all reports below it that have pairs.

    Raises:
        UserError: no such file or folder; no report or no pairs of this version there; pairs of another evaluation,
            lines missing or doubled.

    Warns:
        of every damaged or older file below a folder; the frame holds the others.
    """
    import pandas as pd

    path = Path(source)
    if not path.is_dir():
        return pd.DataFrame(_pair_rows(report_beside(path)))
    problems: list[str] = []
    rows: list[dict[str, Any]] = []
    for one in read_reports(path, problems):
        if pairs_path(one).exists():
            try:
                rows += _pair_rows(one)
            except UserError as error:
                problems += error.problems
    if not rows:
        raise UserError(*(problems or [f"{path}: no report with pairs; `simcse-bench eval` writes both."]))
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return pd.DataFrame(rows)


def _pair_rows(path: Path) -> list[dict[str, Any]]:
    report = Report.load(path)
    about, beside = {"model": report.model["name"], "suite": report.suite}, {"key": report.key, "path": path.as_posix()}
    return [about | row | beside for rows in load_records(path, report).values() for row in rows]


def _scores(results: Path, problems: list[str]) -> list[dict[str, Any]]:
    reports = read_reports(results, problems)
    return [row for path, report in reports.items() for row in _rows(report, path)]


def _rows(report: Report, path: Path) -> list[dict[str, Any]]:
    said = deciding(report.model, [field for field in VALUES if field != "files"])
    settings = ", ".join(f"{k} {v}" for k, v in said.items() if v)
    beside = {"limit": report.limit, "key": report.key, "path": path.as_posix()}
    return [
        {"model": row.pop("model"), "settings": settings, "suite": report.suite}
        | {"n" if k == "pairs" else k: None if v == "" and k in ("low", "high") else v for k, v in row.items()}
        | beside
        for row in score_rows(report)
    ]


def _ablations(results: Path, problems: list[str]) -> list[dict[str, Any]]:
    rows = []
    for path in sorted(results.rglob(SUMMARY)):
        try:
            rows += [row | {"path": path.as_posix()} for row in ablation_rows(read_summary(path))]
        except UserError as error:
            problems += error.problems
    return rows


def _geometry(results: Path, problems: list[str]) -> list[dict[str, Any]]:
    rows = []
    for folder in sorted({path.parent for path in results.rglob("analysis/*.json")}):
        analyses, damaged = read_analyses(folder)
        problems += damaged
        rows += [
            row | {"path": (folder / f"{a['file']}.json").as_posix()}
            for row, a in zip(geometry_rows(analyses), analyses, strict=True)
        ]
    return rows


def _robustness(results: Path, problems: list[str]) -> list[dict[str, Any]]:
    rows = []
    for folder in sorted({path.parent for path in results.rglob(f"{FOLDER}/*.json")}):
        models, damaged = read_all_robustness(folder)
        problems += damaged
        rows += [
            row | {"path": (folder / f"{m['file']}.json").as_posix()} for m in models for row in robustness_rows([m])
        ]
    return rows
