"""What the command line shares: options, notes, tables in a terminal, reports in every format."""

from __future__ import annotations

import atexit
import codecs
import functools
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from simcse_bench.errors import UserError, unknown

if TYPE_CHECKING:
    from simcse_bench.cluster import RayCluster
    from simcse_bench.data.senteval import DataSource
    from simcse_bench.models.prompts import PromptOptions
    from simcse_bench.reports.report import Report
    from simcse_bench.reports.table import Table

_LETTERS = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "×": "x", "±": "+-", "…": "...", "→": "->", "’": "'",
     "α": "alpha", "λ": "lambda", "τ": "tau", "ρ": "rho"}
)  # fmt: skip
PRINT_FORMATS = ("table", "md", "csv", "latex", "json")
EXECUTORS = ("local", "ray")
PROGRESS = ("auto", "bar", "plain", "none")
# the groups of --help, in this order
what = functools.partial(typer.Option, rich_help_panel="What")
how = functools.partial(typer.Option, rich_help_panel="How")
where = functools.partial(typer.Option, rich_help_panel="Where")
output = functools.partial(typer.Option, rich_help_panel="Output")
_MODEL = "Folder, Hub id, name from `ls models`, word-vectors:FILE, random-words, mteb:NAME."

ModelWord = Annotated[str | None, typer.Argument(metavar="MODEL", help=_MODEL, show_default=False)]
ModelOption = Annotated[str | None, what("--model", "-m", help="MODEL as an option.")]
Revision = Annotated[str | None, what(help="Branch, tag or commit of the model on the Hub.")]

Pooling = Annotated[
    str | None,
    how(metavar="NAME", help="Instead of the checkpoint's own: see `ls poolings`."),
]
Head = Annotated[
    str | None,
    how(metavar="none|mlp", help="Instead of the checkpoint's own."),
]
Pooler = Annotated[
    str | None,
    how(
        metavar="NAME", help="Pooling and head by SimCSE's name: cls, cls_before_pooler, avg, avg_top2, avg_first_last."
    ),
]
MaxLength = Annotated[int | None, how(help="Truncate after so many tokens.")]
Prompt = Annotated[
    str | None,
    how(help="Text before every sentence, instead of the model's own prompt."),
]
PromptName = Annotated[str | None, how(help="One of the model's own prompts.")]
Template = Annotated[
    str | None,
    how(help="Text around {sentence}, for --pooling mask (PromptBERT) or last_token (PromptEOL)."),
]
RemoveBias = Annotated[
    bool,
    how("--remove-template-bias", help="Subtract the template's own vector (PromptBERT)."),
]
TruncateDim = Annotated[int | None, how(help="Only the first dimensions (Matryoshka).")]
TrustCode = Annotated[
    bool,
    how("--trust-remote-code", help="Let Python code in the model's folder run. Read it first."),
]
Dtype = Annotated[
    str,
    how(
        metavar="auto|float32| bfloat16|float16| int8",
        help="auto: float32; bfloat16 where the weights are stored so. int8: a processor's 8-bit products, less exact.",
    ),
]
RayAddress = Annotated[
    str | None, how(help="Cluster of --executor ray (else a Ray of this machine's own): host:port, auto.")
]
Device = Annotated[str, how(metavar="auto|cpu|cuda|mps", help="cuda:1: the second GPU.")]
Devices = Annotated[
    str, how(metavar="auto|cpu|cuda|mps", help="cuda:1: the second GPU; cuda:0,cuda:1: a copy of the model on each.")
]

DataDir = Annotated[
    Path | None,
    where(help="Folder in SentEval's layout (else $SIMCSE_BENCH_DATA, the cache, the Hub)."),
]
DataRevision = Annotated[str, where(help="Revision of princeton-nlp/datasets-for-simcse on the Hub.")]
TasksDir = Annotated[
    Path | None,
    where(help="Folder with task files of your own (see tasks/README.md)."),
]
Reports = Annotated[Path, where(help="Folder for the reports.")]
Results = Annotated[Path, where(help="Folder for the results.")]

Resamples = Annotated[int | None, how(help="Of the bootstrap, for the intervals (default: 1000).")]
BootstrapSeed = Annotated[int | None, how(help="Of the bootstrap (default: 0).")]
Metric = Annotated[str, output(metavar="spearman|pearson", help="Which is shown.")]
Aggregate = Annotated[str, output(metavar="all|mean|wmean", help="Shown for tasks with subsets.")]
PrintFormat = Annotated[str, output(metavar="table|md|csv|latex|json", help="What is printed.")]

StartModel = Annotated[
    str | None,
    what("--model", "-m", help="Encoder to start from; short for --set model=."),
]
TrainText = Annotated[str | None, what(help="Training text; short for --set train=.")]
Again = Annotated[bool, output("--force", help="Evaluate again, replacing an existing report.")]
Quiet = Annotated[bool, output("--quiet", "-q", help="No progress, no notes: only the result.")]
ProgressKind = Annotated[
    str,
    output(metavar="auto|bar|plain|none", help="plain: a line every 10 %; auto: a bar in a terminal."),
]


class _Output(io.FileIO):
    """Standard output that remembers why it could not be written."""

    problem: OSError | None = None

    def write(self, content: Any) -> int:
        """See ``io.FileIO``."""
        try:
            return super().write(content)
        except OSError as error:
            self.problem = error
            raise


def yield_shared_cores() -> None:
    """Where other processes hold cores, have torch's threads sleep while they wait for each other, not spin.

    GNU OpenMP's threads spin at the end of every operation; where another process needs the core, that holds up the
    very thread they wait for. 12 updates of mini-unsup (`train --set max_steps=12 --set eval_every=0`) on 2 cores
    (Intel Ice Lake, a virtual machine) beside a process that holds one: 25.4 s, asleep 13.4; on idle cores 6.9, asleep
    8.4, so there they spin as ever. What the user has set stays. Call it before torch is imported.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"} & os.environ.keys() or sys.platform != "linux":
        return
    with suppress(OSError, ValueError):
        ours, there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
        if min(_others_running() for _ in range(5)) + ours > there:
            os.environ["OMP_WAIT_POLICY"] = "passive"


def _others_running() -> int:
    """Threads of other processes that run, or could, a millisecond from now."""
    time.sleep(0.001)
    running = Path("/proc/loadavg").read_text("ascii").split()[3]  # "2/345"
    return int(running.partition("/")[0]) - 1


def prepare_streams() -> Callable[[], str]:
    """Let everything be printed everywhere, or told.

    A stream that is closed is opened, or the next file that is opened would take its place; to write to standard output
    is an error then. Signs that a stream's encoding lacks are written as in JSON. Without a home
    folder, the caches of the libraries lie in a temporary one.

    Returns:
        What says, at the end, why the output could not be written; "" where it was, or its reader has left.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number
    output = None
    if sys.stdout is sys.__stdout__:
        output = _Output(1, "w", closefd=False)
        encoding, terminal = getattr(sys.stdout, "encoding", None) or "utf-8", output.isatty()
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding, line_buffering=terminal)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error("json", _as_in_json)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json")
    _require_cache_folders()

    def print_problem() -> str:
        if output is None:
            return ""
        with suppress(OSError):
            sys.stdout.flush()
        if output.problem is None:
            return ""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the end
        if isinstance(output.problem, BrokenPipeError):
            return ""
        return f"standard output cannot be written ({output.problem.strerror}); the result is not printed."

    return print_problem


def _require_cache_folders() -> None:
    """A user of whom the system knows nothing may have no home folder: then the libraries keep nothing."""
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.TemporaryDirectory(prefix="simcse-bench-")
        atexit.register(home.cleanup)
        if not os.environ.get("XDG_CACHE_HOME"):
            os.environ.setdefault("HF_HOME", home.name)
        os.environ.setdefault("MPLCONFIGDIR", home.name)


def _as_in_json(error: UnicodeError) -> tuple[str, int]:
    r"""Handler of ``codecs``: \uXXXX for each sign that the encoding lacks, which JSON reads back."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(json.dumps(sign)[1:-1] for sign in signs), error.end


def _spelled(text: str, encoding: str) -> str:
    """A text of a table, its signs in letters where the encoding lacks them."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_LETTERS)
    return text


def aloud(line: str) -> None:
    """A note to the user, beside the result."""
    typer.echo(line, err=True)


def given_options(context: typer.Context, command: Callable[..., None], mark: str) -> dict[str, Any]:
    """The options given in words whose annotation carries this mark, as they are written, and their values."""
    hints = get_type_hints(command, include_extras=True)
    return {
        f"--{name.replace('_', '-')}": context.params[name]
        for name, hint in hints.items()
        if mark in getattr(hint, "__metadata__", ())
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def where_from(data_dir: Path | None, tasks_dir: Path | None, data_revision: str) -> DataSource:
    """What the options say of the data; nothing is loaded for ``--help``."""
    from simcse_bench.data.senteval import DataSource

    return DataSource(data_dir, tasks_dir, data_revision)


def prompt_from(prompt: str | None, name: str | None, template: str | None, remove_bias: bool) -> PromptOptions:
    """What the options say of the prompt; nothing is loaded for ``--help``."""
    from simcse_bench.models.prompts import PromptOptions

    return PromptOptions(prompt, name, template, remove_bias)


def ray_cluster(
    executor: str, unit: str, address: str | None, cpus: float | None, gpus: float | None
) -> RayCluster | None:
    """The cluster of --executor ray, by the options that belong to it; None for local.

    Args:
        unit: of the work, as the options --cpus-per-UNIT and --gpus-per-UNIT call it.

    Raises:
        UserError: an unknown executor, options of ray for another one.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    given: dict[str, Any] = {"address": address, "cpus": cpus, "gpus": gpus}
    given = {k: v for k, v in given.items() if v is not None}
    if executor == "ray":
        from simcse_bench.cluster import RayCluster

        for what in ("cpus", "gpus"):
            _require_amount(f"--{what}-per-{unit}", given.get(what, 0.0))
        return RayCluster(unit, **given)
    if given:
        raise UserError(f"--ray-address, --cpus-per-{unit} and --gpus-per-{unit} belong to --executor ray.")
    return None


def _require_amount(option: str, amount: float) -> None:
    """UserError for what Ray cannot share out: it counts in ten-thousandths, and whole ones above 1."""
    if not (amount >= 0 and amount == round(amount, 4) and (amount <= 1 or float(amount).is_integer())):
        raise UserError(f"{option} {amount:g}: expected a whole number, or a part of 1 with at most four decimals.")


def one_model(word: str | None, option: str | None) -> str:
    """The model of a command, named as its first word or by --model.

    Raises:
        UserError: none, or two.
    """
    if word is not None and option is not None and word != option:
        raise UserError(f"two models: {word} and --model {option}; give one.")
    model = word or option
    if not model:
        raise UserError("no model: give a folder, a Hub id or a name from `simcse-bench ls models`; `mini` is here.")
    return model


def split_names(given: Sequence[str] | None, option: str) -> tuple[str, ...]:
    """The names of a repeatable option, each word of which may hold several separated by commas.

    Raises:
        UserError: it was given, and names nothing.
    """
    names = tuple(name.strip() for word in given or () for name in word.split(",") if name.strip())
    if given and not names:
        raise UserError(f"{option} {','.join(given)!r}: names nothing; leave it out for the default.")
    return names


def named_view(pooling: str | None, head: str | None, pooler: str | None) -> tuple[str | None, str | None]:
    """Pooling and head from the three options; nothing is loaded for ``--help``."""
    from simcse_bench.models import catalog

    return catalog.named_view(pooling, head, pooler)


def choice_problems(**given: tuple[str, Collection[str]]) -> list[str]:
    """A problem for each value that is not among those known of its kind."""
    return [str(unknown(kind, value, known)) for kind, (value, known) in given.items() if value not in known]


def require_choices(**given: tuple[str, Collection[str]]) -> None:
    """UserError with all of ``choice_problems``."""
    problems = choice_problems(**given)
    if problems:
        raise UserError(*problems)


def print_reports(reports: list[Report], metric: str, aggregate: str, format: str) -> None:
    """Print reports in a format of the command line: table, md, csv, latex or json."""
    import dataclasses
    import json

    from simcse_bench.reports import scores
    from simcse_bench.reports.table import to_csv

    if format == "csv":
        typer.echo(to_csv([row for report in reports for row in scores.score_rows(report)]), nl=False)
    elif format == "json":
        content = [dataclasses.asdict(report) for report in reports]
        typer.echo(json.dumps(content if len(content) > 1 else content[0], indent=1, ensure_ascii=False))
    for report in reports if format in ("table", "md", "latex") else ():
        table = scores.score_table(report, metric, aggregate, narrow=format == "table")
        if format == "table":
            table = dataclasses.replace(table, title=f"{report.model['name']}\n{table.title}")
        print_table(table, format)


def print_table(table: Table, format: str = "table") -> None:
    """Print a table for a terminal (in a file or a pipe, 160 columns wide), or as Markdown or LaTeX."""
    from simcse_bench.reports.table import to_latex, to_markdown

    if format != "table":
        typer.echo({"md": to_markdown, "latex": to_latex}[format](table), nl=False)
        return
    from rich.console import Console

    from simcse_bench.cli import terminal

    console = Console(width=None if sys.stdout.isatty() else 160)  # a file or a pipe has no width of its own
    for part in terminal.draw(table, console.width, lambda text: _spelled(text, console.encoding)):
        console.print(part)
