"""SPEC 7.5: a directory that is shown differently to two becomes a proof that everyone holds."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency
from node.errors import IdentityError
from node.witness import SPLITS_AGENCY_MAX
from protocol.entry import DeviceKey
from protocol.errors import PeerError, Unauthentic, Untrusted
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId, sign_card, sign_charter, verify_charter
from protocol.listing import (
    Head,
    Listing,
    contradiction,
    leaf_of,
    sign_head,
    verify_head,
    verify_split,
)
from protocol.person import verify_person
from protocol.question import GetDirectory, Lookup, Question, Seen, encode_question
from protocol.question import Witness as Asked
from protocol.reply import Directory, People, Witnessed, decode_answer, encode_answer
from protocol.session import PeerKind
from protocol.topic import HEADS_SHOWN_MAX, SPLITS_MAX, Topic
from tests.node.house import NOW, House, enrolled, found, signer, trusting


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> list[Agency]:
    return found(tmp_path_factory.mktemp("agency"), "mid", "east", "west")


@pytest.fixture
def houses(founded: list[Agency], tmp_path: Path) -> Iterator[list[House]]:
    """mid, whose directory is looked at, and its two peers, who trust each other and mid."""
    with trusting(founded, tmp_path) as made:
        yield made


def look(asker: House, mid: House, name: str) -> None:
    """Look a user of mid up, as a node does for its devices."""
    topic, body = encode_question(Lookup((f"{name}@mid",)))
    for agency, forward in asker.directory.foreign(Ask(1, topic, body)).items():
        ask = Ask(2, Topic.LOOKUP, forward)
        answer = mid.directory.answer(PeerKind.NODE, asker.agency.id, ask, NOW)
        asker.directory.remember(agency, answer, forward)


def compare(asker: House, other: House) -> bool:
    """Ask a peer what it was shown, and for what is missing between."""
    witness = asker.directory.witness
    questions: list[Question] = [witness.question(other.agency.id)]
    new = False
    for _ in range(3):
        for question in questions:
            topic, body = encode_question(question)
            ask = Ask(1, topic, body)
            answer = other.directory.answer(PeerKind.NODE, asker.agency.id, ask, NOW)
            said = decode_answer(topic, answer.code, answer.body)
            assert isinstance(said, Witnessed | Directory)
            new |= asker.directory.witnessed(said)
        questions = [
            GetDirectory(one.agency, witness.reach(one.agency)[0]) for one in witness.seen()
        ]
    return new


def known(house: House, name: str) -> bool:
    return house.directory.people.by_name(f"{name}@mid") is not None


def forged(mid: House, before: Head | None, *leaves: bytes) -> Head:
    """What mid's registrar can sign, whatever its directory is."""
    return sign_head(mid.agency.registrar, mid.agency.card.charter, before, leaves, 1)


class TestHonest:
    def test_heads_follow_each_other_and_only_when_users_change(self, houses: list[House]) -> None:
        mid, east, _ = houses
        enrolled(mid, "anna")
        first = mid.directory.witness.own_head(mid.agency, NOW)
        assert mid.directory.witness.own_head(mid.agency, NOW + 99) == first
        boris = enrolled(mid, "boris")
        second = mid.directory.witness.own_head(mid.agency, NOW)
        assert (second.serial, second.prev, second.count) == (2, first.id, 2)
        mid.directory.people.revoke([DeviceKey(boris.device.public)])
        third = mid.directory.witness.own_head(mid.agency, NOW)
        assert (third.serial, third.count, third.root) == (3, 1, first.root)
        look(east, mid, "anna")
        assert east.directory.witness.latest(mid.agency.id) == third

    def test_nobody_is_accused(self, houses: list[House]) -> None:
        """Two peers who saw other states of one directory agree once what lies between is there."""
        mid, east, west = houses
        for number, asker in enumerate((east, west, east, west, west)):
            enrolled(mid, f"user{number}")
            look(asker, mid, f"user{number}")
        for _ in range(2):
            for asker, other in ((east, west), (west, east), (east, mid), (west, mid)):
                assert not compare(asker, other)
        assert east.directory.witness.reach(mid.agency.id)[1] == 5
        assert not east.directory.witness.proofs()

    def test_a_restored_one_does_not_accuse_itself(
        self, houses: list[House], tmp_path: Path
    ) -> None:
        """Its backup is from after a change of users and before that was signed (case 79)."""
        mid, east, _ = houses
        enrolled(mid, "anna")
        mid.directory.own_head(NOW)
        enrolled(mid, "boris")
        mid.connection.execute("VACUUM INTO ?", (str(tmp_path / "again"),))
        look(east, mid, "boris")
        again = House(mid.agency, tmp_path / "again")
        asked = east.directory.witness.question(mid.agency.id)
        said = again.ask(PeerKind.NODE, east.agency.id, asked, NOW + 99)
        assert said == Witnessed((), ())
        assert not compare(again, east)
        assert again.directory.own_head(NOW + 99) == mid.directory.own_head(NOW + 99)
        enrolled(again, "clara")
        again.directory.own_head(NOW + 99)
        assert not compare(east, again)
        assert east.directory.witness.reach(mid.agency.id) == (3, 3)

    def test_a_user_is_shown_in_their_place(self, houses: list[House]) -> None:
        mid, east, _ = houses
        for number in range(7):
            enrolled(mid, f"user{number}")
        for number in range(7):
            look(east, mid, f"user{number}")
            assert known(east, f"user{number}")

    def test_comparing_costs_agencies_and_not_heads(self, houses: list[House]) -> None:
        """The newest head of each is found without a look at those before it."""
        connection, witness = houses[0].connection, houses[0].directory.witness
        agencies = [AgencyId(bytes([number]) * 32) for number in (7, 3, 5)]
        for agency in agencies:
            connection.executemany(
                "INSERT INTO directories VALUES (?, ?, ?, ?)",
                [(agency, serial, serial.to_bytes(32), b"head") for serial in range(1000)],
            )
        steps = itertools.count()
        connection.set_progress_handler(lambda: next(steps) < 0, 10)
        seen = witness.seen()
        connection.set_progress_handler(None)
        assert next(steps) < 100
        assert seen == tuple(Seen(agency, 999, (999).to_bytes(32)) for agency in sorted(agencies))
        asked = Asked(
            (Seen(agencies[0], 998, bytes(32)), Seen(agencies[1], 10**6, bytes(32))), (), None
        )
        assert witness.compared(asked, b"").heads == (b"head",)

    def test_who_has_the_same_head_is_told_a_newer_one(self, houses: list[House]) -> None:
        """Regression: who knew the head that was asked with told nothing of those after it."""
        mid, east, _ = houses
        heads = []
        for name in ("anna", "boris", "carl"):
            enrolled(mid, name)
            heads.append(mid.directory.own_head(NOW))
            assert east.directory.witness.agrees(heads[-1].raw)
        asked = Asked((Seen(mid.agency.id, 1, heads[0].id),), (), None)
        assert east.directory.witness.compared(asked, b"").heads == (heads[-1].raw,)

    def test_who_asks_may_show_a_new_head_of_its_own(self, houses: list[House]) -> None:
        """A lost node learns of it again from those whom it had shown it to."""
        mid, east, west = houses
        enrolled(mid, "anna")
        head = mid.directory.own_head(NOW)
        news = mid.directory.witness.news(mid.agency.id)
        assert news is not None
        assert east.ask(PeerKind.NODE, mid.agency.id, news) == Witnessed((), ())
        assert east.directory.witness.latest(mid.agency.id) == head
        assert west.ask(PeerKind.NODE, east.agency.id, news) == Witnessed((), ())
        assert west.directory.witness.latest(mid.agency.id) is None, "of a third one"

    def test_who_asks_is_told_of_itself_first(self, houses: list[House]) -> None:
        """Regression: of more agencies than an answer holds, its own could be cut off."""
        connection, witness = houses[0].connection, houses[0].directory.witness
        agencies = [AgencyId(number.to_bytes(32)) for number in range(HEADS_SHOWN_MAX + 1)]
        connection.executemany(
            "INSERT INTO directories VALUES (?, 2, ?, ?)",
            [(agency, agency, agency) for agency in agencies],
        )
        asked = Asked(tuple(Seen(agency, 1, bytes(32)) for agency in agencies), (), None)
        assert witness.compared(asked, agencies[0]).heads == tuple(agencies[:-1])
        assert witness.compared(asked, agencies[-1]).heads == (agencies[-1], *agencies[:-2])


class TestMalicious:
    def test_two_heads_of_one_number_become_a_proof(self, houses: list[House]) -> None:
        mid, east, west = houses
        enrolled(mid, "anna")
        look(east, mid, "anna")
        other = forged(mid, None, b"another directory")
        assert west.directory.witness.agrees(other.raw)
        assert compare(east, west)
        (proof,) = east.directory.witness.proofs()
        split = verify_split(proof)
        assert (split.agency, split.serial) == (mid.agency.id, 1)

    def test_what_lies_between_is_asked_for(self, houses: list[House]) -> None:
        """Different numbers do not hide it: the later head must follow from the earlier."""
        mid, east, west = houses
        one, other = forged(mid, None, b"one"), forged(mid, None, b"other")
        assert east.directory.witness.agrees(one.raw)
        for head in (other, forged(mid, other, b"a"), forged(mid, forged(mid, other, b"a"), b"b")):
            assert west.directory.witness.agrees(head.raw)
        assert compare(east, west)
        assert east.directory.witness.proofs()

    def test_a_proof_reaches_those_who_saw_nothing(self, houses: list[House]) -> None:
        mid, east, west = houses
        east.directory.witness.agrees(forged(mid, None, b"one").raw)
        east.directory.witness.agrees(forged(mid, None, b"other").raw)
        assert compare(west, east)
        assert west.directory.witness.proofs() == east.directory.witness.proofs()
        assert not compare(west, east)

    def test_who_was_caught_is_not_believed(self, houses: list[House]) -> None:
        mid, east, _ = houses
        enrolled(mid, "anna")
        look(east, mid, "anna")
        east.directory.witness.agrees(forged(mid, None, b"other").raw)
        enrolled(mid, "boris")
        with pytest.raises(Untrusted, match="different directories"):
            look(east, mid, "boris")
        assert known(east, "anna")
        assert not known(east, "boris")

    def test_proofs_without_end_hide_no_other(self, houses: list[House]) -> None:
        """An agency that makes keys, and proofs against them, fills nobody's table."""
        mid, east, west = houses
        first, second = sorted((mid, west), key=lambda house: house.agency.id)
        root = agencies.open_root(first.agency.folder / agencies.ROOT_FILE, b"r")
        now = first.agency.card.charter
        for number in reversed(range(SPLITS_MAX + 1)):
            key = signer()
            charter = verify_charter(
                sign_charter(root, number, now.name, now.zone, key.public, now.archive)
            )
            east.directory.witness.agrees(sign_head(key, charter, None, [b"leaf"], 1).raw)
        for leaf in (b"one", b"other"):
            east.directory.witness.agrees(forged(second, None, leaf).raw)
        proofs = [verify_split(raw) for raw in east.directory.witness.proofs()]
        assert [split.agency for split in proofs[:2]] == [first.agency.id, second.agency.id]
        assert len(proofs) == SPLITS_AGENCY_MAX + 1
        for registrar in (first.agency.registrar, signer()):
            assert east.directory.witness.split(first.agency.id, registrar.public)
        assert east.directory.witness.split(second.agency.id, signer().public) is None

    def test_heads_without_end_fill_no_table(
        self, houses: list[House], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The newest are kept, however they are numbered; what contradicts is in a proof."""
        monkeypatch.setattr("node.witness.HEADS_KEPT_MAX", 8)
        mid, east, west = houses
        other = forged(west, None, b"west")
        assert east.directory.witness.agrees(other.raw)
        head = forged(mid, None, b"mid")
        numbers = [0]
        for _ in range(HEADS_SHOWN_MAX + 8):
            head = forged(mid, replace(head, serial=head.serial + 6), b"mid")
            numbers.append(head.serial)
            assert east.directory.witness.agrees(head.raw)
        assert not east.directory.witness.agrees(
            forged(mid, replace(head, serial=head.serial - 1), b"other").raw
        )
        rows = east.connection.execute(
            "SELECT serial FROM directories WHERE agency != ?", (west.agency.id,)
        )
        assert [row[0] for row in rows] == numbers[-HEADS_SHOWN_MAX - 8 :]
        head = forged(mid, replace(head, serial=head.serial + 6), b"mid")
        assert east.directory.witness.agrees(head.raw)
        rows = east.connection.execute(
            "SELECT serial FROM directories WHERE agency = ?", (mid.agency.id,)
        )
        assert [row[0] for row in rows] == [*numbers[-7:], head.serial]
        assert east.directory.witness.latest(west.agency.id) == other
        assert len(east.directory.witness.proofs()) == 1

    def test_nor_does_who_shows_its_own_push_out_what_others_saw(
        self, houses: list[House], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else others might never be asked about what was shown before."""
        monkeypatch.setattr("node.directory.HEADS_NEWS_MAX", 2)
        mid, east, _ = houses
        head: Head | None = None
        for _ in range(4):
            head = forged(mid, head, b"mid")
            east.ask(PeerKind.NODE, mid.agency.id, Asked((), (), head.raw))
        assert east.directory.witness.reach(mid.agency.id) == (2, 2)
        east.ask(PeerKind.NODE, mid.agency.id, Asked((), (), east.directory.own_head(NOW).raw))
        east.directory.shown.clear()
        assert head is not None
        east.ask(PeerKind.NODE, mid.agency.id, Asked((), (), head.raw))
        assert east.directory.witness.latest(mid.agency.id) == head

    def test_a_look_up_is_answered_from_one_directory(self, houses: list[House]) -> None:
        """An agency could bring in a head with each of 64 users."""
        mid, east, _ = houses
        shown = []
        for name in ("anna", "boris"):
            enrolled(mid, name)
            person = mid.directory.people.by_name(f"{name}@mid")
            assert person is not None
            shown.append(mid.directory._listed(person, NOW))
        body = encode_answer(People(tuple(shown)))
        with pytest.raises(Untrusted, match="several states"):
            east.directory.remember(mid.agency.id, Answer(1, 0, body))
        assert not known(east, "anna")

    def test_comparing_verifies_no_cards(
        self, houses: list[House], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whose heads are kept is asked at each visit of each device; there may be thousands."""
        monkeypatch.setattr("node.trust.verify_card", None)
        head = forged(houses[0], None, b"1")
        houses[1].directory.witnessed(Witnessed((head.raw,), ()))
        assert houses[1].directory.witness.latest(head.agency) == head

    def test_of_each_agency_one_head_is_compared(self, houses: list[House]) -> None:
        mid, east, _ = houses
        head = forged(mid, None, b"1")
        made = [head, *(forged(mid, replace(head, serial=at), b"2") for at in range(4, 40, 3))]
        east.directory.witnessed(Witnessed(tuple(one.raw for one in made), ()))
        assert east.connection.execute("SELECT count(*) FROM directories").get == 1

    def test_an_older_directory_is_not_taken(self, houses: list[House]) -> None:
        """To freeze one peer is to show it what is older than what another was shown."""
        mid, east, _ = houses
        enrolled(mid, "anna")
        head = mid.directory.witness.own_head(mid.agency, NOW)
        east.directory.witness.agrees(forged(mid, head, b"newer").raw)
        with pytest.raises(Untrusted, match="to others"):
            look(east, mid, "anna")

    def test_who_is_not_listed_is_not_taken(self, houses: list[House]) -> None:
        """A ghost that is shown to one would have to stand in the directory of all."""
        mid, east, _ = houses
        enrolled(mid, "anna")
        shown = mid.directory.witness.own_head(mid.agency, NOW)
        enrolled(mid, "ghost")
        ghost = mid.directory.people.by_name("ghost@mid")
        assert ghost is not None
        for listing in (None, Listing(shown.raw, 0, ()), Listing(shown.raw, 1, (shown.root,))):
            answer = encode_answer(People((replace(ghost, listing=listing),)))
            with pytest.raises(Untrusted, match="directory"):
                east.directory.remember(mid.agency.id, Answer(1, 0, answer))
        assert not known(east, "ghost")

    def test_strangers_are_not_kept(self, houses: list[House]) -> None:
        _, east, west = houses
        stranger = House(west.agency, Path(str(west.agency.folder)) / "stranger.db")
        head = forged(stranger, None, b"x")
        east.connection.execute("DELETE FROM cards WHERE id = ?", (west.agency.id,))
        assert not east.directory.witnessed(Witnessed((head.raw,), ()))
        assert east.directory.witness.latest(west.agency.id) is None
        stranger.connection.close()

    def test_forgeries_are_refused(self, houses: list[House]) -> None:
        mid, east, west = houses
        head = forged(mid, None, b"x")
        fake = sign_head(west.agency.registrar, west.agency.card.charter, None, [b"x"], 1)
        with pytest.raises(PeerError):
            verify_head(head.raw[:-1] + bytes([head.raw[-1] ^ 1]))
        with pytest.raises(Unauthentic):
            sign_head(west.agency.registrar, mid.agency.card.charter, None, [b"x"], 1)
        assert contradiction(head, fake) is None
        assert contradiction(head, forged(mid, head, b"y")) is None
        split = contradiction(head, forged(mid, None, b"y"))
        assert split is not None
        for at in range(0, len(split.raw), 7):
            altered = split.raw[:at] + bytes([split.raw[at] ^ 1]) + split.raw[at + 1 :]
            with pytest.raises(PeerError):
                east.directory.witnessed(Witnessed((), (altered,)))
        assert not east.directory.witness.proofs()


class TestCharters:
    """SPEC 5.2 and 7.5: which charter of an agency its directory and its card may bring."""

    def test_another_archive_key_needs_a_person(self, houses: list[House]) -> None:
        """It is half of the fingerprint that the operators have compared."""
        mid, east, _ = houses
        card, charter = mid.agency.card, mid.agency.card.charter
        root = agencies.open_root(mid.agency.folder / agencies.ROOT_FILE, b"r")
        other = sign_charter(
            root, charter.serial + 1, charter.name, charter.zone, charter.registrar, b"a" * 32
        )
        raw = sign_card(root, other, card.ca, card.nodes, 2)
        with pytest.raises(IdentityError, match="archive key"):
            east.directory.trust.renew(raw, allow_local=False)

    def test_a_stolen_key_that_was_replaced_accuses_itself(self, houses: list[House]) -> None:
        """Its thief signs, beside a head of the present key, another one of its number."""
        mid, east, _ = houses
        enrolled(mid, "anna")
        look(east, mid, "anna")
        root = agencies.open_root(mid.agency.folder / agencies.ROOT_FILE, b"r")
        stolen, now = signer(), mid.agency.card.charter
        before = verify_charter(
            sign_charter(root, now.serial - 1, now.name, now.zone, stolen.public, now.archive)
        )
        for issued in range(8):  # of one the id is smaller than that of the honest head
            head = sign_head(stolen, before, None, [b"x"], issued)
            assert not east.directory.witness.agrees(head.raw)
        assert east.directory.witness.split(mid.agency.id, stolen.public)
        assert east.directory.witness.split(mid.agency.id, now.registrar) is None
        enrolled(mid, "boris")
        look(east, mid, "boris")
        assert known(east, "boris")

    def test_the_head_of_a_replaced_registrar(self, houses: list[House]) -> None:
        """Who held the registrar's key before signs no directory now."""
        mid, east, _ = houses
        enrolled(mid, "anna")
        person = mid.directory.people.by_name("anna@mid")
        assert person is not None
        root = agencies.open_root(mid.agency.folder / agencies.ROOT_FILE, b"r")
        old, now = Signer(b"o" * 32), mid.agency.card.charter
        before = sign_charter(root, now.serial - 1, now.name, now.zone, old.public, now.archive)
        leaf = leaf_of(verify_person(person).user)
        head = sign_head(old, verify_charter(before), None, [leaf], 1)
        shown = replace(person, listing=Listing(head.raw, 0, ()))
        answer = Answer(1, 0, encode_answer(People((shown,))))
        with pytest.raises(Untrusted, match="newer card replaced"):
            east.directory.remember(mid.agency.id, answer)
