"""Hosts on this machine: network namespaces, each with one wire to a switch that we run.

    with hosts(5, seed, wire) as network:
        network.command(0, "python", "-m", …)      # what runs a program on host 0
        network.shape(loss=0.2, delay=0.15)        # what the switch does to each frame
        network.cut(0, 1)                          # no more frames from host 0 to host 1

Needs root and `ip`; `lacking` says what is missing. All namespaces of one run begin with its own
prefix and are removed at its end, with every process in them.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.processes import Child

ROOT = Path(__file__).parents[2]
SUBNET = "10.73.0"
HUB = "hub"
IP = shutil.which("ip") or "ip"


def lacking() -> str | None:
    """Return why there can be no hosts here, None if there can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if shutil.which(IP) is None:
        return "ip (iproute2) is missing"
    probe = f"ivor-probe-{os.getpid()}"
    if subprocess.run([IP, "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this machine allows no network namespaces"
    subprocess.run([IP, "netns", "delete", probe], capture_output=True, check=False)
    return None


def _ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True)


@dataclass
class Hosts:
    """A running network. loss: of each frame between two nodes; delay, jitter: seconds, one way."""

    prefix: str
    count: int
    switch: Child
    cuts: set[tuple[int, int]] = field(default_factory=set)
    shaped: dict[str, float] = field(default_factory=dict)

    def command(self, host: int | str, *words: str) -> list[str]:
        """Return what runs a program on a host."""
        return [IP, "netns", "exec", f"{self.prefix}{host}", *words]

    def shape(self, hosts: int, *, loss: float, delay: float, jitter: float) -> None:
        """Lose, delay and reorder what passes between the first hosts; the rest is left alone."""
        self.shaped = {"hosts": hosts, "loss": loss, "delay": delay, "jitter": jitter}
        self._tell()

    def cut(self, source: int, target: int) -> None:
        """Let nothing pass from a host to another; the other way is as it was."""
        self.cuts.add((source, target))
        self._tell()

    def mend(self) -> None:
        """End all cuts."""
        self.cuts.clear()
        self._tell()

    def _tell(self) -> None:
        line = self.shaped | {"cuts": sorted(self.cuts)}
        self.switch.say(msgspec.json.encode(line).decode())
        self.switch.event("shaped")


def address(host: int) -> str:
    """Return the address of a host."""
    return f"{SUBNET}.{host + 1}"


@contextmanager
def hosts(count: int, seed: int, wire: Path) -> Iterator[Hosts]:
    """Make a network of hosts for the length of a block.

    seed: for what the switch draws. wire: the file that gets every frame that a host sends.
    """
    prefix = f"ivor{os.getpid()}-"
    try:
        for name in (HUB, *map(str, range(count))):
            _ip("netns", "add", f"{prefix}{name}")
            _ip("-n", f"{prefix}{name}", "link", "set", "lo", "up")
        for host in range(count):
            _wire(prefix, host)
        words = [f"{prefix}{HUB}", sys.executable, "-m", "tests.network.switch"]
        process = subprocess.Popen(
            [IP, "netns", "exec", *words, str(count), str(seed), str(wire)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with _ended(process):
            switch = Child(process, "switch")
            switch.event("ready")
            yield Hosts(prefix, count, switch)
    finally:
        _remove(prefix)


def _wire(prefix: str, host: int) -> None:
    near, hub = f"{prefix}{host}", f"{prefix}{HUB}"
    _ip("-n", near, "link", "add", "wire", "type", "veth", "peer", f"port{host}", "netns", hub)
    for where, device in ((near, "wire"), (hub, f"port{host}")):
        _ip("netns", "exec", where, sys.executable, str(Path(__file__).parent / "plain.py"), device)
        _ip("-n", where, "link", "set", device, "up")
    _ip("-n", near, "address", "add", f"{address(host)}/24", "dev", "wire")


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _names(prefix: str) -> Sequence[str]:
    listed = subprocess.run([IP, "netns", "list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in listed.stdout.splitlines() if line]
    return [name for name in names if name.startswith(prefix)]


def _remove(prefix: str) -> None:
    """Remove this run's namespaces, and end what still runs in them."""
    for name in _names(prefix):
        pids = subprocess.run(
            [IP, "netns", "pids", name], capture_output=True, text=True, check=False
        )
        for pid in pids.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", name)
