"""The command line: registers the commands of ``cli/``, turns a UserError into one line and exit code 2."""

from __future__ import annotations

import errno
import gc
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from simcse_bench.cli import compare, console, evaluate, experiments, export, listing, official, rescore, search, train
from simcse_bench.errors import Stopped, UserError, printable

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
    simcse-bench eval mini
    simcse-bench doctor            # what is here, and what is missing
    simcse-bench COMMAND --help    # every command with examples
    """


_COMMANDS: dict[str, Callable[..., None]] = {
    "eval": evaluate.evaluate_command,
    "rescore": rescore.rescore_command,
    "train": train.train_command,
    "run-ablation": experiments.ablation_command,
    "reproduce": experiments.reproduce_command,
    "verify": compare.verify_command,
    "compare": compare.compare_command,
    "leaderboard": compare.leaderboard_command,
    "analyze": compare.analyze_command,
    "export": export.export_command,
    "index": search.index_command,
    "search": search.search_command,
    "encode": search.encode_command,
    "demo": search.demo_command,
    "ls": listing.list_command,
    "doctor": listing.doctor_command,
    "report": listing.report_command,
    "card": listing.card_command,
    "schema": listing.schema_command,
}
_INTERRUPTED = 130  # exit code of Ctrl-C
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=official.Command)(_command)


def main() -> None:
    """Entry point: a UserError is printed without a traceback and exits with 2; what cannot be printed, with 1."""
    gc.set_threshold(100_000, 20, 20)  # importing torch and transformers makes half a million objects, all to stay
    console.yield_shared_cores()
    print_problem = console.prepare_streams()
    code = 1
    try:
        code = _run()
    finally:
        gc.freeze()  # or all of them are gone through again before the process ends, which takes a second
        problem = print_problem()
        if problem:
            typer.echo(f"error: {problem}", err=True)
            raise SystemExit(code or 1) from None
    raise SystemExit(code)


def _run() -> int:
    """Run the command; its exit code."""
    try:
        if sys.flags.optimize > 1:
            raise UserError(
                "PYTHONOPTIMIZE=2 (python -OO) removes the docstrings that transformers and --help read. "
                "Unset it, or take 1."
            )
        app()
    except UserError as error:
        for problem in error.problems:
            typer.echo(f"error: {printable(problem)}", err=True)
        return 2
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        return stop.code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # `simcse-bench ... | head`
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        typer.echo(f"error: {error.filename}: too long a name for a file. Choose a shorter one.", err=True)
        return 2
    except (MemoryError, RuntimeError) as error:
        from simcse_bench.models.encoders import out_of_memory  # torch, where memory runs out, is there

        if not out_of_memory(error):
            raise
        said = str(error).partition("\n")[0]
        told = f" ({printable(said)})" if said else ""
        typer.echo(
            f"error: out of memory{told}. End what else takes memory, or use another --device or a smaller model.",
            err=True,
        )
        return 2
    except SystemExit as stop:  # typer's own end; it makes one of Ctrl-C, too
        if stop.code == _INTERRUPTED:
            return _interrupted()
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _interrupted() -> int:
    typer.echo("interrupted; nothing half-written", err=True)
    return _INTERRUPTED


if __name__ == "__main__":
    main()
