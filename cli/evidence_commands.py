"""`ivor evidence`: prove to a third party what was said, and check such a proof (SPEC 5.10)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, letter, locate, now_ms, opened
from cli.options import Json, PassphraseFile
from cli.output import Output, cell, note, progress
from cli.reading import read_since
from cli.text import inert, when
from cli.writing import ChatName

if TYPE_CHECKING:
    from protocol.entry import EntryId
    from protocol.evidence import EvidenceRefused, Findings, Statement
    from protocol.roster import Void

evidence = typer.Typer(help="Proof for a third party of what was said.", no_args_is_help=True)
NOT_VERIFIED: Final = 7
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
_NOT_JUDGED: Final = "not judged"
_UNREADABLE: Final = "unreadable"


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(evidence, name="evidence", rich_help_panel="Official")


@evidence.callback()
def _evidence() -> None:
    """Proof for a third party of what was said."""


@evidence.command()
def export(
    chat: ChatName,
    messages: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]…", help="Messages, by the beginning of their ids [all]."),
    ] = None,
    *,
    file: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)
    ],
    start: Annotated[
        str | None, typer.Option("--from", help="Messages from this time, or 2h, 3d ago.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Messages before this time.")] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="First add a checkpoint of all that is new.")
    ] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write a file that proves the chosen messages, and shows nothing of the others but headers."""
    from client import checkpoints
    from client.compose import require
    from client.evidence import EVERYTHING_MS, readable
    from client.evidence import export as make
    from client.files import check_free
    from node.errors import StorageError, UserError
    from node.files import private_draft

    if messages and (start or end):
        raise UserError("name messages, or a time, not both")
    check_free(file)
    with opened(home, passphrase_file) as device:
        judge = locate(device, chat)
        named = [letter(device, judge.id, one) for one in dict.fromkeys(messages or [])]
        if checkpoint:
            with device.transaction():
                checkpoints.add(device, require(device, judge.id), now_ms())
        judge = require(device, judge.id)
        now = datetime.now(UTC)
        first = 0 if start is None else read_since(start, now)
        last = EVERYTHING_MS if end is None else read_since(end, now)
        chosen = named or readable(device, judge, first, last)
        if not chosen:
            raise UserError("no message to prove: choose others, or another time")
        with progress("proving", None) as advance:
            made = make(device, judge, chosen, advance)
            raw = b"".join(made.pieces)
        try:
            with private_draft(file) as draft:
                draft.write(raw)
        except OSError as error:
            raise StorageError(
                f"{file} cannot be written: {error.strerror}; give another -o"
            ) from None
    Output(as_json).facts(
        {
            "type": "evidence",
            "file": str(file),
            "bytes": len(raw),
            "messages": made.messages,
            "headers": made.content,
            "control_entries": made.control,
            "checkpoints": made.checkpoints,
            "not_under_a_checkpoint": made.uncovered,
        }
    )
    if made.besides:
        note(f"a share is among them: who has the file reads {made.besides} more, which it holds")
    if made.uncovered:
        note("some messages are under no checkpoint: --checkpoint adds one (needs a later sync)")


@evidence.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The evidence file.")],
    *,
    fingerprint: Annotated[
        list[str] | None,
        typer.Option(
            help="AGENCY=FINGERPRINT that you compared; then only what its checkpoints cover holds."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file without node, keys or network: who signed what, or which byte is wrong."""
    from protocol.evidence import EvidenceRefused
    from protocol.evidence import check as check_file

    anchors = _anchors(fingerprint or [])
    raw = _read(file)
    output = Output(as_json)
    try:
        with progress("checking", len(raw)) as advance:
            findings = check_file(raw, anchors, advance)
    except EvidenceRefused as refused:
        if anchors:
            _check_named(file, raw, anchors)
        raise _refuse(output, file, refused) from None
    _show(output, findings, anchors)


def _anchors(given: Sequence[str]) -> dict[str, str]:
    from crypto.fingerprint import is_fingerprint
    from node.errors import UserError

    found = {}
    for one in given:
        name, separator, shown = one.partition("=")
        if not name or not separator or not shown:
            raise UserError(f"{one!r} is not AGENCY=FINGERPRINT, such as mz='M43P P5RZ …'")
        if not is_fingerprint(shown):
            raise UserError(
                f"{shown!r} is no fingerprint: that is eight groups of four letters and digits, "
                "without 0, 1, 8 and 9; compare it again with whoever gave it"
            )
        found[name.strip()] = shown
    return found


def _check_named(file: Path, raw: bytes, anchors: "Mapping[str, str]") -> None:
    """Raise UserError if the file is whole, but names no agency of such a name."""
    from node.errors import UserError
    from protocol.evidence import EvidenceRefused
    from protocol.evidence import check as check_file

    try:
        charters = check_file(raw, {}, lambda _: None).charters
    except EvidenceRefused:
        return
    names = {one.name for one in charters}
    for name in sorted(anchors.keys() - names):
        raise UserError(f"{file} names no agency {name}; it names {', '.join(sorted(names))}")


def _read(file: Path) -> bytes:
    from node.errors import LimitReached, UserError

    try:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise LimitReached(f"{file} has over {FILE_BYTES_MAX} bytes; ask for it in parts")
    return raw


def _refuse(output: Output, file: Path, refused: "EvidenceRefused") -> typer.Exit:
    if output.as_json:
        record = {"type": "refused", "offset": refused.offset, "rule": str(refused.rule)}
        output.facts({"file": str(file), "holds": False, "reason": str(refused)} | record)
    why = f"{file} proves nothing: {refused}"
    note(why)
    return output.end(why, NOT_VERIFIED)


def _show(output: Output, findings: "Findings", anchors: Mapping[str, str]) -> None:
    output.facts(
        {
            "type": "evidence",
            "holds": True,
            "chat": findings.chat.hex(),
            "messages": len(findings.statements),
            "headers": findings.content,
            "control_entries": len(findings.lane.entries),
            "anchored": bool(anchors),
        }
    )
    _show_statements(output, findings)
    output.rows(
        (
            {"type": "agency", "agency": one.name, "zone": one.zone, "fingerprint": one.fingerprint}
            for one in findings.charters
        ),
        {"agency": "AGENCY", "zone": "ZONE", "fingerprint": "FINGERPRINT"},
    )
    if not anchors:
        note(
            "the file is whole; whether its agencies are genuine it cannot show: compare the "
            "fingerprints by another way, then check again with --fingerprint AGENCY=FINGERPRINT"
        )


def _show_statements(output: Output, findings: "Findings") -> None:
    """Print what was signed: as it stands in the file for scripts, else the earliest first."""
    from cli.letters import block, screen
    from client.chats import SHORT_CHARS

    verdicts = _verdicts(findings)
    if output.as_json:
        output.rows((_statement(findings, one, verdicts) for one in findings.statements), {})
        return
    console, earliest = screen(), list(reversed(findings.statements))
    earliest.sort(key=lambda one: one.header.time)
    for one in earliest:
        record = _statement(findings, one, verdicts)
        heading = [cell(record["time"]), one.id.hex()[:SHORT_CHARS], cell(record["author"])]
        standing, text, place = cell(record["standing"]), _text(record), _place(record)
        if console is None:
            print("\t".join([*heading, standing, inert(text), *place]))
        else:
            seq, device, makers = place
            covered = "under no checkpoint" if makers == "-" else f"under a checkpoint of {makers}"
            beneath = [f"entry {seq} of the device {device}", covered]
            print(block(f"{' '.join(heading)} [{standing}]", text, beneath, console))


def _text(record: Mapping[str, object]) -> str:
    return f"{'(unreadable) ' if record['kind'] == _UNREADABLE else ''}{record['text']}"


def _place(record: Mapping[str, object]) -> list[str]:
    return [cell(record[name]) for name in ("seq", "device", "checkpoints")]


def _verdicts(findings: "Findings") -> "Mapping[EntryId, Void | None] | None":
    from protocol.errors import ProtocolError
    from protocol.judgement import judge

    try:
        return judge(findings)
    except ProtocolError as error:
        note(f"who was a member cannot be judged: {error}")
        return None


def _statement(
    findings: "Findings", one: "Statement", verdicts: "Mapping[EntryId, Void | None] | None"
) -> dict[str, object]:
    void = None if verdicts is None else verdicts[one.id]
    counts = "counts" if void is None else f"void: {void.value}"
    kind, text = _said(one.plaintext)
    makers = [findings.lane.maker(entry).name for entry in one.checkpoints]
    return {
        "type": "statement",
        "id": one.id.hex(),
        "time": when(one.header.time),
        "author": one.author.name,
        "user": one.author.user.hex(),
        "agency": one.author.agency.hex(),
        "device": one.header.device.hex()[:16],
        "device_key": one.header.device.hex(),
        "seq": one.header.seq,
        "links": [link.id.hex() for link in one.header.links],
        "control": [head.id.hex() for head in one.header.control],
        "kind": kind,
        "text": text,
        "standing": _NOT_JUDGED if verdicts is None else counts,
        "checkpoints": list(dict.fromkeys(makers)),
        "checkpoint_ids": [entry.hex() for entry in one.checkpoints],
    }


def _said(plaintext: bytes) -> tuple[str, str]:
    """Return the kind of a message, and what `ivor read` says of it."""
    from cli.letters import told
    from protocol.errors import PeerError
    from protocol.message import decode_message

    try:
        message = decode_message(plaintext)
    except PeerError:
        return _UNREADABLE, plaintext.hex()
    return type(message).__name__.lower(), told(message)
