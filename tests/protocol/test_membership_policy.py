"""SPEC 3.4: what the settings of a chat amount to, and which agencies may hold it."""

from collections.abc import Collection

import pytest

from protocol import assembly
from protocol.history import History
from protocol.identity import AgencyId
from protocol.membership import (
    Void,
    resolve,
)
from protocol.operation import (
    SetPolicy,
    SetRole,
)
from protocol.policy import ZONES_MAX, HistoryRule, Policy, Role, covering, narrow
from protocol.testing.cast import person
from protocol.testing.story import Story
from tests.protocol.verdicts import ANNA, BORIS, CAST, CLARA, reason


class TestPolicy:
    def test_agencies_inside_the_zones_hold_the_chat(self) -> None:
        afar = person("ivan@perm", "RU-PER")
        story = Story([*CAST, (afar, Role.MEMBER)])
        homes = {AgencyId(one.agency.root.public) for one in (ANNA, afar)}
        assert resolve(story.history()).agencies == homes
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)))
        assert resolve(story.history()).agencies == homes - {AgencyId(afar.agency.root.public)}

    def test_an_agency_with_charters_of_two_zones(self) -> None:
        """One member inside is enough, whichever of them anything was about last."""
        afar = person("ivan@mz", "KZ")
        story = Story([*CAST, (afar, Role.READER)])
        home = AgencyId(ANNA.agency.root.public)
        assert home in resolve(story.history()).agencies
        for one in (afar, CLARA, afar):
            story.tell(ANNA, SetRole(one.user, Role.MEMBER, ()))
            assert home in resolve(story.history()).agencies

    def test_the_last_setting_holds(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 60, HistoryRule.FROM_JOIN)))
        story.tell(BORIS, SetPolicy(Policy(("RU-UDM",), 3600, HistoryRule.SHARED)))
        assert resolve(story.history()).policy == Policy(("RU-UDM",), 3600, HistoryRule.SHARED)

    def test_zones_never_widen_and_never_vanish(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 0, HistoryRule.SHARED)))
        story.tell(ANNA, SetPolicy(Policy(("KZ", "RU"), 0, HistoryRule.SHARED)))
        nowhere = story.tell(ANNA, SetPolicy(Policy(("KZ",), 0, HistoryRule.SHARED)))
        assert reason(story, nowhere) == Void.NOWHERE
        assert resolve(story.history()).policy.zones == ("RU-UDM",)

    def test_a_setting_costs_no_more_than_what_it_adds(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An owner splits zones without end: what met before is not met again."""
        calls: list[int] = []

        def counted(zones: Collection[str], others: Collection[str]) -> tuple[str, ...]:
            calls.append(len(zones))
            return narrow(zones, others)

        monkeypatch.setattr(assembly, "narrow", counted)
        story = Story(CAST, policy=Policy(("A",), 0, HistoryRule.SHARED))
        zones = ["A"]
        for _ in range(13):
            zones = [*zones[:-1], f"{zones[-1]}-A", f"{zones[-1]}-B"]
            story.tell(ANNA, SetPolicy(Policy(tuple(zones), 0, HistoryRule.SHARED)))
        history = History()
        for entry in story.entries:
            history.add(entry)
            resolve(history)
        assert resolve(history).policy.zones == tuple(zones)
        assert len(calls) == 13

    def test_zones_inside_others_add_nothing(self) -> None:
        """Who names them again changes no zones, so an admin may."""
        zones = ("RU", "RU-UDM")
        story = Story(CAST, policy=Policy(zones, 0, HistoryRule.SHARED))
        assert resolve(story.history()).policy.zones == ("RU",)
        for seconds in (60, 70):
            told = story.tell(BORIS, SetPolicy(Policy(zones, seconds, HistoryRule.SHARED)))
            assert reason(story, told) is None
        told = story.tell(BORIS, SetPolicy(Policy(("RU-UDM",), 60, HistoryRule.SHARED)))
        assert reason(story, told) == Void.RANK
        assert resolve(story.history()).policy == Policy(("RU",), 70, HistoryRule.SHARED)

    def test_more_zones_than_a_setting_names_can_be_left_as_they_are(self) -> None:
        """Where settings meet there can be more than 16: who names wider ones narrows nothing."""
        first = ("RU-A", *(f"RU-B-{number:02}" for number in range(15)))
        second = (*(f"RU-A-{number:02}" for number in range(15)), "RU-B")
        story = Story(CAST, policy=Policy(first, 0, HistoryRule.SHARED))
        story.tell(ANNA, SetPolicy(Policy(second, 0, HistoryRule.SHARED)))
        zones = resolve(story.history()).policy.zones
        assert len(zones) == 30
        wider = covering(zones)
        assert len(wider) <= ZONES_MAX
        told = story.tell(BORIS, SetPolicy(Policy(wider, 60, HistoryRule.SHARED)))
        assert reason(story, told) is None
        assert resolve(story.history()).policy == Policy(zones, 60, HistoryRule.SHARED)
        told = story.tell(BORIS, SetPolicy(Policy(wider[1:], 60, HistoryRule.SHARED)))
        assert reason(story, told) == Void.RANK

    @pytest.mark.parametrize(
        ("zones", "wider"),
        [
            (("RU", "RU-UDM"), ("RU",)),
            (tuple(f"RU-{number}" for number in range(17)), ("RU",)),
            (tuple(f"Z{number:02}" for number in range(17)), tuple(f"Z{n:02}" for n in range(17))),
        ],
    )
    def test_wider_zones(self, zones: tuple[str, ...], wider: tuple[str, ...]) -> None:
        assert covering(zones) == wider

    def test_zones_that_meet(self) -> None:
        assert narrow(("RU",), ("RU-PER", "RU-UDM")) == ("RU-PER", "RU-UDM")
        assert narrow(("RU", "RU-UDM"), ("RU-UDM-IZH", "RU-UDM")) == ("RU-UDM",)
        assert narrow(("RU",), ("RUS",)) == ()
