"""One federation a test, attacked while an honest pair talks; what must hold after every attack."""

import statistics
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest
import structlog
import trio

from node import dialler
from node.agency import DATABASE_FILE
from tests.hostile import federation as made
from tests.hostile.federation import NODES, Federation, Founded, p99
from tests.hostile.forger import Forger

BUGS = ("a bug ended a session", "a bug ended a job", "transaction failed")
ANSWER_SECONDS_MAX = 60.0  # of the worst message: that it comes at all (I20), not how soon
WORST_SHOWN = 5


noticed: list[tuple[float, str]] = []  # p99 in milliseconds, and during which test


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the honest pair noticed."""
    if not noticed:
        return
    middle = statistics.median(one for one, _ in noticed)
    terminalreporter.write_line(f"honest messages beside attacks: p99 {middle:.0f} ms, the median")
    for took, name in sorted(noticed, reverse=True)[:WORST_SHOWN]:
        terminalreporter.write_line(f"  {took:6.0f} ms  {name}")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Founded]:
    base = tmp_path_factory.mktemp("hostile")
    return base, made.found(base)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that dial each other sooner than in the field."""
    monkeypatch.setattr(dialler, "YIELD_SECONDS", 0.3)
    monkeypatch.setattr(dialler, "LOOK_SECONDS", 0.05)


@pytest.fixture
def events() -> Iterator[list[structlog.typing.EventDict]]:
    """What the nodes log; a bug among it fails the test."""
    with structlog.testing.capture_logs() as captured:
        yield captured
    found = [event for event in captured if event["event"] in BUGS]
    assert not found


@pytest.fixture
async def federation(
    template: tuple[Path, Founded],
    tmp_path: Path,
    events: list[structlog.typing.EventDict],
    request: pytest.FixtureRequest,
) -> AsyncIterator[Federation]:
    """Two nodes and an honest pair that talks all the time.

    After the test: all that the pair said has arrived, what was acknowledged is unchanged, the
    files are sound, and the node that was attacked starts again and serves. How long the pair had
    to wait is printed at the end, and decides nothing.
    """
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    async with trio.open_nursery() as nursery:
        running = await made.start(base, founded, nursery, events)
        before = {name: running.entries(name) for name in NODES}
        yield running
        if not running.finished:
            await running.more_messages()
            await running.finish()
        assert max(running.latencies) < ANSWER_SECONDS_MAX
        noticed.append((p99(running.latencies) * 1000, request.node.name))
        nursery.cancel_scope.cancel()
    for name in NODES:
        assert before[name] <= running.entries(name)
        check_file(base / name / DATABASE_FILE)
    async with trio.open_nursery() as nursery:
        await made.Federation(base, founded, nursery, events).serve_again()
        nursery.cancel_scope.cancel()


def check_file(file: Path) -> None:
    """The database is whole."""
    connection = apsw.Connection(str(file))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


@pytest.fixture
async def forger(federation: Federation) -> AsyncIterator[Forger]:
    """mallory, with an honest device's keys and no scruples."""
    device = federation.device("mallory")
    yield Forger(device, federation.founded.open)
    device.close()
