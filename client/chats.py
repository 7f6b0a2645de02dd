"""The chats of a device as their owner names them: by title, by id, or by the other person.

A title is what the latest valid Title message says; it is no key, and several chats may share one.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import apsw
from msgspec import convert

from client.device import Device
from client.entries import read_entry
from client.mailbox import State
from node.errors import DamagedError, UserError
from protocol.chat import Chat
from protocol.entry import ChatId, ContentHeader, Reference
from protocol.errors import PeerError
from protocol.identity import UserId
from protocol.limits import HASH_BYTES
from protocol.membership import Membership, content_void
from protocol.message import Title, decode_message
from protocol.name import parse_address
from protocol.policy import ChatKind
from protocol.roster import Void

PREFIX_CHARS_MIN = 4
SHORT_CHARS = 8
KEY_CHARS = 16
NOBODY: Final[Mapping[UserId, str]] = {}
_TITLE_BEGINS = b"\x92\x01"  # an array of two, the first of which is Title's number
_HEX = re.compile(r"[0-9a-f]+")


class NoSuchChat(UserError):
    """No chat of this name is here."""


class NoSuchLetter(UserError):
    """No message with this id is here."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One chat in a list. title: "" until one is known. partner: the other one's name, if direct.

    letters: rows in the mailbox. latest: time of the newest in milliseconds, None without any.
    damaged: what its title was looked for in cannot be read.
    """

    chat: ChatId
    title: str
    partner: str | None
    membership: Membership
    ours: bool
    letters: int
    latest: int | None
    damaged: bool

    @property
    def label(self) -> str:
        """What to call it: its title, or whom it is with. Others wrote this."""
        return self.title or self.partner or "(no title)"


def summaries(device: Device) -> Iterator[Summary]:
    """Yield all chats in the order of their arrival."""
    for judge in device.chats():
        if judge.history:
            yield summary(device, judge)


def summary(device: Device, judge: Chat) -> Summary:
    """Return what a list shows of one chat."""
    membership = judge.membership()
    row = device.connection.execute(
        "SELECT count(*), max(time) FROM mailbox WHERE chat = ?", (judge.id,)
    ).fetchone()
    letters, latest = convert(row, tuple[int, int | None])
    ours = device.key in membership.devices
    other = _partner(device, membership)
    try:
        title, damaged = title_of(device, judge), False
    except apsw.CorruptError:
        title, damaged = "", True
    return Summary(judge.id, title, other, membership, ours, letters, latest, damaged)


def _partner(device: Device, membership: Membership) -> str | None:
    if membership.kind is not ChatKind.DIRECT:
        return None
    ours = device.profile.user.user
    return next((one.name for user, one in membership.users.items() if user != ours), None)


def title_of(device: Device, judge: Chat) -> str:
    """Return the text of the latest valid Title message, "" if there is none."""
    rows = device.connection.execute(
        "SELECT device, seq, id, plaintext FROM mailbox WHERE chat = ? AND state = ?"
        " AND substr(plaintext, 1, 2) = ? ORDER BY depth DESC, time DESC, id DESC",
        (judge.id, State.OPEN, _TITLE_BEGINS),
    ).fetchall()
    for reference, plaintext in convert(
        [(row[:3], row[3]) for row in rows], list[tuple[Reference, bytes]]
    ):
        message = decode_message(plaintext)
        if isinstance(message, Title) and void_of(device, judge, reference) is None:
            return message.text
    return ""


def void_of(device: Device, judge: Chat, place: Reference) -> Void | None:
    """Return why a stored content entry counts for nothing, None if it counts."""
    header = read_entry(device, judge.id, place).header
    return void_by(judge, header) if isinstance(header, ContentHeader) else None


def void_by(judge: Chat, header: ContentHeader) -> Void | None:
    """Return why a content entry with this header counts for nothing, None if it counts."""
    past = judge.history.past([head.id for head in header.control])
    return content_void(judge.history, header.device, header.seq, past)


def find(device: Device, text: str) -> Chat:
    """Return the chat that a person means: a title, the beginning of an id, or `anna@minzdrav`.

    Raises UserError, which lists the candidates when several fit.
    """
    if not text.strip():
        raise UserError("no chat is named; 'ivor chat list' shows which there are")
    chat = find_direct(device, text) if "@" in text else None
    if chat is not None:
        return chat
    known = list(summaries(device))
    fitting = _fitting(known, text)
    if not fitting:
        damaged = [*device.damaged(), *(one.chat for one in known if one.damaged)]
        if damaged:
            listed = ", ".join(chat.hex()[:SHORT_CHARS] for chat in damaged)
            raise DamagedError(f"no chat that is whole is called {text!r}; not whole: {listed}")
        raise NoSuchChat(f"no chat is called {text!r}; 'ivor chat list' shows which there are")
    if len(fitting) > 1:
        chars = _telling(fitting)
        listed = ", ".join(f"{one.chat.hex()[:chars]} {one.label!r}" for one in fitting[:8])
        raise UserError(f"{text!r} fits {len(fitting)} chats: {listed}; name one by its id")
    judge = device.replica.chat(fitting[0].chat)
    if judge is None:
        raise UserError(f"the chat {text!r} is gone")
    return judge


def _fitting(known: Sequence[Summary], text: str) -> Sequence[Summary]:
    """Return the chat of this id, or of its beginning as it is shown everywhere.

    Else whose title is this, or else but for case, or whose id begins with less of it. Others
    choose titles: one that reads like an id, or like an address, takes nobody there.
    """
    prefix = text.lower()
    is_prefix = len(prefix) >= PREFIX_CHARS_MIN and _HEX.fullmatch(prefix)
    by_id = [one for one in known if is_prefix and one.chat.hex().startswith(prefix)]
    if len(prefix) >= SHORT_CHARS and by_id:
        return by_id
    titles = [(unicodedata.normalize("NFC", _called(one)), one) for one in known]
    wanted = unicodedata.normalize("NFC", text)
    exact = [one for title, one in titles if title == wanted]
    loose = [one for title, one in titles if title.casefold() == wanted.casefold()]
    named = exact or loose
    return [*named, *(one for one in by_id if one not in named)]


def _telling(found: Sequence[Summary]) -> int:
    """Return how much of their ids tells these chats apart, and at least what is shown of each."""
    ids = [one.chat.hex() for one in found]
    lengths = range(SHORT_CHARS, 2 * HASH_BYTES)
    return next((n for n in lengths if len({one[:n] for one in ids}) == len(ids)), 2 * HASH_BYTES)


def _called(one: Summary) -> str:
    """Return what a person calls a chat by; an address is not taken from a title."""
    return (one.partner or "") if _address(one.title) is not None else one.label


def _address(text: str) -> str | None:
    try:
        return parse_address(text).text
    except PeerError:
        return None


def is_address(text: str) -> bool:
    """Whether a text is an address, `anna@minzdrav`, and so names a person."""
    return _address(text) is not None


def find_direct(device: Device, text: str) -> Chat | None:
    """Return the direct chat with a user, `anna@minzdrav`; None if there is none.

    Two people may each have begun one: then it is the one with the smaller id, for both. One with
    an identity that the name does not mean any more is not it.
    """
    name = _address(text)
    if name is None:
        return None
    found = _directs(device, name)
    return device.replica.chat(min(found)) if found else None


def _directs(device: Device, name: str) -> Sequence[ChatId]:
    known = device.connection.execute("SELECT id FROM users WHERE name = ?", (name,)).get
    return [
        one.chat
        for one in summaries(device)
        if one.membership.kind is ChatKind.DIRECT and one.partner == name and one.ours
        if known is None or known in one.membership.users
    ]


def beside(device: Device, judge: Chat) -> Sequence[ChatId]:
    """Return the other direct chats with whom a direct chat is with: each of the two began one."""
    name = _partner(device, judge.membership())
    return [] if name is None else [one for one in _directs(device, name) if one != judge.id]


def find_member(judge: Chat, text: str, former: Mapping[UserId, str] = NOBODY) -> UserId:
    """Return the member of this name, or whose key so begins. Raises UserError.

    Two have one name if one of them has begun anew, or somebody poses as them. former: names of
    others who are meant if no member is.
    """
    members = {user: one.name for user, one in judge.membership().users.items()}
    found = _meant(members, text) or _meant(former, text)
    if not found:
        raise UserError(f"{text} is not in this chat; 'ivor chat show' lists who is")
    if len(found) > 1:
        keys = ", ".join(user.hex()[:KEY_CHARS] for user in sorted(found))
        raise UserError(
            f"{len(found)} members are called {text}, with the keys {keys}: name one by its key; "
            f"'ivor verify' shows which key {text} has now"
        )
    return found[0]


def _meant(names: Mapping[UserId, str], text: str) -> list[UserId]:
    prefix = text.lower()
    if len(prefix) >= SHORT_CHARS and _HEX.fullmatch(prefix):
        return [user for user in names if user.hex().startswith(prefix)]
    name = parse_address(text).text
    return [user for user in names if names[user] == name]


def find_letter(device: Device, chat: ChatId, prefix: str) -> Reference:
    """Return the message of a chat whose id begins with these hex digits.

    Raises UserError, NoSuchLetter if none is here.
    """
    wanted = prefix.lower()
    if len(wanted) < PREFIX_CHARS_MIN or not _HEX.fullmatch(wanted):
        raise UserError(
            f"{prefix!r} is no message id: give at least {PREFIX_CHARS_MIN} of its hex digits, "
            "as 'ivor read' shows them"
        )
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? AND hex(id) LIKE ? LIMIT 2",
        (chat, wanted.upper() + "%"),
    ).fetchall()
    found = convert(rows, list[Reference])
    if not found:
        raise NoSuchLetter(f"no message of this chat has an id that begins with {wanted}")
    if len(found) > 1:
        raise UserError(f"more than one message of this chat has an id that begins with {wanted}")
    return found[0]
