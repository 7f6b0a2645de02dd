"""What is fuzzed, and the law that it must keep.

    frames = target(decode_frame, encodes_again, refusals=(NotCanonical,), seeds=…, mutate=tree)
    frames.examine(data)           # silent, or raises Broken

`read` does with bytes what Ivor does with a stranger's, and may raise what SPEC says, and nothing
else. `law` says what must hold of all that is taken.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")
Mutate = Callable[[bytes, Random], bytes]
Setting = Callable[[], AbstractContextManager[None]]


class Broken(Exception):
    """Something else came out than SPEC allows."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    mutate: makes another input of one. bytes_max: longer ones say no more. setting: to be entered
    before the first input; what it makes cheaper it makes so for all that follow.
    """

    examine: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    mutate: Mutate
    bytes_max: int
    setting: Setting = nullcontext


def target(
    read: Callable[[bytes], T],
    law: Callable[[bytes, T], None],
    refusals: tuple[type[Exception], ...],
    seeds: Callable[[], Iterable[bytes]],
    mutate: Mutate,
    bytes_max: int = 4096,
    setting: Setting = nullcontext,
) -> Target:
    """Return a target. refusals: all that `read` may raise; `law` may raise nothing."""

    def examine(data: bytes) -> None:
        try:
            found = read(data)
        except refusals:
            return
        except Exception as error:
            raise Broken(f"{type(error).__name__} is no error that SPEC names here") from error
        try:
            law(data, found)
        except Exception as error:
            raise Broken(f"what was taken breaks a law: {error!r}") from error

    return Target(examine, seeds, mutate, bytes_max, setting)
