"""The network for real: namespaces, real nodes and devices, and what was on every wire and disk."""

import base64
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.network import capture, hosts
from tests.network.canary import found, found_in
from tests.network.hosts import IP
from tests.network.scenario import canary, leaks, outside, talk
from tests.network.world import SHORT, world

WHY_NOT = hosts.lacking()
WORD = "канарейка 42"
networked = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@networked
def test_nothing_leaves_its_zone_and_no_word_its_devices(tmp_path: Path) -> None:
    """I7, I8: a talk with a cut in it; then all wires and all nodes' disks are read."""
    word = canary()
    with world(SHORT, 1, tmp_path) as here:
        done = talk(here, word)
    assert done.messages == 9
    assert leaks(here, word) == []
    assert not here.stored("south") ^ here.stored("north")
    assert found_in(here.chat, tmp_path / "abroad") == []
    if capture.lacking() is not None:
        pytest.skip(f"wires were not read: {capture.lacking()}")
    wrong, seen, theirs = outside(here)
    assert wrong == []
    assert 0 < theirs < seen


class Failed(Exception):
    pass


def namespaces() -> set[str]:
    listed = subprocess.run([IP, "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("ivor")}


@networked
def test_everything_is_removed_after_a_failure(tmp_path: Path) -> None:
    """No namespace of this run is left, and no process in one."""
    ours = f"ivor{os.getpid()}-"
    sleeping: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with hosts.hosts(2, 1, tmp_path / "wire.pcap") as network:
            assert len([name for name in namespaces() if name.startswith(ours)]) == 3
            sleeping.append(subprocess.Popen(network.command(1, "sleep", "600")))
            raise Failed

    with pytest.raises(Failed):
        fail()
    assert not [name for name in namespaces() if name.startswith(ours)]
    assert sleeping[0].wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "raw",
    [
        WORD.encode(),
        WORD.encode("utf-16-le"),
        WORD.encode("utf-16"),
        WORD.encode("utf-16-be"),
        WORD.encode().hex().encode(),
        WORD.encode().hex().upper().encode(),
        *(
            base64.b64encode(b"some bytes before"[:at] + WORD.encode() + b"after")
            for at in range(6)
        ),
        *(base64.urlsafe_b64encode(b"before"[:at] + WORD.encode()) for at in range(6)),
    ],
)
def test_a_canary_is_found_however_it_is_written(raw: bytes, tmp_path: Path) -> None:
    assert found(WORD, b"\0" + raw + b"\0")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(raw)
    assert found_in(WORD, tmp_path)
    assert not found(WORD, raw.replace(raw[4:9], b""))
