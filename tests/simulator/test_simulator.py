"""The simulator: a bounded round of it, and that it sees, repeats and shrinks what goes wrong."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from cryptography.exceptions import InvalidTag

from crypto import sealing
from crypto.errors import BadSignature, SealRefused
from crypto.signing import Signer, verify
from node.replica import Replica
from node.stored import Stored
from node.transaction import Transaction
from protocol.frame import Holding, Ping, decode_frame, encode_frame
from tests.mutants.planting import plant
from tests.simulator import checks, invariants
from tests.simulator.bugs import Bug, bugs
from tests.simulator.cast import empty_database, opened
from tests.simulator.clockwork import Clockwork
from tests.simulator.disk import Disk
from tests.simulator.drawing import draw as picture
from tests.simulator.hostile import longer
from tests.simulator.play import ROOT, Regression, play, shrink
from tests.simulator.script import Deed, draw
from tests.simulator.stand_ins import Collision, Registry, standing_in
from tests.simulator.trace import Trace

FIXED = range(14)
MINUTES = 1.0
REGRESSIONS = sorted(Path(__file__).with_name("regressions").glob("*.json"))
NOT_HERE = {10, 18, 19}  # nothing is timed, there is one schema, nothing is shown


class TestRound:
    @pytest.mark.parametrize("seed", FIXED)
    def test_fixed_seeds(self, seed: int) -> None:
        assert play(draw(seed, MINUTES), Trace()).violation is None

    @pytest.mark.parametrize("file", REGRESSIONS, ids=lambda file: file.stem)
    def test_what_was_found_stays_mended(self, file: Path) -> None:
        kept = msgspec.json.decode(file.read_bytes(), type=Regression)
        assert play(kept.script, Trace()).violation is None

    def test_large_chats_have_trees(self) -> None:
        """Regression: no node knew whom it can reach, so no chat was large, however few that is."""
        told = Trace([])
        assert play(draw(306, 0.5), told).violation is None
        assert {line.what for line in told.kept or ()} >= {"IHAVE", "GRAFT", "PRUNE"}

    def test_somebody_looks_ahead(self) -> None:
        """Regression: nobody did, so no preview ever went beside a sync."""
        told = Trace([])
        assert play(draw(40, 0.3), told).violation is None
        assert "looks ahead" in {line.what for line in told.kept or ()}

    def test_commands_meet_the_node_before_they_write(self) -> None:
        """Regression: of those without names none did, so all wrote what they knew before."""
        told = Trace([])
        assert play(draw(40, 0.3), told).violation is None
        assert {"meets the node", "removes"} <= {line.what for line in told.kept or ()}

    def test_calls_cross(self) -> None:
        """Regression: no two nodes dialled each other at once, so no session was ended for that."""
        told = Trace([])
        assert play(draw(63, 0.3), told).violation is None
        assert "crosses" in {line.what for line in told.kept or ()}

    def test_another_process_of_a_device_writes(self) -> None:
        """Regression: each device was one process, so none had to see what another had written."""
        told = Trace([])
        assert play(draw(40, 0.3), told).violation is None
        assert "in another process" in {line.what for line in told.kept or ()}

    def test_every_invariant_has_its_checker(self) -> None:
        names = [*vars(checks.Checks), *vars(invariants)]
        found = {
            int(number)
            for name in names
            if re.match(r"i\d", name)
            for number in re.findall(r"(?<![a-z])i(\d+)_", name)
        }
        assert found | NOT_HERE == set(range(1, 21))


class TestReplay:
    def test_twice_with_other_hashes(self) -> None:
        command = [sys.executable, "-m", "tests.simulator", "--seeds", "2", "--first", "7"]
        ran = subprocess.run(
            [*command, "--minutes", "0.5", "--json"], cwd=ROOT, capture_output=True, check=True
        )
        said = json.loads(ran.stdout)
        assert said["seeds"] == 2
        assert said["violations"] == []
        assert said["events"] > 0

    def test_a_bug_is_found_and_shrunk(self) -> None:
        """A node that acknowledges one entry more than it has."""
        honest = Replica.holding

        def hasty(self: Replica, stored: Stored) -> Holding | None:
            holding = honest(self, stored)
            return holding and msgspec.structs.replace(holding, seq=holding.seq + 1)

        with mock.patch.object(Replica, "holding", hasty):
            script = draw(1, MINUTES)
            outcome = play(script, Trace())
            assert outcome.violation is not None
            assert outcome.violation.invariant == "I1"
            small = shrink(script, lambda _: None)
            assert {act.deed for act in small.acts} == {Deed.FOUND}
            assert play(small, Trace()).violation is not None
        assert play(small, Trace()).violation is None

    def test_the_story_and_its_picture(self) -> None:
        told, silent = Trace([]), Trace()
        outcome = play(draw(1, 0.2), told)
        assert play(draw(1, 0.2), silent).digest == outcome.digest == told.digest()
        assert "HELLO" in told.story()
        page = picture(told.kept or (), "seed 1")
        assert page.count("<svg") == 1
        assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


class TestBugs:
    """The planted bugs can still be planted; that they are found is for `make mutants` to show."""

    @pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
    def test_can_be_planted(self, bug: Bug, tmp_path: Path) -> None:
        for change in bug.changes:
            target = tmp_path / change.file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / change.file, target)
        plant(tmp_path, bug)
        for change in bug.changes:
            text = (tmp_path / change.file).read_text()
            assert text != (ROOT / change.file).read_text()
            compile(text, change.file, "exec")

    def test_none_is_there_twice(self) -> None:
        assert len({bug.name for bug in bugs()}) == len(bugs()) > 0


class TestClockwork:
    def test_order(self) -> None:
        clock, seen = Clockwork(0), list[str]()
        for name, after in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
            clock.after(after, partial(seen.append, name))
        clock.run(1.5, lambda: None)
        assert (seen, clock.now) == (["a", "b"], 1.5)

    def test_streams_are_apart(self) -> None:
        one, other = Clockwork(5), Clockwork(5)
        one.stream("disk").random()
        assert one.stream("network").random() == other.stream("network").random()


class TestStandIns:
    def test_only_what_was_signed_verifies(self) -> None:
        with standing_in(Registry()):
            key = Signer(bytes(32))
            signature = key.sign("sig", b"message")
            verify(key.public, "sig", b"message", signature)
            for bad in (
                (key.public, "sig", b"other", signature),
                (key.public, "revoke", b"message", signature),
                (Signer(b"1" * 32).public, "sig", b"message", signature),
                (key.public, "sig", b"message", bytes(64)),
            ):
                with pytest.raises(BadSignature):
                    verify(*bad)

    def test_seals(self) -> None:
        with standing_in(Registry()):
            prekey = sealing.Prekey(bytes(32))
            sealed = sealing.seal(prekey.public, b"info", b"secret")
            assert sealing.open_seal(bytes(32), b"info", sealed) == b"secret"
            for private, info in ((b"1" * 32, b"info"), (bytes(32), b"other")):
                with pytest.raises(SealRefused):
                    sealing.open_seal(private, info, sealed)

    def test_collisions_are_seen(self) -> None:
        registry = Registry()
        registry.seals[registry.seal(b"key", b"", b"a")] = b"key", b"", b"b"
        with pytest.raises(Collision):
            registry.seal(b"key", b"", b"a")
        with pytest.raises(InvalidTag):
            registry.open(b"key", b"", bytes(9))


class Bench:
    """A disk, its clock, and what it has told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.clock = Clockwork(0)
        self.connection = opened(empty_database())
        transaction = Transaction(self.connection, lambda: self.told.append("forgotten"))
        self.disk = Disk(self.clock, "disk", transaction, lambda: self.told.append("durable"))

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM chats").get)

    def begin(self) -> None:
        """Write two rows; the transaction has begun."""
        for number in range(2):
            self.disk.write(
                partial(self._write, number), lambda error: self.told.append(type(error).__name__)
            )
        self.run(0.0)

    def _write(self, number: int) -> None:
        self.connection.execute("INSERT INTO chats (id) VALUES (?)", (bytes([number]),))

    def run(self, until: float) -> None:
        self.clock.run(until, lambda: None)


class TestDisk:
    """Jobs of one transaction stand or fall together, and nobody is told before."""

    def test_a_commit(self) -> None:
        bench = Bench()
        bench.begin()
        bench.disk.read(lambda: bench.told.append(f"read {bench.count()}"))
        assert bench.told == []
        bench.run(9.0)
        assert bench.told == ["durable", "read 2", "NoneType", "NoneType"]

    def test_a_crash(self) -> None:
        bench = Bench()
        bench.begin()
        bench.disk.crash()
        bench.run(9.0)
        assert (bench.told, bench.count()) == (["forgotten"], 0)

    def test_a_full_disk(self) -> None:
        bench = Bench()
        bench.disk.faults.full = True
        bench.begin()
        bench.run(9.0)
        assert bench.told == ["forgotten", "StorageError", "StorageError"]
        assert bench.count() == 0


def test_a_frame_of_a_newer_version_is_understood() -> None:
    """SPEC 6.2: further elements after the known ones are ignored."""
    assert decode_frame(longer(encode_frame(Ping()))[4:]) == Ping()
