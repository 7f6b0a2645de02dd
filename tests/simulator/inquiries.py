"""Questions and answers: what a node says, and what a device asks at a visit (SPEC 7).

The answers are those of the real `node.directory`, and a visit is the real `client.link`,
`exchange`, `linking` and `handing`: their coroutines run here, one step at a time, and wait on the
heap. What `node.abroad` asks other nodes before it answers stands here again, without its tasks.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from unittest import mock

from client import arrivals, exchange
from client.handing import hand_on
from client.link import ANSWER_SECONDS_MAX, Link
from client.linking import History, take_parcels
from node import abroad
from node.errors import IvorError, NetworkError, reported
from node.journal import Journal
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
REFRESH_SHARE = 0.3  # of the visits of a device


# A node


def answer(node: "NodeParty", line: Line, ask: Ask) -> None:
    """Answer a question, as `node.service` does; what is for other agencies their nodes answer."""
    if line.peer is PeerKind.DEVICE and ask.topic == Topic.FORWARD:
        node.disk.read(partial(_pass_on, node, line, ask))
    elif line.peer is PeerKind.DEVICE and ask.topic == Topic.LOOKUP:
        node.disk.read(partial(_look_up, node, line, ask))
    else:
        _answer_here(node, line, ask, ())


def _answer_here(node: "NodeParty", line: Line, ask: Ask, unreached: Sequence[AgencyId]) -> None:
    found: list[Answer] = []

    def work() -> None:
        found.append(node.directory.answer(line.peer, line.key, ask, node.wall / MILLISECONDS))

    def ended(error: Exception | None) -> None:
        if error is None:
            line.say(abroad.without(found[0], unreached))
        else:
            _failed(node, line, error)

    node.disk.write(work, ended)


def _failed(node: "NodeParty", line: Line, error: Exception) -> None:
    if isinstance(error, IvorError | PeerError):
        line.fail(error)
    else:
        node.place.bug(node.name, error)


def _look_up(node: "NodeParty", line: Line, ask: Ask) -> None:
    """Put a look-up to the agencies concerned, as `node.abroad.look_up` does, and then answer."""
    try:
        wanted = node.directory.foreign(ask)
    except PeerError as error:
        line.fail(error)
        return
    left = set(wanted)
    unreached: list[AgencyId] = []

    def over(agency: AgencyId) -> None:
        left.discard(agency)
        if not left:
            _answer_here(node, line, ask, unreached)

    def heard(agency: AgencyId, said: Answer | None) -> None:
        if said is None:
            unreached.append(agency)
            over(agency)
            return
        keep = partial(node.directory.remember, agency, said, wanted[agency])
        node.disk.write(keep, lambda error: kept(agency, error))

    def kept(agency: AgencyId, error: Exception | None) -> None:
        if error is None or isinstance(error, IvorError | PeerError):
            over(agency)
        else:
            node.place.bug(node.name, error)

    for agency, body in wanted.items():
        _put(node, agency, ask.topic, body, partial(heard, agency))
    if not wanted:
        _answer_here(node, line, ask, ())


def _put(
    node: "NodeParty",
    agency: AgencyId,
    topic: int,
    body: bytes,
    then: Callable[[Answer | None], None],
) -> None:
    """Put a question to the node of an agency, if it is connected."""
    open_lines = node.hub.of(agency)
    if open_lines:
        open_lines[-1].ask(topic, body, then, abroad.ANSWER_SECONDS_MAX)
    else:
        then(None)


def _pass_on(node: "NodeParty", line: Line, ask: Ask) -> None:
    """Hand a device's parcel to the node of another agency, as `node.abroad.pass_on` does."""
    agency = _addressed(node, line, ask)

    def answered(said: Answer | None) -> None:
        if said is None:
            _answer_here(node, line, ask, ())
        else:
            line.say(Answer(ask.number, said.code, said.body))

    if agency is None:
        answered(None)
    else:
        _put(node, agency, ask.topic, ask.body, answered)


def _addressed(node: "NodeParty", line: Line, ask: Ask) -> AgencyId | None:
    """Return the other agency that a parcel is for; None if our own directory is to answer."""
    try:
        asked = decode_question(ask.topic, ask.body)
        if not isinstance(asked, Forward) or asked.agency == node.agency:
            return None
        node.directory.parcels.check(line.key, asked)
    except (PeerError, IvorError):
        return None
    return asked.agency


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


class Visit(Link):
    """One visit of a device, as far as it asks something: a link without a stream or tasks."""

    def __init__(self, party: "DeviceParty", line: Line) -> None:  # not Link's: it has a stream
        self.over = False
        self.refused = []
        self.journal = cast("Journal", self)
        self._device = party.device
        self._party = party
        self._line = line
        self._coroutine: Coroutine[_Begin, None, None] = self._run()
        self._step()

    def close(self) -> None:
        """The device's process is gone."""
        self.over = True
        self._coroutine.close()

    async def _run(self) -> None:
        device = self._device
        if self._party.chance.random() < REFRESH_SHARE:
            await self.refresh()
        await take_parcels(device, self, History())
        await self.write(lambda: arrivals.take_in(device, self._party.wall))
        await exchange.hand_out(device, self)
        await hand_on(device, self)

    def _step(self) -> None:
        """Go on with what was waited for, up to the next wait."""
        if self.over:
            return
        try:
            with mock.patch.object(time, "time", return_value=self._party.wall / MILLISECONDS):
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

    async def _take_cards(self) -> None:
        """None are exchanged: a CA signs with ECDSA, so no run with its certificate is repeated."""

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
