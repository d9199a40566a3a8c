"""A saved report's pairs scored again: no model, no data folder, the digits of the evaluation that wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_bench.data.pairs import Pairs
from simcse_bench.data.task import EvalProtocol, Source, Task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.evaluate import Embedded, distinct_sentences, existing_report, protocol_fields
from simcse_bench.evaluation.metrics import Floats
from simcse_bench.evaluation.run import EvaluationPlan, EvaluationSettings, place, run_evaluation, with_bootstrap
from simcse_bench.files import require_writable, sha256
from simcse_bench.models.open import Model
from simcse_bench.reports.pair_records import Pair, load_records, pairs_path, report_beside
from simcse_bench.reports.report import Report, evaluation_key

if TYPE_CHECKING:
    from simcse_bench.progress import Progress


@dataclass(frozen=True)
class SavedPairs(Embedded):
    """Pairs with their cosines, where the vectors would be; as an encoder, it says whose they are."""

    similarities: Mapping[str, Floats]  # fingerprint of a task's pairs -> their cosines (n,)
    provenance: Mapping[str, Any]
    stats: Mapping[str, int]  # of the evaluation that wrote them

    def cosines(self, pairs: Pairs) -> Floats:
        """Of every pair (n,), as they were saved."""
        return self.similarities[pairs.fingerprint()]


def rescore(
    report: str | Path,
    resamples: int | None = None,
    bootstrap_seed: int | None = None,
    out: str | Path = "results",
    name: str | None = None,
    force: bool = False,
) -> Report:
    """Score the pairs beside a saved STS report again, and save the report that ``eval`` would.

    Args:
        report: its file, or the ``.pairs.jsonl`` beside it.
        resamples, bootstrap_seed: of the intervals; default: as they were.
        out: folder for the report; in that of the saved one, the same rules find it and nothing is computed.
        name: another name of the model.
        force: compute again, and replace what is there.

    Raises:
        UserError: no pairs there, of an older version, damaged, or not those of the report; a task
            other than STS, which needs more than they hold; another evaluation in the place of the report.
    """
    return run_evaluation(plan_rescore(Path(report), resamples, bootstrap_seed, Path(out), name, force))


def plan_rescore(
    source: Path,
    resamples: int | None = None,
    bootstrap_seed: int | None = None,
    out: Path = Path("results"),
    name: str | None = None,
    force: bool = False,
) -> EvaluationPlan:
    """All input of ``rescore``, read and checked."""
    path = report_beside(source)
    report = Report.load(path)
    _require_sts(path, report)
    records = load_records(path, report)
    data = {task: _pairs(records[task]) for task in report.tasks}
    fingerprints = _fingerprints(path, report, data)
    tasks = [_task(task, report) for task in data]
    said: Mapping[str, Any] = report.protocol
    known = {f.name: said[f.name] for f in fields(EvalProtocol) if f.name in said}
    protocol = with_bootstrap(EvalProtocol(**known), resamples, bootstrap_seed)
    model: dict[str, Any] = dict(report.model) | {"name": name or report.model["name"], "device": "cpu"}
    digest = sha256(pairs_path(path))
    model["scored_from"] = {"what": "pairs", "file": pairs_path(path).name, "sha256": digest, "key": report.key}
    rules = protocol_fields(protocol, tasks)
    key = evaluation_key(model, rules, fingerprints, report.limit)
    suite = "" if report.suite == "tasks" else report.suite
    target = place(model, rules, EvaluationSettings(suite, (*data, *report.skipped), limit=report.limit, out=out))
    require_writable(target)
    existing = None if force else existing_report(target, key, model, fingerprints, "--force")
    saved = SavedPairs(
        rows=dict.fromkeys(distinct_sentences(data.values()), 0),
        vectors=np.empty((0, int(model.get("dimension", 0))), np.float32),
        similarities={fingerprints[n]: np.array([row["cosine"] for row in rows]) for n, rows in records.items()},
        provenance=model,
        stats=report.stats,
    )

    def load(progress: Progress | None = None) -> Any:
        return saved

    opened = Model(model, load)
    return EvaluationPlan(
        opened, report.suite, tasks, protocol, data, report.skipped, report.limit, key, target, existing
    )


def _fingerprints(path: Path, report: Report, data: Mapping[str, Pairs]) -> dict[str, str]:
    """Of the pairs of every task; UserError unless they are the report's."""
    fingerprints = {task: pairs.fingerprint() for task, pairs in data.items()}
    other = [task for task, digest in fingerprints.items() if digest != report.tasks[task]["data"]["fingerprint"]]
    if other:
        raise UserError(
            f"{pairs_path(path)}: the pairs of {', '.join(other)} are not those that the report was made on "
            "(sentences, gold scores or their order differ). Evaluate again with --force."
        )
    return fingerprints


def _require_sts(path: Path, report: Report) -> None:
    wrong = [name for name, task in report.tasks.items() if "spearman" not in task["scores"]]
    if wrong:
        raise UserError(
            f"{path}: {', '.join(wrong)} {'is no STS task' if len(wrong) == 1 else 'are no STS tasks'}: cosines of "
            "pairs are all that an STS score needs, and no other; score these again from vectors: "
            "`simcse-bench rescore vectors.npy`."
        )


def _pairs(rows: Sequence[Pair]) -> Pairs:
    left, right, subset = (tuple(row[field] for row in rows) for field in ("left", "right", "subset"))
    return Pairs(left, right, np.array([row["gold"] for row in rows]), subset)


def _task(name: str, report: Report) -> Task:
    """What scoring needs of a task, from the report: a user's own task file need not be here."""
    said = report.tasks[name]
    return Task(name, said["title"], "sts", "", {said["data"]["text"]: Source("")}, {said["data"]["split"]: {}})
