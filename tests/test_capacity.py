"""The capacity model's arithmetic, on numbers that can be worked out by hand."""

from pathlib import Path

import pytest

from bench import capacity
from bench.capacity import (
    Constants,
    Country,
    Machine,
    NotMeasured,
    checks,
    constants,
    figures,
    loads,
    need,
    sizes,
    total,
)
from bench.figures import Line, encoded, lines_of

ONE = Constants(
    disk_bytes=400,
    wire_bytes=300,
    cpu=0.001,
    pushed_cpu=0.0005,
    resting_cpu=0.00001,
    memory_bytes=100_000,
    node_bytes=10**8,
)
COUNTRY = Country(
    agencies=2,
    users=1000,
    messages_day=36_000,
    devices_user=2,
    online=0.5,
    busiest_hour=0.1,
    storing_agencies=2,
    readers=6,
    pushed_bytes=100,
)


def measured() -> list[Line]:
    units = {"disk": "B", "wire": "B", "peak_receiver": "MiB"}
    history = {"disk": 400.0, "wire": 300.0, "peak_receiver": 100.0}
    load = {"cpu": "%", "idle": "%", "memory": "KiB"}
    busy = {"cpu": 42.0, "idle": 2.0, "memory": 100.0}
    small = {"cpu": 5.25, "idle": 0.25, "memory": 200.0}
    return [
        *lines_of("catch-up", "100,000 texts", units, [history], 0.4),
        *lines_of("catch-up", "1,000 texts", units, [history | {"disk": 500.0}], 0.4),
        *lines_of("live", "200 messages/s", {"cpu_nodes": "µs"}, [{"cpu_nodes": 4000.0}], 0.4),
        *lines_of("load", "2,000 devices, 20,000 chats, 100 messages/s", load, [busy], 0.4),
        *lines_of("load", "250 devices, 500 chats, 10 messages/s", load, [small], 0.4),
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text("\n".join(map(encoded, measured())) + "\n")
    return tmp_path


def test_constants_come_from_the_results(results: Path) -> None:
    """40 % of a core for 100 messages are 4 ms each: 2 as `live` has it, 1 for each further one."""
    found = figures(results)
    one = constants(found)
    assert (one.disk_bytes, one.wire_bytes, one.node_bytes) == (400, 300, 100 * 2**20)
    assert (one.cpu, one.pushed_cpu, one.resting_cpu) == pytest.approx((0.002, 0.001, 0.00001))
    assert one.memory_bytes == 100 * 1024
    assert [load.devices for load in loads(found)] == [250, 2000]


def test_later_files_win(results: Path) -> None:
    later = lines_of("catch-up", "100,000 texts", {"disk": "B"}, [{"disk": 300.0}], 0.4)
    (results / "b.jsonl").write_text(encoded(later[0]))
    assert constants(figures(results)).disk_bytes == 300


def test_what_was_not_measured_is_named(results: Path) -> None:
    kept = [line for line in measured() if line.bench != "live"]
    (results / "a.jsonl").write_text("\n".join(map(encoded, kept)))
    with pytest.raises(NotMeasured, match="live"):
        constants(figures(results))


def test_checks_are_of_other_sizes(results: Path) -> None:
    """10 messages at 4 ms and 250 devices that rest: 4.25 %, where 5.25 were measured."""
    found = figures(results)
    rows = checks(found, constants(found))
    assert rows == [
        ("disk, 1,000 texts", "400.0", "500.0", "B/entry", "0.80"),
        ("wire, 1,000 texts", "300.0", "300.0", "B/entry", "1.00"),
        ("CPU, 250 devices", "4.2", "5.2", "%", "0.81"),
    ]


def test_an_agency() -> None:
    """500 of 1,000 users: of 36,000 messages a day half, at two agencies, a tenth in one hour."""
    found = need(500, COUNTRY, Machine(), ONE)
    assert (found.users, found.devices, found.taken) == (500, 500, 1.0)
    assert found.cores == pytest.approx(1.0 * (0.001 + 2 * 0.0005) + 500 * 0.00001)
    assert found.memory_bytes == 10**8 + 500 * 100_000
    assert found.year_bytes == pytest.approx(36_000 * 365 * 400)
    assert found.line == pytest.approx(1.0 * (1 + 3) * 400 * 8)
    assert found.machines == 1


@pytest.mark.parametrize(
    ("machine", "machines"),
    [
        (Machine(busy=0.007), 1),
        (Machine(busy=0.0069), 2),
        (Machine(memory_gib=0.1, spare_memory=0.5), 3),
    ],
)
def test_machines(machine: Machine, machines: int) -> None:
    """By the core of its node, and by what its connections hold."""
    assert need(500, COUNTRY, machine, ONE).machines == machines


def test_sizes_add_up() -> None:
    country = Country()
    found = sizes(country)
    assert (len(found), sum(found)) == (country.agencies, country.users)
    assert found == sorted(found, reverse=True)
    assert found[0] / found[1] == pytest.approx(2**0.8, rel=0.01)


def test_the_sum_is_the_sum() -> None:
    parts = [need(users, COUNTRY, Machine(), ONE) for users in (400, 600)]
    whole = total(parts)
    assert (whole.users, whole.machines) == (1000, 2)
    assert whole.taken == pytest.approx(2.0)


def test_it_prints(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(results)
    said = capsys.readouterr().out
    for word in ("assumed", "measured", "largest", "median", "18,000,000"):
        assert word in said
