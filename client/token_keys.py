"""A signing key on a PKCS#11 token: a smart card, an HSM, or SoftHSM in tests (SPEC 5.8).

The key never leaves the token. It is asked for the raw ECDSA mechanism, which every module has.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

import pkcs11
from asn1crypto import pem, x509
from pkcs11 import Mechanism, ObjectClass, PublicKey, Session
from pkcs11.types import SignMixin
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature
from pyhanko.sign.pkcs11 import PKCS11Signer
from pyhanko.sign.signers.pdf_cms import Signer

from client.signing_keys import SigningKey, Token
from crypto.certificate import public_key
from crypto.errors import CertificateRefused
from node.errors import UserError


class TokenKey:
    """A key pair of one label in an open session."""

    def __init__(self, session: Session, label: str) -> None:
        self._session = session
        self._label = label

    def public(self) -> bytes:
        """Return the public key, PEM. Raises UserError unless it is P-256."""
        found = self._session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=self._label)
        if not isinstance(found, PublicKey):
            raise UserError(f"the token has no public key with the label {self._label!r}")
        try:
            armoured = bytes(pem.armor("PUBLIC KEY", encode_ec_public_key(found)))
            public_key(armoured)
        except (CertificateRefused, pkcs11.PKCS11Error):
            raise UserError(f"the token's key {self._label!r} is not ECDSA P-256") from None
        return armoured

    def prove(self, claim: bytes) -> bytes:
        """Sign a claim, DER."""
        found = self._session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=self._label)
        if not isinstance(found, SignMixin):
            raise UserError(f"the token has no private key with the label {self._label!r}")
        signed = found.sign(sha256(claim).digest(), mechanism=Mechanism.ECDSA)
        return bytes(encode_ecdsa_signature(signed))

    def signer(self, certified: bytes, authority: bytes) -> Signer:
        """Return what pyHanko signs with."""
        return PKCS11Signer(
            self._session,
            signing_cert=x509.Certificate.load(certified),
            ca_chain=[x509.Certificate.load(authority)],
            key_label=self._label,
            use_raw_mechanism=True,
        )


@contextmanager
def token_key(token: Token, pin: str) -> Iterator[SigningKey]:
    """Open a key for the length of a block. Raises UserError, which names what is missing."""
    try:
        # In a thread of its own: a module that uses OpenSSL may leave errors in the thread's queue,
        # which our next TLS handshake would take for its own.
        with ThreadPoolExecutor(1) as worker:
            module = worker.submit(pkcs11.lib, token.module).result()
        found = module.get_token(token_label=token.token)
        with found.open(user_pin=pin) as session:
            yield TokenKey(session, token.key)
    except pkcs11.NoSuchToken:
        raise UserError(f"no token with the label {token.token!r} in {token.module}") from None
    except pkcs11.NoSuchKey:
        raise UserError(
            f"the token has no key pair with the label {token.key!r}: make one of ECDSA P-256 with "
            "the token's own program, such as pkcs11-tool --keypairgen --key-type EC:prime256v1"
        ) from None
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise UserError("the token refuses the PIN; it locks itself after a few tries") from None
    except pkcs11.PKCS11Error as error:
        raise UserError(f"the token does not work: {type(error).__name__} {error}") from None
