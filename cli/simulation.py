"""`ivor simulate`: a whole federation in one process, for people who work on the protocol.

The simulator is a part of the tests, which are not installed: so this runs it from a checkout, as
`python -m tests.simulator` does.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

CHECKOUT: Final = Path(__file__).parents[1]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate)


def simulate(
    seed: Annotated[int, typer.Option(help="What all chance is drawn from.")],
    minutes: Annotated[float, typer.Option(help="Simulated minutes before healing.")] = 3.0,
    trace: Annotated[bool, typer.Option("--trace", help="Tell what happens, in order.")] = False,
    html: Annotated[Path | None, typer.Option(help="Draw it into this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The outcome as one line of JSON.")] = False,
) -> int:
    """Simulate a federation with faults and attackers; needs a checkout of Ivor.

    Exit code 7 if an invariant of SPEC 11 did not hold.
    """
    import subprocess
    import sys

    from node.errors import UserError

    if not (CHECKOUT / "tests" / "simulator").is_dir():
        raise UserError(
            "the simulator is a part of Ivor's tests, which are not installed: run this in a "
            "checkout, after make test"
        )
    command = [sys.executable, "-m", "tests.simulator", f"--seed={seed}", f"--minutes={minutes}"]
    command += ["--trace"] if trace else []
    command += ["--json"] if json else []
    command += [] if html is None else [f"--html={html.resolve()}"]
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode  # noqa: S603 - our own
