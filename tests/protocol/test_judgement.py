"""SPEC 5.10: what membership says of the messages in an evidence file."""

import pytest

from protocol.entry import CONTENT, ContentHeader, EntryId
from protocol.evidence import Findings, Statement
from protocol.identity import AgencyId
from protocol.judgement import judge
from protocol.lane import Lane, LaneEntry, Named
from protocol.operation import Admit, Checkpoint, Kind, Leave, kind_of
from protocol.policy import Role
from protocol.roster import Void
from protocol.testing.cast import grant
from protocol.testing.chains import Chain, Step
from protocol.testing.story import Story
from tests.protocol.verdicts import ANNA, BORIS, CAST, CLARA, DINA


def findings(story: Story, said: ContentHeader, left_out: Kind | None) -> Findings:
    """A file with this lane and one message. left_out: whose payloads are not there."""
    entries = [
        LaneEntry(
            0,
            told.id,
            told.header,
            None if kind_of(told.entry.operation) == left_out else told.payload,
            {},
            None,
        )
        for told in reversed(story.told)
    ]
    author = Named(DINA.user, AgencyId(DINA.agency.root.public), b"", DINA.name, "RU")
    statement = Statement(EntryId(bytes(32)), said, author, b"", ())
    return Findings(story.chat, Lane({}, entries), (statement,), 1)


@pytest.mark.parametrize("left_out", [Kind.CHECKPOINT, None])
def test_an_owner_vouches_also_by_a_checkpoint_that_was_left_out(
    left_out: Kind | None,
) -> None:
    """Whose heads are not shown; that it is an owner's, after the proof, is."""
    story = Story(CAST)
    story.tell(BORIS, Checkpoint())
    one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
    other = story.retell(BORIS, Leave(), one, [story.genesis])
    proof = story.tell(CLARA, story.exposure(one, other))
    chain = Chain(DINA.signers[0], story.chat, CONTENT)
    said = chain.add(Step(control=(one.reference,))).header
    assert isinstance(said, ContentHeader)
    assert [*judge(findings(story, said, None)).values()] == [Void.NOT_A_MEMBER]
    story.tell(ANNA, Checkpoint((one.reference,)), [proof])
    assert [*judge(findings(story, said, left_out)).values()] == [None]
