"""The directory: who gets which answer, and what a card must pass."""

import ssl

import pytest

from crypto import certificate as x509
from node import agency as agencies
from node.agency import Agency
from node.errors import IdentityError, UserError
from node.trust import Standing, changes
from protocol import identity, question
from protocol.entry import DeviceKey
from protocol.errors import PeerError, Untrusted
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId, CardNode, NodeId, UserId
from protocol.person import Person, PersonDevice
from protocol.question import Lookup, Question, encode_question
from protocol.reply import Cards, OwnCard, People, encode_answer
from protocol.session import PeerKind
from protocol.topic import Topic
from tests.node.house import NOW, House, enrolled, looked_up, prekey_of, signer


class TestLookup:
    def test_by_name_and_by_id(self, house: House) -> None:
        anna = enrolled(house)
        asked = Lookup(("anna@minzdrav", "nobody@minzdrav"), (UserId(anna.user.public),))
        found = looked_up(house, PeerKind.DEVICE, anna.device.public, asked)
        assert found[0] is not None
        assert found[0] == found[2]
        assert found[1] is None
        assert found[0].devices[0].prekey == anna.request.prekey

    def test_absent_and_unknown_agency_are_one_answer(self, house: House) -> None:
        """Hostile case 61: whether a user exists is not told."""
        anna = enrolled(house)
        bodies = {
            house.raw(PeerKind.DEVICE, anna.device.public, Lookup((name,))).body
            for name in ("nobody@minzdrav", "nobody@mincifry", "anna@nowhere")
        }
        assert len(bodies) == 1

    def test_a_revoked_user_is_absent(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        house.directory.people.revoke([DeviceKey(boris.device.public)])
        asked = Lookup(("boris@minzdrav",))
        assert looked_up(house, PeerKind.DEVICE, anna.device.public, asked) == (None,)

    def test_a_revoked_device_asks_in_vain(self, house: House) -> None:
        anna = enrolled(house)
        house.directory.people.revoke([DeviceKey(anna.device.public)])
        for asked in (question.GetParcels(), question.BeginLink()):
            assert house.refused(PeerKind.DEVICE, anna.device.public, asked).code == 8

    def test_a_prekey_is_renewed_by_its_device(self, house: House) -> None:
        anna = enrolled(house)
        fresh = prekey_of(anna.device)
        house.device(anna, question.PutPrekey(fresh))
        (found,) = looked_up(house, PeerKind.DEVICE, anna.device.public, Lookup(("anna@minzdrav",)))
        assert found is not None
        assert found.devices[0].prekey == fresh
        wrong = question.PutPrekey(prekey_of(signer()))
        assert house.refused(PeerKind.DEVICE, anna.device.public, wrong).code == 4

    @pytest.mark.parametrize(
        ("peer", "asked"),
        [
            (PeerKind.NODE, question.GetParcels()),
            (PeerKind.NODE, question.BeginLink()),
            (PeerKind.DEVICE, question.GetLink()),
            (PeerKind.INVITATION, question.GetCard(0)),
            (PeerKind.NODE, question.GetCards(bytes(16), 0)),
        ],
    )
    def test_each_kind_of_peer_has_its_questions(
        self, house: House, peer: PeerKind, asked: Question
    ) -> None:
        assert house.refused(peer, b"k" * 32, asked).code == 8

    def test_an_unknown_topic_is_refused(self, house: House) -> None:
        answer = house.directory.answer(PeerKind.DEVICE, b"k" * 32, Ask(1, 99, b"\x90"), NOW)
        assert answer.code == 8

    def test_malformed_bytes_end_the_session(self, house: House) -> None:
        with pytest.raises(PeerError):
            house.directory.answer(PeerKind.NODE, b"k" * 32, Ask(1, Topic.LOOKUP, b"\xc1"), NOW)


class TestForeign:
    """Users of other agencies: asked for there, checked, and cached here."""

    def forwarded(self, house: House, foreign: House, asked: Lookup) -> None:
        topic, body = encode_question(asked)
        for agency, forward in house.directory.foreign(Ask(1, topic, body)).items():
            assert agency == foreign.agency.id
            answer = foreign.directory.answer(
                PeerKind.NODE, house.agency.id, Ask(2, Topic.LOOKUP, forward), NOW
            )
            house.directory.remember(agency, answer, forward)

    @pytest.fixture
    def federated(self, house: House, foreign: House) -> None:
        house.directory.accept_card(foreign.agency.card.raw, allow_local=False)

    @pytest.mark.usefixtures("federated")
    def test_a_user_abroad_is_found_and_cached(self, house: House, foreign: House) -> None:
        anna, boris = enrolled(house), enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry", "anna@minzdrav"))
        self.forwarded(house, foreign, asked)
        found = looked_up(house, PeerKind.DEVICE, anna.device.public, asked)
        assert all(found)
        assert not house.directory.device_allowed(DeviceKey(boris.device.public))
        by_id = Lookup((), (UserId(boris.user.public),))
        assert house.directory.foreign(Ask(1, *encode_question(by_id)))

    @pytest.mark.usefixtures("federated")
    def test_the_cache_is_not_told_to_other_nodes(self, house: House, foreign: House) -> None:
        enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        assert looked_up(house, PeerKind.NODE, b"n" * 32, asked) == (None,)

    @pytest.mark.usefixtures("federated")
    def test_whom_their_agency_revoked_is_dropped(self, house: House, foreign: House) -> None:
        anna, boris = enrolled(house), enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        foreign.directory.people.revoke([DeviceKey(boris.device.public)])
        self.forwarded(house, foreign, asked)
        assert looked_up(house, PeerKind.DEVICE, anna.device.public, asked) == (None,)

    @pytest.mark.usefixtures("federated")
    def test_nothing_stays_of_what_is_not_listed_any_more(
        self, house: House, foreign: House
    ) -> None:
        """An agency may have new users, and new devices of theirs, each time it is asked."""
        asked = Lookup(("boris@mincifry",))
        for _ in range(3):
            boris = enrolled(foreign, "boris")
            self.forwarded(house, foreign, asked)
            (device,) = house.connection.execute("SELECT id FROM devices").fetchall()
            assert device == (boris.device.public,)
            foreign.directory.people.revoke([DeviceKey(boris.device.public)])
        self.forwarded(house, foreign, asked)
        for table in ("users", "devices"):
            assert house.connection.execute(f"SELECT count(*) FROM {table}").get == 0  # noqa: S608

    @pytest.mark.usefixtures("federated")
    def test_whom_nobody_asked_about_is_not_kept(self, house: House, foreign: House) -> None:
        for name in ("boris", "clara"):
            enrolled(foreign, name)
        both, one = (
            encode_question(Lookup(names))[1]
            for names in (("boris@mincifry", "clara@mincifry"), ("boris@mincifry",))
        )
        ask = Ask(2, Topic.LOOKUP, both)
        answer = foreign.directory.answer(PeerKind.NODE, house.agency.id, ask, NOW)
        house.directory.remember(foreign.agency.id, answer, one)
        assert house.directory.people.by_name("boris@mincifry") is not None
        assert house.directory.people.by_name("clara@mincifry") is None

    @pytest.mark.usefixtures("federated")
    def test_a_refusal_changes_nothing(self, house: House, foreign: House) -> None:
        anna = enrolled(house)
        enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        body = encode_question(asked)[1]
        house.directory.remember(foreign.agency.id, Answer(1, 3, b"busy"), body)
        assert all(looked_up(house, PeerKind.DEVICE, anna.device.public, asked))

    @pytest.mark.usefixtures("federated")
    def test_an_agency_speaks_for_its_own_users_only(self, house: House, foreign: House) -> None:
        enrolled(house)
        own = house.directory.people.by_name("anna@minzdrav")
        answer = Answer(1, 0, encode_answer(People((own,))))
        with pytest.raises(Untrusted, match="of another"):
            house.directory.remember(foreign.agency.id, answer)

    @pytest.mark.usefixtures("federated")
    def test_an_agency_speaks_under_its_own_name(
        self, house: House, foreign: House, founded: tuple[Agency, Agency]
    ) -> None:
        """A trusted agency cannot make itself a charter of another name."""
        root = agencies.open_root(founded[1].folder / agencies.ROOT_FILE, b"r")
        registrar = founded[1].registrar
        charter = identity.sign_charter(root, 9, "minfin", "RU", registrar.public, bytes(32))
        user, device = signer(), signer()
        person = Person(
            charter,
            identity.certify_user(
                registrar, identity.request_user(user, foreign.agency.id, "boris", 1)
            ),
            (
                PersonDevice(
                    identity.certify_device(
                        registrar,
                        identity.request_device(user, device, foreign.agency.id, "x", 1),
                    ),
                    None,
                ),
            ),
        )
        with pytest.raises(Untrusted, match="under another name"):
            house.directory.remember(
                foreign.agency.id, Answer(1, 0, encode_answer(People((person,))))
            )

    def test_unknown_agencies_are_not_asked(self, house: House) -> None:
        asked = Lookup(("boris@mincifry",), (UserId(b"u" * 32),))
        assert not house.directory.foreign(Ask(1, *encode_question(asked)))


class TestCards:
    def other(
        self,
        founded: tuple[Agency, Agency],
        serial: int,
        name: str = "mincifry",
        endpoints: tuple[str, ...] = ("mincifry.example:7340",),
        zone: str = "RU",
        issued: int = 1,
    ) -> bytes:
        """A card of the second agency's root, as it likes."""
        agency = founded[1]
        root = agencies.open_root(agency.folder / agencies.ROOT_FILE, b"r")
        charter = identity.sign_charter(
            root, serial, name, zone, agency.registrar.public, bytes(32)
        )
        nodes = (CardNode(NodeId(agency.node.public), endpoints),)
        return identity.sign_card(root, charter, agency.card.ca, nodes, issued)

    def stranger(self, name: str) -> bytes:
        """A card of a new root."""
        root = signer()
        ca = x509.authority(x509.make_key(), root.public.hex(), NOW, 3652, 5)
        der = x509_der(ca)
        charter = identity.sign_charter(root, 1, name, "RU", signer().public, bytes(32))
        return identity.sign_card(root, charter, der, (), 1)

    def test_a_card_is_taken(self, house: House, founded: tuple[Agency, Agency]) -> None:
        raw = self.other(founded, 1)
        card = house.directory.accept_card(raw, allow_local=False)
        assert house.directory.cards()[card.charter.agency].raw == raw
        assert house.directory.trust.examine(raw, allow_local=False).standing is Standing.SAME

    def test_our_own_card_is_among_them(self, house: House) -> None:
        assert house.directory.cards() == {house.agency.id: house.agency.card}

    def test_the_highest_serial_wins(self, house: House, founded: tuple[Agency, Agency]) -> None:
        """Hostile case 58: an old card replayed."""
        trust = house.directory.trust
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        newer = self.other(founded, 3, endpoints=("new.example:1",))
        assert trust.renew(newer, allow_local=False)
        assert not trust.renew(newer, allow_local=False)
        with pytest.raises(IdentityError, match="an old card"):
            trust.renew(self.other(founded, 2), allow_local=False)
        assert house.directory.cards()[AgencyId(founded[1].id)].raw == newer

    def test_two_cards_of_one_serial(self, house: House, founded: tuple[Agency, Agency]) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        with pytest.raises(IdentityError, match="two different cards"):
            house.directory.accept_card(self.other(founded, 1, issued=2), allow_local=False)

    def test_another_root_under_a_known_name(
        self, house: House, founded: tuple[Agency, Agency]
    ) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        for name in ("mincifry", "minzdrav"):
            with pytest.raises(IdentityError, match="already known as"):
                house.directory.accept_card(self.stranger(name), allow_local=False)

    def test_an_agency_keeps_its_name(self, house: House, founded: tuple[Agency, Agency]) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        with pytest.raises(IdentityError, match="keeps its name"):
            house.directory.accept_card(self.other(founded, 2, "minfin"), allow_local=False)

    def test_names_that_look_alike_are_told(self, house: House) -> None:
        """Hostile case 59: one script each, and yet the same on a screen."""
        trust = house.directory.trust
        house.directory.accept_card(self.stranger("cop"), allow_local=False)
        assert trust.examine(self.stranger("сор"), allow_local=False).looks_like == ("cop",)
        assert not trust.examine(self.stranger("minfin"), allow_local=False).looks_like

    @pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "[::1]:1", "169.254.1.1:1", "localhost:1"])
    def test_local_addresses(
        self, house: House, founded: tuple[Agency, Agency], endpoint: str
    ) -> None:
        """Hostile case 60."""
        raw = self.other(founded, 1, endpoints=(endpoint,))
        with pytest.raises(Untrusted, match="local to a machine"):
            house.directory.accept_card(raw, allow_local=False)
        house.directory.accept_card(raw, allow_local=True)

    def test_a_card_with_anothers_ca(self, house: House, founded: tuple[Agency, Agency]) -> None:
        root = signer()
        charter = identity.sign_charter(root, 1, "minfin", "RU", root.public, bytes(32))
        raw = identity.sign_card(root, charter, founded[1].card.ca, (), 1)
        with pytest.raises(Untrusted, match="not made for its agency"):
            house.directory.accept_card(raw, allow_local=False)

    def test_ones_own_card_is_no_peers(self, house: House) -> None:
        with pytest.raises(UserError, match="own card"):
            house.directory.accept_card(house.agency.card.raw, allow_local=True)

    def test_strangers_and_other_zones_need_a_person(
        self, house: House, founded: tuple[Agency, Agency]
    ) -> None:
        trust = house.directory.trust
        with pytest.raises(IdentityError, match="not trusted here"):
            trust.renew(self.other(founded, 1), allow_local=False)
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        moved = self.other(founded, 2, zone="US")
        with pytest.raises(IdentityError, match="moved from zone"):
            trust.renew(moved, allow_local=False)
        found = trust.examine(moved, allow_local=False)
        assert found.known is not None
        assert changes(found.known, found.card) == ("zone",)

    def test_the_own_card_is_told_if_it_is_newer(
        self, house: House, founded: tuple[Agency, Agency]
    ) -> None:
        card = house.agency.card
        for serial, told in ((card.charter.serial - 1, card.raw), (card.charter.serial, None)):
            for peer in (PeerKind.NODE, PeerKind.DEVICE):
                assert house.ask(peer, founded[1].id, question.GetCard(serial)) == OwnCard(told)

    def test_cards_are_told_once(
        self, house: House, founded: tuple[Agency, Agency], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In pages, in the order in which they were taken; from the first, by another database."""
        monkeypatch.setattr("node.trust.CARDS_MAX", 2)
        anna = enrolled(house)
        cards = [self.other(founded, 1), self.stranger("minfin"), self.stranger("mvd")]
        for card in cards:
            house.directory.accept_card(card, allow_local=False)

        def told(incarnation: bytes, since: int) -> Cards:
            reply = house.device(anna, question.GetCards(incarnation, since))
            assert isinstance(reply, Cards)
            return reply

        first = told(bytes(16), 0)
        assert list(first.cards) == cards[:2]
        rest = told(first.incarnation, first.newest)
        assert list(rest.cards) == cards[2:]
        newer = self.other(founded, 2)
        assert house.directory.trust.renew(newer, allow_local=False)
        after = told(rest.incarnation, rest.newest)
        assert after.cards == (newer,)
        assert told(after.incarnation, after.newest).cards == ()
        assert told(bytes(16), after.newest).cards == tuple(cards[1:])


def x509_der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())
