"""What a device has appended and not pushed yet, in one session (SPEC 6.5).

Its node gets it once it is durable, and never before: a device that forgets what it has sent would
sign the place again (I16). What was appended before the session the heads tell of.
"""

from collections.abc import Callable
from typing import NamedTuple

from msgspec import convert

from client.device import Device
from protocol.entry import ChatId, DeviceKey
from protocol.frame import Run, Want, encode_frame

PUSHED_ENTRIES_MAX = 4  # of a chain that was not pushed before: title and epoch go along


class _OwnChain(NamedTuple):
    chat: ChatId
    lane: int
    length: int
    prefix: bytes


class Outbox:
    """Looks at the end of each transaction. push: queues an encoded run for the node."""

    def __init__(self, device: Device, push: Callable[[bytes], None]) -> None:
        self._device = device
        self._push = push
        self._pushed = device.replica.store.changed
        self._lengths: dict[tuple[ChatId, DeviceKey, int], int] = {}

    def appended(self) -> Callable[[], object]:
        """Read what a transaction leaves in our own chains; return what pushes it."""
        changed = self._device.replica.store.changed
        if changed == self._pushed:
            return bool
        runs = self._unpushed()

        def push() -> None:
            self._pushed = changed
            if runs:
                self._device.count_up()
            for run in runs:
                self._lengths[run.chat, run.device, run.lane] = run.start + len(run.records)
                self._push(encode_frame(run))

        return push

    def _unpushed(self) -> list[Run]:
        """Return what stands in our own chains and was not pushed in this session."""
        device, runs = self._device, []
        rows = device.connection.execute(
            "SELECT id, lane, length, substr(head, 1, 8) FROM chains"
            " JOIN chats ON chats.no = chat WHERE device = ? AND changed > ? ORDER BY changed",
            (device.key, self._pushed),
        ).fetchall()
        agency = device.profile.charter.agency
        for chat, lane, length, prefix in convert(rows, list[_OwnChain]):
            place = (chat, device.key, lane)
            start = self._lengths.get(place, max(0, length - PUSHED_ENTRIES_MAX))
            run = device.replica.serve(Want(*place, prefix, start, length), agency)
            runs += [] if run is None else [run]
        return runs
