"""What the fast judge finds is what SPEC 3.3 to 3.5 say, read naively (tests/protocol/oracle)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import authority, pasts, verdicts
from protocol.dag import ControlEntry
from protocol.history import History
from protocol.membership import Membership, content_void, resolve, void_reason
from protocol.operation import Admit, Checkpoint, Operation, Remove, SetRole
from protocol.policy import ChatKind, Role
from protocol.redaction import Redactions
from protocol.roster import Void
from protocol.testing.cast import grant, person
from protocol.testing.histories import histories, reorder
from protocol.testing.story import Story, history_of
from tests.protocol.motifs import CAST, SEQS, forked_early, of_many_devices, of_owners
from tests.protocol.oracle import Oracle

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mz")
DINA, OLGA = person("dina@mvd"), person("olga@mz")
OTHERS = [BORIS, CLARA, DINA]
ADMINS = [(BORIS, Role.ADMIN), (CLARA, Role.ADMIN)]


@pytest.fixture(scope="module", autouse=True, params=["much", "little"])
def remembered(request: pytest.FixtureRequest) -> Iterator[None]:
    """All of it once with caches so small that most is found anew."""
    little = [(pasts, "EARLY"), (pasts, "RECENT_MAX"), (pasts, "BETWEEN_MAX")]
    little += [(verdicts, "NEWEST"), (verdicts, "VERDICTS_MAX"), (authority, "ROSTERS_MAX")]
    with pytest.MonkeyPatch.context() as patch:
        for module, bound in little if request.param == "little" else ():
            patch.setattr(module, bound, 2)
        yield


def without_checkpoints(found: Membership, entries: Sequence[ControlEntry]) -> Membership:
    """Leave out the reasons of checkpoints: those that bear on nothing are not tried."""
    marks = {one.id for one in entries if isinstance(one.operation, Checkpoint)}
    return replace(found, void={id_: why for id_, why in found.void.items() if id_ not in marks})


def check(entries: Sequence[ControlEntry], random: Random) -> None:
    history, oracle = history_of(entries), Oracle(entries)
    for _ in range(3):
        some = [one.id for one in random.sample(entries, min(2, len(entries)))]
        found = resolve(history, history.past(some))
        assert without_checkpoints(found, entries) == oracle.resolve(oracle.past(some))
    whole = oracle.resolve(frozenset(range(len(entries))))
    assert without_checkpoints(resolve(history), entries) == whole


@given(histories(), st.randoms())
@settings(max_examples=100)
def test_groups(entries: list[ControlEntry], random: Random) -> None:
    check(entries, random)
    check(reorder(entries, random.choice), random)


@given(histories(12, ChatKind.DIRECT), st.randoms())
@settings(max_examples=20)
def test_direct_chats(entries: list[ControlEntry], random: Random) -> None:
    check(entries, random)


def borrowed(random: Random) -> Operation:
    """Return an admission of somebody together with the first device of somebody else."""
    one, other = random.sample([BORIS, CLARA, DINA], 2)
    made = grant(one, random.choice([Role.READER, Role.MEMBER]))
    user = replace(made.credential.user, devices=other.devices[:1])
    return Admit((replace(made, credential=replace(made.credential, user=user)),))


def told_beside_each_other(random: Random, steps: int) -> Story:
    """Owners and admins act on each other and on others, each knowing little of the rest."""
    cast = [(ANNA, Role.OWNER), (OLGA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.ADMIN)]
    story = Story(cast)
    for _ in range(steps):
        operation = random.choice(
            [
                borrowed(random),
                Remove(random.choice(OTHERS).user, ()),
                SetRole(random.choice(OTHERS).user, random.choice(list(Role)), ()),
                Admit((grant(random.choice(OTHERS), random.choice(list(Role)[:3])),)),
            ]
        )
        seen = None if random.random() < 0.3 else random.sample(story.told, 1)
        story.tell(random.choice([ANNA, OLGA, BORIS, CLARA]), operation, seen)
    return story


@given(st.randoms(use_true_random=False), st.integers(3, 16))
@settings(max_examples=150)
def test_beside_each_other(random: Random, steps: int) -> None:
    """A device of two users is the one's with the smaller id, until that one is out."""
    check(told_beside_each_other(random, steps).entries, random)


def fates(history: History, story: Story) -> list[object]:
    """What a history says of every entry, of content by everybody, and of what is redacted."""
    devices = [device for who in CAST for device in who.devices[:2]]
    told: list[object] = [void_reason(history, one) for one in sorted(t.id for t in story.told)]
    told += [
        content_void(history, device, seq, history.past([one]))
        for device in devices
        for seq in range(SEQS)
        for one in sorted(t.id for t in story.told)
    ]
    return [*told, resolve(history).agencies, Redactions(history).of()]


@pytest.mark.parametrize("tell", [forked_early, of_many_devices, of_owners])
@given(st.randoms(use_true_random=False), st.integers(2, 16))
@settings(max_examples=60)
def test_what_comes_after_a_fork(
    tell: Callable[[Random, int], Story], random: Random, steps: int
) -> None:
    """In whatever order it comes, and whatever is asked in between: order of arrival is nothing."""
    story = tell(random, steps)
    expected = fates(history_of(story.entries), story)
    check(story.entries, random)
    for _ in range(2):
        history = History()
        redactions = Redactions(history)
        for entry in reorder(story.entries, random.choice):
            history.add(entry)
            if random.random() < 0.3:
                resolve(history)
                redactions.of()
        assert fates(history, story) == expected
        assert redactions.of() == expected[-1]


@pytest.mark.parametrize("tell", [forked_early, of_many_devices])
@given(st.randoms(use_true_random=False), st.integers(2, 10))
@settings(max_examples=40)
def test_content_counts_as_the_text_says(
    tell: Callable[[Random, int], Story], random: Random, steps: int
) -> None:
    """SPEC 3.5, of every device, at every place, by each set of control heads."""
    story = tell(random, steps)
    oracle, history = Oracle(story.entries), history_of(story.entries)
    for entry, past in zip(story.entries, oracle.pasts, strict=True):
        for device in (device for who in CAST for device in who.devices[:2]):
            for seq in range(SEQS):
                found = content_void(history, device, seq, history.past([entry.id]))
                assert found == oracle.content_void(device, seq, past)


def test_what_follows_on_a_voided_operation_is_tried_again() -> None:
    """An admin removed Clara, whom an owner had demoted; the other owners void the demotion."""
    story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER), (DINA, Role.OWNER), *ADMINS])
    demoted = story.tell(DINA, SetRole(CLARA.user, Role.MEMBER, ()), [story.genesis])
    removed = story.tell(BORIS, Remove(CLARA.user, ()), [demoted])
    history = history_of(story.entries)
    assert CLARA.user not in resolve(history).users
    decision = story.quorum(ANNA, [SetRole(DINA.user, Role.MEMBER, ())], [OLGA])
    history.add(story.tell(ANNA, decision, [story.genesis]).entry)
    found = resolve(history)
    assert found.users[CLARA.user].role == Role.ADMIN
    assert found.void == {demoted.id: Void.OUTRANKED, removed.id: Void.RANK}
    assert found == Oracle(story.entries).resolve(frozenset(range(4)))


def test_a_claimed_device_falls_to_the_other_when_its_holder_is_out() -> None:
    holder, other = sorted([BORIS, CLARA], key=lambda one: one.user)
    story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER)])
    claim = grant(other, Role.MEMBER)
    user = replace(claim.credential.user, devices=holder.devices[:1])
    claim = replace(claim, credential=replace(claim.credential, user=user))
    story.tell(ANNA, Admit((grant(holder, Role.MEMBER),)), [story.genesis])
    story.tell(OLGA, Admit((claim,)), [story.genesis])
    history = history_of(story.entries)
    assert resolve(history).devices[holder.devices[0]] == holder.user
    history.add(story.tell(ANNA, Remove(holder.user, ())).entry)
    assert resolve(history).devices[holder.devices[0]] == other.user
    assert resolve(history) == Oracle(story.entries).resolve(frozenset(range(4)))
