"""What is drawn from the analyses of models: tables, plots, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.errors import UserError
from simcse_bench.files import fingerprint, read_json, write_bytes
from simcse_bench.models.identity import marked_name
from simcse_bench.reports import plots
from simcse_bench.reports.page import page, section
from simcse_bench.reports.table import MISSING, Table, to_csv, to_markdown

_FIELDS = {"model", "data", "alignment", "uniformity", "cosines", "singular_values", "effective_rank"}


def read_analyses(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The analyses in a folder by file name, and the problems of the files that are none."""
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = read_json(path)
            if not isinstance(content, dict) or not set(content) >= _FIELDS:
                raise UserError(f"{path}: not a model's analysis.")
            found.append(content | {"file": path.stem})
        except UserError as error:
            problems += error.problems
    return found, problems


def write_analyses(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write what is drawn from a folder's analyses; gives them, and the problems of the files that are none."""
    analyses, problems = read_analyses(folder)
    for path, content in draw_geometry(folder, analyses).items():
        write_bytes(path, content)
    return analyses, problems


def draw_geometry(folder: Path, found: Sequence[Mapping[str, Any]]) -> dict[Path, bytes]:
    """File -> content of all that is drawn from the analyses of a folder."""
    tables = [geometry_table(found), thirds_table(found, "by_length", "words a sentence"),
              thirds_table(found, "by_overlap", "share of common words")]  # fmt: skip
    figures = {f"{m['file']}-cosines": plots.plot_densities(m) for m in found} | {
        "spectrum": plots.plot_spectrum(found)
    }
    if len(found) > 1:
        figures["scatter"] = plots.plot_scatter(found)
    forms = ("svg", "png")
    files = {
        folder / f"{n}.{form}": plots.render_figure(figure, form) for n, figure in figures.items() for form in forms
    }
    files[folder / "table.md"] = "\n".join(map(to_markdown, tables)).encode()
    files[folder / "table.csv"] = to_csv(geometry_rows(found)).encode()
    sections = [section("", figures.get("scatter"), tables[0])]
    sections += [
        section(f"Cosines by gold score: {m['model']['name']}", figures[f"{m['file']}-cosines"]) for m in found
    ]
    sections += [section("Singular values", figures["spectrum"])]
    sections += [section(table.title, None, table) for table in tables[1:]]
    title = "Geometry of sentence embeddings"
    files[folder / "index.html"] = page(
        title, tables[0].title, sections, geometry_provenance(found), analyses_fingerprint(found)
    )
    return files


def analyses_fingerprint(found: Sequence[Mapping[str, Any]]) -> str:
    """Fingerprint of the analyses."""
    return fingerprint(found)


def geometry_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """One row per model."""
    rows = [
        [marked_name(m["model"]), _data(m), f"{m['spearman']:.2f}", f"{m['alignment']:.3f}", f"{m['uniformity']:.2f}",
         f"{m['mean_cosine']:.3f}", f"{m['effective_rank']:.0f} of {m['dimension']}"]
        for m in found
    ]  # fmt: skip
    header = ["model", "data", "Spearman ×100", "alignment", "uniformity", "mean cosine", "effective rank"]
    notes = [
        "Alignment: mean squared distance of the pairs with a gold score above 4. Uniformity: log of the mean of "
        "exp(-2 d²) over all pairs of distinct sentences. Both of unit vectors, lower is better (SimCSE, footnote 3).",
        "Mean cosine: over all pairs of distinct sentences; 0 where directions are even. Effective rank: exp of the "
        "entropy of the centred unit vectors' singular values.",
    ]
    tried = [bundled.ENCODER] * any(m["model"].get("embedded") for m in found)
    tried += [bundled.DATA] * any(m["data"]["task"] in bundled.TASKS for m in found)
    return Table("alignment and uniformity" + "".join(f" — {t}" for t in tried), header, rows, notes)


def thirds_table(found: Sequence[Mapping[str, Any]], key: str, what: str) -> Table:
    """Spearman within thirds of the pairs."""
    rows = []
    for m in found:
        for part in m[key]:
            limits = MISSING if part["from_to"] is None else "{:g} to {:g}".format(*part["from_to"])
            score = MISSING if part["spearman"] is None else f"{part['spearman']:.2f}"
            rows.append([marked_name(m["model"]), part["part"], limits, str(part["n"]), score])
    return Table(f"Spearman ×100 by {what}", ["model", "third", what, "pairs", "score"], rows)


def geometry_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per model."""
    keys = ("spearman", "alignment", "uniformity", "mean_cosine", "effective_rank", "dimension")
    return [{"model": m["model"]["name"], "data": _data(m), **{k: m[k] for k in keys}} for m in found]


def geometry_provenance(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What decided the numbers, model by model."""
    return {
        m["model"]["name"]: f"pooling {m['model'].get('pooling')}, head {m['model'].get('head')}; "
        f"{_data(m)}, {m['data']['pairs']} pairs, {m['data']['aligned_pairs']} of them above 4, "
        f"{m['data']['sentences']} sentences, {m['data']['fingerprint']}; "
        f"{m['environment']['processor']}, {m['created']}"
        for m in found
    }


def _data(m: Mapping[str, Any]) -> str:
    return f"{m['data']['task']} {' + '.join(m['data']['splits']) or 'whole'}"
