"""What a soak measures and breaks. That it runs, `python -m tests.reliability --quick` shows."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio
import trio.testing

from tests.soak.faults import Faults
from tests.soak.figures import Counted, Happened, Record, Sample, grown, read, slopes
from tests.soak.line import Line, carry
from tests.soak.stage import Actor, Stage

HOUR = 3600.0


def samples(values: Sequence[float]) -> list[Sample]:
    """One an hour."""
    return [
        Sample(at=hour * HOUR, who="node", starts=1, values={"rss_mib": value})
        for hour, value in enumerate(values)
    ]


class TestFigures:
    def test_what_grows(self) -> None:
        assert slopes(samples([60, 61.5, 63, 64.5])) == {"rss_mib": pytest.approx(1.5)}

    def test_the_warm_up_does_not_count(self) -> None:
        assert slopes(samples([10, 50, 60, 60, 60, 60, 60, 60, 60])) == {"rss_mib": 0.0}

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few(self, count: int) -> None:
        assert slopes(samples([60.0] * count)) == {}

    def test_types_that_grew(self) -> None:
        before = {"dict": 10_000.0, "Entry": 100.0, "set": 10.0}
        after = {"dict": 11_000.0, "Entry": 2_000.0, "set": 400.0, "Leak": 900.0}
        assert list(grown(before, after).items()) == [("Entry", 1_900.0), ("Leak", 900.0)]

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        records: list[Record] = [
            *samples([1.0]),
            Happened(at=2.0, how="cut", who="line"),
            Counted(at=3.0, who="node", objects={"dict": 4.0}),
        ]
        file = tmp_path / "soak.jsonl"
        file.write_bytes(b"\n".join(map(msgspec.json.encode, records)))
        assert read(file) == records


class Played(Actor):
    """An actor that only says what would become of it."""

    said: list[str]

    def start(self) -> None:
        self.said.append(f"start {self.name}")

    def stop(self) -> None:
        self.said.append(f"stop {self.name}")

    def kill(self) -> None:
        self.said.append(f"kill {self.name}")

    def freeze(self) -> None:
        self.said.append(f"freeze {self.name}")

    def thaw(self) -> None:
        self.said.append(f"thaw {self.name}")

    def say(self, line: str) -> None:
        self.said.append(f"{line} {self.name}")


def played(seed: int, seconds: int) -> list[str]:
    """Return what happens to whom."""
    said: list[str] = []

    def actors(what: str) -> list[Actor]:
        made = [Played(f"{what}{number}", "", ()) for number in (1, 2)]
        for actor in made:
            actor.said = said
        return [*made]

    stage = Stage([], b"", actors("node"), actors("line"), actors("official"), actors("visitor"))
    faults = Faults(stage, Random(seed), lambda _how, _who: None)
    faults.begin(0.0)
    for now in range(seconds):
        faults.happen(float(now))
    faults.heal()
    return said


class TestFaults:
    def test_a_seed_decides(self) -> None:
        assert played(1, 2000) == played(1, 2000) != played(2, 2000)

    def test_all_kinds_and_all_ends(self) -> None:
        said = played(3, 20_000)
        kinds = {line.split()[0] for line in said}
        assert kinds == {"kill", "start", "cut", "drop", "heal", "freeze", "thaw", "stop"}
        for line in ("line1", "line2"):
            last = [one.split()[0] for one in said if one.endswith(line)][-1]
            assert last in {"heal", "thaw"}

    def test_the_first_node_lives(self) -> None:
        said = played(4, 20_000)
        assert "kill node2" in said
        assert not {"kill node1", "freeze node1", "stop node1"} & set(said)


class TestLine:
    @pytest.fixture
    async def line(self, nursery: trio.Nursery) -> AsyncIterator[tuple[Line, trio.SocketStream]]:
        """A line to somebody who says everything back, and a connection over it."""
        line = Line()
        line.whole.set()
        (echo,) = await nursery.start(partial(trio.serve_tcp, self.echo, 0, host="127.0.0.1"))
        inner = echo.socket.getsockname()[1]
        (outer,) = await nursery.start(
            partial(trio.serve_tcp, partial(carry, line, inner), 0, host="127.0.0.1")
        )
        stream = await trio.open_tcp_stream("127.0.0.1", outer.socket.getsockname()[1])
        async with stream:
            await stream.send_all(b"begun")
            assert await stream.receive_some() == b"begun"
            yield line, stream
        nursery.cancel_scope.cancel()

    async def echo(self, stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async def test_what_is_cut_waits(self, line: tuple[Line, trio.SocketStream]) -> None:
        way, stream = line
        way.obey("cut")
        await stream.send_all(b"late")
        with trio.move_on_after(0.05) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        way.obey("heal")
        assert await stream.receive_some() == b"late"

    async def test_what_is_dropped_ends(self, line: tuple[Line, trio.SocketStream]) -> None:
        way, stream = line
        way.obey("drop")
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert not way.connections
