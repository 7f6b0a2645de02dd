"""`ivor demo`, as the command line sees it."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the demo to the program."""
    app.command(rich_help_panel="Start here")(demo)


def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Leave the federation in this new folder.")
    ] = None,
) -> None:
    """Run three agencies and six officials here: a crash, a cut line, a removal; half a minute."""
    from cli.demo.stage import perform

    raise typer.Exit(perform(keep))
