"""Backups: what comes back, and what is wrong with one that does not (SPEC 5.6)."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import convert

from client import archive, backup, compose, keeping, people, sharing
from client.backup import Contents
from client.device import Device
from client.linking import bring_in
from crypto.recovery import backup_key
from node.errors import (
    EvidenceError,
    IdentityError,
    IvorError,
    RefusedError,
    StorageError,
    UserError,
)
from protocol import backup as form
from protocol import codec
from protocol.entry import ChatId
from protocol.policy import HistoryRule
from tests.federation import Federation, now


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LETTERS_MAX", 2)


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    made = federation.chat(anna, "Budget", boris)
    for text in ("one", "two", "three"):
        federation.say(anna, made, text)
    federation.carry(anna, boris)
    federation.say(boris, made, "four")
    federation.carry(boris, anna)
    return made


@pytest.fixture
def file(tmp_path: Path, anna: Device, chat: ChatId) -> Path:
    assert chat
    path = tmp_path / "anna.backup"
    backup.save(anna, path, now(), lambda _: None)
    return path


def seed_of(device: Device) -> bytes:
    assert device.secrets.user is not None
    return device.secrets.user.seed


def check(device: Device, path: Path, seed: bytes | None = None) -> Contents:
    return backup.check(device, path, seed or seed_of(device), lambda _: None)


def recover(device: Device, path: Path) -> backup.Recovered:
    contents = check(device, path)
    return backup.take_up(device, path, seed_of(device), contents)


def split(path: Path) -> list[bytes]:
    """The parts of a file."""
    raw, parts = path.read_bytes(), []
    while raw:
        end = form.LENGTH_BYTES + form.length_of(raw[: form.LENGTH_BYTES])
        parts.append(raw[:end])
        raw = raw[end:]
    return parts


class TestRecover:
    def test_history_and_acquaintances_come_back_on_a_new_device(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId, tmp_path: Path
    ) -> None:
        friend = people.acquaintance(anna, "boris@mincifry")
        assert friend is not None
        with anna.transaction():
            people.mark_verified(anna, friend)
        path, steps = tmp_path / "backup", list[int]()
        made = backup.save(anna, path, now(), steps.append)
        assert (made.letters, made.chats, sum(steps)) == (5, 1, 5)
        assert path.stat().st_mode & 0o777 == 0o600
        fresh = federation.recovered(anna)
        early = recover(fresh, path)
        assert (early.proved, early.waiting, early.missing) == (0, 5, 1)
        federation.carry(boris, fresh)
        assert federation.texts(fresh, chat) == ["one", "two", "three", "four"]
        again = recover(fresh, path)
        assert (again.proved, again.known, again.waiting, again.refused) == (0, 5, 0, 0)
        known = people.acquaintance(fresh, "boris@mincifry")
        assert known == people.acquaintance(anna, "boris@mincifry")
        assert known is not None
        assert known.verified
        with fresh.transaction():
            bring_in(fresh, now())
        federation.say(fresh, chat, "five")
        federation.carry(fresh, boris)
        assert federation.texts(boris, chat)[-1] == "five"

    def test_each_message_is_held_against_its_signed_header(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId, tmp_path: Path
    ) -> None:
        """The maker of the backup lies about one message, the thief of a device about all."""
        forged = b"\x93\x00\xc4\x06forged\xc0"
        anna.connection.execute("UPDATE mailbox SET plaintext = ? WHERE seq = 2", (forged,))
        path = tmp_path / "backup"
        backup.save(anna, path, now(), lambda _: None)
        fresh = federation.recovered(anna)
        federation.carry(boris, fresh)
        found = recover(fresh, path)
        assert (found.proved, found.refused, found.waiting) == (4, 1, 0)
        assert federation.texts(fresh, chat) == ["one", "three", "four"]

    def test_what_was_redacted_since_is_told_as_that(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId, tmp_path: Path
    ) -> None:
        """And a share that holds it: nobody is told of messages that do not hold."""
        with anna.transaction():
            policy = compose.require(anna, chat).membership().policy
            keeping.set_policy(anna, chat, replace(policy, history=HistoryRule.SHARED), now())
        place = federation.say(anna, chat, "five")
        with anna.transaction():
            sharing.share(anna, chat, 1, now())
        path = tmp_path / "backup"
        assert backup.save(anna, path, now(), lambda _: None).letters == 7
        with anna.transaction():
            keeping.redact(anna, chat, place, "", now())
        federation.carry(anna, boris)
        fresh = federation.recovered(anna)
        federation.carry(boris, fresh)
        found = recover(fresh, path)
        assert (found.proved, found.gone, found.refused, found.waiting) == (5, 2, 0, 0)
        again = recover(fresh, path)
        assert (again.known, again.gone, again.refused, again.waiting) == (5, 2, 0, 0)

    def test_a_changed_identity_is_as_loud_as_on_the_lost_device(
        self, federation: Federation, anna: Device, file: Path
    ) -> None:
        fresh = federation.recovered(anna)
        fresh.connection.execute(
            "UPDATE users SET id = zeroblob(32) WHERE name = ?", ("boris@mincifry",)
        )
        assert recover(fresh, file).changed == ("boris@mincifry",)
        known, before = (people.acquaintance(one, "boris@mincifry") for one in (fresh, anna))
        assert known == before

    def test_it_holds_no_key_that_signs_or_opens(self, anna: Device, file: Path) -> None:
        plain = bytearray()
        own, place = backup_key(seed_of(anna)), None
        for part in split(file):
            opened = form.open_part(own, place, part)
            plain += opened.body
            place = opened.place.after(part)
        rows = anna.connection.execute(
            "SELECT chain FROM senders UNION ALL SELECT private FROM prekeys"
        ).fetchall()
        secrets = [key for (key,) in convert(rows, list[tuple[bytes]])]
        secrets += [anna.secrets.device.seed, seed_of(anna), anna.secrets.database_key]
        assert len(secrets) > 3
        assert b"three" in plain
        assert not any(secret in plain for secret in secrets)
        assert b"three" not in file.read_bytes()

    def test_a_linked_device_makes_none(
        self, federation: Federation, anna: Device, file: Path
    ) -> None:
        phone = federation.further(anna)
        with pytest.raises(RefusedError, match="on your first device"):
            backup.save(phone, file, now(), lambda _: None)
        assert check(anna, file).letters == 5

    def test_a_place_that_is_no_file(self, anna: Device) -> None:
        for place in (Path(), Path("/")):
            with pytest.raises(UserError, match="names no file"):
                backup.save(anna, place, now(), lambda _: None)

    def test_what_is_no_backup_is_not_overwritten(
        self, anna: Device, boris: Device, tmp_path: Path
    ) -> None:
        """Nor somebody else's: two may back up into one folder."""
        (tmp_path / "letter").write_bytes(b"the only copy")
        backup.save(boris, tmp_path / "his", now(), lambda _: None)
        own = [anna.folder / "device.key", anna.folder / "new"]
        for place in (tmp_path / "letter", tmp_path / "his", *own):
            before = place.read_bytes() if place.exists() else None
            with pytest.raises(UserError, match=r"no backup of yours|no place for a backup"):
                backup.save(anna, place, now(), lambda _: None)
            assert (place.read_bytes() if place.exists() else None) == before
        (tmp_path / "empty").touch()
        for _ in range(2):
            backup.save(anna, tmp_path / "empty", now(), lambda _: None)

    def test_a_place_that_would_wait_for_a_reader(self, anna: Device, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="is no file"):
            backup.save(anna, tmp_path / "pipe", now(), lambda _: None)

    def test_a_disk_that_fails_leaves_the_earlier_one(
        self, anna: Device, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, beside = file.read_bytes(), file.with_name(f"{file.name}.new")
        beside.write_bytes(b"whoever keeps files calls some so")

        def fail(*_: object) -> bytes:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(form, "seal_part", fail)
        with pytest.raises(StorageError, match="No space left"):
            backup.save(anna, file, now(), lambda _: None)
        assert file.read_bytes() == before
        assert beside.read_bytes() == b"whoever keeps files calls some so"
        assert [one.name for one in file.parent.glob(".*.ivor")] == []


def cut_inside(parts: list[bytes]) -> bytes:
    return b"".join(parts)[:-100]


def cut_between(parts: list[bytes]) -> bytes:
    return b"".join(parts[:-1])


def exchanged(parts: list[bytes]) -> bytes:
    return b"".join([parts[0], parts[2], parts[1], *parts[3:]])


def left_out(parts: list[bytes]) -> bytes:
    return b"".join([parts[0], *parts[2:]])


def doubled(parts: list[bytes]) -> bytes:
    return b"".join([*parts, parts[-1]])


def nothing(parts: list[bytes]) -> bytes:
    return b"".join(parts[:0])


def text(parts: list[bytes]) -> bytes:
    return b"dear diary" * len(parts)


class TestWrong:
    @pytest.mark.parametrize(
        ("damage", "why"),
        [
            (cut_inside, r"ends at byte \d+, inside part 6: it was cut off"),
            (cut_between, r"ends after part 5, before its last"),
            (exchanged, r"part 1 of .* \(bytes \d+ to \d+\): it is part 2, here must stand part 1"),
            (left_out, r"part 1 of .*: it is part 2, here must stand part 1"),
            (doubled, r"goes on behind its end, at byte \d+"),
            (nothing, r"is empty"),
            (text, r"is no backup, or damaged in part 0, at byte 0"),
        ],
    )
    def test_its_place_is_named_and_nothing_changes(
        self,
        federation: Federation,
        anna: Device,
        file: Path,
        damage: Callable[[list[bytes]], bytes],
        why: str,
    ) -> None:
        fresh = federation.recovered(anna)
        contents = check(fresh, file)
        file.write_bytes(damage(split(file)))
        before = fresh.connection.total_changes()
        with pytest.raises(EvidenceError, match=why):
            check(fresh, file)
        assert fresh.connection.total_changes() == before
        with pytest.raises(EvidenceError, match=why):
            backup.take_up(fresh, file, seed_of(fresh), contents)
        assert fresh.connection.execute("SELECT count(*) FROM disclosed").get == 0

    def test_any_flipped_byte_is_found(self, anna: Device, file: Path) -> None:
        whole = file.read_bytes()
        for at in range(0, len(whole), len(whole) // 40):
            damaged = bytearray(whole)
            damaged[at] ^= 4
            file.write_bytes(bytes(damaged))
            with pytest.raises(IvorError, match=r"part \d|byte \d"):
                check(anna, file)

    def test_a_mended_sum_does_not_help(self, anna: Device, file: Path) -> None:
        own, parts = backup_key(seed_of(anna)), split(file)
        place = form.open_part(own, None, parts[0]).place
        for no, last in ((1, 0), (0, 1)):
            changed = form.Place(place.backup, place.key, no, place.before, last)
            parts[0] = form.seal_part(own.public, changed, bytes(32), b"\x90")
            file.write_bytes(b"".join(parts))
            with pytest.raises(EvidenceError, match="part 0 of"):
                check(anna, file)

    def test_parts_of_two_backups(self, anna: Device, file: Path) -> None:
        old = split(file)
        backup.save(anna, file, now(), lambda _: None)
        new = split(file)
        file.write_bytes(b"".join([*new[:2], *old[2:]]))
        with pytest.raises(EvidenceError, match=r"part 2 of .* belongs to another backup"):
            check(anna, file)

    def test_somebody_elses(self, anna: Device, boris: Device, file: Path) -> None:
        with pytest.raises(IdentityError, match="sealed to other recovery words"):
            check(boris, file)
        assert anna.secrets.user is not None
        with pytest.raises(IdentityError, match="a device of somebody else has made it"):
            check(boris, file, seed_of(anna))

    def test_one_that_no_device_has_signed(self, anna: Device, file: Path) -> None:
        """Who learns the backup key, which is no secret, can seal; the signature is missing."""
        own, parts = backup_key(seed_of(anna)), split(file)
        place = form.open_part(own, None, parts[0]).place
        place = place.after(parts[0])
        ended = form.Place(place.backup, place.key, place.no, place.before, last=1)
        body = codec.encode((backup.END, 0, 0, 0, bytes(64)))
        file.write_bytes(parts[0] + form.seal_part(own.public, ended, bytes(32), body))
        with pytest.raises(EvidenceError, match="has not signed it"):
            check(anna, file)
