"""What was on the wires, as `tshark` reads it, with the TLS keys that the nodes wrote down.

Each frame is there once, as its host sent it, whether or not the switch lost it afterwards.
"""

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from protocol.frame import LENGTH_BYTES

PORT = 7340
TSHARK = shutil.which("tshark") or "tshark"

Stream = tuple[str, str, str]  # its number, from, to


def lacking() -> str | None:
    """Return why captures cannot be read, None if they can."""
    return None if shutil.which(TSHARK) else "tshark is missing"


def _tshark(file: Path, keys: Path, *words: str) -> list[list[str]]:
    done = subprocess.run(
        [
            TSHARK, "-r", str(file), "-o", f"tls.keylog_file:{keys}",
            "-o", "tcp.reassemble_out_of_order:TRUE",
            "-d", f"tcp.port=={PORT},tls", "-d", f"tls.port=={PORT},data", *words,
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def said(file: Path, keys: Path) -> Mapping[Stream, bytes]:
    """Return what was said inside TLS, by who said it to whom: frames with their lengths."""
    streams: defaultdict[Stream, bytes] = defaultdict(bytes)
    fields = ("-e", "tcp.stream", "-e", "ip.src", "-e", "ip.dst", "-e", "data.data")
    for number, source, target, data in _tshark(file, keys, "-Y", "data", "-T", "fields", *fields):
        streams[number, source, target] += bytes.fromhex(data.replace(",", ""))
    return streams


def packets(file: Path, keys: Path, target: str) -> int:
    """Count the packets with anything in them that went to an address."""
    wanted = f"ip.dst == {target} && tcp.len > 0"
    return len(_tshark(file, keys, "-Y", wanted, "-T", "fields", "-e", "frame.number"))


def frames(stream: bytes) -> Iterator[bytes]:
    """Take a stream apart; what an end has cut off is left out."""
    while len(stream) > LENGTH_BYTES:
        size = LENGTH_BYTES + int.from_bytes(stream[:LENGTH_BYTES], "big")
        if len(stream) >= size:
            yield stream[LENGTH_BYTES:size]
        stream = stream[size:]
