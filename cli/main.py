"""The program `ivor`: registers the commands, and turns errors into exit codes (SPEC 11).

    0 done · 1 the user's error · 2 usage · 3 storage or network · 4 untrusted identity
    5 limit or rate · 7 verification failed or equivocation seen · 8 refused by policy
    130 interrupted · 141 nobody reads the output any more

Another family of commands is a module with `register(app)`, named in `_register`.
"""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import founding, official, operator, simulation
from cli.demo import command as demo
from cli.entry import INTERRUPTED
from cli.output import Output, end_quietly

BROKEN_PIPE: Final = 141
STORAGE_OR_NETWORK: Final = 3
BUG: Final = 1
TRACE_VARIABLE: Final = "IVOR_TRACEBACK"

app = typer.Typer(
    name="ivor",
    help="Ivor: messages between agencies, end-to-end encrypted, on your own servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    demo.register(app)
    founding.register(app)
    operator.register(app)
    official.register(app)
    simulation.register(app)


_register()


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"ivor {version('ivor')}")
        raise typer.Exit


@app.callback()
def _ivor(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show which version this is.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Ivor: messages between agencies, end-to-end encrypted, on your own servers."""
    del version


def run() -> None:
    """Run the program and end the process."""
    _stand_in()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters that others have
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def _stand_in() -> None:
    """Open the null device in the place of a stream that the process was started without.

    Else the next file that is opened, a database, gets its number, and what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Prints at most one line about an error."""
    try:
        outcome = app(list(arguments), prog_name="ivor", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, SystemExit, BaseExceptionGroup) as error:  # noqa: BLE001
        # The one place where an error becomes an exit code.
        return _exit_code(_meant(_first(error), arguments), Output("--json" in arguments))
    return outcome if isinstance(outcome, int) else 0


def _first(error: BaseException) -> BaseException:
    """Return what ended a nursery: the first error that is not itself a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _meant(error: BaseException, arguments: Sequence[str]) -> BaseException:
    """Return the user's error that stands behind one: bytes that were given and are no text."""
    if isinstance(error, UnicodeEncodeError):
        for number, given in enumerate(arguments, 1):
            if not given.isascii() and any("\ud800" <= one <= "\udfff" for one in given):
                return typer.TyperException(f"argument {number} is not UTF-8: convert it first")
    return error


def _exit_code(error: BaseException, output: Output) -> int:
    if os.environ.get(TRACE_VARIABLE):
        sys.excepthook(type(error), error, error.__traceback__)
    # The library answers a broken pipe with an exit.
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        end_quietly()
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, typer.TyperException) and _is_help(error) and not output.as_json:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    said, code = _failure(error)
    output.failure(said, code)
    return code


def _failure(error: BaseException) -> tuple[str, int]:
    """Return in one line what went wrong, and the exit code."""
    if isinstance(error, typer.TyperException):
        return _usage(error), error.exit_code
    from node.disk import MAKE_ROOM, is_full
    from node.errors import IvorError, exit_code
    from node.words import reason
    from protocol.errors import PeerError

    room = f"; {MAKE_ROOM}" if is_full(error) or is_full(error.__context__) else ""
    if isinstance(error, IvorError | PeerError):
        return f"{error}{room}", exit_code(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{reason(error)}{room}", STORAGE_OR_NETWORK
    if type(error).__module__ == "apsw":
        return f"{error}{room}", STORAGE_OR_NETWORK
    said = f"a bug: {type(error).__name__}: {error}; please report it, with what "
    return f"{said}{TRACE_VARIABLE}=1 shows", BUG


def _is_help(error: typer.TyperException) -> bool:
    """Whether a group was named and no command of it: then the library has its help said."""
    return error.format_message().startswith("Usage: ")


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, and where its right form stands."""
    said = error.format_message().replace("Value error, ", "")
    said = "no command is given" if _is_help(error) else said
    path = getattr(getattr(error, "ctx", None), "command_path", "")
    return f"{said.removesuffix('.')}; see '{path} --help'" if path and said[-1] != "?" else said


if __name__ == "__main__":
    run()
