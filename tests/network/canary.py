"""Finds a text that must be nowhere, however it is written down."""

import base64
from collections.abc import Iterator
from pathlib import Path

ALIGNMENTS = 3


def spellings(text: str) -> Iterator[tuple[str, bytes]]:
    """Return the name of each spelling, and bytes that every file with it holds.

    Of base64 that is what does not depend on the bytes before and after: three cases, by alignment.
    """
    plain = text.encode()
    for name in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
        yield name, text.encode(name)
    for bits in (plain, text.encode("utf-16-le")):
        yield "hex", bits.hex().encode()
        yield "HEX", bits.hex().upper().encode()
        for at in range(ALIGNMENTS):
            whole = base64.b64encode(bytes(at) + bits)
            certain = whole[4 if at else 0 : -4]
            yield f"base64 at {at}", certain
            yield f"base64url at {at}", certain.translate(bytes.maketrans(b"+/", b"-_"))


def found(text: str, raw: bytes) -> list[str]:
    """Return the names of the spellings in which bytes hold the text."""
    return [name for name, spelt in spellings(text) if spelt in raw]


def found_in(text: str, folder: Path) -> list[str]:
    """Return where in a folder the text is, and how it is spelt."""
    return [
        f"{file}: {name}"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for name in found(text, file.read_bytes())
    ]
