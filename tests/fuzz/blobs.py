"""Chunks of a blob, and what announces one: nothing is taken but what its author sealed."""

from collections.abc import Iterator
from functools import cache
from typing import Final

import msgspec

from protocol.attachment import Announcement, announcement, encode_announcement
from protocol.blob import check_chunk
from protocol.entry import ATTACHED, ContentHeader
from protocol.errors import NotCanonical, Unauthentic
from protocol.frame import LENGTH_BYTES, Blob, decode_frame, encode_frame
from protocol.testing.chains import Chain, Step, signer
from tests.fuzz.mutation import tree
from tests.fuzz.seeds import cases, number, plain, raw
from tests.fuzz.target import target

_CHAT: Final = bytes(32)


@cache
def _header() -> ContentHeader:
    """A header that says that a blob goes with its entry."""
    made = Chain(signer("anna"), _chunk().chat, 1).header(Step())
    assert isinstance(made, ContentHeader)
    return msgspec.structs.replace(made, kind=ATTACHED)


@cache
def _announced() -> Announcement:
    case = cases("blobs")[_place()]
    return Announcement(raw(case["root"]), number(case["size"]))


@cache
def _chunk() -> Blob:
    """The one chunk there is of that blob."""
    case = cases("blobs")[_place()]
    place = [17, _CHAT, _CHAT, case["index"], raw(case["chunk"]), plain(case["path"])]
    frame = decode_frame(msgspec.msgpack.encode(place))
    assert isinstance(frame, Blob)
    return frame


def _place() -> int:
    good = (at for at, case in enumerate(cases("blobs")) if case["do"] == "member")
    return next(good)


def _read(data: bytes) -> Blob | None:
    frame = decode_frame(data)
    if not isinstance(frame, Blob):
        return None
    check_chunk(_announced(), frame)
    return frame


def _law(_: bytes, frame: Blob | None) -> None:
    ours = _chunk()
    assert frame is None or (frame.index, frame.chunk, frame.path) == (
        ours.index,
        ours.chunk,
        ours.path,
    )


def _announcement_law(_: bytes, found: tuple[bytes, Announcement | None]) -> None:
    """What is announced can be, and is written in one way."""
    payload, announced = found
    if announced is not None:
        assert payload.startswith(encode_announcement(announced))
        assert announced.chunks > 0


def _read_announcement(data: bytes) -> tuple[bytes, Announcement | None]:
    return data, announcement(_header(), data)


def _chunks() -> Iterator[bytes]:
    yield encode_frame(_chunk())[LENGTH_BYTES:]


def _announcements() -> Iterator[bytes]:
    for case in cases("blobs"):
        if case["do"] == "announcement":
            yield raw(case["payload"])


TARGETS: Final = {
    "chunks": target(_read, _law, (NotCanonical, Unauthentic), _chunks, tree),
    "announcements": target(_read_announcement, _announcement_law, (), _announcements, tree),
}
