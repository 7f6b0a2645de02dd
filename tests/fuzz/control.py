"""What comes through the control socket: a line of JSON, and the command in it."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final
from unittest.mock import patch

import msgspec

from crypto import keyfile
from node import agency as agencies
from node.agency import Agency, Founding
from node.config import Settings
from node.control import Response, decode_request
from node.database import connect
from node.desk import Desk
from node.directory import Directory
from node.errors import IvorError
from node.operations import backup_file, carry_out
from protocol.armour import armour
from protocol.errors import PeerError
from tests.fuzz.mutation import words
from tests.fuzz.target import target

_BACKUP: Final = "backup"
_NOW: Final = 1_800_000_000.0
_draw = Random(4711).randbytes


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="ivor-fuzz-")  # removed when the process ends


@cache
def _agency(name: str) -> Agency:
    founding = Founding(name, "RU", (f"{name}.example:7340",), {})
    with patch.multiple(keyfile, MEMORY_KIB=keyfile.MEMORY_KIB_MIN, PASSES=1):
        made = Path(_folder().name) / name
        return agencies.create(made, founding, b"p", b"r", _NOW, _draw)


@cache
def _desk() -> Desk:
    connection = connect(Path(_folder().name) / "node.db", None)
    directory = Directory(connection, _agency("minzdrav"), _draw)
    return Desk(connection, directory.trust, Settings(), directory, frozenset(), _NOW)


def _read(data: bytes) -> Mapping[str, object]:
    """Carry a line out as a running node does, and undo it."""
    request = decode_request(data)
    if request.command == _BACKUP:
        return {"v": 1, "file": str(backup_file(request.arguments))}
    desk = _desk()
    desk.connection.execute("BEGIN")
    try:
        return carry_out(desk, request.command, request.arguments)
    finally:
        desk.connection.execute("ROLLBACK")


def _law(_: bytes, result: Mapping[str, object]) -> None:
    """An answer is one line of JSON."""
    line = msgspec.json.encode(Response(1, result=dict(result)))
    assert result["v"] == 1
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Response).result == result


def _seeds() -> Iterator[bytes]:
    card = armour("CARD", _agency("mincifry").card.raw)
    fingerprint = _agency("mincifry").card.charter.fingerprint
    commands: Mapping[str, Mapping[str, object]] = {
        **{name: {} for name in ("status", "users", "peers", "chats", "unknown")},
        "examine": {"card": card},
        "trust": {"card": card, "fingerprint": fingerprint},
        "distrust": {"agency": "mincifry"},
        "invite": {"name": "anna", "hours": 3, "recover": True},
        "revoke": {"user": "anna@minzdrav", "device": "phone"},
        _BACKUP: {"file": "/srv/minzdrav.backup"},
    }
    for command, arguments in commands.items():
        yield msgspec.json.encode({"v": 1, "command": command, "arguments": arguments}) + b"\n"


_WORDS: Final = (
    *('"', "{", "}", "[", "]", ":", ",", "null", "true", "1e999", "-1", "9" * 30, "\n", "\\u0000"),
    *('"hours": 0', '"recover": false', '"name": "boris"', "@mincifry", "\\ud800", "é", "%s", "'"),
    *("status", "users", "peers", "chats", "examine", "trust", "distrust", "invite", "revoke"),
    *("card", "user", "agency"),
)
TARGETS: Final = {"control": target(_read, _law, (IvorError, PeerError), _seeds, words(*_WORDS))}
