"""Tables drawn from reports: one report, a leaderboard, a benchmark."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.files import shown_machine, shown_versions, write_text
from simcse_bench.models.catalog import known_model
from simcse_bench.models.identity import (
    SETTINGS,
    deciding,
    marked_name,
    shown_files,
    shown_model,
    shown_origin,
    shown_usage,
)
from simcse_bench.papers import published
from simcse_bench.reports.report import Report
from simcse_bench.reports.table import MISSING, Table, to_csv, to_markdown


def score_table(report: Report, metric: str, aggregate: str, narrow: bool = False) -> Table:
    """The paper's row form: scores, intervals, average, and the published row with the difference.

    ``narrow`` fits a terminal of 80 columns: short labels, and the interval's ends in two rows.
    """
    entries: dict[str, Mapping[str, Any] | None] = {}
    entries |= {name: _entry(task["scores"], metric, aggregate) for name, task in report.tasks.items()}
    entries |= dict.fromkeys(report.skipped)
    average = _entry(report.average, metric, aggregate) if report.average else None
    columns = [*entries.values(), average]
    titles = [report.tasks[n]["title"] if n in report.tasks else n.upper() for n in entries]
    scores = [_number(e["value"] if e else None) for e in columns]
    if narrow:
        ends = [(e["interval"] if e else None) or (None, None) for e in columns]
        rows = [
            ["score", *scores],
            *([f"95 % {word}", *(_number(e[i]) for e in ends)] for i, word in enumerate(("from", "to"))),
        ]
    else:
        rows = [[report.model["name"], *scores], ["95 % interval", *(_interval(e) for e in columns)]]
    paper = _published(report, metric, aggregate)
    if paper:
        theirs = [*(paper.scores.get(name) for name in entries), paper.average]
        label = "published" if narrow else f"published ({paper.source})"
        rows.append([label, *(_number(value) for value in theirs)])
        rows.append(
            [
                "difference",
                *(
                    _number(e["value"] - t, sign=True) if e and t is not None else MISSING
                    for e, t in zip(columns, theirs, strict=True)
                ),
            ]
        )
    return Table(_title(report, metric, aggregate), ["", *titles, "Avg."], rows, _notes(report, metric, aggregate))


def subset_table(report: Report, metric: str) -> Table:
    """Scores of every subset and aggregation of STS tasks; dev, folds and L2 of transfer tasks."""
    rows = []
    for task in report.tasks.values():
        shown = metric if metric in task["scores"] else "accuracy"
        for how, entry in task["scores"][shown].items():
            rows.append([task["title"], how if shown == metric else shown, str(task["n"]), *_cells(entry)])
        if len(task["subsets"]) > 1:
            for name, subset in task["subsets"].items():
                rows.append([task["title"], f"· {name}", str(subset["n"]), *_cells(subset[metric])])
        if "probe" in task:
            p = task["probe"]
            extra = [("· test", p["test"]), ("· dev", p["dev"])]
            extra += [("· test F1", p["test_f1"])] if "test_f1" in p else []
            if len(p["folds"]) > 1:
                extra += [
                    (f"· fold {i}, L2 {v:g}", s) for i, (s, v) in enumerate(zip(p["folds"], p["l2"], strict=True), 1)
                ]
            rows += [[task["title"], name, "", _number(value), MISSING] for name, value in extra]
    return Table("in parts, ×100", ["task", "part", "rows", "score", "95 % interval"], rows)


def leaderboard(reports: Sequence[Report], metric: str = "spearman", aggregate: str = "all") -> Table:
    """One row per report of one suite under one protocol, best average first; and which averages noise leaves equal."""
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}

    def value(report: Report, name: str) -> float | None:
        return _entry(report.tasks[name]["scores"], metric, aggregate)["value"] if name in report.tasks else None

    def mean(report: Report) -> float | None:
        return _entry(report.average, metric, aggregate)["value"] if report.average else None

    rows: list[list[str]] = []
    ordered = sorted(reports, key=lambda r: (-(mean(r) or -1e9), r.model["name"], r.key))
    averages = [_entry(r.average, metric, aggregate) if r.average else None for r in ordered]
    for r, average, alike in zip(ordered, averages, inseparable(averages), strict=True):
        interval = _interval(average)
        settings = r.model.get("dtype", MISSING)
        scores = [*(_number(value(r, n)) for n in names), _number(mean(r)), interval]
        scores += [str(len(rows) + 1) if average else MISSING, ", ".join(str(i + 1) for i in alike) or MISSING]
        name = marked_name(r.model)
        rows.append([name, shown_usage(r.model), settings + (f", first {r.limit}" if r.limit else ""), *scores])
    baseline = published.published_word_vectors(reports[0].protocol, metric, aggregate, reports[0].suite)
    if baseline and any(r.model["name"].startswith("word-vectors:") for r in reports):
        scores = [
            *(_number(baseline.scores.get(n)) for n in names),
            _number(baseline.average),
            MISSING,
            MISSING,
            MISSING,
        ]
        rows.append([f"published: {baseline.row}", f"({baseline.source})", MISSING, *scores])
    header = [
        "model",
        "pooling",
        "dtype",
        *(titles.get(n, n) for n in names),
        "Avg.",
        "95 % interval",
        "rank",
        "like rank",
    ]
    note = (
        "Like rank: averages whose difference the intervals cannot tell from 0, taken as independent. "
        "That is cautious, for the pairs are the same: `simcse-bench compare` sees smaller differences. "
        "Seeds are not considered."
    )
    return Table(board_title(reports, metric, aggregate), header, rows, [note] if len(ordered) > 1 else [])


def narrow_leaderboard(table: Table) -> Table:
    """Model, pooling and dtype in one column, to fit a terminal."""
    first = [f"{row[0]}\n  {row[1]}" + f", {row[2]}" * (row[2] != MISSING) for row in table.rows]
    rows = [[name, *row[3:]] for name, row in zip(first, table.rows, strict=True)]
    return dataclasses.replace(table, header=["model", *table.header[3:]], rows=rows)


def leaderboard_rows(table: Table) -> list[dict[str, Any]]:
    """A leaderboard's rows for a CSV, each with what they share."""
    return [{"protocol": table.title, **dict(zip(table.header, row, strict=True))} for row in table.rows]


def inseparable(averages: Sequence[Mapping[str, Any] | None]) -> list[list[int]]:
    """For each score the others whose difference from it is within its 95 % interval.

    The half-widths that face each other are added as independent errors are. A score without an interval is told from
    all others.
    """
    found = []
    for i, a in enumerate(averages):
        alike = []
        for j, b in enumerate(averages):
            if i != j and a and b and a["interval"] and b["interval"]:
                low, high = (a, b) if a["value"] < b["value"] else (b, a)
                widths = high["value"] - high["interval"][0], low["interval"][1] - low["value"]
                if high["value"] - low["value"] <= math.hypot(*widths):
                    alike.append(j)
        found.append(alike)
    return found


def board_title(reports: Sequence[Report], metric: str = "", aggregate: str = "") -> str:
    """What the reports of one leaderboard share; without metric and aggregation where these are switched."""
    p, kinds = reports[0].protocol, _kinds(reports[0])
    parts = [f"{metric} ×100"] * (metric != "" and "sts" in kinds) + ["accuracy ×100"] * ("transfer" in kinds)
    parts += [f"protocol {p['name']}, {p['split']}"]
    parts += [f"aggregation {aggregate!r}"] * (aggregate != "" and "sts" in kinds)
    parts += [f"probe {p['probe']!r}"] if "probe" in p else []
    tried = [f"(embedded): {bundled.ENCODER}"] * any(r.model.get("embedded") for r in reports)
    tried += [bundled.DATA] * any(name in bundled.TASKS for name in reports[0].tasks)
    return ", ".join(parts) + "".join(f" — {t}" for t in tried)


def speed_table(content: Mapping[str, Any]) -> Table:
    """A benchmark's medians, and their ratio to the reference: in the same dtype, and to its float32.

    A row with a "base" is held against that instead: a benchmark of several cases.
    """
    rows, theirs = content["rows"], content["reference"]
    medians = {(r["what"], r["dtype"]): r["median"] for r in rows}

    def ratio(row: Mapping[str, Any], dtype: str) -> str:
        base = row.get("base", medians.get((theirs, dtype)))
        return MISSING if base is None else f"{row['median'] / base:.2f}"

    cells = [
        [r["what"], r["dtype"], _seconds(r["median"]), ", ".join(map(_seconds, r["seconds"])),
         ratio(r, r["dtype"]), ratio(r, "float32"), str(r["sentences"]), str(r["peak_mb"] or MISSING)]
        for r in rows
    ]  # fmt: skip
    header = ["", "dtype", "median s", "runs s", "ratio", "ratio to float32", "sentences", "peak MB"]
    machine = content["environment"]
    return Table(
        content["title"],
        header,
        cells,
        [
            f"Ratio: to {theirs} in the same dtype, and in float32. {content['note']}",
            f"Machine: {shown_machine(machine)}; {shown_versions(machine)}.",
        ],
    )


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def score_rows(report: Report) -> list[dict[str, Any]]:
    """Every number of a report as tidy rows: one per task, subset, metric and aggregation."""
    rows: list[dict[str, Any]] = []

    def add(task: str, part: str, n: int | None, metric: str, how: str, entry: Mapping[str, Any]) -> None:
        low, high = entry["interval"] or ("", "")
        row = {"model": report.model["name"], "protocol": report.protocol["name"], "split": report.protocol["split"]}
        row |= {"task": task, "subset": part, "pairs": n, "metric": metric, "aggregate": how}
        rows.append(row | {"value": entry["value"], "low": low, "high": high})

    for name, task in report.tasks.items():
        for metric, by_aggregate in task["scores"].items():
            for how, entry in by_aggregate.items():
                add(name, "", task["n"], metric, how, entry)
            for part, subset in task["subsets"].items():
                add(name, part, subset["n"], metric, "", subset[metric])
    for metric, by_aggregate in (report.average or {}).items():
        for how, entry in by_aggregate.items():
            add("avg", "", None, metric, how, entry)
    return rows


def report_markdown(report: Report, metric: str, aggregate: str) -> str:
    """The whole Markdown page of a report: score table, subsets, provenance."""
    facts = {
        "model": shown_model(report.model),
        "pooling, head": shown_origin(report.model),
        "max length": str(report.model.get("max_length_used", MISSING)),
        "dtype": str(report.model.get("dtype", MISSING)),
        "weights": shown_files(report.model) or MISSING,
        "data": ", ".join(f"{n} {t['data']['fingerprint']}" for n, t in report.tasks.items()),
        "machine": shown_machine(report.environment),
        "versions": shown_versions(report.environment),
        "time": f"{report.seconds['embedding']} s embedding, {report.seconds['scoring']} s scoring, {report.created}",
        "evaluation": report.key,
    }
    lines = [f"- {k}: {v}" for k, v in facts.items()]
    return "\n".join(
        [to_markdown(score_table(report, metric, aggregate)), to_markdown(subset_table(report, metric)), *lines, ""]
    )


def _published(report: Report, metric: str, aggregate: str) -> published.PublishedRow | None:
    p = report.protocol
    if report.limit or report.model.get("whiten"):
        return None
    if p.get("probe", "exact") != "exact":
        return None
    if report.suite == "transfer":
        metric, aggregate = "accuracy", "all"
    found = published.published_row(report.model["name"], p["name"], aggregate, metric, p["split"], report.suite)
    # the published number belongs to the model's own settings
    spec = known_model(report.model["name"])
    same = spec is not None and all(getattr(spec, k) == v for k, v in deciding(report.model, SETTINGS).items())
    return found if same else None


def _title(report: Report, metric: str, aggregate: str) -> str:
    title = board_title([report], metric, aggregate).replace("(embedded): ", "")
    if report.limit:
        title += f" — ONLY THE FIRST {report.limit} PAIRS OF EVERY SUBSET: comparable with nothing"
    return title


def _kinds(report: Report) -> set[str]:
    return {task.get("kind", "sts") for task in report.tasks.values()}


def _notes(report: Report, metric: str, aggregate: str) -> list[str]:
    paper = _published(report, metric, aggregate)
    notes = [f"Published: {paper.row}, {paper.source}."] if paper else []
    notes += [f"{name}: not scored, it {why}." for name, why in report.skipped.items()]
    if any("dev" in t.get("probe", {}) for t in report.tasks.values()) and report.protocol["split"] == "dev":
        notes.append("Dev accuracies have no interval: they are the best of several, on the folds that chose them.")
    if report.average is None and not report.skipped:
        notes.append("No average: a correlation and an accuracy have none.")
    if report.skipped:
        notes.append("No average: it exists only if every task of the suite has a score.")
    if report.model.get("usage"):
        notes.append(f"Usage: {report.model['usage']}.")
    if report.stats.get("truncated"):
        longest = report.model.get("max_length_used")
        notes.append(f"{report.stats['truncated']} sentences were longer than {longest} tokens and were truncated.")
    if report.stats.get("zero_vectors"):
        notes.append(f"{report.stats['zero_vectors']} sentences hold no known word: zero vectors, cosine 0.")
    return notes


def _entry(scores: Mapping[str, Any], metric: str, aggregate: str) -> Mapping[str, Any]:
    """The score that is shown: of the metric asked for on STS, the accuracy on a transfer task."""
    by_aggregate: Mapping[str, Any] = scores.get(metric) or scores["accuracy"]
    entry: Mapping[str, Any] = by_aggregate.get(aggregate) or by_aggregate["all"]
    return entry


def _cells(entry: Mapping[str, Any]) -> tuple[str, str]:
    return _number(entry["value"]), _interval(entry)


def _interval(entry: Mapping[str, Any] | None) -> str:
    return MISSING if not entry or entry["interval"] is None else "{:.1f}–{:.1f}".format(*entry["interval"])


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return MISSING
    rounded = round(value, 2) + 0.0  # no "-0.00"
    return f"{rounded:+.2f}" if sign else f"{rounded:.2f}"


def write_report_tables(report: Report, path: Path) -> None:
    """The Markdown page and the CSV beside a report's JSON."""
    for file, text in draw_report(report, path).items():
        write_text(file, text)


def draw_report(report: Report, path: Path) -> dict[Path, str]:
    """File -> content of all that is drawn from one report."""
    return {
        path.with_name(path.stem + ".md"): report_markdown(report, "spearman", "all"),
        path.with_name(path.stem + ".csv"): to_csv(score_rows(report)),
    }
