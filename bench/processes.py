"""Children that talk in JSON lines, and what the kernel knows of them.

    with started("bench.node_worker", folder) as node:
        node.event("ready")
        node.say("go")

A child is ended with the block, whatever happens in it; after `leave_on_sigterm()` that, too.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

import msgspec

Event = dict[str, float | str]

ROOT = Path(__file__).parent.parent
EVENT_SECONDS_MAX = 600.0
STOP_SECONDS_MAX = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class ChildFailed(Exception):
    """A child ended, or said nothing, before the event that was waited for."""


def leave_on_sigterm() -> None:
    """Let SIGTERM end this process by an exception, so that children and folders go, too."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)


class Child:
    """One process of a benchmark. `event` reads its stdout, `say` writes to its stdin."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.process = process
        self.name = name
        self._buffer = b""

    def say(self, line: str) -> None:
        """Tell the child something."""
        if self.process.stdin is not None:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def line(self, seconds: float = EVENT_SECONDS_MAX) -> bytes:
        """Return the next line that the child says. Raises ChildFailed."""
        return self._line(time.monotonic() + seconds)

    def event(self, name: str, seconds: float = EVENT_SECONDS_MAX) -> Event:
        """Wait for an event of this name; others before it are dropped. Raises ChildFailed."""
        until = time.monotonic() + seconds
        while True:
            line = self._line(until)
            found = msgspec.json.decode(line, type=Event)
            if found["event"] == name:
                return found

    def _line(self, until: float) -> bytes:
        out = self.process.stdout
        if out is None:
            raise ChildFailed(f"{self.name} has no stdout")
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(out.fileno(), 65536) if ready else b""
            if not chunk:
                raise ChildFailed(f"{self.name} said nothing more ({self.process.poll()})")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def cpu_seconds(self) -> float:
        """Return the CPU time that the child has used so far, all threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self, what: str) -> float:
        """Return VmRSS or VmHWM (the peak) in MiB."""
        return memory_mib(what, str(self.process.pid))

    def stop(self) -> None:
        """End the child as an operator would."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def memory_mib(what: str, process: str = "self") -> float:
    """Return VmRSS or VmHWM (the peak) of a process in MiB.

    Not ru_maxrss: in a child that begins with the peak of its parent.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise ChildFailed(f"no {what} of process {process}")


def started(module: str, *arguments: object) -> AbstractContextManager[Child]:
    """Run a module of ours in a process of its own for the length of a block."""
    return running([sys.executable, "-m", module, *map(str, arguments)], ROOT)


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Child]:
    """Run a program that reports events and obeys its stdin, for the length of a block."""
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = Child(process, " ".join(command))
    try:
        yield child
    finally:
        child.stop()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def tell(event: str, **values: float | str) -> None:
    """Report an event to the parent; what `Child.event` reads."""
    line = msgspec.json.encode({"event": event} | values)
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
