"""`ivor join` at a node that runs: whatever ends it, the same command goes on where it was.

    with closing(Joins(folder, commands)) as joins:
        done = joins.film()                     # undisturbed
        joins.play(fault=Action.KILL, at=7)     # killed, or its disk fails
        joins.cut(done, seed=4711)              # killed, and the power goes

The node registers a device before the answer has come. In the end the user has one device there,
not none, and not a second.
"""

import itertools
import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import apsw

from client.folder import is_device
from tests.crash.forks import ROOT, Action, Commands, Done
from tests.crash.power import image
from tests.crash.scenes import SECRET, check_told
from tests.hostile.federation import free_endpoint

STOP_SECONDS_MAX = 60
DEVICES = "SELECT count(*) FROM devices JOIN users ON users.id = user WHERE name = ?"


class Joins:
    """An agency whose node runs, and a home that is empty each time."""

    name = "join"

    def __init__(self, base: Path, commands: Commands) -> None:
        self._commands = commands
        self._agency = base / "agency"
        self._homes = base / "homes"  # what may fail
        self._home = self._homes / "zoya"
        self._secret = base / "pass"
        self._invitation = base / "invitation"
        self._numbers = itertools.count()
        self._user = ""
        base.mkdir()
        self._homes.mkdir()
        self._secret.write_bytes(SECRET)
        self._secret.chmod(0o600)
        listen = ("--listen", free_endpoint(), "--allow-local")
        self._do("agency", "create", "mz", "--zone", "RU", *listen, "--dir", str(self._agency))
        self._node = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        arguments = ("node", "run", "--dir", self._agency, "--passphrase-file", self._secret)
        node = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments, "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert node.stdout is not None
        assert "ready" in node.stdout.readline()
        return node

    def close(self) -> None:
        """Stop the node."""
        self._node.terminate()
        self._node.communicate(timeout=STOP_SECONDS_MAX)

    def _run(self, *arguments: str, fault: Action | None = None, at: int = 0) -> Done:
        secret = str(self._secret)
        environment = {"IVOR_PASSPHRASE_FILE": secret, "IVOR_ROOT_PASSPHRASE_FILE": secret}
        environment["IVOR_HOME"] = str(self._home)
        return self._commands.run([*arguments, "--json"], self._homes, environment, fault, at)

    def _do(self, *arguments: str) -> str:
        done = self._run(*arguments)
        assert done.code == 0, done.err
        return done.out

    def _invite(self) -> None:
        """Invite somebody new, who has nothing yet."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._user = f"zoya{next(self._numbers)}"
        told = json.loads(self._do("node", "invite", self._user, "--dir", str(self._agency)))
        self._invitation.write_text(told["invitation"])

    def _join(self, fault: Action | None = None, at: int = 0) -> Done:
        return self._run("join", str(self._invitation), "--label", "desk", fault=fault, at=at)

    def film(self) -> Done:
        """Join undisturbed."""
        self._invite()
        done = self._join()
        assert done.code == 0, done.err
        self._check()
        return done

    def play(self, fault: Action, at: int) -> None:
        """Join with a fault, and then again."""
        self._invite()
        done = self._join(fault, at)
        check_told(done, fault)
        self._again(ended=done.code == 0)

    def cut(self, film: Done, seed: int) -> None:
        """Join until some moment, at which the power goes; then again."""
        random = Random(seed)
        self._invite()
        done = self._join(Action.KILL, random.randrange(film.operations * 5 // 4))
        shutil.rmtree(self._homes)
        self._homes.mkdir()
        for name, data in image(done.log, random, {}).items():
            file = self._homes / name
            file.parent.mkdir(exist_ok=True, mode=0o700)
            file.write_bytes(data)
        self._again(ended=done.code == 0)

    def _again(self, *, ended: bool) -> None:
        assert is_device(self._home) or not ended, "it said that it was done"
        if list(self._home.glob("joining-*")) or not is_device(self._home):
            done = self._join()
            assert done.code == 0, f"the second time: {done.err}"
        self._check()

    def _check(self) -> None:
        """There is one device, here and at the node, and it opens."""
        assert json.loads(self._do("whoami"))["name"] == f"{self._user}@mz"
        with closing(apsw.Connection(str(self._agency / "node.db"))) as connection:
            assert connection.execute(DEVICES, (f"{self._user}@mz",)).get == 1
