"""A member that seals an epoch well to all but one (hostile case 45)."""

from dataclasses import replace

from client import compose
from client.device import Device
from client.epochs import _keep_chains
from client.writing import append_control, next_place
from crypto import merkle
from crypto.schedule import commitment
from protocol import epoch
from protocol.entry import ChatId, EntryId
from protocol.frame import Seal
from tests.federation import Federation, now


def seal_wrongly(
    federation: Federation, cheat: Device, chat: ChatId, victim: Device, *, hidden: bool
) -> EntryId:
    """Start an epoch that is sealed well to all but one, and write in it.

    hidden: the victim's seal opens, and holds another secret.
    """
    judge = compose.require(cheat, chat)
    publics = {
        one.key: federation.prekey(one).public
        for one in federation.devices
        if one.key in judge.membership().devices
    }
    secret = cheat.random(32)
    own = cheat.connection.execute("SELECT record FROM prekeys").get
    place = next_place(cheat, judge)
    operation, seals = epoch.build(place, secret, publics, set(), own, shareable=False)
    at = sorted(publics).index(victim.key)
    ectx = epoch.context(place, operation)
    commit = operation.commit if hidden else commitment(bytes(32), ectx)
    seals[at] = epoch.seal(ectx, commit, victim.key, publics[victim.key], bytes(32))
    bad = replace(operation, seals_root=merkle.root(seals))
    with cheat.transaction():
        entry = append_control(cheat, judge, bad, now())
        paths = merkle.paths(seals)
        kept = [Seal(number, seal, tuple(paths[number])) for number, seal in enumerate(seals)]
        cheat.replica.keep_seals(chat, entry.id, kept, cheat.key)
        _keep_chains(cheat, epoch.sender_chains(entry.id, secret, set(publics)), entry.id)
    federation.say(cheat, chat, "secret")
    return entry.id
