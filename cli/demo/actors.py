"""The demo's agencies and officials: each command is a process, as when a person types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cli.demo.relay import RELAY_HOST

READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0

Answer = dict[str, object]


class CommandFailed(Exception):
    """A command of the demo did not do what it should."""


async def command(arguments: Sequence[str], environment: dict[str, str], text: str) -> list[Answer]:
    """Run `ivor` with --json; return the objects that it prints. Raises CommandFailed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    done = await trio.run_process(
        [sys.executable, "-m", "cli.main", *arguments[:end], "--json", *arguments[end:]],
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
    """An agency with its node.

    host: the loopback address where the node listens behind its relay, and that it dials from.
    """

    name: str
    folder: Path
    passphrase_file: Path
    host: str
    port: int
    process: trio.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What its commands find in their environment."""
        return {
            "IVOR_PASSPHRASE_FILE": str(self.passphrase_file),
            "IVOR_ROOT_PASSPHRASE_FILE": str(self.passphrase_file),
            "IVOR_SOURCE": self.host,
        }

    @property
    def address(self) -> str:
        """HOST:PORT on its card: its relay's while the demo runs, its node's afterwards."""
        return f"{RELAY_HOST}:{self.port}"

    async def run(self, *arguments: str) -> list[Answer]:
        """Run a command of its operator."""
        return await command([*arguments, "--dir", str(self.folder)], self.environment, "")

    async def start(self) -> None:
        """Start the node's process and wait for its ready line."""
        log = (self.folder / "node.log").open("ab")
        self.process = await trio.lowlevel.open_process(
            [
                sys.executable, "-m", "cli.main", "node", "run",
                "--dir", str(self.folder), "--listen", f"{self.host}:{self.port}",
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | self.environment,
        )  # fmt: skip
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
    shown: set[str] = field(default_factory=set)
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def address(self) -> str:
        """anna@minzdrav."""
        return f"{self.name}@{self.agency.name}"

    @property
    def environment(self) -> dict[str, str]:
        """What this official's commands find in their environment."""
        return {
            "IVOR_HOME": str(self.home),
            "IVOR_PASSPHRASE_FILE": str(self.passphrase_file),
        }

    async def run(self, *arguments: str, text: str = "") -> list[Answer]:
        """Run a command of this official."""
        return await command(arguments, self.environment, text)

    async def watch(self, chat: str) -> None:
        """Keep `ivor read --follow` open, as in a second terminal; note what it shows."""
        with (self.home / "terminal.log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "cli.main", "read", chat, "--follow", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.environment | {"IVOR_TRACEBACK": "1"},
            )
        try:
            if process.stdout is not None:
                await self._note_lines(process.stdout)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def _note_lines(self, stdout: trio.abc.ReceiveStream) -> None:
        buffer = b""
        async for chunk in stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            letters = [json.loads(line) for line in lines]
            self.shown |= {str(letter["text"]) for letter in letters if letter.get("text")}
            self.news.set()
            self.news = trio.Event()

    async def sees(self, wanted: Collection[str], seconds: float) -> bool:
        """Wait until the open terminal has shown all of these texts."""
        with trio.move_on_after(seconds):
            while not self.shown.issuperset(wanted):
                await self.news.wait()
        return self.shown.issuperset(wanted)
