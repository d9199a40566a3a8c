"""The fields of a YAML file to a ``Task``, every problem of it told at once (fields: ``tasks/README.md``)."""

from __future__ import annotations

import codecs
import reprlib
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from simcse_bench.data.task import (
    FORMATS,
    KINDS,
    PAIR_COLUMNS,
    PAIR_PROBES,
    PROBE_SPLITS,
    STS_FORMATS,
    TRIPLET_COLUMNS,
    UNICODE_FORMS,
    Source,
    Task,
    best_share,
)
from simcse_bench.errors import UserError, first_line, unknown

MAX_YAML = 1 << 20  # bytes of a task file or suites.yaml


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
        problems.append(f"gold: expected [lowest, highest], found {shown(gold)}.")
    splits = fields.get("splits")
    if not isinstance(splits, Mapping) or not are_names([*splits]) or not all(map(_is_split, splits.values())):
        problems.append(
            "splits: expected 'split: {subset: rows}' with names in text and rows empty where unknown, such as "
            f"'test: {{test: }}'; found {shown(splits)}."
        )
        splits = {}
    unique = fields.get("unique", [])
    if not are_names(unique) or not set(unique) <= set(splits) or (unique and kind in KINDS and kind != "sts"):
        problems.append(f"unique: expected a list of splits of an sts task, found {shown(unique)}.")
        unique = []
    if kind == "paraphrase" and splits and not {"dev", "test"} <= {*splits}:
        problems.append(
            f"splits: a paraphrase task needs dev (where thresholds are chosen) and test, found {shown([*splits])}."
        )
    if "center" in fields and kind != "ranking":
        problems.append("center: only for ranking tasks.")
    for source in sources.values():
        if source.format == "sts" and {*source.positives} != {name for subsets in splits.values() for name in subsets}:
            problems.append("positives: expected an entry for each STS task that the splits name, such as {stsb: 4}.")
    aliases = fields.get("aliases", [])
    if not are_names(aliases):
        problems.append(f"aliases: expected a list of other names, each a text of its own, found {shown(aliases)}.")
        aliases = []
    labels, probe = fields.get("labels") or [], fields.get("probe")
    # a regression has none, and a probing file's are those of its training rows
    labelled = kind == "transfer" and probe != "relatedness" and all(s.format != "probing" for s in sources.values())
    if not are_names(labels) or (labelled and len(labels) < 2):
        problems.append(f"labels: expected a list of at least two, each a text of its own, found {shown(labels)}.")
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


def _source_problems(entry: Any, kind: str) -> list[str]:
    """What is wrong with a source of a task of this kind, before it is built."""
    if not isinstance(entry, Mapping):
        return [f"expected fields such as {{format: tsv, path: pairs.tsv}}, found {shown(entry)}."]
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
            problems.append(f"{place}: expected text, found {shown(entry.get(place))}.")
        elif place == "path" and not _is_pattern(entry[place]):
            problems.append(f"path {shown(entry['path'])}: only {{split}}, {{subset}} and {{part}} are filled in.")
    if entry.get("unicode", "") not in UNICODE_FORMS:
        problems.append(f"unicode {shown(entry['unicode'])}: expected NFC, or leave it out to take the text as it is.")
    if not _is_encoding(entry.get("encoding", "utf-8")):
        problems.append(f"encoding {shown(entry['encoding'])}: not known to Python; such as utf-8 or latin-1.")
    widths = entry.get("widths", [1])
    if not isinstance(widths, list) or not widths or not all(_is_count(n) and n for n in widths):
        problems.append(f"widths: expected the numbers of fields of a line, such as [7, 9], found {shown(widths)}.")
    names = TRIPLET_COLUMNS if kind == "triplet" else PAIR_COLUMNS
    columns = entry.get("columns", dict(zip(PAIR_COLUMNS, range(3), strict=True)) if names == PAIR_COLUMNS else None)
    alone = kind == "transfer" and isinstance(columns, Mapping) and {*columns} == {"gold", "left"}  # no second sentence
    if not alone and (not isinstance(columns, Mapping) or {*columns} != {*names}):
        return [*problems, f"columns: expected {names[0]}, {names[1]} and {names[2]}, found {shown(columns)}."]
    named = form == "hub" or entry.get("header") is True
    for name, column in columns.items():
        number = _is_count(column) and form != "hub"
        if not number and not (named and isinstance(column, str)):
            problems.append(
                f"columns: {name} is {shown(column)}; expected a number from 0, or a name where there is a header."
            )
    return problems


def _positives_problems(positives: Any) -> list[str]:
    """What is wrong with the rules of what is a positive pair of an STS task."""
    expected = "positives: expected the lowest gold score of a positive pair, or the share of the best, for each STS "
    expected += f"task, such as {{stsb: 4, str22: 25 %}}, found {shown(positives)}."
    if not isinstance(positives, Mapping) or not positives or not are_names([*positives]):
        return [expected]
    return [] if all(_is_number(rule) or best_share(rule) for rule in positives.values()) else [expected]


def _type_problems(fields: Mapping[str, Any], types: Mapping[str, type]) -> list[str]:
    """A problem for each field that is there and not of its type: YAML takes `no` for false, 2012 for a number."""
    expected = {str: "text (in quotes, where YAML would take it for something else)", bool: "true or false"}
    wrong = {f: kind for f, kind in types.items() if f in fields and not isinstance(fields[f], kind)}
    return [f"{f}: expected {expected[kind]}, found {shown(fields[f])}." for f, kind in wrong.items()]


def shown(value: Any) -> str:
    """A value in a message, cut short: a few lines of YAML can mean gigabytes."""
    return reprlib.repr(value)


def _named(value: Any) -> str:
    """A name as it stands, for ``unknown``."""
    return value[:80] if isinstance(value, str) else shown(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # neither NaN


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def are_names(names: Any) -> bool:
    """Whether it is a list of texts (or whole numbers), none of them twice."""
    whole = isinstance(names, list) and all(isinstance(n, str) or _is_count(n) for n in names)
    return whole and len({str(n) for n in names}) == len(names)


def _is_split(subsets: Any) -> bool:
    return (
        isinstance(subsets, Mapping)
        and len(subsets) > 0
        and are_names([*subsets])
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


def read_yaml(path: Path) -> dict[str, Any]:
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
        raise UserError(f"{path}: expected fields such as 'title: ...', found {shown(content)}.")
    return content
