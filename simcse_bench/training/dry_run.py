"""What a run would do and cost: steps, tokens, memory and time, by a few of its own updates in memory."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from simcse_bench.evaluation.evaluate import distinct_sentences
from simcse_bench.progress import Say, unseen
from simcse_bench.reports.table import counted
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.run import RunOptions

if TYPE_CHECKING:
    from simcse_bench.training.job import Job
    from simcse_bench.training.train import Run

MEASURED_STEPS = 3  # of a dry run
_MEASURED_ON_GPU = 9  # of which some record what the others repeat
_MEASURED_SENTENCES = 200  # of a dev score


def estimate(config: TrainConfig, options: RunOptions, say: Say) -> tuple[list[tuple[str, str]], float]:
    """What a run would do and cost, by a few of its own updates in memory, and its seconds, dev scores included.

    Nothing is written but the token cache.
    """
    from simcse_bench.training.job import prepare_job
    from simcse_bench.training.processes import join_processes
    from simcse_bench.training.train import Run

    job = prepare_job(config, join_processes(options.device), options.where, say)
    run = Run(job, RunFolder(options.out), unseen)
    seconds = []
    for _ in range(min(_MEASURED_ON_GPU if job.processes.device.type == "cuda" else MEASURED_STEPS, job.steps)):
        start = time.perf_counter()
        run.update()
        run.check()
        seconds.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in run.model.parameters())
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    lengths = job.data.lengths()
    rows = job.epoch(job.steps) * len(job.data)
    tokens = float(lengths.sum(1).mean()) * config.views(job.data.columns) * rows
    # the first update also fetches memory and compiles kernels
    each = statistics.median(seconds[1:] or seconds)
    dev = _dev_seconds(run)
    length = job.steps * each + _evaluations(job) * dev
    shown = f"{shown_duration(length)} on {job.processes.device}, {each:.2f} s an update"
    shown += f", {dev:.1f} s a dev score" * bool(_evaluations(job))
    facts = [
        ("start", f"{job.checkpoint.name}, {trained / 1e6:.1f} million weights trained"),
        ("data", f"{job.corpus.name}: {counted(len(job.data), 'row')} of {_columns(job)}, {_counted(job)}"),
        ("steps", f"{counted(job.steps, 'update')}, {job.epoch(job.steps):.2f} epochs, batch {config.batch_size}"),
        ("tokens", f"{tokens / 1e6:,.1f} million, {float(lengths.mean()):.1f} a sentence"),
        ("dev scores", _shown_evaluations(job)),
        ("memory", _peak(job, len(seconds))),
        (
            "disk",
            f"{parameters * 12 / 1e9:.2f} GB a checkpoint, at most 3 are kept; {parameters * 4 / 1e9:.2f} GB the model",
        ),
        ("time", shown),
    ]
    return facts + [("note", note) for note in job.notes()], length


def _columns(job: Job) -> str:
    return "two sentences and a score" if job.corpus.scored else counted(job.corpus.columns, "column")


def _counted(job: Job) -> str:
    truncated, empty = job.data.counts["truncated"], job.data.counts["empty"]
    return f"{counted(truncated, 'sentence')} truncated, {counted(empty, 'empty row')} left out"


def _evaluations(job: Job) -> int:
    """How many dev scores are taken."""
    return 0 if job.dev is None or not job.config.eval_every else -(-job.steps // job.config.eval_every)


def _shown_evaluations(job: Job) -> str:
    count = _evaluations(job)
    return f"{count} on {job.config.eval_task}" if count else "none: the last weights are kept"


def _dev_seconds(run: Run) -> float:
    """Of one dev score, by some of its sentences."""
    dev = run.job.dev
    if dev is None:
        return 0.0
    sentences = distinct_sentences([dev.data])
    some = sentences[:: max(1, len(sentences) // _MEASURED_SENTENCES)]
    encoder = run.model.encoder()
    encoder.encode(some[:1])
    start = time.perf_counter()
    encoder.encode(some)
    return (time.perf_counter() - start) * len(sentences) / len(some)


def _peak(job: Job, updates: int) -> str:
    if job.processes.device.type == "cuda":
        import torch

        size = torch.cuda.max_memory_allocated(job.processes.device)
    else:
        try:
            import resource
        except ImportError:  # Windows
            return "not known on this system"
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    return f"{size / 1e9:.1f} GB at the peak of {counted(updates, 'update')}"


def shown_duration(seconds: float) -> str:
    """In words."""
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"about {max(1, minutes)} min"
