"""I18, cases 77 and 78: what was written by a version that was released opens in every later one.

There is one version and no release, so there is no migration yet. What a crash can meet is the
making of the tables: it is one transaction, killed or cut at any point it has happened or has not.
"""

import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from client.device import Device, open_device
from client.folder import KEY_FILE
from node.agency import DATABASE_FILE as NODE_FILE
from node.database import connect
from node.errors import StorageError, UserError
from node.schema import SCHEMA_VERSION
from tests.crash.disk import Disk
from tests.crash.forks import fast_keys
from tests.crash.make_version import (
    EXPECTED_FILE,
    TEXTS,
    VERSIONS,
    bring,
    listed,
    make,
    node_of,
    tables,
)
from tests.crash.power import image, written
from tests.crash.work import here, present, sound
from tests.federation import PASSPHRASE, Federation

POINTS = 12


@pytest.mark.parametrize("version", sorted(path.name for path in VERSIONS.iterdir()))
def test_an_earlier_version_opens(version: str, tmp_path: Path) -> None:
    """All that is in it is there, and both work on."""
    folder = tmp_path / version
    shutil.copytree(VERSIONS / version, folder)
    expected = json.loads((folder / EXPECTED_FILE).read_text())
    node = node_of(folder / NODE_FILE, bytes.fromhex(expected["agency"]))
    sound(node.store.connection)
    assert listed(present(node)) == expected["entries"]
    anna = open_device(folder, PASSPHRASE, os.urandom)
    sound(anna.connection)
    assert listed(present(anna.replica)) == expected["entries"]
    anna.settle_here()
    federation = Federation(tmp_path / "federation")
    (chat,) = anna.replica.store.chats()
    assert federation.texts(anna, chat) == list(TEXTS)
    federation.say(anna, chat, "later")
    assert bring(anna, node) >= 1  # a checkpoint, and an epoch, may be due since it was made
    anna.close()
    node.store.connection.close()


def test_this_version_is_written_down(tmp_path: Path) -> None:
    """Tables that change are another version, once there was a release; before, make it anew."""
    kept = VERSIONS / str(SCHEMA_VERSION)
    make(tmp_path)
    for folder in (kept, tmp_path):
        assert connect(folder / NODE_FILE, None).pragma("user_version") == SCHEMA_VERSION
    hint = "the tables have changed: run python -m tests.crash.make_version"
    assert tables(kept / NODE_FILE, None) == tables(tmp_path / NODE_FILE, None), hint


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, -1])
def test_another_version_is_left_alone(version: int, tmp_path: Path) -> None:
    file = tmp_path / NODE_FILE
    connection = connect(file, None)
    connection.pragma("user_version", version)
    connection.close()
    before = file.read_bytes()
    with pytest.raises(StorageError, match="use the Ivor that wrote it"):
        connect(file, None)
    assert file.read_bytes() == before


def test_a_device_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """Its database, killed at any point, or without power: it opens, or there is nothing in it."""
    folder = tmp_path / "device-1"
    folder.mkdir()
    with Disk(folder) as disk, fast_keys(), here():
        anna = Federation(tmp_path).official("anna@mz")
        anna.close()
    before = {KEY_FILE: (folder / KEY_FILE).read_bytes()}
    ends = range(0, len(disk.log) + 1, len(disk.log) // POINTS)
    images = [written(disk.log[:end], before) for end in ends]
    images += [image(disk.log[:end], Random(end), before) for end in ends]
    opened = [_opens(tmp_path / "image", files, anna) for files in images]
    assert (opened[0], opened[len(ends) - 1]) == (False, True)


def _opens(folder: Path, files: dict[str, bytes], anna: Device) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        device = Device(folder, anna.secrets, anna.random)
    except UserError as error:
        if "is empty" not in str(error):
            raise
        return False
    sound(device.connection)
    device.close()
    return True
