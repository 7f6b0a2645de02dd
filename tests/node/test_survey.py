"""SPEC 6.3: the tables that nodes reconcile by, from databases, while others are served."""

from itertools import pairwise
from pathlib import Path

import apsw
import pytest
import trio

from node.database import connect
from node.journal import REST_SHARE, Journal
from node.sharing import Sharing
from node.store import Store
from node.survey import survey
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey
from protocol.frame import Head, authentic
from protocol.reconcile import tabulate
from protocol.testing.cast import seed
from protocol.testing.chains import Chain, Step, signer

PEER, OTHER = b"p" * 32, b"o" * 32
KEY = seed("key")
CHATS = 7


@pytest.fixture
def connection(tmp_path: Path) -> apsw.Connection:
    made = connect(tmp_path / "node.db", None)
    made.pragma("synchronous", "OFF")
    return made


@pytest.fixture
def sharing(connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> Sharing:
    """Seven chats of three chains, each with a reader; a survey reads two chats at a time."""
    monkeypatch.setattr("node.sharing.SURVEYED_CHATS", 2)
    store, made = Store(connection), Sharing(connection)
    with connection:
        for number in range(CHATS):
            chat = ChatId(seed("chat", str(number)))
            stored = store.create_chat(chat)
            for name, lane in (("anna", CONTROL), ("anna", CONTENT), ("boris", CONTENT)):
                chain = Chain(signer(name), chat, lane)
                chain.extend([Step(b"x")] * (number + 1))
                store.append(stored, authentic(chain.run()), None, 0)
            made.set_readers(stored, {PEER} if number % 2 else {PEER, OTHER})
    return made


def all_heads(sharing: Sharing, peer: bytes) -> dict[int, bytes]:
    """What the pages list, by the number of the change: a page of one change at a time."""
    numbers = range(1, sharing.newest_change() + 1)
    found = {}
    for number in numbers:
        for item in sharing.heads_at(peer, [number]).chats:
            (head,) = item.heads
            found[number] = head.prefix
    return found


class TestSurvey:
    @pytest.mark.parametrize("peer", [PEER, OTHER])
    async def test_it_has_what_the_pages_list(
        self, sharing: Sharing, connection: apsw.Connection, peer: bytes
    ) -> None:
        """Every head that the peer may see, once, with its number; nothing of other chats."""
        whole = sharing.heads_since(peer, 0)
        listed = [head for item in whole.chats for head in item.heads]
        heads: list[tuple[bytes, int]] = []
        after: int | None = 0
        slices = 0
        while after is not None:
            found, after = sharing.survey(peer, after)
            heads += found
            slices += 1
        assert slices > 2
        assert sorted(head.prefix for head in listed) == sorted(entry[:8] for entry, _ in heads)
        assert {number: entry[:8] for entry, number in heads} == all_heads(sharing, peer)
        table = await survey(sharing, Journal(connection, Store(connection).forget), peer, KEY)
        same = tabulate(KEY, heads, whole.cursor)
        assert table.cursor == whole.cursor
        assert len(table) == len(same) == len(heads)
        assert table.fingerprint(0, len(table)) == same.fingerprint(0, len(same))

    def test_a_former_reader(self, sharing: Sharing, connection: apsw.Connection) -> None:
        """It may see the entry that its removal stands before, so that one is its head."""
        store = Store(connection)
        chat = store.create_chat(ChatId(seed("chat", "3")))
        branch = chat.chains[signer("anna").public, CONTROL][0]
        second = next(store.rows([branch], branch, 1, 2))[1]
        with connection:
            sharing.set_readers(chat, {OTHER})
            sharing.set_former(chat, [PEER], [(branch.no, 2, store.next_change())])
        number = sharing.newest_change()
        assert (second, number) in sharing.survey(PEER, CHATS)[0]
        (item,) = sharing.heads_at(PEER, [number]).chats
        assert item.heads == (Head(DeviceKey(signer("anna").public), CONTROL, 1, second[:8]),)

    def test_a_change_that_is_gone(self, sharing: Sharing, connection: apsw.Connection) -> None:
        """A head that moved on since is told by the usual pages, not by its old number."""
        with connection:
            Store(connection).touch(Store(connection).create_chat(ChatId(seed("chat", "0"))))
        page = sharing.heads_at(PEER, [1, 2, 3])
        assert (page.cursor, page.last, page.chats) == (3, 0, ())


class TestAtLeisure:
    async def test_one_at_a_time_and_with_pauses(
        self, connection: apsw.Connection, autojump_clock: trio.testing.MockClock
    ) -> None:
        """So whoever asks for tables again and again gets a quarter of the time at most."""
        del autojump_clock
        journal = Journal(connection, Store(connection).forget)
        busy: list[tuple[float, float]] = []

        async def read() -> None:
            async with journal.at_leisure():
                begun = trio.current_time()
                await trio.sleep(1)
                busy.append((begun, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read)
        gaps = [after[0] - before[1] for before, after in pairwise(busy)]
        assert gaps == [REST_SHARE] * 3
