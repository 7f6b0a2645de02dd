"""Ed25519 signatures made by hand, from any scalar and any points: what a `Signer` never makes."""

from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_hash_sha512,
    crypto_scalarmult_ed25519_base_noclamp,
)

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
FIELD: Final = 2**255 - 19
ORDER_8: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
TORSION: Final = ORDER_8.to_bytes(32, "little")  # a point whose order is 8
COFACTOR: Final = 8
_SCALAR_BYTES: Final = 32


def as_scalar(number: int) -> bytes:
    """Write a number as a scalar."""
    return (number % ORDER).to_bytes(_SCALAR_BYTES, "little")


def times_base(scalar: int) -> bytes:
    """Return this many times the base point."""
    return crypto_scalarmult_ed25519_base_noclamp(as_scalar(scalar))


def with_torsion(point: bytes) -> bytes:
    """Add a point of order 8."""
    return crypto_core_ed25519_add(point, TORSION)


def challenge(key: bytes, point: bytes, message: bytes) -> bytes:
    """Return H(R ‖ A ‖ message), a scalar."""
    return crypto_core_ed25519_scalar_reduce(crypto_hash_sha512(point + key + message))


def sign_by_hand(secret: int, key: bytes, point: bytes, nonce: int, message: bytes) -> bytes:
    """Return R ‖ S, S = nonce + H(R ‖ A ‖ message) secret, whatever is given as A and R."""
    product = crypto_core_ed25519_scalar_mul(challenge(key, point, message), as_scalar(secret))
    return point + crypto_core_ed25519_scalar_add(as_scalar(nonce), product)
