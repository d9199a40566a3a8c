"""Tables drawn from reports: one report, a leaderboard."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.files import write_text
from simcse_bench.models.catalog import known_model
from simcse_bench.models.identity import SETTINGS, deciding, marked_name, shown_usage
from simcse_bench.papers import published
from simcse_bench.reports.overlap import MARK, Overlap, contaminated, seen_note
from simcse_bench.reports.report import Entry, Report, measures, model_facts, shown_metric
from simcse_bench.reports.table import MISSING, Table, machine_facts, shown_numbers, to_csv, to_list, to_markdown


def write_report_tables(report: Report, path: Path) -> None:
    """The Markdown page and the CSV beside a report's JSON."""
    for file, text in draw_report(report, path).items():
        write_text(file, text)


def draw_report(report: Report, path: Path) -> dict[Path, str]:
    """File -> content of all that is drawn from one report."""
    return {
        path.with_suffix(".md"): report_markdown(report, "spearman", "all"),
        path.with_suffix(".csv"): to_csv(score_rows(report)),
    }


def score_table(report: Report, metric: str, aggregate: str, narrow: bool = False) -> Table:
    """The paper's row form: scores, intervals, average, and the published row with the difference.

    ``narrow`` fits a terminal of 80 columns: short labels, and the interval's ends in two rows.
    """
    names = [*report.tasks, *report.skipped]
    averaged = [None] if len(names) > 1 else []  # of one task it would say the score again
    columns = [_entry(report, name, metric, aggregate) for name in (*names, *averaged)]
    titles = [report.tasks[n]["title"] if n in report.tasks else n.upper() for n in names]
    scores = [_value(e) for e in columns]
    if narrow:
        rows = [["score", *scores]]
        ends = [(e and e["interval"]) or (None, None) for e in columns]
        rows += [[f"95 % {word}", *(_number(e[i]) for e in ends)] for i, word in enumerate(("from", "to"))]
    else:
        rows = [[report.model["name"], *scores], ["95 % interval", *map(_interval, columns)]]
    paper = published_beside(report, metric, aggregate)
    if paper:
        theirs = [paper.average if name is None else paper.scores.get(name) for name in (*names, *averaged)]
        apart = [e["value"] - t if e and t is not None else None for e, t in zip(columns, theirs, strict=True)]
        rows.append(["published" if narrow else f"published ({paper.source})", *map(_number, theirs)])
        rows.append(["difference", *(_number(value, sign=True) for value in apart)])
    if all("float32" in task for task in report.tasks.values()):
        exact = [task["float32"][shown_metric(task["scores"], metric)] for task in report.tasks.values()]
        each = [(by.get(aggregate) or by["all"])["value"] for by in exact]
        mean = sum(each) / len(each) if report.average else None
        values: list[float | None] = [*each, *[None] * len(report.skipped), *[mean] * len(averaged)]
        lost = [e["value"] - v if e and v is not None else None for e, v in zip(columns, values, strict=True)]
        rows.append(["float32", *map(_number, values)])
        rows.append(["int8 - float32", *(_number(value, sign=True) for value in lost)])
    title = board_title([report], metric, aggregate)
    if report.limit:
        title += f"; ONLY THE FIRST {report.limit} PAIRS OF EVERY SUBSET: comparable with nothing"
    return Table(
        title, ["", *titles, *["Avg."] * len(averaged)], rows, [*report_notes(report, paper), *_caveats([report])]
    )


def subset_table(report: Report, metric: str) -> Table:
    """Scores of every subset and aggregation of STS tasks; dev, folds and L2 of transfer tasks; else every metric."""
    rows = []
    for task in report.tasks.values():
        for shown in [metric] if metric in task["scores"] else task["scores"]:
            for how, entry in task["scores"][shown].items():
                part = how if shown == metric else shown
                rows.append([task["title"], part, str(task["n"]), _value(entry), _interval(entry)])
        subsets: Mapping[str, Mapping[str, Any]] = task["subsets"]
        if len(subsets) > 1:
            rows += [
                [task["title"], f"· {name}", str(subset["n"]), _value(subset[metric]), _interval(subset[metric])]
                for name, subset in subsets.items()
            ]
        if "probe" in task:
            p = task["probe"]
            extra = [("· test", p["test"]), ("· dev", p["dev"])]
            extra += [("· test F1", p["test_f1"])] if "test_f1" in p else []
            extra += [("· test Spearman", p["test_spearman"])] if "test_spearman" in p else []
            if len(p["folds"]) > 1:
                extra += [
                    (f"· fold {i}, L2 {v:g}", s) for i, (s, v) in enumerate(zip(p["folds"], p["l2"], strict=True), 1)
                ]
            rows += [[task["title"], name, "", _number(value), MISSING] for name, value in extra]
        if "paraphrase" in task:
            found = task["paraphrase"]
            rows += [
                [task["title"], f"· {name}, {m}", str(n), _number(found[part][m]), MISSING]  # type: ignore[literal-required]
                for part, name, n in (
                    ("dev", "dev", found["dev_pairs"]),
                    ("best", "best threshold for these pairs", task["n"]),
                )
                for m in found["thresholds"]
            ]
    return Table("in parts, ×100", ["task", "part", "rows", "score", "95 % interval"], rows)


def comparable(report: Report) -> tuple[Any, ...]:
    """What two reports must share for their numbers to stand in one column: protocol, split, probe, data."""
    p = report.protocol
    data = tuple((name, task["data"]["fingerprint"]) for name, task in report.tasks.items())
    return p["name"], p["split"], p.get("probe", ""), report.limit or 0, data


def grouped(reports: Sequence[Report]) -> list[list[Report]]:
    """Reports that share a leaderboard: those that are ``comparable``; other numbers never share a column."""
    groups: dict[tuple[object, ...], list[Report]] = {}
    for report in reports:
        name, split, probe, limit, data = comparable(report)
        key = (name != "simcse", name, split != "test", split, probe, *report.tasks), limit, data
        groups.setdefault(key, []).append(report)
    return [groups[key] for key in sorted(groups)]


def leaderboards(
    groups: Sequence[Sequence[Report]],
    metric: str = "spearman",
    aggregate: str = "all",
    overlaps: Sequence[Overlap] = (),
) -> list[Table]:
    """The leaderboards of a folder's groups of reports, from ``grouped``; ``overlaps`` mark rows, see there."""
    marks = group_marks(groups)
    return [leaderboard(g, metric, aggregate, mark, overlaps) for g, mark in zip(groups, marks, strict=True)]


def group_marks(groups: Sequence[Sequence[Report]]) -> list[str]:
    """What sets each group of a folder apart from those of the same protocol and tasks: a limit, other data."""
    marks = []
    for group in groups:
        (*rules, data), parts = comparable(group[0]), []
        beside = [dict(comparable(other[0])[-1]) for other in groups if list(comparable(other[0])[:-1]) == rules]
        alike = [other for other in beside if other.keys() == dict(data).keys()]
        different = [name for name, digest in data if any(other[name] != digest for other in alike)]
        if group[0].limit:
            parts.append(f"ONLY THE FIRST {group[0].limit} PAIRS OF EVERY SUBSET")
        if different:
            parts.append(f"data of its own: {', '.join(f'{name} {dict(data)[name]}' for name in different)}")
        marks.append("".join(f"; {part}" for part in parts))
    return marks


def leaderboard(
    reports: Sequence[Report],
    metric: str = "spearman",
    aggregate: str = "all",
    mark: str = "",
    overlaps: Sequence[Overlap] = (),
) -> Table:
    """One row per comparable report, best average first; and which averages noise leaves equal.

    ``mark``: from ``group_marks``, for the title. A model that was trained on sentences of these tasks, as far as that
    is known (``overlap.contaminated``), has a mark behind its name and a note.
    """
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}

    def rank(report: Report) -> tuple[float, str, str]:
        average = _entry(report, None, metric, aggregate)
        return -average["value"] if average else math.inf, report.model["name"], report.key

    rows: list[list[str]] = []
    seen_notes: list[str] = []
    ordered = sorted(reports, key=rank)
    averages = [_entry(r, None, metric, aggregate) for r in ordered]
    ranked = any(averages)  # scores of different kinds have no average, and nothing to rank by
    averaged = [None] if len(names) > 1 and ranked else []
    for r, average, alike in zip(ordered, averages, inseparable(averages), strict=True):
        scores = [_value(_entry(r, n, metric, aggregate)) for n in (*names, *averaged)]
        place = str(len(rows) + 1) if average else MISSING
        scores += [_interval(average), place, ", ".join(str(i + 1) for i in alike) or MISSING] * ranked
        dtype = r.model.get("dtype", MISSING) + (f", first {r.limit}" if r.limit else "")
        seen = contaminated(r, overlaps)
        seen_notes += seen_note(r, seen)
        rows.append([marked_name(r.model) + f" {MARK}" * bool(seen), shown_usage(r.model), dtype, *scores])
    baseline = published.published_word_vectors(reports[0].protocol, metric, aggregate, reports[0].suite)
    if baseline and not reports[0].limit and any(r.model["name"].startswith("word-vectors:") for r in reports):
        theirs = [baseline.average if n is None else baseline.scores.get(n) for n in (*names, *averaged)]
        scores = [*map(_number, theirs), *[MISSING] * 3 * ranked]
        rows.append([f"published: {baseline.row}", f"({baseline.source})", MISSING, *scores])
    columns = [*(titles.get(n, n) for n in names), *["Avg."] * len(averaged)]
    columns += ["95 % interval", "rank", "tied with"] * ranked
    note = (
        "Tied with (ranks): averages whose difference the intervals cannot tell from 0, taken as independent. "
        "That is cautious, for the pairs are the same: `simcse-bench compare` sees smaller differences. "
        "Seeds are not considered."
    )
    notes = ([note] if len(ordered) > 1 and ranked else []) + list(dict.fromkeys(seen_notes)) + _caveats(reports)
    title = board_title(reports, metric, aggregate) + mark
    return Table(title, ["model", "pooling", "dtype", *columns], rows, notes)


def narrow_leaderboard(table: Table) -> Table:
    """Model, pooling and dtype in one column, to fit a terminal."""
    first = [f"{row[0]}\n  {row[1]}" + f", {row[2]}" * (row[2] != MISSING) for row in table.rows]
    rows = [[name, *row[3:]] for name, row in zip(first, table.rows, strict=True)]
    return dataclasses.replace(table, header=["model", *table.header[3:]], rows=rows)


def draw_leaderboards(folder: Path, boards: Sequence[Table]) -> dict[Path, str]:
    """File -> content of a folder's leaderboards."""
    return {
        folder / "leaderboard.md": "\n".join(map(to_markdown, boards)),
        folder / "leaderboard.csv": to_csv([row for board in boards for row in leaderboard_rows(board)]),
    }


def leaderboard_rows(table: Table) -> list[dict[str, Any]]:
    """A leaderboard's rows for a CSV, each with what they share."""
    return [{"protocol": table.title, **dict(zip(table.header, row, strict=True))} for row in table.rows]


def inseparable(averages: Sequence[Entry | None]) -> list[list[int]]:
    """For each score the others whose difference from it is within its 95 % interval.

    The half-widths that face each other are added as independent errors are. A score without an interval is told from
    all others.
    """

    def alike(a: Entry | None, b: Entry | None) -> bool:
        if not (a and b):
            return False
        low, high = (a, b) if a["value"] < b["value"] else (b, a)
        below, above = low["interval"], high["interval"]
        if not (below and above):
            return False
        widths = high["value"] - above[0], below[1] - low["value"]
        return bool(high["value"] - low["value"] <= math.hypot(*widths))

    return [[j for j, b in enumerate(averages) if i != j and alike(a, b)] for i, a in enumerate(averages)]


def board_title(reports: Sequence[Report], metric: str = "", aggregate: str = "") -> str:
    """What the reports of one leaderboard share; without metric and aggregation where these are switched."""
    p, kinds = reports[0].protocol, {task.get("kind", "sts") for task in reports[0].tasks.values()}
    parts = [f"{metric} ×100"] * (metric != "" and "sts" in kinds) + [f"{m} ×100" for m in measures(reports[0])]
    parts += [f"protocol {p['name']}, {p['split']}"]
    parts += [f"aggregation {aggregate!r}"] * (aggregate != "" and "sts" in kinds)
    parts += [f"probe {p['probe']!r}"] if "probe" in p else []
    parts += [f"without pairs of {p['excluded']['train']}"] if p.get("excluded") else []
    badge = bundled.badge(all(r.model.get("embedded") for r in reports), _on_embedded_data(reports))
    return ", ".join(parts) + badge


def _caveats(reports: Sequence[Report]) -> list[str]:
    return bundled.caveats(any(r.model.get("embedded") for r in reports), _on_embedded_data(reports))


def _on_embedded_data(reports: Sequence[Report]) -> bool:
    return any(name in bundled.TASKS for name in reports[0].tasks)


def score_rows(report: Report) -> list[dict[str, Any]]:
    """Every number of a report as tidy rows: one per task, subset, metric and aggregation."""
    shared = {"model": report.model["name"], "protocol": report.protocol["name"], "split": report.protocol["split"]}
    rows: list[dict[str, Any]] = []

    def add(task: str, part: str, n: int | None, metric: str, how: str, entry: Mapping[str, Any]) -> None:
        low, high = entry["interval"] or ("", "")
        place = {"task": task, "subset": part, "pairs": n, "metric": metric, "aggregate": how}
        rows.append(shared | place | {"value": entry["value"], "low": low, "high": high})

    for name, task in report.tasks.items():
        for metric, by_aggregate in task["scores"].items():
            for how, entry in by_aggregate.items():
                add(name, "", task["n"], metric, how, entry)
            subsets: Mapping[str, Mapping[str, Any]] = task["subsets"]
            for part, subset in subsets.items():
                if metric in subset:
                    add(name, part, subset["n"], metric, "", subset[metric])
    for metric, by_aggregate in (report.average or {}).items():
        for how, entry in by_aggregate.items():
            add("avg", "", None, metric, how, entry)
    return rows


def report_markdown(report: Report, metric: str, aggregate: str) -> str:
    """The whole Markdown page of a report: score table, subsets, provenance."""
    facts = {
        **model_facts(report.model, str(report.model.get("max_length_used", MISSING))),
        "data": ", ".join(f"{n} {t['data']['fingerprint']}" for n, t in report.tasks.items()),
        **machine_facts(report.environment),
        "time": f"{report.seconds['embedding']} s embedding, {report.seconds['scoring']} s scoring, {report.created}",
        "evaluation": report.key,
    }
    tables = score_table(report, metric, aggregate), subset_table(report, metric)
    return "\n".join([*map(to_markdown, tables), *to_list(facts), ""])


def published_beside(report: Report, metric: str, aggregate: str) -> published.PublishedRow | None:
    """The published row of the same model under the same rules, where there is one."""
    p = report.protocol
    if report.limit or report.model.get("whiten") or p.get("probe", "exact") != "exact" or p.get("excluded"):
        return None
    # the published number belongs to the model's own settings
    spec, used = known_model(report.model["name"]), deciding(report.model, (*SETTINGS, "template"))
    if spec is None or any(getattr(spec, field, None) != value for field, value in used.items()):
        return None
    if report.suite == "transfer":
        metric, aggregate = "accuracy", "all"
    return published.published_row(report.model["name"], p["name"], aggregate, metric, p["split"], report.suite)


def report_notes(report: Report, paper: published.PublishedRow | None) -> list[str]:
    """What there is to know of a report's scores; ``paper``: the published row beside them."""
    notes = [f"Published: {paper.row}, {paper.source}."] if paper else []
    notes += seen_note(report, contaminated(report))
    if excluded := report.protocol.get("excluded"):
        counts = {t["title"]: (len(t["data"].get("left_out") or ()), t["n"]) for t in report.tasks.values()}
        shown = ", ".join(f"{title} {out} of {out + n}" for title, (out, n) in counts.items())
        notes.append(
            f"Without the pairs of which a sentence was found in {excluded['train']} ({excluded['file']}, search "
            f"{excluded['overlap']}): {shown}."
        )
    notes += [f"{name}: not scored, it {why}." for name, why in report.skipped.items()]
    if any("dev" in t.get("probe", {}) for t in report.tasks.values()) and report.protocol["split"] == "dev":
        notes.append("Dev accuracies have no interval: they are the best of several, on the folds that chose them.")
    if report.average is None and not report.skipped:
        notes.append("No average: scores of different kinds have none.")
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


def _entry(report: Report, name: str | None, metric: str, aggregate: str) -> Entry | None:
    """The score that is shown of a task (None: the average), where there is one; see ``shown_metric``."""
    task = None if name is None else report.tasks.get(name)
    scores = report.average if name is None else task and task["scores"]
    if not scores:
        return None
    by_aggregate = scores[shown_metric(scores, metric)]
    return by_aggregate.get(aggregate) or by_aggregate["all"]


def _value(entry: Mapping[str, Any] | None) -> str:
    return _number(entry["value"] if entry else None)


def _interval(entry: Mapping[str, Any] | None) -> str:
    return shown_numbers("{:.1f}–{:.1f}", *((entry and entry["interval"]) or ()))


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return MISSING
    rounded = round(value, 2) + 0.0  # no "-0.00"
    return f"{rounded:+.2f}" if sign else f"{rounded:.2f}"
