"""Checkpoints (SPEC 2.7): what an ML-DSA signature covers, and who may make one."""

from dataclasses import replace

import pytest

from crypto.fingerprint import agency_fingerprint
from crypto.signing import Signer
from protocol import codec, identity
from protocol.checkpoint import (
    Anchor,
    ArchiveCertificate,
    anchor_fields,
    certify_archive,
    check_anchor,
    make_anchor,
    read_anchor,
    read_archive,
)
from protocol.entry import ChatId, EntryId, Place, Reference
from protocol.errors import NotCanonical, Untrusted
from protocol.identity import AgencyId
from protocol.operation import Checkpoint
from protocol.policy import Role
from protocol.testing.cast import (
    Person,
    agency,
    archive_certificate,
    archive_signer,
    credential,
    person,
    seed,
)
from protocol.testing.conversations import Conversation
from protocol.testing.network import Replica
from protocol.testing.story import Story

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mvd")
HEAD = Reference(BORIS.devices[0], 4, EntryId(seed("content")))


def story() -> Story:
    return Story([(ANNA, Role.OWNER), (BORIS, Role.MEMBER), (CLARA, Role.MEMBER)])


def place(who: Person = ANNA, number: int = 0) -> Place:
    told = story()
    return Place(told.chat, who.devices[number], 1, told.genesis.id, ())


def anchored(who: Person = ANNA, at: Place | None = None) -> Anchor:
    where = at or place(who)
    return make_anchor(archive_signer(who), archive_certificate(who), where, (HEAD,))


def check(anchor: Anchor, at: Place, heads: tuple[Reference, ...], who: Person = ANNA) -> None:
    check_anchor(anchor, at, heads, credential(who).user)


class TestAnchor:
    def test_it_holds_where_it_stands(self) -> None:
        found = read_anchor(anchor_fields(anchored()))
        assert found is not None
        check(found, place(), (HEAD,))

    @pytest.mark.parametrize(
        "changed",
        [
            place()._replace(chat=ChatId(seed("other chat"))),
            place()._replace(seq=2),
            place()._replace(prev=None),
            place()._replace(links=(HEAD,)),
        ],
    )
    def test_it_is_void_at_another_place(self, changed: Place) -> None:
        with pytest.raises(Untrusted, match="checkpoint"):
            check(anchored(), changed, (HEAD,))

    def test_it_is_void_with_other_heads(self) -> None:
        for heads in ((), (HEAD._replace(seq=5),), (HEAD, HEAD._replace(seq=5))):
            with pytest.raises(Untrusted, match="checkpoint"):
                check(anchored(), place(), heads)

    def test_another_device_of_the_user_can_not_use_it(self) -> None:
        with pytest.raises(Untrusted, match="another device"):
            check(anchored(), place(ANNA, 1), (HEAD,))

    def test_a_key_of_another_agency(self) -> None:
        """An agency can not certify devices of another one's users."""
        foreign = agency("mvd").archive
        forged = certify_archive(
            foreign,
            AgencyId(ANNA.agency.root.public),
            ANNA.user,
            ANNA.devices[0],
            archive_signer(ANNA).public,
        )
        anchor = make_anchor(archive_signer(ANNA), forged, place(), (HEAD,))
        with pytest.raises(Untrusted, match="author's agency"):
            check(anchor, place(), (HEAD,))

    def test_a_certificate_of_another_user(self) -> None:
        with pytest.raises(Untrusted, match="author's agency"):
            check(anchored(), place(), (HEAD,), BORIS)

    def test_all_or_nothing(self) -> None:
        whole = list(anchor_fields(anchored()))
        assert read_anchor([None, None, None]) is None
        for left_out in range(3):
            with pytest.raises(NotCanonical, match="or none"):
                read_anchor([None if at == left_out else one for at, one in enumerate(whole)])


class TestCertificate:
    def read(self) -> ArchiveCertificate:
        return read_archive(archive_certificate(ANNA))

    def test_what_it_says(self) -> None:
        found = self.read()
        assert (found.agency, found.user) == (ANNA.agency.root.public, ANNA.user)
        assert (found.device, found.authority) == (ANNA.devices[0], ANNA.agency.archive.public)

    def test_every_flipped_bit_is_refused(self) -> None:
        raw = archive_certificate(ANNA)
        for at in range(0, len(raw), 97):
            broken = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
            with pytest.raises((NotCanonical, Untrusted)):
                read_archive(broken)

    def test_another_version(self) -> None:
        body = codec.encode((2, bytes(32), bytes(32), bytes(32), bytes(32)))
        signer = ANNA.agency.archive
        raw = codec.encode((body, signer.public, signer.sign("archive certificate", body)))
        with pytest.raises(NotCanonical, match="version 2"):
            read_archive(raw)


class TestAdmission:
    def talk(self) -> Conversation:
        talk = Conversation(story(), [ANNA, BORIS, CLARA])
        talk.tell(ANNA, talk.story.genesis)
        return talk

    def tell(self, talk: Conversation, anchor: Anchor) -> None:
        talk.tell(ANNA, talk.story.tell(ANNA, Checkpoint((HEAD,), anchor)))

    def admitted(self, talk: Conversation) -> list[bool]:
        replica = Replica("mz")
        return [not replica.take(run)[0].refused for run in talk.runs]

    def test_a_right_one(self) -> None:
        talk = self.talk()
        self.tell(talk, anchored(at=place()))
        assert self.admitted(talk) == [True, True]

    def test_a_wrong_one(self) -> None:
        """What a node can not check against the place is never stored."""
        talk = self.talk()
        self.tell(talk, replace(anchored(), signature=bytes(3309)))
        assert self.admitted(talk) == [True, False]

    def test_what_is_remembered(self) -> None:
        """A chat lives long, and keys and signatures are large: only who vouches for it is kept."""
        talk = self.talk()
        self.tell(talk, anchored(at=place()))
        replica = Replica("mz")
        for run in talk.runs:
            replica.take(run)
        chat = replica.chats[talk.chat].chat
        last = chat.history.entries[-1]
        assert last.operation == Checkpoint((HEAD,))
        assert chat.anchored == {last.id: anchored().certificate.agency}


def test_the_fingerprint_covers_both_keys() -> None:
    root, registrar = Signer(b"r" * 32), Signer(b"g" * 32)
    shown = set()
    for serial, archive in ((1, b"a" * 32), (2, b"a" * 32), (2, b"b" * 32)):
        raw = identity.sign_charter(root, serial, "mz", "RU", registrar.public, archive)
        shown.add(identity.verify_charter(raw).fingerprint)
    assert shown == {agency_fingerprint(root.public, one * 32) for one in (b"a", b"b")}
    assert len(shown) == 2
