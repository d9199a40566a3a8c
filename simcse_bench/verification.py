"""Does a model reproduce its published numbers, and if not, which pooling and head would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simcse_bench import published
from simcse_bench.catalog import HEADS, MODELS, POOLINGS
from simcse_bench.errors import UserError, suggestion
from simcse_bench.evaluate import distinct_sentences
from simcse_bench.metrics import correlation, paired_cosine
from simcse_bench.render import MISSING, Table
from simcse_bench.report import Report

if TYPE_CHECKING:
    from simcse_bench.bench import Plan
    from simcse_bench.encoders import TransformerEncoder

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
