"""The invariants of SPEC 11, checked in a world at rest: one function each, its number in its name.

I9, I11, I16 and I17 are checked while the simulation runs (`checks`), and so are parts of I1, I7
and I8. I10, I18, I19 have no place here: nothing is timed, there is one schema, nothing is shown.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from msgspec import convert

from client import grants, mailbox
from client.delivery import unstored
from client.entries import read_entry
from client.motions import motions
from node.replica import Replica
from node.witness import Witness
from protocol.chat import Chat
from protocol.dag import ControlEntry
from protocol.entry import CONTENT, ChatId, ContentHeader, EntryId, Reference
from protocol.epoch import recipients_root
from protocol.history import History
from protocol.listing import verify_split
from protocol.membership import Membership, resolve
from protocol.operation import EpochOperation
from protocol.redaction import custodians
from protocol.testing.network import Replica as Newcomer
from tests.protocol.oracle import Oracle
from tests.simulator.checks import CANARY
from tests.simulator.devices import DeviceParty
from tests.simulator.own_devices import (
    i3_history_arrives,
    i3_what_was_saved_is_read,
    i13_no_node_lists_who_is_given_up,
    i13_who_is_given_up_is_out,
    i13_who_recovers_is_in,
)
from tests.simulator.parties import NodeParty, Party
from tests.simulator.rest import Rest
from tests.simulator.shown import (
    i3_last_words_are_read,
    i3_nobody_stays_a_stranger,
    i3_what_is_shared_is_read,
    i4_nobody_shows_what_is_redacted,
)
from tests.simulator.stored import stored_runs

ORACLE_ENTRIES_MAX = 24
KEY_TABLES = ("SELECT chain FROM senders", "SELECT private FROM prekeys")


def i1_durability(rest: Rest) -> None:
    """What a node has acknowledged is there."""
    for node in rest.nodes:
        rest.checks.i1_acknowledged_is_there(node)


def i2_convergence(rest: Rest) -> None:
    """Who has accepted the same derives the same."""
    known: dict[tuple[bytes, frozenset[bytes]], tuple[str, object]] = {}
    shown: dict[tuple[bytes, frozenset[bytes]], tuple[str, object]] = {}
    for party in rest.parties:
        for chat in rest.chats(party):
            key = bytes(chat), rest.accepted(party, chat)
            judge = party.replica.chat(chat)
            assert judge is not None
            name, state = known.setdefault(key, (party.name, _plain(judge.membership())))
            rest.require(
                "I2",
                state == _plain(judge.membership()),
                f"{name} and {party.name} have the same entries, and derive other members",
            )
            if isinstance(party, DeviceParty):
                order = _order(party, chat)
                name, seen = shown.setdefault(key, (party.name, order))
                rest.require("I2", seen == order, f"{name} and {party.name} show another order")


def _plain(membership: Membership) -> object:
    """Return a membership as values that compare and print alike in every process."""
    users = sorted(
        (user, int(one.role), bytes(one.agency), sorted(one.devices))
        for user, one in membership.users.items()
    )
    voids = sorted((entry, reason.name) for entry, reason in membership.void.items())
    return users, sorted(membership.agencies), membership.policy, voids


def _order(device: DeviceParty, chat: ChatId) -> list[bytes]:
    return [
        bytes(letter.reference.id) for letter in mailbox.letters(device.device, chat, 1_000_000)
    ]


def i3_delivery(rest: Rest) -> None:
    """Whoever may see a chat has all of it that a living node has."""
    for one, other, chat in rest.pairs:
        if rest.overgrown(one, chat) or rest.overgrown(other, chat):
            continue
        lacking = rest.accepted(one, chat) - rest.accepted(other, chat)
        rest.require(
            "I3", not lacking, f"{other.name} lacks {len(lacking)} entries of {one.name}'s"
        )


def i3_what_is_decided_is_published(rest: Rest) -> None:
    """No proposal waits that enough owners have signed, as its author knows."""
    for device in rest.devices:
        if device.disturbed or device.key in rest.checks.compromised:
            continue
        ready = [
            one
            for judge in device.device.chats()
            for one in motions(device.device, judge)
            if one.ready and one.place.device == device.key
        ]
        rest.require("I3", not ready, f"{device.name} does not publish what is decided")


def i4_immutability(rest: Rest) -> None:
    """The id of what is stored is the hash of its header, for every row."""
    for party in rest.parties:
        for chat in rest.chats(party):
            ids = {bytes(entry.id) for entry in rest.entries(party, chat)}
            rest.require(
                "I4",
                rest.accepted(party, chat) <= ids,
                f"{party.name} stores other bytes than those that were hashed",
            )


def i4_redacted_is_gone(rest: Rest) -> None:
    """Nobody stores the payload of what is redacted by all that they have seen."""
    for party in rest.parties:
        for chat in rest.chats(party):
            judge = party.replica.chat(chat)
            redacted = {} if judge is None else judge.redactions.of()
            kept = [
                entry
                for entry in (rest.entries(party, chat) if redacted else ())
                if entry.payload is not None and entry.reference in redacted
            ]
            rest.require("I4", not kept, f"{party.name} keeps {len(kept)} redacted payloads")


def i4_aged_is_gone(rest: Rest) -> None:
    """Who has dropped what had aged keeps nothing that came before, unless for a custodian."""
    for party in rest.parties:
        at = party.aged_at
        for chat in rest.chats(party) if at is not None else ():
            judge = party.replica.chat(chat)
            seconds = 0 if judge is None else judge.membership().policy.retention
            if at is None or judge is None or not seconds or _keeps(party, judge):
                continue
            rows = party.connection.execute(
                "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
                " JOIN chats ON chats.no = chains.chat WHERE chats.id = ? AND since <= ?",
                (chat, at - seconds * 1000),
            )
            old = {row[0] for row in rows}
            kept = [
                entry
                for entry in (rest.entries(party, chat) if old else ())
                if entry.id in old and entry.payload is not None and entry.header.lane == CONTENT
            ]
            rest.require("I4", not kept, f"{party.name} keeps {len(kept)} payloads that have aged")


def _keeps(party: Party, judge: Chat) -> bool:
    """Whether a custodian keeps what ages, with this node or on this device."""
    users = judge.membership().users
    keeping = [users[user] for user in custodians(judge.history)]
    if isinstance(party, NodeParty):
        return party.agency in {one.agency for one in keeping}
    assert isinstance(party, DeviceParty)
    return any(party.key in one.devices for one in keeping)


def i4_what_is_wanted_arrives(rest: Rest) -> None:
    """A payload that came as gone, and need not be, is here if somebody in the chat has it."""
    for one, other, chat in rest.pairs:
        rows = other.connection.execute(
            "SELECT dropped.id FROM dropped JOIN chats ON no = chat"
            " WHERE chats.id = ? AND wanted = 1",
            (chat,),
        )
        wanted = {row[0] for row in rows}
        there = [
            entry
            for entry in (rest.entries(one, chat) if wanted else ())
            if entry.id in wanted and entry.payload is not None
        ]
        rest.require(
            "I4", not there, f"{other.name} lacks {len(there)} payloads of which {one.name} has all"
        )


def i5_fork_exposure(rest: Rest) -> None:
    """Two entries at one place, with a node and those who share the chat with it: it has the proof.

    A proof goes to readers and from readers only, as entries do. So what a node has seen that was
    removed before anybody else in the chat had heard of it, those do not learn (SPEC 2.5, 6.3).
    """
    for party in rest.nodes:
        for chat in rest.chats(party):
            stored = party.replica.store.chat(chat)
            sharers = [party, *_sharers(rest, party, chat)]
            if stored is None or party.agency not in party.replica.readers_of(chat):
                continue
            for device, lane in sorted(_forked(rest, sharers, chat)):
                found = party.connection.execute(
                    "SELECT 1 FROM forks WHERE chat = ? AND device = ? AND lane = ?",
                    (stored.no, device, lane),
                ).get
                rest.require("I5", bool(found), f"{party.name} has no proof of a fork")


def _sharers(rest: Rest, party: NodeParty, chat: ChatId) -> list[NodeParty]:
    """The other living nodes that are in a chat, by what they and this one have seen."""
    found = [
        one if other is party else other
        for one, other, shared in rest.pairs
        if chat == shared and party in (one, other)
    ]
    return [node for node in found if isinstance(node, NodeParty)]


def _forked(rest: Rest, nodes: Sequence[NodeParty], chat: ChatId) -> set[tuple[bytes, int]]:
    """The chains, by device and lane, of which these nodes have two entries at one place."""
    places: dict[tuple[bytes, int, int], set[EntryId]] = defaultdict(set)
    for node in nodes:
        for entry in rest.entries(node, chat):
            header = entry.header
            places[bytes(header.device), header.lane, header.seq].add(entry.id)
    return {(device, lane) for (device, lane, _), found in places.items() if len(found) > 1}


def i6_i12_i14_authentic_and_admissible_in_any_order(rest: Rest) -> None:
    """A judge that begins with nothing, and has no clock, admits just what was accepted.

    Every entry is verified by its covers again, and comes in another order than it came in. It may
    admit more of what is here as a cover only: what that waited for came later, and it is judged
    when somebody brings it again (SPEC 2.4, 6.3).
    """
    for party in rest.parties:
        for chat in rest.chats(party):
            newcomer = Newcomer(party.name)
            runs = list(stored_runs(party.replica, chat))
            rest.chance.shuffle(runs)
            newcomer.take(*runs)
            summary = newcomer.summary().get(chat, (frozenset(), frozenset()))[0]
            admitted, accepted = {bytes(one) for one in summary}, rest.accepted(party, chat)
            rest.require(
                "I6",
                accepted <= admitted <= accepted | _covers(party.replica, chat),
                f"{party.name} accepted what another order of arrival does not admit",
            )
            judge = party.replica.chat(chat)
            assert judge is not None
            same = _plain(judge.membership()) == _plain(newcomer.chats[chat].chat.membership())
            same = same or admitted != accepted
            rest.require("I14", same, f"{party.name}'s members depend on the order of arrival")


def _covers(replica: Replica, chat: ChatId) -> set[bytes]:
    """Return the ids of what is stored behind the heads of a chat's branches."""
    rows = replica.store.connection.execute(
        "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
        " JOIN chats ON chats.no = chat WHERE chats.id = ? AND place & 0xffffffff >= length",
        (chat,),
    )
    return {bytes(row[0]) for row in rows}


def i7_key_locality(rest: Rest) -> None:
    """No node's database holds a text, or a key of an honest device."""
    keys = {
        row[0]
        for device in rest.devices
        for query in KEY_TABLES
        for row in device.connection.execute(query)
    }
    for node in rest.nodes:
        raw = node.connection.serialize("main")
        rest.require("I7", CANARY not in raw, f"{node.name} stores a text")
        rest.require("I7", not any(key in raw for key in keys), f"{node.name} stores a key")


def i8_residency(rest: Rest) -> None:
    """A node stores only chats into which its agency was let."""
    for node in rest.nodes:
        for chat in rest.chats(node):
            allowed = node.agency in rest.checks.allowed[chat]
            rest.require("I8", allowed, f"{node.name} stores a chat that it was never let into")


def i13_membership_safety(rest: Rest) -> None:
    """Members are those of SPEC 3.3 written down a second time; keys go to just them."""
    holders = {chat: node for node in reversed(rest.nodes) for chat in rest.chats(node)}
    for chat, node in holders.items():
        judge = node.replica.chat(chat)
        if judge is None or len(judge.history.entries) > ORACLE_ENTRIES_MAX:
            continue
        oracle = Oracle(judge.history.entries)
        everything = frozenset(range(len(judge.history.entries)))
        same = _plain(oracle.resolve(everything)) == _plain(resolve(judge.history, None))
        rest.require("I13", same, "the membership is not that of SPEC 3.3")
        for entry in judge.history.entries:
            _check_epoch(rest, oracle, judge.history, entry)


def _check_epoch(rest: Rest, oracle: Oracle, history: History, entry: ControlEntry) -> None:
    operation = entry.operation
    if not isinstance(operation, EpochOperation) or history.is_channel:
        return
    parents = [link.id for link in entry.links] + ([entry.prev] if entry.prev else [])
    members = oracle.resolve(oracle.past(parents)).devices.keys()
    sealed = recipients_root(members - set(operation.skipped))
    fits = members >= set(operation.skipped) and operation.recipients_root == sealed
    rest.require("I13", fits, "an epoch is sealed to others than the members")


def i15_read_completeness(rest: Rest) -> None:
    """Walking the pages of heads lists each chain that a peer may see once, up to its end."""
    for node in rest.nodes:
        for peer in sorted({one for c in rest.chats(node) for one in node.replica.readers_of(c)}):
            listed: list[tuple[bytes, bytes, int, int]] = []
            cursor, last = 0, False
            while not last:
                page = node.replica.sharing.heads_since(peer, cursor)
                listed += [(i.chat, h.device, h.lane, h.seq) for i in page.chats for h in i.heads]
                last, cursor = bool(page.last), page.cursor
            expected = node.connection.execute(
                "SELECT id, device, lane, length - 1 FROM chains JOIN chats ON chats.no = chat"
                " WHERE chat IN (SELECT chat FROM readers WHERE peer = ?)",
                (peer,),
            ).fetchall()
            known = {row[0] for row in expected}
            found = sorted(one for one in listed if one[0] in known)
            rest.require("I15", found == sorted(expected), f"{node.name} does not page through all")


def i20_answer(rest: Rest) -> None:
    """What an honest device has, in a chat that it may still see, its node has stored.

    Not what others wrote that the node itself has pushed on, though its disk then failed: that the
    device lists when they next connect, or at an audit (SPEC 6.5). A node that crashed has nothing
    but new connections.
    """
    for device in rest.devices:
        node = device.home
        if device.key in rest.checks.compromised or device.replica.sharing.outrun():
            continue
        judged = rest.checks.judged[node.name]
        pushed_on = {entry for entry, author in judged.items() if author != device.key}
        lacking = [
            chat
            for chat in rest.chats(device)
            if device.key in node.replica.readers_of(chat)
            and rest.accepted(device, chat) - rest.accepted(node, chat) - pushed_on
        ]
        rest.require("I20", not lacking, f"{device.name} was never answered")
        told = lacking or unstored_where_seen(device)
        rest.require("I20", not told, f"{device.name} was never told what is stored")


def unstored_where_seen(device: DeviceParty) -> int:
    """Return how many entries a device still waits for, of chats that its node shows to it."""
    if any(
        device.key not in device.home.replica.readers_of(chat)
        for chat in device.replica.store.chats()
    ):
        return 0
    return unstored(device.device)


def i3_seals_arrive(rest: Rest) -> None:
    """No letter waits for a seal that the device's own node has."""
    for device in rest.devices:
        node = device.home.replica
        for chat, header in _sealed(device):
            if device.key in node.readers_of(chat):
                found = node.seals_for(chat, header.epoch, [device.key])
                rest.require("I3", not found, f"{device.name} was not given its seal")


def _sealed(device: DeviceParty) -> Iterator[tuple[ChatId, ContentHeader]]:
    """The letters of a device that wait for a key."""
    rows = device.connection.execute(
        "SELECT chat, device, seq, id FROM mailbox WHERE state = ?", (mailbox.State.SEALED,)
    ).fetchall()
    for chat, place in convert([(row[0], row[1:]) for row in rows], list[tuple[ChatId, Reference]]):
        header = read_entry(device.device, chat, place).header
        if isinstance(header, ContentHeader):
            yield chat, header


def i3_granted_keys_arrive(rest: Rest) -> None:
    """No letter of a channel waits for a key that a living publisher's device has for it."""
    for device in rest.devices:
        for chat, header in _sealed(device):
            granters = [
                one.name for one in rest.devices if _may_grant(rest, one, device, chat, header)
            ]
            rest.require("I3", not granters, f"{device.name} has no key from {granters}")


def _may_grant(
    rest: Rest, granter: DeviceParty, reader: DeviceParty, chat: ChatId, header: ContentHeader
) -> bool:
    """Whether a publisher's device has an entry's key for a reader's, by what both have seen."""
    ours, theirs = granter.replica.chat(chat), reader.replica.chat(chat)
    started = None if theirs is None else theirs.history.epoch(header.epoch)
    if ours is None or theirs is None or started is None:
        return False
    if not theirs.history.is_granted(started, reader.key):
        return False
    if {granter.key, reader.key, header.device} & rest.checks.compromised:
        return False  # what a thief seals may open for nobody, and each blames the other
    asked = theirs.membership().sealed & set(theirs.history.recipients(started))
    known = ours.membership().member_of(reader.key) and ours.membership().may_write(granter.key)
    if granter.key not in asked or not known:
        return False
    way = granter.home.replica.readers_of(chat), reader.home.replica.readers_of(chat)
    ends = {granter.key, reader.home.agency}, {reader.key, granter.home.agency}
    if not all(needed <= set(readers) for needed, readers in zip(ends, way, strict=True)):
        return False
    chains = grants._chains(granter.device, ours, header.epoch, reader.key)
    found = chains.get(header.device)
    return found is not None and found.generation <= header.generation


def i6_generations_follow(rest: Rest) -> None:
    """In a chain that is not forked no generation of an epoch is used twice, and none left out."""
    for party in rest.parties:
        for chat in rest.chats(party):
            chains: dict[bytes, list[ContentHeader]] = defaultdict(list)
            for entry in rest.entries(party, chat):
                if isinstance(entry.header, ContentHeader):
                    chains[entry.header.device].append(entry.header)
            for headers in chains.values():
                headers.sort(key=lambda header: header.seq)
                seqs = [header.seq for header in headers]
                next_of: dict[bytes, int] = {}
                for header in headers if seqs == list(range(len(seqs))) else ():
                    expected = next_of.get(header.epoch, 0)
                    follows = header.generation == expected
                    rest.require("I6", follows, f"{party.name} took generation out of turn")
                    next_of[header.epoch] = expected + 1


def i11_nobody_acknowledges_for_others(rest: Rest) -> None:
    """What a node believes that an agency stores, that one has stored, and may have been shown."""
    for node in rest.nodes:
        rows = node.connection.execute(
            "SELECT agency, id, device, lane, length FROM holdings JOIN chats ON no = chat"
        ).fetchall()
        for agency, chat, device, lane, length in convert(
            rows, list[tuple[bytes, ChatId, bytes, int, int]]
        ):
            stored = rest.checks.ever[agency].get((chat, device, lane), 0)
            known = agency in rest.checks.allowed[chat]
            known = known and (stored >= length or agency in rest.checks.liars)
            rest.require("I11", known, f"{node.name} took an acknowledgement in another's name")


def i16_no_directory_contradicts_itself(rest: Rest) -> None:
    """Nobody has a proof against an honest node that was never brought back from an old backup."""
    steady = {node.agency for node in rest.nodes if not node.disturbed}
    for party in rest.parties:
        accused = {verify_split(raw).agency for raw in Witness(party.connection).proofs()}
        rest.require("I16", not accused & steady, f"{party.name} accuses an honest agency")


COMING: Sequence[Callable[[Rest], None]] = (
    i3_delivery,
    i4_what_is_wanted_arrives,
    i5_fork_exposure,
    i20_answer,
    i3_seals_arrive,
    i3_granted_keys_arrive,
    i3_history_arrives,
    i3_what_was_saved_is_read,
    i3_what_is_shared_is_read,
    i3_nobody_stays_a_stranger,
    i3_last_words_are_read,
    i3_what_is_decided_is_published,
    i13_who_is_given_up_is_out,
    i13_who_recovers_is_in,
    i13_no_node_lists_who_is_given_up,
)
RULES: Sequence[Callable[[Rest], None]] = (
    i1_durability,
    i2_convergence,
    i4_immutability,
    i4_redacted_is_gone,
    i4_aged_is_gone,
    i4_nobody_shows_what_is_redacted,
    i6_i12_i14_authentic_and_admissible_in_any_order,
    i7_key_locality,
    i8_residency,
    i13_membership_safety,
    i15_read_completeness,
    i6_generations_follow,
    i11_nobody_acknowledges_for_others,
    i16_no_directory_contradicts_itself,
    *COMING,
)


def check(rest: Rest) -> None:
    """Check all. Raises Violation."""
    for rule in RULES:
        rule(rest)


def check_what_may_come(rest: Rest) -> None:
    """Check what does not hold yet where something is on its way. Raises Violation."""
    for rule in COMING:
        rule(rest)
