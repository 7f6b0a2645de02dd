"""Which agencies this node trusts: their cards, and what a card must pass to be taken (SPEC 5.2).

    found = trust.examine(raw, allow_local=False)    # is it new? whom does its name look like?
    trust.accept(found)                              # once an operator has compared fingerprints
    trust.renew(raw, allow_local=False)              # a newer card of an agency already trusted
    trust.withdraw("mincifry")                       # an operator trusts it no longer

Calls that write run inside a transaction of the caller's.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

import apsw
from msgspec import convert

from node.config import refuse_local
from node.database import incarnation_of
from node.errors import IdentityError, UserError
from node.tls import authority_of
from protocol.identity import AgencyId, Card, verify_card
from protocol.name import look_alike
from protocol.question import GetCard, GetCards
from protocol.reply import Cards, OwnCard
from protocol.topic import CARDS_MAX


class Standing(Enum):
    """What a card is to us."""

    NEW = "new"
    NEWER = "newer"
    SAME = "same"
    DISTRUSTED = "distrusted"  # and the same or newer


@dataclass(frozen=True, slots=True)
class Examined:
    """A card that may be taken. known: the one here; looks_like: agencies of a similar name."""

    card: Card
    standing: Standing
    known: Card | None
    looks_like: tuple[str, ...]


def take_card(connection: apsw.Connection, card: Card) -> None:
    """Write down a card that may be taken, as the last that was; of its agency it is the one."""
    connection.execute(
        "INSERT INTO cards SELECT ?, ?, ?, ifnull(max(taken), 0) + 1, 1 FROM cards WHERE true"
        " ON CONFLICT (id)"
        " DO UPDATE SET card = excluded.card, taken = excluded.taken, trusted = excluded.trusted",
        (card.charter.agency, card.charter.name, card.raw),
    )


def withdraw(connection: apsw.Connection, agency: AgencyId) -> None:
    """Trust an agency no longer. Its card stays, so that none comes back that is older or false."""
    connection.execute(
        "UPDATE cards SET trusted = 0, taken = (SELECT max(taken) + 1 FROM cards)"
        " WHERE id = ? AND trusted = 1",
        (agency,),
    )


class Trust:
    """The cards in a node's database. own: the node's own, always the one from its folder."""

    def __init__(self, connection: apsw.Connection, own: Card) -> None:
        self.connection = connection
        self.own = own

    def cards(self) -> Mapping[AgencyId, Card]:
        """Return the newest card of each trusted agency, our own first."""
        rows = self.connection.execute("SELECT card FROM agencies ORDER BY name")
        cards = [self.own, *(verify_card(row[0]) for row in rows)]
        return {card.charter.agency: card for card in reversed(cards)}

    def agencies(self) -> AbstractSet[AgencyId]:
        """Return the ids of all trusted agencies, our own too; no card is verified for that."""
        rows = self.connection.execute("SELECT id FROM agencies")
        return {self.own.charter.agency, *(AgencyId(row[0]) for row in rows)}

    def card(self, agency: AgencyId) -> Card | None:
        """Return the card of a trusted agency."""
        if agency == self.own.charter.agency:
            return self.own
        raw = self.connection.execute("SELECT card FROM agencies WHERE id = ?", (agency,)).get
        return None if raw is None else verify_card(raw)

    def named(self, name: str) -> AgencyId | None:
        """Return the trusted agency of this name."""
        if name == self.own.charter.name:
            return self.own.charter.agency
        found = self.connection.execute("SELECT id FROM agencies WHERE name = ?", (name,)).get
        return None if found is None else AgencyId(found)

    def examine(self, raw: bytes, *, allow_local: bool) -> Examined:
        """Check a card that somebody handed over, without taking it.

        Raises PeerError (not a card, a foreign CA, local endpoints), UserError for our own, and
        IdentityError: another agency of that name, an older card, two cards of one serial.
        """
        card = verify_card(raw)
        authority_of(card)
        if not allow_local:
            refuse_local(card.endpoints)
        if card.charter.agency == self.own.charter.agency:
            raise UserError("that is this agency's own card; give the other agency's")
        known = self._known("id", card.charter.agency)
        if known is None:
            self._check_name(card)
            return Examined(card, Standing.NEW, None, self._looks_like(card))
        standing = _compare(card, known)
        if self.card(card.charter.agency) is None:
            return Examined(card, Standing.DISTRUSTED, known, self._looks_like(card))
        return Examined(card, standing, known, ())

    def accept(self, found: Examined) -> None:
        """Trust the agency of a card that was examined in this transaction."""
        take_card(self.connection, found.card)

    def withdraw(self, name: str) -> Card:
        """Trust the agency of this name no longer; return its card. Raises UserError if none is."""
        agency = self.named(name)
        card = None if agency is None else self.card(agency)
        if card is None:
            raise UserError(f"no agency {name} is trusted here; 'ivor node peers' lists who is")
        if card is self.own:
            raise UserError(f"{name} is this agency itself")
        withdraw(self.connection, card.charter.agency)
        return card

    def told(self, asked: GetCard | GetCards) -> OwnCard | Cards:
        """Return our own card if it is newer, or the next ones of others that a device lacks."""
        if isinstance(asked, GetCard):
            return OwnCard(self.own.raw if self.own.charter.serial > asked.serial else None)
        incarnation = incarnation_of(self.connection)
        since = asked.since if asked.incarnation == incarnation else 0
        found = self.connection.execute(
            "SELECT taken, iif(trusted, card, id) FROM cards WHERE taken > ?"
            " ORDER BY taken LIMIT ?",
            (since, CARDS_MAX),
        ).fetchall()
        rows = convert(found, list[tuple[int, bytes]])
        newest = rows[-1][0] if rows else since
        return Cards(incarnation, newest, tuple(card for _, card in rows))

    def renew(self, raw: bytes, *, allow_local: bool) -> bool:
        """Take a newer card of an agency that is trusted already; return whether it was newer.

        An agency in another zone is another bargain, and one with another archive key has another
        fingerprint: that, an operator has to accept.
        Raises as `examine` does, and IdentityError for a stranger, another zone or archive key.
        """
        found = self.examine(raw, allow_local=allow_local)
        charter = found.card.charter
        if found.known is None or found.standing is Standing.DISTRUSTED:
            raise IdentityError(f"agency {charter.name} is not trusted here; run 'ivor node trust'")
        if charter.zone != found.known.charter.zone:
            raise IdentityError(
                f"agency {charter.name} says that it moved from zone {found.known.charter.zone} to "
                f"{charter.zone}; ask them, then run 'ivor node trust' with the new card"
            )
        if charter.archive != found.known.charter.archive:
            raise IdentityError(
                f"agency {charter.name} has a new archive key, so its fingerprint is "
                f"{charter.fingerprint} now; compare it, then run 'ivor node trust' with the card"
            )
        if found.standing is Standing.NEWER:
            self.accept(found)
        return found.standing is Standing.NEWER

    def _check_name(self, card: Card) -> None:
        name = card.charter.name
        other = self.own if name == self.own.charter.name else self._known("name", name)
        if other is not None:
            raise IdentityError(
                f"another agency is already known as {card.charter.name}: its fingerprint is "
                f"{other.charter.fingerprint}, this card's is {card.charter.fingerprint}. "
                "The card is not taken; call the agency and ask which is theirs"
            )

    def _known(self, column: Literal["id", "name"], value: bytes | str) -> Card | None:
        """Return the card that was taken last of an agency, whether or not it is trusted yet."""
        raw = self.connection.execute(
            f"SELECT card FROM cards WHERE {column} = ?",  # noqa: S608 - one of ours
            (value,),
        ).get
        return None if raw is None else verify_card(raw)

    def _looks_like(self, card: Card) -> tuple[str, ...]:
        names = (known.charter.name for known in self.cards().values())
        return tuple(sorted(name for name in names if look_alike(name, card.charter.name)))


def _compare(card: Card, known: Card) -> Standing:
    """Say whether a card replaces the one here. Raises IdentityError if it must not."""
    new, old = card.charter, known.charter
    if new.name != old.name:
        raise IdentityError(
            f"agency {old.name} now calls itself {new.name}; an agency keeps its name, "
            "so the card is not taken"
        )
    if new.serial < old.serial:
        raise IdentityError(
            f"an old card of {old.name}: number {new.serial}, number {old.serial} is here; "
            "ask the agency for its newest card"
        )
    if new.serial > old.serial:
        return Standing.NEWER
    if card.raw != known.raw:
        raise IdentityError(
            f"two different cards of {old.name} have the number {new.serial}; the card is not "
            "taken: call the agency, its root key may be in other hands"
        )
    return Standing.SAME


CHANGES: Final = ("zone", "registrar key", "archive key", "CA", "nodes and addresses")


def changes(known: Card, card: Card) -> tuple[str, ...]:
    """Say what a newer card changes, in words for the operator."""
    before, after = (
        (one.charter.zone, one.charter.registrar, one.charter.archive, one.ca, one.nodes)
        for one in (known, card)
    )
    return tuple(name for name, old, new in zip(CHANGES, before, after, strict=True) if old != new)
