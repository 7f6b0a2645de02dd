"""SPEC 5.2: what vouches for agencies, users and devices."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.sealing import PREKEY_BYTES, prekey_id
from crypto.signing import Signer
from protocol import identity
from protocol.codec import Value, decode, encode
from protocol.entry import DeviceKey
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.identity import AgencyId, Card, CardNode, NodeId, UserId
from protocol.limits import SEQ_MAX, TIME_MS_MAX

ROOT, REGISTRAR, USER, DEVICE, OTHER = (Signer(bytes([n]) * 32) for n in range(1, 6))
AGENCY = AgencyId(ROOT.public)
CHARTER = identity.sign_charter(ROOT, 3, "minzdrav", "RU-UDM", REGISTRAR.public, bytes(32))
USER_REQUEST = identity.request_user(USER, AGENCY, "anna", 1000)
USER_CERTIFICATE = identity.certify_user(REGISTRAR, USER_REQUEST)
DEVICE_REQUEST = identity.request_device(USER, DEVICE, AGENCY, "телефон", 2000)
DEVICE_CERTIFICATE = identity.certify_device(REGISTRAR, DEVICE_REQUEST)
NODES = (
    CardNode(NodeId(b"a" * 32), ("node.a.example:7340", "[2001:db8::1]:7340")),
    CardNode(NodeId(b"b" * 32), ()),
)
CARD = identity.sign_card(ROOT, CHARTER, b"certificate", NODES, 4000)
PREKEY = identity.sign_prekey(DEVICE, bytes(PREKEY_BYTES), 3000)

VERIFIERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "charter": (CHARTER, identity.verify_charter),
    "card": (CARD, identity.verify_card),
    "user": (
        USER_CERTIFICATE,
        lambda raw: identity.verify_user(raw, identity.verify_charter(CHARTER)),
    ),
    "device": (
        DEVICE_CERTIFICATE,
        lambda raw: identity.verify_device(raw, identity.verify_charter(CHARTER)),
    ),
    "prekey": (PREKEY, identity.verify_prekey),
}
KINDS = pytest.mark.parametrize("kind", VERIFIERS)
TIMES = st.integers(0, TIME_MS_MAX)


def signed(signers: list[Signer], label: str, fields: tuple[Value, ...]) -> bytes:
    """Make a record without any of the builders' checks."""
    body = encode(fields)
    return encode((body, *(signer.sign(label, body) for signer in signers)))


def another_device(number: int) -> bytes:
    device = Signer(number.to_bytes(32, "big"))
    return identity.certify_device(
        REGISTRAR, identity.request_device(USER, device, AGENCY, f"{number}", 1)
    )


class TestRoundTrips:
    @given(st.integers(0, SEQ_MAX), st.sampled_from(("minzdrav", "минздрав", "a.b-1")))
    def test_charter(self, serial: int, name: str) -> None:
        raw = identity.sign_charter(ROOT, serial, name, "RU", REGISTRAR.public, bytes(32))
        charter = identity.verify_charter(raw)
        assert (charter.agency, charter.serial, charter.name) == (AGENCY, serial, name)
        assert (charter.zone, charter.registrar, charter.raw) == ("RU", REGISTRAR.public, raw)

    @given(st.text(max_size=16), TIMES)
    def test_device(self, label: str, issued: int) -> None:
        request = identity.request_device(USER, DEVICE, AGENCY, label, issued)
        raw = identity.certify_device(REGISTRAR, request)
        found = identity.verify_device(raw, identity.verify_charter(CHARTER))
        assert (found.user, found.device) == (USER.public, DEVICE.public)
        assert (found.label, found.issued, found.raw) == (label, issued, raw)

    @given(TIMES)
    def test_user(self, issued: int) -> None:
        raw = identity.certify_user(REGISTRAR, identity.request_user(USER, AGENCY, "anna", issued))
        found = identity.verify_user(raw, identity.verify_charter(CHARTER))
        assert (found.agency, found.user, found.name) == (AGENCY, USER.public, "anna")
        assert (found.issued, found.raw) == (issued, raw)

    def test_card(self) -> None:
        charter = identity.verify_charter(CHARTER)
        assert identity.verify_card(CARD) == Card(charter, b"certificate", NODES, 4000, CARD)

    def test_card_nodes_are_sorted_by_the_builder(self) -> None:
        assert identity.sign_card(ROOT, CHARTER, b"certificate", NODES[::-1], 4000) == CARD

    def test_prekey(self) -> None:
        found = identity.verify_prekey(PREKEY)
        assert (found.device, found.id) == (DEVICE.public, prekey_id(bytes(PREKEY_BYTES)))
        assert (found.public, found.issued) == (bytes(PREKEY_BYTES), 3000)


class TestTampering:
    """Hostile case 14."""

    @KINDS
    @given(data=st.data())
    def test_no_bit_can_be_flipped(self, kind: str, data: st.DataObject) -> None:
        """For each record and each bit of it: flipped, it is refused with a typed error."""
        raw, verify = VERIFIERS[kind]
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PeerError):
            verify(bytes(flipped))

    @KINDS
    @given(data=st.data())
    def test_no_record_can_be_cut_or_longer(self, kind: str, data: st.DataObject) -> None:
        raw, verify = VERIFIERS[kind]
        cut = data.draw(st.integers(0, len(raw) - 1))
        for wrong in (raw[:cut], raw + b"\x00"):
            with pytest.raises(PeerError):
                verify(wrong)

    @KINDS
    def test_every_signature_is_needed(self, kind: str) -> None:
        """A record with any one signature by another key is refused."""
        raw, verify = VERIFIERS[kind]
        body, *signatures = decode(raw, 8192)
        assert isinstance(body, bytes)
        for at in range(len(signatures)):
            forged: list[Value] = [item for item in signatures if isinstance(item, bytes)]
            forged[at] = OTHER.sign(kind, body)
            with pytest.raises(Untrusted):
                verify(encode((body, *forged)))

    @KINDS
    def test_another_version_is_refused(self, kind: str) -> None:
        raw, verify = VERIFIERS[kind]
        body, *signatures = decode(raw, 8192)
        assert isinstance(body, bytes)
        later = body[:1] + b"\x02" + body[2:]
        rest = [item for item in signatures if isinstance(item, bytes)]
        with pytest.raises(NotCanonical, match="version"):
            verify(encode((later, *rest)))

    @KINDS
    @given(raw=st.binary(max_size=200))
    def test_any_bytes_are_refused_with_a_typed_error(self, kind: str, raw: bytes) -> None:
        with pytest.raises(PeerError):
            VERIFIERS[kind][1](raw)


class TestDevices:
    """Hostile case 46: registrar, user and device must all have signed."""

    BODY = (1, AGENCY, USER.public, DEVICE.public, b"phone", 1)

    @pytest.mark.parametrize(
        "signers",
        [
            [REGISTRAR, REGISTRAR, REGISTRAR],
            [REGISTRAR, OTHER, DEVICE],
            [USER, USER, DEVICE],
            [OTHER, USER, DEVICE],
            [REGISTRAR, USER, USER],
        ],
    )
    def test_fewer_signers_are_not_enough(self, signers: list[Signer]) -> None:
        with pytest.raises(Untrusted):
            identity.verify_device(
                signed(signers, "device", self.BODY), identity.verify_charter(CHARTER)
            )

    def test_a_request_is_no_certificate(self) -> None:
        with pytest.raises(NotCanonical):
            identity.verify_device(DEVICE_REQUEST, identity.verify_charter(CHARTER))

    def test_signatures_of_another_purpose_do_not_count(self) -> None:
        raw = signed([REGISTRAR, USER, DEVICE], "user", self.BODY)
        with pytest.raises(Untrusted):
            identity.verify_device(raw, identity.verify_charter(CHARTER))

    def test_a_stranger_cannot_be_claimed_as_a_user(self) -> None:
        """An agency alone cannot certify a key that another user holds."""
        raw = signed([REGISTRAR, REGISTRAR], "user", (1, AGENCY, OTHER.public, b"oleg", 1))
        with pytest.raises(Untrusted):
            identity.verify_user(raw, identity.verify_charter(CHARTER))


class TestCredentials:
    def test_a_whole_credential(self) -> None:
        found = identity.verify_credential(CHARTER, USER_CERTIFICATE, [DEVICE_CERTIFICATE])
        assert (found.agency, found.agency_name, found.zone) == (AGENCY, "minzdrav", "RU-UDM")
        assert (found.user, found.name) == (UserId(USER.public), "anna@minzdrav")
        assert found.devices == (DeviceKey(DEVICE.public),)

    def test_devices_keep_their_order_and_may_be_none(self) -> None:
        raws = [another_device(9), DEVICE_CERTIFICATE, another_device(8)]
        found = identity.verify_credential(CHARTER, USER_CERTIFICATE, raws)
        assert found.devices[1] == DEVICE.public
        assert identity.verify_credential(CHARTER, USER_CERTIFICATE, []).devices == ()

    def test_another_users_device_is_refused(self) -> None:
        stranger = identity.certify_device(
            REGISTRAR, identity.request_device(OTHER, DEVICE, AGENCY, "phone", 1)
        )
        with pytest.raises(Untrusted, match="another user"):
            identity.verify_credential(CHARTER, USER_CERTIFICATE, [stranger])

    def test_a_device_counts_once(self) -> None:
        with pytest.raises(NotCanonical, match="two certificates"):
            identity.verify_credential(
                CHARTER, USER_CERTIFICATE, [DEVICE_CERTIFICATE, DEVICE_CERTIFICATE]
            )

    def test_the_number_of_devices_is_limited(self) -> None:
        with pytest.raises(LimitExceeded):
            identity.verify_credential(
                CHARTER, USER_CERTIFICATE, [b""] * (identity.DEVICES_USER_MAX + 1)
            )

    def test_certificates_of_another_agency_are_refused(self) -> None:
        elsewhere = identity.sign_charter(OTHER, 1, "mincifry", "RU", REGISTRAR.public, bytes(32))
        with pytest.raises(Untrusted, match="another agency"):
            identity.verify_credential(elsewhere, USER_CERTIFICATE, [])

    def test_a_new_registrar_does_not_vouch_for_old_certificates(self) -> None:
        renewed = identity.sign_charter(ROOT, 4, "minzdrav", "RU-UDM", OTHER.public, bytes(32))
        with pytest.raises(Untrusted, match="registrar"):
            identity.verify_credential(renewed, USER_CERTIFICATE, [DEVICE_CERTIFICATE])


class TestCards:
    """Authentic cards that say what is not allowed."""

    @pytest.mark.parametrize(
        "nodes",
        [
            ((b"b" * 32, ()), (b"a" * 32, ())),
            ((b"a" * 32, ()), (b"a" * 32, ())),
            ((b"a" * 31, ()),),
            ((b"a" * 32,),),
            ((b"a" * 32, (b"no-port",)),),
            ((b"a" * 32, (b"a:0",)),),
            ((b"a" * 32, None),),
            None,
        ],
    )
    def test_nodes_out_of_form(self, nodes: Value) -> None:
        with pytest.raises(NotCanonical):
            identity.verify_card(signed([ROOT], "card", (1, CHARTER, b"ca", nodes, 1)))

    @pytest.mark.parametrize(
        "nodes",
        [
            tuple((bytes([n]) * 32, ()) for n in range(identity.NODES_AGENCY_MAX + 1)),
            ((b"a" * 32, (b"a:1",) * (identity.ENDPOINTS_NODE_MAX + 1)),),
        ],
    )
    def test_too_many(self, nodes: Value) -> None:
        with pytest.raises(LimitExceeded):
            identity.verify_card(signed([ROOT], "card", (1, CHARTER, b"ca", nodes, 1)))

    def test_a_charter_of_another_root(self) -> None:
        with pytest.raises(Untrusted):
            identity.verify_card(signed([OTHER], "card", (1, CHARTER, b"ca", (), 1)))

    def test_a_charter_with_names_not_allowed(self) -> None:
        for name, zone in ((b"Minzdrav", b"RU"), (b"minzdrav", b"ru"), (b"\xff", b"RU")):
            raw = signed([ROOT], "charter", (1, AGENCY, 1, name, zone, REGISTRAR.public))
            with pytest.raises(NotCanonical):
                identity.verify_charter(raw)
        with pytest.raises(NotCanonical):
            identity.sign_charter(ROOT, 1, "Minzdrav", "RU", REGISTRAR.public, bytes(32))

    def test_size_is_checked_first(self) -> None:
        with pytest.raises(LimitExceeded):
            identity.verify_card(b"\xff" * 20_000)
