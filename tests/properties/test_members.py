"""A member who cheats: honest devices are shown one thing alike, and no ghost is let in."""

import hmac
from dataclasses import replace
from hashlib import sha256

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import convert

from client import mailbox
from client.chats import void_of
from client.entries import read_entry
from crypto import schedule
from protocol import epoch as rules
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.epoch import context, position
from protocol.operation import Admit, Enroll, Operation, Remove, Revoke, SetRole
from protocol.policy import Role
from protocol.testing.attacker import Attacker, SeenEpoch
from protocol.testing.cast import grant, person
from protocol.testing.interference import GHOST, GHOST_PREKEY
from tests.properties.attack import attack
from tests.properties.mallory import NAME, Lie, Mallory, Sealed, generation_of
from tests.properties.world import World, ghost_credential

OWNER, OTHER = HONEST = ("anna", "boris")
TARGETS = st.sampled_from(HONEST)
GHOST_DEVICE = DeviceKey(GHOST.public)
STRANGER = person("ghost@nowhere")


class Members(RuleBasedStateMachine):
    """Two honest devices, and a third member whose owner signs whatever she likes."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.chat = ChatId(b"")
        self.mallory = Mallory(self.world, self.chat)
        self.epochs: list[Sealed] = []
        self.poisoned: dict[EntryId, frozenset[str]] = {}
        self.refused: set[EntryId] = set()
        self.void: set[EntryId] = set()
        self.lies: set[EntryId] = set()
        self.ghost = Attacker(self.world.seen)
        self.ghost.learn(GHOST_PREKEY.private)

    @initialize()
    def start(self) -> None:
        self.chat = self.world.found(OWNER, OTHER, NAME)
        self.mallory.chat = self.chat
        self.world.carry(OWNER, OTHER)
        self.world.carry(OWNER, NAME)

    def _is_member(self, target: str) -> bool:
        return self.mallory.device in self.mallory.members(target)

    # What honest people do

    @rule(name=TARGETS)
    def say(self, name: str) -> None:
        self.world.say(name, self.chat, f"{name} {len(self.world.said)}")

    @rule(there=st.booleans())
    def meet(self, *, there: bool) -> None:
        for source, to in [HONEST, HONEST[::-1]][:: 1 if there else -1]:
            self.world.carry(source, to)

    @rule(inside=st.booleans())
    def change(self, *, inside: bool) -> None:
        members = frozenset(HONEST) | ({NAME} if inside else set())
        if self.world.changes[-1][1] != members:
            self.world.change(OWNER, self.chat, members)

    def _join(self, to: str) -> None:
        """Cheating needs a member: whoever put her out takes her in again."""
        if not self._is_member(to):
            self.change(inside=True)
            self.world.carry(OWNER, to)

    # What she does

    @rule(to=TARGETS)
    def seal_honestly(self, to: str) -> None:
        self._join(to)
        self._offer(to, self.mallory.epoch(to, self.mallory.members(to)))

    @rule(to=TARGETS)
    def seal_to_a_ghost(self, to: str) -> None:
        self._join(to)
        listed = self.mallory.members(to) | {GHOST_DEVICE: GHOST_PREKEY.public}
        self._never(to, self.mallory.epoch(to, listed))

    @rule(to=TARGETS, out=TARGETS)
    def leave_out(self, to: str, out: str) -> None:
        self._join(to)
        listed = self.mallory.members(to)
        del listed[self.world.devices[out].key]
        self._never(to, self.mallory.epoch(to, listed))

    @rule(to=TARGETS, cheated=TARGETS)
    def seal_different_secrets(self, to: str, cheated: str) -> None:
        """One of them gets another secret than the one committed to."""
        self._join(to)
        made = self.mallory.epoch(to, self.mallory.members(to))
        key = self.world.devices[cheated].key
        at = position(made.recipients, key)
        assert at is not None
        ectx = context(made.place, made.operation)
        public = self.world.prekey_of(cheated)
        seals = [*made.seals]
        seals[at] = rules.seal(ectx, made.operation.commit, key, public, self.mallory.fresh())
        forged = self.mallory.changed(made, made.operation, seals)
        self.mallory.secrets[forged.id] = self.mallory.secrets[made.id]
        self.poisoned[forged.id] = frozenset((cheated,))
        self._offer(to, forged)

    @rule(to=TARGETS, data=st.data())
    def replay_seals(self, to: str, data: st.DataObject) -> None:
        """Seals of others go under an epoch of hers, whose secret she knows or does not."""
        self._join(to)
        own = {made.id for made in self.epochs}
        others = [one for one in self.world.seen.epochs.values() if one.id not in own]
        seen = data.draw(st.sampled_from(others))
        made = self.mallory.epoch(to, self.mallory.members(to))
        before = self.world.recipients[seen.id]
        replayed = {one: seen.seals.get(at) for at, one in enumerate(before)}
        fresh = zip(made.recipients, made.seals, strict=True)
        seals = [replayed.get(one) or own_seal for one, own_seal in fresh]
        secret = self.mallory.secret_of(seen)
        commit = seen.operation.commit
        if secret is not None and data.draw(st.booleans()):
            commit = schedule.commitment(secret, context(made.place, made.operation))
        forged = self.mallory.changed(made, replace(made.operation, commit=commit), seals)
        anew = all(_purpose(one) != _purpose(forged) for one in self.world.seen.epochs.values())
        if secret is not None:
            self.mallory.secrets[forged.id] = secret
        if anew:
            self.poisoned[forged.id] = frozenset(HONEST)
        self._offer(to, forged)

    @precondition(lambda self: self._honest_epochs())
    @rule(to=TARGETS, data=st.data())
    def say_it_is_shareable(self, to: str, data: st.DataObject) -> None:
        """Another entry at the place of one of hers, with its seals and the flag turned."""
        self._join(to)
        made = data.draw(st.sampled_from(self._honest_epochs()))
        turned = replace(made.operation, shareable=not made.operation.shareable)
        forged = self.mallory.changed(made, turned, made.seals)
        self.mallory.secrets[forged.id] = self.mallory.secrets[made.id]
        self.poisoned[forged.id] = frozenset(HONEST)
        self._never(to, forged)

    @precondition(lambda self: self.epochs)
    @rule(to=TARGETS, lie=st.sampled_from([Lie.OTHER_COMMITMENT, *Lie]), data=st.data())
    def write(self, to: str, lie: Lie, data: st.DataObject) -> None:
        """The next message, in an epoch of hers: the newest, or one that she has left."""
        self._join(to)
        within = data.draw(st.sampled_from(self.epochs)).id
        if data.draw(st.integers(0, 3)):
            self.seal_honestly(to)
            within = self.epochs[-1].id
        made = self.mallory.write(to, within, f"mallory {lie.name}", lie)
        if lie is not Lie.NOTHING:
            self.lies.add(made.id)
        self.mallory.hand_over(to, made)

    @precondition(lambda self: self.epochs)
    @rule(to=TARGETS, skip=st.sampled_from([-1, 1, 2]), going=st.booleans(), data=st.data())
    def write_out_of_turn(self, to: str, skip: int, data: st.DataObject, *, going: bool) -> None:
        """A generation again, or too far, in the epoch that she writes in or in another."""
        self._join(to)
        within = EntryId(self.mallory.chain(to, CONTENT).before.epoch)
        if not going or within not in self.mallory.secrets:
            within = data.draw(st.sampled_from(self.epochs)).id
        made = self.mallory.write(to, within, "again", skip=skip)
        honest = self.mallory.write(to, within, "again")
        if generation_of(made) != generation_of(honest):
            self.refused.add(made.id)
        self.mallory.hand_over(to, made)

    @rule(to=TARGETS, skip=st.integers(1, 3))
    def begin_late(self, to: str, skip: int) -> None:
        """An epoch that is new to her chain begins with another generation than 0."""
        self._join(to)
        made = self.mallory.epoch(to, self.mallory.members(to))
        if self._hand_out(to, made):
            late = self.mallory.write(to, made.id, "late", skip=skip)
            self.refused.add(late.id)
            self.mallory.hand_over(to, late)

    @precondition(lambda self: self.epochs)
    @rule(text=st.sampled_from(["yes", "no"]), data=st.data())
    def say_two_things(self, text: str, data: st.DataObject) -> None:
        for name in HONEST:
            self._join(name)
        within = data.draw(st.sampled_from(self.epochs)).id
        for name in HONEST:
            self.mallory.hand_over(name, self.mallory.write(name, within, f"{text} {name}"))

    @precondition(lambda self: self._is_member(OWNER))
    @rule(to=TARGETS, heard=st.booleans())
    def backdate(self, to: str, *, heard: bool) -> None:
        """Removed, she writes as if she had not heard of it, to who has or has not."""
        made = self.mallory.epoch(to, self.mallory.members(to))
        self._offer(to, made)
        heads = self.mallory.heads(to)
        self.change(inside=False)
        if heard:
            self.world.carry(OWNER, to)
        late = self.mallory.write(to, made.id, "before that", heads=heads)
        if late.header.seq >= len(self.mallory.chain(OWNER, CONTENT).entries):
            self.void.add(late.id)
        self.mallory.hand_over(to, late)
        self.world.carry(to, OWNER)

    @rule(to=TARGETS, which=st.integers(0, 4))
    def overstep(self, to: str, which: int) -> None:
        """Operations beyond a member's rank: they are kept as evidence, and change nothing."""
        anna = self.world.devices[OWNER]
        operations: list[Operation] = [
            Admit((grant(STRANGER, Role.OWNER),)),
            Remove(anna.profile.user.user, ()),
            SetRole(self.world.devices[NAME].profile.user.user, Role.OWNER, ()),
            Revoke(anna.key, None, None, ()),
            Enroll(ghost_credential(self.world, NAME)),
        ]
        chain = self.mallory.chain(to, CONTROL)
        place = self.mallory.place(chain, to)
        self.mallory.push(to, self.mallory.control(place, chain, operations[which]))

    def _honest_epochs(self) -> list[Sealed]:
        return [made for made in self.epochs if made.id not in self.poisoned]

    def _offer(self, to: str, made: Sealed) -> None:
        """Hand out an epoch, and a message in it, so that its seals are opened."""
        if self._hand_out(to, made):
            self.mallory.hand_over(to, self.mallory.write(to, made.id, "in it"))

    def _hand_out(self, to: str, made: Sealed) -> bool:
        self.world.seen.note(made.entry)
        for at, seal in enumerate(made.seals):
            self.world.seen.note_seal(made.id, at, seal)
        self.world.recipients[made.id] = made.recipients
        self.world.started[made.id] = self.world.clock
        self.mallory.secrets.setdefault(made.id, self.mallory.fresh())
        if self.mallory.give(to, made):
            self.epochs.append(made)
            return True
        return False

    def _never(self, to: str, made: Sealed) -> None:
        self.refused.add(made.id)
        self._offer(to, made)

    # What must hold

    @invariant()
    def no_ghost_and_nobody_missing(self) -> None:
        """The owner decides who is in; nobody else is named by an epoch that was admitted."""
        genuine = {device.key for device in self.world.devices.values()}
        for name in HONEST:
            judge = self.world.devices[name].replica.chat(self.chat)
            if judge is None:
                continue
            users = judge.membership().users
            assert {self._name(user) for user in users} == self.world.knows(name, self.chat)
            assert judge.membership().devices.keys() <= genuine
            held = {one.id for one in judge.history.entries}
            assert not held & self.refused

    @invariant()
    def the_ghost_reads_no_honest_word(self) -> None:
        assert not self.ghost.opened().keys() & self.world.said.keys()

    @invariant()
    def one_secret_for_all(self) -> None:
        """No different secrets: where two hold a sender's chain, it is the same chain."""
        chains = [self._chains(name) for name in HONEST]
        for place in chains[0].keys() & chains[1].keys():
            (ours, one), (theirs, other) = sorted(side[place] for side in chains)
            for _ in range(theirs - ours):
                one = schedule.next_chain(one)
            assert one == other

    @invariant()
    def seals_open_where_they_were_made(self) -> None:
        """No seal replay and no downgrade: what was not made for this entry gives no key."""
        for name in HONEST:
            opened = {epoch for epoch, _ in self._chains(name)}
            assert not [
                one for one in opened if name in self.poisoned.get(EntryId(one), frozenset())
            ]

    @invariant()
    def one_text_for_all_and_as_committed(self) -> None:
        """No split plaintext: what is shown is what the signed header commits to."""
        shown: dict[EntryId, bytes] = {}
        for name in HONEST:
            for entry, plaintext, frank, header in self._open_letters(name):
                pre = sha256(header_before_commitment(header)).digest()
                promised = hmac.digest(frank, b"ivor/1 pc" + pre + plaintext, "sha256")
                assert promised == header.pc
                assert shown.setdefault(entry, plaintext) == plaintext
                assert entry not in self.lies

    @invariant()
    def no_generation_twice(self) -> None:
        for name in HONEST:
            entries = self.mallory.chain(name, CONTENT).entries
            headers = [made.header for made in entries if isinstance(made.header, ContentHeader)]
            places = [(header.epoch, header.generation) for header in headers]
            assert len(set(places)) == len(places)
            assert not {made.id for made in entries} & self.refused

    @invariant()
    def the_removed_do_not_count(self) -> None:
        for name in HONEST:
            device = self.world.devices[name]
            judge = device.replica.chat(self.chat)
            if judge is None or NAME in self.world.knows(name, self.chat):
                continue
            for letter in mailbox.letters(device, self.chat, 10_000):
                if letter.reference.id in self.void:
                    assert void_of(device, judge, letter.reference) is not None

    @invariant()
    def who_holds_both_branches_holds_the_proof(self) -> None:
        for name in HONEST:
            stored = self.world.devices[name].replica.store.chat(self.chat)
            if stored is None:
                continue
            forked = any(len(chain) > 1 for chain in stored.chains.values())
            assert not forked or self.world.devices[name].replica.sharing.forks(stored)

    def _name(self, user: bytes) -> str:
        devices = self.world.devices.items()
        return next(name for name, one in devices if one.profile.user.user == user)

    def _chains(self, name: str) -> dict[tuple[bytes, bytes], tuple[int, bytes]]:
        rows = self.world.devices[name].connection.execute(
            "SELECT epoch, device, generation, chain FROM senders"
        )
        return {(row[0], row[1]): (row[2], row[3]) for row in rows}

    def _open_letters(self, name: str) -> list[tuple[EntryId, bytes, bytes, ContentHeader]]:
        device = self.world.devices[name]
        self.world.receive(name)
        rows = device.connection.execute(
            "SELECT id, device, seq, plaintext, frank FROM mailbox WHERE plaintext IS NOT NULL"
        ).fetchall()
        found = []
        for place, plaintext, frank in convert(
            [((row[1], row[2], row[0]), *row[3:]) for row in rows],
            list[tuple[Reference, bytes, bytes]],
        ):
            header = read_entry(device, self.chat, place).header
            assert isinstance(header, ContentHeader)
            found.append((place.id, plaintext, frank, header))
        return found

    def teardown(self) -> None:
        self.world.close()


def _purpose(made: Sealed | SeenEpoch) -> object:
    """Return what seals are made for: with all of it the same they are no replay, but her own."""
    return made.place, made.operation.recipients_root, made.operation.shareable


def test_members() -> None:
    attack(Members)
