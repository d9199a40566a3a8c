"""What is here, what is missing, what that costs and what mends it: `simcse-bench doctor`.

Nothing is downloaded, nothing is written, and no check ends the others: one that fails says so in its place.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.hub_datasets import copy_of
from simcse_bench.data.pairs import needs_root
from simcse_bench.data.registry import load_suites, load_task
from simcse_bench.data.rows import file_paths
from simcse_bench.data.senteval import ANYWHERE, ENV_DATA, DataSource, find_root, given_root, is_configured
from simcse_bench.data.task import Task
from simcse_bench.errors import UserError, first_line
from simcse_bench.files import ENV_CACHE, cache_dir, processor, require_writable
from simcse_bench.reports.table import Table

OK, MISSING, PROBLEM = "ok", "missing", "problem"
PACKAGES = ("simcse-bench", "torch", "transformers", "tokenizers", "sentence-transformers", "accelerate", "datasets",
            "huggingface_hub", "mteb", "numpy", "scipy", "scikit-learn", "matplotlib")  # fmt: skip
EXTRAS = {  # extra of pyproject.toml -> what is not there without it
    "vi": "no Vietnamese word segmentation: the PhoBERT models of `ls models` are refused",
    "ray": "no --executor ray: arms of an ablation, suites and files on this machine only",
    "peft": "no adapters (LoRA) as models, and none are trained (lora_rank, the recipes for decoders)",
    "onnx": "no `export --to onnx`",
    "synonyms": "Table 1's synonym arm is left out (it needs `python -m nltk.downloader wordnet`, too)",
    "search": "no `index --approximate`: every sentence is compared, which takes longer in large indexes",
}
_SECONDS = 1.0  # that a cache is measured for


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str  # OK, MISSING (something else goes without it) or PROBLEM
    here: str
    costs: str = ""  # what does not work, or is slower, as it is
    mend: str = ""  # the command or setting that changes it


def examine(where: DataSource = ANYWHERE, out: Path = Path("results")) -> list[Finding]:
    """Everything that decides what works on this machine, and how fast; a few seconds.

    Args:
        where: the data, as for an evaluation.
        out: folder that results would go to.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "torch": _torch,
        "processor": _processor,
        "kernels": _kernels,
        "GPU": _gpu,
        "data": lambda: _data(where),
        "caches": _caches,
        "extras": _extras,
        "results": lambda: _results(out),
    }
    return [finding for what, check in checks.items() for finding in _tried(what, check)]


def doctor_table(findings: Sequence[Finding]) -> Table:
    """The findings, for people."""

    def told(finding: Finding) -> str:
        costs = f"\nwithout it: {finding.costs}" if finding.costs and finding.state == MISSING else ""
        costs = costs or (f"\n{finding.costs}" if finding.costs else "")
        return finding.here + costs + (f"\nto mend: {finding.mend}" if finding.mend else "")

    rows = [[finding.what, finding.state, told(finding)] for finding in findings]
    problems = [f.what for f in findings if f.state == PROBLEM]
    verdict = f"Problems: {', '.join(problems)}." if problems else "No problem."
    return Table("what is here", ["", "", "here"], rows, [f"{verdict} What is missing, the quick start does without."])


def _tried(what: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of a check, up to where it failed, which is one, too."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except UserError as error:
        findings.append(Finding(what, PROBLEM, " ".join(error.problems)))
    except Exception as error:  # whatever a broken installation raises
        findings.append(Finding(what, PROBLEM, f"cannot be looked at: {first_line(error)}"))
    return findings


def _versions() -> Iterator[Finding]:
    installed = {name: _version(name) for name in PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    yield Finding("versions", OK, f"Python {platform.python_version()} on {platform.system()}; {shown}")
    absent = [name for name in ("torch", "transformers", "numpy", "scipy") if not installed[name]]
    if absent:
        yield Finding("versions", PROBLEM, f"not installed: {', '.join(absent)}", "nothing works", "pip install .")


def _torch() -> Iterator[Finding]:
    import torch

    backends = [("oneDNN", torch.backends.mkldnn), ("MKL", torch.backends.mkl), ("OpenMP", torch.backends.openmp)]
    there = [name for name, backend in backends if backend.is_available()]
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the processor"
    here = f"{torch.__version__}, built {build}, with {', '.join(there) or 'no library'}"
    if torch.version.cuda and not torch.cuda.is_available():
        yield Finding("torch", OK, here, "no GPU is used here: the processor's build has the same results, and is "
                      "gigabytes smaller", "see pytorch.org/get-started/locally: CPU")  # fmt: skip
    else:
        yield Finding("torch", OK, here)


def _processor() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, set_by = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    here = (
        f"{processor()}, {torch.backends.cpu.get_cpu_capability()}; cores for this process: {cores}, threads: {threads}"
    )
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        here += "; they sleep while they wait for each other (a core is in use by others, or OMP_WAIT_POLICY says so)"
    if threads < cores and set_by:
        cost = f"OMP_NUM_THREADS={set_by} leaves {cores - threads} of {cores} cores idle"
        yield Finding("processor", OK, here, cost, "unset OMP_NUM_THREADS")
    elif threads > cores:
        yield Finding("processor", PROBLEM, here, "more threads than cores wait for each other: many times slower",
                      f"export OMP_NUM_THREADS={cores}")  # fmt: skip
    else:
        yield Finding("processor", OK, here)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > cores:
        here = f"{busy:.1f} processes compute on {cores} cores"
        yield Finding("load", OK, here, "what is measured now is slower than this machine is")


def _kernels() -> Iterator[Finding]:
    import torch

    from simcse_bench.models import cpu_kernels, int8
    from simcse_bench.models.open import open_model

    for dtype in ("float32", "bfloat16"):
        what = f"kernels, {dtype}"
        if not cpu_kernels.supported(getattr(torch, dtype)):
            here = "torch's own: this torch or processor has no oneDNN layer for it"
            yield Finding(what, MISSING, here, "evaluation takes up to four times as long; the scores are the same")
            continue
        encoder: Any = open_model(bundled.MODEL, dtype=dtype, device="cpu").load()
        ours = encoder.provenance["kernels"] == "oneDNN"
        agree = "give the vectors of transformers' own code for the mini encoder"
        if ours:
            here = f"ours (oneDNN, packed weights, short attention): they {agree}"
            if dtype == "bfloat16" and not cpu_kernels.processor_multiplies_in_bfloat16():
                yield Finding(what, MISSING, "the processor has no bfloat16 products: they would be emulated",
                              "bfloat16 is slower than float32 here: recipes (dtype auto) take float32")  # fmt: skip
            else:
                yield Finding(what, OK, here)
        else:
            yield Finding(what, PROBLEM, f"torch's own: ours do not {agree}", "evaluation is slower; scores are right")
    if int8.multiplies_in_int8():
        yield Finding("kernels, int8", OK, "8-bit products (VNNI): `--dtype int8` is faster, its vectors less exact")
    else:
        yield Finding("kernels, int8", MISSING, "the processor has no 8-bit products (VNNI)", "no `--dtype int8`")


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            yield Finding(f"GPU cuda:{i}", OK, f"{about.name}, {about.total_memory / 2**30:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Finding("GPU mps", OK, "Apple's")
    else:
        yield Finding("GPU", MISSING, "none that this torch can use",
                      "the paper's recipes (BERT and larger) train for days; the mini recipes need none")  # fmt: skip


def _data(where: DataSource) -> Iterator[Finding]:
    fetch = f"simcse-bench data fetch (90 MB), or {ENV_DATA}=FOLDER in SentEval's layout"
    cost = "no published number can be compared with: mini is evaluated on the embedded data"
    suites = load_suites()
    if is_configured(where):
        root = find_root(where, download=False)
        yield Finding("data", OK, f"{root.path} ({root.origin})")
        for suite in ("sts", "transfer"):
            tasks = [load_task(name) for name in suites[suite]]
            absent = {task.name: path for task in tasks for path in [_absent(task, root.path)] if path}
            here = f"{len(tasks) - len(absent)} of {len(tasks)} tasks"
            if absent:
                here += f"; without {', '.join(absent)} (no {next(iter(absent.values()))})"
            lost = f"no average of suite {suite}, and no score of {', '.join(absent)}" if absent else ""
            yield Finding(f"data, {suite}", MISSING if absent else OK, here, lost, fetch if absent else "")
    else:
        yield Finding("data", MISSING, "no data in SentEval's layout is configured or cached", cost, fetch)
    given = given_root(where)
    tasks = [load_task(name) for name in suites["sts-multilingual"] + suites["sts-vi"]]
    copied = [task.name for task in tasks if not _absent_copies(task, given.path if given else None)]
    here = f"copies of {len(copied)} of {len(tasks)} tasks" + f": {', '.join(copied)}" * bool(copied)
    if len(copied) == len(tasks):
        yield Finding("data, other languages", OK, here)
    else:
        cost, mend = (
            "the others come from the Hub when they are evaluated first",
            "docs/evaluate.md says where copies lie",
        )
        yield Finding("data, other languages", MISSING, here, cost, mend)
    embedded = [task for task in bundled.TASKS if not _absent(load_task(task), None)]
    if len(embedded) == len(bundled.TASKS) and (bundled.model_folder() / "model.safetensors").is_file():
        yield Finding("data, embedded", OK, f"the mini encoder, {', '.join([*embedded, *bundled.TEXTS])}")
    else:
        yield Finding(
            "data, embedded", PROBLEM, "not whole", "the quick start does not work", "install the package anew"
        )


def _absent(task: Task, root: Path | None) -> Path | None:
    """The first file of a task that is not there."""
    if root is None and needs_root(task):
        return Path("the data folder")
    paths = (
        path
        for source in task.sources.values()
        for split, subsets in task.splits.items()
        for subset in subsets
        for path in file_paths(task, source, split, subset, root).values()
    )
    return next((path for path in paths if not path.is_file()), None)


def _absent_copies(task: Task, root: Path | None) -> bool:
    """Whether a Hub task's rows are not all in files here."""
    source = task.source("senteval")[1]
    return not all(copy_of(source, task.folder, s, n, root) for s, subsets in task.splits.items() for n in subsets)


def _caches() -> Iterator[Finding]:
    from huggingface_hub import constants

    ours = cache_dir()
    yield Finding("cache, data", OK, f"{ours}: {_size(ours)} ({ENV_CACHE})")
    hub = Path(constants.HF_HUB_CACHE)
    offline = "; HF_HUB_OFFLINE is set: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    yield Finding("cache, models", OK, f"{hub}: {_size(hub)} (HF_HOME){offline}")
    place = next(p for p in (ours, *ours.parents) if p.exists())
    free = shutil.disk_usage(place).free
    small = free < 2 * 10**9
    yield Finding("disk", PROBLEM if small else OK, f"{_bytes(free)} free at {place}",
                  "a model of BERT's size needs 0.4 GB, a run of it with its checkpoints 4 GB" if small else "",
                  f"{ENV_CACHE}, HF_HOME and --out on another disk" if small else "")  # fmt: skip


def _size(folder: Path) -> str:
    """What a folder holds; a lower bound where it takes long to say."""
    if not folder.is_dir():
        return "not there yet"
    until, total, files = time.monotonic() + _SECONDS, 0, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                total, files = total + path.stat().st_size, files + 1
        if time.monotonic() > until:
            return f"more than {_bytes(total)}"
    return f"{_bytes(total)} in {files:,} files"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def _extras() -> Iterator[Finding]:
    required = importlib.metadata.requires("simcse-bench") or []
    for extra, cost in EXTRAS.items():
        lines = [line for line in required if re.search(rf"extra == ['\"]{extra}['\"]", line)]
        packages = [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in lines]
        absent = [name for name in packages if not _version(name)]
        if absent:
            install = f'pip install "simcse-bench[{extra}]"'
            yield Finding(f"extra {extra}", MISSING, f"not installed: {', '.join(absent)}", cost, install)
        else:
            yield Finding(f"extra {extra}", OK, ", ".join(f"{name} {_version(name)}" for name in packages))


def _results(out: Path) -> Iterator[Finding]:
    try:
        require_writable(out / "doctor.json")
    except UserError as error:
        yield Finding("results", PROBLEM, first_line(error), "no report can be saved", "--out FOLDER")
    else:
        yield Finding("results", OK, f"{out}/ can be written" + ("" if out.is_dir() else " (not there yet)"))


def _version(package: str) -> str:
    """Its version; "" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
