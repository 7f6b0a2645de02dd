"""Commands of who holds an agency's root key: `ivor agency …`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.cards import card_facts
from cli.options import Folder, Json, NewPassphraseFile, PassphraseFile
from cli.output import Output, note

if TYPE_CHECKING:
    from crypto.signing import Signer
    from node.config import Value

agency = typer.Typer(help="Make an agency, and sign its card.", no_args_is_help=True)

ANY_HOSTS: Final = ("0.0.0.0:", "[::]:")
ADDRESS_HELP: Final = "Where others reach the node, HOST:PORT; may be given several times."
RootKey = Annotated[
    Path | None,
    typer.Option(help="The root key's file, where you keep it offline  [root.key in --dir]."),
]
RootPassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--root-passphrase-file",
        envvar="IVOR_ROOT_PASSPHRASE_FILE",
        help="Read the root key's passphrase from this file instead of asking.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(agency, name="agency", rich_help_panel="Operator")


@agency.callback()
def _agency() -> None:
    """Make an agency, and sign its card."""


@agency.command()
def create(
    name: Annotated[str, typer.Argument(help="Short name, such as minzdrav.")],
    *,
    zone: Annotated[str, typer.Option(help="Residency zone, such as RU-UDM.")],
    folder: Folder,
    listen: Annotated[
        str | None, typer.Option(help="Where the node listens, HOST:PORT [0.0.0.0:7340].")
    ] = None,
    address: Annotated[list[str] | None, typer.Option(help=ADDRESS_HELP)] = None,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="Allow loopback addresses, for tests.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    root_passphrase_file: RootPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make an agency: root key, CA, registrar and node, in a new folder."""
    import os
    import time

    from cli.passphrase import new_passphrase
    from node.agency import Founding
    from node.agency import create as create_agency

    settings: dict[str, Value] = {}
    if listen is not None:
        settings["listen"] = listen
    if allow_local:
        settings["allow_local"] = True
    endpoints = _endpoints(listen, address or [], allow_local=allow_local)
    made = create_agency(
        folder,
        Founding(name, zone, endpoints, settings),
        new_passphrase(passphrase_file, "the node's keys"),
        new_passphrase(root_passphrase_file, "the root key"),
        time.time(),
        os.urandom,
    )
    Output(as_json).facts(
        {
            "agency": made.card.charter.name,
            "zone": made.card.charter.zone,
            "fingerprint": made.card.charter.fingerprint,
            "folder": str(folder),
            "addresses": list(endpoints),
            "files": sorted(file.name for file in folder.iterdir()),
        }
    )
    _next_steps(folder, endpoints)


@agency.command()
def move(
    address: Annotated[list[str], typer.Option(help=ADDRESS_HELP)],
    folder: Folder,
    root_key: RootKey = None,
    root_passphrase_file: RootPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give the node other addresses: a new card, signed with the root key.

    All that are given stand in it, and no other. Who meets the node takes the new card by itself.
    """
    import time

    from cli.nodes import settings_of
    from node.agency import reissue_card

    settings = settings_of(folder, {}).settings
    endpoints = _endpoints(None, address, allow_local=settings.allow_local)
    root = _root(folder, root_key, root_passphrase_file)
    Output(as_json).facts(card_facts(reissue_card(folder, root, endpoints, time.time())))
    note(f"Restart the node; it listens on {settings.listen} (setting listen in agency.toml).")
    note("Other nodes and your devices ask for the new card when they meet it, devices once a day:")
    note("  keep the old address reachable, and among the addresses, until all have.")
    note("A device that has missed it takes the card from a file, with 'ivor device card FILE':")
    note(f"  ivor node card --dir {folder} > card.ivor")


@agency.command()
def rekey(
    folder: Folder,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
    root_passphrase_file: RootPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give the agency another registrar key, signed with the root key.

    For when the one it has was used for two different directories, or by somebody else.
    """
    import os
    import time

    from cli.nodes import settings_of
    from cli.passphrase import read_passphrase
    from node.agency import rekey as rekey_agency

    settings_of(folder, {})
    root = _root(folder, root_key, root_passphrase_file)
    passphrase = read_passphrase(passphrase_file, "the node's keys")
    card = rekey_agency(folder, passphrase, root, time.time(), os.urandom)
    Output(as_json).facts(card_facts(card))
    note("Restart the node: it certifies its users and devices anew; they have to do nothing.")
    note("Then make a new backup: in one from before is the key that was replaced.")


@agency.command()
def passphrase(
    *,
    folder: Folder,
    root_key: RootKey = None,
    new_passphrase_file: NewPassphraseFile = None,
    passphrase_file: PassphraseFile = None,
    root_passphrase_file: RootPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give the node's keys another passphrase, or with --root-key the root key; the keys stay."""
    import os

    from cli.nodes import settings_of
    from cli.passphrase import COPIES, new_passphrase, read_passphrase
    from node.agency import ROOT_PURPOSE, SERVICE_FILE, SERVICE_PURPOSE, change_passphrase

    settings_of(folder, {})
    if root_key is None:
        file, purpose, what = folder / SERVICE_FILE, SERVICE_PURPOSE, "the node's keys"
        old = read_passphrase(passphrase_file, what)
    else:
        file, purpose, what = root_key, ROOT_PURPOSE, "the root key"
        old = read_passphrase(root_passphrase_file, what)
    change_passphrase(file, purpose, old, new_passphrase(new_passphrase_file, what), os.urandom)
    Output(as_json).facts({"type": "passphrase changed", "file": str(file)})
    if root_key is None:
        note("The node asks for it at its next start: change it where that has it from, too.")
    note(f"{COPIES}: make a new backup, and destroy those.")


def _root(folder: Path, file: Path | None, passphrase_file: Path | None) -> "Signer":
    from cli.passphrase import read_passphrase
    from node.agency import ROOT_FILE, open_root

    chosen = folder / ROOT_FILE if file is None else file
    return open_root(chosen, read_passphrase(passphrase_file, "the root key"))


def _endpoints(listen: str | None, addresses: list[str], *, allow_local: bool) -> tuple[str, ...]:
    """Choose what the card says, and refuse now what other nodes would refuse later."""
    from node.config import parse_listen, refuse_local
    from node.errors import UserError
    from protocol.errors import Untrusted

    chosen = list(addresses)
    if listen is not None and not addresses:
        _, port = parse_listen(listen)
        if port and not listen.startswith(ANY_HOSTS):
            chosen = [listen]
    if not allow_local:
        try:
            refuse_local(chosen)
        except Untrusted:
            raise UserError(
                f"other nodes refuse a card with an address such as {chosen[0]}, which is local to "
                "a machine; give --address HOST:PORT, or --allow-local for tests"
            ) from None
    return tuple(chosen)


def _next_steps(folder: Path, endpoints: tuple[str, ...]) -> None:
    if not endpoints:
        note("The card names no address: this node dials others, none can dial it. To be reached:")
        note(f"  ivor agency move --address HOST:PORT --dir {folder}")
    note(f"Keep {folder / 'root.key'} offline: move it to a medium that you lock away.")
    note("Next:")
    note(f"  ivor node run --dir {folder}")
    note(f"  ivor node card --dir {folder} > card.ivor     # hand it to other agencies")
    note(f"  ivor node trust THEIR-CARD --dir {folder}")
    note(f"  ivor node invite NAME --dir {folder}")
