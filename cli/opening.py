"""The device behind an official's command: its folder, its passphrase, and its way to the node.

A command takes up first what is new at the node, if that can be reached: who is in a chat by now
reads what is written. What it writes is stored in one transaction, whether the node is there or
not. So every command works without a network, and what could not be brought is queued.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Generic, TypeVar

import typer

from cli.output import Output, note

if TYPE_CHECKING:
    from client.device import Device
    from client.exchange import Visit
    from client.link import Link
    from node.errors import IvorError
    from protocol.chat import Chat
    from protocol.entry import ChatId, Reference
    from protocol.errors import PeerError
    from protocol.identity import UserId

Result = TypeVar("Result")

SETTLE_SECONDS: Final = 3.0
MEET_SECONDS: Final = 5.0  # for TLS, then a greeting; by satellite TLS takes 1 to 4
REPLACE: Final = (
    "other chats go on, 'ivor log verify --all' says which are whole. It can not be mended: take a "
    "new device in its place, by 'ivor device link' on another one of yours, or by 'ivor node "
    "invite --recover' and your recovery words; it has all from your node, but for what was queued "
    "here, and 'ivor recover' brings back a backup"
)
NOT_CONFIRMED: Final = "the node has not confirmed yet that it is stored; 'ivor sync' asks again"
_FOLDER: Final = "ivor"
_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False, "": False}

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="IVOR_HOME",
        help="The device's folder [~/.local/share/ivor].",
        show_default=False,
    ),
]


def home_folder(home: Path | None) -> Path:
    """Return the folder of the device: the given one, else that of XDG. Raises UserError."""
    from node.errors import UserError

    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    chosen = Path(base) / _FOLDER if home is None else home
    try:
        return chosen.expanduser()
    except RuntimeError:
        raise UserError(
            f"whose home {chosen} means is not known here: give the device's folder with --home, "
            "or set IVOR_HOME"
        ) from None


def quiet_log() -> None:
    """Let no log line of the node's code reach the official's terminal, unless something broke."""
    from node.logs import log_form, open_log

    open_log(sys.stderr, log_form(sys.stderr), "error")


@contextmanager
def opened(home: Path | None, passphrase_file: Path | None) -> "Iterator[Device]":
    """Open the device for the length of a block. Raises DamagedError, which says what to do."""
    import apsw

    from node.errors import DamagedError

    try:
        with _opened(home, passphrase_file) as device:
            yield device
    except (apsw.CorruptError, DamagedError) as error:
        said = f"what this command reads on this device is damaged ({error}); {REPLACE}"
        raise DamagedError(said) from error


def note_damaged(device: "Device") -> None:
    """Say which chats are damaged here, if some are: they are in no list."""
    from client.chats import SHORT_CHARS

    damaged = ", ".join(chat.hex()[:SHORT_CHARS] for chat in device.damaged())
    if damaged:
        note(f"damaged here: the chats {damaged}; {REPLACE}")


@contextmanager
def _opened(home: Path | None, passphrase_file: Path | None) -> "Iterator[Device]":
    from cli.passphrase import read_passphrase
    from client import identities
    from client.attaching import clear_dropped
    from client.device import open_device
    from client.erasure import erase_prekeys
    from client.folder import is_device
    from node.errors import UserError

    folder = home_folder(home)
    if not is_device(folder):
        raise UserError(
            f"no device in {folder}: enrol with 'ivor join INVITATION', or set IVOR_HOME"
        )
    quiet_log()
    device = open_device(folder, read_passphrase(passphrase_file, "this device"), os.urandom)
    try:
        erase_prekeys(device, now_ms())
        clear_dropped(device)
        if device.displaced:
            fetch(device)  # what it wrote elsewhere meanwhile, before it writes anything here
        yield device
        for name in identities.changed(device).values():
            note(identities.warning(name))
    finally:
        device.close()


class Offline(Generic[Result]):
    """What became of a change. problem: why the node does not have it yet, None if it has."""

    def __init__(self, result: Result, problem: str | None) -> None:
        self.result = result
        self.problem = problem

    def tell(self, as_json: bool, record: dict[str, object]) -> None:
        """Print what was done, and whether the node has it already."""
        self.warn()
        state = "stored" if self.problem is None else "queued"
        Output(as_json).facts(record | {"state": state, "problem": self.problem})

    def warn(self) -> None:
        """Say that it is queued, if it is."""
        if self.problem is not None:
            note(f"queued: {self.problem}")


def change(
    device: "Device",
    names: Sequence[str],
    work: "Callable[[Sequence[UserId]], Result]",
) -> Offline[Result]:
    """Look users up, write something about them in one transaction, and bring it to the node.

    work: gets the users in the order of `names`. Without a network those known here have to do,
    and what was written is queued. Raises UserError for a user who is not known.
    """
    import trio

    from node.errors import IvorError, NetworkError
    from protocol.errors import PeerError

    done: list[Result] = []
    try:
        trio.run(_change, device, names, work, done)
    except (IvorError, PeerError) as error:
        if not done and not isinstance(error, NetworkError):
            raise
        if not done:
            users = _known(device, names, str(error))
            with device.transaction():
                done.append(work(users))
        return Offline(done[0], str(error))
    except KeyboardInterrupt:
        goes = "written, and goes with the next command" if done else "not written"
        note(f"interrupted: the change is {goes}")
        raise
    return Offline(done[0], None)


async def _change(
    device: "Device",
    names: "Sequence[str]",
    work: "Callable[[Sequence[UserId]], Result]",
    done: list[Result],
) -> None:
    from client.exchange import decide, hand_out, receive, stay_known
    from client.link import linked
    from client.people import acquaintance
    from node.errors import NetworkError
    from node.wire import TLS_SECONDS_MAX

    known = all(acquaintance(device, name) for name in names)
    patience = MEET_SECONDS if known else TLS_SECONDS_MAX
    async with linked(device, patience=patience) as link:
        try:
            await link.meet(patience)
            await link.settle(SETTLE_SECONDS)
            await receive(device, link)
            for one in await decide(device, link):
                note(one.told)
            await link.seek()
            users = await link.look_up(names) if names else []
            written = await link.journal.begin(partial(work, users), done.append)
            await written()
            if not await link.settle(SETTLE_SECONDS):
                raise NetworkError(NOT_CONFIRMED)
            await hand_out(device, link)
            await stay_known(device, link)
        finally:  # no later session says it again
            for refused in dict.fromkeys(link.refused):
                note(refused)


def _known(device: "Device", names: Sequence[str], problem: str) -> "list[UserId]":
    from client.people import acquaintance
    from node.errors import NetworkError

    found = []
    for name in names:
        person = acquaintance(device, name)
        if person is None:
            raise NetworkError(f"{name} is not known here yet, and {problem}")
        found.append(person.user)
    return found


def tell_of(done: "Visit") -> None:
    """Say what a visit has done, and what it has not taken: no later one says it again."""
    for said in done.told:
        note(said)


async def _nothing_first(_: "Link") -> None:
    """Begin a visit without anything before it."""


def fetch(
    device: "Device", first: "Callable[[Link], Awaitable[None]]" = _nothing_first
) -> "IvorError | PeerError | None":
    """Take what is new at the node, for a short time; return why that did not work, or None.

    first: what to do as soon as the node is connected.
    """
    import trio

    from client.erasure import drop_aged
    from client.exchange import visit
    from client.link import linked
    from node.errors import IvorError
    from protocol.errors import PeerError

    async def run() -> None:
        async with linked(device, patience=MEET_SECONDS) as link:
            await first(link)
            await link.meet(MEET_SECONDS)
            done = await visit(device, link, SETTLE_SECONDS)
        tell_of(done)

    try:
        trio.run(run)
    except (IvorError, PeerError) as error:  # what is here can be read, but for what is too old
        drop_aged(device)
        return error
    return None


def bring_in(device: "Device", first: "Callable[[Link], Awaitable[None]]" = _nothing_first) -> None:
    """Take what is new at the node, and open what other commands have fetched and left sealed.

    first: as in `fetch`.
    """
    from client.arrivals import take_in

    problem = fetch(device, first)
    with device.transaction():
        take_in(device, now_ms())
    if problem is not None:
        note(f"what is here; {problem}")


def locate(device: "Device", name: str) -> "Chat":
    """Return the chat that is meant; one not known here is looked for at the node."""
    from client.chats import NoSuchChat, find
    from node.errors import DamagedError

    try:
        return find(device, name)
    except (NoSuchChat, DamagedError):
        if fetch(device) is not None:
            raise
    return find(device, name)


def letter(device: "Device", chat: "ChatId", message_id: str) -> "Reference":
    """Return the message that is meant; one not known here is looked for at the node."""
    from client.chats import NoSuchLetter, find_letter

    try:
        return find_letter(device, chat, message_id)
    except NoSuchLetter:
        bring_in(device)
    return find_letter(device, chat, message_id)


def addresses(device: "Device", names: Sequence[str]) -> list[str]:
    """Read `anna@minzdrav` as typed, each once; warn of one that looks like another known one."""
    from node.errors import UserError
    from protocol.name import look_alike, parse_address

    found = list(dict.fromkeys(parse_address(name).text for name in names))
    if device.profile.name in found:
        raise UserError("that is you: name somebody else")
    known = [row[0] for row in device.connection.execute("SELECT name FROM users")]
    for name in found:
        for other in known:
            if look_alike(name, other):
                note(f"careful: {name} ({name!a}) is not {other} ({other!a}), it only looks alike")
    return found


def now_ms() -> int:
    """Return the time in milliseconds UTC."""
    import time

    return int(time.time() * 1000)


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask the person at the terminal. yes: of --yes. Raises UserError if there is nobody to ask."""
    if yes:
        return True
    _check_somebody_is_there(question)
    return typer.confirm(question, err=True)


async def confirmed_meanwhile(question: str, *, yes: bool) -> bool:
    """The same in an event loop, in which a session goes on while the person thinks."""
    from trio.lowlevel import wait_readable

    if yes:
        return True
    _check_somebody_is_there(question)
    while True:
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
        try:
            await wait_readable(sys.stdin.fileno())  # a terminal has a line then
        except BaseException:
            print(file=sys.stderr)  # what is said of it begins a line
            raise
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise typer.Abort
        answer = line.strip().lower()
        if answer in _ANSWERS:
            return _ANSWERS[answer]


def _check_somebody_is_there(question: str) -> None:
    from node.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(f"nobody is there to answer: {question} Look again, then repeat with --yes")
