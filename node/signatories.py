"""Certificates for signing documents that a node has issued (SPEC 6.1, 7.3).

Calls that write run inside a transaction of the caller's. Times are seconds UTC.
"""

from dataclasses import dataclass
from typing import Final

import apsw
from cryptography import x509

from node.errors import LimitReached
from protocol.entry import DeviceKey
from protocol.identity import UserId

USER_MAX: Final = 64  # valid at once, of one user; guess
RENEW_SECONDS: Final = 30 * 24 * 3600  # before its end a key is certified anew


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate, PEM, and the device that asked for it. ends: seconds UTC."""

    serial: bytes
    device: DeviceKey
    certificate: bytes
    ends: int


class Signatories:
    """The certificates in a database."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def standing(self, device: DeviceKey, key: bytes, now: float) -> bytes | None:
        """Return the certificate of a key that this device has and that is good for a while."""
        found = self.connection.execute(
            "SELECT certificate FROM signatories WHERE device = ? AND key = ? AND ends > ?"
            " ORDER BY ends DESC LIMIT 1",
            (device, key, int(now) + RENEW_SECONDS),
        ).get
        return None if found is None else bytes(found)

    def check_room(self, user: UserId, now: float) -> None:
        """Raise LimitReached if a user has all the valid certificates that they may have."""
        found = self.connection.execute(
            "SELECT count(*) FROM signatories WHERE user = ? AND ends > ?", (user, int(now))
        ).get
        if int(found) >= USER_MAX:
            raise LimitReached(
                f"a user has at most {USER_MAX} valid signing certificates: use a key that has one"
            )

    def keep(self, user: UserId, device: DeviceKey, key: bytes, certificate: bytes) -> None:
        """Keep a certificate that was just issued. key and certificate: PEM."""
        read = x509.load_pem_x509_certificate(certificate)
        serial = read.serial_number.to_bytes(20, "big")
        ends = int(read.not_valid_after_utc.timestamp())
        self.connection.execute(
            "INSERT INTO signatories VALUES (?, ?, ?, ?, ?, ?)",
            (serial, user, device, key, certificate, ends),
        )

    def of(self, user: UserId) -> list[Issued]:
        """List the certificates of a user, the newest last."""
        rows = self.connection.execute(
            "SELECT serial, device, certificate, ends FROM signatories WHERE user = ?"
            " ORDER BY ends, serial",
            (user,),
        )
        return [Issued(*row) for row in rows]
