"""What each file of vectors is checked by: from its inputs to the result that must stand there."""

from collections.abc import Callable, Mapping
from typing import Final

import apsw

from client import mailbox
from client.device import Device
from client.schema import DEVICE_SCHEMA
from crypto import archive, content, labels, merkle, schedule
from crypto.fingerprint import agency_fingerprint, fingerprint, link_code, safety_number
from crypto.keyfile import open_key
from crypto.recovery import backup_key
from crypto.sealing import prekey_id
from node.ledger import CandidateLedger
from node.schema import SCHEMA
from protocol import codec, epoch, identity, keygrant, name
from protocol.backup import LENGTH_BYTES, length_of, open_part
from protocol.chat import Chat
from protocol.entry import (
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Reference,
    check_payload,
    check_signature,
    decode_header,
    entry_id,
    header_before_commitment,
)
from protocol.fork import _verify_cover, verify_fork
from protocol.identity import AgencyId, UserId, verify_charter
from protocol.invitation import decode_invitation
from protocol.membership import Void, content_void, resolve, void_reason
from protocol.message import decode_message
from protocol.operation import EpochOperation, Kind, kind_of
from protocol.payload import decode_operation, encode_operation
from protocol.receipt import verify_receipt
from protocol.redaction import Redactions, allows, custodians, retention
from protocol.run import Context, Entry, unpack
from tests.vector_admission import check_admission
from tests.vector_archive import check_archive
from tests.vector_inputs import Inputs, as_items, as_number, as_place, as_raw, as_reference
from tests.vector_peers import (
    check_answer,
    check_blob,
    check_directory,
    check_frame,
    check_question,
    check_reconciliation,
    check_rings,
)
from tests.vectors import Value

# The log


def check_encoding(case: Inputs) -> Value:
    raw = case.raw("raw")
    found = plain(codec.decode(raw, case.number("max")))
    assert codec.encode(found) == raw
    return found


def plain(items: tuple[object, ...]) -> list[codec.Value]:
    found: list[codec.Value] = []
    for item in items:
        if isinstance(item, tuple):
            found.append(plain(item))
        elif item is None or isinstance(item, (int, bytes)):
            found.append(item)
    return found


def check_entry(case: Inputs) -> Value:
    raw = case.raw("header")
    header = decode_header(raw)
    entry = entry_id(raw)
    check_signature(header.device, entry, case.raw("signature"))
    check_payload(header, case.raw("payload"))
    pre = header_before_commitment(header) if isinstance(header, ContentHeader) else None
    return {"id": entry, "lane": header.lane, "seq": header.seq, "pre": pre}


def check_cover(case: Inputs) -> Value:
    _, entry = _verify_cover((tuple(case.raws("headers")), case.raw("signature")))
    return {"id": entry}


def check_fork(case: Inputs) -> Value:
    fork = verify_fork(case.raw("proof"))
    return {
        "chat": fork.chat,
        "device": fork.device,
        "lane": fork.lane,
        "seq": fork.seq,
        "ids": list(fork.ids),
    }


def unpacked(case: Inputs) -> list[Entry]:
    prev = case.maybe("prev")
    context = None
    if case._case["context"] is not None:
        time, control, named, generation = case.items("context")
        heads = tuple(as_reference(one) for one in as_items(control))
        context = Context(as_number(time), heads, as_raw(named), as_number(generation))
    signatures = {
        as_number(index): as_raw(signature)
        for index, signature in (as_items(one) for one in case.items("signatures"))
    }
    return unpack(
        ChatId(case.raw("chat")),
        DeviceKey(case.raw("device")),
        case.number("lane"),
        case.number("start"),
        None if prev is None else EntryId(prev),
        context,
        case.raws("records"),
        signatures,
    )


def check_run(case: Inputs) -> Value:
    entries = unpacked(case)
    return {
        "ids": [one.id for one in entries],
        "signed": [at for at, one in enumerate(entries) if one.signature is not None],
    }


# Chats


def check_operation(case: Inputs) -> Value:
    payload = case.raw("payload")
    operation = decode_operation(case.number("kind"), payload, ChatId(case.raw("chat")))
    assert encode_operation(operation) == payload
    return {"operation": Kind(kind_of(operation)).name.lower()}


def check_membership(case: Inputs) -> Value:
    """A worked case is the function of SPEC 3.3 alone; an invalid one is about admission too."""
    chat = Chat(ChatId(case.raw("chat")))
    for one in case.each("entries"):
        entry = told(one)
        header, payload = entry.header, entry.payload
        assert isinstance(header, ControlHeader)
        assert payload is not None
        if "result" in case._case:
            chat.restore(header, entry.id, payload)
            continue
        found = chat.admit([entry], CandidateLedger(chat.history, {}, ()))
        if found.refusal is not None:
            raise found.refusal
    return amounts(case, chat)


def told(one: Inputs) -> Entry:
    raw, payload, signature = one.raw("header"), one.raw("payload"), one.raw("signature")
    header, entry = decode_header(raw), entry_id(raw)
    assert entry == one.raw("id")
    check_signature(header.device, entry, signature)
    check_payload(header, payload)
    return Entry(header, entry, b"", payload, signature)


def amounts(case: Inputs, chat: Chat) -> Value:
    now = resolve(chat.history)
    result: dict[str, Value] = {
        "roles": {user.hex(): int(member.role) for user, member in sorted(now.users.items())},
        "void": {entry.hex(): reason.name for entry, reason in sorted(voids(chat).items())},
        "content": [content_reason(chat, one) for one in case.each("content")],
    }
    if "policy" in Inputs(case._case["result"])._case:
        policy = now.policy
        result["policy"] = [list(policy.zones), policy.retention, int(policy.history)]
    return result


def voids(chat: Chat) -> dict[EntryId, Void]:
    reasons = {one.id: void_reason(chat.history, one.id) for one in chat.history.entries}
    return {entry: reason for entry, reason in reasons.items() if reason is not None}


def content_reason(chat: Chat, one: Inputs) -> str | None:
    past = chat.history.past([EntryId(head) for head in one.raws("control")])
    device = DeviceKey(one.raw("device"))
    reason = content_void(chat.history, device, one.number("seq"), past)
    return None if reason is None else reason.name


def check_redactions(case: Inputs) -> Value:
    chat = Chat(ChatId(case.raw("chat")))
    for one in case.each("entries"):
        entry = told(one)
        assert isinstance(entry.header, ControlHeader)
        assert entry.payload is not None
        chat.restore(entry.header, entry.id, entry.payload)
    history = chat.history
    target = as_reference(case.items("target"))
    aged = retention(history)
    redacted = Redactions(history).of()
    grounds = Inputs(case._case["grounds"])
    return {
        "redacted": [[list(p), redacted[p].ground.id] for p in sorted(redacted)],
        "retention": 0 if aged is None else aged.seconds,
        "custodians": sorted(custodians(history)),
        "allowed": {
            what: allows(history, as_reference(grounds.items(what)), target)
            for what in grounds._case
        },
    }


def check_schedule(case: Inputs) -> Value:
    match case.plain("do"):
        case "hash":
            key = case.raw("key")
            return {
                "digest": labels.digest("entry", b"a", b"b"),
                "mac": labels.mac(key, "pc", b"a"),
            }
        case "expand":
            secret, label = case.raw("secret"), case.text("label")
            out = labels.expand_with_label(
                secret, label, case.raw("context"), case.number("length")
            )
            return {"out": out}
        case "tree":
            leaves = case.raws("leaves")
            paths = merkle.paths(leaves) if leaves else []
            root = merkle.root(leaves)
            for index, path in enumerate(paths):
                assert merkle.check(root, leaves[index], index, len(leaves), path)
            return {"root": root, "paths": paths}
        case "bundle":
            opened = archive.open_bundle(case.raw("private"), case.raw("info"), case.raw("bundle"))
            return {"plaintext": opened}
        case _:
            return check_epoch(case)


def check_epoch(case: Inputs) -> Value:
    place = as_place(case.items("place"))
    operation = decode_operation(Kind.EPOCH, case.raw("payload"), place.chat)
    assert isinstance(operation, EpochOperation)
    if case.plain("do") == "seal":
        device, private = DeviceKey(case.raw("device")), case.raw("private")
        listed = [DeviceKey(one) for one in case.raws("recipients")]
        seal, path = case.raw("seal"), case.raws("path")
        return {"secret": epoch.open_seal(place, operation, listed, device, private, seal, path)}
    secret, ectx = case.raw("secret"), epoch.context(place, operation)
    shared = schedule.epoch_secret(case.raw("epoch"), secret)
    chains, seeds = [schedule.sender_chain(shared, case.raw("device"))], []
    for _ in range(3):
        seed, following = schedule.advance(chains[-1])
        seeds.append(seed)
        chains.append(following)
    return {
        "recipients_root": epoch.recipients_root(map(DeviceKey, case.raws("recipients"))),
        "ectx": ectx,
        "commit": schedule.commitment(secret, ectx),
        "es": shared,
        "chains": chains,
        "seeds": seeds,
    }


def check_content(case: Inputs) -> Value:
    seed, pre, pc = case.raw("seed"), case.raw("pre"), case.raw("pc")
    ciphertext = case.raw("ciphertext")
    kf, m = content.open_content(seed, pre, pc, ciphertext)
    assert content.seal_content(seed, pre, kf, m) == (pc, ciphertext)
    assert content.franking_commitment(kf, pre, m) == pc
    return {"kf": kf, "m": m, "padded": len(ciphertext) - 48}


def check_message(case: Inputs) -> Value:
    return {"kind": type(decode_message(case.raw("m"))).__name__.lower()}


def check_order(case: Inputs) -> Value:
    """Place entries in a mailbox, parents first, otherwise backwards; read it in its order."""
    device = object.__new__(Device)
    device.connection = apsw.Connection(":memory:")
    device.connection.execute(SCHEMA + DEVICE_SCHEMA)
    chat = ChatId(bytes(32))
    depths: dict[str, int] = {}
    gone = mailbox._Opened(mailbox.State.GONE)
    waiting = case.each("entries")[::-1]
    while waiting:
        for one in list(waiting):
            entry = graph_entry(one)
            depth = mailbox._depth(device, entry)
            if depth is not None:
                mailbox._insert(device, chat, entry, depth, gone)
                depths[one.text("name")] = depth
                waiting.remove(one)
    names = {one.raw("id"): one.text("name") for one in case.each("entries")}
    shown = [names[bytes(one.reference.id)] for one in mailbox.letters(device, chat, 100)]
    device.connection.close()
    return {"depths": [depths[one.text("name")] for one in case.each("entries")], "order": shown}


def graph_entry(one: Inputs) -> Entry:
    author = DeviceKey(one.raw("id"))
    links = tuple(
        Reference(DeviceKey(parent), 0, EntryId(parent)) for parent in sorted(one.raws("parents"))
    )
    header = ContentHeader(
        chat=ChatId(bytes(32)),
        device=author,
        seq=0,
        prev=None,
        links=links,
        control=(),
        time=one.number("time"),
        epoch=EntryId(bytes(32)),
        generation=0,
        pc=bytes(32),
        payload_size=0,
        payload_hash=bytes(32),
    )
    return Entry(header, EntryId(author), b"", None, None)


# People


def check_name(case: Inputs) -> Value:
    text = case.text("text")
    match case.plain("what"):
        case "name":
            return name.check_name(text)
        case "address":
            return name.parse_address(text).text
        case "zone":
            return name.check_zone(text)
        case "endpoint":
            return list(name.split_endpoint(text))
        case "inside":
            return int(name.inside(text, case.text("allowed")))
        case _:
            return name.skeleton(text)


def check_identity(case: Inputs) -> Value:
    match case.plain("what"):
        case "credential":
            raws = case.raws("devices")
            user = identity.verify_credential(case.raw("charter"), case.raw("user"), raws)
            return {"name": user.name, "zone": user.zone, "devices": list(user.devices)}
        case "revocation":
            identity.verify_revocation(
                UserId(case.raw("user")),
                AgencyId(case.raw("agency")),
                DeviceKey(case.raw("device")),
                case.raw("signature"),
            )
            return None
        case "receipt":
            said = verify_receipt(case.raw("raw"))
            return {"node": said.node, "entry": said.entry, "ground": said.ground}
        case what:
            return check_record(what, case.raw("raw"), verify_charter(case.raw("charter")))


def check_record(what: str, raw: bytes, charter: identity.Charter) -> Value:
    match what:
        case "charter":
            found = verify_charter(raw)
            return {"agency": found.agency, "name": found.name, "zone": found.zone}
        case "card":
            card = identity.verify_card(raw)
            nodes = [node.node for node in card.nodes]
            return {"agency": card.charter.agency, "nodes": nodes, "issued": card.issued}
        case "user":
            user = identity.verify_user(raw, charter)
            return {"user": user.user, "name": user.name}
        case "device":
            device = identity.verify_device(raw, charter)
            return {"user": device.user, "device": device.device, "label": device.label}
        case "link":
            link = identity.read_link(raw)
            return {"user": link.user, "device": link.device}
        case _:
            prekey = identity.verify_prekey(raw)
            return {"device": prekey.device, "id": prekey.id}


def check_key(case: Inputs) -> Value:
    match case.plain("what"):
        case "keyfile":
            passphrase = case.raw("passphrase")
            return open_key(case.text("text"), passphrase, case.plain("purpose"))
        case "fingerprint":
            return fingerprint(case.raw("key"))
        case "agency fingerprint":
            return agency_fingerprint(case.raw("root"), case.raw("archive"))
        case "link code":
            return link_code(case.raw("ticket"), case.raw("request"))
        case _:
            (one, named), (other, called) = case.items("a"), case.items("b")
            assert isinstance(named, str)
            assert isinstance(called, str)
            return safety_number(as_raw(one), named, as_raw(other), called)


def check_grant(case: Inputs) -> Value:
    found = keygrant.read(case.raw("parcel"))
    if isinstance(found, keygrant.Asked):
        return {"epochs": list(found.epochs)}
    chains = keygrant.open_grant(found, case.raw("private"))
    return {
        "chat": found.chat,
        "epoch": found.epoch,
        "from": found.sender,
        "to": found.receiver,
        "prekey": found.prekey,
        "chains": [[device, one.generation, one.chain] for device, one in chains.items()],
    }


def check_backup(case: Inputs) -> Value:
    own, place, bodies = backup_key(case.raw("seed")), None, list[Value]()
    for part in case.raws("parts"):
        length_of(part[:LENGTH_BYTES])
        opened = open_part(own, place, part)
        bodies.append(opened.body)
        place = opened.place.after(part)
    return {"key": prekey_id(own.public), "bodies": bodies}


def check_invitation(case: Inputs) -> Value:
    found = decode_invitation(case.text("text"))
    return {
        "agency": found.card.charter.agency,
        "ticket": found.ticket,
        "purpose": int(found.purpose),
        "name": found.name,
        "expires": found.expires,
    }


CHECKS: Final[Mapping[str, Callable[[Inputs], Value]]] = {
    "encoding": check_encoding,
    "entries": check_entry,
    "covers": check_cover,
    "forks": check_fork,
    "runs": check_run,
    "operations": check_operation,
    "membership": check_membership,
    "admission": check_admission,
    "redactions": check_redactions,
    "schedule": check_schedule,
    "content": check_content,
    "messages": check_message,
    "order": check_order,
    "names": check_name,
    "identity": check_identity,
    "keys": check_key,
    "archives": check_archive,
    "backups": check_backup,
    "grants": check_grant,
    "blobs": check_blob,
    "invitations": check_invitation,
    "frames": check_frame,
    "reconciliations": check_reconciliation,
    "rings": check_rings,
    "questions": check_question,
    "answers": check_answer,
    "directories": check_directory,
}
