"""Encryption at rest and on the bus with SECRET_KEY: signing keys, kubeconfigs, environment variables.

Fernet (AES-128-CBC with HMAC-SHA256, https://github.com/fernet/spec) under a key derived by HKDF (RFC 5869), one per
purpose, so that a value sealed for one purpose opens for no other.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class SealBrokenError(Exception):
    """The text was not sealed with this SECRET_KEY for this purpose, or was changed since."""


def derived_key(secret_key: str, purpose: str) -> bytes:
    """256 bits that tell nothing of SECRET_KEY, nor of the key for another purpose (RFC 5869)."""
    info = f"devpocket/{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret_key.encode())


class Sealer:
    """Seals and opens short secrets for one purpose."""

    def __init__(self, secret_key: str, purpose: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(derived_key(secret_key, purpose)))

    def seal(self, secret: str) -> str:
        """URL-safe text that only `open` with the same key and purpose can read."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises SealBrokenError."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SealBrokenError("cannot be opened with this SECRET_KEY") from error
