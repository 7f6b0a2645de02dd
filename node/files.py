"""Files that only their owner may read, written whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_OWNER_ONLY = 0o600


def write_private(
    path: Path, data: bytes, drafted: Callable[[os.stat_result], object] = bool
) -> None:
    """Write a file of mode 0600 so that a crash leaves the old content or the new, never a part.

    drafted: told of the new file before it is put in the place of the old one.
    Raises OSError; then the old file is as it was.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        _keep_owner(descriptor, path)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    drafted(draft.stat())
    draft.replace(path)
    sync_folder(path.parent)


def _keep_owner(descriptor: int, path: Path) -> None:
    """Give what root writes in the place of a file to the old one's owner, who has to read it."""
    if os.geteuid() == 0 and path.exists():
        before = path.lstat()
        os.fchown(descriptor, before.st_uid, before.st_gid)


def sync_file(file: Path) -> None:
    """Make what was written to a file, by whomever, durable. Raises OSError."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def private_draft(path: Path) -> Iterator[BinaryIO]:
    """Write a large file of mode 0600 bit by bit; at the end of the block it is there whole.

    If the block raises, the old file is as it was. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.ivor")  # people keep files beside it, NAME.new too
    draft.unlink(missing_ok=True)

    def opened(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, _OWNER_ONLY)

    try:
        with open(draft, "xb", opener=opened) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
