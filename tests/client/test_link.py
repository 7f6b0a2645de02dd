"""A node that hangs up, or tells what is not to be believed: what its device's owner is told."""

import os
import time
from dataclasses import replace

import pytest
import trio
from trio.testing import memory_stream_pair

import client.link
from client import exchange, people
from client.device import Device
from client.federated import trusted
from client.link import Silent, dial, linked, over
from crypto.certificate import public_pem
from node.agency import ROOT_FILE, Agency, device_certificate, open_root
from node.errors import NetworkError, StorageError
from node.tls import Credential
from node.wire import TLS_SECONDS_MAX
from protocol.frame import Answer
from protocol.identity import Card, UserId, sign_card, sign_charter
from protocol.limits import INCARNATION_BYTES
from protocol.person import Person
from protocol.question import GetCard, GetCards, Lookup, Question, Witness
from protocol.reply import Cards, Done, OwnCard, People, Reply, Witnessed
from tests.federation import Federation, now


async def test_before_its_greeting_a_device_may_be_revoked(anna: Device) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    async with over(anna, ours) as link:
        with pytest.raises(NetworkError, match="may be revoked"):
            await link.settle(1)


async def test_a_reset_says_the_same(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written can meet a closed connection before the end of what is read is seen."""
    ours, theirs = memory_stream_pair()

    async def reset(_bytes_max: int) -> bytes:
        raise trio.BrokenResourceError("reset")

    monkeypatch.setattr(ours, "receive_some", reset)
    async with over(anna, ours) as link:
        with pytest.raises(NetworkError, match="may be revoked"):
            await link.settle(1)
    await trio.aclose_forcefully(theirs)


async def test_a_node_that_stands_still_is_not_waited_for_longer_than_was_asked(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system takes the connection for it; nothing of TLS comes."""

    async def connect(_endpoint: str) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        kept.append(theirs)
        return ours

    kept: list[trio.abc.Stream] = []
    monkeypatch.setattr(client.link, "connect", connect)
    with (
        trio.fail_after(TLS_SECONDS_MAX / 2),
        pytest.raises(Silent, match=r"can be reached .*: no answer in time"),
    ):
        await dial(anna.profile.card, anna.credential, 0.05)


async def test_a_node_whose_disk_is_full_is_one_that_does_not_answer(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever follows a chat ends, and of a device given up nothing is told."""
    ours, _theirs = memory_stream_pair()

    async def ask(*_: object) -> Answer:
        return Answer(1, StorageError.exit_code, b"the disk is full")

    async with over(anna, ours) as link:
        link.greeted.set()
        monkeypatch.setattr(link.connection, "ask", ask)
        with pytest.raises(NetworkError, match="the disk is full"):
            await link.ask(GetCard(0))


@pytest.mark.parametrize(("first", "way"), [(True, "--recover"), (False, "device link")])
async def test_who_was_away_for_over_90_days_is_told_what_to_do(
    anna: Device, monkeypatch: pytest.MonkeyPatch, *, first: bool, way: str
) -> None:
    """The node refuses the certificate, and it cannot say so."""
    monkeypatch.setattr(client.link, "ends", lambda _: time.time() - 1)
    if not first:
        anna.secrets = replace(anna.secrets, user=None)
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    async with over(anna, ours) as link:
        with pytest.raises(NetworkError, match=way):
            await link.settle(1)


async def test_a_process_that_runs_for_months_dials_with_what_was_renewed(
    federation: Federation, anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate is good for 90 days, and its node may have moved to another address."""
    shown: list[tuple[Card, Credential]] = []

    async def dial(card: Card, credential: Credential, _patience: float) -> trio.abc.Stream:
        shown.append((card, credential))
        ours, theirs = memory_stream_pair()
        await theirs.aclose()
        return ours

    monkeypatch.setattr(client.link, "dial", dial)
    agency, key = federation.agencies["minzdrav"], public_pem(anna.secrets.tls_key)
    renewed = device_certificate(agency, anna.key, key, time.time(), os.urandom)
    root, known = open_root(agency.folder / ROOT_FILE, b"root"), agency.card.charter
    charter = sign_charter(
        root, known.serial + 1, known.name, known.zone, known.registrar, known.archive
    )
    node = replace(agency.card.nodes[0], endpoints=("127.0.0.2:9",))
    with anna.transaction():
        exchange.keep_credential(anna, renewed)
        people.keep_card(anna, sign_card(root, charter, agency.card.ca, (node,), now()))
    async with linked(anna):
        pass
    ((card, credential),) = shown
    assert credential.certificate == renewed
    assert card.nodes[0].endpoints == ("127.0.0.2:9",)


def another_archive_key(agency: Agency) -> bytes:
    """A newer card of an agency, as an operator may have accepted it."""
    root = open_root(agency.folder / ROOT_FILE, b"root")
    known = agency.card.charter
    charter = sign_charter(
        root, known.serial + 1, known.name, known.zone, known.registrar, bytes(32)
    )
    return sign_card(root, charter, agency.card.ca, agency.card.nodes, now())


async def test_what_is_not_believed_of_one_agency_holds_nothing_up(
    federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.chat(anna, "", boris)
    cards = (
        another_archive_key(federation.agencies["mincifry"]),
        federation.agency("mosgor").card.raw,
    )
    unlisted: dict[UserId, Person] = {
        device.profile.user.user: federation.persons[device.profile.name]
        for device in (anna, boris)
    }

    async def ask(question: Question) -> Reply:
        match question:
            case GetCard():
                return OwnCard(None)
            case GetCards():
                return Cards(bytes(INCARNATION_BYTES), 1, cards)
            case Witness():
                return Witnessed((), ())
            case Lookup(_, users):
                return People(tuple(unlisted[user] for user in users))
            case _:
                return Done()

    ours, theirs = memory_stream_pair()
    async with over(anna, ours) as link:
        monkeypatch.setattr(link, "ask", ask)
        await link.refresh()
    assert ["archive key" in one for one in link.refused] == [True, False, False]
    assert people.cards_seen(anna).since == 1
    assert trusted(anna, federation.agencies["mosgor"].id)
    await theirs.aclose()
