"""A chat's control lane told entry by entry, with real headers and signatures (tests only).

    story = Story([(anna, Role.OWNER), (boris, Role.ADMIN)])
    first = story.tell(boris, Admit((grant(clara, Role.MEMBER),)))
    other = story.tell(anna, SetRole(boris.user, Role.MEMBER, ()), seen=[story.genesis])

`seen` says what the author had seen besides their own chain; without it, everything told so far.
Nothing is judged here: a story may have entries that no node would admit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from protocol.dag import ControlEntry, Dag
from protocol.entry import (
    SIGNATURE_LABEL,
    ChatId,
    ControlHeader,
    DeviceKey,
    EntryId,
    Reference,
    encode_header,
    entry_id,
)
from protocol.epoch import recipients_root
from protocol.fork import Cover, encode_proof, verify_fork
from protocol.history import History
from protocol.operation import (
    SUITE,
    CoSignature,
    EpochOperation,
    Genesis,
    Inner,
    Operation,
    Quorum,
    Revoke,
    UserSignature,
    kind_of,
)
from protocol.payload import (
    QUORUM_LABEL,
    REVOKE_LABEL,
    encode_operation,
    quorum_message,
    revoke_message,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import ISSUED_MS, Person, grant, prekey_record, seed

OPEN_POLICY = Policy(("RU",), 0, HistoryRule.FROM_JOIN)
Seen = Iterable["EntryId | Told"]


@dataclass(frozen=True, slots=True)
class Told:
    """One entry as it stands on the wire, and as a history takes it."""

    header: ControlHeader
    raw: bytes
    payload: bytes
    signature: bytes
    entry: ControlEntry

    @property
    def id(self) -> EntryId:
        """The entry's id."""
        return self.entry.id

    @property
    def reference(self) -> Reference:
        """How others name it."""
        return Reference(self.entry.device, self.entry.seq, self.entry.id)


class Story:
    """A growing control lane. `told` is in causal order; the first person makes the genesis."""

    def __init__(
        self,
        cast: Sequence[tuple[Person, Role]],
        kind: ChatKind = ChatKind.GROUP,
        policy: Policy = OPEN_POLICY,
    ) -> None:
        self.told: list[Told] = []
        self.chat = ChatId(b"")
        self._dag = Dag()
        self._places: dict[EntryId, Told] = {}
        self._tips: dict[DeviceKey, Told] = {}
        founder = cast[0][0]
        listed = sorted(cast, key=lambda part: part[0].user)
        grants = tuple(grant(who, role) for who, role in listed)
        genesis = Genesis(kind, seed("nonce", founder.name)[:16], policy, grants)
        self.genesis = self._write(founder, founder.devices[0], None, (), genesis)
        self.chat = ChatId(self.genesis.id)

    @property
    def entries(self) -> list[ControlEntry]:
        """The entries, in causal order."""
        return [told.entry for told in self.told]

    def history(self) -> History:
        """Return a history of all that was told."""
        return history_of(self.entries)

    def heads(self) -> tuple[Reference, ...]:
        """Return what no other entry has seen."""
        return self._dag.heads()

    def tell(
        self, who: Person, operation: Operation, seen: Seen | None = None, number: int = 0
    ) -> Told:
        """Add an entry by a person's device of this number."""
        device = who.devices[number]
        return self._write(who, device, self._tips.get(device), self._seen(seen), operation)

    def retell(
        self, who: Person, operation: Operation, instead: Told, seen: Seen | None = None
    ) -> Told:
        """Fork: add an entry at the place of another one of the same device."""
        before = self._places[instead.entry.prev] if instead.entry.prev else None
        return self._write(who, instead.entry.device, before, self._seen(seen), operation)

    def untell(self) -> None:
        """Forget the entry told last, which no other can have seen."""
        kept = self.told[:-1]
        self.told, self._dag, self._places, self._tips = [], Dag(), {}, {}
        for told in kept:
            self._keep(told)

    def _keep(self, told: Told) -> None:
        self._dag.append(told.entry)
        self.told.append(told)
        self._places[told.id] = self._tips[told.entry.device] = told

    def _seen(self, seen: Seen | None) -> tuple[Reference, ...]:
        if seen is None:
            return self._dag.heads()
        named = [one if isinstance(one, Told) else self._places[one] for one in seen]
        return tuple(one.reference for one in named)

    def _write(
        self,
        who: Person,
        device: DeviceKey,
        before: Told | None,
        seen: Sequence[Reference],
        operation: Operation,
    ) -> Told:
        payload = encode_operation(operation)
        header = ControlHeader(
            chat=self.chat if self.told else None,
            device=device,
            seq=before.entry.seq + 1 if before else 0,
            prev=before.id if before else None,
            links=tuple(sorted({one for one in seen if one.device != device})),
            time=ISSUED_MS + len(self.told),
            kind=kind_of(operation),
            payload_hash=sha256(payload).digest(),
            payload_size=len(payload),
        )
        raw = encode_header(header)
        entry = ControlEntry(
            entry_id(raw), device, header.seq, header.prev, header.links, operation
        )
        signature = who.signer(device).sign(SIGNATURE_LABEL, entry.id)
        told = Told(header, raw, payload, signature, entry)
        self._keep(told)
        return told

    def quorum(
        self, who: Person, operations: Sequence[Inner], signers: Iterable[Person], until: int = 999
    ) -> Quorum:
        """Return a decision that these owners sign with their first devices."""
        author = who.devices[0]
        message = quorum_message(self.chat, author, until, operations)
        signed = [
            CoSignature(one.devices[0], one.signers[0].sign(QUORUM_LABEL, message))
            for one in signers
        ]
        listed = tuple(sorted(signed, key=lambda one: one.device))
        return Quorum(author, until, tuple(operations), listed)

    def revocation(self, who: Person, number: int = 0, seen: Sequence[Reference] = ()) -> Revoke:
        """Return the revocation of a person's device, signed with their identity key."""
        device = who.devices[number]
        signature = who.identity.sign(REVOKE_LABEL, revoke_message(self.chat, device, seen))
        return Revoke(device, None, UserSignature(who.user, signature), tuple(seen))

    def exposure(self, one: Told, other: Told) -> Revoke:
        """Return the revocation of a device by the proof of its fork."""
        covers = [Cover((told.raw,), told.signature) for told in (one, other)]
        fork = verify_fork(encode_proof(*covers))
        return Revoke(one.entry.device, fork, None, ())

    def epoch(
        self,
        who: Person,
        devices: Iterable[DeviceKey],
        skipped: Iterable[DeviceKey] = (),
    ) -> EpochOperation:
        """Return an epoch for these devices whose seals are not made: for tests of membership."""
        record = prekey_record(who.signers[0])
        return EpochOperation(
            suite=SUITE,
            commit=bytes(32),
            shareable=False,
            recipients_root=recipients_root(devices),
            skipped=tuple(sorted(skipped)),
            seals_root=bytes(32),
            prekey=record,
        )


def history_of(entries: Iterable[ControlEntry]) -> History:
    """Return a history of these entries, which must be in causal order."""
    history = History()
    for entry in entries:
        history.add(entry)
    return history
