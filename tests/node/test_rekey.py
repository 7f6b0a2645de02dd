"""Another registrar key for an agency, and what was certified with the one before (SPEC 5.2)."""

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency, Founding, open_agency, open_root, rekey
from node.errors import IdentityError
from node.schema import SCHEMA
from node.witness import Witness
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import (
    Card,
    recertify_device,
    recertify_user,
    sign_charter,
    verify_charter,
    verify_user,
)
from protocol.limits import SEQ_MAX
from protocol.listing import Head, sign_head
from protocol.person import verify_person
from protocol.testing import cast
from tests.node.house import NOW, House, draw, enrolled
from tests.node.test_witness import known, look

PASSPHRASE, ROOT_PASSPHRASE = b"p", b"r"


@pytest.fixture
def mid(tmp_path: Path) -> Iterator[House]:
    founding = Founding("mid", "RU-UDM", ("mid.example:7340",), {})
    made = agencies.create(tmp_path / "mid", founding, PASSPHRASE, ROOT_PASSPHRASE, NOW, draw)
    house = House(made, tmp_path / "mid.db")
    yield house
    house.connection.close()


@pytest.fixture
def east(tmp_path: Path, mid: House) -> Iterator[House]:
    founding = Founding("east", "RU-UDM", ("east.example:7340",), {})
    made = agencies.create(tmp_path / "east", founding, PASSPHRASE, ROOT_PASSPHRASE, NOW, draw)
    house = House(made, tmp_path / "east.db")
    house.directory.accept_card(mid.agency.card.raw, allow_local=False)
    yield house
    house.connection.close()


def rekeyed(agency: Agency) -> Card:
    root = open_root(agency.folder / agencies.ROOT_FILE, ROOT_PASSPHRASE)
    return rekey(agency.folder, PASSPHRASE, root, NOW + 1, draw)


@pytest.fixture
def after(mid: House, tmp_path: Path) -> Iterator[House]:
    """The directory of mid, in which anna was enrolled, with another registrar key."""
    anna = enrolled(mid, "anna")
    enrolled(mid, "boris")
    mid.directory.people.revoke([DeviceKey(anna.device.public)])
    enrolled(mid, "anna2")
    rekeyed(mid.agency)
    house = House(open_agency(mid.agency.folder, PASSPHRASE), tmp_path / "mid.db")
    yield house
    house.connection.close()


class TestTakeOver:
    def test_everybody_is_certified_anew_once(self, mid: House, after: House) -> None:
        before = mid.directory.people.by_name("boris@mid")
        assert after.directory.registrar.take_over() == 3
        found = after.directory.people.by_name("boris@mid")
        assert before is not None
        assert found is not None
        assert verify_charter(found.charter).registrar == after.agency.registrar.public
        assert verify_person(found).user == verify_person(before).user
        assert after.directory.registrar.take_over() == 0
        assert after.directory.people.by_name("boris@mid") == found

    def test_a_new_head_follows_the_one_before(self, mid: House, after: House) -> None:
        last = mid.directory.own_head(NOW)
        after.directory.registrar.take_over()
        head = after.directory.own_head(NOW)
        assert (head.prev, head.serial, head.root) == (last.id, last.serial + 1, last.root)
        assert head.charter.registrar == after.agency.registrar.public

    def test_what_users_and_devices_signed_stays(self, mid: House, after: House) -> None:
        """A certificate with another body would be refused by the user's own signature."""
        person = mid.directory.people.by_name("boris@mid")
        assert person is not None
        key, charter = after.agency.registrar, after.agency.card.charter
        renewed = recertify_user(key, person.certificate)
        assert (
            verify_user(renewed, charter).user
            == verify_user(person.certificate, mid.agency.card.charter).user
        )
        with pytest.raises(Untrusted):
            verify_user(person.certificate, charter)
        device = person.devices[0].certificate
        assert recertify_device(mid.agency.registrar, recertify_device(key, device)) == device


class TestPeers:
    def test_who_showed_two_directories_is_believed_again(
        self, mid: House, east: House, after: House
    ) -> None:
        """Such as an agency that was restored from an old backup, and enrolled before it met us."""
        look(east, mid, "boris")
        before = mid.agency.registrar
        other = sign_head(before, mid.agency.card.charter, None, [b"other"], 1)
        east.directory.witness.agrees(other.raw)
        enrolled(mid, "dina")
        with pytest.raises(Untrusted, match="different directories"):
            look(east, mid, "dina")
        after.directory.registrar.take_over()
        east.directory.trust.renew(after.agency.card.raw, allow_local=False)
        look(east, after, "dina")
        assert known(east, "dina")

    def test_the_key_that_was_replaced_vouches_for_nobody(
        self, mid: House, east: House, after: House
    ) -> None:
        east.directory.trust.renew(after.agency.card.raw, allow_local=False)
        enrolled(mid, "ghost")
        with pytest.raises(Untrusted, match="newer card replaced"):
            look(east, mid, "ghost")
        with pytest.raises(IdentityError, match="an old card"):
            east.directory.trust.renew(mid.agency.card.raw, allow_local=False)

    @pytest.mark.parametrize("serial", [2, SEQ_MAX])
    def test_what_its_thief_has_signed_is_in_nobodys_way(
        self, mid: House, east: House, after: House, serial: int
    ) -> None:
        """Regression: a head of the highest number, by the old key, was the newest for good."""
        look(east, mid, "boris")
        last = dataclasses.replace(mid.directory.own_head(NOW), serial=serial - 1)
        stolen = sign_head(mid.agency.registrar, mid.agency.card.charter, last, [b"ghost"], 1)
        assert east.directory.witness.agrees(stolen.raw)
        if serial == SEQ_MAX:  # east has told mid of it
            after.directory.witness.agrees(stolen.raw)
        after.directory.registrar.take_over()
        east.directory.trust.renew(after.agency.card.raw, allow_local=False)
        for name in ("dina", "egor"):
            enrolled(after, name)
            look(east, after, name)
            assert known(east, name)
            for house in (east, after):
                assert not house.directory.witness.agrees(stolen.raw)
                newest = house.directory.witness.latest(mid.agency.id)
                assert newest == after.directory.own_head(NOW)
        new = after.agency.registrar.public
        assert east.directory.witness.split(mid.agency.id, new) is None

    def test_what_the_old_key_has_signed_before_is_kept(
        self, mid: House, east: House, after: House
    ) -> None:
        """In whatever order heads come: those before the first of the new key hide nothing."""
        heads = [mid.directory.own_head(NOW)]
        for name in ("dina", "egor"):
            enrolled(mid, name)
            heads.append(mid.directory.own_head(NOW))
        after.directory.registrar.take_over()
        heads.append(after.directory.own_head(NOW))
        assert [one.serial for one in heads] == [1, 2, 3, 4]
        for head in (heads[3], heads[0], heads[2], heads[1]):
            assert east.directory.witness.agrees(head.raw)
        assert east.directory.witness.reach(mid.agency.id) == (4, 4)


@st.composite
def reigns(draw: st.DrawFn) -> tuple[list[Head], list[Head]]:
    """Heads of three registrar keys, in the order in which they come, and those that count.

    Each key but the last goes on, as that of a thief may, after the next has begun.
    """
    home, heads, counted = cast.agency("mid"), list[Head](), list[Head]()
    for number in range(1, 4):
        key = Signer(cast.seed("mid", str(number)))
        raw = sign_charter(home.root, number, home.name, home.zone, key.public, b"a" * 32)
        head, charter = counted[-1] if counted else None, verify_charter(raw)
        honest = draw(st.integers(1, 4))
        for at in range(honest + draw(st.integers(0, 4)) * (number < 3)):
            head = sign_head(key, charter, head, [b"%d" % at], number)
            heads.append(head)
            counted += [head] if at < honest else []
    return draw(st.permutations(heads)), counted


@given(reigns())
def test_where_a_key_begins_those_end_that_it_replaced(
    reign: tuple[list[Head], list[Head]],
) -> None:
    """SPEC 7.5: whatever these claim, in whatever order heads come; none blames the last key."""
    heads, counted = reign
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(SCHEMA)
        witness = Witness(connection)
        for head in heads:
            witness.agrees(head.raw)
        assert witness.after(heads[0].agency, 0) == tuple(head.raw for head in counted)
        assert witness.latest(heads[0].agency) == counted[-1]
        assert witness.split(heads[0].agency, counted[-1].charter.registrar) is None


class TestFolder:
    def test_all_else_stays(self, mid: House) -> None:
        card = rekeyed(mid.agency)
        found = open_agency(mid.agency.folder, PASSPHRASE)
        assert found.card == card
        assert card.charter.fingerprint == mid.agency.card.charter.fingerprint
        assert found.registrar.public != mid.agency.registrar.public
        same = dataclasses.replace(found, card=mid.agency.card, registrar=mid.agency.registrar)
        assert (same.node.seed, same.archive.seed, same.ca_key) == (
            mid.agency.node.seed,
            mid.agency.archive.seed,
            mid.agency.ca_key,
        )

    @pytest.mark.parametrize("lost", [agencies.CARD_FILE, agencies.SERVICE_FILE])
    def test_what_was_interrupted_is_mended_by_the_same_again(self, mid: House, lost: str) -> None:
        file = mid.agency.folder / lost
        before = file.read_text()
        first = rekeyed(mid.agency)
        file.write_text(before)
        with pytest.raises(agencies.FolderRefused, match="rekey' again"):
            open_agency(mid.agency.folder, PASSPHRASE)
        second = rekeyed(mid.agency)
        assert open_agency(mid.agency.folder, PASSPHRASE).card == second
        assert second.charter.registrar != first.charter.registrar

    def test_another_root_key_changes_nothing(self, mid: House, east: House) -> None:
        root = open_root(east.agency.folder / agencies.ROOT_FILE, ROOT_PASSPHRASE)
        with pytest.raises(agencies.KeyUnavailable, match="not the one of mid"):
            rekey(mid.agency.folder, PASSPHRASE, root, NOW, draw)
        assert open_agency(mid.agency.folder, PASSPHRASE).card == mid.agency.card
