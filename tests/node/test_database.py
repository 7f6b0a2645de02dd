"""The database file of a replica: what holds of every connection to it."""

from contextlib import closing

import apsw

from node.database import open_connection
from node.schema import SCHEMA

JOIN = "SELECT 1 FROM readers JOIN chats ON no = chat WHERE peer = ? AND id = ?"


def test_a_join_is_parsed_once() -> None:
    """Regression: with STAT4 SQLite parsed a join anew whenever other values were bound."""
    parsed: list[int] = []

    def authorize(action: int, *_: object) -> int:
        parsed.append(action)
        return apsw.SQLITE_OK

    with closing(open_connection(":memory:")) as connection:
        connection.execute(SCHEMA)
        connection.authorizer = authorize
        connection.execute(JOIN, (b"anna", b"1")).fetchall()
        assert parsed
        parsed.clear()
        connection.execute(JOIN, (b"boris", b"2")).fetchall()
        assert not parsed
