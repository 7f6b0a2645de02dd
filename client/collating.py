"""Edits and reactions put to the message that they are about (SPEC 5.5).

    shown = collate(lines)       # the lines of one chat, in the order for people

What counts for nothing, what is about another's message or one that is not among the lines, and an
edit of what is no text (any more) stays a line of its own: nothing is dropped in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from client.reading import Line
from protocol.entry import EntryId
from protocol.identity import UserId
from protocol.message import Edit, Reaction, Text


@dataclass(slots=True)
class Shown:
    """A message with what came of it. text: of its last edit, None if there is none."""

    line: Line
    text: str | None = None
    by_user: dict[UserId, tuple[str, str]] = field(default_factory=dict)

    @property
    def reactions(self) -> dict[str, list[str]]:
        """Who reacted, by name, for each reaction; one of each user, the last."""
        found: dict[str, list[str]] = {}
        for reaction, name in self.by_user.values():
            if reaction:
                found.setdefault(reaction, []).append(name)
        return found


def collate(lines: Sequence[Line]) -> list[Shown]:
    """Return what to show, in the same order; later edits and reactions win."""
    shown = [Shown(line) for line in lines]
    known = {one.line.letter.reference.id: one for one in shown}
    return [one for one in shown if not _taken_up(one.line, known)]


def _taken_up(line: Line, known: dict[EntryId, Shown]) -> bool:
    """Put an edit or reaction to its message; tell whether there is one that takes it."""
    message, author = line.letter.message, line.author
    if line.void is not None or author is None or not isinstance(message, Edit | Reaction):
        return False
    target = known.get(message.target.id)
    if target is None or target.line.letter.reference != message.target:
        return False
    if isinstance(message, Reaction):
        if target.line.letter.message is None:
            return False
        target.by_user[author.user] = (message.text, author.name)
        return True
    theirs = target.line.author
    own = theirs is not None and theirs.user == author.user
    if not own or not isinstance(target.line.letter.message, Text):
        return False
    target.text = message.text
    return True
