"""SPEC 5.8, rule 2: what is no signature over this file never passes for one."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256

import pytest
from asn1crypto import cms
from asn1crypto.x509 import Certificate, Name
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from client.cms import Detached, SignatureFault, check_detached, sign_detached
from tests.signing import CA_DER, NOW, signer

DIGEST = sha256(b"order").digest()


@cache
def made() -> tuple[bytes, bytes, Detached]:
    """A signature, its CA, and what checking it says."""
    raw = sign_detached(signer("anna", NOW), DIGEST, NOW)
    return raw, CA_DER, check_detached(raw, DIGEST, CA_DER)


@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing_that_counts(data: st.DataObject) -> None:
    """Nothing but SignatureFault comes of it; bytes outside what is signed may differ."""
    raw, ca, found = made()
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(1, 255))
    changed = raw[:at] + bytes([raw[at] ^ byte]) + raw[at + 1 :]
    with suppress(SignatureFault):
        assert check_detached(changed, DIGEST, ca) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    _, ca, _ = made()
    try:
        check_detached(raw, DIGEST, ca)
    except SignatureFault:
        return
    raise AssertionError("no signature was taken for one")


def without_certificate() -> bytes:
    """A signature that names no certificate as its signer's."""
    found = cms.ContentInfo.load(made()[0])
    for attribute in found["content"]["signer_infos"][0]["signed_attrs"]:
        if attribute["type"].native == "signing_certificate_v2":
            attribute["values"] = [{"certs": []}]
    return bytes(found.dump(force=True))


def with_key_of_another_kind() -> bytes:
    """A signature that says ECDSA, by a certificate with an Ed25519 key."""
    key, name = Ed25519PrivateKey.generate(), x509.Name([])
    day = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, day, day)
    der = builder.sign(key, None).public_bytes(Encoding.DER)
    found = cms.ContentInfo.load(made()[0])
    found["content"]["certificates"] = [Certificate.load(der)]
    info = found["content"]["signer_infos"][0]
    info["sid"] = {"issuer_and_serial_number": {"issuer": Name.build({}), "serial_number": 7}}
    for attribute in info["signed_attrs"]:
        if attribute["type"].native == "signing_certificate_v2":
            attribute["values"] = [{"certs": [{"cert_hash": sha256(der).digest()}]}]
    return bytes(found.dump(force=True))


@pytest.mark.parametrize("make", [without_certificate, with_key_of_another_kind])
def test_what_trips_the_libraries_is_refused(make: Callable[[], bytes]) -> None:
    """Any member can send it; it stays in the log, and all who are in the chat check it."""
    _, ca, _ = made()
    with pytest.raises(SignatureFault, match="malformed"):
        check_detached(make(), DIGEST, ca)


def test_the_authority_is_inside() -> None:
    """SPEC 5.8: whoever has the signature and trusts the CA's key needs nothing else."""
    raw, ca, _ = made()
    found = cms.ContentInfo.load(raw)
    inside = found["content"]["certificates"]
    found["content"]["certificates"] = [one.chosen for one in inside if one.chosen.dump() != ca]
    with pytest.raises(SignatureFault, match="without its CA"):
        check_detached(bytes(found.dump(force=True)), DIGEST, ca)


@given(st.binary(min_size=32, max_size=32))
def test_another_file_is_refused(digest: bytes) -> None:
    raw, ca, _ = made()
    try:
        check_detached(raw, digest, ca)
    except SignatureFault as fault:
        assert "another file" in str(fault)  # noqa: PT017 - it may also be the very file
    else:
        assert digest == DIGEST


def test_other_commands_do_not_wait_for_pyhanko() -> None:
    """It takes a third of a second to import: only those who sign pay for that."""
    program = "import sys, cli.main, client.link; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b" pyhanko" not in done.stdout
    assert b" asn1crypto" not in done.stdout
