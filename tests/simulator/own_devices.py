"""Invariants at rest between the devices of one user: who is out, who is in, what each can read."""

from collections.abc import Iterator

from msgspec import convert

from client.people import GIVEN_UP, UNTOLD
from client.residency import is_ours
from client.revoking import still_in
from node.witness import Witness
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.listing import verify_split
from protocol.operation import Redact, Revoke, SetPolicy
from tests.simulator.devices import DeviceParty
from tests.simulator.rest import Rest
from tests.simulator.stored import readable, unreadable


def i13_who_is_given_up_is_out(rest: Rest) -> None:
    """No device that was given up is in a chat of its owner's, by what their first device knows.

    Not if that one's own chain may have forked, nor where its agency may not hold the chat: then it
    cannot say so.
    """
    for device in rest.devices:
        if device.disturbed or device.is_further or device.key in rest.checks.compromised:
            continue
        for key in _given_up(device):
            chats = [chat for chat in still_in(device.device, key) if _is_ours(device, chat)]
            rest.require("I13", not chats, f"{device.name} knows of one given up in {chats}")


def _is_ours(device: DeviceParty, chat: ChatId) -> bool:
    judge = device.replica.chat(chat)
    return judge is not None and is_ours(device.device, judge.membership())


def _given_up(device: DeviceParty) -> Iterator[DeviceKey]:
    """The further devices of its user that it put out, or that put themselves out of a chat."""
    rows = device.connection.execute(
        "SELECT id, revoked FROM devices WHERE user = ? AND id != ?", (device.user, device.key)
    )
    judges = [device.replica.chat(chat) for chat in device.replica.store.chats()]
    entries = [one for judge in judges if judge is not None for one in judge.history.entries]
    themselves = {
        one.device
        for one in entries
        if isinstance(one.operation, Revoke) and one.operation.device == one.device
    }
    for key, state in convert(rows.fetchall(), list[tuple[DeviceKey, int]]):
        if state in (GIVEN_UP, UNTOLD) or key in themselves:
            yield key


def i13_who_recovers_is_in(rest: Rest) -> None:
    """A device in the place of a lost one is in each chat of its user that its node has."""
    for device in rest.devices:
        if not device.is_recovered or device.disturbed or device.key in rest.checks.compromised:
            continue
        judges = [device.home.replica.chat(chat) for chat in rest.chats(device.home)]
        outside = [
            judge.id
            for judge in judges
            if judge is not None
            and device.home.agency in judge.membership().agencies
            and device.user in judge.membership().users
            and not judge.history.names(device.key)
        ]
        rest.require("I13", not outside, f"{device.name} has not entered {len(outside)} chats")


def i13_no_node_lists_who_is_given_up(rest: Rest) -> None:
    """A node has in use no device that its owner's first one has given up, as that would tell it.

    It was told once; but a node that was brought back from before that has forgotten. From one that
    then signed another directory of the same number nothing is taken any more (SPEC 7.5).
    """
    for device in rest.devices:
        proofs = Witness(device.connection).proofs()
        accused = {verify_split(raw).agency for raw in proofs}
        if device.disturbed or device.is_further or device.home.agency in accused:
            continue
        rows = device.connection.execute(
            "SELECT id FROM devices WHERE user = ? AND revoked IN (?, ?)",
            (device.user, GIVEN_UP, UNTOLD),
        ).fetchall()
        people = device.home.directory.people
        given_up = convert(rows, list[tuple[DeviceKey]])
        listed = [key for (key,) in given_up if people.owner(key) is not None]
        rest.require("I13", not listed, f"{device.home.name} lists {len(listed)} that are given up")


def i3_history_arrives(rest: Rest) -> None:
    """What a device can read, another of its user's can to which it owed its history.

    What it could read then, and in the chats that both are in all that it has opened itself.
    Not if a clock leapt, as what seals it then may be erased, or a database is an older one.
    """
    devices = {one.key: one for one in rest.devices}
    for device in rest.devices:
        for key, letters in device.handed.items():
            other = devices.get(key)
            if other is None or any(one.disturbed for one in (device, device.home, other)):
                continue
            if {key, device.key} & rest.checks.compromised:
                continue
            lacking = readable(device.connection) & unreadable(other.connection)
            history = lacking & letters
            rest.require("I3", not history, f"{other.name} lacks {len(history)} of its history")
            opened = lacking - (device.saved.letters if device.saved else frozenset())
            owed = sum(_is_shared(device, other, EntryId(one)) for one in opened)
            rest.require("I3", not owed, f"{other.name} lacks {owed} that {device.name} can read")


def i3_what_was_saved_is_read(rest: Rest) -> None:
    """What is in the backup that a recovered device was given it can read, once its entry is here.

    Not if a database is an older one, which may be from before that. And not what had to go for a
    while, whatever became of the redaction, or of the policy, that said so.
    """
    for device in rest.devices:
        if device.is_recovered and device.saved is not None and not device.disturbed:
            lacking = device.saved.letters & unreadable(device.connection) - _went(device)
            rest.require("I3", not lacking, f"{device.name} lacks {len(lacking)} of its backup")


def _went(device: DeviceParty) -> set[bytes]:
    """What some entry redacts, with or without effect, and all of chats in which letters aged."""
    gone: set[bytes] = set()
    for chat in device.device.chats():
        operations = [one.operation for one in chat.history.entries]
        gone |= {one.id for one in operations if isinstance(one, Redact)}
        if any(isinstance(one, SetPolicy) and one.policy.retention for one in operations):
            rows = device.connection.execute("SELECT id FROM mailbox WHERE chat = ?", (chat.id,))
            gone |= {row[0] for row in rows}
    return gone


def _is_shared(device: DeviceParty, other: DeviceParty, entry: EntryId) -> bool:
    """Whether both devices of a user are in the chat of a message, as both know."""
    found = device.connection.execute("SELECT chat FROM mailbox WHERE id = ?", (entry,)).get
    for one in (device, other):
        judge = one.replica.chat(ChatId(found))
        if judge is None or not {device.key, other.key} <= judge.membership().devices.keys():
            return False
    return True
