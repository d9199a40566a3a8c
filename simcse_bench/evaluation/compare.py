"""A report beside another, task by task with intervals."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simcse_bench.data.judged import Paraphrases
from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.ranking import Ranking
from simcse_bench.data.reading import Data, read_task
from simcse_bench.data.registry import known_name, load_suites, load_task
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import METRICS_OF
from simcse_bench.errors import UserError
from simcse_bench.evaluation.metrics import Floats, percent_ranks
from simcse_bench.evaluation.paraphrase import average_precision_difference
from simcse_bench.evaluation.ranking import mean_difference_of_values, ranking_values
from simcse_bench.evaluation.statistics import Difference, difference, difference_of, holm, mean_difference
from simcse_bench.files import shown_name
from simcse_bench.models.catalog import ALIASES
from simcse_bench.models.checkpoints import resolve
from simcse_bench.reports.pair_records import load_values, report_beside
from simcse_bench.reports.report import NOT_REPORTS, Report, readable_name, report_path
from simcse_bench.reports.table import Table, shown_numbers

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


@dataclass(frozen=True)
class Side:
    """One saved report with the values of its rows: cosines of pairs, margins of triplets, ranks of queries."""

    report: Report
    similarities: Mapping[str, Sequence[float]]
    name: str  # of the report: one model may have several
    path: Path = Path()
    sentences: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)  # of the pairs, where kept


def read_sides(given: Sequence[str], results: Path, suite: str | None = None) -> list[Side]:
    """Reports to compare; see ``read_side``. Without a suite, the folder that has most of them, or sts.

    Raises:
        UserError: what ``read_side`` raises; two of them that are one report.
    """
    if suite is None:
        there = {path.name for path in results.glob("*") if path.is_dir()}
        folders = ["sts", *sorted(there.difference(NOT_REPORTS))]

        def found(folder: str) -> tuple[int, int]:  # how many have a report there, and one of their very name
            exact = [_place(one, results, folder).is_file() for one in given]
            return sum(bool(_places(one, results, folder)) for one in given), sum(exact)

        suite = max(folders, key=found)
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

    The only one of a model is meant by its name whatever it was evaluated on and with.

    Raises:
        UserError: no such report, several of the model, one without the cosines of its pairs, one of another model
            than the folder's.
    """
    places = _places(given, results, suite)
    folder = Path(given).is_dir()
    if not places:
        path = _place(given, results, suite)
        raise UserError(f"{path}: no such report; run `simcse-bench eval {given}` first, or give a report's file.")
    if len(places) > 1:
        raise UserError(f"{given} has several reports: {', '.join(map(str, places))}; give the file of one.")
    path = places[0]
    report = Report.load(path)
    if folder:
        there, here = report.model.get("files") or {}, resolve(given, None, "cls", "none").provenance()["files"]
        changed = [name for name, digest in here.items() if there.get(name, digest) != digest]
        if changed:
            raise UserError(
                f"{path} is of another model than {given} ({', '.join(changed)} differ). Evaluate {given} with a "
                "--name of its own and give that, or give a report's file."
            )
    values, sentences = load_values(path, report)
    return Side(report, values, readable_name(report.model["name"], path.stem), path, sentences)


def _places(given: str, results: Path, suite: str) -> list[Path]:
    """The report of that very name, or else those whose names also hold tasks and settings."""
    path = _place(given, results, suite)
    if path.is_file() or _names_a_file(given):
        return [path] if path.is_file() else []
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}--*.json"))


def _place(given: str, results: Path, suite: str) -> Path:
    """The file of a report, named itself, by its model or by its model's folder."""
    path = Path(given)
    if path.is_dir():
        return report_path(results, suite, shown_name(given))
    if _names_a_file(given):
        return report_beside(path)
    return report_path(results, suite, ALIASES.get(given, given))


def _names_a_file(given: str) -> bool:
    return Path(given).suffix in (".json", ".jsonl") and not Path(given).is_dir()


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
        pairs = rows.pairs if isinstance(rows, Paraphrases) else rows
        if isinstance(pairs, Pairs):
            there = list(zip(pairs.left, pairs.right, strict=True))
            problems += [
                f"{s.path}: the sentences beside it of {name} are others than the data's, or in another order. "
                "Evaluate again with --force."
                for s in sides
                if len(s.sentences.get(name, ())) == len(there) and s.sentences[name] != there
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
    suite: str | None = None,
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
