"""What `ivor chat show` tells of one chat."""

from typing import TYPE_CHECKING

from cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.device import Device
    from protocol.chat import Chat
    from protocol.roster import Member, Membership


def show_chat(device: "Device", judge: "Chat", output: Output) -> None:
    """Print the chat, its members, its forks, wrong seals and what has no effect."""
    from client.chats import summary

    one = summary(device, judge)
    policy = one.membership.policy
    output.facts(
        {
            "type": "chat",
            "chat": judge.id.hex(),
            "title": one.label,
            "kind": one.membership.kind.name.lower(),
            "you": standing(device, judge.membership()),
            "zones": list(policy.zones),
            "retention_seconds": policy.retention or None,
            "history": policy.history.name.lower().replace("_", " "),
            "custodians": _custodians(judge),
            "redacted": len(judge.redactions.of()),
            "agencies": len(one.membership.agencies),
            "members": len(one.membership.users),
            "messages": one.letters,
            "epoch": _epoch(device, judge),
            "control_entries": len(judge.history),
        }
    )
    members = [_member(device, judge, member) for member in _listed(judge)]
    columns = {"name": "MEMBER", "role": "ROLE", "zone": "ZONE", "devices": "DEVICES"}
    rest = {"verified": "VERIFIED", "trusted": "AGENCY TRUSTED", "stored": "AGENCY MAY STORE"}
    output.rows(sorted(members, key=lambda record: str(record["name"])), columns | rest)
    forks = list(_forks(device, judge))
    if forks or output.as_json:
        output.rows(forks, {"type": "", "name": "BY", "lane": "LANE", "seq": "SEQ"})
    grants = list(_bad_grants(device, judge))
    if grants or output.as_json:
        output.rows(grants, {"type": "", "epoch": "EPOCH", "name": "GRANTED WRONG KEYS"})
    nacks = list(_nacks(judge))
    if nacks or output.as_json:
        columns = {"type": "", "epoch": "EPOCH", "against": "SEALED BY", "name": "SAYS"}
        output.rows(nacks, columns | {"why": "WHY"})
    voids = list(_voids(judge))
    if voids or output.as_json:
        output.rows(voids, {"type": "", "id": "ENTRY", "operation": "OPERATION", "why": "WHY"})


def _listed(judge: "Chat") -> "list[Member]":
    """Return the members to list: of a channel, where readers can be thousands, who may write."""
    from protocol.policy import Role

    users = judge.membership().users.values()
    if not judge.history.is_channel:
        return list(users)
    return [member for member in users if member.role > Role.READER]


def _custodians(judge: "Chat") -> list[str]:
    """Return the names of those whose agencies keep what ages."""
    from protocol.redaction import custodians

    users = judge.membership().users
    return sorted(users[user].name for user in custodians(judge.history))


def standing(device: "Device", membership: "Membership") -> str:
    """Say what we are in a chat."""
    member = membership.member_of(device.key)
    return "not a member" if member is None else member.role.name.lower()


def _epoch(device: "Device", judge: "Chat") -> str | None:
    """The epoch that the next message goes into, unless one has to be started."""
    from protocol.epoch import eligible
    from protocol.nack import shunned

    current = device.replica.last_epoch(judge.id, device.key)
    past = judge.history.everything
    unusable = shunned(judge.history, past, device.key)
    found = eligible(judge.history, past, judge.membership(), current, unusable)
    return None if found is None else found.hex()[:16]


def _member(device: "Device", judge: "Chat", member: "Member") -> dict[str, object]:
    from client.federated import trusted
    from client.identities import changed
    from client.people import acquaintance

    known = acquaintance(device, member.name)
    ours = member.user == device.profile.user.user
    same = known is not None and known.user == member.user
    return {
        "type": "member",
        "name": member.name,
        "user": member.user.hex(),
        "role": member.role.name.lower(),
        "zone": member.zone,
        "devices": len(member.devices),
        "verified": ours or (known is not None and same and known.verified),
        "changed": (known is not None and not same) or member.user in changed(device),
        "trusted": trusted(device, member.agency),
        "stored": member.agency in judge.membership().agencies,
    }


def _forks(device: "Device", judge: "Chat") -> "Iterator[dict[str, object]]":
    from protocol.fork import verify_fork

    stored = device.replica.store.chat(judge.id)
    for proof in [] if stored is None else device.replica.sharing.forks(stored):
        fork = verify_fork(proof)
        member = judge.membership().member_of(fork.device)
        yield {
            "type": "fork",
            "device": fork.device.hex(),
            "name": "a device put out" if member is None else member.name,
            "lane": fork.lane,
            "seq": fork.seq,
        }


def _bad_grants(device: "Device", judge: "Chat") -> "Iterator[dict[str, object]]":
    """Who granted us keys of a channel that did not open what they were for."""
    from client.grants import distrusted

    for granter, epoch in distrusted(device, judge.id):
        member = judge.membership().member_of(granter)
        yield {
            "type": "bad grant",
            "epoch": epoch.hex()[:16],
            "device": granter.hex(),
            "name": "a device put out" if member is None else member.name,
        }


def _nacks(judge: "Chat") -> "Iterator[dict[str, object]]":
    """What members say of epochs that were sealed wrongly to them."""
    from client.nacks import told

    for one in told(judge):
        yield {
            "type": "nack",
            "epoch": one.epoch.hex()[:16],
            "against": one.against,
            "against_device": one.against_device.hex(),
            "name": one.by,
            "device": one.by_device.hex(),
            "why": one.why,
        }


def _voids(judge: "Chat") -> "Iterator[dict[str, object]]":
    """Operations that have no effect, with the reason, in the order of their arrival."""
    void = judge.membership().void
    for entry in judge.history.entries:
        why = void.get(entry.id)
        if why is not None:
            yield {
                "type": "void",
                "id": entry.id.hex()[:16],
                "device": entry.device.hex(),
                "operation": type(entry.operation).__name__.lower(),
                "why": why.value,
            }
