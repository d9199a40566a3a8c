"""One loop for unsupervised and supervised SimCSE, from a prepared job to a model folder."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simcse_bench.errors import Stopped, UserError
from simcse_bench.files import environment, now, sha256
from simcse_bench.models import cpu_kernels
from simcse_bench.models.encoders import free_memory, out_of_memory
from simcse_bench.models.saving import Parts, fill_folder, write_parts
from simcse_bench.progress import Say, Show, silent, unseen
from simcse_bench.training.folder import RunFolder, State
from simcse_bench.training.gradients import backward
from simcse_bench.training.job import Job
from simcse_bench.training.methods.simcse import BatchRows
from simcse_bench.training.model import SentenceModel, load_model, merged_state
from simcse_bench.training.optimizer import apply_update, learning_rate, make_optimizer


def write_model(model: SentenceModel, folder: Path, embedded: bool = False) -> dict[str, str]:
    """Write the anchors' encoder, tokenizer and MLP below ``folder``, each file whole or not at all.

    Gives the files' names and fingerprints.

    ``AutoModel`` loads it (``pooler_output`` is the MLP's output, where there is an MLP, of one pooling),
    sentence-transformers from version 2 on loads it with the embeddings of ``simcse-bench eval``. ``embedded``: it was
    trained from the mini encoder, which stands in the title of its reports.

    Raises:
        UserError: a full disk or a folder that cannot be written.
    """
    config = model.config
    dense = model.mlp if config.mlp == "always" else None
    pooler = None if model.mlp is None else model.mlp[0]
    encoder = model.encoders[0]
    with fill_folder(folder) as new:
        parts = Parts(
            encoder, model.tokenizer, config.pooling, model.limit, dense, pooler,
            embedded=embedded, prompt=model.method.prompt(), state=merged_state(encoder) if config.lora_rank else None,
        )  # fmt: skip
        write_parts(parts, new)
        return {p.relative_to(new).as_posix(): sha256(p) for p in sorted(new.rglob("*")) if p.is_file()}


LOG_EVERY = 10  # updates


def train_job(
    job: Job,
    out: Path,
    resume: bool = False,
    save_every: int = 500,
    show: Show = unseen,
    lone_score: bool = True,
    say: Say = silent,
) -> dict[str, Any]:
    """Train, select by the dev score, write the model into ``out`` and give the record (train.json).

    Args:
        job: from ``job.prepare_job``.
        out: the run's folder.
        resume: go on from the last checkpoint there, where there is one.
        save_every: updates between checkpoints; new best weights are one too.
        show: gets every entry of the log.
        lone_score: score the last weights even where no other score was taken, so that it selects nothing.
        say: is told of damaged checkpoints, where training goes on from an older one.

    Raises:
        UserError: a loss that is not finite, a full disk, the last checkpoint stays; no checkpoint that is whole.
        Stopped: after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    run = Run(job, RunFolder(out), show)
    try:
        return _run(run, resume, save_every, lone_score, say)
    finally:
        run.model.graphs = None  # they hold the weights, too


def _run(run: Run, resume: bool, save_every: int, lone_score: bool, say: Say) -> dict[str, Any]:
    job = run.job
    if resume and run.folder.checkpoints():
        run.restore(say)
    elif job.processes.main:
        run.folder.start(job.config, run.record("running"))
    job.processes.wait()
    with signals() as received:
        if run.state.step == 0 and job.config.track_geometry:
            run.measure(score=job.config.eval_every > 0, shape=True)
        while run.state.step < job.steps:
            run.update()
            step, last = run.state.step, run.state.step == job.steps
            scored = _due(step, job.config.eval_every, last) and (lone_score or not last or run.state.best is not None)
            due = scored, _due(step, job.config.track_geometry, last)
            save = step % save_every == 0 and not last
            log = step % LOG_EVERY == 0 or last or save or any(due)
            stop = False
            if log or job.processes.count == 1:
                stop = job.processes.any(bool(received)) and not last
            if log or stop:
                run.write_log()
            if any(due):
                save |= run.measure(*due) and not last
            if save or stop:
                run.save()
            if stop:
                code = 128 + (received[0] if received else signal.SIGTERM)
                raise Stopped(f"stopped at step {step} of {job.steps}; the same command with --resume goes on.", code)
    return run.finish()


class Run:
    """The state of a training run, and what happens in it."""

    def __init__(self, job: Job, folder: RunFolder, show: Show):
        self.job, self.folder, self.show = job, folder, show
        if job.processes.device.type == "cpu":
            cpu_kernels.keep_freed_memory()
        torch.manual_seed(job.config.seed)
        self.model, self.random_weights = load_model(job.checkpoint, job.config, job.processes.device)
        self.optimizer = make_optimizer(self.model, job.config)
        self.scaler = torch.amp.GradScaler(job.processes.device.type, enabled=job.config.dtype == "float16")
        # it knows its scale only once it has scaled something; the gradients are scaled in gradients.py
        self.scaler.scale(torch.ones((), device=job.processes.device))
        self.state = State.first(job.key(), job.processes.count)
        self.pending: list[tuple[int, Tensor, Tensor]] = []  # step, loss, norm: not yet fetched or logged
        self.started, self.counted = time.perf_counter(), (0, 0)

    def restore(self, say: Say = silent) -> None:
        """Go back to the last checkpoint that is whole."""
        self.state, problems = self.folder.last_state()
        if self.state.key != self.job.key(self.state.processes):
            raise UserError(
                f"--resume: the run in {self.folder.path} was started with other data, dev data or weights (files have "
                "changed). Start anew with --force or another --out."
            )
        if self.state.scaler.keys() != self.scaler.state_dict().keys():
            raise UserError(
                f"{self.folder.path}: the checkpoint of step {self.state.step} has no loss scale. Use --force."
            )
        step = self.state.step
        for problem in problems:
            say(f"{problem} Going on from step {step}.")
        self.folder.load(step, self.model, self.optimizer)
        self.scaler.load_state_dict(dict(self.state.scaler))
        self.counted = (self.state.sentences, self.state.tokens)
        self.job.processes.wait()
        if self.job.processes.main:
            for later in [s for s in self.folder.checkpoints() if s > step]:
                self.folder.remove(later)  # damaged
            self.folder.cut_log(step)
        self.started = time.perf_counter()

    def update(self) -> None:
        """One update of the weights: the losses of its batches, clipping, AdamW.

        Raises:
            UserError: memory ran out.
        """
        try:
            self._update()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise self._too_large() from error

    def _update(self) -> None:
        job, config, step = self.job, self.job.config, self.state.step
        self.model.method.done = step / job.steps
        for part, number in enumerate(job.batches_of(step)):
            rows = job.rows(number)
            seed = _seed(config.seed, step, part, job.processes.rank)
            scale = float(self.scaler.get_scale()) / config.accumulation
            common = _seed(config.seed, step, part) % 2**63
            texts = job.texts(number) if self.model.method.texts else ()
            loss = self._gradients(seed, rows, scale, common, texts, job.scores(number))
            views = config.views(len(rows[0]))
            self.state.sentences += views * len(rows) * len(rows[0])
            self.state.tokens += views * sum(len(s) for row in rows for s in row)
        rate = learning_rate(config, step, job.steps)
        norm = apply_update(self.model, self.optimizer, self.scaler, config, step, rate, job.processes)
        self.model.method.updated(self.model)
        self.state.step += 1
        self.pending.append((self.state.step, loss, norm))
        if self.model.device.type == "cpu":
            self.check()

    def _gradients(self, seed: int, rows: BatchRows, *more: Any) -> Tensor:
        """``backward`` of a batch; once more without recorded graphs where memory ran out beside them."""

        def once() -> Tensor:
            torch.manual_seed(seed)  # every update has random numbers of its own: a resumed run draws the same ones
            return backward(self.model, rows, self.job.processes, seed % 2**63, *more)

        try:
            return once()
        except (MemoryError, RuntimeError) as error:
            if self.model.graphs is None or self.job.processes.count > 1 or not out_of_memory(error):
                raise
        self._drop_graphs()
        self.optimizer.zero_grad()
        return once()

    def _drop_graphs(self) -> None:
        """Free the recorded graphs and the gradients they hold, which refer to each other."""
        if self.model.graphs is not None:
            self.model.graphs = None
            free_memory()

    def check(self) -> list[tuple[float, float]]:
        """Losses and norms since the last entry of the log; a UserError where one is not finite."""
        checked = []
        for step, loss, norm in self.pending:
            values = float(loss), float(norm)
            # float16's overflowing gradients are skipped by its scaler; a loss that is not finite never recovers
            if not math.isfinite(values[0]) or not (math.isfinite(values[1]) or self.scaler.is_enabled()):
                raise self._diverged(step, *values)
            checked.append(values)
        return checked

    def write_log(self) -> None:
        """An entry with the mean loss and the speed since the last one."""
        values = self.check()
        now, state, config = time.perf_counter(), self.state, self.job.config
        seconds = now - self.started
        state.seconds += seconds
        sentences, tokens = state.sentences - self.counted[0], state.tokens - self.counted[1]
        entry = {
            "step": state.step,
            "epoch": round(self.job.epoch(state.step), 4),
            "loss": round(float(np.mean([v[0] for v in values])), 6),
            "grad_norm": round(values[-1][1], 4) if math.isfinite(values[-1][1]) else None,
            "learning_rate": learning_rate(config, state.step - 1, self.job.steps),
            "sentences_per_second": round(sentences * self.job.processes.count / seconds, 1),
            "tokens_per_second": round(tokens * self.job.processes.count / seconds, 1),
        }
        self.pending, self.counted, self.started = [], (state.sentences, state.tokens), now
        self._enter(entry)

    def measure(self, score: bool, shape: bool) -> bool:
        """Dev score and geometry of the weights as they are; True where they are the best so far."""
        dev, state, better = self.job.dev, self.state, False
        if dev is not None and self.job.processes.main:
            measured = dev.measure(self.model.encoder(), score, shape)
            self.model.train()
            state.measured.append({"step": state.step, **measured})
            better = state.step > 0 and "dev" in measured and (state.best is None or measured["dev"] > state.best)
            if better:
                state.best, state.best_step = measured["dev"], state.step
            self._enter({"step": state.step, **measured, "best": better})
        better = self.job.processes.any(better)  # all processes must agree to save
        self.started = time.perf_counter()
        return better

    def save(self) -> None:
        """A checkpoint."""
        self.state.scaler = self.scaler.state_dict()
        if self.job.processes.main:
            self.folder.save(self.model, self.optimizer, self.state)
        self.job.processes.wait()
        self.started = time.perf_counter()

    def finish(self) -> dict[str, Any]:
        """Write the best weights (without dev scores the last ones) as a model, then the record."""
        state = self.state
        self._drop_graphs()
        if self.job.processes.main:
            if state.best is not None and state.best_step != state.step:
                self.folder.state(state.best_step)  # a UserError where it was damaged meanwhile
                self.folder.load_weights(state.best_step, self.model)
            files = write_model(self.model, self.folder.path, self.job.checkpoint.embedded)
            record = self.record("finished") | {"files": files}
            self.folder.write_record(record)
            self.folder.clear_checkpoints()
        else:
            record = self.record("finished")
        self.job.processes.wait()
        return record

    def record(self, status: str) -> dict[str, Any]:
        """The content of train.json."""
        job, state = self.job, self.state
        seconds = max(state.seconds, 1e-9)
        return {
            "schema": 1,
            "status": status,
            **job.describe(),
            "dropout": self.model.dropout(),
            "random_at_start": list(self.random_weights),
            "kept": {"step": state.best_step or state.step, "dev": state.best},
            "measured": state.measured,
            "seconds": round(state.seconds, 2),
            "sentences_per_second": round(state.sentences * job.processes.count / seconds, 1),
            "tokens_per_second": round(state.tokens * job.processes.count / seconds, 1),
            "state_mib": round(state_bytes(self.model) / 2**20, 2),
            "environment": environment(str(job.processes.device)) | {"processes": job.processes.count},
            "created": now(),
        }

    def _enter(self, entry: Mapping[str, Any]) -> None:
        if self.job.processes.main:
            self.folder.append_log(entry)
            self.show({**entry, "total": self.job.steps})

    def _too_large(self) -> UserError:
        config = self.job.config
        ways = [] if config.cached_gradients else ["cached_gradients=true (the same gradients, chunk by chunk)"]
        ways += ["a smaller chunk_tokens"] if config.cached_gradients else []
        ways += [] if config.gradient_checkpointing else ["gradient_checkpointing=true"]
        ways += [] if config.dtype == "bfloat16" else ["dtype=bfloat16"]
        ways += [f"max_length below {config.max_length}", f"batch_size below {config.batch_size} (another training)"]
        return UserError(
            f"step {self.state.step + 1}: out of memory on {self.job.processes.device}. What takes less, by --set: "
            f"{'; '.join(ways)}."
        )

    def _diverged(self, step: int, loss: float, norm: float) -> UserError:
        config = self.job.config
        kept = max(self.folder.checkpoints(), default=None)
        saved = "No checkpoint was written before" if kept is None else f"The checkpoint of step {kept} is kept"
        causes = [f"learning_rate {config.learning_rate:g} too high"]
        causes += ["float16 overflow: try dtype bfloat16"] if config.dtype == "float16" else []
        causes += [f"temperature {config.temperature:g} too low"] if config.temperature < 0.01 else []
        causes += ["dot products without a scale"] if config.similarity == "dot" else []
        return UserError(
            f"step {step}: loss {loss:g}, gradient norm {norm:g}: training has diverged. "
            f"Likely: {'; '.join(causes)}. {saved} in {self.folder.path}; start a run with other settings."
        )


def state_bytes(model: SentenceModel) -> int:
    """Memory of a run beside activations: weights, and for those trained gradients and two moments; method buffers."""
    weights = sum(p.nbytes * (4 if p.requires_grad else 1) for p in model.parameters())
    return weights + sum(b.nbytes for b in model.method.buffers())


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted in the list; a second one ends the process as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, before[number])
