"""Directories as this device was shown them: nobody is taken who is not listed (SPEC 7.5)."""

from collections.abc import Callable

from msgspec import convert

from client import identities
from client.device import Device
from client.people import checked, keep_person
from node.errors import IdentityError
from node.witness import Witness, replaced
from protocol import codec, question, reply
from protocol.errors import Untrusted
from protocol.identity import AgencyId, UserId, VerifiedUser, verify_card
from protocol.listing import (
    LISTING_BYTES_MAX,
    Head,
    check_listed,
    listing_fields,
    read_listing,
    verify_head,
    verify_split,
)
from protocol.person import Person


def asked(device: Device) -> question.Witness:
    """Return what to ask the node: whether others were shown the same."""
    return Witness(device.connection).question(device.profile.user.agency)


def hear(device: Device, said: reply.Witnessed) -> None:
    """Keep heads and proofs that our node has. Raises PeerError for what does not verify.

    Call inside a transaction, and not in that of what follows from it: a proof must stay.
    """
    witness = Witness(device.connection)
    for raw in said.splits:
        witness.keep_split(verify_split(raw))
    for raw in said.heads:
        witness.agrees(raw)


def note_listing(device: Device, person: Person) -> None:
    """Keep the directory head that a person was shown with, as `hear` does."""
    if person.listing is not None:
        Witness(device.connection).agrees(person.listing.head)


def note_change(device: Device, person: Person, tell: Callable[[str], object]) -> bool:
    """Keep it if a person's name meant another identity here, so that `keep_listed` will raise.

    person: as the directory gives them for that name. tell: as of `identities.note`.
    Call as `hear`. Raises what `keep_listed` raises otherwise.
    """
    user, head = _listed(device, person)
    return _known_later(device, user, head) is None and identities.note(device, user, tell)


def keep_listed(device: Device, person: Person) -> UserId:
    """Check that a person stands in the directory of the agency, and keep them.

    What comes late changes nothing: an answer may wait while another process takes a newer one.
    Return whom the name stands for.
    Raises what `keep_person` raises, and IdentityError for an agency that was caught showing
    different directories, or that does not list the person.
    """
    user, head = _listed(device, person)
    later = _known_later(device, user, head)
    if later is not None:
        return later
    kept = keep_person(device, person)
    assert person.listing is not None
    listing = codec.encode(listing_fields(person.listing))
    device.connection.execute("UPDATE users SET listing = ? WHERE id = ?", (listing, kept))
    return kept


def _known_later(device: Device, user: VerifiedUser, head: Head) -> UserId | None:
    """Return whom a user, or the name, is known as from a later directory than this, if so."""
    rows = device.connection.execute(
        "SELECT id, listing FROM users WHERE (id = ? OR name = ?) AND listing IS NOT NULL",
        (user.user, user.name),
    ).fetchall()
    for known, raw in convert(rows, list[tuple[UserId, bytes]]):
        if _is_later(verify_head(read_listing(codec.decode(raw, LISTING_BYTES_MAX)).head), head):
            return known
    return None


def _is_later(known: Head, head: Head) -> bool:
    if replaced(known.charter, head.charter):
        return False
    return known.serial > head.serial or replaced(head.charter, known.charter)


def _listed(device: Device, person: Person) -> tuple[VerifiedUser, Head]:
    user = checked(device, person)
    if person.listing is None:
        raise Untrusted(f"{user.name} is shown without a place in the directory (SPEC 7.5)")
    head = check_listed(person.listing, user)
    if Witness(device.connection).split(user.agency, head.charter.registrar) is not None:
        raise IdentityError(_warning(user.agency_name))
    return user, head


def suspects(device: Device) -> dict[AgencyId, str]:
    """Return the agencies that were caught showing different directories, and say so in words."""
    witness = Witness(device.connection)
    cards = [verify_card(row[0]) for row in device.connection.execute("SELECT card FROM agencies")]
    return {
        card.charter.agency: _warning(card.charter.name)
        for card in cards
        if witness.split(card.charter.agency, card.charter.registrar) is not None
    }


def _warning(agency: str) -> str:
    return (
        f"{agency} has shown different directories to different agencies, and that is proved: "
        f"some may be shown false users or devices of {agency}. Nothing new is taken from there; "
        "ask your administrator"
    )
