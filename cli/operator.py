"""Commands of the operator of an agency's node: `ivor node …`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.cards import CardFile, card_text
from cli.options import Folder, Json, PassphraseFile
from cli.output import Output, note
from cli.text import when

if TYPE_CHECKING:
    from collections.abc import Callable


node = typer.Typer(help="Run an agency's node, and ask about it.", no_args_is_help=True)
config = typer.Typer(help="The node's settings.", no_args_is_help=True)
node.add_typer(config, name="config")

_MEETS_FIRST = (
    "it enrols and revokes nobody before it has met all whom it trusts: see 'ivor node doctor'"
)


def register(app: typer.Typer) -> None:
    """Add the operator's commands to the program."""
    app.add_typer(node, name="node", rich_help_panel="Operator")


@node.command()
def run(
    folder: Folder,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT; port 0 lets the system choose.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT where Prometheus may ask.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Run the node until SIGTERM or Ctrl-C; prints one line once it is ready."""
    import trio

    from cli.nodes import card_of, settings_of
    from cli.passphrase import read_passphrase
    from node.logs import log_form, open_log
    from node.service import serve

    flags = {"listen": listen, "metrics": metrics, "log_level": log_level}
    loaded = settings_of(folder, flags)
    name = card_of(folder).charter.name
    open_log(sys.stderr, log_form(sys.stderr), loaded.settings.log_level)
    output = Output(as_json)

    def ready(host: str, port: int) -> None:
        endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        output.line(
            f"ready {endpoint} {name}", {"event": "ready", "listen": endpoint, "agency": name}
        )

    trio.run(serve, folder, loaded, read_passphrase(passphrase_file, "the node's keys"), ready)


@node.command()
def card(folder: Folder, as_json: Json = False) -> None:
    """Print the agency's card, to hand to other agencies."""
    from cli.nodes import card_of
    from protocol.armour import armour

    own = card_of(folder)
    text = armour("CARD", own.raw)
    shown = own.charter.fingerprint
    Output(as_json).line(
        text.rstrip("\n"), {"agency": own.charter.name, "fingerprint": shown, "card": text}
    )
    if not as_json:
        note(f"fingerprint of {own.charter.name}: {shown}")


@node.command()
def ca(folder: Folder, as_json: Json = False) -> None:
    """Print the agency's CA certificate, PEM, for those who check signatures without Ivor."""
    import ssl

    from cli.nodes import card_of

    own = card_of(folder)
    text = ssl.DER_cert_to_PEM_cert(own.ca)
    Output(as_json).line(text.rstrip("\n"), {"agency": own.charter.name, "ca": text})


@node.command()
def trust(
    card_file: CardFile,
    folder: Folder,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; for scripts that compared before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Trust another agency, once you have compared the fingerprint with theirs."""
    text = card_text(card_file)
    found = _ask(folder, "examine", {"card": text})
    if not yes:
        _show_card(found)
    _confirm_card(found, yes=yes)
    taken = _ask(folder, "trust", {"card": text, "fingerprint": found["fingerprint"]})
    Output(as_json).facts(_with_times(taken))


@node.command()
def distrust(
    agency: Annotated[str, typer.Argument(help="Its name, as 'ivor node peers' lists it.")],
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Trust an agency no longer: end every connection with it, and begin none."""
    from node.errors import UserError

    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"no terminal to ask on: add --yes to cut {agency} off")
        note("This node will send it nothing and take nothing from it, until you trust it again.")
        if not typer.confirm(f"Trust {agency} no longer?", default=False, err=True):
            raise UserError(f"{agency} is trusted as before")
    done = _ask(folder, "distrust", {"agency": agency})
    Output(as_json).facts(done)
    if done["chats"]:
        note(
            "In these chats it stays, and other agencies may hand on to it what is said there, "
            "until an admin removes its members: 'ivor chat remove'."
        )


def _show_card(found: Mapping[str, object]) -> None:
    note(f"agency       {found['agency']}")
    note(f"zone         {found['zone']}")
    for address in _strings(found["addresses"]):
        note(f"address      {address}")
    note(f"fingerprint  {found['fingerprint']}")
    if found["changes"]:
        note(f"changes      {', '.join(_strings(found['changes']))}")


def _confirm_card(found: Mapping[str, object], *, yes: bool) -> None:
    """Let a person decide. A name that looks like another's is never taken unseen."""
    from node.errors import IdentityError, UserError

    alike = ", ".join(_strings(found["looks_like"]))
    if alike and yes:
        raise IdentityError(
            f"{found['agency']} looks like {alike}, which is trusted already; compare the "
            "fingerprint with the agency's and run it again without --yes"
        )
    if found["standing"] == "same" or yes:
        return
    if not sys.stdin.isatty():
        raise UserError("no terminal to ask on: compare the fingerprint, then add --yes")
    if alike:
        note(f"WARNING: the name looks like {alike}, which is trusted already.")
    note("Call the agency on a number that you know, and compare the fingerprint.")
    if not typer.confirm("Is it the same, and do you trust them?", default=False, err=True):
        raise UserError("the card is not taken")


@node.command()
def invite(
    name: Annotated[str, typer.Argument(help="The user's name, without the agency: anna.")],
    folder: Folder,
    hours: Annotated[
        int | None, typer.Option(help="How long it is good; else as the settings say.")
    ] = None,
    recover: Annotated[
        bool, typer.Option("--recover", help="For a user who lost their device and has the words.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make a one-time invitation for a user's first device."""
    arguments = {"name": name, "hours": hours, "recover": recover}
    made = _ask(folder, "invite", arguments, passphrase_file)
    shown = _with_times(made)
    Output(as_json).line(str(made["invitation"]), shown)
    if not as_json:
        note(f"for {made['user']}, once, until {shown['expires']}; hand it over in secret.")
        note("They run 'ivor join INVITATION'" + (", and type their words" if recover else ""))
        if recover:
            note(f"Then revoke what was lost: 'ivor node revoke {made['user']} DEVICE'")


@node.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; an older one is replaced.")],
    folder: Folder,
    as_json: Json = False,
) -> None:
    """Copy the whole node into one file, while it runs."""
    from cli.nodes import backup as copy

    Output(as_json).facts(_with_times(copy(folder, file.absolute())))
    note("it holds the service key, encrypted as in the folder, and not the root key")


@node.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What 'ivor node backup' has written.")],
    folder: Folder,
    as_json: Json = False,
) -> None:
    """Make a node's folder from a backup; the lost node must never run again."""
    from node.backup import restore as take_back
    from node.operations import backup_record

    kept = take_back(file, folder)
    record = backup_record(kept) | {"folder": str(folder), "withdrawn": kept.withdrawn}
    Output(as_json).facts(_with_times({"v": 1} | record))
    note(
        "peers and devices bring back what was written since; start it: "
        f"'ivor node run --dir {folder}'"
    )
    note(_MEETS_FIRST)
    note("before you enrol or revoke, have your own users run 'ivor sync': they may know more")
    note("did you enrol or revoke since then? Nobody else knows: see 'ivor node users', and repeat")
    note(
        "whom you enrolled stays who they are by 'ivor node invite NAME --recover' and their words"
    )


@node.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show what the node is and holds."""
    Output(as_json).facts(_ask(folder, "status"))


@node.command()
def users(folder: Folder, as_json: Json = False) -> None:
    """List the agency's users, their devices and their certificates for signing."""
    found = _records(_ask(folder, "users"), "users")
    if not as_json:
        for user in found:
            devices = _records(user, "devices")
            user["devices"] = [
                f"{str(device['id'])[:16]} {device['label']}"
                + (" (revoked)" if device["revoked"] else "")
                for device in devices
            ]
            user["certificates"] = [
                f"{str(one['serial'])[:16]} until {_with_times(one)['expires']}"
                + ("" if one["valid"] else " (not valid)")
                for one in _records(user, "certificates")
            ]
    else:
        for user in found:
            user["devices"] = [_with_times(device) for device in _records(user, "devices")]
            user["certificates"] = [_with_times(one) for one in _records(user, "certificates")]
    Output(as_json).rows(
        found, {"name": "USER", "devices": "DEVICES", "certificates": "SIGNING CERTIFICATES"}
    )


@node.command()
def peers(folder: Folder, as_json: Json = False) -> None:
    """List the agencies that are trusted, and how far behind each is."""
    columns = {
        "agency": "AGENCY",
        "zone": "ZONE",
        "connected": "CONNECTED",
        "chats": "CHATS",
        "unconfirmed": "UNCONFIRMED",
        "directory": "DIRECTORY",
        "addresses": "ADDRESSES",
    }
    Output(as_json).rows(_records(_ask(folder, "peers"), "peers"), columns)


@node.command()
def chats(folder: Folder, as_json: Json = False) -> None:
    """List chats: which agencies take part, and how much is stored. Titles are sealed."""
    columns = {
        "short": "CHAT",
        "agencies": "AGENCIES",
        "entries": "ENTRIES",
        "devices": "DEVICES",
        "forks": "FORKS",
        "blob_bytes": "BYTES OF FILES",
    }
    found = _records(_ask(folder, "chats"), "chats")
    shown = [record | {"short": str(record["id"])[:16]} for record in found]
    Output(as_json).rows(found if as_json else shown, columns)


@node.command()
def revoke(
    user: Annotated[str, typer.Argument(help="anna, or anna@minzdrav.")],
    folder: Folder,
    device: Annotated[
        str | None, typer.Argument(help="Beginning of its id, or its label; else all devices.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shut a user's device, or all of them, out of this node."""
    done = _ask(folder, "revoke", {"user": user, "device": device})
    Output(as_json).facts(done)
    note("They can not connect any more. Chats keep them as members until an admin removes them.")


@node.command()
def resume(folder: Folder, as_json: Json = False) -> None:
    """Let a node that was brought back change users, though it cannot meet everybody any more."""
    done = _ask(folder, "resume")
    Output(as_json).facts(done)
    if done["not_met"]:
        note(
            "if they know of later changes, they will take the next one for a lie: then the root "
            "key's holder runs 'ivor agency rekey'"
        )
    else:
        note("there was nobody left to meet: users could be changed before")


@node.command()
def doctor(folder: Folder, as_json: Json = False) -> None:
    """Look for what is wrong or will be: folder, settings, card, database, clock, disk."""
    import time

    from cli.nodes import check_agency
    from node.doctor import examine

    check_agency(folder)
    found = list(examine(folder, time.time()))
    output = Output(as_json)
    columns = {"state": "STATE", "check": "CHECK", "text": "WHAT"}
    output.rows(
        ({"check": one.check, "state": one.state, "text": one.text} for one in found), columns
    )
    wrong = [f"{one.check}: {one.text}" for one in found if one.state == "fail"]
    if wrong:
        raise output.end("; ".join(wrong), 3)


@node.command()
def mend(folder: Folder, as_json: Json = False) -> None:
    """Forget chats whose entries a disk has damaged, so that peers bring them back whole."""
    from cli.nodes import settings_of
    from node.control import FolderLock
    from node.damage import mend as put_right

    settings_of(folder, {})
    with FolderLock(folder):
        mended = put_right(folder)
    kept = None if mended.kept is None else str(mended.kept)
    chats = [chat.hex() for chat in mended.chats]
    Output(as_json).facts({"chats": chats, "entries": mended.entries, "kept": kept})
    if kept is None:
        note("nothing is damaged: every entry is as it was signed")
        return
    note("start the node: its peers and devices bring these chats back; 'ivor node chats' shows it")
    note(_MEETS_FIRST)
    note(f"when they are back, remove {kept}")


@config.command()
def check(folder: Folder, as_json: Json = False) -> None:
    """Check the settings: file and environment."""
    from cli.nodes import settings_of

    settings_of(folder, {})
    Output(as_json).line("ok", {"ok": True})


@config.command()
def explain(folder: Folder, as_json: Json = False) -> None:
    """List every setting, its value, and where that comes from."""
    from cli.nodes import settings_of
    from node import config as settings

    rows = [
        {"name": one.name, "value": one.value, "source": one.source}
        for one in settings.explain(settings_of(folder, {}))
    ]
    Output(as_json).rows(rows, {"name": "SETTING", "value": "VALUE", "source": "FROM"})


def _ask(
    folder: Path,
    command: str,
    arguments: Mapping[str, object] | None = None,
    passphrase_file: Path | None = None,
) -> Mapping[str, object]:
    from cli.nodes import carry_out
    from cli.passphrase import read_passphrase

    passphrase: Callable[[], bytes] = lambda: read_passphrase(  # noqa: E731 - asked only if needed
        passphrase_file, "the node's keys"
    )
    return carry_out(folder, command, arguments or {}, passphrase)


def _records(result: Mapping[str, object], field: str) -> list[dict[str, object]]:
    listed = result[field]
    if not isinstance(listed, list):
        return []
    return [dict(record) for record in listed]


def _with_times(record: Mapping[str, object]) -> dict[str, object]:
    """Write the times of a record, which are milliseconds, as people and scripts read them."""
    return {
        name: when(value)
        if name in {"expires", "issued", "made"} and isinstance(value, int)
        else value
        for name, value in record.items()
    }


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
