"""Another passphrase for the same device: what opens with which, and that it stays the device."""

import shutil
from pathlib import Path

import pytest

from client.device import open_device
from client.folder import KEY_FILE, pack_secrets, read_secrets
from node.errors import UserError
from tests.cli.conftest import Official
from tests.federation import PASSPHRASE, Federation

NEW = b"another passphrase"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    file = tmp_path / "new"
    file.write_bytes(NEW + b"\n")
    file.chmod(0o600)
    return file


def test_the_same_keys_open_with_another_passphrase(
    anna: Official, boris: Official, federation: Federation, new: Path
) -> None:
    chat = federation.chat(anna.device, "Бюджет", boris.device)
    folder, secrets = anna.device.folder, anna.device.secrets
    copy = shutil.copytree(folder, folder.with_name("copy"))
    (told,) = anna.json("device", "passphrase", "--new-passphrase-file", str(new))
    assert told["folder"] == str(folder)
    assert "copies and backups of the file from before open with the old passphrase" in anna.said
    assert "every command that has it from" in anna.said
    with pytest.raises(UserError, match="wrong passphrase"):
        read_secrets(folder, PASSPHRASE)
    for where, opens in ((folder, NEW), (copy, PASSPHRASE)):
        assert pack_secrets(read_secrets(where, opens)) == pack_secrets(secrets)
    anna("send", "Бюджет", "with the old one", code=1)
    anna("send", "Бюджет", "with the new one", "--passphrase-file", str(new))
    federation.carry(anna.device, boris.device)
    assert federation.texts(boris.device, chat) == ["with the new one"]


def test_it_is_not_taken_for_a_copy_and_a_copy_is(anna: Official, new: Path) -> None:
    anna("device", "passphrase", "--new-passphrase-file", str(new))
    anna.device.close()
    again = open_device(anna.device.folder, NEW, anna.device.random)
    assert not again.displaced
    again.close()
    moved = shutil.copytree(again.folder, again.folder.with_name("copy"))
    copy = open_device(moved, NEW, again.random)
    copy.change_passphrase(PASSPHRASE)
    assert copy.displaced
    copy.close()
    still = open_device(moved, PASSPHRASE, again.random)
    assert still.displaced
    still.close()


@pytest.mark.parametrize(
    ("where", "opens"), [("pathlib.Path.replace", PASSPHRASE), ("node.files.sync_folder", NEW)]
)
def test_who_is_killed_in_the_middle_has_no_copy_of_a_device(
    anna: Official, monkeypatch: pytest.MonkeyPatch, where: str, opens: bytes
) -> None:
    """Regression: with the new file there, and not noted yet, nothing was written until 'sync'."""
    device = anna.device

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            device.change_passphrase(NEW)
    device.connection.close()  # nothing else is done at the end of such a process
    copy = shutil.copytree(device.folder, device.folder.with_name("copy"))
    for folder, displaced in ((device.folder, False), (device.folder, False), (copy, True)):
        again = open_device(folder, opens, device.random)
        assert again.displaced is displaced
        again.close()


def test_what_was_interrupted_leaves_a_device(
    anna: Official, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the old passphrase: the key file is there whole, the old one or the new."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.folder.write_private", fail)
    anna("device", "passphrase", "--new-passphrase-file", str(new), code=3)
    assert f"{anna.device.folder / KEY_FILE} cannot be written" in anna.said
    kept = read_secrets(anna.device.folder, PASSPHRASE)
    assert pack_secrets(kept) == pack_secrets(anna.device.secrets)
