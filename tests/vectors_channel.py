"""Vectors of channels: key grants, and the questions for them (SPEC 4.6)."""

from protocol import codec, keygrant
from protocol.entry import ChatId, EntryId
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic, Untrusted
from protocol.testing.cast import person, prekey, prekey_record, seed
from tests.vectors import Case, Value, drawn, invalid, valid

ANNA, CLARA = person("anna@mz"), person("clara@mvd")
CHAT = ChatId(seed("chat"))


def grants() -> list[Case]:
    """A grant and a question, and what is neither."""
    parcel, private = drawn("grant"), prekey(CLARA.devices[0]).private
    grant = keygrant.read(parcel)
    assert isinstance(grant, keygrant.Granted)
    chains: list[Value] = [
        [d, c.generation, c.chain] for d, c in keygrant.open_grant(grant, private).items()
    ]
    cases = [
        valid(
            "a grant",
            {
                "chat": grant.chat,
                "epoch": grant.epoch,
                "from": grant.sender,
                "to": grant.receiver,
                "prekey": grant.prekey,
                "chains": chains,
            },
            parcel=parcel,
            private=private,
        ),
        valid("a question", {"epochs": [seed("epoch")]}, parcel=question(), private=private),
    ]
    return cases + [
        invalid(name, error, parcel=bad, private=key) for name, error, bad, key in refused(parcel)
    ]


def question(count: int = 1, who: str = "clara@mvd") -> bytes:
    """Return clara's question for the keys of some epochs, with somebody's prekey."""
    epochs = [EntryId(seed("epoch"))] + [EntryId(seed(str(n))) for n in range(count - 1)]
    record = prekey_record(person(who).signers[0])
    return keygrant.sign_ask(CLARA.signers[0], CHAT, epochs[:count], ANNA.devices[0], record)


def refused(parcel: bytes) -> list[tuple[str, type[PeerError], bytes, bytes]]:
    """Return what must be refused, why, and the private prekey that it is tried with."""
    private = prekey(CLARA.devices[0]).private
    body, _ = codec.record(codec.decode(parcel, len(parcel)), 2, "parcel")
    _, chat, epoch, *rest = codec.decode(codec.binary(body, len(parcel), "body"), len(parcel))

    def resigned(*values: object) -> bytes:
        made = codec.encode([_value(one) for one in values])
        return codec.encode((made, ANNA.signers[0].sign(keygrant.LABEL, made)))

    return [
        ("a grant for another prekey", Untrusted, parcel, prekey(ANNA.devices[0]).private),
        ("a byte of the bundle", Unauthentic, parcel[:900] + b"x" + parcel[901:], private),
        ("a byte of the signature", Unauthentic, parcel[:-1] + b"x", private),
        ("signed anew for another chat", Untrusted, resigned(2, seed("x"), epoch, *rest), private),
        (
            "signed anew for another epoch",
            Untrusted,
            resigned(2, chat, seed("x"), *rest),
            private,
        ),
        ("another kind", NotCanonical, resigned(4, chat, epoch, *rest), private),
        ("a field too many", NotCanonical, resigned(2, chat, epoch, *rest, 0), private),
        ("a question for no epoch", NotCanonical, question(0), private),
        ("a question for 65 epochs", LimitExceeded, question(65), private),
        ("a question with another's prekey", NotCanonical, question(1, "anna@mz"), private),
    ]


def _value(value: object) -> codec.Value:
    """Return a field of a grant, which is a number or bytes."""
    assert isinstance(value, int | bytes)
    return value
