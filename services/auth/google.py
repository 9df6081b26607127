"""Google ID tokens, checked with google-auth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from libs.common.errors import UnavailableError
from services.auth.errors import InvalidGoogleTokenError
from services.auth.ports import GoogleIdentity

# Clocks of phones and servers differ; the token lives an hour.
_CLOCK_SKEW_S = 10


class GoogleAuthIdentities:
    """Accepts tokens made for one of `client_ids`. Google's certificates come over one kept-alive connection."""

    def __init__(self, client_ids: Sequence[str]) -> None:
        self._client_ids = list(client_ids)
        self._request = Request(requests.Session())

    async def identify(self, token: str) -> GoogleIdentity:
        """Raises InvalidGoogleTokenError; UnavailableError while Google's keys cannot be loaded."""
        try:
            claims = await asyncio.to_thread(self._verify, token)
        except TransportError as error:
            raise UnavailableError("Google cannot be reached right now, please try again in a moment") from error
        except (GoogleAuthError, ValueError) as error:
            raise InvalidGoogleTokenError from error
        return identity_of(claims)

    def _verify(self, token: str) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = id_token.verify_oauth2_token(  # type: ignore[no-untyped-call]
            token, self._request, self._client_ids, clock_skew_in_seconds=_CLOCK_SKEW_S
        )
        return claims


def identity_of(claims: Mapping[str, Any]) -> GoogleIdentity:
    """The claims of https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload."""
    subject, email = claims.get("sub"), claims.get("email")
    if not isinstance(subject, str) or not isinstance(email, str):
        raise InvalidGoogleTokenError("The Google token has no email address, please allow access to it")
    return GoogleIdentity(
        subject=subject,
        email=email,
        email_verified=claims.get("email_verified") is True,
        name=claims.get("name"),
        picture=claims.get("picture"),
    )
