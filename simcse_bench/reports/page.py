"""One self-contained HTML page from a template; whether a drawn file is stale."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import UserError
from simcse_bench.files import write_bytes
from simcse_bench.reports import plots
from simcse_bench.reports.table import Table, text_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
# how every page of ours begins, and the fingerprint of what it is drawn from
_OURS = re.compile(rb'<meta name="color-scheme" content="light dark">\s*<meta name="source" content="([0-9a-f]{16})">')


@dataclass(frozen=True)
class Section:
    """A part of a page: a plot, a table, or both."""

    heading: str = ""
    svg: str = ""
    table: Table | None = None

    @property
    def left(self) -> set[int]:
        """Columns of the table that hold words."""
        return text_columns(self.table) if self.table else set()


def render_template(name: str, **values: Any) -> bytes:
    """A template of ``TEMPLATES`` filled in: everything is escaped, nothing may be left out."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(name).render(values).encode()


def section(heading: str = "", figure: Figure | None = None, table: Table | None = None) -> Section:
    """A section with the figure inline."""
    svg = "" if figure is None else plots.render_figure(figure, "svg").decode()
    return Section(heading, svg[svg.index("<svg") :] if svg else "", table)


def page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    source: str,
    reference: str = "",
) -> bytes:
    """One self-contained HTML page; ``source``: fingerprint of what it is drawn from; ``reference``: row to mark."""
    facts = {"title": title, "subtitle": subtitle, "provenance": provenance, "source": source, "reference": reference}
    return render_template("page.html", sections=sections, **facts)


def require_own(path: Path) -> None:
    """UserError where a page that is not ours lies in the place of one that will be drawn."""
    if path.exists() and not (path.is_file() and _OURS.search(path.read_bytes())):
        raise UserError(
            f"{path}: not a page of simcse-bench, and left as it is. Move it away or choose another folder."
        )


def write_drawn(path: Path, content: bytes) -> None:
    """Write a drawn file; UserError where a page would replace one that is not ours."""
    if path.suffix == ".html":
        require_own(path)
    write_bytes(path, content)


def stale(path: Path, content: bytes) -> bool:
    """Whether a drawn file is not what it should be.

    Plots depend on matplotlib's version: they need only exist, and a page needs to name the fingerprint of its source.
    """
    if not path.is_file():
        return True
    if path.suffix in (".svg", ".png"):
        return False
    if path.suffix == ".html":
        require_own(path)
        return _source(path.read_bytes()) != _source(content)
    return path.read_bytes() != content


def _source(page: bytes) -> bytes | None:
    meta = _OURS.search(page)
    return meta[1] if meta else None
