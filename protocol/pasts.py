"""What each control entry of a chat had seen: a set of entries, as an int with one bit for each.

To keep one for each entry takes memory that grows with the square of their number, 2.5 GB for
200,000. So of those that are neither early nor recent only some are kept, and the others are put
together from these and from the few entries between.
"""

from collections.abc import Sequence

EARLY = 4096  # of which all are kept: 1 MiB
RECENT_MAX = 512
BETWEEN_MAX = 64  # entries that are looked at to find a past again


class Pasts:
    """The past of each entry, itself included, by number; they are appended in causal order."""

    def __init__(self) -> None:
        self._parents: list[Sequence[int]] = []
        self._kept: list[int] = []  # 0: found again when it is asked for
        self._recent: dict[int, int] = {}

    def __getitem__(self, index: int) -> int:
        """Return the past of an entry."""
        return self._kept[index] or self._recent.get(index) or self._found(index)

    def append(self, parents: Sequence[int]) -> None:
        """Take up the next entry. parents: the numbers of what it names, all lower."""
        index = len(self._parents)
        past = 1 << index
        for parent in parents:
            past |= self[parent]
        self._parents.append(parents)
        self._kept.append(0)
        if index < EARLY or len(self._between(index)) > BETWEEN_MAX:
            self._kept[index] = past
        else:
            self._remember(index, past)

    def _found(self, index: int) -> int:
        past = 0
        for one in self._between(index):
            past |= 1 << one
            for parent in self._parents[one]:
                past |= self._kept[parent]
        self._remember(index, past)
        return past

    def _remember(self, index: int, past: int) -> None:
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[index] = past

    def _between(self, index: int) -> set[int]:
        """Return an entry and its ancestors, up to those whose past is kept; not many too many."""
        found, waiting = {index}, [index]
        while waiting and len(found) <= BETWEEN_MAX:
            for parent in self._parents[waiting.pop()]:
                if not self._kept[parent] and parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found
