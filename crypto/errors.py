"""What the crypto package raises.

    CryptoError
    ├── BadSignature        a signature that libsodium does not accept
    ├── SealRefused         a prekey that cannot be sealed to, or a seal that does not open
    ├── ContentRefused      a message body that does not open, or is not what its header says
    ├── KeyFileRefused      a key file that is damaged, or for another purpose or passphrase
    └── CertificateRefused  a certificate, or a request for one, outside the rules

All of them are about bytes that came from elsewhere. An argument of the wrong length that only
our own code can have made (a seed, a nonce) is a ValueError: fix the caller.
"""


class CryptoError(Exception):
    """Base of everything that this package refuses."""


class BadSignature(CryptoError):
    """The signature is not one of this key over this message, as libsodium judges it."""


class SealRefused(CryptoError):
    """The prekey is malformed, or the seal does not open with this prekey and this info."""


class ContentRefused(CryptoError):
    """The body does not open, is padded wrongly, or does not match its commitment."""


class KeyFileRefused(CryptoError):
    """The key file cannot be opened; the message says what to look at."""


class CertificateRefused(CryptoError):
    """The certificate does not name exactly one subject, or may not be issued."""
