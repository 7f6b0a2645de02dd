"""SPEC 5.1: names, zones, endpoints, and what looks alike."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.name import (
    Address,
    check_name,
    check_zone,
    fold,
    inside,
    look_alike,
    parse_address,
    skeleton,
    split_endpoint,
)

LATIN = st.from_regex(r"[a-z](?:[.-]?[a-z0-9]){0,15}", fullmatch=True)
CYRILLIC = st.from_regex(r"[а-яёӝӟӥӧӵ](?:[.-]?[а-яёӝӟӥӧӵ0-9]){0,15}", fullmatch=True)
NAMES = LATIN | CYRILLIC
ZONES = st.from_regex(r"[A-Z0-9]{1,4}(?:-[A-Z0-9]{1,4}){0,3}", fullmatch=True)


class TestNames:
    @given(NAMES)
    def test_a_name_is_its_own_folded_form(self, name: str) -> None:
        """What is allowed on the wire is already NFC and lower case."""
        assert check_name(name) == name == fold(name)

    @given(NAMES, NAMES)
    def test_an_address_reads_back(self, user: str, agency: str) -> None:
        assert parse_address(Address(user, agency).text) == Address(user, agency)

    @given(st.text(max_size=40))
    def test_any_text_is_a_name_or_refused_with_a_typed_error(self, text: str) -> None:
        with suppress(PeerError):
            assert check_name(text) == fold(text)

    @pytest.mark.parametrize("name", ["аnna", "annа", "bоris", "минzdrav", "ivanов", "a-б"])
    def test_two_scripts_in_one_name_are_refused(self, name: str) -> None:
        """Hostile case 59."""
        with pytest.raises(Untrusted, match="mixes"):
            check_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            *("", "Anna", "-anna", "anna.", "an..na", "an.-na", "1anna", "an na", "an_na"),
            *("an\u200bna", "an\u202ena", "anna\n", "annα", "ann\u00e4", "anna@", "и\u0306", "٣a"),
        ],
    )
    def test_everything_else_is_refused(self, name: str) -> None:
        """Zero-width, bidi, capitals, other scripts, letters not composed (hostile case 59)."""
        with pytest.raises(NotCanonical):
            check_name(name)

    def test_length_is_limited(self) -> None:
        assert check_name("я" * 32)
        with pytest.raises(LimitExceeded):
            check_name("я" * 33)

    def test_typed_addresses_are_folded(self) -> None:
        assert parse_address(" Анна@Minzdrav ").text == "анна@minzdrav"
        assert parse_address("и\u0306од@a").user == "йод"

    @pytest.mark.parametrize("text", ["anna", "", "a@", "@a", "a@b@c"])
    def test_an_address_has_one_at_sign(self, text: str) -> None:
        with pytest.raises(NotCanonical):
            parse_address(text)


class TestZones:
    @given(ZONES, ZONES)
    def test_a_zone_holds_its_parts(self, zone: str, other: str) -> None:
        assert check_zone(zone) == zone
        assert inside(zone, zone)
        assert inside(f"{zone}-{other}", zone)
        assert not inside(zone, f"{zone}-{other}")
        assert not inside(f"{zone}S", zone)

    @pytest.mark.parametrize("zone", ["", "ru", "RU-", "-RU", "RU--UDM", "RU UDM", "РУ", "RU\n"])
    def test_other_texts_are_no_zones(self, zone: str) -> None:
        with pytest.raises(NotCanonical):
            check_zone(zone)

    def test_length_is_limited(self) -> None:
        with pytest.raises(LimitExceeded):
            check_zone("R" * 33)


class TestEndpoints:
    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [("node.a.example:7340", "node.a.example", 7340), ("[2001:db8::1]:1", "2001:db8::1", 1)],
    )
    def test_host_and_port(self, text: str, host: str, port: int) -> None:
        assert split_endpoint(text) == (host, port)

    @pytest.mark.parametrize(
        "text", ["", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "::1:7", "a:١"]
    )
    def test_other_texts_are_no_endpoints(self, text: str) -> None:
        with pytest.raises(NotCanonical):
            split_endpoint(text)

    def test_length_is_limited(self) -> None:
        with pytest.raises(LimitExceeded):
            split_endpoint("a" * 300 + ":1")


class TestLookAlikes:
    @pytest.mark.parametrize(
        ("name", "other"),
        [
            *(("сор", "cop"), ("анна", "ahha"), ("boris", "b0ris"), ("rnoris", "moris")),
            *(("йван", "иван"), ("ёж", "еж"), ("раул@a", "payл@а"), ("vvera", "wera")),
        ],
    )
    def test_pairs_that_people_take_for_each_other(self, name: str, other: str) -> None:
        assert look_alike(name, other)
        assert look_alike(other, name)

    @given(NAMES)
    def test_nothing_is_its_own_look_alike(self, name: str) -> None:
        assert not look_alike(name, name)
        assert not look_alike(name.upper(), name)

    def test_plainly_different_names_are_told_apart(self) -> None:
        assert skeleton("anna") != skeleton("boris")
        assert not look_alike("анна", "борис")
