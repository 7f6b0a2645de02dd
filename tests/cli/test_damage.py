"""A device's database that a disk has damaged: what is whole goes on, and the way out is said."""

import apsw
import pytest

from client.chats import title_of
from client.device import Device
from client.erasure import empty_log
from protocol.chat import Chat
from tests.cli.conftest import Official
from tests.federation import Federation

PAGE_BYTES = 4096


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()


def damaged_title(device: Device, judge: Chat) -> str:
    """What SQLite says of a page that is damaged."""
    if title_of(device, judge):
        raise apsw.CorruptError("database disk image is malformed")
    return ""


class TestDamage:
    def test_a_bit_that_turned(self, anna: Official, chat: str) -> None:
        """Case 66: every page of a device's database is checked, and the way out is said."""
        assert empty_log(anna.device)
        file = anna.device.folder / "device.db"
        damaged = bytearray(file.read_bytes())
        for at in range(PAGE_BYTES + 100, len(damaged), PAGE_BYTES):
            damaged[at] ^= 1
        file.write_bytes(damaged)
        anna("read", chat, code=3)
        assert "can not be mended: take a new device" in anna.said

    def test_one_chat_of_two(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        """The other goes on; what touches the damaged one says what to do."""
        federation.chat(anna.device, "Кадры", boris.device)
        anna("send", chat[:8], "x")
        anna.device.connection.execute(
            "UPDATE entries SET record = x'c1' WHERE place IN (SELECT place FROM controls"
            " JOIN chats ON chats.no = chat WHERE id = ?)",
            (bytes.fromhex(chat),),
        )
        anna("send", "Кадры", "дальше")
        assert "дальше" in anna("read", "Кадры")
        assert "дальше" in anna("search", "дальше")
        anna("chat", "role", "Кадры", "boris@mincifry", "admin")
        for command in (("chat", "list"), ("status",)):
            assert "Кадры" in anna(*command)
            assert f"damaged here: the chats {chat[:8]}; other chats go on" in anna.said
        for name in (chat[:8], "Бюджет"):
            anna("read", name, code=3)
            assert f"not whole: {chat[:8]}" in anna.said
            assert "can not be mended: take a new device" in anna.said
        federation.further(anna.device)
        (told,) = anna.json("device", "revoke", "phone", "--yes", code=3)
        assert told["still_in"] == 1

    def test_its_messages_alone(self, anna: Official, boris: Official, chat: str) -> None:
        """Where only a title cannot be read, a chat is found by its id."""
        anna("send", boris.device.profile.name, "дальше")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("client.chats.title_of", damaged_title)
            listed = {one["chat"]: one["title"] for one in anna.json("chat", "list")}
            assert listed[chat] == "(no title)"
            assert "boris@mincifry" in listed.values()
            anna("read", "Бюджет", code=3)
            assert f"not whole: {chat[:8]}" in anna.said
