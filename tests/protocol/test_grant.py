"""SPEC 3.2, 5.2: a credential that was found good is remembered, and no other is taken for it."""

import pytest

from crypto.signing import Signer
from protocol import grant
from protocol.errors import PeerError
from protocol.grant import CREDENTIALS_KEPT_MAX, DEVICES_KEPT_MAX, verified
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    AgencyId,
    certify_device,
    request_device,
)
from protocol.testing.cast import ISSUED_MS, person, seed

ANNA = person("anna@minzdrav")
CERTIFICATES = ANNA.certificates[:2]


def test_the_same_bytes_are_the_same_credential() -> None:
    once = verified(ANNA.agency.charter, ANNA.certificate, CERTIFICATES)
    assert verified(ANNA.agency.charter, ANNA.certificate, list(CERTIFICATES)) == once


@pytest.mark.parametrize("altered", range(4))
def test_another_byte_is_checked_anew(altered: int) -> None:
    """Also the last one, of any part, right after the good one, and the second time as well."""
    verified(ANNA.agency.charter, ANNA.certificate, CERTIFICATES)
    parts = [ANNA.agency.charter, ANNA.certificate, *CERTIFICATES]
    parts[altered] = parts[altered][:-1] + bytes([parts[altered][-1] ^ 1])
    for _ in range(2):
        with pytest.raises(PeerError):
            verified(parts[0], parts[1], parts[2:])


def test_fewer_devices_are_fewer() -> None:
    assert len(verified(ANNA.agency.charter, ANNA.certificate, CERTIFICATES).user.devices) == 2
    assert len(verified(ANNA.agency.charter, ANNA.certificate, CERTIFICATES[:1]).user.devices) == 1


def test_memory_is_bounded() -> None:
    """I9: what is remembered is at most 12 MiB, of people with few devices."""
    most = CHARTER_BYTES_MAX + CERTIFICATE_BYTES_MAX * (1 + DEVICES_KEPT_MAX)
    assert CREDENTIALS_KEPT_MAX * most <= 12 * 1024 * 1024


def test_many_devices_are_checked_each_time() -> None:
    """Case 31: an agency that anybody can found must not fill our memory with its people."""
    before = grant._remembered.cache_info().currsize
    devices = many_devices(DEVICES_KEPT_MAX + 1)
    found = verified(ANNA.agency.charter, ANNA.certificate, devices)
    assert len(found.user.devices) == len(devices)
    assert grant._remembered.cache_info().currsize == before
    with pytest.raises(PeerError):
        verified(ANNA.agency.charter, ANNA.certificate, [*devices[:-1], devices[-1][:-1] + b"x"])


def many_devices(count: int) -> list[bytes]:
    signers = [Signer(seed("many", str(number))) for number in range(count)]
    agency = AgencyId(ANNA.agency.root.public)
    return [
        certify_device(
            ANNA.agency.registrar, request_device(ANNA.identity, signer, agency, "desk", ISSUED_MS)
        )
        for signer in signers
    ]
