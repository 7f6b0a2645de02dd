"""Certificates for TLS (SPEC 6.1)."""

import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.certificate import (
    AUTHORITY_DAYS,
    BACKDATE_SECONDS,
    LEAF_DAYS,
    authority,
    issue,
    make_key,
    public_pem,
    subject_uri,
)
from crypto.errors import CertificateRefused

NOW = datetime.now(UTC).timestamp()  # a real handshake is made below, and OpenSSL has its own clock
CA_KEY = make_key()
CA = authority(CA_KEY, "minzdrav", NOW, AUTHORITY_DAYS, 1)
NODE_URI = "ivor:node:" + "ab" * 32
DEVICE_URI = "ivor:device:" + "cd" * 32


def leaf(
    uri: str, key: bytes, *, now: float = NOW, ca: bytes = CA, ca_key: bytes = CA_KEY
) -> bytes:
    return issue(ca, ca_key, key, uri, now=now, days=LEAF_DAYS, serial=7)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def with_names(*names: x509.GeneralName) -> bytes:
    """A certificate with any subjectAltName, as a careless or hostile CA may sign it."""
    key = ec.generate_private_key(ec.SECP256R1())
    empty = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(empty)
        .issuer_name(empty)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(NOW, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def uri_name(uri: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(uri)


LEAF_DER = der(leaf(NODE_URI, CA_KEY))


class TestAuthority:
    def test_may_sign_leaves_only(self) -> None:
        """CA:TRUE, path length 0, keyCertSign alone."""
        extensions = x509.load_pem_x509_certificate(CA).extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
        assert usage.value.key_cert_sign
        assert not usage.value.digital_signature

    @pytest.mark.parametrize("name", ["", "x" * 65])
    def test_name_limits(self, name: str) -> None:
        """RFC 5280's upper bound."""
        with pytest.raises(CertificateRefused, match="characters"):
            authority(CA_KEY, name, NOW, AUTHORITY_DAYS, 1)

    def test_key_kind(self) -> None:
        """Ed25519, another curve, an encrypted key and rubbish are refused."""
        pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        plain = serialization.NoEncryption()
        keys = [
            ed25519.Ed25519PrivateKey.generate().private_bytes(*pkcs8, plain),
            ec.generate_private_key(ec.SECP384R1()).private_bytes(*pkcs8, plain),
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                *pkcs8, serialization.BestAvailableEncryption(b"passphrase")
            ),
            b"rubbish",
        ]
        for key in keys:
            with pytest.raises(CertificateRefused, match="key is not"):
                authority(key, "minzdrav", NOW, AUTHORITY_DAYS, 1)


class TestIssue:
    @settings(max_examples=20, deadline=None)
    @given(
        st.sampled_from(["node", "device", "invitation"]),
        st.binary(min_size=1, max_size=64),
        st.integers(1, 2**159 - 1),
    )
    def test_subject_comes_back(self, kind: str, name: bytes, serial: int) -> None:
        """The URI issued is the URI read, under the serial given."""
        uri = f"ivor:{kind}:{name.hex()}"
        pem = issue(CA, CA_KEY, CA_KEY, uri, now=NOW, days=1, serial=serial)
        assert subject_uri(der(pem)) == uri
        assert x509.load_pem_x509_certificate(pem).serial_number == serial

    @pytest.mark.parametrize(
        ("uri", "server"), [(NODE_URI, True), (DEVICE_URI, False), ("ivor:invitation:00", False)]
    )
    def test_usage_follows_from_the_subject(self, uri: str, *, server: bool) -> None:
        """Only a node may be a server."""
        certificate = x509.load_pem_x509_certificate(leaf(uri, make_key()))
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
        assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == server

    def test_public_and_private_key_are_one_subject(self) -> None:
        """Who has only the public half gets the same certificate."""
        key = make_key()
        one, other = (
            x509.load_pem_x509_certificate(leaf(DEVICE_URI, pem)) for pem in (key, public_pem(key))
        )
        assert one.public_key() == other.public_key()

    def test_lifetime(self) -> None:
        """Backdated by an hour, and never longer than the authority's."""
        certificate = x509.load_pem_x509_certificate(leaf(NODE_URI, make_key()))
        assert certificate.not_valid_before_utc.timestamp() == int(NOW) - BACKDATE_SECONDS
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(
            days=LEAF_DAYS
        )
        brief = authority(CA_KEY, "minzdrav", NOW, 10, 1)
        end = x509.load_pem_x509_certificate(brief).not_valid_after_utc
        clipped = x509.load_pem_x509_certificate(leaf(NODE_URI, make_key(), ca=brief))
        assert clipped.not_valid_after_utc == end
        with pytest.raises(CertificateRefused, match="ended"):
            leaf(NODE_URI, make_key(), ca=brief, now=NOW + 11 * 86400)

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "ivor:node:",
            "ivor:node:ABCD",
            "ivor:node:abc",
            "ivor:user:ab",
            "https://x",
            NODE_URI + "\n",
        ],
    )
    def test_subject_is_one_of_ours(self, uri: str) -> None:
        """Another scheme, kind or spelling is refused."""
        with pytest.raises(CertificateRefused, match="subject"):
            leaf(uri, make_key())

    def test_keys_are_checked(self) -> None:
        """The CA's key must be its own; the subject's must be P-256."""
        with pytest.raises(CertificateRefused, match="another key"):
            leaf(NODE_URI, make_key(), ca_key=make_key())
        with pytest.raises(CertificateRefused, match="PEM certificate"):
            leaf(NODE_URI, make_key(), ca=b"rubbish")
        with pytest.raises(CertificateRefused, match="not a PEM key"):
            leaf(NODE_URI, b"rubbish")
        other = ed25519.Ed25519PrivateKey.generate().public_key()
        with pytest.raises(CertificateRefused, match="P-256"):
            leaf(
                NODE_URI,
                other.public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                ),
            )


class TestSubject:
    @pytest.mark.parametrize(
        "names",
        [
            (),
            (uri_name("https://example.org"),),
            (uri_name(NODE_URI), uri_name(DEVICE_URI)),
            (uri_name(NODE_URI), x509.DNSName("example.org")),
            (x509.DNSName("example.org"),),
            (uri_name("ivor:node:"),),
        ],
    )
    def test_other_names_are_refused(self, names: tuple[x509.GeneralName, ...]) -> None:
        """None, a foreign one, two, or one of another kind."""
        with pytest.raises(CertificateRefused):
            subject_uri(with_names(*names))

    def test_version_and_name_kinds(self) -> None:
        """What the library has an error of its own for is CertificateRefused too."""
        version, name = LEAF_DER.index(b"\x02\x01\x02") + 2, LEAF_DER.index(b"ivor:") - 2
        for at, value in ((version, 1), (name, 0xA3), (name, 0xA5)):
            changed = bytearray(LEAF_DER)
            changed[at] = value
            with pytest.raises(CertificateRefused):
                subject_uri(bytes(changed))

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """What is no certificate is refused with CertificateRefused, never otherwise."""
        with pytest.raises(CertificateRefused):
            subject_uri(data)

    @given(st.data())
    def test_any_changed_byte(self, data: st.DataObject) -> None:
        """A changed certificate is read or refused; TLS judges its signature, not this function."""
        changed = bytearray(LEAF_DER)
        at = data.draw(st.integers(0, 2**16)) % len(changed)
        changed[at] = data.draw(st.integers(0, 255))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the library warns of a negative serial number
                uri = subject_uri(bytes(changed))
        except CertificateRefused:
            return
        assert uri.startswith("ivor:")


class TestHandshake:
    """TLS 1.3 by the standard library, in memory, with strict X.509 rules."""

    @staticmethod
    def context(role: ssl._SSLMethod, folder: Path, uri: str, ca: bytes) -> ssl.SSLContext:
        key = make_key()
        chain = folder / f"{uri[5:8]}.pem"
        chain.write_bytes(key + leaf(uri, key))
        context = ssl.SSLContext(role)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(chain)
        context.load_verify_locations(cadata=ca.decode())
        return context

    def shake(
        self, folder: Path, client_uri: str, server_uri: str, ca: bytes = CA
    ) -> tuple[bytes | None, bytes | None]:
        """What each side learns of the other: (client's view, server's view)."""
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context(ssl.PROTOCOL_TLS_CLIENT, folder, client_uri, ca).wrap_bio(down, up)
        server = self.context(ssl.PROTOCOL_TLS_SERVER, folder, server_uri, CA).wrap_bio(
            up, down, server_side=True
        )
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return client.getpeercert(binary_form=True), server.getpeercert(binary_form=True)

    @pytest.mark.parametrize("client_uri", [NODE_URI, DEVICE_URI, "ivor:invitation:00"])
    def test_each_side_reads_the_other(self, tmp_path: Path, client_uri: str) -> None:
        """A node serves; a node, a device or an invitation calls."""
        seen_server, seen_client = self.shake(tmp_path, client_uri, NODE_URI)
        assert seen_server is not None
        assert seen_client is not None
        assert subject_uri(seen_server) == NODE_URI
        assert subject_uri(seen_client) == client_uri

    def test_a_device_cannot_serve(self, tmp_path: Path) -> None:
        """Its certificate is for clients."""
        with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
            self.shake(tmp_path, NODE_URI, DEVICE_URI)

    def test_another_authority(self, tmp_path: Path) -> None:
        """A leaf is good under its own agency's CA only."""
        other = authority(make_key(), "mincifry", NOW, AUTHORITY_DAYS, 1)
        with pytest.raises(ssl.SSLCertVerificationError):
            self.shake(tmp_path, NODE_URI, NODE_URI, other)
