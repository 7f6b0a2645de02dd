"""SPEC 6.1: who is at the other end. Real sockets over loopback; hostile cases 55 to 57."""

import contextlib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crypto import certificate, signatory
from crypto.signing import Signer
from node.tls import (
    Credential,
    DevicePeer,
    HandshakeFailed,
    InvitationPeer,
    NodePeer,
    Peer,
    authority_of,
    client_context,
    credential_from_der,
    credential_to_der,
    handshake,
    peer_identity,
    refusal,
    server_context,
)
from protocol.errors import Untrusted
from protocol.identity import AgencyId, Card, CardNode, NodeId, sign_card, sign_charter, verify_card

NOW = datetime.now(UTC).timestamp()
SERIALS = count(1)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class House:
    """An agency's CA and card, without its files."""

    ca: bytes
    ca_key: bytes
    card: Card

    @property
    def id(self) -> AgencyId:
        return self.card.charter.agency

    @property
    def node(self) -> NodeId:
        return self.card.nodes[0].node

    def leaf(self, uri: str, now: float = NOW, days: int = 2) -> Credential:
        key = certificate.make_key()
        issued = certificate.issue(
            self.ca, self.ca_key, key, uri, now=now, days=days, serial=next(SERIALS)
        )
        return Credential(issued, key)

    def signatory(self) -> Credential:
        """What an official signs documents with, as TLS must never take it."""
        key = certificate.make_key()
        subject = signatory.Subject("anna", "minzdrav", DEVICE)
        issued = signatory.certify(
            self.ca, self.ca_key, key, subject, now=NOW, days=2, serial=next(SERIALS)
        )
        return Credential(issued, key)

    def odd_leaf(self, uri: str, usages: tuple[x509.ObjectIdentifier, ...]) -> Credential:
        """Issue what `crypto.certificate` would not."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.ca)
        signer = serialization.load_pem_private_key(self.ca_key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(next(SERIALS))
            .not_valid_before(datetime.fromtimestamp(NOW, UTC) - timedelta(hours=1))
            .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
            )
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        made = builder.sign(signer, hashes.SHA256())
        return Credential(made.public_bytes(serialization.Encoding.PEM), pem(key))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def der(credential: Credential) -> bytes:
    return ssl.PEM_cert_to_DER_cert(credential.certificate.decode())


def found(number: int, name: str, nodes: tuple[NodeId, ...] = ()) -> House:
    """Found an agency; its own node is its root's key, to need no more."""
    root = Signer(bytes([number]) * 32)
    ca_key = certificate.make_key()
    ca = certificate.authority(ca_key, root.public.hex(), NOW, 30, next(SERIALS))
    return House(ca, ca_key, card_of(root, name, ca, (NodeId(root.public), *nodes)))


def card_of(root: Signer, name: str, ca: bytes, nodes: tuple[NodeId, ...]) -> Card:
    charter = sign_charter(root, 1, name, "RU", root.public, bytes(32))
    listed = [CardNode(node, ()) for node in nodes]
    authority = ssl.PEM_cert_to_DER_cert(ca.decode())
    return verify_card(sign_card(root, charter, authority, listed, 1))


A = found(1, "minzdrav")
B = found(2, "mincifry")
STRANGER = found(3, "stranger")
CARDS = {A.id: A.card, B.id: B.card}
TRUSTED = [A.card.ca, B.card.ca]
NODE_A = A.leaf(f"ivor:node:{A.node.hex()}")
NODE_B = B.leaf(f"ivor:node:{B.node.hex()}")
DEVICE = b"d" * 32
TICKET = b"t" * 16

Outcome = bytes | Untrusted | HandshakeFailed


async def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Outcome, Outcome]:
    """Shake hands over a real socket, then send a byte each way; tell what each side saw."""
    outcomes: dict[str, Outcome] = {}
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def talk(name: str, stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            outcomes[name] = await handshake(stream)
            await stream.send_all(b"x")
            if not await stream.receive_some(1):
                outcomes[name] = refusal(None)
        except (Untrusted, HandshakeFailed) as error:
            outcomes[name] = error
        except trio.BrokenResourceError as error:
            outcomes[name] = refusal(error.__cause__)
        finally:
            await trio.aclose_forcefully(stream)

    async with listener, trio.open_nursery() as nursery:
        with trio.fail_after(20):
            dialled = await trio.open_tcp_stream("127.0.0.1", port)
            accepted = await listener.accept()
            nursery.start_soon(talk, "client", trio.SSLStream(dialled, client))
            nursery.start_soon(talk, "server", trio.SSLStream(accepted, server, server_side=True))
    return outcomes["server"], outcomes["client"]


def bare(protocol: int) -> ssl.SSLContext:
    """A context of a hostile peer, which checks nothing and shows nothing."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TestHonest:
    async def test_two_nodes_know_each_other(self) -> None:
        seen_by_a, seen_by_b = await meet(
            server_context(NODE_A, TRUSTED), client_context(NODE_B, TRUSTED)
        )
        assert isinstance(seen_by_a, bytes)
        assert isinstance(seen_by_b, bytes)
        assert peer_identity(seen_by_a, CARDS, A.id, NOW) == NodePeer(B.id, B.node)
        assert peer_identity(seen_by_b, CARDS, B.id, NOW) == NodePeer(A.id, A.node)

    @pytest.mark.parametrize(
        ("uri", "peer"),
        [
            (f"ivor:device:{DEVICE.hex()}", DevicePeer),
            (f"ivor:invitation:{TICKET.hex()}", InvitationPeer),
        ],
    )
    async def test_devices_and_invitations_of_our_own(
        self, uri: str, peer: Callable[[bytes], Peer]
    ) -> None:
        seen, _ = await meet(
            server_context(NODE_A, TRUSTED), client_context(A.leaf(uri), [A.card.ca])
        )
        assert isinstance(seen, bytes)
        assert peer_identity(seen, CARDS, A.id, NOW) == peer(bytes.fromhex(uri.split(":")[2]))

    async def test_no_session_is_resumed(self) -> None:
        """The server gives no ticket, so a client has nothing to come back with."""
        server, client = server_context(NODE_A, TRUSTED), client_context(NODE_B, TRUSTED)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:
            dialled = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            near = trio.SSLStream(dialled, client)
            far = trio.SSLStream(await listener.accept(), server, server_side=True)
            nursery.start_soon(far.do_handshake)
            await handshake(near)
            await far.send_all(b"x")
            assert await near.receive_some(1) == b"x"
            assert near.version() == "TLSv1.3"
            assert near.session is None or not near.session.has_ticket
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    async def test_all_records_in_one_read(self) -> None:
        """What has come is read at once; what is wrong behind it is told by the next read."""
        server, client = server_context(NODE_A, TRUSTED), client_context(NODE_B, TRUSTED)
        near, near_end = trio.testing.memory_stream_pair()
        far, far_end = trio.testing.memory_stream_pair()
        sent = bytes(range(256)) * 400
        async with trio.open_nursery() as nursery:
            with trio.fail_after(20):
                left = trio.SSLStream(near, client)
                right = trio.SSLStream(far, server, server_side=True)

                async def carry(
                    source: trio.abc.ReceiveStream, target: trio.abc.SendStream
                ) -> None:
                    while data := await source.receive_some():
                        await target.send_all(data)

                nursery.start_soon(carry, near_end, far_end)
                nursery.start_soon(carry, far_end, near_end)
                nursery.start_soon(right.do_handshake)
                await handshake(left)
                await left.send_all(b"x")
                assert await right.receive_some(10) == b"x"
                nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            await left.send_all(sent)
            raw = await near_end.receive_some(1 << 20)
            await far_end.send_all(raw + raw[-40:])  # the last of them is no record
            assert await right.receive_some(1000) == sent[:1000]
            assert await right.receive_some(1 << 20) == sent[1000:]
            with pytest.raises(trio.BrokenResourceError) as caught:
                await right.receive_some(1 << 20)
        assert isinstance(caught.value.__cause__, ssl.SSLError)

    def test_no_key_is_left_in_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The key is handed over in memory; no file is opened for writing meanwhile."""
        paths: list[str] = []
        load = ssl.SSLContext.load_cert_chain

        def watch(self: ssl.SSLContext, path: str) -> None:
            paths.append(str(Path(path).readlink()))
            load(self, path)

        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
        before = len(list(Path("/proc/self/fd").iterdir()))
        server_context(NODE_A, TRUSTED)
        assert paths == ["/memfd:ivor-tls (deleted)"]
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_secrets_are_not_shown(self) -> None:
        assert "PRIVATE" not in repr(NODE_A)


class TestHandshakeRefused:
    """Hostile cases 56 and 57, as the server sees them."""

    async def refused(self, client: ssl.SSLContext) -> Outcome:
        server, _ = await meet(server_context(NODE_A, TRUSTED), client)
        return server

    async def test_no_certificate(self) -> None:
        outcome = await self.refused(bare(ssl.PROTOCOL_TLS_CLIENT))
        assert isinstance(outcome, Untrusted)
        assert "no certificate" in str(outcome)

    async def test_a_context_that_asks_for_none(self) -> None:
        """Even then `handshake` gives no identity."""
        careless = server_context(NODE_A, TRUSTED)
        careless.verify_mode = ssl.CERT_NONE
        server, _ = await meet(careless, bare(ssl.PROTOCOL_TLS_CLIENT))
        assert isinstance(server, Untrusted)

    async def test_expired(self) -> None:
        old = NOW - 10 * 24 * 3600
        outcome = await self.refused(
            client_context(B.leaf(f"ivor:node:{B.node.hex()}", old), TRUSTED)
        )
        assert isinstance(outcome, Untrusted)
        assert "expired; or the clock of this machine is wrong" in str(outcome)

    async def test_an_authority_that_is_not_trusted(self) -> None:
        leaf = STRANGER.leaf(f"ivor:node:{A.node.hex()}")
        assert isinstance(await self.refused(client_context(leaf, TRUSTED)), Untrusted)

    async def test_self_signed(self) -> None:
        own = Credential(STRANGER.ca, STRANGER.ca_key)
        assert isinstance(await self.refused(client_context(own, TRUSTED)), Untrusted)

    async def test_server_only(self) -> None:
        leaf = B.odd_leaf(f"ivor:node:{B.node.hex()}", SERVER_ONLY)
        outcome = await self.refused(client_context(leaf, TRUSTED))
        assert isinstance(outcome, Untrusted)
        assert "purpose" in str(outcome)

    async def test_a_certificate_for_signing_documents(self) -> None:
        outcome = await self.refused(client_context(A.signatory(), TRUSTED))
        assert isinstance(outcome, Untrusted)
        assert "purpose" in str(outcome)

    async def test_tls_1_2(self) -> None:
        old = bare(ssl.PROTOCOL_TLS_CLIENT)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        outcome = await self.refused(old)
        assert isinstance(outcome, HandshakeFailed)
        assert "UNSUPPORTED_PROTOCOL" in str(outcome)

    @pytest.mark.parametrize(
        "first", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x05hello", b"\x16\x03\x01", b""]
    )
    async def test_plaintext_first(self, first: bytes) -> None:
        near, far = trio.testing.memory_stream_pair()
        await near.send_all(first)
        await near.send_eof()
        stream = trio.SSLStream(far, server_context(NODE_A, TRUSTED), server_side=True)
        with pytest.raises(HandshakeFailed):
            await handshake(stream)


class TestDialling:
    """The same, as a client sees them."""

    async def seen(self, server: ssl.SSLContext) -> Outcome:
        _, client = await meet(server, client_context(NODE_B, TRUSTED))
        return client

    async def test_a_server_with_a_certificate_for_clients(self) -> None:
        leaf = A.leaf(f"ivor:device:{DEVICE.hex()}")
        assert isinstance(await self.seen(server_context(leaf, TRUSTED)), Untrusted)

    async def test_a_server_with_a_certificate_for_signing_documents(self) -> None:
        assert isinstance(await self.seen(server_context(A.signatory(), TRUSTED)), Untrusted)

    async def test_a_server_of_an_unknown_agency(self) -> None:
        leaf = STRANGER.leaf(f"ivor:node:{A.node.hex()}")
        assert isinstance(await self.seen(server_context(leaf, TRUSTED)), Untrusted)

    async def test_a_server_of_tls_1_2(self) -> None:
        old = bare(ssl.PROTOCOL_TLS_SERVER)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert isinstance(await self.seen(old), HandshakeFailed)

    async def test_a_refused_client_learns_it_with_its_first_read(self) -> None:
        leaf = STRANGER.leaf(f"ivor:node:{STRANGER.node.hex()}")
        _, client = await meet(server_context(NODE_A, TRUSTED), client_context(leaf, TRUSTED))
        assert isinstance(client, HandshakeFailed)


class TestPeerIdentity:
    """What OpenSSL has accepted, and who it is not. Hostile case 55."""

    def refused(self, leaf: Credential, match: str, now: float = NOW) -> None:
        with pytest.raises(Untrusted, match=match):
            peer_identity(der(leaf), CARDS, A.id, now)

    def test_a_certificate_for_signing_documents(self) -> None:
        """Even if OpenSSL took it: its URI names no one who connects."""
        self.refused(A.signatory(), "ivor: URI")

    async def test_right_authority_wrong_node(self) -> None:
        leaf = B.leaf(f"ivor:node:{b'x'.hex() * 32}")
        seen, _ = await meet(server_context(NODE_A, TRUSTED), client_context(leaf, TRUSTED))
        assert isinstance(seen, bytes)
        with pytest.raises(Untrusted, match="not in the card"):
            peer_identity(seen, CARDS, A.id, NOW)

    async def test_an_agency_vouches_for_anothers_node(self) -> None:
        leaf = B.leaf(f"ivor:node:{A.node.hex()}")
        seen, _ = await meet(server_context(NODE_A, TRUSTED), client_context(leaf, TRUSTED))
        assert isinstance(seen, bytes)
        with pytest.raises(Untrusted, match="not in the card"):
            peer_identity(seen, CARDS, A.id, NOW)

    @pytest.mark.parametrize("name", ["minzdrav", "ab cd"])
    def test_an_issuer_whose_name_is_no_id(self, name: str) -> None:
        odd = certificate.authority(B.ca_key, name, NOW, 30, next(SERIALS))
        self.refused(replace(B, ca=odd).leaf(f"ivor:node:{B.node.hex()}"), "issued directly")

    def test_an_issuer_without_a_name(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        uri = x509.UniformResourceIdentifier(f"ivor:node:{B.node.hex()}")
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(next(SERIALS))
            .not_valid_before(datetime.fromtimestamp(NOW, UTC))
            .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
            .sign(key, hashes.SHA256())
        )
        leaf = Credential(made.public_bytes(serialization.Encoding.PEM), pem(key))
        self.refused(leaf, "issued directly")

    def test_an_agency_that_is_not_trusted(self) -> None:
        self.refused(STRANGER.leaf(f"ivor:node:{A.node.hex()}"), "issued directly")

    def test_a_card_that_claims_anothers_node(self) -> None:
        """The peer is then a node of the claimant, never of the agency it copied."""
        claimant = found(4, "claimant", (A.node,))
        cards = {**CARDS, claimant.id: claimant.card}
        leaf = claimant.leaf(f"ivor:node:{A.node.hex()}")
        assert peer_identity(der(leaf), cards, A.id, NOW) == NodePeer(claimant.id, A.node)

    def test_a_card_that_carries_anothers_authority(self) -> None:
        thief = Signer(bytes([5]) * 32)
        card = card_of(thief, "thief", A.ca, (A.node,))
        with pytest.raises(Untrusted, match="not made for its agency"):
            authority_of(card)
        for cards in ({card.charter.agency: card}, {A.id: card}):
            with pytest.raises(Untrusted):
                peer_identity(der(NODE_A), cards, B.id, NOW)

    def test_anothers_authority_with_the_same_name(self) -> None:
        """A CA that only calls itself as A's does is not A's."""
        key = certificate.make_key()
        twin = certificate.authority(key, A.id.hex(), NOW, 30, next(SERIALS))
        self.refused(
            replace(A, ca=twin, ca_key=key).leaf(f"ivor:node:{A.node.hex()}"), "issued directly"
        )

    @pytest.mark.parametrize("kind", ["device", "invitation"])
    def test_devices_and_invitations_of_another_agency(self, kind: str) -> None:
        ident = DEVICE if kind == "device" else TICKET
        self.refused(B.leaf(f"ivor:{kind}:{ident.hex()}"), "another agency")

    @pytest.mark.parametrize("moment", [NOW - 7200, NOW + 3 * 24 * 3600], ids=["early", "late"])
    def test_outside_its_time(self, moment: float) -> None:
        self.refused(NODE_B, "not now", moment)

    @pytest.mark.parametrize("usages", [SERVER_ONLY, CLIENT_ONLY, ()])
    def test_a_node_must_serve_and_dial(self, usages: tuple[x509.ObjectIdentifier, ...]) -> None:
        self.refused(B.odd_leaf(f"ivor:node:{B.node.hex()}", usages), "use of a node")

    def test_a_device_may_only_dial(self) -> None:
        self.refused(A.odd_leaf(f"ivor:device:{DEVICE.hex()}", BOTH), "use of a device")

    @pytest.mark.parametrize(
        "uri", ["ivor:node:aa", f"ivor:invitation:{DEVICE.hex()}", f"ivor:device:{TICKET.hex()}"]
    )
    def test_an_id_of_the_wrong_length(self, uri: str) -> None:
        self.refused(B.leaf(uri), "length")

    def test_a_certificate_without_our_uri(self) -> None:
        self.refused(B.odd_leaf("https://example.org", BOTH), "URI")

    def test_an_authority_itself(self) -> None:
        self.refused(Credential(B.ca, B.ca_key), "subjectAltName")

    def test_a_card_whose_authority_is_not_self_signed(self) -> None:
        for wrong in (NODE_A.certificate, STRANGER.leaf("ivor:node:aa").certificate):
            with pytest.raises(Untrusted, match="malformed"):
                authority_of(card_of(Signer(bytes([1]) * 32), "minzdrav", wrong, ()))
        with pytest.raises(Untrusted, match="malformed"):
            authority_of(replace(A.card, ca=b"\x30\x00"))

    @pytest.mark.parametrize(("what", "other"), [("version", 3), ("curve", 6)])
    def test_an_authority_that_the_library_does_not_know(self, what: str, other: int) -> None:
        """Not one of its errors is a ValueError; a node that met one ended."""
        found = x509.load_pem_x509_certificate(A.ca)
        signed = bytearray(found.tbs_certificate_bytes)
        curve = bytes.fromhex("06082a8648ce3d030107")
        signed[8 if what == "version" else signed.index(curve) + len(curve) - 1] = other
        signature = certificate.private_key(A.ca_key).sign(bytes(signed), ec.ECDSA(hashes.SHA256()))
        whole = der_sequence(
            bytes(signed)
            + bytes.fromhex("300a06082a8648ce3d040302")
            + der_of(0x03, b"\0" + signature)
        )
        with pytest.raises(Untrusted, match="malformed"):
            authority_of(replace(A.card, ca=whole))

    def test_a_signature_that_the_library_does_not_know(self, tmp_path: Path) -> None:
        """OpenSSL verifies it, and the library raises what is no ValueError."""
        made = odd_signature(tmp_path, A.id.hex(), f"ivor:node:{A.node.hex()}")
        if made is None:
            pytest.skip("this openssl makes none")
        authority, leaf = made
        with pytest.raises(Untrusted, match="issued directly"):
            peer_identity(leaf, {A.id: replace(A.card, ca=authority)}, A.id, NOW)

    def test_an_authority_with_more_names(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, A.id.hex()),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "minzdrav"),
            ]
        )
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(next(SERIALS))
            .not_valid_before(datetime.fromtimestamp(NOW, UTC))
            .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        with pytest.raises(Untrusted, match="not made for its agency"):
            authority_of(replace(A.card, ca=made.public_bytes(serialization.Encoding.DER)))


def der_of(tag: int, body: bytes) -> bytes:
    """Write a value as DER."""
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    long = bytes([0x80 | len(size)]) + size
    return bytes([tag]) + (bytes([len(body)]) if len(body) < 0x80 else long) + body


def der_sequence(body: bytes) -> bytes:
    return der_of(0x30, body)


def odd_signature(folder: Path, name: str, uri: str) -> tuple[bytes, bytes] | None:
    """Return a CA and a leaf, DER, with RSASSA-PSS over SHA-256 and masks of SHA-512/256."""

    def openssl(*arguments: str) -> bool:
        return not subprocess.run(
            ["/usr/bin/env", "openssl", *arguments], cwd=folder, capture_output=True, check=False
        ).returncode

    pss = ["rsa_padding_mode:pss", "rsa_mgf1_md:sha512-256"]
    options = [part for one in pss for part in ("-sigopt", one)]
    (folder / "names").write_text(f"subjectAltName=URI:{uri}")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    ok = (
        openssl(
            *new, f"/CN={name}", "-x509", "-keyout", "ca.key", "-out", "ca.der", "-outform", "DER"
        )
        and openssl("x509", "-in", "ca.der", "-inform", "DER", "-out", "ca.pem")
        and openssl(*new, "/CN=leaf", "-keyout", "leaf.key", "-out", "leaf.csr")
        and openssl(
            *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-sha256"),
            *(*options, "-extfile", "names", "-outform", "DER", "-out", "leaf.der"),
        )
    )
    return ((folder / "ca.der").read_bytes(), (folder / "leaf.der").read_bytes()) if ok else None


class TestCredentials:
    def test_der_and_back(self) -> None:
        assert credential_from_der(*credential_to_der(NODE_A)) == NODE_A

    def test_damage_is_refused(self) -> None:
        leaf, key = credential_to_der(NODE_A)
        for pair in ((leaf[:-1], key), (leaf, key[:-1]), (b"", b"")):
            with pytest.raises(Untrusted, match="malformed"):
                credential_from_der(*pair)

    def test_a_certificate_of_another_key_is_refused(self) -> None:
        with pytest.raises(Untrusted, match="another key"):
            credential_from_der(der(NODE_A), credential_to_der(NODE_B)[1])


async def test_a_silent_peer_does_not_outlive_its_deadline(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - jumps over the deadline
) -> None:
    near, far = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(far, server_context(NODE_A, TRUSTED), server_side=True)
    with contextlib.suppress(trio.TooSlowError), trio.fail_after(10):
        await handshake(stream)
        pytest.fail("a handshake without a peer")
    await near.aclose()
