"""Draws once what no seed determines: HPKE seals and X.509 certificates, for the vectors.

    python -m tests.draw_inputs            # replaces vectors/inputs.json; then make the vectors

The libraries draw this randomness themselves, so the bytes are kept and checked in the direction of
opening. Everything else in the vectors follows from names (`protocol.testing.cast`).
"""

import json
import ssl
from dataclasses import replace

from crypto import archive, certificate
from crypto.recovery import backup_key
from crypto.schedule import seal_info
from crypto.sealing import Prekey, prekey_id, seal
from node.tls import Credential, credential_to_der
from protocol import codec
from protocol.backup import BACKUP_ID_BYTES, begin, seal_part
from protocol.entry import ChatId, DeviceKey, EntryId, Place
from protocol.epoch import build
from protocol.identity import verify_prekey
from protocol.keygrant import ChainKey, seal_grant
from protocol.testing.cast import agency, person, prekey, prekey_record, seed
from tests.vectors import ARCHIVE_LETTERS, BACKUP_SEED, INPUTS, TICKET, epoch_place

NOW = 1_700_000_000.0


def main() -> None:
    """Draw and write."""
    home = agency("mz")
    ca_key = certificate.make_key()
    ca = certificate.authority(ca_key, home.root.public.hex(), NOW, 3652, 1)
    key = certificate.make_key()
    uri = f"ivor:invitation:{TICKET.hex()}"
    leaf = certificate.issue(ca, ca_key, key, uri, NOW, 5, 2)
    leaf_der, key_der = credential_to_der(Credential(leaf, key))
    private = Prekey(seed("seal", "prekey"))
    inputs = {
        "ca": ssl.PEM_cert_to_DER_cert(ca.decode()),
        "certificate": leaf_der,
        "key": key_der,
        "seal": seal(private.public, seal_info(b"info"), seed("seal", "secret")),
        "bundle": archive.seal_bundle(private.public, b"info", seed("bundle", "key"), b"segments"),
    }
    inputs["backup"] = b"".join(_backup())
    inputs["grant"] = _grant()
    inputs["archive"] = draw_archive()
    written = {name: value.hex() for name, value in inputs.items()}
    INPUTS.write_text(json.dumps(written | {"epoch": _epoch(epoch_place())}, indent=1) + "\n")


def _grant() -> bytes:
    """Chain keys of one epoch, for the one device of a reader."""
    granter, reader = person("anna@mz").signers[0], person("clara@mvd").signers[0]
    prekey_of = verify_prekey(prekey_record(reader))
    chains = {
        DeviceKey(granter.public): ChainKey(3, seed("chain", "anna")),
        DeviceKey(person("boris@mz").signers[0].public): ChainKey(0, seed("chain", "boris")),
    }
    chat, epoch = ChatId(seed("chat")), EntryId(seed("epoch"))
    return seal_grant(granter, chat, epoch, prekey_of, chains, seed("grant", "key"))


def draw_archive() -> bytes:
    """Return the bundle of a history, from anna's first device to her second."""
    old, new = person("anna@mz").devices[:2]
    named = prekey(new)
    info = codec.encode((old, new, prekey_id(named.public)))
    letters = codec.encode(ARCHIVE_LETTERS)
    return archive.seal_bundle(named.public, info, seed("archive", "key"), letters)


def _backup() -> list[bytes]:
    """Three parts of a backup, the last one the end."""
    own = backup_key(BACKUP_SEED)
    place, parts = begin(seed("backup", "id")[:BACKUP_ID_BYTES], own.public), []
    bodies: tuple[codec.Value, ...] = ((0, b"head"), (1, (b"letters",)), (4, b"end"))
    for no, body in enumerate(bodies):
        at = replace(place, last=int(no == 2))
        parts.append(seal_part(own.public, at, seed("backup", str(no)), codec.encode(body)))
        place = at.after(parts[-1])
    return parts


def _epoch(place: Place) -> list[str]:
    """Seal one epoch's secret for three devices."""
    people = [person("anna@mz"), person("boris@mz"), person("clara@mvd")]
    recipients = {one.devices[0]: prekey(one.devices[0]).public for one in people}
    record = prekey_record(people[0].signers[0])
    _, seals = build(place, seed("epoch", "secret"), recipients, set(), record, shareable=False)
    return [one.hex() for one in seals]


if __name__ == "__main__":
    main()
