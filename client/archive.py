"""History for a further device: messages, each with what proves it (SPEC 5.6).

    letters = [[entry id, plaintext, frank]…]
    info    = [from, to, prekey id]
    body    = [1, from, certificate, to, prekey id, part, parts, bundle(prekey, info, letters)]
    parcel  = [body, signature of `from`, label "archive"]

The new device believes neither the old one nor the node: the certificate must name a device of its
own user, and each message must fit the commitment in a signed header. What comes before its entry
waits. Keys are never handed over, so what an epoch protects stays so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import convert

from client import debts, sharing
from client.device import Device
from client.mailbox import State, accept_disclosed, select
from crypto.archive import BUNDLE_KEY_BYTES, open_bundle, seal_bundle
from crypto.errors import BadSignature, SealRefused
from crypto.signing import verify
from node.errors import IdentityError
from protocol import codec
from protocol.disclosure import (
    LETTER_OVERHEAD_BYTES,
    Disclosed,
    letter_fields,
    read_letters,
)
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    DeviceCertificate,
    Prekey,
    verify_device,
    verify_endorsed,
)
from protocol.limits import SIGNATURE_BYTES
from protocol.topic import PARCEL_BYTES_MAX

VERSION = 1
LABEL = "archive"
LETTERS_BYTES_MAX = 800 * 1024  # of one segment; leaves room for seal, certificate and frame
LETTERS_MAX = 3000  # of one segment: a structure holds 16,384 elements
PARTS_MAX = 1 << 16
PREKEY_ID_BYTES = 16
TAKEN_AT_ONCE = 256  # of what was disclosed: that much is in memory
_NUMBER_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One opened parcel. part: 0 to parts - 1; both 0 for what is no part of a history."""

    part: int
    parts: int
    letters: tuple[Disclosed, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a history goes on: with what is numbered below this in the mailbox, as this part.

    parts: of how many, as was counted when it began; 0 before.
    """

    below: int
    part: int
    parts: int


BESIDE: Final = (0, 0)  # part and parts of what is no part of a history
BEGIN: Final = Onward(_NUMBER_MAX, 0, 0)


def next_parcel(device: Device, prekey: Prekey, at: Onward) -> tuple[bytes, Onward | None]:
    """Return the parcel with what comes next, and where it goes on; None: it was the last.

    prekey: of the new device, checked. At least one parcel, so that its end can be seen.
    """
    letters, below = segment(device, at.below)
    part = at.part + 1
    if not below or part == PARTS_MAX:
        return _seal(device, prekey, at.part, part, letters), None
    parts = max(at.parts or _count(device), part + 1)
    return _seal(device, prekey, at.part, parts, letters), Onward(below, part, parts)


def debt_parcel(device: Device, prekey: Prekey) -> tuple[bytes, list[Disclosed]] | None:
    """Return a parcel of what a device of ours is owed beside its history, and what is in it.

    Call inside a transaction.
    """
    letters = list(_fitting(debts.due(device, prekey.device)))
    return (_seal(device, prekey, *BESIDE, letters), letters) if letters else None


def segments(device: Device) -> Iterator[list[Disclosed]]:
    """Yield what this device can read, the newest first, in pieces that fit a parcel."""
    below = _NUMBER_MAX
    while below:
        letters, below = segment(device, below)
        if letters:
            yield letters


def segment(device: Device, below: int) -> tuple[list[Disclosed], int]:
    """Return the newest of what is numbered below this, as much as fits a parcel.

    And the number below which it goes on, 0 if that was all.
    """
    rows = device.connection.execute(
        "SELECT no, id, plaintext, frank FROM mailbox WHERE state = ? AND no < ? ORDER BY no DESC",
        (State.OPEN, below),
    )
    numbers: list[int] = []

    def readable() -> Iterator[Disclosed]:
        for number, entry, plaintext, frank in rows:
            numbers.append(number)
            yield Disclosed(EntryId(entry), plaintext, frank)

    letters = list(_fitting(readable()))
    is_more = len(numbers) > len(letters)  # one was looked at that did not fit
    return letters, numbers[len(letters) - 1] if is_more else 0


def _fitting(letters: Iterable[Disclosed]) -> Iterator[Disclosed]:
    """Yield as many as fit a parcel, one at least."""
    size = 0
    for count, letter in enumerate(letters):
        size += len(letter.plaintext) + LETTER_OVERHEAD_BYTES
        if _is_full(count, size):
            return
        yield letter


def _is_full(letters: int, size: int) -> bool:
    """Whether one more than so many letters, with which they are so large, is too much."""
    return letters > 0 and (size > LETTERS_BYTES_MAX or letters >= LETTERS_MAX)


def _count(device: Device) -> int:
    """Return how many parts all that this device can read would be."""
    parts, letters, size = 1, 0, 0
    rows = device.connection.execute(
        "SELECT length(plaintext) FROM mailbox WHERE state = ? ORDER BY no DESC", (State.OPEN,)
    )
    for (length,) in rows:
        added = length + LETTER_OVERHEAD_BYTES
        size += added
        if _is_full(letters, size):
            parts, letters, size = parts + 1, 0, added
        letters += 1
    return min(parts, PARTS_MAX)


def _seal(device: Device, prekey: Prekey, part: int, parts: int, letters: list[Disclosed]) -> bytes:
    plain = codec.encode(letter_fields(letters))
    info = _info(device.key, prekey.device, prekey.id)
    bundle = seal_bundle(prekey.public, info, device.random(BUNDLE_KEY_BYTES), plain)
    certificate = device.profile.device_certificate
    body = codec.encode(
        (VERSION, device.key, certificate, prekey.device, prekey.id, part, parts, bundle)
    )
    return codec.encode((body, device.secrets.device.sign(LABEL, body)))


def _info(sender: DeviceKey, receiver: DeviceKey, prekey: bytes) -> bytes:
    return codec.encode((sender, receiver, prekey))


def unpack(device: Device, parcel: bytes) -> Segment:
    """Open a parcel for this device. Raises PeerError or IdentityError if it is not to be believed.

    Believed is a device whose certificate our agency, our user and it itself have signed.
    """
    signed, signature = codec.record(codec.decode(parcel, PARCEL_BYTES_MAX), 2, "parcel")
    body = codec.binary(signed, PARCEL_BYTES_MAX, "parcel body")
    fields = codec.record(codec.decode(body, PARCEL_BYTES_MAX), 8, "parcel body")
    if fields[0] != VERSION:
        raise IdentityError(f"an archive of version {fields[0]!r}; update Ivor on this device")
    raw = codec.binary(fields[2], CERTIFICATE_BYTES_MAX, "certificate")
    sender, ours = _sender(device, raw), device.profile.user
    if (sender.device, sender.user, sender.agency) != (fields[1], ours.user, ours.agency):
        raise IdentityError("an archive that no device of yours has made; it was thrown away")
    if _is_revoked(device, sender.device):
        raise IdentityError("an archive of a device that is revoked; it was thrown away")
    try:
        verify(sender.device, LABEL, body, codec.fixed(signature, SIGNATURE_BYTES, "signature"))
    except BadSignature:
        raise IdentityError("an archive with a bad signature; it was thrown away") from None
    if fields[3] != device.key:
        raise IdentityError("an archive for another device; it was thrown away")
    prekey = codec.fixed(fields[4], PREKEY_ID_BYTES, "prekey id")
    part = codec.uint(fields[5], PARTS_MAX - 1, "part")
    parts = codec.uint(fields[6], PARTS_MAX, "parts")
    if part >= parts and (part, parts) != BESIDE:
        raise IdentityError(f"part {part} of {parts} of an archive; it was thrown away")
    bundle = codec.binary(fields[7], PARCEL_BYTES_MAX, "bundle")
    return Segment(part, parts, _open(device, sender.device, prekey, bundle))


def _sender(device: Device, certificate: bytes) -> DeviceCertificate:
    """Check a certificate; of a device that our directory told of, whichever registrar signed it.

    So devices understand each other while only one of them knows of another registrar key.
    """
    sender = verify_endorsed(certificate)
    told = device.connection.execute(
        "SELECT 1 FROM devices WHERE id = ? AND user = ?", (sender.device, sender.user)
    ).get
    return verify_device(certificate, device.profile.charter) if told is None else sender


def _is_revoked(device: Device, sender: DeviceKey) -> bool:
    found = device.connection.execute(
        "SELECT 1 FROM devices WHERE id = ? AND revoked", (sender,)
    ).get
    return found is not None


def _open(device: Device, sender: DeviceKey, prekey: bytes, bundle: bytes) -> tuple[Disclosed, ...]:
    private = device.connection.execute("SELECT private FROM prekeys WHERE id = ?", (prekey,)).get
    if private is None:
        raise IdentityError(
            "a part of the history came for a key that is erased here after 14 days, and does not "
            "open: bring it by 'ivor backup' on your first device, and 'ivor recover' here"
        )
    try:
        plain = open_bundle(private, _info(sender, device.key, prekey), bundle)
    except SealRefused:
        raise IdentityError("an archive that does not open; it was thrown away") from None
    return read_letters(codec.decode(plain, PARCEL_BYTES_MAX))


def keep(device: Device, segment: Segment) -> None:
    """Keep what a segment brought. Call inside a transaction; then `take_up`."""
    keep_letters(device, segment.letters)


def keep_letters(device: Device, letters: Sequence[Disclosed]) -> int:
    """Keep messages until their entries are here; return how many were not, as they are redacted.

    Call inside a transaction; then `take_up`.
    """
    device.connection.executemany(
        "INSERT INTO disclosed (id, plaintext, frank) SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
        " (SELECT 1 FROM disclosed WHERE id = ?1 AND plaintext = ?2 AND frank = ?3)",
        [(one.entry, one.plaintext, one.frank) for one in letters],
    )
    return forget_redacted(device, device.replica.store.chats())


def forget_redacted(device: Device, chats: Iterable[ChatId]) -> int:
    """Keep nothing of what is redacted in these chats, though its entry may never come.

    Returns how many messages that were. Call inside the transaction that makes it known.
    """
    if not device.connection.execute("SELECT 1 FROM disclosed LIMIT 1").get:
        return 0
    before = device.connection.total_changes()
    for chat in chats:
        judge = device.chat(chat)
        redacted = judge.redactions.of() if judge is not None else ()
        device.connection.executemany(
            "DELETE FROM disclosed WHERE id = ?", [(place.id,) for place in redacted]
        )
    return device.connection.total_changes() - before


def take_up(device: Device) -> int:
    """Take what was disclosed and whose entry is here by now; return how many can be read anew.

    Call inside a transaction, after `mailbox.open_waiting`.
    """
    taken = 0
    while rows := device.connection.execute(
        "SELECT disclosed.no, disclosed.id, disclosed.plaintext, disclosed.frank FROM disclosed"
        " JOIN mailbox USING (id) LIMIT ?",
        (TAKEN_AT_ONCE,),
    ).fetchall():
        for no, entry, plaintext, frank in convert(rows, list[tuple[int, EntryId, bytes, bytes]]):
            if accept_disclosed(device, entry, plaintext, frank):
                letter = select(device, "id = ?", (entry,))
                taken += 1 + sharing.accept(device, list(letter))
            device.connection.execute("DELETE FROM disclosed WHERE no = ?", (no,))
    return taken
