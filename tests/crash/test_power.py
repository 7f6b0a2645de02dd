"""The model of a disk: what a sync keeps is kept, and what it does not is lost in some image."""

from random import Random

import pytest

from tests.crash.power import (
    SECTOR_BYTES,
    Cut,
    FailedSync,
    Gone,
    Image,
    Linked,
    Made,
    Nameless,
    Op,
    Renamed,
    Sync,
    SyncFolder,
    Write,
    image,
    written,
)

SEEDS = 400
NEW: list[Op] = [Made("a"), Write("a", 0, b"new")]
OLD = {"a": b"old"}


def images(log: list[Op], before: Image | None = None) -> list[Image]:
    """Each image that is drawn, once."""
    found: list[Image] = []
    for seed in range(SEEDS):
        drawn = image(log, Random(seed), before)
        if drawn not in found:
            found.append(drawn)
    return found


class TestKept:
    def test_what_is_synced(self) -> None:
        assert images([*NEW, Sync("a"), SyncFolder()]) == [{"a": b"new"}]

    def test_a_name_needs_its_folder_synced(self) -> None:
        assert {} in images([*NEW, Sync("a")])
        assert {"a": b""} in images([*NEW, SyncFolder()])

    def test_a_draft_that_is_renamed(self) -> None:
        """As `write_private` does it: the old content or the new; without a sync, anything."""
        draft: list[Op] = [Made("b"), Write("b", 0, b"new")]
        for synced in (True, False):
            log: list[Op] = [*draft, *([Sync("b")] if synced else []), Renamed("b", "a")]
            found = {drawn.get("a") for drawn in images(log, OLD)}
            assert (found == {b"old", b"new"}) == synced
        log = [*draft, Sync("b"), Renamed("b", "a"), SyncFolder()]
        assert {drawn["a"] for drawn in images(log, OLD)} == {b"new"}

    def test_a_file_without_a_name_that_gets_one(self) -> None:
        """As `received` does it: nothing at all, or all of it; without a sync, anything."""
        draft: list[Op] = [Nameless("#1"), Write("#1", 0, b"new")]
        assert images([*draft, Sync("#1")]) == [{}]
        for synced in (True, False):
            log: list[Op] = [*draft, *([Sync("#1")] if synced else []), Linked("#1", "a")]
            found = {drawn.get("a") for drawn in images(log)}
            assert (found == {None, b"new"}) == synced
        assert images([*draft, Sync("#1"), Linked("#1", "a"), SyncFolder()]) == [{"a": b"new"}]
        assert written([*draft, Linked("#1", "a")]) == {"a": b"new"}

    def test_a_folder_that_is_renamed(self) -> None:
        log: list[Op] = [Made("d/a"), Write("d/a", 0, b"x"), Sync("d/a"), SyncFolder("d")]
        log.append(Renamed("d", "e"))
        assert images(log) == [{"e/a": b"x"}, {"d/a": b"x"}] or images(log) == [
            {"d/a": b"x"},
            {"e/a": b"x"},
        ]
        assert images([*log, SyncFolder()]) == [{"e/a": b"x"}]

    def test_a_file_that_gets_its_name_last(self) -> None:
        """As `write_new` does it: nothing or all of it, whatever becomes of the draft."""
        log: list[Op] = [Made("b"), Write("b", 0, b"new"), Sync("b"), Linked("b", "a"), Gone("b")]
        assert {drawn.get("a") for drawn in images(log)} == {None, b"new"}
        assert {drawn.get("a") for drawn in images([*log, SyncFolder()])} == {b"new"}

    def test_what_is_removed_may_come_back(self) -> None:
        assert {len(drawn) for drawn in images([Gone("a")], OLD)} == {0, 1}
        assert images([Gone("a"), SyncFolder()], OLD) == [{}]


class TestLost:
    def test_sectors_in_any_order(self) -> None:
        data = b"x" * SECTOR_BYTES * 2
        found = {drawn["a"] for drawn in images([Write("a", 0, data)], {"a": b""})}
        assert {b"", data, data[:SECTOR_BYTES], bytes(SECTOR_BYTES) + b"x" * SECTOR_BYTES} <= found
        assert any(len(one) % SECTOR_BYTES > 0 for one in found), "a torn sector"

    def test_the_last_write_may_come_first(self) -> None:
        log: list[Op] = [Write("a", 0, b"1"), Write("a", 0, b"2")]
        assert {drawn["a"] for drawn in images(log, {"a": b"0"})} == {b"0", b"1", b"2"}

    def test_cuts(self) -> None:
        assert {drawn["a"] for drawn in images([Cut("a", 1)], OLD)} == {b"old", b"o"}

    @pytest.mark.parametrize("later", [[], [Sync("a")]])
    def test_a_failed_sync_keeps_nothing(self, later: list[Op]) -> None:
        """And a later one that succeeds does not bring it back."""
        log: list[Op] = [Write("a", 0, b"new"), FailedSync("a"), *later]
        assert {drawn["a"] for drawn in images(log, OLD)} >= {b"old", b"new"}


def test_every_process_sees_all() -> None:
    log: list[Op] = [*NEW, FailedSync("a"), Cut("a", 2), Renamed("a", "b"), Made("c"), Gone("c")]
    assert written(log, {"z": b"z"}) == {"b": b"ne", "z": b"z"}
