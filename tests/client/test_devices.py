"""Further devices, lost devices, forking devices."""

import shutil
from pathlib import Path

import pytest

from client import archive, compose, keeping, mailbox, nacks
from client.audit import audit
from client.deciding import settle
from client.device import Device, open_device
from client.epochs import start_epoch
from client.folder import COUNT_FILE, DATABASE_FILE, count_of
from client.linking import History, bring_in, read_code
from client.mailbox import State
from client.outbox import Outbox
from client.revoking import exposed, revoke_exposed, revoke_given_up, revoke_own, still_in
from client.writing import append_control
from crypto.errors import SealRefused
from node.errors import IdentityError, NetworkError, RefusedError, UserError
from protocol import case, payload
from protocol.dag import bits
from protocol.entry import CONTENT, CONTROL, ChatId, EntryId, Reference
from protocol.epoch import NackReason
from protocol.errors import PeerError
from protocol.membership import Void, content_void
from protocol.message import Text
from protocol.operation import Leave, Revoke
from protocol.policy import Role
from tests.federation import PASSPHRASE, Federation, now


def link(federation: Federation, first: Device) -> Device:
    """A further device that is in every chat."""
    phone = federation.further(first)
    with first.transaction():
        assert bring_in(first, now()) == 1
        assert bring_in(first, now()) == 0
    return phone


class TestArchive:
    def test_history_arrives_before_or_after_its_entries(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        phone = link(federation, anna)
        parcels = federation.parcels(anna, phone)
        with phone.transaction():
            for parcel in parcels:
                archive.keep(phone, archive.unpack(phone, parcel))
            assert archive.take_up(phone) == 0
        federation.carry(anna, phone)
        assert federation.texts(phone, chat) == ["before"]
        assert phone.connection.execute("SELECT count(*) FROM disclosed").get == 0
        federation.say(phone, chat, "from the phone")
        federation.carry(phone, anna)
        assert federation.texts(anna, chat) == ["before", "from the phone"]

    def test_what_waits_for_a_seal_is_read_and_holds_up_nothing(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        phone = link(federation, anna)
        federation.say(anna, chat, "its seal is on the way")
        for lane in (CONTROL, CONTENT):
            federation.carry_lane(anna, phone, lane)
        assert mailbox.letters(phone, chat, 9)[-1].state is State.SEALED
        with phone.transaction():
            for parcel in federation.parcels(anna, phone):
                archive.keep(phone, archive.unpack(phone, parcel))
            archive.take_up(phone)
        assert federation.texts(phone, chat) == ["before", "its seal is on the way"]
        federation.say(anna, chat, "after")
        federation.carry(anna, phone)
        assert federation.texts(phone, chat)[-1] == "after"

    def test_what_is_redacted_while_it_waits_for_its_seal_is_not_taken(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        """The parcel was on its way when the message was redacted."""
        phone = link(federation, anna)
        place = federation.say(anna, chat, "redacted")
        parcels = federation.parcels(anna, phone)
        with anna.transaction():
            keeping.redact(anna, chat, place, "wrong", now())
        for lane in (CONTROL, CONTENT):
            federation.carry_lane(anna, phone, lane)
        assert mailbox.letters(phone, chat, 1)[0].state is State.SEALED
        with phone.transaction():
            for parcel in parcels:
                archive.keep(phone, archive.unpack(phone, parcel))
            archive.take_up(phone)
        assert federation.texts(phone, chat) == ["before"]
        federation.carry(anna, phone)
        assert federation.texts(phone, chat) == ["before"]

    def test_without_it_the_past_stays_closed(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        phone = link(federation, anna)
        federation.carry(anna, phone)
        assert federation.texts(phone, chat) == []

    def test_a_text_that_was_not_signed_is_not_taken(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        phone = link(federation, anna)
        anna.connection.execute("UPDATE mailbox SET plaintext = ?", (b"\x93\x00\xc4\x01x\xc0",))
        (parcel,) = federation.parcels(anna, phone)
        with phone.transaction():
            archive.keep(phone, archive.unpack(phone, parcel))
        federation.carry(anna, phone)
        assert federation.texts(phone, chat) == []

    @pytest.mark.usefixtures("chat")
    @pytest.mark.parametrize("at", [20, 400, 1500, 1800, -1])
    def test_any_altered_byte_is_refused(
        self, federation: Federation, anna: Device, at: int
    ) -> None:
        phone = link(federation, anna)
        (parcel,) = federation.parcels(anna, phone)
        altered = bytearray(parcel)
        altered[at] ^= 1
        with pytest.raises((PeerError, IdentityError)):
            archive.unpack(phone, bytes(altered))

    @pytest.mark.usefixtures("chat")
    def test_only_a_device_of_the_same_user_is_believed(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        phone = link(federation, anna)
        (parcel,) = federation.parcels(boris, phone)
        with pytest.raises((PeerError, IdentityError)):
            archive.unpack(phone, parcel)
        (right,) = federation.parcels(anna, phone)
        with pytest.raises((PeerError, IdentityError, SealRefused)):
            archive.unpack(boris, right)
        phone.connection.execute("UPDATE devices SET revoked = 1 WHERE id = ?", (anna.key,))
        with pytest.raises(IdentityError, match="revoked"):
            archive.unpack(phone, right)

    def test_a_long_history_comes_in_segments(
        self, federation: Federation, anna: Device, chat: ChatId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "LETTERS_MAX", 2)
        for number in range(4):
            federation.say(anna, chat, str(number))
        phone = federation.further(anna)
        segments = [archive.unpack(phone, one) for one in federation.parcels(anna, phone)]
        assert [(one.part, one.parts, len(one.letters)) for one in segments] == [
            (0, 3, 2),
            (1, 3, 2),
            (2, 3, 2),
        ]

    def test_a_part_that_was_lost_is_missed(self) -> None:
        history = History()
        for part in (0, 2, 2, 3):
            assert not history.complete
            history.add(archive.Segment(part, 4, ()))
        assert (history.complete, history.lost, history.whole) == (True, 1, False)

    def test_a_link_code_is_an_invitation_and_a_user(self) -> None:
        for text in ("", "ivor1.abc", "ivor1.abc~zz", f"ivor1.abc~{'00' * 31}"):
            with pytest.raises(UserError, match="no link code"):
                read_code(text)
        with pytest.raises(PeerError):
            read_code(f"ivor1.abc~{'00' * 32}")

    def test_of_another_user_of_the_agency(self, federation: Federation) -> None:
        """SPEC 5.6: `from` has to be a device of one's own."""
        boris, vera = federation.official("boris@mincifry"), federation.official("vera@mincifry")
        phone = federation.further(boris)
        (parcel,) = federation.parcels(vera, phone)
        with pytest.raises(IdentityError, match="no device of yours"):
            archive.unpack(phone, parcel)


class TestRevoking:
    def test_a_lost_device_reads_nothing_that_follows(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        phone = link(federation, anna)
        federation.carry(anna, phone)
        with anna.transaction():
            assert revoke_own(anna, phone.key, now()) == 1
        federation.say(anna, chat, "after")
        for target in (boris, phone):
            federation.carry(anna, target)
        assert federation.texts(boris, chat) == ["before", "after"]
        assert "after" not in federation.texts(phone, chat)
        with pytest.raises(RefusedError):
            federation.say(phone, chat, "I am back")
        with anna.transaction():
            assert bring_in(anna, now()) == 0

    @pytest.mark.parametrize("itself", [False, True])
    def test_a_lost_device_that_others_bring_in_again_is_put_out_again(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId, *, itself: bool
    ) -> None:
        """Regression: boris, who had not heard of it, sealed what was said to it, too."""
        phone = link(federation, anna)
        federation.carry(anna, phone)
        giver = phone if itself else anna
        with giver.transaction():
            revoke_own(giver, phone.key, now())
        federation.carry(phone, anna)
        chat = federation.chat(boris, "", anna)
        assert phone.key in compose.require(anna, chat).membership().devices
        with phone.transaction():
            assert revoke_given_up(phone, now()) == 0
        with anna.transaction():
            assert revoke_given_up(anna, now()) == 1
            assert revoke_given_up(anna, now()) == 0
        federation.carry(anna, boris)
        federation.say(boris, chat, "after")
        for target in (anna, phone):
            federation.carry(boris, target)
        assert federation.texts(anna, chat) == ["after"]
        assert federation.texts(phone, chat) == []

    def test_a_linked_device_holds_no_identity_key(
        self, federation: Federation, anna: Device
    ) -> None:
        phone = link_alone(federation, anna)
        with pytest.raises(RefusedError, match="first device"), phone.transaction():
            revoke_own(phone, anna.key, now())
        assert bring_in(phone, now()) == 0

    def test_a_device_gives_itself_up(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        """Design 3: with no identity key; what follows is not sealed to it, what it wrote stays."""
        phone = link(federation, anna)
        federation.carry(anna, phone)
        federation.say(phone, chat, "from the phone")
        with phone.transaction():
            assert revoke_own(phone, phone.key, now()) == 1
            assert revoke_own(phone, phone.key, now()) == 0
        for target in (anna, boris):
            federation.carry(phone, target)
            assert phone.key not in compose.require(target, chat).membership().devices
        assert anna.key in compose.require(boris, chat).membership().devices
        federation.say(anna, chat, "after")
        for target in (boris, phone):
            federation.carry(anna, target)
        assert federation.texts(boris, chat) == ["before", "from the phone", "after"]
        assert "after" not in federation.texts(phone, chat)
        with pytest.raises(RefusedError):
            federation.say(phone, chat, "I am back")
        assert audit(boris, chat, lambda _: None).sound

    def test_a_stolen_one_that_gave_itself_up_is_cut_off(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        """SPEC 3.5: what it named in giving itself up was yet to be written."""
        phone = link(federation, anna)
        federation.carry(anna, phone)
        with phone.transaction():
            ahead = (Reference(phone.key, 1000, EntryId(bytes(32))),)
            giving = Revoke(phone.key, None, None, ahead)
            append_control(phone, compose.require(phone, chat), giving, now())
        federation.carry(phone, anna)
        assert still_in(anna, phone.key) == [chat]
        with anna.transaction():
            assert revoke_own(anna, phone.key, now()) == 1
            assert revoke_own(anna, phone.key, now()) == 0
        federation.carry(anna, boris)
        assert fate(boris, chat, phone, 0) == Void.DEVICE

    def test_who_left_so_can_be_put_out(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        federation.say(boris, chat, "seen")
        federation.carry(boris, anna)
        with boris.transaction():
            append_control(boris, compose.require(boris, chat), Leave(), now())
        federation.carry(boris, anna)
        assert fate(anna, chat, boris, 1) is None
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        assert fate(anna, chat, boris, 0) is None
        assert fate(anna, chat, boris, 1) == Void.REMOVED

    def test_what_it_wrote_stays_when_its_user_is_removed(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        phone = link(federation, boris)
        federation.carry(boris, phone)
        federation.say(phone, chat, "from the phone")
        with phone.transaction():
            revoke_own(phone, phone.key, now())
        federation.carry(phone, anna)
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        assert fate(anna, chat, phone, 0) is None
        assert fate(anna, chat, phone, 1) == Void.REMOVED

    def test_of_too_many_devices_what_the_present_ones_wrote_stays(
        self,
        federation: Federation,
        anna: Device,
        boris: Device,
        chat: ChatId,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A removal has room for so many last words; one with more could not be written."""
        phones = [link(federation, boris) for _ in range(2)]
        for phone in phones:
            federation.carry(boris, phone)
            federation.say(phone, chat, "from a phone")
            with phone.transaction():
                revoke_own(phone, phone.key, now())
            federation.carry(phone, anna)
        federation.say(boris, chat, "from the laptop")
        federation.carry(boris, anna)
        monkeypatch.setattr(compose, "DEVICES_USER_MAX", 2)
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        assert fate(anna, chat, boris, 0) is None
        fates = [fate(anna, chat, phone, 0) for phone in phones]
        assert fates.count(None) == fates.count(Void.REMOVED) == 1

    def test_one_chat_does_not_keep_a_lost_device_in_the_others(
        self, federation: Federation, tmp_path: Path, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        """Where our own chain is forked nobody takes our word."""
        other = federation.chat(anna, "", boris)
        phone = federation.further(anna)
        with anna.transaction():
            assert bring_in(anna, now()) == 2
        twin = copied(anna, tmp_path / "twin")
        for device in (anna, twin):
            with device.transaction():
                start_epoch(device, compose.require(device, chat), now())
        federation.carry(twin, anna)
        twin.close()
        with anna.transaction():
            assert revoke_own(anna, phone.key, now()) == 1
        assert still_in(anna, phone.key) == [chat]
        assert phone.key not in compose.require(anna, other).membership().devices

    def test_a_revocation_that_no_epoch_can_follow_leaves_nothing(
        self,
        federation: Federation,
        tmp_path: Path,
        anna: Device,
        boris: Device,
        vera: Device,
        chat: ChatId,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Here an epoch would skip more devices than one may, as vera's has no prekey."""
        other = federation.chat(anna, "")
        with anna.transaction():
            compose.add_members(anna, chat, [(vera.profile.user.user, Role.MEMBER)], now())
        phone = federation.further(anna)
        with anna.transaction():
            assert bring_in(anna, now()) == 2
        twin = copied(boris, tmp_path / "twin")
        for device, text in ((boris, "one story"), (twin, "another story")):
            federation.say(device, chat, text)
            federation.carry(device, anna)
        twin.close()
        anna.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (vera.key,))
        before = len(compose.require(anna, chat).history)
        with monkeypatch.context() as full, anna.transaction():
            full.setattr(payload, "DEVICES_CHAT_MAX", 0)
            assert revoke_own(anna, phone.key, now()) == 1
            assert revoke_exposed(anna, now()) == []
        assert len(compose.require(anna, chat).history) == before
        assert phone.key not in compose.require(anna, other).membership().devices
        assert still_in(anna, phone.key) == [chat]
        with anna.transaction():
            assert revoke_own(anna, phone.key, now()) == len(revoke_exposed(anna, now())) == 1

    def test_a_forking_device_is_exposed_and_put_out(
        self, federation: Federation, tmp_path: Path, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        """I5, case 35: an old copy of a folder signs a second entry at a seq that was used."""
        twin = copied(boris, tmp_path / "twin")
        federation.say(boris, chat, "one story")
        federation.say(twin, chat, "another story")
        federation.carry(boris, anna)
        federation.carry(twin, anna)
        twin.close()
        (caught,) = exposed(anna)
        assert caught.device == boris.key
        with anna.transaction():
            assert len(revoke_exposed(anna, now())) == 1
            assert revoke_exposed(anna, now()) == []
        assert boris.key not in compose.require(anna, chat).membership().devices
        result = audit(anna, chat, lambda _: None)
        assert result.forked == {boris.key}
        assert result.sound


class TestBringingIn:
    def test_one_that_was_put_out_is_not_brought_in_again(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        """SPEC 3.3: no enrolment would do it; the directory may still list it."""
        phone = link(federation, anna)
        federation.carry(anna, phone)
        with phone.transaction():
            revoke_own(phone, phone.key, now())
        federation.carry(phone, anna)
        before = len(compose.require(anna, chat).history)
        with anna.transaction():
            assert bring_in(anna, now()) == 0
        assert len(compose.require(anna, chat).history) == before

    def test_what_has_no_effect_leaves_nothing(
        self,
        federation: Federation,
        anna: Device,
        boris: Device,
        chat: ChatId,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        federation.further(anna)
        monkeypatch.setattr(case, "DEVICES_CHAT_MAX", 2)
        before = len(compose.require(anna, chat).history)
        with anna.transaction():
            assert bring_in(anna, now()) == 0
        assert len(compose.require(anna, chat).history) == before
        federation.say(anna, chat, "after")
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == ["before", "after"]
        assert audit(anna, chat, lambda _: None).sound


class TestOldCopy:
    @pytest.mark.parametrize("what", ["outrun", "displaced"])
    def test_it_reads_and_leaves_what_it_would_have_to_sign(
        self,
        federation: Federation,
        tmp_path: Path,
        anna: Device,
        boris: Device,
        chat: ChatId,
        what: str,
    ) -> None:
        """SPEC 2.5: a nack, an enrolment and a revocation are due; none of them ends a visit."""
        federation.further(anna)
        old, twin = copied(anna, tmp_path / "old"), copied(boris, tmp_path / "twin")
        for device, text in ((boris, "one story"), (twin, "another story")):
            federation.say(device, chat, text)
            federation.carry(device, old)
        if what == "outrun":
            old.replica.sharing.note_outrun()
        old.displaced = what == "displaced"
        epoch = compose.require(old, chat).history.entries[1].id
        with old.transaction():
            nacks.note_bad_seal(old, chat, epoch, NackReason.DOES_NOT_OPEN)
        federation.say(boris, chat, "still read")
        federation.carry(boris, old)
        before = len(compose.require(old, chat).history)
        assert exposed(old)
        with old.transaction():
            assert (bring_in(old, now()), list(revoke_exposed(old, now()))) == (0, [])
            assert list(settle(old, now())) == []
        assert len(compose.require(old, chat).history) == before
        assert "still read" in federation.texts(old, chat)
        for device in (old, twin):
            device.close()


@pytest.mark.usefixtures("boris")
@pytest.mark.parametrize("how", ["written over", "another file", "with its count", "killed"])
def test_a_database_that_is_brought_back_alone_signs_nothing_unasked(
    federation: Federation, tmp_path: Path, anna: Device, chat: ChatId, how: str
) -> None:
    """SPEC 2.5: what copies only what has changed leaves the key file as it is."""
    anna.close()
    counted = count_of(anna.folder)
    kept = shutil.copytree(anna.folder, tmp_path / "kept")
    wrote = open_device(anna.folder, PASSPHRASE, anna.random)
    assert not wrote.displaced
    federation.say(wrote, chat, "lost with the old copy")
    if how == "killed":
        wrote.connection.close()  # nothing else is done at the end of such a process
    else:
        wrote.close()
    for file in (DATABASE_FILE, COUNT_FILE) if how == "with its count" else (DATABASE_FILE,):
        if how in ("another file", "with its count"):
            (anna.folder / file).rename(tmp_path / file)
        shutil.copyfile(kept / file, anna.folder / file)
    back = open_device(anna.folder, PASSPHRASE, anna.random)
    assert back.displaced
    with pytest.raises(NetworkError, match="brought back"):
        federation.say(back, chat, "a fork")
    back.close()
    back = open_device(anna.folder, PASSPHRASE, anna.random)
    assert back.displaced
    back.settle_here()
    assert count_of(anna.folder) == counted
    federation.say(back, chat, "after its node was asked")
    back.close()
    back = open_device(anna.folder, PASSPHRASE, anna.random)
    assert not back.displaced
    back.close()


def test_what_is_sent_was_counted_first(anna: Device, chat: ChatId) -> None:
    """A process that is killed after that leaves what it sent to be missed (SPEC 2.5)."""
    counted: list[int] = []
    outbox = Outbox(anna, lambda _: counted.append(count_of(anna.folder)))
    before = count_of(anna.folder)
    anna.connection.execute("BEGIN IMMEDIATE")
    compose.send(anna, chat, Text("sent", None), now(), None)
    push = outbox.appended()
    anna.connection.execute("COMMIT")
    assert not counted
    push()
    assert counted == [before + 1]


def link_alone(federation: Federation, anna: Device) -> Device:
    """A further device before it is in any chat."""
    return federation.further(anna)


def fate(device: Device, chat: ChatId, author: Device, seq: int) -> Void | None:
    """Why content by a device that has seen no more than how it came in does not count."""
    history = compose.require(device, chat).history
    entered = next(bits(history.authority.introductions(author.key)))
    return content_void(history, author.key, seq, history.pasts[entered])


def copied(device: Device, folder: Path) -> Device:
    """A device's folder as it stands, opened a second time elsewhere."""
    device.connection.pragma("wal_checkpoint(TRUNCATE)")
    shutil.copytree(device.folder, folder)
    twin = open_device(folder, PASSPHRASE, device.random)
    twin.settle_here()
    return twin
