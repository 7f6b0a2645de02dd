"""SPEC 4.5, 10: how long keys live, under a clock of the test; and that erased ones are gone."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from client import compose, device, enrol, epochs
from client.device import Device
from client.epochs import start_epoch
from client.erasure import empty_log, erase_prekeys
from client.folder import DATABASE_FILE
from node.database import connect
from protocol import epoch
from protocol.chat import Chat
from protocol.entry import ChatId, EntryId
from protocol.history import History
from protocol.identity import sign_prekey, verify_prekey
from protocol.limits import (
    EPOCH_MESSAGES_MAX,
    EPOCH_RENEW_SECONDS,
    PREKEY_ERASE_SECONDS,
    PREKEY_RENEW_SECONDS,
)
from protocol.message import Text
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.federation import Federation, now

DAY = 24 * 3600 * 1000


@pytest.fixture
def open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices' databases are not encrypted, so that a test can look for a key in the bytes."""

    def plain(path: Path, _key: bytes | None) -> apsw.Connection:
        return connect(path, None)

    for module in (device, enrol):
        monkeypatch.setattr(module, "connect", plain)


def on_disk(owner: Device) -> bytes:
    """All bytes of the database and its write-ahead log."""
    path = owner.folder / DATABASE_FILE
    return path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()


def prekeys(owner: Device) -> list[tuple[bytes, int]]:
    return [
        (bytes(private), int(issued))
        for private, issued in owner.connection.execute(
            "SELECT private, issued FROM prekeys ORDER BY issued"
        )
    ]


def chain_keys(owner: Device) -> Iterator[bytes]:
    for (chain,) in owner.connection.execute("SELECT chain FROM senders"):
        yield bytes(chain)


class TestPrekeys:
    def test_renewed_after_seven_days_and_not_before(self, anna: Device) -> None:
        ((_, issued),) = prekeys(anna)
        renewal = issued + PREKEY_RENEW_SECONDS * 1000
        with anna.transaction():
            before = verify_prekey(epochs.own_prekey(anna, renewal - 1))
            after = verify_prekey(epochs.own_prekey(anna, renewal))
        assert (before.issued, after.issued) == (issued, renewal)
        assert [one for _, one in prekeys(anna)] == [issued, renewal]

    def test_an_idle_device_erases_on_the_fourteenth_day(self, anna: Device) -> None:
        ((_, issued),) = prekeys(anna)
        end = issued + PREKEY_ERASE_SECONDS * 1000
        assert erase_prekeys(anna, end - 1) == 0
        assert prekeys(anna)
        assert erase_prekeys(anna, end) == 1
        assert not prekeys(anna)

    def test_one_that_a_wrong_clock_dated_ahead_lives_no_longer(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        ahead = now() + 365 * DAY
        with boris.transaction():
            epochs.make_prekey(boris, ahead)
            chat = compose.new_chat(
                boris,
                ChatKind.GROUP,
                "",
                Policy((federation.zone,), 0, HistoryRule.FROM_JOIN),
                [(anna.profile.user.user, Role.MEMBER)],
                ahead,
            )
        federation.carry(boris, anna)
        with boris.transaction():
            made = epochs.own_prekey(boris, now())
            assert epochs.own_prekey(boris, now()) == made
        anna.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (made, boris.key))
        sealed_to = epochs.prekey_of(anna, compose.require(anna, chat), boris.key, now())
        assert sealed_to == verify_prekey(made)
        erase_prekeys(boris, now() + PREKEY_ERASE_SECONDS * 1000)
        assert not prekeys(boris)

    def test_nobody_seals_to_a_prekey_that_its_owner_has_erased(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        late = now() + 15 * DAY
        with anna.transaction():
            epoch = epochs.start_epoch(anna, judge(anna, chat), late)
        entry = judge(anna, chat).history.epoch(epoch)
        assert entry is not None
        assert boris.key in entry.operation.skipped

    @pytest.mark.usefixtures("open_files")
    def test_what_is_erased_is_gone_from_the_files(self, federation: Federation) -> None:
        anna = federation.official("anna@minzdrav")
        ((private, issued),) = prekeys(anna)
        assert private in on_disk(anna)
        with anna.transaction():
            epochs.make_prekey(anna, issued + PREKEY_RENEW_SECONDS * 1000)
        erase_prekeys(anna, issued + PREKEY_ERASE_SECONDS * 1000)
        assert empty_log(anna)
        assert private not in on_disk(anna)
        ((fresh, _),) = prekeys(anna)
        assert fresh in on_disk(anna)


def judge(owner: Device, chat: ChatId) -> Chat:
    found = owner.replica.chat(chat)
    assert found is not None
    return found


@pytest.mark.parametrize("mlkem", [b"\xff", b"\x00"])
def test_who_publishes_no_key_is_skipped_and_holds_nobody_up(
    federation: Federation, anna: Device, boris: Device, vera: Device, mlkem: bytes
) -> None:
    """A record that is signed may hold any 1,216 bytes; nobody can seal to these."""
    chat = federation.chat(anna, "", boris, vera)
    record = sign_prekey(boris.secrets.device, mlkem * 1184 + bytes(32), now())
    anna.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (record, boris.key))
    with anna.transaction():
        started = start_epoch(anna, compose.require(anna, chat), now())
    found = compose.require(anna, chat).history.epoch(started)
    assert found is not None
    assert found.operation.skipped == (boris.key,)
    federation.say(anna, chat, "hello")
    federation.carry(anna, vera)
    assert federation.texts(vera, chat) == ["hello"]
    with anna.transaction():
        compose.remove_member(anna, chat, vera.profile.user.user, now())


def write(owner: Device, chat: ChatId, when: int) -> EntryId | None:
    """Send a text; return the epoch that it was sealed in."""
    with owner.transaction():
        compose.send(owner, chat, Text("text", None), when, None)
    return owner.replica.last_epoch(chat, owner.key)


class TestEpochs:
    def test_many_that_cannot_be_used_are_looked_at_once(
        self, federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A member can start as many as they like, dated so that nobody uses them."""
        chat = federation.chat(anna, "", boris)
        with boris.transaction():
            for _ in range(40):
                start_epoch(boris, compose.require(boris, chat), 1)
        federation.carry(boris, anna)
        looked_at: list[EntryId] = []

        known = epoch.rank

        def rank(history: History, one: EntryId) -> tuple[int, int]:
            looked_at.append(one)
            return known(history, one)

        with monkeypatch.context() as patched:
            patched.setattr(epoch, "rank", rank)
            write(anna, chat, now())
        assert 40 <= len(looked_at) < 100

    def test_renewed_after_a_week(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        begun = now()
        first = write(anna, chat, begun)
        week = EPOCH_RENEW_SECONDS * 1000
        assert write(anna, chat, begun + week - DAY) == first
        second = write(anna, chat, begun + week)
        assert second != first
        assert write(anna, chat, begun + week + DAY) == second

    def test_renewed_after_a_thousand_messages(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        first = write(anna, chat, now())
        assert first is not None
        place = "UPDATE senders SET generation = ? WHERE epoch = ? AND device = ?"
        for generation, kept in ((EPOCH_MESSAGES_MAX - 1, True), (EPOCH_MESSAGES_MAX, False)):
            with anna.transaction():
                anna.connection.execute(place, (generation, first, anna.key))
                found = epochs.epoch_for(anna, judge(anna, chat), now())
            assert (found == first) == kept

    @pytest.mark.usefixtures("open_files")
    def test_used_chain_keys_are_gone_from_the_files(self, federation: Federation) -> None:
        """Forward secrecy per message: what a thief finds opens nothing that was read before."""
        anna = federation.official("anna@minzdrav")
        boris = federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        used: set[bytes] = set()
        for _ in range(5):
            write(anna, chat, now())
            federation.carry(anna, boris)
            for owner in (anna, boris):
                used |= set(chain_keys(owner))
        for owner in (anna, boris):
            current = set(chain_keys(owner))
            assert empty_log(owner)
            files = on_disk(owner)
            assert all(key in files for key in current)
            assert not [key for key in used - current if key in files]

    def test_a_reader_holds_the_log_back_until_the_next_time(self, anna: Device) -> None:
        other = connect(anna.folder / DATABASE_FILE, anna.secrets.database_key)
        with anna.transaction():
            epochs.make_prekey(anna, now())
        other.execute("BEGIN")
        reading = other.execute("SELECT * FROM prekeys").fetchone()
        assert reading
        assert not empty_log(anna)
        other.execute("COMMIT")
        assert empty_log(anna)
        other.close()
