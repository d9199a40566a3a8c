"""Tasks, suites and protocols: what is measured and under which rules.

A task is one YAML file in ``tasks/`` (its file name is its name; fields in ``tasks/README.md``).
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import reprlib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from simcse_bench.bundled import builtin_tasks_dir
from simcse_bench.errors import UserError, first_line, unknown

MAX_YAML = 1 << 20  # bytes of a task file or suites.yaml
STS_FORMATS = ("semeval", "tsv", "csv", "hub", "cxc")
TRANSFER_FORMATS = ("class_files", "sst", "sst_fine", "trec", "mrpc", "snli", "probing", "tsv")
TABLES = ("tsv", "csv", "hub")
FORMATS = {  # of each kind of task
    "sts": STS_FORMATS,
    "transfer": TRANSFER_FORMATS,
    "paraphrase": TABLES,
    "triplet": TABLES,
    "ranking": ("jsonl", "sts"),
}
KINDS = tuple(FORMATS)
PAIR_COLUMNS, TRIPLET_COLUMNS = ("gold", "left", "right"), ("anchor", "positive", "negative")
# of a transfer task -> its number of splits
PROBE_SPLITS = {"nested_kfold": 1, "kfold": 2, "split": 3, "linear_split": 3, "snli": 3, "relatedness": 3}
PAIR_PROBES = ("snli", "relatedness")
TEXT_VARIANTS = ("senteval", "raw")
OPTIONAL_FORMATS = ("snli", "probing")  # data from SentEval itself, which need not be in the official archive
PARTS = {"semeval": ("input", "gs"), "snli": ("s1", "s2", "labels")}  # of a format that has several files a subset
UNICODE_FORMS = ("", "NFC")
PROBE_NAMES = ("exact", "fast", "sklearn", "mlp", "mlp-tuned")
METRICS = ("spearman", "pearson")
METRICS_OF = {  # the scores of each kind of task; the first is the one that is shown
    "sts": METRICS,
    "transfer": ("accuracy",),
    "paraphrase": ("ap", "f1", "accuracy"),
    "triplet": ("accuracy",),
    "ranking": ("mrr", "hits@1", "hits@3"),
}
REGRESSION = ("pearson",)  # of a transfer task whose probe is a regression
AGGREGATES = ("all", "mean", "wmean")


@dataclass(frozen=True)
class Source:
    """Where the rows of a task lie and how to read them (one text variant)."""

    format: str
    path: str = ""  # relative to the data folder; {split}, {subset} and (PARTS) {part} are filled in. hub: of a copy
    columns: Mapping[str, int | str] = field(default_factory=lambda: {"gold": 0, "left": 1, "right": 2})
    header: bool = False
    widths: tuple[int, ...] = ()  # numbers of fields that a line may have; empty: as many as the header or the first
    encoding: str = "utf-8"
    unicode: str = ""  # NFC: sentences are brought into this form; empty: as they stand in the file
    dataset: str = ""  # hub: dataset id
    config: str | None = None
    revision: str | None = None
    positives: Mapping[str, float | str] = field(default_factory=dict)  # sts: task -> lowest gold, or "25 %": the best

    def fields(self) -> list[int | str]:
        """The columns of a row's fields: gold, left and right (if any), or anchor, positive and negative."""
        names = TRIPLET_COLUMNS if "anchor" in self.columns else PAIR_COLUMNS
        return [self.columns[name] for name in names if name in self.columns]

    @property
    def in_one_field(self) -> bool:
        """Whether one column holds both sentences."""
        return "left" in self.columns and self.columns["left"] == self.columns.get("right")

    @property
    def is_pairs(self) -> bool:
        """Whether a row has two sentences."""
        singles = ("class_files", "sst", "sst_fine", "trec", "probing")
        return self.format not in singles and (self.format != "tsv" or "right" in self.columns)


@dataclass(frozen=True)
class Task:
    """One evaluation task. ``splits[split][subset]`` is the number of rows, None where it is not known."""

    name: str
    title: str
    kind: str
    reference: str
    sources: Mapping[str, Source]  # text variant -> source; the key "only" serves every variant
    splits: Mapping[str, Mapping[str, int | None]]
    gold: tuple[float, float] = (0.0, 5.0)
    labels: tuple[str, ...] = ()  # their order numbers them; of a probing file none: those of its training rows
    probe: str = ""
    folder: Path = Path()  # where the YAML file lies: a user's own data paths are relative to it
    aliases: tuple[str, ...] = ()  # what else it is called: SentEval's and mteb's names of the same data
    unique: tuple[str, ...] = ()  # splits without the pairs that stand twice in them or in another split, see pairs
    center: bool = False  # ranking: the mean of all the task's vectors is subtracted before the cosine

    @property
    def metric(self) -> str:
        """The first metric of its kind; of a trained regression its correlation."""
        return "pearson" if self.probe == "relatedness" else METRICS_OF[self.kind][0]

    def source(self, variant: str) -> tuple[str, Source]:
        """The variant that is truly read, and its source; what is built from STS tasks has their variants.

        Raises:
            UserError: the task has no such text variant.
        """
        if "only" in self.sources:
            only = self.sources["only"]
            return variant if only.format == "sts" else "only", only
        if variant not in self.sources:
            raise unknown(f"text variant of task {self.name}", variant, self.sources)
        return variant, self.sources[variant]


@dataclass(frozen=True)
class EvalProtocol:
    """The rules that decide a number; stored whole in every report."""

    name: str
    text: str  # text variant: "senteval" (tokenised, STS lower-cased) or "raw" (as SemEval released it)
    split: str = "test"
    task_splits: Mapping[str, str] = field(default_factory=dict)  # task -> split, where it differs
    probe: str = "exact"  # classifier of transfer tasks: one of probe.PROBES
    resamples: int = 1000  # of the bootstrap
    bootstrap_seed: int = 0
    excluded: Mapping[str, str] | None = None  # pairs left out: of which training text, by which record

    def split_of(self, task: Task) -> str:
        """The split of this task that the protocol reads."""
        return self.task_splits.get(task.name, self.split)


# SimCSE evaluation.py, mode "test"/"dev", with its fork of SentEval
SIMCSE = EvalProtocol("simcse", text="senteval")
# mteb's English STS tasks: raw text, SICK-R over all 9,927 pairs
MTEB = EvalProtocol("mteb", text="raw", task_splits={"sickr": "all"})
PROTOCOLS = {p.name: p for p in (SIMCSE, MTEB)}


def named_protocol(name: str) -> EvalProtocol:
    """The protocol of this name."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def task_names(tasks_dir: str | Path | None = None) -> list[str]:
    """Names of the built-in tasks and of those in the user's folder, in suite order then by name."""
    names = [n for members in _suites(builtin_tasks_dir()).values() for n in members if "/" not in n]
    for folder in reversed(_folders(tasks_dir)):
        names += sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "suites")
    return list(dict.fromkeys(names))


def load_suites(tasks_dir: str | Path | None = None) -> dict[str, list[str]]:
    """Suite name -> task names; a user's folder may add suites of its own in ``suites.yaml``."""
    return {name: members for folder in reversed(_folders(tasks_dir)) for name, members in _suites(folder).items()}


def load_suite(name: str, tasks_dir: str | Path | None = None) -> list[Task]:
    """The tasks of a suite, in the order of the paper's columns; its name in any spelling of ``same_name``."""
    suites = load_suites(tasks_dir)
    known = known_name(name, suites)
    if known is None:
        raise unknown("suite", name, suites)
    return [load_task(t, tasks_dir) for t in suites[known]]


def load_task(name: str, tasks_dir: str | Path | None = None) -> Task:
    """Read the task of this name, in any spelling of ``same_name``, or of this alias.

    The user's folder comes before the built-in tasks, a file's exact name before both. ``TASK/SUBSET`` is one subset
    of an STS task: a language, for one.
    """
    stem, _, subset = name.partition("/")
    path = _task_file(stem, tasks_dir)
    if path is not None:
        task = parse_task(path.stem, _read_yaml(path), path)
        return _one_subset(task, subset) if subset else task
    paths = _task_files(tasks_dir)
    error = unknown("task", name, [*task_names(tasks_dir), *(a for p in paths for a in _aliases(p))])
    raise UserError(f"{error} A task of mteb's own: --suite mteb:NAME.")


def _one_subset(task: Task, subset: str) -> Task:
    """The task with one of its subsets only, called ``TASK/SUBSET``."""
    if task.kind != "sts":
        raise UserError(
            f"{task.name}/{subset}: {task.name} is a {task.kind} task; only STS tasks are taken in subsets."
        )
    known = known_name(subset, dict.fromkeys(name for subsets in task.splits.values() for name in subsets))
    if known is None:
        raise unknown(f"subset of task {task.name}", subset, [n for subsets in task.splits.values() for n in subsets])
    splits = {split: {known: subsets[known]} for split, subsets in task.splits.items() if known in subsets}
    return replace(task, name=f"{task.name}/{known}", title=f"{task.title} {known}", splits=splits, aliases=())


def same_name(name: str) -> str:
    """What all spellings of a name share: STS-B, STSB and sts_b are one task."""
    return re.sub(r"[\s_-]", "", name).casefold()


def known_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant: the same, else the same in another spelling; None where there is none."""
    names = list(known)
    return name if name in names else next((n for n in names if same_name(n) == same_name(name)), None)


def task_name(name: str, tasks_dir: str | Path | None = None) -> str:
    """The name of the task that a name means; the name itself where there is none."""
    stem, slash, subset = name.partition("/")
    path = _task_file(stem, tasks_dir)
    return f"{path.stem}{slash}{subset}" if path else name


@cache
def builtin_names() -> Mapping[str, str]:
    """Every name and alias of the built-in tasks, spelt as by ``same_name``, and the task that it means."""
    files = _task_files(None)
    return {same_name(alias): path.stem for path in files for alias in (*_aliases(path), path.stem)}


def _task_file(name: str, tasks_dir: str | Path | None) -> Path | None:
    """The task's file: of this name, of this name spelt otherwise, of this alias."""
    paths, wanted = _task_files(tasks_dir), same_name(name)
    kinds = (
        (p for p in paths if p.stem == name),
        (p for p in paths if same_name(p.stem) == wanted),
        (p for p in paths if wanted in map(same_name, _aliases(p))),
    )
    return next(itertools.chain(*kinds), None)


def _aliases(path: Path) -> list[str]:
    """The aliases in a task's file; none of one that cannot be read, which is told when it is named."""
    with contextlib.suppress(UserError):
        aliases = _read_yaml(path).get("aliases")
        return [str(alias) for alias in aliases] if isinstance(aliases, list) else []
    return []


def _task_files(tasks_dir: str | Path | None) -> list[Path]:
    return [p for folder in _folders(tasks_dir) for p in sorted(folder.glob("*.yaml")) if p.stem != "suites"]


def parse_task(name: str, fields: Mapping[str, Any], path: Path) -> Task:
    """Build a Task from the fields of its YAML file.

    Raises:
        UserError: every problem of the file at once.
    """
    known = {
        "title", "aliases", "kind", "reference", "gold", "source", "sources", "splits", "unique", "labels", "probe",
        "center",
    }  # fmt: skip
    problems = [str(unknown("field", _named(f), sorted(known))) for f in fields if f not in known]
    problems += _type_problems(fields, {"title": str, "reference": str, "center": bool})
    kind = fields.get("kind", "sts")
    if kind not in KINDS:
        problems.append(str(unknown("kind", _named(kind), KINDS)))
    if ("source" in fields) == ("sources" in fields):
        problems.append("exactly one of 'source' (one text) and 'sources' (one per text variant) is needed.")
    raw_sources = {"only": fields["source"]} if "source" in fields else fields.get("sources")
    sources = {}
    if not isinstance(raw_sources, Mapping) or not raw_sources:
        problems.append("source: expected fields such as {format: tsv, path: pairs.tsv}.")
        raw_sources = {}
    for variant, entry in raw_sources.items():
        wrong = _source_problems(entry, str(kind))
        problems += [f"source {variant!r}: {p}" for p in wrong]
        if not wrong:
            sources[str(variant)] = Source(**{**entry, "widths": tuple(entry.get("widths", ()))})
    gold = fields.get("gold", [0, 1] if kind == "paraphrase" else [0, 5])
    numbers = isinstance(gold, list) and len(gold) == 2 and all(_is_number(g) for g in gold)
    if not numbers or not gold[0] < gold[1]:
        problems.append(f"gold: expected [lowest, highest], found {_shown(gold)}.")
    splits = fields.get("splits")
    if not isinstance(splits, Mapping) or not _are_names([*splits]) or not all(map(_is_split, splits.values())):
        problems.append(
            "splits: expected 'split: {subset: rows}' with names in text and rows empty where unknown, such as "
            f"'test: {{test: }}'; found {_shown(splits)}."
        )
        splits = {}
    unique = fields.get("unique", [])
    if not _are_names(unique) or not set(unique) <= set(splits) or (unique and kind != "sts"):
        problems.append(f"unique: expected a list of splits of an sts task, found {_shown(unique)}.")
        unique = []
    if kind == "paraphrase" and splits and not {"dev", "test"} <= {*splits}:
        problems.append(
            f"splits: a paraphrase task needs dev (where thresholds are chosen) and test, found {_shown([*splits])}."
        )
    if "center" in fields and kind != "ranking":
        problems.append("center: only for ranking tasks.")
    for source in sources.values():
        if source.format == "sts" and {*source.positives} != {name for subsets in splits.values() for name in subsets}:
            problems.append("positives: expected an entry for each STS task that the splits name, such as {stsb: 4}.")
    aliases = fields.get("aliases", [])
    if not _are_names(aliases):
        problems.append(f"aliases: expected a list of other names, each a text of its own, found {_shown(aliases)}.")
        aliases = []
    labels, probe = fields.get("labels") or [], fields.get("probe")
    # a regression has none, and a probing file's are those of its training rows
    labelled = kind == "transfer" and probe != "relatedness" and all(s.format != "probing" for s in sources.values())
    if not _are_names(labels) or (labelled and len(labels) < 2):
        problems.append(f"labels: expected a list of at least two, each a text of its own, found {_shown(labels)}.")
        labels = []
    if kind == "transfer":
        if not isinstance(probe, str) or probe not in PROBE_SPLITS:
            problems.append(str(unknown("probe", _named(probe), PROBE_SPLITS)))
        elif len(splits) != PROBE_SPLITS[probe]:
            problems.append(f"splits: probe {probe} takes {PROBE_SPLITS[probe]}, found {len(splits)}.")
        if probe in PAIR_PROBES and not all(s.is_pairs for s in sources.values()):
            problems.append(f"probe {probe}: takes pairs of sentences, from a format such as tsv.")
    if problems:
        raise UserError(*(f"{path}: {p}" for p in problems))
    return Task(
        name=name,
        title=str(fields.get("title", name)),
        kind=kind,
        reference=str(fields.get("reference", "")),
        sources=sources,
        splits={str(s): {str(k): v for k, v in subsets.items()} for s, subsets in splits.items()},
        gold=(float(gold[0]), float(gold[1])),
        labels=tuple(str(label) for label in labels),
        probe=str(probe or ""),
        folder=path.parent,
        aliases=tuple(str(alias) for alias in aliases),
        unique=tuple(map(str, unique)),
        center=fields.get("center") is True,
    )


def _folders(tasks_dir: str | Path | None) -> list[Path]:
    """Where task files lie: the user's folder first, then the built-in ones."""
    if not tasks_dir:
        return [builtin_tasks_dir()]
    if not Path(tasks_dir).is_dir():
        raise UserError(f"--tasks-dir {tasks_dir} is not a folder; give one that holds task files such as mytask.yaml.")
    return [Path(tasks_dir), builtin_tasks_dir()]


def _source_problems(entry: Any, kind: str) -> list[str]:
    """What is wrong with a source of a task of this kind, before it is built."""
    if not isinstance(entry, Mapping):
        return [f"expected fields such as {{format: tsv, path: pairs.tsv}}, found {_shown(entry)}."]
    known = Source.__dataclass_fields__
    problems = [str(unknown("field", _named(f), known)) for f in entry if f not in known]
    problems += _type_problems(entry, {"header": bool, "config": str, "revision": str})
    formats = FORMATS.get(kind, STS_FORMATS)
    form = entry.get("format")
    if form not in formats:
        problems.append(str(unknown(f"format of {kind} tasks", _named(form), formats)))
    if kind == "ranking":
        taken = {"format", "positives"} if form == "sts" else {"format", "path", "unicode"}
        problems += [f"{f}: not for a ranking task's format {form}." for f in entry if f in known and f not in taken]
    elif "positives" in entry:
        problems.append("positives: only for a ranking task of format sts.")
    if form == "sts":
        return problems + _positives_problems(entry.get("positives"))
    for place in ("dataset", *(["path"] if "path" in entry else [])) if form == "hub" else ("path",):
        if not isinstance(entry.get(place), str) or not entry[place] or "\0" in entry[place]:
            problems.append(f"{place}: expected text, found {_shown(entry.get(place))}.")
        elif place == "path" and not _is_pattern(entry[place]):
            problems.append(f"path {_shown(entry['path'])}: only {{split}}, {{subset}} and {{part}} are filled in.")
    if entry.get("unicode", "") not in UNICODE_FORMS:
        problems.append(f"unicode {_shown(entry['unicode'])}: expected NFC, or leave it out to take the text as it is.")
    if not _is_encoding(entry.get("encoding", "utf-8")):
        problems.append(f"encoding {_shown(entry['encoding'])}: not known to Python; such as utf-8 or latin-1.")
    widths = entry.get("widths", [1])
    if not isinstance(widths, list) or not widths or not all(_is_count(n) and n for n in widths):
        problems.append(f"widths: expected the numbers of fields of a line, such as [7, 9], found {_shown(widths)}.")
    names = TRIPLET_COLUMNS if kind == "triplet" else PAIR_COLUMNS
    columns = entry.get("columns", dict(zip(PAIR_COLUMNS, range(3), strict=True)) if names == PAIR_COLUMNS else None)
    alone = kind == "transfer" and isinstance(columns, Mapping) and {*columns} == {"gold", "left"}  # no second sentence
    if not alone and (not isinstance(columns, Mapping) or {*columns} != {*names}):
        return [*problems, f"columns: expected {names[0]}, {names[1]} and {names[2]}, found {_shown(columns)}."]
    named = form == "hub" or entry.get("header") is True
    for name, column in columns.items():
        number = _is_count(column) and form != "hub"
        if not number and not (named and isinstance(column, str)):
            problems.append(
                f"columns: {name} is {_shown(column)}; expected a number from 0, or a name where there is a header."
            )
    return problems


def _positives_problems(positives: Any) -> list[str]:
    """What is wrong with the rules of what is a positive pair of an STS task."""
    expected = "positives: expected the lowest gold score of a positive pair, or the share of the best, for each STS "
    expected += f"task, such as {{stsb: 4, str22: 25 %}}, found {_shown(positives)}."
    if not isinstance(positives, Mapping) or not positives or not _are_names([*positives]):
        return [expected]
    return [] if all(_is_number(rule) or best_share(rule) for rule in positives.values()) else [expected]


def best_share(rule: Any) -> float | None:
    """0.25 of "25 %"; None where it is no share."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", rule) if isinstance(rule, str) else None
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None


def _type_problems(fields: Mapping[str, Any], types: Mapping[str, type]) -> list[str]:
    """A problem for each field that is there and not of its type: YAML takes `no` for false, 2012 for a number."""
    expected = {str: "text (in quotes, where YAML would take it for something else)", bool: "true or false"}
    wrong = {f: kind for f, kind in types.items() if f in fields and not isinstance(fields[f], kind)}
    return [f"{f}: expected {expected[kind]}, found {_shown(fields[f])}." for f, kind in wrong.items()]


def _shown(value: Any) -> str:
    """A value in a message, cut short: a few lines of YAML can mean gigabytes."""
    return reprlib.repr(value)


def _named(value: Any) -> str:
    """A name as it stands, for ``unknown``."""
    return value[:80] if isinstance(value, str) else _shown(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # neither NaN


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _are_names(names: Any) -> bool:
    """Whether it is a list of texts (or whole numbers), none of them twice."""
    whole = isinstance(names, list) and all(isinstance(n, str) or _is_count(n) for n in names)
    return whole and len({str(n) for n in names}) == len(names)


def _is_split(subsets: Any) -> bool:
    return (
        isinstance(subsets, Mapping)
        and len(subsets) > 0
        and _are_names([*subsets])
        and all(n is None or (_is_count(n) and n > 0) for n in subsets.values())
    )


def _is_pattern(path: str) -> bool:
    """Whether a path holds no other braces than {split}, {subset} and {part}."""
    try:
        parts = list(string.Formatter().parse(path))
    except ValueError:
        return False
    return all((f or "split") in ("split", "subset", "part") and f != "" and not spec and not conversion
               for _, f, spec, conversion in parts)  # fmt: skip


def _is_encoding(name: Any) -> bool:
    try:
        return isinstance(name, str) and codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        return False


def _suites(folder: Path) -> dict[str, list[str]]:
    path = folder / "suites.yaml"
    suites = _read_yaml(path) if path.exists() else {}
    for name, tasks in suites.items():
        if not tasks or not _are_names(tasks) or not all(isinstance(t, str) for t in tasks):
            raise UserError(
                f"{path}: suite {name!r}: expected a list of task names such as [mytask, stsb], none twice, "
                f"found {_shown(tasks)}."
            )
    return suites


def _read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file of ours; UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: is a folder or a pipe, expected a file of fields such as 'title: ...'.")
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_YAML + 1)
        if len(text) > MAX_YAML:
            raise UserError(f"{path}: more than {MAX_YAML:,} bytes, expected a few fields such as 'title: ...'.")
        content = yaml.safe_load(text.decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not a readable YAML file ({first_line(Exception(error.problem))}).") from error
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not a readable YAML file in UTF-8 ({first_line(error)}).") from error
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise UserError(f"{path}: expected fields such as 'title: ...', found {_shown(content)}.")
    return content
