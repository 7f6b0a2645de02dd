"""How the vectors of a handed-over history are checked: by a device that knows little else."""

import apsw

from client import archive
from client.device import Device, Profile
from client.schema import DEVICE_SCHEMA
from crypto.sealing import Prekey, prekey_id
from node.errors import IdentityError
from node.schema import SCHEMA
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import verify_card, verify_user
from tests.vector_inputs import Inputs
from tests.vectors import Value


class Receiver(Device):
    """A device that knows its user, its agency, its prekey, and which devices were given up."""

    def __init__(self, case: Inputs) -> None:
        card = verify_card(case.raw("card"))
        user = verify_user(case.raw("user"), card.charter)
        self.profile = Profile(card.charter, user, b"", b"", card, b"")
        self._key = DeviceKey(case.raw("to"))
        self.connection = apsw.Connection(":memory:")
        self.connection.execute(SCHEMA + DEVICE_SCHEMA)
        private = case.raw("private")
        self.connection.execute(
            "INSERT INTO prekeys (id, private, record, issued) VALUES (?, ?, x'', 0)",
            (prekey_id(Prekey(private).public), private),
        )
        self.connection.executemany(
            "INSERT INTO devices (id, user, certificate, revoked) VALUES (?, ?, x'', 1)",
            [(one, user.user) for one in case.raws("revoked")],
        )

    @property
    def key(self) -> DeviceKey:
        """The device's public key."""
        return self._key


def check_archive(case: Inputs) -> Value:
    """Open a parcel. Who is not believed is Untrusted."""
    receiver = Receiver(case)
    try:
        found = archive.unpack(receiver, case.raw("parcel"))
    except IdentityError as error:
        raise Untrusted(str(error)) from None
    finally:
        receiver.connection.close()
    letters: Value = [[one.entry, one.plaintext, one.frank] for one in found.letters]
    return {"part": found.part, "parts": found.parts, "letters": letters}
