"""SPEC 10, case 66: a bit that the disk has turned is found by signatures, and mended by peers."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from node.agency import DATABASE_FILE
from node.damage import _OF_A_CHAT, damaged, mend, structure
from node.database import connect
from node.errors import StorageError
from node.replica import Replica
from protocol.entry import CONTENT, ChatId
from protocol.frame import authentic
from protocol.testing import conversations
from protocol.testing.cast import agency
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice

HOME = agency("mz").root.public
TALKS = [conversation(Dice(0), 20, epochs=6)]
with mock.patch.object(conversations, "NAMES", conversations.NAMES[::-1]):
    TALKS.append(conversation(Dice(1), 20, epochs=6))  # by another founder: another chat
BITS = 60


def replica_of(file: Path) -> Replica:
    return Replica(connect(file, None), HOME, HOME)


def store(replica: Replica, talks: Sequence[Conversation]) -> None:
    with replica.store.connection:
        for talk in talks:
            for run in talk.runs:
                replica.append_together([(run, authentic(run))], replica.owner)


def ids(replica: Replica, chat: ChatId) -> set[bytes]:
    rows = replica.store.connection.execute(
        "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
        " JOIN chats ON chats.no = chat WHERE chats.id = ?",
        (chat,),
    )
    return {row[0] for row in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    replica = replica_of(tmp_path / "node.db")
    store(replica, TALKS)
    replica.sharing.save_cursor(b"peer", b"incarnation", 7)
    replica.store.connection.close()
    return tmp_path


def spoil(folder: Path, statement: str) -> None:
    """Change something of the first chat, as a disk may."""
    connection = connect(folder / "node.db", None)
    chains = connection.execute(
        "SELECT group_concat(chains.no) FROM chains JOIN chats ON chats.no = chat"
        " WHERE chats.id = ? AND lane = ?",
        (TALKS[0].chat, CONTENT),
    ).get
    connection.execute(statement.format(at=f"place >> 32 IN ({chains})", chains=chains))
    assert connection.changes()
    connection.close()


def turned(column: str) -> str:
    """SQL for a value with a byte turned."""
    return f"CAST(substr({column}, 1, 9) || x'ff' || substr({column}, 11) AS BLOB)"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET record = {turned} WHERE {at}".replace("{turned}", turned("record")),
        "UPDATE entries SET id = {turned} WHERE {at}".replace("{turned}", turned("id")),
        "UPDATE entries SET signature = {turned} WHERE {at}".replace(
            "{turned}", turned("signature")
        ),
        "UPDATE chains SET head = {turned} WHERE no IN ({chains})".replace(
            "{turned}", turned("head")
        ),
        "UPDATE chains SET length = length + 1 WHERE no IN ({chains})",
        "DELETE FROM entries WHERE {at} AND place & 3 = 0",
        "DELETE FROM controls WHERE chat = (SELECT chat FROM chains WHERE no IN ({chains}))",
        "UPDATE entries SET record = x'c1' WHERE {at}",
    ],
)
def test_found_and_mended(folder: Path, statement: str) -> None:
    """The damaged chat is forgotten, the other is not; then it is taken again as it was."""
    spoil(folder, statement)
    before = replica_of(folder / "node.db")
    assert structure(before.store.connection) is None
    assert list(damaged(before.store.connection)) == [TALKS[0].chat]
    kept, incarnation = ids(before, TALKS[1].chat), before.store.incarnation
    before.store.connection.close()
    mended = mend(folder)
    assert (mended.chats, mended.kept) == ([TALKS[0].chat], folder / "node.db.damaged")
    assert mended.entries
    assert mended.kept is not None
    assert mended.kept.stat().st_mode & 0o077 == 0
    after = replica_of(folder / "node.db")
    assert after.store.chats() == [TALKS[1].chat]
    assert ids(after, TALKS[1].chat) == kept
    assert after.store.incarnation != incarnation
    assert after.sharing.cursor(b"peer") == (None, 0)
    store(after, [TALKS[0]])
    assert ids(after, TALKS[0].chat) == {authentic(run)[0].id for run in TALKS[0].runs}
    assert not list(damaged(after.store.connection))
    after.store.connection.close()
    assert mend(folder).kept is None


def test_nothing_is_wrong(folder: Path) -> None:
    before = (folder / "node.db").read_bytes()
    assert mend(folder).chats == ()
    assert (folder / "node.db").read_bytes() == before


def test_any_bit_anywhere(folder: Path) -> None:
    """It is seen, or it changes nothing of what is served."""
    file = folder / "node.db"
    whole = file.read_bytes()
    unchanged = contents(file)
    random = Random(4711)
    seen = 0
    for _ in range(BITS):
        turned = bytearray(whole)
        turned[random.randrange(len(turned))] ^= 1 << random.randrange(8)
        file.write_bytes(turned)
        try:
            connection = connect(file, None)
        except StorageError:
            seen += 1
            continue
        if structure(connection) is not None or list(damaged(connection)):
            seen += 1
        else:
            assert contents(file) == unchanged
        connection.close()
    assert seen > BITS // 8


def contents(file: Path) -> dict[ChatId, set[bytes]]:
    """What a replica has, each verified in the way to a peer."""
    replica = replica_of(file)
    assert not list(damaged(replica.store.connection))
    found = {chat: ids(replica, chat) for chat in replica.store.chats()}
    replica.store.connection.close()
    return found


def test_what_is_forgotten_leaves_no_row(folder: Path) -> None:
    """Another chat will have its number, and would have what is left of it."""
    connection = connect(folder / DATABASE_FILE, None)
    columns = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'chat' AND type = 'INTEGER'"
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if connection.execute(columns, (name,)).get
    ]
    connection.close()
    assert "unheard" in tables
    assert {one for one in tables if not any(f" {one} " in done for done in _OF_A_CHAT)} == set()


def test_a_broken_file(folder: Path) -> None:
    """What SQLite finds wrong is left as it is, and the way out is said."""
    file = folder / "node.db"
    whole = bytearray(file.read_bytes())
    for at in range(4096 * 3, len(whole), 4096):
        whole[at : at + 8] = bytes(8)
    file.write_bytes(whole)
    with pytest.raises(StorageError, match=r"restore|does not open"):
        mend(folder)
    assert file.read_bytes() == whole
