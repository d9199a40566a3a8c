"""A benchmark's figures and their table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NotRequired

from annotated_types import Gt
from typing_extensions import TypedDict

from simcse_bench.files import Environment, shown_machine, shown_versions
from simcse_bench.reports.table import MISSING, Table, shown_numbers
from simcse_bench.schema import read_record


class Timing(TypedDict):
    """One side of a benchmark."""

    what: str
    dtype: str
    seconds: Sequence[float]
    median: Annotated[float, Gt(0)]
    sentences: int
    peak_mb: int | None
    base: NotRequired[Annotated[float, Gt(0)]]  # seconds that this row is held against


class Speed(TypedDict):
    """A benchmark's figures, as the scripts in benchmarks/ write them."""

    title: str
    reference: str  # a row's "what"
    rows: Sequence[Timing]
    counted: NotRequired[str]  # what a row's number of sentences counts, where it is something else
    note: str
    environment: Environment


def read_speed(path: Path) -> Speed:
    """A benchmark's figures; UserError where the file is none."""
    return read_record(path, Speed, "not a benchmark's figures. Move it away or run the benchmark again.")


def speed_table(content: Speed) -> Table:
    """A benchmark's medians, and their ratio to the reference: in the same dtype, and, of several, to its float32.

    A row with a "base" is held against that instead: a benchmark of several cases.
    """
    rows, theirs = content["rows"], content["reference"]
    medians = {(r["what"], r["dtype"]): r["median"] for r in rows}

    def ratio(row: Timing, dtype: str) -> str:
        base = row.get("base", medians.get((theirs, dtype)))
        return shown_numbers("{:.2f}", None if base is None else row["median"] / base)

    def seconds(value: float) -> str:
        return f"{value:.4f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"

    dtypes = any(ratio(r, r["dtype"]) != ratio(r, "float32") for r in rows)
    memory = any(r["peak_mb"] for r in rows)
    runs = any(len(r["seconds"]) > 1 for r in rows)
    cells = [
        [r["what"], r["dtype"], seconds(r["median"]), *[", ".join(map(seconds, r["seconds"]))] * runs,
         ratio(r, r["dtype"]), *[ratio(r, "float32")] * dtypes, f"{r['sentences']:,}",
         *[str(r["peak_mb"] or MISSING)] * memory]
        for r in rows
    ]  # fmt: skip
    header = ["", "dtype", *(["median s", "runs s"] if runs else ["seconds"]), "ratio", *["ratio to float32"] * dtypes,
              content.get("counted", "sentences"), *["peak MB"] * memory]  # fmt: skip
    machine = content["environment"]
    notes = [
        f"Ratio: to {theirs}{' in the same dtype, and in float32' * dtypes}. {content['note']}",
        f"Machine: {shown_machine(machine)}; {shown_versions(machine)}.",
    ]
    return Table(content["title"], header, cells, notes)
