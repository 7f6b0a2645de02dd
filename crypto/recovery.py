"""The key pair that backups are sealed to, from a user's identity seed (SPEC 5.6).

    private = XL(seed, "backup", "", 32), an X-Wing decapsulation key

Whoever has the recovery phrase has the seed, and so opens the backups; nobody else does.
"""

from crypto.labels import expand_with_label
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey


def backup_key(seed: bytes) -> Prekey:
    """Return the pair that a user's backups are sealed to. seed: 32 bytes, of the identity key."""
    return Prekey(expand_with_label(seed, "backup", b"", PREKEY_PRIVATE_BYTES))
