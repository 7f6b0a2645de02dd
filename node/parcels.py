"""Sealed bundles that wait at a node for a device (SPEC 7.4). The node cannot open them.

They come from other devices of the same user, and from members of a chat that the device is in.
"""

from collections.abc import Iterable
from typing import Final

import apsw

from node.errors import LimitReached, RefusedError
from node.sharing import Sharing
from protocol.entry import DeviceKey
from protocol.identity import AgencyId
from protocol.question import Forward
from protocol.reply import Parcel
from protocol.topic import PARCEL_BYTES_MAX

WAITING_MAX: Final = 1024
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
FORWARDED_MAX: Final = 256  # of one agency's users for one device; guess
FORWARDED_BYTES_MAX: Final = 16 * 1024 * 1024  # guess
NO_SUCH_PLACE: Final = "no device of a member of such a chat is here; nothing was kept"
_OWN: Final = b""  # the source of what other devices of the same user have put


class Parcels:
    """The parcels of a database."""

    def __init__(self, connection: apsw.Connection, agency: AgencyId) -> None:
        self.connection = connection
        self._agency = agency
        self._sharing = Sharing(connection)

    def put(self, device: DeviceKey, body: bytes) -> None:
        """Keep a parcel of another device of the same user. Raises LimitReached."""
        self._put(device, body, _OWN, WAITING_MAX, WAITING_BYTES_MAX)

    def check(self, sender: bytes, asked: Forward) -> None:
        """Raise RefusedError unless the sender and whom it is for may see the chat.

        sender: a device of ours, or the agency whose node asks. One answer for a chat that is not
        here and for one that they may not see.
        """
        receiver = asked.device if asked.agency == self._agency else asked.agency
        may_read = self._sharing.may_read
        if not (may_read(sender, asked.chat) and may_read(receiver, asked.chat)):
            raise RefusedError(NO_SUCH_PLACE)

    def put_from(self, source: bytes, asked: Forward) -> None:
        """Keep what was checked. source: the sender's agency. Raises LimitReached."""
        self._put(asked.device, asked.body, source, FORWARDED_MAX, FORWARDED_BYTES_MAX)

    def _put(self, device: DeviceKey, body: bytes, source: bytes, most: int, room: int) -> None:
        count, size = self._waiting_from(device, source)
        if count >= most or size + len(body) > room:
            raise LimitReached(
                f"parcels that wait for that device: {count}, of {size} bytes; at most {most}, of "
                f"{room}, may: connect it, so that it takes them, or revoke it"
            )
        self.connection.execute(
            "INSERT INTO parcels VALUES (?, ?, ?, ?)", (self._number(), device, source, body)
        )

    def _number(self) -> int:
        """Return a number that no parcel has had: a late TAKEN must not mean another one."""
        return int(
            self.connection.execute(
                "INSERT INTO meta SELECT 'parcels', ifnull(max(no), 0) + 1 FROM parcels WHERE true"
                " ON CONFLICT (key) DO UPDATE SET value = max(value + 1, excluded.value)"
                " RETURNING value"
            ).get
        )

    def _waiting_from(self, device: DeviceKey, source: bytes) -> tuple[int, int]:
        sizes = [
            row[0]
            for row in self.connection.execute(
                "SELECT length(body) FROM parcels WHERE device = ? AND source = ?",
                (device, source),
            )
        ]
        return len(sizes), sum(sizes)

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
