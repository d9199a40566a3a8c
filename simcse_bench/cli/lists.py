"""What `ls` and `data check` show, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING as DEFAULTLESS
from dataclasses import fields
from functools import partial
from pathlib import Path

from simcse_bench.data.hub_datasets import shown_dataset
from simcse_bench.data.judged import Paraphrases
from simcse_bench.data.pairs import parts
from simcse_bench.data.reading import Data, read_task
from simcse_bench.data.registry import load_suites, load_task, task_names
from simcse_bench.data.rows import file_paths
from simcse_bench.data.task import OPTIONAL_FORMATS, PROTOCOLS, TEXT_VARIANTS, Task
from simcse_bench.errors import UserError
from simcse_bench.experiments.ablations import ABLATIONS, PRESETS
from simcse_bench.models.catalog import HEADS, MODELS, POOLERS, POOLINGS, PREPROCESSES
from simcse_bench.reports.report import MEASURES
from simcse_bench.reports.table import MISSING, Table
from simcse_bench.training.config import AUGMENTATIONS, GATHERS, MLPS, OBJECTIVES, SAME_MASKS, SIMILARITIES, TrainConfig
from simcse_bench.training.methods.known import METHODS, settings_of
from simcse_bench.training.recipes import RECIPES, recipe


def list_tasks(tasks_dir: Path | None = None) -> Table:
    """Every task with its rows, and how it is scored."""
    rows = []
    for name in task_names(tasks_dir):
        task = load_task(name, tasks_dir)
        known = {s: [n for n in subsets.values() if n is not None] for s, subsets in task.splits.items()}
        counts = ", ".join(f"{s} {sum(n)}" if n else s for s, n in known.items())
        names = [n for n in (task.title, *task.aliases) if n != name]
        scored = "correlation" if task.kind == "sts" else MEASURES[task.metric] + f", {task.probe}" * bool(task.probe)
        rows.append([name, ", ".join(names) or MISSING, counts, scored])
    note = "Names are understood in any case, with or without hyphens: STS-B, STSB and STSBenchmark are stsb."
    return Table("tasks", ["name", "also", "rows", "score"], rows, [note])


def list_suites(tasks_dir: Path | None = None) -> Table:
    """Every suite with its tasks."""
    rows = [[name, ", ".join(tasks)] for name, tasks in load_suites(tasks_dir).items()]
    note = "all (SimCSE's full): sts and transfer. Several at once: --suite sts,transfer."
    return Table("suites", ["name", "tasks"], rows, [note])


def list_models() -> Table:
    """Models whose settings are known."""
    rows, notes = [], []
    for m in MODELS.values():
        rows.append([m.checkpoint, m.pooling or "its own", m.head, str(m.max_length or MISSING), m.language])
        template = f"template {m.template}" if m.template else ""
        trained = f"trained on {', '.join(m.trained_on)}" if m.trained_on and "trained on" not in m.note else ""
        note = [text for text in (m.note, trained, m.usage, PREPROCESSES.get(m.preprocess or "", ""), template) if text]
        notes += [f"{m.checkpoint}: {'; '.join(note)}."] if note else []
    title = "models with known settings; others work with their own modules.json or --pooling"
    return Table(title, ["name", "pooling", "head", "length", "language"], rows, notes)


def list_poolings() -> Table:
    """Poolings and heads."""
    rows = [["--pooling", k, v] for k, v in POOLINGS.items()] + [["--head", k, v] for k, v in HEADS.items()]
    rows += [["--pooler", k, f"--pooling {pooling} --head {head}"] for k, (pooling, head) in POOLERS.items()]
    note = (
        "--pooler: SimCSE evaluation.py's names of a pooling and a head; all but cls are understood by --pooling too."
    )
    return Table("poolings and heads", ["option", "value", "meaning"], rows, [note])


def list_methods() -> Table:
    """Training methods, what each changes, and its settings."""
    rows = []
    for name, known in METHODS.items():
        settings = ", ".join(f"{k}={v}" for k, v in settings_of(name).items())
        rows.append([name, known.title, known.source, known.changes or MISSING, settings or MISSING])
    note = "`train --set method=NAME`, its settings likewise; `run-ablation methods` compares them. docs/methods.md."
    return Table(
        "methods of training", ["name", "method", "source", "changes in SimCSE's step", "settings"], rows, [note]
    )


def list_protocols() -> Table:
    """Protocols and what they decide."""
    rows = []
    for p in PROTOCOLS.values():
        differs = ", ".join(f"{t}: {s}" for t, s in p.task_splits.items())
        rows.append([p.name, p.text, p.split + (f" ({differs})" if differs else ""), str(p.resamples)])
    return Table("protocols", ["name", "text", "split", "bootstrap resamples"], rows)


def check_data(tasks: Sequence[Task], root: Path | None, fetch: bool = True) -> tuple[Table, list[str]]:
    """Read every split and text variant of every task; the table of what was found, and all problems.

    Without ``fetch``, a Hub dataset that may have a copy is only read from that copy, and SNLI and the probing tasks
    where they are here.
    """
    rows: list[list[str]] = []
    problems: list[str] = []

    def attempt(name: str, split: str, text: str, read: Callable[[], Data]) -> None:
        try:
            data = read()
        except UserError as error:
            problems.extend(error.problems)
            rows.append([name, split, text, "", "", "", "FAILED"])
            return
        judged = data.pairs if isinstance(data, Paraphrases) else data
        values = getattr(judged, "gold", getattr(judged, "labels", None))
        span = MISSING if values is None else f"{values.min():g}–{values.max():g}"
        rows.append([name, split, text, str(len(data)), span, str(data.duplicates()), data.fingerprint()])

    for task in tasks:
        if task.kind == "transfer":
            if not fetch and (missing := _absent_option(task, root)):
                rows.append([task.name, " + ".join(task.splits), "only", "", "", "", f"not here ({missing})"])
                continue
            attempt(task.name, " + ".join(task.splits), "only", partial(read_task, task, "", "only", root))
            continue
        built = task.source("senteval")[1].format == "sts"
        for text in TEXT_VARIANTS if built or "only" not in task.sources else task.sources:
            for split in task.splits:
                if not fetch and (absent := _without_copy(task, split, text, root)):
                    rows.append([task.name, split, text, "", "", "", f"no copy here ({absent})"])
                    continue
                attempt(task.name, split, text, partial(read_task, task, split, text, root))
    header = ["task", "split", "text", "rows", "gold", "repeated", "fingerprint"]
    note = "repeated: rows whose text stood in an earlier row"
    return Table("data", header, rows, [note]), list(dict.fromkeys(problems))


def _absent_option(task: Task, root: Path | None) -> Path | None:
    """A file of a task that need not be here, where none of its files is."""
    source = task.source("only")[1]
    if source.format not in OPTIONAL_FORMATS:
        return None
    parts = [file_paths(task, source, split, subset, root) for split in task.splits for subset in task.splits[split]]
    paths = [path for one in parts for path in one.values()]
    return None if any(path.exists() for path in paths) else paths[0]


def _without_copy(task: Task, split: str, text: str, root: Path | None) -> str:
    """What of a split is neither in SentEval's data nor here: a Hub dataset that may have a copy, CxC's files."""
    for part in parts(task):
        source = part.source(text)[1]
        names = [(s, n) for s in (part.splits if part is not task else [split]) for n in part.splits[s]]
        copies = [file_paths(part, source, s, n, root) for s, n in names]
        if source.format == "hub" and source.path and not all(copies):
            return shown_dataset(source)
        if source.format == "cxc" and not all(path.exists() for paths in copies for path in paths.values()):
            return source.path.format(split=split, subset=names[0][1], part="")
    return ""


def list_recipes() -> Table:
    """Recipes: what each changes of the trainer's defaults."""
    columns = ("model", "train", "batch_size", "learning_rate", "epochs", "max_steps", "temperature", "pooling", "mlp",
               "dtype")  # fmt: skip
    rows = []
    for name in RECIPES:
        config = recipe(name)
        rows.append([name, *(str(getattr(config, c)) for c in columns)])
    note = "max_steps 0: as many as the epochs give. Table A.1 of the paper; the mini ones are for trying the trainer."
    return Table("recipes", ["name", *columns], rows, [note])


def list_ablations() -> Table:
    """Ablations with their arms."""
    rows = [
        [a.name, a.title, ", ".join(a.arms_of(preset)), preset, a.published.source if a.published else MISSING]
        for a in ABLATIONS.values()
        for preset in (PRESETS if a.by_preset else ("all",))
    ]
    note = "Presets: " + "; ".join(f"{name}: {text}" for name, text in PRESETS.items()) + "."
    return Table("ablations", ["name", "what", "arms", "preset", "table"], rows, [note])


def list_settings() -> Table:
    """Every field of a training run with its default."""
    rows = [
        [f.name, "none" if f.default in (None, (), DEFAULTLESS) else str(f.default), f.metadata["help"]]
        for f in fields(TrainConfig)
    ]
    values = [
        (name, choices)
        for name, choices in (
            ("pooling", POOLINGS), ("mlp", MLPS), ("similarity", SIMILARITIES), ("same_mask", SAME_MASKS),
            ("gather", GATHERS), ("objective", OBJECTIVES), ("augmentation", AUGMENTATIONS),
        )
    ]  # fmt: skip
    notes = [f"{name} {value}: {text}" for name, choices in values for value, text in choices.items()]
    note = "--set dropout=p sets both dropout fields."
    return Table("settings of `train --set field=value`", ["field", "default", "meaning"], rows, [note, *notes])
