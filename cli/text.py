"""Text that others wrote, made inert: it may be read, but it cannot act on a terminal (I19).

Control characters (a terminal obeys them), bidi and other format controls (they reorder or hide),
characters without a glyph and floods of combining marks are shown escaped, as Python writes them.
Letters of all scripts stay, and so do the joiners inside emoji.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

ZWJ: Final = "\u200d"
VARIATION_SELECTORS: Final = ("\ufe0e", "\ufe0f")
CHARACTERS_KNOWN_MAX: Final = 4096
MARKS_MAX: Final = 4  # on one letter; no script stacks more

_UNUSUAL: Final = re.compile("[^ -~А-Яа-яЁё«»–—…№]")  # the others need no second look
# Printable for Unicode, invisible to people: fillers, selectors, the empty Braille cell.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
    "\U000e0100-\U000e01ef]"
)
_EMOJI: Final = frozenset({"So", "Sk"})
_PRESENTED: Final = frozenset({"So", "Sk", "Sm", "Po", "Nd"})  # may be text or emoji
_MARKS: Final = frozenset({"Mn", "Me"})
_BMP_END: Final = 0x10000


def inert(text: str) -> str:
    """Return `text` as one line without any active character; line breaks are escaped too."""
    return _escaped(text, _escape)


def inert_json(text: str) -> str:
    """Escape JSON text so that it is inert on a terminal, and still the same JSON."""
    return _escaped(text, _json_escape)


def when(milliseconds: int) -> str:
    """Return a time as ISO 8601 in UTC; one that no calendar has, as the number it is."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    def shown(found: re.Match[str]) -> str:
        character = found[0]
        harmless = _by_itself(character)
        if harmless is None:
            harmless = _harmless(text, found.start())
        return character if harmless else escape(character)

    return _UNUSUAL.sub(shown, text)


@lru_cache(maxsize=CHARACTERS_KNOWN_MAX)
def _by_itself(character: str) -> bool | None:
    """Whether a character is harmless; None: that depends on what stands beside it."""
    kind = unicodedata.category(character)
    if character == ZWJ or character in VARIATION_SELECTORS:
        return None
    if _INVISIBLE.match(character):
        return False
    return None if kind in _MARKS else kind == "Zs" or character.isprintable()


def _harmless(text: str, at: int) -> bool:
    """Whether a joiner, a selector or a mark is harmless where it stands."""
    character = text[at]
    if character == ZWJ:
        return _joins_emoji(text, at)
    if character in VARIATION_SELECTORS:
        return at > 0 and unicodedata.category(text[at - 1]) in _PRESENTED
    return not _floods(text, at) and character.isprintable()


def _floods(text: str, at: int) -> bool:
    """Whether a mark stands on more of them than any script stacks."""
    below = text[max(0, at - MARKS_MAX) : at]
    return len(below) == MARKS_MAX and all(unicodedata.category(c) in _MARKS for c in below)


def _joins_emoji(text: str, at: int) -> bool:
    before = text[:at].rstrip("".join(VARIATION_SELECTORS))[-1:]
    after = text[at + 1 : at + 2]
    categories = [unicodedata.category(c) for c in (before, after) if c]
    return len(categories) == 2 and _EMOJI.issuperset(categories)  # noqa: PLR2004 - both sides


@lru_cache(maxsize=CHARACTERS_KNOWN_MAX)
def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


@lru_cache(maxsize=CHARACTERS_KNOWN_MAX)
def _json_escape(character: str) -> str:
    code = ord(character)
    if code < _BMP_END:
        return f"\\u{code:04x}"
    high, low = divmod(code - _BMP_END, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
