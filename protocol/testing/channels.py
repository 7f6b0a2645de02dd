"""A channel with very many readers, whose certificates nobody has signed (tests and benchmarks).

What membership costs does not depend on how a user was verified, and 10,000 certificates take long.
"""

from hashlib import sha256

from protocol.dag import ControlEntry
from protocol.entry import DeviceKey, EntryId
from protocol.grant import Credential, Grant
from protocol.identity import AgencyId, UserId, VerifiedUser
from protocol.limits import GRANTS_MAX
from protocol.operation import Admit, Genesis, Operation, Remove
from protocol.policy import ChatKind, Role
from protocol.testing.cast import Person, grant, seed
from protocol.testing.story import OPEN_POLICY

ARCHIVE = bytes(32)


def reader(number: int, role: Role = Role.READER) -> Grant:
    """Return a grant for the reader of this number, who has one device."""
    agency = f"agency{number % 100}"
    user = VerifiedUser(
        agency=AgencyId(seed("agency", agency)),
        agency_name=agency,
        zone="RU-UDM",
        user=UserId(seed("reader", str(number))),
        name=f"reader{number}@{agency}",
        archive=ARCHIVE,
        devices=(DeviceKey(seed("reader device", str(number))),),
    )
    return Grant(role, Credential(user, b"", b"", (b"",)))


class Channel:
    """A growing control lane by one publisher. entries: in causal order, the genesis first."""

    def __init__(self, owner: Person, kind: ChatKind = ChatKind.CHANNEL) -> None:
        self.owner = owner
        genesis = Genesis(kind, bytes(16), OPEN_POLICY, (grant(owner, Role.OWNER),))
        self.entries: list[ControlEntry] = []
        self.tell(genesis)

    def tell(self, operation: Operation) -> ControlEntry:
        """Add an operation by the owner, who has seen all."""
        last = self.entries[-1] if self.entries else None
        digest = sha256(repr((len(self.entries), last and last.id)).encode()).digest()
        entry = ControlEntry(
            EntryId(digest),
            self.owner.devices[0],
            len(self.entries),
            None if last is None else last.id,
            (),
            operation,
        )
        self.entries.append(entry)
        return entry

    def admit(self, start: int, stop: int) -> None:
        """Take in readers of these numbers, 32 with each entry."""
        for first in range(start, stop, GRANTS_MAX):
            numbers = range(first, min(first + GRANTS_MAX, stop))
            self.tell(Admit(tuple(reader(number) for number in numbers)))

    def remove(self, number: int) -> ControlEntry:
        """Put a reader out."""
        return self.tell(Remove(reader(number).credential.user.user, ()))
