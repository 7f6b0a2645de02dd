"""SPEC 4.7, 6.7: large files, with real nodes over TLS, real devices and real files."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
from msgspec import structs

from client import compose, keeping
from client.bringing import bring_up, fetch, hand_over, spread
from client.device import Device
from client.exchange import visit
from client.link import Link
from crypto.blob import CHUNK_BYTES
from node import blobs, dialler
from node.backup import restore, save
from node.blobs import Blobs, Quotas, StoredBlob
from node.driver import Connection
from node.errors import LimitReached, NetworkError, RefusedError, UserError
from protocol.entry import Reference
from protocol.frame import Blob, WantBlob
from protocol.question import GetBlobs, GetReceipts
from protocol.reply import BlobState, Receipts, Standing
from tests.hostile.federation import eventually, now, one_settled, open_device, say
from tests.realm import AGENCIES, Founded, Realm, copied, found

SIZE = 5 * CHUNK_BYTES + 17


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Founded]:
    base = tmp_path_factory.mktemp("realm")
    return base, found(base)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "YIELD_SECONDS", 0.2)
    monkeypatch.setattr(dialler, "LOOK_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def no_bugs() -> Iterator[None]:
    with structlog.testing.capture_logs() as captured:
        yield
    assert not [event for event in captured if "bug" in str(event["event"])]


@pytest.fixture
def realm(template: tuple[Path, Founded], tmp_path: Path) -> Realm:
    folder, founded = template
    return Realm(copied(folder, tmp_path / "realm"), founded)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "план.iso"
    fill(made, SIZE)
    return made


def fill(path: Path, size: int, data: bytes = b"") -> None:
    """Write so many random bytes, or these."""
    path.write_bytes(data or os.urandom(size))


def alter(path: Path) -> None:
    """Turn bits in the middle of a file."""
    with path.open("r+b") as stream:
        stream.seek(2 * CHUNK_BYTES + 7)
        stream.write(b"turned")


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def holds(folder: Path, words: bytes) -> bool:
    """Whether any file in a folder has these bytes in it."""
    return any(words in one.read_bytes() for one in folder.rglob("*") if one.is_file())


def turn_into_folder(path: Path) -> None:
    """Put something in the place of a file that does not unlink."""
    path.unlink()
    path.mkdir()


async def serves_nothing(*_: WantBlob | bytes) -> Blob | None:
    await trio.lowlevel.checkpoint()
    return None


async def sent(realm: Realm, file: Path) -> Reference:
    """Send a file from anna, and wait until her node has it."""
    async with realm.online("anna") as (anna, link):
        return await sent_over(realm, anna, link, file)


async def sent_over(realm: Realm, anna: Device, link: Link, file: Path) -> Reference:
    place = realm.attach(anna, file)
    anna_sees = one_settled(link)
    await link.write(bool)
    await eventually(anna_sees, "the message is stored")
    await bring_up(anna, link, bool, 10)
    return place


async def test_it_reaches_every_agency_and_their_devices(realm: Realm, file: Path) -> None:
    async with realm.running():
        async with realm.online("anna") as (anna, link):
            place = await sent_over(realm, anna, link, file)
            assert await spread(anna, link, realm.chat, place.id, 10) == len(AGENCIES)
            assert not realm.files("anna")
        assert [len(realm.files(name)) for name in AGENCIES] == [1, 1, 1]
        assert {one.stat().st_mode & 0o777 for name in AGENCIES for one in realm.files(name)} == {
            0o600
        }
        for user in ("boris", "anna"):
            async with realm.online(user) as (device, link):
                await realm.get(device, link, place, file.with_name(user))
            assert same(file.with_name(user), file)


async def test_no_node_has_a_byte_of_the_file(realm: Realm, file: Path) -> None:
    """Case 54, I7: a node decodes nothing; what it has is ciphertext under a key it never sees."""
    words = "совершенно секретно ".encode() * 8
    fill(file, 0, words * (SIZE // len(words)))
    async with realm.running():
        place = await sent(realm, file)
        await realm.whole("east", place)
    for name in AGENCIES:
        assert not holds(realm.base / name, words[:40])


async def test_what_was_queued_offline_is_brought_later(realm: Realm, file: Path) -> None:
    """Also when the sending program died right after it had stored the message."""
    anna = open_device(realm.base, "anna")
    place = realm.attach(anna, file)
    anna.close()
    async with realm.running():
        async with realm.online("anna") as (device, link):
            await eventually(one_settled(link), "the message is stored")
            await bring_up(device, link, bool, 10)
        await realm.whole("south", place)


async def test_a_file_for_a_chat_that_we_are_out_of_holds_nothing_up(
    realm: Realm, file: Path
) -> None:
    """The node tells us nothing more of that chat; the others go on."""
    clara = open_device(realm.base, "clara")
    realm.attach(clara, file)
    with clara.transaction():
        compose.leave(clara, realm.chat, now())
    clara.close()
    async with realm.running(), realm.online("clara") as (clara, link):
        assert (await visit(clara, link, 10)).even
        assert await hand_over(clara, link) == []


async def test_a_node_that_refuses_to_speak_of_a_file_holds_nothing_up(
    realm: Realm, file: Path
) -> None:
    """It may know before us that we are out."""
    async with realm.running(), realm.online("clara") as (clara, link):
        place = realm.attach(clara, file)
        blob = clara.replica.blobs.find(realm.chat, place.id)
        unknown = BlobState(0, Standing.NONE, ())
        assert await hand_over(clara, link) == [(blob, unknown)]
        realm.nodes["east"].replica.sharing.connection.execute(
            "DELETE FROM readers WHERE peer = ?", (clara.key,)
        )
        assert await hand_over(clara, link) == [(blob, unknown)]


async def test_an_upload_goes_on_where_it_was_cut_off(realm: Realm, file: Path) -> None:
    fill(file, 80 * CHUNK_BYTES)
    async with realm.running("north"):
        async with realm.online("anna") as (anna, link):
            place = realm.attach(anna, file)
            await link.write(bool)

            async def half() -> bool:
                return realm.held("north", place) >= 16

            await eventually(half, "a part is there")
        before = realm.held("north", place)
        assert 16 <= before < 80
        await realm.stop("north")
        await realm.start("north")
        assert realm.held("north", place) >= before
        async with realm.online("anna") as (anna, link):
            await bring_up(anna, link, bool, 10)
        await realm.whole("north", place)
        async with realm.online("anna") as (anna, link):
            await realm.get(anna, link, place, file.with_name("again"))
    assert same(file.with_name("again"), file)


async def test_two_sources_at_once(
    realm: Realm, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third agency comes when the author is gone, and takes it from the other two."""
    fill(file, 90 * CHUNK_BYTES)
    served: dict[str, int] = dict.fromkeys(("north", "south"), 0)
    async with realm.running("north", "south"):
        place = await sent(realm, file)
        await realm.whole("south", place)
        for name in served:
            count_chunks(realm, name, served, monkeypatch)
        await realm.start("east")
        await realm.whole("east", place)
        assert min(served.values()) > 10
        assert sum(served.values()) < 100


def count_chunks(
    realm: Realm, name: str, served: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count what a node serves, slowly, and only once the third has a session with both."""
    larder = realm.nodes[name].larder
    load = larder.load
    third = realm.founded.agencies["east"].id
    both = [realm.nodes[one].hub for one in served]

    async def counted(want: WantBlob, source: Connection) -> Blob | None:
        with trio.move_on_after(10):
            while not all(hub.of(third) for hub in both):  # noqa: ASYNC110 - no event says it
                await trio.sleep(0.01)
        await trio.sleep(0.002)
        served[name] += 1
        return await load(want, source)

    monkeypatch.setattr(larder, "load", counted)


async def test_on_demand(realm: Realm, file: Path) -> None:
    """By this setting a node takes what its own users send or ask for, and nothing else."""
    async with realm.running(blobs="demand"):
        place = await sent(realm, file)
        async with realm.online("boris") as (boris, link):
            await eventually(one_settled(link), "the message is there")
            await realm.get(boris, link, place, file.with_name("got"))
        await realm.whole("south", place)
        assert realm.held("east", place) == 0
        assert not realm.files("east")
    assert same(file.with_name("got"), file)


async def test_what_is_redacted_is_gone_from_every_disk(realm: Realm, file: Path) -> None:
    """SPEC 2.6: a receipt means that the blob is gone, too."""
    async with realm.running():
        place = await sent(realm, file)
        for name in AGENCIES:
            await realm.whole(name, place)
        async with realm.online("boris") as (boris, link):
            await realm.get(boris, link, place, file.with_name("got"))
            assert realm.files("boris")
            blob = boris.replica.blobs.find(realm.chat, place.id)
            assert blob is not None
            async with realm.online("anna") as (anna, other):
                redact = partial(keeping.redact, anna, realm.chat, place, "", now())
                await other.write(redact)

                async def all_gone() -> bool:
                    return not any(realm.files(name) for name in AGENCIES)

                await eventually(all_gone, "no node has it")
                assert realm.stored("south", place) is None
                await eventually(partial(all_confirm, realm, other, place), "all confirm")
            await eventually(one_settled(link), "boris has heard")
            await link.fetching.clear()
            assert not realm.files("boris")
            with pytest.raises(UserError, match="gone"):
                await fetch(boris, link, blob, bool, 1)


async def test_what_is_redacted_on_its_way_is_gone_too(realm: Realm, file: Path) -> None:
    """Nothing that was still being written makes the file anew."""
    fill(file, 80 * CHUNK_BYTES)
    async with realm.running("north"), realm.online("anna") as (anna, link):
        place = realm.attach(anna, file)
        await link.write(bool)

        async def some() -> bool:
            return realm.held("north", place) > 0

        await eventually(some, "a part is there")
        await link.write(partial(keeping.redact, anna, realm.chat, place, "", now()))
        await eventually(partial(confirmed, link, realm, place), "north has dropped it")
        assert not realm.files("north")


async def all_confirm(realm: Realm, link: Link, place: Reference) -> bool:
    said = await link.ask(GetReceipts(realm.chat, (place.id,)))
    assert isinstance(said, Receipts)
    return len(said.receipts) == len(AGENCIES)


async def test_a_receipt_waits_for_the_file(realm: Realm, file: Path) -> None:
    """A node whose disk does not let go of the file does not say that it has dropped it."""
    async with realm.running("north"):
        place = await sent(realm, file)
        (stubborn,) = realm.files("north")
        async with realm.online("anna") as (anna, link):
            turn_into_folder(stubborn)
            await link.write(partial(keeping.redact, anna, realm.chat, place, "", now()))
            await eventually(one_settled(link), "the redaction is stored")
            assert not await confirmed(link, realm, place)
            stubborn.rmdir()
            await realm.nodes["north"].larder.clear()
            assert await confirmed(link, realm, place)


async def confirmed(link: Link, realm: Realm, place: Reference) -> bool:
    said = await link.ask(GetReceipts(realm.chat, (place.id,)))
    assert isinstance(said, Receipts)
    return bool(said.receipts)


async def test_a_lying_node_is_left_and_others_asked(
    realm: Realm, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 50: south gives other bytes; east takes the file from north."""
    fill(file, 40 * CHUNK_BYTES)
    async with realm.running("north", "south"):
        place = await sent(realm, file)
        await realm.whole("south", place)
        larder = realm.nodes["south"].larder
        load = larder.load

        async def lying(want: WantBlob, source: Connection) -> Blob | None:
            found = await load(want, source)
            return None if found is None else structs.replace(found, chunk=b"lies")

        monkeypatch.setattr(larder, "load", lying)
        await realm.start("east")
        await realm.whole("east", place)
        async with realm.online("clara") as (clara, link):
            await realm.get(clara, link, place, file.with_name("got"))
    assert same(file.with_name("got"), file)


async def test_what_a_disk_alters_is_mended_from_others(realm: Realm, file: Path) -> None:
    """Case 66: south notices when it is to serve it, and fetches it again from north."""
    async with realm.running("north", "south"):
        place = await sent(realm, file)
        await realm.whole("south", place)
        (kept,) = realm.files("south")
        alter(kept)
        async with realm.online("boris") as (boris, link):
            await realm.get(boris, link, place, file.with_name("got"))
        await realm.whole("south", place)
    assert same(file.with_name("got"), file)


async def test_a_blob_that_does_not_fit_is_not_begun(realm: Realm, file: Path) -> None:
    """Case 51: each fits the quota of the chat, both do not; their author is told."""
    fill(file, 700_000)
    async with realm.running(blobs_chat_mib=1):
        async with realm.online("anna") as (anna, link):
            first = await sent_over(realm, anna, link, file)
            second = realm.attach(anna, file)
            await link.write(bool)
            await eventually(one_settled(link), "the message is stored")
            with pytest.raises(LimitReached, match="no room"):
                await bring_up(anna, link, bool, 10)
            assert len(await hand_over(anna, link)) == 1
            await link.write(partial(keeping.redact, anna, realm.chat, first, "", now()))

            await eventually(partial(confirmed, link, realm, first), "the first is gone")
            await bring_up(anna, link, bool, 10)
        await realm.whole("south", second)
        await realm.whole("east", second)

        async def one_each() -> bool:
            return [len(realm.files(name)) for name in AGENCIES] == [1, 1, 1]

        await eventually(one_each, "the first one's file is gone everywhere")


async def test_what_has_no_room_holds_up_no_other(realm: Realm, file: Path) -> None:
    fill(file, 1_100_000)
    async with realm.running("north", blobs_chat_mib=1), realm.online("anna") as (anna, link):
        too_large = realm.attach(anna, file)
        fill(file, 700_000)
        place = realm.attach(anna, file)
        await link.write(bool)
        await eventually(one_settled(link), "the messages are stored")
        with pytest.raises(LimitReached, match=too_large.id.hex()[:8]):
            await bring_up(anna, link, bool, 10)
        assert realm.held("north", place) == 3
        assert [blob.entry for blob, _ in await hand_over(anna, link)] == [too_large.id]


async def test_one_device_does_not_fill_the_disk(realm: Realm, file: Path) -> None:
    """Case 51: what is beyond its quota is not taken; others still have room."""
    fill(file, 700_000)
    async with realm.running("north", "south", blobs_device_mib=1):
        async with realm.online("anna") as (anna, link):
            await sent_over(realm, anna, link, file)
            realm.attach(anna, file)
            await link.write(bool)
            with pytest.raises(LimitReached, match="no room"):
                await bring_up(anna, link, bool, 10)
        async with realm.online("boris") as (boris, link):
            place = await sent_over(realm, boris, link, file)
        await realm.whole("north", place)
        assert len(realm.files("north")) == 2


async def test_a_question_about_many_looks_once(
    realm: Realm, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 6.6: a device may ask about 64, and what room there is is the same for each."""
    fill(file, 9)
    looks: list[StoredBlob] = []
    room = Blobs.room

    def counted(
        index: Blobs, blob: StoredBlob, quotas: Quotas, coming: Sequence[StoredBlob] = ()
    ) -> int:
        looks.append(blob)
        return room(index, blob, quotas, coming)

    async with realm.running("north"), realm.online("anna") as (anna, link):
        monkeypatch.setattr(link.fetching, "load", serves_nothing)
        places = [realm.attach(anna, file) for _ in range(3)]
        await link.write(bool)
        await eventually(one_settled(link), "the messages are stored")
        monkeypatch.setattr(Blobs, "room", counted)
        asked = GetBlobs(realm.chat, tuple(place.id for place in places))
        states = realm.nodes["north"].larder.states(anna.key, asked)
        assert [one.standing for one in states] == [Standing.COMING] * 3
        assert len(looks) == 1


async def test_two_at_once_that_do_not_fit_together(realm: Realm, file: Path) -> None:
    """Case 51: neither is here when both begin; one is taken whole, of the other nothing is."""
    fill(file, 700_000)
    async with realm.running("north", blobs_chat_mib=1):
        async with realm.online("anna") as (anna, link):
            for _ in range(2):
                realm.attach(anna, file)
            await link.write(bool)
            with pytest.raises(LimitReached, match="no room"):
                await bring_up(anna, link, bool, 10)
        assert len(realm.files("north")) == 1


async def test_what_no_longer_fits_is_cleaned(realm: Realm, file: Path) -> None:
    """Case 51: half of it is there when the operator lowers the quota."""
    fill(file, 40 * CHUNK_BYTES)
    async with realm.running("north"):
        async with realm.online("anna") as (anna, link):
            place = realm.attach(anna, file)
            await link.write(bool)

            async def some() -> bool:
                return realm.held("north", place) > 0

            await eventually(some, "a part is there")
        await realm.stop("north")
        assert len(realm.files("north")) == 1
        await realm.start("north", blobs_mib=1)
        async with realm.online("anna") as (anna, link):
            with pytest.raises(LimitReached, match="no room"):
                await bring_up(anna, link, bool, 10)

        async def cleaned() -> bool:
            return not realm.files("north")

        await eventually(cleaned, "nothing of it stays")
        assert realm.held("north", place) == 0


async def test_a_full_disk_leaves_nothing_and_harms_nobody(
    realm: Realm, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 51: the disk is full midway; the rest goes on, and later the blob comes after all."""
    write = blobs.write_chunks
    written = 0

    def full(path: Path, chunks: Sequence[tuple[int, bytes]]) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, chunks)

    fill(file, 80 * CHUNK_BYTES)
    async with realm.running("north"):
        async with realm.online("anna") as (anna, link):
            monkeypatch.setattr(blobs, "write_chunks", full)
            place = realm.attach(anna, file)
            await link.write(bool)

            async def failed() -> bool:
                return written > 1 and not realm.files("north")

            await eventually(failed, "it was given up")
            assert realm.held("north", place) == 0
            await link.write(partial(say, anna, realm.chat, "the rest goes on"))
            await eventually(one_settled(link), "the rest goes on")
            monkeypatch.setattr(blobs, "write_chunks", write)
            realm.nodes["north"].larder._retry()
            await bring_up(anna, link, bool, 10)
        await realm.whole("north", place)


async def test_a_folder_that_is_gone_ends_no_node(realm: Realm, file: Path) -> None:
    """Case 51: the disk that it was moved to is not there."""
    folder = realm.base / "north" / blobs.FOLDER
    if folder.exists():
        folder.rmdir()
    folder.symlink_to(realm.base / "unmounted")
    async with realm.running("north"), realm.online("anna") as (anna, link):
        place = realm.attach(anna, file)
        await link.write(bool)
        larder = realm.nodes["north"].larder

        async def given_up() -> bool:
            return place.id in larder._patience

        await eventually(given_up, "it was tried")
        await link.write(partial(keeping.redact, anna, realm.chat, place, "", now()))
        await link.write(partial(say, anna, realm.chat, "the rest goes on"))
        await eventually(one_settled(link), "the rest goes on")
        folder.unlink()
        await realm.nodes["north"].sweep.scrub()
        assert realm.stored("north", place) is None


async def test_what_a_crash_left_is_removed(realm: Realm) -> None:
    fill(blobs.folder_of(realm.base / "north") / blobs.new_name(), 9)
    async with realm.running("north"):

        async def swept() -> bool:
            return not realm.files("north")

        await eventually(swept, "nothing is left over")


async def test_nobody_has_it(realm: Realm, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told who could have it."""
    async with realm.running("north", "south"):
        async with realm.online("anna") as (anna, link):
            monkeypatch.setattr(link.fetching, "load", serves_nothing)
            place = realm.attach(anna, file)
            await link.write(bool)
            await eventually(one_settled(link), "the message is stored")
            with pytest.raises(NetworkError, match="does not take"):
                await bring_up(anna, link, bool, 0.5)
        async with realm.online("boris") as (boris, link):
            await eventually(partial(has_message, boris, realm, place), "the message is there")
            here = boris.replica.blobs.find(realm.chat, place.id)
            assert here is not None
            with pytest.raises(NetworkError, match=r"east, north, south .* anna@north"):
                await fetch(boris, link, here, bool, 0.5)


async def test_who_is_out_is_told_why_there_is_no_file(realm: Realm, file: Path) -> None:
    async with realm.running("north", "south"):
        async with realm.online("anna") as (anna, link):
            place = await sent_over(realm, anna, link, file)
        async with realm.online("boris") as (boris, link):
            await eventually(partial(has_message, boris, realm, place), "the message is there")
            await link.write(partial(compose.leave, boris, realm.chat, now()))
            here = boris.replica.blobs.find(realm.chat, place.id)
            assert here is not None
            await eventually(one_settled(link), "the node knows of it")
            with pytest.raises(RefusedError, match="you are not in this one"):
                await fetch(boris, link, here, bool, 10)


async def has_message(device: Device, realm: Realm, place: Reference) -> bool:
    return device.replica.blobs.find(realm.chat, place.id) is not None


async def test_a_restored_node_fetches_it_again(realm: Realm, file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "south.backup"
    async with realm.running():
        place = await sent(realm, file)
        await realm.whole("south", place)
        save(realm.base / "south", backup)
        await realm.stop("south")
        shutil.rmtree(realm.base / "south")
        restore(backup, realm.base / "south")
        assert not realm.files("south")
        await realm.start("south")
        await realm.whole("south", place)
