"""What is drawn from the analyses of models: tables, plots, one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeVar

from annotated_types import Ge, MinLen
from typing_extensions import TypedDict

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import Environment, fingerprint
from simcse_bench.models.identity import marked_name, shown_settings
from simcse_bench.reports import plots
from simcse_bench.reports.page import Section, page, section, write_drawn
from simcse_bench.reports.report import Provenance, readable_name
from simcse_bench.reports.table import Table, shown_numbers, to_csv, to_markdown
from simcse_bench.schema import read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

A = TypeVar("A", bound=Mapping[str, Any])
_NOT_AN_ANALYSIS = "not a model's analysis. Move it away or analyze again with --force."


class AnalysedData(TypedDict):
    """The pairs that a model was analysed on."""

    task: str
    splits: Sequence[str]  # none: the whole task
    pairs: int
    sentences: int
    aligned_pairs: int
    fingerprint: str


class Cosines(TypedDict):
    """Distribution of the cosines of the pairs of a unit of gold score."""

    gold: tuple[int, int]
    n: int
    quartiles: tuple[float, float, float]
    counts: Annotated[Sequence[Annotated[int, Ge(0)]], MinLen(1)]


class Third(TypedDict):
    """A third of the pairs, by length or overlap."""

    part: str
    from_to: tuple[float, float] | None
    n: int
    spearman: float | None


class Analysis(TypedDict):
    """All figures of one model, see ``evaluation.geometry.analyse_model``."""

    schema: Literal[1]
    model: Provenance
    data: AnalysedData
    spearman: float
    alignment: float
    uniformity: float
    mean_cosine: float
    effective_rank: float
    dimension: int
    singular_values: Annotated[Sequence[float], MinLen(1)]
    cosines: Annotated[Sequence[Cosines], MinLen(1)]
    by_length: Sequence[Third]
    by_overlap: Sequence[Third]
    environment: Environment
    created: str
    file: NotRequired[str]  # its name without the ending, where it was read from one


def read_analysis(path: Path) -> Analysis:
    """A model's analysis.

    Raises:
        UserError: a file that is none.
    """
    analysis = read_record(path, Analysis, _NOT_AN_ANALYSIS)
    counts = [row["counts"] for row in analysis["cosines"]]
    if len({len(c) for c in counts}) > 1 or not all(map(any, counts)):
        raise UserError(f"{path}: {_NOT_AN_ANALYSIS} (cosines: counts of different length, or all 0)")
    analysis["file"] = path.stem
    return analysis


def read_analyses(folder: Path) -> tuple[list[Analysis], list[str]]:
    """The analyses in a folder by file name, and the problems of the files that are none."""
    return read_each(folder, read_analysis)


def read_each(folder: Path, read: Callable[[Path], A]) -> tuple[list[A], list[str]]:
    """The JSON files of a folder by name, and the problems of those that cannot be read."""
    whole: list[A] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            whole.append(read(path))
        except UserError as error:
            problems += error.problems
    return whole, problems


def write_analyses(folder: Path) -> tuple[list[Analysis], list[str]]:
    """Write what is drawn from a folder's analyses; gives them, and the problems of the files that are none."""
    analyses, problems = read_analyses(folder)
    for path, content in draw_geometry(folder, analyses).items():
        write_drawn(path, content)
    return analyses, problems


def draw_geometry(folder: Path, analyses: Sequence[Analysis]) -> dict[Path, bytes]:
    """File -> content of all that is drawn from the analyses of a folder."""
    drawn_from, analyses = analyses, own_names(analyses)
    tables = [geometry_table(analyses), thirds_table(analyses, "by_length", "words a sentence"),
              thirds_table(analyses, "by_overlap", "share of common words")]  # fmt: skip
    figures = {f"{m['file']}-cosines": plots.plot_densities([m]) for m in analyses}
    figures["spectrum"] = plots.plot_spectrum(analyses)
    if len(analyses) > 1:
        figures["scatter"] = plots.plot_scatter(analyses)
    files = {folder / f"{n}.{f}": plots.render_figure(figure, f) for n, figure in figures.items() for f in plots.FORMS}
    files[folder / "table.md"] = "\n".join(map(to_markdown, tables)).encode()
    files[folder / "table.csv"] = to_csv(geometry_rows(analyses)).encode()
    sections = [geometry_section("Alignment and uniformity", analyses, figures.get("scatter"))]
    sections.append(section("Cosines by gold score", plots.plot_densities(analyses)))
    sections.append(section("Singular values", figures["spectrum"]))
    sections += [section(table.title, None, table) for table in tables[1:]]
    files[folder / "index.html"] = page(
        "Geometry of sentence embeddings", ", ".join(dict.fromkeys(map(_data, analyses))), sections,
        geometry_provenance(analyses), fingerprint(drawn_from), geometry_caveats(analyses),
    )  # fmt: skip
    return files


def geometry_section(heading: str, analyses: Sequence[Analysis], scatter: Figure | None) -> Section:
    """The part of a page with the models' alignment and uniformity, and which model is best at each."""
    table = geometry_table(analyses)
    aligned, even = (min(analyses, key=lambda m: m[key]) for key in ("alignment", "uniformity"))
    best = max(analyses, key=lambda m: m["spearman"])
    lead = (
        f"Best score: {best['model']['name']} ({best['spearman']:.2f}); lowest uniformity: {even['model']['name']} "
        f"({even['uniformity']:.2f}); lowest alignment: {aligned['model']['name']} ({aligned['alignment']:.3f})"
    )
    notes = [note for note in table.notes if note not in geometry_caveats(analyses)]  # the page says it once
    return section(heading, scatter, table, notes, lead=lead if len(analyses) > 1 else "")


def geometry_caveats(analyses: Sequence[Analysis]) -> list[str]:
    """What of it is embedded, for trying."""
    data = any(m["data"]["task"] in bundled.TASKS for m in analyses)
    return bundled.caveats(any(m["model"].get("embedded") for m in analyses), data)


def own_names(analyses: Sequence[A]) -> list[A]:
    """Those that share a model's name under the names of their files: one model with two poolings."""
    given: Any = analyses
    names = [m["model"]["name"] for m in given]
    own = [
        readable_name(name, m["file"]) if "file" in m and names.count(name) > 1 else name
        for m, name in zip(given, names, strict=True)
    ]
    return [{**m, "model": {**m["model"], "name": name}} for m, name in zip(given, own, strict=True)]  # type: ignore[misc]


def geometry_table(analyses: Sequence[Analysis]) -> Table:
    """One row per model."""
    rows = [
        [marked_name(m["model"]), _data(m), f"{m['spearman']:.2f}", f"{m['alignment']:.3f}", f"{m['uniformity']:.2f}",
         f"{m['mean_cosine']:.3f}", f"{m['effective_rank']:.0f} of {m['dimension']}"]
        for m in own_names(analyses)
    ]  # fmt: skip
    header = ["model", "data", "Spearman ×100", "alignment", "uniformity", "mean cosine", "effective rank"]
    notes = [
        "Alignment: mean squared distance of the pairs with a gold score above 4. Uniformity: log of the mean of "
        "exp(-2 d²) over all pairs of distinct sentences. Both of unit vectors, lower is better (SimCSE, footnote 3).",
        "Mean cosine: over all pairs of distinct sentences; 0 where directions are even. Effective rank: exp of the "
        "entropy of the centred unit vectors' singular values.",
    ]
    data = any(m["data"]["task"] in bundled.TASKS for m in analyses)
    title = "alignment and uniformity" + bundled.badge(all(m["model"].get("embedded") for m in analyses), data)
    caveats = bundled.caveats(any(m["model"].get("embedded") for m in analyses), data)
    return Table(title, header, rows, [*notes, *caveats])


def thirds_table(analyses: Sequence[Analysis], key: Literal["by_length", "by_overlap"], what: str) -> Table:
    """Spearman within thirds of the pairs."""
    rows = [
        [marked_name(m["model"]), part["part"], shown_numbers("{:g} to {:g}", *(part["from_to"] or ())),
         str(part["n"]), shown_numbers("{:.2f}", part["spearman"])]
        for m in analyses
        for part in m[key]
    ]  # fmt: skip
    return Table(f"Spearman ×100 by {what}", ["model", "third", what, "pairs", "score"], rows)


def geometry_rows(analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """A row per model."""
    return [
        {"model": m["model"]["name"], "data": _data(m), "spearman": m["spearman"], "alignment": m["alignment"],
         "uniformity": m["uniformity"], "mean_cosine": m["mean_cosine"], "effective_rank": m["effective_rank"],
         "dimension": m["dimension"]}
        for m in analyses
    ]  # fmt: skip


def geometry_provenance(analyses: Sequence[Analysis]) -> dict[str, str]:
    """What decided the numbers, model by model."""
    return {
        m["model"]["name"]: f"pooling and head {shown_settings(m['model'])}; "
        f"{_data(m)}, {m['data']['pairs']} pairs, {m['data']['aligned_pairs']} of them above 4, "
        f"{m['data']['sentences']} sentences, {m['data']['fingerprint']}; "
        f"{m['environment']['processor']}, {m['created']}"
        for m in analyses
    }


def _data(m: Analysis) -> str:
    return f"{m['data']['task']} {' + '.join(m['data']['splits']) or 'whole'}"
