"""A model beside its published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simcse_bench.errors import UserError, suggestion
from simcse_bench.evaluation.evaluate import Embedded, distinct_sentences
from simcse_bench.evaluation.metrics import correlation
from simcse_bench.evaluation.run import EvaluationPlan, EvaluationSettings, plan_evaluation, run_evaluation
from simcse_bench.models.catalog import HEADS, MODELS, PLAIN_POOLINGS, known_model
from simcse_bench.models.identity import shown_settings
from simcse_bench.models.open import open_model
from simcse_bench.models.prompts import NO_WISH, PromptOptions
from simcse_bench.papers.published import PublishedRow, published_row
from simcse_bench.progress import Progress, Say, silent
from simcse_bench.reports.report import Report
from simcse_bench.reports.table import MISSING, Table, shown_numbers

OK, CLOSE = 0.02, 0.25  # points: rounding of published numbers; other libraries, tokenisation of a few sentences
VERDICTS = ("OK", "close", "differs within interval", "differs")


@dataclass(frozen=True)
class Match:
    """A pooling and head whose scores come nearest to the published ones."""

    pooling: str
    head: str
    largest: float  # difference of a task, in points


@dataclass(frozen=True)
class Verification:
    """A model's report beside its published numbers."""

    report: Report
    published: PublishedRow
    verdicts: Mapping[str, str]  # task -> one of ``VERDICTS``
    advice: str = ""  # where it differs: which pooling and head would match

    @property
    def verified(self) -> bool:
        """Whether every task is OK or close."""
        return set(self.verdicts.values()) <= set(VERDICTS[:2])


def verify(
    model: str,
    as_: str | None = None,
    settings: EvaluationSettings | None = None,
    progress: Progress | None = None,
    say: Say = silent,
    **options: Any,
) -> Verification:
    """Evaluate a model on the STS suite and hold it against its published numbers.

    Where it differs, the poolings and heads that the checkpoint has are tried from one forward pass.

    Args:
        model: folder, Hub id, or catalog name.
        as_: the catalog model whose numbers it should have; default: its own.
        settings: protocol, data and place of the report; its suite is sts.
        progress, say: see ``run.run_evaluation``.
        options: of ``open_model``: pooling, head, prompt, revision, dtype, device.

    Raises:
        UserError: no published numbers, whatever an evaluation refuses.
    """
    settings = replace(settings or EvaluationSettings(), suite="sts")
    row = require_published(as_ or model, settings.protocol)
    spec = known_model(as_) if as_ is not None and options.get("pooling") is None else None
    if spec is not None:  # used as the published model is
        options |= {"pooling": spec.pooling, "head": options.get("head") or spec.head}
        if spec.template and options.get("prompt", NO_WISH) == NO_WISH:
            options["prompt"] = PromptOptions(template=spec.template)
    opened = open_model(model, **options)
    plan = plan_evaluation(opened, settings)
    report = run_evaluation(plan, progress, say)
    verification = Verification(report, row, verdicts(report, row))
    if verification.verified:
        return verification
    try:  # with its MLP, where the checkpoint has one
        encoder = open_model(model, **options | {"pooling": "cls", "head": "mlp"}).load()
    except UserError:
        encoder = opened.load()
    if not hasattr(encoder, "encode_views"):
        return verification
    return replace(verification, advice=view_advice(nearest_view(plan, encoder, row), report))


def require_published(name: str, protocol: str) -> PublishedRow:
    """The published STS row of a catalog model.

    Raises:
        UserError: none is known for this model under this protocol.
    """
    row = published_row(name, protocol, "all", "spearman", "test", "sts")
    if row is None or not row.scores:
        rows = {m: published_row(m, protocol, "all", "spearman", "test", "sts") for m in MODELS}
        known = [m for m, r in rows.items() if r and r.scores]
        raise UserError(
            f"no published numbers for {name!r} under protocol {protocol}{suggestion(name, known)} "
            "Give --as NAME, one of `simcse-bench ls models`."
        )
    return row


def verdict(value: float, interval: tuple[float, float] | None, theirs: float) -> str:
    """One of ``VERDICTS``: the distance to the published number, and whether it lies in our interval."""
    distance = abs(round(value, 2) - theirs)
    if distance <= OK + 1e-9:
        return VERDICTS[0]
    if distance <= CLOSE:
        return VERDICTS[1]
    return VERDICTS[2 if interval is not None and interval[0] <= theirs <= interval[1] else 3]


def verdicts(report: Report, row: PublishedRow) -> dict[str, str]:
    """Task -> verdict, for the tasks that the published row has."""
    entries = {n: report.tasks[n]["scores"]["spearman"]["all"] for n in row.scores if n in report.tasks}
    return {n: verdict(e["value"], e["interval"], row.scores[n]) for n, e in entries.items()}


def verification_table(verification: Verification) -> Table:
    """Ours, the published number, the difference and the verdict, task by task."""
    report, row = verification.report, verification.published
    rows = []
    for name, task in report.tasks.items():
        entry, theirs = task["scores"]["spearman"]["all"], row.scores.get(name)
        interval = shown_numbers("{:.1f}–{:.1f}", *(entry["interval"] or ()))
        apart = None if theirs is None else round(entry["value"], 2) - theirs
        rows.append([task["title"], f"{entry['value']:.2f}", interval, shown_numbers("{:.2f}", theirs),
                     shown_numbers("{:+.2f}", apart), verification.verdicts.get(name, MISSING)])  # fmt: skip
    title = f"{report.model['name']} (pooling and head {shown_settings(report.model)}) against {row.row}, {row.source}"
    note = f"OK: at most {OK} points apart; close: at most {CLOSE}. Protocol {report.protocol['name']}."
    return Table(title, ["", "score", "95 %", "published", "difference", "verdict"], rows, [note])


def nearest_view(plan: EvaluationPlan, encoder: Any, row: PublishedRow) -> Match:
    """The pooling and head of this checkpoint nearest to the published row, all from one forward pass."""
    views = [(pooling, head) for pooling in PLAIN_POOLINGS for head in HEADS if head in encoder.heads]
    data: Mapping[str, Any] = {n: d for n, d in plan.data.items() if n in row.scores}
    sentences = distinct_sentences(data.values())
    rows = {s: i for i, s in enumerate(sentences)}
    matches = []
    for (pooling, head), vectors in zip(views, encoder.encode_views(sentences, views), strict=True):
        whole = Embedded(rows, vectors)
        scores = {n: correlation("spearman", whole.cosines(pairs), pairs.gold) for n, pairs in data.items()}
        matches.append(Match(pooling, head, max(abs(score - row.scores[n]) for n, score in scores.items())))
    return min(matches, key=lambda m: m.largest)


def view_advice(match: Match, report: Report) -> str:
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
