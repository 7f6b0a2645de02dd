"""An agency's folder: its keys at rest, and what it vouches for (SPEC 5.2).

    agency.toml   settings, and the format of the folder
    root.key      the root seed under a passphrase of its own; to be taken offline
    service.key   registrar, node and archive seeds and the CA's key, under the service passphrase
    card.ivor     the card, in armour: name, zone and endpoints stand there, signed
    node.db       what the node stores, once it has run

Folder 0700, files 0600. The node's TLS key is made anew at each start and is in no file.
Functions that draw take `random`: a number of bytes in, that many random bytes out.
"""

import shutil
import ssl
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from crypto import certificate, signatory
from crypto.archival import ARCHIVAL_SEED_BYTES, ArchivalSigner, archive_digest
from crypto.errors import CertificateRefused, KeyFileRefused
from crypto.keyfile import NONCE_BYTES, SALT_BYTES, open_key, seal_key
from crypto.signing import SEED_BYTES, Signer
from node.config import FORMAT, SETTINGS_FILE, Value, write_settings
from node.errors import RefusedError, StorageError, UserError
from node.files import sync_folder, write_private
from node.tls import Credential, authority_of, credential_to_der
from protocol import checkpoint, codec, identity
from protocol.armour import armour, dearmour
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import (
    AgencyId,
    Card,
    CardNode,
    DeviceCertificate,
    NodeId,
    UserCertificate,
    UserId,
    verify_card,
)
from protocol.invitation import TICKET_BYTES, Invitation, Purpose
from protocol.limits import CARD_BYTES_MAX

ROOT_FILE: Final = "root.key"
SERVICE_FILE: Final = "service.key"
CARD_FILE: Final = "card.ivor"
DATABASE_FILE: Final = "node.db"
ROOT_PURPOSE: Final = "agency root"
SERVICE_PURPOSE: Final = "agency service"

CREATE: Final = "'ivor agency create NAME --zone ZONE --dir FOLDER'"

_SERVICE_VERSION: Final = 1
_SERVICE_BYTES_MAX: Final = 4096
_SERIAL_BYTES: Final = 19  # below 2^159, as X.509 asks
_DAY_SECONDS: Final = 24 * 3600

Random = Callable[[int], bytes]


class FolderRefused(UserError):
    """The folder exists already, is not an agency's, or is of another version."""


class KeyUnavailable(UserError):
    """A key file is missing, damaged, or its passphrase is another."""


@dataclass(frozen=True, slots=True)
class Founding:
    """What an agency begins with. endpoints: of its node, host:port. settings: not the defaults."""

    name: str
    zone: str
    endpoints: tuple[str, ...]
    settings: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Agency:
    """An opened folder: the card, and the keys that a running node needs; not the root."""

    folder: Path
    card: Card
    registrar: Signer = field(repr=False)
    node: Signer = field(repr=False)
    archive: ArchivalSigner = field(repr=False)
    ca_key: bytes = field(repr=False)  # PEM, not encrypted

    @property
    def id(self) -> AgencyId:
        return self.card.charter.agency

    @property
    def ca(self) -> bytes:
        """The CA certificate, PEM."""
        return ssl.DER_cert_to_PEM_cert(self.card.ca).encode()


def create(
    folder: Path,
    founding: Founding,
    passphrase: bytes,
    root_passphrase: bytes,
    now: float,
    random: Random,
) -> Agency:
    """Make a new agency in a folder that is absent or empty. now: seconds UTC.

    Takes about 0.2 s: two key files. Raises FolderRefused, OSError, or PeerError if name, zone or
    an endpoint is not allowed. A crash leaves no folder, or the whole.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderRefused(f"{folder} exists and is not empty; give a new folder")
    root, registrar, node = (Signer(random(SEED_BYTES)) for _ in range(3))
    archive = ArchivalSigner(random(ARCHIVAL_SEED_BYTES))
    ca_key = certificate.make_key()
    ca = certificate.authority(
        ca_key, root.public.hex(), now, certificate.AUTHORITY_DAYS, _serial(random)
    )
    digest = archive_digest(archive.public)
    charter = identity.sign_charter(root, 1, founding.name, founding.zone, registrar.public, digest)
    nodes = (CardNode(NodeId(node.public), founding.endpoints),)
    der = ssl.PEM_cert_to_DER_cert(ca.decode())
    card = verify_card(identity.sign_card(root, charter, der, nodes, int(now * 1000)))
    made = Agency(folder, card, registrar, node, archive, ca_key)
    files = {
        SETTINGS_FILE: write_settings(founding.settings),
        ROOT_FILE: _sealed(root.seed, root_passphrase, ROOT_PURPOSE, random),
        SERVICE_FILE: _sealed(_pack_keys(made), passphrase, SERVICE_PURPOSE, random),
        CARD_FILE: armour("CARD", card.raw),
    }
    _place(folder, files)
    return made


def open_agency(folder: Path, passphrase: bytes) -> Agency:
    """Open the folder with the service passphrase. Takes about 0.1 s.

    Raises FolderRefused or KeyUnavailable.
    """
    _check_format(folder)
    agency = _open_keys(folder, passphrase)
    _check_match(agency)
    return agency


def _open_keys(folder: Path, passphrase: bytes) -> Agency:
    """Read card and service key, of which it is to be checked whether they belong together."""
    card = card_in(folder)
    raw = _opened(folder / SERVICE_FILE, passphrase, SERVICE_PURPOSE)
    fields = codec.decode(raw, _SERVICE_BYTES_MAX)
    version, registrar, node, archive, ca_key = codec.record(fields, 5, "service key")
    if version != _SERVICE_VERSION:
        raise FolderRefused(f"{SERVICE_FILE} is of version {version!r}: use a newer program")
    return Agency(
        folder,
        card,
        Signer(codec.fixed(registrar, SEED_BYTES, "registrar")),
        Signer(codec.fixed(node, SEED_BYTES, "node")),
        ArchivalSigner(codec.fixed(archive, ARCHIVAL_SEED_BYTES, "archive key")),
        codec.binary(ca_key, _SERVICE_BYTES_MAX, "CA key"),
    )


def _pack_keys(agency: Agency) -> bytes:
    seeds = (agency.registrar.seed, agency.node.seed, agency.archive.seed)
    return codec.encode((_SERVICE_VERSION, *seeds, agency.ca_key))


def open_root(file: Path, passphrase: bytes) -> Signer:
    """Open the root key, from the folder or from where it is kept offline.

    Raises KeyUnavailable.
    """
    if not file.exists():
        raise KeyUnavailable(
            f"{file} is not here: it is kept offline; bring it back for this, or give its path"
        )
    return Signer(_opened(file, passphrase, ROOT_PURPOSE))


def change_passphrase(file: Path, purpose: str, old: bytes, new: bytes, random: Random) -> None:
    """Seal a key file under another passphrase. A copy of before opens with the old one.

    Raises KeyUnavailable, and StorageError if it cannot be written.
    """
    sealed = _sealed(_opened(file, old, purpose), new, purpose, random)
    try:
        write_private(file.resolve(), sealed.encode())
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error


def read_card(text: str) -> Card:
    """Read an armoured card. Raises PeerError; whether the agency is trusted is asked elsewhere."""
    card = verify_card(dearmour("CARD", text, CARD_BYTES_MAX))
    authority_of(card)
    return card


def card_in(folder: Path) -> Card:
    """Read the card in an agency's folder. Raises FolderRefused, OSError, PeerError."""
    return read_card(_read(folder / CARD_FILE))


def reissue_card(folder: Path, root: Signer, endpoints: Sequence[str], now: float) -> Card:
    """Replace the card in a folder by one with other endpoints; the same ones change nothing.

    A running node shows the old one until it is started again. now: seconds UTC, from which comes
    the serial: so the card of a folder that was restored meanwhile does not get one that is used.
    Raises KeyUnavailable if it is another agency's root, PeerError for a wrong endpoint,
    FolderRefused, OSError.
    """
    known = card_in(folder)
    _check_root(known, root)
    nodes = tuple(replace(node, endpoints=tuple(endpoints)) for node in known.nodes)
    if nodes == known.nodes:
        return known
    return _replace_card(folder, root, replace(known, nodes=nodes), known.charter.registrar, now)


def rekey(folder: Path, passphrase: bytes, root: Signer, now: float, random: Random) -> Card:
    """Give the agency another registrar key, and the card that says so; all else stays.

    A running node goes on with the old one until it is started again. What was interrupted between
    the two files leaves a folder that cannot be opened; the same again mends it. now: as above.
    Raises as `reissue_card`, and KeyUnavailable for a wrong service passphrase.
    """
    agency = _open_keys(folder, passphrase)
    _check_root(agency.card, root)
    changed = replace(agency, registrar=Signer(random(SEED_BYTES)))
    sealed = _sealed(_pack_keys(changed), passphrase, SERVICE_PURPOSE, random)
    write_private(folder / SERVICE_FILE, sealed.encode())
    return _replace_card(folder, root, agency.card, changed.registrar.public, now)


def _check_root(card: Card, root: Signer) -> None:
    if root.public != card.charter.agency:
        name = card.charter.name
        raise KeyUnavailable(f"this root key is not the one of {name}; give the right file")


def _replace_card(folder: Path, root: Signer, card: Card, registrar: bytes, now: float) -> Card:
    """Sign and write a card like this one, with this registrar key and a later serial."""
    old = card.charter
    serial = max(old.serial + 1, int(now))
    charter = identity.sign_charter(root, serial, old.name, old.zone, registrar, old.archive)
    signed = verify_card(identity.sign_card(root, charter, card.ca, card.nodes, int(now * 1000)))
    write_private(folder / CARD_FILE, armour("CARD", signed.raw).encode())
    return signed


def register_user(agency: Agency, request: bytes, name: str) -> UserCertificate:
    """Certify a user who was invited as `name`. Raises PeerError if the request says otherwise."""
    raw = identity.certify_user(agency.registrar, request)
    issued = identity.verify_user(raw, agency.card.charter)
    if issued.name != name:
        raise Untrusted(f"invited as {name}, asked for the name {issued.name} (SPEC 5.3)")
    return issued


def register_device(agency: Agency, request: bytes, user: UserId) -> DeviceCertificate:
    """Certify a device of `user`. Raises PeerError unless user and device have signed for it."""
    raw = identity.certify_device(agency.registrar, request)
    issued = identity.verify_device(raw, agency.card.charter)
    if issued.user != user:
        raise Untrusted("a device of another user than the one who asks (SPEC 5.3)")
    return issued


def rename_device(
    agency: Agency, request: bytes, user: UserId, present: bytes
) -> DeviceCertificate:
    """Certify a device of `user` in place of its present certificate (SPEC 7.3).

    Raises PeerError for the request of another device, RefusedError unless it is dated later.
    """
    known = identity.verify_device(present, agency.card.charter)
    issued = register_device(agency, request, user)
    if issued.device != known.device:
        raise Untrusted("a new certificate for another device than the one that asks (SPEC 7.3)")
    if issued.issued <= known.issued and issued.raw != known.raw:
        raise RefusedError(
            f"the new certificate is dated {issued.issued} ms and the present one {known.issued}: "
            "it must be later; is the device's clock right?"
        )
    return issued


def certify_archive(agency: Agency, device: DeviceCertificate, key: bytes) -> bytes:
    """Certify a device's ML-DSA key, 1,952 bytes, so that its checkpoints count (SPEC 2.7)."""
    return checkpoint.certify_archive(agency.archive, agency.id, device.user, device.device, key)


def node_credential(agency: Agency, now: float, random: Random) -> Credential:
    """Make the node's own TLS key and certificate, for `LEAF_DAYS`. Make another before that.

    Raises UserError if the CA's certificate is over.
    """
    key = certificate.make_key()
    uri = f"ivor:node:{agency.node.public.hex()}"
    try:
        return Credential(_issue(agency, key, uri, certificate.LEAF_DAYS, now, random), key)
    except CertificateRefused as error:
        raise UserError(f"no certificate for the node: {error}; is the clock right?") from None


def device_certificate(
    agency: Agency, device: DeviceKey, public_key: bytes, now: float, random: Random
) -> bytes:
    """Certify a device's TLS key for `LEAF_DAYS`; PEM in, PEM out. Raises Untrusted."""
    uri = f"ivor:device:{device.hex()}"
    try:
        return _issue(agency, public_key, uri, certificate.LEAF_DAYS, now, random)
    except CertificateRefused as error:
        raise Untrusted(f"{error}") from None


def signing_certificate(
    agency: Agency, user: UserCertificate, public_key: bytes, now: float, random: Random
) -> bytes:
    """Certify an official's key for signing documents, for `SIGNING_DAYS`; PEM in, PEM out.

    The caller has checked that the key's holder asks. Raises Untrusted.
    """
    subject = signatory.Subject(user.name, agency.card.charter.name, user.user)
    days, serial = signatory.SIGNING_DAYS, _serial(random)
    try:
        return signatory.certify(
            agency.ca, agency.ca_key, public_key, subject, now=now, days=days, serial=serial
        )
    except CertificateRefused as error:
        raise Untrusted(f"{error}") from None


def invite(
    agency: Agency, name: str, purpose: Purpose, now: float, seconds: int, random: Random
) -> Invitation:
    """Make an invitation for `name` that is good for `seconds`. The caller stores its ticket."""
    ticket, key = random(TICKET_BYTES), certificate.make_key()
    days = seconds // _DAY_SECONDS + 2  # the certificate outlives the ticket, which decides
    leaf = _issue(agency, key, f"ivor:invitation:{ticket.hex()}", days, now, random)
    leaf_der, key_der = credential_to_der(Credential(leaf, key))
    expires = int((now + seconds) * 1000)
    return Invitation(agency.card, ticket, purpose, name, expires, leaf_der, key_der)


def _issue(
    agency: Agency, subject_key: bytes, uri: str, days: int, now: float, random: Random
) -> bytes:
    return certificate.issue(
        agency.ca, agency.ca_key, subject_key, uri, now=now, days=days, serial=_serial(random)
    )


def _serial(random: Random) -> int:
    return int.from_bytes(random(_SERIAL_BYTES), "big") + 1


def _sealed(secret: bytes, passphrase: bytes, purpose: str, random: Random) -> str:
    return seal_key(secret, passphrase, purpose, random(SALT_BYTES), random(NONCE_BYTES))


def _opened(file: Path, passphrase: bytes, purpose: str) -> bytes:
    try:
        return open_key(_read(file), passphrase, purpose)
    except KeyFileRefused as error:
        raise KeyUnavailable(f"{file}: {error}") from None


def _place(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files beside the folder, then put them in place by one rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # 0700
    try:
        for name, text in files.items():
            write_private(draft / name, text.encode())
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        founded = file.name != SETTINGS_FILE and (file.parent / SETTINGS_FILE).exists()
        way = "restore it from a backup" if founded else f"{CREATE} makes a new agency"
        raise FolderRefused(f"{file} is missing; {way}") from None
    except UnicodeDecodeError:
        raise FolderRefused(f"{file} is damaged: not text; restore it from a backup") from None


def _check_format(folder: Path) -> None:
    file = folder / SETTINGS_FILE
    try:
        found = tomllib.loads(_read(file)).get("format")
    except tomllib.TOMLDecodeError as error:
        raise FolderRefused(f"{file} is not TOML: {error}") from None
    if found != FORMAT:
        raise FolderRefused(
            f"{folder} is of format {found!r}, this program knows {FORMAT}; use the program that "
            "made it, or a newer one"
        )


def _check_match(agency: Agency) -> None:
    named = {node.node for node in agency.card.nodes}
    charter = agency.card.charter
    kept = (agency.registrar.public, archive_digest(agency.archive.public))
    if kept != (charter.registrar, charter.archive) or agency.node.public not in named:
        raise FolderRefused(
            f"{CARD_FILE} and {SERVICE_FILE} in {agency.folder} do not belong together; restore "
            "both from one backup, or run 'ivor agency rekey' again if it was interrupted"
        )
