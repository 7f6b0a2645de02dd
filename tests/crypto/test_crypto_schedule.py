"""The key schedule, against its definition written out in hashlib and hmac (SPEC 4.3)."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from crypto import schedule

keys = st.binary(min_size=32, max_size=32)


def hmac256(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def xl32(secret: bytes, label: bytes, context: bytes) -> bytes:
    """XL(secret, label, context, 32) for short labels and contexts: one block of HKDF-Expand."""
    full = b"ivor/1 " + label
    info = b"\x00\x20" + bytes([len(full)]) + full + bytes([len(context)]) + context
    return hmac256(secret, info + b"\x01")


class TestSchedule:
    @given(keys, keys, st.binary(max_size=100))
    def test_epoch(self, secret: bytes, epoch_id: bytes, encoded: bytes) -> None:
        """Context, commitment, info and epoch secret are what SPEC writes."""
        ectx = schedule.epoch_context(encoded)
        assert ectx == hashlib.sha256(b"ivor/1 ectx" + encoded).digest()
        assert schedule.commitment(secret, ectx) == hmac256(secret, b"ivor/1 commit" + ectx)
        assert schedule.seal_info(encoded) == b"ivor/1 seal" + encoded
        assert schedule.epoch_secret(epoch_id, secret) == hmac256(epoch_id, secret)

    @given(keys, keys)
    def test_chains(self, secret: bytes, device: bytes) -> None:
        """Chain keys and seeds are what SPEC writes."""
        chain = schedule.sender_chain(secret, device)
        assert chain == xl32(secret, b"sender", device)
        assert schedule.message_seed(chain) == xl32(chain, b"seed", b"")
        assert schedule.next_chain(chain) == xl32(chain, b"next", b"")
        assert schedule.advance(chain) == (
            schedule.message_seed(chain),
            schedule.next_chain(chain),
        )

    @given(keys, st.integers(1, 30))
    def test_no_key_comes_twice(self, chain: bytes, count: int) -> None:
        """Seeds and chain keys of one chain are all different."""
        seen = {chain}
        for _ in range(count):
            seed, chain = schedule.advance(chain)
            seen |= {seed, chain}
        assert len(seen) == 2 * count + 1

    @given(keys, keys, keys)
    def test_chains_of_devices_differ(self, secret: bytes, one: bytes, other: bytes) -> None:
        """Each sender has a chain of its own."""
        same = schedule.sender_chain(secret, one) == schedule.sender_chain(secret, other)
        assert same == (one == other)

    @given(keys, keys, keys)
    def test_commitment_binds_the_secret(self, one: bytes, other: bytes, ectx: bytes) -> None:
        """Two secrets cannot pass for one."""
        same = schedule.commitment(one, ectx) == schedule.commitment(other, ectx)
        assert same == (one == other)
