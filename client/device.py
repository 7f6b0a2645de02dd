"""An opened device: its keys, its replica, who it is (SPEC 5.4).

Several processes may have one device open at once. Whatever reads and then writes does both inside
`transaction`, which takes the database's write lock first; so two `ivor send` at once are both
right, and neither signs a seq that the other has used (I16).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
from msgspec import convert

from client import joining
from client.folder import (
    DATABASE_FILE,
    KEY_FILE,
    Random,
    Secrets,
    count_of,
    count_up,
    mark_of,
    place_of,
    read_secrets,
    settle_count,
    sync_count,
    write_secrets,
)
from node.database import connect, note, noted
from node.disk import failed
from node.errors import UserError
from node.replica import Replica
from node.tls import Credential
from protocol.chat import Chat
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.identity import (
    Card,
    Charter,
    UserCertificate,
    verify_card,
    verify_charter,
    verify_user,
)

_MARK = "mark"  # in `meta`: of a key file that is to be put in the place of the one here


@dataclass(frozen=True, slots=True)
class Profile:
    """Who this device is. Raw certificates are those that others check; archive: of ML-DSA."""

    charter: Charter
    user: UserCertificate
    device_certificate: bytes
    tls_certificate: bytes
    card: Card
    archive: bytes

    @property
    def name(self) -> str:
        """The user's address, `anna@minzdrav`."""
        return f"{self.user.name}@{self.charter.name}"


class Device:
    """One device's keys and database. random: n -> n random bytes."""

    def __init__(self, folder: Path, secrets: Secrets, random: Random) -> None:
        self.folder = folder
        self.secrets = secrets
        self.random = random
        self.connection = self._open()
        self.profile = self._read_profile()
        self.replica = Replica(self.connection, self.profile.charter.agency, self.key)
        self._others: Sequence[DeviceKey] | None = None
        self.epoch_times: dict[EntryId, int] = {}  # of epochs that we wrote with
        self._version = self._data_version()
        self.displaced = self._is_displaced()
        self._counted = 0  # by this process
        self._has_counted = False
        self.count_up()

    def _open(self) -> apsw.Connection:
        return connect(self.folder / DATABASE_FILE, self.secrets.database_key)

    def _place(self) -> int:
        return place_of(self.folder)

    def _is_displaced(self) -> bool:
        """Whether the folder, or the database in it, was copied or brought back since last asked.

        What was counted is read first: another process may be writing.
        """
        counted, here = count_of(self.folder), self._place()
        known = self.noted("place")
        if known != here and self._was_replaced():
            known = here
            self._settle_place()
        if known is None and here:
            self.connection.execute(
                "INSERT INTO meta VALUES ('place', ?) ON CONFLICT DO NOTHING", (here,)
            )
        return known not in (None, here) or counted > self._count()

    def _was_replaced(self) -> bool:
        """Whether a change of the passphrase put this key file here, and was killed then."""
        mark = self.noted(_MARK)
        return bool(mark) and mark == mark_of(self.folder, (self.folder / KEY_FILE).stat())

    def _settle_place(self) -> None:
        with self.connection:
            self.note("place", self._place())
            self.note(_MARK, b"")

    def _count(self) -> int:
        """Return how many entries of this device are here."""
        return int(
            self.connection.execute(
                "SELECT ifnull(sum(length), 0) FROM chains WHERE device = ?", (self.key,)
            ).get
        )

    def settle_here(self) -> None:
        """Take this folder for the device's: its node has told all that the device wrote."""
        self.note("place", self._place())
        self._counted = self._count()
        settle_count(self.folder, self._counted)
        self.displaced = False

    def change_passphrase(self, passphrase: bytes) -> None:
        """Seal the keys under another passphrase. A copy of before opens with the old one.

        The key file is another one then, and the folder no copy for that, whenever this process is
        killed: the new one is marked before it is there. Raises StorageError.
        """

        def mark(drafted: os.stat_result) -> None:
            if not self.displaced:
                self.note(_MARK, mark_of(self.folder, drafted))

        write_secrets(self.folder, self.secrets, passphrase, self.random, mark)
        if not self.displaced:
            self._settle_place()

    def count_up(self) -> None:
        """Keep how many entries of this device are here, before anybody is told of the newest.

        So an older database in the place of this one is noticed, however this process ends (I16).
        """
        count = self._count()
        if self.displaced or count <= self._counted:
            return
        self._counted = count
        self._has_counted |= count_up(self.folder, count)

    def noted(self, what: str) -> int | bytes | None:
        """Return what was noted last by this name."""
        return noted(self.connection, what)

    def note(self, what: str, value: int | bytes) -> None:
        """Remember a value by a name, instead of an earlier one."""
        note(self.connection, what, value)

    def done_at(self, what: str) -> int:
        """Return when something was last done, in milliseconds; 0 for never. See `note`."""
        return int(self.noted(what) or 0)

    def chat(self, chat: ChatId) -> Chat | None:
        """Return the judge of a chat; None if it is not here, or damaged (SPEC 10).

        For what goes through many chats: one that is damaged holds up no other.
        """
        return self.replica.chat(chat) if self.replica.is_readable(chat) else None

    def chats(self) -> Iterator[Chat]:
        """Yield the chats that are here, in the order of their arrival, but for damaged ones."""
        for chat in self.replica.store.chats():
            judge = self.chat(chat)
            if judge is not None:
                yield judge

    def damaged(self) -> list[ChatId]:
        """Return the chats that are here and cannot be judged."""
        return [one for one in self.replica.store.chats() if not self.replica.is_readable(one)]

    @property
    def key(self) -> DeviceKey:
        """The device's public key."""
        return DeviceKey(self.secrets.device.public)

    @property
    def credential(self) -> Credential:
        """What the device shows in TLS."""
        return Credential(self.profile.tls_certificate, self.secrets.tls_key)

    def reread(self) -> None:
        """Take up what this or another process has renewed since: certificates, and the card."""
        self.profile = self._read_profile()

    def _read_profile(self) -> Profile:
        try:
            row = self.connection.execute(
                "SELECT charter, certificate, device, tls, card, archive FROM profile"
            ).fetchone()
        except apsw.SQLError:  # no such table
            row = None
        if row is None:
            raise UserError(
                f"{self.folder / DATABASE_FILE} is empty, so this device's database is gone: "
                "take a new device in its place"
            )
        charter = verify_charter(row[0])
        user, card = verify_user(row[1], charter), verify_card(row[4])
        return Profile(charter, user, row[2], row[3], card, row[5])

    def _data_version(self) -> int:
        return int(self.connection.execute("PRAGMA data_version").get)

    @property
    def others(self) -> Sequence[DeviceKey]:
        """The other devices of our user that are in use."""
        if self._others is None:
            rows = self.connection.execute(
                "SELECT id FROM devices WHERE user = ? AND revoked = 0 AND id != ? ORDER BY id",
                (self.profile.user.user, self.key),
            ).fetchall()
            self._others = [key for (key,) in convert(rows, list[tuple[DeviceKey]])]
        return self._others

    def forget(self) -> None:
        """Drop what is cached of the database: it may have changed."""
        self.replica.forget()
        self.forget_others()

    def forget_others(self) -> None:
        """Drop what is cached of our devices: one came, or is in use no longer."""
        self._others = None

    def refresh(self) -> bool:
        """Drop what is cached if another process has written; return whether it has."""
        version = self._data_version()
        if version == self._version:
            return False
        self._version = version
        self.forget()
        self.count_up()
        return True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock; commit at the end, durably; undo everything if it fails.

        Raises StorageError when the disk fails: then nothing of it is kept.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self.refresh()
            before = self.replica.store.changed
            yield
            self.connection.execute("COMMIT")
        except apsw.Error as error:
            self._undo()
            raise failed(error, self.connection, "nothing was stored") from error
        except BaseException:
            self._undo()
            raise
        if self.replica.store.changed != before:
            self.count_up()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what a block writes if it fails, and nothing else. Use inside `transaction`."""
        try:
            with self.connection:  # a savepoint
                yield
        except BaseException:
            self.forget()
            raise

    def _undo(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.forget()

    def close(self) -> None:
        """Close the database."""
        with suppress(apsw.Error):
            self.count_up()
        if self._has_counted:
            sync_count(self.folder)
        self.connection.close()


def open_device(folder: Path, passphrase: bytes, random: Random) -> Device:
    """Open the device in a folder."""
    secrets = read_secrets(folder, passphrase)
    joining.forget(folder)  # a join that was killed at its very end
    return Device(folder, secrets, random)
