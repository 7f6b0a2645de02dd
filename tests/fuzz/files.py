"""Files that a person puts in their place: key files, settings, backups."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from unittest.mock import patch

import msgspec

from client import backup
from client.backup import Contents
from client.device import Device
from crypto import keyfile
from crypto.errors import KeyFileRefused
from crypto.keyfile import open_key, seal_key
from crypto.recovery import backup_key
from crypto.sealing import Prekey
from node.config import ConfigError, Value, explain, load_settings, write_settings
from node.errors import EvidenceError, IdentityError, UserError
from protocol import backup as form
from protocol import codec
from protocol.errors import PeerError
from protocol.testing.cast import person, seed
from tests.federation import Federation
from tests.fuzz.mutation import tree, words
from tests.fuzz.once import sealed_by_hashes
from tests.fuzz.seeds import cases, raw, texts
from tests.fuzz.target import target

_PASSPHRASE, _SECRET = b"passphrase", b"secret"


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="ivor-fuzz-")  # removed when the process ends


@cache
def _descriptor() -> int:
    return os.memfd_create("fuzz")


def _file(data: bytes) -> Path:
    """Return a file that no disk has to write."""
    os.ftruncate(_descriptor(), 0)
    os.pwrite(_descriptor(), data, 0)
    return Path(f"/proc/self/fd/{_descriptor()}")


def _cheap() -> AbstractContextManager[object]:
    """Costs of argon2id that let a thousand files be opened in a second."""
    return patch.multiple(keyfile, MEMORY_KIB=8, MEMORY_KIB_MAX=64, PASSES=1, PASSES_MAX=1)


# Key files


def _read_key(data: bytes) -> bytes:
    """Open a file. Bytes that are no block are put into one, so that its sum is right."""
    block = data if b"-----" in data else keyfile._armour(data).encode()
    with _cheap():
        return open_key(block, _PASSPHRASE, "device")


def _key_law(_: bytes, secret: bytes) -> None:
    """Only what was sealed comes out."""
    assert secret == _SECRET


def _keys() -> Iterator[bytes]:
    yield from texts("keys", "text")
    with _cheap():
        for purpose in ("device", "agency root"):
            text = seal_key(_SECRET, _PASSPHRASE, purpose, seed("salt")[:16], seed("nonce")[:24])
            yield text.encode()
            yield keyfile._dearmour(text)


# Settings


def _read_settings(data: bytes) -> Mapping[str, Value]:
    """Load a file and, after a NUL, variables of the environment."""
    text, _, variables = data.partition(b"\0")
    lines = variables.decode(errors="surrogateescape").splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    loaded = load_settings(_file(text), environment, {})
    return {one.name: one.value for one in explain(loaded)}


def _settings_law(_: bytes, values: Mapping[str, Value]) -> None:
    """What was loaded can be written, and loads as the same."""
    again = load_settings(_file(write_settings(values).encode()), {}, {})
    assert {one.name: one.value for one in explain(again)} == values


def _settings() -> Iterator[bytes]:
    yield b"format = 1\nlisten = '0.0.0.0:7340'\nallow_local = true\nconnections_max = 9\n"
    yield b"log_level = \"debug\"\nsource = '::1'\nmetrics = '[::1]:9000'\n"
    yield b"\0IVOR_LISTEN=localhost:1\nIVOR_HANDSHAKES_MAX=3\nIVOR_LISTENS=x\nHOME=y"


# Backups


@cache
def _device() -> Device:
    with _cheap():
        return Federation(Path(_folder().name)).official("anna@mz")


def _user_seed() -> bytes:
    user = _device().secrets.user
    assert user is not None
    return user.seed


@cache
def _backup_key() -> Prekey:
    return backup_key(_user_seed())


def _read_backup(data: bytes) -> Contents:
    """Check a file. An array of bodies is made one, each sealed in its place and the end signed."""
    try:
        bodies = msgspec.msgpack.decode(data, type=list[bytes])
        written = b"".join(_sealed(bodies))
    except (msgspec.MsgspecError, RecursionError):
        written = data
    return backup.check(_device(), _file(written), _user_seed(), lambda _: None)


def _sealed(bodies: list[bytes]) -> Iterator[bytes]:
    own = _backup_key()
    place = form.begin(seed("backup")[: form.BACKUP_ID_BYTES], own.public)
    for body in (_head(), *bodies):
        part = form.seal_part(own.public, place, seed("key", str(place.no)), body)
        yield part
        place = place.after(part)
    signature = _device().secrets.device.sign(form.LABEL, place.signed)
    end = codec.encode((backup.END, *_counts(bodies), signature))
    yield form.seal_part(own.public, replace(place, last=1), seed("key", "end"), end)


def _head() -> bytes:
    profile = _device().profile
    certificates = profile.user.raw, profile.device_certificate
    return codec.encode((backup.HEAD, 0, profile.charter.raw, *certificates))


def _counts(bodies: list[bytes]) -> list[int]:
    counts = [0, 0, 0]
    for body in bodies:
        with suppress(PeerError):
            match codec.decode(body, len(body)):
                case (backup.LETTERS | backup.PEOPLE | backup.CHATS as kind, tuple(items)):
                    counts[kind - backup.LETTERS] += len(items)
                case _:
                    pass  # refused when it is read
    return counts


def _backup_law(_: bytes, contents: Contents) -> None:
    """It is a backup of the device's own."""
    assert contents.device == _device().key


def _backups() -> Iterator[bytes]:
    who = person("boris@mz")
    letters = ((seed("entry"), b"\x93\x00\xc4\x01x\xc0", seed("frank")),)
    people = ((who.agency.charter, who.certificate, 1),)
    parts = (backup.LETTERS, letters), (backup.PEOPLE, people), (backup.CHATS, (seed("chat"),))
    yield codec.encode([codec.encode(part) for part in parts])
    yield codec.encode([codec.encode(part) for part in parts[::2]])
    yield codec.encode([])
    for case in cases("backups"):
        parted = case["parts"]
        assert isinstance(parted, list)
        yield b"".join(map(raw, parted))


_TOML: Final = (
    *("listen", "metrics", "source", "allow_local", "log_level", "connections_max", "format"),
    *(" = ", "\n", "'", '"', "true", "1", "-1", "1e9", "[", "]", "{", "}", ".", "\0IVOR_LISTEN="),
    *(
        "0x7fffffffffffffff",
        "9" * 40,
        "9" * 4400,
        "[" * 1500,
        "{a=" * 900,
        "a." * 1500,
        "1979-05-27",
        "12:00:61",
        "\\u0000",
        "'''",
        "#",
        "[[a]]",
    ),
)
TARGETS: Final = {
    "keyfiles": target(_read_key, _key_law, (KeyFileRefused,), _keys, words("-----", "\r\n", "A=")),
    "settings": target(
        _read_settings, _settings_law, (ConfigError,), _settings, words(*_TOML), 8192
    ),
    "backups": target(
        _read_backup,
        _backup_law,
        (EvidenceError, IdentityError, UserError),
        _backups,
        tree,
        setting=sealed_by_hashes,
    ),
}
