"""A large file: device → node → node, then on to a device as it comes; and node → node alone.

Every chunk is encrypted, hashed, checked against its root, written and synced at each node. `limit`
does in one process what nobody can leave out between two nodes: hash the same chunks, write them,
and sync as often. `sealing limit` also encrypts and hashes the file, as its author must.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw

from bench.federation import Site, founded, node_of, opened, user_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import new_chat
from bench.processes import Child, started
from crypto import merkle
from crypto.blob import CHUNK_BYTES, CHUNK_PLAIN_BYTES, BlobCipher
from node.blobs import FOLDER

NAME = "blob"
MB = 1_000_000
MIB = 1024 * 1024
SYNCED_CHUNKS = 16  # as a fetch does: half of what may be under way
LIMIT_BYTES_MAX = 512 * MIB
POLL_SECONDS = 0.005
WAIT_SECONDS_MAX = 900.0
STORED_UNITS = {
    "sealed": "MB/s",
    "sealing limit": "MB/s",
    "to own node": "MB/s",
    "through two nodes": "MB/s",
    "limit": "MB/s",
    "of_limit": "ratio",
    "peak_writer": "MiB",
    "peak_nodes": "MiB",
}
WHOLE_UNITS = {
    "through two nodes": "MB/s",
    "whole way": "MB/s",
    "peak_nodes": "MiB",
    "peak_reader": "MiB",
}
NODES_UNITS = {
    "rate": "MB/s",
    "limit": "MB/s",
    "of_limit": "ratio",
    "cpu_sender": "ms/MB",
    "cpu_receiver": "ms/MB",
    "peak_receiver": "MiB",
}


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure files of so many bytes."""
    found: list[Line] = []
    for size in sizes:
        calib_s = calibrate()
        stored, whole, nodes = [], [], []
        for number in range(runs):
            stored.append(_stored(size))
            rate = stored[-1]["through two nodes"]
            progress(f"{NAME}: {size >> 20} MiB, run {number + 1}: {rate:.0f} MB/s")
            whole.append(_whole(size))
            progress(f"{NAME}: all the way: {whole[-1]['whole way']:.0f} MB/s")
            nodes.append(_nodes(size))
            progress(f"{NAME}: node to node: {nodes[-1]['rate']:.0f} MB/s")
        case = f"{size >> 20:,} MiB"
        found += lines_of(NAME, f"{case}, device to two nodes", STORED_UNITS, stored, calib_s)
        found += lines_of(NAME, f"{case}, device to device", WHOLE_UNITS, whole, calib_s)
        found += lines_of(NAME, f"{case}, node to node", NODES_UNITS, nodes, calib_s)
    return found


def _two(folder: Path, size: int) -> tuple[list[Site], str, Path]:
    """Return two sites with a chat, and a file of random and of repeated bytes."""
    sites = founded(folder)
    device = opened(sites[0])
    chat = new_chat(device, [user_of(device, sites[1])]).hex()
    device.close()
    file = folder / "file"
    with file.open("wb") as stream:
        stream.write(os.urandom(min(size, MIB)))
        stream.truncate(size)
    return sites, chat, file


def _stored(size: int) -> dict[str, float]:
    """Send a file that nobody reads yet."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat, file = _two(Path(folder), size)
        with (
            node_of(sites[0]) as first,
            node_of(sites[1]) as second,
            started("bench.blob_worker", "write", sites[0].home, chat, file) as writer,
        ):
            writer.event("ready")
            writer.say("go")
            sent = _numbers(writer, "sent")
            peak = max(node.memory_mib("VmHWM") for node in (first, second))
        limit, sealing = _limit(Path(folder), size), _sealing_limit(Path(folder), size)
    through = _through(sent, size)
    return {
        "sealed": size / MB / (sent["sealed"] - sent["begun"]),
        "sealing limit": sealing,
        "to own node": size / MB / (sent["own"] - sent["sealed"]),
        "through two nodes": through,
        "limit": limit,
        "of_limit": through / limit,
        "peak_writer": sent["peak"],
        "peak_nodes": peak,
    }


def _through(sent: Mapping[str, float], size: int) -> float:
    return size / MB / (sent["everywhere"] - sent["sealed"])


def _whole(size: int) -> dict[str, float]:
    """Let a reader have the file while it still comes."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat, file = _two(Path(folder), size)
        target = file.with_name("got")
        with (
            node_of(sites[0]) as first,
            node_of(sites[1]) as second,
            started("bench.blob_worker", "write", sites[0].home, chat, file) as writer,
            started("bench.blob_worker", "read", sites[1].home, chat, target) as reader,
        ):
            for device in (writer, reader):
                device.event("ready")
                device.say("go")
            sent = _numbers(writer, "sent")
            got = _numbers(reader, "got")
            peak = max(node.memory_mib("VmHWM") for node in (first, second))
    return {
        "through two nodes": _through(sent, size),
        "whole way": size / MB / (got["written"] - sent["begun"]),
        "peak_nodes": peak,
        "peak_reader": got["peak"],
    }


def _numbers(child: Child, event: str) -> dict[str, float]:
    found = child.event(event, WAIT_SECONDS_MAX)
    return {key: float(value) for key, value in found.items() if not isinstance(value, str)}


def _nodes(size: int) -> dict[str, float]:
    """Let the second node meet the first when that has the blob."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat, file = _two(Path(folder), size)
        with node_of(sites[0]) as first:
            with started("bench.blob_worker", "write", sites[0].home, chat, file) as writer:
                writer.event("ready")
                writer.say("go")
                _await(sites[0], 1)
            cpu = first.cpu_seconds()
            with node_of(sites[1]) as second:
                before = second.cpu_seconds()
                second.event("held")
                begun = time.monotonic()
                _await(sites[1], 1)
                seconds = time.monotonic() - begun
                found = {
                    "rate": size / MB / seconds,
                    "cpu_sender": (first.cpu_seconds() - cpu) * 1e3 / (size / MB),
                    "cpu_receiver": (second.cpu_seconds() - before) * 1e3 / (size / MB),
                    "peak_receiver": second.memory_mib("VmHWM"),
                }
        found["limit"] = _limit(Path(folder), size)
    found["of_limit"] = found["rate"] / found["limit"]
    return found


def _await(site: Site, count: int) -> None:
    """Wait until a node has so many whole blobs."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    flags = apsw.SQLITE_OPEN_READONLY
    with closing(apsw.Connection(str(site.database), flags=flags)) as connection:
        connection.set_busy_timeout(1000)
        while connection.execute("SELECT count(*) FROM blobs WHERE state = 3").get < count:
            if time.monotonic() > end:
                raise TimeoutError(f"no blob at {site.name}; {site.folder / FOLDER}")
            time.sleep(POLL_SECONDS)


def _limit(folder: Path, size: int) -> float:
    """Hash chunks, write and sync them: MB/s."""
    chunk = os.urandom(CHUNK_BYTES)
    return _written(folder, min(size, LIMIT_BYTES_MAX), _hashed(chunk))


def _sealing_limit(folder: Path, size: int) -> float:
    """Hash, encrypt and hash again, write and sync: MB/s."""
    plain, cipher, whole = os.urandom(CHUNK_PLAIN_BYTES), BlobCipher(bytes(32)), hashlib.sha256()

    def sealed() -> Iterator[bytes]:
        while True:
            whole.update(plain)
            chunk = cipher.seal(0, 2, plain)
            merkle.leaf_hash(chunk)
            yield chunk

    return _written(folder, min(size, LIMIT_BYTES_MAX), sealed())


def _hashed(chunk: bytes) -> Iterator[bytes]:
    while True:
        merkle.leaf_hash(chunk)
        yield chunk


def _written(folder: Path, size: int, chunks: Iterator[bytes]) -> float:
    begun = time.perf_counter()
    descriptor = os.open(folder / "limit", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in range(size // CHUNK_BYTES):
        os.pwrite(descriptor, next(chunks), number * CHUNK_BYTES)
        if number % SYNCED_CHUNKS == SYNCED_CHUNKS - 1:
            os.fdatasync(descriptor)
    os.fdatasync(descriptor)
    os.close(descriptor)
    return size / MB / (time.perf_counter() - begun)
