"""Reports side by side: the difference of every task with its interval, and the pairs seen most differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from simcse_bench.data.pairs import Pairs, data_root, read_pairs
from simcse_bench.data.task import load_task
from simcse_bench.errors import UserError, suggestion
from simcse_bench.evaluation.evaluate import distinct_sentences
from simcse_bench.evaluation.metrics import Floats, correlation, paired_cosine
from simcse_bench.evaluation.statistics import Difference, difference, holm, mean_difference
from simcse_bench.files import shown_name
from simcse_bench.models.catalog import ALIASES, HEADS, MODELS, POOLINGS
from simcse_bench.papers import published
from simcse_bench.reports.report import Report, load_pairs, report_path
from simcse_bench.reports.table import MISSING, Table

if TYPE_CHECKING:
    from simcse_bench.evaluation.evaluate import Data
if TYPE_CHECKING:
    from simcse_bench.evaluation.run import Plan
    from simcse_bench.models.encoders import TransformerEncoder

WORST = 20  # pairs shown


@dataclass(frozen=True)
class Side:
    """One saved report with the cosines of its pairs."""

    report: Report
    similarities: Mapping[str, Sequence[float]]
    name: str  # of the report: one model may have several


def read_side(given: str, results: Path, suite: str = "sts") -> Side:
    """A report by its path, or by a model's name below ``<results>/<suite>``.

    Raises:
        UserError: no such report, or one without the cosines of its pairs.
    """
    path = Path(given)
    if path.suffix != ".json":
        name = shown_name(given) if Path(given).is_dir() else ALIASES.get(given, given)
        path = report_path(results, suite, name)
    if not path.is_file():
        raise UserError(
            f"{path}: no such report; run `simcse-bench eval --model {given}` first, or give a report's file."
        )
    report = Report.load(path)
    return Side(report, load_pairs(path, report), path.stem)


def read_data(sides: Sequence[Side], data_dir: Path | None, tasks_dir: Path | None, revision: str) -> dict[str, Pairs]:
    """The pairs of the tasks that all reports have.

    Raises:
        UserError: reports on different data, or data other than theirs.
    """
    first = sides[0].report
    names = [n for n in first.tasks if all(n in s.similarities for s in sides)]
    if not names:
        raise UserError("these reports have no STS task in common.")
    problems = []
    data: dict[str, Data] = {}
    for name in names:
        fingerprints = {s.report.tasks[name]["data"]["fingerprint"] for s in sides}
        if len(fingerprints) > 1:
            problems.append(f"{name}: the reports were made on different data (protocol, split or limit).")
            continue
        task, origin = load_task(name, tasks_dir), first.tasks[name]["data"]
        root = data_root([task], data_dir, revision)
        variant = origin["text"] if origin["text"] != "only" else "senteval"
        pairs = read_pairs(task, origin["split"], variant, root.path if root else None)
        pairs = pairs.head(first.limit) if first.limit else pairs
        if pairs.fingerprint() not in fingerprints:
            problems.append(f"{name}: the data here is not that of the reports (fingerprint {pairs.fingerprint()}).")
        data[name] = pairs
    if problems:
        raise UserError(*problems)
    return data  # type: ignore[return-value]


def compare(first: Side, second: Side, data: Mapping[str, Pairs]) -> Table:
    """Every task of two reports: scores, difference, interval, p corrected for the number of tasks."""
    found = {name: _difference(first, second, name, pairs) for name, pairs in data.items()}
    corrected = dict(zip(found, holm([d.p for d in found.values()]), strict=True))
    rows = [
        [first.report.tasks[n]["title"], _score(first, n), _score(second, n), *_cells(d), f"{corrected[n]:.4f}",
         _number(d.detectable)]
        for n, d in found.items()
    ]  # fmt: skip
    if len(found) > 1:
        a, b = ({n: _array(s, n) for n in data} for s in (first, second))
        mean = mean_difference(a, b, {n: p.gold for n, p in data.items()}, {n: p.sizes() for n, p in data.items()})
        averages = [f"{np.mean([_value(s, n) for n in data]):.2f}" for s in (first, second)]
        rows.append(["Avg.", *averages, *_cells(mean), MISSING, _number(mean.detectable)])
    notes = [
        "Spearman ×100 over all pairs of a task. 95 %: paired bootstrap over pairs. p: permutation of the two models "
        "pair by pair; Holm: corrected for the number of tasks. Detectable: the smallest true difference found with "
        "80 % probability with these pairs.",
        "Seeds are not considered: two trainings of one recipe differ too (unsupervised BERT-base: SD 0.8).",
    ]
    header = ["", first.name, second.name, "difference", "95 %", "p", "Holm", "detectable"]
    return Table(f"{second.name} minus {first.name}", header, rows, notes)


def worst_pairs(first: Side, second: Side, data: Mapping[str, Pairs], count: int = WORST) -> Table:
    """The pairs whose rank among a task's similarities differs most between two models; ranks in percent."""
    rows: list[tuple[float, list[str]]] = []
    for name, pairs in data.items():
        a, b, gold = (100 * rankdata(x) / len(pairs) for x in (_array(first, name), _array(second, name), pairs.gold))
        for i in np.argsort(-np.abs(b - a), kind="stable")[:count].tolist():
            cells = [first.report.tasks[name]["title"], f"{gold[i]:.0f}", f"{a[i]:.0f}", f"{b[i]:.0f}"]
            rows.append((-abs(b[i] - a[i]), [*cells, pairs.left[i], pairs.right[i]]))
    chosen = [cells for _, cells in sorted(rows, key=lambda row: row[0])[:count]]
    header = ["task", "gold", first.name, second.name, "sentence", "other sentence"]
    return Table(f"the {len(chosen)} pairs seen most differently (rank in the task, percent)", header, chosen)


def _difference(first: Side, second: Side, name: str, pairs: Pairs) -> Difference:
    return difference(_array(first, name)[None], _array(second, name)[None], pairs.gold, pairs.sizes())


def _array(side: Side, name: str) -> Floats:
    return np.asarray(side.similarities[name], dtype=np.float64)


def _value(side: Side, name: str) -> float:
    return float(side.report.tasks[name]["scores"]["spearman"]["all"]["value"])


def _score(side: Side, name: str) -> str:
    return f"{_value(side, name):.2f}"


def _cells(found: Difference) -> list[str]:
    interval = MISSING if found.interval is None else "{:+.2f} to {:+.2f}".format(*found.interval)
    return [f"{found.value:+.2f}", interval, f"{found.p:.4f}" if found.p == found.p else MISSING]


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


OK, CLOSE = 0.02, 0.25  # points: rounding of published numbers; other libraries, tokenisation of a few sentences
VERDICTS = ("OK", "close", "differs within interval", "differs")


@dataclass(frozen=True)
class Match:
    """A pooling and head whose scores come nearest to the published ones."""

    pooling: str
    head: str
    largest: float  # difference of a task, in points


def published_row(name: str, protocol: str) -> published.Published:
    """The published STS row of a catalog model.

    Raises:
        UserError: none is known for this model under this protocol.
    """
    row = published.find(name, protocol, "all", "spearman", "test", "sts")
    if row is None or not row.scores:
        known = [m for m in MODELS if (r := published.find(m, protocol, "all", "spearman", "test", "sts")) and r.scores]
        known_here = f" Known under protocol {protocol}:\n" + "\n".join(f"  {m}" for m in known)
        raise UserError(f"no published numbers for {name!r}{suggestion(name, known)} Give --as NAME.{known_here}")
    return row


def verdict(value: float, interval: tuple[float, float] | None, theirs: float) -> str:
    """One of ``VERDICTS``: the distance to the published number, and whether it lies in our interval."""
    distance = abs(round(value, 2) - theirs)
    if distance <= OK + 1e-9:
        return VERDICTS[0]
    if distance <= CLOSE:
        return VERDICTS[1]
    inside = interval is not None and interval[0] <= theirs <= interval[1]
    return VERDICTS[2] if inside else VERDICTS[3]


def verdicts(report: Report, row: published.Published) -> dict[str, str]:
    """Task -> verdict, for the tasks that the published row has."""
    entries = {n: report.tasks[n]["scores"]["spearman"]["all"] for n in row.scores if n in report.tasks}
    return {n: verdict(e["value"], e["interval"], row.scores[n]) for n, e in entries.items()}


def verification_table(report: Report, row: published.Published) -> Table:
    """Ours, the published number, the difference and the verdict, task by task."""
    found = verdicts(report, row)
    rows = []
    for name, task in report.tasks.items():
        entry = task["scores"]["spearman"]["all"]
        theirs = row.scores.get(name)
        interval = MISSING if entry["interval"] is None else "{:.1f}–{:.1f}".format(*entry["interval"])
        difference = MISSING if theirs is None else f"{round(entry['value'], 2) - theirs:+.2f}"
        shown = MISSING if theirs is None else f"{theirs:.2f}"
        rows.append([task["title"], f"{entry['value']:.2f}", interval, shown, difference, found.get(name, MISSING)])
    how = f"pooling {report.model.get('pooling')}, head {report.model.get('head')}"
    return Table(
        f"{report.model['name']} ({how}) against {row.row}, {row.source}",
        ["", "score", "95 %", "published", "difference", "verdict"],
        rows,
        [f"OK: at most {OK} points apart; close: at most {CLOSE}. Protocol {report.protocol['name']}."],
    )


def nearest_view(plan: Plan, encoder: TransformerEncoder, row: published.Published) -> Match:
    """The pooling and head of this checkpoint nearest to the published row, all from one forward pass."""
    views = [(pooling, head) for pooling in POOLINGS for head in HEADS if head in encoder.heads]
    data: Mapping[str, Any] = {n: d for n, d in plan.data.items() if n in row.scores}
    sentences = distinct_sentences(data.values())
    place = {s: i for i, s in enumerate(sentences)}
    found = []
    for (pooling, head), vectors in zip(views, encoder.encode_views(sentences, views), strict=True):
        distances = []
        for name, pairs in data.items():
            left, right = (vectors[[place[s] for s in side]] for side in (pairs.left, pairs.right))
            score = correlation("spearman", paired_cosine(left, right), pairs.gold)
            distances.append(abs(score - row.scores[name]))
        found.append(Match(pooling, head, max(distances)))
    return min(found, key=lambda m: m.largest)


def advice(match: Match, report: Report) -> str:
    """What to tell about the nearest view."""
    used = (report.model.get("pooling"), report.model.get("head"))
    options = f"--pooling {match.pooling} --head {match.head}"
    if (match.pooling, match.head) == used:
        return (
            f"No other pooling or head of this checkpoint comes nearer (largest difference {match.largest:.2f}): its "
            "weights or tokenizer, or the data, are not those of the published numbers."
        )
    if match.largest <= CLOSE:
        return f"{options} would match: the largest difference is then {match.largest:.2f}."
    return f"{options} comes nearest, but its largest difference is still {match.largest:.2f}: other weights or data."
