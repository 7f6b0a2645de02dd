"""Names, addresses, zones and endpoints, as people type them and records carry them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from node.config import refuse_local
from protocol.errors import LimitExceeded, NotCanonical, Untrusted
from protocol.name import (
    check_name,
    check_zone,
    fold,
    inside,
    look_alike,
    parse_address,
    split_endpoint,
)
from tests.fuzz.mutation import words
from tests.fuzz.seeds import texts
from tests.fuzz.target import target

_REFUSALS = (NotCanonical, LimitExceeded, Untrusted)


def _name(text: str) -> bool:
    """A name is in the form that it has on the wire, and half of an address."""
    name = check_name(text)
    return name == text == fold(text) and parse_address(f"{name}@{name}").user == name


def _address(text: str) -> bool:
    address = parse_address(text)
    return parse_address(address.text) == address and not look_alike(text, address.text)


def _zone(text: str) -> bool:
    zone = check_zone(text)
    return zone == text and inside(zone, zone) and not inside(zone, f"{zone}-A")


def _endpoint(text: str) -> bool:
    host, port = split_endpoint(text)
    with suppress(Untrusted):
        refuse_local([text])
    return text in {f"{host}:{port}", f"[{host}]:{port}"}


_FORMS: Final[tuple[Callable[[str], bool], ...]] = (_name, _address, _zone, _endpoint)


def _read(data: bytes) -> list[bool]:
    text = data.decode(errors="surrogateescape")
    kept = [not look_alike(text, text)]
    for form in _FORMS:
        with suppress(*_REFUSALS):
            kept.append(form(text))
    return kept


def _law(_: bytes, kept: list[bool]) -> None:
    assert all(kept)


_WORDS = ("anna", "минздрав", "@", "RU-UDM", ".", "-", ":7340", "[::1]", "е\u0308", "İ", "ß", "K")
TARGETS: Final = {"names": target(_read, _law, (), lambda: texts("names", "text"), words(*_WORDS))}
