"""Questions and answers: what a node says, and what a device or a node asks (SPEC 7).

A node's answers are those of the real `node.service`, `abroad` and `directory`; a visit is the real
`client.link`, `exchange`, `linking` and `handing`. Only streams and tasks are not here.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from client import arrivals, exchange, people
from client.delivery import unstored
from client.exchange import REFRESH_MS
from client.handing import hand_on
from client.link import ANSWER_SECONDS_MAX, Link
from client.linking import History, take_parcels
from client.revoking import tell_again
from node import abroad
from node.driver import Connection
from node.errors import IvorError, NetworkError
from node.hub import Hub
from node.journal import Journal
from node.service import Node
from node.share import Share
from protocol.entry import DeviceKey
from protocol.errors import PeerError
from protocol.frame import Answer, Ask
from tests.simulator.running import FreeShare, HeapJournal, Late, Running, pause, put
from tests.simulator.wire import Line

if TYPE_CHECKING:
    from tests.simulator.devices import DeviceParty
    from tests.simulator.parties import NodeParty

REFRESHED = "refreshed"
REFRESH_SHARE = 0.15  # of the visits of a device
STALE_VISITS_MAX = 6  # then it refreshes in any case
SETTLE_LOOKS_MAX = 12  # before a command writes: as `cli.opening`, which looks more often
LOOK_SECONDS = 0.25


class Visit(Link):
    """One visit of a device, as far as it asks something: a link without a stream or tasks."""

    def __init__(self, party: "DeviceParty", line: Line) -> None:  # not Link's: it has a stream
        self.refused = []
        self.journal = cast(
            "Journal", HeapJournal(party, lambda: party.place.storing(party, (), None))
        )
        self.connection = cast("Connection", Peer(line, ANSWER_SECONDS_MAX))
        self._device = party.device
        self._party = party
        self._running = Running(party, self._run(), self._ended)

    @property
    def over(self) -> bool:
        """Whether the device has asked all that it had to ask."""
        return self._running.over

    async def _run(self) -> None:
        device, party = self._device, self._party
        party.stale_visits += 1
        if party.seeks:
            await self._look_around()
        elif party.chance.random() < REFRESH_SHARE or party.stale_visits > STALE_VISITS_MAX:
            party.stale_visits = 0
            await self.refresh()
        await self.compare_directories()
        await take_parcels(device, self, History())
        await self.write(lambda: arrivals.take_in(device, party.wall))
        await self.write(lambda: exchange.reach_more(device, party.wall))
        await tell_again(device, self)
        await exchange.hand_out(device, self)
        await hand_on(device, self)

    async def _look_around(self) -> None:
        """Take up all people once a day, and at each visit whom it does not know, as `exchange`."""
        device, now = self._device, self._party.wall
        if abs(now - await self.journal.read(lambda: device.done_at(REFRESHED))) >= REFRESH_MS:
            await self.refresh()
            await self.write(lambda: device.note(REFRESHED, now))
        await self.seek()

    def _ended(self, error: Exception | None) -> None:
        if isinstance(error, IvorError | PeerError):
            self._party.note("visit ends", type(error).__name__)
        elif error is not None:
            self._party.place.bug(self._party.name, error)

    async def _take_cards(self) -> None:
        """None are exchanged: a CA signs with ECDSA, so no run with its certificate is repeated."""

    async def _greet(self) -> None:
        """A visit begins when the node has greeted."""


class Search(Visit):
    """A device looks users up by their names. then, otherwise: what is done when that is over."""

    def __init__(
        self,
        party: "DeviceParty",
        line: Line,
        names: Sequence[str],
        then: Callable[[], object],
        otherwise: Callable[[], object],
    ) -> None:
        self._names, self._then, self._otherwise = names, then, otherwise
        super().__init__(party, line)

    async def _run(self) -> None:
        await self.seek()
        if self._names:
            await self.look_up(self._names)
        self._then()

    def _ended(self, error: Exception | None) -> None:
        super()._ended(error)
        if isinstance(error, NetworkError):
            self._otherwise()


class Command(Search):
    """A command meets the node before it looks users up, if any, and writes: `cli.opening`."""

    async def _run(self) -> None:
        for _ in range(SETTLE_LOOKS_MAX):
            if self.caught_up and not await self.journal.read(partial(unstored, self._device)):
                break
            await pause(self._party.place.clock, LOOK_SECONDS)
        await self.write(lambda: arrivals.take_in(self._device, self._party.wall))
        await exchange.decide(self._device, self)
        self._party.note("meets the node")
        await super()._run()


def about(
    party: "DeviceParty",
    names: Sequence[str],
    then: Callable[[], object],
    otherwise: Callable[[], object],
    search: type[Search] = Search,
) -> None:
    """Do something about users, looked up if the node is there; another thing if unknown."""
    known = party.up and all(people.acquaintance(party.device, name) for name in names)
    offline = then if known else otherwise
    found = next((line for line in party.lines if line.open), None)
    if party.up and found is not None:
        search(party, found, names, then, offline)
    else:
        offline()


class Peer:
    """What a `node.driver.Connection` is to whoever asks over it."""

    def __init__(self, line: Line, seconds: float = abroad.ANSWER_SECONDS_MAX) -> None:
        self.peer = line.peer
        self.key = line.key
        self._line = line
        self._seconds = seconds

    @property
    def caught_up(self) -> bool:
        """Whether all that the peer has listed is here."""
        return self._line.caught_up

    async def ask(self, topic: int, body: bytes) -> Answer:
        """Put a question to the peer. Raises NetworkError, or Late."""
        return await put(self._line, topic, body, self._seconds)


class _Hub:
    """What a `node.hub.Hub` is to whoever asks."""

    def __init__(self, hub: Hub[Line]) -> None:
        self._hub = hub

    def of(self, key: bytes) -> Sequence[Peer]:
        return [Peer(line) for line in self._hub.of(key)]

    def all(self) -> Sequence[Peer]:
        return [Peer(line) for line in self._hub.all() if line.open]

    async def newest(self, key: bytes) -> Peer:
        """Return the newest connection. Raises Late: nobody waits here until there is one."""
        found = self.of(key)
        if not found:
            raise Late
        return found[-1]


class Service(Node):
    """A node as far as it answers and asks: without sockets, tasks and blobs."""

    def __init__(self, party: "NodeParty") -> None:  # not Node's: it opens files and sockets
        self.agency = party.keys
        self.replica = party.replica
        self.directory = party.directory
        self.journal = cast("Journal", HeapJournal(party, bool))
        self.hub = cast("Hub[Connection]", _Hub(party.hub))
        self.pages = Counter()
        self._party = party

    def share(self, key: bytes) -> Share:
        """Everybody has all the time that there is."""
        del key
        return cast("Share", FreeShare())

    def _begin(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        async def begun() -> None:
            await work()

        Running(self._party, begun(), lambda error: self._failed(error, what))

    def _failed(self, error: Exception | None, what: str) -> None:
        if isinstance(error, IvorError | PeerError):
            self._party.note("fails", f"{what}: {type(error).__name__}")
        elif error is not None:
            self._party.place.bug(self._party.name, error)

    def answer(self, line: Line, ask: Ask) -> None:
        """Answer a question, some time."""

        async def work() -> None:
            line.say(await self.consult(cast("Connection", Peer(line)), ask))

        def ended(error: Exception | None) -> None:
            self._failed(error, "an answer")
            if isinstance(error, IvorError | PeerError):
                line.fail(error)

        Running(self._party, work(), ended)

    def tell_holdings(self, line: Line) -> None:
        """Tell a device how far its entries are."""
        connection = cast("Connection", line)
        self._begin("telling holdings", lambda: self._tell_holdings(connection))

    async def _part_with(self, device: DeviceKey) -> None:
        """Drop a device that its user gave up."""
        self._party.place.parted(device)

    def _has_signed(self) -> None:
        """Show the head at once: nobody enrols many one after the other here."""
        self._begin("showing our directory", self._show_directory)

    def compare(self, lines: Sequence[Line] | None = None) -> None:
        """Compare directories with some nodes, or with all that are connected."""
        self.pages.clear()
        peers = self._nodes() if lines is None else [cast("Connection", Peer(x)) for x in lines]
        self._begin("comparing directories", lambda: self._compare(peers))
