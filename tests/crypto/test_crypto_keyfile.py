"""Key files (SPEC 5.4). argon2id takes 0.1 s, so the laws are tried on few examples."""

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import RuntimeError as SodiumRuntimeError

from crypto import keyfile
from crypto.errors import KeyFileRefused
from crypto.keyfile import (
    MEMORY_KIB,
    MEMORY_KIB_MAX,
    PASSES,
    PASSES_MAX,
    open_key,
    seal_key,
)
from crypto.labels import digest

SALT, NONCE = b"s" * 16, b"n" * 24
SECRET = bytes(range(32))
TEXT = seal_key(SECRET, b"correct horse", "device", SALT, NONCE)


def armoured(body: bytes) -> str:
    """Wrap any body with a right sum."""
    encoded = base64.b64encode(body + digest("keyfile sum", body)[:8]).decode()
    return f"-----BEGIN IVOR KEY-----\n{encoded}\n-----END IVOR KEY-----\n"


def body_with_costs(passes: int, memory_kib: int) -> bytes:
    return struct.pack(">BII", 1, passes, memory_kib) + SALT + NONCE + b"\x06device" + bytes(48)


class TestKeyFile:
    @settings(max_examples=5, deadline=None)
    @given(st.binary(max_size=200), st.binary(max_size=20), st.text(max_size=20))
    def test_opens(self, secret: bytes, passphrase: bytes, purpose: str) -> None:
        """What is sealed comes back, from text and from bytes."""
        text = seal_key(secret, passphrase, purpose, SALT, NONCE)
        assert open_key(text, passphrase, purpose) == secret
        assert open_key(text.encode(), passphrase, purpose) == secret

    def test_is_a_block_of_text(self) -> None:
        """Short ASCII lines between two marks; CR LF and blank lines around do no harm."""
        lines = TEXT.splitlines()
        assert lines[0] == "-----BEGIN IVOR KEY-----"
        assert lines[-1] == "-----END IVOR KEY-----"
        assert max(map(len, lines)) <= 64
        moved = "\r\n" + TEXT.replace("\n", "\r\n") + "\r\n"
        assert open_key(moved, b"correct horse", "device") == SECRET

    def test_wrong_passphrase(self) -> None:
        """It says so."""
        with pytest.raises(KeyFileRefused, match="wrong passphrase"):
            open_key(TEXT, b"battery staple", "device")

    def test_wrong_purpose(self) -> None:
        """It says both purposes."""
        with pytest.raises(KeyFileRefused, match="'device', not for 'agency root'"):
            open_key(TEXT, b"correct horse", "agency root")

    @given(st.data())
    def test_any_flipped_bit_is_damage(self, data: st.DataObject) -> None:
        """A changed file is called damaged, never a wrong passphrase."""
        body = bytearray(base64.b64decode("".join(TEXT.splitlines()[1:-1])))
        bit = data.draw(st.integers(0, len(body) * 8 - 1))
        body[bit // 8] ^= 1 << bit % 8
        block = (
            f"-----BEGIN IVOR KEY-----\n{base64.b64encode(body).decode()}\n-----END IVOR KEY-----"
        )
        with pytest.raises(KeyFileRefused, match="damaged"):
            open_key(block, b"correct horse", "device")

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever the file holds, the answer is KeyFileRefused."""
        with pytest.raises(KeyFileRefused):
            open_key(data, b"", "device")

    @given(st.binary(max_size=60))
    def test_any_body(self, body: bytes) -> None:
        """A right sum over a wrong body is still refused."""
        with pytest.raises(KeyFileRefused):
            open_key(armoured(body), b"", "device")

    @pytest.mark.parametrize("inside", ["", "Zm9v!", "Zm9", "Zm9v"])
    def test_damaged_base64(self, inside: str) -> None:
        """Nothing, another alphabet, a cut group, or too short for a sum."""
        with pytest.raises(KeyFileRefused, match="damaged"):
            open_key(f"-----BEGIN IVOR KEY-----\n{inside}\n-----END IVOR KEY-----", b"", "device")

    def test_unknown_version(self) -> None:
        """It says which."""
        with pytest.raises(KeyFileRefused, match="version 02"):
            open_key(armoured(b"\x02" + bytes(100)), b"", "device")

    @pytest.mark.parametrize("kept", [1, 49, 50, 55, 56, 71])
    def test_short_body(self, kept: int) -> None:
        """Cut in the head, the purpose or the tag, under a right sum."""
        with pytest.raises(KeyFileRefused, match=f"{kept} bytes, at least"):
            open_key(armoured(body_with_costs(1, 8)[:kept]), b"", "device")

    @pytest.mark.parametrize(
        ("passes", "memory_kib"),
        [
            (PASSES, 2**30),
            (PASSES, MEMORY_KIB_MAX + 1),
            (PASSES, 7),
            (0, MEMORY_KIB),
            (PASSES_MAX + 1, MEMORY_KIB),
            (2**32 - 1, 8),
        ],
    )
    def test_costs_are_bounded(self, passes: int, memory_kib: int) -> None:
        """A hostile file cannot ask for a terabyte or a week."""
        with pytest.raises(KeyFileRefused, match="asks for"):
            open_key(armoured(body_with_costs(passes, memory_kib)), b"", "device")

    def test_costs_within_bounds_are_used(self) -> None:
        """The file's own costs, not today's constants, open it."""
        with pytest.raises(KeyFileRefused, match="wrong passphrase"):
            open_key(armoured(body_with_costs(1, 8)), b"", "device")

    def test_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine without the memory gets a typed error."""

        def fail(*_: object) -> bytes:
            raise SodiumRuntimeError

        monkeypatch.setattr(keyfile, "crypto_pwhash_alg", fail)
        with pytest.raises(KeyFileRefused, match="memory"):
            open_key(TEXT, b"correct horse", "device")

    def test_size_limits(self) -> None:
        """Too long a purpose or secret is refused when made, too long a file before it is read."""
        with pytest.raises(KeyFileRefused, match="purpose of 256 bytes"):
            seal_key(SECRET, b"", "p" * 256, SALT, NONCE)
        with pytest.raises(KeyFileRefused, match="characters"):
            seal_key(bytes(100_000), b"", "device", SALT, NONCE)
        with pytest.raises(KeyFileRefused, match="characters"):
            open_key("\n" * 200_000, b"", "device")

    @pytest.mark.parametrize(("salt", "nonce"), [(b"", NONCE), (SALT, b""), (NONCE, SALT)])
    def test_salt_and_nonce_of_wrong_length(self, salt: bytes, nonce: bytes) -> None:
        """That is our own bug, so it is a ValueError."""
        with pytest.raises(ValueError, match="salt"):
            seal_key(SECRET, b"", "device", salt, nonce)
