"""Each benchmark runs at its smallest size and says what it should. No timing decides anything."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from bench.federation import free_port
from bench.figures import Line, encoded, lines_of, percentile, table
from bench.fit import centre, exponent, points
from bench.history import TEXT_BYTES, text_of

ROOT = Path(__file__).parent.parent
FIGURES = {
    "catch-up": {"rate", "limit", "of_limit", "wire", "disk", "cpu_receiver", "peak_receiver"},
    "join": {"screen", "lines", "all", "rate", "node"},
    "blob": {"sealed", "through two nodes", "whole way", "of_limit", "cpu_sender", "peak_reader"},
    "live": {"p50", "p99", "rate", "cpu_writer", "cpu_reader", "cpu_nodes"},
    "epoch": {"start", "open"},
    "reconnect": {"time", "sent", "received", "rate"},
    "command": {"send", "help", "python"},
    "load": {"connected", "memory", "files", "idle", "p99", "unstored", "undelivered", "back"},
    "spread": {"reached", "redundancy", "hops", "all", "sent", "control"},
    "membership": {"from_nothing", "one_more"},
    "verify": {"time", "rate"},
    "evidence": {"checked", "anchored", "bytes"},
}
FIELDS = {"bench", "case", "figure", "unit", "median", "min", "max", "runs", "calib_s"}


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench`."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str | float]]:
    """All benchmarks at their smallest, in one go; they leave nothing behind."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(*FIGURES, "--tiny", "--runs", "1", "--json", TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("ivor-bench-*"))
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_runs(name: str, lines: list[dict[str, str | float]]) -> None:
    found = [line for line in lines if line["bench"] == name]
    assert {line["figure"] for line in found} >= FIGURES[name]


def test_fields(lines: list[dict[str, str | float]]) -> None:
    assert all(set(line) == FIELDS for line in lines)
    assert all(line["runs"] == 1 and line["min"] == line["max"] for line in lines)


def test_load_loses_nothing(lines: list[dict[str, str | float]]) -> None:
    found = {line["figure"]: line["median"] for line in lines if line["bench"] == "load"}
    assert (found["unstored"], found["undelivered"], found["turned_away"]) == (0, 0, 0)


def test_what_is_ended_ends_its_children(tmp_path: Path) -> None:
    """A child goes when its parent is told to, though nobody has told it; so does the folder."""
    program = f"""
        from tempfile import TemporaryDirectory
        from bench.processes import leave_on_sigterm, running
        leave_on_sigterm()
        with TemporaryDirectory(dir={str(tmp_path)!r}), running(["cat"], "/") as child:
            print(child.process.pid, flush=True)
            child.line()
    """
    command = [sys.executable, "-c", dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.terminate()
        assert parent.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name() -> None:
    done = bench("ratchet")
    assert done.returncode == 2
    assert "catch-up" in done.stderr


def test_lines() -> None:
    runs = [{"rate": 3.0}, {"rate": 1.23456}, {"rate": 20_000.4}]
    line = lines_of("b", "c", {"rate": "1/s", "absent": ""}, runs, 0.4)[0]
    assert line == Line(
        bench="b",
        case="c",
        figure="rate",
        unit="1/s",
        median=3.0,
        min=1.235,
        max=20_000.0,
        runs=3,
        calib_s=0.4,
    )
    assert json.loads(encoded(line))["max"] == 20_000.0
    assert "20,000" in table([line])


def sized(x: int, value: float, figure: str = "time") -> Line:
    return lines_of("b", f"{x:,} chats, x", {figure: "ms"}, [{figure: value}], 0.4)[0]


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    lines = [sized(x, 7 * x**power) for x in (10, 100, 1000, 10_000)]
    values = points([*lines[::-1], sized(5, 1.0, "other")], "b", "chats, x", "time")
    assert [value.x for value in values] == [10, 100, 1000, 10_000]
    assert exponent(values) == pytest.approx(power, abs=0.001)
    x, y = centre(values)
    assert y == pytest.approx(7 * x**power, rel=0.001)


def test_pictures(tmp_path: Path) -> None:
    plots = pytest.importorskip("bench.plots", reason="matplotlib comes with `make plots`")
    lines = [sized(x, x) for x in (10, 100)]
    file = tmp_path / "lines.jsonl"
    found = [
        lines_of(one.bench, f"{x} {one.case}", {one.figures[0][0]: ""}, [{one.figures[0][0]: x}], 1)
        for one in plots.PICTURES
        for x in (10, 100)
    ]
    file.write_text("\n".join(encoded(line) for group in (lines, *found) for line in group))
    plots.main([str(file), str(tmp_path)])
    for picture in plots.PICTURES:
        for kind in ("svg", "png"):
            assert (tmp_path / f"{picture.name}.{kind}").stat().st_size > 1000


def test_percentile() -> None:
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5.0


@pytest.mark.parametrize("number", [0, 7, 99_999_999])
def test_texts(number: int) -> None:
    assert len(text_of(number).encode()) == TEXT_BYTES


def test_a_port_is_given_to_a_server_alone() -> None:
    address = ("127.0.0.1", free_port())
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(address)
    with socket.create_server(address) as server, socket.create_connection(address) as near:
        assert server.getsockname() == near.getpeername() == address
