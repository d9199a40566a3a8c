"""A leaderboard as data for the site's script: seeds folded into one row, ranks, published rows, what decided each."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.registry import load_suites, task_names
from simcse_bench.models.identity import shown_files, shown_model, shown_settings, shown_usage
from simcse_bench.papers import published
from simcse_bench.papers.published import PublishedRow
from simcse_bench.reports import scores
from simcse_bench.reports.again import UNKNOWN, eval_command
from simcse_bench.reports.overlap import seen_note
from simcse_bench.reports.pair_records import WorstPair
from simcse_bench.reports.report import Entry, Report, Scores, measures, source_facts
from simcse_bench.reports.table import machine_facts

_SEED = re.compile(r"[\s,;_.-]+seed[\s_=-]*(\d+)$", re.IGNORECASE)
_TITLES = {"sts": "STS", "transfer": "Transfer", "senteval": "SentEval", "probing": "Probing"}  # the boards' order
_NAMED = 4  # so many tasks that no suite holds together name their board


@dataclass(frozen=True)
class Saved:
    """A report and what lies beside it."""

    place: str  # its path below the results folder
    report: Report
    worst: Mapping[str, Sequence[WorstPair]] = field(default_factory=dict)  # task -> its worst pairs
    part_of: str = ""  # the command that makes it, where it is part of a reproduction
    seen: Mapping[str, str] = field(default_factory=dict)  # task -> how it is known that training saw its sentences


def boards(saved: Sequence[Saved]) -> list[dict[str, Any]]:
    """The leaderboards of all reports below a folder, one for those that may share it; embedded data last.

    The same evaluation of the same name saved twice is one row.
    """
    kept: dict[tuple[str, str], Saved] = {}
    for one in saved:
        kept.setdefault((one.report.key, one.report.model["name"]), one)
    by_report = {id(one.report): one for one in kept.values()}
    groups = scores.grouped([one.report for one in kept.values()])
    marks = scores.group_marks(groups)
    drawn = [board([by_report[id(r)] for r in group], mark) for group, mark in zip(groups, marks, strict=True)]
    drawn.sort(key=lambda b: (b["embedded"], suite_order(b["title"])))
    return [{"id": f"board{i}", **b} for i, b in enumerate(drawn)]


def suite_order(title: str) -> int:
    """Where a board of this title comes among the others."""
    titles = [*_TITLES.values()]
    return titles.index(title) if title in titles else len(titles)


def board(saved: Sequence[Saved], mark: str = "") -> dict[str, Any]:
    """A leaderboard: every metric, aggregation and subset of comparable reports.

    Args:
        saved: at least one.
        mark: from ``scores.group_marks``: what sets it apart from a board of the same tasks.
    """
    reports = [one.report for one in saved]
    protocol = reports[0].protocol
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}
    kinds = {t.get("kind", "sts") for r in reports for t in r.tasks.values()}
    named = ["Spearman"] * ("sts" in kinds) + measures(reports[0])
    suites = list(dict.fromkeys(r.suite for r in reports))
    few = ", ".join(titles.get(n, n) for n in names) if len(names) <= _NAMED else "Single tasks"
    title = _TITLES.get(suites[0], few if len(names) == 1 or suites[0] == "tasks" else suites[0])
    rules = [f"protocol {protocol['name']}", protocol["split"]]
    rules += [f"probe {protocol['probe']}"] if "transfer" in kinds and "probe" in protocol else []
    excluded = protocol.get("excluded")
    rules += [f"without pairs of {excluded['train']}"] if excluded else []
    rows = [_row(list(seeds)) for _, seeds in groupby(sorted(saved, key=_fold), key=_fold)]
    _rank(rows)
    _stand_by(rows, saved)
    return {
        "title": title,
        "rules": ", ".join(rules),
        "mark": mark.lstrip(" —;"),
        "protocol": protocol["name"],
        "language": language(names),
        "embedded": any(name in bundled.TASKS for name in names),
        "sts": "sts" in kinds,
        "measure": f"{' or '.join(named)} ×100" if named != ["Spearman"] else "",
        "tasks": [{"name": n, "title": titles.get(n, n)} for n in names],
        "rows": rows,
    }


def over_seeds(entries: Sequence[Entry]) -> dict[str, Any]:
    """The mean of a score over seeds, its standard deviation, and a 95 % interval over pairs and seeds.

    The half-widths over pairs are averaged (the seeds share the pairs), and that of the mean over seeds, by Student's
    t, is added as an independent error is.
    """
    values = [e["value"] for e in entries]
    mean, count = statistics.mean(values), len(values)
    if count == 1:
        return {"value": values[0], "interval": entries[0]["interval"]}
    from scipy.special import stdtrit

    deviation = statistics.stdev(values)
    of_seeds = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    widths = [(e["value"] - e["interval"][0], e["interval"][1] - e["value"]) for e in entries if e["interval"]]
    interval = None
    if len(widths) == count:
        below, above = (math.hypot(statistics.mean(side), of_seeds) for side in zip(*widths, strict=True))
        interval = [round(mean - below, 6), round(mean + above, 6)]
    return {"value": round(mean, 6), "sd": round(deviation, 6), "interval": interval}


def language(names: Sequence[str]) -> str:
    """Of the tasks' sentences, from the suites: ``sts-<code>``; "en" for our other tasks, "other" for a user's own."""
    spoken = {_language(name) for name in names}
    return spoken.pop() if len(spoken) == 1 else "several"


def _language(name: str) -> str:
    """Of one task; of a subset that is called by its language, that."""
    task, _, subset = name.partition("/")
    if re.fullmatch(r"[a-z]{2,3}(-[a-z]{2,3})?", subset):
        return "en" if {*subset.split("-")} <= {"en", "eng"} else "other"
    return _languages().get(task, "other")


@cache
def _languages() -> Mapping[str, str]:
    codes = {
        task: suite.removeprefix("sts-")
        for suite, tasks in load_suites().items()
        if re.fullmatch(r"sts-\w\w", suite)
        for task in tasks
    }
    return {task: codes.get(task, "en") for task in task_names()}


def _fold(saved: Saved) -> tuple[str, ...]:
    """What the seeds of one row share; a report whose name says no seed stands alone."""
    report, name = saved.report, str(saved.report.model["name"])
    base = without_seed(name)
    alone = "" if base != name else report.key
    return base, _settings(report), saved.place.rpartition("/")[0], ",".join(report.tasks), alone


def _row(seeds: Sequence[Saved]) -> dict[str, Any]:
    """One model: of several seeds their means, and each of them."""
    ordered = sorted(seeds, key=lambda s: _seed(s.report) or 0)
    first = ordered[0].report
    name = str(first.model["name"])
    several = len(ordered) > 1
    return {
        "model": without_seed(name) if several else name,
        "settings": _settings(first),
        "embedded": bool(first.model.get("embedded")),
        "seen": list(dict.fromkeys(note for s in ordered for note in seen_note(s.report, s.seen))),
        "scores": {n: _mean_scores([s.report.tasks[n]["scores"] for s in ordered]) for n in first.tasks},
        "subsets": {
            n: {part: _mean_subset([s.report.tasks[n]["subsets"][part] for s in ordered]) for part in task["subsets"]}
            for n, task in first.tasks.items()
            if len(task.get("subsets") or {}) > 1
            and all(s.report.tasks[n]["subsets"].keys() == task["subsets"].keys() for s in ordered)
        },
        "average": _mean_scores([s.report.average or {} for s in ordered]) or None,
        "skipped": dict(first.skipped),
        "published": _published(first),
        "made": [_made(s) for s in ordered],
        "seeds": [_alone(s) for s in ordered] if several else [],
    }


def _alone(saved: Saved) -> dict[str, Any]:
    """A seed's own scores, below the row of their means."""
    report = saved.report
    return {
        "model": f"seed {_seed(report)}",
        "scores": {n: t["scores"] for n, t in report.tasks.items()},
        "subsets": {n: t["subsets"] for n, t in report.tasks.items() if len(t.get("subsets") or {}) > 1},
        "average": report.average,
        "made": [_made(saved)],
    }


def _made(saved: Saved) -> dict[str, Any]:
    """What decided a report's numbers, and the command that makes them again."""
    report, model = saved.report, saved.report.model
    command = saved.part_of or eval_command(report)
    facts = {
        "model": shown_model(model),
        "pooling, head": shown_settings(model),
        "weights": shown_files(model),
        **source_facts(model),
        "protocol": f"{report.protocol['name']}, {report.protocol['split']}",
        **machine_facts(report.environment),
        "created": report.created,
        "evaluation": report.key,
        "report": saved.place,
        "seen in training": " ".join(seen_note(report, saved.seen)),
    }
    return {
        "name": model["name"],
        "facts": [*facts.items()],
        "data": {n: f"{t['n']} rows, {t['data']['fingerprint']}" for n, t in report.tasks.items()},
        "command": command,
        "note": f"{UNKNOWN}: the folder of the model with these weights." if UNKNOWN in command else "",
    }


def _settings(report: Report) -> str:
    model = report.model
    dtype = str(model.get("dtype", "float32"))
    return ", ".join(
        [shown_usage(model), *([dtype] * (dtype != "float32")), *([f"first {report.limit}"] * bool(report.limit))]
    )


def without_seed(name: str) -> str:
    """A model's name without the seed that it ends in: "mine" of "mine-seed42" and of "mine, seed 43"."""
    return _SEED.sub("", name)


def _seed(report: Report) -> int | None:
    match = _SEED.search(str(report.model["name"]))
    return int(match[1]) if match else None


def _mean_scores(several: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Of every metric and aggregation that all have."""
    drawn: dict[str, dict[str, Any]] = {}
    for metric, by in several[0].items():
        for how in by:
            if all(how in s.get(metric, {}) for s in several):
                drawn.setdefault(metric, {})[how] = over_seeds([s[metric][how] for s in several])
    return drawn


def _mean_subset(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {m: over_seeds([s[m] for s in several]) for m in ("spearman", "pearson") if all(m in s for s in several)}


def _rank(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to every row its rank by each average, and the ranks that noise leaves equal to it."""
    for row in rows:
        row["rank"] = {}
    for metric in {m for row in rows for m in row["average"] or ()}:
        for how in {h for row in rows for h in (row["average"] or {}).get(metric, ())}:
            ranked = [r for r in rows if how in (r["average"] or {}).get(metric, {})]
            ranked.sort(key=lambda r: (-r["average"][metric][how]["value"], r["model"], r["settings"]))
            tied = scores.inseparable([r["average"][metric][how] for r in ranked])
            for place, (row, alike) in enumerate(zip(ranked, tied, strict=True), 1):
                row["rank"].setdefault(metric, {})[how] = {"rank": place, "tied": [i + 1 for i in alike]}


def _stand_by(rows: Sequence[dict[str, Any]], saved: Sequence[Saved]) -> None:
    """Adds the paper's GloVe row to the best of our word vectors: other vectors, the same protocol."""
    report = saved[0].report
    words = [r for r in rows if str(r["model"]).startswith("word-vectors:") and r["average"] and not r["published"]]
    if words and not report.limit:
        best = max(words, key=lambda r: max(e["value"] for by in r["average"].values() for e in by.values()))
        best["published"] = _by_view(
            report, lambda m, h: published.published_word_vectors(report.protocol, m, h, report.suite)
        )
        for row in (row for by in best["published"].values() for row in by.values()):
            row["source"] += "; other vectors than ours"


def _published(report: Report) -> dict[str, dict[str, Any]]:
    return _by_view(report, lambda metric, how: scores.published_beside(report, metric, how))


def _by_view(report: Report, of: Any) -> dict[str, dict[str, Any]]:
    """Metric -> aggregation -> the published row, where there is one."""
    drawn: dict[str, dict[str, Any]] = {}
    for metric, by in (report.average or {}).items():
        for how in by:
            row: PublishedRow | None = of(metric, how)
            if row is not None:
                drawn.setdefault(metric, {})[how] = {
                    "source": row.source, "row": row.row, "scores": dict(row.scores), "average": row.average,
                }  # fmt: skip
    return drawn
