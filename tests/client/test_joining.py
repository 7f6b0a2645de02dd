"""A join that was killed, or heard no answer, goes on with the same keys and request (SPEC 5.3)."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from client import enrol, joining
from client.device import open_device
from client.folder import DATABASE_FILE, KEY_FILE
from crypto import keyfile
from node import agency as agencies
from node.agency import Founding
from node.errors import IdentityError, NetworkError, RefusedError, UserError
from node.service import Node
from node.wire import FrameReader
from protocol.identity import endorse_link, verify_device
from protocol.invitation import Invitation, Purpose
from protocol.question import Approve, Question
from protocol.reply import Reply
from tests.hostile.federation import PASSPHRASE, free_endpoint, start_node

SECONDS = 600


@dataclass
class Town:
    """A node that runs, and folders for devices."""

    node: Node
    folder: Path

    async def invite(self, name: str, purpose: Purpose = Purpose.FIRST_DEVICE) -> Invitation:
        registrar = self.node.directory.registrar
        return await self.node.journal.write(
            lambda: registrar.invite(name, purpose, time.time(), SECONDS)
        )

    async def join(self, invitation: Invitation, folder: str = "anna") -> str:
        return await enrol.join(self.folder / folder, invitation, "desk", PASSPHRASE, os.urandom)

    def devices(self, name: str) -> set[bytes]:
        person = self.node.directory.people.by_name(f"{name}@mz")
        return set() if person is None else {one.certificate for one in person.devices}


@pytest.fixture
async def town(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Town]:
    monkeypatch.setattr(keyfile, "MEMORY_KIB", keyfile.MEMORY_KIB_MIN)
    monkeypatch.setattr(keyfile, "PASSES", 1)
    founding = Founding("mz", "RU", (free_endpoint(),), {})
    secret = PASSPHRASE
    agency = agencies.create(tmp_path / "mz", founding, secret, secret, time.time(), os.urandom)
    node, running = await start_node(nursery, tmp_path, agency)
    yield Town(node, tmp_path)
    running.cancel()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The node hears us, and its answer is lost."""

    class Deaf(FrameReader):
        async def next(self) -> None:
            assert await super().next() is not None
            raise trio.BrokenResourceError("the line is down")

    monkeypatch.setattr(enrol, "FrameReader", Deaf)
    return monkeypatch


async def test_an_answer_that_was_lost(town: Town, deaf: pytest.MonkeyPatch) -> None:
    invitation = await town.invite("anna")
    with pytest.raises(NetworkError):
        await town.join(invitation)
    (registered,) = town.devices("anna")
    assert not (town.folder / "anna" / KEY_FILE).exists()
    deaf.undo()
    assert await town.join(invitation) == "anna@mz"
    assert town.devices("anna") == {registered}
    device = open_device(town.folder / "anna", PASSPHRASE, os.urandom)
    assert device.profile.device_certificate == registered
    device.close()


async def test_another_passphrase_than_it_was_begun_with(
    town: Town, deaf: pytest.MonkeyPatch
) -> None:
    invitation = await town.invite("anna")
    with pytest.raises(NetworkError):
        await town.join(invitation)
    deaf.undo()
    folder = town.folder / "anna"
    with pytest.raises(UserError, match="wrong passphrase"):
        await enrol.join(folder, invitation, "desk", b"another", os.urandom)
    assert await town.join(invitation) == "anna@mz"


async def test_another_invitation_begins_anew(town: Town, deaf: pytest.MonkeyPatch) -> None:
    """The operator puts out what was registered, and invites again: nothing of before is left."""
    invitation = await town.invite("anna")
    with pytest.raises(NetworkError):
        await town.join(invitation)
    deaf.undo()
    (registered,) = town.devices("anna")
    people, card = town.node.directory.people, invitation.card
    key = verify_device(registered, card.charter).device
    await town.node.journal.write(lambda: people.revoke([key]))
    assert await town.join(await town.invite("anna")) == "anna@mz"
    assert registered not in town.devices("anna")
    assert {file.name for file in (town.folder / "anna").iterdir()} == {DATABASE_FILE, KEY_FILE}


async def test_what_was_refused_is_forgotten(town: Town) -> None:
    invitation = await town.invite("anna")
    await town.join(invitation)
    with pytest.raises(RefusedError):
        await town.join(invitation, "thief")
    assert list((town.folder / "thief").iterdir()) == []


async def test_words_that_were_mistyped(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node was away the first time, so that nobody said that they are not the user's."""
    await town.join(await town.invite("anna"))
    device = open_device(town.folder / "anna", PASSPHRASE, os.urandom)
    user = device.secrets.user
    device.close()
    assert user is not None
    invitation = await town.invite("anna", Purpose.RECOVERY)

    async def away(*_: object) -> None:
        raise NetworkError("nobody there")

    async def recover(seed: bytes) -> str:
        folder = town.folder / "new"
        return await enrol.recover(folder, invitation, seed, "new", PASSPHRASE, os.urandom)

    with monkeypatch.context() as patch:
        patch.setattr(enrol, "_ask", away)
        with pytest.raises(NetworkError):
            await recover(bytes(32))
    assert await recover(user.seed) == "anna@mz"
    assert len(town.devices("anna")) == 2


async def test_a_further_device_shows_the_same_code(town: Town) -> None:
    await town.join(await town.invite("anna"))
    first = open_device(town.folder / "anna", PASSPHRASE, os.urandom)
    invitation = await town.invite("anna", Purpose.LINK)
    user, codes = first.profile.user.user, list[bytes]()

    async def link() -> str:
        return await enrol.link(
            town.folder / "phone",
            invitation,
            user,
            "phone",
            PASSPHRASE,
            os.urandom,
            codes.append,
        )

    with trio.move_on_after(1.0) as killed:
        await link()
    assert killed.cancelled_caught
    assert first.secrets.user is not None
    approved = Approve(invitation.ticket, endorse_link(first.secrets.user, codes[0]))
    registrar = town.node.directory.registrar
    await town.node.journal.write(lambda: registrar.approve(user, "anna", approved, time.time()))
    assert await link() == "anna@mz"
    assert codes[0] == codes[1]
    first.close()


async def test_a_database_whose_key_is_gone_is_left_alone(town: Town) -> None:
    folder = town.folder / "anna"
    await town.join(await town.invite("anna"))
    (folder / KEY_FILE).rename(town.folder / "somewhere")
    before = (folder / DATABASE_FILE).read_bytes()
    with pytest.raises(UserError, match=r"bring back device\.key"):
        await town.join(await town.invite("boris"))
    assert (folder / DATABASE_FILE).read_bytes() == before


async def test_other_keys_than_ours(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that certifies another device: there is no device, and what was begun stays."""
    invitation, ask = await town.invite("anna"), enrol._ask
    other = await town.invite("boris")
    answers: list[Reply] = []

    async def asked(shown: Invitation, question: Question) -> Reply:
        answers.append(await ask(shown, question))
        return answers[0]

    monkeypatch.setattr(enrol, "_ask", asked)
    await town.join(other, "boris")
    with pytest.raises(IdentityError):
        await town.join(invitation)
    assert joining.is_begun(town.folder / "anna", invitation.ticket)
    assert not (town.folder / "anna" / KEY_FILE).exists()
