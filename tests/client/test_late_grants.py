"""Keys of a channel that begin behind what a reader may read: another may have earlier ones."""

import pytest

from client import compose, grants, mailbox
from client.arrivals import take_in
from client.device import Device
from client.epochs import start_epoch
from client.mailbox import State
from protocol import keygrant
from protocol.entry import CONTROL, ChatId
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.client.channels import LATER, ask, follow, pay
from tests.client.test_keeping import bring_bare, keep_for
from tests.federation import Federation, now


def ask_in_place_of_the_author(reader: Device, publisher: Device) -> None:
    """Who started the epoch is asked first, and does not answer."""
    assert ask(reader, publisher) == 0
    assert ask(reader, publisher, at=now() + LATER) == 1


def test_keys_that_begin_too_late_are_looked_for_elsewhere(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    """Boris has read on, long ago, and answers with what he has: anna has the rest."""
    read_on_long_ago(federation, anna, boris, vera, channel)
    assert [one.state for one in mailbox.letters(vera, channel, 9)] == [
        State.SEALED,
        State.SEALED,
        State.OPEN,
    ]
    assert ask(vera, boris, anna) == 1
    assert pay(anna, vera) == 1
    with vera.transaction():
        mailbox.open_waiting(vera)
    assert federation.texts(vera, channel) == ["one", "two", "three"]
    federation.say(anna, channel, "four")
    follow(federation, anna, vera)
    assert federation.texts(vera, channel)[-1] == "four"
    assert ask(vera, boris, anna, at=now() + LATER) == 0


def test_what_all_publishers_keys_begin_behind_is_closed(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    read_on_long_ago(federation, anna, boris, vera, channel)
    anna.connection.execute("DELETE FROM openings")
    anna.connection.execute("DELETE FROM prekeys")
    assert ask(vera, anna) == 1
    assert pay(anna, vera) == 1
    with vera.transaction():
        mailbox.open_waiting(vera)
    assert [one.state for one in mailbox.letters(vera, channel, 9)] == [
        State.UNREADABLE,
        State.UNREADABLE,
        State.OPEN,
    ]
    assert ask(vera, boris, anna, at=now() + LATER) == 0


def test_a_publisher_that_has_read_on_grants_from_the_beginning(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    """Its seal of the epoch opens as long as its prekey lives; anna may be gone for good."""
    federation.say(anna, channel, "one")
    federation.say(anna, channel, "two")
    follow(federation, anna, boris, vera)
    assert federation.texts(boris, channel) == ["one", "two"]
    ask_in_place_of_the_author(vera, boris)
    assert pay(boris, vera) == 1
    with vera.transaction():
        mailbox.open_waiting(vera)
    assert federation.texts(vera, channel) == ["one", "two"]


def test_who_came_in_later_is_granted_nothing_of_before(
    federation: Federation, anna: Device, boris: Device, dina: Device, channel: ChatId
) -> None:
    """Nor by a publisher that never heard of the reader until it asked."""
    federation.say(anna, channel, "before")
    follow(federation, anna, boris)
    with anna.transaction():
        compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
        anna.connection.execute("DELETE FROM owed")
    federation.say(anna, channel, "after")
    follow(federation, anna, dina)
    federation.carry_lane(anna, boris, CONTROL)
    ask_in_place_of_the_author(dina, boris)
    with boris.transaction():
        (errand,) = grants.due(boris, now())
    found = keygrant.read(errand.question.body)
    assert isinstance(found, keygrant.Granted)
    private = dina.connection.execute("SELECT private FROM prekeys").get
    assert keygrant.open_grant(found, private)[anna.key].generation == 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_was_written_for_who_was_taken_in_by_another(
    federation: Federation, anna: Device, boris: Device, dina: Device, channel: ChatId, epochs: int
) -> None:
    """Regression: boris took dina in, owed her the keys, and is gone; anna had read on."""
    with anna.transaction():
        compose.set_role(anna, channel, boris.profile.user.user, Role.ADMIN, now())
    follow(federation, anna, boris)
    federation.say(anna, channel, "before")
    with boris.transaction():
        compose.add_members(boris, channel, [(dina.profile.user.user, Role.READER)], now())
    follow(federation, boris, anna)
    said = [f"{epoch} {word}" for epoch in range(epochs) for word in ("after", "later")]
    for at, text in enumerate(said):
        if at == 2:
            with anna.transaction():
                start_epoch(anna, compose.require(anna, channel), now())
        federation.say(anna, channel, text)
    follow(federation, boris, dina)
    follow(federation, anna, dina)
    assert ask(dina, anna) == 1
    assert pay(anna, dina) == epochs
    with dina.transaction():
        mailbox.open_waiting(dina)
    assert federation.texts(dina, channel) == said
    assert mailbox.letters(dina, channel, 9)[0].state is State.UNREADABLE


def read_on_long_ago(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    """Boris reads two messages, grants vera what he has, and she reads a third."""
    federation.say(anna, channel, "one")
    federation.say(anna, channel, "two")
    follow(federation, anna, boris, vera)
    boris.connection.execute("DELETE FROM prekeys")
    ask_in_place_of_the_author(vera, boris)
    assert pay(boris, vera) == 1
    federation.say(anna, channel, "three")
    follow(federation, anna, vera)


def test_a_reader_whom_two_bring_in_reads_from_the_first_time_on(
    federation: Federation, anna: Device, boris: Device, dina: Device, channel: ChatId
) -> None:
    with anna.transaction():
        compose.set_role(anna, channel, boris.profile.user.user, Role.ADMIN, now())
    follow(federation, anna, boris)
    joining = [(dina.profile.user.user, Role.READER)]
    for publisher in (anna, boris):
        with publisher.transaction():
            compose.add_members(publisher, channel, joining, now())
    federation.say(anna, channel, "one")
    follow(federation, boris, anna)
    follow(federation, anna, dina)
    assert pay(anna, dina) > 0
    with dina.transaction():
        mailbox.open_waiting(dina)
    assert federation.texts(dina, channel) == ["one"]


@pytest.mark.parametrize("role", [Role.MEMBER, Role.READER])
def test_a_node_that_says_gone_hides_nothing_from_a_reader(
    federation: Federation, anna: Device, boris: Device, role: Role
) -> None:
    """As in a group: what somebody else has is read when it comes (SPEC 2.6)."""
    policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
    members = [(boris.profile.user.user, role)]
    with anna.transaction():
        channel = compose.new_chat(anna, ChatKind.CHANNEL, "", policy, members, now())
    keep_for(anna, channel, 24 * 3600)
    federation.say(anna, channel, "here")
    federation.carry(anna, boris)
    pay(anna, boris)
    with boris.transaction():
        take_in(boris, now())
    federation.say(anna, channel, "one")
    bring_bare(federation, anna, boris, channel)
    federation.carry(anna, boris)
    assert federation.texts(boris, channel) == ["here", "one"]
