"""A switch that loses, delays, reorders and cuts: COUNT SEED FILE, in the namespace with all ports.

It reads each frame that a host sends, writes it down in FILE (pcap), finds by its addresses whom it
is for, and hands it on, later or not at all. Nothing passes from host to host but through it, so
the file has all that was on any wire, once each. Obeys JSON lines on stdin; see `hosts.Hosts`.
"""

import heapq
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from bench.processes import tell

FRAME_BYTES_MAX = 65536
ETH_P_ALL = 3
PACKET_OUTGOING = 4
PATIENCE_SECONDS = 0.5
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, FRAME_BYTES_MAX, 1)  # Ethernet


class Shape(msgspec.Struct, frozen=True):
    """What happens to frames between two of the first `hosts`; cuts hold for all."""

    hosts: int = 0
    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    cuts: frozenset[tuple[int, int]] = frozenset()


@dataclass
class Switch:
    """The ports, what is known of who sits where, and the frames that wait."""

    ports: list[socket.socket]
    record: BinaryIO
    dice: random.Random
    shape: Shape = field(default_factory=Shape)
    seats: dict[bytes, int] = field(default_factory=dict)
    waiting: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    taken: int = 0

    def take(self, source: int) -> None:
        """Take one frame of a host."""
        frame, about = self.ports[source].recvfrom(FRAME_BYTES_MAX)
        if about[2] == PACKET_OUTGOING:
            return
        seconds, fraction = divmod(time.time(), 1)
        size = len(frame)
        self.record.write(struct.pack("<IIII", int(seconds), int(fraction * 1e6), size, size))
        self.record.write(frame)
        self.seats[frame[6:12]] = source
        seat = self.seats.get(frame[:6])
        targets = [seat] if seat is not None else range(len(self.ports))
        for target in targets:
            if target != source:
                self._send(source, target, frame)

    def _send(self, source: int, target: int, frame: bytes) -> None:
        shape = self.shape
        if (source, target) in shape.cuts:
            return
        delay = 0.0
        if max(source, target) < shape.hosts:
            if self.dice.random() < shape.loss:
                return
            delay = shape.delay + self.dice.uniform(0, shape.jitter)
        self.taken += 1
        heapq.heappush(self.waiting, (time.monotonic() + delay, self.taken, target, frame))

    def deliver(self) -> float:
        """Hand on what is due; return the seconds until the next."""
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(self.waiting)
            self.ports[target].send(frame)
        return max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else PATIENCE_SECONDS


def opened(port: str) -> socket.socket:
    """Open a port for whole frames."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((port, 0))
    return made


def main(count: int, seed: int, file: Path) -> None:
    """Switch until stdin ends."""
    with file.open("wb", buffering=0) as record:
        record.write(PCAP_HEADER)
        ports = [opened(f"port{number}") for number in range(count)]
        run(Switch(ports, record, random.Random(seed)))


def run(switch: Switch) -> None:
    """Take and deliver, and do as stdin says."""
    ready = selectors.DefaultSelector()
    for number, port in enumerate(switch.ports):
        ready.register(port, selectors.EVENT_READ, number)
    ready.register(0, selectors.EVENT_READ, None)
    tell("ready")
    wait = 0.0
    while True:
        for key, _ in ready.select(wait):
            if key.data is not None:
                switch.take(key.data)
                continue
            raw = os.read(0, FRAME_BYTES_MAX)
            if not raw:
                return
            for line in raw.splitlines():
                switch.shape = msgspec.json.decode(line, type=Shape)
                tell("shaped")
        wait = switch.deliver()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
