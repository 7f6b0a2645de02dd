"""I17, cases 62 to 65 and 76: what commands write is whole, old or new, and they say how it went.

One point of each here; `python -m tests.crash` goes through every one.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.forks import Action, Commands, compiled, fast_keys
from tests.crash.joins import Joins
from tests.crash.points import scratch
from tests.crash.scenes import World

FAULTS = {
    "create": Action.KILL,
    "trust": Action.FULL,
    "invite": Action.EIO,
    "node-backup": Action.KILL,
    "node-restore": Action.FULL,
    "send": Action.KILL,
    "backup": Action.TORN,
    "get": Action.TORN,
    "evidence": Action.EIO,
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler, cc")
    shim = compiled(tmp_path_factory.mktemp("shim"))
    with fast_keys(), Commands(shim) as running:
        yield running


@pytest.fixture(scope="module")
def world(commands: Commands) -> Iterator[World]:
    with scratch() as base:
        yield World(base / "world", commands)


def test_a_join_goes_on(commands: Commands) -> None:
    """Killed, or without power, between what the node registers and what the device keeps.

    Its user would have to be put out, and invited anew, to get in at all.
    """
    with scratch() as base, closing(Joins(base / "joins", commands)) as joins:
        done = joins.film()
        for fault, share in ((Action.KILL, 3), (Action.TORN, 2), (Action.FULL, 2)):
            joins.play(fault, done.operations // share)
        joins.cut(done, 1)


@pytest.mark.parametrize("name", FAULTS)
def test_a_command(world: World, name: str) -> None:
    (scene,) = (one for one in world.scenes() if one.name == name)
    done = scene.film()
    assert done.operations >= len(done.log) > 8, "the shim sees what is done"
    scene.play(FAULTS[name], done.operations * 2 // 3)
    scene.cut(done, 1)


def test_a_killed_command_is_killed(world: World, tmp_path: Path) -> None:
    """The shim kills where it is told to: nothing after that was done."""
    arguments = ["agency", "create", "mz", "--zone", "RU", "--dir", str(tmp_path / "mz")]
    key = {"IVOR_PASSPHRASE_FILE": str(world.base / "pass")}
    key["IVOR_ROOT_PASSPHRASE_FILE"] = key["IVOR_PASSPHRASE_FILE"]
    done = world.commands.run(arguments, tmp_path, key, Action.KILL, 9)
    assert done.code == -9
    assert 0 < len(done.log) < 9
    assert not (tmp_path / "mz").exists()
