"""Sealed bundles that wait at a node for a device (SPEC 7.4). The node cannot open them."""

from collections.abc import Iterable
from typing import Final

import apsw

from node.errors import LimitReached
from protocol.entry import DeviceKey
from protocol.reply import Parcel
from protocol.topic import PARCEL_BYTES_MAX

WAITING_MAX: Final = 1024
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024


class Parcels:
    """The parcels of a database."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def put(self, device: DeviceKey, body: bytes) -> None:
        """Keep a parcel for a device. Raises LimitReached when too much waits for it already."""
        sizes = [
            row[0]
            for row in self.connection.execute(
                "SELECT length(body) FROM parcels WHERE device = ?", (device,)
            )
        ]
        count, size = len(sizes), sum(sizes)
        if count >= WAITING_MAX or size + len(body) > WAITING_BYTES_MAX:
            raise LimitReached(
                f"{count} parcels of {size} bytes wait for that device, at most {WAITING_MAX} and "
                f"{WAITING_BYTES_MAX} may: connect it, so that it takes them, or revoke it"
            )
        self.connection.execute("INSERT INTO parcels (device, body) VALUES (?, ?)", (device, body))

    def waiting(self, device: DeviceKey) -> tuple[Parcel, ...]:
        """Return the oldest parcels, as many as fit into one answer, and at least one."""
        found: list[Parcel] = []
        size = 0
        rows = self.connection.execute(
            "SELECT no, body FROM parcels WHERE device = ? ORDER BY no", (device,)
        )
        for number, body in rows:
            size += len(body)
            if found and size > PARCEL_BYTES_MAX:
                break
            found.append(Parcel(number, body))
        return tuple(found)

    def take(self, device: DeviceKey, numbers: Iterable[int]) -> None:
        """Delete parcels that the device has; another device's are left alone."""
        self.connection.executemany(
            "DELETE FROM parcels WHERE no = ? AND device = ?",
            [(number, device) for number in numbers],
        )
