"""The key schedule: from an epoch's secret to the seed of one message (SPEC 4.3).

    ectx     = H("ivor/1 ectx" ‖ encoded)
    commit   = HMAC(s, "ivor/1 commit" ‖ ectx)
    info     = "ivor/1 seal" ‖ encoded
    es       = Extract(salt = epoch id, ikm = s)
    ck[j, 0] = XL(es, "sender", device j, 32)
    seed     = XL(ck, "seed", "", 32);  ck' = XL(ck, "next", "", 32)

`encoded` is the canonical encoding of the fields that SPEC names; encoding is the protocol's work.
Erasing is the caller's: after `sender_chain` for each device drop s and es, after `advance` drop
the chain key given to it, and store none of them. Forward secrecy is exactly this erasing.
"""

from typing import Final

from crypto.labels import PREFIX, digest, expand_with_label, extract, mac

SECRET_BYTES: Final = 32
CHAIN_BYTES: Final = 32
SEED_BYTES: Final = 32

_SEAL_INFO: Final = PREFIX + b"seal"


def epoch_context(encoded: bytes) -> bytes:
    """Return ectx, 32 bytes: it binds an epoch to its chat, author, place and membership view.

    encoded: enc[chat, dev, seq, prev, ctl, suite, recipients_root, shareable].
    """
    return digest("ectx", encoded)


def commitment(secret: bytes, ectx: bytes) -> bytes:
    """Return commit, 32 bytes, for the signed header: members cannot be given different secrets.

    secret: the epoch's 32 random bytes. A receiver recomputes it and compares in constant time.
    """
    return mac(secret, "commit", ectx)


def seal_info(encoded: bytes) -> bytes:
    """Return the `info` of the seal to one device, by which it is void anywhere else.

    encoded: enc[ectx, commit, dev_i, prekey_i].
    """
    return _SEAL_INFO + encoded


def epoch_secret(epoch_id: bytes, secret: bytes) -> bytes:
    """Return es, 32 bytes. epoch_id: the id of the epoch's entry, which commits to `secret`."""
    return extract(epoch_id, secret)


def sender_chain(secret: bytes, device: bytes) -> bytes:
    """Return ck[j, 0], 32 bytes: the first chain key of the sending `device`.

    secret: what `epoch_secret` returned.
    """
    return expand_with_label(secret, "sender", device, CHAIN_BYTES)


def message_seed(chain: bytes) -> bytes:
    """Derive the 32-byte seed of the message at this chain key, for `content`."""
    return expand_with_label(chain, "seed", b"", SEED_BYTES)


def next_chain(chain: bytes) -> bytes:
    """Derive the 32-byte chain key after this one. There is no way back."""
    return expand_with_label(chain, "next", b"", CHAIN_BYTES)


def advance(chain: bytes) -> tuple[bytes, bytes]:
    """Return (seed of this message, chain key of the next). Erase `chain` now."""
    return message_seed(chain), next_chain(chain)
