"""`ivor device passphrase`, `ivor agency passphrase`: the same keys under another passphrase."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.device_commands import device_app
from cli.founding import RootKey, RootPassphraseFile, agency
from cli.opening import Home, opened
from cli.options import Folder, Json, PassphraseFile
from cli.output import Output, note
from cli.passphrase import new_passphrase, read_passphrase

NewPassphraseFile = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="Read the new one from this file, not typed."),
]
COPIES: Final = "copies and backups of the file from before open with the old passphrase"


def register(app: typer.Typer) -> None:
    """Add the commands to the families of the device and of the agency."""
    del app
    device_app.command("passphrase")(of_device)
    agency.command("passphrase")(of_agency)


def of_device(
    *,
    new_passphrase_file: NewPassphraseFile = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give this device another passphrase; its keys stay."""
    with opened(home, passphrase_file) as device:
        device.change_passphrase(new_passphrase(new_passphrase_file, "this device"))
        Output(as_json).facts({"type": "passphrase changed", "folder": str(device.folder)})
    if passphrase_file is not None:
        note(f"every command that has it from {passphrase_file} needs the new one there")
    note(f"{COPIES}; if somebody may have one, replace the device: 'ivor device revoke' it")


def of_agency(
    *,
    folder: Folder,
    root_key: RootKey = None,
    new_passphrase_file: NewPassphraseFile = None,
    passphrase_file: PassphraseFile = None,
    root_passphrase_file: RootPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give the node's keys another passphrase, or with --root-key the root key; the keys stay."""
    from cli.nodes import settings_of
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
