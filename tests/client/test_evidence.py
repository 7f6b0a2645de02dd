"""Checkpoints that devices make (SPEC 2.7), and evidence of what they hold (SPEC 5.10)."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from client import checkpoints, compose, evidence, keeping, mailbox, sharing
from client.audit import audit
from client.device import Device
from client.writing import append_control, next_place
from crypto.archival import ArchivalSigner
from node.errors import RefusedError, UserError
from protocol.checkpoint import certify_archive, make_anchor
from protocol.entry import ChatId, EntryId, Reference
from protocol.evidence import EvidenceRefused, Findings, check
from protocol.judgement import judge
from protocol.lane import Rule
from protocol.message import Text, decode_message
from protocol.operation import Checkpoint
from protocol.policy import HistoryRule, Role
from protocol.roster import Void
from tests.federation import Federation, now

DAY = checkpoints.INTERVAL_MS


def nothing(_: int) -> None:
    """Progress that nobody watches."""


def made(device: Device, chat: ChatId) -> list[Checkpoint]:
    history = compose.require(device, chat).history
    found = [entry.operation for entry in history.entries]
    return [one for one in found if isinstance(one, Checkpoint)]


def say_at(device: Device, chat: ChatId, text: str, time: int) -> Reference:
    with device.transaction():
        return compose.send(device, chat, Text(text, None), time, None)


def file_of(device: Device, chat: ChatId, wanted: Sequence[Reference] | None = None) -> bytes:
    known = compose.require(device, chat)
    chosen = evidence.readable(device, known, 0, 2**60) if wanted is None else wanted
    return b"".join(evidence.export(device, known, chosen, nothing).pieces)


def texts(findings: Findings) -> set[str]:
    found = [decode_message(one.plaintext) for one in findings.statements]
    return {one.text for one in found if isinstance(one, Text)}


def anchors(*devices: Device) -> dict[str, str]:
    charters = [device.profile.charter for device in devices]
    return {one.name: one.fingerprint for one in charters}


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    found = federation.chat(anna, "Budget", boris)
    federation.say(anna, found, "one")
    federation.carry(anna, boris)
    federation.say(boris, found, "two")
    federation.carry(boris, anna)
    return found


class TestDue:
    def test_not_on_the_first_day(self, anna: Device, chat: ChatId) -> None:
        assert made(anna, chat) == []

    def test_once_a_day_if_anything_is_new(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        begun = now()
        say_at(anna, chat, "next day", begun + DAY)
        (found,) = made(anna, chat)
        assert {head.device for head in found.heads} == {anna.key, boris.key}
        say_at(anna, chat, "an hour later", begun + DAY + DAY // 24)
        assert len(made(anna, chat)) == 1
        say_at(anna, chat, "a day later", begun + 2 * DAY + 1)
        assert [head.device for head in made(anna, chat)[1].heads] == [anna.key]
        federation.carry(anna, boris)
        assert made(boris, chat) == made(anna, chat)
        assert audit(boris, chat, nothing).sound

    def test_after_so_many_entries(
        self, anna: Device, chat: ChatId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "ENTRIES_DUE", 6)
        for number in range(8):
            say_at(anna, chat, str(number), now())
        assert len(made(anna, chat)) == 1

    def test_a_checkpoint_of_the_same_agency_is_enough(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        vera = federation.official("vera@mincifry")
        with anna.transaction():
            compose.add_members(anna, chat, [(vera.profile.user.user, Role.MEMBER)], now())
        federation.carry(anna, boris)
        later = now() + DAY
        say_at(boris, chat, "covered", later)
        federation.carry(boris, vera)
        federation.carry(anna, vera)
        say_at(vera, chat, "hello", later + 1)
        assert len(made(vera, chat)) == 1
        federation.carry(boris, anna)
        say_at(anna, chat, "another agency", later + 2)
        assert len(made(anna, chat)) == 2

    def test_heads_that_are_not_so_cover_nothing(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        """A lying colleague does not keep us from making ours, and the log names the lie."""
        phone = federation.further(anna)
        with anna.transaction():
            compose.enroll(anna, chat, phone.profile.device_certificate, now())
            compose.require(anna, chat)
        federation.carry(anna, phone)
        false = (Reference(anna.key, 0, EntryId(bytes(32))),)
        with phone.transaction():
            place = next_place(phone, compose.require(phone, chat))
            anchor = make_anchor(phone.secrets.archive, phone.profile.archive, place, false)
            append_control(phone, compose.require(phone, chat), Checkpoint(false, anchor), now())
        federation.carry(phone, anna)
        known = compose.require(anna, chat)
        assert checkpoints.uncovered(anna, known, now()).entries > 2
        (said,) = audit(anna, chat, nothing).disputed
        assert "names another entry at seq 0" in said

    def test_a_reader_makes_none(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        with anna.transaction():
            compose.set_role(anna, chat, boris.profile.user.user, Role.READER, now())
        federation.carry(anna, boris)
        with pytest.raises(RefusedError, match="may not write"), boris.transaction():
            checkpoints.add(boris, compose.require(boris, chat), now())


class TestExport:
    def test_everything(self, anna: Device, boris: Device, chat: ChatId) -> None:
        found = check(file_of(anna, chat))
        assert texts(found) == {"one", "two"}
        names = {one.author.name for one in found.statements}
        assert names == {anna.profile.name, boris.profile.name}
        assert set(judge(found).values()) == {None}

    def test_only_what_was_chosen_is_told(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        secret = federation.say(anna, chat, "the secret text")
        open_ = federation.say(anna, chat, "the open text")
        raw = file_of(anna, chat, [open_])
        assert texts(check(raw)) == {"the open text"}
        assert b"the secret text" not in raw
        assert secret.id not in {one.id for one in check(raw).statements}

    def test_a_share_tells_others_and_goes_in_by_its_id_alone(
        self, federation: Federation, anna: Device, chat: ChatId
    ) -> None:
        with anna.transaction():
            policy = compose.require(anna, chat).membership().policy
            keeping.set_policy(anna, chat, replace(policy, history=HistoryRule.SHARED), now())
        federation.say(anna, chat, "said long before")
        with anna.transaction():
            sharing.share(anna, chat, 100, now() + DAY)
        known = compose.require(anna, chat)
        late = say_at(anna, chat, "asked for", now() + DAY)
        assert evidence.readable(anna, known, now() + DAY // 2, 2**60) == [late]
        (given,) = mailbox.select(anna, "substr(plaintext, 1, 2) = ?", (sharing.SHARE_BEGINS,))
        chosen = [late, given.reference]
        assert evidence.export(anna, known, chosen, nothing).besides == 1
        assert evidence.export(anna, known, [late], nothing).besides == 0
        assert b"said long before" not in file_of(anna, chat, [late])

    def test_under_a_checkpoint_of_either_agency(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        with anna.transaction():
            assert checkpoints.add(anna, compose.require(anna, chat), now())
            assert not checkpoints.add(anna, compose.require(anna, chat), now())
        federation.carry(anna, boris)
        late = federation.say(boris, chat, "late")
        with boris.transaction():
            checkpoints.add(boris, compose.require(boris, chat), now())
        federation.carry(boris, anna)
        assert texts(check(file_of(anna, chat), anchors(boris))) == {"one", "two", "late"}
        with pytest.raises(EvidenceRefused, match="no checkpoint"):
            check(file_of(anna, chat), anchors(anna))
        early = evidence.readable(anna, compose.require(anna, chat), 0, 2**60)
        kept = [one for one in early if one != late]
        for device in (anna, boris):
            assert texts(check(file_of(anna, chat, kept), anchors(device))) == {"one", "two"}

    def test_a_message_that_cannot_be_read_here(self, anna: Device, chat: ChatId) -> None:
        strange = Reference(anna.key, 0, EntryId(bytes(32)))
        with pytest.raises(UserError, match="cannot be read"):
            file_of(anna, chat, [strange])

    def test_what_a_removed_member_wrote_after(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        """It is proved that it was signed, and found that it does not count."""
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        late = federation.say(boris, chat, "past the cut-off")
        federation.carry(boris, anna)
        found = check(file_of(anna, chat))
        assert judge(found)[late.id] is Void.REMOVED

    def test_progress_counts_entries(self, anna: Device, chat: ChatId) -> None:
        told: list[int] = []
        known = compose.require(anna, chat)
        chosen = evidence.readable(anna, known, 0, 2**60)
        made_ = evidence.export(anna, known, chosen, told.append)
        assert b"".join(made_.pieces)
        assert sum(told) == made_.content + made_.control


def test_a_history_rewritten_with_every_ed25519_key_is_refused(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """The attacker has each Ed25519 key of agencies, users and devices; no ML-DSA key."""
    compared = anchors(anna, boris)
    chat = federation.chat(anna, "Budget", boris)
    federation.say(anna, chat, "paid nothing")
    thief = ArchivalSigner(bytes(32))
    anna.secrets = type(anna.secrets)(
        anna.secrets.device,
        anna.secrets.user,
        anna.secrets.database_key,
        anna.secrets.tls_key,
        thief,
    )
    raw = file_of(anna, chat)
    assert texts(check(raw)) == {"paid nothing"}
    with pytest.raises(EvidenceRefused) as none:
        check(raw, compared)
    assert none.value.rule is Rule.ANCHOR
    profile = anna.profile
    forged = certify_archive(
        thief, profile.charter.agency, profile.user.user, anna.key, thief.public
    )
    known = compose.require(anna, chat)
    heads = checkpoints.uncovered(anna, known, now()).heads
    false = Checkpoint(heads, make_anchor(thief, forged, next_place(anna, known), heads))
    with anna.transaction(), pytest.raises(RefusedError, match="archive certificate"):
        append_control(anna, known, false, now())
