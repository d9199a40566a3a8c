"""What is drawn from a sweep's summary: table (Markdown, CSV, LaTeX), plot (SVG, PNG), page (HTML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench import bundled
from simcse_bench.files import sha256, shown_machine, shown_versions
from simcse_bench.reports import plots
from simcse_bench.reports.page import page, section
from simcse_bench.reports.report import read_fields
from simcse_bench.reports.table import (
    MISSING,
    Table,
    shown_numbers,
    shown_spread,
    to_csv,
    to_latex,
    to_list,
    to_markdown,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "summary.json"
DRAWN = ("table.md", "table.csv", "table.tex", "plot.svg", "plot.png", "index.html")
SIGNIFICANT = 0.05
_FIELDS = {"arms", "findings", "reference", "title"}


def draw_ablation(folder: Path) -> dict[Path, bytes]:
    """File -> content of all that is drawn from ``folder``/summary.json.

    Raises:
        UserError: a damaged summary.
    """
    path = folder / SUMMARY
    summary = read_summary(path)
    table, figure = ablation_table(summary), ablation_plot(summary)
    files = {
        "table.md": ablation_markdown(summary, table).encode(),
        "table.csv": to_csv(ablation_rows(summary)).encode(),
        "table.tex": to_latex(table).encode(),
    }
    if figure is not None:
        files |= {f"plot.{form}": plots.render_figure(figure, form) for form in plots.FORMS}
        parts, facts = [section("", figure, table)], ablation_provenance(summary)
        files["index.html"] = page(summary["title"], table.title, parts, facts, sha256(path), summary["reference"])
    return {folder / name: content for name, content in files.items()}


def read_summary(path: Path) -> dict[str, Any]:
    """A sweep's summary.json.

    Raises:
        UserError: a damaged file.
    """
    return read_fields(path, _FIELDS, "not a sweep's summary. Move it away and run the ablation again.")


def ablation_plot(summary: Mapping[str, Any]) -> Figure | None:
    """The plot; None where no trial has finished."""
    return plots.plot_ablation(summary) if any(a["dev"] for a in summary["arms"]) else None


def ablation_table(summary: Mapping[str, Any]) -> Table:
    """A row per arm: dev (mean ± SD over seeds), difference to the reference with its interval, test, geometry, paper.

    A star marks a difference whose interval leaves out 0 and whose p, corrected for the number of arms, is below 0.05.
    """
    paper = any(a["published"] is not None for a in summary["arms"])
    geometry = any(a["uniformity"] for a in summary["arms"])
    header = ["arm", "dev", "seeds", f"difference to {summary['reference']}", "95 %", "test"]
    header += ["alignment", "uniformity"] * geometry + [f"{summary['source']}, BERT-base"] * paper
    rows = []
    for arm in summary["arms"]:
        difference = arm.get("difference")
        row = [arm["arm"], _spread(arm["dev"]), str(len(arm["seeds"])), _difference(difference), _interval(difference),
               _spread(arm["test"])]  # fmt: skip
        row += [_spread(arm["alignment"], 3), _spread(arm["uniformity"], 2)] * geometry
        row += [shown_numbers("{:.1f}", arm["published"])] * paper
        rows.append(row)
    return Table(ablation_title(summary), header, rows, ablation_notes(summary))


def ablation_title(summary: Mapping[str, Any]) -> str:
    """What was varied, on which model and data; says where they are the embedded ones."""
    if not summary["dev"]:
        return f"{summary['title']}: no trial has finished"
    model, dev, train = summary["model"], summary["dev"], summary["train"]
    parts = [summary["title"], f"{model['name']} trained on {train['name']}", f"{dev['title']} dev, Spearman ×100"]
    tried = [bundled.ENCODER] * bool(model["embedded"]) + [bundled.DATA] * (dev["task"] in bundled.TASKS)
    return ", ".join(parts) + "".join(f" — {t}" for t in tried)


def ablation_notes(summary: Mapping[str, Any]) -> list[str]:
    """How to read the table, what failed, and how the paper's statements fare here."""
    notes = [
        "Mean ± standard deviation over seeds. Differences: paired bootstrap over dev pairs and seeds, widened by "
        "Student's t for few seeds; * marks those whose interval leaves out 0 and whose permutation p, corrected by "
        "Holm, is below 0.05. Test scores selected nothing."
    ]
    if any(len(a["seeds"]) == 1 for a in summary["arms"]):
        notes.append(
            "ARMS WITH ONE SEED: their intervals know the dev pairs only. Two seeds of one recipe differ by a point or "
            "more, so no verdict is given; use --seeds 3 or more."
        )
    if any(a["published"] is not None for a in summary["arms"]):
        notes.append(f"{summary['source']} is BERT-base, one seed, on STS-B dev: compare the order, not the level.")
    notes += [shown_statement(f) for f in summary["findings"]]
    notes += [
        f"{a['arm']}, seed {f['seed']}: FAILED: {' '.join(f['problems'])}" for a in summary["arms"] for f in a["failed"]
    ]
    return notes + [summary["note"]] * bool(summary["note"])


def shown_statement(finding: Mapping[str, Any]) -> str:
    """One of the paper's statements with its verdict here."""
    if "value" not in finding:
        return f"{finding['text']}: {finding['verdict']}."
    numbers = f"{finding['value']:+.2f}" + (f", 95 % {_interval(finding)}" if finding["interval"] else "")
    paper = f"; paper {finding['published']:+.1f}" if "published" in finding else ""
    return f"{finding['text']}: {finding['verdict'].upper()} ({numbers}{paper})."


def findings_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """The paper's statements of several ablations, with the verdict on each."""
    rows = [
        [s["title"], f["text"], f["verdict"], shown_numbers("{:+.2f}", f.get("value")), _interval(f),
         shown_numbers("{:+.1f}", f.get("published")), _trained(s)]
        for s in summaries
        if s["dev"]
        for f in s["findings"]
    ]  # fmt: skip
    header = ["ablation", "the paper's statement", "here", "difference", "95 %", "paper", "trained"]
    note = (
        "Holds or does not hold: the interval of the difference leaves out 0, at two seeds or more; else undecided. "
        "The paper's differences are BERT-base's, of one seed."
    )
    mini = any(s["model"]["embedded"] for s in summaries if s["dev"])
    title = "the paper's statements, held against the ablations here" + f" — {bundled.ENCODER}" * mini
    return Table(title, header, rows, [note])


def _trained(summary: Mapping[str, Any]) -> str:
    counts = sorted({len(a["seeds"]) for a in summary["arms"] if a["seeds"]})
    seeds = f"{plots.shown_range(counts)} seed" + "s" * (counts[-1] > 1)
    return f"{summary['model']['name']} on {summary['train']['name']}, {seeds}"


def ablation_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per arm and seed."""
    return [
        {
            "ablation": summary["name"], "preset": summary["preset"], "arm": arm["arm"], "seed": seed,
            **{k: arm[k]["values"][i] if arm[k] else "" for k in ("dev", "test", "alignment", "uniformity")},
            "published": "" if arm["published"] is None else arm["published"],
        }
        for arm in summary["arms"]
        for i, seed in enumerate(arm["seeds"])
    ]  # fmt: skip


def ablation_markdown(summary: Mapping[str, Any], table: Table) -> str:
    """The Markdown page: table, plot, provenance."""
    plot = ["![plot](plot.svg)", ""] if any(a["dev"] for a in summary["arms"]) else []
    return "\n".join([to_markdown(table), *plot, *to_list(ablation_provenance(summary)), ""])


def ablation_provenance(summary: Mapping[str, Any]) -> dict[str, str]:
    """What decided the numbers."""
    if not summary["base"]:
        return {}
    set_ones = {k: v for k, v in summary["base"].items() if v is not None and v is not False and v not in ("", [])}
    return {
        "training text": "{name}, {rows} rows, {fingerprint}".format(**summary["train"]),
        "dev": f"{summary['dev']['task']}, {summary['dev']['n']} pairs, {summary['dev']['fingerprint']}",
        "settings of all arms": ", ".join(f"{k} {v}" for k, v in set_ones.items()),
        "training time": f"{summary['seconds']:.0f} s on {shown_machine(summary['environment'])}",
        "versions": shown_versions(summary["environment"]),
    }


def _spread(entry: Mapping[str, Any] | None, digits: int = 2) -> str:
    return shown_spread(entry["mean"], entry["sd"], digits) if entry else MISSING


def _difference(difference: Mapping[str, Any] | None) -> str:
    if not difference:
        return MISSING
    low, high = difference["interval"] or (0.0, 0.0)
    sure = (low > 0 or high < 0) and difference["holm"] < SIGNIFICANT and difference["seeds"] > 1
    return f"{difference['value']:+.2f}" + " *" * sure


def _interval(difference: Mapping[str, Any] | None) -> str:
    return shown_numbers("{:+.1f} to {:+.1f}", *((difference or {}).get("interval") or ()))
