"""The parts of a model's page: scores by suite, geometry, robustness, mteb's tasks, speed; each with its command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simcse_bench import bundled
from simcse_bench.files import shown_machine
from simcse_bench.reports import geometry, mteb, page, robustness, scores, standings
from simcse_bench.reports.again import analyze_command, mteb_command, robustness_command
from simcse_bench.reports.folder import Results
from simcse_bench.reports.overlap import MARK
from simcse_bench.reports.page import Made, Mark, Section
from simcse_bench.reports.panels import Axis
from simcse_bench.reports.report import MEASURES, shown_metric
from simcse_bench.reports.speed import speed_table
from simcse_bench.reports.standings import Saved
from simcse_bench.reports.table import MISSING, Table, machine_facts, shown_numbers, shown_spread

_USUAL = ("protocol simcse", "test", "probe exact")  # what a heading need not say
_SIDES = (range(5), (0, 1, 5, 6, 7, 8))  # columns of robustness' table: of the vectors, of the scores
_FAR = 400.0  # percent of the distance of two sentences: what moves farther is shown at the axis' end


@dataclass(frozen=True)
class Row:
    """A score as a line of a table and a mark: ours, over seeds where there are several, and the published one."""

    what: str
    n: str
    ours: Mapping[str, Any]  # value, interval, sd
    paper: float | None
    seeds: Sequence[float]
    pearson: Mapping[str, Any] | None = None

    @property
    def mark(self) -> Mark:
        """Its place."""
        return Mark(f"{self.what}: {self.cells[0]}", self.ours["value"], self.ours["interval"], self.paper, self.seeds)

    @property
    def cells(self) -> list[str]:
        """Score and interval."""
        return [shown_spread(self.ours["value"], self.ours.get("sd")), _between(self.ours["interval"])]

    @property
    def beside(self) -> list[str]:
        """The published score, and the difference from it."""
        if self.paper is None:
            return [MISSING, MISSING]
        return [f"{self.paper:.2f}", f"{round(self.ours['value'] - self.paper, 2) + 0.0:+.2f}"]  # no "-0.00"


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of the model, or several that differ in their seed only."""

    title: str
    heading: str  # that, and what sets it apart
    board: Mapping[str, Any]  # from ``standings.boards``
    row: Mapping[str, Any]
    saved: Sequence[Saved]

    @property
    def embedded(self) -> bool:
        """Whether the data is for trying only; of the model the page says it once."""
        return bool(self.board["embedded"])

    def rows(self) -> list[Row]:
        """A row per task and metric; a correlation of cosines has Pearson's beside it."""
        report = self.saved[0].report
        rows = []
        for name, by in self.row["scores"].items():
            shown = [shown_metric(by, "spearman")] if "spearman" in by else list(by)
            title = report.tasks[name]["title"]
            for metric in shown:
                what = title if len(shown) == 1 else f"{title}, {MEASURES.get(metric, metric)}"
                seeds = [seed["scores"][name][metric]["all"]["value"] for seed in self.row["seeds"]]
                paper = self._paper(metric)
                theirs = paper["scores"].get(name) if paper else None
                pearson = by["pearson"]["all"] if metric == "spearman" and "pearson" in by else None
                n = f"{report.tasks[name]['n']:,}"
                rows.append(Row(what, n, by[metric]["all"], theirs, seeds, pearson))
        return rows

    def average(self) -> Row | None:
        """That of several tasks, where there is one."""
        by = self.row["average"]
        if not by or len(self.row["scores"]) < 2:
            return None
        metric = shown_metric(by, "spearman")
        paper = self._paper(metric)
        seeds = [seed["average"][metric]["all"]["value"] for seed in self.row["seeds"] if seed["average"]]
        pearson = by["pearson"]["all"] if metric == "spearman" and "pearson" in by else None
        return Row("Avg.", "", by[metric]["all"], paper["average"] if paper else None, seeds, pearson)

    def summary(self) -> list[tuple[str, Row]]:
        """What it came to: its average, or the first score of each task where there is none."""
        average, rows = self.average(), self.rows()
        if average or len(self.row["scores"]) == 1:
            return [(self.heading, average or rows[0])]
        apart = self.heading.removeprefix(self.title)
        first = {row.what.partition(", ")[0]: row for row in reversed(rows)}
        return [(row.what + apart, row) for row in reversed(first.values())]

    def _paper(self, metric: str) -> Mapping[str, Any] | None:
        row: Mapping[str, Any] | None = self.row["published"].get(metric, {}).get("all")
        return row


def evaluations(results: Results) -> list[Evaluated]:
    """A model's evaluations, STS and transfer tasks first, those for trying last."""
    saved = {one.place: one for one in results.saved()}
    boards = standings.boards([*saved.values()])
    boards.sort(key=lambda b: (b["embedded"], standings.suite_order(b["title"]), bool(_unusual(b)), b["title"]))
    drawn: list[Evaluated] = []
    for board in boards:
        for row in board["rows"]:
            own = [saved[dict(made["facts"])["report"]] for made in row["made"]]
            title = board["title"]
            parts = [title, *_unusual(board), *[row["settings"]] * (len(board["rows"]) > 1)]
            heading = ", ".join(part for part in parts if part)
            taken = heading in {one.heading for one in drawn}
            drawn.append(Evaluated(title, f"{heading} ({own[0].place})" if taken else heading, board, row, own))
    return drawn


def overview(evaluated: Sequence[Evaluated]) -> Section:
    """What every evaluation came to."""
    lines = [(one, *line) for one in evaluated for line in one.summary()]
    rows = [row for _, _, row in lines]
    beside = any(row.paper is not None for row in rows)
    cells = [
        [what + " (embedded)" * one.embedded, *row.cells, *(row.beside if beside else [])] for one, what, row in lines
    ]
    header = ["evaluation", "×100", "95 %", *(["published", "difference"] if beside else [])]
    table = Table("averages, or the first measure of each task", header, cells)
    every = [row for one in evaluated for row in one.rows()]
    legend = ["seeds"] * any(r.seeds for r in every) + ["published"] * any(r.paper is not None for r in every)
    return page.section("Scores", None, table, legend=["ours", *legend], **_on_an_axis(rows))


def score_section(one: Evaluated, root: str | None) -> Section:
    """An evaluation, task by task; its subsets or seeds, what decided it, the command that makes it again."""
    rows, average = one.rows(), one.average()
    rows += [average] if average else []
    pearson, beside = any(r.pearson for r in rows), any(r.paper is not None for r in rows)
    measure = "Spearman ×100" if pearson else one.board["measure"] or "×100"
    header = ["task", "rows", measure, "95 %", *["Pearson"] * pearson, *["published", "difference"] * beside]
    cells = [[r.what, r.n, *r.cells, *[_value(r.pearson)] * pearson, *(r.beside if beside else [])] for r in rows]
    report = one.saved[0].report
    rules = ", ".join(part for part in (one.board["rules"], one.row["settings"], one.board["mark"]) if part)
    return page.section(
        one.heading, None, Table(rules, header, cells), _notes(one), caption=rules, embedded=one.embedded,
        lead=_lead(rows[-1] if average or len(rows) == 1 else None),
        folded=[page.section("", None, _seeds(one) if one.row["seeds"] else scores.subset_table(report, "spearman"))],
        made=[_made(made) for made in one.row["made"]],
        links=links_to(root, {f"report {s.place}": s.place.removesuffix(".json") + ".md" for s in one.saved}),
        **_on_an_axis(rows),
    )  # fmt: skip


def geometry_sections(results: Results) -> Iterator[Section]:
    """Of every analysis: alignment, uniformity, cosines by gold score."""
    several = sum(map(len, results.analyses.values())) > 1
    for place, analyses in results.analyses.items():
        for one in analyses:
            row = geometry.geometry_table([one])
            facts = dict(zip(row.header[1:], row.rows[0][1:], strict=True))
            heading = "Geometry" + f", {place}/{one.get('file', '')}" * several
            cells = [
                [f"{c['gold'][0]} to {c['gold'][1]}", f"{c['n']:,}", f"{c['quartiles'][1]:.2f}",
                 _between((c["quartiles"][0], c["quartiles"][2]))]
                for c in one["cosines"]
            ]  # fmt: skip
            marks = [
                Mark(f"gold {line[0]}: median cosine {line[2]}", q[1], (q[0], q[2]))
                for line, q in zip(cells, (c["quartiles"] for c in one["cosines"]), strict=True)
            ]
            embedded = one["data"]["task"] in bundled.TASKS
            command = results.command_of(f"{place}/") or analyze_command(one)
            yield page.section(
                heading, None, Table("Cosines by gold score", ["gold score", "pairs", "median", "quartiles"], cells),
                bundled.other_notes(row.notes), facts=facts, embedded=embedded, marks=marks,
                axis=Axis.around([v for m in marks for v in (m.mean, *(m.interval or ()))]),
                caption="Cosines by gold score; marks: median and quartiles.",
                folded=[
                    page.section("", None, geometry.thirds_table([one], "by_length", "words a sentence")),
                    page.section("", None, geometry.thirds_table([one], "by_overlap", "share of common words")),
                ],
                made=[_measured(one["model"], command, geometry.geometry_provenance([one]), one["environment"])],
            )  # fmt: skip


def robustness_sections(results: Results) -> Iterator[Section]:
    """How far vectors move, and scores change, where sentences are changed by rule."""
    for one in results.robustness:
        summary, whole = robustness.summary_table([one]), robustness.changes_table(one)
        moved, scored = ([[row[i] for i in columns] for row in (whole.header, *whole.rows)] for columns in _SIDES)
        facts = dict(zip(summary.header[1:], summary.rows[0][1:], strict=True))
        changes = robustness.by_kind(one["average"]["changes"])
        marks = [
            None
            if c["moved"] is None
            else Mark(
                f"{name}: moved {robustness.percent(c['moved'])} %", 100 * c["moved"],
                (100 * c["quartiles"][0], 100 * c["quartiles"][2]) if c["quartiles"] else None,
            )
            for name, c in changes
        ]  # fmt: skip
        moves = [v for m in marks if m for v in (m.mean, *(m.interval or ())) if abs(v) < _FAR]
        embedded = bool(set(one["tasks"]) & set(bundled.TASKS))
        heading = "Robustness" + f", {one.get('file', '')}" * (len(results.robustness) > 1)
        yield page.section(
            heading, None, Table("How far vectors move", moved[0], moved[1:]),
            bundled.other_notes([*summary.notes, *whole.notes]), facts=facts, embedded=embedded, marks=marks,
            axis=Axis.around(moves, zero=True), caption="Marks: mean, and the middle half of the sentences.",
            folded=[page.section("", None, Table("Change of the score in points", scored[0], scored[1:]))],
            made=[_measured(one["model"], robustness_command(one), robustness.robustness_provenance([one]),
                            one["environment"])],
        )  # fmt: skip


def mteb_sections(results: Results, root: str | None) -> Iterator[Section]:
    """mteb's own tasks, by mteb's own protocol."""
    chosen = [report.selection for report in results.mteb.values()]
    for place, report in results.mteb.items():
        table, parts = mteb.mteb_table(report), mteb.mteb_parts_table(report)
        heading = f"mteb's own tasks, {report.selection}" + f" ({place})" * (chosen.count(report.selection) > 1)
        yield page.section(
            heading, None, table, bundled.other_notes(table.notes),
            folded=[page.section("", None, parts)] if parts.rows else [],
            made=[Made(report.model["name"], mteb_command(report), mteb.mteb_facts(report))],
            links=links_to(root, {f"report {place}": place.removesuffix(".json") + ".md"}),
        )  # fmt: skip


def speed_section(results: Results, evaluated: Sequence[Evaluated]) -> Section | None:
    """How long evaluations took to embed, and the benchmarks that name the model; None without either."""
    rows = []
    for one in evaluated:
        for report in (s.report for s in one.saved):
            n, seconds = report.stats.get("sentences", 0), report.seconds["embedding"]
            if n and seconds > 0 and not report.model.get("scored_from"):
                tokens = f"{report.stats['tokens'] / seconds:,.0f}" if "tokens" in report.stats else MISSING
                rows.append([one.heading, str(report.model.get("dtype", MISSING)), f"{n:,}", f"{seconds:.1f}",
                             f"{n / seconds:,.0f}", tokens, shown_machine(report.environment)])  # fmt: skip
    benchmarks = [page.section("", None, speed_table(figures)) for figures in results.speeds.values()]
    if not (rows or benchmarks):
        return None
    header = ["evaluation", "dtype", "sentences", "seconds", "sentences a second", "tokens a second", "machine"]
    note = (
        "Seconds in which an evaluation embedded its distinct sentences, whatever else the machine did then; "
        "benchmarks, below where there are any, are clocked by themselves."
    )
    table = Table("Embedding, as evaluations clocked it", header, rows, [note]) if rows else None
    return page.section("Speed", None, table, folded=benchmarks)


def _on_an_axis(rows: Sequence[Row]) -> dict[str, Any]:
    """The marks of a table's rows and their axis."""
    values = [v for r in rows for v in (r.ours["value"], *(r.ours["interval"] or ()), r.paper, *r.seeds)]
    return {"marks": [r.mark for r in rows], "axis": Axis.around([v for v in values if v is not None])}


def _unusual(board: Mapping[str, Any]) -> list[str]:
    return [rule for rule in board["rules"].split(", ") if rule not in _USUAL]


def _lead(row: Row | None) -> str:
    """What it came to, in a line."""
    if row is None:
        return ""
    within = f" (95 %: {row.cells[1]})" if row.ours["interval"] else ""
    paper = f"; published {row.paper:.2f}" if row.paper is not None else ""
    return f"{'Average' if row.what == 'Avg.' else row.what} {row.cells[0]}{within}{paper}"


def _notes(one: Evaluated) -> list[str]:
    """Those of the report, and how it is known that training saw its sentences."""
    report = one.saved[0].report
    paper = scores.published_beside(report, "spearman", "all")
    notes = [note for note in scores.report_notes(report, paper) if not note.startswith(MARK)]
    if not paper and (rows := [row for by in one.row["published"].values() for row in by.values()]):
        notes.insert(0, f"Published: {rows[0]['row']}, {rows[0]['source']}: other vectors, the same protocol.")
    return [*notes, *one.row["seen"]]


def _seeds(one: Evaluated) -> Table:
    """Every seed's own scores."""
    shown = {name: shown_metric(by, "spearman") for name, by in one.row["scores"].items()}
    titles = [one.saved[0].report.tasks[name]["title"] for name in shown]
    averaged = one.average() is not None
    metric = shown_metric(one.row["average"], "spearman") if averaged else ""
    rows = [
        [seed["model"], *(_value(seed["scores"][name][m]["all"]) for name, m in shown.items()),
         *([_value(seed["average"][metric]["all"])] if averaged else [])]
        for seed in one.row["seeds"]
    ]  # fmt: skip
    return Table("seeds, ×100", ["", *titles, *["Avg."] * averaged], rows)


def _made(made: Mapping[str, Any]) -> Made:
    """What decided an evaluation's numbers."""
    data = {"data": "; ".join(f"{task} {what}" for task, what in made["data"].items())}
    return Made(made["name"], made["command"], {k: v for k, v in made["facts"] if v} | data, made["note"])


def _measured(model: Mapping[str, Any], command: str, said: Mapping[str, str], environment: Mapping[str, Any]) -> Made:
    """What decided an analysis: how its own page says it, and the machine."""
    return Made(model["name"], command, {"measured": "; ".join(said.values()), **machine_facts(environment)})


def links_to(root: str | None, places: Mapping[str, str]) -> dict[str, str]:
    """Places below the results folder as links from the page, ``root`` being the way there; none where it is None."""
    return {} if root is None else {text: root + place for text, place in places.items()}


def _value(entry: Mapping[str, Any] | None) -> str:
    return shown_spread(entry["value"], entry.get("sd")) if entry else MISSING


def _between(interval: Sequence[float] | None) -> str:
    return shown_numbers("{:.2f} to {:.2f}", *(interval or ()))
