"""What a new device has made and asks for, kept until it is enrolled (SPEC 5.3).

    begun = joining.read(folder, ticket, passphrase)              # None: nothing was begun
    joining.keep(folder, ticket, begun, passphrase, random)       # durable; then its node is asked
    joining.forget(folder)

The node registers a device before the answer has come. Whoever is killed in between, or hears no
answer, asks the very same again, with the same keys, and gets the same answer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.folder import (
    DATABASE_FILE,
    KEY_FILE,
    SECRETS_BYTES_MAX,
    Random,
    Secrets,
    is_device,
    pack_secrets,
    read_sealed,
    unpack_secrets,
    write_sealed,
)
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from node.errors import StorageError, UserError
from node.files import sync_folder
from protocol import codec
from protocol.question import Question, decode_question, encode_question

_PREFIX: Final = "joining-"
_SUFFIX: Final = ".key"
_RECORD_BYTES_MAX: Final = 4096
_ASKS_BYTES_MAX: Final = 16 * 1024
_BYTES_MAX: Final = 32 * 1024
_TOPICS: Final = 256


@dataclass(frozen=True, slots=True)
class Start:
    """What a new device has made for itself. record: of its first prekey."""

    secrets: Secrets
    prekey: Prekey
    record: bytes


@dataclass(frozen=True, slots=True)
class Joining:
    """A start, and what it asks its node."""

    start: Start
    asks: Question


def check_free(folder: Path) -> None:
    """Raise UserError if a device is in a folder already, or what is left of one."""
    if is_device(folder):
        raise UserError(
            f"{folder} already holds a device; set IVOR_HOME to another folder for a second one"
        )
    database = folder / DATABASE_FILE
    if database.exists() and not _files(folder):
        raise UserError(
            f"{database} is of a device whose key file is gone: bring back {KEY_FILE}, "
            "or set IVOR_HOME to another folder"
        )


def is_begun(folder: Path, ticket: bytes) -> bool:
    """Tell whether something was begun here with the invitation of this ticket."""
    return _file(folder, ticket).exists()


def is_done(folder: Path, ticket: bytes) -> bool:
    """Tell whether the invitation of this ticket has made the device that is here."""
    return is_device(folder) and is_begun(folder, ticket)


def read(folder: Path, ticket: bytes, passphrase: bytes) -> Joining | None:
    """Return what was begun with the invitation of this ticket; None if nothing was.

    Raises UserError for another passphrase than it was begun with.
    """
    if not is_begun(folder, ticket):
        return None
    plain = read_sealed(_file(folder, ticket), _purpose(ticket), passphrase)
    secrets, prekey, record, topic, asks = codec.record(codec.decode(plain, _BYTES_MAX), 5, "start")
    return Joining(
        Start(
            unpack_secrets(codec.binary(secrets, SECRETS_BYTES_MAX, "keys")),
            Prekey(codec.fixed(prekey, PREKEY_PRIVATE_BYTES, "prekey")),
            codec.binary(record, _RECORD_BYTES_MAX, "prekey record"),
        ),
        decode_question(
            codec.uint(topic, _TOPICS, "topic"), codec.binary(asks, _ASKS_BYTES_MAX, "question")
        ),
    )


def keep(folder: Path, ticket: bytes, begun: Joining, passphrase: bytes, random: Random) -> None:
    """Keep what is begun with the invitation of this ticket, durably."""
    start, (topic, asks) = begun.start, encode_question(begun.asks)
    packed = pack_secrets(start.secrets)
    plain = codec.encode((packed, start.prekey.private, start.record, int(topic), asks))
    write_sealed(_file(folder, ticket), _purpose(ticket), plain, passphrase, random)


def forget(folder: Path) -> None:
    """Remove all that was begun here, durably: it is enrolled, or it was refused."""
    files = _files(folder)
    try:
        for file in files:
            file.unlink(missing_ok=True)
        if files:
            sync_folder(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be tidied up: {error.strerror}") from error


def _files(folder: Path) -> list[Path]:
    return list(folder.glob(f"{_PREFIX}*{_SUFFIX}"))


def _purpose(ticket: bytes) -> str:
    return f"joining {ticket.hex()}"


def _file(folder: Path, ticket: bytes) -> Path:
    return folder / f"{_PREFIX}{ticket.hex()}{_SUFFIX}"
