"""Makes the vectors of content: messages sealed and opened, what they say, and their order."""

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from crypto import content
from crypto.errors import ContentRefused
from protocol import codec
from protocol.disclosure import Disclosed, Share
from protocol.entry import EntryId
from protocol.errors import (
    LimitExceeded,
    NotCanonical,
    PeerError,
)
from protocol.message import Edit, Message, Reaction, Text, Title, encode_message
from protocol.operation import Leave, Remove
from protocol.payload import QUORUM_LABEL, encode_operation
from protocol.proposal import Consent, Proposal
from protocol.testing.cast import (
    seed,
)
from tests.vectors import (
    Case,
    Value,
    invalid,
    valid,
)
from tests.vectors_approvals import approval_messages, bad_approvals
from tests.vectors_chat import ANNA, CLARA, SEEN
from tests.vectors_files import bad_files, file_messages

# Content


def contents() -> list[Case]:
    """Messages sealed and opened, and every reason why one does not open."""
    seeded, pre, kf = seed("content", "seed"), b"header before pc", seed("content", "kf")
    cases: list[Case] = []
    for m in (b"", b"a", b"hello", bytes(100), bytes(1000), bytes(60_000)):
        pc, ciphertext = content.seal_content(seeded, pre, kf, m)
        result: Value = {"kf": kf, "m": m, "padded": len(content.pad(m))}
        opened = {"seed": seeded, "pre": pre, "pc": pc, "ciphertext": ciphertext}
        cases.append(valid(f"{len(m)} bytes", result, **opened))
    pc, good = content.seal_content(seeded, pre, kf, b"hello")
    other, _ = content.seal_content(seeded, pre, kf, b"hullo")
    inputs: dict[str, Value] = {"seed": seeded, "pre": pre, "pc": pc, "ciphertext": good}
    wrong: list[tuple[str, dict[str, Value]]] = [
        ("another seed", {"seed": seed("other")}),
        ("another header", {"pre": b"header before PC"}),
        ("another commitment", {"pc": other}),
        ("a bit flipped", {"ciphertext": bytes([good[0] ^ 1]) + good[1:]}),
        ("cut off", {"ciphertext": good[:-1]}),
        ("less than a tag", {"ciphertext": b"short"}),
        ("a commitment to another text", _resealed(seeded, pre, kf, content.pad(b"hullo"), pc)),
        ("padding too long", _resealed(seeded, pre, kf, b"hello\x80" + bytes(10), pc)),
        ("padding without its mark", _resealed(seeded, pre, kf, bytes(6), pc)),
    ]
    return cases + [invalid(name, ContentRefused, **inputs | change) for name, change in wrong]


def _resealed(seeded: bytes, pre: bytes, kf: bytes, padded: bytes, pc: bytes) -> dict[str, Value]:
    """Encrypt any padded plaintext under the keys that go with `pc`."""
    bound, key, nonce = content._keys(seeded, pre, pc)
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(kf + padded, bound, nonce, key)
    return {"ciphertext": ciphertext}


def messages() -> list[Case]:
    """What a plaintext says."""
    target = SEEN[0]
    accepted: list[tuple[str, Message]] = [
        ("text", Text("Привет", None)),
        ("reply", Text("yes", target)),
        ("title", Title("Ӟеч")),
        ("reaction", Reaction(target, "👍")),
        ("reaction taken back", Reaction(target, "")),
        ("edit", Edit(target, "better")),
        ("proposal", Proposal(70, (Remove(CLARA.user, (target,)),))),
        ("consent", Consent(target, ANNA.signers[0].sign(QUORUM_LABEL, b"a decision"))),
        ("share", Share((Disclosed(target.id, b"\x93\x00\xc4\x01a\xc0", seed("kf")),))),
        *file_messages(),
        *approval_messages(target),
    ]
    removed = (2, encode_operation(Remove(CLARA.user, ())))
    refused: list[tuple[str, codec.Value, type[PeerError]]] = [
        ("unknown kind", (255, b"a"), NotCanonical),
        ("no fields", (), NotCanonical),
        ("one field too many", (1, b"a", None), NotCanonical),
        ("empty text", (0, b"", None), NotCanonical),
        ("not UTF-8", (0, b"\xff", None), NotCanonical),
        ("a reply that is no reference", (0, b"a", (1, 2)), NotCanonical),
        ("text over the limit", (0, bytes(61_441), None), LimitExceeded),
        ("an edit to nothing", (3, target, b""), NotCanonical),
        ("an edit over the limit", (3, target, bytes(61_441)), LimitExceeded),
        ("an empty title", (1, b""), NotCanonical),
        ("a share of nothing", (10, ()), NotCanonical),
        ("a share without kf", (10, [(target.id, b"m")]), NotCanonical),
        ("a share with a kf of 31 bytes", (10, [(target.id, b"m", bytes(31))]), NotCanonical),
        ("a share over the limit", (10, [(target.id, bytes(61_361), bytes(32))]), LimitExceeded),
        ("title over the limit", (1, b"a" * 257), LimitExceeded),
        ("reaction over the limit", (2, target, b"a" * 33), LimitExceeded),
        ("a proposal of nothing", (4, 70, ()), NotCanonical),
        ("a proposal to leave", (4, 70, [(9, encode_operation(Leave()))]), NotCanonical),
        ("a proposal of the same twice", (4, 70, [removed, removed]), NotCanonical),
        ("a proposal for ever", (4, 2**32, [removed]), LimitExceeded),
        ("a consent to nothing", (5, None, bytes(64)), NotCanonical),
        ("a consent cut off", (5, target, bytes(63)), NotCanonical),
        *bad_files(),
        *bad_approvals(target),
    ]
    cases = [
        valid(name, {"kind": type(one).__name__.lower()}, m=encode_message(one))
        for name, one in accepted
    ]
    return cases + [invalid(name, error, m=codec.encode(value)) for name, value, error in refused]


def order() -> list[Case]:
    """Content entries in the order for people, whatever order they come in."""
    ids = {name: EntryId(seed("order", name)) for name in "abcdefg"}
    graph: list[tuple[str, int, list[str]]] = [
        ("a", 900, []),
        ("b", 100, ["a"]),
        ("c", 100, ["a"]),
        ("d", 50, ["b", "c"]),
        ("e", 10, []),
        ("f", 10, ["e"]),
        ("g", 0, ["d", "f"]),
    ]
    entries: list[Value] = [
        {"name": name, "id": ids[name], "time": time, "parents": [ids[one] for one in parents]}
        for name, time, parents in graph
    ]
    after = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 0, "f": 1, "g": 3}
    times = {name: time for name, time, _ in graph}
    sorted_names = sorted(after, key=lambda name: (after[name], times[name], ids[name]))
    result: Value = {"depths": [after[name] for name, _, _ in graph], "order": sorted_names}
    return [valid("by depth, then time, then id", result, entries=entries)]
