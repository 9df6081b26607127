"""Access tokens that must be worth nothing, made by somebody who knows the owner's session and the public keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.common.clock import utc_now
from libs.common.security.tokens import ALGORITHM
from services.auth.keyring import SigningKey


class Forger:
    """Makes tokens like `genuine`, also with the real key, so that only one thing is wrong with each."""

    def __init__(self, genuine: str, key: SigningKey) -> None:
        self._genuine = genuine
        self._key = key
        self._claims: dict[str, Any] = jwt.decode(genuine, options={"verify_signature": False})

    def signed(self, key: Ed25519PrivateKey | None = None, kid: str | None = None, **claims: Any) -> str:
        """Good unless changed; a claim that is None is left out."""
        return jwt.encode(
            self._payload(claims), key or self._key.private, ALGORITHM, headers={"kid": kid or self._key.kid}
        )

    def forgeries(self) -> dict[str, str]:
        """Tokens by what is wrong with them."""
        now, stranger = utc_now(), Ed25519PrivateKey.generate()
        public = self._key.public
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            "an expired token": self.signed(iat=_at(now - timedelta(hours=2)), exp=_at(now - timedelta(minutes=1))),
            "a token with alg none": self._by_hand({"alg": "none"}, None),
            "a token by HS256 with the public key": self._by_hand({"alg": "HS256"}, public.public_bytes_raw()),
            "a token by HS256 with the public key's PEM": self._by_hand({"alg": "HS256"}, pem),
            "a token of an unknown kid": self.signed(stranger, "unknown"),
            "a token by another key": self.signed(stranger),
            "a token for another audience": self.signed(aud="somebody-else"),
            "a token of another issuer": self.signed(iss="somebody-else"),
            "a token with another payload": self._tampered(plan="admin"),
        }

    def oddities(self) -> dict[str, str]:
        """More of them, for which one try is enough."""
        stranger = Ed25519PrivateKey.generate()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(stranger.public_key().public_bytes_raw())}
        return {
            "a token without an end": self.signed(exp=None),
            "a token without a session": self.signed(sid=None),
            "a token with alg None": self._by_hand({"alg": "None"}, None),
            "a token without a signature": self._by_hand({"alg": ALGORITHM}, None),
            "a token by HS256 with the public key's x": self._by_hand({"alg": "HS256"}, self._key.x.encode()),
            "a token that brings its key": self._by_key({"kid": "unknown", "jwk": jwk}, stranger),
        }

    def _payload(self, changes: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**self._claims, **changes}.items() if value is not None}

    def _tampered(self, **changes: Any) -> str:
        header, _, signature = self._genuine.split(".")
        return f"{header}.{_segment(self._payload(changes))}.{signature}"

    def _by_key(self, header: dict[str, Any], key: Ed25519PrivateKey) -> str:
        return jwt.encode(self._payload({}), key, ALGORITHM, headers=header)

    def _by_hand(self, header: dict[str, Any], secret: bytes | None) -> str:
        """PyJWT refuses to make these."""
        text = f"{_segment({'typ': 'JWT', 'kid': self._key.kid, **header})}.{_segment(self._payload({}))}"
        signature = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
        return f"{text}.{_base64url(signature)}"


def _segment(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _at(time: datetime) -> int:
    return int(time.timestamp())
