"""Deeds that nobody does: what goes wrong with lines, machines, disks and clocks."""

from tests.simulator.devices import DeviceParty
from tests.simulator.parties import Party
from tests.simulator.script import Act
from tests.simulator.stage import Stage, between, pick

DOWN_SECONDS = (0.1, 25.0)
PARTED_SECONDS = (2.0, 60.0)
FULL_SECONDS = (1.0, 20.0)
DAY = 86400.0
JUMPS_SECONDS = (
    -3650 * DAY,
    -3600.0,
    60.0,
    2 * DAY,
    2 * DAY,
    8 * DAY,
    15 * DAY,
    3650 * DAY,
)


def _party(stage: Stage, act: Act) -> Party:
    return pick([*stage.nodes.values(), *stage.nodes.values(), *stage.devices], act.other)


def cut(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Cut all lines of a party."""
    del device
    for line in list(_party(stage, act).lines):
        if line.wire is not None:
            line.wire.cut()


def _sides(stage: Stage, act: Act) -> tuple[list[str], list[str]]:
    """Split the nodes, each with its devices now and then, into two sides."""
    names = list(stage.nodes)
    one = [name for at, name in enumerate(names) if act.draw >> at & 1] or names[:1]
    other = [name for name in names if name not in one] or names[-1:]
    if act.draw % 5 == 0:
        devices = [device.name for device in stage.devices]
        return one, devices
    return one, other


def part(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Let nothing pass between two sides for a while."""
    del device
    one, other = _sides(stage, act)
    stage.part(one, other, between(PARTED_SECONDS, act.other), both=True)


def part_one_way(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Let nothing pass one way between them."""
    del device
    one, other = _sides(stage, act)
    stage.part(one, other, between(PARTED_SECONDS, act.other), both=False)


def crash(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Take a party down for a while."""
    del device
    stage.crash(_party(stage, act), between(DOWN_SECONDS, act.draw))


def disk_full(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Let a party's disk be full for a while."""
    del device
    faults = _party(stage, act).disk.faults
    faults.full = True

    def freed() -> None:
        faults.full = False

    stage.clock.after(between(FULL_SECONDS, act.draw), freed)


def disk_fails(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Let writes and syncs of a party's disk fail now and then, for a while."""
    del device
    faults = _party(stage, act).disk.faults
    faults.failing = 0.3

    def mended() -> None:
        faults.failing = 0.0

    stage.clock.after(between(FULL_SECONDS, act.draw), mended)


def clock(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Set a party's clock off."""
    del device
    party = _party(stage, act)
    party.clock_off += pick(JUMPS_SECONDS, act.draw)
    party.disturbed = True
    party.note("clock", f"off by {party.clock_off:.0f} s")


def backup(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Keep a copy of a party's database."""
    del device
    party = _party(stage, act)
    if party.up:
        party.keep_backup()


def restore(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Bring a party back from such a copy."""
    del device
    kept = [one for one in (*stage.nodes.values(), *stage.devices) if one.backup is not None]
    if kept:
        stage.restore(pick(kept, act.other))


def age(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Have a party look at what has aged."""
    del device
    _party(stage, act).age()
