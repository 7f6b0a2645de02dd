"""What others wrote, as it is shown: it holds no active control (I19)."""

import io
import json
import unicodedata
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache, lru_cache
from random import Random
from typing import Final

from cli.letters import BENEATH, MARGIN, show
from cli.output import Output
from cli.text import inert
from client.mailbox import Letter, State
from client.reading import Line
from protocol.entry import ChatId, DeviceKey, EntryId, Reference
from protocol.errors import PeerError
from protocol.message import Edit, Message, Reaction, Text, decode_message
from protocol.policy import Role
from protocol.redaction import Redaction
from protocol.roster import Member
from protocol.testing.cast import credential, person, seed
from tests.fuzz.mutation import tree, words
from tests.fuzz.seeds import raws
from tests.fuzz.target import target

_ACTIVE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINER: Final = "\u200d"  # inside an emoji
_COLUMNS: Final = 6
_CHARACTERS_MAX: Final = 4096  # that are known, at a time
_REASON_CHARS: Final = 24
_CHAT: Final = ChatId(seed("chat"))
_PLACES: Final = [
    Reference(DeviceKey(seed("device")), number, EntryId(seed("entry", str(number))))
    for number in range(5)
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@cache
def _anna() -> Member:
    who = person("anna@mz")
    return Member(credential(who).user, Role.MEMBER, frozenset(who.devices))


def _read(data: bytes) -> tuple[str, Message]:
    """Take the bytes for a text, and for a message if they are one."""
    text = data.decode(errors="surrogateescape")
    try:
        return text, decode_message(data)
    except PeerError:
        return text, Text(text, _PLACES[0])


def _law(_: bytes, found: tuple[str, Message]) -> None:
    text, message = found
    _check_inert(inert(text))
    lines = _lines(text, message)
    pipe, terminal, script = io.StringIO(), _Terminal(), io.StringIO()
    for into in (pipe, terminal, script):
        with redirect_stdout(into):
            show(Output(as_json=into is script), lines)
    _check_pipe(pipe.getvalue())
    _check_terminal(terminal.getvalue())
    _check_script(script.getvalue(), lines)


def _check_inert(shown: str) -> None:
    assert not any(map(_is_active, set(shown))), ascii(shown)


@lru_cache(maxsize=_CHARACTERS_MAX)
def _is_active(character: str) -> bool:
    return character != _JOINER and unicodedata.category(character) in _ACTIVE


def _check_pipe(printed: str) -> None:
    """A message is one line of so many columns."""
    for line in printed.removesuffix("\n").split("\n"):
        assert line.count("\t") == _COLUMNS - 1
    _check_inert(_in_lines(printed).replace("\t", ""))


def _check_terminal(printed: str) -> None:
    """What others wrote stands behind a margin, so it passes for nothing of ours."""
    _check_inert(_in_lines(printed))
    for line in printed.removesuffix("\n").split("\n"):
        heading = line.startswith("1970-01-01T00:00:00.000Z ")
        assert heading or line.startswith((MARGIN.rstrip(), BENEATH)), ascii(line)


def _check_script(printed: str, lines: Sequence[Line]) -> None:
    """A message is one line of JSON, and nothing of its text is lost."""
    _check_inert(_in_lines(printed))
    objects = printed.removesuffix("\n").split("\n")
    assert len(objects) == len(lines)
    for line, raw in zip(lines, objects, strict=True):
        message = line.letter.message
        if isinstance(message, Text):
            assert json.loads(raw)["text"] == message.text


def _in_lines(printed: str) -> str:
    """Return what was printed without the ends of its lines."""
    return printed.replace("\n", "")


def _lines(text: str, message: Message) -> list[Line]:
    """Return the message, or an edit and a reaction to another; and one redacted for a reason.

    Of a text that stands in a message the reason is the beginning: both are shown alike.
    """
    said: list[Message] = [message]
    if len(text) % 2:
        said = [Text("plain", None), Edit(_PLACES[0], text), Reaction(_PLACES[0], text)]
    lines = [_line(number, one, None) for number, one in enumerate(said)]
    whole = any(isinstance(one, Text | Edit) and one.text == text for one in said)
    reason = text[:_REASON_CHARS] if whole else text
    return [*lines, _line(len(said), None, Redaction(_PLACES[0], _anna(), reason))]


def _line(number: int, message: Message | None, redaction: Redaction | None) -> Line:
    letter = Letter(number, _CHAT, _PLACES[number], 0, 0, State.OPEN, message)
    return Line(
        letter,
        _anna(),
        own=False,
        verified=True,
        trusted=True,
        future=False,
        ahead=False,
        void=None,
        progress=None,
        whereabouts=None,
        redaction=redaction,
        shared=None,
        elsewhere=False,
        unreached=False,
    )


_WORDS: Final = (
    *("\x1b[2J", "\x1b]52;c;eA==\x07", "\x9b31m", "\r", "\n", "\x08", "\x7f", "\t", "\0"),
    *("\u202e", "\u2066", "\u200f", "\u2028", "\ufeff", "\U000e0041", "\u3164", "\ud800"),
    *("👩‍⚕️", "\u200d", "\ufe0f", "e\u0301\u0301\u0301\u0301\u0301", "[bold]", "{x}", "anna@mz: "),
    *("1970-01-01T00:00:00.000Z ", "    │ ", "日本", "x" * 90, " " * 90),
)
_texts = words(*_WORDS)


def _mutate(data: bytes, dice: Random) -> bytes:
    return tree(data, dice) if data[:1] > b"\x80" and dice.randrange(2) else _texts(data, dice)


TARGETS: Final = {"screen": target(_read, _law, (), lambda: raws("messages", "m"), _mutate, 200)}
