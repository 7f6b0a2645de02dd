"""An agency's folder: made whole, opened with its passphrase, and what it then vouches for."""

import os
import random
import shutil
import ssl
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crypto import certificate
from crypto.signing import Signer
from node import agency as agencies
from node.agency import (
    CARD_FILE,
    ROOT_FILE,
    SERVICE_FILE,
    Agency,
    FolderRefused,
    Founding,
    KeyUnavailable,
    create,
    open_agency,
    open_root,
    read_card,
    reissue_card,
)
from node.config import SETTINGS_FILE, load_settings
from node.files import write_private
from node.tls import (
    Credential,
    DevicePeer,
    InvitationPeer,
    NodePeer,
    client_context,
    credential_from_der,
    peer_identity,
    server_context,
)
from protocol import identity
from protocol.entry import DeviceKey
from protocol.errors import NotCanonical, Untrusted
from protocol.identity import NodeId, UserId
from protocol.invitation import Purpose, decode_invitation, encode_invitation

NOW = datetime.now(UTC).timestamp()
PASSPHRASE, ROOT_PASSPHRASE = b"service", b"root"
FOUNDING = Founding("minzdrav", "RU-UDM", ("node.example:7340",), {"log_level": "debug"})
USER, DEVICE = Signer(b"u" * 32), Signer(b"d" * 32)

draw = random.Random(4711).randbytes


def found(folder: Path) -> Agency:
    return create(folder, FOUNDING, PASSPHRASE, ROOT_PASSPHRASE, NOW, draw)


@pytest.fixture(scope="module")
def agency(tmp_path_factory: pytest.TempPathFactory) -> Agency:
    """One agency that tests only read."""
    return found(tmp_path_factory.mktemp("agency") / "minzdrav")


class TestCreate:
    def test_everything_is_there_and_private(self, agency: Agency) -> None:
        names = {SETTINGS_FILE, ROOT_FILE, SERVICE_FILE, CARD_FILE}
        assert {file.name for file in agency.folder.iterdir()} == names
        assert stat.S_IMODE(agency.folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in agency.folder.iterdir()} == {0o600}
        assert [file.name for file in agency.folder.parent.iterdir()] == ["minzdrav"]

    def test_the_card_says_who_it_is(self, agency: Agency) -> None:
        card = read_card((agency.folder / CARD_FILE).read_text())
        assert card == agency.card
        assert (card.charter.name, card.charter.zone, card.charter.serial) == (
            *("minzdrav", "RU-UDM"),
            1,
        )
        assert card.nodes[0].node == agency.node.public
        assert card.nodes[0].endpoints == ("node.example:7340",)

    def test_the_settings_are_written(self, agency: Agency) -> None:
        loaded = load_settings(agency.folder / SETTINGS_FILE, {}, {})
        assert loaded.settings.log_level == "debug"

    def test_no_secret_is_in_clear(self, agency: Agency) -> None:
        """Neither in a file nor in a repr."""
        secrets = [agency.registrar.seed, agency.node.seed, agency.ca_key]
        files = b"".join(file.read_bytes() for file in agency.folder.iterdir())
        for secret in secrets:
            assert secret not in files
            assert repr(secret)[2:-1] not in repr(agency)
        assert b"PRIVATE" not in files

    def test_an_empty_folder_may_be_there(self, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        assert found(tmp_path / "new").folder == tmp_path / "new"

    @pytest.mark.parametrize("occupy", [Path.touch, lambda path: (path / "x").mkdir(parents=True)])
    def test_another_folder_is_left_alone(
        self, tmp_path: Path, occupy: Callable[[Path], object]
    ) -> None:
        occupy(tmp_path / "taken")
        with pytest.raises(FolderRefused, match="not empty"):
            found(tmp_path / "taken")

    def test_a_wrong_name_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(NotCanonical):
            create(*(tmp_path / "x", replace(FOUNDING, name="Minzdrav"), b"a", b"b"), NOW, draw)
        assert not any(tmp_path.iterdir())

    def test_a_failure_midway_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path, data: bytes) -> None:
            if path.name == CARD_FILE:
                raise OSError(28, "No space left on device")
            write_private(path, data)

        monkeypatch.setattr(agencies, "write_private", fail)
        with pytest.raises(OSError, match="No space"):
            found(tmp_path / "x")
        assert not any(tmp_path.iterdir())


class TestOpen:
    def test_it_opens_as_it_was_made(self, agency: Agency) -> None:
        opened = open_agency(agency.folder, PASSPHRASE)
        assert opened.card == agency.card
        assert opened.id == agency.id
        assert opened.registrar.public == agency.registrar.public
        assert (opened.node.seed, opened.ca_key) == (agency.node.seed, agency.ca_key)

    def test_another_passphrase(self, agency: Agency) -> None:
        with pytest.raises(KeyUnavailable, match=r"service\.key: wrong passphrase"):
            open_agency(agency.folder, ROOT_PASSPHRASE)

    def test_a_folder_of_nobody(self, tmp_path: Path) -> None:
        with pytest.raises(FolderRefused, match="ivor agency create"):
            open_agency(tmp_path, PASSPHRASE)

    @pytest.mark.parametrize("name", [SERVICE_FILE, CARD_FILE])
    def test_what_a_founded_agency_lacks_is_in_its_backup(
        self, agency: Agency, tmp_path: Path, name: str
    ) -> None:
        folder = shutil.copytree(agency.folder, tmp_path / "copy")
        (folder / name).unlink()
        with pytest.raises(FolderRefused, match=f"{name} is missing; restore it from a backup"):
            open_agency(folder, PASSPHRASE)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("format = 2\n", "format 2"), ("", "format None"), ("format = ", "not TOML")],
    )
    def test_a_folder_of_another_version(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / SETTINGS_FILE).write_text(text)
        with pytest.raises(FolderRefused, match=message):
            open_agency(tmp_path, PASSPHRASE)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / SETTINGS_FILE).write_bytes(b"\xff")
        with pytest.raises(FolderRefused, match="restore it"):
            open_agency(tmp_path, PASSPHRASE)

    def test_files_of_two_agencies(self, agency: Agency, tmp_path: Path) -> None:
        other = found(tmp_path / "other")
        (other.folder / CARD_FILE).write_text((agency.folder / CARD_FILE).read_text())
        with pytest.raises(FolderRefused, match="do not belong together"):
            open_agency(other.folder, PASSPHRASE)

    def test_a_service_key_of_another_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agencies, "_SERVICE_VERSION", 2)
        later = found(tmp_path / "later")
        monkeypatch.undo()
        with pytest.raises(FolderRefused, match="newer program"):
            open_agency(later.folder, PASSPHRASE)


class TestRoot:
    def test_the_root_reissues_the_card(self, tmp_path: Path) -> None:
        made = found(tmp_path / "a")
        root = open_root(made.folder / ROOT_FILE, ROOT_PASSPHRASE)
        endpoints = ("new.example:1", "[2001:db8::1]:1")
        card = reissue_card(made.folder, root, endpoints, NOW + 5)
        assert card.charter.serial == int(NOW + 5)
        assert card.nodes[0].endpoints == endpoints
        assert card.issued > made.card.issued
        assert open_agency(made.folder, PASSPHRASE).card == card
        assert reissue_card(made.folder, root, endpoints, NOW + 6) == card

    def test_a_restored_folder_gets_another_serial(self, tmp_path: Path) -> None:
        """Else two cards of one serial would accuse the root key of being in other hands."""
        made = found(tmp_path / "a")
        root = open_root(made.folder / ROOT_FILE, ROOT_PASSPHRASE)
        before = (made.folder / agencies.CARD_FILE).read_text()
        lost = reissue_card(made.folder, root, ["one.example:1"], NOW + 5)
        (made.folder / agencies.CARD_FILE).write_text(before)
        later = reissue_card(made.folder, root, ["other.example:1"], NOW + 9)
        assert later.charter.serial > lost.charter.serial
        behind = reissue_card(made.folder, root, ["third.example:1"], NOW)  # the clock was put back
        assert behind.charter.serial > later.charter.serial

    def test_it_may_be_elsewhere(self, agency: Agency, tmp_path: Path) -> None:
        with pytest.raises(KeyUnavailable, match="kept offline"):
            open_root(tmp_path / ROOT_FILE, ROOT_PASSPHRASE)
        (tmp_path / ROOT_FILE).write_text((agency.folder / ROOT_FILE).read_text())
        assert open_root(tmp_path / ROOT_FILE, ROOT_PASSPHRASE).public == agency.id

    def test_the_service_passphrase_does_not_open_it(self, agency: Agency) -> None:
        with pytest.raises(KeyUnavailable, match="wrong passphrase"):
            open_root(agency.folder / ROOT_FILE, PASSPHRASE)

    def test_a_service_key_is_no_root_key(self, agency: Agency) -> None:
        with pytest.raises(KeyUnavailable, match="agency service"):
            open_root(agency.folder / SERVICE_FILE, PASSPHRASE)

    def test_another_root_is_refused(self, agency: Agency) -> None:
        with pytest.raises(KeyUnavailable, match="not the one of minzdrav"):
            reissue_card(agency.folder, Signer(bytes(32)), [], NOW)


class TestVouching:
    def test_a_user_and_a_device(self, agency: Agency) -> None:
        user = agencies.register_user(
            agency, identity.request_user(USER, agency.id, "anna", 1), "anna"
        )
        request = identity.request_device(USER, DEVICE, agency.id, "phone", 2)
        device = agencies.register_device(agency, request, UserId(USER.public))
        found = identity.verify_credential(agency.card.charter.raw, user.raw, [device.raw])
        assert (found.name, found.devices) == ("anna@minzdrav", (DEVICE.public,))

    def test_a_name_that_was_not_invited(self, agency: Agency) -> None:
        request = identity.request_user(USER, agency.id, "boris", 1)
        with pytest.raises(Untrusted, match="invited as anna"):
            agencies.register_user(agency, request, "anna")

    def test_a_device_of_another_user(self, agency: Agency) -> None:
        request = identity.request_device(USER, DEVICE, agency.id, "phone", 2)
        with pytest.raises(Untrusted, match="another user"):
            agencies.register_device(agency, request, UserId(DEVICE.public))

    def test_a_request_that_the_user_did_not_sign(self, agency: Agency) -> None:
        request = identity.request_device(USER, DEVICE, agency.id, "phone", 2)
        forged = request[:-130] + bytes(130)
        with pytest.raises((Untrusted, NotCanonical)):
            agencies.register_device(agency, forged, UserId(USER.public))

    def test_the_node_itself(self, agency: Agency) -> None:
        credential = agencies.node_credential(agency, NOW, draw)
        server_context(credential, [agency.card.ca])
        assert self.peer(agency, credential) == NodePeer(agency.id, NodeId(agency.node.public))
        assert "PRIVATE" not in repr(credential)

    def test_a_device_for_tls(self, agency: Agency) -> None:
        key = certificate.make_key()
        device = DeviceKey(DEVICE.public)
        public = certificate.public_pem(key)
        issued = agencies.device_certificate(agency, device, public, NOW, draw)
        client_context(Credential(issued, key), [agency.card.ca])
        assert self.peer(agency, Credential(issued, key)) == DevicePeer(device)

    def test_a_device_key_that_is_none(self, agency: Agency) -> None:
        with pytest.raises(Untrusted, match="PEM"):
            agencies.device_certificate(agency, DeviceKey(DEVICE.public), b"x", NOW, draw)

    def test_an_invitation(self, agency: Agency) -> None:
        made = agencies.invite(agency, "anna", Purpose.FIRST_DEVICE, NOW, 3600, draw)
        read = decode_invitation(encode_invitation(made))
        assert read == made
        assert (read.card, read.name) == (agency.card, "anna")
        assert read.expires == int((NOW + 3600) * 1000)
        credential = credential_from_der(read.certificate, read.key)
        client_context(credential, [read.card.ca])
        assert self.peer(agency, credential) == InvitationPeer(read.ticket)

    def peer(self, agency: Agency, credential: Credential) -> object:
        der = ssl.PEM_cert_to_DER_cert(credential.certificate.decode())
        return peer_identity(der, {agency.id: agency.card}, agency.id, NOW)


class TestFiles:
    def test_a_write_replaces_the_whole_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        write_private(file, b"old")
        (tmp_path / "a.new").write_bytes(b"left by a crash")
        write_private(file, b"new")
        assert file.read_bytes() == b"new"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_what_root_replaces_stays_with_its_owner(self, tmp_path: Path) -> None:
        """The node's own user could not read the card and the key of a `rekey` that root ran."""
        file = tmp_path / "a"
        write_private(file, b"old")
        os.chown(file, 4711, 4712)
        write_private(file, b"new")
        assert (file.stat().st_uid, file.stat().st_gid) == (4711, 4712)
        assert file.stat().st_mode & 0o777 == 0o600
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_link_in_the_way_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"theirs")
        (tmp_path / "a.new").symlink_to(tmp_path / "target")
        write_private(tmp_path / "a", b"ours")
        assert (tmp_path / "target").read_bytes() == b"theirs"
