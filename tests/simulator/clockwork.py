"""Simulated time: a heap of (time, sequence), and a stream of chance for each purpose.

    clock = Clockwork(seed=7)
    clock.after(0.02, deliver)              # deliver() runs 20 ms from now
    clock.stream("disk", "ada").random()    # chance that no other purpose draws from
    clock.run(until=60.0)

What happens at one moment happens in the order in which it was asked for. A stream is named, so
that what one part of the simulation draws moves nothing in another: a script with an act left out
meets the same network.
"""

import heapq
from collections.abc import Callable
from random import Random

Event = Callable[[], None]
MOMENT_EVENTS_MAX = 100_000


class TimeStandsStill(Exception):
    """Something asks to be called at once, again and again."""


class Clockwork:
    """The one clock, and the one heap, of a simulation."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self.sequence = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._streams: dict[tuple[str, ...], Random] = {}

    def stream(self, *purpose: str) -> Random:
        """Return the stream of this purpose."""
        found = self._streams.get(purpose)
        if found is None:
            found = self._streams[purpose] = Random("/".join((str(self.seed), *purpose)))
        return found

    def at(self, time: float, event: Event) -> None:
        """Let something happen at a time, now at the earliest."""
        self.sequence += 1
        heapq.heappush(self._heap, (max(time, self.now), self.sequence, event))

    def after(self, seconds: float, event: Event) -> None:
        """Let something happen after a while."""
        self.at(self.now + seconds, event)

    def run(self, until: float, each: Event) -> None:
        """Let everything happen up to a time; `each` is called after every event."""
        heap = self._heap
        moment = 0
        while heap and heap[0][0] <= until:
            before = self.now
            self.now, _, event = heapq.heappop(heap)
            self.events += 1
            moment = moment + 1 if self.now == before else 0
            if moment > MOMENT_EVENTS_MAX:
                raise TimeStandsStill(f"{moment} events at {self.now} s")
            event()
            each()
        self.now = until
