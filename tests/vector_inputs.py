"""The inputs of a vector, as the types that the code takes."""

from protocol.entry import (
    ChatId,
    DeviceKey,
    EntryId,
    Place,
    Reference,
)
from tests.vectors import Json, from_hex


class Inputs:
    """Typed reading of a case."""

    def __init__(self, case: Json) -> None:
        assert isinstance(case, dict)
        self._case = case

    def plain(self, key: str) -> str:
        found = self._case[key]
        assert isinstance(found, str)
        return found

    def text(self, key: str) -> str:
        return self.plain(key) * (self.number("times") if "times" in self._case else 1)

    def raw(self, key: str) -> bytes:
        return from_hex(self.plain(key))

    def maybe(self, key: str) -> bytes | None:
        return None if self._case[key] is None else self.raw(key)

    def number(self, key: str) -> int:
        found = self._case[key]
        assert isinstance(found, int)
        return found

    def items(self, key: str) -> list[Json]:
        found = self._case[key]
        assert isinstance(found, list)
        return found

    def raws(self, key: str) -> list[bytes]:
        return [as_raw(one) for one in self.items(key)]

    def each(self, key: str) -> list["Inputs"]:
        return [Inputs(one) for one in self.items(key)]


def as_raw(value: Json) -> bytes:
    assert isinstance(value, str)
    return from_hex(value)


def as_number(value: Json) -> int:
    assert isinstance(value, int)
    return value


def as_items(value: Json) -> list[Json]:
    assert isinstance(value, list)
    return value


def as_reference(value: Json) -> Reference:
    device, seq, entry = as_items(value)
    return Reference(DeviceKey(as_raw(device)), as_number(seq), EntryId(as_raw(entry)))


def as_place(value: list[Json]) -> Place:
    chat, device, seq, prev, links = value
    return Place(
        ChatId(as_raw(chat)),
        DeviceKey(as_raw(device)),
        as_number(seq),
        None if prev is None else EntryId(as_raw(prev)),
        tuple(as_reference(one) for one in as_items(links)),
    )
