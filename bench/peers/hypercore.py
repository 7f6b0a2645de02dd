"""hypercore between two processes: logs that are replicated, as Ivor's chats are.

Its blocks are proved by a Merkle tree with one signature for the newest root. It encrypts the
connection, not the blocks, and does not wait for the disk.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from bench.federation import free_port
from bench.peers.installing import NotHere, run
from bench.processes import Child, running

NAME = "hypercore"
ABOUT = "one signature for many blocks; content not encrypted, no fsync a block"
PACKAGE = "hypercore@11.37.1"
SCRIPT = Path(__file__).with_suffix(".mjs")


def install(folder: Path) -> None:
    """Install it into a folder. Raises NotHere without Node."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotHere(f"no {program}: on Debian, apt install nodejs npm")
    if not (folder / "node_modules").exists():
        run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE])
    shutil.copy(SCRIPT, folder / SCRIPT.name)


def measure(folder: Path, entries: int, messages: int, rate: int) -> Mapping[str, float]:
    """Measure once: catching up, and delivery as messages are written."""
    found = {"catch_up": _catch_up(folder, entries)}
    paced = _live(folder, messages, rate)
    return found | {
        "p50": paced["p50"],
        "p99": paced["p99"],
        "flat_out": _live(folder, messages, 0)["rate"],
    }


def _command(folder: Path, role: str, *arguments: object) -> list[str]:
    return ["node", str(folder / SCRIPT.name), role, *map(str, arguments)]


def _fresh(folder: Path, name: str) -> Path:
    shutil.rmtree(folder / name, ignore_errors=True)
    return folder / name


def _catch_up(folder: Path, entries: int) -> float:
    source, target = folder / f"source-{entries}", _fresh(folder, "target")
    if not source.exists():
        with running(_command(folder, "build", source, entries), folder) as child:
            child.event("done")
    port = free_port()
    with running(_command(folder, "serve", source, port), folder) as server:
        key = server.event("ready")["key"]
        with running(_command(folder, "pull", target, port, key, entries), folder) as puller:
            return entries / float(puller.event("done")["seconds"])


def _live(folder: Path, messages: int, rate: int) -> dict[str, float]:
    """rate: a second; 0 for as fast as it goes."""
    port, source = free_port(), _fresh(folder, "written")
    with running(_command(folder, "write", source, port, messages, rate), folder) as writer:
        key = writer.event("ready")["key"]
        target = _fresh(folder, "read")
        with running(_command(folder, "read", target, port, key, messages), folder) as reader:
            return _delivered(writer, reader, messages)


def _delivered(writer: Child, reader: Child, messages: int) -> dict[str, float]:
    reader.event("ready")
    writer.say("go")
    sent, received = writer.event("sent"), reader.event("received")
    return {
        "p50": float(received["p50"]),
        "p99": float(received["p99"]),
        "rate": messages / (float(received["ended"]) - float(sent["begun"])),
    }
