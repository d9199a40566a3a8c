"""A report beside another, task by task with intervals; a model beside its published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.judged import Paraphrases
from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.reading import Data, read_task
from simcse_bench.data.registry import known_name, load_suites, load_task
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import METRICS_OF
from simcse_bench.errors import UserError, suggestion
from simcse_bench.evaluation.evaluate import Embedded, distinct_sentences
from simcse_bench.evaluation.metrics import Floats, correlation, percent_ranks
from simcse_bench.evaluation.paraphrase import average_precision_difference
from simcse_bench.evaluation.ranking import mean_difference_of_values, ranking_values
from simcse_bench.evaluation.run import EvaluationPlan, EvaluationSettings, plan_evaluation, run_evaluation
from simcse_bench.evaluation.statistics import Difference, difference, difference_of, holm, mean_difference
from simcse_bench.files import shown_name
from simcse_bench.models.catalog import ALIASES, HEADS, MODELS, PLAIN_POOLINGS, known_model
from simcse_bench.models.checkpoints import resolve
from simcse_bench.models.open import open_model
from simcse_bench.papers.published import PublishedRow, published_row
from simcse_bench.progress import Progress, Say, silent
from simcse_bench.reports.pair_records import load_pairs
from simcse_bench.reports.report import Report, readable_name, report_path
from simcse_bench.reports.table import MISSING, Table, shown_numbers

if TYPE_CHECKING:
    import pandas as pd

WORST = 20  # pairs shown
_WORDS = {  # kind of task -> its values beside a report, its rows
    "sts": ("cosines", "pairs"),
    "paraphrase": ("cosines", "pairs"),
    "triplet": ("margins", "triplets"),
    "ranking": ("ranks", "queries"),
}
_SHOWN = {  # metric -> what it is, and of what (one, several)
    "spearman": ("Spearman ×100 over all pairs of a task", "pair", "pairs"),
    "ap": ("Average precision ×100", "pair", "pairs"),
    "accuracy": ("Accuracy ×100: share of the triplets with the positive nearer", "triplet", "triplets"),
    "mrr": ("Mean reciprocal rank ×100", "query", "queries"),
    "": ("Of each task the first metric of its kind, ×100", "row", "rows"),
}
OK, CLOSE = 0.02, 0.25  # points: rounding of published numbers; other libraries, tokenisation of a few sentences
VERDICTS = ("OK", "close", "differs within interval", "differs")


@dataclass(frozen=True)
class Side:
    """One saved report with the values of its rows: cosines of pairs, margins of triplets, ranks of queries."""

    report: Report
    similarities: Mapping[str, Sequence[float]]
    name: str  # of the report: one model may have several
    path: Path = Path()


def read_sides(given: Sequence[str], results: Path, suite: str = "sts") -> list[Side]:
    """Reports to compare; see ``read_side``.

    Raises:
        UserError: what ``read_side`` raises; two of them that are one report.
    """
    suite = known_name(suite, load_suites()) or suite
    sides = [read_side(one, results, suite) for one in given]
    places = [side.path.resolve() for side in sides]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(
                f"{given[places.index(place)]} and {given[i]} are one report, {sides[i].path}: models are found by "
                "name, folders by their last part. Evaluate one with a --name of its own and give that, or two files."
            )
    names = [side.name for side in sides]
    return [side if names.count(side.name) == 1 else replace(side, name=side.path.as_posix()) for side in sides]


def read_side(given: str, results: Path, suite: str = "sts") -> Side:
    """A report by its path, or by a model's name or folder below ``<results>/<suite>``.

    Raises:
        UserError: no such report, one without the cosines of its pairs, one of another model than the folder's.
    """
    path = Path(given)
    folder = path if path.is_dir() else None
    if folder or path.suffix != ".json":
        name = shown_name(given) if folder else ALIASES.get(given, given)
        path = report_path(results, suite, name)
    if not path.is_file():
        raise UserError(f"{path}: no such report; run `simcse-bench eval {given}` first, or give a report's file.")
    report = Report.load(path)
    if folder:
        there, here = report.model.get("files") or {}, resolve(given, None, "cls", "none").provenance()["files"]
        changed = [name for name, digest in here.items() if there.get(name, digest) != digest]
        if changed:
            raise UserError(
                f"{path} is of another model than {given} ({', '.join(changed)} differ). Evaluate {given} with a "
                "--name of its own and give that, or give a report's file."
            )
    return Side(report, load_pairs(path, report), readable_name(report.model["name"], path.stem), path)


def read_data(sides: Sequence[Side], where: DataSource = ANYWHERE) -> dict[str, Data]:
    """The data of the tasks that all reports have.

    Raises:
        UserError: reports on different data, or data other than theirs.
    """
    first = sides[0].report
    names = [n for n in first.tasks if all(_has_values(s, n) for s in sides)]
    if not names:
        places = ", ".join(str(side.path) for side in sides)
        raise UserError(f"these reports have the cosines of no STS task in common: {places}.")
    problems = []
    data: dict[str, Data] = {}
    for name in names:
        fingerprints = {s.report.tasks[name]["data"]["fingerprint"] for s in sides}
        if len(fingerprints) > 1:
            problems.append(f"{name}: the reports were made on different data (protocol, split or limit).")
            continue
        task, origin = load_task(name, where.tasks_dir), first.tasks[name]["data"]
        variant = origin["text"] if origin["text"] != "only" else "senteval"
        folder = data_folder([task], where)
        rows = read_task(task, origin["split"], variant, folder, first.limit, origin.get("left_out", ()))
        if rows.fingerprint() not in fingerprints:
            problems.append(f"{name}: the data here is not that of the reports (fingerprint {rows.fingerprint()}).")
        data[name] = rows
        values, units = _WORDS[task.kind]
        problems += [
            f"{s.path}: {len(s.similarities[name])} {values} beside it of {name}, which has {len(rows)} {units}. "
            "Evaluate again with --force."
            for s in sides
            if len(s.similarities[name]) != len(rows)
        ]
    if problems:
        raise UserError(*problems)
    return data


def _has_values(side: Side, task: str) -> bool:
    return task in side.similarities and task in side.report.tasks


def compare(
    first: str | Path,
    second: str | Path,
    results: str | Path = "results",
    suite: str = "sts",
    where: DataSource = ANYWHERE,
) -> pd.DataFrame:
    """Is the second of two evaluated models better than the first by more than noise?

    Args:
        first, second: names of evaluated models, or report files.
        results, suite: where reports are found by name.
        where: the data that the reports were made on.

    Returns:
        See ``differences``.

    Raises:
        UserError: no such report, no pairs beside it, reports on different data, one report on both sides.
    """
    one, other = read_sides([str(first), str(second)], Path(results), suite)
    return differences(one, other, read_data([one, other], where))


def differences(first: Side, second: Side, data: Mapping[str, Data]) -> pd.DataFrame:
    """A row per task, and "avg" where there are several of one kind: ``metric`` ×100 of both and the difference.

    Columns: task, title, first, second, difference, low, high (paired bootstrap, 95 %), p (permutation; NaN for the
    average), holm (p corrected for the number of tasks), detectable (the smallest true difference found with 80 %
    probability), metric (the first of its kind of task: spearman, ap, mrr, accuracy).
    """
    import pandas as pd

    titles = {n: first.report.tasks[n]["title"] for n in data}
    kinds = {n: first.report.tasks[n].get("kind", "sts") for n in data}
    metrics = {n: METRICS_OF[kind][0] for n, kind in kinds.items()}
    one, other = ({n: np.asarray(s.similarities[n], dtype=np.float64) for n in data} for s in (first, second))
    scores = [{n: s.report.tasks[n]["scores"][metrics[n]]["all"]["value"] for n in data} for s in (first, second)]
    found = {n: _difference(rows, one[n], other[n], seed) for seed, (n, rows) in enumerate(data.items())}
    by_task = {n: apart for n, (apart, _) in found.items()}
    corrected = dict(zip(by_task, holm([d.p for d in by_task.values()]), strict=True))
    if len(data) > 1 and len(set(kinds.values())) == 1:
        titles["avg"], metrics["avg"] = "Avg.", next(iter(metrics.values()))
        pairs = {n: rows for n, rows in data.items() if isinstance(rows, Pairs)}
        if pairs:
            gold, sizes = {n: p.gold for n, p in pairs.items()}, {n: p.sizes() for n, p in pairs.items()}
            by_task["avg"] = mean_difference(one, other, gold, sizes)
        else:
            value, moved = (np.mean(x, axis=0) for x in zip(*((d.value, m) for d, m in found.values()), strict=True))
            by_task["avg"] = difference_of(float(value), moved, float("nan"))
        for values in scores:
            values["avg"] = float(np.mean(list(values.values())))
    rows = [
        {"task": n, "title": titles[n], "first": scores[0][n], "second": scores[1][n], "difference": d.value}
        | dict(zip(("low", "high"), d.interval or (None, None), strict=True))
        | {"p": d.p, "holm": corrected.get(n), "detectable": d.detectable, "metric": metrics[n]}
        for n, d in by_task.items()
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(("low", "high", "p", "holm", "detectable"), float))


def _difference(rows: Data, first: Floats, second: Floats, seed: int) -> tuple[Difference, Floats]:
    """Second minus first in the first metric of the task's kind, from a value per row (n,) of each; its replicates.

    STS tasks give no replicates: their average has a function of its own.
    """
    if isinstance(rows, Pairs):
        return difference(first[None], second[None], rows.gold, rows.sizes()), np.empty(0)
    if isinstance(rows, Paraphrases):
        return average_precision_difference(first, second, rows.pairs.gold, seed=seed)
    if isinstance(rows, Ranking):
        one, other = (ranking_values(ranks)["mrr"] for ranks in (first, second))
        return mean_difference_of_values(one, other, rows.unit, seed=seed)
    one, other = (np.where(margins > 0, 100.0, 0.0) for margins in (first, second))
    return mean_difference_of_values(one, other, range(len(rows)), seed=seed)


def comparison_table(first: str, second: str, frame: pd.DataFrame) -> Table:
    """What ``differences`` gives, for people; ``first`` and ``second`` are the reports' names."""
    rows = [
        [row["title"], f"{row['first']:.2f}", f"{row['second']:.2f}", f"{row['difference']:+.2f}",
         shown_numbers("{:+.2f} to {:+.2f}", row["low"], row["high"]), shown_numbers("{:.4f}", row["p"]),
         shown_numbers("{:.4f}", row["holm"]), shown_numbers("{:.2f}", row["detectable"])]
        for row in frame.to_dict("records")
    ]  # fmt: skip
    metrics = set(frame["metric"])
    what, unit, units = _SHOWN[metrics.pop() if len(metrics) == 1 else ""]
    notes = [
        f"{what}. 95 %: paired bootstrap over {units}. p: permutation of the two models {unit} by {unit}; "
        "Holm: corrected for the number of tasks. Detectable: the smallest true difference found with 80 % probability "
        f"with these {units}.",
        "Seeds are not considered: two trainings of one recipe differ too (unsupervised BERT-base: SD 0.8).",
    ]
    header = ["", first, second, "difference", "95 %", "p", "Holm", "detectable"]
    return Table(f"{second} minus {first}", header, rows, notes)


def most_different_pairs(first: Side, second: Side, data: Mapping[str, Data], count: int = WORST) -> Table:
    """The pairs whose rank among a task's similarities differs most between two models; ranks in percent."""
    rows: list[tuple[float, list[str]]] = []
    for name, of_task in data.items():
        pairs = of_task.pairs if isinstance(of_task, Paraphrases) else of_task
        if not isinstance(pairs, Pairs):
            continue
        a, b = (percent_ranks(side.similarities[name]) for side in (first, second))
        gold = percent_ranks(pairs.gold)
        for i in np.argsort(-np.abs(b - a), kind="stable")[:count].tolist():
            cells = [first.report.tasks[name]["title"], f"{gold[i]:.0f}", f"{a[i]:.0f}", f"{b[i]:.0f}"]
            rows.append((-abs(b[i] - a[i]), [*cells, pairs.left[i], pairs.right[i]]))
    chosen = [cells for _, cells in sorted(rows, key=lambda row: row[0])[:count]]
    header = ["task", "gold", first.name, second.name, "sentence", "other sentence"]
    return Table(f"the {len(chosen)} pairs seen most differently (rank in the task, percent)", header, chosen)


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
        options: of ``open_model``: pooling, head, revision, dtype, device.

    Raises:
        UserError: no published numbers, whatever an evaluation refuses.
    """
    settings = replace(settings or EvaluationSettings(), suite="sts")
    row = require_published(as_ or model, settings.protocol)
    spec = known_model(as_) if as_ is not None and options.get("pooling") is None else None
    if spec is not None:  # used as the published model is
        options |= {"pooling": spec.pooling, "head": options.get("head") or spec.head}
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
    how = f"pooling {report.model.get('pooling')}, head {report.model.get('head')}"
    title = f"{report.model['name']} ({how}) against {row.row}, {row.source}"
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
