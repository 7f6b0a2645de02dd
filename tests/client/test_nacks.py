"""A device that is sealed something else says so, and all go on with another key."""

import pytest

from client import compose, nacks
from client.audit import audit
from client.device import Device
from client.epochs import start_epoch
from client.erasure import erase_prekeys
from client.mailbox import State, letters
from protocol import epoch
from protocol.entry import ChatId, EntryId
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.nack import shunned
from tests.cheating import seal_wrongly
from tests.federation import Federation, now


def epoch_of(device: Device, chat: ChatId) -> EntryId | None:
    return device.replica.last_epoch(chat, device.key)


@pytest.mark.parametrize(
    ("hidden", "why"), [(True, "holds another secret"), (False, "does not open")]
)
def test_case_45(
    federation: Federation, anna: Device, boris: Device, vera: Device, *, hidden: bool, why: str
) -> None:
    chat = federation.chat(anna, "", boris, vera)
    bad = seal_wrongly(federation, vera, chat, anna, hidden=hidden)
    for target in (anna, boris):
        federation.carry(vera, target)
    assert federation.texts(boris, chat) == ["secret"]
    assert [one.state for one in letters(anna, chat, 9)] == [State.UNREADABLE]
    federation.say(boris, chat, "boris has not heard of it")
    assert epoch_of(boris, chat) == bad
    federation.carry(anna, boris)
    (told,) = nacks.told(compose.require(boris, chat))
    assert (told.epoch, told.by, told.against) == (bad, "anna@minzdrav", "vera@mincifry")
    assert why in told.why
    for writer, text in ((boris, "boris"), (anna, "anna")):
        federation.say(writer, chat, text)
        assert epoch_of(writer, chat) != bad
    federation.carry(boris, anna)
    assert "boris" in federation.texts(anna, chat)
    report = audit(boris, chat, lambda _: None)
    assert report.faults == []
    assert [one.against for one in report.nacks] == ["vera@mincifry"]


def test_it_is_said_once(federation: Federation, anna: Device, boris: Device, vera: Device) -> None:
    chat = federation.chat(anna, "", boris, vera)
    seal_wrongly(federation, vera, chat, anna, hidden=True)
    for _ in range(3):
        federation.carry(vera, anna)
        federation.say(vera, chat, "again")
    with anna.transaction():
        assert nacks.publish(anna, now()) == 0
    assert len(nacks.told(compose.require(anna, chat))) == 1


def test_who_finds_it_while_writing_writes_in_another(
    federation: Federation, anna: Device, boris: Device, vera: Device
) -> None:
    """Nobody has written in the epoch: it is opened when there is something to say."""
    chat = federation.chat(anna, "", boris, vera)
    bad = seal_wrongly(federation, vera, chat, anna, hidden=True)
    federation.carry(vera, anna)
    with anna.transaction():
        anna.connection.execute("DELETE FROM bad_seals")
    federation.say(anna, chat, "hello")
    assert epoch_of(anna, chat) != bad
    federation.carry(anna, boris)
    assert federation.texts(boris, chat) == ["hello"]


def test_who_finds_it_while_writing_leaves_the_others_of_its_author(
    federation: Federation,
    anna: Device,
    boris: Device,
    vera: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SPEC 4.2, rule 1 for whoever has seen a nack, be it their own."""
    chat = federation.chat(vera, "", anna, boris)
    seal_wrongly(federation, vera, chat, anna, hidden=True)
    monkeypatch.setattr(nacks, "publish", lambda _device, _now: 0)
    federation.carry(vera, anna)
    monkeypatch.undo()
    federation.say(anna, chat, "hello")
    judge = compose.require(anna, chat)
    assert len(nacks.told(judge)) == 1
    written = epoch_of(anna, chat)
    assert written is not None
    assert written not in shunned(judge.history, judge.history.everything, anna.key)


def test_an_erased_prekey_is_nobodys_fault(
    federation: Federation, anna: Device, boris: Device, vera: Device
) -> None:
    """A seal for a prekey that anna had opens no more; one for a prekey of nobody's is wrong."""
    chat = federation.chat(anna, "", boris, vera)
    with boris.transaction():
        start_epoch(boris, compose.require(boris, chat), now())
    federation.say(boris, chat, "too late")
    erase_prekeys(anna, now() + PREKEY_ERASE_SECONDS * 1000)
    federation.carry(boris, anna)
    assert [one.state for one in letters(anna, chat, 9)] == [State.UNREADABLE]
    assert nacks.told(compose.require(anna, chat)) == []
    with anna.transaction():
        anna.connection.execute("DELETE FROM erased_prekeys")
    federation.say(anna, chat, "x")
    assert len(nacks.told(compose.require(anna, chat))) == 1


def test_who_is_out_says_nothing(
    federation: Federation, anna: Device, boris: Device, vera: Device
) -> None:
    chat = federation.chat(anna, "", boris, vera)
    federation.carry(anna, vera)
    with vera.transaction():
        nacks.note_bad_seal(vera, chat, EntryId(bytes(32)), epoch.NackReason.DOES_NOT_OPEN)
        compose.leave(vera, chat, now())
        assert nacks.publish(vera, now()) == 0
