"""evaluate(): read the tasks, embed every distinct sentence once, score, save."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.judged import Paraphrases, Triplets
from simcse_bench.data.labelled import Labelled
from simcse_bench.data.pairs import Pairs, data_folder
from simcse_bench.data.reading import Data, Thinned, read_task
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import SIMCSE, EvalProtocol, Task, named_protocol
from simcse_bench.errors import UserError
from simcse_bench.evaluation.exclusion import excluded_by, leave_out
from simcse_bench.evaluation.metrics import Floats, paired_cosine, row_records
from simcse_bench.evaluation.ranking import ranks_of_positives
from simcse_bench.evaluation.scoring import (
    score_entry,
    score_paraphrase,
    score_ranking,
    score_sts,
    score_transfer,
    score_triplets,
)
from simcse_bench.files import environment, now, require_writable
from simcse_bench.models.identity import deciding
from simcse_bench.models.open import Model, open_model
from simcse_bench.models.own import as_rows
from simcse_bench.progress import Say, silent
from simcse_bench.reports.pair_records import save_pairs
from simcse_bench.reports.report import Report, evaluation_key
from simcse_bench.reports.scores import write_report_tables

if TYPE_CHECKING:  # torch is not needed to read, score or print
    from simcse_bench.models.encoders import Array, Encoder


def evaluate(
    encoder: Encoder | Model | str,
    tasks: Sequence[Task],
    protocol: EvalProtocol | str = SIMCSE,
    where: DataSource = ANYWHERE,
    limit: int | None = None,
    suite: str = "custom",
    name: str | None = None,
    dtype: str | None = None,
    save: str | Path | None = None,
    force: bool = False,
    exclude: str | Path | None = None,
) -> Report:
    """Evaluate an encoder on tasks.

    Args:
        encoder: anything with ``encode(sentences) -> (n, d)``; or what ``open_model`` gives or takes.
        tasks: from ``load_suite`` or ``load_task``.
        protocol: "simcse" (the paper's) or "mteb", or an ``EvalProtocol`` of your own.
        where: the data; by default what is configured, or the official data from the Hub.
        limit: only the first pairs of every subset, for trying out.
        suite: name in the report.
        name: of the encoder in the report; default: where it comes from, or its class.
        dtype: what it computes in, for the report, where its weights do not say.
        save: file for the report, such as ``results/sts/mine.json``; beside it the cosines of its pairs, which
            ``compare`` needs, and its tables. The same evaluation is not computed again.
        force: compute again, and replace another evaluation in that file.
        exclude: a record of ``data overlap`` (``find_overlaps``): pairs and triplets of which it found a sentence are
            left out.

    Raises:
        UserError: unreadable data; NaN, misshapen or constant embeddings; another evaluation in the file.
    """
    if isinstance(protocol, str):
        protocol = named_protocol(protocol)
    path = None if save is None else Path(save)
    if path is not None:
        if path.suffix != ".json":
            raise UserError(f"save {path}: expected the name of a .json file.")
        require_writable(path)
    record = None if exclude is None else Path(exclude)
    if record is not None:
        protocol = replace(protocol, excluded=excluded_by(record))
    data, skipped = read_all(tasks, protocol, data_folder(tasks, where), limit, record)
    if isinstance(encoder, Model):
        encoder = encoder.load()
    model = open_model(encoder, name=name, dtype=dtype or "auto")
    if path is not None and not force:
        fingerprints = {task: rows.fingerprint() for task, rows in data.items()}
        key = evaluation_key(model.provenance, protocol_fields(protocol, tasks), fingerprints, limit)
        existing = existing_report(path, key, model.provenance, fingerprints)
        if existing is not None:
            return existing
    report, similarities = score_all(model.load(), tasks, data, skipped, protocol, limit, suite)
    if path is not None:
        save_whole(path, report, data, similarities)
    return report


def existing_report(
    path: Path, key: str, model: Mapping[str, Any], fingerprints: Mapping[str, str], otherwise: str = "force"
) -> Report | None:
    """The saved report of the same evaluation, where there is one.

    Raises:
        UserError: the file holds another evaluation.
    """
    if not path.exists():
        return None
    report = Report.load(path)
    if report.key != key:
        raise UserError(
            f"{path} holds another evaluation ({_difference(report, model, fingerprints)}). "
            f"Use {otherwise} to replace it, or another place or name."
        )
    return report


def save_whole(path: Path, report: Report, data: Mapping[str, Data], similarities: Mapping[str, Floats]) -> None:
    """Write a report, its pairs beside it, and its tables."""
    by_task = (row_records(name, data[name], values) for name, values in similarities.items())
    save_pairs(path, report.key, itertools.chain.from_iterable(by_task))
    report.save(path)  # last: where it is, its pairs are
    write_report_tables(report, path)


def _difference(report: Report, model: Mapping[str, Any], fingerprints: Mapping[str, str]) -> str:
    """Which setting of a saved report is not the one asked for."""
    there, here = deciding(report.model), deciding(model)
    differences = [
        f"{f} {there.get(f)} there, {here[f]} here" for f in here if f != "files" and there.get(f) != here[f]
    ]
    files = report.model.get("files") or {}
    changed = [f for f, digest in (model.get("files") or {}).items() if files.get(f) != digest]
    differences += [f"{', '.join(changed)} differ"] if changed else []
    saved = {name: task.get("data", {}).get("fingerprint") for name, task in report.tasks.items()}
    data = [name for name, digest in fingerprints.items() if saved.get(name) != digest]
    differences += [f"the data of {', '.join(data)} differ"] if data else []
    return "; ".join(differences) or "other protocol settings"


def read_all(
    tasks: Sequence[Task],
    protocol: EvalProtocol,
    root: Path | None,
    limit: int | None = None,
    exclude: Path | None = None,
) -> tuple[dict[str, Data], dict[str, str]]:
    """The data of every task, and the tasks that have no such split with the reason; UserError if none has it.

    Args:
        tasks, protocol, root: which, under which rules, and where.
        limit: only the first rows of every subset, of those that are left.
        exclude: a record of ``data overlap``, whose rows are left out.
    """
    data: dict[str, Data] = {}
    skipped: dict[str, str] = {}
    problems: list[str] = []
    for task in tasks:
        split = protocol.split_of(task)
        try:
            if task.kind == "transfer" or split in task.splits:
                data[task.name] = read_task(task, split, protocol.text, root, None if exclude else limit)
            else:
                skipped[task.name] = f"has no {split} split"
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    if not data:
        raise UserError(*(f"task {name!r} {why}." for name, why in skipped.items()))
    return (leave_out(exclude, data, limit) if exclude else data), skipped


def score_all(
    encoder: Any,  # with its provenance, as ``Model.load`` gives it
    tasks: Sequence[Task],
    data: Mapping[str, Data],
    skipped: Mapping[str, str],
    protocol: EvalProtocol,
    limit: int | None,
    suite: str,
    say: Say = silent,
) -> tuple[Report, dict[str, Floats]]:
    """Embed the distinct sentences of all tasks in one go, score every task; also a value per pair, triplet, query."""
    start = time.perf_counter()
    whole = embed_once(encoder, data.values())
    embedded = time.perf_counter()
    model: Mapping[str, Any] = encoder.provenance
    device = str(model.get("device", "cpu"))
    results: dict[str, Any] = {}
    replicates: dict[str, dict[str, dict[str, Floats]]] = {}
    similarities: dict[str, Floats] = {}
    for task in (t for t in tasks if t.name in data):
        rows = data[task.name]
        try:
            if task.kind == "transfer":
                _require_unscaled(model)
            scored, replicates[task.name], values = _score(task, rows, whole, protocol, device.partition(",")[0])
            if values is not None:
                similarities[task.name] = values
            if task.kind == "transfer":
                say(f"{task.title}: {scored['scores'][task.metric]['all']['value']:.2f}")
        except UserError as error:
            raise UserError(*(f"task {task.name!r}: {problem}" for problem in error.problems)) from error
        text = task.source(protocol.text)[0]
        origin: dict[str, Any] = {"split": protocol.split_of(task), "text": text, "fingerprint": rows.fingerprint()}
        origin |= {"left_out": list(rows.left_out)} if isinstance(rows, Thinned) and rows.left_out else {}
        results[task.name] = {"title": task.title, "kind": task.kind, "n": len(rows), **scored, "data": origin}
    counted = {"distinct_sentences": len(whole.rows), "empty_sentences": int("" in whole.rows)}
    # a correlation and an accuracy have no average, and that of cosines or triplets none with a trained one
    alike = len({(r["kind"], *r["scores"]) for r in results.values()}) == 1
    fields: Any = protocol_fields(protocol, tasks)
    fingerprints = {n: r["data"]["fingerprint"] for n, r in results.items()}
    machine: Any = environment(device)
    described: Any = dict(model) | {"dimension": int(whole.vectors.shape[1])}
    report = Report(
        key=evaluation_key(model, fields, fingerprints, limit),
        suite=suite,
        model=described,
        protocol=fields,
        tasks=results,
        average=_average(results, replicates) if alike and not skipped else None,
        skipped=dict(skipped),
        limit=limit,
        stats=dict(getattr(encoder, "stats", {})) | counted,
        environment=machine,
        seconds={"embedding": round(embedded - start, 2), "scoring": round(time.perf_counter() - embedded, 2)},
        created=now(),
    )
    return report, similarities


def _require_unscaled(model: Mapping[str, Any]) -> None:
    """UserError for saved vectors scaled to length 1, where the model's own are not: a probe sees the length."""
    if (model.get("scored_from") or {}).get("normalized") and not model.get("normalize"):
        raise UserError(
            f"{model['scored_from']['file']}: vectors scaled to length 1, which cost a probe points; a transfer "
            "task takes them as the model gives them. Encode with --raw."
        )


def _score(
    task: Task, rows: Data, whole: Embedded, protocol: EvalProtocol, device: str
) -> tuple[dict[str, Any], dict[str, dict[str, Floats]], Floats | None]:
    """Scores of a task, their replicates, and a value per pair, triplet or query (n,): what comparisons need."""
    if isinstance(rows, Labelled):
        return *score_transfer(task, rows, *whole.sides(rows), protocol, device), None
    if isinstance(rows, Pairs):
        values = whole.cosines(rows)
        return *score_sts(values, rows, protocol, task.name), values
    if isinstance(rows, Paraphrases):
        values = whole.cosines(rows.pairs)
        return *score_paraphrase(values, whole.cosines(rows.dev), rows, protocol, task.name), values
    if isinstance(rows, Triplets):
        values = whole.margins(rows)
        return *score_triplets(values, protocol, task.name), values
    values = ranks_of_positives(rows, whole.of(rows.pool), task.center)
    return *score_ranking(values, rows, task, protocol), values


def protocol_fields(protocol: EvalProtocol, tasks: Sequence[Task]) -> dict[str, Any]:
    """The protocol for a report; the probe only where a task has one, centring where a task asks for it."""
    probes = {task.name: task.probe for task in tasks if task.kind == "transfer"}
    fields = asdict(protocol) | ({"task_probes": probes} if probes else {})
    centred = [task.name for task in tasks if task.center]
    fields |= {"centred": centred} if centred else {}
    unsaid = {"probe"} if not probes else set()
    unsaid |= {"excluded"} if not protocol.excluded else set()  # keys of reports without it stay
    return {name: value for name, value in fields.items() if name not in unsaid}


@dataclass(frozen=True)
class Embedded:
    """Every distinct sentence of some data with its vector."""

    rows: Mapping[str, int]
    vectors: Array  # (n, d)

    def of(self, sentences: Sequence[str]) -> Array:
        """Vectors (m, d) of these sentences, in their order."""
        return self.vectors[[self.rows[s] for s in sentences]]

    def sides(self, data: Pairs | Labelled) -> tuple[Array, Array]:
        """Vectors of the left and the right sentences (of labelled ones: the first, and the second of pairs)."""
        left, right = (data.left, data.right) if isinstance(data, Pairs) else (data.texts, data.seconds)
        return self.of(left), self.of(right)

    def cosines(self, pairs: Pairs) -> Floats:
        """Of every pair (n,)."""
        return paired_cosine(*self.sides(pairs))

    def margins(self, triplets: Triplets) -> Floats:
        """How much nearer, by cosine, the positive of every triplet is than its negative (n,)."""
        anchor = self.of(triplets.anchor)
        nearer, farther = (paired_cosine(anchor, self.of(side)) for side in (triplets.positive, triplets.negative))
        return nearer - farther


def embed_once(encoder: Encoder | Embedded, data: Iterable[Data]) -> Embedded:
    """The distinct sentences of all data, embedded in one go; what is embedded already stays as it is."""
    if isinstance(encoder, Embedded):
        return encoder
    sentences = distinct_sentences(data)
    return Embedded({s: i for i, s in enumerate(sentences)}, embed(encoder, sentences))


def distinct_sentences(data: Iterable[Data]) -> list[str]:
    """Every sentence once, in the order of first appearance.

    An empty sentence stays "" and is encoded as such. # differs from SentEval: its example scripts (bow.py) put "."
    in its place; SimCSE's batcher does not, and the published numbers come from SimCSE's.
    """
    return list(dict.fromkeys(itertools.chain.from_iterable(part.sentences() for part in data)))


def embed(encoder: Encoder, sentences: Sequence[str]) -> Array:
    """Embeddings (n, d), checked: right shape, finite, not all the same.

    # differs from SentEval: sts.py turns NaN embeddings into 0 and goes on; here they are an error.
    """
    embeddings = finite_embeddings(encoder, sentences)
    if len(embeddings) > 1 and np.all(embeddings == embeddings[0]):
        raise UserError(f"the encoder returned the same vector for all {len(sentences)} sentences: no score exists.")
    return embeddings


def finite_embeddings(encoder: Encoder, sentences: Sequence[str]) -> Array:
    """Embeddings (n, d), checked: right shape, finite."""
    embeddings = as_rows(encoder.encode(sentences), len(sentences))
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise UserError(
            f"the encoder returned NaN or infinite values for {int(bad.sum())} of {len(sentences)} sentences, "
            f"first for {sentences[int(np.argmax(bad))][:80]!r}. No score is given; try --dtype float32."
        )
    return embeddings


def _average(
    results: Mapping[str, Mapping[str, Any]], replicates: Mapping[str, Mapping[str, Mapping[str, Floats]]]
) -> dict[str, Any]:
    """Mean over the tasks; its interval from the means of the tasks' independent replicates.

    # differs from SimCSE: evaluation.py averages numbers already rounded to two decimals, and counts a missing
    # task as 0.00
    """

    def mean_entry(metric: str, how: str) -> dict[str, Any]:
        values = [r["scores"][metric][how]["value"] for r in results.values()]
        rows = [replicates[name][metric][how] for name in results if how in replicates[name][metric]]
        return score_entry(float(np.mean(values)), np.mean(rows, axis=0) if len(rows) == len(results) else None)

    metrics = next(iter(results.values()))["scores"]
    return {metric: {how: mean_entry(metric, how) for how in hows} for metric, hows in metrics.items()}
