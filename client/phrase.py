"""The recovery phrase: a user's identity key as 24 words that a person can write down (SPEC 5.6).

The words are those of BIP 39, English list: 256 bits, and 8 of a checksum. They are the key itself,
so who has them speaks for the user wherever the agency lets a device in with them.
"""

from functools import cache

from mnemonic import Mnemonic

from crypto.signing import SEED_BYTES
from node.errors import UserError

WORDS = 24
SHOWN_CHARS_MAX = 32


@cache
def _list() -> Mnemonic:
    return Mnemonic("english")


def phrase_of(seed: bytes) -> tuple[str, ...]:
    """Return the 24 words of a 32-byte seed."""
    return tuple(_list().to_mnemonic(seed).split())


def seed_of(text: str) -> bytes:
    """Return the 32-byte seed of 24 words; case and white space do not matter.

    Raises UserError, naming the word that is not in the list, or saying what else is wrong.
    """
    words = text.lower().split()
    known = set(_list().wordlist)
    for number, word in enumerate(words, 1):
        if word not in known:
            raise UserError(
                f"word {number}, {word[:SHOWN_CHARS_MAX]!a}, is not in the list of recovery words; "
                "look at how it was written down"
            )
    if len(words) != WORDS:
        raise UserError(f"a recovery phrase has {WORDS} words, these are {len(words)}")
    try:
        seed = bytes(_list().to_entropy(words))
    except ValueError:
        raise UserError(
            "each word is in the list, but not together: the checksum is wrong. Two words may be "
            "exchanged, or one is another than was written down"
        ) from None
    assert len(seed) == SEED_BYTES
    return seed
