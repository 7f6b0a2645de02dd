"""Two agencies with a directory each, and two nodes that are not running yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node import agency as agencies
from node.agency import Agency, Founding
from tests.node.homes import MVD, MZ, Home
from tests.node.house import NOW, House, draw


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, Agency]:
    """Two agencies that tests only read."""
    made = []
    for name, zone in (("minzdrav", "RU-UDM"), ("mincifry", "RU")):
        folder = tmp_path_factory.mktemp("agency") / name
        founding = Founding(name, zone, (f"{name}.example:7340",), {})
        made.append(agencies.create(folder, founding, b"p", b"r", NOW, draw))
    return made[0], made[1]


@pytest.fixture
def house(founded: tuple[Agency, Agency], tmp_path: Path) -> Iterator[House]:
    made = House(founded[0], tmp_path / "node.db")
    yield made
    made.connection.close()


@pytest.fixture
def foreign(founded: tuple[Agency, Agency], tmp_path: Path) -> Iterator[House]:
    made = House(founded[1], tmp_path / "other.db")
    yield made
    made.connection.close()


@pytest.fixture
async def homes(tmp_path: Path, nursery: trio.Nursery) -> tuple[Home, Home]:
    made = Home(tmp_path / "mz.db", MZ), Home(tmp_path / "mvd.db", MVD)
    for home in made:
        nursery.start_soon(home.journal.run)
    return made
