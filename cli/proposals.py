"""`ivor chat proposals`, `approve`: what several owners decide together."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.bridges import once_decided
from cli.opening import Home, change, confirmed, fetch, locate, now_ms, opened
from cli.options import Json, PassphraseFile
from cli.output import Output, note
from cli.writing import ChatName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.device import Device
    from client.motions import Asked
    from protocol.chat import Chat
    from protocol.entry import ChatId, Reference
    from protocol.identity import UserId

ProposalId = Annotated[
    str, typer.Argument(help="The proposal: the beginning of its id.", metavar="ID")
]


def register(chat: typer.Typer) -> None:
    """Add these commands to `ivor chat`."""
    chat.command("proposals")(list_proposals)
    chat.command("approve")(approve)


def list_proposals(
    name: ChatName,
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """List what the owners are asked to decide, and who has signed."""
    from client.compose import require
    from client.motions import motions

    with opened(home, passphrase_file) as device:
        judge = locate(device, name)
        problem = fetch(device)
        if problem is not None:
            note(f"what is here; {problem}")
        fresh = require(device, judge.id)
        records = [_record(fresh, one) for one in motions(device, fresh)]
    columns = {"short": "ID", "by": "BY", "changes": "CHANGE", "state": "STATE"}
    Output(as_json).rows(records, columns | {"signed": "SIGNED BY", "needed": "OWNERS NEEDED"})


def _record(chat: "Chat", asked: "Asked") -> dict[str, object]:
    return {
        "type": "proposal",
        "chat": chat.id.hex(),
        "id": asked.place.id.hex(),
        "short": asked.place.id.hex()[:8],
        "by": _name(asked, asked.author),
        "changes": asked.words,
        "state": asked.stand.value,
        "signed": [_name(asked, user) for user in (asked.author, *sorted(asked.signed))],
        "agreed": asked.agreed,
        "needed": asked.needed,
    }


def _name(asked: "Asked", user: "UserId | None") -> str:
    member = None if user is None else asked.membership.users.get(user)
    return "nobody in the chat" if member is None else member.name


def approve(
    name: ChatName,
    proposal_id: ProposalId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Sign, as an owner, what another owner proposes; it is shown in words first."""
    from client.compose import require
    from client.deciding import approve as sign
    from client.deciding import find_proposal
    from node.errors import RefusedError

    with opened(home, passphrase_file) as device:
        judge = locate(device, name)
        fetch(device)
        fresh = require(device, judge.id)
        asked = find_proposal(device, fresh, proposal_id)
        shown = _record(fresh, asked)
        note(f"{shown['by']} proposes, in the chat {fresh.id.hex()[:8]}:")
        for line in shown["changes"] if isinstance(shown["changes"], list) else ():
            note(f"  {line}")
        for line in once_decided(device, fresh, asked):
            note(line)
        if not confirmed("Sign this, as an owner?", yes=yes):
            raise RefusedError("nothing was signed")

        def consent(users: "Sequence[UserId]") -> None:
            del users
            now = require(device, judge.id)
            again = find_proposal(device, now, asked.place.id.hex())
            sign(device, now, again, now_ms())

        made = change(device, [], consent)
        made.warn()
        after = require(device, judge.id)
        record = _record(after, find_proposal(device, after, asked.place.id.hex()))
        state = "stored" if made.problem is None else "queued"
        Output(as_json).facts(record | {"delivery": state, "problem": made.problem})


def proposed(device: "Device", chat: "ChatId", asked: "Reference | None") -> dict[str, object]:
    """Return what to add to the record of a change that the other owners have to sign first."""
    if asked is None:
        return {}
    from client.compose import require
    from client.deciding import find_proposal

    found = find_proposal(device, require(device, chat), asked.id.hex())
    short = asked.id.hex()[:8]
    note(
        f"{found.needed} of {len(found.owners)} owners have to sign this; each of the others runs: "
        f"'ivor chat approve {chat.hex()[:8]} {short}'"
    )
    return {
        "change": "proposed",
        "proposal": asked.id.hex(),
        "agreed": found.agreed,
        "needed": found.needed,
    }
