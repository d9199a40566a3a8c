"""What is drawn from the robustness of models: tables, plots, one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Le, MinLen
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.data.perturbations import PERTURBATIONS
from simcse_bench.files import Environment, fingerprint
from simcse_bench.models.identity import marked_name, shown_settings
from simcse_bench.reports import plots, robustness_plots
from simcse_bench.reports.geometry import own_names, read_each
from simcse_bench.reports.page import page, section, write_drawn
from simcse_bench.reports.report import Provenance
from simcse_bench.reports.table import Table, shown_numbers, to_csv, to_markdown
from simcse_bench.schema import read_record

FOLDER = "robustness"  # below the results folder
_NOT_ROBUSTNESS = "not a model's robustness. Move it away or analyze again with --robustness --force."
Cosine = Annotated[float, Ge(-1.001), Le(1.001)]
Points = Annotated[float, Ge(-200), Le(200)]  # a difference of correlations
Percent = Annotated[float, Ge(0), Le(100)]
Moved = Annotated[float, Ge(-1e9), Le(1e9)]


class Effect(TypedDict):
    """Change of the Spearman correlation in points, with its 95 % interval (paired bootstrap over pairs)."""

    change: Points
    interval: tuple[Points, Points] | None


class Change(TypedDict):
    """What a rule does; without cosine, movement and quartiles where it changes no sentence."""

    keeps: bool  # the meaning
    changed: Annotated[int, Ge(0)]  # sentences
    cosine: Cosine | None  # mean over those, of a sentence and its changed self
    moved: Moved | None  # mean of 1 - cosine, as a share of the mean distance of two sentences of the task
    quartiles: tuple[Moved, Moved, Moved] | None  # of that over sentences
    one: Effect  # the second sentence of every pair is changed
    both: Effect


class Summary(TypedDict):
    """What is said of a task, and of the average over tasks."""

    spearman: Annotated[float, Ge(-100), Le(100)]
    moved_kept: Moved | None  # mean over the rules that keep the meaning: invariance, low
    moved_changed: Moved | None  # mean over those that change it: sensitivity, high
    separated: Percent | None  # how often a change of the meaning moves a sentence farther than one that keeps it
    changes: Annotated[Mapping[str, Change], MinLen(1)]  # by rule


class TaskRobustness(Summary):
    """One task."""

    title: str
    text: str
    pairs: int
    sentences: int
    fingerprint: str
    mean_cosine: Cosine


class Robustness(TypedDict):
    """All figures of one model, see ``evaluation.robustness.measure_robustness``."""

    schema: Literal[1]
    model: Provenance
    seed: int
    rate: float  # share of the words that get a typing error
    resamples: int
    splits: Sequence[str]
    tasks: Annotated[Mapping[str, TaskRobustness], MinLen(1)]
    average: Summary
    environment: Environment
    created: str
    file: NotRequired[str]  # its name without the ending, where it was read from one


def read_robustness(path: Path) -> Robustness:
    """A model's robustness.

    Raises:
        UserError: a file that is none.
    """
    robustness = read_record(path, Robustness, _NOT_ROBUSTNESS)
    robustness["file"] = path.stem
    return robustness


def read_all_robustness(folder: Path) -> tuple[list[Robustness], list[str]]:
    """That of all models in a folder by file name, and the problems of the files that are none."""
    return read_each(folder, read_robustness)


def write_robustness(folder: Path) -> None:
    """Write what is drawn from a folder."""
    for path, content in draw_robustness(folder, read_all_robustness(folder)[0]).items():
        write_drawn(path, content)


def draw_robustness(folder: Path, models: Sequence[Robustness]) -> dict[Path, bytes]:
    """File -> content of all that is drawn from the robustness of a folder's models."""
    drawn_from, models = models, own_names(models)
    tables = [summary_table(models), *map(changes_table, models)]
    tasks = tasks_table(models)
    tables += [tasks] if tasks.rows else []
    figures = {"movement": robustness_plots.plot_movement(models), "change": robustness_plots.plot_change(models)}
    files = {folder / f"{n}.{f}": plots.render_figure(figure, f) for n, figure in figures.items() for f in plots.FORMS}
    files[folder / "table.md"] = "\n".join(map(to_markdown, tables)).encode()
    files[folder / "table.csv"] = to_csv(robustness_rows(models)).encode()
    caveats = _caveats(models)
    sections = [
        section("Invariance and sensitivity", figures["movement"], tables[0],
                [n for n in tables[0].notes if n not in caveats]),
        section("Change of the score", figures["change"]),
        *(section(m["model"]["name"], None, table, table.notes) for m, table in zip(models, tables[1:], strict=False)),
        *([section(tasks.title, None, tasks)] if tasks.rows else []),
    ]  # fmt: skip
    files[folder / "index.html"] = page(
        "Robustness of sentence embeddings", ", ".join(dict.fromkeys(map(shown_data, models))), sections,
        robustness_provenance(models), fingerprint(drawn_from), caveats,
    )  # fmt: skip
    return files


def summary_table(models: Sequence[Robustness]) -> Table:
    """A row per model: how far its vectors move where the meaning stays, and where it changes."""
    rows = [
        [marked_name(m["model"]), shown_data(m), f"{m['average']['spearman']:.2f}", percent(m["average"]["moved_kept"]),
         percent(m["average"]["moved_changed"]), shown_numbers("{:.1f}", m["average"]["separated"])]
        for m in own_names(models)
    ]  # fmt: skip
    header = ["model", "data", "Spearman ×100", "moved %, meaning kept", "moved %, meaning changed", "separated %"]
    notes = [
        "Moved: 1 - cosine of a sentence and its changed self, in percent of the mean distance of two sentences of the "
        "task: 0 stays, 100 is as far as another sentence. Means over the changes that keep the meaning (invariance: "
        "low) and over those of the meaning (sensitivity: high).",
        "Separated: how often a change of a sentence's meaning moves it farther than one that keeps it; 50: not told "
        "apart. After the invariance and directional tests of CheckList (Ribeiro et al. 2020).",
    ]
    return Table(f"invariance and sensitivity{_badge(models)}", header, rows, [*notes, *_caveats(models)])


def changes_table(model: Robustness) -> Table:
    """A row per rule, those that keep the meaning first."""
    sentences = sum(task["sentences"] for task in model["tasks"].values())
    rows = [
        [name, "kept" if c["keeps"] else "changed", f"{100 * c['changed'] / max(1, sentences):.0f}",
         shown_numbers("{:.3f}", c["cosine"]), percent(c["moved"]), *_effect(c["one"]), *_effect(c["both"])]
        for name, c in by_kind(model["average"]["changes"])
    ]  # fmt: skip
    header = ["change", "meaning", "sentences %", "cosine", "moved %", "one side", "95 %", "both sides", "95 %"]
    does = "; ".join(
        f"{name}: {PERTURBATIONS[name].does}" for name in model["average"]["changes"] if name in PERTURBATIONS
    )
    notes = [
        f"Spearman ×100 as they are: {model['average']['spearman']:.2f}; one side, both sides: its change in points "
        "where the second sentence of every pair, or both, are changed (paired bootstrap). A change of meaning on one "
        "side makes the gold scores wrong: there the score should fall.",
        "Sentences: share of the distinct ones that the rule changes; cosine and movement are theirs.",
        f"{does}. Seed {model['seed']}, {100 * model['rate']:g} % of the words of at least three letters mistyped.",
    ]
    title = f"{marked_name(model['model'])}: {shown_data(model)}"
    return Table(title, header, rows, notes)


def tasks_table(models: Sequence[Robustness]) -> Table:
    """A row per model and task, where there are several; both sides changed."""
    several = [m for m in models if len(m["tasks"]) > 1]
    names = list(dict.fromkeys(n for m in several for t in m["tasks"].values() for n, _ in by_kind(t["changes"])))
    rows = [
        [marked_name(m["model"]), task["title"], f"{task['spearman']:.2f}", *(_shown_change(task, n) for n in names)]
        for m in several
        for task in m["tasks"].values()
    ]
    return Table("Change of each task's score, both sides", ["model", "task", "Spearman ×100", *names], rows)


def robustness_rows(models: Sequence[Robustness]) -> list[dict[str, Any]]:
    """A row per model, task and rule; the average of several tasks is task "avg"."""
    return [
        {"model": m["model"]["name"], "task": task, "splits": " + ".join(m["splits"]), "change": name,
         "meaning": "kept" if c["keeps"] else "changed", "changed": c["changed"], "cosine": c["cosine"],
         "moved": c["moved"], "spearman": part["spearman"], **_flat("one", c["one"]), **_flat("both", c["both"]),
         "seed": m["seed"], "rate": m["rate"]}
        for m in models
        for task, part in _summaries(m)
        for name, c in by_kind(part["changes"])
    ]  # fmt: skip


def by_kind(changes: Mapping[str, Change]) -> list[tuple[str, Change]]:
    """Those that keep the meaning first."""
    return sorted(changes.items(), key=lambda item: not item[1]["keeps"])


def robustness_provenance(models: Sequence[Robustness]) -> dict[str, str]:
    """What decided the numbers, model by model."""
    return {
        m["model"]["name"]: f"{shown_settings(m['model'])}; seed {m['seed']}, typo rate {m['rate']:g}, "
        f"{m['resamples']} resamples; "
        + "; ".join(
            f"{name} {' + '.join(m['splits'])}, {t['text']} text, {t['pairs']} pairs, {t['sentences']} sentences, "
            f"{t['fingerprint']}"
            for name, t in m["tasks"].items()
        )
        + f"; {m['environment']['processor']}, {m['created']}"
        for m in models
    }


def shown_data(model: Robustness) -> str:
    """Tasks and splits."""
    return f"{', '.join(model['tasks'])} {' + '.join(model['splits'])}"


def percent(share: float | None) -> str:
    """Of a movement."""
    return shown_numbers("{:.1f}", None if share is None else 100 * share)


def _summaries(model: Robustness) -> Iterator[tuple[str, Summary]]:
    yield from model["tasks"].items()
    if len(model["tasks"]) > 1:
        yield "avg", model["average"]


def _flat(side: str, effect: Effect) -> dict[str, float | None]:
    low, high = effect["interval"] or (None, None)
    return {side: effect["change"], f"{side}_low": low, f"{side}_high": high}


def _shown_change(task: Summary, name: str) -> str:
    return shown_numbers("{:+.2f}", task["changes"][name]["both"]["change"] if name in task["changes"] else None)


def _effect(effect: Effect) -> tuple[str, str]:
    return f"{effect['change']:+.2f}", shown_numbers("{:+.2f} to {:+.2f}", *(effect["interval"] or ()))


def _embedded(models: Sequence[Robustness]) -> tuple[bool, bool]:
    data = any(task in bundled.TASKS for m in models for task in m["tasks"])
    return any(m["model"].get("embedded") for m in models), data


def _badge(models: Sequence[Robustness]) -> str:
    encoder = all(m["model"].get("embedded") for m in models)
    return bundled.badge(encoder, _embedded(models)[1])


def _caveats(models: Sequence[Robustness]) -> list[str]:
    return bundled.caveats(*_embedded(models))
