"""I1, I16, I17, cases 62 to 65: the databases of a node and of a device on disks that fail.

A share of all points; `python -m tests.crash` goes through every one, and draws new images.
"""

from pathlib import Path
from random import Random

import pytest

from node.database import connect, empty_log
from tests.crash.disk import Disk, Fault
from tests.crash.points import Film, cut, failing, killed, restarted
from tests.crash.power import image, written

WORKS = ("node", "device")
POINTS = {"node": 40, "device": 8}
IMAGES = {"node": 250, "device": 10}
RESTARTS = {"node": 40, "device": 6}
FAULTS = {"node": 12, "device": 2}


@pytest.fixture(params=WORKS)
def film(films: dict[str, Film], request: pytest.FixtureRequest) -> Film:
    return films[request.param]


def shares(film: Film, films: dict[str, Film], chosen: dict[str, int]) -> int:
    """How many of something for this work."""
    (name,) = (name for name, one in films.items() if one is film)
    return chosen[name]


def test_killed(film: Film, films: dict[str, Film], base: Path) -> None:
    """Case 62."""
    step = len(film.log) // shares(film, films, POINTS)
    for at in range(0, len(film.log) + 1, step):
        killed(film, base, at)


def test_the_power_goes(film: Film, films: dict[str, Film], base: Path) -> None:
    """Cases 62 and 63: what was not synced is lost, in any part and order, and torn."""
    for seed in range(shares(film, films, IMAGES)):
        cut(film, base, seed)


def test_killed_started_again_and_then_the_power_goes(
    film: Film, films: dict[str, Film], base: Path
) -> None:
    """What a killed process had not synced is not told of before it is durable."""
    for seed in range(shares(film, films, RESTARTS)):
        restarted(film, base, seed)


@pytest.mark.parametrize("fault", Fault)
def test_an_operation_fails(film: Film, films: dict[str, Film], base: Path, fault: Fault) -> None:
    """Cases 63 to 65: the work is refused, reads go on, and so does the work."""
    total = film.chances[fault]
    step = total // shares(film, films, FAULTS)
    for at in range(step - 1, total, step):
        failing(film.work, base, fault, at)


def test_an_emptied_log_stays_empty(tmp_path: Path) -> None:
    """What was erased does not come back with a power cut (SPEC 10, rule 4)."""
    with Disk(tmp_path) as disk:
        connection = connect(tmp_path / "node.db", None)
        with connection:
            connection.execute("INSERT INTO meta VALUES ('canary', 'a key that is to be erased')")
        with connection:
            connection.execute("DELETE FROM meta WHERE key = 'canary'")
        assert any(b"to be erased" in data for data in written(disk.log).values())
        assert empty_log(connection)
        log = list(disk.log)
        connection.close()
    for seed in range(50):
        assert not any(b"to be erased" in data for data in image(log, Random(seed)).values())
