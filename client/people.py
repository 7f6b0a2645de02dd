"""Whom this device knows: users, their devices and prekeys, as their agencies vouch (SPEC 5.4).

What the own node tells is checked against its signatures before it is kept. A user whose identity
key has changed is not replaced in silence: that is either a new start or an attack, and the person
in front of the screen decides.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from msgspec import convert

from client import debts, grants, identities
from client.device import Device
from client.epochs import is_too_old
from crypto.fingerprint import safety_number
from node.errors import IdentityError, IvorError, NetworkError, UserError
from node.trust import take_card, withdraw
from protocol.chat import Chat
from protocol.entry import DeviceKey
from protocol.errors import PeerError
from protocol.grant import Credential, Grant, verified
from protocol.identity import (
    AgencyId,
    Card,
    UserCertificate,
    UserId,
    VerifiedUser,
    device_issued,
    prekey_issued,
    verify_card,
    verify_charter,
    verify_prekey,
)
from protocol.limits import INCARNATION_BYTES, KEY_BYTES
from protocol.name import parse_address
from protocol.person import Person, PersonDevice
from protocol.policy import Role
from protocol.question import GetCards
from protocol.reply import Cards

IN_USE, GIVEN_UP, UNLISTED, UNTOLD = range(4)
"""`devices.revoked`: by us; the directory lists it not; by us, and the directory lists it yet."""
_CARDS = "cards"  # in `meta`: how far our node has told us of cards: incarnation, then a number
_NUMBER_BYTES = 8
SEEK_AGAIN_MS = 600_000


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """A user that this device knows. verified: compared by safety number, by its owner."""

    user: UserId
    agency: AgencyId
    name: str
    verified: bool


def keep_card(device: Device, raw: bytes) -> Card:
    """Keep an agency's card that our node trusts, if it is newer than the one here.

    Of a new agency the directory tells more than when it was asked about users: see `note_sought`.
    Raises IdentityError if an agency of that name has another root key here.
    """
    card = verify_card(raw)
    row = device.connection.execute(
        "SELECT id, card, trusted FROM cards WHERE id = ? OR name = ?",
        (card.charter.agency, card.charter.name),
    ).fetchone()
    if row is not None and row[0] != card.charter.agency:
        raise IdentityError(
            f"our node names another root key for the agency {card.charter.name} than it did "
            "before; ask your administrator before you go on"
        )
    known = None if row is None else verify_card(row[1])
    if known is not None and known.charter.archive != card.charter.archive:
        raise IdentityError(
            f"our node names another archive key for the agency {card.charter.name} than it did "
            f"before, so its fingerprint is {card.charter.fingerprint} now; ask your administrator"
        )
    is_newer = known is None or known.charter.serial < card.charter.serial
    is_trusted = row is not None and bool(row[2])
    if is_newer or not is_trusted:
        take_card(device.connection, card if known is None or is_newer else known)
        if not is_trusted:
            grants.ask_at_once(device)
            device.connection.execute("DELETE FROM sought")
        if card.charter.agency == device.profile.charter.agency:
            device.connection.execute("UPDATE profile SET card = ?", (raw,))
    return card


def keep_own_card(device: Device, raw: bytes) -> Card:
    """Take our agency's card from elsewhere than our node, which may have moved; return the newest.

    Raises IdentityError if it is another's, and as `keep_card`.
    """
    ours = device.profile.charter
    if verify_card(raw).charter.agency != ours.agency:
        raise IdentityError(
            f"that is the card of another agency than yours, {ours.name} ({ours.fingerprint}); "
            "other agencies' cards come from your node"
        )
    keep_card(device, raw)
    device.reread()
    return device.profile.card


def cards_seen(device: Device) -> GetCards:
    """Return the question for the cards that our node has taken since we asked."""
    seen = device.noted(_CARDS)
    if not isinstance(seen, bytes):
        return GetCards(bytes(INCARNATION_BYTES), 0)
    return GetCards(seen[:INCARNATION_BYTES], int.from_bytes(seen[INCARNATION_BYTES:]))


def keep_cards(device: Device, said: Cards) -> list[str]:
    """Keep the cards of an answer, and how far it reaches; return why some were not taken.

    Of an agency that our node trusts no longer there is the id instead.
    """
    refused = []
    for raw in said.cards:
        try:
            if len(raw) != KEY_BYTES:
                keep_card(device, raw)
            elif raw != device.profile.charter.agency:
                withdraw(device.connection, AgencyId(raw))
        except (IdentityError, PeerError) as error:
            refused.append(str(error))
    device.note(_CARDS, said.incarnation + said.newest.to_bytes(_NUMBER_BYTES))
    return refused


def name_of(person: Person) -> str:
    """Return the address that a person's records give, once they are checked."""
    certificates = [one.certificate for one in person.devices]
    return verified(person.charter, person.certificate, certificates).user.name


def why_not(device: Device, name: str, unreached: Collection[AgencyId]) -> IvorError:
    """Return, in words, why nobody vouches for an address. unreached: who could not be asked."""
    agency = parse_address(name).agency
    row = device.connection.execute("SELECT id FROM agencies WHERE name = ?", (agency,)).fetchone()
    if agency == device.profile.charter.name:
        why = "your agency has enrolled nobody of that name; check it"
    elif row is None:
        why = (
            f"your agency is not federated with any called {agency}; check the name, or ask your "
            "administrator"
        )
    elif row[0] in unreached:
        return NetworkError(f"the node of {agency} cannot be reached; try again later")
    else:
        why = f"{agency} has enrolled nobody of that name; check it"
    return UserError(f"{name} is not known: {why}")


def why_closed(device: Device, name: str) -> str:
    """Return, in words, why a member cannot read what we write, and what changes that."""
    agency = parse_address(name).agency
    if device.connection.execute("SELECT 1 FROM agencies WHERE name = ?", (agency,)).get is None:
        why = (
            f"your agency is not federated with {agency}, so no key of theirs is known here; they "
            "can read it once a member who knows one has been online"
        )
    else:
        why = (
            "no key of theirs of the last 14 days is known here; their device asks for this one's "
            "once it is online, and can have it for a week at least"
        )
    return f"{name} cannot read this yet: {why}"


def checked(device: Device, person: Person) -> VerifiedUser:
    """Return who a person is, by records that verify under the agency's key that we know."""
    certificates = [one.certificate for one in person.devices]
    user = verified(person.charter, person.certificate, certificates).user
    root = device.connection.execute("SELECT id FROM cards WHERE name = ?", (user.agency_name,)).get
    if root is not None and root != user.agency:
        raise IdentityError(
            f"{user.name} comes with another root key of {user.agency_name} than our node trusts; "
            "ask your administrator before you go on"
        )
    return user


def keep_person(device: Device, person: Person) -> UserId:
    """Check and keep what an agency says of a user. Raises IdentityError for a changed identity."""
    user = checked(device, person)
    row = device.connection.execute("SELECT id FROM users WHERE name = ?", (user.name,)).get
    if row is not None and row != user.user:
        raise IdentityError(identities.warning(user.name))
    device.connection.execute(
        "INSERT INTO users (id, agency, name, charter, certificate) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET charter = excluded.charter,"
        " certificate = excluded.certificate",
        (user.user, user.agency, user.name, person.charter, person.certificate),
    )
    for key, told in zip(user.devices, person.devices, strict=True):
        _keep_device(device, user.user, key, told)
    _note_absent(device, user.user, user.devices)
    if user.user == device.profile.user.user:
        device.forget_others()
        _renew_own(device, user, person)
    return user.user


def _renew_own(device: Device, user: VerifiedUser, person: Person) -> None:
    """Be who our agency says under another registrar key, if it has one (SPEC 5.2).

    Under the present one take the label that it has given us, if a crash kept that from us.
    """
    charter, ours = verify_charter(person.charter), device.profile.charter
    told = dict(zip(user.devices, person.devices, strict=True)).get(device.key)
    if told is not None and charter.registrar == ours.registrar:
        _take_label(device, told.certificate)
    if told is None or charter.registrar == ours.registrar or charter.serial <= ours.serial:
        return
    device.connection.execute(
        "UPDATE profile SET charter = ?, certificate = ?, device = ?",
        (person.charter, person.certificate, told.certificate),
    )
    device.reread()


def _take_label(device: Device, certificate: bytes) -> None:
    if device_issued(certificate) > device_issued(device.profile.device_certificate):
        device.connection.execute("UPDATE profile SET device = ?", (certificate,))
        device.reread()


def _note_absent(device: Device, user: UserId, told: Sequence[DeviceKey]) -> None:
    """Seal nothing more to devices that the directory lists no longer, until it does again.

    One of our own stays given up once we have revoked it; if it is listed our node is to hear that.
    """
    ours = user == device.profile.user.user
    rows = device.connection.execute("SELECT id, revoked FROM devices WHERE user = ?", (user,))
    for key, before in rows.fetchall():
        listed = key in told or key == device.key
        now = IN_USE if listed else UNLISTED
        if ours and before in (GIVEN_UP, UNTOLD):
            now = UNTOLD if listed else GIVEN_UP
        if now != before:
            device.connection.execute("UPDATE devices SET revoked = ? WHERE id = ?", (now, key))


def keep_own_person(device: Device) -> None:
    """Keep ourselves, and our agency, among those we know."""
    profile = device.profile
    keep_card(device, profile.card.raw)
    own = PersonDevice(profile.device_certificate, None)
    keep_person(device, Person(profile.charter.raw, profile.user.raw, (own,)))


def adopt(
    device: Device, charter: bytes, user: UserCertificate, name: str, verified: int
) -> str | None:
    """Know a person as another device of ours did. verified: 0 or 1.

    Returns the name if it means somebody else by now: whom it meant before is known again, so that
    the change is as loud as it would have been there.
    """
    row = device.connection.execute("SELECT id FROM users WHERE name = ?", (name,)).get
    changed = row not in (None, user.user)
    if changed:
        accept_change(device, name)
    device.connection.execute(
        "INSERT INTO users (id, agency, name, charter, certificate, verified)"
        " VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET verified = max(verified, excluded.verified)",
        (user.user, user.agency, name, charter, user.raw, verified),
    )
    return name if changed else None


def let_enter(device: Device) -> None:
    """Let this device take in chats of its user that it is not in yet, so that it can enter."""
    device.connection.execute("UPDATE devices SET enters = 1 WHERE id = ?", (device.key,))


def note_lost(device: Device) -> int:
    """Keep our devices that chats name and the directory does not tell of; return how many.

    So a device that was lost, and is revoked at our agency, can still be put out of each chat.
    """
    ours, count = device.profile.user.user, 0
    for judge in device.chats():
        member = judge.membership().users.get(ours)
        if member is None:
            continue
        for key in sorted(member.devices):
            raw = judge.history.certificate(key)
            if raw is not None:
                device.connection.execute(
                    "INSERT INTO devices (id, user, certificate, revoked) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (key, ours, raw, UNLISTED),
                )
                count += device.connection.changes()
    return count


def _keep_device(device: Device, user: UserId, key: DeviceKey, told: PersonDevice) -> None:
    """Keep a device that the directory tells of; never an earlier certificate of the same key."""
    if told.prekey is not None and verify_prekey(told.prekey).device != key:
        raise IdentityError("a prekey of another device than the one it was given for")
    row = device.connection.execute(
        "SELECT certificate, prekey FROM devices WHERE id = ?", (key,)
    ).fetchone()
    known, before = row or (None, None)
    earlier = known is not None and device_issued(told.certificate) < device_issued(known)
    device.connection.execute(
        "INSERT INTO devices (id, user, certificate, prekey) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET certificate = excluded.certificate,"
        " prekey = ifnull(excluded.prekey, prekey) WHERE user = excluded.user",
        (key, user, known if earlier else told.certificate, told.prekey),
    )
    if key in device.others and told.prekey is not None and before is not None:
        debts.owe_absent(device, key, verify_prekey(before), verify_prekey(told.prekey))


def acquaintance(device: Device, name: str) -> Acquaintance | None:
    """Return the known user of this address, `boris@mincifry`."""
    row = device.connection.execute(
        "SELECT id, agency, name, verified FROM users WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else Acquaintance(row[0], row[1], row[2], bool(row[3]))


def names_of(device: Device, users: Sequence[UserId]) -> tuple[str, ...]:
    """Return the addresses of these users: as we know them, or as a chat of ours has them."""
    known = {
        user: device.connection.execute("SELECT name FROM users WHERE id = ?", (user,)).get
        for user in users
    }
    found = {user: str(name) for user, name in known.items() if name is not None}
    for judge in device.chats() if len(found) < len(known) else ():
        members = judge.membership().users
        found |= {one: members[one].name for one in known.keys() - found & members.keys()}
    return tuple(found[user] for user in users if user in found)


def grant_of(device: Device, user: UserId, role: Role) -> Grant:
    """Return a grant for a known user with all their devices. Raises UserError."""
    row = device.connection.execute(
        "SELECT charter, certificate, name FROM users WHERE id = ?", (user,)
    ).fetchone()
    devices = _certificates(device, user)
    if row is None or not devices:
        raise UserError("that user, or a device of theirs, is not known here; run 'ivor sync'")
    return Grant(role, verified(row[0], row[1], devices))


def _certificates(device: Device, user: UserId) -> Sequence[bytes]:
    rows = device.connection.execute(
        "SELECT certificate FROM devices WHERE user = ? AND revoked = 0 ORDER BY id", (user,)
    )
    return [row[0] for row in rows]


def enrolment_of(device: Device, certificate: bytes) -> Credential:
    """Return the credential that brings another device of ours into a chat."""
    profile = device.profile
    return verified(profile.charter.raw, profile.user.raw, [certificate])


def safety_number_with(device: Device, person: Acquaintance) -> str:
    """Return the 60 digits that both sides see."""
    ours = device.profile
    return safety_number(ours.user.user, ours.name, person.user, person.name)


def mark_verified(device: Device, person: Acquaintance) -> None:
    """Keep that the owner has compared the safety number."""
    device.connection.execute("UPDATE users SET verified = 1 WHERE id = ?", (person.user,))


def accept_change(device: Device, name: str) -> None:
    """Forget the identity that was known under a name, so that the next one is taken."""
    identities.forget(device, name)
    device.connection.execute("DELETE FROM users WHERE name = ?", (name,))


def strangers(device: Device, chats: Iterable[Chat], now: int) -> Sequence[UserId]:
    """Return the users of chats of whose devices there one has no key here, to be asked about now.

    Nor may it be too old to seal to, where that is done. now: milliseconds. Who was asked about a
    while ago is not among them: see `note_sought`.
    """
    rows = device.connection.execute("SELECT id FROM devices WHERE prekey IS NOT NULL").fetchall()
    known = {device.key} | {key for (key,) in convert(rows, list[tuple[DeviceKey]])}
    rows = device.connection.execute(
        "SELECT user FROM sought WHERE abs(? - at) < ?", (now, SEEK_AGAIN_MS)
    ).fetchall()
    asked = {user for (user,) in convert(rows, list[tuple[UserId]])}
    members: dict[DeviceKey, UserId] = {}
    sealed: set[DeviceKey] = set()
    for membership in (judge.membership() for judge in chats):
        members |= membership.devices
        sealed |= membership.sealed
    known -= {one for one in sealed & known if one != device.key and _is_old(device, one, now)}
    return sorted({user for key, user in members.items() if key not in known} - asked)


def _is_old(device: Device, key: DeviceKey, now: int) -> bool:
    """Whether nobody seals any more to what is known of a device, though it is in use."""
    row = device.connection.execute(
        "SELECT prekey FROM devices WHERE id = ? AND revoked = 0", (key,)
    ).fetchone()
    return row is not None and is_too_old(prekey_issued(row[0]), now)


def note_sought(device: Device, users: Iterable[UserId], now: int) -> None:
    """Note that the directory has told what it knows of users."""
    device.connection.executemany(
        "INSERT OR REPLACE INTO sought VALUES (?, ?)", [(user, now) for user in users]
    )


def companions(device: Device) -> Sequence[UserId]:
    """Return the users of all our chats, and always ourselves: we may have other devices."""
    found = {device.profile.user.user}
    for judge in device.chats():
        found |= judge.membership().users.keys()
    return sorted(found)
