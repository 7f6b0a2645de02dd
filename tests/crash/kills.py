"""Case 62 with whole processes: a node and a device under load, killed at any moment, many times.

    with Siege(base, founded.quiet) as siege:      # base: what tests.hostile.federation has founded
        siege.cycle(seed=4711)         # one of them, or both, are started again, and killed
        siege.end()                    # both are, and all is there

The device says of each message when it is durable, and its database what its node has acknowledged.
After each kill both are there, and nothing else stands in their places.
"""

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import BinaryIO, Final, Self

import apsw

from client.device import Device
from node.agency import DATABASE_FILE
from protocol.entry import CONTENT, ChatId
from tests.crash.work import sound
from tests.hostile.federation import open_device
from tests.hostile.processes import acknowledged, stored_ids

ROOT: Final = Path(__file__).parents[2]
LOAD_SECONDS: Final = (0.05, 0.8)
NODE: Final = "north"
WRITER: Final = "anna"


class Siege:
    """A federation in a folder, of which one node and one of its devices run as processes."""

    def __init__(self, base: Path, chat: ChatId) -> None:
        self._base = base
        self._chat = chat
        open_device(base, WRITER).close()
        self._log = (base / "processes.log").open("w+b")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._said: dict[int, str] = {}
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.communicate()
        self._log.close()

    def cycle(self, seed: int) -> None:
        """Let both work for a moment, kill one or both, and look at what is left."""
        random = Random(seed)
        self._start()
        time.sleep(random.uniform(*LOAD_SECONDS))
        for name in random.choice(((NODE,), (WRITER,), (NODE, WRITER))):
            self._kill(name)
        if WRITER not in self._running:
            self._look()

    def _start(self) -> None:
        if NODE not in self._running:
            self._running[NODE] = self._process("tests.hostile.node_process", NODE)
            assert self._line(NODE), self._trouble()
        if WRITER not in self._running:
            self._running[WRITER] = self._process("tests.crash.writer", WRITER, self._chat.hex())
            self._hear(self._line(WRITER))

    def _process(self, module: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log: BinaryIO = self._log
        command = [sys.executable, "-m", module, str(self._base / name), *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)

    def _line(self, name: str) -> bytes:
        out = self._running[name].stdout
        assert out is not None
        return out.readline()

    def _hear(self, line: bytes) -> None:
        """Note a message that is durable: no other may ever stand in its place (I16)."""
        seq, _, entry = line.decode().strip().partition(" ")
        assert entry, self._trouble()
        assert self._said.setdefault(int(seq), entry) == entry, f"seq {seq} signed twice"

    def _kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        rest, _ = process.communicate()
        if name == WRITER:
            for line in rest.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._hear(line)

    def _look(self) -> None:
        """Open what the device has left. The node may be running: its file can be read."""
        device = open_device(self._base, WRITER)
        try:
            sound(device.connection)
            self._compare(device)
        finally:
            device.close()

    def _compare(self, device: Device) -> None:
        stored = device.replica.store.chat(self._chat)
        assert stored is not None
        (branch,) = chain = stored.chains[device.key, CONTENT]
        rows = device.replica.store.rows(chain, branch, 0, branch.length)
        kept = {seq: entry.hex() for seq, entry, _, _ in rows}
        lost = [seq for seq, entry in self._said.items() if kept.get(seq) != entry]
        assert not lost, f"the device lost {len(lost)} messages that it had stored: {lost[:3]}"
        missing = acknowledged(device, self._chat) - stored_ids(self._base / NODE, self._chat)
        assert not missing, f"the node lost {len(missing)} entries that it had acknowledged"
        self.written = branch.length

    def _trouble(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")

    def end(self) -> None:
        """Kill both once more, and look: each start was clean, and nobody has met a bug."""
        self._start()
        for name in list(self._running):
            self._kill(name)
        self._look()
        connection = apsw.Connection(str(self._base / NODE / DATABASE_FILE))
        sound(connection)
        connection.close()
        trouble = self._trouble()
        assert "Traceback" not in trouble, trouble
        assert "a bug ended" not in trouble, trouble
