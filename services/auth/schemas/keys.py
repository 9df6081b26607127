"""Public keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class JsonWebKey(BaseModel):
    """A public Ed25519 key (RFC 8037)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"
    kid: str
    x: str


class JwksOut(BaseModel):
    """The keys that tokens may be signed with right now (RFC 7517)."""

    keys: list[JsonWebKey]
