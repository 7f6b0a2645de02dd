"""Catch-up: how fast an empty node takes in another's history, over TLS, verified and durable.

Beside it, in the same run, the limit: hashing the same headers and payloads, one signature check in
64 and bare inserts of the same rows in as many transactions, with no protocol around.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import (
    Site,
    copy_database,
    founded,
    node_of,
    opened,
    replica_of,
    user_of,
)
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import hand_over, new_chat, write
from bench.processes import started

NAME = "catch-up"
UNITS = {
    "rate": "entries/s",
    "limit": "entries/s",
    "of_limit": "ratio",
    "wire": "B/entry",
    "disk": "B/entry",
    "cpu_receiver": "µs/entry",
    "cpu_sender": "µs/entry",
    "peak_receiver": "MiB",
    "peak_sender": "MiB",
    "transactions": "",
}


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure histories of these sizes, ascending."""
    found: list[Line] = []
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        progress(f"{NAME}: two agencies, and a chat")
        source, target = founded(Path(folder))
        blank = Path(folder) / "blank.db"
        copy_database(target.database, blank)
        device = opened(source)
        chat = new_chat(device, [user_of(device, target)])
        written = 0
        for size in sizes:
            progress(f"{NAME}: writing {size - written:,} messages")
            write(device, chat, size - written)
            written = size
            with replica_of(source) as replica:
                entries = hand_over(device, chat, replica)
            calib_s = calibrate()
            results = []
            for number in range(runs):
                results.append(_run(source, target, blank, entries))
                progress(f"{NAME}: {size:,} run {number + 1}: {results[-1]['rate']:,.0f}/s")
            found += lines_of(NAME, f"{size:,} texts", UNITS, results, calib_s)
        device.close()
    return found


def _run(source: Site, target: Site, blank: Path, entries: int) -> dict[str, float]:
    copy_database(blank, target.database)
    with node_of(source) as sender, node_of(target, entries) as receiver:
        begun = float(receiver.event("held")["cpu"])
        cpu = float(sender.event("held")["cpu"])
        done = {
            key: float(value)
            for key, value in receiver.event("done").items()
            if not isinstance(value, str)
        }
        found = {
            "rate": entries / done["seconds"],
            "wire": done["received"] / entries,
            "cpu_receiver": (done["cpu"] - begun) / entries * 1e6,
            "cpu_sender": (sender.cpu_seconds() - cpu) / entries * 1e6,
            "peak_receiver": done["peak_mib"],
            "peak_sender": sender.memory_mib("VmHWM"),
            "transactions": done["transactions"],
        }
    found["disk"] = target.database.stat().st_size / entries
    with started("bench.limit", target.database, int(done["transactions"])) as limit:
        found["limit"] = float(limit.event("limit")["rate"])
    found["of_limit"] = found["rate"] / found["limit"]
    return found
