"""One message on a screen, in a pipe, and for a script (SPEC 11).

On a terminal a message stands behind a margin, wrapped there, so that no line of it can pass for a
line of ours or for another sender's. In a pipe it is one line: line breaks are shown escaped.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

from cli.act_letters import act_line, act_record, act_text
from cli.file_letters import file_line, file_record, file_text
from cli.motion_letters import motion_record, motion_text
from cli.output import Output, cell
from cli.text import inert, when
from client.chats import SHORT_CHARS
from client.collating import Shown, collate
from client.mailbox import State
from node.words import counted
from protocol.approval import Act
from protocol.attachment import Attachment
from protocol.disclosure import Share
from protocol.file import File
from protocol.message import Edit, Reaction, Text, Title
from protocol.proposal import Motion

if TYPE_CHECKING:
    from rich.console import Console

    from client.chats import Summary
    from client.reading import Line
    from protocol.entry import Reference
    from protocol.message import Message

MARGIN: Final = "    │ "
BENEATH: Final = "    └ "
WIDTH_MIN: Final = 20
_NOTES: Final = {
    State.SEALED: "its key has not come yet",
    State.LACKING: "its text has not come yet: who was asked says that it is gone",
    State.UNREADABLE: "cannot be read here: its key was not for this device",
    State.REFUSED: "refused: what is inside breaks a rule, or is not what its author signed",
    State.GONE: "gone: this chat keeps messages for a time only",
}

_ELSEWHERE: Final = (
    "its key was not for this device; another of yours can read it: run 'ivor sync' there, and "
    "here again"
)
_UNREACHED: Final = (
    "its key cannot come: your agency is federated with none of those that publish here; ask your "
    "administrator"
)


def record(line: "Line") -> dict[str, object]:
    """Return what --json prints of a message."""
    letter, author, progress = line.letter, line.author, line.progress
    return {
        "type": "message",
        "chat": letter.chat.hex(),
        "id": letter.reference.id.hex(),
        "time": when(letter.time),
        "from": None if author is None else author.name,
        "user": None if author is None else author.user.hex(),
        "device": letter.reference.device.hex(),
        "own": line.own,
        "readable": letter.state.name.lower(),
        **_content(letter.message),
        "fetched": None if line.whereabouts is None else line.whereabouts.fetched,
        "state": None if progress is None else progress.state,
        "agencies": None if progress is None else progress.agencies,
        "of": None if progress is None else progress.of,
        "redacted": _redacted(line),
        "shared_by": None if line.shared is None else line.shared.name,
        "elsewhere": line.elsewhere,
        "unreached": line.unreached,
        "void": None if line.void is None else line.void.value,
        "verified": line.verified,
        "trusted": line.trusted,
        "future": line.future,
        "preview": line.ahead,
    }


def _redacted(line: "Line") -> dict[str, object] | None:
    found = line.redaction
    return None if found is None else {"by": found.by.name, "reason": found.reason}


def _content(message: "Message | None") -> dict[str, object]:
    match message:
        case Text(text, reply):
            told = None if reply is None else reply.id.hex()
            return {"kind": "text", "text": text, "reply_to": told}
        case Title(text):
            return {"kind": "title", "text": text}
        case Reaction(target, text):
            return {"kind": "reaction", "text": text, "target": target.id.hex()}
        case Edit(target, text):
            return {"kind": "edit", "text": text, "target": target.id.hex()}
        case None:
            return {"kind": None, "text": None}
        case _:
            return _other_content(message)


def _other_content(
    message: "Motion | File | Attachment | Act | Share",
) -> dict[str, object]:
    if isinstance(message, File | Attachment):
        return file_record(message)
    if isinstance(message, Share):
        return {"kind": "share", "ids": [one.entry.hex() for one in message.letters]}
    return motion_record(message) if isinstance(message, Motion) else act_record(message)


def show(output: Output, lines: "Sequence[Line]") -> None:
    """Print messages, and flush: somebody may wait for them.

    For people edits and reactions are shown with their message; scripts get every entry.
    """
    if output.as_json:
        for line in lines:
            output.line("", record(line))
        return
    console = screen()
    for shown in collate(lines):
        print(_block(shown, console) if console else "\t".join(_columns(shown)))
    sys.stdout.flush()


def show_found(output: Output, chat: "Summary", lines: "Sequence[Line]") -> None:
    """Print messages of one chat that were looked for: beneath its title, or after its id."""
    console = None if output.as_json else screen()
    if console:
        print(f"{cell(chat.label)} ({chat.chat.hex()[:SHORT_CHARS]})")
    for line in lines:
        shown = Shown(line)
        if output.as_json:
            output.line("", record(line))
        elif console:
            print(_block(shown, console))
        else:
            print("\t".join([chat.chat.hex()[:SHORT_CHARS], *_columns(shown)]))


def screen() -> "Console | None":
    """Return the terminal that messages go to, if it is one."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console()


def _columns(shown: Shown) -> list[str]:
    line = shown.line
    marks = "; ".join(_marks(line)) or "-"
    short = _short(line.letter.reference)
    reactions = "; ".join(_reactions(shown)) or "-"
    return [when(line.letter.time), short, _name(line), marks, inert(_text(shown)), reactions]


def _text(shown: Shown) -> str:
    return _said(shown.line) if shown.text is None else f"(edited) {shown.text}"


def _reactions(shown: Shown) -> list[str]:
    return [f"{cell(what)} {', '.join(map(cell, who))}" for what, who in shown.reactions.items()]


def _name(line: "Line") -> str:
    """The author with the agency, always; a name holds no character of a mark."""
    return "(unknown)" if line.author is None else cell(line.author.name)


def _marks(line: "Line") -> list[str]:
    marks = []
    if line.author is not None and not line.trusted:
        marks.append("UNTRUSTED AGENCY")
    elif not line.verified:
        marks.append("not verified")
    if line.shared is not None:
        marks.append(f"shared by {cell(line.shared.name)}")
    if line.void is not None:
        marks.append(f"VOID: {line.void.value}")
    if line.redaction is not None:  # who did it stands in the text, where anybody may write so
        marks.append("REDACTED")
    if line.ahead:
        marks.append("PREVIEW: earlier messages are still coming")
    if line.future:
        marks.append("its clock is ahead")
    if line.progress is not None:
        marks.append(str(line.progress))
    return marks


def _said(line: "Line") -> str:
    message = line.letter.message
    if line.redaction is not None:
        reason = f" ({line.redaction.reason})" if line.redaction.reason else ""
        return f"(redacted by {line.redaction.by.name}{reason})"
    if message is None:
        return f"({_why_closed(line)})"
    if isinstance(message, File | Attachment):
        return file_line(message, line.whereabouts)
    return act_line(message) if isinstance(message, Act) else told(message)


def _why_closed(line: "Line") -> str:
    if line.elsewhere:
        return _ELSEWHERE
    return _UNREACHED if line.unreached else _NOTES.get(line.letter.state, "no message")


def told(message: "Message") -> str:
    """Return what a message says, for a person, and which file it means; not escaped yet."""
    match message:
        case File() | Attachment():
            return file_text(message)
        case Share(letters):
            earlier = counted(len(letters), "earlier message")
            return f"(shared {earlier} with those who joined later)"
        case Text(text) | Title(text) | Reaction(_, text) | Edit(_, text):
            return _what(message) + text
        case _:
            return motion_text(message) if isinstance(message, Motion) else act_text(message)


def _what(message: "Text | Title | Reaction | Edit") -> str:
    match message:
        case Text(text, reply):
            plain = "\\" if _looks_like_ours(text) else ""
            return plain if reply is None else f"(reply to {_short(reply)}) "
        case Title():
            return "(title) "
        case Reaction(target, text):
            return f"(reaction to {_short(target)}{'' if text else ' taken back'}) "
        case Edit(target, _):
            return f"(new text of {_short(target)}) "


def _looks_like_ours(text: str) -> bool:
    """Whether a text begins like what we say of a message."""
    return normalize("NFKC", text.lstrip()[:1]).startswith("(")


def _short(reference: "Reference") -> str:
    return reference.id.hex()[:SHORT_CHARS]


def _block(shown: Shown, console: "Console") -> str:
    line = shown.line
    short = _short(line.letter.reference)
    marks = "".join(f" [{mark}]" for mark in _marks(line))
    heading = f"{when(line.letter.time)} {short} {_name(line)}{marks}"
    return block(heading, _text(shown), _reactions(shown), console)


def block(heading: str, text: str, beneath: Sequence[str], console: "Console") -> str:
    """A heading of ours, what they said behind a margin, wrapped, and what is to be told of it.

    text: not escaped yet; all else is.
    """
    said = [MARGIN + part for part in _wrapped(text, console)]
    return "\n".join([heading, *said, *(BENEATH + one for one in beneath)])


def _wrapped(text: str, console: "Console") -> list[str]:
    from rich.text import Text as Printed

    width = max(WIDTH_MIN, console.width - len(MARGIN))
    return [
        part.plain.rstrip()
        for line in text.split("\n")
        for part in Printed(inert(line)).wrap(console, width, overflow="fold") or [Printed("")]
    ]
