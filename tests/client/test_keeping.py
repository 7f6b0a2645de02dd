"""SPEC 2.6 at devices: a redacted text is gone, its author and reason stay; holds; retention."""

from pathlib import Path

import apsw
import msgspec
import pytest
from msgspec import structs

from client import archive, compose, device, enrol, keeping, sharing
from client.arrivals import take_in
from client.audit import audit
from client.chats import title_of
from client.device import Device
from client.epochs import start_epoch
from client.erasure import drop_aged, empty_log
from client.folder import DATABASE_FILE
from client.listing import entries
from client.mailbox import State
from client.reading import Line, Reader, letters
from node.agency import Agency
from node.database import connect
from node.errors import RefusedError, UserError
from protocol.disclosure import Disclosed, Share
from protocol.entry import CONTENT, CONTROL, ChatId, EntryId, Reference
from protocol.frame import Run, authentic
from protocol.identity import AgencyId, NodeId
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.message import Edit, Text, decode_message
from protocol.policy import HistoryRule, Policy, Role
from protocol.receipt import Receipt, sign_receipt
from protocol.redaction import custodians, retention
from protocol.run import context_after, drop_payload
from tests.federation import Federation, now, runs

SECRET = "канарейка, которую никто не должен найти"
DAY = 24 * 3600


@pytest.fixture
def _open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases of devices are not encrypted, so that a test can look for a text in the bytes."""

    def plain(path: Path, _key: bytes | None) -> apsw.Connection:
        return connect(path, None)

    for module in (device, enrol):
        monkeypatch.setattr(module, "connect", plain)


def on_disk(owner: Device, text: str = SECRET) -> bool:
    assert empty_log(owner)
    files = (owner.folder).glob(DATABASE_FILE + "*")
    return any(text.encode() in file.read_bytes() for file in files)


def redact(owner: Device, chat: ChatId, place: Reference, reason: str = "") -> None:
    with owner.transaction():
        keeping.redact(owner, chat, place, reason, now())


def shares(owner: Device) -> int:
    rows = owner.connection.execute("SELECT plaintext FROM mailbox WHERE state = ?", (State.OPEN,))
    return sum(isinstance(decode_message(row[0]), Share) for row in rows)


def keep_for(owner: Device, chat: ChatId, seconds: int) -> None:
    with owner.transaction():
        before = compose.require(owner, chat).membership().policy
        keeping.set_policy(owner, chat, Policy(before.zones, seconds, before.history), now())


def lines(owner: Device, chat: ChatId) -> list[Line]:
    judge = compose.require(owner, chat)
    reader = Reader(owner, judge, now())
    return [reader.line(letter) for letter in letters(owner, judge, 0, 1000)]


@pytest.mark.usefixtures("_open_files")
class TestRedaction:
    def test_by_its_author(self, federation: Federation) -> None:
        """Gone from both files; what follows can be read, and the log verifies."""
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "Бюджет", boris)
        place = federation.say(anna, chat, SECRET)
        federation.carry(anna, boris)
        assert on_disk(anna)
        assert on_disk(boris)
        redact(anna, chat, place, "не сюда")
        federation.say(anna, chat, "дальше")
        federation.carry(anna, boris)
        for owner in (anna, boris):
            assert not on_disk(owner)
            assert federation.texts(owner, chat) == ["дальше"]
            assert audit(owner, chat, lambda _: None).faults == []
            (line,) = [one for one in lines(owner, chat) if one.letter.reference == place]
            assert line.redaction is not None
            assert (line.redaction.by.name, line.redaction.reason) == ("anna@minzdrav", "не сюда")
            assert line.letter.state is State.GONE
            stored = owner.replica.store.chat(chat)
            assert stored is not None
            gone = [one.place for one in entries(owner, stored) if one.ground is not None]
            assert gone == [place]

    @pytest.mark.parametrize("is_here", [True, False])
    def test_before_its_key_came(self, federation: Federation, *, is_here: bool) -> None:
        """As before: whether the text was stored, or said to be gone, what follows can be read."""
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        keep_for(anna, chat, DAY)
        with anna.transaction():
            start_epoch(anna, compose.require(anna, chat), now())
        place = federation.say(anna, chat, SECRET)
        federation.carry_lane(anna, boris, CONTROL)
        if is_here:
            federation.carry_lane(anna, boris, CONTENT)
        else:
            bring_bare(federation, anna, boris, chat)
        assert [one.letter.state for one in lines(boris, chat)] == [State.SEALED]
        redact(anna, chat, place)
        federation.carry_lane(anna, boris, CONTROL)
        federation.say(anna, chat, "next")
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == ["next"]
        assert not on_disk(boris)

    def test_before_it_was_read(self, federation: Federation) -> None:
        """Its key is skipped, so what its author writes next can be read."""
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        redact(anna, chat, federation.say(anna, chat, SECRET))
        federation.say(anna, chat, "next")
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == ["next"]
        assert not on_disk(boris)
        assert audit(boris, chat, lambda _: None).faults == []

    def test_with_its_edits_and_a_title(self, federation: Federation) -> None:
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, SECRET, boris)
        place = federation.say(anna, chat, "text")
        with anna.transaction():
            compose.send(anna, chat, Edit(place, "edited text"), now(), None)
        redact(anna, chat, place)
        title = letters(anna, compose.require(anna, chat), 0, 1)
        assert [one.state for one in title] == [State.GONE]  # the edit is the newest
        first = lines(anna, chat)[0].letter.reference
        redact(anna, chat, first)
        assert title_of(anna, compose.require(anna, chat)) == ""
        assert not on_disk(anna)

    def test_a_further_device_gets_nothing_of_it(self, federation: Federation) -> None:
        anna = federation.official("anna@minzdrav")
        boris = federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, SECRET)
        federation.say(anna, chat, "kept")
        phone = federation.further(anna)
        early = federation.parcels(anna, phone)
        redact(anna, chat, place)
        with anna.transaction():
            compose.enroll(anna, chat, phone.profile.device_certificate, now())
        late = federation.parcels(anna, phone)
        for parcel in (*early, *late):
            with phone.transaction():
                archive.keep(phone, archive.unpack(phone, parcel))
        federation.carry(anna, phone)
        assert federation.texts(phone, chat) == ["kept"]
        assert not on_disk(phone)
        assert audit(phone, chat, lambda _: None).faults == []

    def test_with_what_a_further_device_waits_for(self, federation: Federation) -> None:
        """History comes to it before the log, or after it, without the entry itself."""
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, SECRET)
        phone = federation.further(anna)
        with anna.transaction():
            compose.enroll(anna, chat, phone.profile.device_certificate, now())
        parcels = federation.parcels(anna, phone)

        def keep() -> None:
            for parcel in parcels:
                with phone.transaction():
                    archive.keep(phone, archive.unpack(phone, parcel))

        keep()
        federation.carry_lane(anna, phone, CONTROL)
        assert on_disk(phone)
        redact(anna, chat, place)
        federation.carry_lane(anna, phone, CONTROL)
        assert not on_disk(phone)
        keep()
        assert not on_disk(phone)

    def test_with_the_shares_that_hold_it(self, federation: Federation) -> None:
        """Whether the share is opened before the redaction is known, after it, or handed on."""
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        vera = federation.official("vera@mincifry")
        chat = federation.chat(anna, "", boris)
        with anna.transaction():
            before = compose.require(anna, chat).membership().policy
            shared = Policy(before.zones, before.retention, HistoryRule.SHARED)
            keeping.set_policy(anna, chat, shared, now())
        place = federation.say(anna, chat, SECRET)
        with anna.transaction():
            compose.send(anna, chat, Text("a reply", place), now(), None)
            compose.add_members(anna, chat, [(vera.profile.user.user, Role.MEMBER)], now())
            sharing.share(anna, chat, 1, now())
            sharing.share(anna, chat, 2, now())
        federation.carry(anna, boris)
        assert shares(boris) == 2
        phone = federation.further(boris)
        with boris.transaction():
            compose.enroll(boris, chat, phone.profile.device_certificate, now())
        early = federation.parcels(boris, phone)
        federation.carry(boris, anna)
        redact(anna, chat, place)
        federation.carry(anna, phone)
        for parcel in early:
            with phone.transaction():
                archive.keep(phone, archive.unpack(phone, parcel))
        for owner in (anna, boris, vera, phone):
            federation.carry(anna, owner)
            assert shares(owner) == 1, "the other one holds a reply to it alone"
            assert not on_disk(owner)
            assert federation.texts(owner, chat) == ["a reply"]
            assert audit(owner, chat, lambda _: None).faults == []

    def test_a_clock_that_has_leapt_ahead_drops_nothing_at_once(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        anna = federation.official("anna@minzdrav")
        chat = federation.chat(anna, "")
        federation.say(anna, chat, SECRET)
        keep_for(anna, chat, 30 * DAY)
        federation.acknowledge(anna)
        drop_aged(anna)
        for days, left in ((400, [SECRET]), (400.9, [SECRET]), (401, [])):
            moment = now() + int(days * DAY) * 1000
            monkeypatch.setattr(anna.replica.payloads, "clock", lambda moment=moment: moment)
            drop_aged(anna)
            assert federation.texts(anna, chat) == left

    def test_what_nobody_has_yet_is_not_dropped(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was written on the way, and the way took longer than the chat keeps messages."""
        anna = federation.official("anna@minzdrav")
        chat = federation.chat(anna, "")
        keep_for(anna, chat, DAY)
        federation.say(anna, chat, SECRET)
        monkeypatch.setattr(anna.replica.payloads, "clock", lambda: now() + 2 * DAY * 1000)
        drop_aged(anna)
        assert federation.texts(anna, chat) == [SECRET]
        federation.acknowledge(anna)
        drop_aged(anna)
        assert federation.texts(anna, chat) == []
        assert not on_disk(anna)

    def test_who_may(self, federation: Federation) -> None:
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        mine = federation.say(anna, chat, "anna's")
        federation.carry(anna, boris)
        theirs = federation.say(boris, chat, "boris's")
        with pytest.raises(RefusedError, match="your role in this chat does not allow"):
            redact(boris, chat, mine)
        federation.carry(boris, anna)
        redact(anna, chat, theirs)
        with pytest.raises(UserError, match="already"):
            redact(anna, chat, theirs)
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == ["anna's"]


@pytest.mark.usefixtures("_open_files")
class TestRetention:
    def test_where_nothing_ages_nobody_waits(self, federation: Federation, anna: Device) -> None:
        """A device that stays online looks often; it takes the write lock only if it has to."""
        federation.chat(anna, "")
        began: list[str] = []

        def trace(_: object, statement: str, __: object) -> bool:
            began.extend([statement] if statement.startswith("BEGIN") else [])
            return True

        anna.connection.exec_trace = trace
        drop_aged(anna)
        anna.connection.exec_trace = None
        assert began == []

    def test_a_custodian_keeps_what_others_drop(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        federation.say(anna, chat, SECRET)
        keep_for(anna, chat, 30 * DAY)
        with anna.transaction():
            keeping.hold(anna, chat, boris.profile.user.user, now(), ends=False)
        federation.carry(anna, boris)
        federation.acknowledge(anna)
        for owner in (anna, boris):
            assert custodians(compose.require(owner, chat).history) == {boris.profile.user.user}
            monkeypatch.setattr(owner.replica.payloads, "clock", lambda: now() + 29 * DAY * 1000)
            drop_aged(owner)
            assert federation.texts(owner, chat) == [SECRET]
            monkeypatch.setattr(owner.replica.payloads, "clock", lambda: now() + 31 * DAY * 1000)
            drop_aged(owner)
        assert federation.texts(anna, chat) == []
        assert not on_disk(anna)
        assert federation.texts(boris, chat) == [SECRET]
        with anna.transaction():
            keeping.hold(anna, chat, boris.profile.user.user, now(), ends=True)
        federation.carry(anna, boris)
        drop_aged(boris)
        assert not on_disk(boris)
        assert audit(boris, chat, lambda _: None).faults == []

    def test_who_may(self, federation: Federation) -> None:
        anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
        chat = federation.chat(anna, "", boris)
        with pytest.raises(RefusedError, match="your role in this chat does not allow"):
            keep_for(boris, chat, DAY)
        user = boris.profile.user.user
        with pytest.raises(RefusedError), boris.transaction():
            keeping.hold(boris, chat, user, now(), ends=False)
        vera = federation.official("vera@mincifry").profile.user.user
        with pytest.raises(UserError, match="not in the chat"), anna.transaction():
            keeping.hold(anna, chat, vera, now(), ends=False)
        with anna.transaction():
            compose.set_role(anna, chat, user, Role.ADMIN, now())
        federation.carry(anna, boris)
        keep_for(boris, chat, DAY)
        policy = compose.require(boris, chat).membership().policy
        assert (policy.retention, policy.history) == (DAY, HistoryRule.FROM_JOIN)


def bring_bare(federation: Federation, source: Device, target: Device, chat: ChatId) -> Run:
    """Bring the content of a chat as a node does that says of each payload it has aged."""
    found = retention(compose.require(source, chat).history)
    assert found is not None
    (run,) = [run for run in runs(source, chat) if run.lane == CONTENT]
    bare = [msgspec.Raw(drop_payload(bytes(one), found.ground)) for one in run.records]
    federation._bring(target, structs.replace(run, records=tuple(bare)))
    return run


class TestGoneTooEarly:
    """A node, by a wrong clock or on purpose, says "gone" of what should be there (SPEC 2.6)."""

    @pytest.fixture
    def boris(self, federation: Federation) -> Device:
        return federation.official("boris@mincifry")

    @pytest.fixture
    def whole(self, federation: Federation, anna: Device, boris: Device) -> Run:
        """What anna has written; boris got the first of it, and the rest without payloads."""
        chat = federation.chat(anna, "", boris)
        keep_for(anna, chat, DAY)
        federation.say(anna, chat, "here")
        federation.carry(anna, boris)
        for text in ("one", "two"):
            federation.say(anna, chat, text)
        run = bring_bare(federation, anna, boris, chat)
        assert [one.letter.state for one in lines(boris, chat)] == [
            State.OPEN,
            *2 * [State.LACKING],
        ]
        return run

    def test_it_is_read_when_it_comes(
        self, federation: Federation, anna: Device, boris: Device, whole: Run
    ) -> None:
        federation.say(anna, whole.chat, "three")
        federation.carry(anna, boris)
        assert federation.texts(boris, whole.chat) == ["here", "one", "two", "three"]
        assert audit(boris, whole.chat, lambda _: None).sound

    def test_its_key_goes_with_a_redaction(
        self, federation: Federation, anna: Device, boris: Device, whole: Run
    ) -> None:
        """At once, and not when somebody looks for what can be opened."""
        for one in lines(anna, whole.chat)[1:]:
            redact(anna, whole.chat, one.letter.reference)
        federation.carry_lane(anna, boris, CONTROL)
        assert keys(boris) == [None, None]
        assert [one.letter.state for one in lines(boris, whole.chat)][1:] == [State.GONE] * 2

    def test_a_share_of_it_goes_with_a_redaction(
        self, federation: Federation, anna: Device, boris: Device, whole: Run
    ) -> None:
        """And not before: till then it is what should be there."""
        place = lines(anna, whole.chat)[1].letter.reference
        plaintext, frank = anna.connection.execute(
            "SELECT plaintext, frank FROM mailbox WHERE id = ?", (place.id,)
        ).get
        with anna.transaction():
            shared = Share((Disclosed(place.id, plaintext, frank),))
            compose.send(anna, whole.chat, shared, now(), None)
        (run,) = [run for run in runs(anna, whole.chat) if run.lane == CONTENT]
        bring_last(federation, boris, run)
        assert shares(boris) == 1
        redact(anna, whole.chat, place)
        federation.carry_lane(anna, boris, CONTROL)
        assert shares(boris) == 0

    def test_history_that_has_it_is_kept(
        self, federation: Federation, anna: Device, boris: Device, whole: Run
    ) -> None:
        """A further device of anna's, which has no key of it, gets the log from boris."""
        phone = federation.further(anna)
        with anna.transaction():
            compose.enroll(anna, whole.chat, phone.profile.device_certificate, now())
        for parcel in federation.parcels(anna, phone):
            with phone.transaction():
                archive.keep(phone, archive.unpack(phone, parcel))
        federation.carry(boris, phone)
        federation.carry_lane(anna, phone, CONTROL)
        federation.carry(boris, phone)
        assert federation.texts(phone, whole.chat) == ["here", "one", "two"]

    def test_its_key_goes_after_fourteen_days(
        self, boris: Device, whole: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert None not in keys(boris)
        later = now() + PREKEY_ERASE_SECONDS * 1000
        monkeypatch.setattr(boris.replica.payloads, "clock", lambda: later)
        with boris.transaction():
            take_in(boris, later)
        assert keys(boris) == [None, None]
        assert [one.letter.state for one in lines(boris, whole.chat)][1:] == [State.GONE] * 2


def bring_last(federation: Federation, owner: Device, run: Run) -> None:
    """Bring a device the last entry of a chain alone."""
    header = authentic(run)[-2].header
    last = len(run.records) - 1
    federation._bring(
        owner,
        Run(
            run.chat,
            run.device,
            run.lane,
            run.start + last,
            authentic(run)[-2].id,
            context_after(header),
            run.records[-1:],
            ((0, run.signatures[-1][1]),),
        ),
    )


def keys(owner: Device) -> list[bytes | None]:
    """What opens, or would open, all messages but the first."""
    rows = owner.connection.execute("SELECT frank FROM mailbox WHERE seq > 0 ORDER BY seq")
    return [row[0] for row in rows]


class TestReceipts:
    def test_who_has_confirmed_and_what_does_not_hold(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, "text")
        redact(anna, chat, place)
        judge = compose.require(anna, chat)
        (one,) = keeping.redactions(judge)
        ours = federation.agencies["minzdrav"]
        theirs = federation.agencies["mincifry"]

        def receipt(owner: Agency, **given: bytes) -> bytes:
            fields: dict[str, bytes] = {
                "node": owner.node.public,
                "agency": owner.id,
                "chat": chat,
                "entry": place.id,
                "ground": one.ground.id,
            }
            node, agency, where, entry, ground = (fields | given).values()
            said = Receipt(
                NodeId(node), AgencyId(agency), ChatId(where), EntryId(entry), EntryId(ground), 5
            )
            return sign_receipt(owner.node, said)

        found = keeping.confirmations(anna, judge, [receipt(ours)])
        assert [(line.agency, line.dropped) for line in found.nodes] == [
            ("mincifry", None),
            ("minzdrav", 5),
        ]
        assert found.findings == ()
        whole = receipt(theirs)
        wrong = {
            "another chat": receipt(theirs, chat=bytes(32)),
            "has the node": receipt(theirs, agency=ours.id),
            "is not in this chat": receipt(theirs, ground=bytes(32)),
            "has not signed": whole[:-1] + bytes([whole[-1] ^ 1]),
            "not one msgpack array": b"\x00",
        }
        for why, raw in wrong.items():
            found = keeping.confirmations(anna, judge, [raw, receipt(ours)])
            assert [line.dropped for line in found.nodes] == [None, 5]
            (finding,) = found.findings
            assert why in finding
        found = keeping.confirmations(anna, judge, [receipt(theirs, entry=bytes(32)), whole])
        assert [line.dropped for line in found.nodes] == [5, None]
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        found = keeping.confirmations(anna, judge, [receipt(ours), whole])
        assert [line.dropped for line in found.nodes] == [5, 5], "it had the chat at the time"
        assert found.findings == ()
