"""Enrolling a device: keys made here, certificates from the agency (SPEC 5.3).

An invitation holds a one-time TLS certificate, so the connection is mutual from the first byte.
The private keys never leave the device; what is sent are requests that each key has signed. They
are kept before they are asked (`joining`): the same call again goes on where one was killed.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import trio

from client import joining
from client.device import Device
from client.folder import (
    DATABASE_FILE,
    DATABASE_KEY_BYTES,
    Random,
    Secrets,
    write_secrets,
)
from client.joining import Joining, Start
from client.link import dial
from client.people import keep_own_person, let_enter
from client.schema import DEVICE_SCHEMA
from crypto.archival import ARCHIVAL_SEED_BYTES, ArchivalSigner, archive_digest
from crypto.certificate import make_key, public_pem
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from crypto.signing import SEED_BYTES, Signer
from node.database import connect
from node.errors import IdentityError, NetworkError, RefusedError, UserError, answered
from node.files import sync_folder
from node.tls import credential_from_der
from node.wire import FrameReader
from protocol.checkpoint import read_archive, vouched
from protocol.frame import Answer, Ask, Error, encode_frame
from protocol.identity import (
    Card,
    Charter,
    UserId,
    request_device,
    request_link,
    request_user,
    sign_prekey,
    verify_card,
    verify_device,
    verify_prekey,
    verify_user,
)
from protocol.invitation import Invitation, Purpose
from protocol.limits import FRAME_BYTES_MAX
from protocol.question import Enrol, GetLink, PutLink, Question, encode_question
from protocol.reply import Enrolment, Refusal, Reply, Waiting, decode_answer

ANSWER_SECONDS_MAX = 15.0
LINK_POLL_SECONDS = 1.0


async def join(
    folder: Path, invitation: Invitation, label: str, passphrase: bytes, random: Random
) -> str:
    """Enrol a user's first device in a new folder; return the user's address.

    What was begun with this invitation, and not ended, goes on. Raises RefusedError for an
    invitation that was used or is over, NetworkError, UserError.
    """
    _check(invitation, Purpose.FIRST_DEVICE)
    begun = _begun(folder, invitation, passphrase)
    if begun is None:
        begun = _first(Signer(random(SEED_BYTES)), invitation, label, random)
        joining.keep(folder, invitation.ticket, begun, passphrase, random)
    return await _present(folder, invitation, begun, passphrase, random)


async def recover(
    folder: Path,
    invitation: Invitation,
    seed: bytes,
    label: str,
    passphrase: bytes,
    random: Random,
) -> str:
    """Enrol a new device, with new keys, of a user whose others are lost; return the address.

    seed: of the identity key, from the recovery phrase. Raises as `join`.
    """
    _check(invitation, Purpose.RECOVERY)
    user = Signer(seed)
    begun = _begun(folder, invitation, passphrase)
    if begun is None or not _is_of(begun, user):
        begun = _first(user, invitation, label, random)
        joining.keep(folder, invitation.ticket, begun, passphrase, random)
    return await _present(folder, invitation, begun, passphrase, random)


async def link(
    folder: Path,
    invitation: Invitation,
    user: UserId,
    label: str,
    passphrase: bytes,
    random: Random,
    shown: Callable[[bytes], None],
) -> str:
    """Enrol a further device of a user; return the user's address.

    shown: called with the new device's signed request, of which both screens show a code. Waits
    until that has approved, for as long as the invitation is good. Raises as `join`.
    """
    _check(invitation, Purpose.LINK)
    begun = _begun(folder, invitation, passphrase)
    if begun is None:
        begun = _further(user, invitation, label, random)
        joining.keep(folder, invitation.ticket, begun, passphrase, random)
    await _asked(folder, invitation, begun.asks)
    if isinstance(begun.asks, PutLink):
        shown(begun.asks.request)
    while isinstance(reply := await _asked(folder, invitation, GetLink()), Waiting):
        if time.time() * 1000 > invitation.expires:
            joining.forget(folder)
            raise RefusedError("nobody approved this device in time; begin again")
        await trio.sleep(LINK_POLL_SECONDS)
    return finish(folder, begun.start, reply, passphrase, random)


def _begun(folder: Path, invitation: Invitation, passphrase: bytes) -> Joining | None:
    joining.check_free(folder)
    return joining.read(folder, invitation.ticket, passphrase)


def _first(user: Signer, invitation: Invitation, label: str, random: Random) -> Joining:
    """Make what a user's first device, or a recovered user's, needs and asks."""
    now = int(time.time() * 1000)
    start = begin(user, now, random)
    agency = invitation.card.charter.agency
    asks = Enrol(
        request_user(user, agency, invitation.name, now),
        request_device(user, start.secrets.device, agency, label, now),
        public_pem(start.secrets.tls_key),
        start.record,
        start.secrets.archive.public,
    )
    return Joining(start, asks)


def _further(user: UserId, invitation: Invitation, label: str, random: Random) -> Joining:
    """Make what a further device needs and asks."""
    now = int(time.time() * 1000)
    start = begin(None, now, random)
    keys = start.secrets
    request = request_link(keys.device, user, invitation.card.charter.agency, label, now)
    asks = PutLink(request, public_pem(keys.tls_key), start.record, keys.archive.public)
    return Joining(start, asks)


def begin(user: Signer | None, now: int, random: Random) -> Start:
    """Make the keys of a new device. user: the identity key, if it is to hold that."""
    device = Signer(random(SEED_BYTES))
    secrets = Secrets(
        device,
        user,
        random(DATABASE_KEY_BYTES),
        make_key(),
        ArchivalSigner(random(ARCHIVAL_SEED_BYTES)),
    )
    prekey = Prekey(random(PREKEY_PRIVATE_BYTES))
    return Start(secrets, prekey, sign_prekey(device, prekey.public, now))


def _is_of(begun: Joining, user: Signer) -> bool:
    """Whether something was begun with this identity key, not with words that were mistyped."""
    held = begun.start.secrets.user
    return held is not None and held.public == user.public


async def _present(
    folder: Path, invitation: Invitation, begun: Joining, passphrase: bytes, random: Random
) -> str:
    reply = await _asked(folder, invitation, begun.asks)
    return finish(folder, begun.start, reply, passphrase, random)


async def _asked(folder: Path, invitation: Invitation, question: Question) -> Reply:
    """Ask. What was refused is not asked again."""
    try:
        return await _ask(invitation, question)
    except RefusedError:
        joining.forget(folder)
        raise


async def _ask(invitation: Invitation, question: Question) -> Reply:
    """Put one question over a connection of its own, with the invitation's certificate."""
    credential = credential_from_der(invitation.certificate, invitation.key)
    stream = await dial(invitation.card, credential)
    topic, body = encode_question(question)
    answer = None
    try:
        with trio.move_on_after(ANSWER_SECONDS_MAX):
            await stream.send_all(encode_frame(Ask(1, topic, body)))
            answer = await FrameReader(stream, lambda: FRAME_BYTES_MAX).next()
    except trio.BrokenResourceError:
        raise NetworkError("the node closed the connection; is the invitation over?") from None
    finally:
        await trio.aclose_forcefully(stream)
    if isinstance(answer, Error):
        raise RefusedError(f"the node refused: {answer.text.decode(errors='replace')}")
    if not isinstance(answer, Answer):
        raise NetworkError("the node did not answer: run the same command again")
    try:
        return decode_answer(topic, answer.code, answer.body)
    except Refusal as refusal:
        raise answered(refusal.code, str(refusal)) from None


def _check(invitation: Invitation, purpose: Purpose) -> None:
    if invitation.purpose is not purpose:
        right = "device link" if invitation.purpose is Purpose.LINK else "join"
        raise UserError(f"this invitation is for another use: run 'ivor {right} INVITATION'")


def _check_own(start: Start, reply: Enrolment, charter: Charter) -> None:
    """Check that the node has certified our keys, and no others."""
    user, device = verify_user(reply.user, charter), verify_device(reply.device, charter)
    ours = start.secrets.user
    if (
        device.device != start.secrets.device.public
        or device.user != user.user
        or (ours is not None and user.user != ours.public)
    ):
        raise IdentityError("the node certified other keys than this device's; nothing was made")


def _check_archive(secrets: Secrets, card: Card, raw: bytes) -> None:
    """Check that our ML-DSA key was certified by the agency whose fingerprint is compared."""
    archive = read_archive(raw)
    ours = archive.key == archive_digest(secrets.archive.public)
    if (
        not vouched(archive, card.charter.agency, card.charter.archive)
        or archive.device != secrets.device.public
        or not ours
    ):
        raise IdentityError("the node certified another archive key than ours; do not go on")


def finish(folder: Path, start: Start, reply: Reply, passphrase: bytes, random: Random) -> str:
    """Make the device of what its agency has certified; return its user's address.

    The key file is written last, so that there is a device when there is all of it.
    """
    if not isinstance(reply, Enrolment):
        raise NetworkError("the node answered another question than was asked")
    card = verify_card(reply.card)
    _check_own(start, reply, card.charter)
    _check_archive(start.secrets, card, reply.archive)
    _make_database(folder, start, reply, card.charter)
    device = Device(folder, start.secrets, random)
    try:
        with device.transaction():
            keep_own_person(device)
            if start.secrets.user is not None:
                let_enter(device)
        name = device.profile.name
    finally:
        device.close()
    write_secrets(folder, start.secrets, passphrase, random)
    joining.forget(folder)
    return name


def _make_database(folder: Path, start: Start, reply: Enrolment, charter: Charter) -> None:
    """Make the device's database, in the place of one that an earlier try has left."""
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{DATABASE_FILE}{suffix}").unlink(missing_ok=True)
    sync_folder(folder)
    prekey = verify_prekey(start.record)
    who = charter.raw, reply.user, reply.device, reply.tls_certificate, reply.card, reply.archive
    connection = connect(folder / DATABASE_FILE, start.secrets.database_key)
    with closing(connection), connection:
        connection.execute(DEVICE_SCHEMA)
        connection.execute("INSERT INTO profile VALUES (0, ?, ?, ?, ?, ?, ?)", who)
        connection.execute(
            "INSERT INTO prekeys (id, private, record, issued) VALUES (?, ?, ?, ?)",
            (prekey.id, start.prekey.private, start.record, prekey.issued),
        )
