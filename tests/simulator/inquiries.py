"""Parcels on their way: what a node answers about them, and a device's part of a visit (SPEC 7.4).

The answers are those of the real `node.directory`. The device's part is the real `client.exchange`,
`linking` and `handing`: their coroutines run here, one step at a time, and wait on the heap.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from unittest import mock

from client import arrivals, exchange
from client.handing import hand_on
from client.link import ANSWER_SECONDS_MAX, Link
from client.linking import History, take_parcels
from node import abroad
from node.errors import IvorError, NetworkError, reported
from protocol.errors import PeerError
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId
from protocol.question import Forward, Question, decode_question, encode_question
from protocol.reply import Refusal, Reply, decode_answer
from protocol.session import PeerKind
from protocol.topic import Topic
from tests.simulator.wire import Line

if TYPE_CHECKING:
    from tests.simulator.parties import DeviceParty, NodeParty

Result = TypeVar("Result")
_Begin = Callable[[Callable[[], None]], None]
MILLISECONDS = 1000


# A node


def answer(node: "NodeParty", line: Line, ask: Ask) -> None:
    """Answer a question, as `node.service` does; what is for another agency its node answers."""
    if line.peer is PeerKind.DEVICE and ask.topic == Topic.FORWARD:
        node.disk.read(partial(_pass_on, node, line, ask))
    else:
        _answer_here(node, line, ask)


def _answer_here(node: "NodeParty", line: Line, ask: Ask) -> None:
    found: list[Answer] = []

    def work() -> None:
        found.append(node.directory.answer(line.peer, line.key, ask, node.wall / MILLISECONDS))

    def ended(error: Exception | None) -> None:
        if error is None:
            line.say(found[0])
        elif isinstance(error, IvorError | PeerError):
            line.fail(error)
        else:
            node.place.bug(node.name, error)

    node.disk.write(work, ended)


def _pass_on(node: "NodeParty", line: Line, ask: Ask) -> None:
    """Hand a device's parcel to the node of another agency, as `node.abroad.pass_on` does."""
    there = _way(node, line, ask)
    if there is None:
        _answer_here(node, line, ask)
        return

    def answered(said: Answer | None) -> None:
        if said is None:
            _answer_here(node, line, ask)
        else:
            line.say(Answer(ask.number, said.code, said.body))

    there.ask(ask.topic, ask.body, answered, abroad.ANSWER_SECONDS_MAX)


def _way(node: "NodeParty", line: Line, ask: Ask) -> Line | None:
    """Return the connection to the agency that a parcel is for; None if it stays here."""
    try:
        asked = decode_question(ask.topic, ask.body)
        if not isinstance(asked, Forward) or asked.agency == node.agency:
            return None
        node.directory.parcels.check(line.key, asked)
    except (PeerError, IvorError):
        return None
    open_lines = node.hub.of(AgencyId(asked.agency))
    return open_lines[-1] if open_lines else None


# A device


class _Wait(Awaitable[Result]):
    """Something that ends later. start: gets what to call with the outcome."""

    def __init__(self, start: Callable[[Callable[[Result], None]], object]) -> None:
        self._start = start

    def __await__(self) -> Generator[_Begin, None, Result]:
        found: list[Result] = []

        def begin(resume: Callable[[], None]) -> None:
            def ended(outcome: Result) -> None:
                found.append(outcome)
                resume()

            self._start(ended)

        yield begin
        return found[0]


class Visit:
    """One visit of a device as far as parcels go: a `client.link.Link` to the functions there."""

    def __init__(self, party: "DeviceParty", line: Line) -> None:
        self.over = False
        self.journal = self
        self._party = party
        self._line = line
        self._coroutine: Coroutine[_Begin, None, None] = self._run()
        self._step()

    def close(self) -> None:
        """The device's process is gone."""
        self.over = True
        self._coroutine.close()

    async def _run(self) -> None:
        device, link = self._party.device, cast("Link", self)
        await take_parcels(device, link, History())
        await self.write(lambda: arrivals.take_in(device, self._party.wall))
        await exchange.hand_out(device, link)
        await hand_on(device, link)

    def _step(self) -> None:
        """Go on with what was waited for, up to the next wait."""
        if self.over:
            return
        try:
            with mock.patch.object(exchange, "now_ms", return_value=self._party.wall):
                begin = self._coroutine.send(None)
        except StopIteration:
            self.over = True
        except (IvorError, PeerError) as error:
            self.over = True
            self._party.note("visit ends", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the simulator reports it
            self.over = True
            self._party.place.bug(self._party.name, error)
        else:
            begin(self._step)

    async def ask(self, question: Question) -> Reply:
        """Put a question to the node, as `Link.ask` does."""
        topic, body = encode_question(question)
        said = await _Wait[Answer | None](
            lambda ended: self._line.ask(topic, body, ended, ANSWER_SECONDS_MAX)
        )
        if said is None:
            raise NetworkError("the node did not answer in time; try again")
        try:
            return decode_answer(topic, said.code, said.body)
        except Refusal as refusal:
            raise reported(refusal.code, str(refusal)) from None

    async def write(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a transaction of the device, as `Link.write` does."""
        found: list[Result] = []

        def done() -> None:
            found.append(work())
            self._party.place.storing(self._party, (), None)

        error = await _Wait[Exception | None](lambda ended: self._party.disk.write(done, ended))
        if error is not None:
            raise error
        return found[0]

    async def read(self, work: Callable[[], Result]) -> Result:
        """Run `work` when no commit is under way, as `Journal.read` does."""
        await _Wait[None](lambda ended: self._party.disk.read(lambda: ended(None)))
        return work()
