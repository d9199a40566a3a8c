"""A page with everything that a results folder says of one model, as HTML and Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.corpus import NAMED
from simcse_bench.data.registry import load_suites, load_task
from simcse_bench.errors import UserError, unknown
from simcse_bench.files import fingerprint
from simcse_bench.models.catalog import known_model
from simcse_bench.models.identity import shown_files, shown_origin
from simcse_bench.reports import model_parts, page
from simcse_bench.reports.again import UNKNOWN, model_command
from simcse_bench.reports.folder import Results, read_folder
from simcse_bench.reports.model_parts import links_to
from simcse_bench.reports.page import Section
from simcse_bench.reports.report import Report, file_name, report_path
from simcse_bench.reports.standings import without_seed
from simcse_bench.reports.table import Table

FOLDER = "models"  # below the results folder
_SUITES = {  # what is said to be missing -> the suite that would measure it
    "STS": "sts",
    "transfer tasks": "transfer",
    "SentEval's other tasks": "senteval",
    "probing tasks": "probing",
    "ranking": "ranking",
    "paraphrases": "paraphrase",
    "triplets": "triplet",
    "more STS": "sts-extended",
}
_MANY = 4  # tasks of a suite that are not named one by one


@dataclass(frozen=True)
class ModelPage:
    """A page that was written."""

    name: str
    html: Path
    markdown: Path
    scores: Table  # a row per evaluation
    left_out: Sequence[str]  # problems of the files that could not be read


def write_model_page(model: str, results: str | Path = "results", out: str | Path | None = None) -> ModelPage:
    """Write a model's page; no score is computed, no model loaded.

    Args:
        model: its name in reports, in any case, or the last part of it ("all-MiniLM-L6-v2"); without the seed for all.
        results: the results folder.
        out: folder of the page; None: ``<results>/models``.

    Raises:
        UserError: no such folder, nothing in it, no model or several of that name; a page there that is not ours.
    """
    folder = Path(results)
    whole, problems = read_folder(folder)
    names = models_of(whole)
    if not names:
        raise UserError(*problems, f"{folder}: no results of a model; `simcse-bench eval MODEL` writes them.")
    name = find_model(model, names)
    files = draw_model(folder, whole, name, None if out is None else Path(out))
    for path in files:
        page.require_own(path)
    for path, content in files.items():
        page.write_drawn(path, content)
    html, markdown = files
    scores = model_parts.overview(model_parts.evaluations(results_of(whole, name))).table
    return ModelPage(name, html, markdown, scores or Table("", [], []), problems)


def find_model(given: str, names: Mapping[str, Sequence[str]]) -> str:
    """The model that is meant, of ``models_of``: its whole name, or, in any case, that or its last part.

    Raises:
        UserError: none, or several.
    """
    known = {name: model for model, seeds in names.items() for name in (*seeds, model)}
    if given in known:
        return known[given]
    for shorten in (str, _last_part):
        meant = {model for name, model in known.items() if shorten(name).casefold() == given.casefold()}
        if len(meant) > 1:
            raise UserError(f"model {given!r}: {' and '.join(sorted(meant))} are called so; give one name in full.")
        if meant:
            return meant.pop()
    raise unknown("model", given, names)


def models_of(results: Results) -> dict[str, list[str]]:
    """The models that there are results of: the name of a page -> the names it holds, several where they are seeds."""
    seeds: dict[str, list[str]] = {}
    for name in dict.fromkeys(model["name"] for model in results.models()):
        seeds.setdefault(without_seed(name), []).append(name)
    return {base if len(alike) > 1 else alike[0]: alike for base, alike in seeds.items()}


def results_of(results: Results, name: str) -> Results:
    """What of it is a model's: also sweeps that start from it, benchmarks that name it, its training text searched."""
    names = set(models_of(results)[name])
    reports = [s for s in results.reports if s.report.model["name"] in names]
    analyses = {
        place: own
        for place, group in results.analyses.items()
        if (own := [a for a in group if a["model"]["name"] in names])
    }
    places = [*(s.place for s in reports), *(f"{place}/" for place in analyses)]
    mine = Results(
        reports=reports,
        sweeps={p: s for p, s in results.sweeps.items() if s["model"] and s["model"]["name"] in names},
        analyses=analyses,
        reproductions={p: r for p, r in results.reproductions.items() if any(x.startswith(f"{p}/") for x in places)},
        mteb={place: report for place, report in results.mteb.items() if report.model["name"] in names},
        robustness=[one for one in results.robustness if one["model"]["name"] in names],
        speeds={place: speed for place, speed in results.speeds.items() if _last_part(name) in _words(speed["title"])},
    )
    texts = _trained_on(mine, name)
    return dataclasses.replace(
        mine, overlaps={place: one for place, one in results.overlaps.items() if one.train["name"] in texts}
    )


def pages_of(folder: Path, results: Results) -> tuple[dict[Path, str], list[Path]]:
    """The pages that are in the results folder -> their models, and those whose model has no result any more."""
    models = {file_name(name): name for name in models_of(results)}
    there = [path for path in sorted((folder / FOLDER).glob("*.html")) if page.is_own(path)]
    known = {path: models[path.stem] for path in there if path.stem in models}
    return known, [path for path in there if path not in known]


def draw_model(folder: Path, results: Results, name: str, out: Path | None = None) -> dict[Path, bytes]:
    """The page and its Markdown -> content; ``name`` as in ``models_of``, ``out`` as of ``write_model_page``.

    Raises:
        UserError: a name that makes no file name.
    """
    mine = results_of(results, name)
    evaluated = model_parts.evaluations(mine)
    out = folder / FOLDER if out is None else out
    root = _way_up(out, folder)
    speed = model_parts.speed_section(mine, evaluated)
    sections = [
        page.section("Model", facts=_identity(mine, name), links=links_to(root, {"all results": "index.html"})),
        *([model_parts.overview(evaluated)] if evaluated else []),
        *(model_parts.score_section(one, root) for one in evaluated),
        *model_parts.mteb_sections(mine, root),
        *model_parts.geometry_sections(mine),
        *model_parts.robustness_sections(mine),
        _training_section(mine, name, root),
        *([speed] if speed else []),
        *([_sweeps_section(mine, root)] if mine.sweeps else []),
        *([missing] if (missing := _missing_section(mine, name)).commands else []),
    ]
    seeds = len({s.report.model["name"] for s in mine.reports})
    several = f"; {seeds} seeds, means ± standard deviations" if seeds > 1 else ""
    subtitle = f"All that the saved results say of this model{several}"
    on_embedded = any(one.board["embedded"] for one in evaluated)
    tried = bundled.caveats(any(m.get("embedded") for m in mine.models()), False)
    tried += [f"What is marked embedded: on {bundled.DATA}."] * on_embedded
    sources, source = _sources(mine), fingerprint(dataclasses.asdict(mine))
    html = out / report_path(out, "tasks", name).with_suffix(".html").name
    return {
        html: page.page(name, subtitle, sections, sources, source, tried),
        html.with_suffix(".md"): page.page_markdown(name, subtitle, sections, sources, tried).encode(),
    }


def _identity(mine: Results, name: str) -> dict[str, str]:
    """What the model is, as far as its results say; what they do not say is left out."""
    models, spec = mine.models(), known_model(name)
    lengths = [m.get("max_length_used") or m.get("max_length") for m in models]
    dimensions = [m.get("dimension") for m in models] + [a["dimension"] for g in mine.analyses.values() for a in g]
    facts = {
        "pooling, head": _distinct(map(shown_origin, models)),
        "at most": _distinct(f"{n} tokens" if n else "" for n in lengths),
        "dimensions": _distinct(str(n or "") for n in dimensions),
        "parameters": _distinct(f"{m['parameters'] / 1e6:,.1f} million" for m in models if "parameters" in m),
        "dtype": _distinct(str(m.get("dtype") or "") for m in models),
        "text before it": _distinct(str(m.get("preprocess") or "") for m in models),
        "template": _distinct(str(m.get("template") or "") for m in models),
        "whitened on": _distinct(", ".join(m.get("whiten") or ()) for m in models),
        "weights": _distinct(map(shown_files, models)),
        "commit on the Hub": _distinct(str(m.get("revision") or "") for m in models),
        "usage": _distinct(str(m.get("usage") or "") for m in models),
        "object": _distinct(str(m.get("object") or "") for m in models),
        "note": spec.note if spec else "",
    }
    return {fact: shown for fact, shown in facts.items() if shown}


def _distinct(values: Iterable[str]) -> str:
    several = list(dict.fromkeys(value for value in values if value))
    return "; ".join(several) if len(several) < 4 else f"{len(several)} different ones, see each part"


def _trained_on(mine: Results, name: str) -> list[str]:
    """Names of the texts that it was trained on, as far as its card, its run or mteb's registry says."""
    spec = known_model(name)
    said = [one["name"] for m in mine.models() for one in m.get("trained_on") or ()]
    return list(dict.fromkeys([*(spec.trained_on if spec else ()), *said]))


def _training_section(mine: Results, name: str, root: str | None) -> Section:
    """What it was trained on, and which tasks' sentences are known to stand in that."""
    trained = _trained_on(mine, name)
    known = {(s.report.tasks[task]["title"], how): None for s in mine.reports for task, how in s.seen.items()}
    facts = {"trained on": ", ".join(trained) or "not known: neither card nor run nor registry says it"}
    if not known:
        facts["sentences of the tasks in it"] = "not known; `simcse-bench data overlap --train TEXT` searches a text"
    links = {
        f"{p.suite} in {p.train['name']}": f"{place.removesuffix('.json')}.md" for place, p in mine.overlaps.items()
    }
    table = Table("Tasks whose sentences training has seen", ["task", "how it is known"], [*map(list, known)])
    heading = "Training text and contamination"
    return page.section(heading, None, table if known else None, facts=facts, links=links_to(root, links))


def _sweeps_section(mine: Results, root: str | None) -> Section:
    """The ablations that start from it."""
    links = {f"{sweep['title']}, {place}": f"{place}/index.html" for place, sweep in mine.sweeps.items()}
    return page.section(
        "Ablations that start from it", notes=[*links] if root is None else (), links=links_to(root, links)
    )


def _missing_section(mine: Results, name: str) -> Section:
    """What there is no result for, each with the command that would measure it."""
    plain = min(mine.models(), key=_chosen)
    spec, suites = known_model(name), load_suites()
    wanted = {"STS in its language": f"sts-{spec.language}"} if spec and spec.language != "en" else {}
    listed = {task for s in mine.reports if _whole(s.report) for task in s.report.tasks}
    commands: dict[str, str] = {}
    for what, suite in (wanted | _SUITES).items():
        missing = [task for task in suites[suite] if task not in listed]
        listed.update(missing)
        if missing:
            titles = [load_task(task).title for task in missing] if len(missing) <= _MANY else []
            chosen = ("--suite", suite) if missing == suites[suite] else ("--task", ",".join(missing))
            label = f"{what} ({', '.join(titles)})" if titles else what
            commands[label] = model_command(plain, ["eval"], [chosen])
    if not mine.mteb:
        commands["mteb's own tasks"] = model_command(plain, ["eval"], [("--suite", "mteb:MTEB(eng, v2)")])
    if not mine.analyses:
        commands["geometry"] = model_command(plain, ["analyze"], [])
    if not mine.robustness:
        commands["robustness"] = model_command(plain, ["analyze", "--robustness"], [])
    for text in _trained_on(mine, name):
        if text in NAMED and text not in {one.train["name"] for one in mine.overlaps.values()}:
            commands[f"sentences of STS in {text}"] = f"simcse-bench data overlap --train {text} --suite sts"
    note = f"{UNKNOWN}: the folder of the model with these weights."
    notes = [note] if any(UNKNOWN in command for command in commands.values()) else []
    return page.section("Not measured here", notes=notes, commands=commands)


def _chosen(model: Mapping[str, Any]) -> tuple[bool, ...]:
    """How far a use is from the model's default one: by options, by whitening, by its dtype."""
    dtype = model.get("dtype") or "float32"
    return "--" in str(model.get("settings_from")), bool(model.get("whiten")), dtype != "float32"


def _whole(report: Report) -> bool:
    """Whether it is of the paper's protocol, its split and all rows."""
    return (report.protocol["name"], report.protocol["split"], report.limit) == ("simcse", "test", None)


def _sources(mine: Results) -> dict[str, str]:
    """The files that the page is drawn from."""
    files = {
        "reports": [s.place for s in mine.reports],
        "mteb": [*mine.mteb],
        "analyses": [f"{place}/{a.get('file', '')}.json" for place, group in mine.analyses.items() for a in group],
        "robustness": [f"robustness/{one.get('file', '')}.json" for one in mine.robustness],
        "overlap": [*mine.overlaps],
        "benchmarks": [*mine.speeds],
        "ablations": [f"{place}/summary.json" for place in mine.sweeps],
    }
    return {kind: ", ".join(places) for kind, places in files.items() if places}


def _way_up(out: Path, folder: Path) -> str | None:
    """From a page's folder to the results folder; None where it is not below it."""
    try:
        return "../" * len(out.resolve().relative_to(folder.resolve()).parts)
    except ValueError:
        return None


def _last_part(name: str) -> str:
    """Of owner/name."""
    return name.rpartition("/")[2]


def _words(title: str) -> set[str]:
    """Those of a benchmark's title, without the punctuation behind them."""
    return {word.strip(",:;()") for word in title.split()}
