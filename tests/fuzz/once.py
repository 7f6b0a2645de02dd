"""What has one answer is worked out once, or for seals by a stand-in: so that an input costs less.

    with verified_once(): …          # a signature, or an operation, that is right is read once
    with sealed_by_hashes(): …       # the same, and seals stand in (`tests.simulator.stand_ins`)

No law is weaker by it: what is wrong is found so each time, and what nobody has sealed does not
open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

from crypto import signing
from protocol import chat
from protocol.payload import decode_operation
from tests.simulator.stand_ins import Registry, seals_standing_in

SIGNATURES_MAX = 4096
OPERATIONS_MAX = 256
SEALS_MAX = 8192  # more than the longest input has


@contextmanager
def verified_once() -> Iterator[None]:
    """Remember what was right last."""
    verify = lru_cache(SIGNATURES_MAX)(signing.verify_raw)
    decode = lru_cache(OPERATIONS_MAX)(decode_operation)
    with (
        mock.patch.object(signing, "verify_raw", verify),
        mock.patch.object(chat, "decode_operation", decode),
    ):
        yield


@contextmanager
def sealed_by_hashes() -> Iterator[None]:
    """Let seals stand in."""
    with verified_once(), seals_standing_in(_Newest()):
        yield


class _Newest(Registry):
    """Forgets the oldest seals: a search makes millions."""

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        if len(self.seals) >= SEALS_MAX:
            del self.seals[next(iter(self.seals))]
        return super().seal(public, info, plaintext)
