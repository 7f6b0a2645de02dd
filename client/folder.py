"""The folder of a device: one encrypted key file, one encrypted database (SPEC 5.4, 10).

device.key   the device's signing key, its ML-DSA key, its TLS key, the database key, and on a
user's first device the user identity key; argon2id from a passphrase, mode 0600
device.db    everything else, encrypted at rest with the database key
device.count how many entries of this device the database has had, so that an old one is noticed

The key file is written last: where it is, there is a device (`joining` has what comes before).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from crypto.archival import ARCHIVAL_SEED_BYTES, ArchivalSigner
from crypto.errors import KeyFileRefused
from crypto.keyfile import NONCE_BYTES, SALT_BYTES, open_key, seal_key
from crypto.signing import SEED_BYTES, Signer
from node.errors import StorageError, UserError
from node.files import sync_file, write_private
from protocol import codec

Random = Callable[[int], bytes]
Drafted = Callable[[os.stat_result], object]

KEY_FILE = "device.key"
DATABASE_FILE = "device.db"
COUNT_FILE = "device.count"
PURPOSE = "device"
VERSION = 1
SECRETS_BYTES_MAX = 4096
DATABASE_KEY_BYTES = 32
_PLACE_MAX = (1 << 62) - 1
COUNT_BYTES = 20
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the key file holds. user: None on a linked device. tls_key: PEM. archive: ML-DSA."""

    device: Signer
    user: Signer | None
    database_key: bytes = field(repr=False)
    tls_key: bytes = field(repr=False)
    archive: ArchivalSigner


def is_device(folder: Path) -> bool:
    """Tell whether a folder holds an enrolled device."""
    return (folder / KEY_FILE).exists()


def place_of(folder: Path) -> int:
    """Return a number that a device's folder keeps until it, or a file in it, is brought back.

    It is of when the key file's inode was changed last, which no program that copies can set, and
    of which inode the database is. 0 while the device is being made.
    """
    if not is_device(folder):
        return 0
    changed = (folder / KEY_FILE).stat().st_ctime_ns
    return (changed ^ (folder / DATABASE_FILE).stat().st_ino) & _PLACE_MAX


def mark_of(folder: Path, key_file: os.stat_result) -> bytes:
    """Return what tells a key file that is put in the place of another from any copy of it.

    A rename changes when its inode was changed last, of which `place_of` is; not which inode it is.
    """
    database = (folder / DATABASE_FILE).stat()
    return b"%d %d %d" % (key_file.st_ino, key_file.st_mtime_ns, database.st_ino)


def count_of(folder: Path) -> int:
    """Return how many entries of the device the database had when that was last kept."""
    try:
        return _read_count((folder / COUNT_FILE).read_bytes())
    except OSError:
        return 0


def _read_count(written: bytes) -> int:
    try:
        return int(written)
    except ValueError:  # nothing yet, or damaged
        return 0


def count_up(folder: Path, count: int) -> bool:
    """Keep that the database has so many entries of the device, or more; return if that is news.

    Without a sync: what a power cut takes of it the next start counts anew. A disk that is full
    loses nothing.
    """
    if not is_device(folder):
        return False
    with suppress(OSError), _count_file(folder) as descriptor:
        if count > _read_count(os.pread(descriptor, COUNT_BYTES, 0)):
            os.pwrite(descriptor, _counted(count), 0)
            return True
    return False


def settle_count(folder: Path, count: int) -> None:
    """Keep, durably, that the database has so many entries of the device, and no more."""
    if not is_device(folder):
        return
    with suppress(OSError), _count_file(folder) as descriptor:
        os.pwrite(descriptor, _counted(count), 0)
        os.fsync(descriptor)


def sync_count(folder: Path) -> None:
    """Make what `count_up` has kept durable."""
    with suppress(OSError):
        sync_file(folder / COUNT_FILE)


@contextmanager
def _count_file(folder: Path) -> Iterator[int]:
    """Hold the file with the count, so that no other process writes it meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(folder / COUNT_FILE, flags, _OWNER_ONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _counted(count: int) -> bytes:
    """Return a count as it is written: always as long, so that it is written over in one go."""
    return b"%0*d" % (COUNT_BYTES, count)


def write_secrets(
    folder: Path, secrets: Secrets, passphrase: bytes, random: Random, drafted: Drafted = bool
) -> None:
    """Write the key file of a device, in the place of another one if there is one.

    drafted: told of the new one before it is there.
    """
    write_sealed(folder / KEY_FILE, PURPOSE, pack_secrets(secrets), passphrase, random, drafted)


def read_secrets(folder: Path, passphrase: bytes) -> Secrets:
    """Open the key file. Raises UserError if there is none or the passphrase is wrong."""
    if not is_device(folder):
        raise UserError(
            f"no device in {folder}: enrol with 'ivor join INVITATION', or set IVOR_HOME"
        )
    return unpack_secrets(read_sealed(folder / KEY_FILE, PURPOSE, passphrase))


def pack_secrets(secrets: Secrets) -> bytes:
    """Return what a key file seals."""
    user = None if secrets.user is None else secrets.user.seed
    return codec.encode(
        (
            VERSION,
            secrets.device.seed,
            user,
            secrets.database_key,
            secrets.tls_key,
            secrets.archive.seed,
        )
    )


def unpack_secrets(plain: bytes) -> Secrets:
    """Read what a key file sealed."""
    _, device, user, database_key, tls_key, archive = codec.record(
        codec.decode(plain, SECRETS_BYTES_MAX), 6, "device key file"
    )
    return Secrets(
        Signer(codec.fixed(device, SEED_BYTES, "device key")),
        None if user is None else Signer(codec.fixed(user, SEED_BYTES, "user key")),
        codec.fixed(database_key, DATABASE_KEY_BYTES, "database key"),
        codec.binary(tls_key, SECRETS_BYTES_MAX, "TLS key"),
        ArchivalSigner(codec.fixed(archive, ARCHIVAL_SEED_BYTES, "ML-DSA key")),
    )


def write_sealed(
    file: Path,
    purpose: str,
    plain: bytes,
    passphrase: bytes,
    random: Random,
    drafted: Drafted = bool,
) -> None:
    """Write a file that a passphrase opens, and its folder if there is none. See `seal_key`."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sealed = seal_key(plain, passphrase, purpose, random(SALT_BYTES), random(NONCE_BYTES))
        write_private(file, sealed.encode(), drafted)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error


def read_sealed(file: Path, purpose: str, passphrase: bytes) -> bytes:
    """Open such a file. Raises UserError, and StorageError if the disk does not give it."""
    try:
        return open_key(file.read_bytes(), passphrase, purpose)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    except KeyFileRefused as error:
        raise UserError(f"{file} does not open: {error}") from None
