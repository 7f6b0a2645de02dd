"""Small files inside messages, and what a file may be called (SPEC 5.5).

    m = [6, name, media type, bytes, text]

The law for names is the same wherever a message names a file. It is about what a name does when a
file is made of it, on any system: it depends on no version of Unicode, and not on ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import codec
from protocol.codec import Value
from protocol.errors import LimitExceeded, NotCanonical

FILE_NAME_BYTES_MAX: Final = 255
MEDIA_TYPE_BYTES_MAX: Final = 127
FILE_BYTES_MAX: Final = 60 * 1024  # inside a message; with all the rest it fits a padded payload
FILE_TEXT_BYTES_MAX: Final = 1024

_FILE: Final = 6

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*", re.ASCII)
# Controls, what separates folders, drives and streams somewhere, wildcards, and what reorders,
# breaks or hides the characters around it.
_NEVER: Final = re.compile(
    '[\x00-\x1f\x7f-\x9f/\\\\:*?"<>|\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f'
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_SPACES: Final = " \xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_BEGINS_BADLY: Final = re.compile(rf"[.~{_SPACES}-]")
_ENDS_BADLY: Final = re.compile(rf"[.{_SPACES}]\Z")
# What Windows takes for a device, whatever follows the first dot.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\xb9\xb2\xb3]) *(?:\..*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of at most `FILE_BYTES_MAX` bytes, and what its author says of it, perhaps nothing."""

    name: str
    media_type: str
    data: bytes = field(repr=False)
    text: str


def file_fields(file: File) -> Sequence[Value]:
    """Return the fields of a plaintext. Raises NotCanonical or LimitExceeded as `read_file`."""
    name, media_type, text = map(encoded, (file.name, file.media_type, file.text))
    read_file(name, media_type, file.data, text)
    return (_FILE, name, media_type, file.data, text)


def read_file(name: object, media_type: object, data: object, text: object) -> File:
    """Read the fields of a plaintext after the kind. Raises NotCanonical or LimitExceeded."""
    return File(
        read_file_name(name),
        read_media_type(media_type),
        codec.binary(data, FILE_BYTES_MAX, "file"),
        codec.text(text, FILE_TEXT_BYTES_MAX, "text"),
    )


def read_file_name(value: object) -> str:
    """Read a file's name that came. Raises NotCanonical or LimitExceeded."""
    name = codec.text(value, FILE_NAME_BYTES_MAX, "file name")
    check_file_name(name)
    return name


def read_media_type(value: object) -> str:
    """Read a media type that came. Raises NotCanonical or LimitExceeded."""
    found = codec.text(value, MEDIA_TYPE_BYTES_MAX, "media type")
    if not _MEDIA_TYPE.fullmatch(found):
        raise NotCanonical(f"{found!a} is not a media type in lower case (SPEC 5.5)")
    return found


def check_file_name(name: str) -> None:
    """Raise NotCanonical or LimitExceeded unless this names a file, and nothing but a file."""
    size = len(encoded(name))
    if size > FILE_NAME_BYTES_MAX:
        refusal = f"file name of {size} bytes, at most {FILE_NAME_BYTES_MAX} allowed (SPEC 5.5)"
        raise LimitExceeded(refusal)
    found = _NEVER.search(name)
    if found is not None:
        raise NotCanonical(f"the file name {name!a} holds {found[0]!a} (SPEC 5.5)")
    if not name or _BEGINS_BADLY.match(name) or _ENDS_BADLY.search(name):
        refusal = f"{name!a} is no file name: it is empty, or begins or ends wrongly (SPEC 5.5)"
        raise NotCanonical(refusal)
    if _DEVICE.fullmatch(name):
        raise NotCanonical(f"{name!a} is a device on some systems (SPEC 5.5)")


def encoded(text: str) -> bytes:
    """Return text as UTF-8. Raises NotCanonical."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NotCanonical("text holds what UTF-8 cannot encode (SPEC 5.5)") from None
