"""What an entry costs is what it says, not what was said before it, at all who hold the chat."""

from collections.abc import Callable, Iterable, Iterator

import pytest

from protocol import authority, verdicts
from protocol.chat import Chat
from protocol.dag import bits
from protocol.entry import EntryId, Reference
from protocol.history import History
from protocol.identity import UserId
from protocol.membership import content_void, resolve
from protocol.operation import Admit, Checkpoint, Enroll, Operation, Remove, SetPolicy, SetRole
from protocol.policy import Role
from protocol.standing import Effects
from protocol.testing.cast import Person, credential, grant
from protocol.testing.story import OPEN_POLICY, Story
from protocol.trial import Trial
from tests.protocol.oracle import Oracle
from tests.protocol.verdicts import ANNA, BORIS, CAST, CLARA, DINA, OLGA

MANY = 24


def demoted_and_unaware() -> Story:
    story = Story(CAST)
    story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [story.genesis])
    for _ in range(MANY):
        story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [story.genesis])
    return story


def two_devices(who: Person) -> Story:
    """Each enrols the other, again and again, unaware of what the other does."""
    story = Story(CAST)
    begun = story.tell(who, Enroll(credential(who, (1,))), [story.genesis])
    for _ in range(MANY // 2):
        story.tell(who, Enroll(credential(who, (1,))), [begun])
        story.tell(who, Enroll(credential(who, (0,))), [begun], number=1)
    return story


def one_owner_decides_alone() -> Story:
    story = Story(CAST)
    begun = story.tell(ANNA, Enroll(credential(ANNA, (1,))), [story.genesis])
    for until in range(MANY // 2):
        decided = story.quorum(ANNA, [SetRole(ANNA.user, Role.OWNER, ())], [], 100 + until)
        story.tell(ANNA, decided, [begun])
        story.tell(ANNA, Enroll(credential(ANNA, (1,))), [begun], number=1)
    return story


def revoked_again_and_again() -> Story:
    story = Story(CAST)
    begun = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [story.genesis])
    for _ in range(MANY // 2):
        story.tell(CLARA, Enroll(credential(CLARA, (0,))), [begun])
        story.tell(CLARA, story.revocation(CLARA), [begun], number=1)
    return story


def vouched_again_and_again() -> Story:
    story = Story(CAST)
    one = story.tell(BORIS, Checkpoint(), [story.genesis])
    other = story.retell(BORIS, Checkpoint((one.reference,)), one, [story.genesis])
    story.tell(CLARA, story.exposure(one, other))
    for _ in range(MANY):
        story.tell(ANNA, Checkpoint())
    return story


def vouched_step_by_step() -> Story:
    """An owner hears of a forked chain entry by entry, and vouches for each, in a busy chat."""
    story = Story(CAST)
    one = story.tell(BORIS, Checkpoint(), [story.genesis])
    other = story.retell(BORIS, Enroll(credential(BORIS, (1,))), one, [story.genesis])
    exposed = story.tell(ANNA, story.exposure(one, other), [one, other])
    for _ in range(MANY):
        story.tell(ANNA, SetRole(DINA.user, Role.MEMBER, ()), [exposed])
    unaware = [story.tell(BORIS, Enroll(credential(BORIS, (1,))), [other]) for _ in range(MANY)]
    for said in unaware:
        story.tell(ANNA, Checkpoint(), [exposed, said])
    return story


def vouched_in_vain(put_out: Callable[[Story], Operation]) -> Story:
    """An owner who is out, and says not to know it, vouches for a forked chain over and over."""
    story = Story([*CAST, (DINA, Role.MEMBER), (OLGA, Role.OWNER)])
    one = story.tell(BORIS, Checkpoint(), [story.genesis])
    other = story.retell(BORIS, Enroll(credential(BORIS, (1,))), one, [story.genesis])
    said = story.tell(BORIS, SetRole(DINA.user, Role.MEMBER, ()), [other])
    exposed = story.tell(ANNA, story.exposure(one, other), [one, other])
    story.tell(ANNA, put_out(story), [exposed])
    for _ in range(MANY):
        story.tell(DINA, Enroll(credential(DINA, (1,))), [exposed])
    for _ in range(MANY):
        story.tell(OLGA, Checkpoint(), [exposed, said])
    return story


def vouched_by_a_revoked_device() -> Story:
    return vouched_in_vain(lambda story: story.revocation(OLGA))


def vouched_by_who_is_no_owner() -> Story:
    demotion = SetRole(OLGA.user, Role.READER, ())
    return vouched_in_vain(lambda story: story.quorum(ANNA, [demotion], [OLGA]))


def exposed_further_and_further() -> Story:
    """An owner forks at place after place, each before the last, and somebody tells of each."""
    story = Story([*CAST, (OLGA, Role.OWNER)])
    one = story.tell(BORIS, Checkpoint(), [story.genesis])
    other = story.retell(BORIS, Enroll(credential(BORIS, (1,))), one, [story.genesis])
    exposed = story.tell(CLARA, story.exposure(one, other), [one, other])
    chain = [story.tell(OLGA, Checkpoint(), [exposed]) for _ in range(MANY)]
    last = story.tell(ANNA, SetRole(CLARA.user, Role.MEMBER, ()), [story.genesis])
    for _ in range(MANY):
        last = story.tell(ANNA, SetRole(CLARA.user, Role.MEMBER, ()), [story.genesis])
    for told in reversed(chain):
        again = story.retell(OLGA, Checkpoint((told.reference,)), told, [exposed])
        story.tell(CLARA, story.exposure(told, again), [told, again, last])
    return story


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what will have been tried from now on."""
    tried: list[int] = []
    run = Trial.run

    def noted(trial: Trial, window: Iterable[int]) -> None:
        listed = list(window)
        tried.extend(listed)
        run(trial, listed)

    monkeypatch.setattr(Trial, "run", noted)
    return tried


@pytest.mark.parametrize(
    "make",
    [
        demoted_and_unaware,
        lambda: two_devices(CLARA),
        one_owner_decides_alone,
        revoked_again_and_again,
        vouched_again_and_again,
        vouched_step_by_step,
        vouched_by_a_revoked_device,
        vouched_by_who_is_no_owner,
        exposed_further_and_further,
    ],
)
def test_nothing_is_tried_again_and_again(
    make: Callable[[], Story], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where one is told of each entry by itself, and asks who is in the chat each time."""
    tried = counted(monkeypatch)
    entries = make().entries
    history = History()
    for entry in entries:
        history.add(entry)
        resolve(history)
    assert len(tried) <= 3 * len(entries)
    assert resolve(history).users == Oracle(entries).resolve(frozenset(range(len(entries)))).users


def test_views_that_grow_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member's messages name two chains that are unaware of each other, each a step further."""
    story = Story(CAST)
    begun = story.tell(BORIS, Enroll(credential(BORIS, (1,))), [story.genesis])
    views = []
    for _ in range(4 * MANY):
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [begun])
        other = story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)), [begun], 1)
        views.append([one.id, other.id])
    history = story.history()
    resolve(history)
    tried = counted(monkeypatch)
    for view in views:
        assert DINA.user in resolve(history, history.past(view)).users
    assert len(tried) <= 3 * len(views) + verdicts.NEAR**2


def test_what_binds_is_found_once_for_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner demotes somebody over and over, whom a quorum raised, and who writes on."""
    found: list[int] = []
    stand = Effects._stand

    def noted(effects: Effects, user: UserId, acts: int) -> int:
        found.append(acts)
        return stand(effects, user, acts)

    monkeypatch.setattr(Effects, "_stand", noted)
    story = Story(CAST)
    begun = story.tell(ANNA, Enroll(credential(ANNA, (1,))), [story.genesis])
    story.tell(ANNA, story.quorum(ANNA, [SetRole(BORIS.user, Role.OWNER, ())], []), [begun])
    for _ in range(MANY):
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [begun], number=1)
    for _ in range(MANY):
        story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [begun])
    history = History()
    for entry in story.entries:
        history.add(entry)
    found.clear()
    assert DINA.user in resolve(history).users
    assert len(found) <= MANY


def test_old_content_of_who_was_often_put_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first removal says what counts; those that have seen it name no less."""
    asked: list[int] = []
    last_seen = "protocol.membership._last_seen"

    def noted(_history: History, _verdict: object, cut: int, *_: object) -> int:
        asked.append(cut)
        return 200

    story = Story(CAST)
    seen = (Reference(CLARA.devices[0], 200, EntryId(bytes(32))),)
    for _ in range(MANY):
        story.tell(BORIS, Remove(CLARA.user, seen))
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
    history = story.history()
    start = history.past([story.genesis.id])
    assert content_void(history, CLARA.devices[0], 200, start) is None
    assert content_void(history, CLARA.devices[0], 201, start) is not None
    monkeypatch.setattr(last_seen, noted)
    assert content_void(history, CLARA.devices[0], 200, start) is None
    assert len(asked) == 1


def test_little_is_remembered_and_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes from the caches is found anew."""
    monkeypatch.setattr(verdicts, "VOIDED_MAX", MANY)
    monkeypatch.setattr(verdicts, "VERDICTS_MAX", 3)
    entries = demoted_and_unaware().entries
    history, oracle = History(), Oracle(entries)
    for number, entry in enumerate(entries):
        history.add(entry)
        assert resolve(history) == oracle.resolve(frozenset(range(number + 1)))
    for one in entries:
        past = history.past([one.id])
        assert resolve(history, past) == oracle.resolve(oracle.past([one.id]))


def test_of_old_operations_few_are_remembered_and_views_of_them_cost_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "NEWEST", 8)
    monkeypatch.setattr(verdicts, "EVERY", 4)
    monkeypatch.setattr(verdicts, "NEAR", 0)
    story = Story(CAST)
    story.tell(ANNA, Admit((grant(DINA, Role.MEMBER),)))
    for role in MANY * [Role.READER, Role.MEMBER]:
        story.tell(ANNA, SetRole(DINA.user, role, ()))
    history, oracle = History(), Oracle(story.entries)
    for entry in story.entries:
        history.add(entry)
    assert len(history.authority._verdicts._after) <= 8 + 1 + len(story.entries) / 4
    tried = counted(monkeypatch)
    for one in reversed(story.told):
        assert resolve(history, history.past([one.id])) == oracle.resolve(oracle.past([one.id]))
    assert len(tried) <= 4 * len(story.told)


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """List the entries that the judge looks at from now on."""
    found: list[int] = []

    def noted(members: int) -> Iterator[int]:
        for one in bits(members):
            found.append(one)
            yield one

    monkeypatch.setattr(authority, "bits", noted)
    return found


def test_a_decision_is_compared_with_those_that_it_could_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: with all that its author had ever said; some frames took minutes."""
    looked = looked_at(monkeypatch)
    costs = []
    for count in (MANY, 2 * MANY):
        story = Story(CAST)
        for until in range(count):
            story.tell(ANNA, story.quorum(ANNA, [SetPolicy(OPEN_POLICY)], [], 1000 + until))
        del looked[:]
        story.history()
        costs.append(len(looked))
    assert costs[1] <= 2.5 * costs[0], costs


def test_a_view_costs_the_same_however_much_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: for each control head that a message named, all that was void was listed."""
    looked = looked_at(monkeypatch)
    costs = []
    for count in (MANY, 2 * MANY):
        story = Story(CAST)
        said = [story.tell(CLARA, Remove(BORIS.user, ())) for _ in range(count)]
        chat = Chat(story.chat)
        for told in story.told:
            chat.restore(told.header, told.id, told.payload)
        del looked[:]
        for one in said:
            chat._view((one.reference,))
        costs.append(len(looked))
    assert costs[1] <= 2.5 * costs[0] + MANY, costs


def test_what_is_void_is_not_remembered_once_for_each_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: a member who enrols, unaware of being out, and tells of it from elsewhere."""
    monkeypatch.setattr(verdicts, "VOIDED_MAX", 4 * MANY)
    story = Story(CAST)
    begun = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [story.genesis])
    unaware = [story.tell(CLARA, Enroll(credential(CLARA, (0,))), [begun]) for _ in range(MANY)]
    story.tell(CLARA, story.revocation(CLARA), [begun], 1)
    for one in unaware:
        story.tell(CLARA, Enroll(credential(CLARA, (1,))), [one], 1)
    history, oracle = story.history(), Oracle(story.entries)
    assert resolve(history) == oracle.resolve(frozenset(range(len(story.told))))
    held = {id(one.voids): one.voids for one in history.authority._verdicts._after.values()}
    assert sum(map(len, held.values())) <= 5 * MANY
