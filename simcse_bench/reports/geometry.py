"""What is drawn from the analyses of models: tables, plots, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, write_bytes
from simcse_bench.models.identity import marked_name
from simcse_bench.reports import plots
from simcse_bench.reports.page import page, section
from simcse_bench.reports.report import read_fields
from simcse_bench.reports.table import Table, shown_numbers, to_csv, to_markdown

_FIELDS = {"model", "data", "alignment", "uniformity", "cosines", "singular_values", "effective_rank"}


def read_analyses(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The analyses in a folder by file name, and the problems of the files that are none."""
    analyses: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            analyses.append(read_fields(path, _FIELDS, "not a model's analysis.") | {"file": path.stem})
        except UserError as error:
            problems += error.problems
    return analyses, problems


def write_analyses(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write what is drawn from a folder's analyses; gives them, and the problems of the files that are none."""
    analyses, problems = read_analyses(folder)
    for path, content in draw_geometry(folder, analyses).items():
        write_bytes(path, content)
    return analyses, problems


def draw_geometry(folder: Path, analyses: Sequence[Mapping[str, Any]]) -> dict[Path, bytes]:
    """File -> content of all that is drawn from the analyses of a folder."""
    tables = [geometry_table(analyses), thirds_table(analyses, "by_length", "words a sentence"),
              thirds_table(analyses, "by_overlap", "share of common words")]  # fmt: skip
    figures = {f"{m['file']}-cosines": plots.plot_densities(m) for m in analyses}
    figures["spectrum"] = plots.plot_spectrum(analyses)
    if len(analyses) > 1:
        figures["scatter"] = plots.plot_scatter(analyses)
    files = {folder / f"{n}.{f}": plots.render_figure(figure, f) for n, figure in figures.items() for f in plots.FORMS}
    files[folder / "table.md"] = "\n".join(map(to_markdown, tables)).encode()
    files[folder / "table.csv"] = to_csv(geometry_rows(analyses)).encode()
    sections = [section("", figures.get("scatter"), tables[0])]
    sections += [
        section(f"Cosines by gold score: {m['model']['name']}", figures[f"{m['file']}-cosines"]) for m in analyses
    ]
    sections += [section("Singular values", figures["spectrum"])]
    sections += [section(table.title, None, table) for table in tables[1:]]
    files[folder / "index.html"] = page(
        "Geometry of sentence embeddings",
        tables[0].title,
        sections,
        geometry_provenance(analyses),
        fingerprint(analyses),
    )
    return files


def geometry_table(analyses: Sequence[Mapping[str, Any]]) -> Table:
    """One row per model."""
    rows = [
        [marked_name(m["model"]), _data(m), f"{m['spearman']:.2f}", f"{m['alignment']:.3f}", f"{m['uniformity']:.2f}",
         f"{m['mean_cosine']:.3f}", f"{m['effective_rank']:.0f} of {m['dimension']}"]
        for m in analyses
    ]  # fmt: skip
    header = ["model", "data", "Spearman ×100", "alignment", "uniformity", "mean cosine", "effective rank"]
    notes = [
        "Alignment: mean squared distance of the pairs with a gold score above 4. Uniformity: log of the mean of "
        "exp(-2 d²) over all pairs of distinct sentences. Both of unit vectors, lower is better (SimCSE, footnote 3).",
        "Mean cosine: over all pairs of distinct sentences; 0 where directions are even. Effective rank: exp of the "
        "entropy of the centred unit vectors' singular values.",
    ]
    tried = [bundled.ENCODER] * any(m["model"].get("embedded") for m in analyses)
    tried += [bundled.DATA] * any(m["data"]["task"] in bundled.TASKS for m in analyses)
    return Table("alignment and uniformity" + "".join(f" — {t}" for t in tried), header, rows, notes)


def thirds_table(analyses: Sequence[Mapping[str, Any]], key: str, what: str) -> Table:
    """Spearman within thirds of the pairs."""
    rows = [
        [marked_name(m["model"]), part["part"], shown_numbers("{:g} to {:g}", *(part["from_to"] or ())),
         str(part["n"]), shown_numbers("{:.2f}", part["spearman"])]
        for m in analyses
        for part in m[key]
    ]  # fmt: skip
    return Table(f"Spearman ×100 by {what}", ["model", "third", what, "pairs", "score"], rows)


def geometry_rows(analyses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per model."""
    keys = ("spearman", "alignment", "uniformity", "mean_cosine", "effective_rank", "dimension")
    return [{"model": m["model"]["name"], "data": _data(m), **{k: m[k] for k in keys}} for m in analyses]


def geometry_provenance(analyses: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What decided the numbers, model by model."""
    return {
        m["model"]["name"]: f"pooling {m['model'].get('pooling')}, head {m['model'].get('head')}; "
        f"{_data(m)}, {m['data']['pairs']} pairs, {m['data']['aligned_pairs']} of them above 4, "
        f"{m['data']['sentences']} sentences, {m['data']['fingerprint']}; "
        f"{m['environment']['processor']}, {m['created']}"
        for m in analyses
    }


def _data(m: Mapping[str, Any]) -> str:
    return f"{m['data']['task']} {' + '.join(m['data']['splits']) or 'whole'}"
