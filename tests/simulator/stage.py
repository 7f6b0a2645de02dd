"""What deeds are done to: the world, as far as a script may touch it; and what a number means."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from protocol.entry import DeviceKey
from protocol.person import Person
from tests.simulator.clockwork import Clockwork
from tests.simulator.devices import DeviceParty
from tests.simulator.parties import NodeParty, Party
from tests.simulator.script import Script

Thing = TypeVar("Thing")


def pick(things: Sequence[Thing], number: int) -> Thing:
    """Return the one that a number of an act stands for."""
    return things[number % len(things)]


def between(bounds: tuple[float, float], number: int) -> float:
    """Return the seconds that a number of an act stands for."""
    low, high = bounds
    return low + (high - low) * (number % 1000 / 1000)


class Stage(Protocol):
    """See `world.World`."""

    clock: Clockwork
    script: Script
    devices: list[DeviceParty]
    thieves: list[DeviceParty]
    cheats: list[DeviceParty]
    healed: bool

    @property
    def nodes(self) -> dict[str, NodeParty]:
        """The nodes, by the name of their agency."""

    def retry(self, one: Party, other: Party) -> None:
        """Let two parties try anew, soon."""

    def certify(self, first: DeviceParty, then: Callable[[DeviceKey, Person], None]) -> None:
        """Have the node certify the further device of a first one's user; then do that."""

    def recover(self, lost: DeviceParty, then: Callable[[DeviceParty, Person], None]) -> None:
        """Let a first device be gone, and its user enrol another one by the recovery words."""

    def enrol(self, number: int) -> None:
        """Enrol one of the newcomers that are left, if there are any."""

    def dismiss(self, device: DeviceParty) -> None:
        """Have the node refuse a device; then it is gone."""

    def part(self, one: Sequence[str], other: Sequence[str], seconds: float, *, both: bool) -> None:
        """Let nothing pass for a while."""

    def crash(self, party: Party, seconds: float) -> None:
        """Take a party down for a while."""

    def restore(self, party: Party) -> None:
        """Bring a party back from its last backup."""

    def steal(self, victim: DeviceParty) -> None:
        """Copy a device with its keys."""
