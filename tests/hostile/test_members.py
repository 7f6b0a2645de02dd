"""Hostile cases 39 to 49: who is in a chat, for whom is sealed, and who is not there any more."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs

from client import compose, mailbox, people
from client.device import Device
from client.entries import read_entry
from client.files import find_file, received
from client.link import linked
from client.writing import next_place
from crypto import merkle
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from crypto.signing import SEED_BYTES, Signer
from node.errors import RefusedError, UserError
from node.service import Node
from protocol import codec, epoch, identity
from protocol.entry import CONTENT, CONTROL, ChatId, ContentHeader, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.file import File
from protocol.frame import (
    Absent,
    Answer,
    Bye,
    ChatHeads,
    Heads,
    Ping,
    Pong,
    Run,
    Seal,
    Seals,
    Want,
    WantSeals,
)
from protocol.grant import Credential, Grant, verified
from protocol.identity import UserId
from protocol.message import Text, encode_message
from protocol.nack import complaints
from protocol.operation import Admit, Enroll, EpochOperation, Remove
from protocol.person import Person, PersonDevice
from protocol.policy import Role
from protocol.reply import People as Known
from protocol.reply import encode_answer
from protocol.roster import Void
from tests.hostile.federation import Federation, Wire, eventually, now, one_settled, say
from tests.hostile.forger import Forger, newest, nonsense
from tests.vectors_files import REFUSED

GHOST = Signer(os.urandom(SEED_BYTES))
GHOST_PREKEY = Prekey(os.urandom(PREKEY_PRIVATE_BYTES))


def with_a_ghost(federation: Federation, home: str, user: str) -> Person:
    """What an agency can make alone: one more device for its user, whose key it does not hold."""
    agency = federation.agency(home)
    person = federation.node(home).directory.people.by_name(f"{user}@{home}")
    assert person is not None
    fields = (identity.VERSION, agency.id, federation.founded.users[user], GHOST.public)
    body = codec.encode((*fields, b"ghost", now()))
    signers = (agency.registrar, GHOST, GHOST)  # the second one should be the user
    signatures = [signer.sign("device", body) for signer in signers]
    ghost = codec.encode((body, *signatures))
    record = identity.sign_prekey(GHOST, GHOST_PREKEY.public, now())
    return replace(person, devices=(*person.devices, PersonDevice(ghost, record)))


def credential(person: Person) -> Credential:
    """What nobody would get from `verified`: a credential with the last device only."""
    good = verified(person.charter, person.certificate, [person.devices[0].certificate])
    return replace(good, devices=(person.devices[-1].certificate,))


async def without_effect(federation: Federation, *runs: Run) -> None:
    """Send runs of which nothing may be stored in any chat of mallory's."""
    before = federation.entries("north", federation.founded.open)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(*runs, Ping())
        await wire.hear(Pong)
        await federation.node().journal.write(lambda: None)
    assert federation.entries("north", federation.founded.open) == before


async def test_an_agency_cannot_add_a_device(federation: Federation, forger: Forger) -> None:
    """Cases 39 and 46: no directory, no device and no chat takes it, so nothing is sealed to it."""
    ghostly = with_a_ghost(federation, "south", "boris")
    north, anna = federation.node(), federation.honest["anna"]
    told = Answer(1, 0, encode_answer(Known((ghostly,))))
    south = federation.agency("south").id
    with pytest.raises(PeerError, match="not signed by its user key"):
        await north.journal.write(lambda: north.directory.remember(south, told))
    with pytest.raises(PeerError, match="not signed by its user key"):
        await federation.links["anna"].write(lambda: people.keep_person(anna, ghostly))
    own = with_a_ghost(federation, "north", "mallory")
    await without_effect(federation, newest(forger.control(Enroll(credential(own)))))
    assert GHOST.public not in await federation.devices_in(forger.chat)
    found = anna.connection.execute("SELECT 1 FROM devices WHERE id = ?", (GHOST.public,)).get
    assert found is None


async def test_a_member_cannot_bring_others(federation: Federation, forger: Forger) -> None:
    """Case 39: a grant beyond one's role is stored, as evidence, and has no effect."""
    person = federation.node("south").directory.people.by_name("boris@south")
    assert person is not None
    good = verified(person.charter, person.certificate, [person.devices[0].certificate])
    before = await federation.devices_in(forger.chat)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(newest(forger.control(Admit((Grant(Role.OWNER, good),)))), Ping())
        await wire.hear(Pong)
        await federation.node().journal.write(lambda: None)
    assert await federation.devices_in(forger.chat) == before
    judge = federation.node().replica.chat(forger.chat)
    assert judge is not None
    assert judge.membership().users[federation.founded.users["boris"]].role is Role.MEMBER


def epoch_operation(
    forger: Forger, change: Callable[[dict[DeviceKey, bytes]], None]
) -> tuple[EpochOperation, list[bytes]]:
    """Build an epoch for the members, or whom `change` makes of them."""
    device = forger.device
    judge = device.replica.chat(forger.chat)
    assert judge is not None
    recipients = {member: Prekey(nonsense(32)).public for member in judge.membership().devices}
    change(recipients)
    record = identity.sign_prekey(device.secrets.device, Prekey(nonsense(32)).public, now())
    place = next_place(device, judge)
    return epoch.build(place, nonsense(32), recipients, set(), record, shareable=False)


async def test_epochs_are_for_the_members(federation: Federation, forger: Forger) -> None:
    """Cases 39 and 43: a ghost among the recipients, a member left out, the same one twice."""
    anna = federation.honest["anna"].key

    def ghost(recipients: dict[DeviceKey, bytes]) -> None:
        recipients[DeviceKey(GHOST.public)] = GHOST_PREKEY.public

    def without(recipients: dict[DeviceKey, bytes]) -> None:
        del recipients[anna]

    for change in (ghost, without):
        operation, _ = epoch_operation(forger, change)
        await without_effect(federation, newest(forger.control(operation)))
    operation, _ = epoch_operation(forger, lambda _: None)
    twice = replace(operation, skipped=(anna,))
    await without_effect(federation, newest(forger.control(twice)))


async def test_only_ones_own_seal(federation: Federation, forger: Forger) -> None:
    """Case 43: a device that asks for another's seal gets its own; an outsider gets none."""
    epochs = {
        chat: [judge.history.entries[at].id for at in range(len(judge.history.entries))]
        for chat in (federation.founded.open, federation.founded.quiet)
        if (judge := federation.node().replica.chat(chat)) is not None
    }
    others = (federation.honest["anna"].key, federation.honest["boris"].key)
    async with federation.as_device() as wire:
        await wire.greet()
        for chat, entries in epochs.items():
            await wire.send(*[WantSeals(chat, entry, others) for entry in entries])
        heard = await wire.quiet(0.3)
    seals = [frame for frame in heard if isinstance(frame, Seals)]
    assert {frame.chat for frame in seals} <= {federation.founded.open}
    judge = federation.node().replica.chat(federation.founded.open)
    assert judge is not None
    for frame in seals:
        found = judge.history.epoch(frame.epoch)
        assert found is not None
        listed = judge.history.recipients(found)
        named = {listed[seal.index] for seal in frame.seals}
        assert named == {forger.device.key}


async def test_seals_that_do_not_fit(federation: Federation, forger: Forger) -> None:
    """Case 43: a seal that is not under the epoch's root ends the session, and is not kept."""
    judge = federation.node().replica.chat(forger.chat)
    assert judge is not None
    entry = next(one.id for one in judge.history.entries if judge.history.epoch(one.id) is not None)
    for seal in (
        Seal(0, nonsense(1184), ()),
        Seal(2**16, nonsense(1184), ()),
        Seal(1, bytes(1184), tuple(nonsense() for _ in range(16))),
    ):
        async with federation.as_device() as wire:
            await wire.greet()
            await wire.send(Seals(forger.chat, entry, (seal,)))
            await federation.refused(wire, "a seal that its epoch does not name")
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(
            Seals(forger.chat, EntryId(nonsense()), (Seal(0, bytes(1184), ()),)), Ping()
        )
        await wire.hear(Pong)


async def test_different_secrets(federation: Federation, forger: Forger) -> None:
    """Case 45: anna reads nothing of it and says so; she and boris go on in another epoch."""
    anna, boris = federation.honest["anna"], federation.honest["boris"]

    def known(recipients: dict[DeviceKey, bytes]) -> None:
        recipients |= {one.key: prekey_of(one) for one in (anna, boris)}

    operation, seals = epoch_operation(forger, known)
    judge = forger.device.replica.chat(forger.chat)
    assert judge is not None
    at = sorted(judge.membership().sealed).index(anna.key)
    ectx = epoch.context(next_place(forger.device, judge), operation)
    seals[at] = epoch.seal(ectx, operation.commit, anna.key, prekey_of(anna), nonsense(32))
    bad = replace(operation, seals_root=merkle.root(seals))
    chain = forger.control(bad)
    frames = [
        Seal(index, seal, tuple(path))
        for index, (seal, path) in enumerate(zip(seals, merkle.paths(seals), strict=True))
    ]
    content = forger.content()
    header = content.entries.pop().header
    own = chain.entries[-1].reference
    written = forger.written_in(content, header, own)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(newest(chain), Seals(forger.chat, own.id, tuple(frames)), written)
        await eventually(lambda: _state(anna, forger, mailbox.State.UNREADABLE), "unreadable")
    chat = forger.chat
    nack = (anna.key, forger.device.key, own.id, epoch.NackReason.WRONG_COMMITMENT)
    await eventually(lambda: _told(federation.node("south"), chat, nack), "anna's nack is told")
    await eventually(lambda: _told(boris, chat, nack), "and reaches boris")
    for user, device in federation.honest.items():
        assert own.id not in await federation.links[user].write(
            partial(_write, device, chat, f"{user} is still here")
        )

    async def heard() -> bool:
        found = {letter.message for letter in mailbox.letters(boris, chat, 9)}
        return Text("anna is still here", None) in found

    await eventually(heard, "anna can write in a chat with a bad epoch")


async def test_a_replayed_ciphertext(federation: Federation, forger: Forger) -> None:
    """Case 44: what anna wrote opens for nobody as mallory's."""
    anna, chat = federation.honest["anna"], forger.chat
    await federation.links["anna"].write(partial(say, anna, chat, "I agree"))
    letters = mailbox.letters(anna, chat, 9)
    own = next(one.reference for one in letters if one.message == Text("I agree", None))
    entry = read_entry(anna, chat, own)
    assert isinstance(entry.header, ContentHeader)
    assert entry.payload is not None
    chain = forger.content()
    mine = chain.entries.pop().header
    replayed = structs.replace(mine, pc=entry.header.pc)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(forger.signed(chain, replayed, entry.payload))
        for device in federation.honest.values():
            await eventually(partial(_state, device, forger, mailbox.State.REFUSED), "refused")


def prekey_of(device: Device) -> bytes:
    """The newest public prekey of an honest device."""
    record = device.connection.execute("SELECT record FROM prekeys ORDER BY issued DESC").get
    return identity.verify_prekey(record).public


def _write(device: Device, chat: ChatId, text: str) -> list[EntryId | None]:
    """Write, and return the epoch of what was written."""
    say(device, chat, text)
    return [device.replica.last_epoch(chat, device.key)]


async def _told(where: Device | Node, chat: ChatId, nack: tuple[bytes, bytes, bytes, int]) -> bool:
    """Whether a replica holds this nack, and it counts."""
    judge = where.replica.chat(chat)
    if judge is None:
        return False
    return nack in [one[1:] for one in complaints(judge.history, judge.history.everything)]


async def test_names_of_files(
    federation: Federation, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 52: of files that are called so none is taken, and what is taken stays in the folder."""
    names = [name.encode() for name in (*REFUSED.values(), "a" * 300)]
    good = encode_message(File("таблица.csv", "text/csv", b"1;2", ""))
    small = [codec.encode((6, name, b"text/csv", b"1;2", b"")) for name in names]
    large = [codec.encode((11, name, b"text/csv", 3, bytes(32), bytes(32), b"")) for name in names]
    bad = [*small, *large]
    run = forger.plaintexts(*bad, good)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        for user in federation.honest:
            await eventually(partial(_has_file, federation, forger, user), "the last file")
    place = federation.base / "downloads"
    place.mkdir()
    (place / "таблица.csv").symlink_to(federation.base / "elsewhere")
    monkeypatch.chdir(place)
    for device in federation.honest.values():
        letters = mailbox.letters(device, forger.chat, len(bad) + 1)
        *refused, taken = [one for one in letters if one.reference.device == forger.device.key]
        assert [one.state for one in refused] == [mailbox.State.REFUSED] * len(bad)
        for one in refused:
            with pytest.raises(UserError, match="holds no file"):
                find_file(device, forger.chat, one.reference.id.hex())
        _, file = find_file(device, forger.chat, taken.reference.id.hex())
        with pytest.raises(UserError, match="exists already"), received(Path(file.name)):
            raise AssertionError("something is there")
    assert not (federation.base / "elsewhere").exists()
    assert [one.name for one in place.iterdir()] == ["таблица.csv"]


async def _has_file(federation: Federation, forger: Forger, user: str) -> bool:
    letters = mailbox.letters(federation.honest[user], forger.chat, 100)
    return any(isinstance(letter.message, File) for letter in letters)


async def _state(device: Device, forger: Forger, state: mailbox.State) -> bool:
    letters = mailbox.letters(device, forger.chat, 9)
    return any(
        letter.reference.device == forger.device.key and letter.state is state for letter in letters
    )


async def test_two_admins_remove_each_other(federation: Federation, forger: Forger) -> None:
    """Case 41: boris' device refuses to, mallory's word is void everywhere, an owner decides."""
    anna, boris, chat = federation.honest["anna"], federation.honest["boris"], forger.chat
    other, mallory = (federation.founded.users[name] for name in ("boris", "mallory"))
    link = federation.links["anna"]
    for user in (other, mallory):
        await link.write(partial(compose.set_role, anna, chat, user, Role.ADMIN, now()))
    everyone = (federation.node("north"), federation.node("south"), anna, boris)
    admins: Mapping[UserId, Role | None] = {other: Role.ADMIN, mallory: Role.ADMIN}
    await eventually(lambda: _all_see(everyone, chat, admins), "all know the admins")
    async with linked(forger.device) as own:
        await eventually(one_settled(own), "mallory knows that she is one")
    with pytest.raises(RefusedError, match="your role in this chat does not allow"):
        await federation.links["boris"].write(
            partial(compose.remove_member, boris, chat, mallory, now())
        )
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(newest(forger.control(Remove(other, ()))))
        await eventually(lambda: _all_see(everyone, chat, admins, voids=1), "it is void")
    await link.write(partial(compose.remove_member, anna, chat, mallory, now()))
    decided = {other: Role.ADMIN, mallory: None}
    await eventually(lambda: _all_see(everyone, chat, decided, voids=1), "the owner has decided")


async def _all_see(
    everyone: Iterable[Device | Node],
    chat: ChatId,
    roles: Mapping[UserId, Role | None],
    voids: int = 0,
) -> bool:
    """Whether these replicas agree on roles (None: no member) and on what is void by rank."""
    for one in everyone:
        judge = one.replica.chat(chat)
        assert judge is not None
        membership = judge.membership()
        held = {user: membership.users.get(user) for user in roles}
        found = {user: None if member is None else member.role for user, member in held.items()}
        if found != roles or list(membership.void.values()) != [Void.RANK] * voids:
            return False
    return True


async def test_who_is_no_reader(federation: Federation) -> None:
    """Case 48: an agency outside gets the same answer for a chat that is here and one nowhere."""
    quiet, nowhere = federation.founded.quiet, ChatId(nonsense())
    stored = federation.node().replica.store.chat(quiet)
    assert stored is not None
    anna = federation.honest["anna"].key
    branch = stored.chains[anna, CONTENT][0]
    epochs = federation.node().replica.chat(quiet)
    assert epochs is not None
    entry = epochs.history.entries[1].id
    for opening in (federation.as_node, federation.as_device):
        answers = {}
        for chat in (quiet, nowhere):
            async with opening() as wire:
                await wire.greet()
                await wire.hear(Heads)
                before = len(wire.heard)
                await wire.send(
                    Want(chat, anna, CONTENT, branch.head[:8], 0, 1),
                    Want(chat, anna, CONTROL, bytes(8), 0, 1),
                    WantSeals(chat, entry, (anna,)),
                    Ping(),
                )
                await wire.quiet(0.3)
                assert not any(one.chat == quiet for one in _listed(wire))
                answers[chat] = [
                    (type(one), getattr(one, "start", None)) for one in wire.heard[before:]
                ]
                await wire.send(Bye())
        assert answers[quiet] == answers[nowhere]
        assert [kind for kind, _ in answers[quiet] if kind is not Heads].count(Absent) == 2


def _listed(wire: Wire) -> list[ChatHeads]:
    return [one for frame in wire.heard if isinstance(frame, Heads) for one in frame.chats]


async def test_an_epoch_storm(federation: Federation, forger: Forger) -> None:
    """Case 49: many epochs of one member in a row; the others go on with few of their own."""
    chat, anna = forger.chat, federation.honest["anna"]
    async with federation.as_device() as wire:
        await wire.greet()
        chain = forger.chain(CONTROL)
        for _ in range(24):
            operation, _ = epoch_operation(forger, lambda _: None)
            chain = forger.appended(chain, operation)
            await wire.send(newest(chain))
        await wire.send(Ping())
        await wire.hear(Pong)
    before = _epochs_of(federation, chat, anna.key)
    link = federation.links["anna"]
    for number in range(3):
        await link.write(partial(say, anna, chat, f"calm {number}"))
        await trio.sleep(0.05)
    assert _epochs_of(federation, chat, anna.key) <= before + 2


def _epochs_of(federation: Federation, chat: ChatId, device: DeviceKey) -> int:
    judge = federation.honest["anna"].replica.chat(chat)
    assert judge is not None
    entries = judge.history.entries
    return sum(one.device == device and judge.history.epoch(one.id) is not None for one in entries)
