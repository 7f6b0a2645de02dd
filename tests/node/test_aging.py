"""SPEC 2.6: a clock that has leapt ahead drops nothing before it has been so for a day."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.agency import DATABASE_FILE
from node.aging import LEAP_MS, PATIENCE_MS, STEP_MS, may_age, waits_until
from node.config import Settings
from node.database import connect
from node.doctor import examine
from node.driver import Connection
from node.hub import Hub
from node.larder import Larder
from node.schema import SCHEMA
from node.sweep import Sweep
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.homes import MZ, Home
from tests.node.test_payloads import START_MS, Clock, canary, keep_for, say

NOW_MS = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000
YEAR_MS = 365 * DAY_MS


@pytest.fixture
def database(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = connect(tmp_path / "aging.db", None)
    yield connection
    connection.close()


def asked(database: apsw.Connection, *moments: int) -> list[bool]:
    return [may_age(database, moment) for moment in moments]


def test_the_doctor_says_so(tmp_path: Path) -> None:
    ahead = NOW_MS + YEAR_MS
    with closing(connect(tmp_path / DATABASE_FILE, None)) as connection:
        assert asked(connection, NOW_MS, ahead) == [True, False]
    found = [
        next(one for one in examine(tmp_path, now / 1000) if one.check == "clock")
        for now in (0, ahead)
    ]
    assert [one.state for one in found] == ["fail", "warn"]
    assert "set the clock right" in found[-1].text


class TestClock:
    def test_that_goes_on(self, database: apsw.Connection) -> None:
        assert all(asked(database, *range(NOW_MS, NOW_MS + 30 * DAY_MS, DAY_MS // 24)))
        assert waits_until(database) is None

    def test_that_leaps_is_believed_after_a_day(self, database: apsw.Connection) -> None:
        ahead = NOW_MS + YEAR_MS
        assert asked(database, NOW_MS, ahead, ahead + PATIENCE_MS - 1) == [True, False, False]
        assert waits_until(database) == ahead + PATIENCE_MS
        assert asked(database, ahead + PATIENCE_MS, ahead + 2 * DAY_MS) == [True, True]
        assert waits_until(database) is None

    def test_that_leaps_and_is_set_right(self, database: apsw.Connection) -> None:
        """The wait for the next leap begins anew."""
        ahead = NOW_MS + YEAR_MS
        assert asked(database, NOW_MS, ahead, NOW_MS + DAY_MS) == [True, False, True]
        assert asked(database, ahead + PATIENCE_MS) == [False]

    def test_that_leaps_less_far_in_the_end(self, database: apsw.Connection) -> None:
        ahead = NOW_MS + YEAR_MS
        assert asked(database, NOW_MS, 2 * ahead, ahead, ahead + DAY_MS - 1) == [True, *3 * [False]]
        assert asked(database, ahead + DAY_MS) == [True]

    def test_that_was_ahead_from_the_start(self, database: apsw.Connection) -> None:
        assert asked(database, NOW_MS + YEAR_MS, NOW_MS, NOW_MS + YEAR_MS) == [True, True, False]

    def test_of_a_node_that_was_off_for_a_week(self, database: apsw.Connection) -> None:
        assert asked(database, NOW_MS, NOW_MS + LEAP_MS) == [True, True]

    @given(st.lists(st.integers(0, 20 * LEAP_MS), min_size=1, max_size=12))
    def test_never_believed_at_once(self, moments: Sequence[int]) -> None:
        """Whatever it shows: what is believed is near what was, or was shown a day before."""
        with closing(apsw.Connection(":memory:")) as connection:
            connection.execute(SCHEMA)
            believed: int | None = None
            for at, moment in enumerate(moments):
                if may_age(connection, moment):
                    near = believed is None or moment - believed <= LEAP_MS + STEP_MS
                    assert near or any(moment - one >= PATIENCE_MS for one in moments[:at])
                    believed = moment


async def test_a_node_drops_nothing_by_a_clock_that_has_leapt(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    talk = conversation(Dice(5), 0)
    talk.say(talk.people[0], canary(1))
    say(talk, talk.people[0], keep_for(3600))
    home = Home(tmp_path / "mz.db", MZ)
    clock = home.replica.payloads.clock = Clock()
    home.take(talk)
    nursery.start_soon(home.journal.run)
    hub: Hub[Connection] = Hub(MZ, trio.current_time)
    larder = Larder(home.replica, home.journal, Settings(), tmp_path, hub)
    sweep = Sweep(home.replica, home.journal, larder, hub)

    async def dropped(moment: int) -> int:
        clock.now = moment
        await sweep.drop_aged()
        return int(home.replica.store.connection.execute("SELECT count(*) FROM dropped").get)

    assert await dropped(START_MS) == 0
    with structlog.testing.capture_logs() as captured:
        assert await dropped(START_MS + YEAR_MS) == 0
    assert "set it right" in captured[0]["event"]
    assert await dropped(START_MS + YEAR_MS + DAY_MS - 1) == 0
    assert await dropped(START_MS + YEAR_MS + DAY_MS) > 0
