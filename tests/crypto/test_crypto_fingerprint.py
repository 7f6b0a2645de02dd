"""What people compare (SPEC 5.4)."""

import hashlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.fingerprint import fingerprint, is_fingerprint, link_code, safety_number

keys = st.binary(min_size=32, max_size=32)
names = st.text(max_size=20)


class TestFingerprint:
    @given(keys, keys)
    def test_names_the_key(self, one: bytes, other: bytes) -> None:
        """Equal fingerprints mean equal keys."""
        assert (fingerprint(one) == fingerprint(other)) == (one == other)

    @given(st.binary(max_size=64))
    def test_shape(self, key: bytes) -> None:
        """Eight groups of four, with no 0, 1, 8 or 9 to mistake for a letter."""
        shown = fingerprint(key)
        assert re.fullmatch(r"[A-Z2-7]{4}( [A-Z2-7]{4}){7}", shown)
        assert is_fingerprint(shown)
        assert is_fingerprint(shown.replace(" ", "").lower())

    @given(keys, st.integers(0, 38), st.sampled_from("0189-é"))
    def test_what_is_none(self, key: bytes, at: int, other: str) -> None:
        """One letter too few, or one that no fingerprint has."""
        shown = fingerprint(key)
        assert not is_fingerprint(shown[:-1])
        assert not is_fingerprint(shown[:at] + other + shown[at + 1 :])


class TestLinkCode:
    @given(keys, keys, keys)
    def test_names_ticket_and_request(self, ticket: bytes, one: bytes, other: bytes) -> None:
        code = link_code(ticket, one)
        assert re.fullmatch(r"[A-Z2-7]{4}( [A-Z2-7]{4}){3}", code)
        assert (code == link_code(ticket, other)) == (one == other)
        assert (code == link_code(other, one)) == (ticket == other)


class TestSafetyNumber:
    @settings(max_examples=10, deadline=None)
    @given(keys, names, keys, names)
    def test_is_the_same_on_both_sides(
        self, id_a: bytes, name_a: str, id_b: bytes, name_b: str
    ) -> None:
        """Sixty digits, whoever is called a."""
        number = safety_number(id_a, name_a, id_b, name_b)
        assert number == safety_number(id_b, name_b, id_a, name_a)
        assert re.fullmatch(r"[0-9]{5}( [0-9]{5}){11}", number)

    def test_is_as_written(self) -> None:
        """Each half is 5,200 rounds of SHA-512, then six times five bytes modulo 100,000."""
        halves = []
        for identity, name in ((b"a" * 32, b"anna@minzdrav"), (b"b" * 32, b"boris@mincifry")):
            state = b"ivor/1 safety\x00\x20" + identity + name
            for _ in range(5200):
                state = hashlib.sha512(state + identity).digest()
            numbers = [
                int.from_bytes(state[at : at + 5], "big") % 100_000 for at in range(0, 30, 5)
            ]
            halves.append(" ".join(f"{number:05}" for number in numbers))
        expected = " ".join(sorted(halves))
        assert safety_number(b"a" * 32, "anna@minzdrav", b"b" * 32, "boris@mincifry") == expected

    def test_depends_on_all(self) -> None:
        """Another key or another name on either side makes another number."""
        numbers = {
            safety_number(b"a" * 32, "anna", b"b" * 32, "boris"),
            safety_number(b"c" * 32, "anna", b"b" * 32, "boris"),
            safety_number(b"a" * 32, "anya", b"b" * 32, "boris"),
            safety_number(b"a" * 32, "boris", b"b" * 32, "anna"),
        }
        assert len(numbers) == 4
