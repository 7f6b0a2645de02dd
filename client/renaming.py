"""Another label for this device: a new certificate of the same key (SPEC 5.2).

The identity key has to sign it, so it is for a device that holds it.
"""

import time
from dataclasses import replace
from functools import partial

from client.device import Device
from client.link import Link
from node.errors import IdentityError, LimitReached, NetworkError, RefusedError, UserError
from protocol.identity import (
    LABEL_BYTES_MAX,
    DeviceCertificate,
    device_issued,
    request_device,
    verify_device,
)
from protocol.question import Rename
from protocol.reply import Certified


async def rename(device: Device, link: Link, label: str) -> DeviceCertificate:
    """Have our agency certify this device under another label.

    Raises RefusedError without the identity key, UserError or LimitReached for a label that cannot
    be, IdentityError if the node certified something else.
    """
    await link.look_up_own()
    asked = request(device, label, int(time.time() * 1000))
    reply = await link.ask(Rename(asked))
    if not isinstance(reply, Certified):
        raise NetworkError("the node answered another question than was asked")
    return await link.write(partial(keep, device, label, reply.certificate))


def request(device: Device, label: str, now: int) -> bytes:
    """Return what RENAME asks; dated after the present certificate. now: milliseconds."""
    user = device.secrets.user
    if user is None:
        raise RefusedError(
            "this device does not hold your identity key, which must sign its label: a linked "
            "device gets its label when it is linked (--label); only your first device, or one "
            "that was recovered by the words, can be renamed"
        )
    _check(label)
    issued = max(now, device_issued(device.profile.device_certificate) + 1)
    return request_device(user, device.secrets.device, device.profile.charter.agency, label, issued)


def keep(device: Device, label: str, raw: bytes) -> DeviceCertificate:
    """Check and keep the new certificate. Call inside a transaction."""
    charter, ours = device.profile.charter, device.profile.user.user
    found = verify_device(raw, charter)
    if (found.device, found.user, found.label) != (device.key, ours, label):
        raise IdentityError("the node certified another device or label; the old one stays")
    device.connection.execute("UPDATE profile SET device = ?", (raw,))
    device.connection.execute("UPDATE devices SET certificate = ? WHERE id = ?", (raw, device.key))
    device.profile = replace(device.profile, device_certificate=raw)
    return found


def _check(label: str) -> None:
    try:
        size = len(label.encode())
    except UnicodeEncodeError:
        raise UserError("that label is not UTF-8 text") from None
    if not label.strip():
        raise UserError("a device's label must not be empty")
    if size > LABEL_BYTES_MAX:
        raise LimitReached(f"a device's label has at most {LABEL_BYTES_MAX} bytes, not {size}")
