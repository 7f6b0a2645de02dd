"""What a further device of ours cannot read otherwise, on its way to it (SPEC 5.6).

First the history, then what it is owed beside that; what has no room at the node waits.

    begin(device, target)                     # before it is certified, in a transaction
    await hand_on(device, link)               # at each visit: until the node has no room
    await hand_over(device, link, 20.0)       # stay, as long as the new device makes room

How far it is stands in the database, so that whoever is killed, or finds no room, goes on there.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import partial
from typing import Final

import trio
from msgspec import convert

from client import debts
from client.archive import BEGIN, Onward, debt_parcel, next_parcel
from client.device import Device
from client.epochs import SECOND_MS
from client.link import Link
from client.people import GIVEN_UP, UNLISTED
from crypto.sealing import takes_seals
from node.errors import LimitReached, RefusedError
from node.words import counted
from protocol import codec
from protocol.entry import DeviceKey
from protocol.identity import verify_prekey
from protocol.limits import PREKEY_RENEW_SECONDS
from protocol.question import PutParcel

LOOK_SECONDS: Final = 1.0
_NOTED: Final = "history "
_NOTE_BYTES_MAX: Final = 64


def begin(device: Device, target: DeviceKey) -> None:
    """Owe a device of ours all that we can read. Call inside a transaction."""
    _keep(device, target, BEGIN)


def owed(device: Device) -> dict[DeviceKey, Onward]:
    """Return which devices of ours are owed history, and how far they have it.

    Not one that the directory does not list: it was not certified after all, or may be yet.
    """
    rows = device.connection.execute(
        "SELECT id, value FROM meta JOIN devices ON key = ? || lower(hex(id))"
        " WHERE user = ? AND revoked != ? ORDER BY key",
        (_NOTED, device.profile.user.user, UNLISTED),
    ).fetchall()
    return {key: _read(raw) for key, raw in convert(rows, list[tuple[DeviceKey, bytes]])}


def _read(raw: bytes) -> Onward:
    return Onward(*convert(codec.decode(raw, _NOTE_BYTES_MAX), tuple[int, int, int]))


def waiting(device: Device) -> int:
    """Return how many parts of history wait here for further devices, as far as that is known."""
    return sum(max(1, at.parts - at.part) for at in owed(device).values())


async def hand_on(device: Device, link: Link) -> int:
    """Bring what is owed to the node until it has no room; return how many parcels that were."""
    brought = 0
    for target in await link.journal.read(partial(_creditors, device)):
        brought += await _bring(device, link, target)
    return brought


def _creditors(device: Device) -> list[DeviceKey]:
    return list(dict.fromkeys((*owed(device), *debts.creditors(device))))


async def hand_over(device: Device, link: Link, seconds: float) -> int:
    """Bring history for as long as there is room at least every so many seconds; as `hand_on`."""
    brought, end = 0, trio.current_time() + seconds
    while True:
        more = await hand_on(device, link)
        if more:
            brought, end = brought + more, trio.current_time() + seconds
        if not await link.journal.read(partial(owed, device)) or trio.current_time() > end:
            return brought
        await trio.sleep(LOOK_SECONDS)


async def _bring(device: Device, link: Link, target: DeviceKey) -> int:
    brought = 0
    while made := await link.write(partial(_next, device, target)):
        parcel, note = made
        try:
            await link.ask(PutParcel(target, parcel))
        except (LimitReached, RefusedError):
            break
        await link.write(note)
        brought += 1
    return brought


def _next(device: Device, target: DeviceKey) -> tuple[bytes, Callable[[], None]] | None:
    """Return the next parcel, and what notes that it is at the node; None if there is none.

    Nor while no prekey of the device is known that it keeps for a week yet.
    """
    row = device.connection.execute(
        "SELECT prekey, revoked FROM devices WHERE id = ?", (target,)
    ).fetchone()
    raw, revoked = row or (None, GIVEN_UP)
    if revoked:
        _keep(device, target, None)
    prekey = None if revoked or raw is None else verify_prekey(raw)
    week = PREKEY_RENEW_SECONDS * SECOND_MS
    if prekey is None or device.replica.payloads.clock() - prekey.issued >= week:
        return None
    if not takes_seals(prekey.public):  # it is none: who has that device publishes another
        return None
    at = owed(device).get(target)
    if at is None:
        found = debt_parcel(device, prekey)
        return found and (found[0], partial(debts.settle, device, target, found[1]))
    if at == BEGIN:
        debts.settle_all(device, target)
    parcel, onward = next_parcel(device, prekey, at)
    return parcel, partial(_go_on, device, target, at, onward)


def _go_on(device: Device, target: DeviceKey, at: Onward, onward: Onward | None) -> None:
    """Keep how far a device has our history now, unless it is begun anew since."""
    if owed(device).get(target) == at:
        _keep(device, target, onward)


def _keep(device: Device, target: DeviceKey, at: Onward | None) -> None:
    """Keep how far a device has our history; None: it has all of it, or is owed none."""
    name = f"{_NOTED}{target.hex()}"
    if at is None:
        device.connection.execute("DELETE FROM meta WHERE key = ?", (name,))
    else:
        device.note(name, codec.encode(astuple(at)))


def unfinished(device: Device) -> Sequence[str]:
    """Say what waits here for further devices, if something does."""
    parts = waiting(device)
    said = (
        f"{counted(parts, 'part')} of the history can go only when your new device has taken what "
        "is at the node: run 'ivor sync' there, and here again"
    )
    return [said] if parts else []
