"""Vectors of covers, and of the forks that they prove (SPEC 2.4, 2.5)."""

from msgspec.structs import replace

from protocol import codec
from protocol.entry import ChatId, ControlHeader, Header, encode_header
from protocol.errors import LimitExceeded, NotCanonical, Unauthentic
from protocol.fork import Cover, encode_proof
from tests.vectors import Case, Value, invalid, valid
from tests.vectors_log import CHAT, DEVICE, chain, content, control, signed


def covers() -> list[Case]:
    """Paths of headers to a signed one."""
    made = chain(66)
    raws = [encode_header(header) for header, _, _ in made]

    def cover(start: int, stop: int, signature: bytes | None = None) -> dict[str, Value]:
        signed_by = made[stop - 1][2] if signature is None else signature
        return {"headers": raws[start:stop], "signature": signed_by}

    other = signed(control(1, made[0][1]))
    gap: dict[str, Value] = {"headers": [raws[0], raws[2]], "signature": made[2][2]}
    lane: dict[str, Value] = {"headers": [raws[0], other[0]], "signature": other[2]}
    foreign = encode_header(replace(made[1][0], chat=ChatId(bytes(32))))
    away: dict[str, Value] = {"headers": [raws[0], foreign], "signature": made[1][2]}
    return [
        valid("one header", {"id": made[0][1]}, **cover(0, 1)),
        valid("64 headers", {"id": made[2][1]}, **cover(2, 66)),
        invalid("no header", NotCanonical, headers=[], signature=made[0][2]),
        invalid("65 headers", LimitExceeded, **cover(0, 65)),
        invalid("a malformed header", NotCanonical, headers=[b"\x90"], signature=made[0][2]),
        invalid("a signature of 63 bytes", NotCanonical, **cover(0, 2, made[1][2][:63])),
        invalid("the signature of another entry", Unauthentic, **cover(0, 2, made[0][2])),
        invalid("a gap", Unauthentic, **gap),
        invalid("another lane", Unauthentic, **lane),
        invalid("another chat", Unauthentic, **away),
    ]


def forks() -> list[Case]:
    """Proofs that a device signed two entries at one seq."""
    made = chain(3)
    rival = replace(made[1][0], time=1)
    rival_raw, rival_id, rival_signature = signed(rival)
    later = content(2, rival_id)
    later_raw, _, later_signature = signed(later)
    honest = Cover((encode_header(made[1][0]),), made[1][2])
    covered = Cover((encode_header(made[1][0]), encode_header(made[2][0])), made[2][2])
    caught = Cover((rival_raw,), rival_signature)
    path = Cover((rival_raw, later_raw), later_signature)
    low, high = sorted((made[1][1], rival_id))
    result: Value = {"chat": CHAT, "device": DEVICE, "lane": 1, "seq": 1, "ids": [low, high]}
    proof = encode_proof(honest, caught)
    pair = codec.decode(proof, 2**18)
    first = pair[0]
    assert isinstance(first, tuple)
    elsewhere = Cover((encode_header(made[0][0]),), made[0][2])
    unsigned = encode_proof(honest, Cover((rival_raw,), bytes(64)))
    away = _cover_of(replace(rival, chat=ChatId(bytes(32))))
    twins = [
        invalid(name, Unauthentic, proof=encode_proof(one, other))
        for name, one, other in (
            ("the same entry twice", honest, honest),
            ("two places", honest, elsewhere),
            ("two chats", honest, away),
            ("two geneses, each of its own chat", _cover_of(_genesis(1)), _cover_of(_genesis(2))),
        )
    ]
    return [
        valid("two signed entries", result, proof=proof),
        valid("covers of two headers", result, proof=encode_proof(covered, path)),
        _unknown_fork(),
        *twins,
        invalid("a bad signature", Unauthentic, proof=unsigned),
        invalid("the larger id first", NotCanonical, proof=codec.encode(_values(pair[::-1]))),
        invalid("one cover", NotCanonical, proof=codec.encode(_values(pair[:1]))),
        invalid("an empty cover", NotCanonical, proof=codec.encode([[[], bytes(64)]] * 2)),
        invalid("not canonical", NotCanonical, proof=proof + b"\x00"),
        invalid("over 256 KiB", LimitExceeded, proof=bytes(256 * 1024 + 1)),
    ]


def _cover_of(header: Header) -> Cover:
    raw, _, signature = signed(header)
    return Cover((raw,), signature)


def _genesis(time: int) -> ControlHeader:
    return replace(control(), chat=None, kind=0, links=(), time=time)


def _unknown_fork() -> Case:
    """Neither entry is of a kind that a chat admits: the device has signed both all the same."""
    one, other = (replace(control(), kind=200, time=time) for time in (1, 2))
    ids = sorted(signed(header)[1] for header in (one, other))
    result: Value = {"chat": CHAT, "device": DEVICE, "lane": 0, "seq": 0, "ids": ids}
    proof = encode_proof(_cover_of(one), _cover_of(other))
    return valid("two entries of a kind that no operation has", result, proof=proof)


def _values(items: tuple[object, ...]) -> codec.Value:
    """Give decoded fields their type back."""
    found: list[codec.Value] = []
    for item in items:
        if isinstance(item, tuple):
            found.append(_values(item))
        elif item is None or isinstance(item, (int, bytes)):
            found.append(item)
    return found
