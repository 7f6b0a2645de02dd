"""What waits to be sent to one peer: bounded, and in order (SPEC 6.6)."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from node.errors import NetworkError
from protocol.effect import Wake
from protocol.frame import Frame, Have, Holding, encode_frame
from protocol.limits import (
    HEADS_DELAY_SECONDS,
    QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX,
)
from protocol.session import Greeting, PeerKind, Session, State

SEND_BYTES = 256 * 1024
UNREAD_BYTES_MAX = 4 * QUEUE_BYTES_MAX  # that wait for a peer, before it is given up; guess


class Outgoing(ABC):
    """A session, and the frames that wait to be sent in it.

    key: agency id of a node, device key, or ticket of a peer. clock: seconds, monotonic. A driver
    says in `worked`, `wake`, `close` and `fail` how it is told of what others do to this session.
    """

    def __init__(
        self, peer: PeerKind, key: bytes, greeting: Greeting, clock: Callable[[], float]
    ) -> None:
        self.peer = peer
        self.key = key
        self._now = clock
        self._session = Session(peer, greeting, clock())
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0

    @property
    def open(self) -> bool:
        """Whether the peer has greeted and the session goes on."""
        return self._session.state is State.OPEN

    # What a driver says

    @abstractmethod
    def worked(self) -> None:
        """A frame waits to be sent."""

    @abstractmethod
    def wake(self, at: float) -> None:
        """Call `expired` at this time."""

    @abstractmethod
    def close(self) -> None:
        """End the session in a friendly way."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """End the session, and remember why."""

    # What others send

    def send(self, frame: Frame) -> None:
        """Queue a frame that must not be lost. Fails on a peer that never reads."""
        raw = encode_frame(frame)
        frames, size = len(self._queue), self._queued_bytes + len(raw)
        if frames >= QUEUE_FRAMES_MAX * 4 or size > UNREAD_BYTES_MAX:
            self.fail(NetworkError("the peer does not read what it is sent"))
            return
        self._enqueue(raw)

    def push(self, raw: bytes) -> None:
        """Queue an encoded run, if there is room; heads will tell of it in any case."""
        if not self.open:
            return
        room = len(self._queue) < QUEUE_FRAMES_MAX
        if room and self._queued_bytes + len(raw) <= QUEUE_BYTES_MAX:
            self._enqueue(raw)
        self.changed()

    def changed(self, delay: float = HEADS_DELAY_SECONDS) -> None:
        """Soon tell the peer which heads changed."""
        for effect in self._session.pushed(self._now(), delay):
            if isinstance(effect, Wake):
                self.wake(effect.at)

    def have(self, holdings: Sequence[Holding]) -> None:
        """Tell the peer who stores what."""
        if self.open and holdings:
            self.send(Have(tuple(holdings)))

    def _enqueue(self, raw: bytes) -> None:
        self._queue.append(raw)
        self._queued_bytes += len(raw)
        self.worked()

    def take_queued(self) -> list[bytes]:
        """Take the next frames that wait, as many as go out in one call."""
        batch: list[bytes] = []
        size = 0
        while self._queue and size < SEND_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        self._queued_bytes -= size
        return batch
