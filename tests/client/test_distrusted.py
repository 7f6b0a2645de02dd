"""SPEC 5.2: an agency that is trusted no longer, at the node and at its users' devices."""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from client import people
from client.device import Device
from client.exchange import visit
from client.federated import trusted
from crypto import certificate as x509
from crypto.signing import Signer
from node.database import connect
from node.errors import IdentityError, UserError
from node.trust import Trust
from protocol import identity
from protocol.armour import armour
from protocol.identity import AgencyId
from protocol.reply import Cards
from tests.federation import now
from tests.hostile.federation import eventually
from tests.realm import Realm

NAMES = ("mvd", "minfin", "minjust")
SERIALS = (1, 2, 3)


@pytest.fixture(scope="module")
def cards() -> Mapping[tuple[str, int], bytes]:
    """Three cards of each of three agencies."""
    made = {}
    for name in NAMES:
        root = Signer(name.encode().ljust(32))
        ca = x509.authority(x509.make_key(), root.public.hex(), now() / 1000, 3652, 5)
        der = ssl.PEM_cert_to_DER_cert(ca.decode())
        for serial in SERIALS:
            charter = identity.sign_charter(root, serial, name, "RU", root.public, bytes(32))
            made[name, serial] = identity.sign_card(root, charter, der, (), serial)
    return made


def take_all(device: Device, trust: Trust) -> None:
    """Ask for cards until there are no more, as `client.link` does."""
    for _ in range(100):
        told = trust.told(people.cards_seen(device))
        assert isinstance(told, Cards)
        with device.transaction():
            assert people.keep_cards(device, told) == []
        if not told.cards:
            return
    raise AssertionError("the cards never end")


STEPS = st.one_of(
    st.tuples(st.just("trust"), st.sampled_from(NAMES), st.sampled_from(SERIALS)),
    st.tuples(st.sampled_from(("renew", "withdraw", "visit")), st.sampled_from(NAMES), st.just(3)),
)


class Agencies:
    """What operators decide on a node, and what its trust has to be after that."""

    def __init__(self, trust: Trust, cards: Mapping[tuple[str, int], bytes]) -> None:
        self._trust = trust
        self._cards = cards
        self._known: dict[str, int] = {}
        self._believed: set[str] = set()

    def expected(self) -> set[bytes]:
        return {self._cards[name, self._known[name]] for name in self._believed}

    def decide(self, what: str, name: str, serial: int) -> None:
        card = self._cards[name, serial]
        is_old, is_strange = serial < self._known.get(name, 0), name not in self._believed
        if what == "withdraw":
            with pytest.raises(UserError) if is_strange else nullcontext():
                self._trust.withdraw(name)
            self._believed.discard(name)
        elif is_old or (what == "renew" and is_strange):
            with pytest.raises(IdentityError):
                self._take(what, card)
        else:
            self._take(what, card)
            self._known[name] = serial
            self._believed.add(name)

    def _take(self, what: str, card: bytes) -> None:
        if what == "renew":
            self._trust.renew(card, allow_local=False)
        else:
            self._trust.accept(self._trust.examine(card, allow_local=False))


def test_devices_trust_whom_their_node_trusts(
    anna: Device,
    cards: Mapping[tuple[str, int], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever operators decide, in whichever order, and whenever a device comes by."""
    monkeypatch.setattr("node.trust.CARDS_MAX", 1)
    connection = connect(tmp_path / "node.db", None)
    trust, own = Trust(connection, anna.profile.card), anna.profile.charter.agency

    @given(st.lists(STEPS, max_size=12))
    @example([("trust", "mvd", 2), ("visit", "mvd", 3), ("withdraw", "mvd", 3)])
    @example([("trust", "mvd", 2), ("withdraw", "mvd", 3), ("trust", "mvd", 1)])
    @example([("trust", "mvd", 2), ("withdraw", "mvd", 3), ("renew", "mvd", 3)])
    def check(steps: Sequence[tuple[str, str, int]]) -> None:
        agencies = Agencies(trust, cards)
        for one in (connection, anna.connection):
            one.execute("DELETE FROM cards WHERE id != ?", (own,))
        anna.connection.execute("DELETE FROM meta WHERE key = 'cards'")
        for what, name, serial in steps:
            if what == "visit":
                take_all(anna, trust)
            else:
                agencies.decide(what, name, serial)
        take_all(anna, trust)
        for one in (connection, anna.connection):
            rows = one.execute("SELECT card FROM agencies WHERE id != ?", (own,))
            assert {row[0] for row in rows} == agencies.expected()

    check()
    connection.close()


def test_a_node_that_is_taken_over_brings_no_other_key_by_withdrawing_one(
    anna: Device, cards: Mapping[tuple[str, int], bytes]
) -> None:
    """What a device has once known of an agency it holds against what comes later."""
    root = Signer(b"another".ljust(32))
    charter = identity.sign_charter(root, 9, "mvd", "RU", root.public, bytes(32))
    theirs = identity.sign_card(root, charter, identity.verify_card(cards["mvd", 1]).ca, (), 9)
    mvd = identity.verify_card(cards["mvd", 2]).charter.agency
    with anna.transaction():
        assert people.keep_cards(anna, Cards(bytes(16), 2, (cards["mvd", 2], mvd))) == []
        assert not trusted(anna, mvd)
        (refused,) = people.keep_cards(anna, Cards(bytes(16), 3, (theirs,)))
        assert "another root key" in refused
        people.keep_cards(anna, Cards(bytes(16), 4, (cards["mvd", 1],)))
    assert trusted(anna, mvd)
    raw = anna.connection.execute("SELECT card FROM agencies WHERE id = ?", (mvd,)).get
    assert raw == cards["mvd", 2], "an older card replaced a newer one"


def test_nobody_is_told_that_their_own_agency_is_none(anna: Device) -> None:
    ours = anna.profile.charter.agency
    with anna.transaction():
        people.keep_card(anna, anna.profile.card.raw)
        assert people.keep_cards(anna, Cards(bytes(16), 1, (ours, bytes(32)))) == []
    assert trusted(anna, ours)


async def test_sessions_end_and_none_begins_until_it_is_trusted_again(realm: Realm) -> None:
    south = realm.founded.agencies["south"]
    async with realm.running("north", "south"), realm.online("anna") as (anna, link):
        node = realm.nodes["north"]

        async def meet() -> bool:
            return bool(node.hub.of(south.id))

        async def apart() -> bool:
            return not node.hub.of(south.id)

        def knows(agency: AgencyId) -> bool:
            return trusted(anna, agency)

        await eventually(meet, "the nodes meet")
        await visit(anna, link, 5)
        assert await link.journal.read(lambda: knows(south.id))
        told = await node._operate("distrust", {"agency": "South"})
        assert (told["agency"], told["chats"]) == ("south", 1)
        await eventually(apart, "the session ends")
        with structlog.testing.capture_logs() as logs:

            async def refused() -> bool:
                return any(one["event"] == "connection refused" for one in logs)

            await eventually(refused, "south dials in vain")
        assert await apart()
        assert await link.look_up(["clara@east"])
        await link.refresh()
        assert not await link.journal.read(lambda: knows(south.id))
        with pytest.raises(UserError, match="not federated with any called south"):
            await link.look_up(["boris@south"])
        with pytest.raises(UserError, match="no agency south is trusted here"):
            await node._operate("distrust", {"agency": "south"})
        card = armour("CARD", south.card.raw)
        fingerprint = south.card.charter.fingerprint
        seen = await node._operate("examine", {"card": card})
        assert (seen["standing"], seen["changes"]) == ("distrusted", [])
        await node._operate("trust", {"card": card, "fingerprint": fingerprint})
        await eventually(meet, "they meet again")
        await visit(anna, link, 5)
        assert await link.journal.read(lambda: knows(south.id))
