"""Inputs to begin with: the cases of `vectors/`, valid and invalid.

raws("entries", "header")         # that field of each case, as bytes
"""

import json
from collections.abc import Iterator

from tests.vectors import FOLDER, Case, Json, from_hex

SEED_BYTES_MAX = 8192  # longer ones are slow, and say little more


def cases(file: str) -> list[Case]:
    """Return the cases of a file of vectors."""
    found: list[Case] = json.loads((FOLDER / f"{file}.json").read_text())["cases"]
    return found


def raw(value: Json) -> bytes:
    """Return bytes that a case has in hex; of nil, none."""
    return from_hex(value) if isinstance(value, str) else b""


def plain(value: Json) -> object:
    """Return a value of a case with all its hex as bytes."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return raw(value) if isinstance(value, str) else value


def number(value: Json) -> int:
    """Return a number of a case."""
    assert isinstance(value, int)
    return value


def raws(file: str, field: str) -> Iterator[bytes]:
    """Yield a field of each case of a file as bytes, short ones only."""
    for case in cases(file):
        found = raw(case[field])
        if len(found) <= SEED_BYTES_MAX:
            yield found


def texts(file: str, field: str) -> Iterator[bytes]:
    """Yield a field of each case of a file that is text, encoded."""
    for case in cases(file):
        found = case.get(field)
        if isinstance(found, str) and len(found) <= SEED_BYTES_MAX:
            yield found.encode(errors="surrogatepass")
