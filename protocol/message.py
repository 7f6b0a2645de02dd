"""What a message says: the plaintext `m` inside a content entry (SPEC 5.5).

    m = [0, text, reply or nil] · [1, title] · [2, target, reaction] · [3, target, new text]
      · kinds 4 and 5: `proposal` · kind 6: `file` · kinds 7 to 9: `approval`
      · kind 10: `disclosure` · kind 11: `attachment`

A reply and a target are references [device, seq, id] to content entries of the same chat.
Text is what its author wrote, whatever characters that holds: making it harmless on a screen is the
duty of what shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import codec
from protocol.approval import (
    Act,
    act_fields,
    read_act,
)
from protocol.attachment import Attachment, attachment_fields, read_attachment
from protocol.disclosure import Share, read_share, share_fields
from protocol.entry import Reference
from protocol.errors import LimitExceeded, NotCanonical
from protocol.field import read_reference
from protocol.file import File, file_fields, read_file
from protocol.limits import PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX
from protocol.proposal import Consent, Motion, Proposal, motion_fields, read_consent, read_proposal

TITLE_BYTES_MAX: Final = 256
REACTION_BYTES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Text:
    """A message, 1 to `TEXT_BYTES_MAX` bytes of UTF-8, perhaps in reply to another."""

    text: str
    reply: Reference | None


@dataclass(frozen=True, slots=True)
class Title:
    """The chat's title from here on, 1 to 256 bytes."""

    text: str


@dataclass(frozen=True, slots=True)
class Reaction:
    """The author's reaction to a message, at most 32 bytes; an empty one takes it back."""

    target: Reference
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A new text for the author's own message; the old one stays in the log."""

    target: Reference
    text: str


Message = Text | Title | Reaction | Edit | Motion | File | Act | Share | Attachment

_TEXT, _TITLE, _REACTION, _EDIT = range(4)


def encode_message(message: Message) -> bytes:
    """Encode a message. Raises LimitExceeded, or NotCanonical for empty or not encodable text."""
    match message:
        case Text(text, reply):
            return codec.encode((_TEXT, _written(text, 1, TEXT_BYTES_MAX), reply))
        case Title(text):
            return codec.encode((_TITLE, _written(text, 1, TITLE_BYTES_MAX)))
        case Reaction(target, text):
            return codec.encode((_REACTION, target, _written(text, 0, REACTION_BYTES_MAX)))
        case Edit(target, text):
            return codec.encode((_EDIT, target, _written(text, 1, TEXT_BYTES_MAX)))
        case _:
            return codec.encode(_other_fields(message))


def _other_fields(message: Motion | File | Act | Share | Attachment) -> codec.Value:
    match message:
        case Proposal() | Consent():
            return motion_fields(message)
        case File():
            return file_fields(message)
        case Attachment():
            return attachment_fields(message)
        case Share():
            return share_fields(message)
        case _:
            return act_fields(message)


def decode_message(raw: bytes) -> Message:
    """Decode a plaintext. Raises NotCanonical, also for a kind not known, or LimitExceeded."""
    match codec.decode(raw, PAYLOAD_BYTES_MAX):
        case (0, text, None):
            return Text(_read(text, 1, TEXT_BYTES_MAX), None)
        case (0, text, reply):
            return Text(_read(text, 1, TEXT_BYTES_MAX), read_reference(reply))
        case (1, text):
            return Title(_read(text, 1, TITLE_BYTES_MAX))
        case (2, target, text):
            return Reaction(read_reference(target), _read(text, 0, REACTION_BYTES_MAX))
        case (3, target, text):
            return Edit(read_reference(target), _read(text, 1, TEXT_BYTES_MAX))
        case other:
            return _read_other(other)


def _read_other(fields: Sequence[object]) -> Message:
    match fields:
        case (4, until, decisions):
            return read_proposal(until, decisions)
        case (5, proposal, signature):
            return read_consent(proposal, signature)
        case (6, name, media_type, data, text):
            return read_file(name, media_type, data, text)
        case (10, letters):
            return read_share(letters)
        case (11, *rest):
            return read_attachment(tuple(rest))
        case _:
            return read_act(fields)


def _written(text: str, least: int, most: int) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise NotCanonical("text holds what UTF-8 cannot encode (SPEC 5.5)") from None
    _check_length(len(data), least, most)
    return data


def _read(value: object, least: int, most: int) -> str:
    text = codec.text(value, most, "text")
    _check_length(len(text), least, most)
    return text


def _check_length(size: int, least: int, most: int) -> None:
    if size > most:
        raise LimitExceeded(f"text of {size} bytes, at most {most} allowed (SPEC 5.5)")
    if size < least:
        raise NotCanonical("text is empty (SPEC 5.5)")
