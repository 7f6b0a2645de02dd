"""Deeds of users with their own devices: one is brought in, given up, or lost and replaced."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from client import backup, handing
from client.delivery import unstored
from client.linking import bring_in
from client.revoking import revoke_own
from client.witnessing import keep_listed
from protocol.entry import DeviceKey
from protocol.person import Person
from tests.simulator.cast import MEMORY
from tests.simulator.devices import DeviceParty, Saved
from tests.simulator.script import Act
from tests.simulator.stage import Stage
from tests.simulator.stored import readable

AGAIN_SECONDS = 5.0


def second(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Certify another device of the user, bring it into their chats, and owe it the history."""
    del act
    if not device.is_further:
        stage.certify(device, partial(_bring_in, device))


def _bring_in(device: DeviceParty, other: DeviceKey, person: Person) -> None:
    def work() -> None:
        keep_listed(device.device, person)
        bring_in(device.device, device.wall)

    _hand_over(device, other, work)


def _hand_over(device: DeviceParty, other: DeviceKey, before: Callable[[], object] = bool) -> None:
    known: dict[DeviceKey, frozenset[bytes]] = {}

    def work() -> None:
        before()
        handing.begin(device.device, other)
        known[other] = readable(device.connection)

    device.act("hands over what it has", work, lambda: device.handed.update(known))


def give_up(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Put somebody's second device out of their chats; their first one has the node refuse it.

    It does so itself now and then: then it waits until the node has all that it wrote.
    """
    del device
    further = [one for one in stage.devices if one.is_further and not one.given_up]
    if not further:
        return
    target = further[act.who % len(further)]
    if act.draw % 3:
        firsts = [one for one in stage.devices if one.user == target.user and not one.is_further]
        _give_up(firsts[-1], target)
    else:
        _give_up(target, target, partial(_once_stored, stage, target))


def _give_up(giver: DeviceParty, target: DeviceParty, then: Callable[[], object] = bool) -> None:
    giver.act("gives a device up", lambda: revoke_own(giver.device, target.key, giver.wall), then)


def _once_stored(stage: Stage, device: DeviceParty) -> None:
    if device.up and device.lines and not unstored(device.device):
        stage.dismiss(device)
    elif not device.given_up:
        stage.clock.after(1.0, partial(_once_stored, stage, device))


def _save(device: DeviceParty, then: Callable[[], None]) -> None:
    with _file(b"") as path:
        backup.save(device.device, path, device.wall, lambda _: None)
        device.saved = Saved(path.read_bytes(), readable(device.connection))
    device.note("writes down", f"{len(device.saved.letters)} letters")
    then()


def _read_again(device: DeviceParty, saved: Saved) -> None:
    seed = device.role.secrets.user
    assert seed is not None
    with _file(saved.raw) as path:
        contents = backup.check(device.device, path, seed.seed, lambda _: None)
        found = backup.take_up(device.device, path, seed.seed, contents)
    device.saved = saved
    device.note("reads again", f"{found.proved} letters, {found.waiting} wait")


@contextmanager
def _file(raw: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        path = Path(folder) / "backup"
        path.write_bytes(raw)
        yield path


def recover(stage: Stage, device: DeviceParty, act: Act) -> None:
    """Lose somebody's first device, and enrol another by the recovery words in its place.

    As soon as that has heard of the lost one it gives it up. There may be a backup of just before.
    """
    del device
    firsts = [
        one
        for one in stage.devices
        if not (one.is_further or one.is_recovered or one.is_newcomer or one.given_up)
        and one not in stage.cheats
    ]
    if firsts:
        lost = firsts[act.who % len(firsts)]
        replace = partial(stage.recover, lost, partial(_take_its_place, stage, lost))
        if lost.up and act.draw % 2:
            lost.disk.read(partial(_save, lost, replace))
        else:
            replace()


def _take_its_place(stage: Stage, lost: DeviceParty, fresh: DeviceParty, person: Person) -> None:
    fresh.act("hears of its others", lambda: keep_listed(fresh.device, person))
    if lost.saved is not None:
        saved = lost.saved
        stage.clock.after(AGAIN_SECONDS, lambda: fresh.disk.read(lambda: _read_again(fresh, saved)))
    _give_up_lost(stage, lost, fresh)
    for one in stage.devices:
        if one.user == fresh.user and one.is_further and not one.given_up:
            fresh.handed[one.key] = frozenset()
            _once_heard_of(stage, one, fresh)


def _give_up_lost(stage: Stage, lost: DeviceParty, fresh: DeviceParty) -> None:
    if fresh.up and lost.key in fresh.device.others:
        _give_up(fresh, lost)
    elif not fresh.given_up:
        stage.clock.after(AGAIN_SECONDS, partial(_give_up_lost, stage, lost, fresh))


def _once_heard_of(stage: Stage, device: DeviceParty, fresh: DeviceParty) -> None:
    """Have a device that is left hand its history to the one that replaces the lost first one."""
    if device.up and fresh.key in device.device.others:
        _hand_over(device, fresh.key)
    elif not device.given_up:
        stage.clock.after(AGAIN_SECONDS, partial(_once_heard_of, stage, device, fresh))
