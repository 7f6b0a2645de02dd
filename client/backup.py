"""A backup of what a device has read and whom it knows, and taking one up again (SPEC 5.6).

    head    = enc[0, made, charter, user certificate, device certificate]
    letters = enc[1, [[entry id, plaintext, frank]…]]
    people  = enc[2, [[charter, user certificate, verified]…]]
    chats   = enc[3, [chat id…]]
    end     = enc[4, letters, people, chats, signature]

Sealed to a key that only the recovery words give; signed by the device. It holds no key of any
chain, epoch or prekey: a new device reads what was read, and signs and seals with keys of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client import archive
from client.arrivals import open_waiting
from client.device import Device
from client.mailbox import State, readable
from client.people import adopt
from crypto.archive import BUNDLE_KEY_BYTES
from crypto.errors import BadSignature
from crypto.recovery import backup_key
from crypto.sealing import Prekey
from crypto.signing import verify
from node.errors import EvidenceError, IdentityError, RefusedError, StorageError, UserError
from node.files import private_draft
from protocol import backup as form
from protocol import codec
from protocol.disclosure import letter_fields, read_letters
from protocol.entry import ChatId, DeviceKey
from protocol.errors import PeerError, Unauthentic, Untrusted
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    UserCertificate,
    verify_charter,
    verify_device,
    verify_user,
)
from protocol.limits import ELEMENTS_MAX, KEY_BYTES, SEQ_MAX, SIGNATURE_BYTES, TIME_MS_MAX

HEAD, LETTERS, PEOPLE, CHATS, END = range(5)
PEOPLE_MAX = 500  # of one part: each has a charter and a certificate
CHATS_MAX = 10_000  # of one part

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds. made: milliseconds. device: that made it. label: what it was called."""

    made: int
    device: DeviceKey
    label: str
    letters: int
    people: int
    chats: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What taking up a backup came to, in messages; changed: names that mean others now.

    proved: fit a signed header here. known: could be read before. waiting: for their entries.
    refused: fit no header. gone: redacted, or too old by the chat's policy, and so not taken.
    missing: chats that the node has not shown.
    """

    contents: Contents
    proved: int
    known: int
    waiting: int
    refused: int
    gone: int
    missing: int
    changed: tuple[str, ...]


def save(device: Device, path: Path, now: int, advance: Advance) -> Contents:
    """Write a backup, whole or not at all. advance: told how many messages more are in it.

    Raises RefusedError on a device without the identity key, UserError, StorageError.
    """
    user = device.secrets.user
    if user is None:
        raise RefusedError(
            "this device was linked to another one: make the backup on your first device, which "
            "holds the identity key that it is sealed for"
        )
    if not path.name:
        raise UserError(f"{path} names no file: say where to write the backup")
    own = backup_key(user.seed)
    _check_place(device, path, own)
    connection = device.connection
    connection.execute("BEGIN")  # what is written meanwhile is for the next backup
    try:
        with private_draft(path) as file:
            return _Writer(device, own, file).write(now, advance)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        connection.execute("ROLLBACK")


def _check_place(device: Device, path: Path, own: Prekey) -> None:
    """Raise UserError for a place in the device's folder, or where anything but a backup stands."""
    if path.resolve().is_relative_to(device.folder.resolve()):
        raise UserError(f"{path} is no place for a backup: name a file outside of {device.folder}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name one")
    try:
        with path.open("rb") as file:
            for _, _, raw in _parts(file, path):
                form.open_part(own, None, raw)
                break
    except FileNotFoundError:
        return
    except (EvidenceError, PeerError):
        raise UserError(
            f"{path} is no backup of yours, and is not overwritten: name another file"
        ) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


class _Writer:
    def __init__(self, device: Device, own: Prekey, file: BinaryIO) -> None:
        self._device = device
        self._own = own
        self._file = file
        self._place = form.begin(device.random(form.BACKUP_ID_BYTES), own.public)

    def write(self, now: int, advance: Advance) -> Contents:
        profile = self._device.profile
        certificate = verify_device(profile.device_certificate, profile.charter)
        head = (HEAD, now, profile.charter.raw, profile.user.raw, certificate.raw)
        self._put(codec.encode(head))
        counts = [0, 0, 0]
        for letters in archive.segments(self._device):
            self._put(codec.encode((LETTERS, letter_fields(letters))))
            counts[0] += len(letters)
            advance(len(letters))
        for kind, items, most in (
            (PEOPLE, self._people(), PEOPLE_MAX),
            (CHATS, self._device.replica.store.chats(), CHATS_MAX),
        ):
            for at in range(0, len(items), most):
                self._put(codec.encode((kind, items[at : at + most])))
            counts[kind - LETTERS] = len(items)
        signature = self._device.secrets.device.sign(form.LABEL, self._place.signed)
        self._place = form.Place(
            self._place.backup, self._place.key, self._place.no, self._place.before, last=1
        )
        self._put(codec.encode((END, *counts, signature)))
        return Contents(now, certificate.device, certificate.label, *counts)

    def _put(self, body: bytes) -> None:
        key = self._device.random(BUNDLE_KEY_BYTES)
        part = form.seal_part(self._own.public, self._place, key, body)
        self._file.write(part)
        self._place = self._place.after(part)

    def _people(self) -> Sequence[codec.Value]:
        rows = self._device.connection.execute(
            "SELECT charter, certificate, verified FROM users ORDER BY name"
        )
        return [tuple(row) for row in rows]


@dataclass(frozen=True, slots=True)
class _Head:
    made: int
    device: DeviceKey
    label: str


def check(device: Device, path: Path, seed: bytes, advance: Advance) -> Contents:
    """Read a whole backup and believe it, or say what is wrong and where. Changes nothing.

    seed: of the identity key. advance: told how many bytes more were read.
    Raises EvidenceError for what is damaged, cut off, mixed up or forged; IdentityError for a
    backup of somebody else; UserError if there is no such file.
    """
    try:
        with path.open("rb") as file:
            found = [one for _, one in _read(device, file, path, backup_key(seed), advance) if one]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return found[0]


def take_up(device: Device, path: Path, seed: bytes, contents: Contents) -> Recovered:
    """Bring in what a checked backup holds; all of it, or nothing. Raises as `check`."""
    changed: list[str] = []
    missing = gone = 0
    with device.transaction(), path.open("rb") as file:
        for body, _ in _read(device, file, path, backup_key(seed), lambda _: None):
            kind, items = body[0], body[1]
            if kind == LETTERS and isinstance(items, tuple):
                gone += archive.keep_letters(device, read_letters(items))
            if kind == PEOPLE and isinstance(items, tuple):
                changed += [name for item in items if (name := _known_again(device, item))]
            if kind == CHATS and isinstance(items, tuple):
                here = {bytes(chat) for chat in device.replica.store.chats()}
                missing += sum(_chat(item) not in here for item in items)
        open_waiting(device)
        before = readable(device)
        known = _in_state(device, State.OPEN)
        gone += _in_state(device, State.GONE) - _all_gone(device)
        archive.take_up(device)
        gone += _all_gone(device)  # shares that hold what is redacted
        waiting = int(device.connection.execute("SELECT count(*) FROM disclosed").get)
        proved = readable(device) - before
    refused = max(contents.letters - known - gone - waiting - proved, 0)
    return Recovered(contents, proved, known, waiting, refused, gone, missing, tuple(changed))


def _in_state(device: Device, state: State) -> int:
    """Count what is disclosed and has this state here already."""
    found = device.connection.execute(
        "SELECT count(*) FROM disclosed JOIN mailbox USING (id) WHERE state = ?", (state,)
    ).get
    return int(found)


def _all_gone(device: Device) -> int:
    found = device.connection.execute("SELECT count(*) FROM mailbox WHERE state = ?", (State.GONE,))
    return int(found.get)


def _chat(item: object) -> ChatId:
    return ChatId(codec.fixed(item, KEY_BYTES, "chat"))


def _person(item: object) -> tuple[bytes, UserCertificate, str, bool]:
    charter, certificate, verified = codec.record(item, 3, "person")
    agency = verify_charter(codec.binary(charter, CHARTER_BYTES_MAX, "charter"))
    user = verify_user(codec.binary(certificate, CERTIFICATE_BYTES_MAX, "certificate"), agency)
    return agency.raw, user, agency.name, bool(codec.uint(verified, 1, "verified"))


def _known_again(device: Device, item: object) -> str | None:
    """Know a person as before; return the name if it means somebody else by now."""
    charter, user, agency, verified = _person(item)
    return adopt(device, charter, user, f"{user.name}@{agency}", verified=int(verified))


def _read(
    device: Device, file: BinaryIO, path: Path, own: Prekey, advance: Advance
) -> Iterator[tuple[tuple[object, ...], Contents | None]]:
    """Yield each part's body, checked, and with the last one what the backup holds."""
    place: form.Place | None = None
    head: _Head | None = None
    counts = [0, 0, 0]
    for no, start, raw in _parts(file, path):
        where = f"part {no} of {path} (bytes {start} to {start + len(raw)})"
        try:
            opened = form.open_part(own, place, raw)
            body = codec.decode(opened.body, form.PART_BYTES_MAX)
            if head is None:
                head = _head(device, body)
            contents = _counted(body, counts, head, opened.place)
        except Untrusted as error:
            raise IdentityError(f"{where}: {error}") from None
        except PeerError as error:
            raise EvidenceError(f"{where}: {error}") from None
        yield body, contents
        advance(len(raw))
        if contents is not None:
            if file.read(1):
                raise EvidenceError(f"{path} goes on behind its end, at byte {start + len(raw)}")
            return
        place = opened.place.after(raw)
    if place is None:
        raise EvidenceError(f"{path} is empty: no backup")
    raise EvidenceError(f"{path} ends after part {place.no - 1}, before its last: it was cut off")


def _parts(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, first byte and bytes of each part; one is in memory at a time."""
    no = start = 0
    while head := file.read(form.LENGTH_BYTES):
        try:
            length = form.length_of(head)
        except PeerError as error:
            raise EvidenceError(
                f"{path} is no backup, or damaged in part {no}, at byte {start}: {error}"
            ) from None
        rest = file.read(length)
        if len(rest) < length or len(head) < form.LENGTH_BYTES:
            end = start + len(head) + len(rest)
            raise EvidenceError(f"{path} ends at byte {end}, inside part {no}: it was cut off")
        yield no, start, head + rest
        start += len(head) + len(rest)
        no += 1


def _head(device: Device, body: tuple[object, ...]) -> _Head:
    kind, made, charter, user, certificate = codec.record(body, 5, "head of a backup")
    codec.uint(kind, HEAD, "head")
    agency = verify_charter(codec.binary(charter, CHARTER_BYTES_MAX, "charter"))
    verify_user(codec.binary(user, CERTIFICATE_BYTES_MAX, "user certificate"), agency)
    maker = verify_device(codec.binary(certificate, CERTIFICATE_BYTES_MAX, "certificate"), agency)
    if (maker.agency, maker.user) != (device.profile.charter.agency, device.profile.user.user):
        raise Untrusted("a device of somebody else has made it (SPEC 5.6)")
    return _Head(codec.uint(made, TIME_MS_MAX, "made"), maker.device, maker.label)


def _counted(
    body: tuple[object, ...], counts: list[int], head: _Head, place: form.Place
) -> Contents | None:
    """Count a part's items, each checked; with the last one check number and signature."""
    kind = codec.uint(body[0] if body else None, END, "kind of a part")
    if (kind == END) != bool(place.last) or (kind == HEAD) != (place.no == 0):
        raise Unauthentic("a part of this kind stands in a wrong place (SPEC 5.6)")
    if kind == END:
        return _ended(body, counts, head, place)
    if kind != HEAD:
        _, items = codec.record(body, 2, "part")
        found = codec.array(items, ELEMENTS_MAX, "items")
        {LETTERS: read_letters, PEOPLE: _people, CHATS: _chats}[kind](found)
        counts[kind - LETTERS] += len(found)
    return None


def _people(items: Sequence[object]) -> object:
    return [_person(item) for item in items]


def _chats(items: Sequence[object]) -> object:
    return [_chat(item) for item in items]


def _ended(body: tuple[object, ...], counts: list[int], head: _Head, place: form.Place) -> Contents:
    _, letters, people, chats, signature = codec.record(body, 5, "end of a backup")
    told = [codec.uint(one, SEQ_MAX, "count") for one in (letters, people, chats)]
    try:
        verify(
            head.device, form.LABEL, place.signed, codec.fixed(signature, SIGNATURE_BYTES, "end")
        )
    except BadSignature:
        raise Unauthentic("the device that it names has not signed it (SPEC 5.6)") from None
    if told != counts:
        raise Unauthentic(f"it says {told} messages, people and chats, and holds {counts}")
    return Contents(head.made, head.device, head.label, *counts)


def size(path: Path) -> int:
    """Return the length of a file in bytes. Raises UserError."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
