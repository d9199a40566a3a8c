"""A run's folder: the record train.json, the log, and checkpoints that are whole or not there."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from typing_extensions import TypedDict

from simcse_bench.errors import UserError
from simcse_bench.files import lock_folder, sha256, shown_name, write_json, write_text
from simcse_bench.models.weights import RUN_RECORD, SETTINGS_FILE
from simcse_bench.schema import read_record
from simcse_bench.training.config import TrainConfig, read_config

_WEIGHTS, _OPTIMIZER, _STATE, _CONFIG = "model.safetensors", "optimizer.safetensors", "state.json", "config.json"
_STEP = re.compile(r"step-\d+$")
# what a kill leaves of ours, under hidden names (here, saving.fill_folder, files.write_bytes)
_LEFT_OVER = re.compile(r"\.(new|old|train\.json|log\.jsonl|config\.json)-")


class Kept(TypedDict):
    """Which weights a run has kept."""

    step: int
    dev: float | None


class RunData(TypedDict):
    """The training text of a run."""

    name: str
    origin: str
    columns: int
    rows: int
    fingerprint: str


class RunRecord(TypedDict):
    """train.json."""

    schema: int
    status: Literal["running", "finished"]
    config: dict[str, Any]
    key: str  # job.key()
    model: dict[str, Any]
    method_models: NotRequired[dict[str, Any]]  # that the method reads, by its settings' names
    data: RunData
    dev: dict[str, Any] | None
    steps: int
    epochs: float
    notes: list[str]
    dropout: dict[str, float | None]
    random_at_start: list[str]
    kept: Kept
    measured: list[dict[str, float]]
    seconds: float
    sentences_per_second: float
    tokens_per_second: float
    state_mib: NotRequired[float]  # of weights, gradients, moments and the method's own state
    environment: dict[str, Any]
    created: str
    files: NotRequired[dict[str, str]]  # of a finished run: the model's files and their fingerprints


class LoggedStep(TypedDict):
    """A line of log.jsonl: the updates since the line before."""

    step: int
    epoch: float
    loss: float  # their mean
    grad_norm: float | None  # None where float16's overflowed
    learning_rate: float
    sentences_per_second: float
    tokens_per_second: float


class LoggedMeasure(TypedDict):
    """A line of log.jsonl: the weights measured on dev data."""

    step: int
    best: bool  # so far
    dev: NotRequired[float]  # percent
    alignment: NotRequired[float]
    uniformity: NotRequired[float]


LogLine = LoggedStep | LoggedMeasure


@dataclass
class State:
    """Where a run stands, beside the weights and the optimiser's moments.

    Sampler and random states need no room: the order of the rows follows from seed and epoch, and every step seeds
    its own random numbers from seed, step and rank. No field has a default: a file that lacks one is damaged.
    """

    key: str  # job.key() at the start
    processes: int
    step: int
    best: float | None  # dev score of the best weights so far
    best_step: int
    seconds: float  # of training, evaluation left out
    sentences: int
    tokens: int
    measured: list[dict[str, float]]  # dev scores and geometry with their steps
    scaler: dict[str, float]  # of float16
    files: dict[str, str]  # fingerprints of the checkpoint's other files

    @classmethod
    def first(cls, key: str, processes: int) -> State:
        """That of a run before its first update."""
        return cls(key, processes, 0, None, 0, 0.0, 0, 0, [], {}, {})


class RunFolder:
    """Files of one run below ``path``."""

    def __init__(self, path: Path):
        self.path = path
        self.log = path / "log.jsonl"

    def locked(self) -> AbstractContextManager[None]:
        """Keep other commands from this folder for as long as one trains in it."""
        return lock_folder(self.path)

    def require_own(self) -> None:
        """UserError where the folder holds anything and is no run's: what is there would be overwritten."""
        config = None
        with suppress(UserError):
            config = self.config()
        if self.record() is None and config is None:
            there = [p.name for p in _shown_entries(self.path) if p.name != "checkpoints" or _shown_entries(p)]
            if there:
                more = f" and {len(there) - 3} more" if len(there) > 3 else ""
                raise UserError(
                    f"--out {self.path}: the folder holds {', '.join(there[:3])}{more}, and no {RUN_RECORD}: it is no "
                    "run's, and nothing in it is overwritten. Choose another --out."
                )

    def record(self) -> dict[str, Any] | None:
        """train.json, where there is one."""
        path = self.path / RUN_RECORD
        if not path.exists():
            return None
        return dict(read_record(path, RunRecord, "not a run's record. Move it away or choose another --out."))

    def require_whole(self, record: Mapping[str, Any]) -> None:
        """UserError where files of a finished run's model are gone, or are not those that it wrote."""
        files: Mapping[str, str] = record.get("files") or {}
        wrong = []
        for name, digest in files.items():
            path = self.path / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif not _holds(path, digest):
                wrong.append(f"{name} is damaged or was changed")
        if wrong or not files:
            raise UserError(
                f"{self.path}: a finished run without its model: {'; '.join(wrong) or 'its record names no files'}. "
                "Train it anew with --force, or choose another --out."
            )

    def config(self) -> TrainConfig | None:
        """The settings of the unfinished run there, where there is one."""
        path = self.path / "checkpoints" / _CONFIG
        return read_config(path) if path.is_file() else None

    def start(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Remove what another run has left, and write down this one's settings."""
        # the weights first: without them nothing takes the other run for finished, nor its model for this one's
        for name in ("model.safetensors", SETTINGS_FILE, self.log.name):
            (self.path / name).unlink(missing_ok=True)
        self.clear_checkpoints()
        self.intend(config)
        self.write_record(record)

    def intend(self, config: TrainConfig) -> None:
        """Write down the settings that ``config`` gives back until the run is finished."""
        # beside the checkpoints and removed with them: these settings may hold paths of the machine
        write_json(self.path / "checkpoints" / _CONFIG, config.decisive())

    def write_record(self, content: Mapping[str, Any]) -> None:
        """Write train.json."""
        write_json(self.path / RUN_RECORD, content)

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """One line of log.jsonl."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def cut_log(self, step: int) -> None:
        """Drop the log's lines after a step: a resumed run writes them anew."""
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_text(self.log, "".join(f"{line}\n" for line in kept))

    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of every checkpoint, oldest first; they are moved into place and away whole."""
        folders = [p for p in self.path.glob("checkpoints/step-*") if _STEP.match(p.name)]
        return dict(sorted((int(p.name.removeprefix("step-")), p) for p in folders))

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
        """Write a checkpoint beside the others and rename it into place.

        The one before stays, should this one be damaged (a power failure, a full quota), and so do the best weights of
        each: three at the most.

        Raises:
            UserError: a full disk, say; the checkpoints before it stay.
        """
        target = self.path / "checkpoints" / f"step-{state.step:08d}"
        new = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._remove_older()
            new = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
            save_file(_weights(model), new / _WEIGHTS)
            save_file(_moments(model, optimizer), new / _OPTIMIZER)
            state.files = {name: sha256(new / name) for name in (_WEIGHTS, _OPTIMIZER)}
            (new / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
            self.remove(state.step)
            new.replace(target)
        except (OSError, SafetensorError) as error:
            raise self._cannot_write(error) from error
        finally:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)

    def _remove_older(self) -> None:
        """Leave the last checkpoint and the one of its best weights."""
        last = max(self.checkpoints(), default=None)
        if last is None:
            return
        with suppress(UserError):  # damaged: then all others stay
            kept = {last, self._read_state(last).best_step}
            for step in set(self.checkpoints()) - kept:
                self.remove(step)

    def remove(self, step: int) -> None:
        """Remove a checkpoint, whole or not at all."""
        path = self.checkpoints().get(step)
        if path is not None:
            remove_whole(path)

    def state(self, step: int) -> State:
        """The state of a checkpoint, whose files are found to be those that were written.

        Raises:
            UserError: a file that is missing, cut off or changed, here or in the checkpoint of its best weights.
        """
        folder, state = self.checkpoints()[step], self._read_state(step)
        for name, digest in state.files.items():
            if not _holds(folder / name, digest):
                raise UserError(f"{folder / name}: the checkpoint is damaged: the file is missing, cut off or changed.")
        if state.best is not None and state.best_step != step:
            if state.best_step not in self.checkpoints() or state.best_step > step:
                raise UserError(f"{folder}: no checkpoint of its best weights, those of step {state.best_step}.")
            self.state(state.best_step)
        return state

    def _read_state(self, step: int) -> State:
        path = self.checkpoints()[step] / _STATE
        state = read_record(path, State, "the checkpoint is damaged.")
        if state.step != step or set(state.files) != {_WEIGHTS, _OPTIMIZER}:
            raise UserError(f"{path}: the checkpoint is damaged: this is not the state of step {step}.")
        return state

    def last_state(self) -> tuple[State, list[str]]:
        """The state of the last usable checkpoint, and what is wrong with those after it.

        Raises:
            UserError: there is none.
        """
        problems: list[str] = []
        for step in sorted(self.checkpoints(), reverse=True):
            try:
                return self.state(step), problems
            except UserError as error:
                problems.extend(error.problems)
        raise UserError(
            *problems, f"{self.path}: no usable checkpoint. Start anew with --force, or choose another --out."
        )

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put the weights and moments of a checkpoint that is whole into model and optimiser."""
        self.load_weights(step, model)
        kept = load_file(self.checkpoints()[step] / _OPTIMIZER)
        for name, parameter in model.named_parameters():
            if f"{name}.exp_avg" in kept:
                keys = ("step", "exp_avg", "exp_avg_sq")  # the fused AdamW keeps its step count beside the moments
                optimizer.state[parameter] = {k: kept[f"{name}.{k}"].to(parameter.device) for k in keys}

    def load_weights(self, step: int, model: nn.Module) -> None:
        """Put a checkpoint's weights into the model."""
        kept = load_file(self.checkpoints()[step] / _WEIGHTS)
        with torch.no_grad():
            for name, tensor in _tensors(model).items():
                tensor.copy_(kept[name])

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints and what killed commands have left."""
        try:
            remove_whole(self.path / "checkpoints")
            for path in filter(lambda p: _LEFT_OVER.match(p.name), list(self.path.glob(".*"))):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        kept = max(self.checkpoints(), default=None)
        last = "no checkpoint was written yet" if kept is None else f"the checkpoint of step {kept} is whole"
        return UserError(f"cannot write {self.path}: {reason}; {last}. Free some space, then go on with --resume.")


def shown_config(config: TrainConfig) -> dict[str, Any]:
    """The settings without the machine's own paths."""
    paths = ("model", "train", "augmentation_file")
    shown: dict[str, Any] = {k: shown_name(getattr(config, k)) if getattr(config, k) else "" for k in paths}
    if config.method_settings:
        shown["method_settings"] = {k: _shown(v) for k, v in config.method_settings.items()}
    return config.decisive() | shown


def _shown(value: Any) -> Any:
    """A method's setting; where it names a model, as a report does: ``word-vectors:FILE``, say."""
    if not isinstance(value, str) or not value:
        return value
    kind, colon, path = value.rpartition(":")
    return kind + colon + shown_name(path)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters, and the buffers of the method: a queue, say. An encoder's own never change."""
    return dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n.startswith("method.")}


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model).items()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return moments


def _holds(path: Path, digest: str) -> bool:
    """Whether the file is there, can be read, and has this fingerprint."""
    try:
        return sha256(path) == digest
    except OSError:
        return False


def remove_whole(folder: Path) -> None:
    """Rename a folder out of the way, then remove it: a kill leaves it as it is or gone."""
    if folder.exists():
        hidden = folder.with_name(f".old-{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.replace(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _shown_entries(folder: Path) -> list[Path]:
    """What a user sees in a folder: our lock and half-written files are hidden."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off by the kill
        return 2**62
