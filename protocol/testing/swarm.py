"""Many nodes that spread the entries of one large chat, without any I/O (tests and bench only).

    swarm = Swarm(Dice(7), 100)
    story = swarm.write(swarm.nodes[0])
    swarm.run(seconds=2)
    swarm.kill(nodes); swarm.notice(nodes)      # who is down, and that the others know it
    assert story.reached == swarm.alive

A heap of (time, number, event). Links have a delay of 10 to 50 ms each way, drawn once a link, as
in iroh-gossip's simulator. A payload counts as `PAYLOAD_BYTES`, other frames as what they encode
to.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from protocol.entry import ChatId, DeviceKey
from protocol.frame import Graft, Head, IHave, Prune, encode_frame
from protocol.limits import PREFIX_BYTES
from protocol.spread import NEVER, Spread, Told
from protocol.testing.cast import seed
from protocol.testing.histories import Dice

CHAT = ChatId(seed("large chat"))
PAYLOAD_BYTES = 350
DELAYS = range(10, 51)  # milliseconds


@dataclass(slots=True)
class Message:
    """One entry, where it is, and what it cost. reached: when and after how many hops."""

    head: Head
    begun: float
    reached: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    payloads: int = 0

    @property
    def seconds(self) -> float:
        """How long it took to the last that it reached."""
        return max(at for at, _ in self.reached.values()) - self.begun

    @property
    def hops(self) -> int:
        """How many hops the longest way had."""
        return max(hops for _, hops in self.reached.values())


class Swarm:
    """Nodes of as many agencies, all in one chat; whoever is alive can reach whoever is."""

    def __init__(self, dice: Dice, count: int) -> None:
        self.now = 0.0
        self.names = tuple(seed("agency", str(number)) for number in range(count))
        self.agencies = frozenset(self.names)
        self.spreads = {name: Spread(name) for name in self.names}
        self.alive = set(self.names)
        self.messages: dict[Head, Message] = {}
        self.sent = dict.fromkeys(self.names, 0)
        self.frames = {IHave: 0, Graft: 0, Prune: 0}
        self._salt = dice.pick(range(2**32))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._timers: dict[bytes, float] = {}
        for name, spread in self.spreads.items():
            spread.up_all(self.agencies - {name})

    def delay(self, one: bytes, other: bytes) -> float:
        """Return the seconds from one to the other: the same each time, and back."""
        mixed = crc32(min(one, other) + max(one, other), self._salt)
        return DELAYS[mixed % len(DELAYS)] / 1000

    # What happens

    def write(self, author: bytes) -> Message:
        """Let a node have something new of its own."""
        number = len(self.messages)
        device = DeviceKey(seed("device", str(number)))
        made = Message(Head(device, 1, 0, seed("entry", str(number))[:PREFIX_BYTES]), self.now)
        self.messages[made.head] = made
        self._store(author, author, made, 0)
        return made

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def kill(self, names: Iterable[bytes]) -> None:
        """Stop nodes; nobody has noticed yet, and what is said to them is lost."""
        self.alive -= set(names)

    def notice(self, names: Iterable[bytes]) -> None:
        """Let all who live know that these are down."""
        for name in names:
            for living in self.alive:
                self.spreads[living].down(name)

    def revive(self, names: Iterable[bytes]) -> None:
        """Let nodes that were down and noticed come back, as they were, and all know it."""
        self.alive |= set(names)
        for name in names:
            for living in self.alive - {name}:
                self.spreads[living].up(name)

    def near(self, name: bytes) -> set[bytes]:
        """Return the neighbours of a node that live."""
        return set(self.spreads[name].near(CHAT, self.agencies)) & self.alive

    def connected(self, start: bytes) -> set[bytes]:
        """Return whom what a node writes can come to, from neighbour to neighbour."""
        found, ahead = {start}, [start]
        while ahead:
            fresh = self.near(ahead.pop()) - found
            found |= fresh
            ahead += fresh
        return found

    # What follows

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _store(self, name: bytes, source: bytes, message: Message, hops: int) -> None:
        message.reached[name] = (self.now, hops)
        spread = self.spreads[name]
        told = spread.stored(CHAT, self.agencies, message.head, source, self.now)
        self._tell(name, told, message)

    def _tell(self, name: bytes, told: Sequence[Told], message: Message | None = None) -> None:
        for peer, frame in told:
            if frame is None:
                assert message is not None
                self._push(name, peer, message)
            else:
                self._say(name, peer, frame)
        self._wake(name)

    def _push(self, name: bytes, peer: bytes, message: Message) -> None:
        hops = message.reached[name][1] + 1
        message.payloads += 1
        self.sent[name] += PAYLOAD_BYTES
        self._at(
            self.now + self.delay(name, peer), lambda: self._arrived(peer, name, message, hops)
        )

    def _say(self, name: bytes, peer: bytes, frame: IHave | Graft | Prune) -> None:
        self.frames[type(frame)] += 1
        self.sent[name] += len(encode_frame(frame))
        self._at(self.now + self.delay(name, peer), lambda: self._heard(peer, name, frame))

    def _arrived(self, name: bytes, source: bytes, message: Message, hops: int) -> None:
        if name not in self.alive:
            return
        if name in message.reached:
            self._tell(name, self.spreads[name].repeated(CHAT, source))
        else:
            self._store(name, source, message, hops)

    def _heard(self, name: bytes, source: bytes, frame: IHave | Graft | Prune) -> None:
        if name not in self.alive:
            return
        spread = self.spreads[name]
        match frame:
            case IHave(_, heads):
                lacking = [head for head in heads if name not in self.messages[head].reached]
                spread.announced(CHAT, lacking, source, self.now)
            case Graft(_, head):
                spread.grafted(CHAT, self.agencies, source)
                if name in self.messages[head].reached:
                    self._push(name, source, self.messages[head])
            case Prune():
                spread.pruned(CHAT, source)
        self._wake(name)

    def _wake(self, name: bytes) -> None:
        """See to it that a node looks at its timers when the next is due."""
        due = self.spreads[name].due
        if due < self._timers.get(name, NEVER):
            self._timers[name] = due
            self._at(due, lambda: self._expire(name, due))

    def _expire(self, name: bytes, due: float) -> None:
        if self._timers.get(name) == due:
            del self._timers[name]
        if name in self.alive:
            self._tell(name, self.spreads[name].expired(self.now))
