"""One trial of a sweep: trained and measured, by this process or by several that train it together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from simcse_bench.config import TrainConfig
from simcse_bench.encoders import out_of_memory
from simcse_bench.errors import Stopped, UserError
from simcse_bench.launch import Place, launch
from simcse_bench.plan import Sweep, Trial
from simcse_bench.run_folder import RunFolder, shown_settings

if TYPE_CHECKING:
    from simcse_bench.train import Show

SCHEMA = 1
RUNS = "runs"  # unfinished trials' run folders, below the sweep's
_POLL = 0.2  # seconds between two looks at processes that train together


def outcome(sweep: Sweep, trial: Trial, force: bool, show: Show) -> dict[str, Any]:
    """The content of a trial's JSON: ``status`` "finished" with scores, or "failed" with the problems.

    Trains from the trial's checkpoint where there is one. Needs nothing but its arguments: a worker elsewhere can call
    it.

    Raises:
        Stopped: after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    try:
        return _head(sweep, trial) | {"status": "finished"} | _trained(sweep, trial, force, show)
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        return failure(sweep, trial, *(error.problems if isinstance(error, UserError) else ["out of memory."]))


def failure(sweep: Sweep, trial: Trial, *problems: str) -> dict[str, Any]:
    """The content of a failed trial's JSON."""
    return _head(sweep, trial) | {"status": "failed", "problems": list(problems)}


def _head(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    return {"schema": SCHEMA, "ablation": sweep.ablation.name, "preset": sweep.preset, "arm": trial.arm,
            "seed": trial.seed, "config": shown_settings(trial.config)}  # fmt: skip


def _trained(sweep: Sweep, trial: Trial, force: bool, show: Show) -> dict[str, Any]:
    """``run`` and scores of a trial; its run folder is removed when all is done."""
    out = sweep.folder / RUNS / trial.path.stem
    begun = RunFolder(out).config()
    if force or (begun is not None and begun != trial.config):
        shutil.rmtree(out, ignore_errors=True)
    # a score that selects nothing is taken once, by measure
    place = dataclasses.replace(sweep.place, out=out, resume=True, force=False, lone_score=False)
    if sweep.processes > 1:
        record = _together(trial.config, place, sweep.processes, show)
    else:
        record = launch(trial.config, place, show, lambda line: None)
    measured = measure(out, trial.config.eval_task, place)
    shutil.rmtree(out)
    with contextlib.suppress(OSError):  # failed trials keep theirs
        out.parent.rmdir()
    return {"run": {k: v for k, v in record.items() if k not in ("config", "existing", "status", "schema")}, **measured}


def measure(model: Path, task_name: str, place: Place) -> dict[str, Any]:
    """Dev and test scores, geometry, and the dev pairs' similarities of a trained model, from one forward pass.

    ``test`` is None where the task has no such split.
    """
    from simcse_bench.evaluate import distinct_sentences, embed
    from simcse_bench.models import open_model
    from simcse_bench.selection import read_split
    from simcse_bench.task import load_task

    names = [s for s in ("dev", "test") if s in load_task(task_name, place.tasks_dir).splits]
    splits = {s: read_split(task_name, s, place.data_dir, place.tasks_dir, place.data_revision) for s in names}
    sentences = distinct_sentences([split.data for split in splits.values()])
    encoder = open_model(str(model), device=place.device).load()
    vectors = dict(zip(sentences, embed(encoder, sentences), strict=True))
    found: dict[str, Any] = {"test": None}
    for name, split in splits.items():
        found[name] = split.describe() | {"score": round(split.score(vectors), 4)} | split.shape(vectors)
    found["dev"]["similarities"] = [round(float(x), 5) for x in splits["dev"].similarities(vectors)]
    return found


def _together(config: TrainConfig, place: Place, processes: int, show: Show) -> dict[str, Any]:
    """train.json of a run that several processes of this machine have trained, under torchrun.

    They are `simcse-bench train --resume` on a folder that holds the settings. A signal is passed on to them, so that
    they leave a checkpoint.

    Raises:
        UserError: what they say; more processes than GPUs.
        Stopped: after a signal.
    """
    from simcse_bench.train import signals

    _check_gpus(place.device, processes)
    folder = RunFolder(place.out)
    folder.intend(config)
    options = {"--data-dir": place.data_dir, "--tasks-dir": place.tasks_dir}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "simcse_bench", "train", "--resume", "--quiet", "--out", str(place.out), "--device", place.device,
        "--save-every", str(place.save_every), "--data-revision", place.data_revision,
        *(text for name, path in options.items() if path for text in (name, str(path))),
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    news = _news(folder)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        signals() as received,
        # a session of their own: the terminal's Ctrl-C reaches them once, through us
        subprocess.Popen(  # noqa: S603 (our own command)
            command, env=threads | os.environ, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        ) as group,
    ):
        passed_on = False
        while group.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                group.wait(_POLL)
            for entry in next(news):
                show(entry)
            if received and not passed_on:
                passed_on = True
                group.send_signal(received[0])
        record = folder.record()
        if record is None or record["status"] != "finished":
            if received:
                raise Stopped("stopped; the same command goes on.", 128 + received[0])
            raise UserError(*_problems(said, group.returncode))
    return record


def _check_gpus(device: str, processes: int) -> None:
    import torch

    if device != "cpu" and torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise UserError(f"--processes {processes}: {torch.cuda.device_count()} GPUs are there; each process takes one.")


def _news(folder: RunFolder) -> Iterator[list[Mapping[str, Any]]]:
    """Each time the entries added to the run's log since the last time."""
    read = 0
    while True:
        entries = []
        record = folder.record() if folder.log.exists() else None
        if record:
            with folder.log.open("rb") as stream:
                stream.seek(read)
                for line in stream:
                    if not line.endswith(b"\n"):  # being written
                        break
                    read += len(line)
                    entries.append(json.loads(line) | {"total": record["steps"]})
        yield entries


def _problems(said: IO[str], code: int) -> list[str]:
    """The errors that processes have told; each of them tells the same one."""
    said.seek(0)
    lines = [line.strip() for line in said if line.strip()]
    told = list(dict.fromkeys(line.partition("error: ")[2] for line in lines if line.startswith("error: ")))
    last = [line for line in lines if "Error" in line][-1:]
    return told or [f"its processes ended with code {code}: {' '.join(last) or 'they said nothing'}"]
