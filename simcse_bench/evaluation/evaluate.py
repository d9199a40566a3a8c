"""evaluate(): read the tasks, embed every distinct sentence once, score."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.labelled import Labelled, read_labelled
from simcse_bench.data.pairs import Pairs, data_folder, read_pairs
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.task import SIMCSE, EvalProtocol, Task, named_protocol
from simcse_bench.errors import UserError
from simcse_bench.evaluation.metrics import Floats, paired_cosine
from simcse_bench.evaluation.scoring import score_entry, score_sts, score_transfer
from simcse_bench.files import environment, now
from simcse_bench.progress import Say, silent
from simcse_bench.reports.report import Report, evaluation_key

if TYPE_CHECKING:  # torch is not needed to read, score or print
    from simcse_bench.models.encoders import Array, Encoder

Data = Pairs | Labelled


def evaluate(
    encoder: Encoder,
    tasks: Sequence[Task],
    protocol: EvalProtocol | str = SIMCSE,
    where: DataSource = ANYWHERE,
    limit: int | None = None,
    suite: str = "custom",
) -> Report:
    """Evaluate an encoder on STS or transfer tasks.

    Args:
        encoder: anything with ``encode(sentences) -> (n, d)``.
        tasks: from ``load_suite`` or ``load_task``.
        protocol: "simcse" (the paper's) or "mteb", or an ``EvalProtocol`` of your own.
        where: the data; by default what is configured, or the official data from the Hub.
        limit: only the first pairs of every subset, for trying out.
        suite: name in the report.

    Raises:
        UserError: unreadable data, NaN or constant embeddings.
    """
    if isinstance(protocol, str):
        protocol = named_protocol(protocol)
    data, skipped = read_all(tasks, protocol, data_folder(tasks, where), limit)
    return score_all(encoder, tasks, data, skipped, protocol, limit, suite)[0]


def read_all(
    tasks: Sequence[Task], protocol: EvalProtocol, root: Path | None, limit: int | None = None
) -> tuple[dict[str, Data], dict[str, str]]:
    """The data of every task, and the tasks that have no such split with the reason; UserError if none has it."""
    data: dict[str, Data] = {}
    skipped: dict[str, str] = {}
    problems: list[str] = []
    for task in tasks:
        split = protocol.split_of(task)
        try:
            if task.kind == "transfer":
                data[task.name] = read_labelled(task, root, limit)
            elif split in task.splits:
                pairs = read_pairs(task, split, protocol.text, root)
                data[task.name] = pairs.head(limit) if limit else pairs
            else:
                skipped[task.name] = f"has no {split} split"
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    if not data:
        raise UserError(*(f"task {name!r} {why}." for name, why in skipped.items()))
    return data, skipped


def score_all(
    encoder: Encoder,
    tasks: Sequence[Task],
    data: Mapping[str, Data],
    skipped: Mapping[str, str],
    protocol: EvalProtocol,
    limit: int | None,
    suite: str,
    say: Say = silent,
) -> tuple[Report, dict[str, Floats]]:
    """Embed the distinct sentences of all tasks in one go, score every task; also the cosines of STS pairs."""
    start = time.perf_counter()
    whole = embed_once(encoder, data.values())
    embedded = time.perf_counter()
    model: Mapping[str, Any] = getattr(encoder, "provenance", {"name": type(encoder).__name__})
    device = str(model.get("device", "cpu"))
    results: dict[str, Any] = {}
    replicates: dict[str, dict[str, dict[str, Floats]]] = {}
    similarities: dict[str, Floats] = {}
    for task in (t for t in tasks if t.name in data):
        rows = data[task.name]
        try:
            if isinstance(rows, Pairs):
                similarities[task.name] = whole.cosines(rows)
                scored, replicates[task.name] = score_sts(similarities[task.name], rows, protocol, task.name)
            else:
                scored, replicates[task.name] = score_transfer(task, rows, *whole.sides(rows), protocol, device)
                say(f"{task.title}: {scored['scores']['accuracy']['all']['value']:.2f}")
        except UserError as error:
            raise UserError(*(f"task {task.name!r}: {problem}" for problem in error.problems)) from error
        text = task.source(protocol.text)[0]
        origin = {"split": protocol.split_of(task), "text": text, "fingerprint": rows.fingerprint()}
        results[task.name] = {"title": task.title, "kind": task.kind, "n": len(rows), **scored, "data": origin}
    counted = {"distinct_sentences": len(whole.rows), "empty_sentences": int("" in whole.rows)}
    one_kind = len({t.kind for t in tasks}) == 1  # a Spearman correlation and an accuracy have no average
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
        average=_average(results, replicates) if one_kind and not skipped else None,
        skipped=dict(skipped),
        limit=limit,
        stats=dict(getattr(encoder, "stats", {})) | counted,
        environment=machine,
        seconds={"embedding": round(embedded - start, 2), "scoring": round(time.perf_counter() - embedded, 2)},
        created=now(),
    )
    return report, similarities


def protocol_fields(protocol: EvalProtocol, tasks: Sequence[Task]) -> dict[str, Any]:
    """The protocol for a report; the probe only where a task has one."""
    probes = {task.name: task.probe for task in tasks if task.kind == "transfer"}
    if probes:
        return asdict(protocol) | {"task_probes": probes}
    return {name: value for name, value in asdict(protocol).items() if name != "probe"}


@dataclass(frozen=True)
class Embedded:
    """Every distinct sentence of some data with its vector."""

    rows: Mapping[str, int]
    vectors: Array  # (n, d)

    def of(self, sentences: Sequence[str]) -> Array:
        """Vectors (m, d) of these sentences, in their order."""
        return self.vectors[[self.rows[s] for s in sentences]]

    def sides(self, data: Data) -> tuple[Array, Array]:
        """Vectors of the left and the right sentences (of labelled ones: the first, and the second of pairs)."""
        left, right = (data.left, data.right) if isinstance(data, Pairs) else (data.texts, data.seconds)
        return self.of(left), self.of(right)

    def cosines(self, pairs: Pairs) -> Floats:
        """Of every pair (n,)."""
        return paired_cosine(*self.sides(pairs))


def embed_once(encoder: Encoder, data: Iterable[Data]) -> Embedded:
    """The distinct sentences of all data, embedded in one go."""
    sentences = distinct_sentences(data)
    return Embedded({s: i for i, s in enumerate(sentences)}, embed(encoder, sentences))


def distinct_sentences(data: Iterable[Data]) -> list[str]:
    """Every sentence once, in the order of first appearance.

    An empty sentence stays "" and is encoded as such. # differs from SentEval: its example scripts (bow.py) put "."
    in its place; SimCSE's batcher does not, and the published numbers come from SimCSE's.
    """

    def sentences(part: Data) -> Iterable[str]:
        if isinstance(part, Labelled):
            return itertools.chain(part.texts, part.seconds)
        return itertools.chain.from_iterable(zip(part.left, part.right, strict=True))

    return list(dict.fromkeys(itertools.chain.from_iterable(map(sentences, data))))


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
    embeddings = np.asarray(encoder.encode(sentences), dtype=np.float32)
    if embeddings.ndim != 2 or len(embeddings) != len(sentences):
        raise UserError(
            f"the encoder returned an array of shape {embeddings.shape} for {len(sentences)} sentences; "
            "expected one row per sentence."
        )
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
