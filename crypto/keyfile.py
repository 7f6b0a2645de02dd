"""A secret at rest: argon2id from a passphrase, XChaCha20-Poly1305, in a block of text.

    -----BEGIN IVOR KEY-----
    base64 of: header ‖ ciphertext ‖ sum
    -----END IVOR KEY-----

    header     = version (1) ‖ passes (4) ‖ memory in KiB (4) ‖ salt (16) ‖ nonce (24)
                 ‖ length of purpose (1) ‖ purpose
    key        = argon2id(passphrase, salt, passes, memory), 32 bytes
    ciphertext = XChaCha20-Poly1305(key, nonce, aad = "ivor/1 keyfile" ‖ header, secret)
    sum        = the first 8 bytes of H("ivor/1 keyfile sum" ‖ header ‖ ciphertext)

The sum is no protection. It tells a damaged file from a wrong passphrase; the tag alone cannot.
The costs are read from the file, so their bounds are checked before argon2id is asked for memory.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
)
from nacl.exceptions import CryptoError as SodiumError

from crypto.errors import KeyFileRefused
from crypto.labels import PREFIX, digest

VERSION: Final = 1
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
PASSES: Final = 3
MEMORY_KIB: Final = 64 * 1024  # 0.1 s on an office machine; RFC 9106's second choice
PASSES_MAX: Final = 10
MEMORY_KIB_MIN: Final = 8
MEMORY_KIB_MAX: Final = 512 * 1024
PURPOSE_BYTES_MAX: Final = 255
KEY_FILE_CHARACTERS_MAX: Final = 128 * 1024

_BEGIN: Final = "-----BEGIN IVOR KEY-----"
_END: Final = "-----END IVOR KEY-----"
_LINE_CHARACTERS: Final = 64
_HEAD: Final = struct.Struct(f">BII{SALT_BYTES}s{NONCE_BYTES}sB")
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_SUM_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class _Header:
    """The part in clear; `encoded` is bound as associated data."""

    passes: int
    memory_kib: int
    salt: bytes
    nonce: bytes
    purpose: bytes
    version: int = VERSION

    @property
    def encoded(self) -> bytes:
        return (
            _HEAD.pack(
                self.version,
                self.passes,
                self.memory_kib,
                self.salt,
                self.nonce,
                len(self.purpose),
            )
            + self.purpose
        )


def seal_key(secret: bytes, passphrase: bytes, purpose: str, salt: bytes, nonce: bytes) -> str:
    """Encrypt `secret` under `passphrase`, as a block of text ending in a newline.

    purpose: at most 255 bytes of UTF-8, in clear and bound: the file opens for no other.
    salt: 16 random bytes; nonce: 24; ValueError for other lengths.
    Raises KeyFileRefused if the purpose or the secret is too long.
    Source: RFC 9106; SPEC 5.4.
    """
    if len(salt) != SALT_BYTES or len(nonce) != NONCE_BYTES:
        bug = (
            f"salt of {len(salt)} and nonce of {len(nonce)} bytes, "
            f"must be {SALT_BYTES} and {NONCE_BYTES}"
        )
        raise ValueError(bug)
    named = purpose.encode()
    if len(named) > PURPOSE_BYTES_MAX:
        refusal = f"purpose of {len(named)} bytes, limit {PURPOSE_BYTES_MAX} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    header = _Header(PASSES, MEMORY_KIB, salt, nonce, named)
    aad = PREFIX + b"keyfile" + header.encoded
    key = _stretch(passphrase, header)
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(secret, aad, nonce, key)
    text = _armour(header.encoded + ciphertext)
    if len(text) > KEY_FILE_CHARACTERS_MAX:
        refusal = f"key file of {len(text)} characters, limit {KEY_FILE_CHARACTERS_MAX} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    return text


def open_key(data: str | bytes, passphrase: bytes, purpose: str) -> bytes:
    """Read the secret of a key file.

    data: the file's text, or its bytes as read. Raises KeyFileRefused, saying which: damaged,
    unknown version, costs out of bounds, for another purpose, or wrong passphrase.
    """
    header, ciphertext = _parse(_dearmour(data))
    if header.purpose != purpose.encode():
        found = header.purpose.decode(errors="replace")
        refusal = f"key file is for {found!r}, not for {purpose!r} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    key = _stretch(passphrase, header)
    aad = PREFIX + b"keyfile" + header.encoded
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, header.nonce, key)
    except SodiumError:
        raise KeyFileRefused("wrong passphrase for this key file (SPEC 5.4)") from None


def _stretch(passphrase: bytes, header: _Header) -> bytes:
    """Derive the file's 32-byte key. Raises KeyFileRefused if the machine has not the memory."""
    try:
        return crypto_pwhash_alg(
            _KEY_BYTES,
            passphrase,
            header.salt,
            header.passes,
            header.memory_kib * 1024,
            crypto_pwhash_ALG_ARGON2ID13,
        )
    except SodiumError:
        refusal = f"argon2id could not have {header.memory_kib} KiB of memory (SPEC 5.4)"
        raise KeyFileRefused(refusal) from None


def _armour(body: bytes) -> str:
    encoded = base64.b64encode(body + _sum(body)).decode()
    lines = [encoded[at : at + _LINE_CHARACTERS] for at in range(0, len(encoded), _LINE_CHARACTERS)]
    return "\n".join((_BEGIN, *lines, _END, ""))


def _dearmour(data: str | bytes) -> bytes:
    """Read the block's body and check its sum. Lines may end in CR LF; blank ones are skipped."""
    if len(data) > KEY_FILE_CHARACTERS_MAX:
        refusal = f"key file of {len(data)} characters, limit {KEY_FILE_CHARACTERS_MAX} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    text = data if isinstance(data, str) else data.decode("ascii", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != _BEGIN or lines[-1] != _END:  # noqa: PLR2004 - the two marks
        raise KeyFileRefused("damaged or not a key file: no IVOR KEY block (SPEC 5.4)")
    try:
        body = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileRefused("key file is damaged: not base64 (SPEC 5.4)") from None
    if len(body) < _SUM_BYTES or _sum(body[:-_SUM_BYTES]) != body[-_SUM_BYTES:]:
        raise KeyFileRefused("key file is damaged: its sum is wrong (SPEC 5.4)")
    return body[:-_SUM_BYTES]


def _parse(body: bytes) -> tuple[_Header, bytes]:
    """Split into header and ciphertext, the version known and the costs within bounds."""
    if not body or body[0] != VERSION:
        refusal = f"key file of version {body[:1].hex()}, this program knows {VERSION} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    # A head that is not there has no length of purpose; one that is there has it last.
    least = _HEAD.size + _TAG_BYTES + (body[_HEAD.size - 1] if len(body) >= _HEAD.size else 0)
    if len(body) < least:
        refusal = f"key file is damaged: {len(body)} bytes, at least {least} (SPEC 5.4)"
        raise KeyFileRefused(refusal)
    version, passes, memory_kib, salt, nonce, purpose_bytes = _HEAD.unpack_from(body)
    if not (1 <= passes <= PASSES_MAX and MEMORY_KIB_MIN <= memory_kib <= MEMORY_KIB_MAX):
        refusal = (
            f"key file asks for {passes} passes over {memory_kib} KiB, allowed 1 to {PASSES_MAX} "
            f"over {MEMORY_KIB_MIN} to {MEMORY_KIB_MAX} (SPEC 5.4)"
        )
        raise KeyFileRefused(refusal)
    end = _HEAD.size + purpose_bytes
    header = _Header(passes, memory_kib, salt, nonce, body[_HEAD.size : end], version)
    return header, body[end:]


def _sum(body: bytes) -> bytes:
    return digest("keyfile sum", body)[:_SUM_BYTES]
