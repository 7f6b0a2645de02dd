"""The audit of a stored log: it holds as it was written, and any damage is found and placed."""

from collections.abc import Callable

import pytest

from client.audit import Audit, audit
from client.device import Device, open_device
from protocol import codec
from protocol.entry import ChatId
from tests.federation import PASSPHRASE


def alter_record(device: Device) -> None:
    place, record = device.connection.execute(
        "SELECT place, record FROM entries WHERE length(record) > 200 ORDER BY place DESC LIMIT 1"
    ).get
    changed = bytearray(record)
    changed[-150] ^= 1
    device.connection.execute(
        "UPDATE entries SET record = ? WHERE place = ?", (bytes(changed), place)
    )


def alter_id(device: Device) -> None:
    device.connection.execute("UPDATE entries SET id = zeroblob(32) WHERE place & 1 = 1")


def drop_newest(device: Device) -> None:
    device.connection.execute("DELETE FROM entries WHERE place = (SELECT max(place) FROM entries)")


def drop_signatures(device: Device) -> None:
    device.connection.execute("UPDATE entries SET signature = NULL")


def forget_order(device: Device) -> None:
    device.connection.execute("DELETE FROM controls WHERE no = (SELECT max(no) FROM controls)")


def reverse_order(device: Device) -> None:
    device.connection.execute("UPDATE controls SET no = 1000 - no")


def alter_text(device: Device) -> None:
    plain = codec.encode((0, b"forged", None))
    device.connection.execute("UPDATE mailbox SET plaintext = ? WHERE seq = 1", (plain,))


def add_text(device: Device) -> None:
    device.connection.execute(
        "INSERT INTO mailbox (chat, device, seq, id, depth, time, state, plaintext)"
        " SELECT chat, device, 99, zeroblob(32), 9, 9, state, plaintext FROM mailbox LIMIT 1"
    )


def add_proof(device: Device) -> None:
    device.connection.execute("INSERT INTO forks SELECT no, zeroblob(32), 1, 0, x'90' FROM chats")


class TestAudit:
    def test_an_honest_log_holds(self, boris: Device, chat: ChatId) -> None:
        steps: list[int] = []
        result = audit(boris, chat, steps.append)
        assert result.faults == []
        assert (result.control, result.content, result.messages) == (2, 2, 2)
        assert sum(steps) == result.control + result.content

    @pytest.mark.parametrize(
        "damage",
        [
            alter_record,
            alter_id,
            drop_newest,
            drop_signatures,
            forget_order,
            reverse_order,
            alter_text,
            add_text,
            add_proof,
        ],
    )
    def test_any_damage_is_found_and_placed(
        self, boris: Device, chat: ChatId, damage: Callable[[Device], None]
    ) -> None:
        damage(boris)
        fresh = open_device(boris.folder, PASSPHRASE, boris.random)
        result = audit(fresh, chat, lambda _: None)
        fresh.close()
        assert not result.sound
        assert all(result.faults)

    def test_a_chat_that_is_not_there_does_not_hold(self, boris: Device) -> None:
        result: Audit = audit(boris, ChatId(bytes(32)), lambda _: None)
        assert not result.sound
