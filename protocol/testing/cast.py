"""Users with devices and real certificates, made from their names (tests only).

anna = person("anna@minzdrav")
anna.user, anna.devices[0], grant(anna, Role.ADMIN)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from crypto.archival import ArchivalSigner, archive_digest
from crypto.sealing import Prekey
from crypto.signing import Signer
from protocol.checkpoint import certify_archive
from protocol.entry import DeviceKey
from protocol.grant import Credential, Grant, verified
from protocol.identity import (
    AgencyId,
    UserId,
    certify_device,
    certify_user,
    request_device,
    request_user,
    sign_charter,
    sign_prekey,
)
from protocol.policy import Role

ISSUED_MS = 1_700_000_000_000
DEVICES = 3


def seed(*names: str) -> bytes:
    """Return 32 bytes that these names stand for."""
    return sha256("/".join(("ivor test", *names)).encode()).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Agency:
    """An agency with its keys."""

    name: str
    zone: str
    root: Signer
    registrar: Signer
    archive: ArchivalSigner
    charter: bytes


@cache
def agency(name: str, zone: str = "RU-UDM") -> Agency:
    """Return the agency of this name."""
    root, registrar = Signer(seed(name, "root")), Signer(seed(name, "registrar"))
    archive = ArchivalSigner(seed(name, "archive"))
    digest = archive_digest(archive.public)
    charter = sign_charter(root, 1, name, zone, registrar.public, digest)
    return Agency(name, zone, root, registrar, archive, charter)


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A user with three devices: their keys, and the certificate of each."""

    name: str
    agency: Agency
    identity: Signer
    signers: tuple[Signer, ...]
    certificate: bytes
    certificates: tuple[bytes, ...]

    @property
    def user(self) -> UserId:
        """The user's id."""
        return UserId(self.identity.public)

    @property
    def devices(self) -> tuple[DeviceKey, ...]:
        """The device keys."""
        return tuple(DeviceKey(signer.public) for signer in self.signers)

    def signer(self, device: DeviceKey) -> Signer:
        """Return the signing key of one of the devices."""
        return self.signers[self.devices.index(device)]


@cache
def person(address: str, zone: str = "RU-UDM") -> Person:
    """Return the person of this address, such as anna@minzdrav."""
    name, _, home = address.partition("@")
    at = agency(home, zone)
    vouching = AgencyId(at.root.public)
    identity = Signer(seed(address))
    signers = tuple(Signer(seed(address, str(number))) for number in range(DEVICES))
    return Person(
        address,
        at,
        identity,
        signers,
        certify_user(at.registrar, request_user(identity, vouching, name, ISSUED_MS)),
        tuple(
            certify_device(
                at.registrar, request_device(identity, signer, vouching, "desk", ISSUED_MS)
            )
            for signer in signers
        ),
    )


@cache
def archive_signer(who: Person, number: int = 0) -> ArchivalSigner:
    """Return the ML-DSA key of a person's device of this number."""
    return ArchivalSigner(seed(who.name, str(number), "archive"))


@cache
def archive_certificate(who: Person, number: int = 0) -> bytes:
    """Return what the agency says of that key; other bytes in each process, as it signs anew."""
    at = who.agency
    return certify_archive(
        at.archive,
        AgencyId(at.root.public),
        who.user,
        who.devices[number],
        archive_signer(who, number).public,
    )


@cache
def credential(who: Person, numbers: Sequence[int] = (0,)) -> Credential:
    """Return a person's credential with the devices of these numbers."""
    devices = [who.certificates[number] for number in numbers]
    return verified(who.agency.charter, who.certificate, devices)


def grant(who: Person, role: Role, numbers: Sequence[int] = (0,)) -> Grant:
    """Return a grant of a role, by default with the first device only."""
    return Grant(role, credential(who, tuple(numbers)))


@cache
def prekey(device: DeviceKey) -> Prekey:
    """Return the one prekey that a device has here."""
    return Prekey(seed("prekey", device.hex()))


@cache
def prekey_record(signer: Signer) -> bytes:
    """Return a device's prekey as it publishes it."""
    return sign_prekey(signer, prekey(DeviceKey(signer.public)).public, ISSUED_MS)
