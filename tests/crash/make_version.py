"""Write down the databases of this version: `python -m tests.crash.make_version`.

A node's and a device's, with one chat, in tests/crash/versions/N. Later versions must open them.
Before the first release they are made anew when a table changes; after it they never are.
"""

import json
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from client.device import Device
from client.folder import DATABASE_FILE as DEVICE_FILE
from client.folder import KEY_FILE
from node.agency import DATABASE_FILE as NODE_FILE
from node.database import connect
from node.replica import Replica
from node.schema import SCHEMA_VERSION
from protocol.frame import authentic
from tests.crash.forks import fast_keys
from tests.crash.work import Entries, present
from tests.federation import Federation, runs

VERSIONS: Final = Path(__file__).with_name("versions")
TEXTS: Final = ("first", "second", "and a third, from the other side")
EXPECTED_FILE: Final = "expected.json"


def node_of(file: Path, agency: bytes) -> Replica:
    """Open a node's database."""
    return Replica(connect(file, None), agency, agency)


def bring(device: Device, node: Replica) -> int:
    """Bring all that a device has to its node; return how many entries were new."""
    chats = device.replica.store.chats()
    parts = [(run, authentic(run)) for chat in chats for run in runs(device, chat)]
    with node.store.connection:
        found = node.append_together(parts, device.key)
    return sum(one.appended for one in found)


def listed(entries: Entries) -> list[list[str | int]]:
    """Return entries as JSON keeps them."""
    return sorted(
        [chat.hex(), device.hex(), lane, seq, entry.hex()]
        for (chat, device, lane, seq), entry in entries.items()
    )


def make(folder: Path) -> None:
    """Write a version's files into an empty folder."""
    with tempfile.TemporaryDirectory() as scratch, fast_keys():
        federation = Federation(Path(scratch))
        anna, boris = (federation.official(name) for name in ("anna@mz", "boris@mvd"))
        chat = federation.chat(anna, "Budget", boris)
        for text in TEXTS[:-1]:
            federation.say(anna, chat, text)
        federation.carry(anna, boris)
        federation.say(boris, chat, TEXTS[-1])
        federation.carry(boris, anna)
        agency = anna.profile.charter.agency
        node = node_of(folder / NODE_FILE, agency)
        bring(anna, node)
        expected = {"agency": agency.hex(), "entries": listed(present(node))}
        node.store.connection.close()
        federation.close()
        for name in (KEY_FILE, DEVICE_FILE):
            shutil.copy(anna.folder / name, folder / name)
    (folder / EXPECTED_FILE).write_text(json.dumps(expected, indent=1) + "\n")


def tables(file: Path, key: bytes | None) -> list[str]:
    """Return the statements that made a database's tables."""
    with closing(connect(file, key)) as connection:
        return sorted(
            row[0] for row in connection.execute("SELECT sql FROM sqlite_schema") if row[0]
        )


if __name__ == "__main__":
    target = VERSIONS / str(SCHEMA_VERSION)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    make(target)
    print(f"{target} is of this version; commit it", file=sys.stderr)
