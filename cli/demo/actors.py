"""The demo's agencies and officials: each command is a process, as when a person types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0

Answer = dict[str, object]


class CommandFailed(Exception):
    """A command of the demo did not do what it should."""


async def command(arguments: Sequence[str], environment: dict[str, str], text: str) -> list[Answer]:
    """Run `ivor` with --json; return the objects that it prints. Raises CommandFailed."""
    done = await trio.run_process(
        [sys.executable, "-m", "cli.main", *arguments, "--json"],
        stdin=text.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=os.environ | environment,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CommandFailed(f"ivor {' '.join(arguments[:2])}: exit {done.returncode}: {said}")
    return [json.loads(line) for line in done.stdout.decode().splitlines() if line]


@dataclass(slots=True)
class AgencyActor:
    """An agency with its node. source: the loopback address that it dials from."""

    name: str
    folder: Path
    passphrase_file: Path
    source: str
    port: int
    relay_port: int
    process: trio.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What its commands find in their environment."""
        return {
            "IVOR_PASSPHRASE_FILE": str(self.passphrase_file),
            "IVOR_ROOT_PASSPHRASE_FILE": str(self.passphrase_file),
            "IVOR_SOURCE": self.source,
        }

    async def run(self, *arguments: str) -> list[Answer]:
        """Run a command of its operator."""
        return await command([*arguments, "--dir", str(self.folder)], self.environment, "")

    async def start(self) -> None:
        """Start the node's process and wait for its ready line."""
        log = (self.folder / "node.log").open("ab")
        self.process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "cli.main", "node", "run", "--dir", str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | self.environment,
        )
        log.close()
        line = b""
        if self.process.stdout is not None:
            with trio.move_on_after(READY_SECONDS_MAX):
                line = bytes(await self.process.stdout.receive_some())
        if not line.startswith(b"ready"):
            raise CommandFailed(
                f"the node of {self.name} did not start; see {self.folder}/node.log"
            )

    async def kill(self) -> None:
        """End the node as a power cut would: SIGKILL."""
        if self.process is not None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int | None:
        """End the node as an operator would: SIGTERM. Return its exit code."""
        if self.process is None or self.process.returncode is not None:
            return None
        self.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS_MAX):
            return await self.process.wait()
        await self.kill()
        return None


@dataclass(slots=True)
class OfficialActor:
    """An official with one device."""

    name: str
    agency: AgencyActor
    home: Path
    passphrase_file: Path
    written: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """anna@minzdrav."""
        return f"{self.name}@{self.agency.name}"

    async def run(self, *arguments: str, text: str = "") -> list[Answer]:
        """Run a command of this official."""
        environment = {
            "IVOR_HOME": str(self.home),
            "IVOR_PASSPHRASE_FILE": str(self.passphrase_file),
        }
        return await command(arguments, environment, text)
