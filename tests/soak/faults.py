"""What goes wrong in a soak, and when: from a seed, as a list of what is due."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from tests.soak.stage import Actor, Stage

FIRST_SECONDS = 5.0
PAUSE_SECONDS = 25.0  # between faults, on average
CUT_SECONDS = (3.0, 40.0)
FROZEN_SECONDS = (1.0, 15.0)
VISIT_SECONDS = (5.0, 25.0)

Act = Callable[[], None]


@dataclass
class Faults:
    """What is due. tell: gets a word about each, as it happens."""

    stage: Stage
    dice: Random
    tell: Callable[[str, str], None]
    _due: list[tuple[float, int, Act]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def begin(self, now: float) -> None:
        """Plan the first fault."""
        first = now + FIRST_SECONDS
        self._at(first, lambda: self._next(first))

    def happen(self, now: float) -> None:
        """Let everything happen that is due."""
        while self._due and self._due[0][0] <= now:
            _, _, act = heapq.heappop(self._due)
            act()

    def heal(self) -> None:
        """Let everything that was begun end, and plan no more."""
        self._due.clear()
        for actor in self.stage.visitors:
            actor.stop()
        for actor in self.stage.all:
            actor.thaw()
        for line in self.stage.lines:
            line.say("heal")

    def _at(self, when: float, act: Act) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), act))

    def _next(self, now: float) -> None:
        later = now + self.dice.expovariate(1 / PAUSE_SECONDS)
        self._at(later, lambda: self._next(later))
        chosen = self.dice.choice(
            (self._kill_node, self._kill_official, self._cut, self._freeze, self._visit)
        )
        chosen(now)

    def _kill_node(self, _: float) -> None:
        node = self.stage.nodes[-1]
        self.tell("killed", node.name)
        node.kill()
        node.start()

    def _kill_official(self, _: float) -> None:
        official = self.dice.choice(self.stage.officials)
        self.tell("killed", official.name)
        official.kill()
        official.start()

    def _cut(self, now: float) -> None:
        line = self.dice.choice(self.stage.lines)
        how = self.dice.choice(("cut", "drop"))
        self.tell(how, line.name)
        line.say(how)
        self._at(now + self.dice.uniform(*CUT_SECONDS), lambda: self._end(line, "heal"))

    def _end(self, line: Actor, how: str) -> None:
        self.tell(how, line.name)
        line.say(how)

    def _freeze(self, now: float) -> None:
        node = self.stage.nodes[-1]
        if node.frozen:
            return
        self.tell("frozen", node.name)
        node.freeze()
        self._at(now + self.dice.uniform(*FROZEN_SECONDS), node.thaw)

    def _visit(self, now: float) -> None:
        visitor = self.dice.choice(self.stage.visitors)
        if visitor.child is not None:
            return
        self.tell("visits", visitor.name)
        visitor.start()
        self._at(now + self.dice.uniform(*VISIT_SECONDS), visitor.stop)
