"""A training job: everything a run needs, read and checked before the first step."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_bench.data.corpus import Corpus, open_corpus
from simcse_bench.data.senteval import ANYWHERE, DataSource
from simcse_bench.data.text_formats import TextRow
from simcse_bench.errors import UserError
from simcse_bench.files import cache_dir, fingerprint, sha256
from simcse_bench.models import checkpoints
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.loading import load_tokenizer
from simcse_bench.models.prompts import NO_PROMPT
from simcse_bench.models.weights import weight_files
from simcse_bench.progress import Say, silent
from simcse_bench.training import augment
from simcse_bench.training.config import TrainConfig, prompt_of
from simcse_bench.training.folder import shown_config
from simcse_bench.training.methods.known import method_class
from simcse_bench.training.processes import Processes
from simcse_bench.training.selection import Dev, read_dev
from simcse_bench.training.tokenised import Tokenised, tokenise


@dataclass(frozen=True)
class Job:
    """One training run, ready to start."""

    config: TrainConfig
    checkpoint: Checkpoint  # to start from
    corpus: Corpus
    data: Tokenised
    dev: Dev | None
    processes: Processes

    @property
    def batches(self) -> int:
        """Batches in an epoch.

        # differs from SimCSE: a last batch too small for a negative, or for all processes, is left out.
        """
        whole, rest = divmod(len(self.data), self.config.batch_size)
        return whole + (rest >= max(2, self.processes.count))

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.config.max_steps or math.ceil(self.config.epochs * self._updates)

    @property
    def _updates(self) -> int:
        """Updates in an epoch."""
        return max(1, self.batches // self.config.accumulation)

    def batches_of(self, step: int) -> range:
        """Batches of the run whose gradients make update ``step`` (from 0).

        As in SimCSE trainers.py: what an epoch leaves over is added to the next epoch's first update, or dropped at the
        end; an epoch of fewer batches than ``accumulation`` is one update.
        """
        accumulation = self.config.accumulation
        epoch, place = divmod(step, self._updates)
        first, last = place * accumulation, min((place + 1) * accumulation, self.batches)
        if place == 0 and epoch > 0 and self.batches > accumulation:
            first -= self.batches % accumulation
        return range(epoch * self.batches + first, epoch * self.batches + last)

    def epoch(self, step: int) -> float:
        """How often the data has been seen after so many updates."""
        return self.batches_of(step - 1).stop / self.batches if step else 0.0

    def rows(self, batch: int) -> list[tuple[list[int], ...]]:
        """This process's token ids of a batch of the run: every epoch has an order of its own."""
        return [self.data.row(i) for i in self._numbers(batch)]

    def scores(self, batch: int) -> NDArray[np.float32] | None:
        """The same rows' scores."""
        return None if self.data.scores is None else self.data.scores[self._numbers(batch)]

    def texts(self, batch: int) -> list[str]:
        """The same rows' first texts."""
        return [self._texts[i] for i in self._numbers(batch)]

    @functools.cached_property
    def _texts(self) -> list[str]:
        """First texts of the rows that are kept, see ``tokenise``."""
        return [row[0] for row in self.corpus.rows() if all(text.strip() for text in row)]

    def _numbers(self, batch: int) -> list[int]:
        epoch, place = divmod(batch, self.batches)
        order = _order(len(self.data), self.config.seed, epoch)
        chosen = order[place * self.config.batch_size : (place + 1) * self.config.batch_size]
        return [int(i) for i in chosen[self.processes.share(len(chosen))]]

    def describe(self) -> dict[str, Any]:
        """What decides the weights, for the record; without the machine's own paths."""
        return {
            "config": shown_config(self.config),
            "key": self.key(),
            "model": self.checkpoint.provenance(),
            **({"method_models": self._models} if self._models else {}),
            "data": {
                "name": self.corpus.name,
                "origin": self.corpus.origin,
                "columns": self.corpus.columns,
                **self.data.counts,
                "fingerprint": self.corpus.fingerprint,
                "tokens_fingerprint": self.data.fingerprint,
            },
            "dev": self.dev.describe() if self.dev else None,
            "steps": self.steps,
            "epochs": round(self.epoch(self.steps), 4),
            "notes": self.notes(),
        }

    def key(self, processes: int = 0) -> str:
        """Fingerprint of all that decides the weights: settings, data, files of the start, dev data, processes.

        ``processes``: instead of the present number of them.
        """
        # names of places do not count, what they hold does
        settings = self.config.decisive() | {"model": "", "train": ""}
        content = [settings, self.data.fingerprint, self.checkpoint.provenance()["files"],
                   self.dev.describe() if self.dev else None, processes or self.processes.count]  # fmt: skip
        if self._models:
            settings["method_settings"] |= dict.fromkeys(self._models, "")
            content.append({name: {**model, "name": ""} for name, model in self._models.items()})
        return fingerprint(content)

    @functools.cached_property
    def _models(self) -> Mapping[str, Any]:
        """What the method reads beside the checkpoint."""
        return method_class(self.config.method).models(self.config)

    def notes(self) -> list[str]:
        """What a user should know of these settings."""
        config, notes = self.config, []
        if config.accumulation > 1:
            notes.append(
                f"accumulation {config.accumulation}: {config.accumulation * config.batch_size} rows an update, "
                f"but each anchor still meets the {config.batch_size - 1} other rows of its own batch only; "
                "for more negatives set batch_size, with cached_gradients true to fit them into memory."
            )
        if config.objective != "self" and self.corpus.name.partition("@")[0] == "wiki1m":
            notes.append(f"objective {config.objective}: the lines of wiki1m are in random order, not a document's.")
        if self.checkpoint.prompt != NO_PROMPT and not config.template:
            notes.append(
                f"the start's own prompt is not used ({self.checkpoint.prompt.template!r}); set template for one."
            )
        if self.steps and config.eval_every == 0:
            notes.append("no dev scores: the last weights are kept.")
        return notes


# differs from SimCSE: the same seed gives another order than its RandomSampler's; ours follows from seed and epoch
# alone, so that a resumed run needs no sampler state
@functools.lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Any:
    return np.random.default_rng([seed, epoch]).permutation(n)


def prepare_job(
    config: TrainConfig,
    processes: Processes,
    where: DataSource = ANYWHERE,
    say: Say = silent,
) -> Job:
    """Read and check everything a run needs; tokenise the training text, once for all runs.

    Raises:
        UserError: settings, model, training text or dev data that cannot be used.
    """
    config = config.check().settled(where, processes.device.type)
    if config.batch_size < 2 * processes.count:
        raise UserError(
            f"batch_size {config.batch_size}: with {processes.count} processes expected at least 2 for each."
        )
    checkpoint = checkpoints.resolve(config.model, config.revision, config.pooling, "none")
    corpus = open_corpus(config.train, config.columns, config.max_rows, scored=config.scored)
    if corpus.columns > 1 and (config.makes_positives or config.same_mask != "no"):
        which = (
            "same_mask" if config.same_mask != "no" else "objective" if config.objective != "self" else "augmentation"
        )
        raise UserError(f"{which}: makes the positive of a one-column row; {corpus.name} has {corpus.columns} columns.")
    method = method_class(config.method)
    if method.lone_sentences and corpus.columns > 1:
        raise UserError(
            f"method {config.method}: rows of one sentence only; {corpus.name} has {corpus.columns} columns."
        )
    if processes.count > 1 and not method.several_processes:
        raise UserError(f"method {config.method}: trains in one process, not in {processes.count}.")
    dev = None
    if config.eval_every or config.track_geometry:
        dev = read_dev(config.eval_task, config.track_geometry > 0, where)
    if processes.main:  # the others find it done
        data = _tokenised(config, checkpoint, corpus, str(processes.device), say)
    processes.wait()
    if not processes.main:
        data = _tokenised(config, checkpoint, corpus, str(processes.device), say)
    if data.scores is not None:
        problems = method_class(config.method).score_problems(config, data.scores)
        if problems:
            raise UserError(*problems)
    job = Job(config, checkpoint, corpus, data, dev, processes)
    if job.batches == 0:
        raise UserError(
            f"{corpus.name}: {len(data)} rows are too few for a batch; expected at least 2 for each process."
        )
    if config.warmup_steps >= job.steps:
        raise UserError(f"warmup_steps {config.warmup_steps}: the run has only {job.steps} updates.")
    return job


def _tokenised(config: TrainConfig, checkpoint: Checkpoint, corpus: Corpus, device: str, say: Say) -> Tokenised:
    tokenizer_files = {
        k: v for k, v in checkpoint.provenance()["files"].items() if "safetensors" not in k and ".bin" not in k
    }
    decides: list[Any] = [corpus.fingerprint, tokenizer_files, config.max_length]
    if config.makes_positives:
        decides += [
            config.objective,
            config.augmentation,
            config.augmentation_rate,
            config.seed,
            _augmentation_key(config, checkpoint),
        ]
    if config.augmentation == "mlm" and config.max_steps:
        decides.append(_first_rows(config))
    prompt = prompt_of(config)
    if prompt != NO_PROMPT:
        decides.append(prompt.template)
    key = fingerprint(decides)

    def rows() -> Iterator[TextRow]:  # nothing is read, and no model loaded, where the tokens are there already
        if not config.makes_positives:
            yield from corpus.rows()
            return
        synonyms, fill, reached = None, None, None
        if config.augmentation == "synonym" and config.augmentation_file:
            synonyms = Path(config.augmentation_file)
        if config.augmentation == "mlm":
            folder = _mlm_folder(config, checkpoint)
            fill = augment.mlm_filler(folder, config.augmentation_rate, config.seed, device)
            reached = _reached(config, corpus)
        yield from augment.make_pairs(
            corpus.rows(), config.objective, config.augmentation, config.augmentation_rate, config.seed, synonyms, fill,
            reached,
        )  # fmt: skip

    def progress(done: int) -> None:
        if done % 100_000 == 0:
            say(f"tokenised {done:,} rows of {corpus.name}")

    tokenizer = load_tokenizer(checkpoint)
    return tokenise(
        rows(),
        2 if config.makes_positives else corpus.columns,
        tokenizer,
        config.max_length,
        key,
        cache_dir(),
        progress,
        prompt,
        corpus.scored,
    )


def _first_rows(config: TrainConfig) -> int:
    return config.max_steps * config.accumulation * config.batch_size


def _reached(config: TrainConfig, corpus: Corpus) -> set[int] | None:
    """Numbers of the corpus' rows that a run of ``max_steps`` trains on; None where it may go through all of them.

    A language model takes longer to fill in the words of a large corpus than a short run to train.
    """
    kept = [number for number, (text,) in enumerate(corpus.rows()) if text.strip()]  # as `tokenise` keeps them
    count = _first_rows(config)
    if not count or count > len(kept) - config.batch_size:  # the last rows may be left out of the first epoch
        return None
    return {kept[i] for i in _order(len(kept), config.seed, 0)[:count]}


def _mlm_folder(config: TrainConfig, checkpoint: Checkpoint) -> Path:
    if not config.augmentation_file:
        return checkpoint.folder
    return checkpoints.resolve(config.augmentation_file, pooling="cls", head="none").folder


def _augmentation_key(config: TrainConfig, checkpoint: Checkpoint) -> str:
    """Fingerprint of the synonyms or of the masked language model."""
    if config.augmentation == "mlm":
        return " ".join(sha256(p) for p in weight_files(_mlm_folder(config, checkpoint)))
    if config.augmentation_file and Path(config.augmentation_file).is_file():
        return sha256(Path(config.augmentation_file))
    return config.augmentation_file
