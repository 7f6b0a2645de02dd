"""Sets the stage for `ivor demo`, plays the story, and cleans up whatever happens."""

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio
import typer

from cli.demo.actors import AgencyActor, CommandFailed, OfficialActor
from cli.demo.relay import RELAY_HOST, Network, relay
from cli.demo.story import TITLE, CheckFailed, Stage, play
from node.errors import UserError

AGENCIES = ("minzdrav", "mincifry", "minfin")
OFFICIALS = (
    ("anna", 0),
    ("pavel", 0),
    ("boris", 1),
    ("vera", 1),
    ("galina", 2),
    ("denis", 2),
)
README = Path(__file__).parents[2] / "README.md"
FAILED = 7


def perform(keep: Path | None) -> int:
    """Play the demo; return the exit code. keep: a new folder that is to remain, or None."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ivor-demo-") as folder:
            return trio.run(_perform, Path(folder), False)
    if keep.exists() and any(keep.iterdir()):
        raise UserError(f"{keep} is not empty; name a new folder")
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    return trio.run(_perform, keep.resolve(), True)


async def _perform(folder: Path, kept: bool) -> int:
    agencies, officials = _cast(folder)
    failures: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            stage = Stage(typer.echo, Network(), agencies, officials, nursery)
            for agency in agencies:
                listener = await _listen(agency)
                nursery.start_soon(relay, stage.network, agency.host, listener, agency.port)
            await play(stage, README)
            stage.act(f"All {len(stage.passed)} checks held.")
            nursery.cancel_scope.cancel()
    except* (CheckFailed, CommandFailed) as group:
        failures += [str(error) for error in _flat(group)]
    finally:
        with trio.CancelScope(shield=True):
            for agency in agencies:
                await agency.stop()
    for failure in failures:
        typer.echo(f"\nFAILED: {failure}")
    if failures:
        return FAILED
    if kept:
        _tell_what_to_try(agencies, officials, folder)
    return 0


def _cast(folder: Path) -> tuple[list[AgencyActor], list[OfficialActor]]:
    """Choose ports, addresses and folders; write the passphrase file of this throw-away world."""
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("demo, not a secret\n")
    agencies = []
    for number, name in enumerate(AGENCIES):
        host = f"127.0.0.{11 + number}"
        agencies.append(AgencyActor(name, folder / name, passphrase, host, _free_port()))
    officials = [
        OfficialActor(name, agencies[at], folder / f"{name}-device", passphrase)
        for name, at in OFFICIALS
    ]
    return agencies, officials


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((RELAY_HOST, 0))
        return int(probe.getsockname()[1])


async def _listen(agency: AgencyActor) -> trio.SocketListener:
    listeners = await trio.open_tcp_listeners(agency.port, host=RELAY_HOST)
    return listeners[0]


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _tell_what_to_try(
    agencies: Sequence[AgencyActor], officials: Sequence[OfficialActor], folder: Path
) -> None:
    first, anna, other = agencies[0], officials[0], officials[2]
    passphrase = f"IVOR_PASSPHRASE_FILE={folder}/passphrase"
    typer.echo(
        f"\nThe federation is in {folder}. Try next, each in a terminal of its own:\n\n"
        f"  for a in {' '.join(AGENCIES)}; do {passphrase} ivor node run --dir {folder}/$a & done\n"
        f"  {passphrase} IVOR_HOME={other.home} ivor read '{TITLE}' --follow\n"
        f"  {passphrase} IVOR_HOME={anna.home} ivor send '{TITLE}' 'Здравствуйте!'\n\n"
        f"and ask a node how it is: {passphrase} ivor node status --dir {first.folder}"
    )
