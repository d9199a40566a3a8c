"""One run trained by several processes of this machine: started here under torchrun, each of them this module again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from simcse_bench.data.senteval import DataSource
from simcse_bench.errors import Stopped, UserError
from simcse_bench.progress import Show, silent, unseen
from simcse_bench.training.config import TrainConfig
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.run import RunOptions, require_place, settle_config, train

_POLL = 0.2  # seconds between two looks at processes that train together


def train_together(config: TrainConfig, options: RunOptions, processes: int, show: Show) -> dict[str, Any]:
    """train.json of a run that several processes of this machine have trained.

    Each of them goes on with the run in the folder, which holds its settings. A signal is passed on to them, so that
    they leave a checkpoint.

    Raises:
        UserError: what they say; more processes than GPUs.
        Stopped: after a signal.
    """
    from simcse_bench.training.train import signals

    _check_gpus(options.device, processes)
    require_place(config, options.out)
    folder = RunFolder(options.out)
    folder.intend(config)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "simcse_bench.training.together", json.dumps(dataclasses.asdict(options), default=str),
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


def _one_of_them() -> None:
    """What each process does: the run that the first argument, ``RunOptions`` as JSON, says."""
    given = json.loads(sys.argv[1])
    named: Any = {k: Path(v) if v and k != "revision" else v for k, v in given["where"].items()}
    given |= {"out": Path(given["out"]), "where": DataSource(**named), "trackers": tuple(given["trackers"])}
    options = RunOptions(**given)
    try:
        train(settle_config(None, (), options), options, unseen, silent)
    except UserError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        raise SystemExit(stop.code) from None


if __name__ == "__main__":
    _one_of_them()
