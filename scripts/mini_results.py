"""The table of results/embedded/README.md: the embedded encoder on the real STS tasks, mean ± SD over seeds.

python scripts/mini_results.py results/embedded/sts
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

from simcse_bench.data.registry import load_suite
from simcse_bench.models.catalog import MODELS
from simcse_bench.papers import published
from simcse_bench.reports.report import Report
from simcse_bench.reports.scores import pooled
from simcse_bench.reports.table import Table, to_markdown

BERT = ("google-bert/bert-base-uncased", "princeton-nlp/unsup-simcse-bert-base-uncased",
        "princeton-nlp/sup-simcse-bert-base-uncased")  # fmt: skip


def main() -> None:
    """Print it."""
    print(to_markdown(table(Path(sys.argv[1]))))


def table(folder: Path) -> Table:
    """A row per kind of model; reports that differ in their seed only are one row."""
    groups: dict[str, list[Report]] = {}
    for path in sorted(folder.glob("*.json")):
        report = Report.load(path)
        name = re.sub(r"-seed\d+$", "", report.model["name"])
        groups.setdefault(f"{name}, {pooled(report.model)}", []).append(report)
    tasks = [t.name for t in load_suite("sts")]
    rows = []
    for name, reports in groups.items():
        columns = [[r.tasks[t]["scores"]["spearman"]["all"]["value"] for r in reports] for t in tasks]
        columns.append([r.average["spearman"]["all"]["value"] for r in reports if r.average])
        rows.append([name, str(len(reports)), *map(_spread, columns)])
    rows.sort(key=lambda row: float(row[-1].split()[0]))
    for name in BERT:
        paper = published.published_row(name, "simcse", "all", "spearman", "test", "sts")
        if paper is not None:
            average = f"{paper.average:.2f}" if paper.average is not None else ""
            rows.append(
                [f"published: {MODELS[name].published}", "1", *(f"{paper.scores[t]:.2f}" for t in tasks), average]
            )
    header = ["", "seeds", *(load.title for load in load_suite("sts")), "Avg."]
    return Table("STS tasks (test), Spearman ×100; embedded mini encoder, for trying", header, rows)


def _spread(values: list[float]) -> str:
    shown = f"{statistics.mean(values):.2f}"
    return shown + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
