"""Limits of the protocol that a seed makes small: what fills up once a year then fills up at once.

    with limited(drawn(seed=7)): …

A limit is changed only where it bounds what a party itself sends, keeps or does, so an honest peer
is still within what SPEC 8 allows. UNHEARD_MAX stays: what is beyond it comes with the next audit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from types import ModuleType
from typing import Final, NamedTuple
from unittest import mock

from client import archive, epochs, grants
from client import preview as previewing
from node import dealing, parcels, runs, seals, sharing
from protocol import held, intake, preview, reconcile, rings, session, spread

SHARES: Final = 0.2, 0.2, 0.6  # of the limits: one of these in a seed


class Limit(NamedTuple):
    """Where a limit is looked up, and how small it may be."""

    modules: Sequence[ModuleType]
    values: Sequence[int]


LIMITS: Final[Mapping[str, Limit]] = {
    "HEADS_CHAINS_MAX": Limit([sharing], [2, 4, 8]),
    "HELD_RUNS_MAX": Limit([held], [1, 2, 8]),
    "HELD_ENTRIES_MAX": Limit([held], [128]),
    "HELD_TRIES_MAX": Limit([intake], [1]),
    "WANTS_OUTSTANDING_MAX": Limit([intake, preview], [1, 3]),
    "WANTS_EARLY_MAX": Limit([intake], [1, 4]),
    "PAGES_OPEN_MAX": Limit([session], [1]),
    "RUN_ENTRIES_MAX": Limit([runs], [64]),
    "PREVIEW_BACKLOG_MIN": Limit([preview], [2, 8]),
    "PREVIEW_ENTRIES_MAX": Limit([preview], [1, 8]),
    "RECON_ROLL_MAX": Limit([reconcile], [1, 3]),
    "RECON_SPLIT_MAX": Limit([reconcile], [2, 3]),
    "RECON_PARTS_MAX": Limit([reconcile], [1, 4]),
    "RECON_ITEMS_MAX": Limit([reconcile], [1, 4]),
    "SEALS_FRAME_MAX": Limit([dealing], [1, 2]),
    "SEALS_SPREAD_MAX": Limit([seals], [1, 4]),
    "SEALLESS_ASKED_MAX": Limit([sharing], [1, 2]),
    "EPOCH_MESSAGES_MAX": Limit([epochs, previewing], [2, 8]),
    "EPOCHS_ASKED_MAX": Limit([grants], [1, 2]),
    "ASKS_AT_ONCE": Limit([grants], [1]),
    "GRANTS_AT_ONCE": Limit([grants], [1, 4]),
    "FORWARDED_MAX": Limit([parcels], [1, 4]),
    "WAITING_MAX": Limit([parcels], [1, 4]),
    "LETTERS_MAX": Limit([archive], [4, 16]),
    "SPREAD_ALL_MAX": Limit([spread], [1, 2, 3]),
    "EAGER_FEW": Limit([rings], [1, 2]),
    "DUPLICATES_MAX": Limit([spread], [1]),
    "GRAFTS_MAX": Limit([spread], [1]),
    "LAZY_QUEUE_MAX": Limit([spread], [1]),
    "MISSING_MAX": Limit([spread], [1, 4]),
    "ANNOUNCERS_MAX": Limit([spread], [1]),
    "TREES_MAX": Limit([spread], [1]),
    "IHAVE_HEADS_MAX": Limit([spread], [1]),
}


def drawn(seed: int) -> dict[str, int]:
    """Choose the limits that are small in this seed."""
    share = Random(f"{seed}/limits").choice(SHARES)
    chances = {name: Random(f"{seed}/{name}") for name in LIMITS}
    return {
        name: chance.choice(LIMITS[name].values)
        for name, chance in chances.items()
        if chance.random() < share
    }


def in_force(name: str) -> int:
    """Return what a limit is now."""
    value: int = getattr(LIMITS[name].modules[0], name)
    return value


@contextmanager
def limited(values: Mapping[str, int]) -> Iterator[None]:
    """Let these limits hold."""
    with ExitStack() as stack:
        for name, value in values.items():
            for module in LIMITS[name].modules:
                stack.enter_context(mock.patch.object(module, name, value))
        yield
