"""Real commands, each in a process of its own whose disk `shim.c` watches, and at will breaks.

    with Commands(shim) as commands:
        done = commands.run(["agency", "create", ...], under=folder)
        done.operations                                       # how many there were, and which
        commands.run([...], under=folder, fault=Action.KILL, at=7)

Starting Python and reading all of Ivor takes half a second, so one process has done that, with the
shim before its C library; each command is a fork of it. As a module this is that process.
"""

import ctypes
import importlib
import json
import mmap
import os
import pkgutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import cli
import client
import node
from cli.main import main
from crypto import keyfile
from tests.crash.power import (
    Cut,
    FailedSync,
    Gone,
    Linked,
    Made,
    Nameless,
    Op,
    Renamed,
    Sync,
    SyncFolder,
    Write,
)
from tests.crash.work import here

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("shim.c")
HEAD = struct.Struct("=cIIIQ")


class Action(IntEnum):
    """What happens at one operation, by the numbers of shim.c."""

    KILL = 1  # SIGKILL before it
    TORN = 2  # half of a write, then SIGKILL
    EIO = 3  # it fails once
    FULL = 4  # from it on, nothing can grow any more


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command. code: its exit code, negative for a signal."""

    code: int
    out: str
    err: str
    log: Sequence[Op]
    operations: int


def compiled(folder: Path) -> Path:
    """Build the shim. Raises FileNotFoundError where there is no compiler."""
    shim = folder / "shim.so"
    options = ["-O1", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", str(shim), str(SOURCE), "-ldl"], check=True)  # noqa: S607
    return shim


def fast_keys() -> AbstractContextManager[object]:
    """Have key files cost little."""
    return mock.patch.multiple(keyfile, MEMORY_KIB=keyfile.MEMORY_KIB_MIN, PASSES=1)


class Commands:
    """Runs `ivor` commands in forks of one process."""

    def __init__(self, shim: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forks", str(shim)],
            cwd=ROOT,
            env={**os.environ, "LD_PRELOAD": str(shim)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(
        self,
        arguments: Sequence[str],
        under: Path,
        environment: Mapping[str, str] | None = None,
        fault: Action | None = None,
        at: int = 0,
    ) -> Done:
        """Run a command to its end. under: the folder whose operations count."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = (list(arguments), str(under), dict(environment or {}), int(fault or 0), at)
        print(json.dumps(order), file=self._process.stdin, flush=True)
        code, out, err, file, operations = json.loads(self._process.stdout.readline())
        raw = Path(file).read_bytes()
        Path(file).unlink()
        return Done(code, out, err, list(read_log(raw)), operations)


def read_log(raw: bytes) -> Iterator[Op]:
    """Read what shim.c has written down."""
    at = 0
    while at < len(raw):
        kind, *lengths, offset = HEAD.unpack_from(raw, at)
        at += HEAD.size
        parts = []
        for length in lengths:
            parts.append(raw[at : at + length])
            at += length
        path, to = (os.fsdecode(part) for part in parts[:2])
        yield READ[kind](path, to, offset, parts[2])


READ: Mapping[bytes, Callable[[str, str, int, bytes], Op]] = {
    b"M": lambda path, _to, _offset, _data: Made(path),
    b"W": lambda path, _to, offset, data: Write(path, offset, data),
    b"T": lambda path, _to, offset, _data: Cut(path, offset),
    b"S": lambda path, _to, _offset, _data: Sync(path),
    b"F": lambda path, _to, _offset, _data: FailedSync(path),
    b"D": lambda path, _to, _offset, _data: SyncFolder(path),
    b"R": lambda path, to, _offset, _data: Renamed(path, to),
    b"U": lambda path, _to, _offset, _data: Nameless(path),
    b"L": lambda path, to, _offset, _data: Linked(path, to),
    b"G": lambda path, _to, _offset, _data: Gone(path),
}


# The process that forks


class _Server:
    """Reads orders, one a line, and carries each out in a fork."""

    def __init__(self, shim: str) -> None:
        self._shim = ctypes.CDLL(shim)
        self._operations = mmap.mmap(-1, 8)  # shared with the fork

    def carry_out(self, line: str) -> str:
        """Run one command; return what became of it."""
        arguments, under, environment, fault, at = json.loads(line)
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            log, name = tempfile.mkstemp(prefix="ivor-crash-")
            child = os.fork()
            if not child:
                for target, file in enumerate(files, 1):
                    os.dup2(file.fileno(), target)
                os.environ.update(environment)
                self._shim.crash_arm(under.encode(), fault, ctypes.c_long(at), log)
                self._end(main(arguments))
            os.close(log)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said = []
            for file in files:
                file.seek(0)
                said.append(file.read().decode())
        count = int.from_bytes(self._operations[:], sys.byteorder)
        return json.dumps((code, *said, name, count))

    def _end(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        count = ctypes.c_long.in_dll(self._shim, "crash_operations").value
        self._operations[:] = count.to_bytes(8, sys.byteorder)
        os._exit(code)


def _serve(shim: str) -> None:
    for package in (cli, client, node):  # commands import what they need, each time anew
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    server = _Server(shim)
    with here(), fast_keys():
        for line in sys.stdin:
            print(server.carry_out(line), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
