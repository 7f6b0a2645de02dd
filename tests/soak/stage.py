"""The processes of a soak: two nodes behind lines that can be cut, their officials, and who visits.

The first node lives through all of it, so that its growth can be told; the second is killed.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.federation import Site, founded, free_port, opened, user_of
from bench.history import new_chat
from bench.processes import Child, Event, started

LOOK_SECONDS_MAX = 60.0


@dataclass
class Actor:
    """A process that is started again after it has ended. frozen: by SIGSTOP."""

    name: str
    module: str
    arguments: tuple[object, ...]
    starts: int = 0
    frozen: bool = False
    child: Child | None = None
    _running: AbstractContextManager[Child] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Run it, until it says that it is ready."""
        self._running = started(self.module, *self.arguments)
        self.child = self._running.__enter__()
        self.child.event("ready")
        self.starts += 1

    def stop(self) -> None:
        """End it as an operator would, if it runs."""
        running, self._running, self.child = self._running, None, None
        if running is not None:
            running.__exit__(None, None, None)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        if self.child is not None:
            self.child.process.kill()
            self.child.process.wait()
        self.frozen = False
        self.stop()

    def freeze(self) -> None:
        """Let it stand still."""
        if self.child is not None:
            self.child.process.send_signal(signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.child is not None:
            self.child.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def say(self, line: str) -> None:
        """Tell it something."""
        if self.child is not None:
            self.child.say(line)

    def ask(self, line: str, event: str) -> Event:
        """Have it answer; nothing if it cannot."""
        if self.child is None or self.frozen:
            return {}
        self.child.say(line)
        found = self.child.event(event, LOOK_SECONDS_MAX)
        return {name: value for name, value in found.items() if name != "event"}

    def seen(self) -> dict[str, float]:
        """What the kernel knows of it: memory in MiB, open descriptors, threads."""
        if self.child is None:
            return {}
        process = Path(f"/proc/{self.child.process.pid}")
        return {
            "rss_mib": self.child.memory_mib("VmRSS"),
            "fds": float(sum(1 for _ in (process / "fd").iterdir())),
            "threads": float(sum(1 for _ in (process / "task").iterdir())),
        }


@dataclass(frozen=True, slots=True)
class Stage:
    """All that plays. nodes, lines and officials stand in the order of the sites."""

    sites: list[Site]
    chat: bytes
    nodes: list[Actor]
    lines: list[Actor]
    officials: list[Actor]
    visitors: list[Actor]

    @property
    def all(self) -> list[Actor]:
        """Everybody, in the order in which they are to start."""
        return [*self.lines, *self.nodes, *self.officials]

    def disk_mib(self, site: Site) -> float:
        """The size of a node's database with its journal."""
        files = site.folder.glob(f"{site.database.name}*")
        return sum(file.stat().st_size for file in files) / 2**20

    def entries(self) -> list[float]:
        """How many entries each node and each official's device stores."""
        return [
            float(actor.ask("look", "looked").get("entries", -1))
            for actor in (*self.nodes, *self.officials)
        ]

    def settle(self, seconds: float) -> bool:
        """Let nobody write any more, and wait until all store as many entries, twice in a row."""
        for official in self.officials:
            official.say("hush")
        until, before = time.monotonic() + seconds, [-1.0]
        while time.monotonic() < until:
            now = self.entries()
            if len(set(now)) == 1 and now == before:
                return True
            before = now
            time.sleep(1)
        return False


@contextmanager
def staged(root: Path, rate: float) -> Iterator[Stage]:
    """Found two agencies in a folder, and have everything running. rate: messages a second."""
    sites = founded(root)
    device = opened(sites[0])
    chat = new_chat(device, [user_of(device, sites[1])])
    device.close()
    ports = [free_port() for _ in sites]
    both = list(zip(sites, ports, strict=True))
    share = rate / len(sites)
    stage = Stage(
        sites,
        chat,
        [Actor(f"node {site.name}", "tests.soak.node", (site.folder, port)) for site, port in both],
        [Actor(f"line {site.name}", "tests.soak.line", (site.port, port)) for site, port in both],
        [_official(site, "official", chat, share) for site in sites],
        [_official(site, "visitor", chat, share) for site in sites],
    )
    try:
        for actor in stage.all:
            actor.start()
        yield stage
    finally:
        for actor in (*stage.visitors, *reversed(stage.all)):
            actor.thaw()
            actor.stop()


def _official(site: Site, what: str, chat: bytes, rate: float) -> Actor:
    return Actor(f"{what} {site.name}", "tests.soak.official", (site.home, chat.hex(), rate))
