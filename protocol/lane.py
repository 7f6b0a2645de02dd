"""The control lane in an evidence file, newest first: who was brought in, what covers (SPEC 5.10).

`Lane.take` checks one entry by itself; `Lane.close`, once all are read, that the lane is whole,
that each author was brought in by what it had seen, and that checkpoints are by such authors.
Membership is not judged here: that is a finding, not a rule (see `judgement`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from protocol import codec
from protocol.checkpoint import Anchor, check_signed, vouched
from protocol.entry import (
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Header,
    Reference,
    check_payload,
    check_signature,
    decode_header,
    entry_id,
    place_of,
)
from protocol.errors import PeerError
from protocol.exhibit import ELEMENT_BYTES_MAX, OMITTABLE
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    AgencyId,
    Charter,
    UserId,
    verify_charter,
    verify_credential,
)
from protocol.limits import COVER_ENTRIES_MAX, GRANTS_MAX, OPERATION_BYTES_MAX, SIGNATURE_BYTES
from protocol.operation import Checkpoint, Kind
from protocol.pasts import Pasts
from protocol.payload import decode_operation

_Kind = TypeVar("_Kind", ControlHeader, ContentHeader)


class Rule(StrEnum):
    """Why a file is refused; SPEC 5.10 says each in full."""

    MAGIC = "magic"
    TRUNCATED = "truncated"
    ELEMENT = "element"
    ENCODING = "encoding"
    HEADER = "header"
    CHAT = "chat"
    TWICE = "twice"
    ORDER = "order"
    SIGNATURE = "signature"
    COVER = "cover"
    PAYLOAD = "payload"
    CREDENTIAL = "credential"
    FINGERPRINT = "fingerprint"
    CHECKPOINT = "checkpoint"
    CLOSED = "closed"
    AUTHOR = "author"
    MESSAGE = "message"
    ANCHOR = "anchor"
    TRAILING = "trailing"


class Wrong(Exception):
    """A rule that does not hold. offset: of the element, None for the one that is being read."""

    def __init__(self, rule: Rule, text: str, offset: int | None = None) -> None:
        super().__init__(text)
        self.rule = rule
        self.offset = offset


class Cover(NamedTuple):
    """What a proved entry proves of the one before it. distance: entries up to the signature."""

    prev: EntryId | None
    device: DeviceKey
    seq: int
    distance: int

    @classmethod
    def of(cls, header: Header, distance: int) -> "Cover":
        """Return what a header at this distance from its signature proves."""
        return cls(header.prev, header.device, header.seq - 1, distance + 1)

    def fits(self, header: Header, entry: EntryId) -> bool:
        """Whether this very entry is meant."""
        return (entry, header.device, header.seq) == (self.prev, self.device, self.seq)


class Named(NamedTuple):
    """A device as a credential in the lane names it. charter: of the agency."""

    user: UserId
    agency: AgencyId
    archive: bytes
    name: str
    zone: str


def read_signature(value: object) -> bytes | None:
    """Read a signature or nil."""
    return None if value is None else codec.fixed(value, SIGNATURE_BYTES, "signature")


def read_header(raw: bytes, lane: type[_Kind]) -> tuple[_Kind, EntryId]:
    """Read a header of one lane. Raises Wrong."""
    try:
        header = decode_header(raw)
    except PeerError as error:
        raise Wrong(Rule.HEADER, str(error)) from None
    if not isinstance(header, lane):
        raise Wrong(Rule.HEADER, "a header of the other lane")
    return header, entry_id(raw)


def check_authentic(
    header: Header, entry: EntryId, signature: bytes | None, cover: Cover | None
) -> int:
    """Check signature or cover; return how many entries further on the signature stands."""
    if signature is not None:
        try:
            check_signature(header.device, entry, signature)
        except PeerError as error:
            raise Wrong(Rule.SIGNATURE, str(error)) from None
        return 0
    if cover is None or not cover.fits(header, entry) or cover.distance >= COVER_ENTRIES_MAX:
        raise Wrong(Rule.COVER, "neither signed nor covered by the entry after it")
    return cover.distance


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """One control entry. payload: None if left out. offset: of its element."""

    offset: int
    id: EntryId
    header: ControlHeader
    payload: bytes | None
    named: Mapping[DeviceKey, Sequence[Named]]
    checkpoint: Checkpoint | None


@dataclass(slots=True)
class Lane:
    """The control entries read so far, newest first. anchors: plain fingerprint by agency name."""

    anchors: Mapping[str, str]
    entries: list[LaneEntry] = field(default_factory=list)
    charters: list[Charter] = field(default_factory=list)
    chat: ChatId | None = None
    _covers: dict[Reference, Cover] = field(default_factory=dict)
    _positions: dict[EntryId, int] = field(default_factory=dict)
    _pasts: Pasts = field(default_factory=Pasts)
    _named: dict[DeviceKey, list[tuple[int, Named]]] = field(default_factory=dict)
    _heads: dict[Reference, list[EntryId]] = field(default_factory=dict)
    _authors: dict[tuple[DeviceKey, tuple[Reference, ...]], Named] = field(default_factory=dict)
    _closed: bool = False

    def take(self, offset: int, body: bytes) -> None:
        """Check a control element by itself. Raises Wrong."""
        try:
            fields = codec.record(codec.decode(body, ELEMENT_BYTES_MAX), 3, "control element")
            raw = codec.binary(fields[0], ELEMENT_BYTES_MAX, "header")
            signature = read_signature(fields[1])
            payload = (
                None
                if fields[2] is None
                else codec.binary(fields[2], OPERATION_BYTES_MAX, "payload")
            )
        except PeerError as error:
            raise Wrong(Rule.ENCODING, str(error)) from None
        header, entry = read_header(raw, ControlHeader)
        if header.kind > max(Kind):
            raise Wrong(Rule.HEADER, f"kind {header.kind} is none of SPEC 3.2")
        self._check_place(header, entry)
        cover = self._covers.get(Reference(header.device, header.seq, entry))
        distance = check_authentic(header, entry, signature, cover)
        self._note(header, entry, distance)
        self._check_payload(header, payload)
        named = {} if payload is None else self._credentials(header.kind, payload)
        checkpoint = _checkpoint(header, payload)
        self.entries.append(LaneEntry(offset, entry, header, payload, named, checkpoint))

    def _check_place(self, header: ControlHeader, entry: EntryId) -> None:
        chat = ChatId(entry) if header.chat is None else header.chat
        if not self.entries:
            self.chat = chat
        if chat != self.chat:
            raise Wrong(Rule.CHAT, "an entry of another chat")
        if entry in self._positions:
            raise Wrong(Rule.TWICE, "an entry that was there before")
        if any(parent in self._positions for parent in _parents_of(header)):
            raise Wrong(Rule.ORDER, "an entry after one that it names")

    def _note(self, header: ControlHeader, entry: EntryId, distance: int) -> None:
        self._positions[entry] = len(self.entries)
        if header.prev is None:
            return
        cover = Cover.of(header, distance)
        before = Reference(cover.device, cover.seq, header.prev)
        known = self._covers.get(before)
        if known is None or cover.distance < known.distance:
            self._covers[before] = cover

    def _check_payload(self, header: ControlHeader, payload: bytes | None) -> None:
        if payload is None:
            if header.kind not in OMITTABLE:
                raise Wrong(Rule.PAYLOAD, f"kind {header.kind} without its payload")
            return
        try:
            check_payload(header, payload)
        except PeerError as error:
            raise Wrong(Rule.PAYLOAD, str(error)) from None

    def _credentials(self, kind: int, payload: bytes) -> dict[DeviceKey, list[Named]]:
        """Check the credentials in a payload, and which of their charters fit the anchors."""
        found: dict[DeviceKey, list[Named]] = {}
        charters = []
        try:
            for charter, certificate, devices in _listed(kind, payload):
                user = verify_credential(charter, certificate, devices)
                named = Named(user.user, user.agency, user.archive, user.name, user.zone)
                for device in user.devices:
                    found.setdefault(device, []).append(named)
                charters.append(verify_charter(charter))
        except PeerError as error:
            raise Wrong(Rule.CREDENTIAL, str(error)) from None
        for one in charters:
            wanted = self.anchors.get(one.name)
            if wanted is not None and wanted != "".join(one.fingerprint.split()):
                raise Wrong(
                    Rule.FINGERPRINT,
                    f"agency {one.name} has the fingerprint {one.fingerprint} here, "
                    "not the one that was given",
                )
        self.charters += charters
        return found

    # Once all entries are read

    def close(self) -> None:
        """Check what only the whole lane shows, oldest entry first; once. Raises Wrong."""
        if self._closed:
            return
        self._closed = True
        for number, entry in enumerate(reversed(self.entries)):
            self._pasts.append([self.number(parent) for parent in self._held_parents(entry)])
            for device, listed in entry.named.items():
                self._named.setdefault(device, []).extend((number, one) for one in listed)
            known = self._known(entry.header.device, self._pasts[number])
            if not known:
                raise Wrong(Rule.AUTHOR, "an author whom nothing had brought in", entry.offset)
            self._close_checkpoint(entry, known)

    def _held_parents(self, entry: LaneEntry) -> Iterator[EntryId]:
        header = entry.header
        references = list(header.links)
        if header.prev is not None:
            references.append(Reference(header.device, header.seq - 1, header.prev))
        if bool(references) == (header.chat is None):
            raise Wrong(Rule.CLOSED, "a genesis and nothing else has no past", entry.offset)
        for reference in references:
            if not self._holds(reference):
                raise Wrong(Rule.CLOSED, "it names an entry that is not there", entry.offset)
            yield reference.id

    def _holds(self, reference: Reference) -> bool:
        position = self._positions.get(reference.id)
        if position is None:
            return False
        header = self.entries[position].header
        return (header.device, header.seq) == (reference.device, reference.seq)

    def _known(self, device: DeviceKey, past: int) -> list[Named]:
        return [one for number, one in self._named.get(device, ()) if past >> number & 1]

    def _close_checkpoint(self, entry: LaneEntry, known: Sequence[Named]) -> None:
        if entry.checkpoint is None or entry.checkpoint.anchor is None:
            return
        certificate = entry.checkpoint.anchor.certificate
        if not any(
            one.user == certificate.user and vouched(certificate, one.agency, one.archive)
            for one in known
        ):
            raise Wrong(
                Rule.CHECKPOINT, "an archive certificate not of its author's agency", entry.offset
            )
        for head in entry.checkpoint.heads:
            self._heads.setdefault(head, []).append(entry.id)

    # For what the content lane names

    def author(self, header: ContentHeader) -> Named:
        """Return who a content entry is by, from what it had seen. Raises Wrong."""
        found = self._authors.get((header.device, header.control))
        if found is not None:
            return found
        past = 0
        for reference in header.control:
            if not self._holds(reference):
                raise Wrong(Rule.CLOSED, "it names a control entry that is not there")
            past |= self._pasts[self.number(reference.id)]
        known = self._known(header.device, past)
        if not known:
            raise Wrong(Rule.AUTHOR, "an author whom nothing had brought in")
        found = self._authors[header.device, header.control] = min(known)
        return found

    def naming(self, head: Reference) -> Sequence[EntryId]:
        """Return the anchored checkpoints that name this content entry."""
        return self._heads.get(head, ())

    def number(self, entry: EntryId) -> int:
        """Return a number that is smaller for what stands later in the file."""
        return len(self.entries) - 1 - self._positions[entry]

    def entry(self, entry: EntryId) -> LaneEntry:
        """Return a control entry of the file."""
        return self.entries[self._positions[entry]]

    def anchor(self, entry: EntryId) -> Anchor:
        """Return what makes a checkpoint of `naming` last."""
        checkpoint = self.entry(entry).checkpoint
        assert checkpoint is not None
        assert checkpoint.anchor is not None
        return checkpoint.anchor

    def maker(self, entry: EntryId) -> Named:
        """Return who made a checkpoint of `naming`."""
        found = self.entry(entry)
        user = self.anchor(entry).certificate.user
        known = self._known(found.header.device, self._pasts[self.number(entry)])
        return min(one for one in known if one.user == user)

    def vouched(self, entry: EntryId) -> bool:
        """Whether a checkpoint is of an agency whose fingerprint was given."""
        certificate = self.anchor(entry).certificate
        return any(
            one.name in self.anchors and vouched(certificate, one.agency, one.archive)
            for one in self.charters
        )


def _parents_of(header: ControlHeader) -> Iterator[EntryId]:
    if header.prev is not None:
        yield header.prev
    for link in header.links:
        yield link.id


def _listed(kind: int, payload: bytes) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
    """Yield (charter, user certificate, device certificates) of a payload that brings users in."""
    match kind:
        case Kind.GENESIS:
            yield from _grants(codec.record(codec.decode(payload, OPERATION_BYTES_MAX), 4, "it")[3])
        case Kind.GRANT:
            yield from _grants(codec.record(codec.decode(payload, OPERATION_BYTES_MAX), 1, "it")[0])
        case Kind.ENROLL:
            fields = codec.record(codec.decode(payload, OPERATION_BYTES_MAX), 3, "enroll")
            yield _credential(fields[0], fields[1], fields[2:])
        case Kind.QUORUM:
            decided = codec.record(codec.decode(payload, OPERATION_BYTES_MAX), 4, "quorum")[2]
            for item in codec.array(decided, GRANTS_MAX, "decisions"):
                inner, raw = codec.record(item, 2, "decision")
                if inner == Kind.GRANT:
                    yield from _listed(Kind.GRANT, codec.binary(raw, OPERATION_BYTES_MAX, "grant"))
        case _:
            pass


def _grants(value: object) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
    for item in codec.array(value, GRANTS_MAX, "grants"):
        _, charter, certificate, devices = codec.record(item, 4, "grant")
        yield _credential(
            charter, certificate, codec.array(devices, OPERATION_BYTES_MAX, "devices")
        )


def _credential(
    charter: object, certificate: object, devices: Sequence[object]
) -> tuple[bytes, bytes, list[bytes]]:
    return (
        codec.binary(charter, CHARTER_BYTES_MAX, "charter"),
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "user certificate"),
        [codec.binary(one, CERTIFICATE_BYTES_MAX, "device certificate") for one in devices],
    )


def _checkpoint(header: ControlHeader, payload: bytes | None) -> Checkpoint | None:
    """Check a checkpoint's own signatures."""
    if header.kind != Kind.CHECKPOINT or payload is None or header.chat is None:
        return None
    try:
        found = decode_operation(header.kind, payload, header.chat)
        assert isinstance(found, Checkpoint)
        if found.anchor is not None:
            check_signed(found.anchor, place_of(header), found.heads)
    except PeerError as error:
        raise Wrong(Rule.CHECKPOINT, str(error)) from None
    return found
