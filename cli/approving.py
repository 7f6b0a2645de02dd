"""`ivor sign`, `decline`, `approvals`: officials sign a file, and the log shows who has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, change, fetch, locate, now_ms, opened
from cli.options import Json, PassphraseFile
from cli.output import Output, note
from cli.writing import ChatName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.approvals import Approval
    from client.device import Device
    from client.documents import File
    from client.link import Link
    from client.signing import Prepared
    from client.signing_keys import SigningKey, Token
    from protocol.approval import Version
    from protocol.chat import Chat
    from protocol.entry import Reference
    from protocol.identity import UserId

RequestId = Annotated[
    str, typer.Argument(help="The request: the beginning of its id.", metavar="ID")
]
NOT_VERIFIED: Final = 7
LABEL: Final = "ivor"  # of a token, and of a key on it


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (sign, decline, approvals):
        app.command(rich_help_panel="Official")(command)


def sign(
    chat: ChatName,
    path: Annotated[Path, typer.Argument(help="The file; it is not sent.", metavar="FILE")],
    *,
    ask: Annotated[
        list[str] | None,
        typer.Option(help="Who else is to sign; may be given several times.", metavar="USER"),
    ] = None,
    request: Annotated[
        str | None, typer.Option(help="Sign what somebody asked for.", metavar="ID")
    ] = None,
    text: Annotated[str, typer.Option("--note", help="What to tell those who are asked.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write what was signed.")
    ] = None,
    detached: Annotated[
        bool, typer.Option("--detached", help="A .p7s file beside it, also for a PDF.")
    ] = False,
    module: Annotated[
        str | None,
        typer.Option("--pkcs11", envvar="IVOR_PKCS11_MODULE", help="A token's module, a path."),
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="IVOR_PKCS11_TOKEN", help="The token's label.")
    ] = LABEL,
    key: Annotated[str, typer.Option(envvar="IVOR_PKCS11_KEY", help="The key's label.")] = LABEL,
    pin_file: Annotated[
        Path | None,
        typer.Option(envvar="IVOR_PKCS11_PIN_FILE", help="Read the PIN here instead of asking."),
    ] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Sign a file, and ask others of the chat to; or, with --request, as you were asked."""
    from client.chats import find_member
    from client.documents import read_file
    from client.signing_keys import Token
    from node.errors import UserError

    if request is not None and ask:
        raise UserError("--ask begins a request, --request answers one: give one of them")
    place = None if module is None else Token(module, token, key)
    file = read_file(path)
    with opened(home, passphrase_file) as device:
        judge = _newest(device, chat)
        asked = [find_member(judge, name) for name in ask or []]
        found = _request_for(device, _known(device, judge), file.version, request)
        with _key(device, place, pin_file) as signing:
            prepared = _prepare(device, signing, file, found, detached=detached)
        written = output or _beside(device, file, prepared)
        with _written(device, prepared, written):
            made = _tell(device, judge, prepared, found, asked, text)
        Output(as_json).facts(made | {"written": str(written)})


def decline(
    chat: ChatName,
    request: RequestId,
    *,
    reason: Annotated[str, typer.Option(help="Why not.")] = "",
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say in the log that you will not sign what you were asked to."""
    with opened(home, passphrase_file) as device:
        from client import signing
        from client.approvals import find_approval
        from client.compose import require

        judge = _newest(device, chat)
        found = find_approval(_known(device, judge), request)
        request = found.reference.id.hex()

        def refuse(users: "Sequence[UserId]") -> "Reference":
            del users
            again = find_approval(_known(device, require(device, judge.id)), request)
            return signing.decline(device, judge.id, again, reason, now_ms())

        made = change(device, [], refuse)
        made.warn()
        Output(as_json).facts(
            {
                "request": found.reference.id.hex(),
                "id": made.result.id.hex(),
                "state": "queued" if made.problem else "stored",
                "problem": made.problem,
            }
        )


def approvals(
    chat: ChatName,
    request: Annotated[
        str | None, typer.Argument(help="One request: the beginning of its id.", metavar="ID")
    ] = None,
    *,
    path: Annotated[
        Path | None, typer.Option("--file", help="Check also that this is the file.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write signatures (.p7s) and CA certificates (.pem) into this folder."),
    ] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show who was asked to sign, and who has; exit 7 if something does not verify."""
    from cli.approval_view import check_file, export_signatures, show
    from client.approvals import find_approval
    from node.errors import UserError

    if request is None and (path is not None or export is not None):
        raise UserError("--file and --export are for one request: give its ID")
    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        judge = _newest(device, chat)
        known = _known(device, judge)
        chosen = known if request is None else [find_approval(known, request)]
        show(device, judge, chosen, output)
        if path is not None:
            check_file(chosen[0], path)
        if export is not None:
            export_signatures(device, chosen[0], export)
    unsound = [one.reference.id.hex()[:8] for one in chosen if not one.sound]
    if unsound:
        raise output.end(f"something does not verify in {', '.join(unsound)}", NOT_VERIFIED)


def _newest(device: "Device", name: str) -> "Chat":
    """Return the chat with all that the node has of it; without a network, what is here."""
    from client.arrivals import open_waiting
    from client.compose import require

    judge = locate(device, name)
    problem = fetch(device)
    if problem is not None:
        note(f"what is here; {problem}")
    with device.transaction():
        open_waiting(device)
    return require(device, judge.id)


def _known(device: "Device", judge: "Chat") -> "list[Approval]":
    import logging

    from client.approvals import approvals as read

    # What pyHanko finds wrong is told once, as our own error.
    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)
    return read(device, judge, now_ms())


def _request_for(
    device: "Device", known: "list[Approval]", version: "Version", request: str | None
) -> "Approval | None":
    """Return the request that is meant; refuse to begin another for what we are asked to sign."""
    from client.approvals import Standing, find_approval
    from client.signing import same_file
    from node.errors import UserError

    if request is not None:
        return find_approval(known, request)
    same = same_file(known, version)
    ours = device.profile.user.user
    if same is not None and ours in same.asked and same.standing(ours) is Standing.WAITING:
        raise UserError(
            "you are asked to sign this very file: repeat with "
            f"--request {same.reference.id.hex()[:8]}"
        )
    return None


@contextmanager
def _key(device: "Device", place: "Token | None", pin_file: Path | None) -> "Iterator[SigningKey]":
    """Open the key to sign with: this device's own, or one on a token."""
    from cli.passphrase import read_passphrase
    from client.signing_keys import own_key
    from node.errors import UserError

    if place is None:
        with device.transaction():
            own = own_key(device)
        yield own
        return
    try:
        from client.token_keys import token_key
    except ImportError:
        raise UserError("a token needs python-pkcs11: pip install 'ivor[pkcs11]'") from None
    try:
        pin = read_passphrase(pin_file, "the token (PIN)").decode()
    except UnicodeDecodeError:
        raise UserError("that PIN is no text; is it the right file?") from None
    with token_key(place, pin) as key:
        yield key


def _prepare(
    device: "Device",
    key: "SigningKey",
    file: "File",
    request: "Approval | None",
    *,
    detached: bool,
) -> "Prepared":
    from client.signing import prepare

    signer = key.signer(_certificate(device, key), device.profile.card.ca)
    prepared = prepare(device, file, signer, request, detached=detached, now=now_ms())
    if prepared.before:
        note(f"signed before by {', '.join(prepared.before)}")
    return prepared


def _certificate(device: "Device", key: "SigningKey") -> bytes:
    """Return the key's certificate, DER; the node is asked if there is none, or not for long."""
    import trio

    from client.link import linked
    from client.signing_keys import ask_for, certificate_of, keep_certificate
    from node.errors import NetworkError
    from protocol.reply import Certified

    found = certificate_of(device, key, now_ms() / 1000)
    if found is not None and not found[1]:
        return found[0]

    async def ask(link: "Link") -> bytes:
        reply = await link.ask(ask_for(device, key))
        if not isinstance(reply, Certified):
            raise NetworkError("the node answered another question than was asked")
        return await link.write(lambda: keep_certificate(device, key, reply.certificate))

    async def run() -> bytes:
        async with linked(device) as link:
            return await ask(link)

    try:
        return trio.run(run)
    except NetworkError as error:
        if found is None:
            raise NetworkError(f"this key has no valid certificate yet, and {error}") from None
        note("the certificate ends within 30 days, and could not be renewed")
        return found[0]


def _beside(device: "Device", file: "File", prepared: "Prepared") -> Path:
    """Return where what was signed goes: report.anna@minzdrav.pdf, table.ods.anna@minzdrav.p7s."""
    from client.documents import name_with

    name = device.profile.name
    if prepared.signed is None:
        return file.path.with_name(name_with(file.path.name, f".{name}.p7s"))
    return file.path.with_name(name_with(file.path.stem, f".{name}{file.path.suffix}"))


@contextmanager
def _written(device: "Device", prepared: "Prepared", path: Path) -> "Iterator[None]":
    """Write what was signed before it is told; if it cannot be told, it is not left there."""
    from client.files import write_new
    from client.signing import is_told

    write_new(path, prepared.cms if prepared.signed is None else prepared.signed.data)
    try:
        yield
    except BaseException:
        if not is_told(device, prepared):
            path.unlink()
        raise


def _tell(
    device: "Device",
    judge: "Chat",
    prepared: "Prepared",
    request: "Approval | None",
    asked: "list[UserId]",
    text: str,
) -> dict[str, object]:
    """Tell the chat, unless our other device has answered meanwhile, or somebody has asked us."""
    from client.compose import require
    from client.signing import check_waits, tell
    from protocol.approval import Version

    place = None if request is None else request.reference
    version = Version(prepared.document.digest, prepared.document.size)

    def write(users: "Sequence[UserId]") -> "tuple[Reference, Reference]":
        del users
        known = _known(device, require(device, judge.id))
        again = _request_for(device, known, version, place and place.id.hex())
        if again is not None:
            check_waits(device, again)
        return tell(device, judge.id, prepared, place, asked, text, now_ms())

    made = change(device, [], write)
    made.warn()
    asking, signature = made.result
    return {
        "request": asking.id.hex(),
        "id": signature.id.hex(),
        "name": prepared.document.name,
        "digest": prepared.document.digest.hex(),
        "size": prepared.document.size,
        "signed_before": list(prepared.before),
        "state": "queued" if made.problem else "stored",
        "problem": made.problem,
    }
