"""`ivor chat …`: begin a chat, look at it, change who is in it."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli import bridges, proposals, sharing
from cli.opening import (
    Home,
    addresses,
    change,
    confirmed,
    locate,
    note_damaged,
    now_ms,
    opened,
)
from cli.options import Json, PassphraseFile
from cli.output import Output, note
from cli.proposals import proposed
from cli.text import when
from cli.writing import ChatName

if TYPE_CHECKING:
    from client.chats import Summary
    from client.device import Device
    from protocol.chat import Chat
    from protocol.entry import ChatId, Reference
    from protocol.identity import UserId

chat = typer.Typer(help="Begin chats, and change who is in them.", no_args_is_help=True)
UserName = Annotated[
    str, typer.Argument(help="Such as boris@mincifry, or the beginning of its key.", metavar="USER")
]
UserNames = Annotated[list[str], typer.Argument(help="Such as boris@mincifry.", metavar="USER…")]

MEMBERS_MAX: Final = 31  # one entry grants 32 users their roles, its author among them
SHORT: Final = 8


class Kind(StrEnum):
    """What a chat can be."""

    GROUP = "group"
    CHANNEL = "channel"
    DIRECT = "direct"


class RoleName(StrEnum):
    """What a member can be."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    proposals.register(chat)
    sharing.register(chat)
    app.add_typer(chat, name="chat", rich_help_panel="Official")


@chat.callback()
def _chat() -> None:
    """Begin chats, and change who is in them."""


@chat.command()
def new(
    title: Annotated[str, typer.Argument(help="What its members see; anything up to 256 bytes.")],
    users: UserNames,
    *,
    kind: Annotated[
        Kind,
        typer.Option(help="In a channel others only read. 'ivor send USER' begins a direct one."),
    ] = Kind.GROUP,
    zones: Annotated[
        str | None,
        typer.Option(help="Zones that may hold it, such as RU-UDM,RU-MOW [its members']."),
    ] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Begin a chat with these users; you own it."""
    from node.errors import LimitReached, UserError

    with opened(home, passphrase_file) as device:
        names = addresses(device, users)
        if len(names) > MEMBERS_MAX:
            raise LimitReached(f"begin with at most {MEMBERS_MAX} users, and add the others")
        if kind is Kind.DIRECT and len(names) != 1:
            raise UserError("a direct chat is with exactly one other user")
        begin = partial(_begin, device, title, kind, zones)
        if kind is Kind.DIRECT:
            begin = partial(_begin_direct, device, names[0], begin)
        made = change(device, names, begin)
        made.warn()
        Output(as_json).facts(
            {
                "chat": made.result.hex(),
                "title": title,
                "kind": str(kind),
                "members": [device.profile.name, *names],
                "state": "stored" if made.problem is None else "queued",
                "problem": made.problem,
            }
        )


def _begin(
    device: "Device", title: str, kind: Kind, zones: str | None, users: "Sequence[UserId]"
) -> "ChatId":
    from client.compose import new_chat
    from client.residency import check_zones, read_zones, zones_of
    from protocol.policy import ChatKind, HistoryRule, Policy, Role

    allowed = zones_of(device, users) if zones is None else read_zones(zones)
    policy = Policy(allowed, 0, HistoryRule.FROM_JOIN)
    check_zones(device, policy, users)
    role = {Kind.GROUP: Role.MEMBER, Kind.CHANNEL: Role.READER, Kind.DIRECT: Role.OWNER}[kind]
    members = [(user, role) for user in users]
    return new_chat(device, ChatKind[kind.name], title, policy, members, now_ms())


def _begin_direct(
    device: "Device",
    name: str,
    begin: "Callable[[Sequence[UserId]], ChatId]",
    users: "Sequence[UserId]",
) -> "ChatId":
    """Begin one unless there is one: of two 'ivor send USER' means that with the smaller id."""
    from client.chats import find_direct
    from node.errors import UserError

    found = find_direct(device, name)
    if found is not None:
        raise UserError(
            f"there is a direct chat with {name} already, {found.id.hex()[:SHORT]}: "
            f"'ivor send {name}' writes into it; for another one leave it, or begin a group"
        )
    return begin(users)


@chat.command("list")
def list_chats(
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """List the chats of this device."""
    with opened(home, passphrase_file) as device:
        from client.chats import summaries

        records = [_summary(device, one) for one in summaries(device)]
        note_damaged(device)
    columns = {"short": "ID", "title": "TITLE", "kind": "KIND", "members": "MEMBERS"}
    rest = {"messages": "MESSAGES", "latest": "LATEST", "standing": "YOU"}
    Output(as_json).rows(records, columns | rest)


def _summary(device: "Device", one: "Summary") -> dict[str, object]:
    from cli.chat_view import standing

    return {
        "chat": one.chat.hex(),
        "short": one.chat.hex()[:SHORT],
        "title": one.label,
        "kind": one.membership.kind.name.lower(),
        "members": len(one.membership.users),
        "messages": one.letters,
        "latest": None if one.latest is None else when(one.latest),
        "standing": standing(device, one.membership),
    }


@chat.command()
def show(
    name: ChatName,
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show a chat: members, roles, agencies, zones, epoch, forks, and what has no effect."""
    from cli.chat_view import show_chat

    with opened(home, passphrase_file) as device:
        show_chat(device, locate(device, name), Output(as_json))


@chat.command()
def add(
    name: ChatName,
    users: UserNames,
    *,
    role: Annotated[RoleName | None, typer.Option(help="[member; in a channel reader]")] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take users in. They read from now on, not what was written before."""
    with opened(home, passphrase_file) as device:
        judge = locate(device, name)
        names = addresses(device, users)
        made = change(device, names, partial(_add, device, judge.id, role))
        record = {"chat": judge.id.hex(), "added": names} | proposed(device, judge.id, made.result)
        made.tell(as_json, record)


def _add(
    device: "Device", chat_id: "ChatId", role: RoleName | None, users: "Sequence[UserId]"
) -> "Reference | None":
    from client import compose
    from client.chats import title_of
    from client.residency import check_zones
    from node.errors import UserError
    from protocol.policy import ChatKind, Role

    judge = compose.require(device, chat_id)
    membership = judge.membership()
    check_zones(device, membership.policy, users)
    usual = Role.READER if membership.kind is ChatKind.CHANNEL else Role.MEMBER
    given = usual if role is None else Role[role.name]
    inside = [membership.users[user] for user in users if user in membership.users]
    if len(inside) == len(users) and all(one.role is given for one in inside):
        names = ", ".join(one.name for one in inside)
        raise UserError(f"in this chat already, as {given.name.lower()}: {names}")
    asked = compose.add_members(device, chat_id, [(user, given) for user in users], now_ms())
    if asked is None:
        compose.repeat_title(device, judge, title_of(device, judge), now_ms())
    return asked


@chat.command()
def remove(
    name: ChatName,
    user: UserName,
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Put a user out. What is written from now on they cannot read."""
    from client import compose
    from protocol.redaction import custodians

    def put_out(device: "Device", judge: "Chat", found: "UserId") -> "Reference | None":
        careful = bridges.without(device, judge, found, user)
        if found in custodians(judge.history):
            note(f"the legal hold on {user} ends with this: their agency keeps nothing more for it")
        asked = compose.remove_member(device, judge.id, found, now_ms())
        if careful is not None:
            note(careful)
        return asked

    _about_member(home, passphrase_file, name, user, put_out, "removed", as_json=as_json)


@chat.command()
def role(
    name: ChatName,
    user: UserName,
    role_name: Annotated[RoleName, typer.Argument(metavar="ROLE")],
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a member another role: reader, member, admin or owner."""
    from client import compose
    from node.errors import UserError
    from protocol.policy import Role

    given = Role[role_name.name]

    def change_role(device: "Device", judge: "Chat", found: "UserId") -> "Reference | None":
        member = judge.membership().users.get(found)
        if member is not None and member.role is given:
            raise UserError(f"{member.name} is {role_name} in this chat already")
        return compose.set_role(device, judge.id, found, given, now_ms())

    _about_member(
        home, passphrase_file, name, user, change_role, f"now {role_name}", as_json=as_json
    )


def _about_member(
    home: Home,
    passphrase_file: PassphraseFile,
    name: str,
    user: str,
    work: "Callable[[Device, Chat, UserId], Reference | None]",
    done: str,
    *,
    as_json: bool,
) -> None:
    """Change something about a member of a chat, whom the chat itself names."""
    with opened(home, passphrase_file) as device:
        from client.chats import find_member
        from client.compose import leavers, require

        judge = locate(device, name)

        def about(users: "Sequence[UserId]") -> "Reference | None":
            del users
            fresh = require(device, judge.id)
            return work(device, fresh, find_member(fresh, user, leavers(fresh)))

        made = change(device, [], about)
        record = {"chat": judge.id.hex(), "user": user, "change": done}
        made.tell(as_json, record | proposed(device, judge.id, made.result))


@chat.command()
def leave(
    name: ChatName,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Leave a chat. Only its members can take you in again."""
    from node.errors import RefusedError

    with opened(home, passphrase_file) as device:
        from client import compose

        judge = locate(device, name)
        careful = bridges.without_us(device, judge)
        if careful is not None:
            note(careful)
        if not confirmed("Leave this chat?", yes=yes):
            raise RefusedError("nothing was done")
        made = change(device, [], lambda _: compose.leave(device, judge.id, now_ms()))
        made.tell(as_json, {"chat": judge.id.hex(), "change": "left"})
