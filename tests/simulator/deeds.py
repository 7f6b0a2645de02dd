"""What each deed of a script does once its turn has come; what nobody can do then is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

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
from tests.simulator.faults import (
    age,
    backup,
    clock,
    crash,
    cut,
    disk_fails,
    disk_full,
    part,
    part_one_way,
    restore,
)
from tests.simulator.hostile import mischief
from tests.simulator.inquiries import Command, Search, about
from tests.simulator.own_deeds import AGAIN_SECONDS, give_up, recover, second
from tests.simulator.script import Act, Deed
from tests.simulator.stage import Stage, pick

BURST_MAX = 12
SHARED_MAX = 20
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
        DEEDS[act.deed](stage, pick(devices, act.who), act)


def _chat(device: DeviceParty, number: int) -> ChatId | None:
    chats = device.replica.store.chats() if device.up else []
    return pick(chats, number) if chats else None


def _judges(device: DeviceParty) -> Iterator[Chat]:
    """Return the chats that a device is in, as any process of it sees them that looks now."""
    device.device.refresh()
    return device.device.chats() if device.up else iter(())


def _text(act: Act, number: int = 0) -> Text:
    return Text(f"{CANARY.decode()} {act.at} {number}", None)


def _found(stage: Stage, device: DeviceParty, act: Act) -> None:
    users = sorted({bytes(one.user) for one in stage.devices} - {bytes(device.user)})
    count = 1 + act.draw % min(6, len(users))
    chosen = sorted({pick(users, act.other * (n + 1)) for n in range(count)})
    members = [(_user(stage, user), pick(ROLES, act.draw + n)) for n, user in enumerate(chosen)]
    history = HistoryRule.SHARED if act.draw % 4 == 0 else HistoryRule.FROM_JOIN
    policy = Policy(pick(ZONES, act.draw // 7), 0, history)
    kind = pick(KINDS, act.draw // 11)
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
    return pick(sorted(users), number)


def _add(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        user = pick(stage.devices, act.draw).user
        granted = [(user, pick(ROLES, act.draw // 3))]

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
        role = pick(ROLES, act.draw // 5)
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
    rival = pick(rivals, act.draw)
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
        one, chat = pick(ruled, act.other)
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
    compose.set_role(device.device, chat, pick(others, number), role, device.wall)


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
        one, chat, place = pick(asked, act.draw)
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
    if chat is not None:
        _redact_one(stage, device, chat, act.draw)


def _redact_one(stage: Stage, device: DeviceParty, chat: ChatId, number: int) -> None:
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? ORDER BY no", (chat,)
    ).fetchall()
    if rows:
        place = pick(convert(rows, list[Reference]), number)
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
        place = pick(convert(rows, list[Reference]), act.draw)
        text = f"{CANARY.decode()} {act.at} anew"
        _do(
            stage,
            device,
            "edits",
            lambda: compose.edit(device.device, chat, place, text, device.wall),
        )


def _share(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Somebody shares what was said in a chat where that may be done.

    Now and then others redact some of it at that moment.
    """
    del device
    shareable = [
        (one, judge.id)
        for one in stage.devices
        for judge in _judges(one)
        if judge.membership().policy.history is HistoryRule.SHARED
        and judge.membership().may_write(one.key)
    ]
    if shareable:
        one, chat = pick(shareable, act.draw)
        last = 1 + act.other % SHARED_MAX
        _do(stage, one, "shares", lambda: sharing.share(one.device, chat, last, one.wall))
        for other in stage.devices if act.draw // len(shareable) % 2 else ():
            if other.up and other.user != one.user and chat in other.replica.store.chats():
                _redact_one(stage, other, chat, act.other)


def _policy(stage: Stage, device: DeviceParty, act: Act) -> None:
    chat = _chat(device, act.other)
    if chat is not None:
        history = pick(list(HistoryRule), act.draw)
        policy = Policy(pick(ZONES, act.draw // 2), pick(RETENTIONS, act.draw // 6), history)
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
    thief = pick(stage.thieves, act.who)
    _say_many(stage, thief, act, 1 + act.draw % 3)
    stage.clock.after(1.0, lambda: _come(stage, thief, act))


def _mischief(stage: Stage, device: DeviceParty, act: Act) -> None:
    del device
    if not stage.cheats:
        return
    cheat = pick(stage.cheats, act.who)
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
    Deed.AGE: age,
    Deed.SECOND: second,
    Deed.GIVE_UP: give_up,
    Deed.RECOVER: recover,
    Deed.DISMISS: _dismiss,
    Deed.ENROL: _enrol,
    Deed.COME: _come,
    Deed.GO: _go,
    Deed.VISIT: _visit,
    Deed.CUT: cut,
    Deed.PART: part,
    Deed.PART_ONE_WAY: part_one_way,
    Deed.CRASH: crash,
    Deed.DISK_FULL: disk_full,
    Deed.DISK_FAILS: disk_fails,
    Deed.CLOCK: clock,
    Deed.BACKUP: backup,
    Deed.RESTORE: restore,
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
