"""What a story amounts to, in words: for tests of membership."""

from protocol.history import History
from protocol.membership import (
    Membership,
    Void,
    resolve,
    void_reason,
)
from protocol.policy import Role
from protocol.testing.cast import person
from protocol.testing.story import Story, Told

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mz")
DINA, EGOR, OLGA = person("dina@mvd"), person("egor@mvd"), person("olga@mz")
CAST = [(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)]


def roles(membership: Membership) -> dict[str, Role]:
    return {member.name: member.role for member in membership.users.values()}


def outcome(story: Story) -> dict[str, Role]:
    return roles(resolve(story.history()))


def reason(story: Story, told: Told) -> Void | None:
    return void_reason(story.history(), told.id)


def fates(story: Story, told: Told) -> list[Void | None]:
    """Return what one history says of an entry after it has taken it, and each that follows."""
    history, found = History(), []
    for one in story.told:
        history.add(one.entry)
        if told.id in history:
            found.append(void_reason(history, told.id))
    return found
