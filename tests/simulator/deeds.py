"""What each deed of a script does once its turn has come; what nobody can do then is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from msgspec import convert

from client import compose, keeping, sharing
from client.deciding import approve, find_proposal
from client.motions import Stand, motions, owners
from node.errors import UserError
from protocol.chat import Chat
from protocol.entry import ChatId, Reference
from protocol.identity import UserId
from protocol.message import Text
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.simulator.checks import CANARY
from tests.simulator.devices import DeviceParty, LastWords
from tests.simulator.hostile import mischief
from tests.simulator.inquiries import Command, Search, about
from tests.simulator.own_deeds import AGAIN_SECONDS, give_up, recover, second
from tests.simulator.parties import Party
from tests.simulator.script import Act, Deed
from tests.simulator.stage import Stage

Thing = TypeVar("Thing")
BURST_MAX = 12
SHARED_MAX = 20
DOWN_SECONDS = (0.1, 25.0)
PARTED_SECONDS = (2.0, 60.0)
FULL_SECONDS = (1.0, 20.0)
DAY = 86400.0
JUMPS_SECONDS = (
    -3650 * DAY,
    -3600.0,
    60.0,
    2 * DAY,
    2 * DAY,
    8 * DAY,
    15 * DAY,
    3650 * DAY,
)
RETENTIONS = (0, 5, 86_400, 86_400)  # seconds
ZONES: Sequence[tuple[str, ...]] = (("RU",), ("RU-UDM",), ("RU-MOW", "RU-UDM"))
KINDS = (*4 * (ChatKind.GROUP,), ChatKind.DIRECT, *2 * (ChatKind.CHANNEL,))
ROLES = (Role.READER, Role.MEMBER, Role.MEMBER, Role.ADMIN, Role.ADMIN, Role.OWNER)


def do(stage: Stage, act: Act) -> None:
    """Do what an act says."""
    devices = [one for one in stage.devices if one.up]
    if act.deed in IN_A_CHAT:
        devices = [one for one in devices if one.replica.store.chats()]
    if devices:
        DEEDS[act.deed](stage, _pick(devices, act.who), act)


def _pick(things: Sequence[Thing], number: int) -> Thing:
    return things[number % len(things)]


def _part_of(number: int) -> float:
    return number % 1000 / 1000


def _between(bounds: tuple[float, float], number: int) -> float:
    low, high = bounds
    return low + (high - low) * _part_of(number)


def _chat(device: DeviceParty, number: int) -> ChatId | None:
    chats = device.replica.store.chats() if device.up else []
    return _pick(chats, number) if chats else None


def _judges(device: DeviceParty) -> Iterator[Chat]:
    """Return the chats that a device is in, as any process of it sees them that looks now."""
    device.device.refresh()
    return device.device.chats() if device.up else iter(())


def _text(act: Act, number: int = 0) -> Text:
    return Text(f"{CANARY.decode()} {act.at} {number}", None)


def _found(stage: Stage, device: DeviceParty, act: Act) -> None:
    users = sorted({bytes(one.user) for one in stage.devices} - {bytes(device.user)})
    count = 1 + act.draw % min(6, len(users))
    chosen = sorted({_pick(users, act.other * (n + 1)) for n in range(count)})
    members = [(_user(stage, user), _pick(ROLES, act.draw + n)) for n, user in enumerate(chosen)]
    history = HistoryRule.SHARED if act.draw % 4 == 0 else HistoryRule.FROM_JOIN
    policy = Policy(_pick(ZONES, act.draw // 7), 0, history)
    kind = _pick(KINDS, act.draw // 11)
    if kind is ChatKind.DIRECT:
        members = [(members[0][0], Role.OWNER)]

    def work() -> None:
        device.act(
            "founds",
            lambda: compose.new_chat(
                device.device, kind, "canary title", policy, members, device.wall
            ),
        )

    _about(stage, device, chosen, work)


def _about(
    stage: Stage, device: DeviceParty, users: Sequence[bytes], work: Callable[[], object]
) -> None:
    """Do something about users, once they are known here: somebody tries until they are."""
    names = [_device(stage, user).device.profile.name for user in users]

    def later() -> None:
        if not (device.given_up or stage.healed):
            stage.clock.after(AGAIN_SECONDS, partial(_about, stage, device, users, work))

    about(device, names, work, later, _way(stage, device))


def _way(stage: Stage, device: DeviceParty) -> type[Search]:
    meets = stage.clock.stream("meets", device.name).random() < stage.script.meets
    return Command if meets else Search


def _do(stage: Stage, device: DeviceParty, what: str, work: Callable[[], object]) -> None:
    """Do something in a chat: at once, or after the node was met, as a command without names."""
    write = partial(device.act, what, work)
    if _way(stage, device) is Command:
        about(device, (), write, write, Command)
    else:
        write()


def _device(stage: Stage, user: bytes) -> DeviceParty:
    return next(one for one in stage.devices if bytes(one.user) == user)


def _user(stage: Stage, user: bytes) -> UserId:
    return _device(stage, user).user


def _say(stage: Stage, device: DeviceParty, act: Act) -> None:
    _say_many(stage, device, act, 1)


def _burst(stage: Stage, device: DeviceParty, act: Act) -> None:
    _say_many(stage, device, act, 2 + act.draw % BURST_MAX)


def _say_many(stage: Stage, device: DeviceParty, act: Act, count: int) -> None:
    chat = _chat(device, act.other)
    if chat is None:
        return
    for number in range(count):
        _do(stage, device, "says", partial(_send, device, chat, _text(act, number)))


def _send(device: DeviceParty, chat: ChatId, text: Text) -> None:
    compose.send(device.device, chat, text, device.wall, None)


def say_last_words(device: DeviceParty) -> None:
    """Say something in every chat, once the world is at rest: whoever is in is to read it."""
    for chat in device.replica.store.chats():
        device.act("says at last", partial(_say_last, device, chat))


def _say_last(device: DeviceParty, chat: ChatId) -> None:
    text = Text(f"{CANARY.decode()} at last", None)
    said = compose.send(device.device, chat, text, device.wall, None)
    members = compose.require(device.device, chat).membership().devices
    device.last_words[chat] = LastWords(said.id, frozenset(members))


def _member(device: DeviceParty, chat: ChatId, number: int) -> UserId:
    users = compose.require(device.device, chat).membership().users
    if not users:
        raise UserError("nobody is in the chat any more")
    return _pick(sorted(users), number)


def _add(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        user = _pick(stage.devices, act.draw).user
        granted = [(user, _pick(ROLES, act.draw // 3))]

        def work() -> None:
            device.act(
                "adds", lambda: compose.add_members(device.device, chat, granted, device.wall)
            )

        _about(stage, device, [user], work)


def _remove(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        _do(
            stage,
            device,
            "removes",
            lambda: compose.remove_member(
                device.device, chat, _member(device, chat, act.draw), device.wall
            ),
        )


def _role(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        role = _pick(ROLES, act.draw // 5)
        _do(
            stage,
            device,
            "gives a role",
            lambda: compose.set_role(
                device.device, chat, _member(device, chat, act.draw), role, device.wall
            ),
        )


def _duel(stage: Stage, device: DeviceParty, act: Act) -> None:
    _against_each_other(
        stage,
        device,
        act,
        lambda one, chat, user: compose.remove_member(one.device, chat, user, one.wall),
    )


def _demote(stage: Stage, device: DeviceParty, act: Act) -> None:
    _against_each_other(
        stage,
        device,
        act,
        lambda one, chat, user: compose.set_role(one.device, chat, user, Role.READER, one.wall),
    )


def _against_each_other(
    stage: Stage,
    device: DeviceParty,
    act: Act,
    blow: Callable[[DeviceParty, ChatId, UserId], object],
) -> None:
    """Two who share a chat, at one moment."""
    chat = _chat(device, act.other)
    rivals = [
        one
        for one in stage.devices
        if one.up and chat in one.replica.store.chats() and one.user != device.user
    ]
    if chat is None or not rivals:
        return
    rival = _pick(rivals, act.draw)
    device.act("strikes", lambda: blow(device, chat, rival.user))
    rival.act("strikes", lambda: blow(rival, chat, device.user))


def _propose(stage: Stage, device: DeviceParty, act: Act) -> None:
    """One of several owners would have another, or one less."""
    del device
    ruled = [
        (one, judge.id)
        for one in stage.devices
        for judge in _judges(one)
        if one.user in owners(judge) and len(owners(judge)) > 1
    ]
    if ruled:
        one, chat = _pick(ruled, act.other)
        role = Role.OWNER if act.draw % 2 else Role.MEMBER
        _do(stage, one, "proposes", partial(_would_have, one, chat, role, act.draw // 2))


def _would_have(device: DeviceParty, chat: ChatId, role: Role, number: int) -> None:
    """Ask for an owner more, or for one less."""
    members = compose.require(device.device, chat).membership().users
    others = [
        user
        for user, member in sorted(members.items())
        if (member.role is Role.OWNER) == (role is not Role.OWNER) and user != device.user
    ]
    if not others:
        raise UserError("nobody's role can be changed so")
    compose.set_role(device.device, chat, _pick(others, number), role, device.wall)


def _consent(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Some owner signs what another proposes."""
    del device
    asked = [
        (one, judge.id, motion.place)
        for one in stage.devices
        for judge in _judges(one)
        for motion in motions(one.device, judge)
        if motion.stand is Stand.OPEN and one.user in motion.owners - {motion.author}
    ]
    if asked:
        one, chat, place = _pick(asked, act.draw)
        _do(stage, one, "consents", partial(_approve, one, chat, place))


def _approve(device: DeviceParty, chat: ChatId, place: Reference) -> None:
    judge = compose.require(device.device, chat)
    found = find_proposal(device.device, judge, place.id.hex())
    approve(device.device, judge, found, device.wall)


def _leave(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        _do(stage, device, "leaves", lambda: compose.leave(device.device, chat, device.wall))


def _redact(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is None:
        return
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? ORDER BY no", (chat,)
    ).fetchall()
    if rows:
        place = _pick(convert(rows, list[Reference]), act.draw)
        _do(
            stage,
            device,
            "redacts",
            lambda: keeping.redact(device.device, chat, place, "wrong", device.wall),
        )


def _edit(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is None:
        return
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? AND device = ? ORDER BY no",
        (chat, device.key),
    ).fetchall()
    if rows:
        place = _pick(convert(rows, list[Reference]), act.draw)
        text = f"{CANARY.decode()} {act.at} anew"
        _do(
            stage,
            device,
            "edits",
            lambda: compose.edit(device.device, chat, place, text, device.wall),
        )


def _share(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Somebody shares what was said in a chat where that may be done."""
    del device
    shareable = [
        (one, judge.id)
        for one in stage.devices
        for judge in _judges(one)
        if judge.membership().policy.history is HistoryRule.SHARED
        and judge.membership().may_write(one.key)
    ]
    if shareable:
        one, chat = _pick(shareable, act.draw)
        last = 1 + act.other % SHARED_MAX
        _do(stage, one, "shares", lambda: sharing.share(one.device, chat, last, one.wall))


def _policy(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        history = _pick(list(HistoryRule), act.draw)
        policy = Policy(_pick(ZONES, act.draw // 2), _pick(RETENTIONS, act.draw // 6), history)
        _do(
            stage,
            device,
            "sets the policy",
            lambda: keeping.set_policy(device.device, chat, policy, device.wall),
        )


def _hold(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        ends = act.draw % 3 == 0
        _do(
            stage,
            device,
            "ends a hold" if ends else "holds",
            lambda: keeping.hold(
                device.device, chat, _member(device, chat, act.draw), device.wall, ends=ends
            ),
        )


def _age(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    _party(stage, act).age()


def _enrol(stage: Stage, device: DeviceParty, act: Act) -> None:
    """The operator of some agency enrols another user."""
    del device
    stage.enrol(act.draw)


def _dismiss(stage: Stage, device: DeviceParty, act: Act) -> None:
    """The operator revokes a user with all devices, whatever these have yet to send."""
    del act
    for one in stage.devices:
        if one.user == device.user and not one.given_up:
            stage.dismiss(one)


def _come(stage: Stage, device: DeviceParty, act: Act) -> None:
    del act
    device.online = True
    stage.retry(device, device.home)


def _go(stage: Stage, device: DeviceParty, act: Act) -> None:
    del stage, act
    device.online = False
    for line in list(device.lines):
        line.close()


def _visit(stage: Stage, device: DeviceParty, act: Act) -> None:
    del stage, act
    device.visit()


def _party(stage: Stage, act: Act) -> Party:
    return _pick([*stage.nodes.values(), *stage.nodes.values(), *stage.devices], act.other)


def _cut(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    for line in list(_party(stage, act).lines):
        if line.wire is not None:
            line.wire.cut()


def _sides(stage: Stage, act: Act) -> tuple[list[str], list[str]]:
    """Split the nodes, each with its devices now and then, into two sides."""
    names = list(stage.nodes)
    one = [name for at, name in enumerate(names) if act.draw >> at & 1] or names[:1]
    other = [name for name in names if name not in one] or names[-1:]
    if act.draw % 5 == 0:
        devices = [device.name for device in stage.devices]
        return one, devices
    return one, other


def _part(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    one, other = _sides(stage, act)
    stage.part(one, other, _between(PARTED_SECONDS, act.other), both=True)


def _part_one_way(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    one, other = _sides(stage, act)
    stage.part(one, other, _between(PARTED_SECONDS, act.other), both=False)


def _crash(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    stage.crash(_party(stage, act), _between(DOWN_SECONDS, act.draw))


def _disk_full(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    faults = _party(stage, act).disk.faults
    faults.full = True

    def freed() -> None:
        faults.full = False

    stage.clock.after(_between(FULL_SECONDS, act.draw), freed)


def _disk_fails(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    faults = _party(stage, act).disk.faults
    faults.failing = 0.3

    def mended() -> None:
        faults.failing = 0.0

    stage.clock.after(_between(FULL_SECONDS, act.draw), mended)


def _clock(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    party = _party(stage, act)
    party.clock_off += _pick(JUMPS_SECONDS, act.draw)
    party.disturbed = True
    party.note("clock", f"off by {party.clock_off:.0f} s")


def _backup(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    party = _party(stage, act)
    if party.up:
        party.keep_backup()


def _restore(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    kept = [one for one in (*stage.nodes.values(), *stage.devices) if one.backup is not None]
    if kept:
        stage.restore(_pick(kept, act.other))


def _steal(stage: Stage, device: DeviceParty, act: Act) -> None:
    del act
    if device.up:
        device.keep_backup()
        stage.steal(device)


def _thief(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Write with the stolen key, then meet the node."""
    del device
    if not stage.thieves:
        return
    thief = _pick(stage.thieves, act.who)
    _say_many(stage, thief, act, 1 + act.draw % 3)
    stage.clock.after(1.0, lambda: _come(stage, thief, act))


def _mischief(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    if not stage.cheats:
        return
    cheat = _pick(stage.cheats, act.who)
    chat = _chat(cheat, act.other)
    if chat is not None and mischief(cheat, chat, act.draw):
        cheat.note("cheats")


DEEDS: Mapping[Deed, Callable[[Stage, DeviceParty, Act], None]] = {
    Deed.FOUND: _found,
    Deed.SAY: _say,
    Deed.BURST: _burst,
    Deed.ADD: _add,
    Deed.REMOVE: _remove,
    Deed.ROLE: _role,
    Deed.DUEL: _duel,
    Deed.DEMOTE: _demote,
    Deed.PROPOSE: _propose,
    Deed.CONSENT: _consent,
    Deed.LEAVE: _leave,
    Deed.REDACT: _redact,
    Deed.EDIT: _edit,
    Deed.SHARE: _share,
    Deed.POLICY: _policy,
    Deed.HOLD: _hold,
    Deed.AGE: _age,
    Deed.SECOND: second,
    Deed.GIVE_UP: give_up,
    Deed.RECOVER: recover,
    Deed.DISMISS: _dismiss,
    Deed.ENROL: _enrol,
    Deed.COME: _come,
    Deed.GO: _go,
    Deed.VISIT: _visit,
    Deed.CUT: _cut,
    Deed.PART: _part,
    Deed.PART_ONE_WAY: _part_one_way,
    Deed.CRASH: _crash,
    Deed.DISK_FULL: _disk_full,
    Deed.DISK_FAILS: _disk_fails,
    Deed.CLOCK: _clock,
    Deed.BACKUP: _backup,
    Deed.RESTORE: _restore,
    Deed.STEAL: _steal,
    Deed.THIEF: _thief,
    Deed.MISCHIEF: _mischief,
}

IN_A_CHAT = frozenset(DEEDS) & {
    Deed.SAY,
    Deed.BURST,
    Deed.ADD,
    Deed.REMOVE,
    Deed.ROLE,
    Deed.DUEL,
    Deed.DEMOTE,
    Deed.LEAVE,
    Deed.REDACT,
    Deed.EDIT,
    Deed.POLICY,
    Deed.HOLD,
    Deed.SECOND,
    Deed.STEAL,
}
