"""The list of planted bugs, and how one is planted in a tree."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("list.toml")
Tests = Annotated[tuple[str, ...], Meta(min_length=1)]


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """What to find in a file, exactly once, and what to put there."""

    file: str
    find: str
    put: str


class Planting(Protocol):
    """A bug that can be planted."""

    @property
    def name(self) -> str:
        """What is wrong."""

    @property
    def breaks(self) -> str:
        """The property, or the invariant, that it breaks."""

    @property
    def changes(self) -> Sequence[Change]:
        """All that is changed."""


Planted = TypeVar("Planted", bound=Planting)


def chosen(listed: Sequence[Planted], words: Sequence[str]) -> Sequence[Planted]:
    """Return those in whose name, or in what they break, is one of the words; all for none.

    Ends the program if a word is in none.
    """
    said = {one.name: f"{one.name} {one.breaks}" for one in listed}
    for word in words:
        if not any(word in text for text in said.values()):
            sys.exit(f"no planted bug has {word!r} in its name: give words of names, or none: all")
    return [one for one in listed if not words or any(word in said[one.name] for word in words)]


class Mutant(Struct, frozen=True, forbid_unknown_fields=True):
    """A bug, the property it breaks, and the tests of which one must fail.

    also: further changes without which the bug would be caught by another line of defence.
    """

    name: str
    breaks: str
    file: str
    find: str
    put: str
    tests: Tests
    also: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All that is changed."""
        return (Change(self.file, self.find, self.put), *self.also)


class Listed(Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    mutant: tuple[Mutant, ...]


def mutants() -> tuple[Mutant, ...]:
    """Read the list."""
    return msgspec.toml.decode(LIST.read_bytes(), type=Listed).mutant


def plant(tree: Path, mutant: Planting) -> None:
    """Make the changes in a tree. ValueError if a text is not there exactly once."""
    for change in mutant.changes:
        path = tree / change.file
        text = path.read_text()
        if text.count(change.find) != 1:
            times = text.count(change.find)
            raise ValueError(f"{mutant.name}: {change.file} has its text {times} times, not once")
        path.write_text(text.replace(change.find, change.put))
