"""SPEC 3.2, 5.2: a credential that was found good is remembered, and no other is taken for it."""

import pytest

from protocol.errors import PeerError
from protocol.grant import CREDENTIALS_KEPT_MAX, verified
from protocol.testing.cast import person

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
    """I9: what is remembered is at most 9 MiB."""
    assert CREDENTIALS_KEPT_MAX * 34 * 1024 <= 9 * 1024 * 1024
