"""What happens in the demo, in order; each step prints what it did and checks that it worked."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from cli.demo.actors import AgencyActor, Answer, OfficialActor
from cli.demo.relay import Network
from node.words import counted

ARRIVAL_SECONDS_MAX = 20.0
TITLE = "Бюджет 2027"
TABLE = "ведомство;тыс. руб.\n".encode() + b"minzdrav;12400\n" * 400
TABLE_NOTE = "Таблица к обсуждению"

Say = Callable[[str], None]
Actor = TypeVar("Actor")


class CheckFailed(Exception):
    """Something that the demo promises did not hold."""


@dataclass(slots=True)
class Stage:
    """Who takes part, and what was said so far."""

    say: Say
    network: Network
    agencies: Sequence[AgencyActor]
    officials: Sequence[OfficialActor]
    terminals: trio.Nursery
    passed: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def act(self, text: str) -> None:
        """Begin a step."""
        self.say(f"\n[{time.monotonic() - self.started:5.1f} s] {text}")

    def check(self, what: str, *, holds: bool) -> None:
        """Note a check. Raises CheckFailed."""
        if not holds:
            raise CheckFailed(what)
        self.passed.append(what)
        self.say(f"          ✓ {what}")


async def together(work: Callable[[Actor], Awaitable[object]], actors: Sequence[Actor]) -> None:
    """Do the same with each of these actors, side by side."""

    async def one(actor: Actor) -> None:
        await work(actor)

    async with trio.open_nursery() as nursery:
        for actor in actors:
            nursery.start_soon(one, actor)


async def texts(official: OfficialActor) -> list[str]:
    """Return the texts that an official's device shows now, in its order."""
    letters = await official.run("read", TITLE, "--limit", "1000")
    return [str(letter["text"]) for letter in letters if letter.get("kind") == "text"]


async def sync(official: OfficialActor) -> None:
    """Sync one device."""
    await official.run("sync")


async def everyone_reads(
    stage: Stage, readers: Sequence[OfficialActor], wanted: Sequence[str]
) -> None:
    """Check that these officials are shown these texts in the terminals that they keep open."""
    lacking: list[str] = []

    async def look(official: OfficialActor) -> None:
        if not await official.sees(wanted, ARRIVAL_SECONDS_MAX):
            lacking.append(official.address)

    await together(look, readers)
    but = f", but not {', '.join(lacking)}" if lacking else ""
    read = f"{counted(len(readers), 'official')} read {counted(len(wanted), 'message')}"
    stage.check(f"{read}{but}", holds=not lacking)


async def say_in_chat(stage: Stage, official: OfficialActor, text: str) -> None:
    """Send a message and tell so."""
    if "\n" in text:
        await official.run("send", TITLE, "-", text=text)
        stage.say(f"          {official.address}: a text of {len(text)} characters from a file")
    else:
        await official.run("send", TITLE, "--", text)
        stage.say(f"          {official.address}: {text}")
    official.written.append(text)


async def found(stage: Stage) -> None:
    """Create the agencies, let them trust each other, start the nodes."""
    stage.act("Three agencies are founded, each with its own keys and node.")

    async def create(agency: AgencyActor) -> None:
        await agency.run(
            "agency", "create", agency.name, "--zone", "RU-UDM",
            "--listen", agency.address, "--allow-local",
        )  # fmt: skip

    await together(create, stage.agencies)

    async def trust(agency: AgencyActor) -> None:
        for other in stage.agencies:
            if other is not agency:
                await agency.run("node", "trust", str(other.folder / "card.ivor"), "--yes")

    await together(trust, stage.agencies)
    await together(AgencyActor.start, stage.agencies)
    names = ", ".join(agency.name for agency in stage.agencies)
    stage.say(f"          {names}: nodes run and trust each other's cards")


async def enrol(stage: Stage) -> None:
    """Invite and enrol the officials."""
    stage.act("Six officials enrol with one-time invitations.")

    async def join(official: OfficialActor) -> None:
        (invitation,) = await official.agency.run("node", "invite", official.name)
        await official.run("join", "-", text=str(invitation["invitation"]))
        await official.run("sync")

    await together(join, stage.officials)
    stage.say(f"          {', '.join(one.address for one in stage.officials)}")


async def talk(stage: Stage, readme: str) -> None:
    """Start a chat across the agencies and write in it."""
    anna, *others = stage.officials
    stage.act(f"{anna.address} starts the chat “{TITLE}” with the other five.")
    await anna.run("chat", "new", TITLE, *(one.address for one in others))
    await together(sync, others)
    for official in stage.officials:
        stage.terminals.start_soon(official.watch, TITLE)
    lines = (
        (anna, "Коллеги, начинаем согласование бюджета."),
        (others[1], "Good morning. The figures for digital services are ready."),
        (others[3], "Минфин на связи, ждём таблицы до пятницы."),
        (others[0], readme),
    )
    for official, text in lines:
        await say_in_chat(stage, official, text)
    await everyone_reads(stage, stage.officials, _all_written(stage))


def _all_written(stage: Stage) -> list[str]:
    return [text for official in stage.officials for text in official.written]


async def share(stage: Stage) -> None:
    """Send a small file; another agency's official must get the very same bytes."""
    anna, galina = stage.officials[0], stage.officials[4]
    stage.act(f"{anna.address} sends a table to the chat as a file.")
    table = trio.Path(anna.home.parent / "Бюджет 2027.csv")
    await table.write_bytes(TABLE)
    (sent,) = await anna.run("send", TITLE, TABLE_NOTE, "--file", str(table))
    await galina.sees([TABLE_NOTE], ARRIVAL_SECONDS_MAX)
    got = trio.Path(galina.home / "got.csv")
    await galina.run("get", TITLE, str(sent["id"])[:16], "--output", str(got))
    stage.check(
        f"{galina.address} has the same {len(TABLE)} bytes",
        holds=await got.read_bytes() == TABLE,
    )


async def crash(stage: Stage) -> None:
    """Kill a node with SIGKILL in the middle, and start it again."""
    victim = stage.agencies[1]
    stage.act(f"The node of {victim.name} is killed with SIGKILL; work goes on.")
    await victim.kill()
    theirs = [one for one in stage.officials if one.agency is victim]
    rest = [one for one in stage.officials if one.agency is not victim]
    await say_in_chat(stage, theirs[0], "Written while our own node is down.")
    await say_in_chat(stage, rest[0], "Пишу, пока узел соседей не работает.")
    await victim.start()
    stage.say(f"          {victim.name} is up again on the same database")
    await everyone_reads(stage, stage.officials, _all_written(stage))


async def partition(stage: Stage) -> None:
    """Cut one agency off, let both sides write, and bring the link back."""
    lonely = stage.agencies[2]
    stage.act(f"The line to {lonely.name} is cut. Both sides go on writing.")
    stage.network.cut_off(lonely.host)
    inside = [one for one in stage.officials if one.agency is lonely]
    outside = [one for one in stage.officials if one.agency is not lonely]
    await say_in_chat(stage, inside[0], "Связи с другими ведомствами нет, работаем дальше.")
    await say_in_chat(stage, inside[1], "We can still read each other here.")
    await say_in_chat(stage, outside[0], "Минфин не отвечает, продолжаем без них.")
    await say_in_chat(stage, outside[2], "Noted; they will catch up later.")
    wrong: list[str] = []
    for reader, near, far in (
        (inside[1], inside[0], outside[0]),
        (outside[1], outside[2], inside[0]),
    ):
        if not await reader.sees(near.written, ARRIVAL_SECONDS_MAX):
            wrong.append(f"{reader.address} misses what {near.address} wrote")
        if far.written[-1] in reader.shown:
            wrong.append(f"{reader.address} reads what {far.address} wrote")
    but = f", but {', '.join(wrong)}" if wrong else ""
    stage.check(f"each side reads its own and nothing of the other{but}", holds=not wrong)
    stage.network.restore()
    stage.say("          the line is back")
    await everyone_reads(stage, stage.officials, _all_written(stage))


async def remove(stage: Stage) -> None:
    """Remove a member; what follows must be unreadable to them."""
    anna, gone = stage.officials[0], stage.officials[-1]
    stage.act(f"{anna.address} removes {gone.address}; what follows is not for them.")
    await anna.run("chat", "remove", TITLE, gone.address)
    private = "Только для тех, кто остался: предел 12,4 млн."
    await say_in_chat(stage, anna, private)
    remaining = stage.officials[:-1]
    await everyone_reads(stage, remaining, [private])
    await gone.run("sync")
    stage.check(f"{gone.address} can not read it", holds=private not in await texts(gone))


async def verify(stage: Stage) -> None:
    """Verify every log from its bytes, and compare what everyone sees."""
    stage.act("Every device verifies its whole log, from the bytes up.")
    reports: dict[str, Answer] = {}

    async def check(official: OfficialActor) -> None:
        (reports[official.address],) = await official.run("log", "verify", TITLE)

    await together(check, stage.officials)
    for who, report in sorted(reports.items()):
        stage.say(f"          {who}: {report['control']} control, {report['content']} content")
    stage.check(
        f"{len(reports)} logs are sound",
        holds=len(reports) == len(stage.officials) and all(r["sound"] for r in reports.values()),
    )
    orders: dict[str, list[str]] = {}

    async def order(official: OfficialActor) -> None:
        orders[official.address] = await texts(official)

    await together(order, stage.officials[:-1])
    first, *others = orders.values()
    stage.check(
        "all members see the same messages in the same order",
        holds=all(one == first for one in others) and sorted(first) == sorted(_all_written(stage)),
    )


async def stop(stage: Stage) -> None:
    """Stop the nodes as an operator would."""
    stage.act("The nodes are stopped with SIGTERM.")
    codes = [await agency.stop() for agency in stage.agencies]
    stage.check("all nodes ended cleanly", holds=codes == [0] * len(codes))


async def play(stage: Stage, readme: Path) -> None:
    """Play the whole story. Raises CheckFailed or CommandFailed."""
    text = (await trio.Path(readme).read_text(encoding="utf-8")).strip()
    await found(stage)
    await enrol(stage)
    await talk(stage, text)
    await share(stage)
    await crash(stage)
    await partition(stage)
    await remove(stage)
    await verify(stage)
    await stop(stage)
