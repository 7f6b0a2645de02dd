"""Vectors of a chat: operations, membership, keys, content, messages, order (SPEC 3 to 5)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from crypto import archive, labels, merkle, schedule
from crypto.errors import SealRefused
from crypto.sealing import Prekey
from protocol import codec, operation
from protocol.entry import ChatId, EntryId, Reference
from protocol.epoch import BadSeal, context, recipients_root
from protocol.errors import (
    Inadmissible,
    LimitExceeded,
    NotCanonical,
    PeerError,
    Unauthentic,
    Untrusted,
)
from protocol.operation import (
    Admit,
    Checkpoint,
    CoSignature,
    Enroll,
    EpochOperation,
    Genesis,
    Hold,
    Kind,
    Leave,
    Nack,
    Operation,
    Quorum,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
    kind_of,
)
from protocol.payload import QUORUM_LABEL, encode_operation, quorum_message
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.redaction import Redactions, allows
from protocol.testing.cast import (
    archive_signer,
    credential,
    grant,
    person,
    prekey,
    prekey_record,
    seed,
)
from protocol.testing.story import Story, Told
from tests.protocol.membership_cases import Content, WorkedCase, make_cases
from tests.vectors import (
    Case,
    Value,
    drawn,
    drawn_seals,
    epoch_place,
    invalid,
    recorded_anchor,
    recorded_certificate,
    three,
    valid,
)

ANNA: Final = person("anna@mz")
BORIS: Final = person("boris@mz")
CLARA: Final = person("clara@mvd")
STRANGER: Final = person("egor@mvd")
POLICY: Final = Policy(("RU", "RU-UDM"), 86_400, HistoryRule.SHARED)
RECIPIENTS: Final = tuple(sorted(one.devices[0] for one in (ANNA, BORIS, CLARA)))
SEEN: Final = (Reference(BORIS.devices[0], 4, EntryId(seed("seen"))),)


def story_epoch() -> EpochOperation:
    """Return the epoch whose seals are among the committed inputs."""
    draft = EpochOperation(
        suite=operation.SUITE,
        commit=bytes(32),
        shareable=False,
        recipients_root=recipients_root(RECIPIENTS),
        skipped=(),
        seals_root=merkle.root(drawn_seals()),
        prekey=prekey_record(ANNA.signers[0]),
    )
    ectx = context(epoch_place(), draft)
    return replace(draft, commit=schedule.commitment(seed("epoch", "secret"), ectx))


def _exposed(story: Story) -> Revoke:
    one = story.tell(BORIS, Leave())
    return story.exposure(one, story.retell(BORIS, Checkpoint(SEEN), one))


def operations() -> list[Case]:
    """Payloads of control entries."""
    story = three()
    chat = story.chat
    grants = tuple(
        sorted(
            (grant(ANNA, Role.OWNER), grant(BORIS, Role.OWNER)),
            key=lambda g: g.credential.user.user,
        )
    )
    removal = Remove(BORIS.user, SEEN)
    accepted: list[tuple[str, Operation]] = [
        ("genesis of a direct chat", Genesis(ChatKind.DIRECT, bytes(16), POLICY, grants)),
        ("grant with two devices", Admit((grant(CLARA, Role.MEMBER, (0, 1)),))),
        ("remove", removal),
        ("role", SetRole(BORIS.user, Role.READER, SEEN)),
        ("enroll", Enroll(credential(BORIS, (1,)))),
        ("revoke by rank", Revoke(BORIS.devices[0], None, None, SEEN)),
        ("revoke by the user", story.revocation(BORIS)),
        ("revoke by a fork", _exposed(three())),
        ("policy", SetPolicy(POLICY)),
        ("epoch", story_epoch()),
        ("redact", Redact(BORIS.devices[0], 1, 3, EntryId(seed("target")), "ошибка")),
        ("leave", Leave()),
        ("quorum", story.quorum(ANNA, (removal,), (BORIS,))),
        ("checkpoint", Checkpoint(SEEN)),
        ("checkpoint with ML-DSA", Checkpoint(SEEN, recorded_anchor(ANNA, epoch_place(), SEEN))),
        ("nack", Nack(EntryId(seed("epoch")), 2)),
        ("hold", Hold(BORIS.user, ends=False)),
        ("end of a hold", Hold(BORIS.user, ends=True)),
    ]
    cases = [
        valid(name, {"operation": Kind(kind_of(one)).name.lower()}, **_inputs(one, chat))
        for name, one in accepted
    ]
    return cases + _bad_fields(chat) + _bad_operations(story)


def _inputs(one: Operation, chat: ChatId) -> dict[str, Value]:
    return {"kind": int(kind_of(one)), "payload": encode_operation(one), "chat": chat}


def _bad_fields(chat: ChatId) -> list[Case]:
    heads = [(BORIS.devices[0], 4, bytes(32))] * 2
    many = [(bytes([n]) * 32, 0, bytes(32)) for n in range(33)]
    fields: list[tuple[str, int, codec.Value, type[PeerError]]] = [
        ("unknown kind", 14, (), NotCanonical),
        ("hold: neither begin nor end", 13, (bytes(32), 2), LimitExceeded),
        ("one field too few", 2, (BORIS.user,), NotCanonical),
        ("a user of 31 bytes", 2, (bytes(31), ()), NotCanonical),
        ("heads twice", 2, (BORIS.user, heads), NotCanonical),
        ("33 heads", 2, (BORIS.user, many), LimitExceeded),
        ("a leave that names heads", 9, (heads[:1],), NotCanonical),
        ("role 4", 3, (BORIS.user, 4, ()), LimitExceeded),
        ("no grants", 1, ((),), NotCanonical),
        ("no zones", 6, (((), 0, 0),), NotCanonical),
        ("zones out of order", 6, (((b"RU-UDM", b"RU"), 0, 0),), NotCanonical),
        ("a zone in small letters", 6, (((b"ru",), 0, 0),), NotCanonical),
        ("history 2", 6, (((b"RU",), 0, 2),), LimitExceeded),
        ("a reason that is not UTF-8", 8, (bytes(32), 1, 0, bytes(32), b"\xff"), NotCanonical),
        ("a reason of 513 bytes", 8, (bytes(32), 1, 0, bytes(32), bytes(513)), LimitExceeded),
        ("lane 2", 8, (bytes(32), 2, 0, bytes(32), b""), LimitExceeded),
        *_bad_checkpoints(),
        ("a reason code of 256", 12, (bytes(32), 256), LimitExceeded),
        ("a quorum about nothing", 10, (bytes(32), 0, (), ()), NotCanonical),
        ("a quorum about leaving", 10, (bytes(32), 0, ((9, b"\x91\x90"),), ()), NotCanonical),
        ("a fork proof that is none", 5, (bytes(32), b"\x90", None, ()), NotCanonical),
        ("suite 2", 7, (2, bytes(32), 0, (), (), bytes(32), b""), Inadmissible),
        ("shareable 2", 7, (1, bytes(32), 2, (), (), bytes(32), b""), LimitExceeded),
        *_bad_lists(),
    ]
    return [
        invalid(name, error, kind=kind, payload=codec.encode(value), chat=chat)
        for name, kind, value, error in fields
    ] + [
        invalid("not canonical", NotCanonical, kind=9, payload=b"\x91\x90\x00", chat=chat),
        invalid("over 192 KiB", LimitExceeded, kind=9, payload=bytes(196_609), chat=chat),
    ]


def _bad_lists() -> list[tuple[str, int, codec.Value, type[PeerError]]]:
    """Too many of something, one twice, or out of order."""
    low, high = bytes([1]) * 32, bytes([2]) * 32
    policy: codec.Value = ((b"RU",), 0, 0)
    removal, setting = (2, codec.encode((low, ()))), (6, codec.encode((policy,)))
    signed: codec.Value = [(high, bytes(64)), (low, bytes(64))]
    many: codec.Value = [(bytes([n]) * 32, bytes(64)) for n in range(65)]
    charter, user, device = ANNA.agency.charter, ANNA.certificate, ANNA.certificates[0]

    def epoch(root: codec.Value, skipped: codec.Value) -> codec.Value:
        return (1, bytes(32), 0, root, skipped, bytes(32), b"")

    return [
        ("chat kind 3", 0, (3, bytes(16), policy, ()), LimitExceeded),
        ("a nonce of 15 bytes", 0, (1, bytes(15), policy, ()), NotCanonical),
        ("a grant without a device", 1, ([(1, charter, user, ())],), NotCanonical),
        ("a grant with a device twice", 1, ([(1, charter, user, [device] * 2)],), NotCanonical),
        ("a grant with 33 devices", 1, ([(1, charter, user, [device] * 33)],), LimitExceeded),
        ("33 grants", 1, ([(1, charter, user, [device])] * 33,), LimitExceeded),
        ("an enrolment of two devices", 4, (charter, user, device, device), NotCanonical),
        ("heads out of order", 9, ([(high, 0, low), (low, 0, low)],), NotCanonical),
        ("two heads of one device", 9, ([(low, 0, low), (low, 1, low)],), NotCanonical),
        ("17 zones", 6, (([b"R%02d" % n for n in range(17)], 0, 0),), LimitExceeded),
        ("a zone twice", 6, (((b"RU", b"RU"), 0, 0),), NotCanonical),
        ("a retention of 2^32", 6, (((b"RU",), 2**32, 0),), LimitExceeded),
        ("a user's signature of 63 bytes", 5, (low, None, (high, bytes(63)), ()), NotCanonical),
        ("33 decisions", 10, (low, 0, [removal] * 33, ()), LimitExceeded),
        ("two decisions about the policy", 10, (low, 0, [setting] * 2, ()), NotCanonical),
        ("co-signatures out of order", 10, (low, 0, [removal], signed), NotCanonical),
        ("65 co-signatures", 10, (low, 0, [removal], many), LimitExceeded),
        ("checkpoint heads out of order", 11, (_two_heads()[::-1], *[None] * 3), NotCanonical),
        ("a recipients root that is a list", 7, epoch([low], ()), NotCanonical),
        ("a device skipped twice", 7, epoch(bytes(32), [low, low]), NotCanonical),
        ("skipped devices out of order", 7, epoch(bytes(32), [high, low]), NotCanonical),
        ("1,001 skipped devices", 7, epoch(bytes(32), [low] * 1001), LimitExceeded),
    ]


def _two_heads() -> list[codec.Value]:
    return [(bytes([n]) * 32, 0, bytes(32)) for n in (1, 2)]


def _bad_checkpoints() -> list[tuple[str, int, codec.Value, type[PeerError]]]:
    """Wrong by themselves; a wrong signature shows only where the entry stands."""
    certificate = recorded_certificate(ANNA)
    key, other = archive_signer(ANNA).public, archive_signer(BORIS).public
    body, authority, signature = codec.decode(certificate, 8192)
    assert isinstance(body, bytes)
    assert isinstance(authority, bytes)
    assert isinstance(signature, bytes)
    forged = codec.encode((body, authority, _flipped(signature)))
    elsewhere = codec.encode((body, CLARA.agency.archive.public, signature))
    sealed = bytes(3309)
    return [
        ("an ML-DSA key without its signature", 11, ((), certificate, key, None), NotCanonical),
        ("an ML-DSA key without a certificate", 11, ((), None, key, sealed), NotCanonical),
        ("another ML-DSA key", 11, ((), certificate, other, sealed), Untrusted),
        ("an ML-DSA signature of 64 bytes", 11, ((), certificate, key, bytes(64)), NotCanonical),
        ("a damaged archive certificate", 11, ((), forged, key, sealed), Untrusted),
        ("a foreign archive certificate", 11, ((), elsewhere, key, sealed), Untrusted),
        (
            "513 heads",
            11,
            ([(n.to_bytes(32, "big"), 0, bytes(32)) for n in range(513)], None, None, None),
            LimitExceeded,
        ),
    ]


def _bad_operations(story: Story) -> list[Case]:
    chat = story.chat
    anna, boris = grant(ANNA, Role.OWNER), grant(BORIS, Role.OWNER)
    ordered = sorted((anna, boris), key=lambda one: one.credential.user.user)
    removal = Remove(BORIS.user, ())
    stranger: list[codec.Value] = [ANNA.agency.charter, ANNA.certificate, [CLARA.certificates[0]]]
    borrowed: list[codec.Value] = [ANNA.agency.charter, ANNA.certificate, [BORIS.certificates[0]]]
    wrong = Quorum(ANNA.devices[0], 5, (removal,), (CoSignature(BORIS.devices[0], bytes(64)),))
    other_message = quorum_message(chat, ANNA.devices[0], 6, (removal,))
    other = CoSignature(BORIS.devices[0], BORIS.signers[0].sign(QUORUM_LABEL, other_message))
    moved = Quorum(ANNA.devices[0], 5, (removal,), (other,))
    twice = story.quorum(ANNA, (removal, SetRole(BORIS.user, Role.MEMBER, ())), ())
    proven = story.quorum(ANNA, (story.revocation(BORIS),), ())
    one_owner = Genesis(ChatKind.DIRECT, bytes(16), POLICY, (anna,))
    unequal = (anna, grant(BORIS, Role.MEMBER))
    half_owned = sorted(unequal, key=lambda one: one.credential.user.user)
    no_owner = Genesis(ChatKind.GROUP, bytes(16), POLICY, (grant(ANNA, Role.ADMIN),))
    elsewhere = Revoke(CLARA.devices[0], _exposed(three()).fork, None, ())
    signed_elsewhere = three().revocation(BORIS)
    made: list[tuple[str, Operation, ChatId, type[PeerError]]] = [
        ("a chat without an owner", no_owner, chat, Inadmissible),
        ("a direct chat of one", one_owner, chat, Inadmissible),
        (
            "a direct chat of an owner and a member",
            replace(one_owner, grants=tuple(half_owned)),
            chat,
            Inadmissible,
        ),
        ("grants out of order", Admit(tuple(ordered[::-1])), chat, NotCanonical),
        ("a co-signature that is none", wrong, chat, Unauthentic),
        ("a co-signature of another decision", moved, chat, Unauthentic),
        ("a quorum twice about one user", twice, chat, NotCanonical),
        ("a quorum that brings a proof", proven, chat, NotCanonical),
        ("a fork proof of another device", elsewhere, chat, Unauthentic),
        ("a fork proof of another chat", _exposed(three()), ChatId(bytes(32)), Unauthentic),
        ("a user's signature for another chat", signed_elsewhere, ChatId(bytes(32)), Unauthentic),
    ]
    cases = [invalid(name, error, **_inputs(one, at)) for name, one, at, error in made]
    for name, fields in (
        ("another agency's device", stranger),
        ("another user's device", borrowed),
    ):
        payload = codec.encode([[[1, *fields]]])
        cases.append(invalid(name, Untrusted, kind=1, payload=payload, chat=chat))
    epoch = story_epoch()
    broken: list[codec.Value] = [
        epoch.suite,
        epoch.commit,
        0,
        epoch.recipients_root,
        (),
        epoch.seals_root,
        _flipped(epoch.prekey),
    ]
    payload = codec.encode(broken)
    cases.append(
        invalid("a prekey that is not signed", Untrusted, kind=7, payload=payload, chat=chat)
    )
    return cases


def _flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


# Membership


def membership() -> list[Case]:
    """The worked cases (a) to (i), and entries that are never admitted."""
    return [_worked(one) for one in make_cases()] + _inadmissible()


def _entries(told: Sequence[Told]) -> list[Value]:
    return [
        {"id": one.id, "header": one.raw, "payload": one.payload, "signature": one.signature}
        for one in told
    ]


def _worked(case: WorkedCase) -> Case:
    roles = {who.user.hex(): int(role) for who, role in case.roles.items()}
    policy = case.policy
    result: dict[str, Value] = {
        "roles": dict(sorted(roles.items())),
        "void": {entry.hex(): reason.name for entry, reason in sorted(case.void.items())},
        "content": [None if one.void is None else one.void.name for one in case.content],
    }
    if policy is not None:
        result["policy"] = [list(policy.zones), policy.retention, int(policy.history)]
    return valid(
        f"({case.letter}) {case.title}",
        result,
        chat=case.story.chat,
        names={who.user.hex(): who.name for who in case.roles},
        entries=_entries(case.story.told),
        content=[_content(one) for one in case.content],
    )


def _content(one: Content) -> Value:
    return {"what": one.what, "device": one.device, "seq": one.seq, "control": list(one.saw)}


def _inadmissible() -> list[Case]:
    cases: list[Case] = []

    def add(name: str, story: Story, error: type[PeerError] = Inadmissible) -> None:
        entries = _entries(story.told)
        cases.append(invalid(name, error, chat=story.chat, entries=entries, content=[]))

    story = three()
    story.tell(STRANGER, Leave())
    add("an entry by a stranger", story)
    story = three()
    story.tell(BORIS, Leave(), number=1)
    add("an entry by a device that was not enrolled", story)
    story = three()
    story.tell(BORIS, Enroll(credential(BORIS, (2,))), number=1)
    add("an enrolment by a device that was not enrolled, of another one", story)
    story = three()
    story.tell(STRANGER, Enroll(credential(STRANGER)))
    add("a device that brings itself in, of a user who is no member", story)
    story = three()
    gone = story.tell(ANNA, Remove(BORIS.user, ()))
    story.tell(BORIS, Enroll(credential(BORIS, (1,))), [gone], number=1)
    add("a device that brings itself in after its user was removed", story)
    story = three()
    genesis = story.genesis.entry.operation
    story.tell(ANNA, genesis)
    add("a second genesis", story)
    story = three()
    gone = story.tell(ANNA, Remove(BORIS.user, ()))
    story.tell(BORIS, Leave(), [gone])
    add("an entry by a user who has seen their removal", story)
    story = three()
    story.tell(ANNA, story.epoch(ANNA, [ANNA.devices[0]]))
    add("an epoch that leaves devices out", story)
    story = three()
    everyone = [one.devices[0] for one in (ANNA, BORIS, CLARA, STRANGER)]
    story.tell(ANNA, story.epoch(ANNA, everyone))
    add("an epoch for a ghost", story)
    return cases


def redactions() -> list[Case]:
    """What is redacted and kept for how long, and which record may lack its payload (SPEC 2.6)."""
    story = three()
    target = Reference(BORIS.devices[0], 3, EntryId(seed("target")))
    other = target._replace(id=EntryId(seed("other")))
    start = [story.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()))]
    named = {
        "their own": story.tell(BORIS, _redact(target), start),
        "an admin's, beside a demotion": story.tell(CLARA, _redact(target), start),
        "of another entry": story.tell(ANNA, _redact(other), start),
        "of a control entry": story.tell(ANNA, replace(_redact(target), lane=0), start),
    }
    story.tell(ANNA, SetRole(CLARA.user, Role.MEMBER, ()), start)
    named |= {
        "by who may not": story.tell(CLARA, _redact(target)),
        "no retention": story.tell(ANNA, SetPolicy(_keeping(0))),
        "a retention": story.tell(ANNA, SetPolicy(_keeping(86_400))),
        "a retention that has no effect": story.tell(BORIS, SetPolicy(_keeping(60))),
        "a hold": story.tell(ANNA, Hold(BORIS.user, ends=False)),
    }
    history = story.history()
    found = Redactions(history).of()
    result: dict[str, Value] = {
        "redacted": [[list(p), found[p].ground.id] for p in sorted(found)],
        "retention": 86_400,
        "custodians": [BORIS.user],
        "allowed": {what: allows(history, one.reference, target) for what, one in named.items()},
    }
    return [
        valid(
            "grounds",
            result,
            chat=story.chat,
            entries=_entries(story.told),
            target=list(target),
            grounds={what: list(one.reference) for what, one in named.items()},
        )
    ]


def _redact(place: Reference) -> Redact:
    return Redact(place.device, 1, place.seq, place.id, "")


def _keeping(seconds: int) -> Policy:
    return replace(POLICY, retention=seconds)


# Keys


def schedules() -> list[Case]:
    """Labels, the schedule from a secret to seeds, trees, seals and bundles."""
    return [*_labels(), _schedule(), *_trees(), *_seals(), *_bundles()]


def _labels() -> list[Case]:
    key, context_bytes = seed("key"), b"context"
    hashed = {"digest": labels.digest("entry", b"a", b"b"), "mac": labels.mac(key, "pc", b"a")}
    long = bytes(20_000)
    return [
        valid("hashes", hashed, do="hash", key=key),
        *(
            valid(
                f"ExpandWithLabel, context of {len(one)} bytes",
                {"out": labels.expand_with_label(key, "aead", one, 56)},
                do="expand",
                secret=key,
                label="aead",
                context=one,
                length=56,
            )
            for one in (b"", context_bytes, bytes(64), long)
        ),
    ]


def _schedule() -> Case:
    epoch = story_epoch()
    place = epoch_place()
    secret = seed("epoch", "secret")
    entry = EntryId(seed("epoch", "id"))
    shared = schedule.epoch_secret(entry, secret)
    chains, seeds = [schedule.sender_chain(shared, ANNA.devices[0])], []
    for _ in range(3):
        one, following = schedule.advance(chains[-1])
        seeds.append(one)
        chains.append(following)
    result: Value = {
        "recipients_root": recipients_root(RECIPIENTS),
        "ectx": context(place, epoch),
        "commit": epoch.commit,
        "es": shared,
        "chains": chains,
        "seeds": seeds,
    }
    return valid(
        "from a secret to seeds",
        result,
        do="schedule",
        place=list(place),
        payload=encode_operation(epoch),
        recipients=list(RECIPIENTS),
        secret=secret,
        epoch=entry,
        device=ANNA.devices[0],
    )


def _trees() -> list[Case]:
    cases: list[Case] = []
    for count in (0, 1, 2, 3, 5, 8):
        leaves = [bytes([n]) for n in range(count)]
        result: Value = {
            "root": merkle.root(leaves),
            "paths": merkle.paths(leaves) if count else [],
        }
        cases.append(valid(f"a tree of {count}", result, do="tree", leaves=leaves))
    return cases


def _seals() -> list[Case]:
    epoch, place = story_epoch(), epoch_place()
    seals = drawn_seals()
    paths = merkle.paths(seals)
    cases: list[Case] = []
    for who in (ANNA, BORIS, CLARA):
        device = who.devices[0]
        index = RECIPIENTS.index(device)
        inputs: dict[str, Value] = {
            "do": "seal",
            "place": list(place),
            "payload": encode_operation(epoch),
            "recipients": list(RECIPIENTS),
            "device": device,
            "private": prekey(device).private,
            "seal": seals[index],
            "path": paths[index],
        }
        cases.append(
            valid(f"the seal of {who.name}", {"secret": seed("epoch", "secret")}, **inputs)
        )
        if who is not ANNA:
            continue
        wrong: list[tuple[str, dict[str, Value]]] = [
            ("another's seal", {"seal": seals[(index + 1) % 3]}),
            ("a wrong path", {"path": [bytes(32)] * len(paths[index])}),
            ("a short path", {"path": []}),
            ("another prekey", {"private": seed("no", "prekey")}),
            ("another place", {"place": [bytes(32), *list(place)[1:]]}),
            ("no recipient", {"device": STRANGER.devices[0]}),
            ("one recipient more before it", {"recipients": [bytes(32), *RECIPIENTS]}),
        ]
        cases += [invalid(name, BadSeal, **inputs | change) for name, change in wrong]
    return cases


def _bundles() -> list[Case]:
    private = Prekey(seed("seal", "prekey")).private
    bundle = drawn("bundle")
    inputs: dict[str, Value] = {
        "do": "bundle",
        "private": private,
        "info": b"info",
        "bundle": bundle,
    }
    assert archive.open_bundle(private, b"info", bundle) == b"segments"
    return [
        valid("a bundle", {"plaintext": b"segments"}, **inputs),
        invalid("a bundle under another info", SealRefused, **inputs | {"info": b"other"}),
        invalid("a bundle cut off", SealRefused, **inputs | {"bundle": bundle[:-1]}),
        invalid("a bundle of another key", SealRefused, **inputs | {"private": seed("x")}),
        invalid("less than a seal", SealRefused, **inputs | {"bundle": bundle[:1183]}),
    ]
