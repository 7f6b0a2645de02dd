"""Finding messages by their words, for `ivor search`.

Every message that this device can read is looked at, the newest first. There is no index: it would
be a second copy of what was said, to be erased wherever the first one is.
"""

import re
import unicodedata
from collections.abc import Callable
from itertools import islice

from client.device import Device
from client.mailbox import Letter, State, select
from node.errors import UserError
from protocol.approval import SignatureRefusal, SignatureRequest
from protocol.attachment import Attachment
from protocol.entry import ChatId
from protocol.file import File
from protocol.message import Edit, Message, Text, Title

_WORD = re.compile(r"\w+")


def search(device: Device, words: str, chat: ChatId | None, limit: int) -> list[Letter]:
    """Return the newest letters that hold all the words, in the order in which they arrived.

    A word is found at the beginning of a word, in any case; е stands for ё, so that «счет» finds
    «счёта». chat: None looks through all. Raises UserError for no words.
    """
    holds = matcher(words)
    newest = select(
        device, "state = ? AND chat = ifnull(?, chat) ORDER BY no DESC", (State.OPEN, chat)
    )
    found = (letter for letter in newest if holds(_words_of(letter.message)))
    return list(islice(found, limit))[::-1]


def matcher(words: str) -> Callable[[str], bool]:
    """Return what tells whether a text holds all the words. Raises UserError for no words."""
    wanted = _WORD.findall(_folded(words))
    if not wanted:
        raise UserError(f"{words!r} holds no word to look for")
    begins = [re.compile(rf"(?<!\w){re.escape(word)}") for word in wanted]

    def holds(text: str) -> bool:
        folded = _folded(text)
        return all(one.search(folded) for one in begins)

    return holds


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")


def _words_of(message: Message | None) -> str:
    """Return what people wrote in a message."""
    match message:
        case Text(text) | Title(text) | Edit(_, text):
            return text
        case File(name, _, _, text) | Attachment(name, _, _, _, _, text):
            return f"{name} {text}"
        case SignatureRequest(document, _, note):
            return f"{document.name} {note}"
        case SignatureRefusal(_, _, reason):
            return reason
        case _:
            return ""
