"""A run's folder: the record train.json, the log, and checkpoints that are whole or not there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from simcse_bench.errors import UserError
from simcse_bench.files import lock_folder, read_json, shown_name, write_json, write_text
from simcse_bench.models.weights import SETTINGS_FILE
from simcse_bench.training.config import TrainConfig, from_mapping

RUN_RECORD = "train.json"
_WEIGHTS, _OPTIMIZER, _STATE, _CONFIG = "model.safetensors", "optimizer.safetensors", "state.json", "config.json"


@dataclass
class State:
    """Where a run stands, beside the weights and the optimiser's moments.

    Sampler and random states need no room: the order of the rows follows from seed and epoch, and every step seeds
    its own random numbers from seed, step and rank.
    """

    key: str = ""  # job.key() at the start
    step: int = 0
    best: float | None = None  # dev score of the best weights so far
    best_step: int = 0
    seconds: float = 0.0  # of training, evaluation left out
    sentences: int = 0
    tokens: int = 0
    measured: list[dict[str, float]] = field(default_factory=list)  # dev scores and geometry with their steps
    scaler: Mapping[str, Any] = field(default_factory=dict)  # of float16
    processes: int = 1


class RunFolder:
    """Files of one run below ``path``."""

    def __init__(self, path: Path):
        self.path = path
        self.log = path / "log.jsonl"

    def locked(self) -> AbstractContextManager[None]:
        """Keep other commands from this folder for as long as one trains in it."""
        return lock_folder(self.path)

    def record(self) -> dict[str, Any] | None:
        """train.json, where there is one."""
        path = self.path / RUN_RECORD
        if not path.exists():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or not {"config", "status", "data"} <= set(content):
            raise UserError(f"{path}: not a run's record. Move it away or choose another --out.")
        return content

    def config(self) -> TrainConfig | None:
        """The settings of the unfinished run there, where there is one."""
        path = self.path / "checkpoints" / _CONFIG
        return from_mapping(read_json(path)) if path.is_file() else None

    def start(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Remove what another run has left, and write down this one's settings."""
        self.clear_checkpoints()
        # without these two nothing takes the other run's model for this one's, should this one fail
        for path in (self.log, self.path / SETTINGS_FILE, self.path / "model.safetensors"):
            path.unlink(missing_ok=True)
        self.intend(config)
        self.write_record(record)

    def intend(self, config: TrainConfig) -> None:
        """Write down the settings that ``config`` gives back until the run is finished."""
        # beside the checkpoints and removed with them: these settings may hold paths of the machine
        write_json(self.path / "checkpoints" / _CONFIG, asdict(config))

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
            lines = self.log.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_text(self.log, "".join(f"{line}\n" for line in kept))

    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of every whole checkpoint, oldest first."""
        folders = self.path.glob("checkpoints/step-*")
        return {int(p.name.removeprefix("step-")): p for p in sorted(folders) if (p / _STATE).is_file()}

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
        """Write a checkpoint beside the others and rename it into place; keep this one and the best one.

        Raises:
            UserError: a full disk, say; the checkpoints before it stay.
        """
        target = self.path / "checkpoints" / f"step-{state.step:08d}"
        new = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
            save_file(_weights(model), new / _WEIGHTS)
            save_file(_moments(model, optimizer), new / _OPTIMIZER)
            (new / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            new.replace(target)
        except (OSError, SafetensorError) as error:
            raise self._cannot_write(error) from error
        finally:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
        for step, path in self.checkpoints().items():
            if step not in (state.step, state.best_step):
                shutil.rmtree(path, ignore_errors=True)

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        """Put a checkpoint's weights and moments into model and optimiser."""
        folder = self.checkpoints()[step]
        self.load_weights(step, model)
        with safe_open(folder / _OPTIMIZER, framework="pt") as tensors:
            kept = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 (no mapping)
        for name, parameter in model.named_parameters():
            if f"{name}.exp_avg" in kept:
                keys = ("step", "exp_avg", "exp_avg_sq")  # the fused AdamW keeps its step count beside the moments
                optimizer.state[parameter] = {k: kept[f"{name}.{k}"].to(parameter.device) for k in keys}
        return State(**read_json(folder / _STATE))

    def load_weights(self, step: int, model: nn.Module) -> None:
        """Put a checkpoint's weights into the model."""
        folder = self.checkpoints()[step]
        with safe_open(folder / _WEIGHTS, framework="pt") as tensors, torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors.get_tensor(name))

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _cannot_write(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        kept = max(self.checkpoints(), default=None)
        last = "no checkpoint was written yet" if kept is None else f"the checkpoint of step {kept} is whole"
        return UserError(f"cannot write {self.path}: {reason}; {last}. Free some space, then go on with --resume.")


def shown_config(config: TrainConfig) -> dict[str, Any]:
    """The settings without the machine's own paths."""
    paths = ("model", "train", "augmentation_file")
    shown = {k: shown_name(getattr(config, k)) if getattr(config, k) else "" for k in paths}
    return asdict(config) | shown


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return moments


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off by the kill
        return 2**62
