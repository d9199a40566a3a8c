"""What is drawn from a sweep's summary: table (Markdown, CSV, LaTeX), plot (SVG, PNG), page (HTML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import read_json, sha256, shown_machine, shown_versions
from simcse_bench.reports import plots
from simcse_bench.reports.page import page, section
from simcse_bench.reports.table import MISSING, Table, to_csv, to_latex, to_markdown

SUMMARY = "summary.json"
DRAWN = ("table.md", "table.csv", "table.tex", "plot.svg", "plot.png", "index.html")
SIGNIFICANT = 0.05


def draw_ablation(folder: Path) -> dict[Path, bytes]:
    """File -> content of all that is drawn from ``folder``/summary.json.

    Raises:
        UserError: a damaged summary.
    """
    path = folder / SUMMARY
    summary = read_summary(path)
    table = ablation_table(summary)
    files = {"table.md": ablation_markdown(summary, table), "table.csv": to_csv(ablation_rows(summary)),
             "table.tex": to_latex(table)}  # fmt: skip
    found = {folder / name: text.encode() for name, text in files.items()}
    if any(a["dev"] for a in summary["arms"]):
        figure = plots.plot_ablation(summary)
        found |= {folder / f"plot.{form}": plots.render_figure(figure, form) for form in ("svg", "png")}
        whole = [section("", figure, table)]
        found[folder / "index.html"] = page(
            summary["title"], table.title, whole, ablation_provenance(summary), sha256(path), summary["reference"]
        )
    return found


def read_summary(path: Path) -> dict[str, Any]:
    """A sweep's summary.json.

    Raises:
        UserError: a damaged file.
    """
    summary = read_json(path)
    if not isinstance(summary, dict) or not {"arms", "findings", "reference", "title"} <= set(summary):
        raise UserError(f"{path}: not a sweep's summary. Move it away and run the ablation again.")
    return summary


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
        found = arm.get("difference")
        row = [arm["arm"], _spread(arm["dev"]), str(len(arm["seeds"])), _difference(found), _interval(found)]
        row += [_spread(arm["test"])]
        row += [_spread(arm["alignment"], 3), _spread(arm["uniformity"], 2)] * geometry
        row += [MISSING if arm["published"] is None else f"{arm['published']:.1f}"] * paper
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
    found = [
        "Mean ± standard deviation over seeds. Differences: paired bootstrap over dev pairs and seeds, widened by "
        "Student's t for few seeds; * marks those whose interval leaves out 0 and whose permutation p, corrected by "
        "Holm, is below 0.05. Test scores selected nothing."
    ]
    if any(len(a["seeds"]) == 1 for a in summary["arms"]):
        found.append(
            "ARMS WITH ONE SEED: their intervals know the dev pairs only. Two seeds of one recipe differ by a point or "
            "more, so no verdict is given; use --seeds 3 or more."
        )
    if any(a["published"] is not None for a in summary["arms"]):
        found.append(f"{summary['source']} is BERT-base, one seed, on STS-B dev: compare the order, not the level.")
    found += [shown_statement(f) for f in summary["findings"]]
    found += [
        f"{a['arm']}, seed {f['seed']}: FAILED: {' '.join(f['problems'])}" for a in summary["arms"] for f in a["failed"]
    ]
    return found + [summary["note"]] * bool(summary["note"])


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
        [s["title"], f["text"], f["verdict"], f"{f['value']:+.2f}" if "value" in f else MISSING, _interval(f),
         f"{f['published']:+.1f}" if "published" in f else MISSING, _trained(s)]
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
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{summary['model']['name']} on {summary['train']['name']}, {seeds} seed" + "s" * (counts[-1] > 1)


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
    lines = [f"- {k}: {v}" for k, v in ablation_provenance(summary).items()]
    plot = ["![plot](plot.svg)", ""] if any(a["dev"] for a in summary["arms"]) else []
    return "\n".join([to_markdown(table), *plot, *lines, ""])


def ablation_provenance(summary: Mapping[str, Any]) -> dict[str, str]:
    """What decided the numbers."""
    if not summary["base"]:
        return {}
    machine = summary["environment"]
    set_ones = {k: v for k, v in summary["base"].items() if v is not None and v is not False and v not in ("", [])}
    settings = ", ".join(f"{k} {v}" for k, v in set_ones.items())
    return {
        "training text": "{name}, {rows} rows, {fingerprint}".format(**summary["train"]),
        "dev": f"{summary['dev']['task']}, {summary['dev']['n']} pairs, {summary['dev']['fingerprint']}",
        "settings of all arms": settings,
        "training time": f"{summary['seconds']:.0f} s on {shown_machine(machine)}",
        "versions": shown_versions(machine),
    }


def _spread(entry: Mapping[str, Any] | None, digits: int = 2) -> str:
    if not entry:
        return MISSING
    return f"{entry['mean']:.{digits}f}" + ("" if entry["sd"] is None else f" ± {entry['sd']:.{digits}f}")


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return MISSING
    apart = found["interval"] and (found["interval"][0] > 0 or found["interval"][1] < 0)
    sure = apart and found["holm"] < SIGNIFICANT and found["seeds"] > 1
    return f"{found['value']:+.2f}" + " *" * bool(sure)


def _interval(found: Mapping[str, Any] | None) -> str:
    return MISSING if not found or not found.get("interval") else "{:+.1f} to {:+.1f}".format(*found["interval"])
