"""Tables drawn from reports, and their forms: terminal, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench import published
from simcse_bench.catalog import known_model
from simcse_bench.report import Report

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """Cells as text, the first of each row being its label."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def score_table(report: Report, metric: str, aggregate: str, narrow: bool = False) -> Table:
    """The paper's row form: scores, intervals, average, and the published row with the difference.

    ``narrow`` fits a terminal of 80 columns: short labels, and the interval's ends in two rows.
    """
    entries = {name: task["scores"][metric][aggregate] for name, task in report.tasks.items()}
    entries |= dict.fromkeys(report.skipped)
    average = report.average[metric][aggregate] if report.average else None
    columns = [*entries.values(), average]
    titles = [report.tasks[n]["title"] if n in report.tasks else n.upper() for n in entries]
    scores = [_number(e and e["value"]) for e in columns]
    if narrow:
        ends = [(e and e["interval"]) or (None, None) for e in columns]
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
    """Scores of every subset, and the three aggregations of each task."""
    rows = []
    for task in report.tasks.values():
        scores = task["scores"][metric]
        for how, entry in scores.items():
            rows.append([task["title"], how, str(task["n"]), _number(entry["value"]), _interval(entry)])
        if len(task["subsets"]) > 1:
            for name, subset in task["subsets"].items():
                rows.append([task["title"], f"· {name}", str(subset["n"]), *_cells(subset[metric])])
    return Table(f"{metric} ×100 by subset", ["task", "part", "pairs", "score", "95 % interval"], rows)


def leaderboard(reports: Sequence[Report], metric: str = "spearman", aggregate: str = "all") -> Table:
    """One row per report of a suite, best average first; the protocol and dtype stand in the row."""
    names = list(dict.fromkeys(n for r in reports for n in (*r.tasks, *r.skipped)))
    titles = {n: r.tasks[n]["title"] for r in reports for n in r.tasks}

    def value(report: Report, name: str) -> float | None:
        return report.tasks[name]["scores"][metric][aggregate]["value"] if name in report.tasks else None

    def mean(report: Report) -> float | None:
        return report.average[metric][aggregate]["value"] if report.average else None

    rows = []
    for r in sorted(reports, key=lambda r: (-(mean(r) or -1e9), r.model["name"], r.key)):
        interval = _interval(r.average[metric][aggregate] if r.average else None)
        settings = f"{r.protocol['name']}, {r.protocol['split']}, {r.model.get('dtype', 'float32')}"
        how = " + ".join([str(r.model.get("pooling")), *([r.model["head"]] if r.model.get("head") == "mlp" else [])])
        how += ", whitened" if r.model.get("whiten") else ""
        scores = [*(_number(value(r, n)) for n in names), _number(mean(r)), interval]
        rows.append([r.model["name"], how, settings + (f", first {r.limit}" if r.limit else ""), *scores])
    header = ["model", "pooling", "protocol", *(titles.get(n, n) for n in names), "Avg.", "95 % interval"]
    return Table(f"{metric} ×100, aggregation {aggregate!r}", header, rows)


def speed_table(content: Mapping[str, Any]) -> Table:
    """A benchmark's medians, and their ratio to the reference: in the same dtype, and to its float32."""
    rows, theirs = content["rows"], content["reference"]
    medians = {(r["what"], r["dtype"]): r["median"] for r in rows}

    def ratio(row: Mapping[str, Any], dtype: str) -> str:
        base = medians.get((theirs, dtype))
        return MISSING if base is None else f"{row['median'] / base:.2f}"

    cells = [
        [r["what"], r["dtype"], f"{r['median']:.1f}", ", ".join(f"{s:.1f}" for s in r["seconds"]),
         ratio(r, r["dtype"]), ratio(r, "float32"), str(r["sentences"]), str(r["peak_mb"])]
        for r in rows
    ]  # fmt: skip
    header = ["", "dtype", "median s", "runs s", f"× {theirs}", f"× {theirs} float32", "sentences", "peak MB"]
    machine = content["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    where = f"{machine['processor']}, {machine['cores']} cores" + (f", {machine['gpu']}" if "gpu" in machine else "")
    return Table(content["title"], header, cells, [content["note"], f"Machine: {where}; {versions}."])


def long_rows(report: Report) -> list[dict[str, Any]]:
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
        "model": report.model["name"] + (f" @ {report.model['revision']}" if report.model.get("revision") else ""),
        "pooling, head": f"{report.model.get('pooling')}, {report.model.get('head')}"
        + (f" (from {report.model['settings_from']})" if report.model.get("settings_from") else ""),
        "max length": str(report.model.get("max_length_used", MISSING)),
        "dtype": str(report.model.get("dtype", MISSING)),
        "weights": ", ".join(f"{k} {v}" for k, v in (report.model.get("files") or {}).items()) or MISSING,
        "data": ", ".join(f"{n} {t['data']['fingerprint']}" for n, t in report.tasks.items()),
        "machine": f"{report.environment['processor']}, {report.environment['cores']} cores"
        + (f", {report.environment['gpu']}" if "gpu" in report.environment else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in report.environment["versions"].items()),
        "time": f"{report.seconds['embedding']} s embedding, {report.seconds['scoring']} s scoring, {report.created}",
        "evaluation": report.key,
    }
    lines = [f"- {k}: {v}" for k, v in facts.items()]
    return "\n".join(
        [markdown(score_table(report, metric, aggregate)), markdown(subset_table(report, metric)), *lines, ""]
    )


def markdown(table: Table) -> str:
    """GitHub's table form, numbers to the right."""
    cells = [[c.replace("|", "\\|") for c in row] for row in (table.header, *table.rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.header))]
    text = text_columns(table)

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if i in text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (w - 1) if i in text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [f"**{table.title}**", "", line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:]), ""]
    return "\n".join(lines + [f"{note}\n" for note in table.notes])


def latex(table: Table) -> str:
    """A booktabs table."""
    special = {
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "$": r"\$",
        "×": r"$\times$",
        "–": "--",
        "±": r"$\pm$",
        "−": "$-$",
    }

    def line(row: Iterable[str]) -> str:
        return " & ".join("".join(special.get(ch, ch) for ch in cell) for cell in row) + r" \\"

    text = text_columns(table)
    columns = "".join("l" if i in text else "r" for i in range(len(table.header)))
    body = [rf"% {table.title}", *(f"% {n}" for n in table.notes), rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join(
        [*body, line(table.header), r"\midrule", *map(line, table.rows), r"\bottomrule", r"\end{tabular}", ""]
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; empty for no rows."""
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def table_csv(table: Table) -> str:
    """A drawn table as CSV."""
    return csv_text([dict(zip(table.header, row, strict=True)) for row in table.rows])


def text_columns(table: Table) -> set[int]:
    """Columns that hold words: aligned to the left."""

    def textual(cell: str) -> bool:
        return cell != MISSING and any(ch.isalpha() for ch in cell)

    return {0} | {i for i in range(len(table.header)) if any(textual(row[i]) for row in table.rows)}


def _published(report: Report, metric: str, aggregate: str) -> published.Published | None:
    p = report.protocol
    if report.limit or report.model.get("whiten"):
        return None
    found = published.find(report.model["name"], p["name"], aggregate, metric, p["split"], report.suite)
    # the published number belongs to the model's own pooling and head
    spec = known_model(report.model["name"])
    same = spec is not None and (spec.pooling, spec.head) == (report.model.get("pooling"), report.model.get("head"))
    return found if same else None


def _title(report: Report, metric: str, aggregate: str) -> str:
    p = report.protocol
    limited = f" — ONLY THE FIRST {report.limit} PAIRS OF EVERY SUBSET: comparable with nothing" if report.limit else ""
    return f"{metric} ×100, protocol {p['name']}, {p['split']}, aggregation {aggregate!r}{limited}"


def _notes(report: Report, metric: str, aggregate: str) -> list[str]:
    paper = _published(report, metric, aggregate)
    notes = [f"Published: {paper.row}, {paper.source}."] if paper else []
    notes += [f"{name}: not scored, it {why}." for name, why in report.skipped.items()]
    if report.skipped:
        notes.append("No average: it exists only if every task of the suite has a score.")
    if report.stats.get("truncated"):
        longest = report.model.get("max_length_used")
        notes.append(f"{report.stats['truncated']} sentences were longer than {longest} tokens and were truncated.")
    if report.stats.get("zero_vectors"):
        notes.append(f"{report.stats['zero_vectors']} sentences hold no known word: zero vectors, cosine 0.")
    return notes


def _cells(entry: Mapping[str, Any]) -> tuple[str, str]:
    return _number(entry["value"]), _interval(entry)


def _interval(entry: Mapping[str, Any] | None) -> str:
    return MISSING if not entry or entry["interval"] is None else "{:.1f}–{:.1f}".format(*entry["interval"])


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return MISSING
    rounded = round(value, 2) + 0.0  # no "-0.00"
    return f"{rounded:+.2f}" if sign else f"{rounded:.2f}"
