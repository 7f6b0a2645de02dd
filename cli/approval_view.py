"""What `ivor approvals` shows of a request, and what it writes for those who have no Ivor."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import Output, note
from cli.text import when

if TYPE_CHECKING:
    from client.approvals import Answer, Approval
    from client.device import Device
    from protocol.chat import Chat
    from protocol.identity import UserId


LOOSE: Final = "of its PDF it cannot be read here that it was made of the request's file"


def show(device: "Device", judge: "Chat", chosen: "Sequence[Approval]", output: Output) -> None:
    """Print requests, and a line for each who was asked or has answered."""
    for one in chosen:
        output.facts(_request(one))
        columns = {"name": "WHO", "standing": "STANDING", "asked": "ASKED", "time": "TIME"}
        rest = {"verified": "VERIFIED", "why": "WHY"}
        output.rows(list(_people(device, judge, one)), columns | rest)


def check_file(one: "Approval", path: Path) -> None:
    """Check that a file is the one of a request, or a PDF that its signatures made of it.

    Raises EvidenceError, with both hashes.
    """
    from client import pdf
    from client.documents import read_file
    from node.errors import EvidenceError

    file = read_file(path)
    document = one.document
    if file.version not in one.versions():
        raise EvidenceError(
            f"{path} is not the file of the request: it has SHA-256 {file.digest.hex()}, the "
            f"request is for {document.name} with {document.digest.hex()}"
        )
    if file.digest != document.digest:
        pdf.examine(file.data)
        pdf.check_continues(file.data, document.size, document.digest)
    note(f"{path} is the file of the request")


def export_signatures(device: "Device", one: "Approval", folder: Path) -> None:
    """Write each signature that counts, and the CA certificate of each agency that is needed.

    What an earlier export wrote stays. Raises UserError where something else is.
    """
    from client.approvals import authority_of
    from client.documents import name_with

    folder.mkdir(parents=True, exist_ok=True)
    for answer in one.signatures:
        if answer.author is None or answer.cms is None:
            continue
        end = f".{answer.author.name}.{answer.reference.id.hex()[:8]}.p7s"
        _write(folder / name_with(one.document.name, end), answer.cms)
        authority = authority_of(device, answer.author.agency)
        if authority is not None:
            _write(folder / f"{answer.author.identity.agency_name}.pem", authority)


def _write(path: Path, data: bytes) -> None:
    from client.files import write_new

    if path.is_file() and path.read_bytes() == data:
        return
    write_new(path, data)
    note(f"wrote {path}")


def _request(one: "Approval") -> dict[str, object]:
    document = one.document
    return {
        "type": "request",
        "request": one.reference.id.hex(),
        "name": document.name,
        "media_type": document.media_type,
        "size": document.size,
        "digest": document.digest.hex(),
        "from": None if one.author is None else one.author.name,
        "time": when(one.time),
        "note": one.note or None,
        "complete": one.complete,
        "sound": one.sound,
        "problem": one.fault,
    }


def _people(device: "Device", judge: "Chat", one: "Approval") -> "Iterator[dict[str, object]]":
    from client.approvals import Standing

    for answer in one.answers:
        yield _answered(one, answer)
    for user in one.asked:
        if one.standing(user) is Standing.WAITING:
            yield {
                "type": "waiting",
                "name": _name(device, judge, user),
                "user": user.hex(),
                "standing": "waiting",
                "asked": True,
            }


def _answered(one: "Approval", answer: "Answer") -> dict[str, object]:
    author, revision = answer.author, answer.revision
    return {
        "type": "refusal" if answer.cms is None else "signature",
        "name": None if author is None else author.name,
        "user": None if author is None else author.user.hex(),
        "standing": _standing(answer),
        "asked": author is not None and author.user in one.asked,
        "time": when(answer.time),
        "id": answer.reference.id.hex(),
        "serial": None if answer.serial is None else f"{answer.serial:x}",
        "verified": answer.fault is None,
        "why": answer.fault or (LOOSE if answer.loose else answer.reason) or None,
        "made_of": None if revision is None else revision.base.digest.hex(),
        "made": None if revision is None else revision.result.digest.hex(),
    }


def _standing(answer: "Answer") -> str:
    if answer.fault is not None:
        return "invalid"
    return "refused" if answer.cms is None else "signed"


def _name(device: "Device", judge: "Chat", user: "UserId") -> str:
    member = judge.membership().users.get(user)
    if member is not None:
        return member.name
    row = device.connection.execute("SELECT name FROM users WHERE id = ?", (user,)).get
    return f"a former member ({user.hex()[:16]})" if row is None else str(row)
