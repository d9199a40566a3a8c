"""What is drawn from a sweep's summary: table (Markdown, CSV, LaTeX), plot (SVG, PNG), page (HTML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simcse_bench import bundled
from simcse_bench.files import sha256, shown_machine, shown_versions
from simcse_bench.reports import plots
from simcse_bench.reports.again import ablation_command
from simcse_bench.reports.arm_plot import plot_ablation, shown_text
from simcse_bench.reports.page import Section, Verdict, page, section, shown_tally
from simcse_bench.reports.summary import SUMMARY, ArmCost, FindingResult, Spread, Summary, read_summary
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

DRAWN = ("table.md", "table.csv", "table.tex", "plot.svg", "plot.png", "index.html")
SIGNIFICANT = 0.05


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
        beside = {name: name for name in (*DRAWN[:4], SUMMARY)}
        whole = replace(ablation_section(summary), links=beside, commands={"Make it again": ablation_command(summary)})
        parts, facts = [whole], ablation_provenance(summary)
        files["index.html"] = page(
            summary["title"],
            ablation_setting(summary),
            parts,
            facts,
            sha256(path),
            bundled.caveats(*_embedded(summary)),
            reading_notes([summary]),
        )
    return {folder / name: content for name, content in files.items()}


def ablation_plot(summary: Summary, titled: bool = True) -> Figure | None:
    """The plot, with a title or, for a page, without; None where no trial has finished."""
    return plot_ablation(summary, titled) if any(a["dev"] for a in summary["arms"]) else None


def ablation_section(summary: Summary, heading: str = "") -> Section:
    """The part of a page that shows it: what came out, the paper's statements, plot, table."""
    verdicts = verdicts_of(summary["findings"])
    lead = shown_tally(verdicts, "other papers" if summary.get("gains") else "the paper") or _shown_best(summary)
    if lead and not verdicts and all(len(a["seeds"]) < 2 for a in summary["arms"]):
        lead += " (one seed)"
    caption = ablation_setting(summary) if heading else ""
    figure, table = ablation_plot(summary, titled=False), ablation_table(summary)
    said = {"lead": lead, "caption": caption, "verdicts": verdicts, "reference": summary["reference"]}
    return section(heading, figure, table, own_notes(summary), **said)


def verdicts_of(findings: Sequence[FindingResult]) -> list[Verdict]:
    """The paper's statements for a page."""
    return [Verdict(f["text"], f["verdict"], _numbers(f)) for f in findings]


def _shown_best(summary: Summary) -> str:
    """The best arm, and how many differ from the reference beyond noise."""
    best = max((a for a in summary["arms"] if a["dev"]), key=lambda a: a["dev"]["mean"], default=None)  # type: ignore[index]
    others = [a for a in summary["arms"] if a.get("difference")]
    if best is None or not others:
        return ""
    sure = sum(_is_sure(a["difference"]) for a in others)
    differing = f"{sure} of {len(others)} differ from {summary['reference']} beyond noise"
    return f"Highest: {best['arm']} ({_spread(best['dev'])}); {differing}"


def ablation_table(summary: Summary) -> Table:
    """A row per arm: dev (mean ± SD over seeds), difference to the reference with its interval, test, geometry, paper.

    A star marks a difference whose interval leaves out 0 and whose p, corrected for the number of arms, is below 0.05.
    """
    paper = any(a["published"] is not None for a in summary["arms"])
    geometry = any(a["uniformity"] for a in summary["arms"])
    header = ["arm", "dev", "seeds", f"difference to {summary['reference']}", "95 %", "test"]
    costs = any("cost" in a for a in summary["arms"])
    header += ["alignment", "uniformity"] * geometry + [f"{summary['source']}, BERT-base"] * paper
    header += ["time", "memory"] * costs
    cheap = next((a["cost"] for a in summary["arms"] if a["arm"] == summary["reference"] and "cost" in a), None)
    rows = []
    for arm in summary["arms"]:
        difference = arm.get("difference")
        row = [arm["arm"], _spread(arm["dev"]), str(len(arm["seeds"])), _difference(difference), _interval(difference),
               _spread(arm["test"])]  # fmt: skip
        row += [_spread(arm["alignment"], 3), _spread(arm["uniformity"], 2)] * geometry
        row += [shown_numbers("{:+.2f}" if summary.get("gains") else "{:.1f}", arm["published"])] * paper
        row += [_ratio(arm.get("cost"), cheap, of) for of in ("seconds", "state_mib")] * costs
        rows.append(row)
    return Table(ablation_title(summary), header, rows, ablation_notes(summary))


def ablation_title(summary: Summary) -> str:
    """What was varied, on which model and data; says where they are the embedded ones."""
    if not summary["dev"]:
        return f"{summary['title']}: no trial has finished"
    return f"{summary['title']}, {ablation_setting(summary)}" + bundled.badge(*_embedded(summary))


def ablation_setting(summary: Summary) -> str:
    """Which model was trained on which text, and what is measured; nothing where no trial has finished."""
    model, dev, train = summary["model"], summary["dev"], summary["train"]
    if not (model and dev and train):
        return ""
    return f"{model['name']} trained on {shown_text(train['name'])}, {dev['title']} dev, Spearman ×100"


def _embedded(summary: Summary) -> tuple[bool, bool]:
    """Whether encoder and data are the embedded ones."""
    model, dev = summary["model"], summary["dev"]
    return bool(model and model["embedded"]), bool(dev and dev["task"] in bundled.TASKS)


def ablation_notes(summary: Summary) -> list[str]:
    """How to read the table, how the paper's statements fare here, what failed, what is embedded."""
    statements = [shown_statement(f) for f in summary["findings"]]
    return reading_notes([summary]) + statements + own_notes(summary) + bundled.caveats(*_embedded(summary))


def reading_notes(summaries: Sequence[Summary]) -> list[str]:
    """How to read the tables of these sweeps."""
    arms = [a for s in summaries for a in s["arms"]]
    notes = [
        "Mean ± standard deviation over seeds. Differences: paired bootstrap over dev pairs and seeds, widened by "
        "Student's t for few seeds; * marks those whose interval leaves out 0 and whose permutation p, corrected by "
        "Holm, is below 0.05. Test scores selected nothing."
    ]
    if any(len(a["seeds"]) == 1 for a in arms):
        notes.append(
            "ARMS WITH ONE SEED: their intervals know the dev pairs only. Two seeds of one recipe differ by a point or "
            "more, so no verdict is given; use --seeds 3 or more."
        )
    if any("cost" in a for a in arms):
        notes.append(
            "Time: of training, relative to the reference. Memory, likewise: weights, gradients, moments and the "
            "method's own state; activations are left out."
        )
    if any(s.get("gains") for s in summaries):
        notes.append(
            "The reported gain over SimCSE is of BERT-base on the seven STS tasks, most often of one seed; sources: "
            "papers/simcse_successors_gains.csv. Here it is the difference on the dev pairs."
        )
    summaries = [s for s in summaries if not s.get("gains")]
    if any(a["published"] is not None for s in summaries for a in s["arms"]):
        sources = {s["source"] for s in summaries}
        source = sources.pop() if len(sources) == 1 else "The paper's column"
        notes.append(f"{source} is BERT-base, one seed, on STS-B dev: compare the order, not the level.")
    return notes


def own_notes(summary: Summary) -> list[str]:
    """What failed, and what else is to be known of this sweep alone."""
    failed: dict[tuple[str, str], list[str]] = {}
    for arm in summary["arms"]:
        for one in arm["failed"]:
            failed.setdefault((arm["arm"], " ".join(one["problems"])), []).append(str(one["seed"]))
    notes = [
        f"{arm}, {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)}: FAILED: {problem}"
        for (arm, problem), seeds in failed.items()
    ]
    return notes + [summary["note"]] * bool(summary["note"])


def shown_statement(finding: FindingResult) -> str:
    """One of the paper's statements with its verdict here."""
    if "value" not in finding:
        return f"{finding['text']}: {finding['verdict']}."
    return f"{finding['text']}: {finding['verdict'].upper()} ({_numbers(finding)})."


def _numbers(finding: FindingResult) -> str:
    """The difference here, its interval, and the paper's difference."""
    if "value" not in finding:
        return ""
    numbers = f"{finding['value']:+.2f}" + (f", 95 % {_interval(finding)}" if finding.get("interval") else "")
    return numbers + (f"; paper {finding['published']:+.1f}" if "published" in finding else "")


def findings_table(summaries: Sequence[Summary], before: Sequence[Sequence[str]] = (), mini: bool = False) -> Table:
    """The paper's statements of several ablations, with the verdict on each.

    ``before``: rows of other statements, from ``statement_row``; ``mini``: they are of the embedded encoder.
    """
    rows = [*before]
    for s in summaries:
        if s["dev"] and s["model"] and s["train"]:
            trained = shown_training(s["model"]["name"], s["train"]["name"], [len(a["seeds"]) for a in s["arms"]])
            rows += [statement_row(s["title"], finding, trained) for finding in s["findings"]]
            mini = mini or s["model"]["embedded"]
    header = ["ablation", "the paper's statement", "here", "difference", "95 %", "paper", "trained"]
    note = (
        "Holds or does not hold: the interval of the difference leaves out 0, at two seeds or more; else undecided, or "
        "of one seed, which says nothing of the spread over seeds. "
        "The paper's differences are BERT-base's, of one seed."
    )
    title = "the paper's statements, held against the ablations here" + bundled.badge(mini, False)
    return Table(title, header, rows, [note, *bundled.caveats(mini, False)])


def statement_row(title: str, finding: FindingResult, trained: str) -> list[str]:
    """A row of ``findings_table``; ``title`` of the table that the statement belongs to."""
    return [title, finding["text"], finding["verdict"], shown_numbers("{:+.2f}", finding.get("value")),
            _interval(finding), shown_numbers("{:+.1f}", finding.get("published")), trained]  # fmt: skip


def shown_training(model: str, text: str, seeds: Sequence[int]) -> str:
    """What was trained on what, with how many seeds (of each arm)."""
    counts = sorted({n for n in seeds if n})
    return f"{model} on {text}, {plots.shown_range(counts)} seed" + "s" * (counts[-1] > 1)


def ablation_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row per arm and seed."""
    return [
        {
            "ablation": summary["name"], "preset": summary["preset"], "arm": arm["arm"], "seed": seed,
            "dev": _of_seed(arm["dev"], i), "test": _of_seed(arm["test"], i),
            "alignment": _of_seed(arm["alignment"], i), "uniformity": _of_seed(arm["uniformity"], i),
            "published": "" if arm["published"] is None else arm["published"],
        }
        for arm in summary["arms"]
        for i, seed in enumerate(arm["seeds"])
    ]  # fmt: skip


def ablation_markdown(summary: Summary, table: Table) -> str:
    """The Markdown page: table, plot, provenance."""
    plot = ["![plot](plot.svg)", ""] if any(a["dev"] for a in summary["arms"]) else []
    return "\n".join([to_markdown(table), *plot, *to_list(ablation_provenance(summary)), ""])


def ablation_provenance(summary: Summary) -> dict[str, str]:
    """What decided the numbers."""
    dev, train, environment = summary["dev"], summary["train"], summary["environment"]
    if not (summary["base"] and dev and train and environment):
        return {}
    rows = "rows by the arm" if train["rows"] is None else f"{train['rows']} rows"
    set_ones = {k: v for k, v in summary["base"].items() if v is not None and v is not False and v not in ("", [])}
    return {
        "training text": f"{train['name']}, {rows}, {train['fingerprint']}",
        "dev": f"{dev['task']}, {dev['n']} pairs, {dev['fingerprint']}",
        "settings of all arms": ", ".join(f"{k} {v}" for k, v in set_ones.items()),
        **({"settings of all arms but some": _but_some(summary["own"])} if summary.get("own") else {}),
        **({"settings of single arms": ", ".join(summary["of_arms"])} if summary.get("of_arms") else {}),
        "training time": f"{summary['seconds']:.0f} s on {shown_machine(environment)}",
        "versions": shown_versions(environment),
    }


def _but_some(own: Mapping[str, Mapping[str, Any]]) -> str:
    """``pooling mean (promptbert: mask), …``."""
    shown = []
    for field, values in own.items():
        some = ", ".join(f"{arm}: {value}" for arm, value in values.items() if arm)
        shown.append(f"{field} {'none' if values[''] in ('', None) else values['']} ({some})")
    return "; ".join(shown)


def _spread(entry: Mapping[str, Any] | None, digits: int = 2) -> str:
    return shown_spread(entry["mean"], entry["sd"], digits) if entry else MISSING


def _ratio(cost: ArmCost | None, reference: ArmCost | None, of: Literal["seconds", "state_mib"]) -> str:
    return f"{cost[of] / reference[of]:.2f}×" if cost and reference and reference[of] else MISSING


def _of_seed(spread: Spread | None, i: int) -> float | str:
    return spread["values"][i] if spread else ""


def _difference(difference: Mapping[str, Any] | None) -> str:
    if not difference:
        return MISSING
    return f"{difference['value']:+.2f}" + " *" * _is_sure(difference)


def _is_sure(difference: Mapping[str, Any]) -> bool:
    low, high = difference["interval"] or (0.0, 0.0)
    return bool((low > 0 or high < 0) and difference["holm"] < SIGNIFICANT and difference["seeds"] > 1)


def _interval(difference: Mapping[str, Any] | None) -> str:
    return shown_numbers("{:+.1f} to {:+.1f}", *((difference or {}).get("interval") or ()))
