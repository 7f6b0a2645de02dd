"""Users and devices in a node's tables: our own, and what other agencies told of theirs (SPEC 7.2).

Rows of users of other agencies are a cache, for when that agency cannot be reached. Calls that
write run inside a transaction of the caller's, who has checked what is written.
"""

from collections.abc import Collection, Iterable

import apsw
from msgspec import convert

from node.database import BEGUN_ANEW
from node.errors import RefusedError
from protocol import codec
from protocol.entry import DeviceKey
from protocol.identity import AgencyId, UserId
from protocol.listing import LISTING_BYTES_MAX, listing_fields, read_listing
from protocol.person import KnownPerson, Person, PersonDevice

LISTED = "listed"


class People:
    """The users and devices of a database. agency: our own."""

    def __init__(self, connection: apsw.Connection, agency: AgencyId) -> None:
        self.connection = connection
        self.agency = agency

    def by_name(self, name: str) -> Person | None:
        """Return a user, `anna@minzdrav`, with the devices in use; None without any."""
        return self._person("name", name)

    def by_id(self, user: UserId) -> Person | None:
        """Return a user by their id, as `by_name` does."""
        return self._person("id", user)

    def _person(self, column: str, value: str | bytes) -> Person | None:
        """Return a user of ours, or one that an agency vouches for which is trusted still."""
        row = self.connection.execute(
            f"SELECT id, charter, certificate, listing FROM users"  # noqa: S608 - ours
            f" WHERE {column} = ? AND (agency = ? OR agency IN (SELECT id FROM agencies))",
            (value, self.agency),
        ).fetchone()
        if row is None:
            return None
        devices = self.connection.execute(
            "SELECT certificate, prekey FROM devices WHERE user = ? AND revoked = 0 ORDER BY id",
            (row[0],),
        )
        listed = tuple(PersonDevice(*device) for device in devices)
        if not listed:
            return None
        where = None if row[3] is None else read_listing(codec.decode(row[3], LISTING_BYTES_MAX))
        return Person(row[1], row[2], listed, where)

    def agency_of(self, user: UserId) -> AgencyId | None:
        """Return the agency of a user whose row is here."""
        found = self.connection.execute("SELECT agency FROM users WHERE id = ?", (user,)).get
        return None if found is None else AgencyId(found)

    def owner(self, device: DeviceKey) -> tuple[UserId, str] | None:
        """Return id and name (`anna@minzdrav`) of the own user of a device that is in use."""
        row = self.connection.execute(
            "SELECT users.id, name FROM devices JOIN users ON users.id = devices.user"
            " WHERE devices.id = ? AND revoked = 0 AND agency = ?",
            (device, self.agency),
        ).fetchone()
        return None if row is None else (UserId(row[0]), row[1])

    def known_device(self, device: DeviceKey) -> bool:
        """Whether a device was ever registered or cached here, in use or revoked."""
        found = self.connection.execute("SELECT 1 FROM devices WHERE id = ?", (device,)).get
        return found is not None

    def devices_in_use(self, user: UserId) -> int:
        """Count the devices of a user that are not revoked."""
        return int(
            self.connection.execute(
                "SELECT count(*) FROM devices WHERE user = ? AND revoked = 0", (user,)
            ).get
        )

    def keep_user(
        self, user: UserId, agency: AgencyId, name: str, charter: bytes, certificate: bytes
    ) -> bool:
        """Keep a user; whoever had the name before makes room. Return whether it was kept.

        An id that belongs to another agency's user is not taken over: a person who enrols one
        identity key at two agencies is known by the first.
        """
        self._unlist(agency)
        self.connection.execute("DELETE FROM users WHERE name = ? AND id != ?", (name, user))
        self.connection.execute(
            "INSERT INTO users (id, agency, name, charter, certificate) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, charter = excluded.charter,"
            " certificate = excluded.certificate WHERE agency = excluded.agency",
            (user, agency, name, charter, certificate),
        )
        return bool(self.connection.changes())

    def keep_device(
        self, device: DeviceKey, user: UserId, certificate: bytes, prekey: bytes | None
    ) -> None:
        """Keep a device of a user; never one that is another user's already."""
        self._unlist(self.agency_of(user))
        self.connection.execute(
            "INSERT INTO devices (id, user, certificate, prekey) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET certificate = excluded.certificate,"
            " prekey = excluded.prekey, revoked = 0 WHERE user = excluded.user",
            (device, user, certificate, prekey),
        )

    def certificate(self, device: DeviceKey) -> bytes:
        """Return the certificate of a device that is registered or cached here."""
        return bytes(
            self.connection.execute("SELECT certificate FROM devices WHERE id = ?", (device,)).get
        )

    def recertify(self, device: DeviceKey, certificate: bytes) -> None:
        """Replace the certificate of a device; our directory has the same keys as before."""
        self.connection.execute(
            "UPDATE devices SET certificate = ? WHERE id = ?", (certificate, device)
        )

    def charters(self) -> list[bytes]:
        """Return the charters under which our users were certified."""
        rows = self.connection.execute(
            "SELECT DISTINCT charter FROM users WHERE agency = ?", (self.agency,)
        )
        return [row[0] for row in rows]

    def certified_under(self, charter: bytes) -> list[tuple[UserId, bytes]]:
        """Return our users who were certified under a charter, and their certificates."""
        rows = self.connection.execute(
            "SELECT id, certificate FROM users WHERE agency = ? AND charter = ?",
            (self.agency, charter),
        ).fetchall()
        return convert(rows, list[tuple[UserId, bytes]])

    def recertify_user(self, user: UserId, charter: bytes, certificate: bytes) -> None:
        """Replace the certificate of a user by one under another charter."""
        self.connection.execute(
            "UPDATE users SET charter = ?, certificate = ? WHERE id = ?",
            (charter, certificate, user),
        )

    def certificates(self, user: UserId) -> list[tuple[DeviceKey, bytes]]:
        """Return the certificates of all devices that a user ever had."""
        rows = self.connection.execute(
            "SELECT id, certificate FROM devices WHERE user = ?", (user,)
        ).fetchall()
        return convert(rows, list[tuple[DeviceKey, bytes]])

    def let_enter(self, device: DeviceKey) -> None:
        """Let a device of ours see the chats of its user, so that it can enter them (SPEC 6.3)."""
        self.connection.execute("UPDATE devices SET enters = 1 WHERE id = ?", (device,))

    def registered(self, name: str) -> tuple[UserId, bytes] | None:
        """Return id and certificate of our own user of this address, with or without devices."""
        row = self.connection.execute(
            "SELECT id, certificate FROM users WHERE name = ? AND agency = ?", (name, self.agency)
        ).fetchone()
        return None if row is None else (UserId(row[0]), row[1])

    def has_forgotten(self) -> bool:
        """Whether this database was brought back: users may have been enrolled that it lacks."""
        found = self.connection.execute("SELECT 1 FROM meta WHERE key = ?", (BEGUN_ANEW,)).get
        return found is not None

    def gave_up(self, device: DeviceKey, user: UserId) -> bool:
        """Whether a device was this user's and is revoked."""
        found = self.connection.execute(
            "SELECT 1 FROM devices WHERE id = ? AND user = ? AND revoked = 1", (device, user)
        ).get
        return found is not None

    def keep_prekey(self, device: DeviceKey, prekey: bytes) -> None:
        """Replace the prekey of a device."""
        self.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (prekey, device))

    def revoke(self, devices: Iterable[DeviceKey]) -> None:
        """Mark devices as no longer in use, and drop what waits for them."""
        self._unlist(self.agency)
        listed = [(device,) for device in devices]
        self.connection.executemany(
            "UPDATE devices SET revoked = 1, prekey = NULL WHERE id = ?", listed
        )
        self.connection.executemany("DELETE FROM parcels WHERE device = ?", listed)

    def _unlist(self, agency: AgencyId | None) -> None:
        """Note that our directory changes, after its head was signed (SPEC 7.5).

        Raises RefusedError if others may have signed heads of ours that are not known here.
        """
        if agency != self.agency:
            return
        unmet = self.unmet()
        if unmet:
            raise RefusedError(
                "this node was brought back, and users cannot be changed before it has met "
                f"{', '.join(unmet)}, who may know of later changes; if that is not possible any "
                "more, the operator runs 'ivor node resume'"
            )
        self.connection.execute("DELETE FROM meta WHERE key = ?", (LISTED,))

    def unmet(self) -> list[str]:
        """Name the agencies that were not met since this database was brought back."""
        rows = self.connection.execute(
            "SELECT name FROM unmet JOIN agencies ON id = agency WHERE id != ? ORDER BY name",
            (self.agency,),
        )
        return [row[0] for row in rows]

    def meet(self, agency: bytes) -> None:
        """Note that an agency has told all that it knows of our directory."""
        self.connection.execute("DELETE FROM unmet WHERE agency = ?", (agency,))

    def resume(self) -> list[str]:
        """Change users again though some were not met; return their names."""
        unmet = self.unmet()
        self.connection.execute("DELETE FROM unmet")
        return unmet

    def cache(self, person: Person, known: KnownPerson) -> None:
        """Keep a checked user of another agency, with exactly the devices that it lists.

        Of others nothing stays: an agency may list new ones each time.
        """
        user = known.user
        if user.agency == self.agency:
            return
        self.connection.execute(
            "DELETE FROM devices WHERE user IN"
            " (SELECT id FROM users WHERE agency = ? AND name = ?)",
            (user.agency, user.name),
        )
        if not self.keep_user(
            user.user, user.agency, user.name, person.charter, person.certificate
        ):
            return
        listing = None if person.listing is None else codec.encode(listing_fields(person.listing))
        self.connection.execute("UPDATE users SET listing = ? WHERE id = ?", (listing, user.user))
        self.connection.execute("DELETE FROM devices WHERE user = ?", (user.user,))
        for key, device in zip(user.devices, person.devices, strict=True):
            self.keep_device(key, user.user, device.certificate, device.prekey)

    def forget(self, agency: AgencyId, names: Collection[str], users: Collection[UserId]) -> None:
        """Drop cached users whom their agency no longer knows. Never one of our own."""
        if agency == self.agency:
            return
        for column, values in (("name", names), ("id", users)):
            whose = f"WHERE agency = ? AND {column} = ?"
            listed = [(agency, value) for value in values]
            self.connection.executemany(
                f"DELETE FROM devices WHERE user IN (SELECT id FROM users {whose})",  # noqa: S608
                listed,
            )
            self.connection.executemany(f"DELETE FROM users {whose}", listed)  # noqa: S608
