"""Joining late: an agency, and a device of it, are let into a chat with a long history.

The device's clock runs from before it connects until it can show the last screen (a preview, SPEC
6.3), and until all is here. The node's runs from the end of the handshake until all is durable.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import Site, founded, milliseconds, node_of, opened, replica_of, user_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import hand_over, new_chat, write
from bench.processes import started
from client import compose
from client.device import Device
from protocol.entry import ChatId
from protocol.errors import UsageError
from protocol.policy import Role

NAME = "join"
UNITS = {
    "screen": "s",
    "lines": "",
    "all": "s",
    "rate": "entries/s",
    "peak_device": "MiB",
    "node": "s",
}
SCREEN_TEXTS = 40  # written after the device was let in


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure chats that have these numbers of entries when they are joined, ascending."""
    found: list[Line] = []
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        progress(f"{NAME}: two agencies, and a chat of one of them")
        sites = founded(Path(folder))
        device = opened(sites[0])
        chat = new_chat(device, [])
        written = 0
        for size in sizes:
            progress(f"{NAME}: writing {size - written:,} messages")
            write(device, chat, size - written)
            written = size
            calib_s = calibrate()
            results = _joined(sites, chat, Path(folder) / str(size), runs)
            found += lines_of(NAME, f"{size:,} entries", UNITS, results, calib_s)
        device.close()
    return found


def _joined(sites: Sequence[Site], chat: ChatId, folder: Path, runs: int) -> list[dict[str, float]]:
    """Let the other agency's user into a copy of the chat; measure what follows."""
    source, target = (_copied(site, folder) for site in sites)
    with replica_of(source) as replica:
        device = _here(source)
        _let_in(device, chat, target)
        entries = hand_over(device, chat, replica)
        device.close()
    results = []
    with node_of(source), node_of(target) as node:
        seconds = float(node.event("settled")["seconds"])
        for number in range(runs):
            home = _copied(target, folder / f"run-{number}").home
            results.append(_look(home, chat, entries) | {"node": seconds})
            progress(f"{NAME}: {results[-1]['screen']:.2f} s until the screen")
    shutil.rmtree(folder)
    return results


def _copied(site: Site, folder: Path) -> Site:
    """Copy an agency's folder and its device, which writes here from now on."""
    copy = replace(site, folder=folder / site.name)
    for before, after in ((site.folder, copy.folder), (site.home, copy.home)):
        shutil.copytree(before, after, ignore=shutil.ignore_patterns("*.sock"))
    _here(copy).close()
    return copy


def _here(site: Site) -> Device:
    device = opened(site)
    device.settle_here()
    return device


def _let_in(device: Device, chat: ChatId, target: Site) -> None:
    with device.transaction():
        users = [(user_of(device, target), Role.MEMBER)]
        compose.add_members(device, chat, users, milliseconds())
    write(device, chat, SCREEN_TEXTS)


def _look(home: Path, chat: ChatId, entries: int) -> dict[str, float]:
    with started("bench.join_worker", home, chat.hex()) as worker:
        screen = worker.event("screen")
        even = worker.event("even")
    if float(screen["readable"]) < SCREEN_TEXTS:
        raise UsageError(f"only {screen['readable']} messages could be read")
    return {
        "screen": float(screen["seconds"]),
        "lines": float(screen["lines"]),
        "all": float(even["seconds"]),
        "rate": entries / float(even["seconds"]),
        "peak_device": float(even["peak_mib"]),
    }
