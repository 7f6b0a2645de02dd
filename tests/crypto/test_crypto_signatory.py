"""Certificates for signing documents (SPEC 6.1)."""

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from crypto import certificate, signatory
from crypto.certificate import builder, key_usage, private_key, signed
from crypto.errors import CertificateRefused
from crypto.signatory import Subject, certify, read_signatory

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
CA_KEY, KEY = certificate.make_key(), certificate.make_key()
CA = certificate.authority(CA_KEY, "minzdrav", NOW, certificate.AUTHORITY_DAYS, 1)
CA_DER = ssl.PEM_cert_to_DER_cert(CA.decode())
ANNA = Subject("anna", "minzdrav", b"a" * 32)
CLAIM = signatory.possession(b"g" * 32, b"d" * 32)


def issued(subject: Subject = ANNA, days: int = signatory.SIGNING_DAYS) -> bytes:
    made = certify(CA, CA_KEY, KEY, subject, now=NOW, days=days, serial=7)
    return ssl.PEM_cert_to_DER_cert(made.decode())


class TestCertify:
    def test_reads_back(self) -> None:
        found = read_signatory(issued(), CA_DER)
        assert found.is_of(ANNA)
        assert found.common_name == "anna@minzdrav"
        assert found.serial == 7
        assert found.is_valid_at(NOW)
        assert not found.is_valid_at(NOW + 366 * 24 * 3600)
        assert not found.is_valid_at(NOW - 2 * certificate.BACKDATE_SECONDS)

    @pytest.mark.parametrize(
        "other",
        [
            Subject("boris", "minzdrav", ANNA.user),
            Subject("anna", "mincifry", ANNA.user),
            Subject("anna", "minzdrav", b"b" * 32),
        ],
    )
    def test_is_of_nobody_else(self, other: Subject) -> None:
        assert not read_signatory(issued(), CA_DER).is_of(other)

    def test_an_address_too_long_for_x509_is_the_name_alone(self) -> None:
        long = Subject("а" * 32, "б" * 32, ANNA.user)
        found = read_signatory(issued(long), CA_DER)
        assert found.common_name == "а" * 32
        assert found.is_of(long)

    def test_does_not_outlive_the_authority(self) -> None:
        found = read_signatory(issued(days=2 * certificate.AUTHORITY_DAYS), CA_DER)
        authority = x509.load_pem_x509_certificate(CA)
        assert found.ends == authority.not_valid_after_utc.timestamp()

    def test_an_authority_that_is_over(self) -> None:
        old = certificate.authority(CA_KEY, "minzdrav", NOW - 10 * 24 * 3600, 2, 1)
        with pytest.raises(CertificateRefused, match="ended on"):
            certify(old, CA_KEY, KEY, ANNA, now=NOW, days=1, serial=7)

    def test_is_no_tls_certificate(self) -> None:
        with pytest.raises(CertificateRefused, match="ivor: URI"):
            certificate.subject_uri(issued())


class TestRead:
    def refused(self, der: bytes, match: str) -> None:
        with pytest.raises(CertificateRefused, match=match):
            read_signatory(der, CA_DER)

    def test_another_authority(self) -> None:
        key = certificate.make_key()
        other = certificate.authority(key, "minzdrav", NOW, 2, 1)  # the same name
        made = certify(other, key, KEY, ANNA, now=NOW, days=1, serial=7)
        self.refused(ssl.PEM_cert_to_DER_cert(made.decode()), "CA did not issue")

    @pytest.mark.parametrize("uri", ["ivor:node:", "ivor:device:", "ivor:invitation:"])
    def test_a_tls_certificate(self, uri: str) -> None:
        made = certificate.issue(CA, CA_KEY, KEY, uri + "ab" * 32, now=NOW, days=1, serial=7)
        self.refused(ssl.PEM_cert_to_DER_cert(made.decode()), "not for signing documents")

    def test_the_authority_itself(self) -> None:
        self.refused(CA_DER, "not for signing documents|did not issue|not a certificate")

    @pytest.mark.parametrize("names", [[], ["ivor:user:ab"], ["ivor:user:" + "ab" * 32] * 2])
    def test_whom_it_names(self, names: list[str]) -> None:
        good = x509.load_der_x509_certificate(issued())
        draft = (
            builder(good.subject, good.issuer, private_key(KEY).public_key(), 7)
            .not_valid_before(good.not_valid_before_utc)
            .not_valid_after(good.not_valid_after_utc)
        )
        for extension in good.extensions:
            if isinstance(extension.value, x509.SubjectKeyIdentifier):
                continue
            if not isinstance(extension.value, x509.SubjectAlternativeName):
                draft = draft.add_extension(extension.value, extension.critical)
        if names:
            uris = [x509.UniformResourceIdentifier(name) for name in names]
            draft = draft.add_extension(x509.SubjectAlternativeName(uris), critical=False)
        pem = signed(draft, private_key(CA_KEY))
        self.refused(
            ssl.PEM_cert_to_DER_cert(pem.decode()), "does not name one|not a certificate for"
        )

    def test_key_usage_is_exact(self) -> None:
        bits = key_usage("digital_signature")
        assert not bits.content_commitment

    @given(st.binary(max_size=200))
    def test_any_bytes_are_refused(self, raw: bytes) -> None:
        self.refused(raw, "not a certificate")


class TestPossession:
    def test_holds(self) -> None:
        proof = signatory.prove_possession(KEY, CLAIM)
        signatory.check_possession(certificate.public_pem(KEY), CLAIM, proof)

    def test_another_device_key_or_signature(self) -> None:
        proof = signatory.prove_possession(KEY, CLAIM)
        public = certificate.public_pem(KEY)
        other = certificate.public_pem(certificate.make_key())
        elsewhere = signatory.possession(b"g" * 32, b"e" * 32)
        for key, claim, shown in (
            (other, CLAIM, proof),
            (public, elsewhere, proof),
            (public, CLAIM, b""),
        ):
            with pytest.raises(CertificateRefused, match="does not hold"):
                signatory.check_possession(key, claim, shown)

    def test_a_key_of_another_kind(self) -> None:
        other = ed25519.Ed25519PrivateKey.generate().public_key()
        pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(CertificateRefused, match="P-256"):
            signatory.check_possession(pem, CLAIM, b"")
