"""One self-contained HTML page from a template; whether a drawn file is stale."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import UserError
from simcse_bench.files import write_bytes
from simcse_bench.reports import plots
from simcse_bench.reports.table import Table, one_line, text_columns, to_cell, to_heading, to_list, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
_SOURCES = "What it is drawn from"  # heading of every page's last part
# how every page of ours begins, and the fingerprint of what it is drawn from
_OURS = re.compile(rb'<meta name="color-scheme" content="light dark">\s*<meta name="source" content="([0-9a-f]{16})">')


# a verdict's class on a page, and its sign: colour is never alone
VERDICTS = {
    "holds": ("yes", "✓"),
    "does not hold": ("no", "✗"),
    "undecided": ("open", "?"),
    "one seed": ("single", "1"),
    "not run": ("none", "–"),
}


@dataclass(frozen=True)
class Verdict:
    """A statement of the paper, whether it holds here, and by which numbers."""

    text: str
    verdict: str
    numbers: str = ""

    @property
    def kind(self) -> str:
        """Its class."""
        return VERDICTS.get(self.verdict, VERDICTS["not run"])[0]

    @property
    def sign(self) -> str:
        """Of the verdict."""
        return VERDICTS.get(self.verdict, VERDICTS["not run"])[1]


@dataclass(frozen=True)
class Mark:
    """A row's place on an axis, from 0 to 100 percent of its width."""

    label: str  # what it says, for those who do not see it
    mean: float
    interval: tuple[float, float] | None = None
    paper: float | None = None
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Made:
    """What decided numbers of a part, and the command that makes them again."""

    title: str
    command: str
    facts: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page: what it says in a line, the paper's statements, a plot, a table, how it was made."""

    heading: str = ""
    svg: str = ""
    table: Table | None = None
    caption: str = ""  # what was measured in what
    lead: str = ""  # what came out
    verdicts: Sequence[Verdict] = ()
    notes: Sequence[str] = ()
    reference: str = ""  # the row to mark
    embedded: bool = False  # model or data, for trying only
    facts: Mapping[str, str] = field(default_factory=dict)
    axis: Any = None  # a ``panels.Axis``: that of the marks
    marks: Sequence[Mark | None] = ()  # by row of the table
    legend: Sequence[str] = ()  # what marks of scores there are on the page: ours, seeds, published
    folded: Sequence[Section] = ()  # further tables, the title of each above it
    commands: Mapping[str, str] = field(default_factory=dict)  # what is not here -> the command for it
    links: Mapping[str, str] = field(default_factory=dict)  # text -> where it leads
    made: Sequence[Made] = ()

    @property
    def left(self) -> set[int]:
        """Columns of the table that hold words."""
        return text_columns(self.table) if self.table else set()

    @property
    def ident(self) -> str:
        """Where links to it lead."""
        return re.sub(r"\W+", "-", self.heading.casefold()).strip("-")

    @property
    def remade(self) -> str:
        """The commands that make its numbers again, a line each."""
        return "\n".join(dict.fromkeys(made.command for made in self.made if made.command))

    @property
    def made_notes(self) -> list[str]:
        """What there is to know of them."""
        return list(dict.fromkeys(made.note for made in self.made if made.note))

    @property
    def place(self) -> tuple[str, str]:
        """Its heading as a number ("Table 3") and a title."""
        number, colon, title = self.heading.partition(": ")
        return (number, title) if colon else ("", self.heading)


def count_verdicts(verdicts: Sequence[Verdict]) -> list[tuple[int, Verdict]]:
    """How many of each kind there are, those that hold first."""
    counts = Counter(v.verdict for v in verdicts)
    return [(counts[name], Verdict("", name)) for name in VERDICTS if counts[name]]


def shown_tally(verdicts: Sequence[Verdict], papers: str = "the paper") -> str:
    """Verdicts in a line: ``Of 4 statements of the paper 2 hold, 1 does not hold, 1 is undecided``."""
    many = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided",
            "one seed": "have one seed, so no verdict", "not run": "were not run"}  # fmt: skip
    one = {"undecided": "is undecided", "one seed": "has one seed, so no verdict", "not run": "was not run"}
    counts = count_verdicts(verdicts)
    if len(counts) == 1:
        n, verdict = counts[0][0], counts[0][1].verdict
        if n == 1:
            return f"The statement of {papers} {one.get(verdict, verdict)}"
        return f"{'Both' if n == 2 else f'All {n}'} statements of {papers} {many[verdict]}"
    parts = [f"{n} {one.get(v.verdict, v.verdict) if n == 1 else many[v.verdict]}" for n, v in counts]
    return f"Of {len(verdicts)} statements of {papers} {', '.join(parts)}" if parts else ""


def render_template(name: str, **values: Any) -> bytes:
    """A template of ``TEMPLATES`` filled in: everything is escaped, nothing may be left out."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(name).render(values).encode()


def section(
    heading: str = "",
    figure: Figure | None = None,
    table: Table | None = None,
    notes: Sequence[str] | None = None,
    **more: Any,
) -> Section:
    """A section with the figure inline; ``notes``: in place of the table's, ``more``: fields of ``Section``."""
    svg = "" if figure is None else plots.render_figure(figure, "svg").decode()
    if notes is None:
        notes = table.notes if table else ()
    return Section(heading, svg[svg.index("<svg") :] if svg else "", table, notes=notes, **more)


def page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    source: str,
    tried: Sequence[str] = (),
    reading: Sequence[str] = (),
) -> bytes:
    """One self-contained HTML page.

    Args:
        title: its heading.
        subtitle: what was measured in what.
        sections: from first to last; the contents list those with a heading.
        provenance: what decided the numbers.
        source: fingerprint of what it is drawn from.
        tried: what of it is embedded, for trying.
        reading: how to read every table.
    """
    counts = count_verdicts([v for s in sections for v in s.verdicts])
    facts = {"title": title, "subtitle": subtitle, "provenance": provenance, "source": source}
    facts_of_all = {"tried": tried, "reading": reading, "counts": counts, "tally": count_verdicts}
    return render_template("page.html", sections=sections, **facts, **facts_of_all)


def page_markdown(
    title: str, subtitle: str, sections: Sequence[Section], provenance: Mapping[str, str], tried: Sequence[str] = ()
) -> str:
    """The same page in Markdown, without its figures; arguments as of ``page``."""
    lines = [to_heading(title, 1), "", one_line(subtitle), "", *(line for note in tried for line in (f"> {note}", ""))]
    for part in sections:
        lines += ["\n".join(_section_markdown(part)).rstrip("\n"), ""]
    return "\n".join([*lines, to_heading(_SOURCES, 2), "", *to_list(provenance), ""])


def _section_markdown(part: Section) -> list[str]:
    heading = part.heading + " (embedded)" * part.embedded
    lines = [to_heading(heading, 2), "", *([f"{part.lead}.", ""] if part.lead else [])]
    lines += [*to_list(part.facts), ""] if part.facts else []
    if part.table:
        lines.append(to_markdown(dataclasses.replace(part.table, notes=part.notes)))
    elif part.notes:
        lines += [*(f"- {note}" for note in part.notes), ""]
    lines += [to_markdown(one.table) for one in part.folded if one.table]
    lines += [*(f"- {what}: `{command}`" for what, command in part.commands.items()), ""] if part.commands else []
    lines += [*(f"- [{text}]({where})" for text, where in part.links.items()), ""] if part.links else []
    if part.remade:
        lines += ["```bash", part.remade, "```", "", *part.made_notes, *([""] if part.made_notes else [])]
    for made in part.made:
        lines += [*([f"{to_cell(made.title)}:", ""] if len(part.made) > 1 else []), *to_list(made.facts), ""]
    return lines


def is_own(path: Path) -> bool:
    """Whether a file is a page of ours, HTML or its Markdown."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    return f"## {_SOURCES}\n".encode() in content if path.suffix == ".md" else bool(_OURS.search(content))


def require_own(path: Path) -> None:
    """UserError where a page that is not ours lies in the place of one that will be drawn."""
    if path.exists() and not is_own(path):
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
