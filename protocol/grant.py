"""Grants: a user, devices of theirs, what their agency says of them, and a role (SPEC 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from protocol import codec
from protocol.errors import NotCanonical
from protocol.field import check_ascending, read_role
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    DEVICES_USER_MAX,
    VerifiedUser,
    verify_credential,
)
from protocol.limits import GRANTS_MAX
from protocol.policy import Role

CREDENTIALS_KEPT_MAX = 2048  # of a ministry's people, who are in thousands of chats together
DEVICES_KEPT_MAX = 4  # a credential with more is checked each time: so each has at most 6 KiB


@dataclass(frozen=True, slots=True)
class Credential:
    """A user with devices as their agency vouches for them, and the bytes that prove it.

    Only `verified` makes one from bytes that a peer sent.
    """

    user: VerifiedUser
    charter: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    devices: tuple[bytes, ...] = field(repr=False)


def verified(charter: bytes, certificate: bytes, devices: Sequence[bytes]) -> Credential:
    """Check charter, user certificate and device certificates. Raises as `verify_credential`.

    What was found good is remembered by all of its bytes: the same people are in many chats.
    """
    check = _remembered if len(devices) <= DEVICES_KEPT_MAX else _verified
    return check(charter, certificate, tuple(devices))


def _verified(charter: bytes, certificate: bytes, devices: tuple[bytes, ...]) -> Credential:
    return Credential(
        verify_credential(charter, certificate, devices), charter, certificate, devices
    )


@lru_cache(CREDENTIALS_KEPT_MAX)
def _remembered(charter: bytes, certificate: bytes, devices: tuple[bytes, ...]) -> Credential:
    return _verified(charter, certificate, devices)


@dataclass(frozen=True, slots=True)
class Grant:
    """One user, at least one device of theirs, and the role that they get."""

    role: Role
    credential: Credential


def grant_fields(grant: Grant) -> codec.Value:
    """Return [role, charter, user certificate, [device certificate…]] for `codec.encode`."""
    credential = grant.credential
    return (int(grant.role), credential.charter, credential.certificate, credential.devices)


def read_grants(value: object) -> tuple[Grant, ...]:
    """Read and check 1 to 32 grants, by ascending user, each device once."""
    grants = tuple(_read_grant(item) for item in codec.array(value, GRANTS_MAX, "grants"))
    users = [grant.credential.user.user for grant in grants]
    check_ascending(users, "granted users")
    devices = [device for grant in grants for device in grant.credential.user.devices]
    if not grants or len(set(devices)) != len(devices):
        raise NotCanonical("grants name at least one user, and each device once (SPEC 3.2)")
    return grants


def _read_grant(item: object) -> Grant:
    role, charter, certificate, devices = codec.record(item, 4, "grant")
    listed = codec.array(devices, DEVICES_USER_MAX, "device certificates")
    if not listed:
        raise NotCanonical("a user comes with at least one device (SPEC 3.2)")
    return Grant(read_role(role), read_credential(charter, certificate, listed))


def read_credential(charter: object, certificate: object, devices: Sequence[object]) -> Credential:
    """Read and check the three parts of a credential."""
    return verified(
        codec.binary(charter, CHARTER_BYTES_MAX, "charter"),
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "user certificate"),
        [codec.binary(one, CERTIFICATE_BYTES_MAX, "device certificate") for one in devices],
    )
