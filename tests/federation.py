"""Officials' devices of several agencies in one process, without nodes and without a network.

    federation = Federation(tmp_path)
    anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
    chat = federation.chat(anna, "Budget", boris)
    federation.say(anna, chat, "hello")
    federation.carry(anna, boris)              # all that anna's device has and boris may see
    federation.texts(boris, chat)              # ["hello"]

Certificates, keys and databases are the real ones. `carry` does what a session between two replicas
ends with, in no particular order of arrival; tests of sessions are elsewhere.
"""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import convert

from client import compose, enrol, mailbox, people
from client.archive import BEGIN, Onward, next_parcel
from client.arrivals import deliver, take_in
from client.device import Device
from client.joining import Start
from crypto.certificate import public_pem
from crypto.signing import SEED_BYTES, Signer
from node import agency as agencies
from node.agency import Agency, Founding
from node.runs import read_run
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId, Reference
from protocol.frame import Forked, Run, Want, authentic
from protocol.identity import (
    Prekey,
    endorse_link,
    request_device,
    request_link,
    request_user,
    verify_prekey,
    verify_user,
)
from protocol.message import Text
from protocol.person import Person, PersonDevice
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.reply import Enrolment

PASSPHRASE = b"correct horse"
CLOSED_PORT = 9  # discard: nobody listens there
PATIENCE = 100  # rounds after which what is still refused stays refused


def now() -> int:
    """The time in milliseconds."""
    return int(time.time() * 1000)


class Federation:
    """Agencies, made when they are first named, and the devices of their officials."""

    def __init__(self, folder: Path, zone: str = "RU-UDM") -> None:
        self.folder = folder
        self.zone = zone
        self.agencies: dict[str, Agency] = {}
        self.persons: dict[str, Person] = {}
        self.devices: list[Device] = []
        self._users: dict[str, Signer] = {}
        self._numbers = itertools.count(1)

    def agency(self, name: str, zone: str | None = None) -> Agency:
        """An agency whose node never runs."""
        if name not in self.agencies:
            founding = Founding(name, zone or self.zone, (f"127.0.0.1:{CLOSED_PORT}",), {})
            self.agencies[name] = agencies.create(
                self.folder / name, founding, b"service", b"root", time.time(), os.urandom
            )
        return self.agencies[name]

    def official(self, address: str, zone: str | None = None) -> Device:
        """A user with a first device, known to all who are enrolled before and after."""
        name, _, at = address.partition("@")
        agency = self.agency(at, zone)
        user = self._users[address] = Signer(os.urandom(SEED_BYTES))
        start = enrol.begin(user, now(), os.urandom)
        asked = request_user(user, agency.id, name, now())
        certificate = agencies.register_user(agency, asked, name).raw
        device_request = request_device(user, start.secrets.device, agency.id, "laptop", now())
        return self._finish(address, agency, start, certificate, device_request)

    def further(self, first: Device) -> Device:
        """A second device of the same user."""
        address = first.profile.name
        agency = self.agencies[first.profile.charter.name]
        user = first.secrets.user
        assert user is not None
        start = enrol.begin(None, now(), os.urandom)
        link = request_link(
            start.secrets.device, first.profile.user.user, agency.id, "phone", now()
        )
        certificate = first.profile.user.raw
        return self._finish(address, agency, start, certificate, endorse_link(user, link))

    def recovered(self, lost: Device) -> Device:
        """A new device of a user whose others are lost, from their recovery phrase."""
        user = lost.secrets.user
        assert user is not None
        agency = self.agencies[lost.profile.charter.name]
        start = enrol.begin(Signer(user.seed), now(), os.urandom)
        request = request_device(user, start.secrets.device, agency.id, "new", now())
        return self._finish(lost.profile.name, agency, start, lost.profile.user.raw, request)

    def _finish(
        self, address: str, agency: Agency, start: Start, user: bytes, request: bytes
    ) -> Device:
        owner = verify_user(user, agency.card.charter).user
        certificate = agencies.register_device(agency, request, owner)
        tls = agencies.device_certificate(
            agency,
            certificate.device,
            public_pem(start.secrets.tls_key),
            time.time(),
            os.urandom,
        )
        folder = self.folder / f"device-{next(self._numbers)}"
        archive = agencies.certify_archive(agency, certificate, start.secrets.archive.public)
        enrolment = Enrolment(user, certificate.raw, tls, agency.card.raw, archive)
        folder.mkdir(mode=0o700, exist_ok=True)
        enrol.finish(folder, start, enrolment, PASSPHRASE, os.urandom)
        before = self.persons.get(address)
        listed = PersonDevice(certificate.raw, start.record)
        others = () if before is None or before.certificate != user else before.devices
        self.persons[address] = Person(agency.card.charter.raw, user, (*others, listed))
        self.devices.append(Device(folder, start.secrets, os.urandom))
        self.introduce()
        return self.devices[-1]

    def introduce(self) -> None:
        """Tell each device of every agency and person, as its node's directory would."""
        for device in self.devices:
            with device.transaction():
                for agency in self.agencies.values():
                    people.keep_card(device, agency.card.raw)
                for person in self.persons.values():
                    people.keep_person(device, person)

    def close(self) -> None:
        """Close every database."""
        for device in self.devices:
            device.close()

    def parcels(self, source: Device, target: Device) -> list[bytes]:
        """The history of a device, as it hands it over to another."""
        found: list[bytes] = []
        at: Onward | None = BEGIN
        while at is not None:
            parcel, at = next_parcel(source, self.prekey(target), at)
            found.append(parcel)
        return found

    # What officials do

    def chat(self, owner: Device, title: str, *members: Device, role: Role = Role.MEMBER) -> ChatId:
        """A group of `owner` and these, who have it already."""
        policy = Policy((self.zone,), 0, HistoryRule.FROM_JOIN)
        users = [(member.profile.user.user, role) for member in members]
        with owner.transaction():
            chat = compose.new_chat(owner, ChatKind.GROUP, title, policy, users, now())
        for member in members:
            self.carry(owner, member)
        return chat

    def say(self, device: Device, chat: ChatId, text: str) -> Reference:
        """Write a text."""
        with device.transaction():
            return compose.send(device, chat, Text(text, None), now(), None)

    def acknowledge(self, device: Device) -> None:
        """Let the device's node say that it stores all that it wrote."""
        agency = device.profile.charter.agency
        with device.transaction():
            said = device.replica.sharing.stored_of(device.key, agency)
            device.replica.note_holdings(said, agency)

    def texts(self, device: Device, chat: ChatId) -> list[str]:
        """The texts that a device can read, in the order of the chat."""
        found = mailbox.letters(device, chat, 10_000)
        return [letter.message.text for letter in found if isinstance(letter.message, Text)]

    def prekey(self, device: Device) -> Prekey:
        """The prekey that others know of a device."""
        raw = device.connection.execute("SELECT record FROM prekeys").get
        return verify_prekey(raw)

    # What sessions do

    def carry(self, source: Device, target: Device) -> None:
        """Bring the target all that the source has and the target may have; open it there."""
        for lane in (CONTROL, CONTENT):
            self.carry_lane(source, target, lane)
        self._carry_seals(source, target)
        with target.transaction():
            take_in(target, now())

    def carry_lane(self, source: Device, target: Device, lane: int) -> None:
        """Bring the target the entries of one lane."""
        source.refresh()
        waiting = [run for chat in source.replica.store.chats() for run in runs(source, chat)]
        waiting = [run for run in waiting if run.lane == lane]
        for _ in range(PATIENCE):
            before = len(waiting)
            waiting = [run for run in waiting if not self._bring(target, run)]
            if not waiting or len(waiting) == before:
                break

    def _bring(self, target: Device, run: Run) -> bool:
        """Append a run; tell whether that is settled, for good or bad."""
        entries = authentic(run)
        with target.transaction():
            stored = target.replica.append(run, entries)
            deliver(target, [stored])
        return not stored.outcome.missing

    def _carry_seals(self, source: Device, target: Device) -> None:
        rows = target.connection.execute(
            "SELECT id, epoch FROM sealless JOIN chats ON no = chat"
        ).fetchall()
        lacking = convert(rows, list[tuple[ChatId, EntryId]])
        with target.transaction():
            for chat, epoch in lacking:
                seals = source.replica.seals_for(chat, epoch, [target.key])
                target.replica.sharing.keep_seals(epoch, seals)
                if seals:
                    target.replica.sharing.forget_sealless(epoch)
            for chat in source.replica.store.chats():
                stored = source.replica.store.chat(chat)
                if stored is None or target.replica.store.chat(chat) is None:
                    continue
                for proof in source.replica.sharing.forks(stored):
                    target.replica.keep_fork(Forked(chat, proof))


def runs(device: Device, chat: ChatId) -> Iterator[Run]:
    """Everything that a device has of a chat, as frames."""
    store = device.replica.store
    stored = store.chat(chat)
    chains = {} if stored is None else stored.chains
    for (author, lane), chain in chains.items():
        for branch in chain:
            start = 0
            while start < branch.length:
                head, stop = branch.head[:8], branch.length
                run = read_run(store, Want(chat, DeviceKey(author), lane, head, start, stop))
                if run is None:
                    break
                yield run
                start += len(run.records)
