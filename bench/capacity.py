"""What a country would need: `python -m bench.capacity`. From measured constants, by arithmetic.

What one entry and one device cost is read from the JSON lines of bench/results; what a country does
with them is assumed, and printed; attachments are not in it. A node is one process on one machine:
an agency that needs more has to be divided, one machine for each part.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.figures import Line
from bench.plain import aligned
from bench.processes import ROOT

RESULTS = ROOT / "bench" / "results"
DAY_SECONDS = 86_400
YEAR_DAYS = 365
GIB = 2.0**30
TB = 1e12


class NotMeasured(Exception):
    """No line of the results has this figure; the message says which benchmark gives it."""


@dataclass(frozen=True, slots=True)
class Country:
    """Who writes how much. The defaults are assumptions, but for the first four."""

    regions: int = 85
    agencies: int = 3_000
    users: int = 18_000_000
    messages_day: int = 200_000_000
    devices_user: float = 1.5
    online: float = 0.6  # of the devices, in the busiest hour
    busiest_hour: float = 0.15  # of a day's messages
    storing_agencies: float = 1.5  # that store a message: most chats are inside one agency
    readers: float = 6.0  # devices that a message is pushed to, at all agencies together
    pushed_bytes: float = 150.0  # a message that is pushed alone: frame, TLS record, TCP and IP
    falls_off: float = 0.8  # the n-th largest agency has the users of the first, over n to this


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node runs on. busy: how much of its one core the busiest hour may take."""

    cores: int = 2
    memory_gib: float = 4.0
    busy: float = 0.5
    spare_memory: float = 0.25  # for the system, and the cache of the disk


@dataclass(frozen=True, slots=True)
class Constants:
    """What was measured. cpu: seconds; of a message that a node takes in and pushes to one device.

    pushed_cpu: of each further device. resting_cpu: of a device that rests, a second.
    """

    disk_bytes: float
    wire_bytes: float
    cpu: float
    pushed_cpu: float
    resting_cpu: float
    memory_bytes: float
    node_bytes: float


class Load(NamedTuple):
    """One measured load: of how many devices, at how many messages a second, to how many others."""

    devices: int
    rate: float
    cpu: float
    idle: float
    memory: float


HISTORY = "100,000 texts"
OTHERS = 3  # whom a message of the load benchmark is pushed to: its chats have four members


def figures(results: Path) -> Mapping[tuple[str, str, str], float]:
    """Return the medians of all lines, by benchmark, case and figure; later files win."""
    return {
        (line.bench, line.case, line.figure): line.median
        for file in sorted(results.glob("*.jsonl"))
        for line in (
            msgspec.json.decode(raw, type=Line) for raw in file.read_bytes().splitlines() if raw
        )
    }


def loads(found: Mapping[tuple[str, str, str], float]) -> list[Load]:
    """Return the measured loads, the largest last."""
    listed = []
    for case in {case for bench, case, _ in found if bench == "load"}:
        devices, _, rate = (part.split()[0].replace(",", "") for part in case.split(", "))
        cpu, idle, memory = (found["load", case, name] for name in ("cpu", "idle", "memory"))
        listed.append(Load(int(devices), float(rate), cpu / 100, idle / 100, memory * 1024))
    return sorted(listed)


def constants(found: Mapping[tuple[str, str, str], float]) -> Constants:
    """Work out what one entry and one device cost. Raises NotMeasured."""
    try:
        live = found["live", "200 messages/s", "cpu_nodes"] / 2 * 1e-6  # two nodes
        *_, largest = loads(found)
        return Constants(
            disk_bytes=found["catch-up", HISTORY, "disk"],
            wire_bytes=found["catch-up", HISTORY, "wire"],
            cpu=live,
            pushed_cpu=max(0.0, (largest.cpu - largest.idle) / largest.rate - live) / (OTHERS - 1),
            resting_cpu=largest.idle / largest.devices,
            memory_bytes=largest.memory,
            node_bytes=found["catch-up", HISTORY, "peak_receiver"] * 2**20,
        )
    except (KeyError, ValueError) as error:
        lacking = error.args[0] if isinstance(error, KeyError) else "load"
        raise NotMeasured(
            f"the results lack {lacking}: python -m bench catch-up live load --json gives it"
        ) from None


def sizes(country: Country) -> list[int]:
    """Return how many users each agency has, the largest first; they add up."""
    weights = [n**-country.falls_off for n in range(1, country.agencies + 1)]
    scale = country.users / sum(weights)
    rounded = [max(1, math.floor(weight * scale)) for weight in weights]
    rounded[0] += country.users - sum(rounded)
    return rounded


@dataclass(frozen=True, slots=True)
class Need:
    """What one agency needs. taken: entries a second that its node takes in, in the busiest hour.

    year_bytes: on disk. line: bits a second in that hour, in and out.
    """

    users: int
    devices: float
    taken: float
    cores: float
    memory_bytes: float
    year_bytes: float
    line: float
    machines: int


def need(users: int, country: Country, machine: Machine, one: Constants) -> Need:
    """Return what an agency of this many users needs."""
    share = users / country.users
    day = country.messages_day * share * country.storing_agencies
    taken = day * country.busiest_hour / 3600
    pushes = country.readers / country.storing_agencies
    devices = users * country.devices_user * country.online
    cores = taken * (one.cpu + max(0.0, pushes - 1) * one.pushed_cpu) + devices * one.resting_cpu
    memory = one.node_bytes + devices * one.memory_bytes
    entry = one.wire_bytes + country.pushed_bytes
    usable = machine.memory_gib * GIB * (1 - machine.spare_memory)
    return Need(
        users,
        devices,
        taken,
        cores,
        memory,
        day * YEAR_DAYS * one.disk_bytes,
        taken * (1 + pushes) * entry * 8,
        max(1, math.ceil(cores / machine.busy), math.ceil(memory / usable)),
    )


def total(needs: Sequence[Need]) -> Need:
    """Add up."""
    return Need(*(sum(values) for values in zip(*map(_fields, needs), strict=True)))


def _fields(one: Need) -> tuple[int, float, float, float, float, float, float, int]:
    return (
        one.users,
        one.devices,
        one.taken,
        one.cores,
        one.memory_bytes,
        one.year_bytes,
        one.line,
        one.machines,
    )


def checks(found: Mapping[tuple[str, str, str], float], one: Constants) -> list[tuple[str, ...]]:
    """Compare what the model says with what was measured at other sizes than its own."""
    said = {"disk": one.disk_bytes, "wire": one.wire_bytes}
    rows = []
    for (bench, case, figure), value in sorted(found.items()):
        if bench == "catch-up" and figure in said and case != HISTORY:
            rows.append(_compared(f"{figure}, {case}", said[figure], value, "B/entry"))
    for load in loads(found)[:-1]:
        cpu = load.rate * (one.cpu + (OTHERS - 1) * one.pushed_cpu)
        cpu += load.devices * one.resting_cpu
        rows.append(_compared(f"CPU, {load.devices:,} devices", cpu * 100, load.cpu * 100, "%"))
    return rows


def _compared(what: str, said: float, measured: float, unit: str) -> tuple[str, ...]:
    return what, f"{said:,.1f}", f"{measured:,.1f}", unit, f"{said / measured:.2f}"


def _row(name: str, one: Need) -> tuple[str, ...]:
    return (
        name,
        f"{one.users:,}",
        f"{one.devices:,.0f}",
        f"{one.taken:,.1f}",
        f"{one.cores:,.2f}",
        f"{one.memory_bytes / GIB:,.2f}",
        f"{one.year_bytes / TB:,.3f}",
        f"{one.line / 1e6:,.2f}",
        f"{one.machines:,}",
    )


HEADS = (
    "agency",
    "users",
    "devices online",
    "entries/s",
    "cores",
    "memory GiB",
    "disk TB/year",
    "line Mbit/s",
    "machines",
)


def main(results: Path) -> None:
    """Print assumptions, constants, checks and what follows."""
    country, machine = Country(), Machine()
    found = figures(results)
    one = constants(found)
    for title, values in (("assumed", country), ("a machine", machine), ("measured", one)):
        print(f"{title}:")
        for name in values.__slots__:
            print(f"  {name:<18}{getattr(values, name):>18,.6g}")
    print("\nthe model beside what was measured:")
    print(aligned([("", "model", "measured", "", "ratio"), *checks(found, one)]))
    needs = [need(users, country, machine, one) for users in sizes(country)]
    picked = [("largest", 0), ("10th", 9), ("100th", 99), ("median", len(needs) // 2)]
    rows = [_row(name, needs[at]) for name, at in [*picked, ("smallest", -1)]]
    per_region = country.agencies / country.regions
    print(f"\n{country.agencies:,} agencies, {per_region:.0f} a region, in the busiest hour:")
    print(aligned([HEADS, *rows, _row("all", total(needs))]))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    except NotMeasured as error:
        sys.exit(str(error))
