"""results/index.html: leaderboards, ablations and geometry of a results folder on one self-contained page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import analysis_pages, pages, plots
from simcse_bench.metrics import AGGREGATES, METRICS
from simcse_bench.render import Table
from simcse_bench.report import Report
from simcse_bench.tables import board_title, pooled

Groups = Mapping[str, Sequence[Sequence[Report]]]  # folder -> groups of reports that share a leaderboard
Worst = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # report's key -> task -> its worst pairs


def drawn(
    groups: Groups,
    worst: Worst,
    summaries: Mapping[str, Path],
    analyses: Sequence[Mapping[str, Any]],
    reproductions: Sequence[str] = (),
    mteb: Sequence[Table] = (),
) -> bytes:
    """The page.

    Args:
        groups: see ``Groups``.
        worst: of the reports that have their pairs beside them.
        summaries: name -> summary.json of the ablations.
        analyses: from ``analysis_pages.read_analyses``.
        reproductions: folders that have a page of their own, to link to.
        mteb: leaderboards of mteb's own tasks, from ``mteb_report.leaderboards``.
    """
    import jinja2

    boards = [
        board(f"board{i}-{j}", folder, reports, worst)
        for i, (folder, found) in enumerate(groups.items())
        for j, reports in enumerate(found)
    ]
    ablations = [_ablation(name, path) for name, path in summaries.items()]
    findings = pages.findings_table([pages.read_summary(path) for path in summaries.values()])
    geometry = []
    if analyses:
        scatter = plots.scatter(analyses) if len(analyses) > 1 else None
        geometry = [pages.section("", scatter, analysis_pages.geometry_table(analyses))]
    source = hashlib.sha256(
        json.dumps(
            [
                boards,
                [p.read_text("utf-8") for p in summaries.values()],
                analyses,
                list(reproductions),
                *(dataclasses.asdict(t) for t in mteb),
            ],
            sort_keys=True,
        ).encode()
    ).hexdigest()[:16]
    loader = jinja2.FileSystemLoader(pages.TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return (
        environment.get_template("site.html")
        .render(
            boards=boards,
            findings=[pages.section("", None, findings)] if findings.rows else [],
            ablations=ablations,
            geometry=geometry,
            reproductions=reproductions,
            mteb=[pages.section(t.title, None, t) for t in mteb],
            source=source,
            metrics=METRICS,
            aggregates=AGGREGATES,
        )
        .encode()
    )


def board(ident: str, folder: str, reports: Sequence[Report], worst: Worst) -> dict[str, Any]:
    """A leaderboard as data for the page's script: every metric, aggregation, subset, provenance and worst pair."""
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}
    kinds = {t.get("kind", "sts") for r in reports for t in r.tasks.values()}
    return {
        "id": ident,
        "title": f"{folder}: {board_title(reports)}",
        "sts": "sts" in kinds,
        "tasks": [{"name": n, "title": titles.get(n, n)} for n in names],
        "rows": [_row(r) | {"worst": worst.get(r.key, {})} for r in reports],
        "worst": any(r.key in worst for r in reports),
    }


def _row(report: Report) -> dict[str, Any]:
    model = report.model
    settings = [pooled(model)]
    settings += [str(model["dtype"])] if model.get("dtype", "float32") != "float32" else []
    settings += [f"first {report.limit}"] * bool(report.limit)
    return {
        "model": model["name"] + " (embedded)" * bool(model.get("embedded")),
        "settings": ", ".join(settings),
        "scores": {n: t["scores"] for n, t in report.tasks.items()},
        "subsets": {n: t["subsets"] for n, t in report.tasks.items() if len(t.get("subsets") or {}) > 1},
        "average": report.average,
        "provenance": {
            "model": f"{model['name']}" + (f" @ {model['revision']}" if model.get("revision") else ""),
            "pooling, head": f"{model.get('pooling')}, {model.get('head')}",
            "weights": ", ".join(f"{k} {v}" for k, v in (model.get("files") or {}).items()),
            "protocol": f"{report.protocol['name']}, {report.protocol['split']}",
            "machine": f"{report.environment['processor']}, {report.environment['cores']} cores",
            "versions": ", ".join(f"{k} {v}" for k, v in report.environment["versions"].items()),
            "created": report.created,
            "evaluation": report.key,
        },
        "data": {n: f"{t['n']} rows, {t['data']['fingerprint']}" for n, t in report.tasks.items()},
    }


def _ablation(name: str, path: Path) -> dict[str, Any]:
    summary = pages.read_summary(path)
    table = pages.ablation_table(summary)
    figure = plots.ablation(summary) if any(a["dev"] for a in summary["arms"]) else None
    return {
        "id": name.replace("/", "-"), "name": name, "title": summary["title"], "subtitle": table.title,
        "reference": summary["reference"],
        "section": pages.section("", figure, table), "provenance": pages.provenance(summary),
    }  # fmt: skip
