"""Vectors of people and peers: names, identity, keys, invitations, frames (SPEC 5 to 7)."""

import base64
from typing import Final

from crypto.archival import archive_digest
from crypto.errors import KeyFileRefused
from crypto.fingerprint import agency_fingerprint, fingerprint, link_code, safety_number
from crypto.keyfile import seal_key
from crypto.labels import digest
from crypto.recovery import backup_key
from crypto.sealing import PREKEY_BYTES, prekey_id
from crypto.signing import Signer
from protocol import codec, identity
from protocol.backup import LENGTH_BYTES, SUM_BYTES, length_of
from protocol.entry import ChatId, EntryId
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic, Untrusted
from protocol.identity import AgencyId, CardNode, NodeId, verify_card
from protocol.invitation import PREFIX, Invitation, Purpose, encode_invitation
from protocol.name import skeleton
from protocol.receipt import Receipt, sign_receipt
from protocol.testing.cast import ISSUED_MS, agency, person, prekey, prekey_record, seed
from tests.vectors import BACKUP_SEED, TICKET, Case, Value, drawn, invalid, valid

HOME: Final = agency("mz")
AGENCY: Final = AgencyId(HOME.root.public)
ANNA: Final = person("anna@mz")
BORIS: Final = person("boris@mz")
CLARA: Final = person("clara@mvd")
NODE_KEY: Final = Signer(seed("mz", "node"))
NODE: Final = NodeId(NODE_KEY.public)


def names() -> list[Case]:
    """Names, addresses, zones and endpoints, each by its own reader."""
    accepted: list[tuple[str, str, Value]] = [
        ("name", "anna", "anna"),
        ("name", "a", "a"),
        ("name", "a1.b-2", "a1.b-2"),
        ("name", "анна", "анна"),
        ("name", "ӟеч", "ӟеч"),
        ("name", "a" * 32, "a" * 32),
        ("address", "anna@minzdrav", "anna@minzdrav"),
        ("address", " Anna@MinZdrav ", "anna@minzdrav"),
        ("address", "Ӟеч@минздрав", "ӟеч@минздрав"),
        ("zone", "RU-UDM", "RU-UDM"),
        ("zone", "RU1", "RU1"),
        ("endpoint", "node.example:7340", ["node.example", 7340]),
        ("endpoint", "[2001:db8::1]:1", ["2001:db8::1", 1]),
    ]
    refused: list[tuple[str, str, type[PeerError]]] = [
        ("name", "", NotCanonical),
        ("name", "Anna", NotCanonical),
        ("name", "1anna", NotCanonical),
        ("name", "anna.", NotCanonical),
        ("name", "an--na", NotCanonical),
        ("name", "an na", NotCanonical),
        ("name", "an\u200bna", NotCanonical),
        ("name", "an\u202ena", NotCanonical),
        ("name", "e\u0301va", NotCanonical),
        ("name", "αννα", NotCanonical),
        ("name", "../x", NotCanonical),
        ("name", "аnna", Untrusted),
        ("name", "annа", Untrusted),
        ("name", "a" * 33, LimitExceeded),
        ("address", "anna", NotCanonical),
        ("address", "anna@min@zdrav", NotCanonical),
        ("address", "anna@минzdrav", Untrusted),
        ("zone", "ru", NotCanonical),
        ("zone", "RU-", NotCanonical),
        ("zone", "-RU", NotCanonical),
        ("zone", "", NotCanonical),
        ("zone", "RU--UDM", NotCanonical),
        ("zone", "РУ", NotCanonical),
        ("zone", "R" * 33, LimitExceeded),
        ("endpoint", "node", NotCanonical),
        ("endpoint", "node:0", NotCanonical),
        ("endpoint", "node:65536", NotCanonical),
        ("endpoint", "no de:1", NotCanonical),
        ("endpoint", "node:07340", NotCanonical),
        ("endpoint", "узел:7340", NotCanonical),
        ("endpoint", "[2001:db8::g]:7340", NotCanonical),
        ("endpoint", "node:", NotCanonical),
        ("endpoint", "n" * 256, LimitExceeded),
    ]
    cases = [
        valid(f"{what} {text}", result, what=what, text=text) for what, text, result in accepted
    ]
    cases += [
        invalid(f"{what} {text!a}", error, what=what, text=text) for what, text, error in refused
    ]
    cases += [
        valid(f"what {text} looks like", skeleton(text), what="skeleton", text=text)
        for text in ("сор", "cop", "rnoscow", "minzdrav", "мой", "мои")
    ]
    insides = [("RU-UDM", "RU", 1), ("RU", "RU", 1), ("RUS", "RU", 0), ("RU", "RU-UDM", 0)]
    return cases + [
        valid(f"{zone} inside {allowed}", answer, what="inside", text=zone, allowed=allowed)
        for zone, allowed, answer in insides
    ]


# Identity


def identities() -> list[Case]:
    """Charters, cards, certificates, prekeys, links, revocations, credentials."""
    nodes = (CardNode(NODE, ("node.example:7340", "[2001:db8::1]:7340")),)
    card = identity.sign_card(HOME.root, HOME.charter, drawn("ca"), nodes, ISSUED_MS)
    record = prekey_record(ANNA.signers[0])
    link = identity.request_link(ANNA.signers[1], ANNA.user, AGENCY, "phone", ISSUED_MS)
    revocation = identity.sign_revocation(ANNA.identity, AGENCY, ANNA.devices[0])
    public = prekey(ANNA.devices[0]).public
    prekey_result = {"device": ANNA.devices[0], "id": digest("prekey", public)[:16]}
    chat, entry, ground = ChatId(seed("chat")), EntryId(seed("entry")), EntryId(seed("ground"))
    said = Receipt(NODE, AGENCY, chat, entry, ground, ISSUED_MS)
    receipt = sign_receipt(NODE_KEY, said)
    good: list[tuple[str, str, bytes, Value]] = [
        ("charter", "charter", HOME.charter, {"agency": AGENCY, "name": "mz", "zone": "RU-UDM"}),
        ("card", "card", card, {"agency": AGENCY, "nodes": [NODE], "issued": ISSUED_MS}),
        ("user certificate", "user", ANNA.certificate, {"user": ANNA.user, "name": "anna"}),
        (
            "device certificate",
            "device",
            ANNA.certificates[0],
            {"user": ANNA.user, "device": ANNA.devices[0], "label": "desk"},
        ),
        ("prekey", "prekey", record, prekey_result),
        ("link request", "link", link, {"user": ANNA.user, "device": ANNA.devices[1]}),
        ("receipt", "receipt", receipt, {"node": NODE, "entry": said.entry, "ground": said.ground}),
    ]
    cases = [valid(name, result, **_record(what, raw)) for name, what, raw, result in good]
    for name, what, raw, _ in good:
        fields = [bytes(one) for one in codec.decode(raw, 2**20) if isinstance(one, bytes)]
        cases += _damaged(name, what, fields)
    return cases + _bad_bodies() + _credentials() + _revocations(revocation)


def _record(what: str, raw: bytes) -> dict[str, Value]:
    return {"what": what, "charter": HOME.charter, "raw": raw}


def _damaged(name: str, what: str, fields: list[bytes]) -> list[Case]:
    body, signature = fields[0], fields[1]
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    whole = codec.encode(fields)
    broken: list[tuple[str, bytes, type[PeerError]]] = [
        ("a bit of a signature flipped", codec.encode([body, flipped, *fields[2:]]), Untrusted),
        ("one signature too few", codec.encode(fields[:-1]), NotCanonical),
        ("one signature too many", codec.encode([*fields, signature]), NotCanonical),
        ("a signature of 63 bytes", codec.encode([*fields[:-1], fields[-1][:63]]), NotCanonical),
        ("a body with a trailing byte", codec.encode([body + b"\x00", *fields[1:]]), NotCanonical),
        ("a trailing byte", whole + b"\x00", NotCanonical),
        ("too long", whole + bytes(2**15), LimitExceeded),
    ]
    cases = [invalid(f"{name}: {why}", error, **_record(what, raw)) for why, raw, error in broken]
    if len(fields) > 2:
        swapped = codec.encode([body, *fields[:0:-1]])
        cases.append(invalid(f"{name}: signatures swapped", Untrusted, **_record(what, swapped)))
    return cases


def _bad_bodies() -> list[Case]:
    root, registrar, user, device = HOME.root, HOME.registrar, ANNA.identity, ANNA.signers[0]
    far = AgencyId(CLARA.agency.root.public)

    def record(label: str, body: codec.Value, *signers: Signer) -> bytes:
        raw = codec.encode(body)
        return codec.encode([raw, *(one.sign(label, raw) for one in signers)])

    def charter(*changed: codec.Value) -> bytes:
        return record("charter", changed, root)

    def card(nodes: codec.Value) -> bytes:
        return record("card", (1, HOME.charter, b"ca", nodes, 0), root)

    public, ends = root.public, [b"node.example:7340"]
    device_body = (1, AGENCY, ANNA.user, ANNA.devices[0], b"desk", 0)
    made: list[tuple[str, str, bytes, type[PeerError]]] = [
        (
            "charter: version 2",
            "charter",
            charter(2, public, 1, b"mz", b"RU", public, bytes(32)),
            NotCanonical,
        ),
        (
            "charter: a name in capitals",
            "charter",
            charter(1, public, 1, b"MZ", b"RU", public, bytes(32)),
            NotCanonical,
        ),
        (
            "charter: a name of two scripts",
            "charter",
            charter(1, public, 1, "мz".encode(), b"RU", public, bytes(32)),
            Untrusted,
        ),
        (
            "charter: a name of 33 letters",
            "charter",
            charter(1, public, 1, b"m" * 33, b"RU", public, bytes(32)),
            LimitExceeded,
        ),
        (
            "charter: a zone in small letters",
            "charter",
            charter(1, public, 1, b"mz", b"ru", public, bytes(32)),
            NotCanonical,
        ),
        (
            "charter: a serial of 2^32",
            "charter",
            charter(1, public, 2**32, b"mz", b"RU", public, bytes(32)),
            LimitExceeded,
        ),
        (
            "charter: by another root",
            "charter",
            charter(1, registrar.public, 1, b"mz", b"RU", public, bytes(32)),
            Untrusted,
        ),
        ("card: a node twice", "card", card([(NODE, ends)] * 2), NotCanonical),
        (
            "card: nodes out of order",
            "card",
            card([(bytes([n]) * 32, ends) for n in (2, 1)]),
            NotCanonical,
        ),
        (
            "card: signed by the registrar",
            "card",
            record("card", (1, HOME.charter, b"ca", (), 0), registrar),
            Untrusted,
        ),
        (
            "card: a CA certificate of 4,097 bytes",
            "card",
            record("card", (1, HOME.charter, bytes(4097), (), 0), root),
            LimitExceeded,
        ),
        ("card: an endpoint without a port", "card", card([(NODE, [b"node"])]), NotCanonical),
        (
            "card: 17 nodes",
            "card",
            card([(bytes([n]) * 32, ends) for n in range(17)]),
            LimitExceeded,
        ),
        ("card: nine endpoints", "card", card([(NODE, ends * 9)]), LimitExceeded),
        (
            "user certificate: of another agency",
            "user",
            record("user", (1, far, ANNA.user, b"anna", 0), registrar, user),
            Untrusted,
        ),
        (
            "user certificate: without the user's own signature",
            "user",
            record("user", (1, AGENCY, ANNA.user, b"anna", 0), registrar, registrar),
            Untrusted,
        ),
        (
            "device certificate: without the user's signature (hostile case 46)",
            "device",
            record("device", device_body, registrar, registrar, device),
            Untrusted,
        ),
        (
            "device certificate: without the device's signature",
            "device",
            record("device", device_body, registrar, user, user),
            Untrusted,
        ),
        (
            "device certificate: without the registrar's signature",
            "device",
            record("device", device_body, user, user, device),
            Untrusted,
        ),
        (
            "device certificate: of another agency",
            "device",
            record("device", (1, far, *device_body[2:]), registrar, user, device),
            Untrusted,
        ),
        (
            "device certificate: a label that is not UTF-8",
            "device",
            record("device", (*device_body[:4], b"\xff", 0), registrar, user, device),
            NotCanonical,
        ),
        (
            "device certificate: signed under another label",
            "device",
            record("user", device_body, registrar, user, device),
            Untrusted,
        ),
        (
            "device certificate: a label of 65 bytes",
            "device",
            record("device", (*device_body[:4], bytes(65), 0), registrar, user, device),
            LimitExceeded,
        ),
        (
            "prekey: 1,215 bytes",
            "prekey",
            record("prekey", (1, ANNA.devices[0], bytes(PREKEY_BYTES - 1), 0), device),
            NotCanonical,
        ),
        (
            "prekey: issued over the limit",
            "prekey",
            record("prekey", (1, ANNA.devices[0], bytes(PREKEY_BYTES), 2**53), device),
            LimitExceeded,
        ),
    ]
    return [invalid(name, error, **_record(what, raw)) for name, what, raw, error in made]


def _credentials() -> list[Case]:
    def inputs(user: bytes, *devices: bytes) -> dict[str, Value]:
        return {"what": "credential", "charter": HOME.charter, "user": user, "devices": devices}

    one, two, _ = ANNA.certificates
    result: Value = {"name": "anna@mz", "zone": "RU-UDM", "devices": list(ANNA.devices[:2])}
    return [
        valid("credential", result, **inputs(ANNA.certificate, one, two)),
        invalid("credential: one device twice", NotCanonical, **inputs(ANNA.certificate, one, one)),
        invalid(
            "credential: another user's device",
            Untrusted,
            **inputs(ANNA.certificate, BORIS.certificates[0]),
        ),
        invalid("credential: another agency's user", Untrusted, **inputs(CLARA.certificate)),
        invalid("credential: 33 devices", LimitExceeded, **inputs(ANNA.certificate, *[one] * 33)),
    ]


def _revocations(signature: bytes) -> list[Case]:
    itself, sister = (
        identity.sign_revocation(signer, AGENCY, ANNA.devices[0]) for signer in ANNA.signers[:2]
    )
    inputs: dict[str, Value] = {
        "what": "revocation",
        "user": ANNA.user,
        "agency": AGENCY,
        "device": ANNA.devices[0],
        "signature": signature,
    }
    return [
        valid("revocation", None, **inputs),
        valid("revocation by the device itself", None, **inputs | {"signature": itself}),
        invalid("revocation by a sister", Untrusted, **inputs | {"signature": sister}),
        invalid("revocation: of another device", Untrusted, **inputs | {"device": ANNA.devices[1]}),
        invalid("revocation: at another agency", Untrusted, **inputs | {"agency": bytes(32)}),
        invalid("revocation: cut off", Untrusted, **inputs | {"signature": signature[:63]}),
    ]


def backups() -> list[Case]:
    """A backup of three parts, and what is wrong with others (SPEC 5.6)."""
    own, whole = backup_key(BACKUP_SEED), drawn("backup")
    parts, rest = [], whole
    while rest:
        end = LENGTH_BYTES + length_of(rest[:LENGTH_BYTES])
        parts.append(rest[:end])
        rest = rest[end:]
    head, letters, last = parts
    result: dict[str, Value] = {
        "key": prekey_id(own.public),
        "bodies": [b"\x92\x00\xc4\x04head", b"\x92\x01\x91\xc4\x07letters", b"\x92\x04\xc4\x03end"],
    }
    flipped = letters[:600] + bytes([letters[600] ^ 1]) + letters[601:]
    a = flipped[LENGTH_BYTES:-SUM_BYTES]
    mended = flipped[:-SUM_BYTES] + digest("backup sum", a)[:SUM_BYTES]
    made: list[tuple[str, type[Exception], list[bytes]]] = [
        ("a bit flipped", NotCanonical, [head, flipped, last]),
        ("a bit flipped, and the sum made anew", Unauthentic, [head, mended, last]),
        ("two parts exchanged", Unauthentic, [letters, head, last]),
        ("a part left out", Unauthentic, [head, last]),
        ("a part of 0 bytes", LimitExceeded, [head, bytes(12)]),
        ("a part that says 960 KiB and a byte", LimitExceeded, [head, b"\x00\x0f\x00\x01"]),
    ]
    return [
        valid("a backup", result, seed=BACKUP_SEED, parts=parts),
        *(invalid(name, error, seed=BACKUP_SEED, parts=wrong) for name, error, wrong in made),
        invalid("other words", Untrusted, seed=seed("x"), parts=parts),
    ]


def keys() -> list[Case]:
    """Key files, fingerprints and safety numbers."""
    secret, passphrase = seed("secret"), b"correct horse"
    text = seal_key(secret, passphrase, "device", seed("salt")[:16], seed("nonce")[:24])
    inputs: dict[str, Value] = {
        "what": "keyfile",
        "text": text,
        "passphrase": passphrase,
        "purpose": "device",
    }
    lines = text.splitlines()
    changed = "B" if lines[1][10] == "A" else "A"
    damaged = "\n".join([lines[0], lines[1][:10] + changed + lines[1][11:], *lines[2:]])
    cut = "\n".join(lines[:-1])
    costly = _key_file(
        b"\x01" + (11).to_bytes(4) + (8).to_bytes(4) + bytes(40) + b"\x00" + bytes(16)
    )
    vast = _key_file(
        b"\x01" + (1).to_bytes(4) + (2**20).to_bytes(4) + bytes(40) + b"\x00" + bytes(16)
    )
    wrong: list[tuple[str, dict[str, Value]]] = [
        ("a wrong passphrase", {"passphrase": b"wrong"}),
        ("another purpose", {"purpose": "agency root"}),
        ("a letter changed", {"text": damaged}),
        ("no end", {"text": cut}),
        ("version 2", {"text": _key_file(b"\x02")}),
        ("shorter than its head", {"text": _key_file(b"\x01" + bytes(20))}),
        ("11 passes", {"text": costly}),
        ("1 GiB of memory", {"text": vast}),
        ("over 128 KiB", {"times": 1000}),
    ]
    archive = archive_digest(HOME.archive.public)
    both = safety_number(ANNA.user, ANNA.name, BORIS.user, BORIS.name)
    pair: dict[str, Value] = {"a": [ANNA.user, ANNA.name], "b": [BORIS.user, BORIS.name]}
    return [
        valid("a key file", secret, **inputs),
        *(invalid(name, KeyFileRefused, **inputs | change) for name, change in wrong),
        valid("a fingerprint", fingerprint(ANNA.user), what="fingerprint", key=ANNA.user),
        valid(
            "an agency's fingerprint",
            agency_fingerprint(AGENCY, archive),
            what="agency fingerprint",
            root=AGENCY,
            archive=archive,
        ),
        valid(
            "a link code",
            link_code(TICKET, b"request"),
            what="link code",
            ticket=TICKET,
            request=b"request",
        ),
        valid("a safety number", both, what="safety", **pair),
        valid("the same from the other side", both, what="safety", a=pair["b"], b=pair["a"]),
    ]


def _key_file(body: bytes) -> str:
    whole = body + digest("keyfile sum", body)[:8]
    block = base64.b64encode(whole).decode()
    return f"-----BEGIN IVOR KEY-----\n{block}\n-----END IVOR KEY-----\n"


def invitations() -> list[Case]:
    """The one line of text that lets a device in."""
    nodes = (CardNode(NODE, ("node.example:7340",)),)
    raw = identity.sign_card(HOME.root, HOME.charter, drawn("ca"), nodes, ISSUED_MS)
    card = verify_card(raw)
    leaf, key = drawn("certificate"), drawn("key")
    made = Invitation(card, TICKET, Purpose.FIRST_DEVICE, "anna", ISSUED_MS, leaf, key)
    text = encode_invitation(made)
    result: Value = {
        "agency": AGENCY,
        "ticket": TICKET,
        "purpose": 0,
        "name": "anna",
        "expires": ISSUED_MS,
    }
    fields: list[codec.Value] = [1, raw, TICKET, 0, b"anna", ISSUED_MS, leaf, key]

    def changed(place: int, value: codec.Value) -> str:
        return _line(codec.encode([*fields[:place], value, *fields[place + 1 :]]))

    altered = raw[:-1] + bytes([raw[-1] ^ 1])
    refused: list[tuple[str, str, type[PeerError]]] = [
        ("empty", "", NotCanonical),
        ("another beginning", "ivor2." + text.removeprefix(PREFIX), NotCanonical),
        ("no base64url", PREFIX + "!!!", NotCanonical),
        (
            "a letter changed",
            text[:40] + ("A" if text[40] != "A" else "B") + text[41:],
            NotCanonical,
        ),
        ("cut off", text[:-8], NotCanonical),
        ("version 2", changed(0, 2), NotCanonical),
        ("an altered card", changed(1, altered), Untrusted),
        ("a ticket of 15 bytes", changed(2, TICKET[:15]), NotCanonical),
        ("purpose 3", changed(3, 3), LimitExceeded),
        ("a name in capitals", changed(4, b"Anna"), NotCanonical),
        ("expires over the limit", changed(5, 2**53), LimitExceeded),
        ("a key over its limit", changed(7, bytes(513)), LimitExceeded),
        ("one field too few", _line(codec.encode(fields[:-1])), NotCanonical),
    ]
    return [
        valid("first device", result, text=text),
        valid("with line breaks from copying", result, text=f" {text[:70]}\n{text[70:]}\n"),
        *(invalid(name, error, text=line) for name, line, error in refused),
        invalid("over its limit", LimitExceeded, text=PREFIX, times=40_000),
    ]


def _line(body: bytes) -> str:
    whole = body + digest("invitation", body)[:4]
    return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")
