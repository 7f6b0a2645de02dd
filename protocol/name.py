"""Names of users, agencies, zones and endpoints (SPEC 5.1).

A name is 1 to 32 characters of ONE script: small Latin letters, or small Cyrillic letters with the
five Udmurt ones; digits after the first letter, single dots and hyphens between. The set is closed
and already in NFC, so what is a name never depends on a version of Unicode.
One script per name stops `аnna` with a Cyrillic first letter; `look_alike` finds what is left, such
as `сор` and `cop`, which are of one script each.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol.errors import LimitExceeded, NotCanonical, Untrusted
from protocol.limits import NAME_CHARS_MAX, ZONE_CHARS_MAX

ENDPOINT_CHARS_MAX: Final = 255
PORT_MAX: Final = 65535

_LATIN: Final = "a-z"
_CYRILLIC: Final = "а-яёӝӟӥӧӵ"
_ONE_SCRIPT: Final = re.compile(
    "|".join(f"[{letters}](?:[.-]?[{letters}0-9])*" for letters in (_LATIN, _CYRILLIC))
)
_ANY_SCRIPT: Final = re.compile(
    f"[{_LATIN}{_CYRILLIC}](?:[.-]?[{_LATIN}{_CYRILLIC}0-9])*",
)
_ZONE: Final = re.compile(r"[A-Z0-9]+(?:-[A-Z0-9]+)*")
_ENDPOINT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+)):([1-9][0-9]{0,4})")

# From UTS 39's confusables, and from small capitals and cursive forms that office fonts have.
_PROTOTYPES: Final = str.maketrans(
    "авгезикмнопрстухшьб01",
    "abre3ukmhonpctyxwb6ol",
)


@dataclass(frozen=True, slots=True)
class Address:
    """A user's stable name, of two checked names; `text` is `anna@minzdrav`."""

    user: str
    agency: str

    @property
    def text(self) -> str:
        return f"{self.user}@{self.agency}"


def check_name(text: str) -> str:
    """Return `text` if it is a user's or an agency's name.

    Raises LimitExceeded (over 32 characters), Untrusted (two scripts in one name) or NotCanonical.
    """
    if len(text) > NAME_CHARS_MAX:
        raise LimitExceeded(
            f"a name of {len(text)} characters, at most {NAME_CHARS_MAX} allowed (SPEC 5.1)"
        )
    if _ONE_SCRIPT.fullmatch(text):
        return text
    if _ANY_SCRIPT.fullmatch(text):
        raise Untrusted(f"name {text!r} mixes Latin and Cyrillic letters; use one (SPEC 5.1)")
    raise NotCanonical(
        f"name {text!r} is not allowed: small Latin or Cyrillic letters, then also digits, "
        "with single dots or hyphens between (SPEC 5.1)"
    )


def parse_address(text: str) -> Address:
    """Read `user@agency` as a person types it; capitals and decomposed letters are folded.

    Raises NotCanonical unless there is exactly one @, else as `check_name`.
    """
    user, at, agency = fold(text).partition("@")
    if not at:
        raise NotCanonical(f"address {text[:80]!r} is not user@agency (SPEC 5.1)")
    return Address(check_name(user), check_name(agency))


def fold(text: str) -> str:
    """Bring typed text to the form that names have: NFC, lower case, no space around."""
    return unicodedata.normalize("NFC", text.strip()).lower()


def check_zone(text: str) -> str:
    """Return `text` if it is a zone such as RU-UDM. Raises LimitExceeded or NotCanonical."""
    if len(text) > ZONE_CHARS_MAX:
        raise LimitExceeded(
            f"a zone of {len(text)} characters, at most {ZONE_CHARS_MAX} allowed (SPEC 5.1)"
        )
    if not _ZONE.fullmatch(text):
        raise NotCanonical(
            f"zone {text!r} is not allowed: capital Latin letters and digits, parts joined by "
            "single hyphens, such as RU-UDM (SPEC 5.1)"
        )
    return text


def inside(zone: str, allowed: str) -> bool:
    """Whether `zone` is `allowed` or a part of it: RU-UDM is inside RU, RUS is not."""
    return zone == allowed or zone.startswith(allowed + "-")


@lru_cache(maxsize=1 << 14)  # zones of chats that narrowed theirs again and again
def holding(zone: str) -> tuple[str, ...]:
    """Return all zones that a zone is inside, the narrowest first: itself, RU-UDM, RU."""
    parts = zone.split("-")
    return tuple("-".join(parts[:count]) for count in range(len(parts), 0, -1))


def split_endpoint(text: str) -> tuple[str, int]:
    """Read `host:port` or `[IPv6]:port`. Raises LimitExceeded or NotCanonical."""
    if len(text) > ENDPOINT_CHARS_MAX:
        raise LimitExceeded(
            f"an endpoint of {len(text)} characters, at most {ENDPOINT_CHARS_MAX} (SPEC 5.1)"
        )
    found = _ENDPOINT.fullmatch(text)
    if not found or int(found[3]) > PORT_MAX:
        raise NotCanonical(
            f"endpoint {text!r} is not host:port or [IPv6]:port, port 1 to {PORT_MAX} (SPEC 5.1)"
        )
    return found[1] or found[2], int(found[3])


def skeleton(name: str) -> str:
    """Return what a name looks like: names with equal skeletons can be taken for each other.

    Coarse on purpose (й looks like и, г like r, rn like m): it raises a question for a person, and
    decides nothing. Source: UTS 39, section 4, cut down to the letters of names.
    """
    bare = (c for c in unicodedata.normalize("NFD", fold(name)) if not unicodedata.combining(c))
    return "".join(bare).translate(_PROTOTYPES).replace("rn", "m").replace("vv", "w")


def look_alike(name: str, other: str) -> bool:
    """Whether two different names or addresses can be taken for each other."""
    return fold(name) != fold(other) and skeleton(name) == skeleton(other)
