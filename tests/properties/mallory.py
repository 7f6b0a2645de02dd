"""A malicious member: a device with true keys whose owner writes past the program.

    mallory = Mallory(world, chat)
    forged = mallory.epoch("anna", mallory.members("anna"))   # what follows what anna has of hers
    mallory.give("anna", forged)
    mallory.write("anna", forged.id, "hello", Lie.OTHER_COMMITMENT)

What she signs continues what the target holds of her chains, so that two targets may get two
branches. A run, or a seal, is given to a device as a session would give it: checked.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from hashlib import sha256

from msgspec import structs
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

from crypto import content, merkle, schedule, sealing
from crypto.errors import SealRefused
from protocol import epoch
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Place,
    Reference,
    header_before_commitment,
)
from protocol.frame import Seal
from protocol.identity import sign_prekey
from protocol.message import Text, encode_message
from protocol.operation import EpochOperation, Operation, kind_of
from protocol.payload import encode_operation
from protocol.run import Entry
from protocol.testing.attacker import SeenEpoch
from protocol.testing.cast import seed
from protocol.testing.chains import Chain, Made
from tests.properties.world import World

NAME = "vera"
FRANK = seed("frank")


class Lie(Enum):
    """What is wrong with a message. The first one is honest."""

    NOTHING = auto()
    OTHER_COMMITMENT = auto()
    PADDED_MORE = auto()
    NO_MARK = auto()


@dataclass(slots=True)
class Sealed:
    """An epoch of hers: where it stands, what it says, and the seals as she hands them out."""

    chain: Chain
    operation: EpochOperation
    recipients: Sequence[DeviceKey]
    seals: list[bytes]

    @property
    def id(self) -> EntryId:
        """The id of its entry."""
        return self.chain.entries[-1].id

    @property
    def place(self) -> Place:
        """Where its entry stands."""
        header = self.chain.entries[-1].header
        return Place(self.chain.chat, header.device, header.seq, header.prev, header.links)

    @property
    def entry(self) -> Entry:
        """Its entry, as a node sees it."""
        last = self.chain.entries[-1]
        record = self.chain.record(last.header.seq)
        return Entry(last.header, last.id, record, last.payload, last.signature)


@dataclass(slots=True)
class Mallory:
    """She has vera's device."""

    world: World
    chat: ChatId
    secrets: dict[EntryId, bytes] = field(default_factory=dict)
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    @property
    def device(self) -> DeviceKey:
        """Her device's key."""
        return self.world.devices[NAME].key

    def fresh(self) -> bytes:
        """Return 32 bytes that were not used before."""
        return seed("mallory", str(next(iter(self._numbers))))

    def chain(self, target: str, lane: int) -> Chain:
        """Return what a device holds of one of her chains, the longest branch."""
        return self.world.chain(target, NAME, lane, self.chat)

    def heads(self, target: str) -> tuple[Reference, ...]:
        """Return the control heads that a device has."""
        judge = self.world.devices[target].replica.chat(self.chat)
        return () if judge is None else judge.history.heads()

    def members(self, target: str) -> dict[DeviceKey, bytes]:
        """Return the members' devices by what the target knows, with their newest prekeys."""
        judge = self.world.devices[target].replica.chat(self.chat)
        known = () if judge is None else judge.membership().devices
        return {
            device.key: self.world.prekey_of(name)
            for name, device in self.world.devices.items()
            if device.key in known
        }

    def place(self, chain: Chain, target: str) -> Place:
        """Return where her next control entry stands."""
        links = tuple(one for one in self.heads(target) if one.device != self.device)
        prev = chain.entries[-1].id if chain.entries else None
        return Place(self.chat, self.device, len(chain.entries), prev, links)

    def control(self, place: Place, chain: Chain, operation: Operation) -> Chain:
        """Append an operation to a chain, allowed or not."""
        return control_after(chain, place.links, operation)

    def epoch(self, target: str, recipients: Mapping[DeviceKey, bytes]) -> Sealed:
        """Return an epoch for whomever, otherwise as it should be."""
        chain = self.chain(target, CONTROL)
        place = self.place(chain, target)
        secret = self.fresh()
        record = sign_prekey(chain.key, sealing.Prekey(self.fresh()).public, self.world.tick())
        operation, seals = epoch.build(place, secret, recipients, set(), record, shareable=False)
        made = Sealed(self.control(place, chain, operation), operation, sorted(recipients), seals)
        self.secrets[made.id] = secret
        return made

    def secret_of(self, seen: SeenEpoch) -> bytes | None:
        """Return the secret of an epoch that she was named in, while she has the prekey."""
        device = self.world.devices[NAME]
        at = epoch.position(self.world.recipients[seen.id], device.key)
        if at is None or at not in seen.seals:
            return None
        seal = seen.seals[at]
        private = device.connection.execute(
            "SELECT private FROM prekeys WHERE id = ?", (epoch.prekey_of(seal),)
        ).get
        if private is None:
            return None
        try:
            return seen.unseal(device.key, private, seal)
        except SealRefused:
            return None

    def changed(self, made: Sealed, operation: EpochOperation, seals: list[bytes]) -> Sealed:
        """Return another epoch at the same place, with these seals whatever they are."""
        last = made.chain.entries[-1].header
        place = Place(self.chat, self.device, last.seq, last.prev, last.links)
        rooted = replace(operation, seals_root=merkle.root(seals))
        forked = self.control(place, made.chain.fork(last.seq), rooted)
        return Sealed(forked, rooted, made.recipients, seals)

    def give(self, target: str, made: Sealed) -> bool:
        """Hand a device the entry, and all seals with their paths."""
        if not self.push(target, made.chain):
            return False
        device = self.world.devices[target]
        paths = merkle.paths(made.seals)
        frames = [
            Seal(at, seal, tuple(path))
            for at, (seal, path) in enumerate(zip(made.seals, paths, strict=True))
        ]
        with device.transaction():
            peer = device.profile.charter.agency
            device.replica.keep_seals(self.chat, made.id, frames, peer)
        return True

    def push(self, target: str, chain: Chain) -> bool:
        """Hand a device the last entry of a chain; tell whether it was stored."""
        run = chain.run(len(chain.entries) - 1)
        return self.world.take(target, run)

    def write(
        self,
        target: str,
        within: EntryId,
        text: str,
        lie: Lie = Lie.NOTHING,
        *,
        skip: int = 0,
        heads: tuple[Reference, ...] | None = None,
    ) -> Made:
        """Return a message that follows what the target has of hers; it is not handed over.

        skip: added to the generation. heads: control heads to name instead of the target's.
        """
        chain = self.chain(target, CONTENT)
        before = chain.before
        going = before.epoch == within
        generation = max((before.generation + 1 if going else 0) + skip, 0)
        header = ContentHeader(
            chat=self.chat,
            device=self.device,
            seq=len(chain.entries),
            prev=chain.entries[-1].id if chain.entries else None,
            links=(),
            control=self.heads(target) if heads is None else heads,
            time=self.world.tick(),
            epoch=within,
            generation=generation,
            pc=bytes(32),
            payload_size=0,
            payload_hash=bytes(32),
        )
        pc, payload = self._sealed(header, encode_message(Text(text, None)), lie)
        digest = sha256(payload).digest()
        header = structs.replace(header, pc=pc, payload_size=len(payload), payload_hash=digest)
        return chain.append(header, payload)

    def hand_over(self, target: str, made: Made) -> bool:
        """Hand a device a message; tell whether it was stored."""
        chain = self.chain(target, CONTENT).fork(made.header.seq)
        chain.entries.append(made)
        return self.push(target, chain)

    def _sealed(self, header: ContentHeader, m: bytes, lie: Lie) -> tuple[bytes, bytes]:
        shared = schedule.epoch_secret(header.epoch, self.secrets[header.epoch])
        chain = schedule.sender_chain(shared, self.device)
        for _ in range(header.generation):
            chain = schedule.next_chain(chain)
        seed_ = schedule.message_seed(chain)
        pre = header_before_commitment(header)
        said = encode_message(Text("another text", None)) if lie is Lie.OTHER_COMMITMENT else m
        pc = content.franking_commitment(FRANK, pre, said)
        padded = content.pad(m)
        if lie is Lie.PADDED_MORE:
            padded += bytes(16)
        elif lie is Lie.NO_MARK:
            padded = m
        bound, key, nonce = content._keys(seed_, pre, pc)
        return pc, encrypt(FRANK + padded, bound, nonce, key)


def generation_of(made: Made) -> int:
    """Return the generation of a message."""
    assert isinstance(made.header, ContentHeader)
    return made.header.generation


def control_after(chain: Chain, links: Sequence[Reference], operation: Operation) -> Chain:
    """Append an operation to a chain, with whatever control heads as seen."""
    payload = encode_operation(operation)
    header = ControlHeader(
        chat=chain.chat,
        device=chain.device,
        seq=len(chain.entries),
        prev=chain.entries[-1].id if chain.entries else None,
        links=tuple(one for one in links if one.device != chain.device),
        time=chain.before.time + 1,
        kind=int(kind_of(operation)),
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
    )
    chain.append(header, payload)
    return chain
