"""The directory of a node: who asks what, and who gets which answer (SPEC 7).

    answer = directory.answer(peer, key, ask, now)          # inside a transaction
    for agency, body in directory.foreign(ask).items():     # before it, for a device's LOOKUP:
        directory.remember(agency, its_answer, body)        # what the other agency's node said

Plain and synchronous. What is absent and what the asker may not know get one answer.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import apsw

from node.agency import (
    Agency,
    Random,
)
from node.errors import IvorError, LimitReached, NetworkError, RefusedError, exit_code
from node.parcels import NO_SUCH_PLACE, Parcels
from node.people import People
from node.receipts import ReceiptBook
from node.registrar import Registrar, own_prekey
from node.signatories import Signatories
from node.tickets import Tickets
from node.trust import Trust
from node.witness import Witness, replaced
from protocol import frame, identity, question, reply
from protocol.entry import DeviceKey
from protocol.errors import NotCanonical, PeerError, Untrusted
from protocol.identity import (
    AgencyId,
    Card,
    UserId,
)
from protocol.invitation import Purpose, encode_invitation
from protocol.listing import Head, check_listed, verify_head, verify_split
from protocol.name import Address, parse_address
from protocol.person import KnownPerson, Person, verify_person
from protocol.question import (
    Approve,
    Enrol,
    GetCard,
    GetCards,
    Lookup,
    PutLink,
    PutParcel,
    Question,
    decode_question,
    encode_question,
)
from protocol.reply import Certified, Done, Reply, decode_answer, encode_answer, encode_refusal
from protocol.session import PeerKind
from protocol.topic import ANSWER_BYTES_MAX, Topic

LINK_SECONDS: Final = 3600
SECOND_MS: Final = 1000
HEADS_NEWS_MAX: Final = 1024  # that an agency may show of its own, an hour; guess
_OfGuests = Enrol | PutLink | question.GetLink
_OfAgencies = GetCard | GetCards | question.Witness | question.GetDirectory

# What each kind of peer may ask. Everything else gets one answer.
ALLOWED: Final[Mapping[PeerKind, frozenset[int]]] = {
    PeerKind.NODE: frozenset(
        {
            Topic.LOOKUP,
            Topic.CARD,
            Topic.WITNESS,
            Topic.DIRECTORY,
            Topic.RECEIPTS,
            Topic.FORWARD,
            Topic.BLOBS,
        }
    ),
    PeerKind.INVITATION: frozenset(
        {Topic.ENROL, Topic.LOOKUP, Topic.LINK_REQUEST, Topic.LINK_RESULT}
    ),
    PeerKind.DEVICE: frozenset(Topic) - {Topic.ENROL, Topic.LINK_REQUEST, Topic.LINK_RESULT},
}


class Directory:
    """Answers for one agency, from the tables of its node's database."""

    def __init__(self, connection: apsw.Connection, agency: Agency, random: Random) -> None:
        self.agency = agency
        self.trust = Trust(connection, agency.card)
        self.people = People(connection, agency.id)
        self.witness = Witness(connection)
        self.tickets = Tickets(connection)
        self.parcels = Parcels(connection, agency.id)
        self.receipts = ReceiptBook(connection, agency)
        self.shown: Counter[bytes] = Counter()  # heads, by the agency that has shown its own
        self.registrar = Registrar(
            agency, self.people, self.tickets, Signatories(connection), random
        )

    # What the node itself asks

    def cards(self) -> Mapping[AgencyId, Card]:
        """Return the cards of all trusted agencies, our own too."""
        return self.trust.cards()

    def accept_card(self, raw: bytes, *, allow_local: bool) -> Card:
        """Trust an agency, or take its newer card, as an operator decided.

        Raises as `Trust.examine` does.
        """
        found = self.trust.examine(raw, allow_local=allow_local)
        self.trust.accept(found)
        return found.card

    def own_head(self, now: float) -> Head:
        """Return the head of our directory as it stands now, signed. now: seconds UTC.

        Raises RefusedError where others may have a later one that is not known here (SPEC 7.5).
        """
        return self.witness.own_head(self.agency, now, self.people.unmet())

    def sign(self, now: float) -> None:
        """Sign our directory as it stands now, if we may."""
        with suppress(RefusedError):
            self.own_head(now)

    def device_allowed(self, device: DeviceKey) -> bool:
        """Whether a device is one of our users', and not revoked."""
        return self.people.owner(device) is not None

    # What peers ask

    def answer(self, peer: PeerKind, key: bytes, ask: frame.Ask, now: float) -> frame.Answer:
        """Answer a question. key: agency id, device key or ticket. now: seconds UTC.

        Writes only when it answers with code 0. Raises PeerError for a malformed question.
        """
        if ask.topic not in ALLOWED[peer]:
            return refused(ask, RefusedError("this node does not answer that to you"))
        asked = decode_question(ask.topic, ask.body)
        try:
            body = encode_answer(self._reply(peer, key, asked, ask.body, now))
            if len(body) > ANSWER_BYTES_MAX:
                raise LimitReached("the answer is too long: ask for fewer at a time")
        except (IvorError, PeerError) as error:
            return refused(ask, error)
        return frame.Answer(ask.number, 0, body)

    def foreign(self, ask: frame.Ask) -> Mapping[AgencyId, bytes]:
        """Say which other agencies to ask about a device's LOOKUP, and with which body.

        Raises PeerError for a malformed question.
        """
        asked = decode_question(ask.topic, ask.body)
        if not isinstance(asked, Lookup):
            return {}
        others = self.trust.agencies() - {self.agency.id}
        names: dict[AgencyId, list[str]] = {}
        users: dict[AgencyId, list[UserId]] = {}
        for name in asked.names:
            agency = self.trust.named(parse_address(name).agency)
            if agency is not None and agency in others:
                names.setdefault(agency, []).append(name)
        for user in asked.users:
            agency = self.people.agency_of(user)
            if agency is not None and agency in others:
                users.setdefault(agency, []).append(user)
        return {
            agency: encode_question(
                Lookup(tuple(names.get(agency, ())), tuple(users.get(agency, ())))
            )[1]
            for agency in names | users
        }

    def remember(self, agency: AgencyId, answer: frame.Answer, asked: bytes | None = None) -> None:
        """Keep what another agency's node answered to a LOOKUP.

        asked: the body that `foreign` made; whom it names and the agency does not know any more is
        dropped. A refusal leaves all as it is.
        Raises PeerError, and writes nothing, if the agency vouches for what it may not.
        """
        if answer.code:
            return
        said = decode_answer(Topic.LOOKUP, answer.code, answer.body)
        if not isinstance(said, reply.People):
            raise NotCanonical("an answer to another question (SPEC 7.2)")
        listed = [person for person in said.people if person is not None]
        found = [self._vouched(agency, person) for person in listed]
        heads = {one.listing.head for one in listed if one.listing is not None}
        if len(heads) > 1:
            raise Untrusted("users in several states of one directory, at one time (SPEC 7.5)")
        if not all(self.witness.agrees(head) for head in heads):
            return
        wanted = None if asked is None else decode_question(Topic.LOOKUP, asked)
        for person, known in zip(listed, found, strict=True):
            if not isinstance(wanted, Lookup) or _is_about(wanted, known):
                self.people.cache(person, known)
        if isinstance(wanted, Lookup):
            self.people.forget(
                agency,
                set(wanted.names) - {known.user.name for known in found},
                set(wanted.users) - {known.user.user for known in found},
            )

    def _vouched(self, agency: AgencyId, person: Person) -> KnownPerson:
        """Check that a trusted agency speaks of its own user, and under its own name."""
        known = verify_person(person)
        if known.user.agency != agency:
            raise Untrusted("an agency vouches for a user of another (SPEC 7.2)")
        charter = identity.verify_charter(person.charter)
        self._check_charter(agency, charter)
        if person.listing is None:
            raise Untrusted(f"{known.user.name} is shown without a place in the directory (7.5)")
        head = check_listed(person.listing, known.user)
        self._check_charter(agency, head.charter)
        newest = self.witness.latest(agency)
        if (
            newest is not None
            and head.serial < newest.serial
            and not replaced(newest.charter, head.charter)
        ):
            raise Untrusted(
                f"{charter.name} shows directory {head.serial} to us, {newest.serial} to others"
            )
        return known

    def _check_charter(self, agency: AgencyId, charter: identity.Charter) -> None:
        card = self.trust.card(agency)
        if card is None:
            raise Untrusted("an agency that is not trusted here (SPEC 7.2)")
        ours = card.charter
        if charter.name != ours.name:
            raise Untrusted(f"agency {ours.name} speaks under another name (SPEC 7.2)")
        if charter.registrar != ours.registrar and charter.serial <= ours.serial:
            raise Untrusted(f"a charter of {ours.name} that its newer card replaced (SPEC 7.2)")
        if self.witness.split(agency, charter.registrar) is not None:
            raise Untrusted(
                f"{ours.name} showed different directories, so it is not believed (7.5)"
            )

    def witnessed(self, said: reply.Witnessed | reply.Directory) -> bool:
        """Keep directory heads and proofs that a peer showed; return whether a proof is new.

        What concerns agencies that are not trusted here is left. Raises PeerError for what does
        not verify.
        """
        trusted = self.trust.agencies()
        before = self.witness.proofs()
        for raw in said.splits if isinstance(said, reply.Witnessed) else ():
            split = verify_split(raw)
            if split.agency in trusted:
                self.witness.keep_split(split)
        heads = [verify_head(raw) for raw in said.heads]
        if isinstance(said, reply.Witnessed):  # one of each agency was asked for
            heads = list({head.agency: head for head in heads}.values())
        for head in heads:
            if head.agency in trusted:
                self.witness.agrees(head.raw)
        return self.witness.proofs() != before

    def _reply(self, peer: PeerKind, key: bytes, asked: Question, raw: bytes, now: float) -> Reply:
        match asked:
            case Lookup():
                return self._look_up(peer, key, asked, now)
            case GetCard() | GetCards() | question.Witness() | question.GetDirectory():
                return self._tell(key, asked, now)
            case question.GetReceipts():
                return self._receipts(peer, key, asked)
            case question.Forward():
                return self._forward(peer, key, asked)
            case Enrol() | PutLink() | question.GetLink():
                return self._serve_invitation(key, asked, raw, now)
            case _:
                return self._serve_device(DeviceKey(key), asked, now)

    def _serve_invitation(self, key: bytes, asked: _OfGuests, raw: bytes, now: float) -> Reply:
        match asked:
            case Enrol():
                return self.registrar.enrol(key, asked, raw, now)
            case PutLink():
                return self.registrar.put_link(key, asked, raw, now)
            case question.GetLink():
                return self.registrar.get_link(key, now)

    def _tell(self, key: bytes, asked: _OfAgencies, now: float) -> Reply:
        """Answer about agencies: their cards, and the directories that they showed."""
        match asked:
            case GetCard() | GetCards():
                return self.trust.told(asked)
            case question.Witness(_, splits, head):
                self.witnessed(reply.Witnessed(self._shown(key, head), splits))
                self.sign(now)
                return self.witness.compared(asked, key)
            case question.GetDirectory(agency, serial):
                return reply.Directory(self.witness.after(agency, serial))

    def _shown(self, asker: bytes, raw: bytes | None) -> tuple[bytes, ...]:
        """Return what to keep of the head in a question: one of ours, or not too many of theirs.

        Too many within the hour would push out those that others are yet to be asked about.
        """
        agency = None if raw is None else verify_head(raw).agency
        if raw is None or agency not in (self.agency.id, asker):
            return ()
        if agency == asker:
            self.shown[asker] += 1
        return () if self.shown[asker] > HEADS_NEWS_MAX else (raw,)

    def _receipts(self, peer: PeerKind, key: bytes, asked: question.GetReceipts) -> reply.Receipts:
        """Answer a node for ourselves, and a device for everybody."""
        if peer is PeerKind.NODE:
            return reply.Receipts(tuple(self.receipts.own(key, asked)))
        self._owner(DeviceKey(key))
        return reply.Receipts(tuple(self.receipts.everybodys(key, asked)))

    def _forward(self, peer: PeerKind, key: bytes, asked: question.Forward) -> Done:
        """Keep what comes for a device of ours; what is for another agency `abroad` has sent on."""
        if peer is PeerKind.DEVICE:
            self._owner(DeviceKey(key))
        self.parcels.check(key, asked)
        if asked.agency != self.agency.id:
            raise NetworkError("the node of that agency is not connected; try again later")
        if self.people.owner(asked.device) is None:
            raise RefusedError(NO_SUCH_PLACE)
        self.parcels.put_from(key if peer is PeerKind.NODE else self.agency.id, asked)
        return Done()

    def _owner(self, device: DeviceKey) -> tuple[UserId, str]:
        owner = self.people.owner(device)
        if owner is None:
            raise RefusedError("this device is revoked, or was never registered here")
        return owner

    def _serve_device(self, device: DeviceKey, asked: Question, now: float) -> Reply:
        owner = self._owner(device)
        user, name = owner[0], parse_address(owner[1]).user
        match asked:
            case question.BeginLink():
                invitation = self.registrar.invite(name, Purpose.LINK, now, LINK_SECONDS)
                return reply.LinkInvitation(encode_invitation(invitation))
            case question.GetPending():
                return self.registrar.pending(name, now)
            case Approve():
                return self.registrar.approve(user, name, asked, now)
            case question.Renew() | question.CertifySigner() | question.Rename():
                return Certified(self.registrar.certify(device, user, asked, now))
            case question.GetParcels():
                return reply.Parcels(self.parcels.waiting(device))
            case _:
                self._change(device, user, asked)
                return Done()

    def _change(self, device: DeviceKey, user: UserId, asked: Question) -> None:
        """Do what a device asks for and that has no other answer than done."""
        match asked:
            case question.PutPrekey(prekey):
                self.people.keep_prekey(device, own_prekey(device, prekey))
            case PutParcel():
                self._put_parcel(user, asked)
            case question.Taken(numbers):
                self.parcels.take(device, numbers)
            case question.Revoke():
                self.registrar.revoke(user, asked)
            case _:
                raise RefusedError("this node does not answer that to you")

    def _put_parcel(self, user: UserId, asked: PutParcel) -> None:
        owner = self.people.owner(asked.device)
        if owner is None or owner[0] != user:
            raise RefusedError("no device of this user has that key")
        self.parcels.put(asked.device, asked.body)

    # Look-ups

    def _look_up(self, peer: PeerKind, key: bytes, asked: Lookup, now: float) -> reply.People:
        if peer is PeerKind.INVITATION:
            return self._look_up_own(key, asked, now)
        found = [self.people.by_name(name) for name in asked.names]
        found += [self.people.by_id(user) for user in asked.users]
        found = [self._listed(person, now) for person in found]
        if peer is not PeerKind.DEVICE:
            found = [self._if_ours(person) for person in found]
        return reply.People(tuple(found))

    def _look_up_own(self, ticket: bytes, asked: Lookup, now: float) -> reply.People:
        """Look up the one user of a further device: no work tells it whether others exist."""
        found = self.tickets.find(ticket, (Purpose.LINK,), int(now * SECOND_MS))
        name = Address(found.name, self.agency.card.charter.name).text
        own = self._listed(self.people.by_name(name), now)
        user = None if own is None else verify_person(own).user.user
        same = (*(one == name for one in asked.names), *(one == user for one in asked.users))
        return reply.People(tuple(own if one else None for one in same))

    def _listed(self, person: Person | None, now: float) -> Person | None:
        """Add to one of our users where they stand in our directory."""
        if person is None or self._if_ours(person) is None:
            return person
        user, unmet = verify_person(person).user, self.people.unmet()
        return replace(person, listing=self.witness.listing(self.agency, user, now, unmet))

    def _if_ours(self, person: Person | None) -> Person | None:
        if person is None:
            return None
        ours = identity.verify_charter(person.charter).agency == self.agency.id
        return person if ours else None


def _is_about(asked: Lookup, known: KnownPerson) -> bool:
    return known.user.name in asked.names or known.user.user in asked.users


def refused(ask: frame.Ask, error: IvorError | PeerError) -> frame.Answer:
    return frame.Answer(ask.number, exit_code(error), encode_refusal(str(error)))
