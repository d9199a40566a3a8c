"""The command line: registers the commands of ``cli/``, turns a UserError into one line and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from simcse_bench.cli import compare, evaluate, experiments, export, listing, search, train
from simcse_bench.errors import Stopped, UserError

app = typer.Typer(
    name="simcse-bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(listing.data_app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        import simcse_bench

        typer.echo(f"simcse-bench {simcse_bench.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """SimCSE: training by the paper's recipes, and evaluation that equals the official one, with intervals.

    \b
    simcse-bench eval --model mini
    simcse-bench COMMAND --help    # every command with examples
    """


app.command("eval")(evaluate.evaluate_command)
app.command("train")(train.train_command)
app.command("run-ablation")(experiments.ablation_command)
app.command("reproduce")(experiments.reproduce_command)
app.command("verify")(compare.verify_command)
app.command("compare")(compare.compare_command)
app.command("leaderboard")(compare.leaderboard_command)
app.command("analyze")(compare.analyze_command)
app.command("export")(export.export_command)
app.command("index")(search.index_command)
app.command("search")(search.search_command)
app.command("encode")(search.encode_command)
app.command("demo")(search.demo_command)
app.command("ls")(listing.list_command)
app.command("report")(listing.report_command)
app.command("schema")(listing.schema_command)


def main() -> None:
    """Entry point: a UserError is printed without a traceback and exits with 2."""
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise SystemExit(2) from None
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing half-written", err=True)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `simcse-bench ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        typer.echo(f"error: {error.filename}: too long a name for a file. Choose a shorter one.", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
