"""Commands whose files must be whole whatever happens, and what each must leave behind.

    world = World(folder, commands)                    # an agency, a device, and an older backup
    for scene in world.scenes(): ...
    scene.play(fault=Action.KILL, at=7)                # fails if the old or the new is not whole
    scene.cut(seed=4711)                               # the power goes, or has gone after its end

A command that cannot do its work ends with 3 and one line that says why. One that ends with 0 has
done it, for good. After any end the same command works again.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import apsw

from client import backup as device_backup
from client import compose
from node import backup as node_backup
from node.agency import open_agency
from protocol.file import File
from tests.crash.forks import Action, Commands, Done
from tests.crash.power import Image, image
from tests.crash.work import here, sound
from tests.federation import PASSPHRASE, Federation, now

SECRET = b"a passphrase of nobody's"
TITLE = "Budget"
CONTENT = b"1;2;3\n" * 4000
STORAGE = 3
FAILURE = '{"v": 1, "type": "failure"'  # with --json


class World:
    """A folder with an agency's node, an official's device, and backups of both."""

    def __init__(self, base: Path, commands: Commands) -> None:
        self.commands = commands
        self.base = base
        self.home = base / "home"  # what commands work on
        self.secrets = {"IVOR_PASSPHRASE_FILE": base / "pass", "IVOR_HOME": self.home / "anna"}
        self.secrets["IVOR_ROOT_PASSPHRASE_FILE"] = base / "pass"
        base.mkdir()
        self.home.mkdir()
        for name, secret in (("pass", SECRET), ("device-pass", PASSPHRASE)):
            (base / name).write_bytes(secret)
            (base / name).chmod(0o600)
        federation = Federation(base / "federation")
        with here():
            anna, boris = (federation.official(name) for name in ("anna@mz", "boris@mvd"))
        chat = federation.chat(anna, TITLE, boris)
        federation.say(anna, chat, "before")
        with anna.transaction():
            file = File("budget.csv", "text/csv", CONTENT, "")
            self.file = compose.send(anna, chat, file, now(), None).id.hex()
        federation.close()
        shutil.copytree(anna.folder, self.home / "anna")
        self.device = anna
        for name in ("mz", "mvd"):
            self.do("agency", "create", name, "--zone", "RU", "--dir", self.home / name)
        self.do("node", "trust", self.home / "mvd/card.ivor", "--dir", self.home / "mz", "--yes")
        self.do("node", "invite", "vera", "--dir", self.home / "mz")
        self.do("node", "backup", self.home / "node.backup", "--dir", self.home / "mz")
        self.official("backup", self.home / "anna.backup")
        self.agency("late")
        shutil.copytree(self.home, base / "template")

    def agency(self, name: str) -> None:
        """Make another agency, of which only the card stays."""
        folder = self.base / name
        self.do("agency", "create", name, "--zone", "RU", "--dir", folder)
        shutil.move(folder / "card.ivor", self.home / f"{name}.card")

    def run(
        self, arguments: Sequence[str | Path], fault: Action | None = None, at: int = 0
    ) -> Done:
        """Run a command."""
        official = arguments[0] in {"send", "read", "backup", "evidence", "get"}
        secret = self.base / ("device-pass" if official else "pass")
        environment = {name: str(value) for name, value in self.secrets.items()}
        environment["IVOR_PASSPHRASE_FILE"] = str(secret)
        words = [str(word) for word in arguments]
        return self.commands.run(words, self.home, environment, fault, at)

    def do(self, *arguments: str | Path) -> Done:
        """Run a command that must succeed."""
        done = self.run(arguments)
        assert done.code == 0, done.err
        return done

    official = do

    def reset(self) -> None:
        """Bring everything back to where it was."""
        shutil.rmtree(self.home)
        shutil.copytree(self.base / "template", self.home)

    @cached_property
    def before(self) -> Image:
        """What is durable before a command, by path."""
        template = self.base / "template"
        return {
            str(path.relative_to(template)): path.read_bytes()
            for path in template.rglob("*")
            if path.is_file()
        }

    def fill(self, files: Image) -> None:
        """Put an image of the disk in the place of everything."""
        shutil.rmtree(self.home)
        self.home.mkdir()
        for name, data in files.items():
            path = self.home / name
            path.parent.mkdir(exist_ok=True, mode=0o700)
            path.write_bytes(data)

    # What is there afterwards

    def whole_agency(self, name: str) -> bool:
        """Whether an agency's folder is there; it is whole then."""
        folder = self.home / name
        if not folder.exists():
            return False
        open_agency(folder, SECRET)
        if (folder / "node.db").exists():
            with closing(apsw.Connection(str(folder / "node.db"))) as connection:
                sound(connection)
        return True

    def trusted(self) -> bool:
        """Whether the node trusts the agency that came late."""
        listed = self.do("node", "peers", "--dir", self.home / "mz", "--json").out
        return "late" in listed

    def invitations(self) -> int:
        """How many invitations are known to the node."""
        assert self.whole_agency("mz")
        with closing(apsw.Connection(str(self.home / "mz/node.db"))) as connection:
            return int(connection.execute("SELECT count(*) FROM tickets").get)

    def invited(self) -> bool:
        """Whether there is a further invitation."""
        return self.invitations() == 2

    def backed_up(self) -> bool:
        """Whether the backup is a new one. It can be restored in any case."""
        folder = self.base / "restored"
        shutil.rmtree(folder, ignore_errors=True)
        node_backup.restore(self.home / "node.backup", folder)
        open_agency(folder, SECRET)
        return (self.home / "node.backup").read_bytes() != self.before["node.backup"]

    def letters_backed_up(self) -> bool:
        """Whether the device's backup is a new one. It is whole in any case."""
        user = self.device.secrets.user
        assert user is not None
        device_backup.check(self.device, self.home / "anna.backup", user.seed, lambda _: None)
        return (self.home / "anna.backup").read_bytes() != self.before["anna.backup"]

    def written(self) -> bool:
        """Whether the message is in the chat, once; what was there before is there."""
        out = self.official("read", TITLE, "--json").out
        texts = [json.loads(line).get("text") for line in out.splitlines()]
        assert "before" in texts
        assert texts.count("after") <= 1
        return "after" in texts

    def exported(self) -> bool:
        """Whether there is evidence; it checks then."""
        file = self.home / "e.evidence"
        if file.exists():
            self.do("evidence", "check", file)
        return file.exists()

    def received(self) -> bool:
        """Whether the file of a message is there; it is whole then, and there is no part of it."""
        file = self.home / "budget.csv"
        assert not list(self.home.glob(".ivor-*"))
        assert not file.exists() or file.read_bytes() == CONTENT
        return file.exists()

    def scenes(self) -> list["Scene"]:
        """Return all scenes."""
        mz, new = self.home / "mz", self.home / "new"
        card, evidence = self.home / "late.card", self.home / "e.evidence"
        budget = self.home / "budget.csv"
        return [
            Scene(
                self,
                "create",
                ("agency", "create", "new", "--zone", "RU", "--dir", new),
                lambda: self.whole_agency("new"),
            ),
            Scene(self, "trust", ("node", "trust", card, "--dir", mz, "--yes"), self.trusted),
            Scene(self, "invite", ("node", "invite", "zoya", "--dir", mz), self.invited),
            Scene(
                self,
                "node-backup",
                ("node", "backup", self.home / "node.backup", "--dir", mz),
                self.backed_up,
            ),
            Scene(
                self,
                "node-restore",
                ("node", "restore", self.home / "node.backup", "--dir", new),
                lambda: self.whole_agency("new"),
            ),
            Scene(self, "send", ("send", TITLE, "after", "--idempotency-key", "1"), self.written),
            Scene(self, "backup", ("backup", self.home / "anna.backup"), self.letters_backed_up),
            Scene(self, "get", ("get", TITLE, self.file, "-o", budget), self.received),
            Scene(self, "evidence", ("evidence", "export", TITLE, "-o", evidence), self.exported),
        ]


def check_told(done: Done, fault: Action) -> None:
    """Fail unless a command says in one line that its disk failed, if it did not end well."""
    assert "Traceback" not in done.err, done.err
    assert "a bug" not in done.err, done.err
    if fault in {Action.EIO, Action.FULL}:
        said = [line for line in done.err.splitlines() if line.startswith(("ivor: ", FAILURE))]
        assert (done.code, len(said)) in {(0, 0), (STORAGE, 1)}, (done.code, done.err)


@dataclass(frozen=True, slots=True)
class Scene:
    """One command. happened: whether it has had its effect; fails if anything is not whole."""

    world: World
    name: str
    arguments: tuple[str | Path, ...]
    happened: Callable[[], bool]

    def film(self) -> Done:
        """Run it undisturbed."""
        self.world.reset()
        done = self.world.run(self.arguments)
        assert done.code == 0, done.err
        assert self.happened()
        return done

    def play(self, fault: Action, at: int) -> None:
        """Run it with a fault."""
        self.world.reset()
        done = self.world.run(self.arguments, fault, at)
        check_told(done, fault)
        happened = self.happened()
        assert happened or done.code != 0, "it said that it was done"
        self._again(happened=happened)

    def cut(self, done: Done, seed: int) -> None:
        """Let the power go while it runs, or right after its end. done: of `film`."""
        random = Random(seed)
        ended = random.random() < 0.3
        at = len(done.log) if ended else random.randrange(len(done.log))
        self.world.fill(image(done.log[:at], random, self.world.before))
        happened = self.happened()
        assert happened or not ended, "it was done, and is lost"
        self._again(happened=happened)

    def _again(self, *, happened: bool) -> None:
        if not happened:
            done = self.world.run(self.arguments)
            assert done.code == 0, f"the second time: {done.err}"
            assert self.happened()
