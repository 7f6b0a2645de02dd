"""What was found about sets of one history's operations, and what a further one starts from.

All of it is a cache, and bounded: what is not here is judged again, from the nearest that is.
"""

from collections import deque

from protocol.trial import Verdict

VERDICTS_MAX = 1024
VOIDED_MAX = 1 << 18  # void operations in these: about 30 MB
NEWEST = 1024  # operations of which what each amounts to is kept; guess
EVERY = 16  # one of so many is kept of the older ones; guess
LATEST = 8  # guess
NEAR = 16  # operations that are judged sooner than a wider verdict is looked for; guess
NEW_FEW = 64  # operations that cost less than what one could shake; guess
GENESIS = 0


class Verdicts:
    """Verdicts by the set they are about. The genesis' comes first, and stays.

    A verdict on an operation and its past is found by the operation: `keep`. Any other that was
    asked for, `remember`, is found by its set.
    """

    def __init__(self) -> None:
        self._after: dict[int, Verdict] = {}
        self._at = 0
        self._newest: deque[int] = deque()
        self._passed = 0
        self._asked: dict[int, Verdict] = {}
        self._voided = 0
        self._voided_after = 0
        self._widest: Verdict | None = None

    def keep(self, index: int, found: Verdict) -> None:
        """Hold what an operation and its past amount to; each is the newest when it comes."""
        self._after[index] = found
        self._at |= 1 << index
        self._newest.append(index)
        self._voided_after += len(found.voids)
        while len(self._newest) > NEWEST or (len(self._newest) > 1 and self._has_much()):
            self._pass(self._newest.popleft())

    def _pass(self, index: int) -> None:
        """Hold an older one no longer, unless it is one of those that stay, or the genesis."""
        if index != GENESIS and (self._passed % EVERY or self._has_much()):
            self._voided_after -= len(self._after.pop(index).voids)
            self._at ^= 1 << index
        self._passed += 1

    def _has_much(self) -> bool:
        return self._voided_after > VOIDED_MAX

    def get(self, scope: int) -> Verdict | None:
        """Return the verdict on a set of operations, None if it is not at hand."""
        whole = self._after.get(scope.bit_length() - 1)
        if whole is not None and whole.scope == scope:
            return whole
        return self._asked.get(scope)

    def remember(self, found: Verdict) -> None:
        """Hold a verdict; the oldest go, by number, and by what is void in all of them."""
        self._asked[found.scope] = found
        self._voided += len(found.voids)
        while len(self._asked) > 1 and (
            len(self._asked) > VERDICTS_MAX or self._voided > VOIDED_MAX
        ):
            oldest = self._asked.pop(next(iter(self._asked)))
            self._voided -= len(oldest.voids)
        if self._widest is None or _width(self._widest) <= _width(found):
            self._widest = found

    def nearest(self, scope: int) -> Verdict:
        """Return a verdict to start from: of what one of the latest operations has seen, or wider.

        Each operation is new to the widest verdict once. So who writes on without having seen the
        rest costs what they write, and not all of it anew each time; nor do views that grow.
        """
        if self._widest is not None and not self._widest.scope & ~scope:
            return self._widest
        latest: list[int] = []
        rest = scope & self._at
        while rest and len(latest) < LATEST:
            latest.append(rest.bit_length() - 1)
            rest ^= 1 << latest[-1]
        found = max(map(self._after.__getitem__, latest), key=_width)
        if scope.bit_count() <= _width(found) + NEAR:
            return found
        inside = [one for held, one in self._asked.items() if not held & ~scope]
        known = max(inside, key=_width, default=found)
        return known if _width(known) + NEW_FEW >= _width(found) else found


def _width(verdict: Verdict) -> int:
    return verdict.scope.bit_count()
