"""A person's records as a directory hands them out, and the check of them (SPEC 5.2, 7.2).

person = read_person(item)                   # of an answer; `person_fields` writes them
known = verify_person(person)                # certificates and prekeys, all of them checked
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol import codec
from protocol.codec import Value
from protocol.entry import DeviceKey
from protocol.errors import NotCanonical
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    DEVICES_USER_MAX,
    Prekey,
    VerifiedUser,
    verify_credential,
    verify_prekey,
)
from protocol.listing import Listing, listing_fields, read_listing
from protocol.topic import read_prekey


class PersonDevice(NamedTuple):
    """One device of a person: its certificate, and its newest prekey record if it has one."""

    certificate: bytes
    prekey: bytes | None


@dataclass(frozen=True, slots=True)
class Person:
    """A person's records as a directory has them, and where they stand in it (SPEC 7.5)."""

    charter: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    devices: tuple[PersonDevice, ...]
    listing: Listing | None = None


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person whose records were checked. Only `verify_person` makes one."""

    user: VerifiedUser
    prekeys: Mapping[DeviceKey, Prekey]


def verify_person(person: Person) -> KnownPerson:
    """Check all certificates and prekeys of a person.

    Whether the agency is trusted is not asked here: compare `user.agency` with a trusted card.
    Raises NotCanonical, LimitExceeded or Untrusted.
    """
    certificates = [certificate for certificate, _ in person.devices]
    user = verify_credential(person.charter, person.certificate, certificates)
    prekeys: dict[DeviceKey, Prekey] = {}
    for key, (_, record) in zip(user.devices, person.devices, strict=True):
        if record is None:
            continue
        prekey = verify_prekey(record)
        if prekey.device != key:
            raise NotCanonical("a prekey that stands with another device (SPEC 7.2)")
        prekeys[key] = prekey
    return KnownPerson(user, prekeys)


def person_fields(person: Person) -> Sequence[Value]:
    """Return what `read_person` reads, for `codec.encode`."""
    listing = None if person.listing is None else listing_fields(person.listing)
    return (person.charter, person.certificate, person.devices, listing)


def read_person(item: object) -> Person:
    """Read what `person_fields` made. Raises NotCanonical or LimitExceeded; proves nothing."""
    charter, certificate, listed, listing = codec.record(item, 4, "person")
    devices = codec.array(listed, DEVICES_USER_MAX, "devices")
    return Person(
        codec.binary(charter, CHARTER_BYTES_MAX, "charter"),
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "user certificate"),
        tuple(_person_device(device) for device in devices),
        None if listing is None else read_listing(listing),
    )


def _person_device(item: object) -> PersonDevice:
    certificate, prekey = codec.record(item, 2, "device")
    return PersonDevice(
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "device certificate"),
        None if prekey is None else read_prekey(prekey),
    )
